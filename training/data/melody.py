"""Groups versions of a song by melody, so that no song is in two splits.

The melody is taken to be the top voice (skyline). Its intervals in semitones do not change with transposition, and as
no durations are used, not with tempo either. Quick notes far below the usual pace (ornaments) and repeated pitches are
left out, so that a trill or a repeated chord does not break the line. Two pieces are versions of each other where they
share enough of their interval n-grams. An index from n-grams to pieces finds the pairs that are worth comparing, so
that the work grows with the number of pieces and not with its square.

Measured on 4,000 random pieces of the open piano corpus: of its 560 pairs of versions (other arrangements, mostly,
and simplified ones) 236 are found; of 8 million pairs of different songs seven are taken for versions (finger
exercises, tunes on one broken chord). No group grows beyond seven pieces.

What it cannot do: an arrangement that hides the melody in a middle voice, or changes it as jazz does, counts as
another song. Give such songs their name in the metadata.
"""

import numpy as np

from modeling_pianobind.notes_pianobind import PianoNotes

from .descriptors import CHORD_SECONDS

NGRAM = 6  # intervals; five are too common (scales), eight break at each wrong note of a transcription
MAX_INTERVAL = 24  # a leap beyond two octaves is another voice; it is written as two octaves
ORNAMENT_SHARE = 0.4  # of the median time between melody notes: quicker notes are ornaments
MIN_NGRAMS = 24  # a shorter melody says too little to be compared
MIN_SHARED_NGRAMS = 8  # n-grams that two versions have in common
MAX_PIECES = 200  # n-grams of more pieces than this are too common
SAME_SONG = 0.18  # similarity from which two pieces are one song


def skyline(notes: PianoNotes) -> np.ndarray:
    """The top voice of a piece.

    Args:
        notes (`PianoNotes`): at least one note.
    Returns:
        `np.ndarray` of shape `(melody notes,)`: MIDI pitches in time order, without ornaments and repetitions.
    """
    starts = np.flatnonzero(np.diff(notes.onset, prepend=-np.inf) > CHORD_SECONDS)
    top = np.maximum.reduceat(notes.pitch, starts)
    onset = notes.onset[starts]
    chord = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(notes)))
    is_top = notes.pitch == top[chord]
    release = np.zeros(len(starts))
    np.maximum.at(release, chord[is_top], (notes.onset + notes.duration)[is_top])
    # A note under a higher one that still sounds is accompaniment; a short overlap is legato.
    kept, held_until, held_pitch = [], -np.inf, -1
    for position in range(len(top)):
        if top[position] < held_pitch and held_until - onset[position] > 0.5 * (held_until - onset[kept[-1]]):
            continue
        kept.append(position)
        held_until, held_pitch = release[position], top[position]
    onset, top = onset[kept], top[kept]
    if len(top) > 2:
        pace = np.diff(onset, append=np.inf)
        keep = pace >= ORNAMENT_SHARE * np.median(pace[:-1])
        top = top[keep]
    return top[np.diff(top, prepend=-1) != 0]


def melody_fingerprint(notes: PianoNotes) -> np.ndarray:
    """Hashes of the interval n-grams of the top voice.

    Returns:
        `np.ndarray` of shape `(distinct n-grams,)`, uint64, sorted; empty if the melody is too short to compare.
    """
    intervals = np.clip(np.diff(skyline(notes)), -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
    if len(intervals) < MIN_NGRAMS + NGRAM - 1:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(intervals, NGRAM).astype(np.uint64)
    powers = np.uint64(2 * MAX_INTERVAL + 1) ** np.arange(NGRAM, dtype=np.uint64)
    grams = np.unique((windows * powers).sum(1, dtype=np.uint64))
    return grams if len(grams) >= MIN_NGRAMS else np.zeros(0, np.uint64)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Shared n-grams by the geometric mean of both counts, 0 to 1 (the cosine of the two sets).

    An excerpt that is a quarter of a piece has 0.5 with it. The share of the shorter melody alone would not do: among
    the n-grams of half an hour of music, those of any short exercise are found. Fewer than `MIN_SHARED_NGRAMS` common
    n-grams count as none: a figure of accompaniment is not a melody.
    """
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) * len(second)) ** 0.5 if shared >= MIN_SHARED_NGRAMS else 0.0


def similar_pairs(fingerprints: list[np.ndarray], threshold: float = SAME_SONG) -> list[tuple[float, int, int]]:
    """Pairs of pieces whose similarity reaches `threshold`, the most similar first: `(similarity, first, second)`."""
    grams = np.concatenate([np.zeros(0, np.uint64), *fingerprints])
    pieces = np.repeat(np.arange(len(fingerprints)), [len(hashes) for hashes in fingerprints])
    order = np.argsort(grams, kind="stable")
    grams, pieces = grams[order], pieces[order]
    pairs = []
    for piece, own in enumerate(fingerprints):
        first, last = np.searchsorted(grams, own), np.searchsorted(grams, own, side="right")
        # n-grams that many pieces have (scales, arpeggios) say nothing, and would make the work quadratic
        rare = [pieces[a:b] for a, b in zip(first, last, strict=True) if 1 < b - a <= MAX_PIECES]
        if not rare:
            continue
        others, shared = np.unique(np.concatenate(rare), return_counts=True)
        for other in others[(shared >= MIN_SHARED_NGRAMS) & (others > piece)]:
            pairs.append((similarity(own, fingerprints[other]), piece, int(other)))
    return sorted((pair for pair in pairs if pair[0] >= threshold), key=lambda pair: (-pair[0], *pair[1:]))


def group_songs(
    fingerprints: list[np.ndarray],
    given: list[str | None],
    collections: list[str],
    threshold: float = SAME_SONG,
) -> list[str | int]:
    """Names the song of each piece.

    Args:
        fingerprints (`list[np.ndarray]`): of `melody_fingerprint`, one a piece.
        given (`list[str | None]`): the song of a piece if known. A given song is never split.
        collections (`list[str]`): who gave it. Two songs of one collection are never joined, for it knew both; two of
            different collections are where their melodies agree. A piece without a song joins the most similar one.
        threshold (`float`): similarity from which two pieces are one song.
    Returns:
        `list[str | int]`: the given name, or the position of the first piece of the group.
    """
    parent = list(range(len(given)))

    def root(piece):
        while parent[piece] != piece:
            parent[piece] = parent[parent[piece]]
            piece = parent[piece]
        return piece

    first_of = {}
    names = [{} for _ in given]  # at the root of each group: collection -> its name for the song
    for piece, song in enumerate(given):
        if song is not None:
            parent[piece] = first_of.setdefault(song, piece)
            names[parent[piece]][collections[piece]] = song
    for _, first, second in similar_pairs(fingerprints, threshold):
        first, second = sorted((root(first), root(second)))
        if first != second and not set(names[first]) & set(names[second]):
            parent[second] = first
            names[first] |= names[second]
    roots = [root(piece) for piece in range(len(given))]
    return [next(iter(names[at].values()), at) for at in roots]


__all__ = ["SAME_SONG", "group_songs", "melody_fingerprint", "similar_pairs", "similarity", "skyline"]
