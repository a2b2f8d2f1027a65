"""The embedding of a folder as a Ray Data job (extra `[ray]`), for corpora beyond one machine.

    python -m modeling_pianobind.index.ray_job FOLDER --output INDEX --workers 8

Folder, checkpoint and output are on a disk that all machines of the cluster share. `pianobind search INDEX` opens the
output: parquet files with one row a music file, and a header that is written last.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from ..checkpoint_pianobind import default_checkpoint
from ..index.folder_index import check_searchable
from ..inputs_pianobind import content_hash, explain, group_pieces, list_files, piece_of
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, complain, user_errors
from .facts import read_facts
from .shards import PARQUET_COLUMNS, parquet_row, write_parquet_header
from .storage import IndexMetadata, check_target
from .table import FileRow

PIECES_PER_BATCH = 64  # repeated when a worker is killed


class EmbedPieces:
    """A Ray actor that holds the model and turns batches of pieces into rows of parquet."""

    def __init__(self, checkpoint: str, device: str | None = None, transcribe: bool = False, solo_only: bool = False):
        self._checkpoint = Checkpoint(checkpoint, device, transcribe, solo_only=solo_only)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Embeds the files of `batch["paths"]`, each an array of one piece's paths as bytes."""
        paths = [os.fsdecode(path) for piece in batch["paths"] for path in piece]
        rows = {}
        for position, file in self._checkpoint.embed_files(paths, progress=False):
            path = paths[position]
            row = FileRow(path, piece_of(path), "", np.zeros(0), np.zeros((0, 0)), np.zeros((0, 2)))
            if file.error is not None:
                rows[position] = parquet_row(row, explain(path, file.error))
                continue
            facts, names = read_facts(path, file.spans, file.reading)
            row = row._replace(content_hash=content_hash(path), facts=facts, names=names)
            row = row._replace(embedding=file.embedding, windows=file.windows, spans=file.spans)
            rows[position] = parquet_row(row._replace(notes=file.notes, measures=file.measures))
        return {name: [rows[position][name] for position in range(len(paths))] for name in PARQUET_COLUMNS}


def embed_folder(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    workers: int = 2,
    device: str | None = None,
    transcribe: bool = False,
    pieces_per_batch: int = PIECES_PER_BATCH,
    gpus_per_worker: float = 0,
    solo_only: bool = False,
) -> list[str]:
    """Embeds a folder on the Ray cluster that this process is connected to, or on a local one.

    Ray restarts a worker that dies and repeats its batch.

    Args:
        folder: searched through all levels, on a disk that all workers see.
        output: folder for the index, on such a disk too; new or empty.
        checkpoint (`str`, *optional*): folder or Hub id; the default checkpoint if None.
        workers (`int`): processes that hold the model.
        device, transcribe, solo_only: as in `pianobind index`.
        pieces_per_batch (`int`): pieces that a worker takes at once.
        gpus_per_worker (`float`): share of a GPU that Ray keeps for each.
    Returns:
        A line for each file that could not be read.
    Raises:
        UserError: `folder` has no music, or `output` holds something else.
        ImportError: Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ImportError('Ray is needed and not installed; run `pip install "pianobind[ray]"`.') from error
    check_searchable(folder)
    output = Path(os.path.abspath(output))
    with user_errors(output, writing=True):
        check_target(output)
        if output.is_dir() and any(output.iterdir()):
            raise ValueError(f"{output}: holds an index already; choose a new or an empty folder.")
    with user_errors(folder):
        refused: list[OSError] = []
        paths = list_files(os.path.abspath(folder), refused)
    name = os.fspath(checkpoint or default_checkpoint())
    name = os.path.abspath(name) if os.path.isdir(name) else name
    settings = {"checkpoint": name, "device": device, "transcribe": transcribe, "solo_only": solo_only}
    pieces = [{"paths": [os.fsencode(path) for path in piece]} for piece in group_pieces(paths)]
    rows = ray.data.from_items(pieces, override_num_blocks=max(workers, -(-len(pieces) // pieces_per_batch)))
    rows = rows.map_batches(
        EmbedPieces,
        fn_constructor_kwargs=settings,
        batch_size=pieces_per_batch,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=gpus_per_worker,
    )
    rows.write_parquet(str(output))
    failures = _failures(output)
    failures += [{"path": error.filename, "message": explain(error.filename, error)} for error in refused]
    saved = IndexMetadata(Checkpoint(name, device, transcribe).fingerprint, transcribe, failures)
    write_parquet_header(output, saved)
    return [failure["message"] for failure in failures]


def _failures(output: Path) -> list[dict]:
    """The files that could not be read, in the order of their paths."""
    import pyarrow.parquet

    failures = []
    for file in sorted(output.glob("*.parquet")):
        table = pyarrow.parquet.read_table(file, columns=["path", "error"], filters=[("error", "!=", "")])
        failures += [{"path": os.fsdecode(row["path"]), "message": row["error"]} for row in table.to_pylist()]
    return sorted(failures, key=lambda failure: failure["path"])


def main(argv: list[str] | None = None) -> int:
    """Runs the job from the command line; the exit status is that of `pianobind index`."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_pianobind.index.ray_job", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", metavar="FOLDER", help="a folder (through all levels) that all machines see")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where the index goes; new or empty")
    parser.add_argument("--checkpoint", metavar="FOLDER|HUB_ID", help="the model (default: the package's own)")
    parser.add_argument("--device", metavar="DEVICE", help="as in `pianobind index`")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="processes with the model (default: 2)")
    parser.add_argument("--gpus-per-worker", metavar="X", type=float, default=0, help="share of a GPU (default: 0)")
    parser.add_argument("--transcribe", action="store_true", help="as in `pianobind index`")
    parser.add_argument("--solo-only", action="store_true", help="as in `pianobind index`")
    args = vars(parser.parse_args(argv))
    try:
        failures = embed_folder(args.pop("folder"), **args)
    except (UserError, ImportError) as error:
        complain(error)
        return 2
    for message in failures:
        complain(message)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
