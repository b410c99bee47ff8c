"""A leg that cannot be trained is refused before torch is loaded."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BASE_MODEL, SCRIPTS, checksum
from legs import make_leg
from sao.base.command import InputError, about
from sao.base.names import write_digests
from sao.training.checks import (
    check_batch,
    check_devices,
    check_latents,
    check_leg,
    check_temporary_folder,
    finish_checking,
    start_checking,
)
from sao.training.leg import Leg


def test_no_torch_is_loaded() -> None:
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import train; print({{'torch', 'train'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'train'}\n"


def test_sockets_of_workers_need_a_short_folder() -> None:
    for workers, folder in ((0, "x" * 200), (2, "x" * 75), (2, "é" * 37)):
        check_temporary_folder(workers, folder)
    for folder in ("x" * 76, "é" * 38):
        with pytest.raises(
            InputError, match=f"shorter TMPDIR, of 75 characters at most, than {folder}: .*workers to 0"
        ):
            check_temporary_folder(1, folder)


def test_clips_have_to_fill_a_batch() -> None:
    check_batch(16, 16)
    with pytest.raises(
        InputError, match="15 training clips do not fill one batch of 16: lower batch_size or add clips"
    ):
        check_batch(15, 16)


def test_devices_have_to_be_there() -> None:
    check_devices(2, 2)
    with pytest.raises(InputError, match="devices is 3; 2 are there"):
        check_devices(3, 2)


def test_latents_are_of_the_base_model(tmp_path: Path) -> None:
    own, other, audio = (tmp_path / name for name in ("own.json", "0001-of-0002.json", "audio.csv"))
    own.write_text(json.dumps({"base_model": "a"}))
    other.write_text(json.dumps({"base_model": "b"}))
    check_latents([own, audio], "a")
    with pytest.raises(InputError, match=f"{other}: .* another base model: delete {tmp_path / '0001-of-0002'} and run"):
        check_latents([own, other], "a")


def test_an_error_says_what_it_is_about() -> None:
    with pytest.raises(InputError, match=r"^run a: devices is 2; 1 are there$"), about("run a"):
        check_devices(2, 1)
    with pytest.raises(ValueError, match=r"^other$"), about("run a"):
        raise ValueError("other")


@pytest.fixture
def leg(tmp_path: Path) -> Leg:
    """A leg whose files lie in `tmp_path`."""
    leg = make_leg(tmp_path)
    leg.model.mkdir()
    (leg.model / "model_config.json").write_bytes((BASE_MODEL / "model_config.json").read_bytes())
    write_digests(leg.model_digest, leg.model, [leg.model / "model_config.json"])
    leg.dataset_configs.mkdir()
    (leg.dataset_configs / "train.json").write_text("{}")
    write_digests(leg.datasets_digest, leg.dataset_configs, [leg.dataset_configs / "train.json"])
    leg.sound_digest[0].write_text(json.dumps({"base_model": checksum(leg.model_digest, "sha256")}))
    leg.captions.write_text("captions")
    digests = {"base_model": leg.model_digest, "datasets": leg.datasets_digest, "sha256": leg.captions}
    leg.captions_digest.write_text(json.dumps({key: checksum(path, "sha256") for key, path in digests.items()}))
    return leg


def test_leg_with_what_is_wrong_with_it(leg: Leg) -> None:
    check_leg(leg)
    leg.settings["ema"], leg.settings["precision"] = True, "bf16-true"
    with pytest.raises(InputError, match=r"^run demo: a moving average in bfloat16 does not move: set ema to false$"):
        check_leg(leg)
    leg.settings["ema"] = False
    leg.sound_digest[0].write_text(json.dumps({"base_model": "0"}))
    with pytest.raises(InputError, match=r"latents.json: these latents are of another base model"):
        check_leg(leg)
    leg.sound_digest[0].write_text(json.dumps({"base_model": checksum(leg.model_digest, "sha256")}))
    summary = json.loads(leg.captions_digest.read_text())
    for key, what in (("base_model", "another base model"), ("datasets", "other dataset configs")):
        leg.captions_digest.write_text(json.dumps(summary | {key: "0"}))
        with pytest.raises(InputError, match=f"captions.json: these captions are of {what}: delete {leg.captions} and"):
            check_leg(leg)
    (leg.model / "model_config.json").write_text("{}")
    with pytest.raises(InputError, match="model_type is None"):
        check_leg(leg)


def test_other_weights_to_start_from_are_on_the_base_models_latents(leg: Leg, tmp_path: Path) -> None:
    """With `init_from` the weights are others, and latents and captions stay the base model's."""
    other = tmp_path / "initial.sha256"
    other.write_text("of other weights")
    started = dataclasses.replace(leg, model_digest=other)
    with pytest.raises(InputError, match="latents are of another base model"):
        check_leg(started)
    check_leg(dataclasses.replace(started, base_digest=leg.model_digest))


def test_files_that_a_leg_reads_are_compared(leg: Leg, tmp_path: Path) -> None:
    folder = leg.sound_digest[0].with_suffix("")
    folder.mkdir()
    (folder / "checksums.sha256").write_text("")
    leg.sound_digest[0].write_text(json.dumps({"sha256": checksum(folder / "checksums.sha256", "sha256")}))
    finish_checking(start_checking(leg, []))
    leg.captions.write_text("others")
    with pytest.raises(
        InputError, match=f"captions.safetensors: has the SHA-256 .*delete {leg.captions} and run again"
    ):
        finish_checking(start_checking(leg, []))
    leg.captions.write_text("captions")
    (leg.dataset_configs / "train.json").write_text("[]")
    with pytest.raises(InputError, match=f"train.json: has the SHA-256 .*delete {leg.dataset_configs} and run again"):
        finish_checking(start_checking(leg, []))
