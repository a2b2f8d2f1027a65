"""Facts measured from notes: tempo, density, register, dynamics, mode, touch and texture."""

import numpy as np

from modeling_pianobind.index.facts import KEY_NAMES, transposed_profiles
from modeling_pianobind.notes_pianobind import PianoNotes

CHORD_SECONDS = 0.035  # onsets closer than this are one chord

# fact -> (measure, low, high): true at or above `high`, false at or below `low`, unknown in between. The other
# way round where low > high. The numbers are quantiles (about 0.5 and 0.75) of 20 s windows of the open piano corpus.
THRESHOLDS = {
    "fast": ("onset_rate", 3.4, 4.4),
    "slow": ("onset_rate", 3.0, 2.4),
    "very fast": ("onset_rate", 4.4, 6.2),
    "very slow": ("onset_rate", 2.4, 1.8),
    "dense": ("note_rate", 6.0, 8.6),
    "sparse": ("note_rate", 5.2, 4.0),
    "low register": ("mean_pitch", 60.5, 57.0),
    "high register": ("mean_pitch", 62.5, 65.5),
    "quiet": ("mean_velocity", 70.0, 58.0),
    "loud": ("mean_velocity", 72.0, 85.0),
    "wide dynamics": ("velocity_spread", 12.0, 16.0),
    "steady dynamics": ("velocity_spread", 9.0, 5.0),
    "wide range": ("pitch_range", 38.0, 45.0),
    "narrow range": ("pitch_range", 36.0, 31.0),
    "chordal": ("chord_size", 1.75, 2.25),
    "single line": ("chord_size", 1.6, 1.35),
    "staccato": ("touch", 0.78, 0.65),
    "legato": ("touch", 0.9, 1.3),
    "pedalled": ("pedal_share", 0.1, 0.35),
    "dry": ("pedal_share", 0.2, 0.02),
    "major": ("major_margin", -0.02, 0.12),
    "minor": ("major_margin", 0.02, -0.1),
    "even rhythm": ("rhythm_spread", 0.45, 0.3),
    "free rhythm": ("rhythm_spread", 0.5, 0.75),
    "dissonant": ("dissonance", 0.09, 0.14),
}


def measure(notes: PianoNotes, seconds: float) -> dict[str, float]:
    """Measures a stretch of music.

    Args:
        notes (`PianoNotes`): at least one note.
        seconds (`float`): how long the stretch is.
    Returns:
        `dict`: rates in events a second, pitches in semitones, velocities as in MIDI; `key` and `minor_key` are the
        tonic's pitch class of the best major and minor key.
    """
    onset, duration = notes.onset, np.maximum(notes.duration, 0.03)
    starts = np.flatnonzero(np.diff(onset, prepend=-np.inf) > CHORD_SECONDS)
    gaps = np.diff(onset[starts])
    weights = np.minimum(duration, 2.0)
    histogram = np.bincount(notes.pitch % 12, weights=weights, minlength=12)
    major, minor = (_key_scores(histogram, profile) for profile in transposed_profiles().reshape(2, 12, 12))
    low, high = np.quantile(notes.pitch, (0.02, 0.98))
    shares = histogram / histogram.sum()
    intervals = np.array([(shares * np.roll(shares, -step)).sum() for step in (1, 6)])
    span = max(seconds, 1.0)
    return {
        "onset_rate": len(starts) / span,
        "note_rate": len(notes) / span,
        "mean_pitch": float(np.average(notes.pitch, weights=weights)),
        "mean_velocity": float(notes.velocity.mean()),
        "velocity_spread": float(notes.velocity.std()),
        "pitch_range": float(high - low),
        "chord_size": len(notes) / len(starts),
        "touch": float(np.median(notes.duration[starts[:-1]] / gaps)) if len(gaps) else 1.0,
        "pedal_share": float((notes.pedal > 0.05).mean()),
        "rhythm_spread": float(gaps.std() / gaps.mean()) if len(gaps) > 3 else 0.6,
        "major_margin": float(major.max() - minor.max()),
        "dissonance": float(2 * intervals[0] + intervals[1]),
        "key": int(major.argmax()),
        "minor_key": int(minor.argmax()),
        "key_score": float(max(major.max(), minor.max())),
    }


def _key_scores(histogram: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Correlation of a pitch-class histogram with the twelve transpositions of a key profile."""
    centred = histogram - histogram.mean()
    return profiles @ centred / max(np.linalg.norm(centred), 1e-9)


def descriptor_facts(measures: dict[str, float]) -> tuple[set[str], set[str]]:
    """Measures -> the facts that hold and the facts that do not; what is in neither set is open."""
    true, false = set(), set()
    for fact, (name, low, high) in THRESHOLDS.items():
        value = measures[name] if high > low else -measures[name]
        low, high = (low, high) if high > low else (-low, -high)
        if value >= high:
            true.add(fact)
        elif value <= low:
            false.add(fact)
    if measures["note_rate"] > 10.0 and measures["pitch_range"] > 45.0:
        true.add("difficult")
    if measures["key_score"] > 0.75 and abs(measures["major_margin"]) > 0.05:
        is_major = measures["major_margin"] > 0
        tonic = measures["key"] if is_major else measures["minor_key"]
        key = f"{KEY_NAMES[tonic]} {'major' if is_major else 'minor'}"
        true.add(key)
        false |= {f"{name} {mode}" for name in KEY_NAMES for mode in ("major", "minor")} - {key}
    return true, false
