"""`.ci/skips.py`, by which the gate runs skipped tests again and refuses skips without a reason."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CASE = '<testcase classname="{}" name="{}">{}</testcase>'
SKIP = '<skipped type="pytest.skip" message="{}">{}</skipped>'
MODULE = SKIP.format("collection skipped", "('/x/tests/test_app_page.py', 8, 'Skipped: the page needs gradio')")


@pytest.fixture
def skips(tmp_path):
    """`skips(command, *cases)` -> exit status, stdout and stderr for a run with these test cases."""

    def run(command, *cases):
        file = tmp_path / "run.xml"
        file.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        program = [sys.executable, str(ROOT / ".ci" / "skips.py"), command, *([str(file)] if cases else [])]
        done = subprocess.run(program, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


def test_files_with_skipped_tests_are_listed_once(skips):
    cases = (
        CASE.format("tests.test_cli.TestSearch", "test_a", SKIP.format("no ray", "")),
        CASE.format("tests.test_cli.TestSearch", "test_b[x.y]", SKIP.format("no ray", "")),
        CASE.format("tests.faults.test_build_faults", "test_c", SKIP.format("no disk", "")),
        CASE.format("tests.test_layout", "test_d", ""),
        CASE.format("", "tests.test_app_page", MODULE),
    )
    files = "tests/faults/test_build_faults.py\ntests/test_app_page.py\ntests/test_cli.py\n"
    assert skips("files", *cases) == (0, files, "")


def test_a_skip_needs_a_reason_that_is_listed(skips):
    known = CASE.format("tests.test_app_page", "test_a", SKIP.format("playwright is not installed", ""))
    assert skips("judge", known) == (0, "", "")
    status, _, error = skips("judge", known, CASE.format("", "tests.test_app_page", MODULE))
    assert status == 1 and "tests/test_app_page.py" in error and "the page needs gradio;" in error
    assert error.count("\n") == 1


def test_all_extras_of_the_package_are_installed(skips):
    status, extras, _ = skips("extras")
    assert status == 0 and {"audio", "demo", "ray", "sentence-transformers", "transcribe", "test"} <= {
        *extras.strip().split(",")
    }
