"""EmbeddingIndex: pieces in the embedding space, searched by brute force, kept in a folder.

Nothing here imports torch until files have to be embedded: searching a saved index takes numpy alone.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint_pianobind import BFLOAT16
from .alignment import Example
from .build import FolderContent, Watch, embed_folder
from .search import MAX_COSINE, SCORE_DECIMALS, rerank_by_alignment, top_pieces
from .shards import load_shards
from .storage import IndexMetadata, damage, save_shard
from .table import Failure, FileTable, IndexShard

if TYPE_CHECKING:
    from ..modeling_pianobind import PianoBindModel
    from ..processing_pianobind import PianoBindProcessor

DTYPES = ("float32", "int8")
RERANKED_PIECES = 500  # candidates whose windows are aligned with an example's


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        path (`str`): the piece's recording if it has one, else its MIDI file, or the id that it was added under.
        score (`float`): cosine between the query and the piece.
        start_seconds, end_seconds (`float` or None): the best matching window of that file; None if the index has no
            windows.
        start_measure, end_measure (`int` or None): the same of a score, as its measures are numbered in print.
        fit (`float` or None): 0 to 1, how well the piece fits compared with background texts and pieces, or by its
            name; None for a search that compares embeddings alone.
    """

    path: str
    score: float
    start_seconds: float | None = None
    end_seconds: float | None = None
    start_measure: int | None = None
    end_measure: int | None = None
    fit: float | None = None


class EmbeddingIndex:
    """Embeddings of pieces and of their windows.

    Files of one folder with one stem (take.mid, take.mp3) are one piece: the mean of their embeddings, normalised.

    Attributes:
        fingerprint (`str`): of the checkpoint that made the embeddings; "" if unknown.
        transcribed (`bool`): whether recordings were also transcribed; see `embed_audio`.
        failures (`list[Failure]`): the files that `build` could not read.
        complete (`bool`): False if it was saved before its folder was done.
    """

    def __init__(
        self,
        fingerprint: str = "",
        table: FileTable | None = None,
        failures: list[Failure] | None = None,
        transcribed: bool = False,
        complete: bool = True,
    ):
        self.fingerprint = fingerprint
        self.transcribed = transcribed
        self.complete = complete
        self.failures = list(failures or [])
        self._set_shards([IndexShard.of(table or FileTable())])

    def _set_shards(self, shards: list[IndexShard]) -> None:
        self.shards, self._joined = shards, None

    @property
    def file_table(self) -> FileTable:
        """All files; of shards, read into memory."""
        if len(self.shards) == 1:
            return self.shards[0].table
        return FileTable.from_rows([row for shard in self.shards for row in shard.table.rows()])

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def dim(self) -> int | None:
        """Width of the embeddings; None while there are none."""
        return next((shard.embeds.shape[1] for shard in self.shards if len(shard)), None)

    @property
    def paths(self) -> list[str]:
        """Path or id of each piece, in the order of `embeddings`."""
        paths = [(list(shard.table.paths), shard.named_by) for shard in self.shards]
        return [names[row] for names, named_by in paths for row in named_by]

    @property
    def names(self) -> list[str]:
        """Title, artist and the like, as the file of each piece states them; "" where it states none."""
        names = [(shard.table.names, shard.named_by) for shard in self.shards]
        names = [(None if inside is None else list(inside), named_by) for inside, named_by in names]
        return ["" if inside is None else inside[row] for inside, named_by in names for row in named_by]

    def path(self, piece: int) -> str:
        """Path or id of one piece, by its place in `paths`."""
        shard, piece = self._located(piece)
        return shard.path(piece)

    def _located(self, piece: int) -> tuple[IndexShard, int]:
        """The shard of a piece, and its number there."""
        for shard in self.shards:
            if piece < len(shard):
                return shard, piece
            piece -= len(shard)
        raise IndexError(f"the index has {len(self)} pieces.")

    @property
    def embeddings(self) -> np.ndarray:
        """`(pieces, dim)` float32, unit length; memory-mapped for a saved index, joined in memory for shards."""
        if self._joined is None:
            filled = [shard.embeds for shard in self.shards if len(shard)]
            self._joined = filled[0] if len(filled) == 1 else np.concatenate(filled or [self.shards[0].embeds])
        return self._joined

    @classmethod
    def build(
        cls,
        model: "PianoBindModel",
        processor: "PianoBindProcessor",
        folder: str | os.PathLike,
        previous: "EmbeddingIndex | None" = None,
        batch_size: int = 16,
        progress: bool | None = False,
        transcribe: bool = False,
        dtype: str = "float32",
    ) -> "EmbeddingIndex":
        """Embeds the MIDI files and recordings below a folder.

        A file that cannot be read is listed in `failures`; the others are embedded.

        Args:
            model (`PianoBindModel`), processor (`PianoBindProcessor`): of one checkpoint.
            folder: searched through all levels for files with an extension of `inputs_pianobind.FORMATS`, in any case.
            previous (`EmbeddingIndex`, *optional*): files whose content it holds are not embedded again, if this
                model made it in the same way.
            batch_size (`int`): windows in one batch of the model.
            progress (`bool`, *optional*): a bar on stderr; None shows it on a terminal only.
            transcribe (`bool`), dtype (`str`): as in `embed_audio`.
        Raises:
            ValueError: there is no such file below the folder.
            OSError: the folder cannot be listed.
            ImportError: `transcribe` needs transkun, which is not installed.
        """
        from ..checkpoint_pianobind import computed_fingerprint, model_fingerprint
        from ..dtype_pianobind import uses_bfloat16
        from ..embedding_pianobind import embed_files

        def embed(paths):
            settings = {"batch_size": batch_size, "progress": progress, "transcribe": transcribe, "dtype": dtype}
            return embed_files(model, processor, paths, **settings)

        fingerprint = computed_fingerprint(model_fingerprint(model), uses_bfloat16(dtype, model.device))
        return cls.update(folder, previous, fingerprint, embed, transcribed=transcribe)

    @classmethod
    def update(
        cls,
        folder: str | os.PathLike,
        previous: "EmbeddingIndex | None",
        fingerprint: str,
        embed: Callable[[list[str]], Iterable],
        save: "Callable[[EmbeddingIndex], None] | None" = None,
        transcribed: bool = False,
        shard: tuple[int, int] | None = None,
        solo_only: bool = False,
        watch: Watch | None = None,
    ) -> "EmbeddingIndex":
        """`build` for callers that load the model only when a file has changed.

        Args:
            folder, embed, shard, solo_only, watch: as in `build.embed_folder`.
            previous (`EmbeddingIndex`, *optional*): counts only if the same checkpoint made it in the same way.
            fingerprint (`str`): of the checkpoint.
            save (*optional*): called with the index of what is done, every minute and when Ctrl-C stops the work.
            transcribed (`bool`): whether `embed` transcribes recordings.
        """

        def index(content: FolderContent, complete: bool) -> EmbeddingIndex:
            return cls(fingerprint, FileTable.from_rows(content.rows), content.failures, transcribed, complete)

        known = FolderContent()
        if previous is not None and (previous.fingerprint, previous.transcribed) == (fingerprint, transcribed):
            known = FolderContent(previous.file_table.rows(), previous.failures)
        keep = None if save is None else lambda content: save(index(content, complete=False))
        return index(embed_folder(folder, known, embed, keep, shard, solo_only, watch), complete=True)

    def add(self, ids: Iterable[str | os.PathLike], embeddings: np.ndarray) -> None:
        """Adds pieces by their embeddings.

        Args:
            ids (`list[str]`): paths or other names, each new to the index.
            embeddings (`np.ndarray` of shape `(len(ids), dim)`): normalised here.
        Raises:
            ValueError: shapes differ, a value is not finite, a row is all zeros, or an id occurs twice.
        """
        ids = [os.fspath(piece) for piece in ids]
        embeds = self._checked(embeddings, "embeddings")
        if len(ids) != len(embeds):
            raise ValueError(f"there are {len(ids)} ids and {len(embeds)} embeddings; give one embedding for each id.")
        taken = {*self.file_table.paths, *self.file_table.pieces}
        for piece in ids:
            if piece in taken:
                raise ValueError(f"the id {piece!r} stands twice; give each piece an id of its own.")
            taken.add(piece)
        dim = embeds.shape[1]
        none = (np.zeros((0, dim), np.float16), np.zeros((0, 2)))
        new = [(piece, piece, "", embed, *none) for piece, embed in zip(ids, embeds, strict=True)]
        self._set_shards([IndexShard.of(FileTable.from_rows(self.file_table.rows() + new))])

    def search(self, query_embeddings: np.ndarray, top_k: int = 10) -> list[list[Hit]]:
        """Finds the pieces that are closest to each query.

        Args:
            query_embeddings (`np.ndarray` of shape `(queries, dim)` or `(dim,)`): of any modality.
            top_k (`int`): hits for each query; all pieces if there are fewer.
        Returns:
            `list[list[Hit]]`: for each query its hits, best first; ties in the order of their paths.
        Raises:
            ValueError: the width differs, a value is not finite, a query is all zeros, or `top_k` is below 1.
        """
        if top_k < 1:
            raise ValueError(f"`top_k` is {top_k}; it must be at least 1.")
        queries = self._checked(query_embeddings, "query embeddings")
        if not len(self):
            return [[] for _ in queries]
        top_k = min(top_k, len(self))
        results = [(shard, top_pieces(shard, queries, top_k)) for shard in self.shards if len(shard)]
        return [
            self._hits(query, top_k, [(shard, *of_query[row]) for shard, of_query in results])
            for row, query in enumerate(queries)
        ]

    def example(self, piece: int) -> Example:
        """A piece of the index by its position in `paths`, for `search_like`."""
        shard, piece = self._located(piece)
        return shard.example(piece)

    def scores_of(self, query: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """Cosines of chosen pieces with a query, `(n,)`.

        Args:
            query (`np.ndarray` of shape `(dim,)`): of any modality.
            pieces (`np.ndarray` of shape `(n,)`): places in `paths`, ascending.
        """
        query, begin, scores = self._checked(query, "query embeddings")[0], 0, []
        for shard in self.shards:
            rows = pieces[(pieces >= begin) & (pieces < begin + len(shard))] - begin
            begin += len(shard)
            scores.append(np.vecdot(shard.embeds[rows], query) if len(rows) else np.zeros(0))
        return np.concatenate(scores)

    def hits_of(self, query: np.ndarray, pieces: Iterable[int]) -> list[Hit]:
        """Chosen pieces as hits of a query, in the order given.

        Args:
            query (`np.ndarray` of shape `(dim,)`): of any modality.
            pieces: places in `paths`.
        """
        query = self._checked(query, "query embeddings")[0]
        located = [self._located(int(piece)) for piece in pieces]
        scores = [round(float(np.vecdot(shard.embeds[piece], query)), SCORE_DECIMALS) for shard, piece in located]
        return [
            _hit(shard, piece, shard.path(piece), score, query)
            for (shard, piece), score in zip(located, scores, strict=True)
        ]

    def subset(self, pieces: np.ndarray) -> "EmbeddingIndex":
        """An index of some pieces, to be searched; not to be saved.

        Args:
            pieces (`np.ndarray` of shape `(n,)`): places in `paths`, ascending.
        """
        index, begin, shards = type(self)(self.fingerprint, None, self.failures, self.transcribed), 0, []
        for shard in self.shards:
            rows = pieces[(pieces >= begin) & (pieces < begin + len(shard))] - begin
            begin += len(shard)
            about = {"embeds": shard.embeds[rows], "named_by": shard.named_by[rows]} if len(shard) else {}
            if len(shard) and shard.noted_by is not None:
                about |= {"noted_by": shard.noted_by[rows]}
            if shard.codes is not None:
                about |= {"codes": shard.codes[rows], "scales": shard.scales[rows]}
            shards.append(replace(shard, **about))
        index._set_shards(shards)
        return index

    def search_like(
        self,
        example: Example,
        top_k: int = 10,
        words: np.ndarray | None = None,
        text_weight: float = 0.5,
        words_share: float | None = None,
    ) -> list[Hit]:
        """Finds the pieces that resemble an example, the same piece in another form first.

        The closest pieces by mean embedding are reranked by the alignment of their windows (`alignment`).

        Args:
            example (`EmbeddedFile` or `Example`): as `embed_example` and `example` give it.
            top_k (`int`): hits; all pieces if there are fewer.
            words (`np.ndarray` of shape `(dim,)`, *optional*): embedding of a text that steers the example.
            text_weight (`float`): 0 to 1, the weight of the words; the example has the rest.
            words_share (`float`, *optional*): deprecated name of `text_weight`, to be removed in 0.3.
        Returns:
            `list[Hit]`: best first; ties in the order of their paths.
        Raises:
            ValueError: as `search`.
        """
        if top_k < 1:
            raise ValueError(f"`top_k` is {top_k}; it must be at least 1.")
        if words_share is not None:
            warnings.warn("`words_share` is called `text_weight` now", FutureWarning, stacklevel=2)
            text_weight = words_share
        weight = 0.0 if words is None else float(text_weight)
        steered = (1 - weight) * example.embedding + (0 if words is None else weight * words)
        query = self._checked(steered, "query embeddings")
        shards = [shard for shard in self.shards if len(shard)]
        count = max(top_k, RERANKED_PIECES)
        ranked = rerank_by_alignment(shards, query, np.linalg.norm(steered), count, example, words, weight)
        if not all(abs(score) <= MAX_COSINE for score, *_ in ranked):
            raise ValueError(
                f"{shards[0].source}: the index is damaged (windows that are not of length 1); build it again."
            )
        return [_hit(shard, piece, path, -score, query[0]) for score, path, shard, piece in ranked[:top_k]]

    def _hits(
        self, query: np.ndarray, top_k: int, candidates: list[tuple[IndexShard, np.ndarray, np.ndarray]]
    ) -> list[Hit]:
        """The best of each shard's candidates: its pieces and their scores."""
        scores = np.concatenate([scores for _, _, scores in candidates])
        # Candidates of an int8 index were chosen by their codes: the float32 rows may be damaged.
        if len(scores) < top_k or np.abs(scores).max() > MAX_COSINE:
            raise ValueError(
                f"{candidates[0][0].source}: the index is damaged (embeddings that are not of length 1); "
                "build it again."
            )
        last = np.partition(scores, -top_k)[-top_k]
        best = [
            (-score, shard.path(piece), shard, piece)
            for shard, pieces, scores in candidates
            for piece, score in zip(pieces[scores >= last], scores[scores >= last].tolist(), strict=True)
        ]
        best.sort(key=lambda candidate: candidate[:2])
        return [_hit(shard, piece, path, -score, query) for score, path, shard, piece in best[:top_k]]

    def _checked(self, vectors: np.ndarray, what: str) -> np.ndarray:
        """A caller's vectors as `(n, dim)` float32 unit rows."""
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
        """Whether both hold the same files with the same content and facts, and the same failures."""

        def known(index):
            table = index.file_table
            about = [
                None if array is None else array.tolist() for array in (table.stamps, table.facts, table.note_bounds)
            ]
            stamps = [tuple(failure.stamp) for failure in index.failures]
            return repr((list(table.paths), list(table.hashes), about, index.failures, stamps))  # where nan equals nan

        mine, others = ((index.fingerprint, index.complete, known(index)) for index in (self, other))
        return mine == others

    def save(self, path: str | os.PathLike, dtype: str = "float32") -> None:
        """Writes the index to a folder; an existing index is replaced atomically.

        Args:
            dtype (`str`): "float32"; or "int8", which adds int8 codes of a quarter of the size. A search then
                reads the codes, and float32 rows only of its candidates: scores stay the same, the file grows by a
                quarter, and a search needs less memory and time.
        Raises:
            ValueError: `path` holds something else, or `dtype` is unknown.
            OSError: it cannot be written.
        """
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
        shard = self.shards[0] if len(self.shards) == 1 else IndexShard.of(self.file_table)
        shard = replace(shard, codes=None, scales=None)
        if dtype == "int8":
            shard.quantize()
        failures = [vars(failure) for failure in self.failures]
        save_shard(path, shard, IndexMetadata(self.fingerprint, self.transcribed, failures, self.complete))

    @classmethod
    def load(
        cls, path: str | os.PathLike, model: "PianoBindModel | None" = None, verify: bool | None = None
    ) -> "EmbeddingIndex":
        """Opens a saved index of any kind; its arrays are memory-mapped.

        Args:
            path: the folder.
            model (`PianoBindModel`, *optional*): embeds the queries; it must be the one that made the index.
            verify (`bool`, *optional*): compare the checksums of all files; by default only of files up to 32 MB, so
                that an index of any size opens quickly.
        Raises:
            ValueError: it is not an index, is damaged, lacks shards, or belongs to another checkpoint.
            OSError: it cannot be read.
        """
        shards, saved = load_shards(path, verify)
        with damage(path):
            failures = [Failure(**failure) for failure in saved.failures]
        index = cls(saved.fingerprint, None, failures, saved.transcribed, saved.complete)
        index._set_shards(shards)
        if model is not None:
            from ..checkpoint_pianobind import model_fingerprint

            index.check_fingerprint(model_fingerprint(model), path)
        return index

    def check_fingerprint(self, fingerprint: str, path: str | os.PathLike) -> None:
        """Refuses a checkpoint that did not make this index; whether in bfloat16 or float32 does not matter."""
        if self.fingerprint and self.fingerprint.removesuffix(BFLOAT16) != fingerprint.removesuffix(BFLOAT16):
            raise ValueError(
                f"{path}: another checkpoint made this index; search with that one, or build the index again."
            )

    def check_transcribed(self, transcribe: bool, path: str | os.PathLike) -> None:
        """Refuses to mix recordings with and without transcription."""
        if self.transcribed != transcribe:
            made, wanted = ("with", "give it") if self.transcribed else ("without", "leave it out")
            raise ValueError(
                f"{path}: this index was made {made} --transcribe; {wanted} here as well, or make another index."
            )


def _hit(shard: IndexShard, piece: int, path: str, score: float, query: np.ndarray) -> Hit:
    windows, spans = shard.table.windows_of(shard.named_by[piece])
    if not len(windows):
        return Hit(path, score)
    best = int(np.argmax(windows.astype(np.float32) @ query))
    start, end = spans[best]
    if not np.isfinite(start + end):
        raise ValueError(f"{shard.source}: the index is damaged (a window of {path} has no seconds); build it again.")
    measures = shard.table.measures_of(shard.named_by[piece])[best].tolist()
    return Hit(path, score, float(start), float(end), *(measures if any(measures) else ()))


__all__ = ["EmbeddingIndex", "Failure", "FileTable", "Hit"]
