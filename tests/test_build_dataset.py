"""Datasets from folders: what enters, how it is cut, grouped by song, described, written and uploaded."""

import io
import json

import numpy as np
import pytest
import soundfile
import symusic
import yaml

from modeling_pianobind import transcription_pianobind
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi
from training import build_dataset
from training.data import dataset_files
from training.data.build_arguments import BuildArguments, SourceArguments
from training.data.captions import facts_of_tags, write_piast_caption
from training.data.cutting import cut_midi
from training.data.dataset_files import Report, load_parquet
from training.data.dataset_schema import clean_labels
from training.data.melody import group_songs, melody_fingerprint, similarity
from training.data.pieces import Piece
from training.data.rendering import SampledInstrument
from training.data.song_splits import assign_splits
from training.data.tuning import check_instruments

from .corpus_files import RATE, make_notes, noise, run, write_clicks, write_notes, write_samples, write_table


@pytest.fixture
def samples(tmp_path):
    write_samples(tmp_path / "samples")
    return tmp_path / "samples"


@pytest.fixture
def small_corpus(tmp_path):
    """Eight songs, two of them in two versions; metadata in CSV; recordings of none."""
    folder = tmp_path / "music"
    rows = []
    for seed in range(8):
        write_notes(folder / f"song{seed}.mid", make_notes(seed))
        rows.append({"file_name": f"song{seed}.mid", "licence": "CC0", "tags": "calm; Jazz", "composer_born": 1810})
    write_notes(folder / "more" / "cover0.mid", make_notes(0, semitones=3, tempo=1.3, ornaments=True))
    write_notes(folder / "more" / "cover1.mid", make_notes(1, semitones=-5, tempo=0.8))
    rows += [{"file_name": f"more/cover{k}", "licence": "CC0"} for k in (0, 1)]
    write_table(folder / "metadata.csv", rows)
    return folder


def test_versions_of_a_song_share_their_melody_and_different_songs_do_not():
    original = melody_fingerprint(make_notes(1))
    for version in (
        make_notes(1, semitones=5),
        make_notes(1, tempo=1.4),
        make_notes(1, ornaments=True),
        make_notes(1, semitones=-3, tempo=0.7, ornaments=True),
    ):
        assert similarity(original, melody_fingerprint(version)) > 0.5
    for other in range(2, 12):
        assert similarity(original, melody_fingerprint(make_notes(other))) < 0.1
    excerpt = make_notes(1).crop(5, 30)
    assert similarity(original, melody_fingerprint(excerpt)) > 0.5


def test_given_songs_are_neither_joined_nor_split():
    prints = [melody_fingerprint(make_notes(seed)) for seed in (1, 1, 1, 2, 2)]
    assert group_songs(prints, ["a", "b", None, None, None], ["x"] * 5) == ["a", "b", "a", 3, 3]
    assert group_songs([np.zeros(0, np.uint64)] * 2, [None, None], ["x", "x"]) == [0, 1]  # too short to be compared


def test_songs_of_two_collections_are_joined_by_melody():
    prints = [melody_fingerprint(make_notes(seed)) for seed in (1, 1, 2, 2)]
    assert group_songs(prints, ["p/1", "q/7", "p/2", None], ["p", "q", "p", "q"]) == ["p/1", "p/1", "p/2", "p/2"]


def test_splits_are_disjoint_by_song(tmp_path, small_corpus):
    status, rows, refused = run(
        tmp_path, [{"path": str(small_corpus)}], valid_share=0.25, test_share=0.25, window_seconds=15
    )
    assert status == 0 and not refused
    songs = {}
    for row in rows:
        songs.setdefault(row["song"], set()).add(row["split"])
    assert len(songs) == 8 and all(len(splits) == 1 for splits in songs.values())
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    of = {row["piece_id"]: row["song"] for row in rows}
    assert of["music/more/cover0"] == of["music/song0"] and of["music/more/cover1"] == of["music/song1"]
    assert all(int(row["song"], 16) >= 0 and len(row["song"]) == 12 for row in rows)


def test_a_song_keeps_its_split_when_others_are_added(tmp_path):
    def splits(count):
        pieces = [Piece(f"p{k}", "s", labels={"song": f"{k:012x}"}) for k in range(count)]
        arguments = BuildArguments(sources=[], output="", valid_share=0.2, test_share=0.2)
        assign_splits(pieces, arguments, Report())
        return {piece.piece_id: piece.labels["split"] for piece in pieces}

    few, many = splits(40), splits(80)
    assert all(many[piece] == split for piece, split in few.items())


def test_a_song_with_pieces_in_several_given_splits_goes_to_the_last(tmp_path):
    folder = tmp_path / "music"
    given = []
    for k, split in enumerate(("train", "test", "validation", "")):
        write_notes(folder / f"{k}.mid", make_notes(k))
        given.append({"id": k, "song": "one" if k < 2 else f"song {k}", "split": split, "licence": "CC0"})
    write_table(folder / "metadata.csv", given)
    _, rows, _ = run(tmp_path, [{"path": str(folder)}], valid_share=0.0, test_share=0.0)
    assert [row["split"] for row in sorted(rows, key=lambda row: row["piece_id"])] == [
        "test",
        "test",
        "valid",
        "train",
    ]
    assert {row["song_name"] for row in rows} == {"one", "song 2", "song 3"}


def test_what_cannot_enter_is_refused_with_its_reason(tmp_path):
    folder = tmp_path / "music"
    for k in range(2):
        write_notes(folder / f"good{k}.mid", make_notes(k))
    write_notes(folder / "free.mid", make_notes(3))
    write_notes(folder / "unstated.mid", make_notes(4))
    write_notes(folder / "resaved.mid", make_notes(0), tempo=90.0, ticks=960)
    write_notes(folder / "strings.mid", make_notes(5), program=48)
    write_notes(folder / "label.mid", make_notes(6))
    (folder / "broken.mid").write_bytes(b"MThd\0\0\0\6\0\0\0\1")
    (folder / "broken.flac").write_bytes(b"fLaC" + b"\0" * 50)
    (folder / "disguised.mid").write_bytes(b"RIFF0000WAVEfmt ")
    soundfile.write(folder / "silent.wav", np.zeros(RATE * 5), RATE)
    soundfile.write(folder / "good1.wav", noise(90), RATE)  # another performance than good1.mid
    soundfile.write(folder / "a.wav", noise(5), RATE)
    soundfile.write(folder / "c.wav", noise(5), RATE)
    soundfile.write(folder / "c.flac", noise(5), RATE)
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())
    write_notes(folder / "short.mid", make_notes(7, seconds=2))
    names = [path.stem for path in sorted(folder.iterdir())] + ["gone"]
    rows = [{"id": name, "licence": "CC0"} for name in dict.fromkeys(names) if name != "free"]
    rows = [row | ({"licence": "not stated"} if row["id"] == "unstated" else {}) for row in rows]
    rows = [row | ({"difficulty": "hard"} if row["id"] == "label" else {}) for row in rows]
    write_table(folder / "metadata.csv", rows)
    status, written, refused = run(tmp_path, [{"path": str(folder), "name": "m"}])
    assert status == 0
    assert {row["piece_id"] for row in written} == {"m/good0", "m/a"}
    assert {name.removeprefix("m/"): row["reason"] for name, row in refused.items()} == {
        "free": "no licence",
        "unstated": "licence not stated",
        "resaved": "duplicate",
        "strings": "not piano",
        "label": "bad label",
        "broken": "corrupt",
        "disguised": "corrupt",
        "silent": "silent",
        "good1": "lengths differ",
        "b": "duplicate",
        "c": "several files",
        "short": "too short",
        "gone": "missing file",
    }
    assert "m/good0" in refused["m/resaved"]["message"] and "m/a" in refused["m/b"]["message"]
    report = json.loads((tmp_path / "dataset" / "report.json").read_text())
    assert report["refused"]["corrupt"] == 2 and report["pieces"] == 15


def test_rows_of_unstated_licence_stay_where_the_run_answers_for_them(tmp_path):
    write_notes(tmp_path / "music" / "one.mid", make_notes(1))
    write_table(tmp_path / "music" / "metadata.csv", [{"id": "one", "licence": "not stated"}])
    _, rows, _ = run(tmp_path, [{"path": str(tmp_path / "music")}], keep_unstated_licence=True)
    assert [row["licence"] for row in rows] == ["not stated"]


@pytest.mark.parametrize(("ticks", "tempo"), [(480, 120.0), (96, 70.0)])
def test_audio_and_midi_windows_cover_the_same_seconds(tmp_path, ticks, tempo):
    onsets = np.arange(0.25, 29.5, 0.5)
    notes = PianoNotes(onsets, np.full(59, 0.3, np.float32), 40 + np.arange(59) % 40, np.full(59, 80), np.zeros(59))
    write_notes(tmp_path / "music" / "take.mid", notes, ticks=ticks, tempo=tempo)
    write_clicks(tmp_path / "music" / "take.flac", onsets, 30)
    _, rows, _ = run(
        tmp_path, [{"path": str(tmp_path / "music"), "licence": "CC0"}], window_seconds=8, hop_seconds=7.3
    )
    assert [round(row["start_seconds"], 3) for row in rows] == [0, 7.3, 14.6, 21.9]
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        clicks = np.flatnonzero(samples > 0.5) / rate
        midi = read_midi(row["midi"])
        assert rate == RATE and len(samples) == pytest.approx(row["seconds"] * rate, abs=1)
        np.testing.assert_allclose(midi.onset, clicks, atol=0.002)
        inside = onsets[(onsets >= row["start_seconds"]) & (onsets < row["end_seconds"])]
        np.testing.assert_allclose(midi.onset + row["start_seconds"], inside, atol=0.002)
        assert row["end_seconds"] - row["start_seconds"] == row["seconds"] and midi.seconds <= row["seconds"] + 0.002
        assert row["audio_origin"] == "real" and row["midi_origin"] == "real"


def test_a_cut_keeps_tempo_map_and_pedal():
    score = symusic.Score(480)
    for tick, tempo in ((0, 60), (1920, 120), (5760, 90)):
        score.tempos.append(symusic.Tempo(tick, qpm=tempo))
    track = symusic.Track()
    for beat in range(20):
        track.notes.append(symusic.Note(beat * 480, 480, 60 + beat, 80))
    track.controls.append(symusic.ControlChange(480, 64, 127))
    track.controls.append(symusic.ControlChange(2880, 64, 0))
    score.tracks.append(track)
    score = symusic.Score.from_midi(score.dumps_midi())
    cut = symusic.Score.from_midi(cut_midi(score, 3.0, 8.5))  # from beat 3 on
    whole, part = read_midi(score).crop(3.0, 8.5), read_midi(cut)
    np.testing.assert_allclose(part.onset, whole.onset, atol=1e-3)
    np.testing.assert_array_equal(part.pitch, whole.pitch)
    np.testing.assert_allclose(part.pedal[:2], whole.pedal[:2], atol=1e-3)
    assert [round(tempo.qpm) for tempo in cut.tempos] == [60, 120, 90]
    assert part.seconds <= 5.5 + 1e-3


def test_missing_audio_is_rendered_and_marked(tmp_path, samples):
    write_notes(tmp_path / "music" / "one.mid", make_notes(1, seconds=12))
    instruments = [{"path": str(samples)}]
    source = {"path": str(tmp_path / "music"), "licence": "CC0"}
    _, rows, _ = run(tmp_path, [source], instruments=instruments, sampling_rate=RATE, window_seconds=5)
    assert len(rows) == 3 and {row["audio_origin"] for row in rows} == {"rendered"}
    for row in rows:
        audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert rate == RATE and len(audio) == pytest.approx(row["seconds"] * RATE, abs=1)
        first = round(read_midi(row["midi"]).onset[1] * RATE)
        assert np.abs(audio[first : first + 1600]).max() > 0.05
    _, again, _ = run(tmp_path / "again", [source], instruments=instruments, sampling_rate=RATE, window_seconds=5)
    assert [row["audio"] for row in again] == [row["audio"] for row in rows]
    assert [row["captions"] for row in again] == [row["captions"] for row in rows]


def test_an_instrument_that_plays_other_keys_is_refused(samples):
    class Transposed:
        def render(self, notes, sampling_rate):
            notes = PianoNotes(**{**vars(notes), "pitch": notes.pitch + 3})
            return SampledInstrument(samples).render(notes, sampling_rate)

    check_instruments([SampledInstrument(samples)], ["good"])
    with pytest.raises(ValueError, match=r"bad\.sf2: .* plays wrong keys"):
        check_instruments([Transposed()], ["bad.sf2"])


def test_missing_midi_is_transcribed_and_marked(tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "one.wav", noise(12), RATE)
    write_notes(tmp_path / "heard.mid", make_notes(1, seconds=12))
    transcription = (tmp_path / "heard.mid").read_bytes()
    monkeypatch.setattr("training.data.dataset_rows.transcribed_midi", lambda audio: transcription)
    _, rows, _ = run(tmp_path, [{"path": str(tmp_path / "music"), "licence": "CC0"}], transcribe=True)
    assert rows[0]["midi_origin"] == "transcribed" and rows[0]["audio_origin"] == "real"
    assert rows[0]["audio"]["bytes"] == (tmp_path / "music" / "one.wav").read_bytes()  # not encoded again
    assert len(read_midi(rows[0]["midi"])) == rows[0]["notes"]


def test_transcription_without_its_extra_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "one.wav", noise(5), RATE)
    transcription_pianobind.load_transcriber.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "transkun", None)
    status, _, _ = run(tmp_path, [{"path": str(tmp_path / "music"), "licence": "CC0"}], transcribe=True)
    assert status == 2 and "[transcribe]" in capsys.readouterr().err


def test_captions_are_kept_completed_and_marked(tmp_path):
    folder = tmp_path / "music"
    write_notes(folder / "one.mid", make_notes(1))
    write_notes(folder / "two.mid", make_notes(2))
    given = "A slow, sad tune; it rains."
    rows = [{"id": "one", "caption": given, "tags": "Sad,New-age", "licence": "CC0"}, {"id": "two", "licence": "CC0"}]
    write_table(folder / "metadata.csv", rows)
    _, rows, _ = run(tmp_path, [{"path": str(folder)}], captions=4, match_melodies=False)
    first, second = sorted(rows, key=lambda row: row["piece_id"])
    assert first["captions"][0] == given and first["caption_origins"] == ["given"] + ["generated"] * 3
    assert second["caption_origins"] == ["generated"] * 4 and len(set(second["captions"])) == 4
    assert first["tags"] == ["Sad", "New-age"]
    assert any("sad" in caption.lower() or "new" in caption.lower() for caption in first["captions"][1:])


def test_piast_captions_follow_their_grammar():
    claims = [("definitely", "jazz"), ("also", "laid-back"), ("definitely", "calm"), ("potentially", "happy")]
    expected = "This is definitely Jazz genre; definitely Relaxing/Calm mood; also Laid-back style; "
    assert write_piast_caption(claims) == expected + "potentially Happy mood of piano music."
    assert write_piast_caption([("also", "dry")]) == ""
    assert facts_of_tags(["Relaxing/Calm", "Speedy", "Pop-Piano Cover"]) == [
        "relaxing",
        "calm",
        "fast",
        "pop-piano cover",
    ]


def test_the_dataset_loads_saves_and_is_pushed(tmp_path, small_corpus, monkeypatch):
    pushed = []

    def push_folder(folder, *target, message):
        pushed.append((*target, {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}))

    monkeypatch.setattr(dataset_files, "push_folder", push_folder)
    monkeypatch.setattr(dataset_files, "GROUP_ROWS", 2)
    disk = tmp_path / "disk"
    options = {"save_to_disk": str(disk), "push_to_hub": "me/piano", "test_share": 0.0, "shard_megabytes": 1e-3}
    status, _, _ = run(tmp_path, [{"path": str(small_corpus)}], **options)
    assert status == 0
    from datasets import load_from_disk

    output = tmp_path / "dataset"
    loaded = load_parquet(output, tmp_path / "cache")
    for dataset in (loaded, load_from_disk(str(disk))):
        assert set(dataset) == {"train", "valid"} and sum(map(len, dataset.values())) == 10
        assert type(dataset["train"].features["audio"]).__name__ == "Audio"
        row = dataset["train"][0]
        assert row["audio"] is None and row["composer_born"] in ("1810", None)
        assert len(read_midi(row["midi"])) == row["notes"]
    shards = sorted(path.name for path in (output / "data").glob("train-*"))
    assert len(shards) > 1 and shards[0] == f"train-00000-of-{len(shards):05d}.parquet"
    expected = {"README.md", "report.json", "refused.csv", *(f"data/{name}" for name in shards)}
    assert pushed[0][:3] == ("me/piano", "dataset", True) and expected <= pushed[0][3]
    assert (disk / "README.md").read_text() == (output / "README.md").read_text()


def test_the_card_states_counts_licences_and_origins(tmp_path, small_corpus):
    run(tmp_path, [{"path": str(small_corpus)}], title="Eight songs", window_seconds=20)
    card = (tmp_path / "dataset" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc0-1.0" and header["pretty_name"] == "Eight songs"
    files = {file["split"]: file["path"] for file in header["configs"][0]["data_files"]}
    assert files == {split: f"data/{split}-*.parquet" for split in files} and "train" in files
    assert "# Eight songs" in card and "windows of 20 seconds" in card and "CC0" in card
    assert "`caption_origins`" in card and "None of 10 pieces was refused." in card and str(tmp_path) not in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windw_seconds": 3}, "unknown key windw_seconds"),
        ({"captions": "three"}, "captions: must be int"),
        ({"sources": []}, "`sources` is empty"),
        ({"sources": [{"path": ".", "layuot": "rows"}]}, "unknown key layuot"),
        ({"sources": [{"path": ".", "layout": "maestro"}]}, "must be one of folder"),
        ({"sources": [{"path": "nowhere"}]}, "is not a folder"),
        ({"sources": [{"layout": "rows"}]}, "path is missing"),
        ({"valid_share": 0.6, "test_share": 0.4}, "leave songs for training"),
        ({"hop_seconds": 3}, "without `window_seconds`"),
        ({"push_to_hub": "piano"}, "owner/name"),
        ({"instruments": [{"path": "no.sf2"}]}, "does not exist"),
        ({"push_to_hub": "a/b", "private": False, "keep_unstated_licence": True}, "nobody may publish"),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_its_key(tmp_path, capsys, changes, message):
    config = tmp_path / "config.yaml"
    tmp_path.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump({"sources": [{"path": "."}], "output": str(tmp_path / "out"), **changes}))
    assert build_dataset.main([str(config)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(config) in error and error.count("\n") == 1


def test_a_key_of_an_earlier_version_works_and_says_its_present_name(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"sources": [{"path": "."}], "output": str(tmp_path / "out"), "fewest_notes": 9}))
    assert BuildArguments.from_yaml(config).min_notes == 9
    assert capsys.readouterr().err == f"{config}: the key `fewest_notes` is now called `min_notes`; rename it.\n"
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_is_not_touched(tmp_path, small_corpus, capsys):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "thesis.txt").write_text("mine")
    status, _, _ = run(tmp_path, [{"path": str(small_corpus)}])
    assert status == 2 and "already holds something" in capsys.readouterr().err
    assert (tmp_path / "dataset" / "thesis.txt").read_text() == "mine"


def test_every_key_has_a_help_text():
    from dataclasses import fields

    for cls in (BuildArguments, SourceArguments):
        assert all(item.metadata.get("help") for item in fields(cls))


def test_labels_take_the_types_of_their_columns():
    cleaned = clean_labels({"difficulty": "3", "valence": "0.5", "split": "Validation", "year": 1890, "notes": 4})
    assert cleaned == {"difficulty": 3, "valence": 0.5, "split": "valid", "year": "1890"}
    with pytest.raises(ValueError, match="emotion_quadrant"):
        clean_labels({"emotion_quadrant": 5})
