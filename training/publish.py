"""A checkpoint, an adapter, a data set, the metric or the demo -> the Hugging Face Hub.

    python -m training.publish CHECKPOINT --repo-id OWNER/NAME               # a checkpoint, or a PEFT adapter's folder
    python -m training.publish DATASET --repo-id OWNER/NAME                  # output of training.build_dataset
    python -m training.publish --space metric --repo-id OWNER/piano_retrieval
    python -m training.publish [HUB_ID] --space demo --repo-id OWNER/NAME

`--dry-run` writes exactly the folder that would be pushed, and needs neither a token nor a network. A push is one
commit: after a failure an existing repository is unchanged, and one that the command created is deleted.
"""

import argparse
import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from model_cards.hub_card import LICENCES, HubOptions

from .common.atomic_folder import atomic_folder, temporary_folder
from .hub.hub_folder import ADAPTER_CONFIG, write_checkpoint, write_demo, write_metric
from .hub.hub_upload import check_on_hub, check_repo_id, push_folder


def make_folder(arguments: argparse.Namespace, folder: Path) -> str:
    """Writes the files to push into an empty folder and returns the `repo_type`.

    Raises:
        ValueError, OSError: see `training.hub.hub_folder`.
    """
    source = arguments.checkpoint
    if arguments.space == "metric":
        write_metric(folder, arguments.repo_id)
        return "space"
    if arguments.space == "demo":
        write_demo(folder, arguments.repo_id, source)
        return "space"
    if not source or not Path(source).is_dir():
        raise ValueError(f"{source}: is not a folder; give that of a checkpoint, an adapter or a data set.")
    if any(Path(source, "data").glob("*.parquet")):
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        return "dataset"
    options = HubOptions(
        repo_id=arguments.repo_id,
        licence=arguments.licence,
        licence_file=arguments.licence_file,
        results=arguments.results,
        base_model=arguments.base_model,
        dataset=arguments.dataset,
    )
    write_checkpoint(Path(source), folder, options)
    if not (folder / "results.json").is_file():
        print(f"publish: {source}: no results of these weights are known, so none are published.", file=sys.stderr)
    return "model"


def publish(arguments: argparse.Namespace) -> str:
    """Runs the command; returns the commit's address or the written folder.

    Raises:
        ValueError, OSError: the input is wrong or cannot be read; nothing was pushed.
        RuntimeError: the Hub refused the upload.
    """
    check_repo_id(arguments.repo_id)
    output = arguments.output
    if output is None and arguments.dry_run:
        output = Path("runs", "publish", arguments.repo_id.split("/")[1])
    if output and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; choose another folder with --output, or empty it.")
    with ExitStack() as temporary:
        if output:
            with atomic_folder(output) as folder:
                repo_type = make_folder(arguments, folder)
            folder = output
        else:
            folder = temporary.enter_context(temporary_folder("pianobind-publish-"))
            repo_type = make_folder(arguments, folder)
        if arguments.dry_run:
            return str(folder)
        if (folder / ADAPTER_CONFIG).is_file():
            check_on_hub(json.loads((folder / ADAPTER_CONFIG).read_text())["base_model_name_or_path"])
        return push_folder(folder, arguments.repo_id, repo_type, arguments.private, arguments.revision)


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help="folder; with `--space demo` the Hub id that it shows")
    add("--repo-id", required=True, metavar="OWNER/NAME", help="where to on the Hub")
    add("--space", choices=("metric", "demo"), help="publish the metric or the demo as a Space")
    add("--dry-run", action="store_true", help="write the folder, push nothing")
    add("--output", type=Path, metavar="DIR", help="keep the folder here; a dry run's default is runs/publish/NAME")
    add("--private", action="store_true", help="make the repository private where it is new")
    add("--revision", metavar="BRANCH", help="push to this branch, made where it is missing (default: main)")
    add("--licence", default="", metavar="ID", help=f"of the weights: {', '.join(LICENCES)}; default: as in its card")
    add("--licence-file", type=Path, metavar="FILE", help="text of a licence that is none of these")
    add("--results", type=Path, metavar="FILE", help="results; default: those in evaluation/results of these weights")
    add("--base-model", default="", metavar="OWNER/NAME", help="an adapter's base on the Hub")
    add(
        "--dataset",
        default="",
        metavar="OWNER/NAME[@REVISION]",
        help="what the results were measured on; default: what they say, or open-piano-corpus of the same owner",
    )
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    arguments = parse(command_line)
    try:
        print(publish(arguments))
    except (ValueError, RuntimeError, OSError) as error:
        tqdm.write(f"publish: {' '.join(str(error).split())}", file=sys.stderr)  # not behind an upload's bar
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
