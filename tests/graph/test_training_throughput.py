"""The benchmark of the training: what it counts, against a count by hand; and that nothing measured is lost."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import BASE_MODEL, ROOT

WIDTH, CHANNELS, COND = 128, 64, 128


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_throughput", ROOT / "benchmarks/training_throughput.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linear(rows: int, inside: int, outside: int, learns_from: bool = True) -> int:
    """FLOPs of a trained matrix: its product, its gradient and, unless the input is given, the input's gradient."""
    return (3 if learns_from else 2) * 2 * rows * inside * outside


def by_hand(frames: int) -> int:
    """The demo's kind of diffusion transformer with one block, and its conditioners; for one clip."""
    tokens, context = frames + 1, 40 + 2  # the global condition is put before; a prompt and two numbers
    features = 256  # of the embedding of a timestep, and of that of a number
    total = 2 * (features // 2)  # frequencies of the timestep, which are not trained
    total += linear(1, features, WIDTH, False) + linear(1, WIDTH, WIDTH)
    total += linear(40, 512, COND, False)  # what the frozen text encoder gives
    total += 2 * linear(1, features + 1, COND)  # two numbers; frequencies are trained, too
    total += linear(1, 2 * COND, WIDTH) + linear(1, WIDTH, WIDTH)  # both numbers are the global condition
    total += 2 * linear(context, COND, COND)  # context
    total += linear(frames, CHANNELS, CHANNELS, False) + linear(
        frames, CHANNELS, CHANNELS
    )  # first and last convolution
    total += linear(frames, CHANNELS, WIDTH) + linear(tokens, WIDTH, CHANNELS)  # into the transformer and out of it
    total += linear(tokens, WIDTH, 3 * WIDTH) + linear(tokens, WIDTH, WIDTH)  # self-attention
    total += linear(tokens, WIDTH, WIDTH) + linear(context, COND, 2 * COND) + linear(tokens, WIDTH, WIDTH)
    total += 2 * 3 * 2 * tokens * tokens * WIDTH + 2 * 3 * 2 * tokens * context * WIDTH  # scores and their values
    total += linear(tokens, WIDTH, 2 * 4 * WIDTH) + linear(tokens, 4 * WIDTH, WIDTH)
    return total


def test_the_flops_of_a_clip_are_those_counted_by_hand(benchmark: ModuleType, base_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from sao.models.build import build

    config = json.loads((BASE_MODEL / "model_config.json").read_text(encoding="utf-8"))
    config["model"]["diffusion"]["config"]["depth"] = 1
    model = tmp_path / "model"
    model.mkdir()
    (model / "hub").symlink_to(base_model / "hub")
    (model / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    state = build(config, model / "hub").state_dict()
    save_file({key: value.clone().contiguous() for key, value in state.items()}, model / "model.safetensors")
    frames = benchmark.make_clips(tmp_path, config, count=2, seconds=1.5)
    job = benchmark.run_settings({}) | {"model": str(model), "datasets": str(tmp_path / "datasets")}
    assert benchmark.clip_flops(job) == {"flops": by_hand(frames)}


def test_what_was_measured_is_printed_before_what_comes_next(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As on a GPU, where more is measured after the rounds."""
    measured = {"steps_s": 2.0, "cpu_clip": 0.01, "peak": 3e9, "gpu": True, "others": 0.0}
    parts = {"stock": measured | {"clips_s": 16.0}, "ours": measured | {"clips_s": 32.0}}
    parts |= {"clip_flops": {"flops": 4.0e12}, "matmul_rate": {"rate": 800e12}}

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
    table = up_to("clip_flops").splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["stock", "16.00"], ["ours", "32.00"], ["ratio", "2.00"]]
    assert up_to("matmul_rate").splitlines() == [*table, "4.00 TFLOP a clip"]
    assert up_to("").splitlines()[-2:] == ["800 TFLOP/s in a matmul", "of which are used: stock 8.0%, ours 16.0%"]
