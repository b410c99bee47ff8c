"""What stable-audio-tools does by itself: its training loop, its encoding, its rendering. Benchmarks compare with it.

Its own scripts are not in its package. These functions drive its library as train.py, pre_encode.py and the example of
its README do.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

Config = dict[str, Any]


def import_training() -> None:
    """Import stable_audio_tools.training without what only its autoencoders and loggers need.

    torchaudio 2.11 has no `prototype` any more. wandb need not be there, as nothing is logged.
    """
    absent = {"torchaudio.prototype.transforms": "ChromaSpectrogram", "audiotools": "AudioSignal"}
    if importlib.util.find_spec("wandb") is None:
        absent["wandb"] = "Image"
    for name, content in absent.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            where = ".".join(parts[:end])
            if where not in sys.modules:
                sys.modules[where] = types.ModuleType(where)
        setattr(sys.modules[name], content, type(content, (), {}))
    import stable_audio_tools.training  # noqa: F401


def train(
    model: Any, config: Config, data: Config, batch: int, frames: int, workers: int, watch: Any, clips: int
) -> None:
    """Train with Lightning's Trainer in its default 16-mixed (on a CPU in 32-true), until `watch.end` steps are done.

    `watch.tick` is called as each step starts. Without logger, progress bar, checkpoints and demos. `data` is a dataset
    config of `clips` clips.
    """
    steps, tick = watch.end, watch.tick
    import_training()
    import pytorch_lightning
    import soundfile
    import torch
    import torchaudio
    from stable_audio_tools.data import dataset
    from stable_audio_tools.training import create_training_wrapper_from_config

    def load_file(self: Any, filename: str) -> torch.Tensor:
        """Its own needs FFmpeg's libraries."""
        read, rate = soundfile.read(filename, dtype="float32", always_2d=True)
        audio = torch.from_numpy(read.T)
        return audio if rate == self.sr else torchaudio.transforms.Resample(rate, self.sr)(audio)

    dataset.SampleDataset.load_file = load_file

    class Ticks(pytorch_lightning.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            tick()

        def on_train_end(self, *_: object) -> None:
            tick()

    # Listed until no epoch ends within the run: a new one would wait for its first batch.
    data = data | {"datasets": data["datasets"] * -(-(steps + 2) * batch // clips)}
    loader = dataset.create_dataloader_from_config(
        data,
        batch_size=batch,
        sample_size=frames * config["model"]["pretransform"]["config"]["downsampling_ratio"],
        sample_rate=config["sample_rate"],
        audio_channels=config["audio_channels"],
        num_workers=workers,
    )
    on_gpu = torch.cuda.is_available()
    trainer = pytorch_lightning.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="16-mixed" if on_gpu else "32-true",
        max_steps=steps,
        callbacks=[Ticks()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    config = config | {"training": config["training"] | {"pre_encoded": data["dataset_type"] == "pre_encoded"}}
    trainer.fit(create_training_wrapper_from_config(config, model), loader)


def encode(model: Any, audio: Any) -> Any:
    """Latents of `audio [batch, channels, samples]` as pre_encode.py makes them: one batch, in float32."""
    import torch

    with torch.no_grad():
        return model.pretransform.encode(audio).cpu().numpy()


def render(model: Any, prompt: str, seconds: float, seed: int, window: int, sampling: Config, device: str) -> Any:
    """Audio `[channels, samples]` of a prompt: one call of generate_diffusion_cond, as its README shows it."""
    import torch
    from stable_audio_tools.inference.generation import generate_diffusion_cond

    with torch.inference_mode():
        return generate_diffusion_cond(
            model,
            conditioning=[{"prompt": prompt, "seconds_start": 0, "seconds_total": int(seconds)}],
            sample_size=window,
            seed=seed,
            device=device,
            sampler_type="dpmpp-3m-sde",
            **sampling,
        )[0]
