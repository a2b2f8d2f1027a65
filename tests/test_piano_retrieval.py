"""The retrieval metric against tables worked out by hand, every order of tied items, and scikit-learn."""

import importlib.util
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score, roc_auc_score

from modeling_pianobind.metric import ranking, tie_groups
from modeling_pianobind.metric.ranking import (
    average_precision,
    embedding_retrieval_metrics,
    locate_relevant,
    macro_average_precision,
    macro_roc_auc,
    retrieval_metrics,
    roc_auc,
)

FOLDER = Path(__file__).parents[1] / "evaluation" / "piano_retrieval"

# Relevant: columns 0, 1, 2 in turn. Ranks from query to item: 1, 3, 2. From item to query: 1, 3, 1.
SCORES = np.array([[0.9, 0.3, 0.1], [0.8, 0.2, 0.5], [0.7, 0.4, 0.6]])
# Query 0 has its relevant items 1 and 3 at ranks 2 and 4; query 1 has its item 0 at rank 1.
SEVERAL = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.1, 0.2, 0.3]])
SEVERAL_RELEVANT = [[1, 3], [0]]


@pytest.fixture(scope="module")
def metric():
    evaluate = pytest.importorskip("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield evaluate.load(str(FOLDER))


def relevance(relevant, shape):
    labels = np.zeros(shape, dtype=int)
    for query, columns in enumerate(relevant):
        labels[query, columns] = 1
    return labels


# --- tables by hand ---


def test_one_relevant_item_per_query_gives_the_figures_worked_out_by_hand():
    result = retrieval_metrics(SCORES, [0, 1, 2], top_k=(1, 2, 3), bootstrap_samples=0)
    assert result == pytest.approx(
        {
            "recall@1": 1 / 3,
            "recall@2": 2 / 3,
            "recall@3": 1.0,
            "mrr": (1 + 1 / 3 + 1 / 2) / 3,
            "median_rank": 2.0,
            "map": (1 + 1 / 3 + 1 / 2) / 3,
            "ndcg@10": (1 + 1 / 2 + 1 / np.log2(3)) / 3,  # discounts of ranks 1, 3 and 2
            "queries": 3,
            "items": 3,
        }
    )


def test_the_reverse_direction_ranks_the_queries_for_each_item():
    result = retrieval_metrics(SCORES, [0, 1, 2], top_k=(1, 2), reverse=True, bootstrap_samples=0)
    assert result["recall@1"] == pytest.approx(1 / 3)
    assert result["reverse_recall@1"] == pytest.approx(2 / 3)
    assert result["reverse_recall@2"] == pytest.approx(2 / 3)
    assert result["reverse_mrr"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert result["reverse_median_rank"] == 1.0
    assert (result["reverse_queries"], result["reverse_items"]) == (3, 3)


def test_several_relevant_items_count_as_a_hit_when_any_of_them_is_in_the_top_k():
    groups = locate_relevant(SEVERAL, SEVERAL_RELEVANT)
    assert groups.hit_rate(1).tolist() == [0, 1]
    assert groups.hit_rate(2).tolist() == [1, 1]
    assert groups.first_rank().tolist() == [2, 1]
    assert groups.reciprocal_rank().tolist() == [0.5, 1]
    assert groups.average_precision() == pytest.approx([(1 / 2 + 2 / 4) / 2, 1])
    ideal = 1 + 1 / np.log2(3)
    assert groups.ndcg(10) == pytest.approx([(1 / np.log2(3) + 1 / np.log2(5)) / ideal, 1])
    assert groups.ndcg(1) == pytest.approx([0, 1])


def test_several_relevant_queries_of_one_item_are_all_used_in_the_reverse_direction():
    scores = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.5]]  # queries 0 and 2 want item 0, at its ranks 1 and 2
    result = retrieval_metrics(scores, [0, 1, 0], reverse=True, top_k=(1,), bootstrap_samples=0)
    assert result["recall@1"] == pytest.approx(2 / 3)
    assert (result["reverse_recall@1"], result["reverse_map"], result["reverse_items"]) == (1, 1, 3)


def test_a_tie_across_the_cut_counts_by_the_share_of_orders_that_hit():
    # Item 1 shares its score with items 2 and 3, below item 0: ranks 2, 3, 4 are equally likely.
    groups = locate_relevant([[0.9, 0.5, 0.5, 0.5, 0.1]], [1])
    assert [groups.hit_rate(k).item() for k in (1, 2, 3, 4, 5)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert groups.first_rank().item() == 3
    assert groups.reciprocal_rank().item() == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert groups.ndcg(10).item() == pytest.approx((1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)) / 3)


def test_two_relevant_items_in_one_tie_follow_the_hypergeometric_distribution():
    groups = locate_relevant([[1, 1, 1, 1]], [[0, 2]])
    assert groups.hit_rate(1).item() == pytest.approx(1 / 2)
    assert groups.hit_rate(2).item() == pytest.approx(1 - 1 / 6)  # C(2, 2) / C(4, 2) of the pairs miss both
    assert groups.hit_rate(3).item() == 1
    assert groups.first_rank().item() == pytest.approx(5 / 3)


@pytest.mark.parametrize("top_k", [1, 5, 10])
def test_a_constant_score_matrix_gives_chance_level(top_k):
    result = retrieval_metrics(np.zeros((20, 20)), range(20), top_k=(top_k,), reverse=True, bootstrap_samples=0)
    assert result[f"recall@{top_k}"] == pytest.approx(top_k / 20)
    assert result[f"reverse_recall@{top_k}"] == pytest.approx(top_k / 20)
    assert result["median_rank"] == 10.5


@pytest.mark.parametrize("seed", range(6))
def test_figures_under_ties_are_the_mean_over_every_order_of_the_tied_items(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(3, size=6)
    relevant = generator.choice(6, size=generator.integers(1, 5), replace=False)
    groups = locate_relevant(scores[None], [relevant])
    # A tiny bonus, in each possible order, breaks the ties and leaves different scores alone.
    broken = np.array([scores + 0.1 * np.array(bonus) / 6 for bonus in permutations(range(6))])
    plain = locate_relevant(broken, [relevant] * len(broken))
    assert (plain.size == 1).all()
    for name, arguments in [("hit_rate", (2,)), ("ndcg", (3,)), *((n, ()) for n in ("first_rank", "reciprocal_rank"))]:
        assert getattr(groups, name)(*arguments).item() == pytest.approx(getattr(plain, name)(*arguments).mean()), name
    labels = relevance([relevant], (1, 6))[0]
    by_sklearn = [average_precision_score(labels, row) for row in broken]
    assert groups.average_precision().item() == pytest.approx(np.mean(by_sklearn))
    assert average_precision(scores, labels) == pytest.approx(np.mean(by_sklearn))


def test_mean_average_precision_equals_mean_reciprocal_rank_with_one_relevant_item_even_under_ties():
    scores = np.random.default_rng(0).integers(4, size=(30, 15))
    result = retrieval_metrics(scores, np.arange(30) % 15, bootstrap_samples=0)
    assert result["map"] == pytest.approx(result["mrr"])


def test_minus_infinity_puts_an_item_last():
    assert locate_relevant([[-np.inf, 0.1, 0.2]], [0]).first_rank().item() == 3


# --- agreement with scikit-learn ---


@pytest.fixture(scope="module")
def random_case():
    generator = np.random.default_rng(7)
    relevant = [generator.choice(40, size=generator.integers(1, 8), replace=False) for _ in range(25)]
    return generator.normal(size=(25, 40)), generator.integers(6, size=(25, 40)), relevant


def test_mean_average_precision_without_ties_is_scikit_learns_label_ranking_average_precision(random_case):
    scores, _, relevant = random_case
    expected = label_ranking_average_precision_score(relevance(relevant, scores.shape), scores)
    assert retrieval_metrics(scores, relevant, bootstrap_samples=0)["map"] == pytest.approx(expected)


def test_ndcg_is_scikit_learns_with_and_without_ties(random_case):
    scores, tied, relevant = random_case
    for matrix in (scores, tied):
        expected = ndcg_score(relevance(relevant, matrix.shape), matrix, k=10)
        assert retrieval_metrics(matrix, relevant, bootstrap_samples=0)["ndcg@10"] == pytest.approx(expected)


def test_roc_auc_is_scikit_learns_with_and_without_ties(random_case):
    scores, tied, relevant = random_case
    labels = relevance(relevant, scores.shape)
    for matrix in (scores, tied):
        assert roc_auc(matrix[0], labels[0]) == pytest.approx(roc_auc_score(labels[0], matrix[0]))
        # Rows taken as columns: each has both classes.
        assert macro_roc_auc(matrix.T, labels.T).mean == pytest.approx(roc_auc_score(labels.T, matrix.T))


def test_average_precision_is_scikit_learns_without_ties(random_case):
    scores, _, relevant = random_case
    labels = relevance(relevant, scores.shape)
    assert average_precision(scores[0], labels[0]) == pytest.approx(average_precision_score(labels[0], scores[0]))
    expected = average_precision_score(labels.T, scores.T)
    assert macro_average_precision(scores.T, labels.T).mean == pytest.approx(expected)


# --- tagging ---


def test_roc_auc_by_hand_counts_a_tie_as_half_a_win():
    # Pairs positive > negative: 0.8 beats 0.3 and 0.5; 0.5 beats 0.3 and ties with 0.5.
    assert roc_auc([0.8, 0.5, 0.5, 0.3], [True, True, False, False]) == pytest.approx(3.5 / 4)
    assert roc_auc([1, 1, 1], [0, 1, 0]) == 0.5


def test_macro_figures_skip_columns_with_one_class_and_name_them():
    labels = [[1, 0, 1], [0, 0, 1], [1, 0, 1]]
    result = macro_roc_auc([[0.9, 0.1, 0.1], [0.5, 0.2, 0.2], [0.1, 0.3, 0.3]], labels)
    assert (result.mean, result.skipped) == (0.5, (1, 2))
    assert result.per_column[0] == 0.5
    assert np.isnan(result.per_column[1:]).all()
    assert macro_average_precision(labels, labels).skipped == (1, 2)


# --- embeddings, blocks, intervals ---


def test_embeddings_give_the_figures_of_their_cosine_matrix():
    generator = np.random.default_rng(3)
    queries, items = generator.normal(size=(12, 5)), generator.normal(size=(12, 5))
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, items)]
    expected = retrieval_metrics(units[0] @ units[1].T, range(12), reverse=True)
    assert embedding_retrieval_metrics(queries, items, range(12), reverse=True) == expected
    expected = retrieval_metrics(queries @ items.T, range(12))
    assert embedding_retrieval_metrics(queries, items, range(12), similarity="dot") == expected


def test_items_with_the_same_embedding_tie_exactly():
    generator = np.random.default_rng(4)
    queries, items = generator.normal(size=(200, 512)), generator.normal(size=(997, 512))
    # Columns at the edge of a matrix product are rounded by another routine than those in the middle.
    items[[5, 300, 995]] = items[996]
    scores = ranking.product_reader(queries, items)(0, 200)
    assert all((scores[:, column] == scores[:, 996]).all() for column in (5, 300, 995))


def test_results_do_not_depend_on_the_block_size(monkeypatch):
    generator = np.random.default_rng(5)
    scores, relevant = generator.integers(9, size=(50, 30)), generator.permutation(np.arange(50) % 30)
    expected = retrieval_metrics(scores, relevant, reverse=True)
    monkeypatch.setattr(tie_groups, "BLOCK_SCORES", 100)
    monkeypatch.setattr(ranking, "BLOCK_DRAWS", 170)
    assert retrieval_metrics(scores, relevant, reverse=True) == expected


def test_half_precision_scores_rank_like_the_same_numbers_in_single_precision():
    scores = np.random.default_rng(6).normal(size=(20, 20)).astype(np.float16)
    assert retrieval_metrics(scores, range(20)) == retrieval_metrics(scores.astype(np.float32), range(20))


def test_bootstrap_intervals_hold_the_figure_repeat_with_the_seed_and_match_the_standard_error():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(400, 400)) + 3 * np.eye(400)
    result = retrieval_metrics(scores, range(400), seed=1)
    for name in ("recall@1", "recall@5", "recall@10", "mrr", "median_rank", "map", "ndcg@10"):
        low, high = result[f"{name}_interval"]
        assert low <= result[name] <= high, name
    assert retrieval_metrics(scores, range(400), seed=1) == result
    assert retrieval_metrics(scores, range(400), seed=2)["mrr_interval"] != result["mrr_interval"]
    # The mean of 400 hits is nearly normal: its 95 % interval is 2 * 1.96 standard errors wide.
    hit = result["recall@10"]
    low, high = result["recall@10_interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(hit * (1 - hit) / 400), rel=0.15)
    narrow = retrieval_metrics(scores, range(400), seed=1, confidence=0.5)["recall@10_interval"]
    assert low < narrow[0] < narrow[1] < high


def test_one_query_has_an_interval_of_no_width():
    assert retrieval_metrics([[0.1, 0.9]], [1])["mrr_interval"] == [1, 1]


# --- refusals ---


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        (np.zeros((0, 3)), [], r"shape \(0, 3\); expected \(queries, items\)"),
        ([], [], r"shape \(0,\)"),
        ([0.1, 0.2], [0, 1], r"shape \(2,\)"),
        ([[0.1, 0.2], [0.3]], [0, 0], "rows of different lengths"),
        ([["a", "b"]], [0], "dtype <U1; expected numbers"),
        ([[0.1, np.nan], [0.1, 0.2]], [0, 1], "NaN, first for query 0 and item 1"),
        (SCORES, [0, 1], "2 entries say what is relevant, and there are 3 queries"),
        (SCORES, [[0], [], [2]], "Query 1 has no relevant item"),
        (SCORES, [0, 1, 3], r"Query 2 has relevant columns \[3\]; expected indices from 0 to 2"),
        (SCORES, [0, -1, 2], r"Query 1 has relevant columns \[-1\]; expected indices from 0 to 2"),
        (SCORES, [0, [1, 1], 2], r"Query 1 has relevant columns \[1, 1\]; expected each once"),
        (SCORES, [0, 1.0, 2], r"Query 1 has relevant columns \[1.0\]; expected whole numbers"),
        (SCORES, np.eye(3, dtype=bool), "Turn a mask into indices with `np.flatnonzero`"),
    ],
)
def test_bad_scores_or_relevant_columns_are_refused_with_value_and_remedy(scores, relevant, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(scores, relevant)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": (1, 0)}, "`top_k` holds 0; expected whole numbers from 1 up"),
        ({"top_k": (2.5,)}, "`top_k` holds 2.5"),
        ({"ndcg_depth": 0}, "`ndcg_depth` holds 0"),
        ({"confidence": 95}, "`confidence` is 95; expected a share between 0 and 1"),
        ({"bootstrap_samples": -1}, "`bootstrap_samples` is -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(SCORES, [0, 1, 2], **options)


def test_the_reverse_direction_refuses_an_item_without_a_query():
    with pytest.raises(ValueError, match=r"1 of 3 items have no relevant query, the first is item 2;.*reverse=False"):
        retrieval_metrics(SCORES, [0, 1, 1], reverse=True)


def test_bad_embeddings_are_refused():
    good = np.eye(3)
    with pytest.raises(ValueError, match="have 3 dimensions and `item_embeddings` 2"):
        embedding_retrieval_metrics(good, good[:, :2], range(3))
    with pytest.raises(ValueError, match="`similarity` is 'l2'"):
        embedding_retrieval_metrics(good, good, range(3), similarity="l2")
    with pytest.raises(ValueError, match="`item_embeddings` row 1 is all zeros"):
        embedding_retrieval_metrics(good, np.diag([1, 0, 1]), range(3))
    with pytest.raises(ValueError, match="`query_embeddings` row 2 holds NaN"):
        embedding_retrieval_metrics(np.diag([1, 1, np.nan]), good, range(3))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1, 1], "one class only"),
        ([0.1, 0.2], [0, 2], "`labels` hold 2; expected 0 or 1"),
        ([0.1, np.nan], [0, 1], "NaN, first for item 1"),
        ([0.1, 0.2, 0.3], [0, 1], r"shape \(3, 1\) and `labels` \(2, 1\)"),
        ([[0.1, 0.2]], [0, 1], "use the `macro_` function"),
    ],
)
def test_bad_labels_are_refused(scores, labels, message):
    for figure in (roc_auc, average_precision):
        with pytest.raises(ValueError, match=message):
            figure(scores, labels)


# --- the `evaluate` metric and its page ---


def test_the_metric_loads_offline_from_its_folder_and_gives_the_figures_of_ranking(metric):
    expected = retrieval_metrics(SEVERAL, SEVERAL_RELEVANT)
    assert metric.compute(predictions=SEVERAL, references=SEVERAL_RELEVANT) == expected
    assert metric.compute(predictions=SEVERAL.tolist(), references=SEVERAL_RELEVANT) == expected


@pytest.mark.parametrize("relevant", [SEVERAL_RELEVANT, [1, 0]])
def test_the_metric_gathers_batches_without_rounding_the_scores(metric, relevant):
    scores = SEVERAL + np.array([[0, 0, 0.1 + 1e-12, 0], [0, 0, 0, 0]])  # item 2 is just above item 1
    for row, columns in zip(scores, relevant, strict=True):
        metric.add_batch(predictions=[row], references=[columns])
    assert metric.compute(reverse=False, seed=3) == retrieval_metrics(scores, relevant, seed=3)


def test_the_metric_takes_embeddings_of_different_numbers_of_queries_and_items(metric):
    generator = np.random.default_rng(8)
    queries, items = generator.normal(size=(4, 6)), generator.normal(size=(9, 6))
    result = metric.compute(query_embeddings=queries, item_embeddings=items, references=range(4), top_k=[3])
    assert result == embedding_retrieval_metrics(queries, items, range(4), top_k=[3])


def test_the_metric_refuses_missing_or_doubled_input_and_works_afterwards(metric):
    with pytest.raises(ValueError, match="`references` are missing"):
        metric.compute(predictions=SCORES)
    with pytest.raises(ValueError, match="There are no scores"):
        metric.compute(references=[0])
    with pytest.raises(ValueError, match="Both embeddings and scores"):
        metric.compute(predictions=SCORES, query_embeddings=SCORES, item_embeddings=SCORES, references=[0, 1, 2])
    metric.add_batch(predictions=SCORES, references=[0, 1, 7])
    with pytest.raises(ValueError, match=r"relevant columns \[7\]"):
        metric.compute()
    metric.add_batch(predictions=SCORES, references=[0, 1, 2])
    assert metric.compute(bootstrap_samples=0)["queries"] == 3


def test_the_page_reads_scores_and_embeddings_and_names_the_line_it_cannot_read(metric, tmp_path):
    spec = importlib.util.spec_from_file_location("piano_retrieval_app", FOLDER / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)

    table = app.make_table(None, app.EXAMPLE_SCORES, "0\n1, 2\n2\n3", False, 0)
    assert [row[:2] for row in table][:2] == [["recall@1", "0.75"], ["recall@5", "1"]]
    both = app.make_table(None, app.EXAMPLE_SCORES, "", True, 100)
    assert all(len(row) == len(app.HEADERS) for row in both)
    assert " to " in both[0][4]

    path = tmp_path / "embeddings.npz"
    np.savez(path, query_embeddings=np.eye(3), item_embeddings=np.eye(3), relevant=[1, 1, 2])
    assert app.make_table(str(path), "", "", False, 0)[0][1] == "0.6667"

    with pytest.raises(ValueError, match="Line 2 of the scores, 'a,b', is not a row of numbers"):
        app.make_table(None, "1,2\na,b", "", False, 0)
    with pytest.raises(ValueError, match="Line 1 of the relevant columns"):
        app.make_table(None, "1,2", "first", False, 0)
    np.savez(path, queries=np.eye(3))
    with pytest.raises(ValueError, match=r"lacks \['item_embeddings', 'query_embeddings'\]"):
        app.make_table(str(path), "", "", False, 0)
