"""Make the built-in base model: an untrained start for the graph to train, and the folder that is shipped from its result.

    uv run python resources/base/make_base_model.py start --captions /var/tmp/pretraining --wordnet /usr/share/wordnet
    uv run python resources/base/make_base_model.py finish --trained results/checkpoints/pretraining

`start` puts together the autoencoder of `autoencoder/`, a T5 text encoder that is trained here on text alone, and a
diffusion transformer of random weights, in the form of Stable Audio Open 1.0. It writes `start/`, which
`pretraining.yaml` trains. `finish` writes `../demo/base_model/`: what the graph exported, in half precision, with the
text encoder.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import py7zr
import soundfile
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from stable_audio_tools.models.factory import create_model_from_config
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "demo" / "base_model"
FRAMES = 48  # latent frames of the window: 3.07 s
TEXT_LENGTH = 64  # tokens
PIECES = 3000  # of the tokenizer
CAPTION_SHARE = 4  # times that the tokenizer counts a caption's words, which are few beside WordNet's
COND_DIM = 192
EMBED_DIM = 192
DEPTH = 4
HEADS = 3
SCALE_CLIPS = 300  # clips that the latents' standard deviation is measured on
GLOSSES = 40_000  # of WordNet's 117,659
TEXT_STEPS = 400
TEXT_BATCH = 64
READ = 8  # tokens of each text that have to say what the text is about
OWN = 0.5  # weight of saying which token they are themselves


def read_captions(folder: Path) -> list[list[str]]:
    """All captions of each training clip of a corpus in Clotho's form."""
    with (folder / "clotho_captions_development.csv").open(encoding="utf-8", newline="") as handle:
        return [[row[f"caption_{i}"] for i in range(1, 6)] for row in csv.DictReader(handle)]


def read_glosses(folder: Path) -> list[str]:
    """WordNet's words, each with its meaning: `dog, domestic dog: a member of the genus Canis`."""
    texts = []
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{kind}").read_text("utf-8").splitlines():
            if line.startswith("  "):  # the licence at the top
                continue
            fields, gloss = line.split(" | ", 1)
            fields = fields.split(" ")
            words = [
                re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            ]
            texts.append(f"{', '.join(words)}: {gloss.strip()}")
    return random.Random(0).sample(texts, GLOSSES)


def train_tokenizer(captions: list[list[str]], glosses: list[str]) -> Tokenizer:
    """A Unigram tokenizer with T5's special tokens; single letters, digits and signs keep any ASCII text readable.

    The trainer adds up in the order of hashes, which differs from process to process. So two calls give the same pieces with
    scores that differ in the third decimal, and other text encoders.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=PIECES,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )
    different = [caption for five in captions for caption in dict.fromkeys(five)]
    tokenizer.train_from_iterator([*different * CAPTION_SHARE, *glosses], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def read_by_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Not as T5's own class, which keeps the pieces only: capitals and accents would be unknown."""
    signs = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TEXT_LENGTH, **signs)


def text_batches(
    tokenizer: PreTrainedTokenizerFast, captions: list[list[str]], glosses: list[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Batches `(token ids, mask, what each text is about)`, half of captions, half of glosses.

    A text is about the pieces of all captions of its clip, or of its gloss: a distribution over pieces in which a
    piece weighs more, the fewer texts it is in.
    """
    whole = [" ".join(five) for five in captions]
    ids = [torch.tensor(i) for i in tokenizer([*whole, *glosses], truncation=False).input_ids]
    counts = torch.zeros(len(tokenizer))
    for text in ids:
        counts[text.unique()] += 1
    rarity = torch.log(len(ids) / counts.clamp_min(1)) * (counts > 0)
    rarity[:2] = 0  # padding and end
    rng = random.Random(1)
    for _ in range(TEXT_STEPS):
        clips = [rng.randrange(len(captions)) for _ in range(TEXT_BATCH // 2)]
        words = [rng.randrange(len(glosses)) for _ in range(TEXT_BATCH // 2)]
        texts = [rng.choice(captions[clip]) for clip in clips] + [glosses[word] for word in words]
        encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        about = torch.zeros(TEXT_BATCH, len(tokenizer))
        for row, text in enumerate([*clips, *(len(captions) + word for word in words)]):
            pieces = ids[text].unique()
            about[row, pieces] = rarity[pieces]
        yield encoded.input_ids, encoded.attention_mask, about / about.sum(1, keepdim=True).clamp_min(1e-6)


def make_text_encoder(captions_of: Path, wordnet: Path, tokenizer_of: Path | None, folder: Path) -> None:
    """A one-layer T5 encoder: each token has to say what its text is about, and which token it is.

    The first brings words of one meaning together, the second keeps `loud` and `soft` apart. The tokenizer is that of the
    folder `tokenizer_of`, or a new one.
    """
    torch.manual_seed(1)
    captions, glosses = read_captions(captions_of), read_glosses(wordnet)
    kept = Tokenizer.from_file(str(tokenizer_of / "tokenizer.json")) if tokenizer_of else None
    tokenizer = read_by_transformers(kept or train_tokenizer(captions, glosses))
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=512,  # the width that stable-audio-tools expects of t5-small
        d_kv=64,
        d_ff=256,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5EncoderModel(config)
    subject = torch.nn.Linear(config.d_model, len(tokenizer))
    own = torch.nn.Linear(config.d_model, len(tokenizer))
    weights = [*model.parameters(), *subject.parameters(), *own.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, TEXT_STEPS)
    for step, (ids, mask, about) in enumerate(text_batches(tokenizer, captions, glosses), 1):
        # Dropped words keep it from learning texts by heart.
        kept = mask * (torch.rand(ids.shape) > 0.3)
        kept[:, 0] = 1
        states = model(input_ids=ids, attention_mask=kept)["last_hidden_state"]
        read = torch.multinomial(kept.float(), READ, replacement=True)
        states = states.gather(1, read[:, :, None].expand(-1, -1, states.shape[2]))
        about_loss = -(subject(states).log_softmax(-1) * about[:, None]).sum(-1).mean()
        own_loss = torch.nn.functional.cross_entropy(own(states).flatten(0, 1), ids.gather(1, read).flatten())
        optimiser.zero_grad()
        (about_loss + OWN * own_loss).backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"text encoder: step {step}  about {about_loss.item():.3f}  own {own_loss.item():.4f}", flush=True)
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about_it = folder / "tokenizer_config.json"
    # Not the name that transformers 5 gives it, which transformers 4 does not know.
    told = json.loads(about_it.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    about_it.write_text(json.dumps(told, indent=2) + "\n")


def model_config(autoencoder: dict, scale: float, text_length: int = TEXT_LENGTH) -> dict:
    """Stable Audio Open 1.0's `model_config.json` with smaller numbers."""
    latent_dim = autoencoder["model"]["latent_dim"]
    number = {"min_val": 0, "max_val": 512}
    text = {"t5_model_name": "t5-small", "max_length": text_length}
    optimiser = {"type": "AdamW", "config": {"lr": 5e-5, "betas": [0.9, 0.999], "weight_decay": 1e-3}}
    schedule = {"type": "InverseLR", "config": {"inv_gamma": 1000000, "power": 0.5, "warmup": 0.99}}
    return {
        "model_type": "diffusion_cond",
        "sample_size": autoencoder["model"]["downsampling_ratio"] * FRAMES,
        "sample_rate": autoencoder["sample_rate"],
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "scale": scale,
                "config": autoencoder["model"],
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": text},
                    {"id": "seconds_start", "type": "number", "config": number},
                    {"id": "seconds_total", "type": "number", "config": number},
                ],
                "cond_dim": COND_DIM,
            },
            "diffusion": {
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "type": "dit",
                "config": {
                    "io_channels": latent_dim,
                    "embed_dim": EMBED_DIM,
                    "depth": DEPTH,
                    "num_heads": HEADS,
                    "cond_token_dim": COND_DIM,
                    "global_cond_dim": 2 * COND_DIM,
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": latent_dim,
        },
        "training": {
            "use_ema": True,
            "log_loss_info": False,
            "optimizer_configs": {"diffusion": {"optimizer": optimiser, "scheduler": schedule}},
        },
    }


@torch.inference_mode()
def latents_deviation(autoencoder: torch.nn.Module, corpus: Path) -> float:
    """Standard deviation of the latents of training clips, padded to the window as a training pads them."""
    autoencoder.bottleneck = None  # latents are then mean and spread, not drawn
    total, squares, count = 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        with py7zr.SevenZipFile(corpus / "clotho_audio_development.7z") as archive:
            names = sorted(name for name in archive.getnames() if name.endswith(".wav"))
            archive.extract(folder, random.Random(0).sample(names, min(SCALE_CLIPS, len(names))))
        for path in sorted(Path(folder).rglob("*.wav")):
            audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
            window = torch.zeros(2, autoencoder.downsampling_ratio * FRAMES)
            window[:, : len(audio)] = torch.from_numpy(audio.T)[:, : window.shape[1]]
            mean = autoencoder.encode(window[None])[0].chunk(2)[0].double()
            total, squares, count = total + mean.sum(), squares + mean.square().sum(), count + mean.numel()
    return float((squares / count - (total / count) ** 2).sqrt())


def create(config: dict, text_encoder: Path) -> torch.nn.Module:
    """The model of `config`; stable-audio-tools finds the text encoder by name in the Hub's cache."""
    with tempfile.TemporaryDirectory() as hub:
        root = Path(hub, "models--t5-small")
        shutil.copytree(text_encoder, root / "snapshots" / ("0" * 40))
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = hub, True
        return create_model_from_config(config)


def write_model(weights: dict[str, torch.Tensor], config: dict, folder: Path) -> None:
    """Write `model.safetensors` in half precision and `model_config.json`."""
    save_file({key: value.half().contiguous() for key, value in weights.items()}, folder / "model.safetensors")
    (folder / "model_config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in sorted(folder.rglob("*.*")):
        print(f"{path.stat().st_size:>9}  {path.relative_to(folder)}")


def start(args: argparse.Namespace) -> None:
    folder = args.out or HERE / "start"
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((HERE / "autoencoder" / "model_config.json").read_text())
    autoencoder = create_model_from_config(config)
    weights = {key: value.float() for key, value in load_file(HERE / "autoencoder" / "model.safetensors").items()}
    autoencoder.load_state_dict(weights, strict=True)
    config = model_config(config, round(latents_deviation(autoencoder.eval(), args.captions), 4))
    if not (folder / "text_encoder").exists() or not args.keep_text_encoder:
        tokenizer = None if args.new_tokenizer else SHIPPED / "text_encoder"
        make_text_encoder(args.captions, args.wordnet, tokenizer, folder / "text_encoder")
    torch.manual_seed(2)
    model = create(config, folder / "text_encoder")
    model.pretransform.model.load_state_dict(weights, strict=True)
    print(f"transformer and conditioners: {sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6:.2f} M")
    write_model(model.state_dict(), config, folder)


def finish(args: argparse.Namespace) -> None:
    folder = args.out or SHIPPED
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(args.start or HERE / "start" / "text_encoder", folder / "text_encoder", dirs_exist_ok=True)
    config = json.loads((args.trained / "model_config.json").read_text())
    write_model(load_file(args.trained / "model.safetensors"), config, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("start")
    first.add_argument("--captions", type=Path, required=True, help="folder that make_captions.py wrote")
    first.add_argument("--wordnet", type=Path, required=True, help="folder of WordNet 3.0's data files")
    first.add_argument("--keep-text-encoder", action="store_true", help="take the one that an earlier call made")
    first.add_argument(
        "--new-tokenizer",
        action="store_true",
        help="train a tokenizer instead of taking the one of resources/demo/base_model",
    )
    first.add_argument("--out", type=Path, help="folder to write; default: start/ beside this script")
    last = commands.add_parser("finish")
    last.add_argument("--trained", type=Path, required=True, help="folder with the exported model")
    last.add_argument("--start", type=Path, help="folder of the text encoder")
    last.add_argument("--out", type=Path, help="folder to write; default: resources/demo/base_model")
    args = parser.parse_args()
    {"start": start, "finish": finish}[args.command](args)


if __name__ == "__main__":
    main()
