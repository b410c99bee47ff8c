"""The benchmarks run on any machine: what they count, against a count by hand; and that nothing measured is lost."""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from forks import Forks

WIDTH, CHANNELS, COND, GLOBAL, CONTEXT = 64, 64, 64, 128, 20


def load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


def linear(rows: int, inside: int, outside: int, learns_from: bool = True) -> int:
    """FLOPs of a trained matrix: its product, its gradient and, unless the input is given, the input's gradient."""
    return (3 if learns_from else 2) * 2 * rows * inside * outside


def by_hand(frames: int, depth: int) -> int:
    """The micro model's diffusion transformer, for one clip."""
    tokens, features = frames + 1, 256  # the global condition is put before; the embedding of a timestep
    ends = 2 * (features // 2)  # frequencies of the timestep, which are not trained
    ends += linear(1, features, WIDTH, False) + linear(1, WIDTH, WIDTH)
    ends += linear(1, GLOBAL, WIDTH, False) + linear(1, WIDTH, WIDTH)
    ends += linear(CONTEXT, COND, WIDTH, False) + linear(CONTEXT, WIDTH, WIDTH)
    ends += linear(frames, CHANNELS, CHANNELS, False) + linear(frames, CHANNELS, CHANNELS)  # first and last convolution
    ends += linear(frames, CHANNELS, WIDTH) + linear(tokens, WIDTH, CHANNELS)  # into the transformer and out of it
    block = linear(tokens, WIDTH, 3 * WIDTH) + linear(tokens, WIDTH, WIDTH)  # self-attention
    block += linear(tokens, WIDTH, WIDTH) + linear(CONTEXT, WIDTH, 2 * WIDTH) + linear(tokens, WIDTH, WIDTH)
    block += 2 * 3 * 2 * tokens * tokens * WIDTH + 2 * 3 * 2 * tokens * CONTEXT * WIDTH  # scores and their values
    block += linear(tokens, WIDTH, 2 * 4 * WIDTH) + linear(tokens, 4 * WIDTH, WIDTH)
    return ends + depth * block


def test_the_flops_of_a_clip_are_those_counted_by_hand() -> None:
    made, gpu = load("made"), load("gpu")
    config = made.micro_config()
    config["model"]["diffusion"]["config"]["depth"] = 3
    assert gpu.flops({"config": config, "frames": 21, "tokens": CONTEXT}) == {"flops": by_hand(21, 3)}


@pytest.mark.slow
def test_every_part_of_the_gpu_benchmark_measures(forks: Forks, tmp_path: Path) -> None:
    words = ["--device", "cpu", "--size", "micro", "--folder", str(tmp_path), "--output", str(tmp_path / "rows.jsonl")]
    done = forks.program(ROOT / "benchmarks/gpu.py", *words, cwd=ROOT).finish()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row for row in rows if "error" in row] == []
    parts = [row["part"] for row in rows]
    assert {part: parts.count(part) for part in sorted(set(parts))} == {
        "card": 2, "encode": 2, "made": 1, "memory": 7, "precision": 4, "render": 3, "train": 6,
    }  # fmt: skip
    trained = [row for row in rows if row["part"] == "train"]
    assert all(row["clips_s"] > 0 and row["peak"] == 0 for row in trained)
    # Of the rate of a matmul. On a processor that others use too, that rate may be measured below a training's.
    card, clip = (row for row in rows if row["part"] == "card")
    assert [row["mfu"] for row in trained] == pytest.approx(
        [row["clips_s"] * clip["flops"] / card["matmul"] for row in trained]
    )
    ours = [row for row in rows if row["what"].startswith("ours, full") and row["part"] == "train"]
    assert all(row["estimate"] > 1e6 and "validate" in row["phases"] for row in ours)
    assert [row["what"].split(",")[2] for row in rows if "write_state" in row.get("phases", {})] == [" moving average"]
    losses = [row["losses"][0] for row in rows if row["part"] == "precision"]
    assert max(losses) - min(losses) < 1e-3 * losses[0]
    assert len(done.stdout.splitlines()) == len(rows) and list(tmp_path.iterdir()) == [tmp_path / "rows.jsonl"]


def test_a_part_that_fails_has_its_line_and_the_next_one_begins(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    gpu = load("gpu")

    def fails(job: dict) -> dict:
        raise RuntimeError("the card is on fire")

    def hangs(job: dict) -> dict:
        import time

        time.sleep(60)
        return {}

    report = gpu.Report(tmp_path / "rows.jsonl")
    for function in (fails, hangs, lambda job: {"clips_s": 2.0}):
        report.add("train", "it", gpu.Apart(function, {"folder": str(tmp_path)}, 2).result())
    first, second, third = (json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines())
    assert "the card is on fire" in first["error"] and second["error"] == "not done after 2 s" and third["clips_s"] == 2
    assert "2.00 clips/s" in capsys.readouterr().out


def test_both_trainings_of_the_default_run_are_measured(forks: Forks, finished: Path) -> None:
    words = ["--rounds", "1", "--threads", "1", "--steps", "2", "--warmup", "1"]
    command = [forks.python(), "benchmarks/training_throughput.py", *words]
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["stock", "ours", "ratio"]


def test_what_was_measured_is_printed_before_what_comes_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    benchmark = load("training_throughput")
    measured = {"steps_s": 2.0, "cpu_clip": 0.01, "peak": 3e9, "others": 0.0}
    parts = {"theirs": measured | {"clips_s": 16.0}, "ours": measured | {"clips_s": 32.0}}

    def up_to(last: str) -> str:
        def apart(function: object, job: dict) -> dict:
            if function.__name__ == last:
                raise SystemExit(f"{last} failed")
            return parts[function.__name__]

        monkeypatch.setattr(benchmark, "apart", apart)
        with pytest.raises(SystemExit) if last else contextlib.nullcontext():
            benchmark.throughput({}, rounds=1)
        said = capsys.readouterr()
        assert "round 1 stock: 2.00 steps/s, 16.00 clips/s, 10.00 CPU ms/clip, peak 3000 MB" in said.err
        return said.out

    assert up_to("ours") == ""
    assert [line.split()[:2] for line in up_to("").splitlines()[1:]] == [
        ["stock", "16.00"],
        ["ours", "32.00"],
        ["ratio", "2.00"],
    ]
