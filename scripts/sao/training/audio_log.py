"""Send sounds of a training to Weights & Biases and TensorBoard, beside what the training itself logs there.

Sounds have a run of their own in both. In Weights & Biases a second process that goes on with a run writes over the lines of
the first, and in TensorBoard a second file in a folder ends the reading of the first.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sao.base.command import log, output_to_log

from sao.training.loggers import PATIENCE


@dataclass(frozen=True)
class Heard:
    """A sound to log."""

    tag: str  # the same for all legs
    step: int
    prompt: str
    model: str  # what it comes from; empty for a recording
    path: Path


def log_to_tensorboard(folder: Path, sounds: Sequence[Heard], leg: str) -> None:
    """Write the sounds of a leg to a file of events of its own, with the prompts as descriptions.

    `folder` is TensorBoard's of the run. What was written of this leg before is removed.
    """
    import soundfile
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.data_compat import make_summary
    from tensorboard.plugins.audio.metadata import Encoding, create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    place = folder / "audio"
    for old in place.glob(f"*.{leg}"):
        old.unlink()
    writer = EventFileWriter(str(place), filename_suffix=f".{leg}")
    for sound in sounds:
        samples, rate = soundfile.read(sound.path, dtype="float32", always_2d=True)
        wav = io.BytesIO()  # the only form that TensorBoard plays
        soundfile.write(wav, samples, rate, subtype="PCM_16", format="WAV")
        wave = Encoding.Value("WAV")
        metadata = create_summary_metadata(display_name=sound.tag, description=sound.prompt, encoding=wave)
        value = make_summary(sound.tag, metadata, [[wav.getvalue(), b""]])  # with an empty label
        writer.add_event(Event(step=sound.step, wall_time=sound.path.stat().st_mtime, summary=Summary(value=[value])))
    writer.close()


def log_to_wandb(
    run: str, leg: str, settings: Mapping[str, Any], identity: str, folder: Path, sounds: Sequence[Heard]
) -> str | None:
    """Write the sounds of a leg to Weights & Biases' files in `folder`, and send them with mode `online`.

    All legs with one `identity` go on in one of its runs, in the group of the training. A leg is written and sent once, however
    often it is logged. Returns why the sounds were not sent, if they were to be: the files can be sent later.
    """
    before = sorted((folder / "wandb").glob(f"offline-run-*-{identity}/{leg}"))
    written = before[0].parent if before else _write(run, settings["project"], identity, folder, sounds)
    (written / leg).touch()
    return None if settings["mode"] == "offline" or _is_sent(written) else _send(written, folder)


def _write(run: str, project: str, identity: str, folder: Path, sounds: Sequence[Heard]) -> Path:
    """Write sounds to a folder that Weights & Biases' client can send; returns it."""
    with output_to_log():
        import wandb

        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        session = wandb.init(
            project=project,
            mode="offline",
            name=f"{run} audio",
            group=run,
            job_type="audio",
            id=identity,
            dir=folder,
        )
        for step in sorted({sound.step for sound in sounds}):
            of_step = [sound for sound in sounds if sound.step == step]
            session.log({s.tag: wandb.Audio(str(s.path), caption=caption(s)) for s in of_step}, step=step)
        session.finish()
    return Path(session.dir).parent


def _is_sent(written: Path) -> bool:
    return any(written.glob("*.synced"))


def caption(sound: Heard) -> str:
    return f"{sound.prompt} ({sound.model})" if sound.model else sound.prompt


def _send(written: Path, folder: Path) -> str | None:
    """Send the files of a run that was written offline; returns why that failed, if it did."""
    command = [sys.executable, "-m", "wandb", "sync", "--append", str(written.resolve())]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"it did not answer within {PATIENCE} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the service that the client starts
            process.wait()
    log.info("%s", said.strip())
    if _is_sent(written):  # the exit code is 0 without a connection, too
        return None
    return (re.findall(r"Error: (.+)", said) or [f"exit code {process.returncode}"])[-1]
