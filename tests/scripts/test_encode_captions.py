"""Captions are encoded once, as the conditioner would encode them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import assert_fails
from demo_corpus import captions as options
from demo_corpus import inside_corpus
from forks import Forks
from sao.base.files import read_json, sha256
from sao.training.captions import EncodedCaptions, captions_of


@pytest.fixture(scope="module")
def corpus(shared: Path, base_model: Path, forks: Forks) -> Iterator[Path]:
    with inside_corpus(shared, base_model, forks) as folder:
        yield folder


def test_every_caption_is_what_the_conditioner_makes_of_it(corpus: Path, base_model: Path) -> None:
    from sao.models.build import build
    from sao.models.text import projected

    model = build(read_json(base_model / "model_config.json"), base_model / "hub")
    conditioner, encoded = (
        model.conditioner.conditioners["prompt"],
        EncodedCaptions(Path("latents_captions.safetensors")),
    )
    captions = captions_of(Path("latents"))
    assert len(captions) == len(encoded.rows) == 16 * 5 + 2  # of two validation clips, the first
    for caption in captions[::9]:
        states, mask = encoded.of(caption)
        expected, expected_mask = conditioner([caption], "cpu")
        found, found_mask = projected(conditioner, states[None], mask[None])
        assert torch.equal(found, expected) and torch.equal(found_mask, expected_mask)
        assert 0 < mask.sum() < len(mask) and states[mask].abs().min(dim=1).values.max() > 0


def test_summary_says_what_the_captions_were_made_from(corpus: Path, base_model: Path) -> None:
    assert read_json(Path("latents_captions.json")) == {
        "base_model": sha256(base_model / "checksums.sha256"),
        "datasets": sha256(Path("latents.sha256")),
        "code": "x",
        "captions": 82,
        "sha256": sha256(Path("latents_captions.safetensors")),
    }


def test_dataset_configs_of_latents_and_of_audio_have_the_same_captions(corpus: Path) -> None:
    assert sorted(captions_of(Path("audio_dir"))) == sorted(captions_of(Path("latents")))


@pytest.mark.parametrize(
    ("victim", "says", "cure"),
    [
        ("latents/train/captions.json", "latents.sha256", "delete {}/latents and run again"),
        ("demo/hub/*/snapshots/*/model.safetensors", "demo/checksums.sha256", "delete {}/demo/hub and run again"),
    ],
)
def test_what_changed_after_it_was_made_is_not_encoded(
    corpus: Path, base_model: Path, forks: Forks, tmp_path: Path, victim: str, says: str, cure: str
) -> None:
    shutil.copytree(base_model, tmp_path / "demo")
    shutil.copytree(corpus / "latents", tmp_path / "latents")
    shutil.copy(corpus / "latents.sha256", tmp_path)
    path = next(tmp_path.glob(victim))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    result = forks.start(
        "encode_captions", *options(str(tmp_path / "latents"), tmp_path / "demo"), cwd=tmp_path
    ).finish()
    assert_fails(result, f"{path}: has the SHA-256", says, cure.format(tmp_path))
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*captions.json"))


def vouched(model: Path) -> None:
    """Write the checksums of a base model's folder anew."""
    from sao.base.names import write_digests

    listing = model / "checksums.sha256"
    write_digests(listing, model, [path for path in sorted(model.rglob("*")) if path.is_file() and path != listing])


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "T5Tokenizer"])
def test_captions_that_transformers_reads_otherwise_are_told(
    corpus: Path, base_model: Path, forks: Forks, tmp_path: Path, kind: str
) -> None:
    """transformers makes T5's tokenizer of the pieces alone, without the demo's rule that capitals are small letters."""
    shutil.copytree(base_model, tmp_path / "demo")
    path = next((tmp_path / "demo").glob("hub/*/snapshots/*/tokenizer_config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": kind}))
    vouched(tmp_path / "demo")
    given = [str(word) for word in options("latents", tmp_path / "demo")]
    given[-3], given[-1] = str(tmp_path / "out.safetensors"), str(tmp_path / "out.json")
    result = forks.start("encode_captions", *given, cwd=corpus).finish()
    assert result.returncode == 0, result.stderr
    assert ("transformers reads 82 of 82 captions otherwise" in result.stderr) == (kind == "T5Tokenizer")


def test_encoder_that_gives_nan_is_refused(corpus: Path, base_model: Path, forks: Forks, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(base_model, tmp_path / "demo")
    weights = next((tmp_path / "demo").glob("hub/*/snapshots/*/model.safetensors"))
    tensors = load_file(weights)
    name = next(key for key in tensors if key.endswith("final_layer_norm.weight"))
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, weights, {"format": "pt"})
    vouched(tmp_path / "demo")
    given = [str(word) for word in options("latents", tmp_path / "demo")]
    given[-3], given[-1] = str(tmp_path / "out.safetensors"), str(tmp_path / "out.json")
    result = forks.start("encode_captions", *given, cwd=corpus).finish()
    assert_fails(result, "the text encoder gave NaN or infinite numbers")
    assert not (tmp_path / "out.safetensors").exists()
    assert json.loads(Path("latents_captions.json").read_text())["captions"] == 82
