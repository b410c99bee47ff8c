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


def stable_audio_3(autoencoder: str, repo: str) -> dict[str, Any]:
    """The model config of a narrow Stable Audio 3: small with the autoencoder `taae_v2`, medium with `same`.

    `repo` has the text encoder, in a folder.
    """
    coder = {
        "channels": WIDTH, "c_mults": [1], "strides": [16], "latent_dim": 256, "transformer_depths": [1],
        "checkpointing": False, "differential": True, "dyt": True, "dim_heads": 64, "variable_stride": True,
    }  # fmt: skip
    encoder, decoder = {"mask_noise": 0.001}, {"mask_noise": 0.01, "sinusoidal_blocks": [0]}
    if autoencoder == "taae_v2":
        coder |= {"mapping_style": "none", "use_flash": True, "chunk_size": 32, "chunk_midpoint_shift": True}
        decoder |= {"conv_mapping": True}
    else:
        coder |= {"sliding_window": [1, 1]}
    text = {"repo_id": repo, "subfolder": "t5gemma-b-b-ul2"}
    conditioners = [
        {"id": "prompt", "type": "t5gemma", "config": text | {"max_length": 256, "padding_mode": "learned"}},
        {
            "id": "seconds_total",
            "type": "number",
            "config": {"min_val": 0, "max_val": 384, "fourier_features_type": "expo"},
        },
    ]
    dit = {
        "io_channels": 256, "embed_dim": WIDTH, "depth": 1, "num_heads": WIDTH // 64, "cond_token_dim": 768,
        "global_cond_dim": 768, "local_add_cond_dim": 257, "global_cond_type": "adaLN", "timestep_features_type": "expo",
        "attn_kwargs": {"qk_norm": "rms", "differential": autoencoder != "taae_v2"}, "norm_type": "rms_norm",
        "norm_kwargs": {"force_fp32": True}, "ff_kwargs": {"mult": 4.0}, "num_memory_tokens": 4,
    }  # fmt: skip
    return {
        "model_type": "diffusion_cond_inpaint",
        "sample_size": 5324800,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "chunked": True,
                "config": {
                    "pretransform": {"type": "patched", "config": {"patch_size": 256, "channels": 2}},
                    "encoder": {"type": autoencoder, "config": coder | encoder | {"in_channels": 512}},
                    "decoder": {"type": autoencoder, "config": coder | decoder | {"out_channels": 512}},
                    "bottleneck": {
                        "type": "softnorm",
                        "config": {
                            "dim": 256,
                            "noise_augment_dim": 0,
                            "noise_regularize": True,
                            "auto_scale": True,
                            "freeze": True,
                        },
                    },
                    "latent_dim": 256,
                    "downsampling_ratio": 4096,
                    "io_channels": 2,
                },
            },
            "conditioning": {"configs": conditioners, "cond_dim": 768},
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_total"],
                "global_cond_ids": ["seconds_total"],
                "local_add_cond_ids": ["inpaint_mask", "inpaint_masked_input"],
                "type": "dit",
                "diffusion_objective": "rectified_flow",
                "use_effective_length_for_schedule": True,
                "mask_padding_attention": True,
                "distribution_shift_options": {"type": "full", "min_length": 256, "max_length": 4096},
                "config": dit,
            },
            "io_channels": 256,
        },
        "training": {
            "use_ema": False,
            "log_loss_info": False,
            "pre_encoded": True,
            "timestep_sampler": "trunc_logit_normal",
            "mask_loss_weight": 1.0,
            "inpainting": {"mask_kwargs": {"mask_type_probabilities": [0.2, 0.6, 0.2]}},
            "lora_config": {"rank": 16},
            "optimizer_configs": {
                "diffusion": {
                    "optimizer": {
                        "type": "AdamW",
                        "config": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01},
                    },
                    "scheduler": {
                        "type": "InverseLR", "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.995}
                    },
                }
            },
        },
    }  # fmt: skip


def random_weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random weights that fit a model config."""
    from sao.training.rehearsal import rehearse

    generator = np.random.default_rng(0)
    shapes = rehearse(config, "micro", {})
    weights = {key: 0.05 * generator.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
    # The autoencoder's filters have length one, so that its output is loud enough to hear. Its normalisations pass on what they
    # get, and its attention is no mean over all, so that one hears what went in.
    ones = ("weight_g", "_norm.alpha", "_norm.gamma")
    for key in (
        key for key in weights if key.startswith("pretransform.") and key.endswith(("to_qkv.weight", "to_out.weight"))
    ):
        weights[key] *= 10
    return {
        key: np.ones_like(weight) if key.startswith("pretransform.") and key.endswith(ones) else weight
        for key, weight in weights.items()
    }


def safetensors(config: dict[str, Any]) -> bytes:
    return save(random_weights(config))


def text_encoder() -> dict[str, bytes]:
    """The files of an untrained T5 with one thin layer, as wide as t5-base, and the demo's tokenizer."""
    from transformers import T5Config, T5EncoderModel

    files = {
        name: (BASE_MODEL / "text_encoder" / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")
    }
    config = T5Config(vocab_size=4096, d_model=768, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    with tempfile.TemporaryDirectory() as folder:
        T5EncoderModel(config).save_pretrained(folder)
        return files | {name: Path(folder, name).read_bytes() for name in ("config.json", "model.safetensors")}


def gemma_encoder() -> dict[str, bytes]:
    """The files of an untrained T5Gemma with one thin layer, as wide as t5gemma-b-b-ul2, and the demo's tokenizer."""
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    layer = {"vocab_size": 4096, "hidden_size": 768, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8}
    layer |= {"num_attention_heads": 1, "num_key_value_heads": 1, "query_pre_attn_scalar": 8}
    layer |= {"layer_types": ["full_attention"]}
    config = T5GemmaConfig(encoder=layer, decoder=layer, is_encoder_decoder=False, vocab_size=4096)
    names = ("tokenizer.json", "tokenizer_config.json")
    files = {name: (BASE_MODEL / "text_encoder" / name).read_bytes() for name in names}
    with tempfile.TemporaryDirectory() as folder:
        T5GemmaEncoderModel(config).save_pretrained(folder)
        return files | {name: Path(folder, name).read_bytes() for name in ("config.json", "model.safetensors")}
