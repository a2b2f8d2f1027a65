"""What the page takes from its users, and how many it serves at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what one user can ask for.

    Attributes:
        file_megabytes (`float`): size of an upload; a MIDI file may have a tenth of it.
        minutes (`float`): length of an upload.
        notes (`int`): of an uploaded MIDI file.
        characters (`int`): of a description; the text tower reads far fewer.
        running, waiting (`int`): requests that are worked on at once, and that may wait for their turn.
        patience_seconds (`float`): how long one may wait.
    """

    file_megabytes: float = 20.0
    minutes: float = 15.0
    notes: int = 20_000
    characters: int = 500
    running: int = 2
    waiting: int = 16
    patience_seconds: float = 20.0


__all__ = ["Limits"]
