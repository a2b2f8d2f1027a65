"""The reader of data sets: folders of `training.build_dataset` and of `save_to_disk`, and data sets of the Hub."""

from pathlib import Path

from datasets import Audio, Dataset, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

from .dataset_schema import row_id

CONTENT = ("audio", "midi")
NEEDED = ("piece_id", "source", "split", "seconds", "captions", "tags", "audio_origin", "midi_origin", *CONTENT)


class DatasetCorpus:
    """A data set of `training.data.dataset_schema`, with the methods of a `PackedCorpus`; audio and MIDI stay on disk.

    Attributes:
        rows (`list[dict]`): all columns but audio and MIDI, without what is null, and with an `id`.
    """

    def __init__(self, dataset: Dataset):
        dataset = dataset.cast_column("audio", Audio(decode=False))
        self.audio, self.midi = (dataset.select_columns([name]) for name in CONTENT)
        rows = dataset.remove_columns(list(CONTENT)).to_list()
        self.rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        for row in self.rows:
            row["id"] = row_id(row)

    @classmethod
    def open(cls, path: str) -> "DatasetCorpus":
        """Opens the folder that `training.build_dataset` or `save_to_disk` wrote, or a data set of the Hub.

        Raises:
            ValueError: it is none of these, or lacks columns.
        """
        shards = _shards(path)
        if shards:
            splits = load_dataset("parquet", data_files={"rows": shards})
        elif _is_saved(path):
            splits = load_from_disk(path)
        else:
            try:
                splits = load_dataset(path)
            except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
                raise ValueError(
                    f"{path}: no corpus; give a folder of `training.build_dataset` or `training.data.corpus`, or a "
                    f"data set's Hub id ({' '.join(str(error).split())})."
                ) from error
        dataset = concatenate_datasets(list(splits.values()))
        if missing := [name for name in NEEDED if name not in dataset.column_names]:
            raise ValueError(f"{path}: has no column {', '.join(missing)}; build it with `training.build_dataset`.")
        return cls(dataset)

    def __len__(self) -> int:
        return len(self.rows)

    def midi_file(self, piece: int) -> bytes | None:
        """The MIDI file of one row, or None."""
        return self.midi[piece]["midi"]

    def notes(self, piece: int) -> PianoNotes:
        """The notes of one row that has MIDI."""
        return read_midi(self.midi_file(piece))

    def recording(self, piece: int) -> bytes | None:
        """The audio file of one row, or None."""
        audio = self.audio[piece]["audio"]
        if audio is None:
            return None
        return audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()


def is_dataset_folder(path: str | Path) -> bool:
    """Whether a folder holds a data set."""
    return bool(_shards(path)) or _is_saved(path)


def _shards(path: str | Path) -> list[str]:
    return sorted(map(str, (Path(path) / "data").glob("*.parquet")))


def _is_saved(path: str | Path) -> bool:
    return (Path(path) / "dataset_dict.json").exists()


__all__ = ["DatasetCorpus", "is_dataset_folder"]
