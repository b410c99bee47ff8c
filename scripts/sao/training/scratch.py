"""A copy of the clips on a disk of the machine itself, for trainings on a shared file system that is slow to seek."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sao.base.command import log, progress

from sao.base.files import size_text
from sao.training.dataset import Clips

DECIDES_NO_RESULT = "the same bytes, read from another disk"

COPIES = 16  # at a time: each waits for the network more than it works


@contextlib.contextmanager
def on_scratch(sets: list[Clips], identity: str, first: bool, barrier: Callable[[], object]) -> Iterator[None]:
    """Have `sets` read from a copy of their files in `$TMPDIR`, which goes with the block.

    All processes of a training enter; the `first` of each machine copies while the others wait at `barrier`. Where the
    copy cannot be made, a warning says why, and the clips are read where they are: it is the same training.
    """
    # One for each training of each job: the processes of a job share its number, or their process group.
    folder = Path(tempfile.gettempdir(), f"sao-{identity}-{os.environ.get('SLURM_JOB_ID') or os.getpgid(0)}")
    files = sorted({path for clips in sets for path in clips.files()})
    places = {parent: folder / str(number) for number, parent in enumerate(dict.fromkeys(f.parent for f in files))}
    try:
        if first:
            try:
                _copy(files, places, folder)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                log.warning("warning: clips are read where they are: no copy in %s: %s", folder.parent, error)
        barrier()
        if folder.is_dir():
            for clips in sets:
                clips.places = places
        yield
    finally:
        for clips in sets:
            clips.places = {}
        if first:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(files: list[Path], places: dict[Path, Path], folder: Path) -> None:
    size, free = sum(path.stat().st_size for path in files), shutil.disk_usage(folder.parent).free
    if size > free:
        raise OSError(f"{size_text(size)} are needed, {size_text(free)} are free")
    for place in places.values():
        place.mkdir(parents=True)
    with ThreadPoolExecutor(COPIES) as pool:
        copies = pool.map(lambda path: shutil.copyfile(path, places[path.parent] / path.name), files)
        for _ in progress(copies, "copying clips", len(files), "files"):
            pass  # an error of a copy is raised here
    log.info("clips are read from a copy in %s: %d files, %s", folder, len(files), size_text(size))
