"""Recordings in formats beyond libsndfile's, and files that are no music."""

import sys

import numpy as np
import pytest

from modeling_pianobind import cli, embed_audio
from modeling_pianobind.decoding_pianobind import MissingDecoderError
from modeling_pianobind.inputs_pianobind import count_other_files

from .conftest import piano_waveform

av = pytest.importorskip("av")
CODECS = {".m4a": ("ipod", "aac"), ".aac": ("adts", "aac")}


def encode(path, samples, rate=44_100):
    """Writes a recording by FFmpeg."""
    container, codec = CODECS[path.suffix]
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("extension", CODECS)
def test_a_compressed_recording_is_embedded_like_the_wave_that_it_was(
    tmp_path, tiny_model, tiny_processor, write_audio, extension
):
    wave = write_audio(tmp_path / "take.wav", seconds=12, sampling_rate=44_100, seed=3)
    packed = encode(tmp_path / f"other{extension}", piano_waveform(12, 44_100, seed=3))
    of_wave, of_packed = embed_audio(tiny_model, tiny_processor, [wave, packed])
    assert of_wave @ of_packed > 0.98


@pytest.mark.parametrize("extension", [".aiff", ".opus"])
def test_formats_of_libsndfile_need_no_extra(tmp_path, tiny_model, tiny_processor, monkeypatch, extension):
    import soundfile

    path = tmp_path / f"take{extension}"
    layout = {"format": "OGG", "subtype": "OPUS"} if extension == ".opus" else {}
    soundfile.write(path, piano_waveform(6, 48_000), 48_000, **layout)
    monkeypatch.setitem(sys.modules, "av", None)
    assert np.isfinite(embed_audio(tiny_model, tiny_processor, [path])).all()


def test_without_the_extra_a_line_says_how_to_install_it_and_the_file_is_tried_again(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, write_midi
):
    monkeypatch.setenv("PIANOBIND_CACHE", str(tmp_path / "cache"))
    music = tmp_path / "music"
    music.mkdir()
    write_midi(music / "a.mid")
    encode(music / "b.m4a", piano_waveform(6, 44_100))
    command = ["index", str(music), "--output", str(tmp_path / "index"), "--checkpoint", str(tiny_checkpoint)]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "av", None)
        assert cli.main(command) == 2
        assert 'b.m4a: needs FFmpeg to be decoded; run `pip install "pianobind[formats]"`' in capsys.readouterr().err
    assert cli.main(command) == 0 and "2 pieces" in capsys.readouterr().out


@pytest.mark.parametrize("extension", [".m4a", ".aac"])
def test_a_damaged_file_is_one_line(tmp_path, tiny_model, tiny_processor, extension):
    path = encode(tmp_path / f"a{extension}", piano_waveform(3, 44_100))
    path.write_bytes(path.read_bytes()[:40] + bytes(100))
    with pytest.raises(ValueError, match=r"cannot be decoded|holds no sample|no sound"):
        embed_audio(tiny_model, tiny_processor, [path])


def test_a_missing_decoder_is_an_error_of_the_file():
    assert issubclass(MissingDecoderError, ValueError)


def test_files_of_other_kinds_are_counted(tmp_path):
    for name in ("a.pdf", "b.PDF", "c.jpg", "notes.txt", "metadata.csv", "d.mid", ".hidden.pdf", "noname"):
        (tmp_path / name).touch()
    assert count_other_files(tmp_path) == {".pdf": 2, ".jpg": 1, "no extension": 1}
