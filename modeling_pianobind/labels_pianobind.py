"""Zero-shot labels: the words that `describe` chooses from, the sentences they are put in, and their ranking."""

from collections.abc import Callable, Sequence

import numpy as np

# The 31 tags of the PIAST data set (arXiv 2411.02551), where "Relaxing/Calm" names one tag.
PIAST_LABELS = (
    "emotional",
    "relaxing, calm",
    "jazz",
    "bright",
    "laid-back",
    "dreamy",
    "happy",
    "new-age",
    "pop-piano cover",
    "mysterious",
    "easy",
    "playful",
    "passionate",
    "upbeat, energetic",
    "intense, grand",
    "dark",
    "sad",
    "tense",
    "ballad",
    "difficult, advanced",
    "swing",
    "epic",
    "speedy",
    "cute",
    "powerful",
    "classical",
    "latin",
    "ragtime",
    "bossa nova",
    "blues",
    "funk",
)
GENRE_LABELS = (
    "baroque",
    "romantic era",
    "impressionist",
    "anime",
    "film",
    "video game",
    "rock",
    "tango",
    "waltz",
    "march",
    "etude",
    "nocturne",
    "fugue",
    "sonata",
    "children's",
    "folk",
    "worship",
    "Christmas",
    "lullaby",
    "minimalist",
)
DESCRIPTOR_LABELS = (
    "slow",
    "fast",
    "low register",
    "high register",
    "quiet, soft",
    "loud",
    "sparse",
    "dense",
    "major key",
    "minor key",
    "sustain pedal",
    "staccato",
    "legato",
    "arpeggios",
    "chordal",
    "wide dynamics",
)
LABELS = (*PIAST_LABELS, *GENRE_LABELS, *DESCRIPTOR_LABELS)

# A label's embedding is the mean over these sentences, which is steadier than that of any one of them.
TEMPLATES = (
    "{label} piano music",
    "a {label} piano piece",
    "this is {label} music, played on the piano",
    "{label}",
)

# Russell's four quadrants as EMOPIA counts them (arXiv 2108.01374): 1 happy, 2 angry, 3 sad, 4 calm.
EMOTION_PROMPTS = {
    1: ("happy, energetic piano music", "cheerful and upbeat piano", "joyful, excited piano piece"),
    2: ("tense, angry piano music", "intense and aggressive piano", "dramatic, agitated piano piece"),
    3: ("sad, dark piano music", "melancholic and gloomy piano", "sorrowful, depressed piano piece"),
    4: ("calm, relaxing piano music", "peaceful and gentle piano", "soothing, tender piano piece"),
}


def label_embeddings(
    embed_text: Callable[[list[str]], np.ndarray], labels: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Embeds labels, each as the mean over `TEMPLATES`.

    Args:
        embed_text: takes a list of texts, gives `(texts, dim)` unit rows.
        labels (`list[str]`, *optional*): `LABELS` by default.
    Returns:
        The labels, and `(labels, dim)` unit rows.
    """
    labels = list(LABELS if labels is None else labels)
    if not labels or any(not isinstance(label, str) or not label.strip() for label in labels):
        raise ValueError(f"the labels are {labels!r}; give at least one, each of at least one word.")
    texts = [template.format(label=label) for label in labels for template in TEMPLATES]
    means = np.asarray(embed_text(texts)).reshape(len(labels), len(TEMPLATES), -1).mean(axis=1)
    return labels, means / np.linalg.norm(means, axis=1, keepdims=True)


def rank_labels(
    embedding: np.ndarray, labels: Sequence[str], label_embeds: np.ndarray, top_k: int, means: np.ndarray | None = None
) -> list[tuple[str, float]]:
    """Ranks labels by their cosine with a piece, best first; equal ones keep their order.

    Args:
        embedding (`np.ndarray` of shape `(dim,)`): unit length.
        label_embeds (`np.ndarray` of shape `(labels, dim)`): unit rows.
        top_k (`int`): how many to return.
        means (`np.ndarray` of shape `(labels,)`, *optional*): subtracted from the cosines: what each label has with
            music in general.
    """
    if top_k < 1:
        raise ValueError(f"`top_k` is {top_k}; it must be at least 1.")
    scores = label_embeds @ embedding - (0 if means is None else means)
    return [(labels[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top_k]]


__all__ = [
    "DESCRIPTOR_LABELS",
    "EMOTION_PROMPTS",
    "GENRE_LABELS",
    "LABELS",
    "PIAST_LABELS",
    "TEMPLATES",
    "label_embeddings",
    "rank_labels",
]
