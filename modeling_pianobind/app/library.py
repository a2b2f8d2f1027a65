"""The corpus of the page: pieces, names, tags, and positions on a map."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..gate_pianobind import Limits
from ..index.alignment import Example
from ..index.duplicates import DEFAULT_CONFIDENCE
from ..index.filters import Filters
from ..index.finder import Finder
from ..index.folder_index import Collection
from ..index.names import common_folder, display_names
from ..index.note_alignment import NoteLine, confidences
from ..inputs_pianobind import SCORE_EXTENSIONS, explain
from ..labels_pianobind import label_embeddings, rank_labels
from ..service.checkpoint import Checkpoint
from ..service.checkpoint_files import checkpoint_file
from ..service.errors import UserError, complain, user_errors
from ..service.piece_heads import EmotionHead
from .music import Midi, Recording, excerpt_around, flac, open_music
from .piano_roll import draw_moods, draw_roll
from .score_page import page_html, score_page
from .synthesis import Instrument
from .uploads import Uploads

TAGS_SHOWN = 5
FILTERS_KEPT = 8  # finders of so many settings of the filters are kept
AXIS_LABELS = 2  # words at each end of a map's axis


@dataclass
class View:
    """A piece as the page shows it.

    Attributes:
        key (`str`): names the piece in requests.
        title, subtitle (`str`): plain text, to be escaped.
        seconds (`float` or None): of the piece; None where its file cannot be read.
        start_seconds, end_seconds (`float`): of the excerpt that is drawn and played.
        window (`tuple[float, float]` or None): the best matching window.
        roll (`str`): SVG, or "" if there is none.
        moods (`str`): SVG of valence and arousal over the same seconds, or "" if the checkpoint tells none.
        tags (`list[tuple[str, float]]`): label, and how far it stands out: 1 for the label that fits best, 0 for the
            middle one of all labels.
        score (`float` or None): cosine with the query.
        fit (`float` or None): 0 to 1, how well it fits; see `Hit`.
        problem (`str`): why there is no roll.
        has_score (`bool`): whether a score of it can be shown.
    """

    key: str
    title: str
    subtitle: str
    seconds: float | None = None
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    window: tuple[float, float] | None = None
    roll: str = ""
    moods: str = ""
    tags: list | tuple = ()
    score: float | None = None
    fit: float | None = None
    problem: str = ""
    has_score: bool = False


@dataclass(frozen=True)
class Answer:
    """What a search of the page found.

    Attributes:
        views (`list[View]`): best first.
        notes (`list[str]`): remarks about them for the visitor, such as that nothing fits well.
    """

    views: list[View]
    notes: list[str]


class Library:
    """A folder or saved index for search, drawing and playback.

    Args:
        path: the folder or index.
        checkpoint (`Checkpoint`): embeds queries and uploads.
        instrument: renders notes, such as `AdditivePiano()`.
        limits (`Limits`): on requests and uploads.
    Attributes:
        map_points (`np.ndarray` of shape `(pieces, 2)`): -1 to 1.
        map_words (`dict[str, str]`): labels of the map's left, right, top and bottom.
        mood_points (`np.ndarray` of shape `(pieces, 2)`, *optional*): -1 to 1 and in the order of valence and
            arousal, but further apart where these are near -1 or 1; None if the checkpoint tells none.
    """

    def __init__(
        self, path: str | os.PathLike, checkpoint: Checkpoint, instrument: Instrument, limits: Limits | None = None
    ):
        collection = Collection(path, checkpoint)
        self.index, self.failures = collection.open()
        if not len(self.index):
            raise UserError(f"{path}: there is no piece in it that can be read; give another folder or index")
        self.checkpoint, self.instrument, self.limits = checkpoint, instrument, limits or Limits()
        self.uploads, self.paths = Uploads(), self.index.paths
        folder = common_folder(self.paths) if collection.saved is not None else path
        self._finder = lru_cache(FILTERS_KEPT)(lambda filters: Finder(self.index, checkpoint, folder, filters=filters))
        self._scores = [number for number, path in enumerate(self.paths) if path.lower().endswith(SCORE_EXTENSIONS)]
        self._scores_of: dict[str, int | None] = {}
        self._number = {path: number for number, path in enumerate(self.paths)}
        with user_errors(path):
            self._names = display_names(self.paths, folder)
        emotion_file = checkpoint_file(checkpoint.name, EmotionHead.file)
        self._emotion = EmotionHead.load(emotion_file, checkpoint.weights_fingerprint)
        self.mood_points = None
        if self._emotion is not None:
            logits = self._emotion.logits(self.index.embeddings)
            self.mood_points = logits / (1 + np.abs(logits))
        self.labels, self._label_embeds = label_embeddings(checkpoint.embed_text)
        self.map_points, self.map_words = _lay_out(self.index.embeddings, self.labels, self._label_embeds)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> tuple[str, str]:
        """Title and subtitle of a piece."""
        return self._names[number]

    def search(self, words: str, example: str = "", text_weight: float = 0.5, top_k: int = 8) -> list[View]:
        """The pieces that fit best among all; see `answer`."""
        return self.answer(words, example, text_weight, top_k=top_k).views

    def answer(
        self,
        words: str,
        example: str = "",
        text_weight: float = 0.5,
        filters: dict[str, str] | None = None,
        top_k: int = 8,
        more: Sequence[str] = (),
        less: Sequence[str] = (),
    ) -> Answer:
        """The pieces that fit best, best first; a piece that serves as the example is left out.

        Args:
            words (`str`): a description, or "".
            example (`str`): key of a piece or upload, or "".
            text_weight (`float`): 0 to 1, the weight of the words; the example has the rest.
            filters (`dict[str, str]`, *optional*): what `Filters.parse` takes, as people write it.
            more, less (each `Sequence[str]`): keys of pieces that got a thumb up or down; see `refine`.
        Raises:
            UserError: there is neither, or one of them cannot be taken.
        """
        words = str(words or "").strip()
        if len(words) > self.limits.characters:
            raise UserError(f"The description has {len(words)} characters; {self.limits.characters} are enough.")
        if not words and not example:
            raise UserError("There is nothing to search for; describe the music, or drop a MIDI file or recording.")
        weight = float(np.clip(text_weight, 0.0, 1.0))
        like = self.example(example) if example else None
        thumbs = {
            side: [self.example(key).embedding for key in keys] for side, keys in (("more", more), ("less", less))
        }
        try:
            finder = self._finder(Filters.parse(**filters or {}))
            result = finder.find(words or None, like, top_k + 1, weight, **thumbs)
        except (OSError, ValueError) as error:  # a filter, thumbs up and down for the same music, or a damaged index
            raise UserError(self._message_without_folders(error)) from error
        views = []
        for hit in [hit for hit in result.hits if str(self._number[hit.path]) != example][:top_k]:
            window = None if hit.start_seconds is None else (hit.start_seconds, hit.end_seconds)
            view = self.view(str(self._number[hit.path]), window)
            view.score, view.fit = hit.score, hit.fit
            views.append(view)
        return Answer(views, result.notes)

    def example(self, key: str) -> Example:
        """A piece or upload, to search by."""
        number = self._piece(key)
        return self.uploads.get(key).example if number is None else self.index.example(number)

    def view(self, key: str, window: tuple[float, float] | None = None) -> View:
        """A piece or upload as the page shows it.

        Raises:
            UserError: there is no such piece.
        """
        number = self._piece(key)
        title, subtitle = (self.uploads.get(key).name, "your file") if number is None else self._names[number]
        view = View(key, title, subtitle, window=window, tags=self._tags(self.example(key).embedding))
        try:
            music = self._music(key)
            excerpt = excerpt_around(music.seconds, window)
            view.seconds, view.roll = music.seconds, draw_roll(music, excerpt, window)
            view.start_seconds, view.end_seconds = excerpt.start_seconds, excerpt.end_seconds
            example = self.example(key)
            if self._emotion is not None and len(example.windows):
                view.moods = draw_moods(excerpt, example.spans, self._emotion.values(example.windows))
            view.has_score = self.score_of(key) is not None
        except (OSError, ValueError) as error:
            view.problem = self._problem(key, error)
        return view

    def score_of(self, key: str) -> int | None:
        """Number of the piece whose score can be shown: the piece itself, or a score of the same notes; else None."""
        number = self._piece(key)
        if number is not None and self.paths[number].lower().endswith(SCORE_EXTENSIONS):
            return number
        if key not in self._scores_of:
            line = NoteLine.of(self.example(key).notes)
            sure = confidences(line, [self.index.example(score).notes for score in self._scores])
            best = int(np.argmax(sure)) if len(sure) else 0
            self._scores_of[key] = self._scores[best] if len(sure) and sure[best] >= DEFAULT_CONFIDENCE else None
        return self._scores_of[key]

    def score(self, key: str, window: tuple[float, float]) -> str:
        """HTML of the page of a piece's score on which a window of the piece begins.

        Raises:
            UserError: there is no such piece, no score of it, or it cannot be drawn.
        """
        score = self.score_of(key)
        if score is None:
            raise UserError("No score in this corpus has the notes of this piece.")
        notes = None if str(score) == key else NoteLine.of(self.example(key).notes)
        try:
            return page_html(score_page(self.paths[score], window, notes), self._names[score][0])
        except (OSError, ValueError) as error:
            raise UserError(self._problem(str(score), error)) from error

    def sound(self, key: str, middle_seconds: float = 0.0) -> bytes:
        """A FLAC file of the excerpt around a moment: the one that `view` draws.

        Raises:
            UserError: there is no such piece, or its file cannot be read.
        """
        try:
            music = self._music(key)
            return flac(music.sound(excerpt_around(music.seconds, (middle_seconds, middle_seconds)), self.instrument))
        except (OSError, ValueError) as error:
            raise UserError(self._problem(key, error)) from error

    def _problem(self, key: str, error: Exception) -> str:
        """Why a piece cannot be shown; the message names no folder of the server."""
        number = self._piece(key)
        path = self.uploads.get(key).name if number is None else self.paths[number]
        if self._is_of_index(error):
            return self._message_without_folders(error)
        return explain(path, error).replace(path, os.path.basename(path))

    def _message_without_folders(self, error: Exception) -> str:
        """What a visitor is told of a failed search; what is wrong with the index itself goes to stderr."""
        if isinstance(error, OSError) or self._is_of_index(error):
            complain(error)
            return "The index of this page cannot be read; please tell whoever runs the page."
        return str(error)

    def _is_of_index(self, error: Exception) -> bool:
        """Whether the message is about the index, and so names a folder of the server."""
        return any(str(error).startswith(f"{shard.source}: ") for shard in self.index.shards)

    def _piece(self, key: str) -> int | None:
        """The number of a corpus piece; None for the key of an upload."""
        number = int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else None
        if number is not None and number >= len(self):
            raise UserError("There is no such piece; reload the page.")
        return number

    def _music(self, key: str) -> Midi | Recording:
        number = self._piece(key)
        return self.uploads.get(key).music if number is None else open_music(self.paths[number])

    def _tags(self, embedding: np.ndarray) -> list[tuple[str, float]]:
        ranked = rank_labels(embedding, self.labels, self._label_embeds, len(self.labels))
        best, middle = ranked[0][1], ranked[len(ranked) // 2][1]
        return [(label, (score - middle) / max(best - middle, 1e-6)) for label, score in ranked[:TAGS_SHOWN]]


def _lay_out(embeds: np.ndarray, labels: list[str], label_embeds: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Principal components of the corpus, and the labels that grow most along each.

    Returns:
        `(pieces, 2)` from -1 to 1, and the words at the four edges.
    """
    centred = embeds - embeds.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    points = centred @ axes[:, [-1, -2]]
    scores = embeds @ label_embeds.T
    words = {}
    for axis, (low, high) in enumerate((("left", "right"), ("bottom", "top"))):
        spread = scores.std(axis=0) * points[:, axis].std() + 1e-12
        growth = ((scores - scores.mean(axis=0)) * points[:, axis : axis + 1]).mean(axis=0) / spread
        order = np.argsort(growth)
        words[low], words[high] = (
            " · ".join(labels[row] for row in rows) for rows in (order[:AXIS_LABELS], order[::-1][:AXIS_LABELS])
        )
    # Ranks mixed in: a piece far out would otherwise squeeze all others into one spot.
    ranks = points.argsort(axis=0).argsort(axis=0) / max(1, len(points) - 1) * 2 - 1
    scaled = points / np.maximum(np.abs(points).max(axis=0), 1e-9)
    return 0.5 * ranks + 0.5 * scaled, words


__all__ = ["Answer", "Library", "View"]
