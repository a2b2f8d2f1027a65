"""Protocols on MIDI. Each takes a `Bench` and returns `scores`, `baselines` and its `settings`."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.manifold import TSNE

from modeling_pianobind.embedding_pianobind import unit_rows
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS, label_embeddings
from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.cutting import excerpt
from training.data.facts import FORMS, GENRES, creator_name

from .baselines import feature_matrix, tag_probabilities
from .bench import Bench, UnsuitableError
from .changes import faster, transposed, without_cues
from .scores import accuracy_scores, linear_probe, random_pairs, stability, tag_scores

Label = Callable[[dict], int | str | None]  # a row -> its class; None where it has none
MIN_POSITIVES = 5  # pieces of a tag, or of a class of a probe
MIN_SONGS = 2  # of a dance or form
MIN_OF_SOURCE = 20  # labelled pieces of a source for a separate protocol
PROBE_PIECES = 200  # of each genre in training
STABLE_PIECES, STABLE_SECONDS = 200, 30.0
SEMITONES, TEMPO_RATIOS = (-6, -3, -1, 1, 3, 6), (0.8, 0.9, 1.1, 1.2)
QUADRANTS = (1, 2, 3, 4)
DANCES_AND_FORMS = [form for form in FORMS if form not in ("christmas", "wedding", "hymn", "blues")]  # no occasions
FEATURES = "hand-made features, trained on labels"


def tags_of(row: dict) -> set[str]:
    """Genre and style tags of a corpus row."""
    return {*row.get("genre", ()), *row.get("style", ())}


def known_tags(rows: list[dict]) -> list[str]:
    """Tags that enough pieces have, and not all that have any."""
    counts = Counter(tag for row in rows for tag in tags_of(row))
    tagged = sum(1 for row in rows if tags_of(row))
    tags = sorted(tag for tag, count in counts.items() if MIN_POSITIVES <= count < tagged)
    if not tags:
        raise UnsuitableError(f"no genre or style tag has {MIN_POSITIVES} pieces of this split.")
    return tags


def tag_matrix(rows: list[dict], tags: list[str]) -> np.ndarray:
    """Whether a row has a tag, `(rows, tags)`."""
    return np.array([[tag in tags_of(row) for tag in tags] for row in rows])


def zero_shot_tagging(
    bench: Bench, places: Sequence[int], embeddings: np.ndarray, pieces: list[PianoNotes] | None = None
) -> dict:
    """Ranks the pieces with any tag by each tag as text; tags that a piece does not name count as not
    to hold.

    Args:
        places: corpus positions; embeddings (`np.ndarray` of shape `(places, dim)`): of each piece.
        pieces (`list[PianoNotes]`, *optional*): input of the baseline; without them there is none.
    """
    tagged = [number for number, place in enumerate(places) if tags_of(bench.corpus.rows[place])]
    places = [places[number] for number in tagged]
    rows, songs = bench.rows_at(places), bench.songs_at(places)
    tags = known_tags(rows)
    labels = tag_matrix(rows, tags)
    _, queries = label_embeddings(bench.embed_text, tags)
    prevalence = float(labels.mean(0).mean())
    baselines = {"chance": {"macro_roc_auc": 0.5, "macro_pr_auc": prevalence}}
    train = bench.corpus.select(lambda row: row["split"] == "train" and tags_of(row))
    if pieces and train:
        known = tag_matrix(bench.rows_at(train), tags).astype(float)
        features = feature_matrix([pieces[number] for number in tagged])
        chances = tag_probabilities(bench.features_at(train), known, features)
        baselines[FEATURES] = tag_scores(chances, labels, tags, songs, bench.bootstrap)
    return {
        "scores": tag_scores(embeddings[tagged] @ queries.T, labels, tags, songs, bench.bootstrap),
        "baselines": baselines,
        "settings": {"fewest_pieces_of_a_tag": MIN_POSITIVES},
    }


def tagging(bench: Bench) -> dict:
    """Genre and style tags as text, on whole pieces of MIDI."""
    return zero_shot_tagging(bench, bench.places, bench.midi_at(bench.places), bench.notes_at(bench.places))


def tagging_without_cues(bench: Bench) -> dict:
    """The same with flat velocity, no pedal and jittered onsets, which hide a file's source."""
    twins = [without_cues(bench.corpus.notes(place), seed=place) for place in bench.places]
    return zero_shot_tagging(bench, bench.places, bench.embed_notes(twins), twins)


def forms_of(row: dict) -> set[str]:
    """Dances and forms that a title names."""
    return {form for form in DANCES_AND_FORMS if re.search(FORMS[form], row.get("title") or "", re.IGNORECASE)}


def dance_and_form(bench: Bench) -> dict:
    """Dances and forms as text, among the pieces whose title is known; a piece is what its title says.

    Forms that too few pieces or songs have stand apart, as `rare_forms`.
    """
    places = [place for place in bench.places if bench.corpus.rows[place].get("title")]
    rows, songs = bench.rows_at(places), bench.songs_at(places)
    named = [forms_of(row) for row in rows]
    songs_of = {
        form: [song for song, has in zip(songs, named, strict=True) if form in has] for form in DANCES_AND_FORMS
    }
    named_forms = [form for form, those in songs_of.items() if 0 < len(those) < len(rows)]
    common = [f for f in named_forms if len(songs_of[f]) >= MIN_POSITIVES and len(set(songs_of[f])) >= MIN_SONGS]
    rare = [form for form in named_forms if form not in common]
    if not common:
        raise UnsuitableError(f"no dance or form has {MIN_POSITIVES} pieces of this split whose title names it.")
    train = bench.corpus.select(lambda row: row["split"] == "train" and row.get("title"))
    learnt = [forms_of(row) for row in bench.rows_at(train)]

    def scores(forms, chances):
        labels = np.array([[form in has for form in forms] for has in named])
        return tag_scores(chances, labels, forms, songs, bench.bootstrap)

    def zero_shot(forms):
        return scores(forms, bench.midi_at(places) @ label_embeddings(bench.embed_text, forms)[1].T)

    def features(forms):
        known = np.array([[form in has for form in forms] for has in learnt], float)
        return scores(forms, tag_probabilities(bench.features_at(train), known, bench.features_at(places)))

    parts = {"rare_forms": rare} if rare else {}
    baselines = {"chance": {"macro_roc_auc": 0.5} | {name: {"macro_roc_auc": 0.5} for name in parts}}
    if train:
        baselines[FEATURES] = features(common) | {name: features(forms) for name, forms in parts.items()}
    return {
        "scores": zero_shot(common) | {name: zero_shot(forms) for name, forms in parts.items()},
        "baselines": baselines,
        "settings": {"fewest_pieces_of_a_form": MIN_POSITIVES, "fewest_songs_of_a_form": MIN_SONGS},
    }


def emotion(bench: Bench) -> dict:
    """Russell's four quadrants by text prompts, for each source that has them."""
    sets = emotion_sets(bench)
    if not sets:
        raise UnsuitableError(f"no source has {MIN_OF_SOURCE} pieces with an emotion quadrant in this split.")
    queries = quadrant_queries(bench, EMOTION_PROMPTS)
    scores, baselines = {}, {"chance": {}, FEATURES: {}}
    for name, (source, places) in sets.items():
        truth = list(map(quadrant, bench.rows_at(places)))
        guess = (bench.midi_at(places) @ queries.T).argmax(1) + 1
        scores[name] = accuracy_scores(guess, truth, bench.songs_at(places), bench.bootstrap)
        baselines["chance"][name] = {"accuracy": 1 / len(QUADRANTS)}
        if train := _train_places(bench, quadrant, source):
            baselines[FEATURES][name] = _probe(bench, train, places, quadrant, bench.features_at)
    return {"scores": scores, "baselines": baselines, "settings": {"prompts": EMOTION_PROMPTS}}


def quadrant_queries(bench: Bench, prompts: dict[int, Sequence[str]]) -> np.ndarray:
    """`(4, dim)` unit rows, each the mean of its prompts."""
    return unit_rows(np.stack([bench.embed_text(list(prompts[quadrant])).mean(0) for quadrant in QUADRANTS]))


def emotion_sets(bench: Bench) -> dict[str, tuple[str, list[int]]]:
    """Sources with emotion quadrants, as `_labelled` gives them."""
    sets = {}
    for source in sorted({row["source"] for row in bench.rows if quadrant(row)}):
        sets |= _labelled(bench, quadrant, source)
    return sets


def probes(bench: Bench) -> dict:
    """Linear probes on frozen embeddings: EMOPIA's quadrants, Pianist8's artists, and genre over all sources."""
    tasks = []
    for source, label in (("emopia", quadrant), ("pianist8", creator_name)):
        if train := _train_places(bench, label, source):
            tasks += [(name, train, places, label) for name, (_, places) in _labelled(bench, label, source).items()]
    tasks += _genre_task(bench)
    if not tasks:
        raise UnsuitableError("no source has labelled pieces both in `train` and in this split.")
    scores, baselines = {}, {"chance": {}, FEATURES: {}}
    for name, train, places, label in tasks:
        scores[name] = _probe(bench, train, places, label, bench.midi_at)
        baselines[FEATURES][name] = _probe(bench, train, places, label, bench.features_at)
        baselines["chance"][name] = {"accuracy": 1 / len(set(map(label, bench.rows_at(train))))}
    return {"scores": scores, "baselines": baselines, "settings": {"most_train_pieces_of_a_genre": PROBE_PIECES}}


def quadrant(row: dict) -> int | None:
    return row.get("emotion_quadrant")


def only_genre(row: dict) -> str | None:
    """The genre of a row that has exactly one."""
    genres = [genre for genre in row.get("genre", ()) if genre in GENRES]
    return genres[0] if len(genres) == 1 else None


def _labelled(bench: Bench, label: Label, source: str) -> dict[str, tuple[str, list[int]]]:
    """`SOURCE` and `SOURCE_published` (its published split of the same name) -> the source and its labelled pieces."""
    places = [place for place in bench.places if (row := bench.corpus.rows[place])["source"] == source and label(row)]
    published = [place for place in places if bench.corpus.rows[place].get("official_split") == bench.split]
    sets = {source: (source, places), f"{source}_published": (source, published)}
    return {name: chosen for name, chosen in sets.items() if len(chosen[1]) >= MIN_OF_SOURCE}


def _train_places(bench: Bench, label: Label, source: str) -> list[int]:
    return bench.corpus.select(lambda row: row["split"] == "train" and row["source"] == source and label(row))


def _genre_task(bench: Bench) -> list[tuple]:
    """Genres that have enough pieces to be measured and to be learnt; none or one task."""
    measured, train = Counter(map(only_genre, bench.rows)), {}
    for place in bench.corpus.select(lambda row: row["split"] == "train" and only_genre(row)):
        train.setdefault(only_genre(bench.corpus.rows[place]), []).append(place)
    kept = {genre for genre in train if min(measured[genre], len(train[genre])) >= MIN_POSITIVES}
    places = [place for place in bench.places if only_genre(bench.corpus.rows[place]) in kept]
    chosen = [place for genre in sorted(kept) for place in bench.some(train[genre], PROBE_PIECES)]
    return [("genre", chosen, places, only_genre)] if len(kept) > 1 else []


def _probe(
    bench: Bench, train: list[int], places: list[int], label: Label, view: Callable[[Sequence[int]], np.ndarray]
) -> dict:
    """A probe on what `view` makes of pieces."""
    return linear_probe(
        view(train),
        [label(row) for row in bench.rows_at(train)],
        bench.songs_at(train),
        view(places),
        [label(row) for row in bench.rows_at(places)],
        bench.songs_at(places),
        bench.bootstrap,
    )


def robustness_midi(bench: Bench) -> dict:
    """Cosine of a piece with itself in other keys and tempi and without cues, and recall of the original."""
    places = bench.some(bench.places, STABLE_PIECES)
    notes, songs = [excerpt(piece, STABLE_SECONDS) for piece in bench.notes_at(places)], bench.songs_at(places)
    originals = bench.embed_notes(notes)
    changed = {
        f"{semitones:+d} semitones": [transposed(piece, semitones) for piece in notes] for semitones in SEMITONES
    }
    changed |= {f"tempo x {ratio:g}": [faster(piece, ratio) for piece in notes] for ratio in TEMPO_RATIOS}
    changed["without cues"] = [without_cues(piece, seed=place) for place, piece in zip(places, notes, strict=True)]
    return {
        "scores": {
            name: stability(originals, bench.embed_notes(others), songs, bench.bootstrap)
            for name, others in changed.items()
        },
        "baselines": {"random pairs": random_pairs(originals), "chance": {"recall@1": 1 / len(places)}},
        "settings": {"pieces": len(places), "seconds": STABLE_SECONDS},
    }


def corpus_map(bench: Bench) -> dict:
    """A t-SNE map of the pieces that have one genre, and the mean cosine between pieces of each two genres."""
    counts = Counter(filter(None, map(only_genre, bench.rows)))
    genres = [genre for genre, count in counts.most_common() if count >= MIN_POSITIVES]
    places = [place for place in bench.places if only_genre(bench.corpus.rows[place]) in genres]
    if len(places) < MIN_OF_SOURCE:
        raise UnsuitableError(f"fewer than {MIN_OF_SOURCE} pieces of this split have one genre.")
    colours = np.array([genres.index(only_genre(row)) for row in bench.rows_at(places)])
    embeddings = bench.midi_at(places)
    perplexity = min(30.0, len(places) / 4)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=bench.bootstrap.seed)
    x, y = tsne.fit_transform(embeddings).round(2).astype(float).T.tolist()
    return {
        "scores": {"similarity": _genre_similarity(embeddings, colours, len(genres))},
        "baselines": {"random pairs": random_pairs(embeddings)},
        "settings": {"genres": genres, "perplexity": perplexity},
        "points": {"x": x, "y": y, "genre": colours.tolist()},
    }


def _genre_similarity(embeddings: np.ndarray, colours: np.ndarray, count: int) -> list[list[float]]:
    """Mean cosine between pieces of two genres, without a piece's with itself."""
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, np.nan)
    return [
        [round(float(np.nanmean(cosines[np.ix_(colours == a, colours == b)])), 3) for b in range(count)]
        for a in range(count)
    ]
