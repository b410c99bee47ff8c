"""A small ClapModel with random weights, in the files that transformers and the Hub have."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

REPO, REVISION, RATE = "someone/tiny-clap", "d" * 40, 48000
TEXT = {
    "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 80, "projection_dim": 8,
}  # fmt: skip
AUDIO = {
    "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4, "depths": [1, 1],
    "num_attention_heads": [2, 2], "hidden_size": 16, "patch_embeds_hidden_size": 8, "projection_dim": 8,
    "num_hidden_layers": 2, "fusion_num_hidden_layers": 2,
}  # fmt: skip


def save_tokenizer(folder: Path, tokens: int) -> None:
    """Save a tokenizer of RoBERTa's kind with 300 pieces. It cuts texts after `tokens`."""
    from transformers import RobertaTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["rain on a roof", "a dog barks"], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=tokens).save_pretrained(folder)


@cache
def clap_files(pickled: bool = True) -> dict[str, bytes]:
    """The files of the model on the Hub. Its weights are a `pytorch_model.bin`, as LAION publishes them, or safetensors."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    config = ClapConfig(text_config=TEXT, audio_config=AUDIO, projection_dim=8)
    model = ClapModel(config).eval()
    with TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        save_tokenizer(folder, 77)
        ClapFeatureExtractor(
            feature_size=16, sampling_rate=RATE, max_length_s=1, truncation="rand_trunc", padding="repeatpad"
        ).save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if pickled:
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        del files["model.safetensors"]
        files["pytorch_model.bin"] = buffer.getvalue()
    return files
