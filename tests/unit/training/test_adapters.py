"""LoRA and DoRA on the demo's model: the weights that are trained and saved, and that a merged model gives the same."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import DEPTH
from sao.base.command import InputError
from sao.base.files import read_json, write_json
from sao.models.build import build, load_weights
from sao.training.adapters import (
    ALL_LINEAR,
    ATTENTION,
    adapter_state,
    add_adapters,
    load_adapter_state,
    merged_weights,
    read_adapter,
    write_adapter,
)
from torch import Tensor
from torch.nn import Conv1d, Linear, Module

METHODS = ("lora", "dora")
# Layers of every kind: without a bias, with a bias, and a convolution.
TARGETS = [*ATTENTION, "ff.2", "preprocess_conv"]


def settings(targets: object = TARGETS, precision: str = "fp32", dropout: float = 0.0) -> dict:
    adapter = {"rank": 4, "alpha": 8, "rslora": False, "dropout": dropout, "target_modules": targets}
    return adapter | {"include": None, "exclude": None, "base_precision": precision}


@pytest.fixture(scope="module")
def base(base_model: Path) -> Module:
    """The demo's model. Weights that start at zero are drawn, as if it were trained. Tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:  # undoes the settings of `build`
        patch.setenv("HF_HUB_CACHE", "")
        patch.setenv("HF_HUB_OFFLINE", "1")
        model = build(read_json(base_model / "model_config.json"), base_model / "hub")
    load_weights(model, base_model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.model.parameters():
            if not weight.any():
                weight.normal_(std=0.05, generator=generator)
    return model


@pytest.fixture(scope="module")
def conditioning(base: Module) -> dict:
    clips = [{"prompt": text, "seconds_start": 0, "seconds_total": 3} for text in ("rain", "a bell")]
    with torch.no_grad():
        return base.conditioner(clips, "cpu")


def duplicate(model: Module) -> Module:
    """A copy of a model. It shares the autoencoder, whose weight norm cannot be copied."""
    return copy.deepcopy(model, {id(model.pretransform): model.pretransform})


def adapted(base: Module, method: str, adapter: dict | None = None, seed: int = 0) -> Module:
    model = duplicate(base)
    add_adapters(model, method, adapter or settings(), seed)
    return model


def forward(model: Module, conditioning: dict) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 64, 12, generator=generator)
    return model(latents, torch.tensor([0.3, 0.8]), cond=conditioning)


def output(model: Module, conditioning: dict) -> Tensor:
    with torch.no_grad():
        return forward(model, conditioning)


def train(model: Module, conditioning: dict, steps: int = 3, autocast: bool = False) -> None:
    """Train a few steps towards noise. Checkpointing is on, as is upstream's default."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    target = torch.randn(2, 64, 12, generator=torch.Generator().manual_seed(2))
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            prediction = forward(model, conditioning)
        loss = (prediction.float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, base: Module, conditioning: dict) -> tuple[str, Module]:
    """`(method, model with trained adapters)`. Tests must not change it."""
    model = adapted(base, request.param)
    train(model, conditioning)
    return request.param, model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, trained: tuple[str, Module]) -> Path:
    """The adapters of `trained` as files. Tests must not change them."""
    folder = tmp_path_factory.mktemp("adapter") / trained[0]
    write_adapter(folder, adapter_state(trained[1], trained[0]), trained[0], settings())
    return folder


def base_weights(model: Module) -> dict[str, Tensor]:
    return {k.replace(".base_layer.", "."): v for k, v in model.state_dict().items() if ".lora_" not in k}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


@pytest.mark.parametrize("targets", [TARGETS, ALL_LINEAR], ids=["named", "all-linear"])
@pytest.mark.parametrize("method", METHODS)
def test_untrained_adapters_change_nothing(base: Module, conditioning: dict, method: str, targets: object) -> None:
    model = adapted(base, method, settings(targets))
    assert type(model.model) is type(base.model)
    tolerance = {"rtol": 0, "atol": 0} if method == "lora" else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(output(model, conditioning), output(base, conditioning), **tolerance)


def test_only_adapters_are_trained(base: Module, conditioning: dict, trained: tuple[str, Module]) -> None:
    method, model = trained
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in parameters.items())
    # In each block six layers of self-attention, cross-attention and feed-forward, and one convolution in all.
    assert len(parameters) == (DEPTH * 6 + 1) * (3 if method == "dora" else 2)
    assert_same(base_weights(model), base.state_dict())
    before, after = adapter_state(adapted(base, method), method), adapter_state(model, method)
    assert all(not torch.equal(after[key], value) for key, value in before.items())
    assert (output(model, conditioning) - output(base, conditioning)).abs().max() > 0.05


def test_share_of_trained_parameters_is_small(base: Module) -> None:
    model = adapted(base, "lora", settings(list(ATTENTION)))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # rank (in + out) of to_qkv, both to_out, to_q and to_kv, in blocks of width 192
    assert count == DEPTH * 4 * 192 * (4 + 2 + 2 + 2 + 3)
    assert count < 0.02 * sum(p.numel() for p in base.model.parameters())


def test_written_and_read_again_gives_the_same_output(
    base: Module, conditioning: dict, trained: tuple[str, Module], written: Path
) -> None:
    from peft import PeftModel

    method, model = trained
    config, state = read_adapter(written)
    assert config.use_dora == (method == "dora") and config.lora_alpha == 8
    assert_same(dict(sorted(state.items())), dict(sorted(adapter_state(model, method).items())))
    again = adapted(base, method, seed=1)
    load_adapter_state(again, state, written)
    expected = output(model, conditioning)
    assert torch.equal(output(again, conditioning), expected)
    by_peft = duplicate(base)
    by_peft.model = PeftModel.from_pretrained(by_peft.model, written)
    assert torch.equal(output(by_peft, conditioning), expected)


def test_merged_weights_are_a_stock_model(
    base: Module, conditioning: dict, trained: tuple[str, Module], written: Path
) -> None:
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    merged = merged_weights(weights, written)
    assert_same(weights, base.state_dict())
    assert {k: (v.shape, v.dtype) for k, v in merged.items()} == {k: (v.shape, v.dtype) for k, v in weights.items()}
    changed = {key for key in merged if not torch.equal(merged[key], weights[key])}
    adapted_names = {
        key.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for key in adapter_state(trained[1], trained[0])
    }
    assert changed == {f"model.{name}.weight" for name in adapted_names}
    stock = duplicate(base)
    for parameter in stock.model.parameters():
        parameter.data.fill_(torch.nan)
    stock.load_state_dict(merged, strict=True)
    torch.testing.assert_close(output(stock, conditioning), output(trained[1], conditioning), rtol=1e-4, atol=1e-5)
    half = merged_weights({key: value.half() for key, value in weights.items()}, written)
    assert {value.dtype for value in half.values()} == {torch.float16}


def test_merging_a_target_of_all_linear(base: Module, conditioning: dict, tmp_path: Path) -> None:
    model = adapted(base, "dora", settings(ALL_LINEAR))
    train(model, conditioning)
    write_adapter(tmp_path, adapter_state(model, "dora"), "dora", settings(ALL_LINEAR))
    stock = duplicate(base)
    stock.load_state_dict(merged_weights(base.state_dict(), tmp_path), strict=True)
    torch.testing.assert_close(output(stock, conditioning), output(model, conditioning), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_initial_values_are_a_function_of_the_seed(base: Module, method: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = adapter_state(adapted(base, method), method)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(adapter_state(adapted(base, method), method), first)
    assert_same(adapter_state(adapted(base, method, settings(precision="bf16")), method), first)
    other = adapter_state(adapted(base, method, seed=1), method)
    assert all(torch.equal(other[key], value) != (".lora_A." in key) for key, value in first.items())


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_base_under_autocast(base: Module, conditioning: dict, method: str) -> None:
    model = adapted(base, method, settings(precision="bf16", dropout=0.1))
    before = duplicate(model)
    dtypes = {key: value.dtype for key, value in base_weights(model).items()}
    layers = [name for name, module in base.model.named_modules() if isinstance(module, (Linear, Conv1d))]
    half = {f"model.{name}.{part}" for name in layers for part in ("weight", "bias")} & set(dtypes)
    assert dtypes == {key: torch.bfloat16 if key in half else torch.float32 for key in dtypes}
    assert {value.dtype for value in adapter_state(model, method).values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = output(model.eval(), conditioning), output(base, conditioning)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    train(model.train(), conditioning, autocast=True)
    assert_same(base_weights(model), base_weights(before))
    initial = adapter_state(before, method)
    assert all(not torch.equal(value, initial[key]) for key, value in adapter_state(model, method).items())


@pytest.mark.parametrize(
    ("targets", "bad"),
    [
        (["to_x"], ["to_x"]),
        (["to_q", "to_y", "to_x"], ["to_x", "to_y"]),
        (["self_attn"], ["self_attn"]),
        (["0"], ["0"]),  # the end of the names of linear layers, and of a block
        (["o_q"], ["o_q"]),
    ],
)
def test_target_that_names_no_layer(base: Module, targets: list[str], bad: list[str]) -> None:
    with pytest.raises(InputError) as error:
        adapted(base, "lora", settings(targets))
    message = str(error.value)
    assert message.startswith("target_modules: ") and "\n" not in message
    assert f": {', '.join(map(repr, bad))}; choose among " in message
    known = message.split("choose among ")[1].split(", or")[0].split(", ")
    assert {*ATTENTION, "ff.2", "proj", "to_cond_embed.0", "preprocess_conv"} <= set(known)
    adapted(base, "lora", settings(known))


def test_dora_on_zero_rows(base: Module) -> None:
    model = duplicate(base)
    model.model.model.transformer.layers[1].cross_attn.to_out.weight.data[3] = 0
    with pytest.raises(InputError, match=r"^target_modules: .*layers\.1\.cross_attn\.to_out .* lora"):
        add_adapters(model, "dora", settings(), 0)


def missing_key(state: dict[str, Tensor]) -> None:
    state.popitem()


def unexpected_key(state: dict[str, Tensor]) -> None:
    state["base_model.model.model.project_in.lora_A.weight"] = torch.zeros(4, 64)


def other_rank(state: dict[str, Tensor]) -> None:
    key = next(key for key in state if "lora_A" in key)
    state[key] = torch.zeros(5, state[key].shape[1])


@pytest.mark.parametrize("edit", [missing_key, unexpected_key, other_rank])
def test_weights_that_do_not_fit(base: Module, written: Path, tmp_path: Path, edit: Callable) -> None:
    config, state = read_adapter(written)
    method = "dora" if config.use_dora else "lora"
    edit(state)
    model = adapted(base, method)
    with pytest.raises(InputError, match=rf"^{tmp_path}"):
        load_adapter_state(model, state, tmp_path)
    write_adapter(tmp_path, state, method, settings())
    with pytest.raises(InputError, match=rf"^{tmp_path}/adapter_model.safetensors: "):
        merged_weights(base.state_dict(), tmp_path)


def test_adapter_that_diverged(base: Module, trained: tuple[str, Module], tmp_path: Path) -> None:
    state = adapter_state(trained[1], trained[0])
    key = next(key for key in state if "lora_B" in key)
    state[key] = torch.full_like(state[key], torch.nan)
    write_adapter(tmp_path, state, trained[0], settings())
    with pytest.raises(InputError, match="diverged"):
        merged_weights(base.state_dict(), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"use_mora": True}, {"megatron_core": "antigravity"}, {"bias": "all"}, {"new": 1}, {"target_modules": "to_q"}],
)
def test_config_that_peft_would_read_otherwise(written: Path, tmp_path: Path, changes: dict) -> None:
    config, state = read_adapter(written)
    write_adapter(tmp_path, state, "dora" if config.use_dora else "lora", settings())
    path = tmp_path / "adapter_config.json"
    write_json(path, read_json(path) | changes)
    with pytest.raises(InputError, match=f"^{path}: {next(iter(changes))} "):
        read_adapter(tmp_path)
    for text in ("{", "[]", "{}", json.dumps({"r": 1})):
        path.write_text(text)
        with pytest.raises(InputError, match=f"^{path}: not the config"):
            read_adapter(tmp_path)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_pickle_is_not_run(base: Module, written: Path, tmp_path: Path, name: str) -> None:
    folder, marker = tmp_path / "adapter", tmp_path / "marker"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((written / "adapter_config.json").read_bytes())
    content = pickle.dumps(Malicious(marker))
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="safetensors"):
        merged_weights(base.state_dict(), folder)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()
