"""Hash the code that decides an artefact, and nothing else. In a rule's params, this hash is an exact rerun trigger.

The hash leaves out:

- comments, docstrings, formatting and time stamps;
- the words of messages, log lines, progress bars and help texts;
- modules that decide no result, such as bars, estimates of memory and checks. They have a line
  `DECIDES_NO_RESULT = "why"`, and tests/unit/plan/test_code.py checks that it is true.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def code_hash(script: Path, read: Callable[[str], str] = read_text) -> str:
    """16 hex digits for a script and every module of the project that it imports, at any depth.

    `read` gives the text of a module: who hashes many scripts may have it read each module once.
    """
    script = script.resolve()
    root, seen, todo = str(script.parent), dict[str, str](), [str(script)]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen[path], imports = _read(read(path), path, root)
            todo += imports
    _KNOWN.keep()
    names = {path.removeprefix(f"{root}/"): identity for path, identity in seen.items() if identity}
    lines = "".join(f"{name} {identity}\n" for name, identity in sorted(names.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


# The hash of a module's code, and its imports: level of a relative one, module, names.
Parsed = tuple[str, list[tuple[int, str, list[str]]]]


# Cached, because every start of Snakemake hashes all scripts, and most modules are imported by many of them.
@functools.cache
def _read(text: str, path: str, root: str) -> tuple[str, list[str]]:
    """The hash of a module, and the project's modules that it imports. The hash is empty if it decides no result."""
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in _KNOWN.modules:
        _KNOWN.add(key, _parse(text, path))
    identity, imports = _KNOWN.modules[key]
    return identity, list(dict.fromkeys(file for each in imports for file in _modules(*each, path, root)))


def _parse(text: str, path: str) -> Parsed:
    tree = ast.parse(text, filename=path)
    if any(isinstance(node, ast.Assign) and _name(node.targets[0]) == MARK for node in tree.body):
        return "", []
    nodes: list[ast.Import | ast.ImportFrom] = []
    identity = hashlib.sha256(_canonical(tree, nodes).encode()).hexdigest()
    imports = []
    for node in nodes:
        level, module = (node.level, node.module or "") if isinstance(node, ast.ImportFrom) else (0, "")
        imports.append((level, module, [alias.name for alias in node.names]))
    return identity, imports


class _Known:
    """What has been parsed, by the SHA-256 of a module's text. It is kept in a file beside the bytecode of this module.

    To parse all modules takes a third of a second, which is most of what this project adds to a start of Snakemake. As with
    bytecode, nothing is kept where Python is told to write none, or cannot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # another one may hash in another way
        self.added = False

    @functools.cached_property
    def modules(self) -> dict[str, Parsed]:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return kept["modules"] if kept["version"] == self.version else {}
        except (OSError, ValueError, LookupError, TypeError):  # it is not there, or is damaged: it is made anew
            return {}

    def add(self, key: str, parsed: Parsed) -> None:
        while len(self.modules) >= MOST:
            del self.modules[next(iter(self.modules))]  # the oldest
        self.modules[key] = parsed
        self.added = True

    def keep(self) -> None:
        """Write the file, if anything was added."""
        if not self.added or sys.dont_write_bytecode:
            return
        self.added = False
        temporary = self.path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a folder that one may not write to, or a full disk
            try:
                temporary.write_text(json.dumps({"version": self.version, "modules": self.modules}), encoding="utf-8")
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)


MOST = 500  # modules that are kept, in all their versions
_KNOWN = _Known(Path(importlib.util.cache_from_source(__file__)).with_suffix(".json"))


def _modules(level: int, module: str, names: list[str], path: str, root: str) -> Iterator[str]:
    """The files in `root` that one import in the module at `path` loads."""
    base = str(Path(path).parents[level - 1]) if level else root
    for name in names:
        target = base
        for part in f"{module}.{name}".removeprefix(".").split("."):
            target = f"{target}/{part}"
            files, goes_on = _files(target)
            if not goes_on:
                break  # a library, or a name in a module
            yield from files


@functools.cache  # most imports are of the same few modules
def _files(target: str) -> tuple[list[str], bool]:
    """The files of a module or package without its suffix, and whether it is there at all."""
    # A `Path` takes ten times as long to make, and there are thousands.
    files = [file for file in (f"{target}.py", f"{target}/__init__.py") if os.path.isfile(file)]  # noqa: PTH113
    return files, bool(files) or os.path.isdir(target)  # noqa: PTH112


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
