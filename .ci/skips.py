"""Skipped tests of the gate, read from the JUnit file of a pytest run.

python .ci/skips.py extras          # all extras of setup.cfg, as pip takes them
python .ci/skips.py files RUN.xml   # the test files in which something was skipped
python .ci/skips.py judge RUN.xml   # fails if a test was skipped for a reason that is not in ALLOWED
"""

import sys
from configparser import ConfigParser
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
# The beginning of a reason -> why no extra can remove it.
ALLOWED = {
    "playwright is not installed": "it downloads a browser of 150 MB, which the gate must not need",
    "there is no chromium on this machine": "the same",
    "a small disk has to be mounted": "mounting a tmpfs takes root on Linux",
    "Debian's timgm6mb-soundfont is not installed": "a soundfont of the system, not of the package index",
    "libfluidsynth is not installed": "a library of the system, not of the package index",
}


def extras() -> str:
    """The names of all extras, separated by commas."""
    settings = ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return ",".join(settings["options.extras_require"])


def skips(run: Path) -> list[tuple[str, str, str]]:
    """File, test and reason of each skipped test; a file that is skipped while it is collected is one test."""
    tests = []
    for case in ElementTree.parse(run).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") == "pytest.skip":
            names = [*case.get("classname").split("."), *case.get("name").split("[")[0].split(".")]
            parts = [part for part in names if part]
            paths = (Path(*parts[:count]).with_suffix(".py") for count in range(len(parts), 0, -1))
            file = next(path for path in paths if (ROOT / path).is_file())
            reason = skipped.get("message")
            if reason == "collection skipped":
                reason = skipped.text.rpartition("Skipped: ")[2].rstrip("')\"")
            tests.append((file.as_posix(), case.get("name"), reason))
    return tests


def main(command: str, *runs: str) -> int:
    if command == "extras":
        print(extras())
        return 0
    skipped = skips(Path(*runs))
    if command == "files":
        print("\n".join(sorted({file for file, _, _ in skipped})))
        return 0
    unexplained = [skip for skip in skipped if not skip[2].startswith(tuple(ALLOWED))]
    for file, test, reason in unexplained:
        print(
            f"{file}: {test} was skipped: {reason}; make it run, or give the reason in .ci/skips.py", file=sys.stderr
        )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
