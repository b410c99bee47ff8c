"""The identity of the code that makes an artefact: what it does, not how it is written down.

A comment, a docstring or a reformatting changes nothing; neither does a file's time stamp, nor a script that
this one does not import. Put into a rule's params, it is an exact rerun trigger.
"""

from __future__ import annotations

import ast
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
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    seen[name] = hashlib.sha256(_canonical(tree).encode()).hexdigest()
    for node in ast.walk(tree):
        for module in _imported(node, path, root):
            _collect(module, root, seen)


def _imported(node: ast.AST, path: Path, root: Path) -> list[Path]:
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
        base = root
    elif isinstance(node, ast.ImportFrom):
        stem = node.module.split(".") if node.module else []
        names = [stem, *([*stem, alias.name] for alias in node.names)]
        base = path.parents[node.level - 1] if node.level else root
    else:
        return []
    files = []
    for parts in names:
        for depth in range(1, len(parts) + 1):
            target = base.joinpath(*parts[:depth])
            files += [f for f in (target.with_suffix(".py"), target / "__init__.py") if f.is_file()]
    return files


def _canonical(node: ast.AST) -> str:
    """Like `ast.dump` without docstrings, positions and empty fields (which differ between Python versions)."""
    if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]
    fields = []
    for name, value in ast.iter_fields(node):
        if name in ("type_comment", "kind") or value in (None, []):
            continue
        if isinstance(value, list):
            text = "[" + ",".join(_canonical(v) if isinstance(v, ast.AST) else repr(v) for v in value) + "]"
        else:
            text = _canonical(value) if isinstance(value, ast.AST) else repr(value)
        fields.append(f"{name}={text}")
    return f"{type(node).__name__}({','.join(fields)})"
