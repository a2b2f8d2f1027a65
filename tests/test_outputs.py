"""What a search writes beside its table: CSV, playlists, excerpts; the prompt; `describe` as CSV; completion."""

import csv
import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from modeling_pianobind import cli
from modeling_pianobind.commands import search
from modeling_pianobind.commands.excerpts import midi_of, write_excerpts
from modeling_pianobind.commands.output import as_csv, as_json, as_m3u8
from modeling_pianobind.index.embedding_index import Hit
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

from .conftest import piano_waveform
from .test_finder import PITCHES, write_scale

HITS = [Hit("a, b.mp3", 0.25, 65.0, 85.5, fit=0.9), Hit('/music/"c".mid', -0.125, 0.0, 20.0), Hit("id", 0.0)]


def test_csv_is_read_back_as_it_was():
    rows = list(csv.DictReader(io.StringIO(as_csv(HITS))))
    assert list(rows[0])[:6] == ["rank", "score", "path", "start_seconds", "end_seconds", "fit"]
    assert [row["path"] for row in rows] == [hit.path for hit in HITS]
    assert (rows[0]["start_seconds"], rows[0]["fit"], rows[2]["start_seconds"]) == ("65.0", "0.9", "")


def test_a_playlist_starts_each_piece_at_its_window(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert as_m3u8(HITS[:2]).splitlines() == [
        "#EXTM3U", "#EXTINF:-1,a, b", "#EXTVLCOPT:start-time=65", str(tmp_path / "a, b.mp3"),
        '#EXTINF:-1,"c"', '/music/"c".mid',
    ]  # fmt: skip


def test_a_line_break_in_a_name_stays_in_its_line_of_a_playlist():
    assert as_m3u8([Hit("/music/one\ntwo.mid", 0.1)]).splitlines()[1:] == [
        "#EXTINF:-1,one two", "file:///music/one%0Atwo.mid"
    ]  # fmt: skip


def test_every_shape_of_a_search_holds_the_same_hits(pianobind, corpus):
    lists = {shape: pianobind("search", corpus, "calm", f"--{shape}")[1] for shape in ("json", "csv", "m3u8")}
    paths = [row["path"] for row in csv.DictReader(io.StringIO(lists["csv"]))]
    assert len(paths) == 4 and all(f'"path": "{path}"' in lists["json"] for path in paths)
    assert [line for line in lists["m3u8"].splitlines() if not line.startswith("#")] == paths
    status, out, err = pianobind("search", corpus, "calm", "--csv", "--m3u8")
    assert (status, out) == (2, "") and "not allowed with" in err and err.count("\n") == 1


def test_excerpts_hold_the_window_of_each_hit(tmp_path, write_midi):
    notes = read_midi(write_midi(tmp_path / "a:b.mid", seconds=60))
    soundfile.write(tmp_path / "take.wav", piano_waveform(8, 22_050), 22_050)
    hits = [
        Hit(str(tmp_path / "a:b.mid"), 0.3, 20.0, 40.0), Hit(str(tmp_path / "take.wav"), 0.2, 2.0, 5.0),
        Hit(str(tmp_path / "gone.mid"), 0.1, 0.0, 20.0),
    ]  # fmt: skip
    written, failures = write_excerpts(hits, tmp_path / "out")
    assert [path.name for path in written] == ["01 a_b.mid", "02 take.flac"]
    (line,) = failures
    assert line == f"{tmp_path / 'gone.mid'}: does not exist; check the path."
    part, wanted = read_midi(written[0]), notes.crop(20, 40)
    np.testing.assert_array_equal(part.pitch, wanted.pitch)
    np.testing.assert_allclose(part.onset, wanted.onset, atol=1e-3)
    sound, rate = soundfile.read(written[1])
    assert len(sound) == 3 * rate
    whole = piano_waveform(8, 22_050)[2 * 22_050 : 5 * 22_050]
    assert np.corrcoef(sound[:: rate // 22_050][:60_000], whole[:60_000])[0, 1] > 0.99


def test_the_pedal_of_an_excerpt_lets_its_notes_ring_as_before():
    onset = np.array([0.0, 1.0])
    notes = PianoNotes(
        onset,
        np.array([0.5, 0.5], np.float32),
        np.array([60, 64]),
        np.array([80, 90]),
        np.array([0.75, 0.0], np.float32),
    )
    back = read_midi(midi_of(notes))
    np.testing.assert_allclose(back.pedal, [0.75, 0.0], atol=2e-3)


def test_a_search_writes_excerpts_and_a_folder_that_cannot_be_made_is_one_line(pianobind, corpus, tmp_path):
    status, out, err = pianobind("search", corpus, "calm", "--top-k", "2", "--excerpts", tmp_path / "out")
    assert status == 0 and len(out.splitlines()) == 2 and "out: 2 excerpts" in err
    assert sorted(path.name[:3] for path in (tmp_path / "out").iterdir()) == ["01 ", "02 "]
    (tmp_path / "file").touch()
    status, _, err = pianobind("search", corpus, "calm", "--excerpts", tmp_path / "file")
    assert status == 2 and f"{tmp_path / 'file'}: cannot be written" in err


class Typed:
    """Standard input of a terminal, with lines that are typed."""

    def __init__(self, *lines):
        self.lines = list(lines)

    def isatty(self):
        return True


@pytest.fixture
def typed(monkeypatch):
    """`typed(*lines)`: what a person types; after the last line the input ends."""

    def type_lines(*lines):
        rest = list(lines)

        def read(prompt):
            if not rest:
                raise EOFError
            return rest.pop(0)

        monkeypatch.setattr(search.sys, "stdin", Typed())
        monkeypatch.setattr("builtins.input", read)

    return type_lines


@pytest.mark.parametrize("last", [[""], []])
def test_without_a_query_each_line_is_answered_until_an_empty_one(pianobind, corpus, typed, last):
    typed("calm", "x" * 3, "march", *last)
    status, out, err = pianobind("search", corpus, "--top-k", "1")
    assert status == 0 and len(out.splitlines()) == 3
    assert "4 pieces; describe the music, an empty line ends" in err and out.splitlines()[2].endswith("march.mid")


def test_a_line_that_cannot_be_searched_does_not_end_the_prompt(pianobind, corpus, typed):
    typed("\udcff", "calm")
    status, out, err = pianobind("search", corpus, "--top-k", "1")
    assert status == 0 and len(out.splitlines()) == 1 and "write it in plain Unicode" in err


def test_describe_prints_facts_of_each_piece_of_a_folder_as_csv(pianobind, tmp_path, write_audio):
    music = tmp_path / "music"
    music.mkdir()
    write_scale(music / "a.mid", PITCHES["D minor"], 96)
    write_audio(music / "b.wav", seconds=6)
    (music / "bad.mid").write_bytes(b"MThd")
    status, out, err = pianobind("describe", music, "--csv", "--top-k", "2")
    first, second = csv.DictReader(io.StringIO(out))
    assert status == 2 and "bad.mid: the file ends within its header" in err
    assert (first["path"], first["tempo"], first["key"], first["minutes"]) == (
        str(music / "a.mid"), "96", "D minor", "0.33"
    )  # fmt: skip
    assert len(first["words"].split(", ")) >= 2
    assert (second["path"], second["tempo"], second["key"], second["minutes"]) == (
        str(music / "b.wav"),
        "",
        "",
        "0.10",
    )
    alone = list(csv.DictReader(io.StringIO(pianobind("describe", music / "a.mid", "--csv", "--top-k", "2")[1])))
    assert alone == [first]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands_and_options(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "search" in script and "duplicates" in script and "top-k" in script and "solo-only" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "modeling_pianobind.cli", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "completion").write_text(script)
    ask = (
        "source completion; COMP_WORDS=(pianobind {}); COMP_CWORD={}; "
        '$(complete -p pianobind | grep -o "_[a-z_]*"); echo "${{COMPREPLY[@]}}"'
    )
    for words, at, expected in (("sea", 1, "search"), ("search --exc", 2, "--excerpts"), ("index --sh", 2, "--shard")):
        done = subprocess.run(["bash", "-c", ask.format(words, at)], cwd=tmp_path, capture_output=True, text=True)
        assert expected in done.stdout.split(), done


def test_measures_are_in_json_of_scores_alone():
    assert "start_measure" not in as_json(HITS) and '"start_measure": 3' in as_json([Hit("a", 0.1, 0.0, 1.0, 3, 4)])
