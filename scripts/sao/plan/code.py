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
from pathlib import Path


def code_hash(script: Path) -> str:
    """16 hex digits for a script and every module of the project that it imports, at any depth."""
    seen: dict[str, str] = {}
    _collect(script.resolve(), script.resolve().parent, seen)
    lines = "".join(f"{name} {text}\n" for name, text in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _collect(path: Path, root: Path, seen: dict[str, str]) -> None:
    name = path.relative_to(root).as_posix()
    if name in seen:
        return
    identity, imports = _read(path.read_text(encoding="utf-8"), str(path))
    if not identity:
        return
    seen[name] = identity
    for level, parts in imports:
        base = path.parents[level - 1] if level else root
        for depth in range(1, len(parts) + 1):
            target = base.joinpath(*parts[:depth])
            for module in (target.with_suffix(".py"), target / "__init__.py"):
                if module.is_file():
                    _collect(module, root, seen)


# Cached, because every start of Snakemake hashes all scripts, and most modules are imported by many of them.
@functools.cache
def _read(text: str, path: str) -> tuple[str, list[tuple[int, tuple[str, ...]]]]:
    """The hash of a module and `(level, parts)` of every name that it imports. The hash is empty if it decides no result."""
    tree = ast.parse(text, filename=path)
    if any(isinstance(node, ast.Assign) and _name(node.targets[0]) == MARK for node in tree.body):
        return "", []
    imports: dict[tuple[int, tuple[str, ...]], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {(0, tuple(alias.name.split("."))): None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = tuple(node.module.split(".")) if node.module else ()
            imports |= {(node.level, (*stem, *name)): None for name in ((), *((alias.name,) for alias in node.names))}
    return hashlib.sha256(_canonical(tree).encode()).hexdigest(), list(imports)


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


# Nodes that may have a docstring. (A union inside the call of isinstance would be made anew for each node.)
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _canonical(node: ast.AST) -> str:
    """Like `ast.dump`, but without docstrings, texts for people, positions, and empty fields.

    Empty fields differ between Python versions.
    """
    if isinstance(node, ast.Call):
        node = _without_words(node)
    if isinstance(node, _DOCUMENTED) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]
    fields = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("type_comment", "kind"):
            continue
        if isinstance(value, list):
            value = [v for v in value if not _is_log_line(v)]
            text = "[" + ",".join([_canonical(v) if isinstance(v, ast.AST) else repr(v) for v in value]) + "]"
        else:
            text = _canonical(value) if isinstance(value, ast.AST) else repr(value)
        fields.append(f"{name}={text}")
    return f"{type(node).__name__}({','.join(fields)})"
