"""Make the demo base model: Stable Audio Open 1.0's architecture, small enough for two CPU cores.

    uv run python resources/demo/make_base_model.py --samples /usr/share/sonic-pi/samples --minutes 12

Pretrains the autoencoder on the CC0 recordings of Debian's `sonic-pi-samples` (less the demo corpus's
validation and evaluation clips) and a small T5 text encoder on the captions' text alone, then assembles
`base_model/`: `model_config.json`, `model.safetensors`, `text_encoder/`. The DiT keeps its random initialisation. It
has seen no sound and no caption, so whatever a fine-tuned run can do, it learned in the graph.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from huggingface_hub import constants
from make_corpus import cut
from safetensors.torch import load_file, save_file
from stable_audio_tools.models.factory import create_model_from_config
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

HERE = Path(__file__).resolve().parent
SAMPLE_RATE = 16000  # Hz
HOP = 1024  # samples a latent frame
LATENT_DIM = 64
PATCH = 64  # samples
CHANNELS = 96
BALANCE = 0.6  # exponent
NOISE = 0.05  # standard deviation of the posterior
FRAMES = 48  # latent frames of the window: 3.07 s
COND_DIM = 128
TEXT_LENGTH = 40  # tokens

# The encoder sees patches of 64 samples as channels: at the full rate two CPU cores would train for days.
AUTOENCODER = {
    "pretransform": {"type": "patched", "config": {"channels": 2, "patch_size": PATCH}},
    "encoder": {
        "type": "oobleck",
        "config": {
            "in_channels": 2 * PATCH,
            "channels": CHANNELS,
            "c_mults": [1],
            "strides": [HOP // PATCH],
            "latent_dim": 2 * LATENT_DIM,
            "use_snake": True,
        },
    },
    "decoder": {
        "type": "oobleck",
        "config": {
            "out_channels": 2 * PATCH,
            "channels": CHANNELS,
            "c_mults": [1],
            "strides": [HOP // PATCH],
            "latent_dim": LATENT_DIM,
            "use_snake": True,
            "final_tanh": False,
        },
    },
    "bottleneck": {"type": "vae"},
    "latent_dim": LATENT_DIM,
    "downsampling_ratio": HOP,
    "io_channels": 2,
}


def load_recordings(samples: Path, clips_csv: Path) -> tuple[list[torch.Tensor], list[float]]:
    """Stereo recordings `[2, samples]` at `SAMPLE_RATE` with a sampling weight each."""
    with clips_csv.open(encoding="utf-8", newline="") as handle:
        split_of = {row["sample"]: row["split"] for row in csv.DictReader(handle)}
    recordings, weights = [], []
    for path in sorted(samples.glob("*.flac")):
        split = split_of.get(path.stem)
        if split in ("validation", "evaluation"):
            continue
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        audio = torch.from_numpy(audio.T.copy())
        audio = torchaudio.functional.resample(audio, rate, SAMPLE_RATE)
        recordings.append(audio.repeat(2 // audio.shape[0], 1))
        # The corpus's own training clips are what the demo has to say back: two thirds of all crops.
        weights.append(1.0 if split is None else 20.0)
    return recordings, weights


def random_crop(recordings: list[torch.Tensor], weights: list[float], length: int, rng: random.Random) -> torch.Tensor:
    audio = rng.choices(recordings, weights)[0]
    start = rng.randint(-length // 4, max(0, audio.shape[1] - length // 2))
    crop = torch.zeros(2, length)
    a, b = max(0, start), min(audio.shape[1], start + length)
    crop[:, a - start : b - start] = audio[:, a:b]
    return crop * rng.choice((1.0, -1.0))


def principal_components(vectors: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` principal directions `[count, dimensions]` of weighted `vectors` `[n, dimensions]`."""
    _, directions = torch.linalg.eigh((vectors * weights[:, None]).T @ vectors)
    return directions.flip(1)[:, :count].T


def set_weight(conv: torch.nn.Module, weight: torch.Tensor) -> None:
    """Set the weight of a weight-normalised convolution; what is zero stays trainable through its gain."""
    norm = weight.flatten(1).norm(dim=1)
    with torch.no_grad():
        conv.weight_g.copy_(norm.view_as(conv.weight_g))
        conv.weight_v.copy_(torch.where(norm.view_as(conv.weight_g) > 0, weight, conv.weight_v))
        if conv.bias is not None:
            conv.bias.zero_()


def tap(matrix: torch.Tensor, kernel: int, first: int) -> torch.Tensor:
    """A kernel `[out, in, kernel]` whose taps from `first` on are the slices of `matrix` `[out, taps, in]`."""
    weight = torch.zeros(matrix.shape[0], matrix.shape[2], kernel)
    weight[:, :, first : first + matrix.shape[1]] = matrix.permute(0, 2, 1)
    return weight


def start_linear(model: torch.nn.Module, recordings: list[torch.Tensor], weights: list[float]) -> None:
    """Start from the best linear autoencoder of the recordings: principal components, first of patches, then of frames.

    From there the training only has to add what a linear map cannot do. The main path's activations start as the
    identity, the residual units at zero.
    """
    patches, frame_weights = [], []
    for audio, weight in zip(recordings, weights, strict=True):
        frames = -(-audio.shape[1] // HOP)
        padded = torch.nn.functional.pad(audio, (0, frames * HOP - audio.shape[1]))
        cut = (
            padded.reshape(2, frames, HOP // PATCH, PATCH).permute(1, 2, 0, 3).flatten(2)
        )  # frame, patch, channel x time
        patches.append(cut)
        frame_weights.append(torch.full((frames,), weight / max(float(audio.square().sum()), 1e-3)))
    x, w = torch.cat(patches), torch.cat(frame_weights)
    of_patch = principal_components(x.flatten(0, 1), w.repeat_interleave(HOP // PATCH), CHANNELS)
    reduced = x @ of_patch.T
    of_frame = principal_components(reduced.flatten(1), w, CHANNELS).view(CHANNELS, HOP // PATCH, CHANNELS)
    latents = torch.einsum("fpc,kpc->fk", reduced, of_frame)[:, :LATENT_DIM]
    # Half-way to unit variance each, so that the faint components do not drown in diffusion's noise.
    spread = (latents.square() * w[:, None]).sum(0).div(w.sum()).sqrt()
    scale = torch.diag(spread.clamp_min(1e-4).rsqrt())
    scale = scale / (latents @ scale).std()
    down = torch.zeros(2 * LATENT_DIM, CHANNELS)
    down[:LATENT_DIM, :LATENT_DIM] = scale
    up = torch.zeros(CHANNELS, LATENT_DIM)
    up[:LATENT_DIM] = torch.linalg.inv(scale)

    stride, encoder, decoder = HOP // PATCH, model.encoder.layers, model.decoder.layers
    set_weight(encoder[0], tap(of_patch[:, None], 7, 3))
    set_weight(encoder[1].layers[4], tap(of_frame, 2 * stride, stride // 2))
    set_weight(encoder[3], tap(down[:, None], 3, 1))
    set_weight(decoder[0], tap(up[:, None], 7, 3))
    set_weight(decoder[1].layers[1], tap(of_frame, 2 * stride, stride // 2))
    set_weight(decoder[3], tap(of_patch.T[:, None], 7, 3))
    with torch.no_grad():
        for activation in (encoder[1].layers[3], encoder[2], decoder[1].layers[0], decoder[2]):
            activation.alpha.fill_(-8)  # logarithmic: x + sin^2(alpha x) / beta is x
        for unit in [*encoder[1].layers[:3], *decoder[1].layers[2:]]:
            unit.layers[-1].weight_g.zero_()
            unit.layers[-1].bias.zero_()


def spectral_loss(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 between magnitude spectrograms, linear and logarithmic, over five resolutions; audio is `[batch, samples]`.

    The floor under the logarithm (-70 dB) keeps digital silence, common in short recordings, from ruling the loss.
    """
    loss = torch.zeros(())
    for n in (2048, 1024, 512, 256, 128):
        window = torch.hann_window(n)
        both = torch.stft(torch.cat([estimate, target]), n, n // 4, window=window, return_complex=True)
        magnitude = both.abs() / window.square().sum().sqrt()
        a, b = magnitude.chunk(2)
        loss = loss + 5 * (a - b).abs().mean() + ((a + 3e-4).log() - (b + 3e-4).log()).abs().mean()
    return loss / 5


def autoencoder_config() -> dict:
    return {"model_type": "autoencoder", "sample_rate": SAMPLE_RATE, "sample_size": HOP * FRAMES, "model": AUTOENCODER}


def train_autoencoder(args: argparse.Namespace) -> None:
    """Multi-resolution STFT and waveform losses, no discriminator; the weights go to `args.autoencoder`."""
    torch.manual_seed(0)
    rng = random.Random(0)
    recordings, weights = load_recordings(args.samples, HERE / "clips.csv")
    seconds = sum(r.shape[1] for r in recordings) / SAMPLE_RATE
    print(f"{len(recordings)} recordings, {seconds:.0f} s")
    model = create_model_from_config(autoencoder_config())
    model.pretransform.enable_grad = True
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    start_linear(model, recordings, [1.0 if weight > 1 else 0.01 for weight in weights])
    if args.resume:
        model.load_state_dict(load_file(args.autoencoder), strict=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.8, 0.99), weight_decay=1e-3)
    start, step, recent = time.monotonic(), 0, []
    while (elapsed := (time.monotonic() - start) / 60) < args.minutes:
        # Linear warm-up, then a cosine over the whole time budget.
        lr = (
            args.lr
            * min(1.0, (step + 1) / 100)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * elapsed / args.minutes)))
        )
        for group in optimiser.param_groups:
            group["lr"] = lr
        audio = torch.stack([random_crop(recordings, weights, args.crop, rng) for _ in range(args.batch_size)])
        # The posterior's mean under a little noise of a fixed size: a learned one drowns so short a training.
        mean = model.encode(audio, skip_bottleneck=True).chunk(2, dim=1)[0]
        decoded = model.decode(mean + NOISE * torch.randn_like(mean))[..., : audio.shape[-1]]
        # Mid and side: the second keeps the stereo image.
        target = torch.cat([audio.mean(1), (audio[:, 0] - audio[:, 1]) / 2])
        estimate = torch.cat([decoded.mean(1), (decoded[:, 0] - decoded[:, 1]) / 2])
        spectral = spectral_loss(estimate, target)
        l1 = (audio - decoded).abs().mean()
        # First the waveform, then more and more the spectrum: noise cannot be matched sample by sample.
        loss = spectral + (15 - 13 * elapsed / args.minutes) * l1 + 1e-4 * mean.square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        recent.append((spectral.item(), l1.item(), mean.std().item()))
        if step % 50 == 0:
            spectral_mean, l1_mean, std_mean = np.mean(recent, axis=0)
            recent = []
            print(
                f"{elapsed:5.1f} min  step {step}  stft {spectral_mean:.3f}  l1 {l1_mean:.4f}  std {std_mean:.2f}",
                flush=True,
            )
        if step % 200 == 0:
            save_file(model.state_dict(), args.autoencoder)
    # Fix the posterior's standard deviation: softplus(bias) = NOISE whatever the input.
    last = model.encoder.layers[-1]
    with torch.no_grad():
        last.weight_g[LATENT_DIM:] = 0
        last.bias[LATENT_DIM:] = math.log(math.expm1(NOISE))
    save_file(model.state_dict(), args.autoencoder)


def train_tokenizer(clips_csv: Path) -> T5TokenizerFast:
    """A small Unigram tokenizer with T5's special tokens; letters, digits and punctuation keep any text readable."""
    with clips_csv.open(encoding="utf-8", newline="") as handle:
        captions = [row[f"caption_{i}"] for row in csv.DictReader(handle) for i in range(1, 6)]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=540,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=[chr(c) for c in range(33, 127)],
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=TEXT_LENGTH)


def make_text_encoder(folder: Path) -> None:
    """A one-layer T5 encoder, trained on text alone: every token of a caption has to tell what all five are about.

    That is the clip's keywords, and which of the clips it is: guitar chord and guitar slide share their keywords.
    """
    torch.manual_seed(1)
    tokenizer = train_tokenizer(HERE / "clips.csv")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=512,  # the width that stable-audio-tools expects of t5-small
        d_kv=32,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5EncoderModel(config)
    with (HERE / "clips.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    keywords = sorted({word for row in rows for word in row["keywords"].split(";")})
    targets = torch.tensor([[float(word in row["keywords"].split(";")) for word in keywords] for row in rows])
    captions = [row[f"caption_{i}"] for row in rows for i in range(1, 6)]
    encoded = tokenizer(captions, padding=True, return_tensors="pt")
    targets = targets.repeat_interleave(5, dim=0)
    clips = torch.arange(len(rows)).repeat_interleave(5)
    head = torch.nn.Linear(config.d_model, len(keywords) + len(rows))
    optimiser = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(300):
        # Dropped words keep it from learning captions by heart.
        kept = encoded.attention_mask * (torch.rand(encoded.input_ids.shape) > 0.3)
        states = model(input_ids=encoded.input_ids, attention_mask=kept)["last_hidden_state"]
        told, named = head(states).split((len(keywords), len(rows)), dim=-1)
        present = kept.bool()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            told[present], targets[:, None].expand(-1, kept.shape[1], -1)[present]
        ) + 0.2 * torch.nn.functional.cross_entropy(named[present], clips[:, None].expand(-1, kept.shape[1])[present])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"text encoder: loss {loss.item():.4f}")
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_config(scale: float) -> dict:
    """Stable Audio Open 1.0's `model_config.json` with smaller numbers."""
    return {
        "model_type": "diffusion_cond",
        "sample_size": HOP * FRAMES,
        "sample_rate": SAMPLE_RATE,
        "audio_channels": 2,
        "model": {
            "pretransform": {"type": "autoencoder", "iterate_batch": True, "scale": scale, "config": AUTOENCODER},
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-small", "max_length": TEXT_LENGTH}},
                    {"id": "seconds_start", "type": "number", "config": {"min_val": 0, "max_val": 512}},
                    {"id": "seconds_total", "type": "number", "config": {"min_val": 0, "max_val": 512}},
                ],
                "cond_dim": COND_DIM,
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "type": "dit",
                "config": {
                    "io_channels": LATENT_DIM,
                    "embed_dim": 128,
                    "depth": 3,
                    "num_heads": 4,
                    "cond_token_dim": COND_DIM,
                    "global_cond_dim": 2 * COND_DIM,
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": LATENT_DIM,
        },
        "training": {
            "use_ema": True,
            "log_loss_info": False,
            "optimizer_configs": {
                "diffusion": {
                    "optimizer": {
                        "type": "AdamW",
                        "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3},
                    },
                    "scheduler": {"type": "InverseLR", "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99}},
                }
            },
        },
    }


@torch.inference_mode()
def balance(autoencoder: torch.nn.Module, samples: Path) -> None:
    """Scale the latents' channels by how loud an error in them sounds: what diffusion leaves in the bass would rumble.

    Half-way (see `start_linear`), or the faint channels would drown.
    """
    latents = torch.stack(training_latents(autoencoder, samples))
    decoded, errors = autoencoder.decode(latents), []
    for channel in range(LATENT_DIM):
        moved = latents.clone()
        moved[:, channel] += torch.randn_like(moved[:, channel])
        errors.append((autoencoder.decode(moved) - decoded).square().mean().sqrt())
    scale = torch.stack(errors).div(torch.stack(errors).median()).pow(BALANCE)
    last, first = autoencoder.encoder.layers[-1], autoencoder.decoder.layers[0]
    last.weight_g[:LATENT_DIM] *= scale[:, None, None]
    last.bias[:LATENT_DIM] *= scale
    weight = first.weight_g * first.weight_v / first.weight_v.flatten(1).norm(dim=1).view_as(first.weight_g)
    bias = first.bias.clone()
    set_weight(first, weight / scale[None, :, None])
    first.bias.copy_(bias)


def training_latents(autoencoder: torch.nn.Module, samples: Path) -> list[torch.Tensor]:
    """Latents `[channels, frames]` of the corpus's training clips, padded to the window."""
    with (HERE / "clips.csv").open(encoding="utf-8", newline="") as handle:
        chosen = [row for row in csv.DictReader(handle) if row["split"] == "development"]
    latents = []
    torch.manual_seed(0)
    for row in chosen:
        data, rate, _ = cut(samples / f"{row['sample']}.flac", float(row["gain_db"]))
        audio = torchaudio.functional.resample(torch.from_numpy(data.T / 32768).float(), rate, SAMPLE_RATE)
        audio = audio.repeat(2 // audio.shape[0], 1)
        padded = torch.nn.functional.pad(audio, (0, HOP * FRAMES - audio.shape[1]))
        with torch.inference_mode():
            latents.append(autoencoder.encode(padded[None])[0])
    return latents


def assemble(samples: Path, folder: Path, autoencoder_weights: Path) -> None:
    """Write `model_config.json`, `model.safetensors` (half precision) and `text_encoder/` to `folder`."""
    autoencoder = create_model_from_config(autoencoder_config())
    weights = load_file(autoencoder_weights)
    autoencoder.load_state_dict(weights, strict=True)
    autoencoder.eval().requires_grad_(False)
    balance(autoencoder, samples)
    weights = autoencoder.state_dict()
    # What the pretransform divides by.
    config = model_config(round(float(torch.stack(training_latents(autoencoder, samples)).std()), 4))
    make_text_encoder(folder / "text_encoder")
    # stable-audio-tools finds the text encoder by name in the Hub's cache.
    with tempfile.TemporaryDirectory() as hub:
        root = Path(hub, "models--t5-small")
        shutil.copytree(folder / "text_encoder", root / "snapshots" / ("0" * 40))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = hub, True
        torch.manual_seed(2)
        model = create_model_from_config(config)
    model.pretransform.model.load_state_dict(weights, strict=True)
    save_file(
        {key: value.half().contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "model_config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in sorted(folder.rglob("*.*")):
        print(f"{path.stat().st_size:>9}  {path.relative_to(folder)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="folder of sonic-pi-samples' FLAC files")
    parser.add_argument("--minutes", type=float, default=12, help="time for the autoencoder; 0 to assemble only")
    parser.add_argument("--autoencoder", type=Path, default=Path("/tmp/autoencoder.safetensors"), help="kept here")
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crop", type=int, default=16384, help="samples")
    parser.add_argument("--resume", action="store_true", help="go on from --autoencoder")
    args = parser.parse_args()
    if args.minutes:
        train_autoencoder(args)
    assemble(args.samples, HERE / "base_model", args.autoencoder)


if __name__ == "__main__":
    main()
