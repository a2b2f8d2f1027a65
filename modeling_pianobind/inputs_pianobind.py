"""Files that the package reads: which ones, what they really are, and what to say about one that cannot be read."""

import hashlib
import os
import reprlib
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path

MIDI_EXTENSIONS = (".mid", ".midi")
AUDIO_EXTENSIONS = (".wav", ".flac", ".mp3", ".ogg")
LARGEST_NUMBER = 1e31  # transformers writes 1e30 for a tokenizer without limit
MAX_CHARACTERS = 20_000  # of a text; far more than a text tower reads, and megabytes take a tokenizer seconds


def modality_of(path) -> str:
    """ "midi" or "audio", by the file's extension in any case.

    Raises:
        ValueError: the extension is neither a MIDI file's nor a recording's.
    """
    extension = Path(path).suffix.lower()
    if extension in MIDI_EXTENSIONS:
        return "midi"
    if extension in AUDIO_EXTENSIONS:
        return "audio"
    known = " ".join((*MIDI_EXTENSIONS, *AUDIO_EXTENSIONS))
    raise ValueError(f"{path}: its extension {extension or '(none)'} is not one of {known}; rename or convert it.")


def content_kind(head: bytes) -> str:
    """Names the kind of a file by its first 12 bytes, for error messages; "" where it is none of the known ones."""
    if head[:4] == b"RIFF":
        return {b"RMID": "a RIFF MIDI (.rmi) file", b"WAVE": "a WAV file"}.get(head[8:12], "")
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] in (b"\xfb", b"\xf3", b"\xf2", b"\xfa")):
        return "an MP3 file"
    kinds = {b"MThd": "a MIDI file", b"fLaC": "a FLAC file", b"OggS": "an Ogg file", b"PK\x03\x04": "a ZIP archive"}
    return kinds.get(head[:4], "")


def check_content(path, modality: str) -> None:
    """Refuses a file whose extension says MIDI while its content is a recording, or the other way round.

    Raises:
        ValueError: they differ.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as handle:
        kind = content_kind(handle.read(12))
    if kind and (kind == "a MIDI file") != (modality == "midi"):
        raise ValueError(
            f"{path}: its name ends in {Path(path).suffix}, but its content is {kind}; "
            "give it the extension of its content, or export it again."
        )


def readable_text(text) -> str:
    """A description as tokenizers take it; what exceeds `MAX_CHARACTERS` is cut off.

    Raises:
        ValueError: it is no string, holds no word, or holds half characters (lone surrogates).
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
        raise ValueError(f"a text holds {half}, which is no character; write it in plain Unicode (UTF-8).") from error
    return text


def check_numbers(settings, lowest: dict[str, float]) -> None:
    """Refuses settings that are no numbers in reason, as saved settings that were damaged may be.

    Args:
        settings: what has them as attributes.
        lowest: their names and the lowest value of each; of an integer, the setting has to be one too.
    Raises:
        ValueError: one is of another type, too low, or beyond all reason.
    """
    for name, least in lowest.items():
        value, whole = getattr(settings, name), isinstance(least, int)
        right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        if not right or not least <= value <= LARGEST_NUMBER:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"`{name}` is {reprlib.repr(value)}; it must be {kind} of at least {least:g}.")


def list_files(folder) -> list[str]:
    """Paths of the MIDI files and recordings below a folder, sorted; hidden files and folders are left out.

    Raises:
        NotADirectoryError, FileNotFoundError, PermissionError: the folder itself cannot be listed.
    """
    os.listdir(folder)  # `os.walk` would pass over the error
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in (*MIDI_EXTENSIONS, *AUDIO_EXTENSIONS):
                found.append(os.path.join(parent, name))
    return sorted(found)


def piece_of(path) -> str:
    """What names a piece: files of one folder with one stem (take.mid, take.mp3) are the same piece."""
    return os.path.splitext(os.fspath(path))[0]


def group_pieces(paths: Iterable) -> list[list]:
    """Paths by piece, the pieces in the order in which their first file stands."""
    pieces = {}
    for path in paths:
        pieces.setdefault(piece_of(path), []).append(path)
    return list(pieces.values())


def content_hash(path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def explain(path, error: Exception) -> str:
    """One line for a file that could not be read: the file, what is wrong, what to do."""
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
    "MIDI_EXTENSIONS",
    "check_content",
    "check_numbers",
    "content_hash",
    "content_kind",
    "explain",
    "group_pieces",
    "list_files",
    "modality_of",
    "piece_of",
    "readable_text",
]
