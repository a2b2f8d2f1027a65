"""Configuration of PianoBind: one config for the model, one for each of its audio and MIDI towers."""

import reprlib
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from .inputs_pianobind import check_numbers

MAX_LAYERS = 1_000  # bounds the time that a damaged layer count costs
PAIRS = ("audio_text", "midi_text", "audio_midi")


@strict
class PianoBindAudioConfig(PreTrainedConfig):
    """Audio tower: log-mel windows in, one hidden vector a window out.

    `architecture="transformer"` is the default family: two convolutions that shorten time by four, then a pre-norm
    transformer with rotary positions and masked mean pooling. `architecture="modified_resnet"` is the published
    PianoBind's CLIP ResNet with attention pooling, for windows of exactly `window_frames` frames.

    Args:
        num_mel_bins (`int`): mel bands of the input.
        frame_seconds (`float`): time between two input frames, in seconds.
        window_frames (`int`): frames of one window.
        stem_strides (`tuple[int, ...]`): by how much each of the stem's convolutions shortens time.
        patch_frames (`int`): above 0, a token is a patch of so many whole frames, and there are no convolutions.
        resnet_layers, resnet_width, resnet_heads: the ResNet's blocks a stage, base width and pooling heads.
        resnet_output_size (`int`): width of the vector that the ResNet's attention pooling gives.
    """

    model_type = "pianobind_audio"
    base_config_key = "audio_config"

    architecture: str = "transformer"
    num_mel_bins: int = 229
    frame_seconds: float = 0.025
    window_frames: int = 801
    stem_strides: tuple[int, ...] | list[int] = (2, 2)
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 768
    norm_position: str = "pre"
    position_embedding_type: str = "rotary"
    hidden_dropout: float = 0.1
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    patch_frames: int = 0
    resnet_layers: tuple[int, ...] | list[int] = (3, 4, 6, 3)
    resnet_width: int = 16
    resnet_heads: int = 8
    resnet_output_size: int = 256

    def validate_architecture(self) -> None:
        if self.architecture not in ("transformer", "modified_resnet"):
            raise ValueError(
                f"`architecture` is {reprlib.repr(self.architecture)}; it must be 'transformer' or 'modified_resnet'."
            )

    def validate_sizes(self) -> None:
        sizes = ("num_mel_bins", "window_frames", "resnet_width", "resnet_heads", "resnet_output_size")
        _check_sizes(self, sizes, ("stem_strides", "resnet_layers"))
        check_numbers(self, {"frame_seconds": 1e-6, "patch_frames": 0})

    def validate_options(self) -> None:
        _check_options(self, ("rotary",))

    @property
    def window_seconds(self) -> float:
        """Length of one window."""
        return (self.window_frames - 1) * self.frame_seconds

    @property
    def output_size(self) -> int:
        """Width of the vector that the tower gives for a window."""
        return self.hidden_size if self.architecture == "transformer" else self.resnet_output_size


@strict
class PianoBindMidiConfig(PreTrainedConfig):
    """MIDI tower: note rows in, one hidden vector a window out.

    The default family is a pre-norm transformer whose rotary positions are half note index, half seconds. The
    published PianoBind is `norm_position="post"`, `position_embedding_type="relative_key_query"`, `pool_padding=True`.

    Args:
        field_sizes (`tuple[int, ...]`): vocabulary of each field of a note row; the last two ids of a field are PAD
            and MASK.
        field_embedding_size (`int`): width of each field's embedding; they are concatenated, then projected.
        scale_embeddings (`bool`): multiply each embedding by the square root of its width.
        embedding_norm (`bool`): normalise what enters the first layer.
        note_statistics (`bool`): adds statistics of the whole window (histograms, key, density) to each note;
            for rows whose first field is the piano key, with `rotary` positions.
        rhythm_statistics (`bool`): with `note_statistics`, the window's beat periodicity as well.
        notes_per_token (`int`): successive notes that one token of the transformer stands for. Four notes a token cost
            a quarter of the products and a sixteenth of the attention of one note a token.
        time_field (`int`): the field that holds the time since the previous onset; only `rotary` positions use it.
        time_range_seconds (`tuple[float, float]`): the shortest and the longest time of that field's bins.
        max_relative_position (`int`): longest distance that `relative_key_query` tells apart, plus one.
        pool_padding (`bool`): average over padding as well, as the published model does; every window is then padded
            to `max_relative_position` notes.
    """

    model_type = "pianobind_midi"
    base_config_key = "midi_config"

    field_sizes: tuple[int, ...] | list[int] = (90, 130, 66, 34, 34)
    field_embedding_size: int = 64
    scale_embeddings: bool = False
    embedding_norm: bool = False
    note_statistics: bool = False
    rhythm_statistics: bool = False
    notes_per_token: int = 1
    time_field: int = 1
    time_range_seconds: tuple[float, ...] | list[float] = (0.01, 10.0)
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 768
    norm_position: str = "pre"
    position_embedding_type: str = "rotary"
    max_relative_position: int = 512
    pool_padding: bool = False
    hidden_dropout: float = 0.1
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    def validate_sizes(self) -> None:
        _check_sizes(self, ("field_embedding_size", "max_relative_position", "notes_per_token"), ("field_sizes",))
        shortest, longest = (*self.time_range_seconds, 0, 0)[:2]
        if not 0 < shortest < longest < float("inf") or not 0 <= self.time_field < len(self.field_sizes):
            raise ValueError(
                f"`time_field` is {self.time_field} with times of {reprlib.repr(self.time_range_seconds)} seconds; it "
                "must be one of `field_sizes`, and the times two above 0, the shorter one first."
            )

    def validate_options(self) -> None:
        _check_options(self, ("rotary", "relative_key_query"))
        if self.note_statistics and self.position_embedding_type != "rotary":
            raise ValueError("`note_statistics` needs rows in real time: `position_embedding_type` must be 'rotary'.")
        if self.rhythm_statistics and not self.note_statistics:
            raise ValueError("`rhythm_statistics` are part of `note_statistics`, which is off; turn it on.")
        if self.notes_per_token > 1 and self.pool_padding:
            raise ValueError("`pool_padding` averages single notes: `notes_per_token` must be 1.")

    @property
    def output_size(self) -> int:
        """Width of the vector that the tower gives for a window."""
        return self.hidden_size


def _check_sizes(config: PreTrainedConfig, sizes: tuple[str, ...], lists: tuple[str, ...]) -> None:
    """Refuses invalid sizes: the transformer's, those named in `sizes`, and the lists named in `lists`."""
    common = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    check_numbers(config, dict.fromkeys((*common, *sizes), 1) | {"layer_norm_eps": 0.0, "initializer_range": 0.0})
    _check_depth(config)
    for name in lists:
        if not getattr(config, name) or min(getattr(config, name)) < 1:
            raise ValueError(f"`{name}` is {reprlib.repr(getattr(config, name))}; it must be whole numbers above 0.")
    if not 0 <= config.hidden_dropout <= 1:
        raise ValueError(f"`hidden_dropout` is {config.hidden_dropout}; it must be a share between 0 and 1.")
    if config.hidden_size % config.num_attention_heads or (config.hidden_size // config.num_attention_heads) % 4:
        raise ValueError(
            f"`hidden_size` is {config.hidden_size} with {config.num_attention_heads} attention heads; "
            "each head needs a whole number of dimensions that four divides."
        )


def _check_depth(config: PreTrainedConfig) -> None:
    layers = [getattr(config, "num_hidden_layers", 0), *getattr(config, "resnet_layers", ())]
    if max(layers) > MAX_LAYERS:
        raise ValueError(f"a {config.model_type} tower has {max(layers):.3g} layers; at most {MAX_LAYERS} are made.")


def _check_options(config: PreTrainedConfig, position_types: tuple[str, ...]) -> None:
    for name, known in (("norm_position", ("pre", "post")), ("position_embedding_type", position_types)):
        if getattr(config, name) not in known:
            known = " or ".join(map(repr, known))
            raise ValueError(f"`{name}` is {reprlib.repr(getattr(config, name))}; it must be {known}.")


@strict
class PianoBindConfig(PreTrainedConfig):
    """The whole model. Every tower is optional, so that bimodal checkpoints are the same class.

    Args:
        audio_config (`dict` or config, *optional*): `pianobind_audio`, or any Hugging Face audio encoder's config.
        midi_config (`dict` or config, *optional*): `pianobind_midi`.
        text_config (`dict` or config, *optional*): any Hugging Face text encoder's config.
        projection_dim (`int`): width of the shared embedding space.
        logit_scale_init_value (`float`): natural logarithm of the first inverse temperature.
        pool_text_padding (`bool`): average text over padding as well, as the published model does.
        loss_pairs (`tuple[str, ...]`): the pairs of modalities whose losses are averaged, where both are there.
        classifier_pooling (`str`): how `PianoBindForSequenceClassification` pools windows: "mean", as the embedding
            does, or "attention", which is learnt.
        classifier_dropout (`float`): before the classifier's output, in training.
    """

    model_type = "pianobind"
    sub_configs = {"audio_config": AutoConfig, "midi_config": PianoBindMidiConfig, "text_config": AutoConfig}

    audio_config: dict | PreTrainedConfig | None = None
    midi_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 384
    logit_scale_init_value: float = 2.6592
    pool_text_padding: bool = False
    loss_pairs: tuple[str, ...] | list[str] = PAIRS
    classifier_pooling: str = "mean"
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.audio_config = _tower_config(self.audio_config, PianoBindAudioConfig)
        self.midi_config = _tower_config(self.midi_config, PianoBindMidiConfig)
        self.text_config = _tower_config(self.text_config, None)
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        check_numbers(self, {"projection_dim": 1, "initializer_range": 0.0})
        if self.text_config is not None:
            _check_depth(self.text_config)

    def validate_classifier(self) -> None:
        check_numbers(self, {"classifier_dropout": 0.0})
        if self.classifier_pooling not in ("mean", "attention"):
            pooling = reprlib.repr(self.classifier_pooling)
            raise ValueError(f"`classifier_pooling` is {pooling}; it must be 'mean' or 'attention'.")

    def validate_loss_pairs(self) -> None:
        if not self.loss_pairs or set(self.loss_pairs) - set(PAIRS):
            raise ValueError(
                f"`loss_pairs` is {reprlib.repr(self.loss_pairs)}; it must name some of {', '.join(PAIRS)}."
            )


def _tower_config(
    config: dict | PreTrainedConfig | None, own_class: type[PreTrainedConfig] | None
) -> PreTrainedConfig | None:
    """A dict names its class by `model_type`; without one it is ours."""
    if config is None or isinstance(config, PreTrainedConfig):
        return config
    config = dict(config)
    model_type = config.pop("model_type", own_class.model_type if own_class else None)
    if own_class is not None and model_type == own_class.model_type:
        return own_class(**config)
    if model_type is None:
        raise ValueError("`text_config` is a dict without `model_type`; name the encoder's type, such as 'bert'.")
    return AutoConfig.for_model(model_type, **config)


__all__ = ["PianoBindAudioConfig", "PianoBindConfig", "PianoBindMidiConfig"]
