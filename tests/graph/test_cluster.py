"""The graph on a SLURM of its own: pairs of nodes with two fake GPUs each, on this machine, brought up by `.ci/slurm`.

Runs where root has Debian's slurmctld, slurmd, slurm-client and munge. Most of the time goes by waiting: for Snakemake's
next look at its jobs, and for SLURM to miss a node.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from conftest import FORKS, ROOT, checksum, copy_checkout, forked_jobs, run_snakemake
from filelock import FileLock
from sao.data.corpora import resolve
from sao.plan.plan import Plan

MISSING = [name for name in ("slurmctld", "slurmd", "srun", "munged") if not shutil.which(name)]
needs_slurm = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"SLURM's daemons need root and Debian's slurmctld, slurmd, slurm-client and munge; missing: {MISSING}",
)

LEG = 45  # steps; on one thread three seconds, long enough to be caught in the middle
RUN = {"steps": 2 * LEG, "checkpoint_every": LEG, "validate_every": LEG, "batch_size": 6, "threads": 1}
CONFIG = {
    # Two, all of a node: so jobs have to wait for each other.
    "base_models": {"demo": {"gpus": 2, "sampling": {"steps": 2}}},
    "runs": {"demo": RUN},
    "render": {"clips": {"train": 2, "evaluation": 2}},
    "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
    "cluster": {"scratch": True},
}
OTHER = RUN | {"base_model": "demo", "corpus": "demo", "seed": 1}
FIRST, LAST = (f"results/checkpoints/demo/step-{step:08d}/weights/model.safetensors" for step in (LEG, 2 * LEG))
THEIRS = FIRST.replace("/demo/", "/other/")
# No accounting database here; and a look at the jobs every few seconds.
COMMAND = ["snakemake", "--profile", "profiles/slurm", "--slurm-status-command", "squeue"]
COMMAND += ["--slurm-init-seconds-before-status-checks", "1", "--max-threads", "2"]
PATIENCE = 600  # s
# Most of the time goes by waiting. Where SLURM is up already, three processes wait at the same time, each with nodes of its own.
FAULTS, PROCESSES = (
    ("test_cluster_faults", "test_cluster_processes") if "SLURM_CI" in os.environ else ["test_cluster"] * 2
)


def sh(*command: str, **more: object) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **more).stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a SLURM that is up: the one of `.ci/run`, or one of our own."""
    given = os.environ.get("SLURM_CI")
    folder = Path(given) if given else tmp_path_factory.mktemp("slurm")
    sh("bash", str(ROOT / ".ci/slurm"), "start", str(folder))
    yield folder
    if not given:
        sh("bash", str(ROOT / ".ci/slurm"), "stop", str(folder))


def wait_for(condition: Callable[[], object], what: str, running: subprocess.Popen | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what} in vain"
        assert running is None or running.poll() is None, f"ended before {what}"
        time.sleep(0.5)


def jobs(checkout: Path) -> list[dict[str, str]]:
    """What SLURM knows of the jobs of a folder, in the order in which they were handed in."""
    lines = sh("scontrol", "show", "job", "--oneliner").splitlines()
    found = [dict(part.partition("=")[::2] for part in line.split(" ") if "=" in part) for line in lines]
    return sorted((job for job in found if job.get("WorkDir") == str(checkout)), key=lambda job: int(job["JobId"]))


def running_job(checkout: Path, comment: str) -> dict[str, str] | None:
    return next((j for j in jobs(checkout) if j["JobState"] == "RUNNING" and comment in j["Comment"]), None)


def processes_of(job: str) -> dict[int, bytes]:
    """The processes of a SLURM job and the daemons that watch over its steps, with their commands."""
    found = FORKS[0].of_job(job)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue  # gone meanwhile, or not ours
        if f"SLURM_JOB_ID={job}\0".encode() in environment or command.startswith(f"slurmstepd: [{job}.".encode()):
            found[int(folder.name)] = command
    return found


def log(checkout: Path, leg: int, run: str = "demo") -> str:
    path = checkout / f"results/logs/train/{run}/step-{leg:08d}.log"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextlib.contextmanager
def two_legs_held(checkout: Path, running: subprocess.Popen) -> Iterator[dict[str, dict[str, str]]]:
    """The jobs of two runs, `demo` and `other`, whose first legs stand still in the midst of their steps meanwhile."""
    held: dict[str, dict[str, str]] = {}
    still: list[int] = []

    def both() -> bool:
        for run in {"demo", "other"} - set(held):
            if f"training {run}: " in log(checkout, LEG, run):
                held[run] = running_job(checkout, f"rule_train_wildcards_{run}")
                for pid, command in processes_of(held[run]["JobId"]).items():
                    if b"train.py" in command:
                        os.kill(pid, signal.SIGSTOP)
                        still.append(pid)
        return len(held) == 2

    try:
        wait_for(both, "two legs", running)
        yield held
    finally:
        for pid in still:
            with contextlib.suppress(ProcessLookupError):  # it was killed
                os.kill(pid, signal.SIGCONT)


def snakemake(checkout: Path, *target: str, config: str = "ci.yaml") -> subprocess.Popen:
    """Snakemake in the background; what it says is appended to `said.log`. What it starts finds its imports made."""
    environment = os.environ | forked_jobs()
    with (checkout / "said.log").open("a", encoding="utf-8") as said:
        return subprocess.Popen(
            ["python", "-m", *COMMAND, f"--configfile={config}", *target],
            cwd=checkout,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, checkout: Path) -> str:
    code = process.wait(timeout=2 * PATIENCE)
    said = (checkout / "said.log").read_text(encoding="utf-8")
    assert code == 0, said[-8000:]
    return said


@pytest.fixture(scope="module")
def undisturbed(shared: Path) -> Callable[[], Path]:
    """A checkout in which two runs were trained on this machine, without a cluster: once for all processes of the tests."""

    def checkout() -> Path:
        with FileLock(shared / "undisturbed.lock"):
            folder = shared / "undisturbed"
            if not folder.exists():
                new = copy_checkout(shared / "undisturbed.new")
                runs = CONFIG["runs"] | {"other": OTHER}
                (new / "ci.yaml").write_text(yaml.safe_dump(CONFIG | {"runs": runs, "cluster": {"scratch": False}}))
                targets = [str(Path(path).parent) for path in (LAST, THEIRS)]
                done = run_snakemake("--cores", "2", "--configfile=ci.yaml", "--", *targets, cwd=new)
                assert done.returncode == 0, done.stderr[-4000:]
                new.rename(folder)
        return folder

    return checkout


@pytest.fixture(scope="module")
def disturbed(slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A checkout in which the whole graph ran on SLURM while legs were killed, and what Snakemake said."""
    checkout = copy_checkout(tmp_path_factory.mktemp("cluster") / "checkout").resolve()
    (checkout / "ci.yaml").write_text(yaml.safe_dump(CONFIG))
    process = snakemake(checkout, "all")
    try:
        wait_for(lambda: "training demo: " in log(checkout, LEG), "the first leg", process)
        sh("scancel", running_job(checkout, "rule_train_")["JobId"])
        wait_for(lambda: "training demo: " in log(checkout, 2 * LEG), "the second leg", process)
        job = running_job(checkout, "rule_train_last_")
        # A minute is the least that SLURM takes for a limit: the training stands still until that has passed.
        training = [pid for pid, command in processes_of(job["JobId"]).items() if b"train.py" in command]
        for pid in training:
            os.kill(pid, signal.SIGSTOP)
        sh("scontrol", "update", f"JobId={job['JobId']}", "TimeLimit=1")
        wait_for(lambda: not running_job(checkout, "rule_train_last_"), "the time limit", process)
        for pid in training:
            with contextlib.suppress(ProcessLookupError):  # SLURM may have woken it, to end it
                os.kill(pid, signal.SIGCONT)
        said = finish(process, checkout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # it cancels its jobs
            process.wait(timeout=PATIENCE)
    yield checkout, said


@needs_slurm
def test_whole_graph_runs(disturbed: tuple[Path, str]) -> None:
    checkout, said = disturbed
    assert (checkout / "results/samples/index.html").is_file()
    assert (checkout / "results/evaluation/summary.json").is_file()
    assert "Traceback" not in said
    comments = {job["Comment"].partition("_wildcards")[0] for job in jobs(checkout)}
    assert {"rule_extract", "rule_encode", "rule_train", "rule_train_last", "rule_render"} <= comments
    # What fetches runs where Snakemake runs.
    assert not {"rule_download", "rule_base_model"} & comments
    assert (checkout / "results/benchmarks/download/demo").is_dir()


@needs_slurm
def test_gpu_jobs_hold_their_gpus(disturbed: tuple[Path, str]) -> None:
    checkout, _ = disturbed
    held = [job for job in jobs(checkout) if "gres:gpu:" in job.get("TresPerJob", "")]
    others = [job for job in jobs(checkout) if job not in held]
    rules = {re.sub("^rule_|_wildcards.*", "", job["Comment"]) for job in held}
    assert {"encode", "train", "train_last", "render"} <= rules
    assert not {re.sub("^rule_|_wildcards.*", "", job["Comment"]) for job in others} & {"train", "render", "encode"}
    assert {job["Partition"] for job in held} == {"gpu"} and {job["Partition"] for job in others} == {"cpu"}
    gpus = {job["JobId"]: int(job["TresPerJob"].split(":")[-1]) for job in held}
    assert {gpus[job["JobId"]] for job in held if "train" in job["Comment"]} == {2}
    times = [
        (datetime.fromisoformat(j["StartTime"]), datetime.fromisoformat(j["EndTime"]), j["NodeList"], gpus[j["JobId"]])
        for j in held
    ]
    for number, (start, end, node, count) in enumerate(times):
        for other_start, other_end, other_node, other_count in times[:number]:
            assert node != other_node or start >= other_end or other_start >= end or count + other_count <= 2


@needs_slurm
def test_killed_legs_go_on_and_give_the_same_weights(
    disturbed: tuple[Path, str], undisturbed: Callable[[], Path]
) -> None:
    checkout, _ = disturbed
    legs = [job for job in jobs(checkout) if "rule_train" in job["Comment"]]
    assert [job["JobState"] for job in legs] == ["CANCELLED", "COMPLETED", "TIMEOUT", "COMPLETED"]
    for leg in (LEG, 2 * LEG):
        step = int(re.search(rf"resuming at step (\d+) of {leg}, from .*\.interrupted", log(checkout, leg))[1])
        assert leg - LEG < step < leg
        assert "clips are read from a copy in" in log(checkout, leg)
    assert not [path for job in legs for path in Path(tempfile.gettempdir()).glob(f"sao-*-{job['JobId']}")]
    # Asks for more the second time.
    memory = [int(job["MinMemoryNode"].removesuffix("M")) for job in legs]
    assert memory == [4000, 6000, 4000, 6000]
    assert checksum(checkout / LAST) == checksum(undisturbed() / LAST)


def prepare(undisturbed: Path, target: Path, pair: int) -> Path:
    """A copy whose data and latents are there, and no training. Its jobs run on a pair of nodes of their own."""
    checkout = shutil.copytree(undisturbed, target, symlinks=True).resolve()
    for name in ("checkpoints", "logs/train"):
        shutil.rmtree(checkout / "results" / name)
    (checkout / "ci.yaml").write_text(yaml.safe_dump(CONFIG))
    partitions = checkout / "profiles/slurm/partitions.yaml"
    partitions.write_text(re.sub(r"^  ([cg]pu):", rf"  \g<1>{pair}:", partitions.read_text(), flags=re.M))
    return checkout


@needs_slurm
@pytest.mark.xdist_group(FAULTS)
def test_node_dies_under_one_of_two_configs_in_a_folder(
    slurm: Path, undisturbed: Callable[[], Path], tmp_path: Path
) -> None:
    """Two users' runs, one leg of each at the same time. The leg whose node dies goes to the other node, when that is free."""
    prepared = prepare(undisturbed(), tmp_path / "checkout", 2)
    (prepared / "other.yaml").write_text(yaml.safe_dump(CONFIG | {"runs": {"demo": None, "other": OTHER}}))
    one = snakemake(prepared, str(Path(FIRST).parent))
    two = snakemake(prepared, str(Path(THEIRS).parent), config="other.yaml")
    with two_legs_held(prepared, one) as held:
        job, node = held["demo"], held["demo"]["NodeList"]
        assert held["other"]["NodeList"] != node
        daemon = int((slurm / f"slurmd-{node}.pid").read_text())
        for pid in [daemon, *processes_of(job["JobId"])]:
            os.kill(pid, signal.SIGKILL)
    try:
        finish(two, prepared)
        finish(one, prepared)
        after = next(j for j in jobs(prepared) if j["JobId"] == job["JobId"])
        assert int(after["Restarts"]) == 1 and after["NodeList"] != node
        assert checksum(prepared / FIRST) == checksum(undisturbed() / FIRST)
        assert checksum(prepared / THEIRS) == checksum(undisturbed() / THEIRS) != checksum(prepared / FIRST)
    finally:
        sh("slurmd", "-N", node, "-f", str(slurm / "slurm.conf"))
        wait_for(lambda: "idle" in sh("sinfo", "-h", "-n", node, "-o", "%t"), f"node {node}")


@needs_slurm
@pytest.mark.xdist_group(FAULTS)
def test_snakemake_dies_and_starts_again_while_two_jobs_run(
    slurm: Path, undisturbed: Callable[[], Path], tmp_path: Path
) -> None:
    prepared = prepare(undisturbed(), tmp_path / "checkout", 2)
    (prepared / "ci.yaml").write_text(yaml.safe_dump(CONFIG | {"runs": CONFIG["runs"] | {"other": OTHER}}))
    targets = ["--", *(str(Path(path).parent) for path in (FIRST, THEIRS))]
    process = snakemake(prepared, *targets)
    with two_legs_held(prepared, process) as held:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        orphans = {job["JobId"] for job in held.values()}
        # As docs/guides/cluster.md has it, but that nothing is cancelled.
        unlock, cancel = re.search(
            r"^(uv run snakemake --unlock)\n(squeue .*) \| xargs -r scancel$",
            (ROOT / "docs/guides/cluster.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        ).groups()
        assert set(sh("bash", "-c", cancel, cwd=prepared).split()) == orphans
        sh("bash", "-c", unlock.removeprefix("uv run "), cwd=prepared)
        again = snakemake(prepared, *targets)
        # They go on when the new Snakemake has handed in its own, which wait for the GPUs.
        wait_for(lambda: len([job for job in jobs(prepared) if "rule_train_" in job["Comment"]]) == 4, "jobs", again)
        waiting = [job["JobState"] for job in jobs(prepared) if job["JobId"] not in orphans]
        assert waiting == ["PENDING", "PENDING"]
    finish(again, prepared)
    wait_for(lambda: not running_job(prepared, "rule_train"), "the jobs of the dead Snakemake")
    for path in (FIRST, THEIRS):
        assert checksum(prepared / path) == checksum(undisturbed() / path)
    # And nothing is left to do.
    dry = [*COMMAND, "-n", "--configfile=ci.yaml", *targets]
    said = subprocess.run(dry, cwd=prepared, capture_output=True, text=True)
    assert "Nothing to be done" in said.stdout + said.stderr


@needs_slurm
@pytest.mark.parametrize(
    ("shape", "gpus"),
    [({"devices": 2}, 0), ({"num_nodes": 2}, 2), ({"devices": 2, "num_nodes": 2}, 1)],
    ids=str,
)
@pytest.mark.xdist_group(PROCESSES)
def test_several_processes_train_as_one_job(
    slurm: Path,
    undisturbed: Callable[[], Path],
    shape: dict[str, int],
    gpus: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One job, as many processes on each node as it has devices, and each process sees all GPUs of the job on its node."""
    prepared = prepare(undisturbed(), tmp_path / "checkout", 3)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # the names of the virtual nodes resolve to nothing
    settings = {"steps": 4, "checkpoint_every": 4, "batch_size": 4, **shape}
    config = {"base_models": {"demo": {"gpus": gpus}}, "runs": {"demo": RUN | settings}}
    (prepared / "ci.yaml").write_text(yaml.safe_dump(config))
    finish(snakemake(prepared, "results/checkpoints/demo/step-00000004/weights"), prepared)
    devices, nodes = shape.get("devices", 1), shape.get("num_nodes", 1)
    job = next(job for job in jobs(prepared) if "rule_train" in job["Comment"])
    assert (job["NumTasks"], job["NumNodes"]) == (str(devices * nodes), str(nodes))
    assert job["MinMemoryNode"] == f"{4000 * devices}M"
    assert f"batch of {4 * devices * nodes} (4 × {devices * nodes} devices × 1)" in log(prepared, 4)
    seen = re.findall(
        r"process (\d): cpu on (n\d), SLURM_LOCALID (\d)(?:, CUDA_VISIBLE_DEVICES (.*))?$", log(prepared, 4), re.M
    )
    assert [int(rank) for rank, *_ in seen] == list(range(devices * nodes))
    names = list(dict.fromkeys(node for _, node, *_ in seen))
    assert len(names) == nodes
    visible = ",".join(map(str, range(gpus * devices)))
    assert [where for _, *where in seen] == [[n, str(local), visible] for n in names for local in range(devices)]


@needs_slurm
@pytest.mark.xdist_group(PROCESSES)
@pytest.mark.parametrize("given", ["--ntasks-per-gpu=1 --ntasks=2", "--gpus-per-task=1 --ntasks=2", ""])
def test_processes_see_all_gpus_of_an_allocation_made_by_hand(slurm: Path, tmp_path: Path, given: str) -> None:
    """Whatever it says of tasks and GPUs, and in a job of the name that interactive ones have."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["runs"]["demo"] |= {"devices": 2, "threads": 1}
    launcher = Plan(resolve(config, [ROOT / "config.yaml"])).training.launcher("demo")
    command = shlex.join(launcher)
    script = tmp_path / "job.sh"
    seen = "$SLURM_PROCID $SLURM_LOCALID $CUDA_VISIBLE_DEVICES $SLURM_NTASKS $SLURM_NTASKS_PER_NODE $SLURM_JOB_NAME"
    script.write_text(f"#!/bin/bash\n{command} bash -c 'echo {seen}'\n", encoding="utf-8")
    asked = ["--partition=gpu3", "--nodes=1", "--mem=100", "--cpus-per-task=2", *given.split()]
    asked += [] if "--gpus-per-task" in given else ["--gpus=2"]
    said = tmp_path / "said"
    done = ["sbatch", "--wait", "--job-name=interactive", f"--output={said}", f"--chdir={tmp_path}", *asked]
    subprocess.run([*done, str(script)], check=False, timeout=PATIENCE)
    assert sorted(said.read_text(encoding="utf-8").splitlines()) == ["0 0 0,1 2 2 train", "1 1 0,1 2 2 train"]


def test_every_rule_says_what_it_needs() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rules/*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", text, re.M | re.S))
    for name, body in rules.items():
        assert re.search(r"^        mem_mb=", body, re.M), name
        assert re.search(r"^        runtime=", body, re.M), name
    assert {name for name, body in rules.items() if re.search(r"^        gpu=", body, re.M)} == {
        *("encode", "encode_captions", "train", "render", "embed", "convert")
    }
    # No site in the rules.
    assert not re.search("partition|account|qos|constraint", text.replace("wildcard_constraints", ""))
