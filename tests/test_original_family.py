"""The published PianoBind's towers and inputs, against plain formulas (`original_reference`)."""

import dataclasses
import math

import numpy as np
import pytest
import symusic
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.convert_original_checkpoint import convert_tensors
from modeling_pianobind.original.presets import (
    TEXT_SETTINGS,
    original_audio_config,
    original_config,
    original_feature_extractor,
    original_midi_config,
    original_midi_processor,
    original_text_config,
)
from modeling_pianobind.relative_attention_pianobind import relative_key_query_attention
from tests import original_reference as reference

EXACT = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def tensors():
    return reference.published_state_dict()


@pytest.fixture(scope="module")
def model(tensors):
    config, weights, _ = convert_tensors(tensors, "trimodal")
    model = PianoBindModel(config)
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="module")
def processor():
    """The published input side, with a word-level tokenizer that has RoBERTa's special tokens."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "calm", "slow", "rainy", "jazz"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **{
            "bos_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
    )
    return PianoBindProcessor(original_feature_extractor(), tokenizer, original_midi_processor(), **TEXT_SETTINGS)


def random_words(notes, seed):
    random = np.random.default_rng(seed)
    words = np.stack([random.integers(0, size - 2, notes) for size in reference.FIELDS], axis=1)
    return torch.from_numpy(words)


def make_waveform(seconds, seed=0):
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    tones = sum(np.sin(2 * np.pi * hertz * time) * np.exp(-(time % 2.0)) for hertz in (220.0, 277.2, 1318.5, 5000.0))
    return (0.1 * tones + 0.001 * random.standard_normal(len(time))).astype(np.float32)


def make_score(seed, notes=300, resolution=480, tracks=2, tempos=((0, 120.0),)):
    """A random score, and its tracks as lists of `(start, length, pitch)`."""
    random = np.random.default_rng(seed)
    score = symusic.Score(resolution)
    written = []
    for number in range(tracks):
        track, plain = symusic.Track(program=0, is_drum=False, name=str(number)), []
        for start in random.integers(0, notes * 90 // tracks, notes // tracks):
            start = int(start) if random.random() < 0.5 else int(start) // 60 * 60  # on the grid, and halfway
            length, pitch = int(random.integers(1, 4200)), int(random.integers(21, 109))
            length = length if random.random() < 0.5 else length // 30 * 30 + 30
            plain.append((start, length, pitch))
        for start, length, pitch in plain:
            track.notes.append(symusic.Note(start, length, pitch, 80))
        score.tracks.append(track)
        written.append(plain)
    for tick, beats in tempos:
        score.tempos.append(symusic.Tempo(tick, beats))
    return score, written


def test_audio_tower_equals_the_plain_resnet(model, tensors):
    mel = torch.randn(2, 128, 626, generator=torch.Generator().manual_seed(1)) * 20 - 40
    with torch.no_grad():
        ours = model.get_audio_features(mel.transpose(1, 2))
    expected = torch.stack([reference.audio_embedding(tensors, window) for window in mel])
    torch.testing.assert_close(ours, expected, **EXACT)


@pytest.mark.parametrize("notes", [1, 7, 16])
def test_midi_tower_equals_attention_written_as_a_loop(model, tensors, notes):
    words = random_words(notes, seed=notes)
    with torch.no_grad():
        ours = model.get_midi_features(words[None])[0]
    torch.testing.assert_close(ours, reference.midi_embedding(tensors, words), **EXACT)


def test_midi_hidden_states_equal_those_of_the_loop_on_every_place(model, tensors):
    words = torch.cat([random_words(9, seed=3), torch.tensor([reference.PAD_WORD] * 7)])
    mask = (words[:, 0] != 2).long()
    with torch.no_grad():
        ours = model.midi_model(words[None], mask[None])[0]
    part = {name.removeprefix("midi_backbone.midibert."): value for name, value in tensors.items()}
    torch.testing.assert_close(ours, reference.midi_hidden(part, words), **EXACT)


def test_text_tower_equals_roberta_with_its_mean_over_77_places(model, processor, tensors):
    batch = processor(text=["calm", "slow rainy jazz"], return_tensors="pt")
    with torch.no_grad():
        ours = model.get_text_features(**batch)
    expected = [reference.text_embedding(tensors, ids) for ids in ([0, 5, 2], [0, 6, 7, 8, 2])]
    torch.testing.assert_close(ours, torch.stack(expected).detach(), **EXACT)


@pytest.mark.parametrize("variant", ["trimodal", "audio_text", "midi_text"])
def test_loss_is_the_mean_of_the_pairs_with_text(variant):
    tensors = reference.published_state_dict(variant, seed=2)
    config, weights, _ = convert_tensors(tensors, variant)
    model = PianoBindModel(config).eval()
    model.load_state_dict(weights)
    mels = torch.randn(2, 626, 128, generator=torch.Generator().manual_seed(5)) * 10
    words = torch.stack([random_words(16, seed) for seed in range(2)])
    ids = torch.tensor([[0, 5, 2] + [0] * 74, [0, 6, 2] + [0] * 74])
    mask = torch.tensor([[1] * 3 + [0] * 74] * 2)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if variant != "midi_text":
        inputs["input_features"] = mels
    if variant != "audio_text":
        inputs["midi_ids"] = words
    with torch.no_grad():
        loss = model(**inputs, return_loss=True).loss
        text = torch.stack([reference.text_embedding(tensors, row[:3].tolist()) for row in ids])
        losses = []
        if variant != "midi_text":
            audio = torch.stack([reference.audio_embedding(tensors, mel.T) for mel in mels])
            losses.append(reference.clip_loss(audio, text, 1 / 0.07))
        if variant != "audio_text":
            midi = torch.stack([reference.midi_embedding(tensors, row) for row in words])
            losses.append(reference.clip_loss(midi, text, 1 / 0.07))
    torch.testing.assert_close(loss, sum(losses) / len(losses), **EXACT)


def test_a_missing_tower_is_named():
    config, weights, _ = convert_tensors(reference.published_state_dict("midi_text"), "midi_text")
    model = PianoBindModel(config)
    model.load_state_dict(weights)
    with pytest.raises(ValueError, match="no audio tower, only midi and text"):
        model.get_audio_features(torch.zeros(1, 626, 128))


def test_parameters_add_up_to_those_of_the_published_model():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    with torch.device("meta"):
        config = original_config(original_audio_config(), original_midi_config(), original_text_config())
        model = PianoBindModel(config)
    assert count(model.audio_model) == 2_439_176
    language_heads = sum(768 * size + size for size in reference.FIELDS)
    dead_midi = 30_522 * 768 + 768 * 768 + 768 + 512 * 768 + language_heads
    token_types = 2 * 768  # the first stands in the input projection's bias, the second is never read
    text_pooler = 768 * 768 + 768
    assert count(model) + dead_midi + token_types + text_pooler == 239_237_817
    audio_text = count(model.audio_model) + count(model.text_model) + text_pooler + (256 + 768) * 512 + 1
    assert audio_text == 127_609_097
    midi_text = count(model.midi_model) + dead_midi + token_types + count(model.text_model) + text_pooler
    assert midi_text + 2 * 768 * 512 + 1 == 236_667_569


@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 130])
def test_relative_attention_equals_its_formula_at_lengths_around_its_blocks(length):
    random = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, 3, length, 8, generator=random) for _ in range(3))
    table = torch.randn(2 * 130 - 1, 8, generator=random)
    mask = torch.ones(2, 1, 1, length, dtype=torch.bool)
    mask[1, ..., length // 2 + 1 :] = False
    place = torch.arange(length)
    distance = table[place[:, None] - place[None] + 129]  # (length, length, head size)
    terms = ("bhid,bhjd->bhij", q, k), ("bhid,ijd->bhij", q, distance), ("bhjd,ijd->bhij", k, distance)
    scores = sum(torch.einsum(*term) for term in terms) / math.sqrt(8)
    expected = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
    torch.testing.assert_close(relative_key_query_attention(q, k, v, table, mask), expected, **EXACT)


def test_relative_attention_has_the_gradients_of_its_formula():
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, 5, 4, generator=random, dtype=torch.float64) for _ in range(3)]
    table = torch.randn(11, 4, generator=random, dtype=torch.float64)
    mask = torch.tensor([1, 1, 1, 1, 0], dtype=torch.bool).view(1, 1, 1, 5)
    for tensor in (*inputs, table):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: relative_key_query_attention(*given, mask), (*inputs, table))


def test_notes_beyond_the_positions_are_refused(model):
    with pytest.raises(ValueError, match="holds 17 notes, more than the 16"):
        model.get_midi_features(random_words(17, seed=0)[None])


def test_a_window_of_other_length_is_refused(model):
    with pytest.raises(ValueError, match="600 frames"):
        model.get_audio_features(torch.zeros(1, 600, 128))


def test_mel_equals_the_plain_formula_with_empty_bands_above_half_of_the_rate(processor):
    waveform = make_waveform(20.0)
    batch = processor(audio=waveform, sampling_rate=16_000, return_tensors="pt")
    assert batch["input_features"].shape == (1, 1, 626, 128)
    expected = reference.mel_decibels(waveform)
    np.testing.assert_allclose(batch["input_features"][0, 0].T.numpy(), expected, atol=5e-3)
    floor = batch["input_features"].max() - 100
    assert (batch["input_features"][..., 116:] == torch.clamp(floor, min=-100)).all()


def test_audio_embedding_from_the_waveform_equals_the_plain_formulas(model, processor, tensors):
    waveform = make_waveform(12.5, seed=4)
    with torch.no_grad():
        ours = model.get_audio_features(**processor(audio=waveform, sampling_rate=16_000, return_tensors="pt"))
    padded = np.concatenate([waveform, np.zeros(320_000 - len(waveform), np.float32)])
    mel = torch.from_numpy(reference.mel_decibels(padded)).float()
    torch.testing.assert_close(ours[0], reference.audio_embedding(tensors, mel), **EXACT)


def test_mel_filters_equal_those_of_torchaudio(processor):
    functional = pytest.importorskip("torchaudio").functional
    expected = functional.melscale_fbanks(513, 0.0, 11_025.0, 128, 16_000, norm=None, mel_scale="htk")
    assert torch.equal(processor.feature_extractor.float32_filters(), expected)


def test_20_seconds_are_one_window_and_more_are_their_mean(model, processor):
    waveform = make_waveform(21.0)
    extractor = processor.feature_extractor

    def embed(samples):
        with torch.no_grad():
            return model.get_audio_features(**processor(audio=samples, sampling_rate=16_000, return_tensors="pt"))[0]

    window = extractor.log_mel(torch.from_numpy(waveform[None, :320_000]))
    with torch.no_grad():
        alone = model.get_audio_features(window)[0]
    assert torch.equal(embed(waveform[:320_000]), alone)
    starts = (0, 160_000)
    mean = torch.stack([embed(waveform[start : start + 320_000]) for start in starts]).mean(0)
    torch.testing.assert_close(embed(waveform), mean / mean.norm(), **EXACT)


@pytest.mark.parametrize("seed", range(8))
def test_compound_words_equal_the_plain_loop_token_for_token(seed):
    score, tracks = make_score(seed, tracks=1 + seed % 3)
    midi = original_midi_processor()
    with np.errstate(all="raise"):
        words = midi.rows(midi.read(score))
    assert words.tolist() == reference.compound_words(tracks)[0]


def test_compound_words_of_one_early_note_stand_on_the_first_place():
    score, tracks = make_score(0, notes=1, tracks=1)
    tracks[0][0] = (70, 90, 60)
    score.tracks[0].notes = symusic.core.NoteTickList([symusic.Note(70, 90, 60, 80)])
    midi = original_midi_processor()
    assert midi.rows(midi.read(score)).tolist() == reference.compound_words(tracks)[0] == [[0, 0, 38, 0]]


def test_other_resolutions_are_rescaled_to_480():
    score, tracks = make_score(3, resolution=96)
    rescaled = [[(start * 5, length * 5, pitch) for start, length, pitch in track] for track in tracks]
    midi = original_midi_processor()
    assert midi.rows(midi.read(score)).tolist() == reference.compound_words(rescaled)[0]


def test_windows_begin_and_end_with_bars_as_in_the_plain_loop():
    tempos = ((0, 96.0), (7000, 140.0))
    score, tracks = make_score(5, notes=600, tracks=2, tempos=tempos)
    words, bar_ticks = reference.compound_words(tracks)
    beat = [60 / beats / 480 for _, beats in tempos]
    seconds = [round(min(tick, 7000) * beat[0] + max(tick - 7000, 0) * beat[1], 2) for tick in bar_ticks]
    midi = original_midi_processor(max_notes=256)
    windows, spans = midi.windows(midi.read(score))
    ids, mask = midi.pad(windows)
    assert len(windows) > 2 and ids.shape[1] == 256
    for row, (start, _) in enumerate(spans):
        assert ids[row].tolist() == reference.compound_window(words, seconds, start, start + 20.0, most=256)
    assert torch.equal(mask, (ids[..., 0] != 2).long())


def test_a_piece_of_one_bar_keeps_its_notes():
    score = symusic.Score(480)
    score.tracks.append(symusic.Track(program=0, is_drum=False))
    score.tracks[0].notes = symusic.core.NoteTickList([symusic.Note(tick, 100, 60, 80) for tick in (0, 480, 960)])
    midi = original_midi_processor()
    windows, _ = midi.windows(midi.read(score))
    assert [len(window) for window in windows] == [3]


def test_long_midi_is_the_mean_of_its_windows_each_padded_by_itself(model):
    score, _ = make_score(6, notes=120)
    midi = original_midi_processor(max_notes=16, window_seconds=4.0, hop_seconds=2.0)
    windows, _ = midi.windows(midi.read(score))
    assert len(windows) > 2
    batch = midi([score, make_score(7, notes=4)[0]], return_tensors="pt")
    with torch.no_grad():
        whole = model.get_midi_features(**batch)
        ids, mask = midi.pad(windows)
        mean = model.get_midi_features(ids, mask).mean(0)
        alone = model.get_midi_features(**midi(make_score(7, notes=4)[0], return_tensors="pt"))
    torch.testing.assert_close(whole[0], mean / mean.norm(), **EXACT)
    torch.testing.assert_close(whole[1], alone[0], **EXACT)


def test_notes_in_seconds_cannot_become_compound_words():
    score, _ = make_score(0)
    midi = original_midi_processor()
    notes = midi.read(score)
    assert midi.read(notes) is notes
    plain = type(notes).__mro__[1](*(getattr(notes, field.name) for field in dataclasses.fields(notes)[:5]))
    with pytest.raises(ValueError, match="do not know their bars"):
        midi.rows(plain)
    with pytest.raises(ValueError, match="cannot be read back"):
        midi.notes(midi.rows(notes))


def test_a_crop_counts_its_bars_from_its_own_start():
    score, _ = make_score(1, notes=400)
    midi = original_midi_processor()
    notes = midi.read(score)
    cropped = notes.crop(5.0, 15.0)
    inside = (notes.onset >= 5.0) & (notes.onset < 15.0)
    np.testing.assert_allclose(cropped.grid_seconds, notes.grid_seconds[inside] - 5.0)
    words = midi.rows(cropped)
    assert words[0, 0] == 0 and (words[:, 1:] == midi.rows(notes)[inside, 1:]).all()


def test_pitches_that_the_vocabulary_lacks_are_left_out_and_nothing_else_is_refused():
    score, _ = make_score(0, notes=1, tracks=1)
    score.tracks[0].notes = symusic.core.NoteTickList([symusic.Note(0, 100, 21, 80), symusic.Note(0, 100, 22, 80)])
    midi = original_midi_processor()
    assert midi.rows(midi.read(score)).tolist() == [[0, 0, 0, 1]]
    score.tracks[0].notes = symusic.core.NoteTickList([symusic.Note(0, 100, 108, 80)])
    with pytest.raises(ValueError, match="between MIDI pitch 22 and 107"):
        midi.read(score)


def test_text_is_cut_and_filled_to_77_with_id_0_and_mask_0(processor):
    batch = processor(text=["calm", "slow " * 100], return_tensors="pt")
    assert batch["input_ids"].shape == (2, 77)
    assert batch["input_ids"][0].tolist() == [0, 5, 2] + [0] * 74
    assert batch["attention_mask"][0].tolist() == [1] * 3 + [0] * 74
    assert batch["input_ids"][1].tolist() == [0] + [6] * 75 + [2]


def test_settings_of_the_input_side_come_back_from_disk(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = PianoBindProcessor.from_pretrained(tmp_path)
    assert loaded.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
    assert loaded.midi_processor.to_dict() == processor.midi_processor.to_dict()
    assert {name: getattr(loaded, name) for name in TEXT_SETTINGS} == TEXT_SETTINGS
    assert torch.equal(
        loaded(text="calm", return_tensors="pt")["input_ids"], processor(text="calm", return_tensors="pt")["input_ids"]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"midi_config": original_midi_config(position_embedding_type="rotary"), "loss_pairs": ("audio_tags",)},
        {"midi_config": {"norm_position": "both"}},
        {"midi_config": {"position_embedding_type": "absolute"}},
        {"audio_config": {"position_embedding_type": "relative_key_query"}},
        {"audio_config": {"architecture": "vit"}},
    ],
)
def test_options_that_do_not_exist_are_refused(change):
    from modeling_pianobind import PianoBindConfig

    with pytest.raises(Exception, match="it must"):
        PianoBindConfig(**change)
