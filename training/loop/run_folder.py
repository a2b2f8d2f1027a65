"""The folder of a run: arguments, environment, log, checkpoints, and the state to resume from."""

import json
import platform
import re
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from accelerate import Accelerator

from modeling_pianobind.atomic_file import replace_file

from ..common.atomic_folder import PARTIAL, PREVIOUS, atomic_folder, restore, writing
from ..data.arguments import TrainingArguments

PACKAGES = ("pianobind", "torch", "transformers", "accelerate", "peft", "datasets", "safetensors", "numpy", "symusic")
MAY_CHANGE = {"output", "workers", "log_steps", "save_minutes", "tracker"}  # when a run is resumed


class RunFolder:
    """Files of a run.

    `arguments.json`, `environment.json` (git revision, package versions), `log.jsonl`, `checkpoint` (last), `best`,
    and `state-STAGE-STEP`, which names the stage and step that come next.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def start(self, arguments: TrainingArguments, resume: bool, environment: dict) -> None:
        """Makes the folder, or checks that it holds the same run.

        Raises:
            ValueError: it holds a run already and is not to be resumed, or holds one with other arguments.
            OSError: it cannot be written.
        """
        settings = json.loads(json.dumps(asdict(arguments)))
        kept = self.path / "arguments.json"
        if kept.exists() and not resume:
            raise ValueError(f"{self.path}: holds a run already; go on with it by --resume, or name another `output`.")
        if resume:
            if not kept.exists():
                raise ValueError(f"{self.path}: holds no run to resume; leave --resume out.")
            before = json.loads(kept.read_text())
            if changed := sorted(
                key for key in settings if key not in MAY_CHANGE and settings[key] != before.get(key)
            ):
                raise ValueError(
                    f"{self.path}: that run had other {', '.join(changed)}; restore them, or start a new run."
                )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for previous in self.path.glob(f"*{PREVIOUS}"):
                restore(previous.with_name(previous.name.removesuffix(PREVIOUS)))
            _write_text(kept, json.dumps(settings, indent=1))
            _write_text(self.path / "environment.json", json.dumps(environment, indent=1))

    def latest_state(self) -> tuple[Path, int, int] | None:
        """The newest state, and the stage and step that come next; None if there is none."""
        states = sorted(path for path in self.path.glob("state-*") if re.fullmatch(r"state-\d+-\d+", path.name))
        if not states:
            return None
        _, stage, step = states[-1].name.split("-")
        return states[-1], int(stage), int(step)

    def save_state(self, accelerator: Accelerator, stage: int, step: int) -> None:
        """Writes the state of all processes, then deletes older ones."""
        state = self.path / f"state-{stage:03d}-{step:08d}"
        is_main = accelerator.is_main_process
        with atomic_folder(state) if is_main else nullcontext(f"{state}{PARTIAL}") as partial:
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
        if is_main:
            for older in self.path.glob("state-*"):
                if older != state:
                    shutil.rmtree(older)

    def log(self, line: dict) -> None:
        path = self.path / "log.jsonl"
        with writing(path), path.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def forget_after(self, stage: int, step: int) -> None:
        """Removes log lines of steps that will be repeated."""
        path = self.path / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = []
        for text in lines:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # cut off when the run was
                continue
            if (line["stage"] - 1, line["step"]) < (stage, step):
                kept.append(text + "\n")
        _write_text(path, "".join(kept))


def environment_of(accelerator: Accelerator) -> dict:
    """What a run runs with: git revision, package versions, machine, processes."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "git_revision": _git("rev-parse", "HEAD"),
        "git_changes": (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines(),
        "packages": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
    }


def _git(*command: str) -> str | None:
    try:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None  # not a clone, or no git
    return done.stdout.rstrip()


def _write_text(path: Path, text: str) -> None:
    with writing(path):
        replace_file(path, text)


__all__ = ["RunFolder", "environment_of"]
