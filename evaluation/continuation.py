"""Measures playlists: how many pieces of an artist continue five of them, and how smooth the steps are."""

from collections.abc import Callable

import numpy as np

from modeling_pianobind.index.embedding_index import EmbeddingIndex
from modeling_pianobind.index.facts import key_of, measured_tempo
from modeling_pianobind.index.feedback import Background
from modeling_pianobind.index.playlist import Track, continuation, key_place, make_playlist
from modeling_pianobind.index.table import FileRow, FileTable
from training.data.facts import creator_name

GIVEN, NEXT, DRAWS = 5, 20, 10
MIN_SONGS = GIVEN + 2
PLAYLISTS, MINUTES, LIKED = 20, 40, 2
PATH = ("calm", "bright")


def measure_continuation(rows: list[dict], embeds: np.ndarray, known: np.ndarray, seed: int = 0) -> dict:
    """Share of an artist's other songs among the next `NEXT`, from `GIVEN` of them.

    Args:
        known (`np.ndarray`): rows that compete: one a song, each of a known artist.
    Returns:
        `dict`: by `continuation`, by the mean of embeddings and by chance; means over artists.
    """
    names, pieces = np.array([creator_name(rows[place]) for place in known]), embeds[known]
    background = Background.of(pieces)
    artists = [name for name in sorted({*names.tolist()}) if (names == name).sum() >= MIN_SONGS]
    if not artists:
        raise ValueError(f"no artist has {MIN_SONGS} songs in this split; measure on another one.")
    by_way = {"continuation": [], "mean of embeddings": [], "random": []}
    for name in artists:
        random, own = np.random.default_rng(seed), np.flatnonzero(names == name)
        shares = {way: [] for way in by_way}
        for _ in range(DRAWS):
            given = random.choice(own, GIVEN, replace=False)
            scores = {
                "continuation": continuation(pieces, pieces[given], background),
                "mean of embeddings": pieces @ pieces[given].mean(axis=0),
                "random": random.random(len(pieces)),
            }
            for way, score in scores.items():
                score[given] = -np.inf
                best = np.argsort(-score)[: min(NEXT, len(pieces) - GIVEN)]
                shares[way].append((names[best] == name).sum() / min(NEXT, len(own) - GIVEN))
        for way, values in shares.items():
            by_way[way].append(float(np.mean(values)))
    per_artist = dict(zip(artists, np.round(by_way["continuation"], 4).tolist(), strict=True))
    return {way: round(float(np.mean(values)), 4) for way, values in by_way.items()} | {
        "given": GIVEN, "next": NEXT, "among": len(pieces), "per_artist": per_artist,
    }  # fmt: skip


def index_of(rows: list[dict], embeds: np.ndarray, notes: list) -> EmbeddingIndex:
    """An index of pieces with their notes, lengths, tempi and keys.

    Args:
        notes (`list[PianoNotes]`): of each row.
    """
    table = []
    for row, embed, piece_notes in zip(rows, embeds, notes, strict=True):
        windows = embed[None].astype(np.float16), np.array([[0.0, 20.0]])
        facts = (row["seconds"], measured_tempo(piece_notes.onset), float(key_of(piece_notes)), 0.0)
        table.append(FileRow(row["id"], row["id"], "", embed.astype(np.float32), *windows, piece_notes, facts=facts))
    return EmbeddingIndex(table=FileTable.from_rows(table))


def measure_steps(index: EmbeddingIndex, embed_text: Callable[[list[str]], np.ndarray], seed: int = 0) -> dict:
    """How smooth playlists are and how they follow a path, against the same pieces in the order of their score."""
    random, place = np.random.default_rng(seed), {path: number for number, path in enumerate(index.paths)}
    unit = Background.of(index.embeddings).directions(index.embeddings)
    ends = embed_text(list(PATH))
    by_order = {"ordered": [], "by score": [], "shuffled": []}
    follows, lengths = [], []
    for _ in range(PLAYLISTS):
        likes = [index.example(int(number)) for number in random.choice(len(index), LIKED, replace=False)]
        tracks = make_playlist(index, likes, 60 * MINUTES)
        lengths.append(sum(track.seconds for track in tracks) / 60)
        orders = {
            "ordered": tracks,
            "by score": sorted(tracks, key=lambda track: -track.score),
            "shuffled": [tracks[number] for number in random.permutation(len(tracks))],
        }
        for order, chosen in orders.items():
            by_order[order].append(_steps(chosen, unit[[place[track.path] for track in chosen]]))
        path = make_playlist(index, likes, 60 * MINUTES, *ends)
        moods = index.embeddings[[place[track.path] for track in path]] @ (ends[1] - ends[0])
        ranks = moods.argsort().argsort()
        follows.append(float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]))
    return {order: dict(zip(("cosine", "tempo octaves", "fifths"), np.nanmean(steps, axis=0).round(4).tolist(),
                            strict=True)) for order, steps in by_order.items()} | {
        "rank correlation of place and mood": round(float(np.mean(follows)), 4),
        "path": list(PATH), "playlists": PLAYLISTS, "minutes": round(float(np.mean(lengths)), 2),
    }  # fmt: skip


def _steps(tracks: list[Track], unit: np.ndarray) -> tuple[float, float, float]:
    """Mean likeness, difference of tempo in octaves (half and double are the same), and fifths between neighbours."""
    tempo = np.abs(np.diff(np.log2([track.tempo for track in tracks])))
    apart = np.abs(np.diff(key_place(np.array([track.key for track in tracks]))))
    return (
        float(np.vecdot(unit[:-1], unit[1:]).mean()),
        float(np.nanmean(np.abs(tempo - np.rint(tempo)))),
        float(np.minimum(apart, 12 - apart).mean()),
    )


__all__ = ["index_of", "measure_continuation", "measure_steps"]
