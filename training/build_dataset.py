"""Folders of piano recordings, MIDI and labels -> a `datasets` dataset on disk or on the Hub.

    python -m training.build_dataset CONFIG.yaml [--push-to-hub OWNER/NAME]

A small file:

    output: runs/my_dataset
    sources:
    - {path: my_recordings, licence: CC BY 4.0}          # files paired by stem, metadata.csv|jsonl|parquet
    - {path: POP909-Dataset, layout: pop909}             # or a published corpus, as released
    window_seconds: 20
    instruments: [{path: MuseScore_General.sf3}]         # renders the audio that is missing

The keys of the file are the fields of `training.data.build_arguments.BuildArguments`; the columns of the result are
those of `training.data.dataset_schema.COLUMNS`. Two passes over the pieces: the first checks each piece and
computes its melody's fingerprint, by which songs and splits are formed; the second writes the rows.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from .common.atomic_folder import atomic_folder, writing
from .data.build_arguments import BuildArguments
from .data.corpus_layouts import read_source
from .data.dataset_files import Report, push_to_hub, save_to_disk, write_card, write_shards
from .data.dataset_rows import Inspection, RefusedError, inspect, rows_of
from .data.dataset_schema import features_of
from .data.pieces import Piece
from .data.rendering import Instrument, make_instruments
from .data.song_splits import assign_songs, assign_splits


def build(arguments: BuildArguments) -> Report:
    """Builds a dataset.

    Returns:
        `Report`: counts of rows and refused pieces; `output` holds it as `report.json` and `refused.csv`.
    Raises:
        ValueError: an instrument is out of tune, a source does not have its layout, two pieces have one name, or no
            piece is left.
        OSError: something cannot be read or written. The folder is complete or absent.
    """
    instruments = make_instruments(arguments.instruments)
    report = Report()
    with atomic_folder(arguments.output) as folder:
        _write(folder, arguments, instruments, report)
        if arguments.save_to_disk:
            with atomic_folder(arguments.save_to_disk) as disk:
                save_to_disk(folder, disk)
    if arguments.push_to_hub:
        push_to_hub(Path(arguments.output), arguments.push_to_hub, arguments.private)
    return report


def _write(folder: Path, arguments: BuildArguments, instruments: list[Instrument], report: Report) -> None:
    """Writes the dataset into an empty folder."""
    work_folder = folder / ".work"
    work_folder.mkdir()
    pieces, seen = _inspect_all(arguments, work_folder, report)
    if not pieces:
        output = Path(arguments.output)
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            report.save(output)
        raise ValueError(
            f"{output}: no piece is left, all {report.pieces} were refused "
            f"({', '.join(f'{reason}: {count}' for reason, count in report.reasons.items())}); see refused.csv."
        )
    assign_songs(pieces, seen, arguments, report)
    assign_splits(pieces, arguments, report)
    features = features_of(set().union(*(piece.labels for piece in pieces)))
    rows = _rows(pieces, seen, arguments, instruments, report)
    write_shards(rows, folder, features, arguments.shard_megabytes, report)
    write_card(folder, arguments, report, features)
    report.save(folder)
    shutil.rmtree(work_folder)


def _inspect_all(arguments: BuildArguments, work_folder: Path, report: Report) -> tuple[list[Piece], list[Inspection]]:
    """The pieces that enter the dataset; the others are noted in the report."""
    pieces, seen, names, first_with = [], [], set(), {}
    for number, source in enumerate(arguments.sources):
        for piece in tqdm(read_source(source, work_folder / str(number)), desc=f"reading {source.path}", unit="piece"):
            report.pieces += 1
            if piece.piece_id in names:
                raise ValueError(
                    f"{source.path}: two pieces are called {piece.piece_id}; give sources their own `name`."
                )
            names.add(piece.piece_id)
            files = _times(piece.midi, piece.audio)
            try:
                inspection = inspect(piece, arguments, work_folder)
            except RefusedError as refused:
                report.refuse(piece, refused.reason, str(refused))
                continue
            except OSError:
                if not _refuse_changed(piece, files, report):
                    raise
                continue
            inspection.files = files
            original = next((first_with[digest] for digest in inspection.digests if digest in first_with), None)
            if original is not None:
                report.refuse(piece, "duplicate", f"it is the same music as {original}.")
                continue
            first_with |= dict.fromkeys(inspection.digests, piece.piece_id)
            pieces.append(piece)
            seen.append(inspection)
    return pieces, seen


def _rows(
    pieces: list[Piece],
    seen: list[Inspection],
    arguments: BuildArguments,
    instruments: list[Instrument],
    report: Report,
) -> Iterator[dict]:
    for piece, inspection in zip(tqdm(pieces, desc="writing", unit="piece"), seen, strict=True):
        try:
            rows = list(rows_of(piece, inspection, arguments, instruments))
        except (ValueError, OSError, RuntimeError):  # of the libraries that read music
            if not _refuse_changed(piece, inspection.files, report):
                raise
            continue
        if _refuse_changed(piece, inspection.files, report):
            continue
        yield from rows
        if not rows:
            report.refuse(piece, "too short", f"no window of it has {arguments.min_notes} notes.")


def _times(*paths: Path | None) -> dict:
    """Size and modification time of the existing files."""
    times = {}
    for path in filter(None, paths):
        with suppress(FileNotFoundError):
            status = path.stat()
            times[path] = (status.st_size, status.st_mtime_ns)
    return times


def _refuse_changed(piece: Piece, files: dict[Path, tuple], report: Report) -> bool:
    """Refuses a piece whose file has changed since the first pass."""
    now = _times(*files)
    changed = [str(path) for path in files if now.get(path) != files[path]]
    if changed:
        message = f"{' and '.join(changed)} changed or vanished while the dataset was built; build it again."
        report.refuse(piece, "changed", message)
    return bool(changed)


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.build_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="YAML file; keys: the fields of training.data.build_arguments.BuildArguments")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="in place of the file's `push_to_hub`")
    options = parser.parse_args(command_line)
    try:
        arguments = BuildArguments.from_yaml(options.config)
        if options.push_to_hub:
            arguments = replace(arguments, push_to_hub=options.push_to_hub)
            arguments.check("--push-to-hub")
        report = build(arguments)
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        print(f"build_dataset: {error}", file=sys.stderr)
        return 2
    print(f"{sum(report.rows.values())} rows of {report.pieces - len(report.refused)} pieces -> {arguments.output}")
    for split, count in report.rows.items():
        print(f"  {split}: {count} rows, {report.songs[split]} songs, {report.seconds[split] / 3600:.2f} hours")
    for reason, count in report.reasons.items():
        print(f"  refused, {reason}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
