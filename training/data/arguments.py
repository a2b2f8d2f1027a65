"""Arguments of a training run, as dataclass fields; one YAML file holds them."""

from dataclasses import dataclass, field
from pathlib import Path

from ..common.yaml_arguments import YamlArguments
from .augmentation import NoteAugmentation

TOWERS = ("audio", "midi", "text")


def weight_field(loss: str) -> str:
    """The field of `StageArguments` with the weight of a loss."""
    return f"{loss}_weight"


@dataclass
class StageArguments:
    """A stretch of training with its own losses; stages follow each other in one run."""

    steps: int = field(metadata={"help": "optimizer steps"})
    minutes: float = field(default=0.0, metadata={"help": "end earlier after this time; 0 for no such limit"})
    batch_size: int = field(default=256, metadata={"help": "examples a step, over all processes"})
    learning_rate: float = field(default=5e-4, metadata={"help": "peak, of all but the text tower"})
    text_learning_rate: float = field(default=1e-4, metadata={"help": "peak, of the text tower and its projection"})
    warmup_steps: int = field(default=100, metadata={"help": "steps to the peak; the cosine ends at a fiftieth"})
    caption_share: float = field(default=1.0, metadata={"help": "share of examples with a caption"})
    audio_share: float = field(default=0.0, metadata={"help": "share of examples that are rendered as audio"})
    bank: str = field(default="", metadata={"help": "folder of rendered windows to train on (data.audio_bank)"})
    frozen: list[str] = field(
        default_factory=list, metadata={"help": "towers whose weights are frozen: audio, midi, text"}
    )
    frozen_layers: dict[str, int] = field(
        default_factory=dict, metadata={"help": "tower -> number of its lowest layers whose weights are frozen"}
    )
    label_weight: float = field(
        default=0.0, metadata={"help": "weight of the loss between pieces and short texts of single facts"}
    )
    fact_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the sigmoid loss of every fact of the vocabulary"},
    )
    work_weight: float = field(
        default=0.0, metadata={"help": "weight of the loss between pieces and generated captions of their works"}
    )
    windows_per_piece: int = field(
        default=1, metadata={"help": "successive examples that are windows of one piece; facts also see their mean"}
    )
    midi_text_weight: float = field(default=1.0, metadata={"help": "weight of the MIDI-text loss"})
    audio_text_weight: float = field(default=1.0, metadata={"help": "weight of the audio-text loss"})
    audio_midi_weight: float = field(default=1.0, metadata={"help": "weight of the audio-MIDI loss"})
    distillation_weight: float = field(
        default=0.0, metadata={"help": "weight of the distance between a window's audio and MIDI embeddings"}
    )
    fact_score_weight: float = field(
        default=0.0, metadata={"help": "weight of the difference between audio and MIDI in their scores for each fact"}
    )
    onset_weight: float = field(default=0.0, metadata={"help": "weight of predicting onsets and held keys from audio"})
    audio_midi_queue: int = field(
        default=0, metadata={"help": "MIDI windows of earlier batches that are negatives of audio; with `midi` frozen"}
    )
    view_weight: float = field(
        default=0.0, metadata={"help": "weight of the loss between a window and an augmented view of its notes"}
    )
    view_share: float = field(default=0.5, metadata={"help": "share of examples with such a second view"})
    view_queue: int = field(default=0, metadata={"help": "windows of earlier batches that are negatives of views"})
    statistics_weight: float = field(
        default=0.0,
        metadata={"help": "weight of predicting a window's statistics (in standard deviations) from its embedding"},
    )
    masked_note_weight: float = field(default=0.0, metadata={"help": "weight of predicting masked notes"})

    def weight(self, loss: str) -> float:
        """Weight of a loss of `training.loop.losses`, by its name."""
        return getattr(self, weight_field(loss))

    @property
    def compares_whole_bank(self) -> bool:
        """Whether the MIDI of every window of the bank is a negative of audio; a frozen tower embeds it once."""
        return bool(self.bank) and "midi" in self.frozen and self.audio_midi_weight > 0


@dataclass
class CorpusArguments:
    """One of several corpora that a run draws from."""

    path: str = field(metadata={"help": "folder of training.build_dataset or data.corpus, or a data set's Hub id"})
    share: float = field(default=1.0, metadata={"help": "of the examples of every batch, in relation to the others"})


@dataclass
class InstrumentArguments:
    """What plays the rendered audio: a soundfont's program, or a folder of samples."""

    path: str = field(metadata={"help": ".sf2 or .sf3 file, or folder of PITCH-vLAYER.ogg samples"})
    program: int = field(default=0, metadata={"help": "General MIDI program, from 0"})
    render_rate: int = field(default=32_000, metadata={"help": "rate at which a soundfont is played, in Hz"})


@dataclass
class TrainingArguments(YamlArguments):
    """One run."""

    checkpoint: str = field(metadata={"help": "folder or Hub id to start from; `default` is the package's own"})
    corpus: str | list[CorpusArguments] = field(
        metadata={"help": "folder of training.build_dataset or training.data.corpus, or a Hub id; or a list of them"}
    )
    output: str = field(metadata={"help": "folder that the run writes"})
    stages: list[StageArguments] = field(metadata={"help": "see StageArguments"})
    source_weights: dict[str, float] = field(
        default_factory=dict, metadata={"help": "share of each `source` within a corpus; default: root of its rows"}
    )
    fact_share: float = field(
        default=0.0, metadata={"help": "share of examples drawn by a random fact that holds for them, not by source"}
    )
    instruments: list[InstrumentArguments] = field(default_factory=list, metadata={"help": "see InstrumentArguments"})
    mel_rendering: str = field(
        default="",
        metadata={
            "help": "play windows as sums of single notes' spectrograms, several times as fast; the folder that "
            "keeps these"
        },
    )
    augmentation: NoteAugmentation = field(default_factory=NoteAugmentation, metadata={"help": "see NoteAugmentation"})
    score_folder: str = field(
        default="",
        metadata={
            "help": "printed scores (scores.jsonl), or what training.data.score_pairs made of them; rows that are "
            "performances of these get stretches of them as second views"
        },
    )
    audio_augmentation: float = field(default=1.0, metadata={"help": "strength of rooms, noise, equalisers"})
    recording_semitones: int = field(
        default=2, metadata={"help": "recordings, with their MIDI, play up to so much higher and faster, or lower"}
    )
    given_caption_share: float = field(
        default=0.7, metadata={"help": "share of rows with own captions that use one of them, not a generated one"}
    )
    lora_rank: int = field(default=0, metadata={"help": "above 0: train a PEFT adapter of this rank, and no weights"})
    lora_alpha: float = field(default=0.0, metadata={"help": "scale of that adapter; 0 for twice its rank"})
    lora_towers: list[str] = field(
        default_factory=lambda: list(TOWERS), metadata={"help": "towers that get it; their projections train as well"}
    )
    text_lora_rank: int = field(
        default=16, metadata={"help": "without lora_rank: the text tower's adapter, merged when saved; 0 for none"}
    )
    train_text_tower: bool = field(
        default=False, metadata={"help": "without lora_rank: train the text tower's own weights, with no adapter"}
    )
    mini_batch_size: int = field(
        default=0, metadata={"help": "embed so many rows at a time, to bound memory; the gradients stay; 0 for all"}
    )
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on matrices only"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    ema_decay: float = field(default=0.999, metadata={"help": "of the moving average of weights that is saved"})
    dropout: float = field(default=0.1, metadata={"help": "of the audio and MIDI towers; the text tower has none"})
    max_notes: int = field(
        default=256, metadata={"help": "windows with more notes end earlier; attention is quadratic"}
    )
    workers: int = field(default=2, metadata={"help": "processes that make examples"})
    log_steps: int = field(default=20, metadata={"help": "steps between two lines of the log"})
    save_minutes: float = field(default=5.0, metadata={"help": "time between two saves of checkpoint and state"})
    validation_steps: int = field(default=0, metadata={"help": "steps between two measurements; 0 for none"})
    validation_split: str = field(default="valid", metadata={"help": "split that is measured"})
    validation_rows: int = field(default=500, metadata={"help": "at most so many of its rows"})
    tracker: str = field(
        default="tensorboard", metadata={"help": "accelerate's tracker, such as tensorboard or wandb; empty for none"}
    )
    seed: int = field(default=0, metadata={"help": "of examples, augmentation and initial adapters"})

    def check(self, place: str) -> None:
        """Refuses values that cannot work, before anything is read."""

        def refuse(key, wrong):
            raise ValueError(f"{place}: `{key}` {wrong}")

        if not self.stages:
            refuse("stages", "is empty; a run has at least one.")
        if not self.corpus:
            refuse("corpus", "is empty; name a folder or a Hub id.")
        for key, towers in [("lora_towers", self.lora_towers)] + [("frozen", stage.frozen) for stage in self.stages]:
            if unknown := sorted(set(towers) - set(TOWERS)):
                refuse(key, f"has {', '.join(unknown)}; the towers are {', '.join(TOWERS)}.")
        for stage in self.stages:
            if unknown := sorted(set(stage.frozen_layers) - set(TOWERS)):
                refuse("frozen_layers", f"has {', '.join(unknown)}; the towers are {', '.join(TOWERS)}.")
            for key in ("steps", "batch_size", "windows_per_piece"):
                if getattr(stage, key) < 1:
                    refuse(key, f"is {getattr(stage, key)}; it must be at least 1.")
            for key in ("caption_share", "audio_share", "view_share"):
                if not 0 <= getattr(stage, key) <= 1:
                    refuse(key, f"is {getattr(stage, key)}; it must be from 0 to 1.")
        for key in ("lora_rank", "text_lora_rank", "mini_batch_size", "workers", "validation_steps"):
            if getattr(self, key) < 0:
                refuse(key, f"is {getattr(self, key)}; it must not be negative.")
        if self.lora_rank and not self.lora_towers:
            refuse("lora_towers", "is empty while `lora_rank` is above 0; name a tower.")
        if self.score_folder and not Path(self.score_folder).is_dir():
            refuse("score_folder", f"names {self.score_folder!r}, which is no folder; correct it.")
        for instrument in self.instruments:
            if not Path(instrument.path).exists():
                refuse("instruments", f"names {instrument.path!r}, which does not exist; correct it.")


__all__ = ["TOWERS", "CorpusArguments", "InstrumentArguments", "StageArguments", "TrainingArguments", "weight_field"]
