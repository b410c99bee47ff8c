"""Every form of adapter: what stock stable-audio-tools makes of its file, and of the merged weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEPTH
from sao.base.command import InputError
from sao.training.adapters import adapted_modules, adapter_state, add_adapters, merged_weights, write_adapter
from sao.training.memory import PEFT, REMADE, adapter_parameters, is_adapted
from steps import make_model, shared_model

TYPES = ("lora", "dora", "dora-cols", "bora", "lora-xs", "dora-xs", "dora-cols-xs", "bora-xs")
# Layers of every kind: without a bias, with a bias, and a convolution.
TARGETS = ["to_q", "to_kv", "to_qkv", "to_out", "ff.2", "preprocess_conv"]


def settings(**changes: Any) -> dict[str, Any]:
    adapter = {"rank": 4, "alpha": 6, "rslora": False, "dropout": 0.0, "target_modules": TARGETS}
    return adapter | {"include": None, "exclude": None, "base_precision": "fp32"} | changes


@pytest.fixture(scope="module")
def base(base_model: Path) -> Any:
    """Tests must not change it."""
    return shared_model(base_model, "rectified_flow")


@pytest.fixture(scope="module")
def inputs(base: Any) -> dict[str, Any]:
    """What the transformer gets, of two clips. No adapter changes it."""
    clips = [{"prompt": text, "seconds_start": 0, "seconds_total": 3} for text in ("rain", "a bell")]
    latents = torch.randn(2, 64, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        conditions = base.get_conditioning_inputs(base.conditioner(clips, "cpu"))
    return {"x": latents, "t": torch.tensor([0.3, 0.8])} | conditions


def trained(base_model: Path, method: str, adapter: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """A model with adapters after two steps towards noise."""
    model: Any = make_model(base_model, "rectified_flow")
    add_adapters(model, method, adapter, 0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(2):
        model.model(**inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize(("method", "rslora"), [(method, number % 2 == 1) for number, method in enumerate(TYPES)])
def test_stock_stable_audio_tools_and_the_merged_weights_give_what_was_trained(
    base: Any, base_model: Path, inputs: dict[str, Any], tmp_path: Path, method: str, rslora: bool
) -> None:
    from sao.training.forms import merged_form
    from stable_audio_tools.models.lora import load_and_apply_loras, set_lora_strength

    adapter = settings(rslora=rslora, exclude=["layers.[1-3]"])
    model = trained(base_model, method, adapter, inputs)
    write_adapter(tmp_path, adapter_state(model, method), method, adapter)
    with torch.no_grad():
        expected, before = model.model(**inputs), base.model(**inputs)
        assert (expected - before).abs().max() > 1e-2
        stock: Any = make_model(base_model, "rectified_flow")
        load_and_apply_loras(stock, [str(tmp_path / "lora.safetensors")], "diffusion_cond")
        torch.testing.assert_close(stock.model(**inputs), expected, rtol=1e-3, atol=1e-4)
        weights = {key: value for key, value in base.state_dict().items()}
        merged = merged_weights(weights, tmp_path)
        plain: Any = make_model(base_model, "rectified_flow")
        plain.load_state_dict(merged, strict=True)
        torch.testing.assert_close(plain.model(**inputs), expected, rtol=1e-3, atol=1e-4)
        # Of other strengths too, of which 0 is the base model.
        for strength in (0.0, 0.5, 2.0):
            set_lora_strength(stock.model, strength)
            plain.load_state_dict(merged_form(weights, tmp_path / "lora.safetensors", strength), strict=True)
            torch.testing.assert_close(plain.model(**inputs), stock.model(**inputs), rtol=1e-3, atol=1e-4)
            distance = (plain.model(**inputs) - expected).abs().max()
            assert torch.equal(plain.model(**inputs), before) if strength == 0 else distance > 1e-3
    changed = {key for key in merged if not torch.equal(merged[key], weights[key])}
    assert changed == {f"model.{name}.weight" for name in adapted_modules(base.model, adapter)}
    # peft's form of the same adapter merges to the same.
    if method in PEFT:
        (tmp_path / "adapter_config.json").unlink()
        for key, value in merged_weights(weights, tmp_path).items():
            torch.testing.assert_close(value, merged[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", TYPES)
def test_an_untrained_adapter_changes_nothing_and_its_size_is_known(
    base: Any, base_model: Path, inputs: dict[str, Any], method: str
) -> None:
    model: Any = make_model(base_model, "rectified_flow")
    adapter = settings(target_modules="all-linear", exclude=["self_attn", "layers.[2-3]"])
    add_adapters(model, method, adapter, 0)
    with torch.no_grad():
        torch.testing.assert_close(model.model(**inputs), base.model(**inputs), rtol=1e-4, atol=1e-4)
    shapes = {key: tuple(value.shape) for key, value in base.state_dict().items() if key.startswith("model.")}
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert count == adapter_parameters({"shapes": shapes}, {"method": method, "adapter": adapter})
    assert not any("self_attn" in name for name, weight in model.named_parameters() if weight.requires_grad)


@pytest.mark.parametrize("method", [method for method in TYPES if method not in PEFT])
def test_initial_values_are_a_function_of_the_seed_in_any_base_precision(
    base_model: Path, inputs: dict[str, Any], method: str
) -> None:
    def state(seed: int, **changes: Any) -> dict[str, torch.Tensor]:
        model: Any = make_model(base_model, "rectified_flow")
        add_adapters(model, method, settings(include=["layers.0."], **changes), seed)
        if changes:
            weight = model.model.model.transformer.layers[0].self_attn.to_qkv.parametrizations.weight.original
            assert weight.dtype == torch.bfloat16 and not weight.requires_grad
            with torch.autocast("cpu", torch.bfloat16):
                model.model(**inputs).square().mean().backward()
            assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters() if w.requires_grad)
        return {key: value.detach().clone() for key, value in adapter_state(model, method).items()}

    first, half, other = state(0), state(0, base_precision="bf16"), state(1)
    assert first.keys() == half.keys() == other.keys()
    for key, value in first.items():
        assert value.dtype == torch.float32 and torch.equal(half[key], value)
        assert torch.equal(other[key], value) != key.endswith("lora_A")


class Reads(torch.overrides.TorchFunctionMode):
    """Counts what waits for the device."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.Tensor.item, torch.Tensor.__bool__, torch.Tensor.__float__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["dora-cols", "bora-xs"])
def test_no_forward_pass_reads_a_number_back(base: Any, base_model: Path, inputs: dict[str, Any], method: str) -> None:
    def reads(model: Any) -> int:
        with Reads() as counted:
            model.model(**inputs)
        return counted.count

    model: Any = make_model(base_model, "rectified_flow")
    add_adapters(model, method, settings(), 0)
    assert reads(model) == reads(base)  # those of stable-audio-tools' transformer, on a CPU


def test_parts_of_names_choose_modules(base: Any) -> None:
    def chosen(**changes: Any) -> list[str]:
        return adapted_modules(base.model, settings(target_modules=["to_qkv", "ff.2"], **changes))

    layers = [name for name in chosen() if name.endswith("to_qkv")]
    assert len(layers) == DEPTH and len(chosen()) == 2 * DEPTH
    assert chosen(include=["layers.[1-2]."]) == [name for name in chosen() if re.search(r"\.layers\.[12]\.", name)]
    assert chosen(include=["layers.0", "ff"]) == [name for name in chosen() if "layers.0" in name or "ff" in name]
    assert chosen(exclude=["ff"]) == layers and chosen(include=["layers.1"], exclude=["ff"]) == layers[1:2]
    assert not is_adapted("a.b.to_qkv", settings(include=["a+b"])), "a part is no expression"
    with pytest.raises(InputError, match="include and exclude leave no module"):
        chosen(include=["layers.7"])


def test_rank_above_a_weights_is_refused(base_model: Path) -> None:
    model: Any = make_model(base_model, "rectified_flow")
    with pytest.raises(InputError, match=r"adapter.rank is 4096, and lora-xs finds \d+ singular vectors in model\."):
        add_adapters(model, "lora-xs", settings(rank=4096), 0)


def test_bad_files_are_told(base: Any, base_model: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = trained(base_model, "bora", settings(), inputs)
    write_adapter(tmp_path, adapter_state(model, "bora"), "bora", settings())
    path, weights = tmp_path / "lora.safetensors", base.state_dict()
    state = load_file(path)
    config = {"rank": 4, "alpha": 6, "adapter_type": "bora", "include": []}
    key = next(key for key in state if key.endswith("lora_B"))

    def told(changes: dict[str, Any], message: str, **header: Any) -> None:
        changed = {name: value for name, value in (state | changes).items() if value is not None}
        save_file(changed, path, {"lora_config": json.dumps(config | header)})
        with pytest.raises(InputError, match=message) as error:
            merged_weights(weights, tmp_path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)

    told({key: None}, "lora_B")
    told({key: torch.zeros(3, 3)}, "lora_B")
    told({"model.none.parametrizations.weight.0.lora_A": torch.zeros(4, 4)}, "of another model; .* no model.model.none")
    told({key: torch.full_like(state[key], math.nan)}, "diverged")
    told({}, "has no lora_config of an adapter", adapter_type="other")
    told({}, "has no lora_config of an adapter", rank=None)
    save_file(state, path)
    with pytest.raises(InputError, match="has no lora_config of an adapter"):
        merged_weights(weights, tmp_path)


def test_every_form_has_its_memory() -> None:
    assert {method.removesuffix("-xs") for method in TYPES} == set(REMADE)
