"""Everything that a training run can be told, as dataclass fields; one YAML file holds them."""

from dataclasses import dataclass, field, fields

import yaml

from .augmentation import NoteAugmentation


@dataclass
class StageArguments:
    """A stretch of training with its own losses; stages follow each other in one run."""

    steps: int = field(metadata={"help": "optimizer steps"})
    minutes: float = field(default=0.0, metadata={"help": "end earlier after this time; 0 for no such limit"})
    batch_size: int = field(default=256, metadata={"help": "examples a step, over all processes"})
    learning_rate: float = field(default=5e-4, metadata={"help": "peak, of the towers that start from scratch"})
    text_learning_rate: float = field(default=1e-4, metadata={"help": "peak, of the text tower's adapter"})
    warmup_steps: int = field(default=100, metadata={"help": "steps to the peak; the cosine ends at a fiftieth"})
    caption_share: float = field(default=1.0, metadata={"help": "share of examples that bring a caption"})
    audio_share: float = field(default=0.0, metadata={"help": "share of examples that are rendered as audio"})
    bank: str = field(default="", metadata={"help": "folder of rendered windows to train on (training.audio_bank)"})
    frozen: list[str] = field(
        default_factory=list, metadata={"help": "towers that stay as they are: audio, midi, text"}
    )
    label_weight: float = field(
        default=0.0, metadata={"help": "weight of comparing each piece with every single fact, beside its caption"}
    )
    midi_text_weight: float = field(default=1.0, metadata={"help": "weight of the MIDI-text loss"})
    audio_text_weight: float = field(default=1.0, metadata={"help": "weight of the audio-text loss"})
    audio_midi_weight: float = field(default=1.0, metadata={"help": "weight of the audio-MIDI loss"})
    distillation_weight: float = field(
        default=0.0, metadata={"help": "weight of the distance between a window's audio and MIDI embeddings"}
    )
    struck_keys_weight: float = field(
        default=0.0, metadata={"help": "weight of hearing which keys are struck in each token of an audio window"}
    )
    view_weight: float = field(
        default=0.0, metadata={"help": "weight of finding a window by the same notes played in another way"}
    )
    view_share: float = field(default=0.5, metadata={"help": "share of examples that bring such a second view"})
    masked_note_weight: float = field(default=0.0, metadata={"help": "weight of predicting masked notes"})

    @property
    def compares_midi(self) -> bool:
        """Whether a loss needs the embeddings of the MIDI."""
        weights = self.midi_text_weight, self.audio_midi_weight, self.distillation_weight, self.view_weight
        return any(weights) or (self.label_weight > 0 and "midi" not in self.frozen)


@dataclass
class InstrumentArguments:
    """What plays the rendered audio: a soundfont's program, or a folder of samples."""

    path: str = field(metadata={"help": ".sf2 or .sf3 file, or folder of PITCH-vLAYER.ogg samples"})
    program: int = field(default=0, metadata={"help": "General MIDI program, counted from 0"})
    render_rate: int = field(default=32_000, metadata={"help": "rate at which a soundfont is played, in Hz"})


@dataclass
class TrainingArguments:
    """One run."""

    checkpoint: str = field(metadata={"help": "folder or Hub id to start from"})
    corpus: str = field(metadata={"help": "folder of a packed corpus (training.corpus)"})
    output: str = field(metadata={"help": "folder that the run writes"})
    stages: list[StageArguments] = field(metadata={"help": "see StageArguments"})
    source_weights: dict[str, float] = field(default_factory=dict, metadata={"help": "share of each source"})
    instruments: list[InstrumentArguments] = field(default_factory=list, metadata={"help": "see InstrumentArguments"})
    augmentation: NoteAugmentation = field(default_factory=NoteAugmentation, metadata={"help": "see NoteAugmentation"})
    text_lora_rank: int = field(default=16, metadata={"help": "rank of the text tower's adapter; 0 freezes the tower"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on matrices only"})
    gradient_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    average_decay: float = field(default=0.999, metadata={"help": "of the moving average of weights that is saved"})
    dropout: float = field(default=0.1, metadata={"help": "of the audio and MIDI towers; the text tower has none"})
    audio_augmentation: float = field(default=1.0, metadata={"help": "strength of rooms, noise, equalisers"})
    max_notes: int = field(default=256, metadata={"help": "windows with more notes end earlier; attention is quadratic"})
    workers: int = field(default=2, metadata={"help": "processes that make examples"})
    log_steps: int = field(default=20, metadata={"help": "steps between two lines of the log"})
    save_minutes: float = field(default=5.0, metadata={"help": "time between two checkpoints of the run"})
    seed: int = field(default=0, metadata={"help": "of examples, augmentation and initial adapters"})

    @classmethod
    def from_yaml(cls, path) -> "TrainingArguments":
        """Reads a run's file; an unknown key is an error that names it."""
        with open(path) as stream:
            return _build(cls, yaml.safe_load(stream), str(path))


def _build(cls, values, place):
    """A dict -> dataclass, with nested dataclasses and lists of them."""
    if not isinstance(values, dict):
        raise ValueError(f"{place}: here must be keys and values, not {values!r}.")
    known = {item.name: item for item in fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{place}: unknown key {', '.join(unknown)}; {cls.__name__} knows {', '.join(known)}.")
    nested = {"stages": StageArguments, "instruments": InstrumentArguments, "augmentation": NoteAugmentation}
    built = {}
    for name, value in values.items():
        if cls is TrainingArguments and name in nested:
            inner = f"{place}: {name}"
            if isinstance(value, list):
                value = [_build(nested[name], one, inner) for one in value]
            else:
                value = _build(nested[name], value, inner)
        built[name] = value
    try:
        return cls(**built)
    except TypeError as error:
        raise ValueError(f"{place}: {error}; give every key that has no default.") from error
