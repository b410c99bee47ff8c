"""The identity of the code that makes an artefact: what it does, not how it is written down.

A comment, a docstring or a reformatting changes nothing; neither does a file's time stamp, nor a script that
this one does not import. Put into a rule's params, it is an exact rerun trigger.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path


def code_hash(script: Path) -> str:
    """16 hex digits over a script and every module beside it that it imports, at any depth."""
    seen: dict[str, str] = {}
    _collect(script.resolve(), script.resolve().parent, seen)
    lines = "".join(f"{name} {text}\n" for name, text in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _collect(path: Path, root: Path, seen: dict[str, str]) -> None:
    name = path.relative_to(root).as_posix()
    if name in seen:
        return
    seen[name], imports = _read(path.read_text(encoding="utf-8"), str(path))
    for level, parts in imports:
        base = path.parents[level - 1] if level else root
        for depth in range(1, len(parts) + 1):
            target = base.joinpath(*parts[:depth])
            for module in (target.with_suffix(".py"), target / "__init__.py"):
                if module.is_file():
                    _collect(module, root, seen)


# Most modules are imported by many scripts, and all scripts are hashed at every start of Snakemake.
@functools.cache
def _read(text: str, path: str) -> tuple[str, list[tuple[int, tuple[str, ...]]]]:
    """The hash of a module, and `(level, parts)` of every name that it imports."""
    tree = ast.parse(text, filename=path)
    imports: dict[tuple[int, tuple[str, ...]], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {(0, tuple(alias.name.split("."))): None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = tuple(node.module.split(".")) if node.module else ()
            imports |= {(node.level, (*stem, *name)): None for name in ((), *((alias.name,) for alias in node.names))}
    return hashlib.sha256(_canonical(tree).encode()).hexdigest(), list(imports)


# With a docstring, maybe. (A union in the call would be made anew for each node.)
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _canonical(node: ast.AST) -> str:
    """Like `ast.dump` without docstrings, positions and empty fields (which differ between Python versions)."""
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
            text = "[" + ",".join([_canonical(v) if isinstance(v, ast.AST) else repr(v) for v in value]) + "]"
        else:
            text = _canonical(value) if isinstance(value, ast.AST) else repr(value)
        fields.append(f"{name}={text}")
    return f"{type(node).__name__}({','.join(fields)})"
