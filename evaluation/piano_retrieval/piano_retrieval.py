"""`piano_retrieval`, an `evaluate` metric: retrieval figures with ties, intervals and several relevant items."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from modeling_pianobind.metric.ranking import embedding_retrieval_metrics, retrieval_metrics

# `evaluate` copies only the files that this script itself imports, and ranking.py needs this one. It would take a
# comment on the line of an import for the address of the file.
from modeling_pianobind.metric.tie_groups import RelevantGroups

__all__ = ["PianoRetrieval", "RelevantGroups"]

_DESCRIPTION = """\
Retrieval figures of a model that embeds piano audio, MIDI and text (or any two kinds of things) in one space:
recall@k, mean reciprocal rank, median rank, mean average precision and nDCG@k, for queries against items and the
reverse, with bootstrap intervals. Several items may be relevant to one query. Equal scores count by expected value.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (array of shape `(queries, items)`): scores, higher is better.
    references (`list[int]` or `list[list[int]]`): for each query the column, or columns, of its relevant items.
    query_embeddings (array of shape `(queries, dim)`), item_embeddings (array of shape `(items, dim)`): in place of
        `predictions`; the score matrix is then computed in blocks and never held as a whole.
    similarity (`str`): "cosine" (default) or "dot", for embeddings.
    reverse (`bool`): also rank the queries for each item; every item then needs a relevant query. Default False.
    top_k (`list[int]`): the k of recall@k. Default [1, 5, 10].
    ndcg_depth (`int`): the k of nDCG@k. Default 10.
    bootstrap_samples (`int`): draws of the queries for the intervals; 0 leaves them out. Default 1000.
    confidence (`float`): share of the draws inside an interval. Default 0.95.
    seed (`int`): seed of the draws. Default 0.
Returns:
    recall@k: share of the queries with at least one relevant item among their k best (hit rate), 0 to 1.
    mrr: mean over the queries of 1 / rank of the best relevant item, 0 to 1.
    median_rank: median over the queries of the rank of the best relevant item, 1 is best.
    map: mean over the queries of their average precision, 0 to 1.
    ndcg@k: mean over the queries of nDCG@k with gains 0 and 1, 0 to 1.
    <name>_interval: [low, high] of each figure above, bootstrap percentiles over the queries.
    queries, items: how many there were.
    reverse_<name>: the same with items as queries, if asked.
Raises:
    ValueError: empty input, NaN, shapes that do not fit, a query with no relevant item, an index out of range.
Examples:
    >>> metric = evaluate.load("evaluation/piano_retrieval")
    >>> scores = [[0.9, 0.1, 0.3], [0.2, 0.1, 0.8]]
    >>> results = metric.compute(predictions=scores, references=[0, 1], bootstrap_samples=0)
    >>> results["recall@1"], results["median_rank"]
    (0.5, 2.0)
"""

_CITATION = """\
@inproceedings{mcsherry2008computing,
  title = {Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores},
  author = {McSherry, Frank and Najork, Marc},
  booktitle = {Advances in Information Retrieval (ECIR)},
  year = {2008}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PianoRetrieval(evaluate.Metric):
    """Hands scores or embeddings to `ranking.py`, where each figure is defined."""

    def _info(self) -> evaluate.MetricInfo:
        # Double precision: rounding to single would tie scores that differ.
        scores = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": scores, "references": datasets.Sequence(datasets.Value("int64"))}),
                datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
            ],
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Computes the figures from what is passed, or from what `add_batch` gathered; see the class for arguments.

        Without gathered batches the arrays go straight to the figures: the base class would write the scores to disk
        and read them back as Python lists, tens of bytes a score.
        """
        gathered = self.writer is not None or self.num_process > 1
        from_embeddings = "query_embeddings" in kwargs or "item_embeddings" in kwargs
        if gathered and not from_embeddings:
            return super().compute(predictions=predictions, references=references, **kwargs)
        if gathered or (from_embeddings and predictions is not None):
            raise ValueError(
                "Both embeddings and scores were given; expected one of them. Pass `query_embeddings`, "
                "`item_embeddings` and `references` in one `compute`, or scores as `predictions` or by `add_batch`."
            )
        return self._compute(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        query_embeddings: Any = None,
        item_embeddings: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        if references is None:
            raise ValueError(
                "`references` are missing; expected one entry per query, the column or columns of its relevant items. "
                "If item i answers query i, pass `references=range(number_of_queries)`."
            )
        if predictions is not None:
            return retrieval_metrics(predictions, references, **options)
        if query_embeddings is None or item_embeddings is None:
            raise ValueError(
                "There are no scores; expected `predictions` of shape (queries, items), or both `query_embeddings` "
                "and `item_embeddings`. Pass one or the other."
            )
        return embedding_retrieval_metrics(query_embeddings, item_embeddings, references, **options)
