"""The frame of every script: it parses arguments, logs, shows progress, and turns errors into one clear line.

A script calls `run(main)`, and `main` calls `parse` first. Errors that a user can cause are raised as `InputError`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar

# Progress bars of libraries would hide ours; `progress` below enables its own. tqdm reads this when it is imported.
os.environ.setdefault("TQDM_DISABLE", "1")
# By default, PyTorch's waiting threads spin and take processor time from other work. Beside two busy processes on two
# cores, a training step then takes 7 times as long as with this limit. On an idle machine the limit costs 1 to 3 %.
# See GNU OpenMP's manual; torch reads this when it is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

DECIDES_NO_RESULT = "messages, progress and exit codes"

log = logging.getLogger("sao")
Item = TypeVar("Item")

TERMINAL = sys.stderr  # kept, because `output_to_log` redirects sys.stderr
OUTPUT: dict[str, Path] = {}  # where the script writes, for messages
DEVICE = "SAO_DEVICE"  # the variable with the config's `device`
BY_HAND: list[str] = []  # the command that runs this script again
PLAIN_EVERY = 10.0  # s between two progress lines without a terminal, at most
SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = "interrupted: no output is half-written; give the same command again to continue"


class InputError(Exception):
    """An error that a user can cause. Its one line says what is wrong, in which file and row, and what to do."""


@contextlib.contextmanager
def about(subject: object) -> Iterator[None]:
    """Begin the line of an InputError with its subject: `run demo`, or the path of a file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{subject}: {error}") from None


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set up logging to stderr and, with the added option `--log FILE`, to a file."""
    parser.add_argument("--log", type=Path, help="also write progress and messages to this file")
    args = parser.parse_args()
    if getattr(args, "output", None):
        OUTPUT["path"] = args.output
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.raiseExceptions = False  # if the disk of the log is full, only the error line should be shown
    log.handlers = [logging.StreamHandler(TERMINAL)]
    log.handlers[0].setFormatter(logging.Formatter(f"{Path(sys.argv[0]).stem}: %(message)s"))
    if not is_first():  # of several training processes only the first writes to the log
        log.handlers[0].setLevel(logging.ERROR)
    elif args.log:
        args.log.parent.mkdir(parents=True, exist_ok=True)
        log.addHandler(logging.FileHandler(args.log, mode="w", encoding="utf-8"))
        log.handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.handlers[1].flush()
        BY_HAND[:] = [by_hand(args.log)]
    return args


def by_hand(path: Path) -> str:
    """The command that runs this script again. JSON arguments are written to files beside the log `path`."""
    words = [os.path.abspath(sys.argv[0])]  # noqa: PTH100 - a path through a symbolic link should stay as it is
    for option, word in zip(sys.argv, sys.argv[1:], strict=False):
        if option.startswith("--") and word.startswith(("{", "[")):
            settings = path.with_suffix(f".{option.removeprefix('--')}.json")
            settings.write_text(word + "\n", encoding="utf-8")
            word = str(settings)
        words.append(word)
    chosen = [f"{DEVICE}={os.environ[DEVICE]}"] if DEVICE in os.environ else []
    return f"(cd {shlex.quote(str(Path.cwd()))} && {shlex.join([*chosen, sys.executable, *words])})"


def is_first() -> bool:
    """Whether this is the only process or the first of several that train together (under Lightning or SLURM)."""
    return os.environ.get("LOCAL_RANK", "0") == os.environ.get("SLURM_PROCID", "0") == "0"


@contextlib.contextmanager
def output_to_log() -> Iterator[None]:
    """Redirect stdout and stderr of libraries to the log file, so that only our progress is on the terminal."""
    files = [handler.stream for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    target = files[0] if files else TERMINAL
    with contextlib.redirect_stdout(target), contextlib.redirect_stderr(target):
        yield


def progress(
    items: Iterable[Item],
    label: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    size: Callable[[Item], int] | None = None,
    note: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yield the items and show progress: a bar on a terminal, plain lines elsewhere and in the log.

    The first line comes after a second, so that one sees early that all goes well, the next after two, after four, and
    so on up to PLAIN_EVERY.

    `size` gives the units that an item counts for (bytes, shown as MB or GB). `initial` units were done before. `note`
    gives a text to show as well, such as a loss.
    """
    from tqdm import tqdm

    total = len(items) if total is None and isinstance(items, Sized) else total
    start = last = time.monotonic()
    done, wait = initial, min(1.0, PLAIN_EVERY)

    def shown(amount: float, digits: int = 0) -> str:
        return tqdm.format_sizeof(amount, unit) if size else f"{amount:.{digits}f} {unit}"

    with tqdm(
        desc=label,
        total=total,
        unit=unit,
        unit_scale=bool(size),
        initial=initial,
        file=TERMINAL,
        disable=not TERMINAL.isatty(),
        leave=False,
    ) as bar:
        for item in items:
            yield item
            step = size(item) if size else 1
            done += step
            if note:
                bar.set_postfix_str(note(), refresh=False)
            bar.update(step)
            now = time.monotonic()
            if now - last >= wait:
                last, wait = now, min(2 * wait, PLAIN_EVERY)
                rate = (done - initial) / (now - start)
                counted = f"{shown(done)} of {shown(total)}" if total else shown(done)
                left = f", {tqdm.format_interval((total - done) / rate)} left" if total and rate else ""
                report(f"{label}: {counted}, {shown(rate, 1)}/s{left}{f', {note()}' if note else ''}")
    seconds = time.monotonic() - start
    report(f"{label}: {shown(done - initial)} in {seconds:.1f} s")


def report(message: str) -> None:
    """Write a progress line to the log file, and to stderr unless a bar is drawn there."""
    record = log.makeRecord(log.name, logging.INFO, "", 0, message, (), None)
    for handler in log.handlers:
        shown = isinstance(handler, logging.FileHandler) or not TERMINAL.isatty()
        if shown and record.levelno >= handler.level:
            handler.handle(record)


def run(main: Callable[[], None]) -> None:
    """Run `main` and exit: 0 on success, 1 after one line about an error, 130 after an interruption."""
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    try:
        main()
    except InputError as error:
        fail(str(error))
    except OSError as error:
        if message := _full_disk(error):
            fail(message)
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT) and error.filename:
            fail(f"{error.filename}: {error.strerror}")
        _unexpected(error)
    except KeyboardInterrupt:
        fail(INTERRUPTED, 130)
    except Exception as error:  # noqa: BLE001 - the outermost frame: the log gets the traceback, then exit 1
        if message := _full_disk(error):
            fail(message)
        if is_out_of_memory(error):
            fail(f"out of memory: {LARGER}")
        _unexpected(error)
    leave(0)


LARGER = "end what else uses memory here, take a machine or GPU with more, or, on a cluster, raise mem_mb of this rule"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in main memory or on a GPU. What torch raises on a CPU and on MPS has no class of its own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    texts = ("allocate memory", "MPS backend out of memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _full_disk(error: BaseException) -> str | None:
    """The message for an error from a full disk, in whatever file; None for any other error."""
    from sao.base.files import full_disk

    path = getattr(error, "filename2", None) or getattr(error, "filename", None) or OUTPUT.get("path") or "."
    return full_disk(error, Path(os.fsdecode(path)))


def fail(message: str, code: int = 1) -> None:
    """Report an error on the terminal and in the log, end the log with the command to run again, and exit."""
    log.error("error: %s", message) if log.handlers else print(f"error: {message}", file=TERMINAL)
    for handler in log.handlers if BY_HAND else ():
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, f"again: {BY_HAND[0]}", (), None))
    leave(code)


def leave(code: int) -> None:
    """Exit at once. sys.exit would wait for worker threads and pools, and unloading torch takes 1.4 s."""
    sys.stdout.flush()
    TERMINAL.flush()
    logging.shutdown()
    os._exit(code)


def _interrupted(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _not_begun(_signal: int, _frame: object) -> None:
    os.write(2, f"{Path(sys.argv[0]).stem}: error: {INTERRUPTED}\n".encode())
    os._exit(130)


# While one of our scripts imports its libraries, a signal ends it with the same line.
if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parents[2]:
    for number in SIGNALS:
        signal.signal(number, _not_begun)


def _unexpected(error: BaseException) -> None:
    log_files = [h.baseFilename for h in log.handlers if isinstance(h, logging.FileHandler)]
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler) or not log_files:
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "traceback", (), sys.exc_info()))
    where = f"; the traceback is in {log_files[0]}" if log_files else ""
    fail(f"unexpected {type(error).__name__}: {error}".splitlines()[0] + where)
