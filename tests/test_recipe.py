"""The recipe of `pianobind-mini`: every step once, in order, with commands and configurations that exist."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Stands for `python`, `accelerate` and so on: notes what it was asked for, and makes what it would have made.
STAND_IN = r"""#!/bin/bash
echo "$(basename "$0") $*" >> calls.txt
if [[ "$*" == *training.train\ * ]]; then # as the real one: a new run refuses --resume, a begun one needs it
    run=$(basename "$*" | sed -E 's/pianobind_(.*).yaml.*/\1/')
    begun=$([ -e "runs/$run/arguments.json" ] && echo yes)
    resumes=$([[ "$*" == *--resume ]] && echo yes)
    if [ "$begun" != "$resumes" ]; then exit 4; fi
    mkdir -p "runs/$run" && touch "runs/$run/arguments.json"
fi
if [ "$FAIL" != "" ] && [[ "$*" == *"$FAIL"* ]]; then exit 3; fi
case "$(basename "$0") $*" in
    *--output*) while [ "$1" != --output ]; do shift; done; mkdir -p "$2" ;;
    python*) mkdir -p "${@: -1}" ;;
    tar*) mkdir -p runs/unpacked/{salamander,pianos,asap_scores} ;;
    pianobind*) touch runs/mini/calibration.safetensors ;;
esac
"""


@pytest.fixture
def recipe(tmp_path):
    """Runs the recipe in an empty folder with stand-ins; returns its exit status and the new calls."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name in ("python", "accelerate", "pianobind", "tar", "git"):
        (stand_ins / name).write_text(STAND_IN)
        (stand_ins / name).chmod(0o755)

    def run(fail: str = "") -> tuple[int, list[str]]:
        calls = tmp_path / "calls.txt"
        calls.write_text("")
        environment = {"PATH": f"{stand_ins}:{os.environ['PATH']}", "FAIL": fail}
        command = ["bash", str(ROOT / "training" / "pianobind_mini.sh"), "corpus"]
        status = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60).returncode
        return status, calls.read_text().splitlines()

    return run


def test_every_command_and_configuration_exists(recipe):
    status, calls = recipe()
    assert status == 0 and len(calls) > 15
    modules = [match[1] for call in calls if (match := re.search(r"-m (training[.\w]+)", call))]
    assert all(importlib.util.find_spec(module) for module in modules)
    configurations = [word for call in calls for word in call.split() if word.endswith(".yaml")]
    assert configurations and all((ROOT / name).is_file() for name in configurations)
    order = [
        modules.index(f"training.{name}") for name in ("initialize_checkpoint", "train", "train_text", "fit_heads")
    ]
    assert order == sorted(order)


def test_an_interrupted_recipe_goes_on_where_it_was(recipe):
    assert recipe()[0] == 0
    status, calls = recipe()
    assert status == 0 and len(calls) == 1 and "training.fit_heads" in calls[0]  # the stand-in fits no head


def test_a_step_that_fails_stops_the_recipe(recipe):
    status, calls = recipe(fail="pianobind_mini_audio.yaml")
    assert status == 3 and calls[-1].startswith("accelerate") and "mini_audio" in calls[-1]
    status, calls = recipe()
    assert status == 0 and calls[0].endswith("pianobind_mini_audio.yaml --resume")
