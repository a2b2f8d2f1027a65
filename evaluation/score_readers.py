"""Which library reads printed scores best: notes in common with performances, files that fail, seconds a file.

    python -m evaluation.score_readers SCORES CORPUS --output evaluation/results/score-readers.json --reader partitura

SCORES has `scores.jsonl`, CORPUS (training.data.corpus) the performances it names. partitura and music21 are no
dependencies: install those that are to be compared. Figures are added reader by reader.
"""

import argparse
import importlib
import json
import resource
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_pianobind import score_pianobind
from modeling_pianobind.index.note_alignment import NoteLine, match
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi
from training.common.atomic_folder import atomic_folder
from training.data.corpus import PackedCorpus

from .measurement import save_results

PERFORMANCES = 2  # of each score
NEIGHBOURS = 32  # notes by which a printed and a played one may be apart; the alignment is as coarse
MAX_SECONDS = 120.0  # of CPU for one score; a reader that needs more has failed


def read_by_verovio(path: Path) -> PianoNotes:
    """As the package reads it: repeats as printed, grace notes and arpeggios played."""
    return read_midi(path)


def read_by_partitura(path: Path) -> NoteLine:
    """With all repeats; times in quarters."""
    import partitura

    sys.setrecursionlimit(50_000)  # it unfolds repeats by copying notes that are linked to the next ones
    notes = partitura.score.unfold_part_maximal(partitura.load_score(str(path))).note_array()
    return line_of(notes["onset_quarter"], notes["pitch"])


def read_by_music21(path: Path) -> NoteLine:
    """With all repeats, where they can be told; times in quarters."""
    from music21 import converter, repeat

    score = converter.parse(path)
    with suppress(repeat.ExpanderException):  # it says of some that they are ambiguous
        score = score.expandRepeats()
    notes = [
        (float(sound.offset), note.pitch.midi)
        for sound in score.flatten().notes
        for note in getattr(sound, "notes", [sound])
        if hasattr(note, "pitch") and (note.tie is None or note.tie.type == "start")
    ]
    return line_of(*np.array(sorted(notes)).T)


READERS = {"verovio": read_by_verovio, "partitura": read_by_partitura, "music21": read_by_music21}


def line_of(onsets: Sequence[float], pitches: Sequence[int]) -> NoteLine:
    """Notes in the order of their onsets; those of a chord from low to high."""
    order = np.lexsort((pitches, onsets))
    return NoteLine(np.asarray(pitches)[order].astype(np.uint8), np.asarray(onsets)[order].astype(np.float32))


def right_notes(score: NoteLine, performance: NoteLine) -> tuple[int, int, int]:
    """Counts the notes that both have in the same place.

    Returns:
        How many there are, how many notes the score has where it is played, and how many the performance has.
    """
    aligned = match(score, performance)
    if aligned is None:
        return 0, 0, len(performance)
    printed, played = (
        np.searchsorted(line.onset, at) for line, at in zip((score, performance), aligned.path.T, strict=True)
    )
    printed, kept = np.unique(printed, return_index=True)
    of_score = np.arange(printed[0], min(printed[-1] + 1, len(score)))
    beside = np.interp(of_score, printed, played[kept])
    shared = 0
    for pitch in np.unique(performance.pitch):
        places = beside[score.pitch[of_score] == pitch]
        shared += _pairs(places, np.flatnonzero(performance.pitch == pitch), NEIGHBOURS)
    return shared, len(of_score), len(performance)


def _pairs(first: np.ndarray, second: np.ndarray, apart: float) -> int:
    """How many pairs can be made of two ascending rows of numbers at most so far apart."""
    count = at = 0
    for place in first:
        while at < len(second) and second[at] < place - apart:
            at += 1
        if at < len(second) and second[at] <= place + apart:
            count, at = count + 1, at + 1
    return count


def compare(reader: str, folder: Path, listed: list[dict], corpus: PackedCorpus, keep: Path | None = None) -> dict:
    """Reads scores by one library and compares them with their performances.

    Args:
        keep (`Path`, *optional*): folder that the notes, as the package reads them, are kept in for
            `evaluate_checkpoint --scores`.
    """
    importlib.import_module(reader)  # a library that is not there has no failures
    places = {row["id"]: place for place, row in enumerate(corpus.rows)}
    read, failures, begun = [], [], _cpu_seconds()
    for row in tqdm(listed, desc=reader):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _limited(MAX_SECONDS):
                    notes = READERS[reader](folder / Path(row["score"]).name)
            read.append((row, notes))
        except Exception as error:  # whatever a library raises, the file has failed
            failures.append(f"{Path(row['score']).name}: {type(error).__name__}")
    score_pianobind.stop_workers()  # only what has ended is counted
    seconds = _cpu_seconds() - begun
    if keep is not None:
        with atomic_folder(keep) as partial:
            rows = [row | {"listed": len(listed)} for row, _ in read]
            PackedCorpus.pack(rows, [notes for _, notes in read]).save(partial)
    sums = np.zeros(3)
    for row, notes in read:
        for name in row["performances"][:PERFORMANCES]:
            if name in places:
                sums += right_notes(NoteLine.of(notes), NoteLine.of(corpus.notes(places[name])))
    return {
        "version": version(reader),
        "scores": len(listed),
        "failed": failures,
        "cpu_seconds_a_score": round(seconds / len(listed), 2),
        "played_notes_that_are_printed": _share(sums[0], sums[2]),
        "printed_notes_that_are_played": _share(sums[0], sums[1]),
    }


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what runs within, once this process has used so many seconds of CPU."""

    def stop(*_):
        raise TimeoutError(f"it used more than {seconds:g} s.")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def _cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.score_readers", description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, help="folder with scores.jsonl and the scores")
    parser.add_argument("corpus", type=Path, help="folder of a packed corpus")
    parser.add_argument("--output", type=Path, required=True, help="results JSON, new or to be added to")
    parser.add_argument("--reader", choices=READERS, action="append", help="all three by default")
    parser.add_argument("--every", type=int, default=1, help="read every so many scores alone (default: 1, all)")
    parser.add_argument("--keep", type=Path, help="keep what verovio read in this folder")
    given = parser.parse_args(arguments)
    if given.keep and given.every > 1:
        parser.error("--keep is for all scores; leave --every out")
    try:
        listed = [json.loads(line) for line in (given.scores / "scores.jsonl").read_text("utf-8").splitlines()]
        corpus = PackedCorpus.load(given.corpus)
        results = json.loads(given.output.read_text("utf-8")) if given.output.exists() else {}
        for reader in given.reader or READERS:
            keep = given.keep if reader == "verovio" else None
            results[reader] = compare(reader, given.scores, listed[:: given.every], corpus, keep)
            save_results(given.output, results)
            print(f"{reader}: {json.dumps(results[reader] | {'failed': len(results[reader]['failed'])})}")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
