"""The README's code blocks run as they stand, one after the other, and print what stands under them."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

import modeling_pianobind

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def namespace():
    """What earlier blocks defined is there in later ones."""
    return {}


@pytest.fixture
def music(tmp_path, monkeypatch):
    """A working folder in which `music/` holds the example corpus."""
    shutil.copytree(Path(modeling_pianobind.__file__).parent / "examples", tmp_path / "music")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_code_block_runs_and_prints_what_stands_in_its_comments(number, namespace, music):
    block, printed = BLOCKS[number], io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, f"README.md, block {number + 1}", "exec"), namespace)
    promised = [line[2:].rstrip() for line in block.splitlines() if line.startswith("# ")]
    assert printed.getvalue().splitlines() == promised


def test_every_public_name_stands_in_the_readme_or_has_a_docstring():
    readme = (ROOT / "README.md").read_text()
    names = [name for name in modeling_pianobind.__all__ if name != "__version__"]
    assert [name for name in names if name not in readme and not getattr(modeling_pianobind, name).__doc__] == []


def test_the_two_commands_of_the_gate_are_those_of_the_readme():
    readme, gate = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("pip install -e . && pianobind demo", 'pip install -e ".[test]" && pytest'):
        assert command in readme
        assert command.replace("pip install -e", "pip install --quiet -e") in gate
