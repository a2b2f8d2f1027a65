"""EmbeddingIndex: pieces in the embedding space, searched by brute force, kept in a folder.

Nothing here imports torch until files have to be embedded: searching a saved index takes numpy alone.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from .index_files_pianobind import load_table, save_table
from .inputs_pianobind import AUDIO_EXTENSIONS, MIDI_EXTENSIONS, content_hash, explain, list_files, piece_of

SCORE_DECIMALS = 6  # cosines closer than this are ties: two copies of a file must not be ordered by rounding


@dataclass(frozen=True)
class Hit:
    """A piece that a search found.

    Attributes:
        path (`str`): the piece's recording if it has one, else its MIDI file, or the id that it was added under.
        score (`float`): cosine between the query and the piece.
        start_seconds, end_seconds (`float` or None): the window of that file that fits the query best; None where the
            index knows no windows.
    """

    path: str
    score: float
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass
class Failure:
    """A file that could not be read: `message` is one line with the file, what is wrong and what to do."""

    path: str
    message: str
    content_hash: str = ""


@dataclass
class FileTable:
    """The files of an index, one array entry or row a file.

    Attributes:
        paths (`list[str]`): or ids.
        pieces (`list[str]`): files with the same piece are averaged.
        hashes (`list[str]`): SHA-256 of the content; "" for ids.
        embeds (`np.ndarray` of shape `(files, dim)`): float32, unit length.
        windows (`np.ndarray` of shape `(all windows, dim)`): float16, unit length; half precision halves the memory,
            and only chooses a hit's window.
        spans (`np.ndarray` of shape `(all windows, 2)`): start and end in seconds.
        bounds (`np.ndarray` of shape `(files + 1,)`): a file's windows are those from its bound to the next.
    """

    paths: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    embeds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    windows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    bounds: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    def windows_of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.bounds[row], self.bounds[row + 1])
        return self.windows[part], self.spans[part]

    @classmethod
    def from_rows(cls, rows) -> "FileTable":
        """Makes a table of `(path, piece, hash, embed, windows, spans)` rows."""
        if not rows:
            return cls()
        paths, pieces, hashes, embeds, windows, spans = (list(column) for column in zip(*rows, strict=True))
        bounds = np.cumsum([0, *map(len, windows)])
        return cls(paths, pieces, hashes, np.stack(embeds), np.concatenate(windows), np.concatenate(spans), bounds)

    def rows(self) -> list[tuple]:
        return [
            (self.paths[row], self.pieces[row], self.hashes[row], self.embeds[row], *self.windows_of(row))
            for row in range(len(self.paths))
        ]


class EmbeddingIndex:
    """Embeddings of pieces and of their windows.

    Files of one folder with one stem (take.mid, take.mp3) are one piece: the mean of their embeddings, normalised.

    Attributes:
        fingerprint (`str`): of the checkpoint that made the embeddings; "" where that is unknown.
        transcribed (`bool`): whether recordings were transcribed as well; see `embed_audio`.
        failures (`list[Failure]`): the files that `build` could not read.
    """

    def __init__(
        self,
        fingerprint: str = "",
        table: FileTable | None = None,
        failures: list[Failure] | None = None,
        transcribed: bool = False,
    ):
        self.fingerprint = fingerprint
        self.transcribed = transcribed
        self.failures = list(failures or [])
        self._table = table or FileTable()
        self._group()

    def _group(self):
        """Averages the files of each piece, and chooses the file that names it."""
        table = self._table
        self._embeds, self._named_by = table.embeds, np.arange(len(table.paths))
        names, piece = np.unique(np.array(table.pieces, dtype=object), return_inverse=True)
        if len(names) == len(table.pieces):
            return
        sums = np.zeros((len(names), table.embeds.shape[1]), np.float64)
        np.add.at(sums, piece, table.embeds)
        self._embeds = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        self._named_by = np.full(len(names), -1)
        for row in sorted(range(len(piece)), key=lambda row: (_is_midi(table.paths[row]), table.paths[row])):
            if self._named_by[piece[row]] < 0:
                self._named_by[piece[row]] = row

    def __len__(self) -> int:
        return len(self._named_by)

    @property
    def dim(self) -> int | None:
        """Width of the embeddings; None while there are none."""
        return self._embeds.shape[1] if len(self) else None

    @property
    def paths(self) -> list[str]:
        """What names each piece, in the order of `embeddings`."""
        return [self._table.paths[row] for row in self._named_by]

    @property
    def embeddings(self) -> np.ndarray:
        """`(pieces, dim)` float32, unit length."""
        return self._embeds

    @classmethod
    def build(
        cls, model, processor, folder, previous=None, batch_size=16, progress=False, transcribe=False
    ) -> "EmbeddingIndex":
        """Embeds the MIDI files and recordings below a folder.

        A file that cannot be read stops no other: it is noted in `failures`.

        Args:
            model (`PianoBindModel`), processor (`PianoBindProcessor`): of one checkpoint.
            folder: searched through all levels for .mid .midi .wav .flac .mp3 .ogg, in any case.
            previous (`EmbeddingIndex`, *optional*): files whose content it holds are not embedded again, if this
                model made it in the same way.
            batch_size (`int`): windows in one batch of the model.
            progress (`bool`, *optional*): a bar on stderr; None shows it on a terminal only.
            transcribe (`bool`): as in `embed_audio`.
        Raises:
            ValueError: there is no such file below the folder.
            OSError: the folder cannot be listed.
            ImportError: `transcribe` needs transkun, which is not installed.
        """
        from .checkpoint_pianobind import model_fingerprint
        from .embedding_pianobind import embed_files

        def embed(paths):
            settings = {"batch_size": batch_size, "progress": progress, "transcribe": transcribe}
            return embed_files(model, processor, paths, **settings)

        return cls.update(folder, previous, model_fingerprint(model), embed, transcribed=transcribe)

    @classmethod
    def update(
        cls,
        folder,
        previous: "EmbeddingIndex | None",
        fingerprint: str,
        embed: Callable,
        on_interrupt=None,
        transcribed: bool = False,
    ) -> "EmbeddingIndex":
        """`build` for callers that load the model only when a file has changed.

        Args:
            folder, previous: as in `build`.
            fingerprint (`str`): of the checkpoint; what `previous` has of another one is not used.
            embed: takes a list of paths, yields `(position, EmbeddedFile)`; called only if there is work.
            on_interrupt (*optional*): called with the index of what is done, when Ctrl-C stops the work.
            transcribed (`bool`): whether `embed` transcribes; what `previous` has of the other way is not used.
        """
        paths = list_files(folder)
        if not paths:
            extensions = " ".join((*MIDI_EXTENSIONS, *AUDIO_EXTENSIONS))
            raise ValueError(f"{folder}: there is no {extensions} file in it; give a folder with music.")
        if previous is None or (previous.fingerprint, previous.transcribed) != (fingerprint, transcribed):
            previous = cls(fingerprint)
        known = {(row[2], _is_midi(row[0])): row for row in previous._table.rows()}
        failed = {(failure.path, failure.content_hash): failure for failure in previous.failures}

        rows, failures, hashes, changed = {}, [], {}, []
        with ThreadPoolExecutor() as pool:
            for path, found in zip(paths, pool.map(_try_hash, paths), strict=True):
                if isinstance(found, OSError):
                    failures.append(Failure(path, explain(path, found)))
                elif (found, _is_midi(path)) in known:
                    rows[path] = (path, piece_of(path), *known[found, _is_midi(path)][2:])
                elif (path, found) in failed:
                    failures.append(failed[path, found])
                else:
                    hashes[path] = found
                    changed.append(path)

        def index():
            ordered = [rows[path] for path in paths if path in rows]
            by_path = sorted(failures, key=lambda failure: failure.path)
            return cls(fingerprint, FileTable.from_rows(ordered), by_path, transcribed)

        try:
            for position, file in embed(changed) if changed else ():
                path = changed[position]
                if file.error is not None:
                    # What an OSError stopped may work the next time; what the content itself lacks will not.
                    kept = "" if isinstance(file.error, OSError) else hashes[path]
                    failures.append(Failure(path, explain(path, file.error), kept))
                else:
                    windows = file.windows.astype(np.float16)
                    rows[path] = (path, piece_of(path), hashes[path], file.embedding, windows, file.spans)
        except KeyboardInterrupt:
            if on_interrupt is not None:
                on_interrupt(index())
            raise
        return index()

    def add(self, ids, embeddings) -> None:
        """Adds pieces whose embeddings exist already.

        Args:
            ids (`list[str]`): paths or other names, each of them new to the index.
            embeddings (`np.ndarray` of shape `(len(ids), dim)`): brought to unit length.
        Raises:
            ValueError: shapes differ, a value is not finite, a row is 0 throughout, or an id stands twice.
        """
        ids = [os.fspath(one) for one in ids]
        embeds = self._checked(embeddings, "embeddings")
        if len(ids) != len(embeds):
            raise ValueError(f"there are {len(ids)} ids and {len(embeds)} embeddings; give one embedding an id.")
        taken = {*self._table.paths, *self._table.pieces}
        for one in ids:
            if one in taken:
                raise ValueError(f"the id {one!r} stands twice; give each piece an id of its own.")
            taken.add(one)
        dim = embeds.shape[1]
        none = (np.zeros((0, dim), np.float16), np.zeros((0, 2)))
        new = [(one, one, "", embed, *none) for one, embed in zip(ids, embeds, strict=True)]
        self._table = FileTable.from_rows(self._table.rows() + new)
        self._group()

    def search(self, query_embeddings, top_k: int = 10) -> list[list[Hit]]:
        """Finds the pieces that are closest to each query.

        Args:
            query_embeddings (`np.ndarray` of shape `(queries, dim)` or `(dim,)`): of any modality.
            top_k (`int`): hits for each query; all pieces where there are fewer.
        Returns:
            `list[list[Hit]]`: for each query its hits, best first; ties in the order of their paths.
        Raises:
            ValueError: the width differs, a value is not finite, a query is 0 throughout, or `top_k` is below 1.
        """
        if top_k < 1:
            raise ValueError(f"`top_k` is {top_k}; it must be at least 1.")
        queries = self._checked(query_embeddings, "query embeddings")
        if not len(self):
            return [[] for _ in queries]
        return [self._search_one(query, min(top_k, len(self))) for query in queries]

    def _search_one(self, query, top_k) -> list[Hit]:
        scores = np.round((self._embeds @ query).astype(np.float64), SCORE_DECIMALS)
        last = np.partition(scores, -top_k)[-top_k]
        best = sorted(np.flatnonzero(scores >= last), key=lambda piece: (-scores[piece], self._path(piece)))
        return [self._hit(piece, float(scores[piece]), query) for piece in best[:top_k]]

    def _path(self, piece) -> str:
        return self._table.paths[self._named_by[piece]]

    def _hit(self, piece, score, query) -> Hit:
        windows, spans = self._table.windows_of(self._named_by[piece])
        if not len(windows):
            return Hit(self._path(piece), score)
        start, end = spans[np.argmax(windows.astype(np.float32) @ query)]
        return Hit(self._path(piece), score, float(start), float(end))

    def _checked(self, vectors, what: str) -> np.ndarray:
        """`(n, dim)` float32 unit rows of what a caller gave."""
        vectors = np.asarray(vectors, np.float32)
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise ValueError(f"the {what} have shape {vectors.shape}; it must be (n, dim).")
        if self.dim not in (None, vectors.shape[1]):
            raise ValueError(
                f"the {what} have {vectors.shape[1]} dimensions, those of the index {self.dim}; "
                "use the checkpoint that made the index."
            )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
        if len(bad):
            raise ValueError(f"row {bad[0]} of the {what} is 0 throughout or not finite; embed it again.")
        return vectors / norms

    def same_files(self, other: "EmbeddingIndex") -> bool:
        """Whether both hold the same files with the same content, and the same failures."""
        mine, others = self._table, other._table
        same = (mine.paths, mine.hashes, self.failures) == (others.paths, others.hashes, other.failures)
        return same and self.fingerprint == other.fingerprint

    def save(self, path) -> None:
        """Writes the index to a folder; an index that is there is replaced in one step, so that none is ever lost.

        Raises:
            ValueError: there is something else at `path`.
            OSError: it cannot be written.
        """
        failures = [vars(failure) for failure in self.failures]
        save_table(path, self._table, self.fingerprint, failures, self.transcribed)

    @classmethod
    def load(cls, path, model=None) -> "EmbeddingIndex":
        """Reads a saved index.

        Args:
            path: the folder.
            model (`PianoBindModel`, *optional*): what will embed the queries, to be told if it is another one.
        Raises:
            ValueError: it is no index, is damaged or cut off, or belongs to another checkpoint.
            OSError: it cannot be read.
        """
        columns, fingerprint, failures, transcribed = load_table(path)
        index = cls(fingerprint, FileTable(**columns), [Failure(**failure) for failure in failures], transcribed)
        if model is not None:
            from .checkpoint_pianobind import model_fingerprint

            index.check_fingerprint(model_fingerprint(model), path)
        return index

    def check_fingerprint(self, fingerprint: str, path) -> None:
        """Refuses a checkpoint that did not make this index."""
        if self.fingerprint and self.fingerprint != fingerprint:
            raise ValueError(
                f"{path}: another checkpoint made this index; search with that one, or build the index again."
            )

    def check_transcribed(self, transcribe: bool, path) -> None:
        """Refuses recordings embedded in another way than those of this index."""
        if self.transcribed != transcribe:
            made, wanted = ("with", "give it") if self.transcribed else ("without", "leave it out")
            raise ValueError(
                f"{path}: this index was made {made} --transcribe; {wanted} here as well, or make another index."
            )


def _is_midi(path) -> bool:
    return os.path.splitext(path)[1].lower() in MIDI_EXTENSIONS


def _try_hash(path):
    try:
        return content_hash(path)
    except OSError as error:
        return error


__all__ = ["EmbeddingIndex", "Failure", "FileTable", "Hit"]
