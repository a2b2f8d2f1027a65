"""What training is made of: relations of captions and pieces, facts, captions, augmentation, rendering, the corpus."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindFeatureExtractor
from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.arguments import InstrumentArguments, TrainingArguments
from training.data.audio_bank import AudioBank, augment_log_mel, render_bank
from training.data.augmentation import NoteAugmentation, augment_waveforms
from training.data.captions import choose_facts, write_caption
from training.data.corpus import PackedCorpus
from training.data.dataset import WindowSampler
from training.data.descriptors import descriptor_facts, measure
from training.data.facts import label_facts
from training.data.rendering import FluidInstrument, make_instruments
from training.data.sources import TrainingCorpus
from training.data.tuning import in_tune_share
from training.loop.batches import BatchCollator, StepNumbers, mask_notes
from training.loop.heads import FactHead, MaskedNoteHeads, OnsetHead
from training.loop.losses import Comparison, FactScoreLoss
from training.loop.relations import caption_relations, given_caption_relations, mean_by_piece, same_song

from .training_data import Clicks


def scale_notes(seconds=30.0, gap=0.25, velocity=70) -> PianoNotes:
    """An endless C major scale over two octaves."""
    onset = np.arange(0, seconds, gap)
    steps = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    pitch = 60 + steps[np.arange(len(onset)) % 8]
    full = np.full(len(onset), 0.9 * gap, np.float32)
    return PianoNotes(onset, full, pitch, np.full(len(onset), velocity), np.zeros_like(full))


ROWS = [
    {"id": "a", "source": "ragtime", "song": "01", "genre": ["ragtime"], "title": "A Rag", "velocities": 40},
    {"id": "b", "source": "asap", "song": "02", "genre": ["classical"], "title": "Waltz op. 1", "velocities": 60},
    {"id": "c", "source": "emopia", "song": "03", "emotion_quadrant": 3, "title": "x", "velocities": 50},
]
ROWS[1]["creator"] = "Chopin"
ROWS = [row | {"split": "train"} for row in ROWS]


def test_a_caption_fits_where_all_claims_hold_is_wrong_where_one_fails_and_open_elsewhere():
    #            facts: sad, slow
    claimed = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    true = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    false = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    positives, ignored = caption_relations(claimed, true, false)
    assert positives.tolist() == [[True, False], [True, True], [False, False]]
    assert ignored.tolist() == [[False, False], [False, False], [True, True]]


def test_a_given_caption_is_wrong_for_all_but_equal_captions_versions_and_pieces_with_the_same_tags():
    text_rows, words = torch.tensor([0, 1, 3]), torch.tensor([5, 5, 6])  # captions of pieces 0, 1 and 3
    claimed = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    true = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    song = torch.tensor([1, 2, 3, 4, 4])
    positives, ignored = given_caption_relations(text_rows, words, claimed, true, song)
    assert positives.T.tolist() == [
        [True, True, False, False, False],
        [True, True, False, False, False],
        [False, False, False, True, False],
    ]
    assert ignored.T.tolist() == [
        [False, False, True, False, False],  # piece 2 has all tags of piece 0
        [False, False, False, False, False],
        [False, False, False, False, True],  # piece 4 is a version of piece 3
    ]


def test_versions_of_a_song_are_no_negatives():
    assert same_song(torch.tensor([7, 8]), torch.tensor([7, 7, 8])).tolist() == [
        [True, True, False],
        [False, False, True],
    ]


def test_labels_say_what_holds_what_does_not_and_leave_the_rest_open():
    true, false = label_facts(ROWS[0], {"Chopin"})
    assert "ragtime" in true and "classical" in false and "jazz" not in true | false
    true, false = label_facts(ROWS[1], {"Chopin"})
    assert {"Chopin", "classical", "waltz", "romantic period"} <= true
    assert {"ragtime", "fugue", "baroque"} <= false
    true, false = label_facts(ROWS[2], {"Chopin"})
    assert {"sad", "dark"} <= true and {"happy", "calm"} <= false
    assert not {"ragtime", "classical"} & (true | false)


def test_the_notes_themselves_say_tempo_mode_key_and_dynamics():
    true, false = descriptor_facts(measure(scale_notes(20, gap=0.2, velocity=100), 20))
    assert {"fast", "major", "C major", "loud", "single line"} <= true
    assert {"slow", "minor", "quiet", "A minor", "dense"} & true == set()
    true, false = descriptor_facts(measure(scale_notes(20, gap=1.0, velocity=30), 20))
    assert {"very slow", "quiet", "sparse"} <= true
    assert {"fast", "loud"} <= false


def test_a_caption_words_only_facts_that_it_was_given():
    words = random.Random(0)
    captions = [write_caption(["slow", "ragtime", "minor"], set(), words) for _ in range(50)]
    assert all("ragtime" in caption for caption in captions)
    assert all("minor" in caption for caption in captions)
    assert len(set(captions)) > 25
    assert not any(word in caption for caption in captions for word in ("fast", "major", "happy"))


def test_facts_of_a_caption_are_among_those_that_hold():
    true = {"sad", "slow", "Chopin", "C major", "waltz"}
    words = random.Random(1)
    assert all(set(choose_facts(true, {"Chopin"}, words)) <= true for _ in range(100))


def test_augmented_notes_stay_on_the_keyboard_sorted_and_valid():
    augmentation, generator = NoteAugmentation(), np.random.default_rng(0)
    for _ in range(100):
        notes = augmentation(scale_notes(), generator, played=bool(generator.integers(2)))
        assert np.all(np.diff(notes.onset) >= 0)
        assert notes.pitch.min() >= 21 and notes.pitch.max() <= 108
        assert notes.velocity.min() >= 1 and notes.velocity.max() <= 127
        assert notes.duration.min() > 0 and np.isfinite(notes.pedal).all()


def test_augmentation_that_is_switched_off_changes_nothing():
    off = {name: 0.0 for name in vars(NoteAugmentation()) if name.endswith("_probability")}
    notes = scale_notes()
    same = NoteAugmentation(transpose_semitones=0, tempo_ratio=1.0, **off)(notes, np.random.default_rng(0), True)
    for first, second in zip(vars(notes).values(), vars(same).values(), strict=True):
        assert np.allclose(first, second)


def test_augmented_audio_is_finite_and_differs_from_row_to_row():
    torch.manual_seed(0)
    time = torch.arange(32_000) / 16_000
    waveforms = torch.sin(2 * torch.pi * 440 * time).expand(4, -1) * 0.3
    changed = augment_waveforms(waveforms, 16_000)
    assert torch.isfinite(changed).all()
    assert not torch.allclose(changed[0], changed[1], atol=1e-3)


def test_augmented_spectrograms_are_features_as_the_extractor_gives_them():
    torch.manual_seed(0)
    extractor = PianoBindFeatureExtractor()
    decibels = torch.randint(0, 256, (2, 40, extractor.feature_size), dtype=torch.uint8)
    features = augment_log_mel(decibels, extractor)
    assert features.shape == decibels.shape
    assert features.min() >= 0 and features.amax((1, 2)).tolist() == [1, 1]
    plain = augment_log_mel(decibels, extractor, strength=0.0)
    expected = ((decibels.float() / 255 - decibels.max() / 255) * 100 / extractor.top_db + 1).clamp(min=0)
    assert torch.allclose(plain, expected, atol=6e-3)  # half a decibel, as bfloat16 has it


def test_an_sf2_font_without_fluidsynth_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(ValueError, match=r"piano\.sf2: SF2 files are played by FluidSynth.*SF3"):
        make_instruments([InstrumentArguments(str(tmp_path / "piano.sf2"))])


def test_fluidsynth_plays_the_keys_it_is_told_to():
    font = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
    if not font.exists():
        pytest.skip("Debian's timgm6mb-soundfont is not installed")
    pytest.importorskip("fluidsynth", exc_type=ImportError, reason="libfluidsynth is not installed")
    assert in_tune_share(FluidInstrument(font)) > 0.9


def test_masked_notes_are_replaced_and_predicted_at_their_own_places():
    sizes = (90, 130, 66, 34, 34)
    heads = MaskedNoteHeads(16, sizes)
    torch.manual_seed(0)
    ids = torch.stack([torch.randint(0, size - 2, (4, 64)) for size in sizes], -1)
    masked = torch.from_numpy(np.stack([mask_notes(64, number) for number in range(4)]))
    masked[:, 50:] = False
    changed = heads.replace(ids, masked)
    assert masked.any()
    assert torch.equal(changed[~masked], ids[~masked])
    assert (changed[masked] == torch.tensor(sizes) - 1).all()
    total, count = heads(torch.randn(4, 64, 16), ids, masked)
    assert torch.isfinite(total) and count == masked.sum()


def test_a_quarter_of_the_notes_is_masked_scattered_or_in_stretches():
    masks = [mask_notes(64, number) for number in range(200)]
    changes = [np.count_nonzero(np.diff(mask.astype(int))) for mask in masks]
    assert np.mean(masks) == pytest.approx(0.25, abs=0.03)
    assert min(changes[:50]) < 8 and max(changes[:50]) > 20
    assert len(mask_notes(5, 1)) == 5


def test_struck_keys_stand_in_the_slot_in_which_they_are_struck_and_held_keys_in_every_token_of_theirs():
    head = OnsetHead(16, slots=2)
    keys, onsets = torch.tensor([[39, 0, 87, 5, 6, 7]]), torch.tensor([[0.06, 0.1, 19.95, 25.0, -0.2, 1.0]])
    onsets[0, 5] = float("nan")  # padding
    holds = torch.tensor([[0.01, 0.25, 9.0, 1.0, 0.25, 1.0]])  # the fifth began earlier
    targets = head.targets(keys, onsets, holds, tokens=200, token_seconds=0.1)
    assert targets.shape == (1, 200, 3 * 88)
    struck, held = targets.split([2 * 88, 88], dim=2)
    assert struck.nonzero().tolist() == [[0, 0, 88 + 39], [0, 1, 0], [0, 199, 88 + 87]]
    assert held.nonzero().tolist() == [[0, 0, 6], [0, 0, 39], [0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 199, 87]]


def test_the_loss_of_struck_keys_is_a_sum_over_keys_and_leaves_padding_out():
    head = OnsetHead(16)
    torch.nn.init.zeros_(head.head.weight)
    torch.nn.init.zeros_(head.head.bias)
    hidden, mask = torch.randn(1, 4, 16), torch.tensor([[1, 1, 0, 0]])
    total, count = head(hidden, torch.zeros(1, 4, 2 * 88), mask)
    assert (total / count).item() == pytest.approx(1.3 * 88 * np.log(2), rel=1e-5) and count == 2
    padded = head(hidden, torch.nn.functional.pad(torch.zeros(1, 2, 2 * 88), (0, 0, 0, 2), value=1.0), mask)
    assert torch.equal(padded, torch.stack([total, count]))


def test_each_fact_is_a_question_of_its_own_and_unknown_labels_are_left_out():
    head = FactHead(torch.tensor([True, True, True])).eval()
    head.positive_share.fill_(0.5)
    torch.nn.init.zeros_(head.bias)
    head.scale.data.fill_(0.0)
    embeds, texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    true = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    false = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    # fact 1: right for the first row (cosine 1), wrong for the second (0); fact 2: unknown; fact 3: wrong, cosine 1
    first = (np.log1p(np.exp(-1)) + np.log(2)) / 2
    third = np.log1p(np.exp(1))
    expected = (first + 0.2 * third) / 1.2  # a fact with no positive in the batch counts a fifth
    assert head(embeds, texts, true, false).item() == pytest.approx(expected, abs=1e-6)


def test_rare_positives_count_more():
    head = FactHead(torch.tensor([True])).eval()
    torch.nn.init.zeros_(head.bias)
    head.positive_share.fill_(0.1)  # weight 3 for a positive
    embeds, texts = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    head.scale.data.fill_(0.0)
    loss = head(embeds, texts, torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]])).item()
    assert loss == pytest.approx((3 * np.log1p(np.e) + np.log1p(np.e)) / 4, abs=1e-6)


def test_audio_that_scores_facts_as_its_midi_does_costs_nothing():
    loss = FactScoreLoss(2)
    loss.texts = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    midi = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # of each fact the scores are 1 and 0, their variance 0.5
    compared = Comparison(
        model=SimpleNamespace(_project=lambda tower, texts: texts),
        stage=None,
        embeds={"midi": midi, "audio": midi.flip(0)},
        sums={},
        rows={"midi": torch.tensor([0, 1]), "audio": torch.tensor([1, 0])},
        known={},
    )
    assert loss(compared).item() == 0
    compared.rows["audio"] = torch.tensor([0, 1])  # now every score is off by 1
    assert loss(compared).item() == pytest.approx(1 / 0.5)


def test_windows_of_one_piece_are_averaged_and_lone_windows_left_out():
    embeds = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    mean, flags = mean_by_piece(embeds, torch.tensor([7, 7, 9]), torch.tensor([[1.0], [0.0], [1.0]]))
    assert torch.allclose(mean, torch.tensor([[0.5**0.5, 0.5**0.5]])) and flags.tolist() == [[0.5]]


@pytest.fixture
def sampler(tiny_processor, tmp_path):
    PackedCorpus.pack(ROWS, [scale_notes(60), scale_notes(60, 0.5), scale_notes(25)]).save(tmp_path / "packed")
    corpus = TrainingCorpus.open(str(tmp_path / "packed"), {"ragtime": 1.0, "asap": 1.0, "emopia": 2.0})
    return WindowSampler(corpus=corpus, processor=tiny_processor, seed=3)


def test_an_example_depends_on_its_number_alone(sampler):
    for _ in range(2):
        first, again = sampler[5], sampler[5]
        assert first["caption"] == again["caption"]
        assert np.array_equal(first["rows"], again["rows"])
    assert not np.array_equal(sampler[5]["rows"], sampler[6]["rows"])


def test_sources_come_in_the_ratio_of_their_weights(sampler):
    sources = [sampler[index]["id"] for index in range(400)]
    assert 0.4 < sources.count("c") / 400 < 0.6


def test_a_second_view_is_the_same_music_at_the_same_pitch(sampler):
    sampler.view_share = 1.0
    example = sampler[7]
    first, second = (np.bincount(example[name][:, 0], minlength=88) > 0 for name in ("rows", "view"))
    assert not np.array_equal(example["rows"], example["view"])
    assert (first & second).sum() >= 0.8 * first.sum()


def test_a_bank_gives_back_what_was_rendered_and_moves_notes_with_the_sound(sampler, tmp_path):
    sampler.instruments, sampler.audio_share = [Clicks()], 1.0
    sampler.augmentation = NoteAugmentation(jitter_probability=0, quantise_probability=0)
    extractor = PianoBindFeatureExtractor()
    render_bank(sampler, extractor, tmp_path, windows=3, shard_windows=2)
    bank = AudioBank(tmp_path, sampler.vocabulary, extractor, seed=0)
    assert len(bank) == 3 and sampler[0]["rows"].shape == (*sampler[0]["onsets"].shape, 5)
    for index in range(3):
        example = bank[index]
        onsets = example["onsets"][(example["onsets"] > 0.2) & (example["onsets"] < 10)]
        frames = np.round(onsets / 0.025).astype(int)
        loud = example["decibels"].mean(1)
        assert loud[frames].mean() > 4 * np.median(loud[frames + 4]), "each onset is a click"


def test_a_claim_of_a_caption_is_true_of_its_own_example(sampler):
    for index in range(50):
        example = sampler[index]
        assert np.all(example["true"] >= example["claimed"])
        assert not np.any(example["true"] * example["false"])


def test_a_batch_holds_the_models_own_arguments(sampler, tiny_processor):
    collate = BatchCollator(
        processor=tiny_processor, vocabulary=sampler.vocabulary, batch_size=4, caption_share=0.5, labels=True
    )
    batch = collate([sampler[index] for index in range(4)])
    blocks = batch["blocks"]
    assert blocks["midi"]["midi_ids"].shape[0] == 4 and blocks["midi"]["midi_ids"].shape[2] == 5
    assert blocks["text"]["input_ids"].shape[0] == len(batch["claimed"]) == len(batch["rows"]["text"]) == 2
    assert batch["true"].shape[0] == 4
    assert torch.equal(batch["label_facts"], batch["true"].any(0).nonzero()[:, 0])
    assert blocks["label"]["input_ids"].shape[0] == len(batch["label_facts"])


def test_every_process_makes_its_own_stretch_of_each_batch_and_a_resumed_run_the_steps_that_are_left():
    whole = list(StepNumbers(100, 0, 3, 4))
    assert whole == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110, 111]]
    halves = [list(StepNumbers(100, 0, 3, 4, rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    assert list(StepNumbers(100, 2, 3, 4)) == whole[2:]
    with pytest.raises(ValueError, match="cannot share evenly"):
        StepNumbers(0, 0, 1, 5, 0, 2)


def test_a_corpus_comes_back_from_disk_to_the_millisecond(tmp_path):
    corpus = PackedCorpus.pack(ROWS[:1], [scale_notes(10)])
    corpus.save(tmp_path)
    notes = PackedCorpus.load(tmp_path).notes(0)
    assert np.allclose(notes.onset, scale_notes(10).onset, atol=5e-4)
    assert np.array_equal(notes.pitch, scale_notes(10).pitch)


def test_an_unknown_key_of_a_run_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("checkpoint: a\ncorpus: b\noutput: c\nstages:\n  - {steps: 1, batchsize: 2}\n")
    with pytest.raises(ValueError, match="unknown key batchsize"):
        TrainingArguments.from_yaml(path)
    path.write_text("checkpoint: a\ncorpus: b\n")
    with pytest.raises(ValueError, match="output"):
        TrainingArguments.from_yaml(path)
