"""Layouts of corpora: where files and labels are. Yields one `Piece` for each piece without opening its music."""

from collections.abc import Iterator
from pathlib import Path

from modeling_pianobind.inputs_pianobind import EXTENSIONS, FORMATS, group_pieces, list_files, modality_of

from . import published_corpora
from .build_arguments import SourceArguments
from .pieces import TEXT_COLUMNS, Piece, path_inside, read_table, unpack

UNSTATED_LICENCE = "not stated"
# of the open piano corpus: sources whose MIDI was transcribed from recordings
TRANSCRIBED_SOURCES = {"pop1k7", "emopia", "pianist8", "hidden_voices"}
FILE_COLUMNS = ("file_name", "midi", "audio", "piece_id", "id")  # any of them may name the piece in a metadata file

# layout -> its reader, the licence that the release states, and the tier of its labels
PUBLISHED = {
    "pop909": (published_corpora.pop909, "MIT", "provenance"),
    "asap": (published_corpora.asap, "CC BY-NC-SA 4.0", "provenance"),
    "emopia": (published_corpora.emopia, "CC BY-NC-SA 4.0", "human"),
    "pianist8": (published_corpora.pianist8, UNSTATED_LICENCE, "provenance"),
    "pop1k7": (published_corpora.pop1k7, UNSTATED_LICENCE, "provenance"),
    "vgmidi": (published_corpora.vgmidi, UNSTATED_LICENCE, "human"),
    "piast": (published_corpora.piast, "CC BY-NC 4.0", "human"),
}


def read_source(source: SourceArguments, work_folder: Path) -> Iterator[Piece]:
    """The pieces of a source, in a fixed order; archives are unpacked below `work_folder`.

    Raises:
        ValueError: the folder does not have its layout.
    """
    folder = Path(source.path)
    name = source.name or (folder.resolve().name if source.layout == "folder" else source.layout)
    reader, default_licence, default_tier = PUBLISHED.get(source.layout, (_folder, "", "provenance"))
    pieces = _rows(folder, source, work_folder) if source.layout == "rows" else reader(folder, name)
    count = 0
    try:
        for piece in pieces:
            if source.max_pieces and count == source.max_pieces:
                return
            count += 1
            labels = piece.labels
            labels.setdefault("licence", labels.pop("license", ""))
            # a given licence is meant for the rows that state none, which a published corpus as a whole may do too
            if not labels["licence"] or (source.licence and labels["licence"] == UNSTATED_LICENCE):
                labels["licence"] = source.licence or default_licence
            labels["tier"] = labels.get("tier") or source.tier or default_tier
            piece.collection = str(folder)
            yield piece
    except KeyError as error:
        raise ValueError(
            f"{folder}: its metadata have no {error}, which the layout `{source.layout}` needs; check `layout`."
        ) from error
    if not count:
        raise ValueError(f"{folder}: no piece found in the layout `{source.layout}`; check `path` and `layout`.")


# ---- folders -------------------------------------------------------------------------------------------------------


def _folder(folder: Path, name: str) -> Iterator[Piece]:
    """Any folder: files of one stem are a piece; `metadata.csv|jsonl|parquet` says more of them, one row a piece.

    A row names its piece in `file_name`, `midi`, `audio`, `piece_id` or `id`: a path from the folder, with or without
    extension. Descriptions are in `captions`, `caption`, `description` or `text`; several are written as a JSON
    list. Tags may also be text with `;` or `,` between them. A row without a file is passed on, to be reported.
    """
    metadata = {}
    for number, row in enumerate(_metadata_rows(folder)):
        key = next((str(row[column]) for column in FILE_COLUMNS if row.get(column)), None)
        if key is None:
            raise ValueError(
                f"{folder}: row {number + 1} of the metadata names no file; give it one of {', '.join(FILE_COLUMNS)}."
            )
        stem = _stem(key)
        if stem in metadata:
            raise ValueError(f"{folder}: the metadata names {stem} twice; keep one row a piece.")
        labels = {column: value for column, value in row.items() if column not in FILE_COLUMNS}
        described = [text for column in TEXT_COLUMNS for text in labels.pop(column, ())]
        metadata[stem] = labels | {"captions": described}
    for paths in group_pieces(list_files(folder)):
        files = {FORMATS[modality_of(path)].tower: Path(path) for path in paths}
        problem = (
            "" if len(files) == len(paths) else f"several files may be meant: {', '.join(paths)}; keep one of a kind."
        )
        stem = Path(paths[0]).relative_to(folder).with_suffix("").as_posix()
        yield Piece(f"{name}/{stem}", name, **files, labels=metadata.pop(stem, {}), problem=problem)
    for stem, labels in metadata.items():
        yield Piece(f"{name}/{stem}", name, labels=labels)


def _metadata_rows(folder: Path) -> Iterator[dict]:
    tables = [path for ending in ("csv", "jsonl", "parquet") if (path := folder / f"metadata.{ending}").is_file()]
    if len(tables) > 1:
        raise ValueError(f"{folder}: it has {', '.join(path.name for path in tables)}; keep one of them.")
    for path in tables:
        yield from read_table(path)


def _stem(path: str) -> str:
    """A path without the extension of a MIDI file, score or recording; dots of a title stay."""
    path = path.replace("\\", "/")
    return next((path[: -len(end)] for end in EXTENSIONS if path.lower().endswith(end)), path)


# ---- the open piano corpus -----------------------------------------------------------------------------------------


def _rows(folder: Path, source: SourceArguments, work_folder: Path) -> Iterator[Piece]:
    """`metadata.jsonl.gz` (or `.jsonl`), one row a piece, and its files below the folder or in `SOURCE.tar.gz`."""
    table = next((path for end in (".gz", "") if (path := folder / f"metadata.jsonl{end}").is_file()), None)
    if table is None:
        raise ValueError(f"{folder}: there is no metadata.jsonl.gz; check `path`, or use another `layout`.")
    rows = [row for row in read_table(table) if not source.include or row.get("source") in source.include]
    if unknown := sorted(set(source.include) - {row.get("source") for row in rows}):
        raise ValueError(f"{table}: no row of source {', '.join(unknown)}; correct `include`.")
    rows = rows[: source.max_pieces or None]
    for corpus in dict.fromkeys(str(row.get("source") or source.name or "rows") for row in rows):
        own = [row for row in rows if str(row.get("source") or source.name or "rows") == corpus]
        names = {row[key] for row in own for key in ("midi", "audio") if row.get(key)}
        missing = {member for member in names if not path_inside(folder, member).is_file()}
        archive = folder / f"{corpus}.tar.gz"
        if missing and archive.is_file():
            unpack(archive, missing, work_folder)
        for number, row in enumerate(own):
            files = {
                key: path_inside(work_folder if row[key] in missing else folder, row[key])
                for key in ("midi", "audio")
                if row.get(key)
            }
            labels = {key: value for key, value in row.items() if key not in ("id", "source", "midi", "audio")}
            origin = "transcribed" if corpus in TRANSCRIBED_SOURCES else "real"
            yield Piece(str(row.get("id") or f"{corpus}-{number}"), corpus, **files, midi_origin=origin, labels=labels)


__all__ = ["UNSTATED_LICENCE", "read_source"]
