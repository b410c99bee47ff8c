"""An interrupted script prints one line and ends, whatever it was doing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS, assert_fails

WAITING = "import time, pathlib; pathlib.Path({ready!r}).touch(); time.sleep(60)\n"


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not made"
        time.sleep(0.01)


def end_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    return subprocess.CompletedProcess([], process.returncode, "", stderr)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    ("script", "library"),
    [("collect", "pandas"), ("download", "requests"), ("train", "pandas"), ("scan", "soundfile")],
)
def test_libraries_on_the_way_in_leave_no_traceback(tmp_path: Path, script: str, library: str, sent: int) -> None:
    ready = tmp_path / "ready"
    (tmp_path / f"{library}.py").write_text(WAITING.format(ready=str(ready)))
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, SCRIPTS / f"{script}.py"], env=env, stderr=subprocess.PIPE, text=True)
    wait_for(ready)
    process.send_signal(sent)
    assert assert_fails(end_of(process), "interrupted").startswith(f"{script}: error: ")


def test_the_last_line_of_a_failed_log_runs_the_job_again(tmp_path: Path) -> None:
    """The job runs in the same folder, with the settings in a file that the user can edit."""
    settings = {
        "method": "official",
        "train": ["it's"],
        "validation": [],
        "evaluation": [],
        "seed": None,
        "fractions": None,
    }
    command = [sys.executable, SCRIPTS / "split.py", "--manifest", "a b.csv", "--settings", json.dumps(settings)]
    command += ["--validation-report", "none.json", "--dropped", "x.csv", "--output", "out", "--log", "logs/split.log"]
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    line = assert_fails(failed, "none.json", "missing")
    *_, last = (tmp_path / "logs/split.log").read_text(encoding="utf-8").splitlines()
    again = subprocess.run(["bash", "-c", last.partition(" again: ")[2]], capture_output=True, text=True)
    assert assert_fails(again) == line
    assert json.loads((tmp_path / "logs/split.settings.json").read_text(encoding="utf-8")) == settings
    (tmp_path / "none.json").write_text("{}")
    again = subprocess.run(["bash", "-c", last.partition(" again: ")[2]], capture_output=True, text=True)
    assert_fails(again, "a b.csv")


def test_waiting_threads_leave_the_processor_to_others() -> None:
    """GNU OpenMP reads the limit when torch is loaded, so the frame is imported before torch. A user's own limit stays."""
    code = f"import os, sys; sys.path.insert(0, {str(SCRIPTS)!r}); import sao.base.command; assert 'torch' not in sys.modules; "
    code += "print(os.environ['GOMP_SPINCOUNT'])"
    env = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    for more, limit in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        done = subprocess.run([sys.executable, "-c", code], env=env | more, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == limit


def test_every_script_imports_the_frame_before_any_library() -> None:
    for script in SCRIPTS.glob("*.py"):
        imports = re.findall(r"^(?:from|import) (\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
        libraries = [name for name in imports if name.split(".")[0] not in sys.stdlib_module_names]
        assert libraries[0] == "sao.base.command", script.name


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_an_allocation_that_fails_is_one_line(library: str) -> None:
    """Numbers that no machine holds, asked of the libraries themselves."""
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); from sao.base.command import run; import {library}; "
    code += f"run(lambda: {library}.ones(1 << 55))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert_fails(done, "out of memory", "raise mem_mb of this rule")
