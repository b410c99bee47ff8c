"""Hash the code that decides an artefact, and nothing else. In a rule's params, this hash is an exact rerun trigger.

The hash leaves out:

- comments, docstrings, formatting and time stamps;
- the words of messages, log lines, progress bars and help texts;
- modules that decide no result, such as bars, estimates of memory and checks. They have a line
  `DECIDES_NO_RESULT = "why"`, and tests/unit/plan/test_code.py checks that it is true.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def code_hash(script: Path) -> str:
    """16 hex digits for a script and every module of the project that it imports, at any depth."""
    script = script.resolve()
    root, seen, todo = str(script.parent), dict[str, str](), [str(script)]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen[path], imports = _read(Path(path).read_text(encoding="utf-8"), path, root)
            todo += imports
    names = {path.removeprefix(f"{root}/"): identity for path, identity in seen.items() if identity}
    lines = "".join(f"{name} {identity}\n" for name, identity in sorted(names.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


# Cached, because every start of Snakemake hashes all scripts, and most modules are imported by many of them.
@functools.cache
def _read(text: str, path: str, root: str) -> tuple[str, list[str]]:
    """The hash of a module, and the project's modules that it imports. The hash is empty if it decides no result."""
    tree = ast.parse(text, filename=path)
    if any(isinstance(node, ast.Assign) and _name(node.targets[0]) == MARK for node in tree.body):
        return "", []
    imports: list[ast.Import | ast.ImportFrom] = []
    identity = hashlib.sha256(_canonical(tree, imports).encode()).hexdigest()
    return identity, list(dict.fromkeys(file for node in imports for file in _modules(node, path, root)))


def _modules(node: ast.Import | ast.ImportFrom, path: str, root: str) -> Iterator[str]:
    """The files in `root` that one import in the module at `path` loads."""
    base, stem = root, ""
    if isinstance(node, ast.ImportFrom):
        base = str(Path(path).parents[node.level - 1]) if node.level else root
        stem = f"{node.module}." if node.module else ""
    for alias in node.names:
        target = base
        for part in f"{stem}{alias.name}".split("."):
            target = f"{target}/{part}"
            # A `Path` takes ten times as long to make, and there are thousands.
            files = [file for file in (f"{target}.py", f"{target}/__init__.py") if os.path.isfile(file)]  # noqa: PTH113
            if not files and not os.path.isdir(target):  # noqa: PTH112
                break  # a library, or a name in a module
            yield from files


MARK = "DECIDES_NO_RESULT"
# Calls with texts for people: how many of their first arguments decide something. The other arguments do not.
WORDS = {"InputError": 0, "progress": 1, "check_room": 2, "output_to_log": 0}
# Keyword arguments that are texts for people, by the method that takes them.
HELP = {"add_argument": {"help", "metavar"}, "ArgumentParser": {"description", "epilog"}}


def _name(node: ast.AST) -> str:
    """The last name of an expression: `f` for both `f` and `module.f`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_log_line(node: ast.AST) -> bool:
    """Whether a statement only writes to the log."""
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    of_log = isinstance(call.func, ast.Attribute) and _name(call.func.value) == "log"
    return of_log or _name(call.func) == "report"


def _without_words(call: ast.Call) -> ast.Call:
    """A call without its texts for people."""
    name = _name(call.func)
    if name in WORDS:
        return ast.Call(call.func, call.args[: WORDS[name]], [])
    if name in HELP:
        return ast.Call(call.func, call.args, [word for word in call.keywords if word.arg not in HELP[name]])
    return call


# Nodes that may have a docstring, and imports. (A union inside the call of isinstance would be made anew for each node.)
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_SKIPPED = ("ctx", "type_comment", "kind")


def _canonical(tree: ast.Module, imports: list[ast.Import | ast.ImportFrom]) -> str:
    """Like `ast.dump`, but without docstrings, texts for people, positions, and what is empty or follows from the rest.

    Imports on the way are added to `imports`. Empty fields differ between Python versions.
    """
    parts: list[str] = []
    _write(tree, imports, parts.append)
    return "".join(parts)


def _write(node: ast.AST, imports: list[ast.Import | ast.ImportFrom], put: Callable[[str], None]) -> None:
    if isinstance(node, ast.Call):
        node = _without_words(node)
    elif isinstance(node, _DOCUMENTED) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]
    elif isinstance(node, _IMPORTS):
        imports.append(node)
    put(f"{type(node).__name__}(")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in _SKIPPED:
            continue
        put(f"{name}=")
        if isinstance(value, list):
            put("[")
            for each in value:
                if isinstance(each, ast.AST):
                    if not _is_log_line(each):
                        _write(each, imports, put)
                else:
                    put(repr(each))
                put(",")
            put("]")
        elif isinstance(value, ast.AST):
            _write(value, imports, put)
        else:
            put(repr(value))
        put(",")
    put(")")
