"""The file of encoded captions: what is kept of each, and how it is found again."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sao.base.command import InputError
from sao.models.build import write_safetensors
from sao.training.captions import EncodedCaptions, captions_of, packed

TOKENS, WIDTH = 6, 4


def encoded(lengths: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(TOKENS, WIDTH, generator=generator).half() for _ in lengths]
    return [(state, torch.arange(TOKENS) < length) for state, length in zip(states, lengths, strict=True)]


def write(path: Path, captions: list[str], lengths: list[int], keep_padding: bool = False) -> EncodedCaptions:
    write_safetensors(packed(captions, encoded(lengths), keep_padding), path)
    return EncodedCaptions(path)


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.integers(0, TOKENS)), min_size=1, max_size=6, unique_by=lambda pair: pair[0]
    ),
    st.booleans(),
)
def test_what_was_encoded_is_found_again(tmp_path_factory: pytest.TempPathFactory, pairs: list, keep: bool) -> None:
    captions, lengths = [caption for caption, _ in pairs], [length for _, length in pairs]
    read = write(tmp_path_factory.getbasetemp() / "captions.safetensors", captions, lengths, keep)
    for caption, (states, mask) in zip(captions, encoded(lengths), strict=True):
        found, found_mask = read.of(caption)
        assert torch.equal(found_mask, mask) and found.dtype == torch.float16
        assert torch.equal(found, states if keep else states * mask[:, None])


def test_padding_on_the_left_stays_there(tmp_path: Path) -> None:
    states = torch.ones(TOKENS, WIDTH)
    mask = torch.tensor([False, False, False, True, True, True])
    write_safetensors(packed(["a"], [(states, mask)], False), tmp_path / "c.safetensors")
    assert EncodedCaptions(tmp_path / "c.safetensors").of("a")[0][:, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_padding_takes_no_room(tmp_path: Path) -> None:
    tensors = packed(["a", "b"], encoded([2, 5]), False)
    assert tensors["states"].shape == (7, WIDTH) and packed(["a"], encoded([2]), True)["states"].shape == (
        TOKENS,
        WIDTH,
    )


def test_processes_read_for_themselves(tmp_path: Path) -> None:
    read = write(tmp_path / "c.safetensors", ["a", "b"], [3, 4])
    expected = read.of("b")[0]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert torch.equal(pool.apply(read.of, ("b",))[0], expected)


def test_unknown_caption_and_broken_file_have_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match=f"{path}: does not have the caption 'c': delete it and run again"):
        write(path, ["a", "b"], [3, 4]).of("c")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=f"{path}: not a whole safetensors file .*: delete it and run again"):
        EncodedCaptions(path)


def test_captions_to_encode(tmp_path: Path) -> None:
    """In audio dataset configs, each published split has a file of its own."""
    files = {
        "train/one": {"x": ["a", "b"], "y": ["c"]},
        "train/two": {"z": ["b", "d"]},
        "validation": {"v": ["e", "f"]},
    }
    for name, captions in files.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "captions.json").write_text(json.dumps(captions))
    assert captions_of(tmp_path) == ["a", "b", "c", "d", "e"]
