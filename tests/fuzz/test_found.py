"""The smallest cases of what hostile inputs have found; each once crashed, hung, or raised what was no clear error."""

import io
import json
import shutil
import struct

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from modeling_pianobind import (
    EmbeddingIndex,
    PianoBindFeatureExtractor,
    PianoBindMidiProcessor,
    PianoBindModel,
    PianoBindProcessor,
    embed_audio,
    embed_midi,
    embed_text,
)
from modeling_pianobind.checkpoint_pianobind import check_fit
from modeling_pianobind.cli import main
from modeling_pianobind.compound_words_pianobind import compound_windows, read_compound_notes
from modeling_pianobind.index.storage import check_target
from modeling_pianobind.inputs_pianobind import readable_text
from modeling_pianobind.notes_pianobind import MAX_NOTES
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.errors import UserError
from modeling_pianobind.service.text_tower import TextTower


def midi_file(events: bytes, tracks=1, length=None, division=480):
    """A file of one track, whose header and chunk may lie."""
    head = b"MThd" + struct.pack(">IHHH", 6, 1, tracks, division) + b"MTrk"
    return head + struct.pack(">I", len(events) if length is None else length) + events


NOTE = bytes.fromhex("00903c40 8170803c40 00ff2f00")
DAMAGED_MIDI = {
    "a track longer than the file": (midi_file(NOTE, length=len(NOTE) + 1), "ends within its tracks"),
    "a track of four gigabytes": (midi_file(NOTE, length=2**32 - 1), "ends within its tracks"),
    "more tracks than there are": (midi_file(NOTE, tracks=65535), "ends within its tracks"),
    "an unknown chunk to the end": (midi_file(NOTE).replace(b"MTrk", b"XFIH"), "ends within its tracks"),
    # wrote beyond a table in memory
    "key 144 of channel 16": (midi_file(bytes.fromhex("70904000 2100 e9289f 9051")), "a key above 127"),
    "key 144 released": (midi_file(bytes.fromhex("00903c40 008f9051 00ff2f00")), "a key above 127"),
    # symusic takes the fifth byte of a time for the next event
    "key 159 in a time of five bytes": (
        midi_file(bytes.fromhex("00903c40 9f9f9f9f9f9f9f 73 3c00")),
        "a key above 127",
    ),
    # 2^28 ticks of 16.8 s each asked for gigabytes of windows
    "a note after a century": (midi_file(bytes.fromhex("00ff5103ffffff ffffff7f903c40 00803c40")), "than 24 hours"),
    "a tempo beyond 31 bits": (
        midi_file(bytes.fromhex("00903c40 8170803c40" + "ffffff7fff0100" * 8 + "ffffff7fff5103ffffff 00ff2f00")),
        "more than 24 hours",
    ),
    "a time beyond 31 bits": (
        midi_file(bytes.fromhex("ffffff7f903c40 ffffff7f3c00") * 5 + NOTE),
        "more than 24 hours",
    ),
    # 2^20 notes took the tower half a minute
    "more notes than a piece has": (
        midi_file(b"\x00\x90\x3c\x40" + b"\x01\x3c\x00\x01\x3c\x40" * MAX_NOTES + NOTE),
        "300,00[1-9] notes",
    ),
}


@pytest.mark.parametrize("content, message", DAMAGED_MIDI.values(), ids=DAMAGED_MIDI)
@pytest.mark.parametrize("representation", ["performance", "compound_word"])
def test_damaged_midi_is_refused_before_it_costs_memory(representation, content, message):
    with pytest.raises(ValueError, match=f"the given MIDI: .*{message}"):
        PianoBindMidiProcessor(representation).read(content)


@pytest.mark.parametrize("events", ["ff510400000000", "f0020000"])
def test_running_status_after_what_ends_it_is_not_followed(events):
    # symusic goes on with the status before the event: which bytes are keys then, only it knows
    content = midi_file(bytes.fromhex("00903c40 00" + events + "00 3c00 108f9f9f") + NOTE)
    with pytest.raises(ValueError, match="a key above 127"):
        PianoBindMidiProcessor().read(content)


@pytest.mark.parametrize("reader", ["model", "numpy"])
def test_a_tokenizer_that_panics_is_a_damaged_checkpoint(tiny_checkpoint, tmp_path, reader):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"]["special_tokens"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=f"^{folder}"):
        if reader == "numpy":
            TextTower.open(folder)
        else:
            model, processor = PianoBindModel.from_pretrained(folder), PianoBindProcessor.from_pretrained(folder)
            check_fit(folder, model, processor)


def test_times_and_texts_that_look_like_a_wrong_key_are_read(tiny_model, tiny_processor):
    text = b"\x00\xff\x01\x02\x9f\x90"
    late = bytes.fromhex("8f8000 903c40 8170803c40")  # the first time is 0x8f8000, three bytes long
    running = bytes.fromhex("009f3c40 10 3d40 10 3c00 10 3d00")
    for events in (text + NOTE, late + NOTE, text + running + NOTE):
        assert np.isfinite(embed_midi(tiny_model, tiny_processor, midi_file(events))).all()


@pytest.mark.parametrize("representation", ["performance", "compound_word"])
def test_a_note_that_begins_as_the_piece_ends_is_in_its_last_window(representation):
    processor = PianoBindMidiProcessor(representation)
    rows, spans = processor.windows(processor.read(midi_file(bytes.fromhex("819600 903c40 00803c00 00ff2f00"))))
    assert [len(window) for window in rows] == [1] and len(spans) == 1


def test_many_bars_within_a_day_need_no_table_of_windows_times_bars():
    beats = b"\x83\x60\x90\x3c\x40" + b"\x83\x60\x3c\x00" * 60_000  # a bar every other note, for eight hours
    notes = read_compound_notes(midi_file(beats + NOTE))
    words, spans = compound_windows(notes, 20.0, 0.5, 512)
    assert len(words) == len(spans)


def wav(rate=16_000, channels=1, samples=4_000, value=0.5, subtype="PCM_16"):
    content = io.BytesIO()
    soundfile.write(content, np.full((samples, channels), value), rate, format="WAV", subtype=subtype)
    return content.getvalue()


@pytest.mark.parametrize("rate", [1, 1_999, 768_001, 2**31 - 1])
def test_a_rate_that_no_recording_has_is_refused(tiny_model, tiny_processor, rate):
    content = wav()[:24] + struct.pack("<I", rate) + wav()[28:]
    with pytest.raises(ValueError, match=f"the given recording: .*{rate} samples a second"):
        embed_audio(tiny_model, tiny_processor, content)


@pytest.mark.parametrize("value, message", [(1e30, r"samples of 1e\+30"), (1e300, "not finite numbers")])
def test_samples_whose_power_is_infinite_are_refused(tiny_model, tiny_processor, value, message):
    with pytest.raises(ValueError, match=f"the given recording: it holds .*{message}"):
        embed_audio(tiny_model, tiny_processor, wav(value=value, subtype="DOUBLE"))


def test_integers_written_as_floats_are_embedded(tiny_model, tiny_processor):
    assert np.isfinite(embed_audio(tiny_model, tiny_processor, wav(value=2.0**31, subtype="FLOAT"))).all()


def test_a_thousand_channels_are_decoded_a_little_at_a_time(monkeypatch):
    read, largest = soundfile.SoundFile.read, 0

    def measured(self, frames, **settings):
        nonlocal largest
        block = read(self, frames, **settings)
        largest = max(largest, block.size)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", measured)
    windows = list(PianoBindFeatureExtractor().windows(wav(channels=1000, samples=6_000)))
    assert len(windows) == 1 and largest <= 2**22 < 6_000_000


@pytest.mark.parametrize("text", ["\ud800", "calm \udfff piano", "\udc80"])
def test_half_characters_are_refused(tiny_model, tiny_processor, text):
    with pytest.raises(ValueError, match=r"a text holds '\\ud...', which is not a character"):
        embed_text(tiny_model, tiny_processor, text)


def test_a_query_of_half_characters_is_a_mistake_of_the_user(tiny_checkpoint, corpus, capsys):
    assert main(["search", str(corpus), "calm \udc80", "--checkpoint", str(tiny_checkpoint), "--device", "cpu"]) == 2
    assert "which is not a character; write it in plain Unicode" in capsys.readouterr().err


def test_ten_megabytes_of_text_are_cut_before_they_are_tokenized():
    assert readable_text(" " * 10_000_000 + "calm") == "calm"
    assert readable_text("calm " * 2_000_000) == "calm " * 4_000


def test_megabytes_of_blanks_are_not_printed():
    with pytest.raises(ValueError, match="at least one word") as caught:
        readable_text("\n" * 10_000_000)
    assert len(str(caught.value)) < 200


def test_a_huge_number_in_a_header_is_not_printed(tmp_path):
    version = "9" * 4000
    (tmp_path / "index.json").write_text(
        f'{{"format": "pianobind-index", "format_version": {version}, "checkpoint_fingerprint": "", "failures": []}}'
    )
    with pytest.raises(ValueError, match="says 'pianobind-index' version 9") as caught:
        EmbeddingIndex.load(tmp_path)
    assert len(str(caught.value)) < 500


def test_int8_rows_whose_own_numbers_are_damaged_are_noticed(tmp_path):
    index = EmbeddingIndex()
    index.add("abc", np.random.default_rng(0).normal(size=(3, 32)))
    index.shards[0].quantize()
    index.embeddings[1, 5] = np.nan
    with pytest.raises(ValueError, match="embeddings that are not of length 1"):
        index.search(np.eye(1, 32), 3)


def test_a_shard_of_a_name_that_no_file_can_have_is_missing(tmp_path):
    header = {"format": "pianobind-index", "format_version": 2, "checkpoint_fingerprint": "", "failures": []}
    for names, message in ((["9" * 900], "the index is incomplete"), (["9" * 5000], "index.json is not the header")):
        (tmp_path / "index.json").write_text(json.dumps(header | {"shards": names}))
        with pytest.raises(ValueError, match=message):
            EmbeddingIndex.load(tmp_path)


def test_a_damaged_tokenizer_is_a_mistake_of_the_user(tiny_checkpoint, corpus, tmp_path, capsys):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    (folder / "tokenizer.json").write_text("{}")
    assert main(["search", str(corpus), "calm", "--checkpoint", str(folder), "--device", "cpu"]) == 2
    assert "tokenizer.json: is damaged" in capsys.readouterr().err


def change(folder, name, **values):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


DAMAGED_CHECKPOINTS = {
    "a nested array": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json: is damaged"),
    "no object": (lambda folder: (folder / "processor_config.json").write_text("7"), "it holds no JSON object"),
    "half a tokenizer": (
        lambda folder: change(folder, "tokenizer.json", decoder=7),
        "cannot be loaded as a PianoBind checkpoint .*PyDecoderWrapper",
    ),
    "a size below 0": (lambda folder: change(folder, "config.json", projection_dim=-1), "`projection_dim` is -1"),
    "no head": (
        lambda folder: change(folder, "config.json", midi_config={"num_attention_heads": 0}),
        "`num_attention_heads` is 0",
    ),
    "a number for a part": (
        lambda folder: change(folder, "processor_config.json", midi_processor=7),
        "`midi_processor` is 7",
    ),
    "a word for a number": (
        lambda folder: change(folder, "processor_config.json", midi_processor={"pedal_range": ["x", 1]}),
        "`pedal_range` is ",
    ),
    "billions of layers": (
        lambda folder: change(folder, "config.json", midi_config={"num_hidden_layers": 2**31}),
        "has 2.15e.09 layers",
    ),
    "windows of gigabytes": (
        lambda folder: change(folder, "processor_config.json", feature_extractor={"window_seconds": 2**31}),
        "too large to compute",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGED_CHECKPOINTS.values(), ids=DAMAGED_CHECKPOINTS)
def test_a_damaged_checkpoint_is_one_line(tiny_checkpoint, tmp_path, damage, message):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    damage(folder)
    with pytest.raises(ValueError, match=f"^{folder}.*{message}") as caught:
        PianoBindProcessor.from_pretrained(folder)
        PianoBindModel.from_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    with pytest.raises(UserError, match=f"^{folder}.*"):
        list(Checkpoint(str(folder), "cpu").embed_files([__file__], progress=False))


def test_a_word_whose_weights_are_no_numbers_is_a_damaged_checkpoint(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    row = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["calm"]
    tensors["text_model.embeddings.word_embeddings.weight"][row, 0] = np.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"^{folder}: .*not unit vectors"):
        TextTower.open(folder).embed_text(["calm"])
    with pytest.raises(ValueError, match=f"^{folder}: .*not unit vectors"):
        check_fit(folder, PianoBindModel.from_pretrained(folder), PianoBindProcessor.from_pretrained(folder))


@pytest.mark.parametrize("part", ["midi_config", "text_config"])
def test_a_model_and_a_processor_that_do_not_fit_are_refused(tiny_checkpoint, tmp_path, part):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    if part == "midi_config":
        settings = json.loads((folder / "processor_config.json").read_text())["midi_processor"]
        change(folder, "processor_config.json", midi_processor=settings | {"pedal_bins": 64})
    else:
        tensors = load_file(folder / "model.safetensors")
        tensors["text_projection.weight"][0, 0] = np.nan
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model, processor = PianoBindModel.from_pretrained(folder), PianoBindProcessor.from_pretrained(folder)
    message = "note rows" if part == "midi_config" else "embeddings that are not unit vectors"
    with pytest.raises(ValueError, match=f"^{folder}: .*{message}"):
        check_fit(folder, model, processor)
    if part == "text_config":
        with pytest.raises(ValueError, match=f"^{folder}: .*{message}"):
            TextTower.open(folder)


def test_what_a_killed_save_leaves_does_not_stop_the_next(tmp_path):
    for name in (".rows.123", ".index.json.9", "rows-0123456789abcdef.parquet"):
        (tmp_path / name).touch()
    check_target(tmp_path)
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ValueError, match="something else than an index"):
        check_target(tmp_path)
