"""Songs of the pieces, and the split of every song: no song is in two splits."""

import hashlib
import re
from collections.abc import Sequence

from .build_arguments import BuildArguments
from .dataset_files import Report
from .dataset_rows import Inspection
from .dataset_schema import SPLITS
from .melody import group_songs
from .pieces import Piece

SONG_DIGITS = 12


def assign_songs(
    pieces: Sequence[Piece], seen: Sequence[Inspection], arguments: BuildArguments, report: Report
) -> None:
    """Writes `song` (12 hexadecimal digits) into the labels of every piece, and `song_name` where one is given."""
    given = [piece.labels.get("song") for piece in pieces]
    names = list(given)
    if arguments.match_melodies:
        collections = [piece.collection for piece in pieces]
        names = group_songs(
            [inspection.fingerprint for inspection in seen], given, collections, arguments.melody_similarity
        )
        joined = (
            name != (position if song is None else song)
            for position, (song, name) in enumerate(zip(given, names, strict=True))
        )
        report.pieces_joined_by_melody = sum(joined)
    for position, (piece, name) in enumerate(zip(pieces, names, strict=True)):
        if name is None or isinstance(name, int):
            # the first piece of the group names the song, so that the name stays when pieces are added
            name = pieces[position if name is None else name].piece_id
        if given[position] and not _is_digits(given[position]):
            piece.labels["song_name"] = given[position]
        piece.labels["song"] = name if _is_digits(name) else _digits(name)


def assign_splits(pieces: Sequence[Piece], arguments: BuildArguments, report: Report) -> None:
    """Writes `split` into the labels of every piece.

    A given split stays; where pieces of one song have several, the last of train, valid, test is the song's. Every
    other song is drawn by a hash of its name and the seed: it keeps its split when pieces are added or left out. Where
    a share is asked for but no song was drawn, the song with the nearest number goes there.
    """
    given = {}
    for piece in pieces:
        split = piece.labels.get("split") if arguments.keep_splits else None
        given.setdefault(piece.labels["song"], set()).update([split] if split else [])
    report.songs_with_stricter_split = sum(len(splits) > 1 for splits in given.values())
    chosen = {song: max(splits, key=SPLITS.index) for song, splits in given.items() if splits}
    free = sorted((int(_digits(f"{arguments.seed} {song}"), 16) / 16**SONG_DIGITS, song) for song in given)
    free = [(number, song) for number, song in free if song not in chosen]
    for number, song in free:
        is_test = number < arguments.test_share
        is_valid = number < arguments.test_share + arguments.valid_share
        chosen[song] = "test" if is_test else "valid" if is_valid else "train"
    shares = {"test": arguments.test_share, "valid": arguments.valid_share}
    for split in ("test", "valid"):
        train = [song for _, song in free if chosen[song] == "train"]
        if shares[split] and split not in chosen.values() and len(train) > 1:
            chosen[train[0]] = split
    for piece in pieces:
        piece.labels["split"] = chosen[piece.labels["song"]]
    for split in chosen.values():
        report.songs[split] += 1


def _is_digits(name: str) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{SONG_DIGITS}}}", name) is not None


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:SONG_DIGITS]


__all__ = ["assign_songs", "assign_splits"]
