"""A run's settings override the `training` section of its model's config."""

from __future__ import annotations

import json

import pytest
from sao.base.command import InputError
from sao.models.config import training_config


def test_settings_go_over_the_models_config() -> None:
    settings = {
        "optimizer": None,
        "scheduler": None,
        "training": {},
        "learning_rate": None,
        "ema": None,
        "method": "full",
        "precision": "32-true",
    }
    own = {"optimizer": {"type": "AdamW", "config": {"lr": 1.0, "eps": 0.5}}, "scheduler": {"type": "InverseLR"}}
    model = {"training": {"optimizer_configs": {"diffusion": own}, "mask_padding": True}}
    before = json.dumps(model)

    def chosen(model_config: dict = model, **changes: object) -> dict:
        return training_config(model_config, settings | changes)

    def optimizer(*given: dict, **changes: object) -> dict:
        return chosen(*given, **changes)["optimizer_configs"]["diffusion"]["optimizer"]

    assert optimizer() == own["optimizer"] and chosen()["mask_loss_weight"] == 0
    assert optimizer(learning_rate=0.25) == {"type": "AdamW", "config": {"lr": 0.25, "eps": 0.5}}
    assert optimizer(optimizer={"type": "SGD"}, learning_rate=0.25) == {"type": "SGD", "config": {"lr": 0.25}}
    assert optimizer({"training": {"learning_rate": 5.0}}) == {"type": "Adam", "config": {"lr": 5.0}}
    assert optimizer({"training": {"learning_rate": 5.0}}, learning_rate=1.0)["config"] == {"lr": 1.0}
    changed = chosen(scheduler={"type": "constant"})["optimizer_configs"]["diffusion"]
    assert changed == {"optimizer": own["optimizer"], "scheduler": {"type": "constant"}}
    for unset in ({"training": {}}, {}):
        with pytest.raises(InputError, match="set learning_rate"):
            chosen(unset)
    with pytest.raises(InputError, match="set learning_rate"):
        chosen(optimizer={"type": "SGD"})
    coupled = {"training": model["training"] | {"ot_coupling": True}}
    assert chosen(coupled, accumulate=2)["ot_coupling"]
    with pytest.raises(InputError, match=r"ot_coupling pairs noise and clips .* set accumulate to a number"):
        chosen(coupled, accumulate="auto")
    assert json.dumps(model) == before


@pytest.mark.parametrize(
    ("changes", "own", "expected"),
    [
        ({}, {}, True),
        ({}, {"use_ema": False}, False),
        ({"ema": True}, {"use_ema": False}, True),
        ({"ema": False}, {}, False),
        ({"method": "lora"}, {"use_ema": True}, False),
        ({"precision": "bf16-true"}, {"use_ema": True}, False),
        ({"method": "dora", "ema": True}, {}, True),
    ],
)
def test_when_there_is_a_moving_average(changes: dict, own: dict, expected: bool) -> None:
    settings = {
        "optimizer": None,
        "scheduler": None,
        "training": {},
        "learning_rate": 1.0,
        "ema": None,
        "method": "full",
    }
    settings |= {"precision": "32-true"} | changes
    assert training_config({"training": own}, settings)["use_ema"] is expected


def test_a_run_lays_its_own_training_settings_over_the_models() -> None:
    settings = {"optimizer": None, "scheduler": None, "learning_rate": 1.0, "ema": None, "method": "full"}
    settings |= {"precision": "32-true", "training": {"cfg_dropout_prob": 0.2, "timestep_sampler": "log_snr"}}
    model = {"model_type": "diffusion_cond", "training": {"cfg_dropout_prob": 0.1, "mask_loss_weight": 0.5}}
    found = training_config(model, settings)
    assert (found["cfg_dropout_prob"], found["timestep_sampler"], found["mask_loss_weight"]) == (0.2, "log_snr", 0.5)
    assert model["training"]["cfg_dropout_prob"] == 0.1
    settings["training"] = {"inpainting": {"mask_kwargs": {"max_spans": 2}}}
    with pytest.raises(InputError, match="is for inpainting models"):
        training_config(model, settings)
    found = training_config(model | {"model_type": "diffusion_cond_inpaint"}, settings)
    assert found["inpainting"]["mask_kwargs"]["max_spans"] == 2
