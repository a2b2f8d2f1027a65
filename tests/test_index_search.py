"""The search of an index: the same as a plain product, from memory or from the disk, in float32 or int8."""

import json
import threading

import numpy as np
import pyarrow.parquet
import pytest

from modeling_pianobind import EmbeddingIndex
from modeling_pianobind.embedding_pianobind import unit_rows
from modeling_pianobind.index import search
from modeling_pianobind.index import storage as files
from modeling_pianobind.index.table import FileTable

PIECES, DIM, WINDOWS = 1_003, 64, 3  # no multiple of four: the last rows are summed in another way


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plain_search(index, query, top_k):
    """The definition: the cosine of each piece, rounded; ties in the order of their paths."""
    scores = np.round(np.vecdot(index.embeddings, query).astype(np.float64), search.SCORE_DECIMALS)
    paths = index.paths
    best = sorted(range(len(scores)), key=lambda piece: (-scores[piece], paths[piece]))[:top_k]
    return [(paths[piece], scores[piece]) for piece in best]


def paths_and_scores(hits):
    return [(hit.path, hit.score) for hit in hits]


@pytest.fixture(scope="module")
def queries():
    return unit(np.random.default_rng(1).normal(size=(40, DIM)).astype(np.float32))


@pytest.fixture(scope="module")
def index():
    """Pieces with windows; every tenth has two files, and some are copies of others."""
    random = np.random.default_rng(0)
    rows = []
    for piece in range(PIECES):
        for extension in ("mid", "wav") if piece % 10 == 0 else ("mid",):
            windows = unit(random.normal(size=(WINDOWS, DIM))).astype(np.float16)
            embed = unit(windows.astype(np.float32).mean(axis=0))
            if piece % 50 == 49:
                embed = rows[-1][3]
            spans = np.arange(WINDOWS)[:, None] * 10.0 + [0, 20]
            rows.append((f"{piece:05}.{extension}", f"{piece:05}", f"{piece:064}", embed, windows, spans))
    return EmbeddingIndex("checkpoint", FileTable.from_rows(rows))


@pytest.fixture(scope="module")
def saved(index, tmp_path_factory):
    """Folders of the index by their dtype."""
    folders = {dtype: tmp_path_factory.mktemp("saved") / dtype for dtype in ("float32", "int8")}
    for dtype, folder in folders.items():
        index.save(folder, dtype=dtype)
    return folders


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(search, "BLOCK_ROWS", 128)
    monkeypatch.setattr(search, "CONVERTED_ROWS", 48)
    monkeypatch.setattr(files, "GROUP_ROWS", 100)


class TestExactness:
    @pytest.mark.parametrize("top_k", [1, 10, 500, PIECES, PIECES + 5])
    def test_hits_are_those_of_a_plain_product_to_the_last_bit(self, index, queries, small_blocks, top_k):
        assert [paths_and_scores(hits) for hits in index.search(queries[:6], top_k)] == [
            plain_search(index, query, top_k) for query in unit_rows(queries[:6].astype(np.float32))
        ]

    def test_queries_asked_together_find_what_each_finds_alone(self, index, queries, small_blocks):
        assert index.search(queries, 10) == [index.search(query, 10)[0] for query in queries]

    @pytest.mark.parametrize("asked", [1, 3, 40])
    def test_a_saved_index_finds_the_same_with_the_same_windows(self, index, saved, queries, small_blocks, asked):
        loaded = EmbeddingIndex.load(saved["float32"])
        assert loaded.search(queries[:asked], 10) == index.search(queries[:asked], 10)

    def test_copies_are_ties_in_the_order_of_their_paths(self, index, small_blocks):
        piece = index.paths.index("00049.mid")
        first, second = index.search(index.embeddings[piece], 2)[0]
        assert (first.path, second.path) == ("00048.mid", "00049.mid") and first.score == second.score

    def test_many_ties_lose_no_piece(self, small_blocks):
        index = EmbeddingIndex()
        index.add([f"{row:04}" for row in range(999, -1, -1)], np.tile(unit(np.ones(8)), (1_000, 1)))
        assert [hit.path for hit in index.search(np.ones(8), 300)[0]] == [f"{row:04}" for row in range(300)]


class TestInt8:
    @pytest.mark.parametrize("asked", [1, 40])
    @pytest.mark.parametrize("with_usearch", [True, False])
    def test_it_finds_nearly_all_with_exact_scores(
        self, index, saved, queries, small_blocks, monkeypatch, asked, with_usearch
    ):
        if with_usearch:
            pytest.importorskip("usearch")
        else:
            monkeypatch.setattr(search, "_usearch", lambda: None)
        loaded = EmbeddingIndex.load(saved["int8"])
        assert loaded.shards[0].codes.dtype == np.int8
        common = 0
        for start in range(0, len(queries), asked):
            some = queries[start : start + asked]
            for hits, exact in zip(loaded.search(some, 10), index.search(some, 10), strict=True):
                both = {hit.path: hit for hit in hits}.keys() & {hit.path for hit in exact}
                assert [hit for hit in hits if hit.path in both] == [hit for hit in exact if hit.path in both]
                common += len(both)
        assert common / (10 * len(queries)) >= 0.97

    def test_the_first_step_reads_no_float32(self, index, saved, queries, monkeypatch):
        loaded = EmbeddingIndex.load(saved["int8"])
        read = []
        exact = search.exact_scores
        monkeypatch.setattr(
            search,
            "exact_scores",
            lambda embeds, rows, query: (read.append(len(rows)), exact(embeds, rows, query))[1],
        )
        monkeypatch.setattr(loaded.shards[0], "embeds", loaded.shards[0].embeds.view(CountingArray))
        CountingArray.rows = 0
        loaded.search(queries[:1], 10)
        assert len(read) == 1 and read[0] < 100 and CountingArray.rows <= 4 * read[0]

    def test_saving_it_as_float32_again_drops_the_codes(self, saved, tmp_path):
        EmbeddingIndex.load(saved["int8"]).save(tmp_path / "again")
        names = [next(folder.glob("embeddings-*")).name for folder in (tmp_path / "again", saved["float32"])]
        assert names[0] == names[1]

    def test_another_dtype_is_refused(self, index, tmp_path):
        with pytest.raises(ValueError, match="`dtype` is 'int4'; it must be one of float32, int8"):
            index.save(tmp_path / "x", dtype="int4")


class CountingArray(np.ndarray):
    """Counts the rows that are taken of it."""

    rows = 0

    def __getitem__(self, key):
        taken = np.asarray(self)[key]
        CountingArray.rows += len(taken)
        return taken


class TestOpening:
    def test_numbers_are_mapped_and_rows_read_when_asked(self, saved, queries, small_blocks, monkeypatch):
        read = []
        monkeypatch.setattr(
            pyarrow.parquet.ParquetFile,
            "read_row_group",
            lambda file, group, *rest, real=pyarrow.parquet.ParquetFile.read_row_group, **more: (
                read.append(group),
                real(file, group, *rest, **more),
            )[1],
        )
        loaded = EmbeddingIndex.load(saved["float32"])
        table = loaded.shards[0].table
        for array in (loaded.embeddings, table.embeds, table.windows, table.spans):
            assert not array.flags.owndata and array.flags.aligned
        assert read == [] and len(loaded) == PIECES
        hits = loaded.search(queries[0], 3)[0]
        assert len(hits) == 3 and read == []
        assert table.hashes[555] != table.hashes[0] and read == [0]

    def test_a_large_file_is_not_read_through(self, saved, monkeypatch):
        hashed, digest = [], files.file_sha256
        monkeypatch.setattr(files, "file_sha256", lambda path: (hashed.append(path), digest(path))[1])
        monkeypatch.setattr(files, "HASHED_BYTES", 0)
        EmbeddingIndex.load(saved["float32"])
        assert hashed == []
        EmbeddingIndex.load(saved["float32"], verify=True)
        assert len(hashed) == 2

    def test_changing_a_mapped_array_changes_no_file(self, saved):
        loaded = EmbeddingIndex.load(saved["float32"])
        loaded.embeddings[0] = 0
        EmbeddingIndex.load(saved["float32"], verify=True)

    def test_it_stays_open_while_another_index_takes_its_place(self, index, queries, tmp_path):
        index.save(tmp_path / "saved")
        loaded = EmbeddingIndex.load(tmp_path / "saved")
        other = EmbeddingIndex()
        other.add(["only"], np.ones((1, DIM)))
        other.save(tmp_path / "saved")
        assert loaded.search(queries[:2]) == index.search(queries[:2])
        assert len(EmbeddingIndex.load(tmp_path / "saved")) == 1

    def test_threads_may_search_one_index(self, index, saved, queries, small_blocks):
        loaded, wanted, wrong = EmbeddingIndex.load(saved["float32"]), index.search(queries, 20), []

        def work(row):
            if loaded.search(queries[row], 20)[0] != wanted[row]:
                wrong.append(row)

        threads = [threading.Thread(target=work, args=(row,)) for row in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestDamage:
    """Of files too large to be read through when they are opened."""

    @pytest.fixture
    def large(self, index, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "HASHED_BYTES", 0)
        index.save(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.mark.parametrize("kind", ["rows", "embeddings"])
    @pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
    def test_another_size_is_noticed(self, large, kind, change):
        file = next(large.glob(f"{kind}-*"))
        file.write_bytes(change(file.read_bytes()))
        with pytest.raises(ValueError, match="was cut off or changed"):
            EmbeddingIndex.load(large)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
    def test_embeddings_that_are_no_unit_vectors_are_noticed(self, large, queries, value):
        file = next(large.glob("embeddings-*"))
        content = bytearray(file.read_bytes())
        length = int.from_bytes(content[:8], "little")
        start = 8 + length + json.loads(content[8 : 8 + length])["pieces"]["data_offsets"][0]
        content[start : start + 4] = np.float32(value).tobytes()
        file.write_bytes(content)
        query = np.eye(DIM, dtype=np.float32)[0]
        with pytest.raises(ValueError, match=r"saved: the index is damaged .* build it again"):
            EmbeddingIndex.load(large).search(query)
        with pytest.raises(ValueError, match="cut off or changed"):
            EmbeddingIndex.load(large, verify=True)

    @pytest.mark.parametrize("kind", ["rows", "embeddings"])
    def test_any_flipped_byte_is_an_answer_or_one_line(self, large, queries, kind):
        random, file = np.random.default_rng(0), next(large.glob(f"{kind}-*"))
        whole = file.read_bytes()
        places = [
            *range(0, 400, 7),
            *random.integers(0, len(whole), 60).tolist(),
            *range(len(whole) - 300, len(whole), 7),
        ]
        for place in places:
            content = bytearray(whole)
            content[place] ^= 1 << int(random.integers(8))
            file.write_bytes(content)
            try:
                hits = EmbeddingIndex.load(large).search(queries[0])[0]
                assert len(hits) == 10 and all(np.isfinite([hit.score, hit.start_seconds]).all() for hit in hits)
            except ValueError as error:
                assert str(large) in str(error) and "build" in str(error)

    @pytest.mark.parametrize("name", ["../outside.safetensors", "rows-../../x", "/etc/hostname", 7])
    def test_a_header_that_points_elsewhere_is_refused(self, large, name):
        header = json.loads((large / "index.json").read_text())
        header["stored"]["embeddings"]["name"] = name
        (large / "index.json").write_text(json.dumps(header))
        with pytest.raises(ValueError, match="which is not a file of an index"):
            EmbeddingIndex.load(large)

    @pytest.mark.parametrize("stored", [None, [], {}, {"rows": 1, "embeddings": []}])
    def test_a_header_of_another_make_is_refused(self, large, stored):
        header = json.loads((large / "index.json").read_text())
        (large / "index.json").write_text(json.dumps(header | {"stored": stored}))
        with pytest.raises(ValueError, match="damaged"):
            EmbeddingIndex.load(large)
