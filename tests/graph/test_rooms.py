"""How the rooms of `scripts/sao` build on each other: never in a circle, and none on one above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import SCRIPTS

# From the ground up. A room imports from those before it alone.
ROOMS = (
    "base",
    "config",
    "sound",
    "hub",
    "models",
    "evaluation",
    "data",
    "training",
    "rendering",
    "exports",
    "pages",
    "plan",
)
MODULES = sorted(path for path in (SCRIPTS / "sao").rglob("*.py") if path.parent != SCRIPTS / "sao")


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_room_builds_on_those_below_it(path: Path) -> None:
    room = ROOMS.index(path.relative_to(SCRIPTS / "sao").parts[0])
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("sao.")}
    assert {other for other in rooms if ROOMS.index(other) > room} == set()


def test_every_room_says_what_it_is_for() -> None:
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((SCRIPTS / "sao" / room / "__init__.py").read_text(encoding="utf-8"))), room


def test_no_script_imports_a_script() -> None:
    names = {path.stem for path in SCRIPTS.glob("*.py")}
    for path in SCRIPTS.glob("*.py"):
        assert not imported(path) & names, path
