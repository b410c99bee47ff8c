"""What is changed about stable-audio-tools as it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS
from micro import stable_audio_3
from steps import shared_model

LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
import sao.models.upstream
print(*sorted({"torch._dynamo", "torch._inductor", "pytorch_lightning", "torchmetrics", "flash_attn"} & set(sys.modules)))
from sao.training.processes import start_processes
start_processes({"devices": 1, "num_nodes": 1, "strategy": "auto", "method": "full"})
print(*sorted({"lightning_fabric", "torchmetrics"} & set(sys.modules)))
import torch._dynamo
print(torch._dynamo.config.suppress_errors)
import pytorch_lightning
print(pytorch_lightning.__version__)
"""


@pytest.mark.slow  # imports all of it anew
def test_models_are_imported_without_the_compiler_and_the_trainer() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK, str(SCRIPTS)], capture_output=True, text=True, check=True)
    left, training, suppressed, version = done.stdout.splitlines()
    assert left == "" and training == "lightning_fabric" and suppressed == "False" and version
    # Where SLURM is installed, Lightning wonders why it is not used.
    assert not [line for line in done.stderr.splitlines() if "`srun`" not in line]


def test_padding_takes_no_part_in_attention(base_model: Path) -> None:
    """What the network says of a clip does not depend on how much silence follows it."""
    model = shared_model(base_model, "masked").eval()
    generator = torch.Generator().manual_seed(0)
    x, heard = torch.randn(2, 64, 40, generator=generator), torch.tensor([24, 17])
    info = [{"prompt": text, "seconds_start": 0, "seconds_total": 2} for text in ("rain", "wind")]
    found = []
    with torch.no_grad():
        inputs = model.get_conditioning_inputs(model.conditioner(info, "cpu"))
        for frames in (24, 40):
            mask = torch.arange(frames) < heard[:, None]
            found.append(model.model(x[:, :, :frames], torch.tensor([0.5, 0.7]), **inputs, padding_mask=mask))
    for number, length in enumerate(heard):
        torch.testing.assert_close(found[0][number, :, :length], found[1][number, :, :length], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["taae_v2", "same"])
def test_an_autoencoder_that_adds_noise_gives_the_same_whenever_it_runs(kind: str) -> None:
    from sao.models.autoencoder import moments, same_noise
    from sao.models.build import create_autoencoder
    from sao.models.config import window_frames

    config = stable_audio_3(kind, "someone/model")
    torch.manual_seed(0)
    autoencoder = create_autoencoder(config, "micro").eval()
    audio = 0.1 * torch.randn(2, 16 * 4096)
    before = torch.random.get_rng_state()
    with torch.no_grad():
        mean, std = moments(autoencoder, audio)
        assert torch.equal(mean, moments(autoencoder, audio)[0]) and not std.any()
        torch.manual_seed(1)
        assert torch.equal(mean, moments(autoencoder, audio)[0])
        one, other = (autoencoder.encoder(autoencoder.pretransform.encode(audio[None])) for _ in range(2))
        assert not torch.equal(one, other), "it adds no noise, and the test shows nothing"
        sounds = []
        for seed in (3, 3, 4):
            with same_noise(audio.device, seed):
                sounds.append(autoencoder.decode(mean[None]))
    assert torch.equal(sounds[0], sounds[1]) and not torch.equal(sounds[0], sounds[2])
    torch.random.set_rng_state(before)
    # A window is whole chunks, or the autoencoder would pad it to them.
    for seconds in (0.2, 1, 2.9, 3):
        frames = window_frames(config, seconds)
        assert moments(autoencoder, torch.zeros(2, frames * 4096))[0].shape[1] == frames
