"""Text protocols: retrieval of a piece by its caption, and sensitivity to the wording of a query."""

from collections.abc import Sequence

import numpy as np

from modeling_pianobind.embedding_pianobind import unit_rows
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS, TEMPLATES, label_embeddings
from modeling_pianobind.notes_pianobind import PianoNotes

from .baselines import generated_captions, word_scores
from .bench import Bench, UnsuitableError, means
from .midi_protocols import emotion_sets, known_tags, quadrant_queries, tag_matrix, tags_of
from .scores import accuracy_scores, macro_area, paired_retrieval

PAPER_PIECES, PAPER_SECONDS = 199, 20.0  # of the published evaluation (arXiv 2509.04215)
MIN_NOTES = 6
CANDIDATES, DRAWS = 200, 5
WORDINGS = 3
# The same quadrants in words of music alone, and wordings that deny a label; nothing else in the project uses them.
MUSICAL_PROMPTS = {
    1: ("fast piano music in a major key", "a lively allegro, staccato", "many quick notes in major, played loudly"),
    2: ("fast, loud piano music in a minor key", "dissonant chords, fortissimo", "a dense, chromatic presto in minor"),
    3: ("slow piano music in a minor key", "a quiet adagio in minor", "slow, low notes in a minor key"),
    4: ("slow piano music in a major key", "a quiet, legato andante in major", "soft, sparse arpeggios in major"),
}
NEGATIONS = ("piano music that is not {label}", "not {label}", "a piano piece without anything {label} about it")


def paper(bench: Bench) -> dict:
    """The published evaluation: one caption to one track by the centre of 20 s, both directions.

    An item is the mean of its unit audio and MIDI embeddings. Audio is the row's recording where there is one,
    and otherwise rendered in a room; without either only MIDI is measured.
    """
    centres = {}
    for place in bench.described:
        notes = bench.corpus.notes(place)
        start = max(0.0, (notes.seconds - PAPER_SECONDS) / 2)
        centre = notes.crop(start, start + PAPER_SECONDS)
        if len(centre) >= MIN_NOTES:
            centres[place] = (start, centre)
    places = bench.some(list(centres), PAPER_PIECES)
    if len(places) < 2:
        raise UnsuitableError("fewer than two pieces of this split have a caption.")
    starts, notes = zip(*(centres[place] for place in places), strict=True)
    items = {"midi": bench.embed_notes(list(notes))}
    audio = _centre_audio(bench, places, starts, notes)
    if audio is not None:
        items["audio"] = audio
        items["fused"] = unit_rows(items["audio"] + items["midi"])
    captions = [bench.caption(place) for place in places]
    queries = bench.embed_text(captions)
    among = len(places)
    return {
        "scores": {
            name: paired_retrieval(queries @ embeds.T, among, bench.bootstrap) for name, embeds in items.items()
        },
        "baselines": caption_baselines(bench, captions, list(notes), among),
        "settings": {"pieces": among, "seconds": PAPER_SECONDS, "direct": "caption to piece"},
    }


def _centre_audio(
    bench: Bench, places: Sequence[int], starts: Sequence[float], notes: Sequence[PianoNotes]
) -> np.ndarray | None:
    recordings = [bench.recording(place) for place in places]
    if all(recording is not None for recording in recordings):
        rate, length = bench.sampling_rate, round(PAPER_SECONDS * bench.sampling_rate)
        cut = (recording[round(s * rate) :][:length] for s, recording in zip(starts, recordings, strict=True))
        return means(bench.embed_waveforms(cut))
    return means(bench.embed_waveforms(bench.room_audio(places, notes))) if bench.instruments else None


def caption_baselines(bench: Bench, captions: list[str], pieces: list[PianoNotes], among: int, draws: int = 1) -> dict:
    """Chance, and captions compared with captions that a program generates from the music."""
    scores = {"chance": np.zeros((len(captions), len(captions)))}
    generated = generated_captions(bench, pieces)
    scores["BM25 over generated captions"] = word_scores(captions, generated)
    if embed := bench.sentence_embedder:
        scores["MiniLM over generated captions"] = embed(captions) @ embed(generated).T
    return {name: paired_retrieval(matrix, among, bench.bootstrap, draws) for name, matrix in scores.items()}


def text_to_piece(bench: Bench) -> dict:
    """Retrieval of a whole piece among 200 by a caption of its human and provenance labels, both directions."""
    places = bench.described
    if len(places) < 2:
        raise UnsuitableError("fewer than two pieces of this split have a caption.")
    among = min(CANDIDATES, len(places))
    captions = [bench.caption(place) for place in places]
    scores = bench.embed_text(captions) @ bench.midi_at(places).T
    return {
        "scores": paired_retrieval(scores, among, bench.bootstrap, DRAWS),
        "baselines": caption_baselines(bench, captions, bench.notes_at(places), among, DRAWS),
        "settings": {"described_pieces": len(places), "draws": DRAWS},
    }


def prompts(bench: Bench) -> dict:
    """Sensitivity to wording: sentences around a tag, synonyms of facts, moods as musical terms, negation."""
    places = [place for place in bench.places if tags_of(bench.corpus.rows[place])]
    rows, songs, embeddings = bench.rows_at(places), bench.songs_at(places), bench.midi_at(places)
    tags = known_tags(rows)
    labels = tag_matrix(rows, tags)

    def area(queries):
        scores = embeddings @ queries.T
        return bench.bootstrap.intervals(lambda kept: {"macro_roc_auc": macro_area(scores[kept], labels[kept])}, songs)

    ensemble = label_embeddings(bench.embed_text, tags)[1]
    single = {template: bench.embed_text([template.format(label=tag) for tag in tags]) for template in TEMPLATES}
    negated = unit_rows(
        np.mean([bench.embed_text([template.format(label=tag) for tag in tags]) for template in NEGATIONS], 0)
    )
    scores = {
        "sentences": {"ensemble": area(ensemble)} | {template: area(queries) for template, queries in single.items()},
        "sentences_cosine": _wording_cosines(list(single.values())),
        "negation": area(negated) | {"cosine_to_plain": float((negated * ensemble).sum(1).mean())},
    }
    if sets := emotion_sets(bench):
        scores["moods"] = {name: _moods(bench, places) for name, (_, places) in sets.items()}
    if len(bench.described) > 1:
        scores["captions"] = _reworded(bench)
    return {
        "scores": scores,
        "baselines": {"chance": {"macro_roc_auc": 0.5}},
        "settings": {"negations": NEGATIONS, "musical_prompts": MUSICAL_PROMPTS},
    }


def _wording_cosines(wordings: list[np.ndarray]) -> dict:
    """Cosine of two wordings of one tag, and of two tags in one wording."""
    same = [(a * b).sum(1).mean() for number, a in enumerate(wordings) for b in wordings[:number]]
    other = [(a @ a.T)[np.triu_indices(len(a), k=1)].mean() for a in wordings if len(a) > 1]
    return {"same_tag": float(np.mean(same)), "other_tag": float(np.mean(other)) if other else None}


def _moods(bench: Bench, places: Sequence[int]) -> dict:
    """Zero-shot quadrants by words of mood, as `emotion` has them, and by words of music that name no mood."""
    truth, songs = [row["emotion_quadrant"] for row in bench.rows_at(places)], bench.songs_at(places)
    embeddings = bench.midi_at(places)
    figures = {}
    for name, wording in (("words of mood", EMOTION_PROMPTS), ("words of music", MUSICAL_PROMPTS)):
        guess = (embeddings @ quadrant_queries(bench, wording).T).argmax(1) + 1
        figures[name] = accuracy_scores(guess, truth, songs, bench.bootstrap)
    return figures


def _reworded(bench: Bench) -> dict:
    """The same facts in other words: figures of each wording, and how many of their ten best pieces agree."""
    places = bench.described
    embeddings, among = bench.midi_at(places), min(CANDIDATES, len(places))
    wordings = [bench.embed_text([bench.caption(place, number) for place in places]) for number in range(WORDINGS)]
    best = [np.argsort(-(queries @ embeddings.T), axis=1)[:, :10] for queries in wordings]
    shared = [
        len(set(ranked) & set(other)) / len(ranked)
        for number, first in enumerate(best)
        for second in best[:number]
        for ranked, other in zip(first.tolist(), second.tolist(), strict=True)
    ]
    retrieved = [paired_retrieval(queries @ embeddings.T, among, bench.bootstrap) for queries in wordings]
    return {
        "recall@10": [figures["recall@10"] for figures in retrieved],
        "recall@10_interval": [figures.get("recall@10_interval") for figures in retrieved],
        "ten_best_shared": float(np.mean(shared)),
    }
