"""What exports a config asks for, which of them are published, and what is refused at the start of Snakemake."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BASE_MODEL, ROOT
from sao.base.command import InputError
from sao.base.files import read_json
from sao.data.corpora import resolve
from sao.exports.form import PRECISIONS
from sao.exports.forms import FORMS
from sao.plan.exports import SENT
from sao.plan.plan import Plan

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def plan(base_model: Path = BASE_MODEL, **run: Any) -> Plan:
    """The plan of the default config with other settings of its run."""
    config = copy.deepcopy(CONFIG)
    config["base_models"]["demo"]["path"] = str(base_model)
    config["runs"]["demo"] |= run
    return Plan(resolve(config, [ROOT / "config.yaml"]))


FOLDER = "results/exports/demo"


def test_a_config_without_exports_makes_none_and_its_card_stays_as_it_was() -> None:
    here = plan()
    assert here.exports.all() == [] and "demo" in here.exports.nothing()
    assert here.publish.records("demo") == [] and "sent" not in here.publish.card("demo")
    assert "weights" not in here.publish.card("demo")["source"]


def test_forms_of_the_config_have_its_precision() -> None:
    here = plan(method="dora", exports={"forms": ["comfyui", "diffusers"], "precision": "float16"})
    assert here.exports.all() == [f"{FOLDER}/comfyui-float16.json", f"{FOLDER}/diffusers-float16.json"]
    assert here.publish.records("demo") == []
    plain = plan(exports={"forms": ["model"]})
    assert plain.exports.all() == [f"{FOLDER}/model-float32.json"]
    assert plain.training.settings("demo") == plan().training.settings("demo")


@pytest.mark.parametrize(
    ("send", "precision", "forms"),
    [
        (["model"], "float32", []),  # as rule export writes it
        (["model"], "bfloat16", ["model"]),
        (["adapter"], "float32", ["stable_audio_tools", "comfyui"]),
        (["diffusers", "adapter", "model"], "float16", ["diffusers", "stable_audio_tools", "comfyui", "model"]),
    ],
)
def test_what_is_sent_is_made(send: list[str], precision: str, forms: list[str]) -> None:
    exports = {"forms": ["comfyui"], "precision": precision}
    here = plan(method="lora", exports=exports, publish={"repo": "me/it", "send": send})
    assert here.publish.records("demo") == [f"{FOLDER}/{form}-{precision}.json" for form in forms]
    assert here.publish.folders("demo") == [f"{FOLDER}/{form}-{precision}" for form in forms]
    assert here.publish.send("demo") == send and here.publish.records("demo/step-00000300") == []
    assert here.publish.card("demo").get("sent") == (send if forms else None)
    assert here.exports.all() == [f"{FOLDER}/comfyui-{precision}.json"]


def test_files_of_an_adapter_are_those_of_the_exported_leg() -> None:
    here = plan(method="lora", checkpoint="best").exports
    legs = [f"results/checkpoints/demo/step-{at:08d}" for at in (300, 600)]
    assert here.trained("demo", "comfyui") == [f"{leg}/weights" for leg in legs]
    assert here.checksums("demo/step-00000300", "comfyui") == [f"{legs[0]}/checksums.sha256"]
    assert here.start_folder("demo", "comfyui") == ["results/models/demo"]
    assert here.trained("demo", "model") == [] and here.start("demo", "diffusers") == []
    assert here.settings("demo/step-00000300", "model", "float16")["precision"] == "float16"


def other_model(folder: Path, **transformer: Any) -> Path:
    """The demo's base model with other settings of its transformer."""
    model = shutil.copytree(BASE_MODEL, folder / "model")
    config = read_json(model / "model_config.json")
    config["model"]["diffusion"]["config"] |= transformer
    (model / "model_config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (
            {"exports": {"forms": ["comfyui"]}},
            "runs.demo: comfyui is the form of an adapter, and method full trains none",
        ),
        ({"publish": {"repo": "a/b", "send": ["adapter"]}}, "stable_audio_tools is the form of an adapter"),
        ({"exports": {"forms": ["onnx"]}}, "found 'onnx'; allowed: model, stable_audio_tools, comfyui, diffusers"),
        ({"exports": {"forms": []}}, "runs.demo.exports.forms"),
        ({"exports": {"forms": ["model"], "precision": "int8"}}, "found 'int8'; allowed: float32, float16, bfloat16"),
        ({"publish": {"repo": "a/b", "send": ["card"]}}, "found 'card'; allowed: model, adapter, diffusers"),
    ],
)
def test_wrong_exports_are_one_line(run: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        plan(**run)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_adapter_to_other_weights_is_not_sent_alone(tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(b"")
    run = {"method": "lora", "init_from": str(weights), "publish": {"repo": "a/b", "send": ["adapter"]}}
    with pytest.raises(InputError, match=r"runs.demo.publish.send: .*\(init_from\).*: send the model"):
        plan(**run)


def test_what_a_model_cannot_be_is_known_before_anything_runs(tmp_path: Path) -> None:
    model = other_model(tmp_path, num_memory_tokens=4)
    with pytest.raises(InputError) as error:
        plan(model, exports={"forms": ["diffusers"]})
    assert f"{model}/model_config.json: diffusers cannot express this model" in str(error.value)
    assert plan(model, exports={"forms": ["model"]}).exports.refusal("demo", "diffusers")
    assert plan(model, exports={"forms": ["model"]}).exports.forms_by_run("demo") == {"demo": ["model"]}


def test_the_schema_allows_the_registered_forms() -> None:
    schema = yaml.safe_load((ROOT / "schemas/config.schema.yaml").read_text(encoding="utf-8"))["$defs"]["run"][
        "properties"
    ]
    assert schema["exports"]["properties"]["forms"]["items"]["enum"] == list(FORMS)
    assert tuple(schema["exports"]["properties"]["precision"]["enum"]) == PRECISIONS
    assert set(schema["publish"]["properties"]["send"]["items"]["enum"]) == set(SENT)
    assert {form for forms in SENT.values() for form in forms} == set(FORMS)
