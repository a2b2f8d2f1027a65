"""Hostile inputs: a few in every run, as many as wished with `pytest -m fuzz_long` or `python -m tests.fuzz.run`."""

import os
from random import Random

import pytest

from modeling_pianobind import PianoBindModel, PianoBindProcessor

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from .audio_cases import audio_case  # noqa: E402
from .judge import KINDS, Judge  # noqa: E402
from .midi_cases import midi_case  # noqa: E402
from .run import Worker, run_cases  # noqa: E402
from .score_cases import SCORE_FORMATS, score_case  # noqa: E402
from .text_cases import text_case  # noqa: E402

LONG_CASES = int(os.environ.get("PIANOBIND_FUZZ_CASES", "2000"))

few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def explore(judge, kind, make):
    """Lets hypothesis choose what the maker's generator says, so that it can shrink a case that fails."""

    @few
    @given(st.randoms(use_true_random=False))
    def check(source):
        judge.try_case(kind, make(source))

    check()


@pytest.fixture(scope="module")
def judge(tiny_checkpoint, tmp_path_factory):
    # Of its own, since whoever judges must not be changed by other tests.
    model = PianoBindModel.from_pretrained(tiny_checkpoint).eval()
    processor = PianoBindProcessor.from_pretrained(tiny_checkpoint)
    return Judge(tiny_checkpoint, model, processor, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", ["midi", "midi_original"])
def test_hostile_midi_is_embedded_or_refused(judge, kind):
    explore(judge, kind, midi_case)


@pytest.mark.parametrize("kind", SCORE_FORMATS)
def test_hostile_scores_are_embedded_or_refused(judge, kind):
    for seed in range(25):
        judge.try_case(kind, score_case(Random(seed), kind))


def test_hostile_recordings_are_embedded_or_refused(judge):
    explore(judge, "audio", audio_case)


@pytest.mark.parametrize("kind", ["text", "text_numpy"])
def test_hostile_texts_are_embedded_or_refused(judge, kind):
    explore(judge, kind, text_case)


@pytest.mark.parametrize("kind", ["index", "checkpoint"])
def test_damaged_folders_are_read_or_refused(judge, kind):
    for seed in range(25 if kind == "index" else 8):
        judge.try_case(kind, seed)


@pytest.mark.fuzz_long
@pytest.mark.parametrize("kind", KINDS)
def test_many_hostile_inputs_cost_neither_the_process_nor_time_nor_memory(kind):
    worker = Worker()
    try:
        report = run_cases(worker, kind, 0, LONG_CASES)
    finally:
        worker.stop()
    assert not report.problems, f"{report}\n{report.problems[:20]}"
