"""A full disk gives one error line, whatever a library raises, and no half-written file stays under its name."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FORKS, SCRIPTS, assert_fails, assert_succeeds, copy_checkout, listing, needs_mount, small_disk
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.base.files import check_room, existing, full_disk, mount_point, whole, whole_folder, writing

# Each writes 4 MB to a path. It runs in a process of its own, like a script.
WRITERS = {
    "np.save": "import numpy; numpy.save(open(path, 'wb'), numpy.ones(500000))",
    "np.savez": "import numpy; numpy.savez(open(path, 'wb'), a=numpy.random.rand(500000))",
    "torch.save": "import torch; torch.save(torch.ones(1000000), path)",
    "safetensors": "import torch; from safetensors.torch import save_file; save_file({'a': torch.ones(1000000)}, path)",
    "wav": "import numpy, soundfile; soundfile.write(path, numpy.random.rand(2000000), 8000, format='WAV')",
    "flac": "import numpy, soundfile; soundfile.write(path, numpy.random.rand(2000000) * 2 - 1, 8000, format='FLAC')",
    "text": "path.write_text('x' * 4000000)",
    "handle": "print('x' * 4000000, file=open(path, 'w'))",
    "csv": "import pandas; pandas.DataFrame({'a': range(1000000)}).to_csv(path)",
    "copy": "import shutil; shutil.copyfile(sys.argv[2], path)",
    "picture": "from matplotlib import pyplot; pyplot.figure(figsize=(30, 30)).savefig(path, format='raw', dpi=100)",
}
OURS = {
    "state": "from sao.training.state import save_state; import torch; save_state(path, {'a': torch.ones(1000000)})",
    "render": "import numpy; from sao.sound.write import write_sound; sound = numpy.random.rand(1000000, 1) - 0.5\n"
    "write_sound(path.with_suffix('.wav'), sound, 8000, 'PCM_16', 'title', {})",
}
WRITE = """
import argparse, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from sao.base.command import parse, run
from sao.base.files import whole
def main():
    with {context} as path:
        {code}
run(main)
"""


def writer(folder: Path, context: str, code: str) -> Path:
    """A script of the form of `WRITE`."""
    path = folder / "scripts/write.py"
    path.parent.mkdir()
    path.write_text(WRITE.format(context=context, code=code.replace("\n", "\n        ")))
    return path


@needs_mount
@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_is_one_line_with_disk_and_bytes(tmp_path: Path, kind: str) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(4_000_000))
    script = writer(tmp_path, "whole(Path(sys.argv[1]), 4_000_000)", WRITERS[kind])
    target = tmp_path / "small/file"
    result = small_disk(target.parent, "1m", [sys.executable, script, SCRIPTS, target, large])
    assert_fails(result, "small/file", "the disk is full", f"({target.parent}: ", "4.0 MB are needed", "make room")
    assert "file" not in listing(Path(f"{target.parent}.after"))


@needs_mount
def test_a_disk_that_takes_no_more_files_is_not_called_full(tmp_path: Path) -> None:
    script = writer(tmp_path, "whole(Path(sys.argv[1]), 4)", "path.write_text('text')")
    target = tmp_path / "small/file"
    result = small_disk(target.parent, "1m,nr_inodes=1", [sys.executable, script, SCRIPTS, target])
    assert_fails(
        result,
        "small/file",
        "a quota, or the number of files on the disk, is used up",
        f"({target.parent}: ",
        "make room",
    )


@needs_mount
@pytest.mark.parametrize("kind", OURS)
def test_what_is_written_here_knows_its_bytes(tmp_path: Path, kind: str) -> None:
    script = writer(tmp_path, "__import__('contextlib').nullcontext(Path(sys.argv[1]))", OURS[kind])
    target = tmp_path / "small/file"
    result = small_disk(target.parent, "1m", [sys.executable, script, SCRIPTS, target])
    assert_fails(result, target, "the disk is full", f"({target.parent}: ", "4.0 MB are needed")


@needs_mount
@pytest.mark.parametrize("kind", ["np.save", "torch.save", "wav", "safetensors", "text"])
def test_full_disk_is_told_outside_of_what_is_written_whole_too(tmp_path: Path, kind: str) -> None:
    script = writer(tmp_path, "__import__('contextlib').nullcontext(Path(sys.argv[1]))", WRITERS[kind])
    target = tmp_path / "small/file"
    # If the error names no file, the script looks at the folder in which it started.
    command = [FORKS[0].python(), script, SCRIPTS, target, "x"]
    result = small_disk(target.parent, "1m", ["sh", "-c", 'cd "$0" && exec "$@"', target.parent, *command])
    assert_fails(result, "the disk is full", f"({target.parent}: ", "make room")


KILLS = {
    "whole": "path.write_text('half'); import os; os.kill(os.getpid(), 9)",
    "whole_folder": "(path / 'half').touch(); import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("kind", KILLS)
def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "a.b"
    script = WRITE.format(
        context=f"__import__('sao.base.files').base.files.{kind}(Path(sys.argv[1]))", code=KILLS[kind]
    )
    for path in (target, tmp_path / "other"):
        assert subprocess.run([sys.executable, "-c", script, SCRIPTS, path]).returncode == -9
    (left,) = tmp_path.glob(".a.b.part*")
    stays = {*tmp_path.glob(".other.part*"), tmp_path / f".a.b.part{os.getppid()}", tmp_path / ".a.b.part"}
    for path in stays:
        path.touch()
    with {"whole": whole, "whole_folder": whole_folder}[kind](target) as temporary:
        (temporary / "all" if kind == "whole_folder" else temporary).touch()
    assert set(tmp_path.iterdir()) == stays | {target} and left not in stays


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    for name, error in (("half", KeyboardInterrupt), ("all", None)):
        with pytest.raises(error) if error else contextlib.nullcontext(), whole_folder(target) as temporary:
            (temporary / name).touch()
            if error:
                raise error
        assert listing(tmp_path) == {"folder/old" if error else "folder/all"}
        assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "error", [RuntimeError("System error."), OSError("1 requested and 0 written"), ValueError("No such number")]
)
def test_other_errors_are_left_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), whole(tmp_path / "file"):
        raise error
    assert full_disk(error, tmp_path) is None


def test_an_input_error_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^mine$"), writing(tmp_path):
        raise InputError("mine")


@given(st.lists(st.sampled_from(["a", "b", "..", "c d"]), max_size=4))
def test_nearest_folder_that_is_there_is_on_a_disk(parts: list[str]) -> None:
    folder = existing(Path("/tmp", *parts, "none"))
    assert folder.exists() and mount_point(folder).is_mount()


def test_room_is_asked_for_before_the_folder_is_there(tmp_path: Path) -> None:
    check_room(tmp_path / "none/here", 1, "things")
    with pytest.raises(InputError, match=r"none/here: things need 1000000000.00 GB, .* are free on .*: make room"):
        check_room(tmp_path / "none/here", 1e18, "things")


@needs_mount
def test_room_is_checked_before_a_model_is_loaded(base_model: Path, splits: Path, tmp_path: Path) -> None:
    from prompt_tables import SAMPLING, run_prompts

    folder = tmp_path / "small"
    clips = tmp_path / "clips.csv"
    assert_succeeds(run_prompts(base_model, splits, clips, clips={"evaluation": "all", "train": "all"}))
    settings = {"loudness": None, "format": "wav16", "precision": "auto", "sampling": SAMPLING, "train_seconds": None}
    command = [
        sys.executable, SCRIPTS / "render.py", "--run", "mine", "--weights", base_model / "model.safetensors",
        "--weights-digest", base_model / "checksums.sha256", "--model", base_model, "--code", "x",
        "--model-digest", base_model / "checksums.sha256", "--clips", clips,
        "--settings", json.dumps(settings), "--output", folder / "out", "--table", tmp_path / "out.csv",
    ]  # fmt: skip
    result = small_disk(folder, "64k", command)
    assert_fails(result, folder / "out", "the sounds of", "0.1 MB are free on", folder, "make room")
    assert listing(Path(f"{folder}.after")) == set()


@needs_mount
@pytest.mark.parametrize("folder", [".snakemake", "temporary"])
def test_snakemake_starts_nothing_that_it_could_not_write_down(tmp_path: Path, folder: str) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    command = [
        "env",
        f"TMPDIR={checkout / folder}",
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "1",
        "results/data/demo/splits/train.csv",
    ]
    result = small_disk(checkout / folder, "4k", command, cwd=checkout)
    said = result.stdout + result.stderr
    assert result.returncode == 1 and "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if "make room" in line]
    assert f"of Snakemake need 1.0 MB, 0.0 MB are free on {checkout / folder}: make room, then run again" in line
    assert not (checkout / "results").exists()
