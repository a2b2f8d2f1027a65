"""Input files: formats, readers, signatures, and error lines for files that cannot be read."""

import hashlib
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .decoding_pianobind import AAC_STARTS

MAX_NUMBER = 1e31  # transformers writes 1e30 for a tokenizer without limit
MAX_CHARACTERS = 20_000  # of a text; far more than a text tower reads, and megabytes take a tokenizer seconds


def _midi_windows(processor: Any, source: Any, sampling_rate: int | None = None) -> Iterator[tuple[list, list]]:
    """Yields all windows of a MIDI file at once, with their spans and the notes: note rows are small."""
    notes = processor.midi_processor.read(source)
    yield *processor.midi_processor.windows(notes), notes


def _score_windows(processor: Any, source: Any, sampling_rate: int | None = None) -> Iterator[tuple]:
    """As `_midi_windows`, with the `ScoreReading`, which has the measures."""
    from .score_pianobind import read_score

    reading = read_score(source)
    notes = processor.midi_processor.read(reading)
    yield *processor.midi_processor.windows(notes), notes, reading


def _audio_windows(processor: Any, source: Any, sampling_rate: int | None = None) -> Iterator[tuple[list, list]]:
    """A recording's windows (features and frame mask) and spans, one at a time.

    A spectrogram needs 20 times its own memory while it is made; several at once are no faster.
    """
    extractor = processor.feature_extractor
    for window in extractor.windows(source, sampling_rate):
        (features,), (mask,) = extractor.batch([window])
        yield [(features, mask)], [(window.start_seconds, window.end_seconds)]


@dataclass(frozen=True)
class Format:
    """Files of one kind; a new kind is an entry in `FORMATS` and its reader.

    Attributes:
        extensions (`tuple[str, ...]`): in lower case, with the dot.
        tower (`str`): which tower of the model embeds them.
        windows: takes a processor, a path (or other input of the processor) and the sampling rate of waveforms; yields
            lists of windows with the list of their spans in seconds.
    """

    extensions: tuple[str, ...]
    tower: str
    windows: Callable[..., Iterator[tuple[list, list]]]


FORMATS = {
    "midi": Format((".mid", ".midi"), "midi", _midi_windows),
    "score": Format((".musicxml", ".xml", ".mxl", ".mei", ".krn", ".abc"), "midi", _score_windows),
    "audio": Format(
        (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".m4a", ".aac", ".wma"), "audio", _audio_windows
    ),
}
MIDI_EXTENSIONS, SCORE_EXTENSIONS, AUDIO_EXTENSIONS = (FORMATS[kind].extensions for kind in FORMATS)
EXTENSIONS = {extension: modality for modality, entry in FORMATS.items() for extension in entry.extensions}
TEXT_EXTENSIONS = (".md", ".txt", ".csv", ".json", ".jsonl")
MODALITIES = ("text", *FORMATS)
MP3_STARTS = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa")
# (first bytes, bytes 8 to 12) -> kind of the content, and its modality if the package reads it
SIGNATURES = {
    (b"MThd", b""): ("a MIDI file", "midi"),
    (b"RIFF", b"RMID"): ("a RIFF MIDI (.rmi) file", None),
    (b"RIFF", b"WAVE"): ("a WAV file", "audio"),
    (b"fLaC", b""): ("a FLAC file", "audio"),
    (b"OggS", b""): ("an Ogg file", "audio"),
    (b"FORM", b"AIF"): ("an AIFF file", "audio"),
    (b"", b"M4A "): ("an MPEG-4 file", "audio"),
    **dict.fromkeys(((first, b"") for first in AAC_STARTS), ("an AAC file", "audio")),
    **dict.fromkeys(((first, b"") for first in MP3_STARTS), ("an MP3 file", "audio")),
    (b"PK\x03\x04", b""): ("a ZIP archive", "score"),  # as compressed MusicXML is
    **dict.fromkeys(((first, b"") for first in (b"<?xml", b"<score-", b"<!DOCTYPE", b"<mei")), ("XML", "score")),
    **dict.fromkeys(((first, b"") for first in (b"!!", b"**kern", b"**dynam")), ("Humdrum", "score")),
    **dict.fromkeys(((first, b"") for first in (b"X:", b"%abc")), ("ABC", "score")),
}
TEXT_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # that begin a text in UTF-8 or UTF-16


def modality_of(path: str | os.PathLike) -> str:
    """The modality of a file, a key of `FORMATS`, by its extension in any case.

    Raises:
        ValueError: no format has this extension.
    """
    extension = Path(path).suffix.lower()
    if extension in EXTENSIONS:
        return EXTENSIONS[extension]
    known = " ".join(EXTENSIONS)
    raise ValueError(f"{path}: its extension {extension or '(none)'} is not one of {known}; rename or convert it.")


def gives_notes(path: str | os.PathLike) -> bool:
    """Whether a file holds notes, as MIDI files and scores do, by its extension."""
    modality = EXTENSIONS.get(os.path.splitext(path)[1].lower())
    return modality is not None and FORMATS[modality].tower == "midi"


def _signature(head: bytes) -> tuple[str, str | None]:
    if head.startswith(TEXT_MARKS[1:]):
        return ("UTF-16 text", "score") if b"<" in head else ("", None)
    head = head.removeprefix(TEXT_MARKS[0])
    for (first, later), meaning in SIGNATURES.items():
        if head.startswith(first) and head[8:12].startswith(later):
            return meaning
    return "", None


def content_kind(head: bytes) -> str:
    """Names the kind of a file by its first 12 bytes, for error messages; "" if unknown."""
    return _signature(head)[0]


def content_modality(head: bytes) -> str | None:
    """The modality of a file by its first 12 bytes; None if unknown."""
    return _signature(head)[1]


def check_content(path: str | os.PathLike, modality: str) -> None:
    """Refuses a file whose content is known to be of another modality than its extension says.

    Raises:
        ValueError: they differ.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as handle:
        kind, actual = _signature(handle.read(12))
    if kind and actual != modality:
        raise ValueError(
            f"{path}: its name ends in {Path(path).suffix}, but its content is {kind}; "
            "give it the extension of its content, or export it again."
        )


def readable_text(text: object) -> str:
    """A description that a tokenizer can read, truncated to `MAX_CHARACTERS`.

    Raises:
        ValueError: it is not a string, holds no word, or holds half characters (lone surrogates).
    """
    if not isinstance(text, str) or not text.strip():
        # Shortened, since a text may be megabytes of blanks.
        raise ValueError(f"a text is {reprlib.repr(text)}; describe the music in at least one word.")
    if len(text) > MAX_CHARACTERS:
        text = text.lstrip()[:MAX_CHARACTERS]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise ValueError(
            f"a text holds {half}, which is not a character; write it in plain Unicode (UTF-8)."
        ) from error
    return text


def check_numbers(settings: object, minimums: dict[str, float]) -> None:
    """Refuses settings that are not numbers in the valid range, such as those of a damaged file.

    Args:
        settings: an object with the settings as attributes.
        minimums: their names and the lowest value of each; of an integer, the setting has to be one too.
    Raises:
        ValueError: one is of another type or out of range.
    """
    for name, minimum in minimums.items():
        value, whole = getattr(settings, name), isinstance(minimum, int)
        right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        if not right or not minimum <= value <= MAX_NUMBER:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"`{name}` is {reprlib.repr(value)}; it must be {kind} of at least {minimum:g}.")


def list_files(folder: str | os.PathLike, refused: list[OSError] | None = None) -> list[str]:
    """Paths of the MIDI files, scores and recordings below a folder, sorted; hidden files and folders are left out.

    Args:
        refused (`list[OSError]`, *optional*): is given the errors of folders below that cannot be listed, which name
            them; without it they are passed over.
    Raises:
        NotADirectoryError, FileNotFoundError, PermissionError: the folder itself cannot be listed.
    """
    os.listdir(folder)  # `os.walk` would pass over the error
    paths = []
    for parent, folders, names in os.walk(folder, onerror=None if refused is None else refused.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:
                paths.append(os.path.join(parent, name))
    return sorted(paths)


def count_other_files(folder: str | os.PathLike) -> dict[str, int]:
    """How many files below a folder are not music, by extension, most first; metadata and texts are not counted."""
    counts = {}
    for _, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and extension not in EXTENSIONS and extension not in TEXT_EXTENSIONS:
                counts[extension or "no extension"] = counts.get(extension or "no extension", 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def piece_of(path: str | os.PathLike) -> str:
    """The name of a piece: files of one folder with one stem (take.mid, take.mp3) are the same piece."""
    return os.path.splitext(os.fspath(path))[0]


def group_pieces(paths: Iterable) -> list[list]:
    """Paths grouped by piece, in the order of each piece's first file."""
    pieces = {}
    for path in paths:
        pieces.setdefault(piece_of(path), []).append(path)
    return list(pieces.values())


def content_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def explain(path: str | os.PathLike, error: Exception) -> str:
    """One line for a file that could not be read: the file, the problem, the remedy."""
    if isinstance(error, FileNotFoundError):
        return f"{path}: does not exist; check the path."
    if isinstance(error, PermissionError):
        return f"{path}: no permission to read it; change its permissions or leave it out."
    if isinstance(error, IsADirectoryError):
        return f"{path}: is a folder, not a file; rename it, or give the files in it."
    if isinstance(error, NotADirectoryError):
        return f"{path}: is not a folder; give a folder or a saved index."
    if isinstance(error, OSError):
        return f"{path}: cannot be read ({error.strerror or error}); check the disk and try again."
    return " ".join(str(error).split())


__all__ = [
    "AUDIO_EXTENSIONS",
    "EXTENSIONS",
    "FORMATS",
    "MIDI_EXTENSIONS",
    "MODALITIES",
    "SCORE_EXTENSIONS",
    "Format",
    "check_content",
    "check_numbers",
    "content_hash",
    "content_kind",
    "content_modality",
    "count_other_files",
    "explain",
    "gives_notes",
    "group_pieces",
    "list_files",
    "modality_of",
    "piece_of",
    "readable_text",
]
