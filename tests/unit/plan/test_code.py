from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SCRIPTS
from sao.plan import code
from sao.plan.code import code_hash

ALL = sorted(path.stem for path in SCRIPTS.glob("*.py"))


@pytest.fixture(autouse=True, scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this module keeps what has been parsed: changed modules are none that a start of Snakemake asks for."""
    path = tmp_path_factory.mktemp("kept") / "code.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_KNOWN", code._Known(path))
        yield path


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A copy of the project's scripts, which tests may change."""
    return shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))


# The modules that declare that they decide no result. To add one here is to promise it.
ASIDE = {
    f"sao/{name}.py"
    for name in (
        "base/command",
        "base/vouched",
        "hub/bars",
        "training/checks",
        "training/loggers",
        "training/memory",
        "training/scratch",
    )
}


def hashes(scripts: Path) -> dict[str, str]:
    return {name: code_hash(scripts / f"{name}.py") for name in ALL}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def modules_at_run_time(script: str) -> set[str]:
    """The files in `scripts/` that a script loads at its start."""
    code = (
        f"import sys; sys.argv = ['x']; import {script}; root = sys.path[0] + '/'\n"
        "for m in list(sys.modules.values()): print((getattr(m, '__file__', '') or '').removeprefix(root))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[0] = {str(SCRIPTS)!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in done.stdout.splitlines() if line and not line.startswith("/")}


def test_nothing_but_the_code_counts(scripts: Path) -> None:
    """Comments, docstrings, formatting, time stamps and the folder of the scripts do not count."""
    before = hashes(SCRIPTS)
    assert hashes(scripts) == before
    for path in scripts.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Another docstring."))
        path.write_text("# A comment.\n\n" + ast.unparse(ast.fix_missing_locations(tree)) + "\n\n\n")
        os.utime(path, (0, 0))
    assert hashes(scripts) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1", "2"),
        ("1", "1.0"),
        ("1", "True"),
        ("1", "'1'"),
        ("1", "None"),
        ("x == 1", "x != 1"),
        ("x", "y"),
        ("def f(x)", "async def f(x)"),
        ("def f(x)", "def f(x=None)"),
        ("return", "yield"),
        ("return x", "'not a docstring'; return x"),
        ("f'{x}'", "f'{x!r}'"),
        ("f'{x}'", "'{x}'"),
    ],
)
def test_every_change_of_code_counts(tmp_path: Path, old: str, new: str) -> None:
    source = "def f(x):\n    '''Docstring.'''\n    if x == 1: return f'{x}'\n    return x\n"
    script = tmp_path / "script.py"
    script.write_text(source)
    before = code_hash(script)
    script.write_text(source.replace(old, new))
    assert code_hash(script) != before


def test_modules_that_decide_no_result_say_so_and_touch_no_sample(scripts: Path) -> None:
    found = {path for path in scripts.rglob("*.py") if "\nDECIDES_NO_RESULT = " in path.read_text(encoding="utf-8")}
    assert {path.relative_to(scripts).as_posix() for path in found} == ASIDE
    for path in found:
        imported = {
            name if name == "torch.utils.tensorboard" else name.split(".")[0]  # only writes a log
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not imported & {"numpy", "torch", "torchaudio", "soundfile", "random"}, path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old, text.count(old))
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("sao/base/command.py", "PLAIN_EVERY = 10.0", "PLAIN_EVERY = 20.0"),
        (
            "sao/training/memory.py",
            "from sao.base.command import InputError",
            "from sao.base.command import InputError\n\nX = 1",
        ),
        (
            "sao/training/optimizer.py",
            "at its first step: lower the learning rate",
            "at its first step: lower the rate",
        ),
        ("sao/rendering/prompts.py", "save the file as UTF-8", "save it as UTF-8"),
        ("sao/training/trainer.py", "resuming at step %d of %d, from %s", "going on at step %d of %d, from %s"),
        ("sao/training/checks.py", "SOCKET = 107 - 32", "SOCKET = 100"),
        ("sao/training/loggers.py", '"train/loss"', '"loss"'),
        ("train.py", "where to end: step-00000500 or epoch-00000003", "the leg's name"),
        ("sao/models/encoding.py", 'f"encoding {of.split}", unit="clips"', 'f"{of.split}: encoding", unit="sounds"'),
    ],
)
def test_a_changed_message_changes_no_identity(scripts: Path, module: str, old: str, new: str) -> None:
    before = hashes(scripts)
    replace(scripts / module, old, new)
    assert hashes(scripts) == before


@pytest.mark.parametrize(
    ("module", "old", "new", "rerun", "still"),
    [
        # One change each to a draw, the loss, resampling and a seed.
        (
            "sao/training/draws.py",
            "ndtri(u) * options",
            "2 * ndtri(u) * options",
            {"train"},
            {"encode", "render", "validate"},
        ),
        (
            "sao/training/objective.py",
            "error = (output - target) ** 2",
            "error = (target - output) ** 2",
            {"train"},
            {"encode", "render"},
        ),
        (
            "sao/models/autoencoder.py",
            "if up * down <= LARGEST",
            "if up * down < LARGEST",
            {"encode"},
            {"split", "validate"},
        ),
        (
            "sao/rendering/clips.py",
            '(seed, "render", clip)',
            '(seed, "renders", clip)',
            {"prompts", "render"},
            {"train", "encode"},
        ),
    ],
)
def test_a_changed_computation_changes_the_identity_of_what_uses_it(
    scripts: Path, module: str, old: str, new: str, rerun: set[str], still: set[str]
) -> None:
    before = hashes(scripts)
    replace(scripts / module, old, new)
    after = hashes(scripts)
    changed = {name for name in ALL if after[name] != before[name]}
    assert rerun <= changed and not still & changed


@pytest.mark.parametrize("changed", ["validate", "train"])
def test_a_script_counts_for_itself_alone(scripts: Path, changed: str) -> None:
    before = hashes(scripts)
    append(scripts / f"{changed}.py", "\nassert True\n")
    after = hashes(scripts)
    assert {name for name in ALL if after[name] != before[name]} == {changed}


@pytest.mark.parametrize("script", ["manifest", "dataset_configs", "split"])
def test_every_module_that_is_loaded_counts_and_no_other(scripts: Path, script: str) -> None:
    loaded = modules_at_run_time(script)
    assert "sao/base/command.py" in loaded and f"{script}.py" in loaded
    before = code_hash(scripts / f"{script}.py")
    for path in sorted(scripts.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        append(path, "\nassert True\n")
        counts = code_hash(scripts / f"{script}.py") != before
        name = path.relative_to(scripts).as_posix()
        assert counts == (name in loaded and name not in ASIDE), path
        path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    "statement",
    [
        "import sao.a",
        "import sao.a as x",
        "from sao import a",
        "from sao.a import f",
        "def g():\n    from sao.a import f",
        "if False:\n    import sao.a",
        "from sao import b",
        "import other",
    ],
)
def test_imports_of_every_form_are_followed_at_any_depth(tmp_path: Path, statement: str) -> None:
    files = {
        "script.py": statement,
        "other.py": "from sao import a",
        "sao/__init__.py": "",
        "sao/a.py": "from .deep.c import f",
        "sao/b.py": "from . import a",
        "sao/deep/__init__.py": "",
        "sao/deep/c.py": "from ..d import f",
        "sao/d.py": "from sao import a\nf = 1",
        "sao/unrelated.py": "f = 1",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source + "\n")
    before = code_hash(tmp_path / "script.py")
    append(tmp_path / "sao/unrelated.py", "f = 2\n")
    assert code_hash(tmp_path / "script.py") == before
    append(tmp_path / "sao/d.py", "f = 2\n")
    assert code_hash(tmp_path / "script.py") != before


def another_start(folder: Path, write: bool = True) -> str:
    """The hash of `<folder>/script.py` by a new process with modules of its own, and how many modules it had to parse."""
    program = (
        "import ast, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from sao.plan import code\n"
        "parse, parsed = ast.parse, []\n"
        "ast.parse = lambda *given, **more: parsed.append(given) or parse(*given, **more)\n"
        "print(code.code_hash(Path(sys.argv[2])), len(parsed))"
    )
    command = [
        sys.executable,
        *([] if write else ["-B"]),
        "-c",
        program,
        str(folder / "scripts"),
        str(folder / "script.py"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_module_is_parsed_once_and_anew_when_it_changed(scripts: Path, tmp_path: Path) -> None:
    script, kept = tmp_path / "script.py", scripts / "sao/plan/__pycache__"
    script.write_text("import other\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    identity = code_hash(script)
    assert another_start(tmp_path, write=False) == f"{identity} 2" and not kept.exists()
    assert another_start(tmp_path) == f"{identity} 2"
    assert another_start(tmp_path) == f"{identity} 0"
    # By its text, not by its time.
    stamps = (tmp_path / "other.py").stat()
    (tmp_path / "other.py").write_text("x = 2\n")
    os.utime(tmp_path / "other.py", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    changed = code_hash(script)
    assert changed != identity and another_start(tmp_path) == f"{changed} 1"
    # What is damaged, or was written by another version of the module that hashes, is not used.
    (file,) = kept.glob("*.json")
    whole = file.read_text()
    wrong = json.loads(whole) | {"version": "another"}
    for text in (whole[:100], "[]", "null", json.dumps(wrong)):
        file.write_text(text)
        assert another_start(tmp_path) == f"{changed} 2", text
        assert another_start(tmp_path) == f"{changed} 0"
    assert not [path for path in kept.iterdir() if path.suffix not in (".json", ".pyc")]


def test_where_nothing_can_be_written_all_is_parsed(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("x = 1\n")
    (scripts / "sao/plan/__pycache__").write_text("not a folder")
    assert another_start(tmp_path) == another_start(tmp_path) == f"{code_hash(tmp_path / 'script.py')} 1"


def test_what_is_kept_has_a_bound(tmp_path: Path) -> None:
    known = code._Known(tmp_path / "code.json")
    for number in range(code.MOST + 5):
        known.add(str(number), ("", []))
    known.keep()
    assert list(code._Known(known.path).modules) == [str(number) for number in range(5, code.MOST + 5)]
