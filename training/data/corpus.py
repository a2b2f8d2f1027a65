"""A corpus in memory: one dict a piece, and the notes of all pieces packed into flat arrays."""

import gzip
import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import symusic
from safetensors.numpy import load_file, save_file

from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

ROWS, NOTES = "rows.jsonl.gz", "notes.safetensors"
NOTE_ARRAYS = ("offsets", "onset", "duration", "pedal", "pitch", "velocity")
MILLISECONDS = 1000.0
MIN_SHARE_OF_OTHERS = 0.03  # of a source's files that state another time signature than most


@dataclass
class PackedCorpus:
    """Rows and notes of a corpus.

    Attributes:
        rows (`list[dict]`): one a piece, in the schema of the corpus (id, source, song, split, labels ...).
        offsets (`np.ndarray` of shape `(pieces + 1,)`): where each piece's notes begin in the flat arrays.
        onset, duration, pedal (`np.ndarray` of shape `(notes,)`): milliseconds.
        pitch, velocity (`np.ndarray` of shape `(notes,)`): MIDI values.
    """

    rows: list[dict]
    offsets: np.ndarray
    onset: np.ndarray
    duration: np.ndarray
    pedal: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def notes(self, piece: int) -> PianoNotes:
        """The notes of one piece."""
        span = slice(self.offsets[piece], self.offsets[piece + 1])
        return PianoNotes(
            self.onset[span] / MILLISECONDS,
            (self.duration[span] / MILLISECONDS).astype(np.float32),
            self.pitch[span].astype(np.int64),
            self.velocity[span].astype(np.int64),
            (self.pedal[span] / MILLISECONDS).astype(np.float32),
        )

    def select(self, keep: Callable[[dict], bool]) -> list[int]:
        """Positions of the rows for which `keep(row)` is true."""
        return [position for position, row in enumerate(self.rows) if keep(row)]

    @classmethod
    def pack(cls, rows: list[dict], notes: list[PianoNotes]) -> "PackedCorpus":
        """Packs pieces that were read before."""

        def flat(values, dtype, scale=1.0):
            limit = np.iinfo(dtype).max
            return np.concatenate([np.clip(np.round(value * scale), 0, limit) for value in values]).astype(dtype)

        return cls(
            rows,
            np.cumsum([0, *map(len, notes)]),
            flat([piece.onset for piece in notes], np.int32, MILLISECONDS),
            flat([piece.duration for piece in notes], np.uint16, MILLISECONDS),
            flat([piece.pedal for piece in notes], np.uint16, MILLISECONDS),
            flat([piece.pitch for piece in notes], np.uint8),
            flat([piece.velocity for piece in notes], np.uint8),
        )

    @classmethod
    def from_archives(cls, folder: str | Path, processes: int = 2) -> "PackedCorpus":
        """Reads the open piano corpus: `metadata.jsonl.gz` and one `SOURCE.tar.gz` for each source in `folder`."""
        folder = Path(folder)
        with gzip.open(folder / "metadata.jsonl.gz", "rt") as lines:
            rows = [json.loads(line) for line in lines]
        wanted = {row["midi"] for row in rows}
        content = {}
        for source in sorted({row["source"] for row in rows}):
            with tarfile.open(folder / f"{source}.tar.gz") as archive:
                for member in archive:
                    if member.name in wanted:
                        content[member.name] = archive.extractfile(member).read()
        with ProcessPoolExecutor(processes) as pool:
            contents = [content[row["midi"]] for row in rows]
            notes = list(pool.map(read_midi, contents, chunksize=64))
            add_time_signatures(rows, list(pool.map(main_time_signature, contents, chunksize=64)))
        return cls.pack(rows, notes)

    def save(self, folder: str | Path) -> None:
        """Writes `rows.jsonl.gz` and `notes.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / ROWS, "wt") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        save_file({name: getattr(self, name) for name in NOTE_ARRAYS}, folder / NOTES)

    @staticmethod
    def is_folder(path: str | Path) -> bool:
        """Whether `save` wrote a folder."""
        return (Path(path) / ROWS).exists()

    @classmethod
    def load(cls, folder: str | Path) -> "PackedCorpus":
        """Reads what `save` wrote."""
        with gzip.open(Path(folder) / ROWS, "rt") as lines:
            rows = [json.loads(line) for line in lines]
        return cls(rows, **load_file(Path(folder) / NOTES))


def main_time_signature(content: bytes) -> str | None:
    """The time signature that holds longest in a MIDI file, such as "3/4", or None where it states none."""
    score = symusic.Score.from_midi(content)
    changes = sorted((change.time, f"{change.numerator}/{change.denominator}") for change in score.time_signatures)
    if not changes:
        return None
    lengths = {}
    for (start, name), end in zip(changes, [*(time for time, _ in changes[1:]), score.end()], strict=True):
        lengths[name] = lengths.get(name, 0) + max(end - start, 0)
    return max(lengths, key=lengths.get)


def add_time_signatures(rows: list[dict], signatures: list[str | None]) -> None:
    """Writes `time_signature` into the rows of sources that state it; many write 4/4 into every file."""
    of_source = {}
    for row, name in zip(rows, signatures, strict=True):
        of_source.setdefault(row["source"], []).append(name)
    default = {source: max(set(names), key=names.count) for source, names in of_source.items()}
    states = {
        source
        for source, names in of_source.items()
        if sum(name not in (default[source], None) for name in names) >= MIN_SHARE_OF_OTHERS * len(names)
    }
    for row, name in zip(rows, signatures, strict=True):
        if name and row["source"] in states:
            row["time_signature"] = name


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description="Packs the open piano corpus into one folder for training.")
    parser.add_argument("corpus", type=Path, help="folder with metadata.jsonl.gz and the archives")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    corpus = PackedCorpus.from_archives(arguments.corpus)
    corpus.save(arguments.output)
    print(f"{len(corpus)} pieces, {corpus.offsets[-1]} notes -> {arguments.output}")


if __name__ == "__main__":
    main()
