"""Converts weights of the published PianoBind, or of MIDI-BERT alone, into this package's format.

    python -m modeling_pianobind.convert_original_checkpoint --checkpoint FILE --output FOLDER

No code that a checkpoint's pickle may hold is run. Names, shapes and copies are checked first: a tensor that is
missing or unknown stops the conversion. `original.presets` shows how the numbers of parameters add up.
"""

import argparse
import json
import os
import pickle
import re
import sys
import tempfile
from pathlib import Path

import torch
from huggingface_hub import file_exists
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from .compound_words_pianobind import FIELD_SIZES
from .modeling_pianobind import PianoBindModel
from .original.presets import (
    TEXT_SETTINGS,
    TOKENIZER,
    TOWERS,
    original_audio_config,
    original_config,
    original_feature_extractor,
    original_midi_config,
    original_midi_processor,
    original_text_config,
)
from .processing_pianobind import PianoBindProcessor
from .towers_pianobind import PianoBindMidiModel

PREFIXES = {"audio": "audio_backbone.", "midi": "midi_backbone.", "text": "textual_head."}
MIDI_BERT = "midi_bert"  # MIDI-BERT alone; the other variants are those of `TOWERS`

# Our names -> those of the published checkpoints, first match first.
LAYER = r"^midi_model\.encoder\.layers\.(\d+)\."
NAMES = [
    (r"^audio_model\.resnet\.stages\.(\d+)\.", lambda match: f"audio_backbone.layer{int(match[1]) + 1}."),
    (r"^audio_model\.resnet\.", "audio_backbone."),
    (r"^audio_model\.attention_pool\.", "audio_backbone.attnpool."),
    (r"^midi_model\.embeddings\.(\d+)\.weight$", r"midi_backbone.midibert.word_emb.\1.lut.weight"),
    (r"^midi_model\.input_proj\.", "midi_backbone.midibert.in_linear."),
    (r"^midi_model\.input_norm\.", "midi_backbone.midibert.bert.embeddings.LayerNorm."),
    (LAYER + r"attention\.q_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.self.query."),
    (LAYER + r"attention\.k_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.self.key."),
    (LAYER + r"attention\.v_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.self.value."),
    (LAYER + r"attention\.distance_", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.self.distance_"),
    (LAYER + r"attention\.out_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.output.dense."),
    (LAYER + r"attention_norm\.", r"midi_backbone.midibert.bert.encoder.layer.\1.attention.output.LayerNorm."),
    (LAYER + r"up_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.intermediate.dense."),
    (LAYER + r"down_proj\.", r"midi_backbone.midibert.bert.encoder.layer.\1.output.dense."),
    (LAYER + r"mlp_norm\.", r"midi_backbone.midibert.bert.encoder.layer.\1.output.LayerNorm."),
    (r"^text_model\.", "textual_head."),
    (r"^logit_scale\.weight$", "logit_scale"),
]
TOKEN_TYPES = "midi_backbone.midibert.bert.embeddings.token_type_embeddings.weight"  # nosec B105
# Parameters of the published classes that no forward pass reads.
DEAD = re.compile(
    r"midi_backbone\.midibert\.(bert\.embeddings\.(word_embeddings|position_embeddings)\.weight"
    r"|bert\.embeddings\.(position_ids|token_type_ids)|bert\.pooler\.dense\.(weight|bias)"
    r"|mask_lm\.proj\.\d+\.(weight|bias))"
    r"|textual_head\.(embeddings\.(position_ids|token_type_ids)|pooler\.dense\.(weight|bias))"
)
# Constants of a mel front end in front of the ResNet; the feature extractor computes them.
MEL_BUFFERS = re.compile(r"audio_backbone\.(.+\.)?(spectrogram\.window|mel_scale\.fb)")


class _Tensors(dict):
    """Tensors by name; a missing one raises a ValueError that names it."""

    def __missing__(self, name: str) -> torch.Tensor:
        raise ValueError(f"the checkpoint has no tensor {name!r}; it is incomplete, or not of this variant.")


def read_checkpoint(path: str | Path) -> _Tensors:
    """Reads a checkpoint's tensors without running code of its pickle.

    Args:
        path (`str` or `Path`): a state dict, or a dict that holds one as `state_dict`; names may begin with `module.`.
    Returns:
        `dict[str, torch.Tensor]`, names without `module.`.
    Raises:
        ValueError: the file is none, or holds objects other than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path}: cannot be read as plain tensors ({reason}). If you trust where it comes from, load it there and "
            "save its state dict alone."
        ) from error
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(value) for value in content.values()):
        raise ValueError(f"{path}: holds no state dict (a dict of tensors, alone or as `state_dict`).")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return _Tensors(content)


def detect_variant(tensors: dict[str, torch.Tensor]) -> str:
    """The variant, by the towers in the file."""
    towers = tuple(tower for tower, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in tensors))
    for variant, needed in TOWERS.items():
        if towers == needed:
            return variant
    if not towers and any(re.fullmatch(r"(midibert\.)?word_emb\.0\.lut\.weight", name) for name in tensors):
        return MIDI_BERT
    raise ValueError(
        f"no known variant has the towers {towers or 'none'}: the published ones hold `textual_head.*` with "
        "`audio_backbone.*`, `midi_backbone.*` or both, and MIDI-BERT holds `word_emb.*`."
    )


def convert_tensors(tensors: dict[str, torch.Tensor], variant: str) -> tuple:
    """Renames the tensors of a published checkpoint.

    Args:
        tensors (`dict[str, torch.Tensor]`): as `read_checkpoint` gives them.
        variant (`str`): "trimodal", "audio_text", "midi_text" or "midi_bert".
    Returns:
        The config, our `dict[str, torch.Tensor]`, and the sorted names of what was left out.
    Raises:
        ValueError: a tensor is missing, unknown, of the wrong shape, or differs from its copy.
    """
    towers = ("midi",) if variant == MIDI_BERT else TOWERS[variant]
    tensors, given, dropped = _without_wrapping(tensors, variant)
    config = original_config(
        **{tower: _CONFIGS[tower](tensors) for tower in towers},
        projection_dim=512 if variant == MIDI_BERT else len(tensors["text_projection.weight"]),
    )
    with torch.device("meta"):  # only names and shapes are asked for
        ours = PianoBindModel(config).state_dict()
    if variant == MIDI_BERT:
        config, ours = config.midi_config, {name: ours[name] for name in ours if name.startswith("midi_model.")}

    weights = {}
    for name, expected in ours.items():
        source = _published_name(name)
        tensor = tensors[source]
        if tensor.shape != expected.shape:
            raise ValueError(f"tensor {source!r} has shape {tuple(tensor.shape)}, not {tuple(expected.shape)}.")
        weights[name] = tensor.to(expected.dtype).clone()
    if "midi" in towers:
        # Every note is of type 0, so its vector is one more summand of the bias.
        weights["midi_model.input_proj.bias"] += tensors[TOKEN_TYPES][0]
    read = {_published_name(name) for name in ours} | {TOKEN_TYPES}
    unknown = sorted(given[name] for name in set(tensors) - read)
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise ValueError(f"the checkpoint holds tensors that variant {variant!r} does not know: {shown}.")
    if variant == MIDI_BERT:
        weights = {name.removeprefix("midi_model."): tensor for name, tensor in weights.items()}
    return config, weights, sorted(dropped)


def _without_wrapping(tensors: dict[str, torch.Tensor], variant: str) -> tuple[_Tensors, dict[str, str], list[str]]:
    """Brings all three towers' names to one form, without copies, dead parameters and the mel front end's constants.

    Returns:
        Tensors by their names in that form, the given names by the same, and the given names of what was dropped.
    """
    pools = [name for name in tensors if re.fullmatch(r"audio_backbone\..*attnpool\.positional_embedding", name)]
    resnet = pools[0].removesuffix("attnpool.positional_embedding") if len(pools) == 1 else "audio_backbone."
    named, given, dropped = _Tensors(), {}, []
    for name in sorted(tensors):  # the copies below `midi_backbone.model.` come after what they copy
        if MEL_BUFFERS.fullmatch(name):
            dropped.append(name)
            continue
        if variant == MIDI_BERT:
            new = "midi_backbone.midibert." + name.removeprefix("midibert.")
        elif name.startswith("midi_backbone."):
            new = re.sub(r"^midi_backbone\.(model\.)?(midibert\.)?", "midi_backbone.midibert.", name)
        else:
            new = re.sub("^" + re.escape(resnet), "audio_backbone.", name)
        if new in named and not torch.equal(named[new], tensors[name]):
            raise ValueError(f"tensors {given[new]!r} and {name!r} are copies and differ: which one is meant?")
        if new in named or DEAD.fullmatch(new):
            dropped.append(name)
        named.setdefault(new, tensors[name])
        given.setdefault(new, name)
    return _Tensors({name: tensor for name, tensor in named.items() if not DEAD.fullmatch(name)}), given, dropped


def _published_name(name: str) -> str:
    for pattern, replacement in NAMES:
        new, count = re.subn(pattern, replacement, name)
        if count:
            return new
    return name


def _count(tensors: dict[str, torch.Tensor], pattern: str) -> int:
    """How many numbers, one after the other from the first, stand for the one group of `pattern` among the names."""
    numbers = {int(match[1]) for name in tensors if (match := re.match(pattern, name))}
    first = min(numbers, default=0)
    return next(count for count in range(len(numbers) + 1) if first + count not in numbers)


def _audio_config(tensors: dict[str, torch.Tensor]) -> PreTrainedConfig:
    width = 2 * len(tensors["audio_backbone.conv1.weight"])
    stages = _count(tensors, r"audio_backbone\.layer(\d+)\.")
    return original_audio_config(
        resnet_layers=tuple(_count(tensors, rf"audio_backbone\.layer{stage + 1}\.(\d+)\.") for stage in range(stages)),
        resnet_width=width,
        resnet_heads=max(1, width // 2),  # CLIP's rule: heads of 64 in its last stage of 32 times the width
        resnet_output_size=len(tensors["audio_backbone.attnpool.c_proj.weight"]),
    )


def _midi_config(tensors: dict[str, torch.Tensor]) -> PreTrainedConfig:
    embeddings = [tensors[f"midi_backbone.midibert.word_emb.{field}.lut.weight"] for field in range(len(FIELD_SIZES))]
    sizes = tuple(map(len, embeddings))
    if sizes != FIELD_SIZES:
        raise ValueError(f"the vocabularies have {sizes} words; compound words of this package have {FIELD_SIZES}.")
    hidden_size = len(tensors["midi_backbone.midibert.in_linear.weight"])
    layer = "midi_backbone.midibert.bert.encoder.layer.0."
    distances = tensors[layer + "attention.self.distance_embedding.weight"]
    return original_midi_config(
        field_embedding_size=embeddings[0].shape[1],
        hidden_size=hidden_size,
        num_hidden_layers=_count(tensors, r"midi_backbone\.midibert\.bert\.encoder\.layer\.(\d+)\."),
        num_attention_heads=hidden_size // distances.shape[1],
        intermediate_size=len(tensors[layer + "intermediate.dense.weight"]),
        max_relative_position=(len(distances) + 1) // 2,
    )


def _text_config(tensors: dict[str, torch.Tensor]) -> PreTrainedConfig:
    vocabulary, hidden_size = tensors["textual_head.embeddings.word_embeddings.weight"].shape
    return original_text_config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=_count(tensors, r"textual_head\.encoder\.layer\.(\d+)\."),
        num_attention_heads=max(1, hidden_size // 64),  # RoBERTa's heads, whose number no shape tells
        intermediate_size=len(tensors["textual_head.encoder.layer.0.intermediate.dense.weight"]),
        max_position_embeddings=len(tensors["textual_head.embeddings.position_embeddings.weight"]),
        type_vocab_size=len(tensors["textual_head.embeddings.token_type_embeddings.weight"]),
    )


_CONFIGS = {"audio": _audio_config, "midi": _midi_config, "text": _text_config}


def convert(
    checkpoint: str | Path, output: str | Path, variant: str | None = None, tokenizer: str | None = None
) -> list[str]:
    """Converts a checkpoint file into a folder that `from_pretrained` loads.

    Args:
        checkpoint (`str` or `Path`): see `read_checkpoint`.
        output (`str` or `Path`): a folder that is not there yet, or is empty.
        variant (`str`, *optional*): see `convert_tensors`; by default the towers tell.
        tokenizer (`str`, *optional*): Hub id or folder; by default roberta-base's, if the Hub can be reached.
    Returns:
        What was done, line by line.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; name a new folder, or empty this one.")
    tensors = read_checkpoint(checkpoint)
    variant = variant or detect_variant(tensors)
    config, weights, dropped = convert_tensors(tensors, variant)
    made = [
        f"{checkpoint}: variant {variant}, {len(tensors):,} tensors",
        f"converted {len(weights):,} tensors of {sum(tensor.numel() for tensor in weights.values()):,} numbers",
        f"left out {len(dropped):,} tensors that nothing reads, or that were copies",
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        folder = Path(folder) / "converted"  # with the permissions that a new folder has
        folder.mkdir()
        config.architectures = [(PianoBindMidiModel if variant == MIDI_BERT else PianoBindModel).__name__]
        config.save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if variant == MIDI_BERT:
            original_midi_processor(max_notes=config.max_relative_position).save_pretrained(folder)
        else:
            made += _save_processor(folder, config, tokenizer, output)
        os.replace(folder, output)
    made.append(f"wrote {output}")
    if variant == MIDI_BERT:
        made.append(f"start a model from it: PianoBindModel.from_encoders(midi={str(output)!r}, text=...)")
    return made


def add_tokenizer(folder: str | Path, tokenizer: str) -> list[str]:
    """Completes a folder that was converted without a tokenizer."""
    config = AutoConfig.from_pretrained(folder)
    return _save_processor(Path(folder), config, tokenizer, folder)


def _save_processor(folder: Path, config: PreTrainedConfig, tokenizer: str | None, output: str | Path) -> list[str]:
    parts = {"feature_extractor": original_feature_extractor(), "midi_processor": original_midi_processor()}
    loaded = _published_tokenizer() if tokenizer is None else _tokenizer(tokenizer)
    if loaded is None:
        settings = {name: part.to_dict() for name, part in parts.items()}
        settings.update(TEXT_SETTINGS, processor_class=PianoBindProcessor.__name__)
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (folder / "processor_config.json").write_text(text, encoding="utf-8")
        return [
            f"the tokenizer is missing ({TOKENIZER} cannot be reached); add it with: "
            f"python -m modeling_pianobind.convert_original_checkpoint --output {output} --tokenizer FOLDER_OR_HUB_ID"
        ]
    known = config.text_config.vocab_size
    if len(loaded) > known:
        raise ValueError(
            f"{tokenizer or TOKENIZER}: has {len(loaded):,} tokens, more than the {known:,} of the text tower; "
            "give the tokenizer that the checkpoint was trained with."
        )
    PianoBindProcessor(tokenizer=loaded, **parts, **TEXT_SETTINGS).save_pretrained(folder)
    return [f"added the tokenizer of {tokenizer or TOKENIZER}"]


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: no tokenizer can be loaded from there ({error}).") from error


def _published_tokenizer() -> PreTrainedTokenizerBase | None:
    """roberta-base's, from the Hub's cache or the Hub; None without either."""
    try:
        return AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:  # asks once, where loading would ask many times before it gives up
        reachable = file_exists(TOKENIZER, "tokenizer.json")
    except Exception:  # any error of the Hub's client, whose HTTP libraries raise different ones
        return None
    return _tokenizer(TOKENIZER) if reachable else None


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m modeling_pianobind.convert_original_checkpoint")
    parser.add_argument("--checkpoint", help="a .pth.tar, .pt or .ckpt of the published PianoBind or of MIDI-BERT")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--variant", choices=[*TOWERS, MIDI_BERT], help="by default the towers in the file tell")
    parser.add_argument("--tokenizer", help="folder or Hub id; without --checkpoint it is added to a converted folder")
    given = parser.parse_args(arguments)
    if given.checkpoint is None and given.tokenizer is None:
        parser.error("give --checkpoint, or --tokenizer to complete a folder that was converted before")
    try:
        if given.checkpoint is None:
            lines = add_tokenizer(given.output, given.tokenizer)
        else:
            lines = convert(given.checkpoint, given.output, given.variant, given.tokenizer)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
