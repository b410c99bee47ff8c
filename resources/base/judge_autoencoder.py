"""Measure an autoencoder on sounds that it was not trained on.

    uv run python resources/base/judge_autoencoder.py --corpus /var/tmp/corpus resources/base/autoencoder

Reads `judge/` as make_corpus.py writes it; the folder to judge holds `model_config.json` (of an autoencoder, or of a
diffusion model whose pretransform is one) and `model.safetensors`. Prints medians and percentiles over clips.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from safetensors.torch import load_file
from stable_audio_tools.models.factory import create_model_from_config

RANGE = 60  # dB under the clip's peak
QUIET = (-55, -30)  # dB relative to the loudest frame: what lies between events
SAMPLE_RATE = 16000  # Hz


def load(folder: Path) -> tuple[torch.nn.Module, float]:
    """`(autoencoder, scale)`: latents are divided by the scale."""
    config = json.loads((folder / "model_config.json").read_text())
    weights, scale = load_file(folder / "model.safetensors"), 1.0
    if config["model_type"] != "autoencoder":
        pretransform = config["model"]["pretransform"]
        scale = pretransform["scale"]
        config = {**config, "model_type": "autoencoder", "model": pretransform["config"]}
        prefix = "pretransform.model."
        weights = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    model = create_model_from_config(config)
    model.load_state_dict(weights, strict=True)
    return model.eval().requires_grad_(False), scale


MEL_BANK = torchaudio.functional.melscale_fbanks(513, 0, SAMPLE_RATE / 2, 64, SAMPLE_RATE)


def mel_db(audio: torch.Tensor) -> torch.Tensor:
    """`[64, frames]` in dB of mono `[samples]`."""
    audio = torch.nn.functional.pad(audio, (0, max(0, 1024 - len(audio))))
    spectrum = torch.stft(audio, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs().square()
    return 10 * torch.log10(MEL_BANK.T @ spectrum + 1e-12)


def mel_distance(estimate: torch.Tensor, target: torch.Tensor) -> float:
    a, b = mel_db(estimate), mel_db(target)
    floor = b.max() - RANGE
    return float((a.maximum(floor) - b.maximum(floor)).abs().mean())


def between_events(estimate: torch.Tensor, target: torch.Tensor) -> float:
    """How much louder (dB) the estimate is in the recording's quiet frames; NaN where it has too few."""
    a, b = (10 * torch.log10(s.unfold(0, 512, 256).square().mean(1) + 1e-12) for s in (estimate, target))
    level = b - b.max()
    quiet = (level > QUIET[0]) & (level < QUIET[1])
    return float((a - b)[quiet].median()) if quiet.sum() >= 5 else float("nan")


def seconds_to_decode(model: torch.nn.Module) -> float:
    latents = torch.randn(1, model.latent_dim, 3 * SAMPLE_RATE // model.downsampling_ratio + 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(12):
        start = time.process_time()
        model.decode(latents)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return float(np.median(times))


def silence_db(model: torch.nn.Module) -> float:
    """The level (dBFS) of what silence comes back as."""
    torch.manual_seed(0)
    decoded = model.decode(model.encode(torch.zeros(1, 2, 16 * model.downsampling_ratio)))
    return float(10 * torch.log10(decoded.square().mean() + 1e-12))


def judge(folder: Path, clips: Path) -> list[dict[str, float]]:
    model, scale = load(folder)
    with clips.with_suffix(".csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    results = []
    for row in rows:
        audio = torch.from_numpy(soundfile.read(clips / row["file"], dtype="float32", always_2d=True)[0].T.copy())
        hop = model.downsampling_ratio
        padded = torch.nn.functional.pad(audio, (0, -audio.shape[1] % hop))
        torch.manual_seed(0)
        latents = model.encode(padded[None])
        decoded = model.decode(latents)[0, :, : audio.shape[1]]
        results.append(
            {
                "package": row["package"],
                "source": row["source"],
                "mel_db": mel_distance(decoded.mean(0), audio.mean(0)),
                "latent_std": float((latents / scale).std()),
                "latent_max": float((latents / scale).abs().max()),
                "between_events_db": between_events(decoded.mean(0), audio.mean(0)),
                "level_db": float(10 * torch.log10(decoded.square().mean() / audio.square().mean())),
                "loud_bands_db": loud_bands(decoded.mean(0), audio.mean(0)),
            }
        )
    results[0] |= {"decode_s": seconds_to_decode(model), "silence_dbfs": silence_db(model)}
    return results


def loud_bands(estimate: torch.Tensor, target: torch.Tensor) -> float:
    """How much too loud (dB) the bands within 20 dB of the clip's peak are."""
    a, b = mel_db(estimate), mel_db(target)
    return float((a - b)[b > b.max() - 20].mean())


def summary(results: list[dict[str, float]]) -> str:
    lines = []
    for name in ("mel_db", "latent_std", "latent_max", "between_events_db", "level_db", "loud_bands_db"):
        values = np.array([row[name] for row in results])
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        p10, median, p90 = np.percentile(values, [10, 50, 90])
        lines.append(f"{name:18} {median:7.2f} [{p10:.2f}, {p90:.2f}], most {values.max():.2f} ({len(values)} clips)")
    by_package: dict[str, list[float]] = {}
    for row in results:
        by_package.setdefault(str(row["package"]), []).append(row["mel_db"])
    lines.append("mel_db by package: " + ", ".join(f"{p} {np.median(v):.2f}" for p, v in by_package.items()))
    lines.append(f"3 s decode in {results[0]['decode_s']:.3f} s of one core")
    lines.append(f"silence comes back at {results[0]['silence_dbfs']:.0f} dBFS")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with model_config.json and model.safetensors")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--csv", type=Path, help="also write a row a clip to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = judge(args.folder, args.corpus / "judge")
    print(summary(results))
    if args.csv:
        with args.csv.open("w", encoding="utf-8", newline="") as handle:
            table = csv.DictWriter(handle, [*results[0]], lineterminator="\n")
            table.writeheader()
            table.writerows(results)


if __name__ == "__main__":
    main()
