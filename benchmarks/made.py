"""Files that benchmarks train with: a model of random weights, clips of noise, and their latents."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
Config = dict[str, Any]

TEXT_ENCODER = {"vocab_size": 32128, "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12}  # of t5-base


def full_config() -> Config:
    """Stable Audio Open 1.0's model config."""
    shape = {"channels": 128, "c_mults": [1, 2, 4, 8, 16], "strides": [2, 4, 4, 8, 8], "use_snake": True}
    number = {"min_val": 0, "max_val": 512}
    return {
        "model_type": "diffusion_cond",
        "sample_size": 2097152,
        "sample_rate": 44100,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "config": {
                    "encoder": {"type": "oobleck", "config": {"in_channels": 2, "latent_dim": 128, **shape}},
                    "decoder": {
                        "type": "oobleck",
                        "config": {"out_channels": 2, "latent_dim": 64, "final_tanh": False, **shape},
                    },
                    "bottleneck": {"type": "vae"},
                    "latent_dim": 64,
                    "downsampling_ratio": 2048,
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-base", "max_length": 128}},
                    {"id": "seconds_start", "type": "number", "config": number},
                    {"id": "seconds_total", "type": "number", "config": number},
                ],
                "cond_dim": 768,
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "type": "dit",
                "config": {
                    "io_channels": 64,
                    "embed_dim": 1536,
                    "depth": 24,
                    "num_heads": 24,
                    "cond_token_dim": 768,
                    "global_cond_dim": 1536,
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": 64,
        },
        "training": {
            "use_ema": True,
            "optimizer_configs": {
                "diffusion": {
                    "optimizer": {
                        "type": "AdamW",
                        "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3},
                    },
                    "scheduler": {
                        "type": "InverseLR",
                        "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99},
                    },
                }
            },
        },
    }


def micro_config() -> Config:
    """The same model with narrow layers, for a trial on a CPU."""
    config = copy.deepcopy(full_config())
    model = config["model"]
    narrow = {"embed_dim": 64, "depth": 1, "num_heads": 1, "cond_token_dim": 64, "global_cond_dim": 128}
    model["diffusion"]["config"] |= narrow | {"project_cond_tokens": True}
    model["conditioning"]["cond_dim"] = 64
    for part in ("encoder", "decoder"):
        model["pretransform"]["config"][part]["config"]["channels"] = 8
    config["sample_size"] = 128 * 2048
    return config


def use_hub(hub: Path) -> None:
    """Look for text encoders there and nowhere else; before anything imports huggingface_hub."""
    os.environ |= {"HF_HUB_CACHE": str(hub.resolve()), "HF_HUB_OFFLINE": "1"}


def make_model(folder: Path, config: Config, encoder_layers: int = 12) -> None:
    """Write `folder/model`, a base model of a config with random weights, and the listing that vouches for it."""
    use_hub(folder / "model/hub")
    import torch
    from sao.base.files import write_json
    from sao.base.names import write_digests
    from sao.models.build import create, write_safetensors
    from transformers import T5Config, T5EncoderModel

    hub, revision = folder / "model/hub/models--t5-base", 40 * "0"
    encoder = T5Config(**TEXT_ENCODER, num_layers=encoder_layers)
    T5EncoderModel(encoder).half().save_pretrained(hub / "snapshots" / revision)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "resources/demo/base_model/text_encoder" / name, hub / "snapshots" / revision)
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text(revision)
    write_json(folder / "model/model_config.json", config)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a billion random numbers
        state = create(config, "the model").state_dict()
    write_safetensors({k: v.cpu().clone().contiguous() for k, v in state.items()}, folder / "model/model.safetensors")
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    write_digests(folder / "model.sha256", folder / "model", files)


def make_clips(folder: Path, config: Config, count: int, seconds: float) -> None:
    """Write clips of noise as audio and as latents, with dataset configs.

    `audio.json` is for stable-audio-tools' loop from audio, `latents.json` for its loop from latents, and `datasets` with
    `summary.json` for scripts/train.py. `audio` and `audio.csv` are for scripts/encode.py.
    """
    import numpy as np
    import pandas as pd
    import soundfile
    from sao.base.files import sha256, write_json
    from sao.base.names import clip_id, write_digests
    from sao.base.tables import write_table
    from sao.models.autoencoder import clip_facts
    from sao.models.config import window_frames
    from sao.training.dataset_configs import write_hook

    folder.mkdir(exist_ok=True)
    rng, rate = np.random.default_rng(0), config["sample_rate"]
    samples, frames = int(seconds * rate), window_frames(config, seconds)
    names = [f"noise {number}.wav" for number in range(count)]
    ids = {name: clip_id("noise", name) for name in names}
    table = pd.DataFrame({"file_name": names, "clip_id": list(ids.values())})
    table["caption_1"] = [f"Noise number {name[6:-4]} hisses without end in a large empty hall." for name in names]
    for made in ("audio", "latents"):
        (folder / made).mkdir()
    noise = 0.1 * rng.standard_normal((samples, 2))
    for name, clip in ids.items():
        soundfile.write(folder / "audio" / name, np.roll(noise, rng.integers(samples)), rate, subtype="PCM_16")
        for end, scale in ((".npy", 1), (".std", 0.1)):
            drawn = rng.standard_normal((64, frames), dtype=np.float32)
            with (folder / "latents" / f"{clip}{end}").open("wb") as handle:
                np.save(handle, scale * np.abs(drawn) if end == ".std" else drawn)
        write_json(folder / "latents" / f"{clip}.json", {"clip_id": clip} | clip_facts(samples, config, frames))
    facts = table[["file_name"]].assign(seconds=seconds, problem=None, peak_dbfs=-7.0)
    write_table(folder / "audio.csv", facts.assign(sha256=[sha256(folder / "audio" / name) for name in names]))

    texts = {row.clip_id: [(row.caption_1, 1.0)] for row in table.itertuples()}
    write_hook(folder / "audio_hook", "file_name", table, texts, [])
    entry = {"id": "noise", "path": f"{folder}/audio", "custom_metadata_module": f"{folder}/audio_hook/metadata.py"}
    write_json(folder / "audio.json", {"dataset_type": "audio_dir", "datasets": [entry], "random_crop": False})
    for role in ("train", "validation"):
        here, used = folder / "datasets" / role, names if role == "train" else names[:2]
        write_hook(here, "clip_id", table[table.file_name.isin(used)], texts, [])
        (here / "filelist.txt").write_text("".join(f"../../latents/{ids[name]}.npy\n" for name in used))
        entry = {"id": role, "path": str(here), "custom_metadata_module": f"{here}/metadata.py"}
        dataset = {"dataset_type": "pre_encoded", "datasets": [entry], "latent_crop_length": frames}
        write_json(folder / f"datasets/{role}.json", dataset | {"random_crop": False, "drop_last": role == "train"})
    files = sorted(path for path in (folder / "datasets").rglob("*") if path.is_file())
    write_digests(folder / "datasets.sha256", folder / "datasets", files)


def vouch(folder: Path, model: Path, model_digest: Path) -> None:
    """Write `latents.json`, which says that the latents are of this model, and encode the captions, as the graph does."""
    import encode_captions
    from sao.base.files import sha256, write_json
    from sao.models.encoding import summarise

    clips = len(list((folder / "latents").glob("*.npy")))
    write_json(folder / "latents.json", {"base_model": sha256(model_digest)} | summarise(folder / "latents", clips))
    options = {
        "dataset-configs": folder / "datasets", "datasets-digest": folder / "datasets.sha256", "model": model,
        "model-digest": model_digest, "code": "bench", "output": folder / "captions.safetensors",
        "digest": folder / "captions.json",
    }  # fmt: skip
    sys.argv = ["encode_captions.py", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
    encode_captions.main()


def run_settings(changes: Config) -> Config:
    """Settings of config.yaml's run with changes, as rule train gives them to scripts/train.py."""
    import yaml
    from sao.data.corpora import resolve
    from sao.plan.plan import Plan

    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["runs"]["demo"] |= changes
    plan = Plan(resolve(config, [ROOT / "config.yaml"]))
    return {"settings": plan.training.settings("demo"), "running": plan.training.running("demo")}


def train_command(files: Config, name: str, run: Config, output: Path, resume: str | None = None) -> list[str]:
    """The command line of scripts/train.py, as rule train has it, for a leg `name`."""
    words = ["train.py", "--run", "bench", "--leg", name, *(["--resume", resume] if resume else [])]
    words += ["--settings", json.dumps(run["settings"]), "--running", json.dumps(run["running"])]
    words += ["--dataset-configs", files["datasets"], "--datasets-digest", files["datasets"] + ".sha256"]
    words += ["--captions", files["captions"], "--captions-digest", files["captions"].replace(".safetensors", ".json")]
    words += ["--sound-digest", *files["sounds"], "--model", files["model"]]
    words += ["--model-digest", files["model_digest"], "--code", "bench", "--output", f"{output}/{name}"]
    return [*words, "--log", f"{output}/train.log"]
