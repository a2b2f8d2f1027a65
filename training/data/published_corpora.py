"""Published piano corpora as they were released: the folder of a release -> its pieces and labels.

Every reader says what it assumes of the release. Each takes the folder and the source's name, yields pieces in a fixed
order, and raises `ValueError` where the folder is another one. Songs are named `SOURCE/...`; a piece without a name
for its song is grouped by melody later.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from modeling_pianobind.inputs_pianobind import AUDIO_EXTENSIONS, MIDI_EXTENSIONS

from .pieces import Piece, read_json, read_table

SPLIT_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}


def pop909(folder: Path, name: str) -> Iterator[Piece]:
    """POP909: `POP909/NNN/NNN.mid` and other versions in `POP909/NNN/versions/NNN-vK.mid`.

    Melody, bridge and piano stand in three tracks, all of them piano. Titles are in `index.xlsx`, which is not read.
    """
    root = _below(folder, "POP909")
    for path in _midi_files(root):
        song = path.relative_to(root).parts[0]
        if re.fullmatch(r"\d{3}", song) and path.stem.startswith(song):
            labels = {"song": f"{name}/{song}", "genre": ["pop-piano cover", "mandopop"]}
            yield Piece(f"{name}/{path.stem}", name, midi=path, labels=labels)


def asap(folder: Path, name: str) -> Iterator[Piece]:
    """ASAP: `metadata.csv` with composer, title, folder, midi_performance and, from version 1.1 on, audio_performance.

    A row is a performance; the recordings are there only after the release's own script has fetched them. The piece of
    music (`folder`) is the song. Scores (`midi_score`) are not performances and are left out.
    """
    table = folder / "metadata.csv"
    if not table.is_file():
        raise ValueError(f"{folder}: ASAP's metadata.csv is not there; give the folder that holds it.")
    for row in read_table(table):
        midi = folder / row["midi_performance"]
        audio = folder / row["audio_performance"] if row.get("audio_performance") else None
        labels = {
            "song": f"{name}/{row['folder']}",
            "title": row["title"].replace("_", " "),
            "creator": row["composer"],
            "genre": ["classical"],
        }
        piece_id = f"{name}/{row['midi_performance'].removesuffix('.mid')}"
        yield Piece(piece_id, name, midi=midi, audio=audio if audio and audio.is_file() else None, labels=labels)


def emopia(folder: Path, name: str) -> Iterator[Piece]:
    """EMOPIA 1.0 to 2.x: `midis/Qn_VIDEO_k.mid`, n the quadrant of the clip, VIDEO of eleven letters, k its number.

    Recordings are found as `audio/Qn_VIDEO_k.*` (or in the folder of the MIDI) where they were fetched and cut. The
    published split by clip is read from `split/{train,val,test}.csv` (column `fname`), which the code of the paper's
    classifier holds; clips of one video are one song, so the split of a row may be a stricter one.
    """
    published = _split_tables(folder, "fname")
    recordings = _recordings(folder)
    for path in _midi_files(folder):
        match = re.fullmatch(r"Q([1-4])_(.{11})_(\d+)", path.stem)
        if not match:
            continue
        quadrant = int(match[1])
        labels = {"song": f"{name}/{match[2]}", "youtube_id": match[2], **_quadrant_labels(quadrant)}
        labels["official_split"] = published.get(path.stem)
        labels["split"] = published.get(path.stem)
        yield Piece(f"{name}/{path.stem}", name, path, recordings.get(path.stem), "transcribed", _present(labels))


def pianist8(folder: Path, name: str) -> Iterator[Piece]:
    """Pianist8: `ARTIST_Title.mid` in any folder; below `train`, `valid` or `test` that is its published split.

    The text before the first underscore is the artist. MIDI was transcribed; recordings in its folder are used too.
    """
    recordings = _recordings(folder)
    for path in _midi_files(folder):
        artist, _, title = path.stem.partition("_")
        split = next((SPLIT_FOLDERS[part] for part in path.relative_to(folder).parts if part in SPLIT_FOLDERS), None)
        labels = {"creator": artist, "title": title.replace("_", " "), "official_split": split, "split": split}
        yield Piece(f"{name}/{path.stem}", name, path, recordings.get(path.stem), "transcribed", _present(labels))


def pop1k7(folder: Path, name: str) -> Iterator[Piece]:
    """Pop1K7 (AILabs1k7): `midi_transcribed/src_00N/K.mid`, and the same pieces aligned to beats and analysed.

    `midi_synchronized` is read where it is there (beats are quarter notes), else `midi_transcribed`, else
    `midi_analyzed`: never two of them, they hold the same music. `src_00N` names who played.
    """
    roots = ("midi_synchronized", "midi_transcribed", "midi_analyzed")
    folders = {path.name: path for path in sorted(folder.rglob("midi_*")) if path.is_dir()}
    root = next((folders[name] for name in roots if name in folders), folder)
    for path in _midi_files(root):
        labels = {"genre": ["pop-piano cover"], "player": path.parent.name}
        yield Piece(f"{name}/{path.parent.name}/{path.stem}", name, path, None, "transcribed", labels)


def vgmidi(folder: Path, name: str) -> Iterator[Piece]:
    """VGMIDI: pieces in `labelled/midi/SERIES_CONSOLE_GAME_PIECE.mid`; a CSV below `labelled` with the columns midi,
    valence and arousal holds the listeners' labels, for pieces or for their phrases (`PIECE_k`).

    Labels are -1 or 1 (in older releases 0 or 1); of phrases the majority is taken, a tie gives no label. Unlabelled
    pieces of the labelled folder stay, those of `unlabelled` are left out.
    """
    root = _below(folder, "labelled")
    labels = _vgmidi_labels(root)
    for path in _midi_files(_below(root, "midi")):
        parts = path.stem.split("_", 3)
        known = {"song": f"{name}/{path.stem}", "genre": ["game"], "title": parts[-1].replace("_", " ")}
        if len(parts) == 4:
            known["game"] = parts[2]
        valence, arousal = labels.get(path.stem, (0, 0))
        if valence and arousal:
            known |= _quadrant_labels({(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}[valence, arousal])
        yield Piece(f"{name}/{path.stem}", name, midi=path, labels=known)


def _vgmidi_labels(root: Path) -> dict[str, tuple[int, int]]:
    """Stem of a piece -> valence and arousal, each -1, 0 (tied) or 1."""
    votes = {}
    for table in sorted(root.rglob("*.csv")):
        for row in read_table(table):
            if {"midi", "valence", "arousal"} <= set(row):
                stem = Path(row["midi"]).stem
                stem = re.sub(r"_\d+$", "", stem) if "phrases" in Path(row["midi"]).parts else stem
                vote = [1 if float(row[label]) > 0 else -1 for label in ("valence", "arousal")]
                votes.setdefault((table, stem), []).append(vote)
    sums = {stem: [sum(column) for column in zip(*cast, strict=True)] for (_, stem), cast in votes.items()}
    return {stem: tuple((value > 0) - (value < 0) for value in pair) for stem, pair in sums.items()}


def piast(folder: Path, name: str) -> Iterator[Piece]:
    """PIAST: `piast_at` (experts) and `piast_yt` (tags of the web), each with `midi/TRACK.mid` and, once fetched,
    `audio/TRACK.*`; folder names in any case.

    Texts of AT: `at_caption.json`, a list of {"caption", ...} in the order of `at_text.csv`, whose column `AudioFile`
    names the track; or the split files `dataset_{train,val,test}.json` of the PianoBind repository (audio_path,
    caption, tag_list), put into `piast_at`, which also bring the published split. Texts of YT: `youtube.json`, a list
    of {"track_id", "tag": ["A,B"]}, or its split files. Tracks are named by video, with its first seven letters alone
    in some `VIDEO_part_k`: all parts of a video, and its AT and YT cuts, are one song.
    """
    has_part = False
    for part, tier in (("piast_at", "human"), ("piast_yt", "weak")):
        root = next((path for path in sorted(folder.iterdir()) if path.name.lower() == part and path.is_dir()), None)
        if root is None:
            continue
        has_part = True
        texts = _piast_texts(root)
        recordings = _recordings(root)
        midis = {path.stem: path for path in _midi_files(root)}
        for track in sorted(set(midis) | set(recordings)):
            labels = {"song": f"{name}/{track[:7]}", "tier": tier, **texts.get(track, {})}
            yield Piece(f"{part}/{track}", part, midis.get(track), recordings.get(track), "transcribed", labels)
    if not has_part:
        raise ValueError(f"{folder}: neither piast_at nor piast_yt is there; give the folder that holds them.")


def _piast_texts(root: Path) -> dict[str, dict]:
    """Track -> captions, tags and split."""
    texts = {}
    table, captions = root / "at_text.csv", root / "at_caption.json"
    if table.is_file() and captions.is_file():
        rows, entries = list(read_table(table)), read_json(captions)
        if len(rows) != len(entries):
            raise ValueError(f"{captions}: {len(entries)} captions for {len(rows)} rows of {table.name}; fetch both.")
        for row, entry in zip(rows, entries, strict=True):
            texts[Path(str(row["AudioFile"])).stem] = _piast_row(entry)
    if (root / "youtube.json").is_file():
        for entry in read_json(root / "youtube.json"):
            texts[str(entry["track_id"])] = _piast_row(entry)
    for path in sorted(root.glob("dataset_*.json")):
        split = SPLIT_FOLDERS.get(path.stem.removeprefix("dataset_"))
        for entry in read_json(path):
            labels = _piast_row(entry) | {"split": split, "official_split": split}
            texts[Path(entry["audio_path"]).stem] = _present(labels)
    return texts


def _piast_row(entry: dict) -> dict:
    tags = entry.get("tag_list") or entry.get("tag") or []
    tags = [tag.strip() for text in ([tags] if isinstance(tags, str) else tags) for tag in text.split(",")]
    if not tags and entry.get("caption"):  # the grammar of the captions names every tag
        clauses = entry["caption"].removesuffix(" of piano music.").removeprefix("This is ").split(";")
        tags = [
            tag.strip()
            for clause in clauses
            for tag in re.sub(r"^(definitely|also|potentially) | (genre|style|mood)$", "", clause.strip()).split(",")
        ]
    labels = {"captions": [entry["caption"].strip()] if entry.get("caption") else [], "tags": [t for t in tags if t]}
    return {key: value for key, value in labels.items() if value}


# ---- what several readers need -------------------------------------------------------------------------------------


def _below(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _midi_files(folder: Path) -> list[Path]:
    # archives made on a Mac bring `__MACOSX/._name.mid`, which is not MIDI
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in MIDI_EXTENSIONS)
    return sorted(path for path in paths if not path.name.startswith(".") and path.is_file())


def _recordings(folder: Path) -> dict[str, Path]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_EXTENSIONS)
    return {path.stem: path for path in sorted(paths) if not path.name.startswith(".") and path.is_file()}


def _split_tables(folder: Path, column: str) -> dict[str, str]:
    """Stem -> split, from `split/NAME.csv` anywhere below the folder."""
    splits = {}
    for table in sorted(folder.rglob("split/*.csv")):
        if table.stem in SPLIT_FOLDERS:
            splits |= {Path(row[column]).stem: SPLIT_FOLDERS[table.stem] for row in read_table(table) if column in row}
    return splits


def _quadrant_labels(quadrant: int) -> dict:
    """Russell's quadrants, counted from happy and excited: 1 and 4 are positive, 1 and 2 excited."""
    return {
        "emotion_quadrant": quadrant,
        "valence": 1.0 if quadrant in (1, 4) else -1.0,
        "arousal": 1.0 if quadrant in (1, 2) else -1.0,
    }


def _present(labels: dict) -> dict:
    return {key: value for key, value in labels.items() if value is not None and value != ""}


__all__ = ["asap", "emopia", "pianist8", "piast", "pop1k7", "pop909", "vgmidi"]
