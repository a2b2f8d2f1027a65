"""Corpora as they are released, each in miniature: what is read of them, and what is refused."""

import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.data.build_arguments import SourceArguments
from training.data.corpus_layouts import read_source

from .corpus_files import make_notes, run, write_notes, write_table


def pieces_of(layout, folder, tmp_path, **options):
    source = SourceArguments(path=str(folder), layout=layout, **options)
    return {piece.piece_id: piece for piece in read_source(source, tmp_path / "work")}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_pop909_groups_the_versions_of_a_song(tmp_path):
    touch(tmp_path / "r" / "POP909", "001/001.mid", "001/versions/001-v1.mid", "002/002.mid", "001/beat_midi.txt")
    pieces = pieces_of("pop909", tmp_path / "r", tmp_path)
    assert list(pieces) == ["pop909/001", "pop909/001-v1", "pop909/002"]
    assert pieces["pop909/001-v1"].labels["song"] == pieces["pop909/001"].labels["song"] == "pop909/001"
    assert pieces["pop909/002"].labels["licence"] == "MIT"


def test_asap_takes_performances_by_work(tmp_path):
    folder = tmp_path / "asap"
    work = "Bach/Fugue/bwv_846"
    touch(folder, f"{work}/Shi05M.mid", f"{work}/Lee01M.mid", f"{work}/Lee01M.wav", f"{work}/midi_score.mid")
    common = {"composer": "Bach", "title": "Fugue_bwv_846", "folder": work, "midi_score": f"{work}/midi_score.mid"}
    write_table(
        folder / "metadata.csv",
        [
            common | {"midi_performance": f"{work}/{who}.mid", "audio_performance": f"{work}/{who}.wav"}
            for who in ("Shi05M", "Lee01M")
        ],
    )
    pieces = pieces_of("asap", folder, tmp_path)
    first, second = pieces.values()
    assert first.audio is None and second.audio.name == "Lee01M.wav"
    assert first.labels["song"] == second.labels["song"] == f"asap/{work}"
    assert first.labels["title"] == "Fugue bwv 846" and first.labels["creator"] == "Bach"


def test_emopia_reads_quadrant_video_and_published_split(tmp_path):
    touch(tmp_path / "e", "midis/Q3_02t1bj7ZABY_0.mid", "midis/Q1_02t1bj7ZABY_1.mid", "__MACOSX/midis/._Q1_x.mid")
    (tmp_path / "e" / "split").mkdir()
    write_table(tmp_path / "e" / "split" / "val.csv", [{"fname": "Q3_02t1bj7ZABY_0", "label": "Q3"}])
    pieces = pieces_of("emopia", tmp_path / "e", tmp_path)
    sad = pieces["emopia/Q3_02t1bj7ZABY_0"]
    assert len(pieces) == 2 and sad.midi_origin == "transcribed" and sad.labels["tier"] == "human"
    assert (sad.labels["emotion_quadrant"], sad.labels["valence"], sad.labels["arousal"]) == (3, -1.0, -1.0)
    assert sad.labels["split"] == "valid" and "split" not in pieces["emopia/Q1_02t1bj7ZABY_1"].labels
    assert {piece.labels["song"] for piece in pieces.values()} == {"emopia/02t1bj7ZABY"}


def test_pianist8_reads_artist_and_split(tmp_path):
    touch(tmp_path / "p", "train/Hancock/Hancock_All_Apologies.mid", "test/Yiruma/Yiruma_May_Be.mid")
    pieces = pieces_of("pianist8", tmp_path / "p", tmp_path)
    piece = pieces["pianist8/Yiruma_May_Be"]
    assert (piece.labels["creator"], piece.labels["title"]) == ("Yiruma", "May Be")
    assert piece.labels["split"] == "test" and piece.labels["licence"] == "not stated"
    assert (
        pieces_of("pianist8", tmp_path / "p", tmp_path, licence="x")["pianist8/Yiruma_May_Be"].labels["licence"] == "x"
    )


def test_pop1k7_reads_one_of_its_three_forms(tmp_path):
    for form in ("midi_transcribed", "midi_synchronized", "midi_analyzed"):
        touch(tmp_path / "k" / "Pop1K7" / form, "src_001/0.mid", "src_004/0.mid")
    pieces = pieces_of("pop1k7", tmp_path / "k", tmp_path)
    assert list(pieces) == ["pop1k7/src_001/0", "pop1k7/src_004/0"]
    assert all("midi_synchronized" in piece.midi.parts for piece in pieces.values())


def test_vgmidi_takes_the_majority_of_phrase_labels(tmp_path):
    name = "Other_NES_Tetris_Music A"
    touch(tmp_path / "v" / "labelled" / "midi", f"{name}.mid", "Mana_SNES_Secret of Mana_Whisper.mid")
    touch(tmp_path / "v" / "unlabelled" / "midi", "x_y_z_w.mid")
    votes = [("1", "0"), ("1", "0"), ("0", "1")]
    write_table(
        tmp_path / "v" / "labelled" / "vgmidi.csv",
        [{"midi": f"../phrases/{name}_{k}.mid", "valence": v, "arousal": a} for k, (v, a) in enumerate(votes)],
    )
    pieces = pieces_of("vgmidi", tmp_path / "v", tmp_path)
    tetris = pieces[f"vgmidi/{name}"].labels
    assert len(pieces) == 2 and tetris["emotion_quadrant"] == 4 and tetris["game"] == "Tetris"
    assert "valence" not in pieces["vgmidi/Mana_SNES_Secret of Mana_Whisper"].labels


def test_piast_joins_both_parts_by_video(tmp_path):
    folder = tmp_path / "PIAST"
    touch(folder, "piast_at/midi/-LG6ZoFbMX4.mid", "piast_yt/midi/-LG6ZoFbMX4.mid")
    touch(folder, "piast_at/midi/0hxtyss_part_2.mid", "piast_at/audio/-LG6ZoFbMX4.mp3")
    caption = "This is definitely Emotional, Dreamy mood; also Laid-back style of piano music."
    write_table(folder / "piast_at" / "at_text.csv", [{"AudioFile": "-LG6ZoFbMX4"}])
    (folder / "piast_at" / "at_caption.json").write_text(json.dumps([{"caption": caption}]))
    split = [{"audio_path": "0hxtyss_part_2.npy", "caption": "c", "tag": "Jazz,Sad", "tag_list": ["Jazz", "Sad"]}]
    (folder / "piast_at" / "dataset_val.json").write_text(json.dumps(split))
    (folder / "piast_yt" / "youtube.json").write_text(json.dumps([{"track_id": "-LG6ZoFbMX4", "tag": ["Happy,Pop"]}]))
    pieces = pieces_of("piast", folder, tmp_path)
    expert, web = pieces["piast_at/-LG6ZoFbMX4"], pieces["piast_yt/-LG6ZoFbMX4"]
    assert expert.labels["song"] == web.labels["song"] and expert.audio.suffix == ".mp3"
    assert expert.labels["captions"] == [caption] and expert.labels["tags"] == ["Emotional", "Dreamy", "Laid-back"]
    assert (expert.labels["tier"], web.labels["tier"]) == ("human", "weak") and web.labels["tags"] == ["Happy", "Pop"]
    assert pieces["piast_at/0hxtyss_part_2"].labels["split"] == "valid"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_a_folder_in_three_formats(tmp_path, kind):
    folder = tmp_path / "f"
    touch(folder, "a/Op. 9 No.2.mid", "a/Op. 9 No.2.MP3")
    row = {"file_name": "a/Op. 9 No.2.mid", "licence": "CC0", "tags": "slow;sad", "caption": "one; two", "opus": "9"}
    if kind == "csv":
        write_table(folder / "metadata.csv", [row])
    elif kind == "jsonl":
        (folder / "metadata.jsonl").write_text(json.dumps(row | {"tags": ["slow", "sad"]}) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist([row | {"tags": ["slow", "sad"]}]), folder / "metadata.parquet")
    ((name, piece),) = pieces_of("folder", folder, tmp_path).items()
    assert name == "f/a/Op. 9 No.2" and piece.midi.suffix == ".mid" and piece.audio.suffix == ".MP3"
    assert piece.labels["tags"] == ["slow", "sad"] and piece.labels["captions"] == ["one; two"]
    assert piece.labels["opus"] == "9" and piece.labels["tier"] == "provenance"


def archive_of(folder, source, files):
    with tarfile.open(folder / f"{source}.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def rows_folder(tmp_path, rows):
    folder = tmp_path / "rows"
    folder.mkdir()
    with gzip.open(folder / "metadata.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def test_the_row_format_is_read_from_its_archives(tmp_path):
    common = {"licence": "MIT", "tier": "provenance", "split": "valid", "notes": 1, "velocities": 1, "pedal": False}
    rows = [
        common | {"id": f"s-{k}", "source": "s", "midi": f"s/s-{k}.mid", "song": f"{k:012x}", "genre": ["ragtime"]}
        for k in range(3)
    ]
    folder = rows_folder(tmp_path, [*rows, common | {"id": "t-0", "source": "t", "midi": "t/t-0.mid"}])
    contents = {f"s/s-{k}.mid": write_notes(tmp_path / "x.mid", make_notes(k)).read_bytes() for k in range(3)}
    archive_of(folder, "s", contents | {"../evil.mid": b"x"})
    status, rows, refused = run(tmp_path, [{"path": str(folder), "layout": "rows"}])
    assert status == 0 and [row["piece_id"] for row in rows] == ["s-0", "s-1", "s-2"]
    assert refused["t-0"]["reason"] == "missing file"  # its archive is not there
    assert rows[1]["midi"] == contents["s/s-1.mid"] and rows[1]["song"] == "000000000001"
    assert rows[0]["notes"] > 1 and rows[0]["genre"] == rows[0]["tags"] == ["ragtime"]
    assert {row["split"] for row in rows} == {"valid"}
    assert not (tmp_path / "evil.mid").exists() and not (tmp_path / "dataset" / ".work").exists()


@pytest.mark.parametrize("member", ["../evil.mid", "/tmp/evil.mid", "s/../../evil.mid"])
def test_no_path_leads_out_of_the_work_folder(tmp_path, capsys, member):
    folder = rows_folder(tmp_path, [{"id": "s-0", "source": "s", "midi": member, "licence": "MIT", "tier": "weak"}])
    archive_of(folder, "s", {member: b"x"})
    status, _, _ = run(tmp_path, [{"path": str(folder), "layout": "rows"}])
    assert status == 2 and "leads out of its folder" in capsys.readouterr().err


def test_links_in_archives_are_not_followed(tmp_path, capsys):
    folder = rows_folder(tmp_path, [{"id": "s-0", "source": "s", "midi": "s/a.mid", "licence": "MIT"}])
    with tarfile.open(folder / "s.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("s/a.mid")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    status, _, _ = run(tmp_path, [{"path": str(folder), "layout": "rows"}])
    assert status == 2 and "no plain file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "files", "message"),
    [
        ("folder", {"metadata.csv": b"file_name,licence\na.mid,CC0,x\n"}, "more cells than the header"),
        ("folder", {"metadata.csv": b"file_name,title\na.mid,\xff\xfe\n"}, "cannot be read as UTF-8"),
        ("folder", {"metadata.jsonl": b'{"id": "a"}\n[1]\n'}, "line 2 is not a JSON object"),
        ("folder", {"metadata.parquet": b"PAR1"}, "cannot be read as parquet"),
        ("folder", {"metadata.csv": b"title\nx\n"}, "names no file"),
        ("folder", {"metadata.csv": b"id\na\na\n"}, "names a twice"),
        ("folder", {"metadata.csv": b"id\na\n", "metadata.jsonl": b"{}"}, "keep one of them"),
        ("folder", {"notes.txt": b""}, "no piece found"),
        ("rows", {"metadata.jsonl.gz": b"not gzip"}, "metadata.jsonl.gz: cannot be read"),
        ("rows", {"a.mid": b""}, "there is no metadata.jsonl.gz"),
        ("asap", {"metadata.csv": b"composer,title\nBach,Fugue\n"}, "have no 'midi_performance'"),
        ("piast", {"piast_yt/youtube.json": b"{"}, "youtube.json: is not JSON"),
    ],
)
def test_damaged_metadata_is_named(tmp_path, layout, files, message):
    for name, content in files.items():
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        pieces_of(layout, tmp_path / "c", tmp_path)
