"""Uploads: checked, embedded, and kept in memory for a while."""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..gate_pianobind import Limits
from ..index.alignment import Example
from ..inputs_pianobind import check_content, explain, modality_of
from ..service.errors import UserError
from .music import Midi, Recording, excerpt_around, flac, open_music

if TYPE_CHECKING:
    from ..embedding_pianobind import EmbeddedFile

KEPT_MEGABYTES = 256.0  # of all visitors together; a recording's excerpt is some 6 MB, the notes of a piece far less


@dataclass
class Upload:
    """An uploaded piece: file name, music, and the example to search by."""

    name: str
    music: Midi | Recording
    example: Example


class Uploads:
    """The latest uploads by random keys; the oldest are dropped when memory is full."""

    def __init__(self, max_megabytes: float = KEPT_MEGABYTES):
        self._max_megabytes, self._kept, self._lock = max_megabytes, OrderedDict(), threading.Lock()

    def keep(self, upload: Upload) -> str:
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = upload
            while len(self._kept) > 1 and self._megabytes > self._max_megabytes:
                self._kept.popitem(last=False)
        return key

    @property
    def _megabytes(self) -> float:
        return sum(upload.music.kept_bytes + upload.example.windows.nbytes for upload in self._kept.values()) / 1e6

    def get(self, key: str) -> Upload:
        """
        Raises:
            UserError: it was dropped.
        """
        with self._lock:
            if key not in self._kept:
                raise UserError("Your file is no longer here; drop it again.")
            self._kept.move_to_end(key)
            return self._kept[key]


def read_upload(
    path: str | os.PathLike, embed_file: Callable[[str | os.PathLike], "EmbeddedFile"], limits: Limits
) -> Upload:
    """Reads an uploaded file.

    Args:
        path: the server's copy.
        embed_file: takes a path, gives its `EmbeddedFile`.
        limits (`Limits`): checked before time or memory is spent.
    Raises:
        UserError: it is refused; the message has the file's name without the server's folder.
    """
    name = Path(path).name
    try:
        music = _open(path, limits)
        file = embed_file(path)
        if isinstance(music, Recording):  # keeps only the excerpt that is drawn and played
            music = Recording(flac(music.sound(excerpt_around(music.seconds, None))))
    except (OSError, ValueError, UserError) as error:
        raise UserError(explain(path, error).replace(os.fspath(path), name)) from error
    return Upload(name, music, Example(file.embedding, file.windows, file.spans, file.notes))


def _open(path: str | os.PathLike, limits: Limits) -> Midi | Recording:
    """Opens a file after all that can be known without reading it through."""
    modality, megabytes = modality_of(path), os.path.getsize(path) / 1e6
    if not megabytes:
        raise ValueError(f"{path}: the file is empty; copy or export it again.")
    check_content(path, modality)
    max_megabytes = limits.midi_megabytes if modality == "midi" else limits.file_megabytes
    if megabytes > max_megabytes:
        raise ValueError(f"{path}: is {megabytes:.1f} MB large, and the limit is {max_megabytes:g} MB; shorten it.")
    music = open_music(path)
    if music.seconds > 60 * limits.minutes:
        raise ValueError(
            f"{path}: lasts {music.seconds / 60:.0f} minutes, and the limit is {limits.minutes:g}; send a part of it."
        )
    if isinstance(music, Midi) and len(music.notes) > limits.notes:
        raise ValueError(f"{path}: has {len(music.notes)} notes, and the limit is {limits.notes}; send a part of it.")
    return music


__all__ = ["Upload", "Uploads", "read_upload"]
