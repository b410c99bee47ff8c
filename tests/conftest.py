"""What the tests share: running the real scripts, and small real corpora to run them on."""

from __future__ import annotations

import csv
import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import py7zr
import pytest
import soundfile
from filelock import FileLock
from forks import ONE_THREAD, Forks, stop
from hypothesis import settings
from servers import Server, serving
from settings import as_options

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
BASE_MODEL = ROOT / "resources" / "demo" / "base_model"
DEPTH = 2  # blocks of four that tests need of it: they are alike
sys.path.insert(0, str(SCRIPTS))
import sao.base.command  # noqa: F401, E402 - it sets what torch reads when the tests import it

if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a processor; torch reads this when it is loaded
    os.environ |= ONE_THREAD
# Where bytecode is forbidden, every job of a graph compiles the project's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("project", deadline=None, derandomize=True, database=None)
settings.register_profile("everyday", settings.get_profile("project"), max_examples=20)
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Everyday tests try fewer random inputs; `-m "slow or hypothesis"` and `-m ""` try all."""
    if config.option.markexpr == "not slow":
        settings.load_profile("everyday")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Test modules import huggingface_hub, and transformers, in their functions: it reads its settings once, and the
    first model that is built (sao.models.build.build) has to set them before.
    """
    if "huggingface_hub" in sys.modules:
        pytest.exit("huggingface_hub was imported while tests were collected: import it in a function", 3)
    grouped = getattr(session.config.option, "loadgroup", False)  # in a process of pytest-xdist
    if grouped and not all("@" in item.nodeid for item in session.items):
        pytest.exit("this pytest-xdist keeps no groups together with this pytest: what is shared is made twice", 3)
    gc.collect()
    gc.freeze()  # the tests and all modules: Python need not look through them at each collection of garbage


# Modules whose tests are of the slow tier, beside all that look at the finished main job, all in a browser, and single tests
# with the mark.
SLOW = {
    "test_cluster",  # SLURM
    "test_storage",  # a server of S3
    "test_envs",  # conda
    "test_clap",
    "test_corpora",
    "test_small_preset",
    "test_stable_audio_3",
    "test_numbers_in_the_graph",
    "test_memory",
    "test_benchmarks",
    "test_listing",
    "test_chains",
    "test_clotho",
    "test_made_corpora",
    "test_playground",
    "test_mixtures",
    "test_try",
    "test_hub_corpus",
    "test_memorisation",
    # Recordings that are cut, sounds that renders start from, cards, and other programs' forms of models.
    "test_long_recordings",
    "test_model_card",
    "test_sources",
    "test_convert",
    "test_comfyui",
    "test_pipeline",
}
# What takes longest comes first, or one process would be left with it at the end. Those that mostly wait for SLURM do so one after
# the other, while others compute.
FIRST = [
    "test_cluster",
    "finished",
    "test_train",
    "test_cluster_faults",
    "test_stable_audio_3",
    "test_corpora",
    "test_cluster_processes",
    "test_base_model",
    "test_small_preset",
    "test_benchmarks",
    "test_memory",
    "test_small_graph",
    "test_precision",
    "test_optimizer",
    "test_storage",
    "test_model_card",
    "test_collect",
    "test_upload",
    "test_docs",
    "test_objective",
]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups, and pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes, the tests of a module stay together, and so do those that look at the finished main job."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):  # pytest-xdist joins several into one name
            item.add_marker(pytest.mark.xdist_group("finished" if "finished" in item.fixturenames else item.path.stem))
        if {"finished", "browser"} & set(item.fixturenames) or item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    first = FIRST
    groups = [item.get_closest_marker("xdist_group").args[0] for item in items]
    order = sorted(range(len(items)), key=lambda at: first.index(groups[at]) if groups[at] in first else len(first))
    items[:] = [items[at] for at in order]


@pytest.fixture(autouse=True, scope="session")
def demo_hub(base_model: Path) -> None:
    """Have huggingface_hub read its settings for the demo's model, whichever test of this process imports it first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str((base_model / "hub").resolve()))
        patch.setenv("HF_HUB_OFFLINE", "1")
        import huggingface_hub.constants  # noqa: F401


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    """Take back what a module left in the environment: a model that is built here turns the Hub off."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


RATE = 8000  # Hz
DROPPED = ("clip_id", "published_split", "path", "check", "message")
SPLITS = {"development": "train", "validation": "validation", "evaluation": "evaluation"}
ODD_NAMES = (
    "two words.wav",
    "Choir, one chord.wav",
    'say "hi".wav',
    "it's [2] (3) {4}.wav",
    "naïve café – Größe.wav",
    "雨の音.wav",
    "-dash.wav",
    "--output.wav",
    "double.ext.wav.wav",
    "100% $HOME & co; #1.wav",
)


FORKS: list[Forks] = []  # what starts the scripts of this process


@pytest.fixture(autouse=True, scope="session")
def forks(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Forks:
    """What starts the scripts, here and in `run_script`. All processes of pytest-xdist share its server."""
    FORKS[:] = [Forks(tmp_path_factory.mktemp("forks"), shared / "base_model", shared=shared)]
    return FORKS[0]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what all processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors: some tests wait, for servers that answer late or for a kill."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_xdist_setupnodes(config: pytest.Config, specs: list) -> None:
    """The processes of pytest-xdist find their imports made: each would import torch, scipy and the rest by itself."""
    shared = config._tmp_path_factory.getbasetemp()
    folder = shared / "forks"
    folder.mkdir()
    compiling = compile_tests()
    program = Forks(folder, shared / "base_model", shared=shared).python()
    if compiling:
        compiling.wait()
    for spec in specs:
        spec.python = str(program)


def compile_tests() -> subprocess.Popen | None:
    """In a fresh clone, compile the tests while the server of `Forks` starts: each process would do it by itself."""
    if any(Path(__file__).parent.glob("unit/**/__pycache__/*pytest*.pyc")):
        return None
    command = [sys.executable, "-m", "pytest", "--collect-only", "--numprocesses", "0", "-m", ""]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.hookimpl(trylast=True)  # when the processes of pytest-xdist have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        stop(session.config._tmp_path_factory.getbasetemp())


def run_script(
    name: str,
    *arguments: object,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    log: Path | None = None,
    timeout: float = 300,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`python scripts/<name>.py arguments…` as a process of its own, whose imports are made already unless it is `fresh`."""
    more = ["--log", log] if log else []
    if fresh:
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), *as_options(name, [*map(str, [*arguments, *more])])]
        env = os.environ | (env or {})
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=timeout)
    return FORKS[0].start(name, *arguments, *more, cwd=cwd, env=env).finish(timeout)


# Of a graph that a test runs. Its models and states have 15 to 50 MB, and Snakemake hashes the inputs of a job for each of its outputs.
GRAPH = ("--cores", "2", "--max-checksum-file-size", "1000000")


def run_snakemake(
    *arguments: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """`snakemake arguments…` as a process of its own; so are its jobs, whose imports are made already."""
    return FORKS[0].snakemake(*arguments, cwd=cwd, env=forked_jobs() | (env or {})).finish(timeout)


def forked_jobs() -> dict[str, str]:
    """The environment in which the jobs of a Snakemake find their imports made."""
    return {"PATH": FORKS[0].path()}


def write_shapes(path: Path, weights: Path | dict[str, Sequence[int]]) -> Path:
    """What rule rehearse gives: a JSON of the shapes of weights by key; of a file, those that it has."""
    from sao.models.header import tensor_shapes

    path.write_text(json.dumps(tensor_shapes(weights) if isinstance(weights, Path) else weights), encoding="utf-8")
    return path


def assert_succeeds(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr
    assert "error:" not in result.stderr and "Traceback" not in result.stderr, result.stderr


def small_disk(
    folder: Path, size: str, command: Sequence[object], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command with a disk of its own at a folder; afterwards its files are copied to `<folder>.after`.

    Python (`sys.executable`) finds its imports made, as far as it runs a script in a folder `scripts`, or Snakemake.
    """
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} none "$0" && "$@"; code=$?; cp -r "$0" "$0.after"; exit $code'
    python = FORKS[0].python()
    given = (python if part == sys.executable else part for part in command)
    parts = ["unshare", "-rm", "sh", "-c", script, str(folder), *map(str, given)]
    return subprocess.run(parts, cwd=cwd, capture_output=True, encoding="utf-8", timeout=300)


needs_mount = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="this machine does not let a user mount a small disk (unshare -rm)",
)


def error_lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The `error:` lines of a run that has to have failed without a traceback and without an unforeseen exception."""
    assert result.returncode != 0, f"succeeded: {result.stderr}"
    assert "Traceback" not in result.stderr and "error: unexpected " not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if "error:" in line]


def assert_fails(result: subprocess.CompletedProcess[str], *words: object) -> str:
    """The one error line of a failed run, the last thing that it says, which has to hold all `words`."""
    lines = error_lines(result)
    assert len(lines) == 1 and result.stderr.endswith(f"{lines[0]}\n"), result.stderr
    for word in words:
        assert str(word) in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]


def listing(folder: Path) -> set[str]:
    """Files at any depth, hidden ones included, by their path in `folder`; none if there is no such folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def checksum(path: Path, algorithm: str = "md5") -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


def change(path: Path) -> Path:
    """Turn a bit in the midst of a file and keep its size and its time stamps, as a bad disk does."""
    stamps = path.stat()
    with path.open("r+b") as handle:
        handle.seek(stamps.st_size // 2)
        (byte,) = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    return path


def noise(key: str, seconds: float = 0.1, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Audio `[frames, channels]` that is a function of `key`, with a peak near -14 dBFS."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (round(seconds * rate), channels))


def write_wav(path: Path, audio: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype, format="WAV")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, str]], encoding: str = "utf-8") -> Path:
    """A published CSV; a character that `encoding` lacks becomes a question mark, as in Clotho's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, errors="replace", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def pack(archive: Path, files: dict[str, bytes]) -> Path:
    """A 7z archive of `{entry name: content}`. py7zr's public functions refuse the unsafe names."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with py7zr.SevenZipFile(archive, "w") as packed:
        for name, content in files.items():
            packed._writestr(content, name)
    return archive


@dataclass
class PublishedSplit:
    """One split as published: Clotho's archive, captions CSV and metadata CSV, and the folder it was packed from."""

    name: str
    wavs: Path
    archive: Path
    captions: Path
    metadata: Path

    def config(self) -> dict:
        """The config entry of this split."""
        captions, metadata = ({"url": str(f), "md5": checksum(f)} for f in (self.captions, self.metadata))
        archive = {"url": str(self.archive), "md5": checksum(self.archive), "size": self.archive.stat().st_size}
        return {"archives": [archive], "captions": [captions], "metadata": [metadata]}


def publish(folder: Path, split: str, names: Sequence[str], captions: int = 2, seconds: float = 0.1) -> PublishedSplit:
    """Write a split of clips of noise, one a name, with sound_ids that no other split has."""
    wavs = folder / "wavs" / split
    rows, metadata = [], []
    for number, name in enumerate(names):
        write_wav(wavs / name, noise(f"{split}/{name}", seconds))
        texts = {f"caption_{i}": f"Noise number {number} of {split}, told in way {i}." for i in range(1, captions + 1)}
        rows.append({"file_name": name} | texts)
        sound_id = str(1000 * (1 + list(SPLITS).index(split)) + number)
        metadata.append(
            {
                "file_name": name,
                "keywords": "noise;señal",
                "sound_id": sound_id,
                "sound_link": f"https://example.org/{sound_id}",
                "start_end_samples": f"[0, {round(seconds * RATE)}]",
                "manufacturer": "Jürgen",
                "license": "http://creativecommons.org/publicdomain/zero/1.0/",
            }
        )
    archive = pack(folder / f"clotho_audio_{split}.7z", {f"{split}/{n}": (wavs / n).read_bytes() for n in names})
    return PublishedSplit(
        split,
        wavs,
        archive,
        write_csv(folder / f"clotho_captions_{split}.csv", rows),
        write_csv(folder / f"clotho_metadata_{split}.csv", metadata, "iso-8859-1"),
    )


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PublishedSplit]:
    """A whole tiny corpus as published, by split; the odd file names are in `development`. Not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    names = {"development": ODD_NAMES, "validation": ("a.wav", "b.wav"), "evaluation": ("a.wav", "c.wav")}
    return {split: publish(folder, split, names[split]) for split in SPLITS}


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory, published: dict[str, PublishedSplit]) -> Path:
    """`<split>/` and `<split>.csv` of every split, made by extract.py. Not to be changed."""
    folder = tmp_path_factory.mktemp("extracted")
    for split, files in published.items():
        outputs = ["--output", folder / split, "--facts", folder / f"{split}.csv"]
        assert_succeeds(run_script("extract", "--archive", files.archive, "--split", split, *outputs))
    return folder


@pytest.fixture(scope="session")
def manifests(
    tmp_path_factory: pytest.TempPathFactory, published: dict[str, PublishedSplit], extracted: Path
) -> dict[str, Path]:
    """The manifest of every split, made by manifest.py. Not to be changed."""
    folder = tmp_path_factory.mktemp("manifests")
    for split, files in published.items():
        output, facts = folder / f"{split}.csv", extracted / f"{split}.csv"
        assert_succeeds(run_manifest(output, files, extracted / split, facts))
    return {split: folder / f"{split}.csv" for split in SPLITS}


def run_manifest(
    output: Path, split: PublishedSplit, audio: Path, facts: Path, *more: object
) -> subprocess.CompletedProcess[str]:
    arguments = {
        "--split": split.name,
        "--audio": audio,
        "--facts": facts,
        "--captions": split.captions,
        "--metadata": split.metadata,
        "--output": output,
    }
    return run_script("manifest", *(part for pair in arguments.items() for part in pair), *more)


def official(**sides: list[str]) -> dict:
    """A corpus's `split` that names published splits, as validate.py and split.py take it."""
    return {"method": "official"} | {role: [split] for split, role in SPLITS.items()} | sides


def dropped_table(path: Path, rows: Sequence[dict[str, str]] = ()) -> Path:
    """A list of left out clips, as validate.py and dataset_configs.py write it."""
    pd.DataFrame(rows, columns=DROPPED).to_csv(path, index=False)
    return path


def kept_table(splits: Path, path: Path, dropped: Sequence[str] = ()) -> Path:
    """The table of the clips that a model can take, as dataset_configs.py writes it: all but those that are `dropped`."""
    sides = {side: pd.read_csv(splits / f"{side}.csv", dtype=str, keep_default_na=False) for side in SPLITS.values()}
    table = pd.concat([table.assign(role=side) for side, table in sides.items()])
    table[~table.clip_id.isin(dropped)].to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory, manifests: dict[str, Path]) -> Path:
    """`train.csv`, `validation.csv` and `evaluation.csv`, made by split.py. Not to be changed."""
    folder = tmp_path_factory.mktemp("splits")
    aside = tmp_path_factory.mktemp("validated")
    report = aside / "validation.json"
    report.write_text("{}", encoding="utf-8")
    given = ["--manifest", *manifests.values(), "--split", json.dumps(official()), "--validation-report", report]
    given += ["--dropped", dropped_table(aside / "dropped.csv")]
    assert_succeeds(run_script("split", *given, "--output", folder))
    return folder


def make_shallow(folder: Path) -> Path:
    """The demo's base model with the first `DEPTH` blocks of its transformer, which trains and renders in half the time."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(BASE_MODEL, folder)
    config = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
    config["model"]["diffusion"]["config"]["depth"] = DEPTH
    (folder / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(BASE_MODEL / "model.safetensors")
    block = re.compile(r"\.transformer\.layers\.(\d+)\.")
    kept = {key: weight for key, weight in weights.items() if not (found := block.search(key)) or int(found[1]) < DEPTH}
    save_file(kept, folder / "model.safetensors")
    return folder


def put_in_place(model: Path, folder: Path) -> Path:
    """A base model as base_model.py makes it of the files in a folder."""
    folder.mkdir()
    shapes = write_shapes(folder.with_suffix(".json"), model / "model.safetensors")
    command = ("--path", model, "--shapes", shapes, "--output", folder, "--digest", folder / "checksums.sha256")
    assert_succeeds(run_script("base_model", *command))
    return folder


@pytest.fixture(scope="session")
def base_model(forks: Forks) -> Path:
    """The demo's base model, made shallow and brought into place by base_model.py. Not to be changed: all tests share it."""
    folder = forks.model
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "checksums.sha256").exists():  # written last
            put_in_place(make_shallow(folder.with_name("shallow")), folder)
    return folder


def readme_commands() -> list[str]:
    """The commands of the README's first code block, without their comments."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    return [line.split("  #")[0].strip() for line in block.splitlines()[1:] if line.strip()]


def link_checkout(target: Path) -> Path:
    """A folder in which the graph can be planned and run, without results and without a copy of anything."""
    target.mkdir(exist_ok=True)
    for name in ("Snakefile", "config.yaml", "rules", "scripts", "schemas", "envs", "profiles", "report", "resources"):
        (target / name).symlink_to(ROOT / name)
    return target


def copy_checkout(target: Path, fresh: bool = False) -> Path:
    """The files of the checkout, without what has been made in it.

    Unless it is `fresh`, the scripts' bytecode is there, and the demo's base model is shallow.
    """
    files = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    if not fresh:  # or the first jobs would compile all anew; code.….json lies there too
        cached = (path for end in ("pyc", "json") for path in SCRIPTS.glob(f"**/__pycache__/*.{end}"))
        names += [str(path.relative_to(ROOT)) for path in cached]
    for name in names:
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)  # with its time stamp, by which Python knows bytecode
    if not fresh:
        shutil.copytree(FORKS[0].model.with_name("shallow"), target / BASE_MODEL.relative_to(ROOT), dirs_exist_ok=True)
    return target


# Many tests wait for the main job, so it goes ahead of others where the user may say so.
AHEAD = ["nice", "-n", "-10"] if os.geteuid() == 0 else []
ONE_PROCESSOR = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))] if shutil.which("taskset") else []


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the checkout in which the README's first command has run as printed. Not to be changed.

    It runs on one processor: others work beside it, and two threads would wait for each other. The first job of each script is
    Python's own; further ones find their imports made.
    """
    folder = tmp_path_factory.mktemp("fresh")
    checkout = copy_checkout(folder / "checkout", fresh=True)
    again = folder / "again.sh"  # which bash reads in each job
    again.write_text(
        f"""
        python() {{
            if mkdir "{folder}/started-$(basename "$1")" 2>/dev/null; then command python "$@"; else "{FORKS[0].python()}" "$@"; fi
        }}
        """
    )
    # The environment that runs the tests is the locked one; a second copy of it would only cost minutes.
    env = os.environ | {"UV_PROJECT_ENVIRONMENT": sys.prefix, "BASH_ENV": str(again)}
    done = subprocess.run(
        [*AHEAD, *ONE_PROCESSOR, "bash", "-c", readme_commands()[0]],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return checkout


def edit_table(source: Path, target: Path, edit: Callable[[pd.DataFrame], object]) -> Path:
    """A copy of a table, edited in place (or replaced) by `edit`; everything in it is text."""
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    edited = edit(table)
    target.parent.mkdir(parents=True, exist_ok=True)
    (edited if isinstance(edited, pd.DataFrame) else table).to_csv(target, index=False)
    return target


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as state:
        yield state
