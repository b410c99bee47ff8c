"""The presets of Stable Audio 3 as they are, with narrow models of their form: from the Hub to the page.

Inpainting models, a T5Gemma in a folder of the model's repository, revision `main`, autoencoders that are transformers.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from conftest import FORKS, GRAPH, ROOT, assert_succeeds, copy_checkout, run_script, run_snakemake
from hub import serve_hub
from micro import gemma_encoder, safetensors, stable_audio_3
from sao.base.files import read_json
from tones import write_tones

COMMIT = "d" * 40
PRESETS = {"small-sfx": "taae_v2", "medium": "same"}


def snakemake(checkout: Path, preset: str, *targets: str, **env: str) -> subprocess.CompletedProcess[str]:
    configs = ["--configfile", f"configs/stable-audio-3-{preset}.yaml", "overlay.yaml"]
    return run_snakemake(*GRAPH, *targets, *configs, cwd=checkout, env=env)


def legs(name: str) -> dict[str, list[int]]:
    """The runs beside a preset of this name, and the steps at which their legs end: its own, and with medium a full fine-tuning."""
    return {name: [2, 4]} | ({"full": [2]} if name.endswith("medium") else {})


@pytest.fixture(scope="module", params=list(PRESETS))
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The preset's name, and a checkout in which its runs were trained and rendered."""
    name = f"stable-audio-3-{request.param}"
    checkout = copy_checkout(tmp_path_factory.mktemp("sa3") / "checkout")
    # Only what would take long.
    short = {"corpus": "tones", "steps": 4, "checkpoint_every": 2, "validate_every": 2, "workers": 0, "threads": 1}
    # Each preset's adapter in a form that peft has, and in one that it has not.
    form = {"method": "bora-xs", "adapter": {"rank": 4}} if request.param == "medium" else {}
    full = short | {"base_model": name, "steps": 2, "method": "full", "batch_size": 2, "precision": "32-true"}
    overlay = {
        "corpora": {"tones": write_tones(checkout / "tones") | {"train_seconds": 12}},
        "runs": {name: short | form} | ({"full": full} if "full" in legs(name) else {}),
        "render": {"clips": {"train": None, "evaluation": 1}, "prompts": "mine.csv"},
        "evaluation": {"embeddings": ["log-mel"], "bootstrap": 10},
        "base_models": {name: {"sampling": {"steps": 2}}},
    }
    (checkout / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    (checkout / "mine.csv").write_text(
        "id,prompt,init_audio,init_noise_level,mask_start,mask_end\n"
        "varied,A bell.,notes.wav,0.5,,\nfilled,A bell.,notes.wav,,0.5,1\ngone-on,A bell.,notes.wav,0.9,1.2,\n"
    )
    notes = 0.3 * np.sin(np.arange(2 * 22050) * 0.1) * np.exp(-np.arange(2 * 22050) % 5000 / 2000)
    soundfile.write(checkout / "notes.wav", notes, 22050)
    preset = yaml.safe_load((checkout / f"configs/{name}.yaml").read_text(encoding="utf-8"))["base_models"][name]
    config = stable_audio_3(PRESETS[request.param], preset["repo"])
    model = {"model_config.json": json.dumps(config).encode(), "model.safetensors": safetensors(config)}
    model |= {f"{preset['text_encoder']['subfolder']}/{file}": data for file, data in gemma_encoder().items()}
    with serve_hub({(preset["repo"], COMMIT): model}) as hub:
        hub.heads[preset["repo"]] = COMMIT
        done = snakemake(checkout, request.param, "downloads", HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
        assert done.returncode == 0, done.stderr
    done = snakemake(checkout, request.param, "results/samples")
    assert done.returncode == 0, done.stderr[-3000:]
    return name, checkout


def test_the_commit_is_recorded_and_the_log_pins_it(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    source = read_json(checkout / f"results/models/{name}/source.json")
    assert source["revision"] == source["text_encoder"]["revision"] == COMMIT
    log = (checkout / f"results/logs/base_model/{name}.log").read_text(encoding="utf-8")
    assert f"`revision: {COMMIT}`" in log and f"`text_encoder.revision: {COMMIT}`" in log
    assert f"at revision `{COMMIT}`" in (checkout / f"results/checkpoints/{name}/README.md").read_text(encoding="utf-8")


def test_adapter_and_full_fine_tuning_learn(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    for run, steps in legs(name).items():
        metrics = pd.read_csv(checkout / f"results/checkpoints/{run}/metrics.csv")
        assert metrics.step.tolist() == steps and np.isfinite(metrics[["train_loss", "validation_loss"]]).all(axis=None)
        export = read_json(checkout / f"results/checkpoints/{run}/export.json")
        assert export["changed_keys"] > 0, export
    summary = read_json(next((checkout / f"results/latents/{name}/tones/all").glob("*.json")))
    assert summary["clips"] == 8 and np.isfinite([summary["mean"], summary["std"]]).all()


def test_renders_are_on_the_page_and_as_long_as_their_clips(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    page = (checkout / "results/samples/index.html").read_text(encoding="utf-8")
    for folder in (*legs(name), f"base--{name}--tones"):
        table = pd.read_csv(checkout / f"results/renders/{folder}.csv")
        sound = soundfile.info(str(checkout / "results/renders" / folder / table.file[0]))
        assert (sound.samplerate, sound.channels) == (44100, 2)
        assert sound.duration == pytest.approx(table.seconds[0], abs=1e-4)
        assert re.search(rf"\b{re.escape(folder.split('--')[0])}\b", page)


# What the autoencoder alone makes of the sources, `[samples, channels]` by clip. In a process of its own, because each process
# has the Hub cache of one model.
AUTOENCODED = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, "scripts")
from sao.base.names import seed_for
from sao.models.build import load_model
from sao.models.config import chunk_frames, read_model_config, window_frames
from sao.rendering.clips import read_clips
folder, clips, output = map(Path, sys.argv[1:])
config = read_model_config(folder / "model_config.json")
model = load_model(config, folder / "hub", folder / "model.safetensors").eval().requires_grad_(False)
import torch
from sao.rendering.sampling import decode, frames_of, source_latents
found = {}
for clip in read_clips(clips):
    if clip.source:
        frames = frames_of(model, clip, window_frames(config, None), chunk_frames(config))
        with torch.inference_mode():
            audio = decode(model, source_latents(model, clip, frames), seed_for(clip.seed, "decode"))
        found[clip.clip_id] = audio[:, : round(clip.seconds * 44100)].T.numpy()
np.savez(output, **found)
"""


def autoencoded(checkout: Path, name: str) -> dict[str, np.ndarray]:
    paths = [f"results/models/{name}", f"results/data/tones/prompts/{name}.csv", "alone.npz"]
    (checkout / "autoencoded.py").write_text(AUTOENCODED)
    assert_succeeds(FORKS[0].program(checkout / "autoencoded.py", *paths, cwd=checkout).finish())
    return dict(np.load(checkout / "alone.npz"))


def test_text_inpainting_and_audio_to_audio_stand_on_one_page(trained: tuple[str, Path]) -> None:
    name, checkout = trained
    page = (checkout / "results/samples/index.html").read_text(encoding="utf-8")
    for words in ("source noised to 0.5", "0.5 to 1 s made anew", "1.2 to 2 s made anew, source noised to 0.9"):
        assert words in page
    alone = autoencoded(checkout, name)
    for folder in (*legs(name), f"base--{name}--tones"):
        sounds = {
            clip: soundfile.read(checkout / f"results/renders/{folder}/{clip}.wav", dtype="float32")[0]
            for clip in ("varied", "filled", "gone-on")
        }
        assert {len(sound) for sound in sounds.values()} == {88200}
        # Outside of the mask stands what the autoencoder makes of the source, to the last of 16 bits.
        for clip, start, stop in (("filled", 0, 0.2), ("filled", 1.3, 1.7), ("gone-on", 0, 0.9)):
            part = slice(round(start * 44100), round(stop * 44100))
            np.testing.assert_allclose(sounds[clip][part], alone[clip][part], atol=2**-14)
        inside = slice(round(0.6 * 44100), round(0.9 * 44100))
        for clip, part in (("filled", inside), ("varied", slice(None))):
            assert np.abs(sounds[clip][part] - alone[clip][part]).max() > 1e-3
    page_folder = checkout / "results/samples"
    assert {path.name for path in (page_folder / "source").iterdir()} == {"varied.wav", "filled.wav", "gone-on.wav"}


def test_a_tried_mask_has_the_bytes_of_the_graphs_render(trained: tuple[str, Path], tmp_path: Path) -> None:
    name, checkout = trained
    rendered = checkout / f"results/renders/{name}"
    seed = pd.read_csv(rendered.with_suffix(".csv")).set_index("clip_id").seed["filled"]
    given = [name, "A bell.", "--seed", seed, "--init-audio", "notes.wav", "--mask", "0.5:1"]
    configs = ["--configfile", f"configs/{name}.yaml", "--configfile", "overlay.yaml", "--threads", "2"]
    assert_succeeds(run_script("try", *given, *configs, "--output", tmp_path / "out.wav", cwd=checkout))
    assert (tmp_path / "out.wav").read_bytes() == (rendered / "filled.wav").read_bytes()


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/stable-audio-3-*.yaml")), ids=lambda path: path.stem)
def test_presets_of_the_family_differ_in_names_alone(path: Path) -> None:
    def form(path: Path) -> dict:
        text = path.read_text(encoding="utf-8").replace(path.stem.removeprefix("stable-audio-3-"), "X")
        preset = yaml.safe_load(text)
        preset["base_models"]["stable-audio-3-X"].pop("memory_mb")
        return preset

    assert form(path) == form(ROOT / "configs/stable-audio-3-medium.yaml")
