"""An interrupted script says one line and ends, whatever it was about to do."""

from __future__ import annotations

import os
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
