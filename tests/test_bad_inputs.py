"""Files that cannot be embedded: each is refused with its name, what is wrong and what to do."""

import os
import shutil
import struct

import numpy as np
import pytest
import soundfile
import symusic

from modeling_pianobind import (
    EmbeddingIndex,
    PianoBindFeatureExtractor,
    PianoBindMidiProcessor,
    PianoBindModel,
    PianoBindProcessor,
    embed_audio,
    embed_midi,
    embed_pieces,
    embed_text,
)
from modeling_pianobind.inputs_pianobind import content_kind, explain, modality_of

from .conftest import make_config


def midi_bytes(events=b"", midi_type=0, division=480, program=0, channel=0):
    """A Standard MIDI File of one track, byte by byte."""
    track = bytes([0, 0xC0 | channel, program]) + events + b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, midi_type, 1, division)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def note(pitch=60, channel=0):
    return bytes([0, 0x90 | channel, pitch, 80, 0x81, 0x70, 0x80 | channel, pitch, 0])


BAD_MIDI = {
    "nothing in it": (b"", "the file is empty; copy or export it again"),
    "text": (b"These are no notes at all.", "not a MIDI file"),
    "a header that is cut off": (midi_bytes(note())[:10], r"ends within its header \(10 bytes\)"),
    "no note": (midi_bytes(), "there is no note in it"),
    "a drum": (midi_bytes(note(channel=9), channel=9), r"not a piano piece, it has notes for drums \(channel 10\)"),
    "strings": (midi_bytes(note(), program=48), r"not a piano piece, it has notes for program 49"),
    "Type 2": (midi_bytes(note(), midi_type=2), "a Type 2 MIDI file .* export it as Type 0 or Type 1"),
    "SMPTE time": (midi_bytes(note(), division=0xE728), "SMPTE frames, not ticks a quarter note"),
    "no time": (midi_bytes(note(), division=0), "time division is zero"),
    "pitches no piano has": (midi_bytes(note(pitch=5)), "none of its notes lies"),
    "a zipped file": (b"PK\x03\x04 and so on", "its content is a ZIP archive"),
}


@pytest.mark.parametrize("content, message", BAD_MIDI.values(), ids=BAD_MIDI)
def test_bad_midi_is_refused_by_name(tiny_model, tiny_processor, tmp_path, content, message):
    (tmp_path / "bad.mid").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.mid: .*{message}"):
        embed_midi(tiny_model, tiny_processor, tmp_path / "bad.mid")


@pytest.mark.filterwarnings("ignore:.*outside the piano")
def test_midi_that_is_cut_off_is_refused_or_read_but_never_crashes(tiny_model, tiny_processor, tmp_path, write_midi):
    content = write_midi(tmp_path / "whole.mid").read_bytes()
    for length in range(14, len(content), 37):
        (tmp_path / "part.mid").write_bytes(content[:length])
        try:
            embeds = embed_midi(tiny_model, tiny_processor, tmp_path / "part.mid")
        except ValueError as error:
            assert "part.mid: " in str(error)
        else:
            assert np.isfinite(embeds).all()


@pytest.mark.parametrize("pitch", [21, 60, 108])
def test_one_note_is_a_piece(tiny_model, tiny_processor, tmp_path, pitch):
    (tmp_path / "one.mid").write_bytes(midi_bytes(note(pitch)))
    embeds = embed_midi(tiny_model, tiny_processor, tmp_path / "one.mid")
    assert np.linalg.norm(embeds) == pytest.approx(1)


def test_notes_beyond_the_keyboard_are_left_out_with_a_warning(tiny_model, tiny_processor, tmp_path):
    (tmp_path / "wide.mid").write_bytes(midi_bytes(note(10) + note(60)))
    with pytest.warns(UserWarning, match=r"wide\.mid: 1 of 2 notes lie outside the piano's 88 keys"):
        embed_midi(tiny_model, tiny_processor, tmp_path / "wide.mid")


def write_samples(path, samples, subtype=None):
    soundfile.write(path, samples, 16_000, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "samples", "subtype", "message"),
    [
        ("silent.wav", np.zeros(32_000), None, "the recording is silent"),
        ("hush.flac", np.full(32_000, 1e-4), None, "the recording is silent"),
        ("nan.wav", np.full(32_000, np.nan), "FLOAT", "samples that are not finite numbers"),
        ("infinite.wav", np.where(np.arange(500_000) == 400_000, np.inf, 0.1), "FLOAT", "not finite numbers"),
        ("bare.wav", np.zeros(0), None, "holds no sample"),
    ],
)
def test_a_bad_recording_is_refused_by_name(tiny_model, tiny_processor, tmp_path, name, samples, subtype, message):
    path = write_samples(tmp_path / name, samples, subtype)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        embed_audio(tiny_model, tiny_processor, path)


@pytest.mark.parametrize("content", [b"\0", b"RIFF\0\0\0\0WAVE", b"fLaC", b"ID3", b"no music" * 100])
def test_what_cannot_be_decoded_is_refused_by_name(tiny_model, tiny_processor, tmp_path, content):
    (tmp_path / "bad.mp3").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp3: "):
        embed_audio(tiny_model, tiny_processor, tmp_path / "bad.mp3")


def test_an_empty_recording_is_refused_by_name(tiny_model, tiny_processor, tmp_path):
    (tmp_path / "empty.flac").touch()
    with pytest.raises(ValueError, match=r"empty\.flac: the file is empty"):
        embed_audio(tiny_model, tiny_processor, tmp_path / "empty.flac")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_a_recording_that_is_cut_off_is_refused_or_read_as_far_as_it_goes(
    tiny_model, tiny_processor, tmp_path, write_audio, extension
):
    path = write_audio(tmp_path / f"part.{extension}", seconds=5)
    content = path.read_bytes()
    for share in (0.01, 0.5, 0.99):
        path.write_bytes(content[: int(len(content) * share)])
        try:
            assert np.isfinite(embed_audio(tiny_model, tiny_processor, path)).all()
        except ValueError as error:
            assert str(error).startswith(str(path))


def test_a_recording_of_a_few_samples_is_embedded(tiny_model, tiny_processor, tmp_path):
    path = write_samples(tmp_path / "short.wav", np.full(5, 0.5))
    assert np.linalg.norm(embed_audio(tiny_model, tiny_processor, path)) == pytest.approx(1)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_a_recording_named_as_midi_names_both(tiny_model, tiny_processor, tmp_path, write_audio, extension):
    sound = write_audio(tmp_path / f"x.{extension}", seconds=1)
    shutil.move(sound, tmp_path / "x.mid")
    kind = {"wav": "a WAV file", "flac": "a FLAC file", "ogg": "an Ogg file", "mp3": "an MP3 file"}[extension]
    with pytest.raises(ValueError, match=rf"x\.mid: its name ends in \.mid, but its content is {kind}"):
        embed_pieces(tiny_model, tiny_processor, [tmp_path / "x.mid"])


@pytest.mark.parametrize("extension", ["wav", "FLAC", "ogg", "mp3"])
def test_midi_named_as_a_recording_names_both(tiny_model, tiny_processor, tmp_path, write_midi, extension):
    path = tmp_path / f"x.{extension}"
    shutil.move(write_midi(tmp_path / "x.mid"), path)
    with pytest.raises(ValueError, match=rf"its name ends in \.{extension}, but its content is a MIDI file"):
        embed_pieces(tiny_model, tiny_processor, [path])


def test_a_recording_named_as_another_format_is_read(tiny_model, tiny_processor, tmp_path, write_audio):
    sound = write_audio(tmp_path / "x.flac", seconds=2)
    shutil.copy(sound, tmp_path / "y.wav")
    first, second = embed_audio(tiny_model, tiny_processor, [sound, tmp_path / "y.wav"])
    assert first @ second > 0.99999


def test_files_the_system_refuses_raise_its_own_errors(tiny_model, tiny_processor, tmp_path):
    (tmp_path / "folder.mid").mkdir()
    with pytest.raises(FileNotFoundError):
        embed_midi(tiny_model, tiny_processor, tmp_path / "missing.mid")
    with pytest.raises(IsADirectoryError):
        embed_midi(tiny_model, tiny_processor, tmp_path / "folder.mid")
    with pytest.raises(ValueError, match=r"song\.txt: its extension \.txt is not one of \.mid"):
        embed_pieces(tiny_model, tiny_processor, [tmp_path / "song.txt"])


def test_a_folder_named_like_a_file_is_searched_as_a_folder(tiny_model, tiny_processor, tmp_path, write_midi):
    (tmp_path / "x.mid").mkdir()
    write_midi(tmp_path / "x.mid" / "inner.mid")
    index = EmbeddingIndex.build(tiny_model, tiny_processor, tmp_path)
    assert index.paths == [str(tmp_path / "x.mid" / "inner.mid")] and index.failures == []


def test_a_file_without_permission_is_named_and_tried_again(tiny_model, tiny_processor, corpus, monkeypatch):
    opened = open

    def forbidding(path, *arguments, **settings):
        if str(path).endswith("march.mid"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **settings)

    # Simulated, since whoever runs the tests as root may read everything.
    monkeypatch.setattr("builtins.open", forbidding)
    index = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
    assert [failure.message for failure in index.failures] == [
        f"{corpus / 'march.mid'}: no permission to read it; change its permissions or leave it out."
    ]
    monkeypatch.undo()
    again = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=index)
    assert len(again) == 4 and again.failures == []


def test_a_link_that_leads_nowhere_is_named(tiny_model, tiny_processor, corpus):
    os.symlink(corpus / "nowhere.mid", corpus / "link.mid")
    index = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
    assert [failure.message for failure in index.failures] == [
        f"{corpus / 'link.mid'}: does not exist; check the path."
    ]


@pytest.mark.parametrize("name", ["ピアノ.mid", "with space and 'quotes'.MID", os.fsdecode(b"caf\xe9.mid")])
def test_any_file_name_is_embedded_and_saved(tiny_model, tiny_processor, tmp_path, write_midi, name):
    os.makedirs(tmp_path / "music")
    os.rename(write_midi(tmp_path / "x.mid"), tmp_path / "music" / name)
    index = EmbeddingIndex.build(tiny_model, tiny_processor, tmp_path / "music")
    index.save(tmp_path / "saved")
    assert EmbeddingIndex.load(tmp_path / "saved").paths == [str(tmp_path / "music" / name)]


def test_every_message_is_one_line_that_begins_with_the_path():
    errors = (
        FileNotFoundError(2, "No"),
        PermissionError(13, "No"),
        IsADirectoryError(21, "No"),
        OSError(5, "I/O error"),
    )
    for error in (*errors, ValueError("x.mid: bad\nvery bad; leave it")):
        message = explain("x.mid", error)
        assert message.startswith("x.mid: ") and "\n" not in message and ";" in message


@pytest.mark.parametrize(
    ("path", "modality"), [("a.mid", "midi"), ("b.MIDI", "midi"), ("c.Wav", "audio"), ("d.x.OGG", "audio")]
)
def test_the_extension_tells_the_modality_in_any_case(path, modality):
    assert modality_of(path) == modality


def test_content_tells_formats_apart():
    assert content_kind(symusic.Score(480).dumps_midi()[:12]) == "a MIDI file"
    assert content_kind(b"RIFF\0\0\0\0RMID") == "a RIFF MIDI (.rmi) file"
    assert content_kind(b"") == content_kind(b"unknown bytes") == ""


def test_another_models_processor_is_refused(tiny_model, tiny_processor):
    extractor, tokenizer = tiny_processor.feature_extractor, tiny_processor.tokenizer
    midi = PianoBindProcessor(extractor, tokenizer, PianoBindMidiProcessor(pedal_bins=64))
    audio = PianoBindProcessor(PianoBindFeatureExtractor(feature_size=64), tokenizer)
    with pytest.raises(
        ValueError, match=r"the processor makes note rows of .*66\), the model reads .*34\); load both"
    ):
        embed_midi(tiny_model, midi, midi_bytes(note()))
    with pytest.raises(ValueError, match="the processor makes 64 mel bands, the model reads 229; load both"):
        embed_audio(tiny_model, audio, np.ones(16_000), sampling_rate=16_000)
    config = make_config()
    config.text_config.vocab_size -= 1
    with pytest.raises(ValueError, match="different words, the model reads"):
        embed_text(PianoBindModel(config), tiny_processor, "calm")
