"""Audio protocols: audio of an instrument and rooms outside the training data, and real recordings."""

import numpy as np

from modeling_pianobind.labels_pianobind import LABELS, label_embeddings
from modeling_pianobind.metric.ranking import retrieval_metrics
from training.data.cutting import excerpt

from .bench import Bench, UnsuitableError, means
from .changes import NOISE_DB, faster, in_a_room, through_mp3, transposed, with_noise
from .midi_protocols import zero_shot_tagging
from .scores import alignments, paired_retrieval, random_pairs, stability

AMONG = (200, 500)
MIXED_TOP_K = 20
STABLE_PIECES, STABLE_SECONDS = 100, 20.0
SEMITONES, TEMPO_RATIOS = (-3, 3), (0.9, 1.1)


def tagging_audio(bench: Bench) -> dict:
    """Genre and style tags as text, on rendered audio; `transcribed`: some of the pieces without and with it."""
    places, _, audio = bench.rendered
    figures = zero_shot_tagging(bench, places, means(audio))
    chosen, transcribed = bench.rendered_transcribed
    if chosen:
        views = {"plain": [audio[position] for position in chosen], "transcribed": transcribed}
        places = [places[position] for position in chosen]
        figures["scores"]["transcribed"] = {
            view: {
                name: value
                for name, value in zero_shot_tagging(bench, places, means(examples))["scores"].items()
                if name.startswith("macro")
            }
            for view, examples in views.items()
        }
    return figures | {"settings": figures["settings"] | _rendering(bench)}


def audio_midi(bench: Bench) -> dict:
    """Retrieval of the MIDI of the same stretch by rendered audio; `reverse_`: of audio by MIDI.

    `_by_windows` are figures of `search_like`: the windows of two pieces are compared, not their means.
    `_transcribed` has fewer queries, if that many pieces were transcribed only, among as much MIDI.
    """
    places, notes, plain = bench.rendered
    chosen, transcribed = bench.rendered_transcribed
    examples = bench.note_examples(notes)
    midi = means(examples)
    sizes = [size for size in AMONG if size <= len(places)] or [len(places)]
    scores, chance = {}, {}
    views = {"plain": (range(len(places)), plain)} | ({"transcribed": (chosen, transcribed)} if chosen else {})
    for view, (owned, audio) in views.items():
        by_means = means(audio) @ midi.T
        for how, similarity in (("", by_means), ("_by_windows", alignments(audio, examples))):
            for size in sizes:
                name = f"among_{size}{how}" + ("" if view == "plain" else f"_{view}")
                scores[name] = paired_retrieval(similarity, size, bench.bootstrap, owned=owned)
                chance[name] = _chance(size, size)
        scores[f"cosine_{view}"] = float(by_means[np.arange(len(owned)), owned].mean())
    return {"scores": scores, "baselines": {"chance": chance}, "settings": _rendering(bench)}


def mixed_ranking(bench: Bench) -> dict:
    """Bias between rendered audio and MIDI of the same stretches in one ranking by text.

    For each label of `LABELS` as a query: the mean difference between the scores of a piece's audio and of its MIDI
    (`offset`), the spread of that difference, and the share of audio among the first hits of both together, which is
    a half where they mix fairly.
    """
    _, notes, audio = bench.rendered
    audio_means, midi = means(audio), means(bench.note_examples(notes))
    _, queries = label_embeddings(bench.embed_text, LABELS)
    return {
        "scores": mixing(audio_means @ queries.T, midi @ queries.T),
        "baselines": {"fair": {"audio_share": 0.5}},
        "settings": _rendering(bench) | {"top_k": MIXED_TOP_K},
    }


def mixing(audio: np.ndarray, midi: np.ndarray) -> dict[str, float]:
    """Figures of `mixed_ranking` of scores `(pieces, queries)` each."""
    difference = audio - midi
    both = np.concatenate([audio, midi])
    first = np.argsort(-both, axis=0, kind="stable")[: min(MIXED_TOP_K, len(both))]
    return {
        "offset": float(difference.mean()),
        "offset_of_query": float(np.abs(difference.mean(0)).mean()),
        "spread": float(difference.std()),
        "score_spread": float(midi.std(0).mean()),
        "audio_share": float((first < len(audio)).mean()),
    }


def recordings(bench: Bench) -> dict:
    """Retrieval of the own MIDI, or transcription, by real recordings; `_by_windows` as in `audio_midi`."""
    recorded = [place for place in bench.places if bench.corpus.rows[place].get("audio")]
    if not recorded:
        raise UnsuitableError("no row of this split has a recording.")
    if bench.recordings is None and isinstance(bench.corpus.rows[recorded[0]]["audio"], str):
        raise UnsuitableError("needs the folder below which the corpus's recordings lie: name it with --recordings.")
    examples = bench.note_examples(bench.notes_at(bench.places))
    midi = means(examples)
    relevant = [bench.places.index(place) for place in recorded]
    options = {"bootstrap_samples": bench.bootstrap.samples, "seed": bench.bootstrap.seed}
    scores = {}
    for view in ("plain", "transcribed") if bench.transcribe else ("plain",):
        audio = bench.embed_waveforms(map(bench.recording, recorded), transcribe=view == "transcribed")
        for how, similarity in (("", means(audio) @ midi.T), ("_by_windows", alignments(audio, examples))):
            figures = retrieval_metrics(similarity, relevant, **options)
            own = similarity[np.arange(len(recorded)), relevant]
            figures["ranks"] = [1 + int((row > best).sum()) for row, best in zip(similarity, own, strict=True)]
            scores[view + how] = figures
    chance = _chance(len(recorded), len(midi))
    return {"scores": scores, "baselines": {"chance": dict.fromkeys(scores, chance)}, "settings": {}}


def robustness_audio(bench: Bench) -> dict:
    """Cosine of rendered audio with itself after changes of sound, key and tempo."""
    places = bench.some(bench.places, STABLE_PIECES)
    notes, songs = [excerpt(piece, STABLE_SECONDS) for piece in bench.notes_at(places)], bench.songs_at(places)
    rate, (first, *others) = bench.sampling_rate, bench.need_instruments()

    def played(name, pieces):
        return (bench.instruments[name].render(piece, rate) for piece in pieces)

    clean = list(played(first, notes))
    random = np.random.default_rng(bench.bootstrap.seed)
    changed = {
        "room": (in_a_room(piece, rate, seed=place) for place, piece in zip(places, clean, strict=True)),
        f"noise {-NOISE_DB:g} dB below": (with_noise(piece, random) for piece in clean),
        "MP3": (through_mp3(piece, rate) for piece in clean),
    }
    changed |= {f"played by {name}": played(name, notes) for name in others}
    for step in SEMITONES:
        changed[f"{step:+d} semitones"] = played(first, [transposed(piece, step) for piece in notes])
    for ratio in TEMPO_RATIOS:
        changed[f"tempo x {ratio:g}"] = played(first, [faster(piece, ratio) for piece in notes])
    originals = means(bench.embed_waveforms(clean))
    return {
        "scores": {
            name: stability(originals, means(bench.embed_waveforms(others)), songs, bench.bootstrap)
            for name, others in changed.items()
        },
        "baselines": {"random pairs": random_pairs(originals), "chance": {"recall@1": 1 / len(places)}},
        "settings": {"pieces": len(places), "seconds": STABLE_SECONDS, "instruments": [first, *others]},
    }


def _chance(queries: int, items: int) -> dict:
    """Figures of constant scores."""
    figures = retrieval_metrics(np.zeros((queries, items)), range(queries), bootstrap_samples=0)
    return figures | {f"reverse_{name}": value for name, value in figures.items()} if queries == items else figures


def _rendering(bench: Bench) -> dict:
    (places, *_), (transcribed, _) = bench.rendered, bench.rendered_transcribed
    counts = {"pieces": len(places)} | ({"transcribed_pieces": len(transcribed)} if transcribed else {})
    return counts | {"seconds": bench.audio_seconds, "instrument": bench.need_instruments()[0], "room": True}
