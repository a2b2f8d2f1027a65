"""Arguments of `training.build_dataset`, as dataclass fields; one YAML file holds them."""

from dataclasses import dataclass, field
from pathlib import Path

from ..common.yaml_arguments import YamlArguments
from .arguments import InstrumentArguments
from .melody import SAME_SONG

CAPTION_STYLES = ("search", "piast")
LAYOUTS = ("folder", "rows", "pop909", "asap", "emopia", "pianist8", "pop1k7", "vgmidi", "piast")


@dataclass
class SourceArguments:
    """One corpus to read."""

    path: str = field(metadata={"help": "folder of the corpus"})
    layout: str = field(default="folder", metadata={"help": f"how the folder is built: {', '.join(LAYOUTS)}"})
    name: str = field(default="", metadata={"help": "written in the column `source`; default: layout or folder name"})
    licence: str = field(default="", metadata={"help": "of every row that states none itself"})
    tier: str = field(
        default="", metadata={"help": "of rows that state none: human, provenance, weak, generated; default: layout's"}
    )
    include: list[str] = field(
        default_factory=list, metadata={"help": "layout `rows`: only rows of these sources; empty for all"}
    )
    max_pieces: int = field(default=0, metadata={"help": "stop after so many pieces; 0 for no limit"})


@dataclass
class BuildArguments(YamlArguments):
    """One dataset."""

    sources: list[SourceArguments] = field(metadata={"help": "see SourceArguments"})
    output: str = field(metadata={"help": "folder to write; must not exist, or be empty"})
    title: str = field(default="Piano corpus", metadata={"help": "heading of the dataset card"})
    window_seconds: float = field(default=0.0, metadata={"help": "length of a row; 0 for whole pieces"})
    hop_seconds: float = field(default=0.0, metadata={"help": "from window to window; 0 for `window_seconds`"})
    min_notes: int = field(default=6, metadata={"help": "a piece or window with fewer notes is left out"})
    min_seconds: float = field(default=3.0, metadata={"help": "a shorter piece is refused"})
    max_seconds: float = field(default=3600.0, metadata={"help": "a longer piece is refused; bounds memory"})
    pair_seconds: float = field(
        default=10.0, metadata={"help": "a recording and a MIDI whose lengths differ by more are not one performance"}
    )
    instruments: list[InstrumentArguments] = field(
        default_factory=list, metadata={"help": "render the missing audio with one of these; see InstrumentArguments"}
    )
    sampling_rate: int = field(default=32_000, metadata={"help": "of rendered audio, in Hz"})
    transcribe: bool = field(default=False, metadata={"help": "make the missing MIDI with transkun ([transcribe])"})
    captions: int = field(
        default=3, metadata={"help": "captions of a row: the given ones, and as many written ones as are missing"}
    )
    caption_styles: list[str] = field(
        default_factory=lambda: list(CAPTION_STYLES), metadata={"help": f"of {', '.join(CAPTION_STYLES)}"}
    )
    valid_share: float = field(default=0.05, metadata={"help": "share of songs in the split `valid`"})
    test_share: float = field(default=0.05, metadata={"help": "share of songs in the split `test`"})
    keep_splits: bool = field(
        default=True, metadata={"help": "keep the split that a row brings; a song in several goes to the last of "
                                "train, valid, test"}
    )  # fmt: skip
    match_melodies: bool = field(
        default=True, metadata={"help": "group versions of a song by melody (training.data.melody); given songs stay"}
    )
    melody_similarity: float = field(default=SAME_SONG, metadata={"help": "from which two pieces are one song"})
    keep_unstated_licence: bool = field(
        default=False, metadata={"help": "keep rows whose licence is `not stated`, for use that you answer for"}
    )
    shard_megabytes: float = field(default=256.0, metadata={"help": "size from which a parquet file is closed"})
    save_to_disk: str = field(default="", metadata={"help": "folder for `datasets.load_from_disk`, besides parquet"})
    push_to_hub: str = field(default="", metadata={"help": "dataset id (owner/name) on the Hub to upload to"})
    private: bool = field(default=True, metadata={"help": "make that dataset private where it is new"})
    seed: int = field(default=0, metadata={"help": "of splits, captions and the choice of instruments"})

    def check(self, place: str) -> None:
        """Refuses values that cannot work together, before anything is read."""

        def refuse(key, wrong):
            raise ValueError(f"{place}: `{key}` {wrong}")

        if not self.sources:
            refuse("sources", "is empty; name at least one corpus.")
        for source in self.sources:
            if source.layout not in LAYOUTS:
                refuse("layout", f"is {source.layout!r}; it must be one of {', '.join(LAYOUTS)}.")
            if source.tier and source.tier not in ("human", "provenance", "weak", "generated"):
                refuse("tier", f"is {source.tier!r}; it must be human, provenance, weak or generated.")
            if not Path(source.path).is_dir():
                refuse("path", f"is {source.path!r}, which is not a folder; correct it.")
        for instrument in self.instruments:
            if not Path(instrument.path).exists():
                refuse("instruments", f"names {instrument.path!r}, which does not exist; correct it.")
            if Path(instrument.path).is_dir() and not any(Path(instrument.path).glob("*-v*.ogg")):
                refuse(
                    "instruments", f"names {instrument.path!r}, which holds no PITCH-vLAYER.ogg sample; correct it."
                )
        for key in ("output", "save_to_disk"):
            folder = getattr(self, key)
            if folder and Path(folder).exists() and (not Path(folder).is_dir() or any(Path(folder).iterdir())):
                refuse(key, f"is {folder!r}, which already holds something; choose another, or empty it.")
        if unknown := sorted(set(self.caption_styles) - set(CAPTION_STYLES)):
            refuse("caption_styles", f"has {', '.join(unknown)}; it knows {', '.join(CAPTION_STYLES)}.")
        if self.captions and not self.caption_styles:
            refuse("caption_styles", "is empty; name a style, or set `captions: 0`.")
        if min(self.valid_share, self.test_share) < 0 or self.valid_share + self.test_share >= 1:
            refuse("valid_share", f"and `test_share` are {self.valid_share} and {self.test_share}; "
                   "they must be at least 0 and leave songs for training.")  # fmt: skip
        for key in ("window_seconds", "hop_seconds", "captions", "min_seconds"):
            if getattr(self, key) < 0:
                refuse(key, f"is {getattr(self, key)}; it must not be negative.")
        for key in ("sampling_rate", "shard_megabytes", "melody_similarity", "max_seconds"):
            if getattr(self, key) <= 0:
                refuse(key, f"is {getattr(self, key)}; it must be above 0.")
        if self.hop_seconds and not self.window_seconds:
            refuse("hop_seconds", "is set without `window_seconds`; set both, or neither.")
        if self.push_to_hub and self.push_to_hub.count("/") != 1:
            refuse("push_to_hub", f"is {self.push_to_hub!r}; it must be owner/name.")
        if self.push_to_hub and self.keep_unstated_licence and not self.private:
            refuse("private", "is false while rows of unstated licence are kept; nobody may publish those: "
                   "set `private: true` or `keep_unstated_licence: false`.")  # fmt: skip


__all__ = ["CAPTION_STYLES", "LAYOUTS", "BuildArguments", "SourceArguments"]
