"""Narrow models in the form of the presets' models, with the true window, rates, strides and settings."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from conftest import BASE_MODEL
from safetensors.numpy import save

WIDTH = 128  # of the transformer; stable-audio-tools' rotary positions need heads of at least 64


def _model(conditioners: list[dict], diffusion: dict[str, Any], pretransform: dict[str, Any]) -> dict[str, Any]:
    coder = {"channels": 2, "c_mults": [1, 2, 4, 8, 16], "strides": [2, 4, 4, 8, 8], "use_snake": True}
    names = [entry["id"] for entry in conditioners]
    return {
        "pretransform": {
            "type": "autoencoder",
            "iterate_batch": True,
            **pretransform,
            "config": {
                "encoder": {"type": "oobleck", "config": coder | {"in_channels": 2, "latent_dim": 128}},
                "decoder": {
                    "type": "oobleck", "config": coder | {"out_channels": 2, "latent_dim": 64, "final_tanh": False}
                },
                "bottleneck": {"type": "vae"},
                "latent_dim": 64,
                "downsampling_ratio": 2048,
                "io_channels": 2,
            },
        },
        "conditioning": {"configs": conditioners, "cond_dim": 768},
        "diffusion": {"cross_attention_cond_ids": names, "global_cond_ids": names[1:], "type": "dit"} | diffusion,
        "io_channels": 64,
    }  # fmt: skip


def _seconds(name: str, longest: int) -> dict[str, Any]:
    return {"id": name, "type": "number", "config": {"min_val": 0, "max_val": longest}}


def _prompt() -> dict[str, Any]:
    return {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-base", "max_length": 128}}


def _dit(global_width: int) -> dict[str, Any]:
    return {
        "io_channels": 64, "embed_dim": WIDTH, "depth": 1, "num_heads": WIDTH // 64, "cond_token_dim": 768,
        "global_cond_dim": global_width, "transformer_type": "continuous_transformer",
    }  # fmt: skip


def stable_audio_open() -> dict[str, Any]:
    """The model config of a narrow Stable Audio Open 1.0."""
    conditioners = [_prompt(), _seconds("seconds_start", 512), _seconds("seconds_total", 512)]
    optimizer = {"type": "AdamW", "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3}}
    schedule = {"type": "InverseLR", "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99}}
    return {
        "model_type": "diffusion_cond",
        "sample_size": 2097152,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": _model(conditioners, {"config": _dit(1536)}, {}),
        "training": {
            "use_ema": True,
            "log_loss_info": False,
            "optimizer_configs": {"diffusion": {"optimizer": optimizer, "scheduler": schedule}},
        },
    }


def stable_audio_open_small() -> dict[str, Any]:
    """The model config of a narrow Stable Audio Open Small before its distillation."""
    diffusion = {
        "diffusion_objective": "rectified_flow",
        "distribution_shift_options": {"min_length": 256, "max_length": 4096},
        "config": _dit(768) | {"attn_kwargs": {"qk_norm": "ln"}},
    }
    optimizer = {
        "type": "AdamW",
        "config": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01, "foreach": True},
    }
    return {
        "model_type": "diffusion_cond",
        "sample_size": 524288,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": _model([_prompt(), _seconds("seconds_total", 256)], diffusion, {"model_half": True, "chunked": True}),
        "training": {
            "use_ema": True,
            "log_loss_info": False,
            "pre_encoded": True,
            "timestep_sampler": "trunc_logit_normal",
            "optimizer_configs": {"diffusion": {"optimizer": optimizer}},
        },
    }


def random_weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random weights that fit a model config."""
    from sao.training.rehearsal import rehearse

    generator = np.random.default_rng(0)
    shapes = rehearse(config, "micro", {})
    weights = {key: 0.05 * generator.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
    # The autoencoder's filters have length one, so that its output is loud enough to hear.
    return {key: np.ones_like(weight) if key.endswith("weight_g") else weight for key, weight in weights.items()}


def safetensors(config: dict[str, Any]) -> bytes:
    return save(random_weights(config))


def text_encoder() -> dict[str, bytes]:
    """The files of an untrained T5 with one thin layer, as wide as t5-base, and the demo's tokenizer."""
    from transformers import T5Config, T5EncoderModel

    files = {
        name: (BASE_MODEL / "text_encoder" / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")
    }
    config = T5Config(vocab_size=2048, d_model=768, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    with tempfile.TemporaryDirectory() as folder:
        T5EncoderModel(config).save_pretrained(folder)
        return files | {name: Path(folder, name).read_bytes() for name in ("config.json", "model.safetensors")}
