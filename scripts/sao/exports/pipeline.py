"""The merged model as a folder of diffusers' StableAudioPipeline.

The names of its weights follow from how both build the same network: stable_audio_tools/models/dit.py, and in diffusers
models/transformers/stable_audio_transformer.py, pipelines/stable_audio/modeling_stable_audio.py and
models/autoencoders/autoencoder_oobleck.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sao.base.command import InputError

from sao.base.files import copy_file, write_json
from sao.exports.form import Form, Source, Weights
from sao.models.build import assert_same_keys
from sao.models.config import ModelConfig, downsampling_ratio, objective, text_encoder_place, text_max_length

if TYPE_CHECKING:
    import torch

SECONDS = ("seconds_start", "seconds_total")  # the numbers that StableAudioPipeline has, in its order
POSITIONS = "model.model.transformer.rotary_pos_emb.inv_freq"
OWN_OOBLECK = Path(__file__).with_name("oobleck_of_pipeline.py")
# What the transformer of diffusers fixes: keys of `model.diffusion.config`, their default in stable-audio-tools, and what fits.
FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "transformer_type": ("continuous_transformer", ("continuous_transformer",)),
    "global_cond_type": ("prepend", ("prepend",)),
    "timestep_cond_type": ("global", ("global",)),
    "timestep_features_type": ("learned", ("learned",)),
    "timestep_features_logsnr": (False, (False,)),
    "project_global_cond": (True, (True,)),
    "patch_size": (1, (1,)),
    "input_concat_dim": (0, (0,)),
    "prepend_cond_dim": (0, (0,)),
    "local_add_cond_dim": (None, (None,)),
    "modular_local_cond_configs": (None, (None, [])),
    "norm_type": ("layer_norm", ("layer_norm",)),
    "num_memory_tokens": (0, (0,)),
    "final_cross_attn_ix": (-1, (-1,)),
    "causal": (False, (False,)),
    "rotary_pos_emb": (True, (True,)),
    "cross_attn_rotary_pos_emb": (False, (False,)),
    "conformer": (False, (False,)),
    "layer_scale": (False, (False,)),
    "use_sinusoidal_emb": (False, (False,)),
    "use_abs_pos_emb": (False, (False,)),
    "sliding_window": (None, (None,)),
    "add_rope": (False, (False,)),
}
NEUTRAL: dict[str, dict[str, tuple[Any, ...]]] = {
    "attn_kwargs": {"qk_norm": ("none",), "differential": (False,), "feat_scale": (False,), "causal": (False,)},
    "ff_kwargs": {"mult": (4, 4.0), "glu": (True,), "no_bias": (False,), "use_conv": (False,), "sinusoidal": (False,)},
    "norm_kwargs": {"eps": (1e-5,), "force_fp32": (False, True), "fix_scale": (False, True), "bias": (False, True)},
}
KNOWN = {"io_channels", "embed_dim", "depth", "num_heads", "cond_token_dim", "global_cond_dim", "project_cond_tokens"}
KNOWN |= {"timestep_features_dim", "zero_init_branch_outputs", "diffusion_objective", "timestep_embed_dim"}


def refusal(config: ModelConfig) -> str | None:
    """The first thing in a model config that StableAudioPipeline cannot express, or None."""
    return (
        _refused_objective(config)
        or _refused_conditioners(config)
        or _refused_transformer(config)
        or _refused_coder(config)
    )


def _refused_objective(config: ModelConfig) -> str | None:
    if config["model_type"] != "diffusion_cond":
        return f"its model_type is {config['model_type']!r}, and StableAudioPipeline inpaints nothing"
    if objective(config) != "v":
        return f"its diffusion_objective is {objective(config)!r}, and StableAudioPipeline samples with v"
    return None


def _refused_conditioners(config: ModelConfig) -> str | None:
    conditioning, diffusion = config["model"]["conditioning"], config["model"]["diffusion"]
    entries = {entry["id"]: entry for entry in conditioning["configs"]}
    if set(entries) != {"prompt", *SECONDS}:
        return f"its conditioners are {', '.join(entries)}, and StableAudioPipeline has prompt, {' and '.join(SECONDS)}"
    prompt, (start, total) = entries["prompt"], (entries[name] for name in SECONDS)
    if prompt["type"] != "t5":
        return f"its text conditioner is of type {prompt['type']!r}, and StableAudioPipeline has t5"
    if (padding := prompt["config"].get("padding_mode", "zero")) != "zero":
        return f"its text conditioner has padding_mode {padding!r}, and StableAudioPipeline pads with zeros"
    if prompt["config"].get("project_out"):
        return (
            "its text conditioner has project_out, and StableAudioPipeline has no layer where the widths are the same"
        )
    for entry in (start, total):
        features = entry["config"].get("fourier_features_type", "learned")
        if entry["type"] != "number" or features != "learned":
            return f"its conditioner {entry['id']} is no number with learned features"
    ranges = [(entry["config"].get("min_val", 0), entry["config"].get("max_val", 1)) for entry in (start, total)]
    if ranges[0] != ranges[1]:
        return (
            f"{' and '.join(SECONDS)} have other ranges, {ranges[0]} and {ranges[1]}, and StableAudioPipeline has one"
        )
    wanted = {"cross_attention_cond_ids": ["prompt", *SECONDS], "global_cond_ids": [*SECONDS]}
    for key, ids in diffusion.items():
        if key.endswith("_ids") and ids != wanted.get(key, []):
            return f"its {key} are {', '.join(ids)}, and those of StableAudioPipeline {', '.join(wanted.get(key, [])) or 'none'}"
    return next((f"it has no {key}" for key in wanted if key not in diffusion), None)


def _refused_transformer(config: ModelConfig) -> str | None:
    options = config["model"]["diffusion"]["config"]
    for key, value in options.items():
        if key in NEUTRAL:
            for part, found in value.items():
                if found not in NEUTRAL[key].get(part, ()):
                    return f"its transformer has {key}.{part} {found!r}, which diffusers' has not"
        elif key in FIXED:
            if value not in FIXED[key][1]:
                return f"its transformer has {key} {value!r}, and diffusers' has {FIXED[key][0]!r}"
        elif key not in KNOWN:
            return f"its transformer has {key} {value!r}, which diffusers' has not"
    # diffusers turns half of a head by its position; stable-audio-tools at least 32 numbers of it.
    if options["embed_dim"] // options["num_heads"] < 64:
        return f"its heads are {options['embed_dim'] // options['num_heads']} wide, and diffusers turns half of heads of 64 or more"
    return None


def _refused_coder(config: ModelConfig) -> str | None:
    coder = config["model"]["pretransform"]["config"]
    for side in ("encoder", "decoder"):
        if (kind := coder[side]["type"]) != "oobleck":
            return f"its {side} is of type {kind!r}, and StableAudioPipeline has oobleck"
        for key in ("antialias_activation", "use_nearest_upsample"):
            if coder[side]["config"].get(key):
                return f"its {side} has {key}, which no autoencoder of diffusers has"
    if (kind := (coder.get("bottleneck") or {}).get("type")) != "vae":
        return f"its bottleneck is of type {kind!r}, and StableAudioPipeline has vae"
    inner = coder.get("pretransform")
    if inner and (inner["type"] != "patched" or set(inner["config"]) - {"channels", "patch_size"}):
        return f"its autoencoder has a pretransform of type {inner['type']!r}, which no autoencoder of diffusers has"
    return None


def write(source: Source, precision: str, folder: Path) -> Weights:
    """Write the folder with diffusers' own classes. Returns the weights of the merged model as they were stored."""
    from sao.base.command import output_to_log

    from sao.exports.precision import stored

    with output_to_log():
        import torch
        from diffusers import CosineDPMSolverMultistepScheduler, StableAudioDiTModel, StableAudioProjectionModel
        from transformers import AutoTokenizer, T5EncoderModel

    config, weights = source.config, stored(source.model, precision)
    check_positions(source.model)
    parts: dict[str, Any] = {
        "transformer": _filled(
            StableAudioDiTModel, transformer_config(config, source.window), transformer_weights(weights)
        ),
        "projection_model": _filled(
            StableAudioProjectionModel, projection_config(config, weights), projection_weights(weights)
        ),
        "vae": autoencoder(config, weights),
    }
    place = text_encoder_place(source.hub, config)
    encoder: Any = T5EncoderModel.from_pretrained(place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(place, model_max_length=text_max_length(config))
    scheduler: Any = CosineDPMSolverMultistepScheduler(
        sigma_min=source.sampling["sigma_min"], sigma_max=source.sampling["sigma_max"]
    )
    kind = getattr(torch, precision)
    encoder.to(kind).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    library, kinds = "diffusers", {name: type(part).__name__ for name, part in parts.items()}
    index: dict[str, Any] = {"_class_name": "StableAudioPipeline", "_diffusers_version": version()}
    index |= {name: [library, kind] for name, kind in kinds.items()}
    index |= {"scheduler": [library, type(scheduler).__name__], "text_encoder": ["transformers", "T5EncoderModel"]}
    # Its class has another name in each release of transformers; this one loads any tokenizer.json.
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if not fits_diffusers(config):
        copy_file(OWN_OOBLECK, folder / "vae" / OWN_OOBLECK.name)
        index["vae"] = [OWN_OOBLECK.stem, kinds["vae"]]
    write_json(folder / "model_index.json", dict(sorted(index.items())))
    return weights


def check_positions(model: Weights) -> None:
    """Raise InputError unless the frequencies of positions are those that diffusers computes; files may have them rounded."""
    import torch

    found = model[POSITIONS].double()
    expected = 10000.0 ** -(torch.arange(len(found), dtype=torch.float64) / len(found))
    if not torch.allclose(found, expected, rtol=1e-2):
        raise InputError(
            "diffusers cannot express this model: the positions of its transformer have frequencies of its own"
        )


def version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _filled(kind: Any, config: dict[str, Any], weights: Weights) -> torch.nn.Module:
    """A model of diffusers with these weights, in their own precision. Raises InputError unless all keys and shapes match."""
    import torch

    with torch.device("meta"):
        model = kind(**config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert_same_keys(
        {key: tuple(value.shape) for key, value in weights.items()}, expected, f"diffusers' {kind.__name__}"
    )
    model.load_state_dict({key: value.contiguous() for key, value in weights.items()}, strict=True, assign=True)
    filled: torch.nn.Module = model
    return filled


def transformer_config(config: ModelConfig, window: int) -> dict[str, Any]:
    """The arguments of StableAudioDiTModel for a model whose sounds have `window` latent frames."""
    options = config["model"]["diffusion"]["config"]
    head = options["embed_dim"] // options["num_heads"]
    inner = options["embed_dim"] if options.get("project_cond_tokens", True) else options["cond_token_dim"]
    return {
        "sample_size": window,
        "in_channels": options["io_channels"],
        "out_channels": options["io_channels"],
        "num_layers": options["depth"],
        "attention_head_dim": head,
        "num_attention_heads": options["num_heads"],
        "num_key_value_attention_heads": inner // head,
        "cross_attention_dim": inner,
        "cross_attention_input_dim": options["cond_token_dim"],
        "global_states_input_dim": options["global_cond_dim"],
        "time_proj_dim": options.get("timestep_features_dim", 256),
    }


# By the beginning of a name in stable-audio-tools: the name in diffusers.
OF_TRANSFORMER = {
    "timestep_features.weight": "time_proj.weight",
    "to_timestep_embed.": "timestep_proj.",
    "to_cond_embed.": "cross_attention_proj.",
    "to_global_embed.": "global_proj.",
    "preprocess_conv.": "preprocess_conv.",
    "postprocess_conv.": "postprocess_conv.",
    "transformer.project_in.": "proj_in.",
    "transformer.project_out.": "proj_out.",
}
# The same in a block of the transformer.
OF_BLOCK = {
    "pre_norm.gamma": "norm1.weight",
    "pre_norm.beta": "norm1.bias",
    "cross_attend_norm.gamma": "norm2.weight",
    "cross_attend_norm.beta": "norm2.bias",
    "ff_norm.gamma": "norm3.weight",
    "ff_norm.beta": "norm3.bias",
    "self_attn.to_out.": "attn1.to_out.0.",
    "cross_attn.to_out.": "attn2.to_out.0.",
    "cross_attn.to_q.": "attn2.to_q.",
    "ff.ff.0.proj.": "ff.net.0.proj.",
    "ff.ff.2.": "ff.net.2.",
}
# Matrices that diffusers has in parts.
DIVIDED = {
    "self_attn.to_qkv.weight": ("attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight"),
    "cross_attn.to_kv.weight": ("attn2.to_k.weight", "attn2.to_v.weight"),
}


def transformer_weights(weights: Weights) -> Weights:
    """The weights of StableAudioDiTModel, from those of the whole model."""
    found: Weights = {}
    for key, value in weights.items():
        name = key.removeprefix("model.model.")
        if name == key or key == POSITIONS:  # diffusers computes the frequencies anew
            continue
        if block := re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", name):
            place = f"transformer_blocks.{block[1]}."
            if parts := DIVIDED.get(block[2]):
                found |= {f"{place}{part}": of for part, of in zip(parts, value.chunk(len(parts)), strict=True)}
            else:
                found[place + renamed(block[2], OF_BLOCK)] = value
        else:
            found[renamed(name, OF_TRANSFORMER)] = value.squeeze(1) if name == "timestep_features.weight" else value
    return found


def renamed(name: str, names: dict[str, str]) -> str:
    """A name whose beginning is replaced as `names` says; one without an entry stays, and fits no model."""
    for old, new in names.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def projection_config(config: ModelConfig, weights: Weights) -> dict[str, Any]:
    """The arguments of StableAudioProjectionModel."""
    conditioning = config["model"]["conditioning"]
    width = conditioning["cond_dim"]
    layer = weights.get("conditioner.conditioners.prompt.proj_out.weight")
    number = next(entry["config"] for entry in conditioning["configs"] if entry["id"] == SECONDS[0])
    return {
        "text_encoder_dim": width if layer is None else layer.shape[1],
        "conditioning_dim": width,
        "min_value": number.get("min_val", 0),
        "max_value": number.get("max_val", 1),
    }


def projection_weights(weights: Weights) -> Weights:
    """The weights of StableAudioProjectionModel, from those of the whole model."""
    names = {
        "prompt.proj_out.": "text_projection.",
        f"{SECONDS[0]}.embedder.embedding.": "start_number_conditioner.time_positional_embedding.",
        f"{SECONDS[1]}.embedder.embedding.": "end_number_conditioner.time_positional_embedding.",
    }
    start = "conditioner.conditioners."
    return {renamed(key.removeprefix(start), names): value for key, value in weights.items() if key.startswith(start)}


def fits_diffusers(config: ModelConfig) -> bool:
    """Whether the autoencoder is one that `diffusers.AutoencoderOobleck` computes."""
    pretransform = config["model"]["pretransform"]
    coder = pretransform["config"]
    encoder, decoder = ({**OOBLECK, **coder[side]["config"]} for side in ("encoder", "decoder"))
    return (
        not coder.get("pretransform")
        and pretransform.get("scale", 1.0) == 1
        and encoder["use_snake"]
        and decoder["use_snake"]
        and not decoder["final_tanh"]
        and (encoder["strides"], encoder["c_mults"]) == (decoder["strides"], decoder["c_mults"])
        and encoder["latent_dim"] == encoder["channels"]  # of which AutoencoderOobleck has one number
        and encoder["in_channels"] == decoder["out_channels"]
    )


# Defaults of OobleckEncoder and OobleckDecoder in stable_audio_tools/models/autoencoders.py.
OOBLECK: dict[str, Any] = {
    "in_channels": 2,
    "out_channels": 2,
    "channels": 128,
    "latent_dim": 32,
    "c_mults": [1, 2, 4, 8],
    "strides": [2, 4, 8, 8],
    "use_snake": False,
    "final_tanh": True,
}


def autoencoder(config: ModelConfig, weights: Weights) -> torch.nn.Module:
    """The autoencoder as a component of a pipeline: diffusers' own class, or that of OWN_OOBLECK."""
    start = "pretransform.model."
    own = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    pretransform = config["model"]["pretransform"]
    coder = pretransform["config"]
    encoder, decoder = ({**OOBLECK, **coder[side]["config"]} for side in ("encoder", "decoder"))
    audio = {"audio_channels": coder["io_channels"], "sampling_rate": config["sample_rate"]}
    if fits_diffusers(config):
        from diffusers import AutoencoderOobleck

        shape = {
            "encoder_hidden_size": encoder["channels"],
            "downsampling_ratios": encoder["strides"],
            "channel_multiples": encoder["c_mults"],
            "decoder_channels": decoder["channels"],
            "decoder_input_channels": decoder["latent_dim"],
        }
        return _filled(AutoencoderOobleck, shape | audio, oobleck_weights(own, len(encoder["strides"])))
    from sao.exports.oobleck_of_pipeline import StableAudioToolsOobleck

    common = ("channels", "latent_dim", "c_mults", "strides", "use_snake")
    options = audio | {
        "encoder_config": {key: encoder[key] for key in ("in_channels", *common)},
        "decoder_config": {key: decoder[key] for key in ("out_channels", *common, "final_tanh")},
        "hop_length": downsampling_ratio(config),
        "patch_size": coder["pretransform"]["config"]["patch_size"] if coder.get("pretransform") else 1,
        "latent_scale": pretransform.get("scale", 1.0),
    }
    return _filled(StableAudioToolsOobleck, options, own)


def oobleck_weights(weights: Weights, depth: int) -> Weights:
    """The weights of `diffusers.AutoencoderOobleck`, from those of an Oobleck of `depth` blocks in stable-audio-tools."""
    of_residual = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
    of_encoder = {"0": "res_unit1", "1": "res_unit2", "2": "res_unit3", "3": "snake1", "4": "conv1"}
    of_decoder = {"0": "snake1", "1": "conv_t1", "2": "res_unit1", "3": "res_unit2", "4": "res_unit3"}
    outer = {"0": "conv1", str(depth + 1): "snake1", str(depth + 2): "conv2"}
    outer |= {str(at + 1): f"block.{at}" for at in range(depth)}
    found: Weights = {}
    for key, value in weights.items():
        side, *rest = key.split(".layers.")
        of_block = of_encoder if side == "encoder" else of_decoder
        name = side
        for part, names in zip(rest, (outer, of_block, of_residual), strict=False):
            number, _, last = part.partition(".")
            name += f".{names[number]}" + (f".{last}" if last else "")
        found[name] = value[None, :, None] if name.endswith((".alpha", ".beta")) else value
    return found


FORM = Form(of_adapter=False, refusal=refusal, write=write)
