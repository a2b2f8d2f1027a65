"""Training from data sets of `training.build_dataset`: rows with any modalities, recordings, several sources."""

import numpy as np
import pytest

from training import train as training
from training.data.arguments import CorpusArguments
from training.data.corpus import PackedCorpus
from training.data.dataset import WindowSampler
from training.data.sources import TrainingCorpus, open_corpus
from training.loop.batches import BatchCollator

from .test_training_loop import log_of
from .test_training_parts import ROWS, scale_notes
from .training_data import NO_AUGMENTATION, RATE, dataset_row, make_arguments, write_dataset


@pytest.fixture
def mixed(tmp_path):
    """Six rows: both files, MIDI alone, audio alone; with captions, tags or neither; one is of no use."""
    return write_dataset(
        tmp_path / "data",
        [
            dataset_row(0, audio=True, captions=["rainy nocturne"], tags=["Sad", "study-room"]),
            dataset_row(1, audio=True, captions=["loud march", "made"], caption_origins=["given", "generated"]),
            dataset_row(2, tags=["Jazz", "sunday"]),
            dataset_row(3, audio=True, midi=False, captions=["stormy piano"], tags=["study-room"]),
            dataset_row(4, audio=True, midi=False),  # nothing to compare it with
            dataset_row(5, split="valid", audio=True, captions=["slow waltz"]),
        ],
    )


def sampler_of(path, processor, **options):
    options = {"augmentation": NO_AUGMENTATION, "hears_recordings": True} | options
    return WindowSampler(corpus=TrainingCorpus.open(path), processor=processor, **options)


def test_rows_with_any_modalities_are_drawn_and_collated(mixed, tiny_processor):
    sampler = sampler_of(mixed, tiny_processor, batch_size=12)
    examples = [sampler[number] for number in range(24)]
    by_row = {example["id"].split("@")[0]: example for example in examples}
    assert set(by_row) == {"piece 0", "piece 1", "piece 2", "piece 3"}, "of the split, and of some use"
    has = {name: ("rows" in example, "waveform" in example) for name, example in by_row.items()}
    assert has == {"piece 0": (True,) * 2, "piece 1": (True,) * 2, "piece 2": (True, False), "piece 3": (False, True)}
    assert by_row["piece 1"]["caption"] == "loud march", "captions are generated again"
    batch = BatchCollator(processor=tiny_processor, vocabulary=sampler.vocabulary)(examples[:12])
    for name, key in (("midi", "rows"), ("audio", "waveform")):
        assert batch["rows"][name].tolist() == [row for row in range(12) if key in examples[row]]
        assert all(len(value) == len(batch["rows"][name]) for value in batch["blocks"][name].values())


def test_tags_are_facts_and_those_of_ones_own_are_false_where_a_tagged_row_lacks_them(mixed, tiny_processor):
    corpus = open_corpus(mixed)
    vocabulary = TrainingCorpus.open(mixed).vocabulary
    sad, plain, jazz = (vocabulary.labels(corpus.rows[row]) for row in (0, 1, 2))
    assert {"sad", "study-room"} <= sad[0] and {"sunday", "happy"} <= sad[1]
    assert {"jazz", "sunday"} <= jazz[0] and {"study-room", "classical"} <= jazz[1]
    assert "sunday" not in plain[0] | plain[1], "nobody tagged that row"


@pytest.mark.parametrize("semitones", [0, 2])
def test_a_recording_and_its_midi_are_cut_at_the_same_seconds_and_move_together(tmp_path, tiny_processor, semitones):
    path = write_dataset(tmp_path / "data", [dataset_row(1, seconds=60.0, audio=True, captions=["slow"])])
    sampler = sampler_of(path, tiny_processor, recording_semitones=semitones)
    pitches = np.unique(np.concatenate([sampler[number]["keys"] for number in range(8)]))
    assert (len(pitches) > 12) == bool(semitones)
    for number in range(8):
        example = sampler[number]
        samples = np.abs(example["waveform"].astype(float))
        loud = np.flatnonzero(samples > 0.5 * samples.max()) / RATE
        onsets = example["onsets"][(example["onsets"] > 0.1) & (example["onsets"] < example["samples"] / RATE - 0.1)]
        assert len(onsets) > 20
        assert np.abs(onsets[:, None] - loud[None]).min(1).max() < 0.003
        gaps = np.diff(onsets)
        assert np.ptp(gaps) < 0.003 and (semitones or gaps[0] == pytest.approx(0.25, abs=2e-3))


def test_sources_share_every_batch_in_a_fixed_ratio(mixed, tmp_path, tiny_processor):
    PackedCorpus.pack(ROWS[:1], [scale_notes(40)]).save(tmp_path / "packed")
    corpora = [CorpusArguments(mixed, share=3.0), CorpusArguments(str(tmp_path / "packed"), share=1.0)]
    corpus = TrainingCorpus.open(corpora)
    assert corpus.slots(8).count(1) == 2 and corpus.slots(3).count(0) == 2
    assert 1 in corpus.slots(8)[:4] and 1 in corpus.slots(8)[4:], "spread over the processes"
    sampler = WindowSampler(corpus=corpus, processor=tiny_processor, batch_size=8, augmentation=NO_AUGMENTATION)
    for step in range(3):
        drawn = [sampler[8 * step + place]["id"] for place in range(8)]
        assert drawn.count(ROWS[0]["id"]) == 2


def test_a_run_on_rows_of_all_kinds_learns_from_every_pair_and_measures_all_directions(
    mixed, tmp_path, tiny_checkpoint
):
    arguments = make_arguments(
        tmp_path, tiny_checkpoint, mixed,
        stage={"batch_size": 8, "onset_weight": 1.0, "distillation_weight": 1.0},
        validation_steps=2, validation_split="train", recording_semitones=1,
    )  # fmt: skip
    training.train(arguments)
    lines = log_of(arguments.output)
    losses = {"midi_text", "audio_text", "audio_midi", "onset", "distillation"}
    assert losses <= lines[0].keys() and all(np.isfinite(lines[0][name]) for name in losses)
    directions = {key.split()[1] for key in lines[-1] if key.startswith("validation") and "recall" in key}
    assert directions == {
        f"{a}_to_{b}" for a in ("text", "midi", "audio") for b in ("text", "midi", "audio") if a != b
    }


def test_a_folder_saved_by_datasets_is_read_alike(mixed, tmp_path):
    import datasets

    saved = datasets.load_dataset("parquet", data_files=f"{mixed}/data/*.parquet", split="train")
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "disk"))
    first, second = open_corpus(mixed), open_corpus(str(tmp_path / "disk"))
    assert sorted(first.rows, key=str) == sorted(second.rows, key=str)
    row = next(place for place, row in enumerate(second.rows) if row["piece_id"] == "piece 3")
    assert second.recording(row)[:4] == b"fLaC"


@pytest.mark.parametrize(
    ("rows", "message"),
    [([dataset_row(0, split="test")], "no row of split 'train'"), ([dataset_row(1, midi=False)], "nothing to draw")],
)
def test_a_corpus_without_anything_to_draw_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        TrainingCorpus.open(write_dataset(tmp_path / "data", rows))
