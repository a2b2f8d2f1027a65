"""Embedding files, the index, and zero-shot labels."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import torch

from modeling_pianobind import (
    EmbeddingIndex,
    PianoBindModel,
    default_checkpoint,
    describe,
    embed_audio,
    embed_midi,
    embed_pieces,
    embed_text,
)
from modeling_pianobind import embedding_pianobind as embedding
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.labels_pianobind import LABELS
from modeling_pianobind.service.text_tower import TextTower

from .conftest import make_config

TEXTS = ["calm", "a slow, rainy nocturne in the dark", "fast happy ragtime", "jazz waltz " * 60]


def assert_same_rows(first, second):
    assert first.shape == second.shape
    assert (first * second).sum(axis=1).min() > 0.99999


@pytest.fixture(scope="module")
def midi_files(tmp_path_factory, write_midi):
    folder = tmp_path_factory.mktemp("midi")
    lengths = (8, 70, 3, 25, 130)
    return [write_midi(folder / f"{row}.mid", seconds, seed=row) for row, seconds in enumerate(lengths)]


@pytest.fixture(scope="module")
def audio_files(tmp_path_factory, write_audio):
    folder = tmp_path_factory.mktemp("audio")
    lengths = ((6, 16_000), (47, 22_050), (1, 44_100))
    return [
        write_audio(folder / f"{row}.flac", seconds, rate, seed=row) for row, (seconds, rate) in enumerate(lengths)
    ]


class TestEmbedding:
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_midi_alone_equals_midi_among_others(self, tiny_model, tiny_processor, midi_files, batch_size):
        together = embed_midi(tiny_model, tiny_processor, midi_files, batch_size=batch_size)
        alone = [embed_midi(tiny_model, tiny_processor, [path]) for path in midi_files]
        assert_same_rows(together, np.concatenate(alone))

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_audio_alone_equals_audio_among_others(self, tiny_model, tiny_processor, audio_files, batch_size):
        together = embed_audio(tiny_model, tiny_processor, audio_files, batch_size=batch_size)
        alone = [embed_audio(tiny_model, tiny_processor, [path]) for path in audio_files]
        assert_same_rows(together, np.concatenate(alone))

    def test_text_alone_equals_text_among_others(self, tiny_model, tiny_processor):
        together = embed_text(tiny_model, tiny_processor, TEXTS, batch_size=3)
        assert_same_rows(together, np.concatenate([embed_text(tiny_model, tiny_processor, text) for text in TEXTS]))

    def test_reading_by_windows_equals_processor_and_model(self, tiny_model, tiny_processor, midi_files, audio_files):
        with torch.inference_mode():
            for path in midi_files:
                whole = tiny_model(**tiny_processor(midi=path, return_tensors="pt")).midi_embeds.numpy()
                assert_same_rows(embed_midi(tiny_model, tiny_processor, path), whole)
            for path in audio_files:
                whole = tiny_model(**tiny_processor(audio=path, return_tensors="pt")).audio_embeds.numpy()
                assert_same_rows(embed_audio(tiny_model, tiny_processor, path), whole)

    def test_embeddings_are_unit_float32_in_the_order_given(self, tiny_model, tiny_processor, midi_files):
        embeds = embed_midi(tiny_model, tiny_processor, midi_files)
        assert embeds.dtype == np.float32 and embeds.shape == (len(midi_files), 24)
        np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(embed_midi(tiny_model, tiny_processor, midi_files[::-1])[::-1], embeds, atol=1e-5)

    def test_no_file_gives_no_row(self, tiny_model, tiny_processor):
        for embed in (embed_audio, embed_midi, embed_text, embed_pieces):
            assert embed(tiny_model, tiny_processor, []).shape == (0, 24)

    def test_a_piece_is_the_normalised_mean_of_its_files(self, tiny_model, tiny_processor, corpus):
        paths = [corpus / "take.mid", corpus / "march.mid", corpus / "take.flac"]
        pieces = embed_pieces(tiny_model, tiny_processor, paths)
        take = embed_midi(tiny_model, tiny_processor, paths[0]) + embed_audio(tiny_model, tiny_processor, paths[2])
        assert_same_rows(pieces[:1], take / np.linalg.norm(take))
        assert_same_rows(pieces[1:], embed_midi(tiny_model, tiny_processor, paths[1]))

    def test_waveforms_and_midi_content_do_as_well_as_files(self, tiny_model, tiny_processor, midi_files, audio_files):
        waveform, rate = soundfile.read(audio_files[0], dtype="float32")
        from_file = embed_audio(tiny_model, tiny_processor, audio_files[0])
        assert_same_rows(embed_audio(tiny_model, tiny_processor, waveform, sampling_rate=rate), from_file)
        content = midi_files[0].read_bytes()
        assert_same_rows(
            embed_midi(tiny_model, tiny_processor, content), embed_midi(tiny_model, tiny_processor, midi_files[0])
        )

    def test_a_model_in_training_mode_embeds_without_dropout_and_stays_in_training_mode(
        self, tiny_checkpoint, tiny_processor, midi_files
    ):
        model = PianoBindModel.from_pretrained(tiny_checkpoint).train()
        first, second = (embed_midi(model, tiny_processor, midi_files[0]) for _ in range(2))
        assert np.array_equal(first, second) and model.training

    def test_few_windows_of_a_long_recording_are_held_at_once(
        self, tiny_model, tiny_processor, tmp_path, write_audio, monkeypatch
    ):
        path = write_audio(tmp_path / "long.wav", seconds=900)
        made, embedded, ahead = [0], [0], []
        extractor = type(tiny_processor.feature_extractor)
        batch, features = extractor.batch, PianoBindModel.get_audio_features

        def counting_batch(self, windows):
            made[0] += len(windows)
            ahead.append(made[0] - embedded[0])
            return batch(self, windows)

        def counting_features(self, input_features, mask):
            embedded[0] += len(input_features)
            return features(self, input_features, mask)

        monkeypatch.setattr(extractor, "batch", counting_batch)
        monkeypatch.setattr(PianoBindModel, "get_audio_features", counting_features)
        monkeypatch.setattr(embedding, "QUEUE_CHUNKS", 2)
        embed_audio(tiny_model, tiny_processor, path, batch_size=4)
        assert made[0] == embedded[0] == 89
        assert max(ahead) <= 4 * 5

    def test_an_error_in_the_program_is_not_taken_for_a_bad_file(
        self, tiny_model, tiny_processor, midi_files, monkeypatch
    ):
        monkeypatch.setattr(type(tiny_processor.midi_processor), "windows", lambda self, notes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            embed_midi(tiny_model, tiny_processor, midi_files)

    def test_a_checkpoint_without_the_tower_says_so(self, tiny_processor, midi_files):
        model = PianoBindModel(make_config(midi_config=None))
        with pytest.raises(ValueError, match=r"0\.mid: the checkpoint has no midi tower"):
            embed_midi(model, tiny_processor, midi_files[:1])


class TestTextTower:
    def test_numpy_embeds_text_as_the_model_does(self, tiny_checkpoint, tiny_model, tiny_processor):
        assert_same_rows(
            TextTower.open(tiny_checkpoint).embed_text(TEXTS), embed_text(tiny_model, tiny_processor, TEXTS)
        )

    def test_folder_and_model_have_one_fingerprint_and_other_weights_another(self, tiny_checkpoint, tiny_model):
        other = PianoBindModel.from_pretrained(tiny_checkpoint)
        with torch.no_grad():
            other.text_projection.weight[0, 0] += 1e-3
        assert TextTower.open(tiny_checkpoint).fingerprint == model_fingerprint(tiny_model) != model_fingerprint(other)

    def test_half_precision_on_disk_changes_no_fingerprint(self, tiny_checkpoint, tmp_path):
        model = PianoBindModel.from_pretrained(tiny_checkpoint).half()
        shutil.copytree(tiny_checkpoint, tmp_path / "half")
        model.save_pretrained(tmp_path / "half")
        assert TextTower.open(tmp_path / "half").fingerprint == model_fingerprint(model.float())

    def test_other_text_towers_are_left_to_the_model(self, tiny_checkpoint, tmp_path):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["model_type"] = "roberta"
        (folder / "config.json").write_text(json.dumps(config))
        assert TextTower.open(folder) is None
        (folder / "model.safetensors").unlink()
        assert TextTower.open(folder) is None

    def test_both_ways_cut_texts_at_the_same_length(self, tiny_checkpoint, tiny_model, tiny_processor):
        texts = ["calm piano " * 200, "calm piano " * 300]
        cut = TextTower.open(tiny_checkpoint).embed_text(texts)
        np.testing.assert_allclose(cut, embed_text(tiny_model, tiny_processor, texts), atol=1e-5)
        np.testing.assert_array_equal(*cut)


@pytest.fixture
def index(tiny_model, tiny_processor, corpus):
    return EmbeddingIndex.build(tiny_model, tiny_processor, corpus)


class TestIndex:
    def test_files_with_one_stem_are_one_piece_named_by_its_recording(self, index, corpus):
        names = [os.path.relpath(path, corpus) for path in index.paths]
        assert sorted(names) == ["march.mid", os.path.join("more", "waltz.MIDI"), "rain.wav", "take.flac"]
        assert index.failures == []

    def test_a_piece_finds_itself_first_with_the_window_that_fits_best(
        self, index, tiny_model, tiny_processor, corpus
    ):
        query = embed_pieces(tiny_model, tiny_processor, [corpus / "take.mid", corpus / "take.flac"])
        best = index.search(query, top_k=2)[0][0]
        assert best.path == str(corpus / "take.flac") and best.score == pytest.approx(1, abs=1e-5)
        assert (best.start_seconds, best.end_seconds) == (0, pytest.approx(6))
        notes = tiny_processor.midi_processor.windows(
            tiny_processor.midi_processor.read(corpus / "more" / "waltz.MIDI")
        )
        third, third_mask = tiny_processor.midi_processor.pad(notes[0][2:3])
        with torch.inference_mode():
            query = tiny_model.get_midi_features(third, third_mask).numpy()
        hit = next(hit for hit in index.search(query)[0] if hit.path.endswith("waltz.MIDI"))
        assert (hit.start_seconds, hit.end_seconds) == tuple(notes[1][2])

    def test_scores_are_the_cosines_of_the_pieces_in_falling_order(self, index):
        query = np.random.default_rng(0).normal(size=24).astype(np.float32)
        hits = index.search(query * 7)[0]
        cosines = index.embeddings @ query / np.linalg.norm(query)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-6)

    def test_a_saved_index_answers_as_before(self, index, tmp_path, tiny_model):
        index.save(tmp_path / "saved")
        loaded = EmbeddingIndex.load(tmp_path / "saved", tiny_model)
        queries = np.random.default_rng(0).normal(size=(3, 24))
        assert loaded.search(queries) == index.search(queries)
        index.save(tmp_path / "saved")
        assert sorted(path.name.split("-")[0] for path in (tmp_path / "saved").iterdir()) == [
            "embeddings",
            "index.json",
            "rows",
        ]

    def test_only_changed_content_is_embedded_again(
        self, index, tiny_model, tiny_processor, corpus, embedded, write_midi
    ):
        os.utime(corpus / "rain.wav", (1, 1))
        shutil.move(corpus / "take.mid", corpus / "moved.mid")
        again = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=index)
        assert embedded == [] and len(again) == 5
        stamp = os.stat(corpus / "march.mid")
        write_midi(corpus / "march.mid", seed=9)
        os.utime(corpus / "march.mid", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        changed = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=again)
        assert embedded == ["march.mid"]
        fresh = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
        assert fresh.paths == changed.paths
        assert_same_rows(fresh.embeddings, changed.embeddings)

    def test_another_checkpoint_embeds_everything_again(self, index, tiny_model, tiny_processor, corpus, embedded):
        index.fingerprint = "other"
        EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=index)
        assert len(embedded) == 5

    def test_a_bad_file_stops_no_other_and_is_not_read_again(self, tiny_model, tiny_processor, corpus, embedded):
        (corpus / "broken.mid").write_bytes(b"MThd, or so it says")
        first = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
        second = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=first)
        assert len(first) == len(second) == 4 and embedded.count("broken.mid") == 1
        for index in (first, second):
            assert [failure.path for failure in index.failures] == [str(corpus / "broken.mid")]
            assert index.failures[0].message.startswith(str(corpus / "broken.mid"))

    def test_an_interrupt_hands_over_what_is_done(self, tiny_model, tiny_processor, corpus):
        kept = []

        def embed(paths):
            for number, result in enumerate(embedding.embed_files(tiny_model, tiny_processor, paths)):
                if number == 2:
                    raise KeyboardInterrupt
                yield result

        with pytest.raises(KeyboardInterrupt):
            EmbeddingIndex.update(corpus, None, "checkpoint", embed, kept.append)
        assert len(kept[0]) in (1, 2)

    def test_a_folder_without_music_is_refused(self, tiny_model, tiny_processor, tmp_path):
        with pytest.raises(ValueError, match=r"there is no \.mid"):
            EmbeddingIndex.build(tiny_model, tiny_processor, tmp_path)

    def test_hidden_files_are_no_pieces(self, index, tiny_model, tiny_processor, corpus):
        shutil.copy(corpus / "march.mid", corpus / "._march.mid")
        shutil.copytree(corpus / "more", corpus / ".trash")
        assert len(EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=index)) == 4


class TestAddAndSearch:
    @pytest.fixture
    def small(self):
        index = EmbeddingIndex()
        index.add(["c", "a", "b"], np.array([[3.0, 0], [1, 0], [0, 1]]))
        return index

    def test_ties_stand_in_the_order_of_their_paths(self, small):
        assert [hit.path for hit in small.search([[1.0, 0]], top_k=3)[0]] == ["a", "c", "b"]
        assert [hit.path for hit in small.search([[1.0, 0]], top_k=1)[0]] == ["a"]

    def test_added_pieces_have_no_window(self, small):
        hit = small.search([0.0, 1.0])[0][0]
        assert (hit.path, hit.score, hit.start_seconds, hit.end_seconds) == ("b", 1.0, None, None)

    def test_more_hits_than_pieces_gives_all_pieces(self, small):
        assert len(small.search([[1.0, 0], [0, 1]], top_k=99)[1]) == 3

    def test_an_empty_index_finds_nothing_and_can_be_saved(self, tmp_path):
        EmbeddingIndex().save(tmp_path / "empty")
        assert EmbeddingIndex.load(tmp_path / "empty").search([[1.0, 0]]) == [[]]

    def test_ids_may_be_any_text_and_survive_saving(self, small, tmp_path):
        odd = os.fsdecode(b"caf\xe9 \xff.mid")
        small.add([odd, "ピアノ.wav"], np.eye(2))
        small.save(tmp_path / "saved")
        assert EmbeddingIndex.load(tmp_path / "saved").paths == ["c", "a", "b", odd, "ピアノ.wav"]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ([[np.nan, 1]], "row 0 of the query embeddings is 0 throughout or not finite"),
            ([[1, 0], [0, 0]], "row 1 of the query embeddings"),
            ([[1, 0, 0]], "have 3 dimensions, those of the index 2"),
            (np.zeros((1, 1, 2)), "have shape"),
        ],
    )
    def test_a_query_that_cannot_be_compared_is_refused(self, small, query, message):
        with pytest.raises(ValueError, match=message):
            small.search(query)

    def test_fewer_than_one_hit_is_refused(self, small):
        with pytest.raises(ValueError, match="`top_k` is 0"):
            small.search([[1.0, 0]], top_k=0)

    @pytest.mark.parametrize(
        ("ids", "embeds", "message"),
        [
            (["a"], np.ones((1, 2)), "the id 'a' stands twice"),
            (["x", "x"], np.ones((2, 2)), "the id 'x' stands twice"),
            (["x"], np.ones((2, 2)), "1 ids and 2 embeddings"),
            (["x"], np.full((1, 2), np.inf), "not finite"),
            (["x"], np.ones((1, 3)), "3 dimensions"),
        ],
    )
    def test_what_does_not_fit_is_not_added(self, small, ids, embeds, message):
        with pytest.raises(ValueError, match=message):
            small.add(ids, embeds)
        assert len(small) == 3


class TestSavedFiles:
    @pytest.fixture
    def saved(self, tmp_path):
        index = EmbeddingIndex("checkpoint-a")
        index.add(["a", "b"], np.eye(2))
        index.save(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.mark.parametrize("kind", ["rows", "embeddings"])
    def test_a_file_that_was_cut_off_is_noticed(self, saved, kind):
        file = next(saved.glob(f"{kind}-*"))
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(ValueError, match=rf"saved: the index is damaged \({kind}-.* was cut off or changed\)"):
            EmbeddingIndex.load(saved)
        file.unlink()
        with pytest.raises(ValueError, match=r"saved: the index is incomplete .* build the index again"):
            EmbeddingIndex.load(saved)

    @pytest.mark.parametrize("header", [b"", b"{", b"[]", b"{}", b'{"format": "other", "format_version": 2}'])
    def test_a_foreign_header_is_refused(self, saved, header):
        (saved / "index.json").write_bytes(header)
        with pytest.raises(ValueError, match="not the header of an index"):
            EmbeddingIndex.load(saved)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [("format_version", 1, "version 1"), ("dim", 3, "files of 3 dimensions"), ("files", 9, "9 files")],
    )
    def test_a_header_that_differs_from_the_data_is_refused(self, saved, key, value, message):
        header = json.loads((saved / "index.json").read_text())
        (saved / "index.json").write_text(json.dumps(header | {key: value}))
        with pytest.raises(ValueError, match=message):
            EmbeddingIndex.load(saved)

    def test_another_checkpoint_is_refused(self, saved, tiny_model):
        with pytest.raises(ValueError, match="another checkpoint made this index"):
            EmbeddingIndex.load(saved, tiny_model)

    def test_what_is_no_index_is_neither_read_nor_overwritten(self, saved, tmp_path):
        index = EmbeddingIndex.load(saved)
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match="something else than an index"):
            index.save(tmp_path)
        with pytest.raises(ValueError, match="there is a file of that name"):
            index.save(tmp_path / "notes.txt")
        with pytest.raises(ValueError, match="is not a saved index"):
            EmbeddingIndex.load(tmp_path)
        with pytest.raises(FileNotFoundError):
            EmbeddingIndex.load(tmp_path / "missing")
        assert (tmp_path / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("interrupted_at", [0, 1, 2])
    def test_a_save_that_breaks_off_leaves_the_old_index(self, saved, monkeypatch, interrupted_at):
        index = EmbeddingIndex.load(saved)
        index.add(["c"], np.ones((1, 2)))
        replace, done = os.replace, []

        def break_off(*paths):
            if len(done) == interrupted_at:
                raise OSError(28, "No space left on device")
            done.append(paths)
            replace(*paths)

        monkeypatch.setattr(os, "replace", break_off)
        with pytest.raises(OSError, match="No space left"):
            index.save(saved)
        assert EmbeddingIndex.load(saved).paths == ["a", "b"]
        assert not [path for path in saved.iterdir() if path.name.startswith(".")]


class TestDescribe:
    def test_labels_come_best_first_with_their_cosines(self, tiny_model, tiny_processor, corpus):
        ranked = describe(tiny_model, tiny_processor, corpus / "march.mid", top_k=5)
        assert len(ranked) == 5 and {label for label, _ in ranked} <= set(LABELS)
        scores = [score for _, score in ranked]
        assert scores == sorted(scores, reverse=True) and max(map(abs, scores)) <= 1

    def test_own_labels_replace_the_list(self, tiny_model, tiny_processor, corpus):
        ranked = describe(tiny_model, tiny_processor, corpus / "rain.wav", labels=["calm", "fast"])
        assert {label for label, _ in ranked} == {"calm", "fast"}

    @pytest.mark.parametrize("labels", [[], ["calm", " "]])
    def test_empty_labels_are_refused(self, tiny_model, tiny_processor, corpus, labels):
        with pytest.raises(ValueError, match="give at least one, each of at least one word"):
            describe(tiny_model, tiny_processor, corpus / "rain.wav", labels=labels)

    def test_no_label_stands_twice(self):
        assert len(set(LABELS)) == len(LABELS)


def test_the_default_checkpoint_is_a_folder_of_the_package():
    assert default_checkpoint().endswith(os.path.join("modeling_pianobind", "checkpoints", "pianobind-mini"))
