"""Coverage-guided fuzzing, by atheris, of what we check ourselves before and behind the libraries' own parsers.

pip install atheris                                               # Python 3.11 to 3.13 on Linux; no part of [test]
python -m tests.fuzz.coverage_guided midi -max_total_time=600     # or header, config, text
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["modeling_pianobind"]):
    from modeling_pianobind import PianoBindConfig, PianoBindFeatureExtractor, PianoBindMidiProcessor
    from modeling_pianobind.checkpoint_pianobind import loading, read_json
    from modeling_pianobind.index.embedding_index import EmbeddingIndex
    from modeling_pianobind.inputs_pianobind import content_kind, readable_text
    from modeling_pianobind.notes_pianobind import score_from

from .midi_cases import midi_case

PROCESSORS = [PianoBindMidiProcessor(kind) for kind in ("performance", "compound_word")]
FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name) / "index.json"


def midi(content: bytes) -> None:
    """The checks before symusic, in which no bytes may crash; then note rows and windows."""
    content_kind(content[:12])
    score = score_from(content, "the given MIDI")
    for processor in PROCESSORS:
        rows, spans = processor.windows(processor.read(score))
        assert len(rows) == len(spans) > 0
        assert all((window >= 0).all() and (window < processor.pad_row).all() for window in rows)


def header(content: bytes) -> None:
    """An index's header, or a list of shards."""
    FILE.write_bytes(content)
    EmbeddingIndex.load(FILE.parent)


def config(content: bytes) -> None:
    """Saved settings of the model and of its processors."""
    FILE.write_bytes(content)
    settings = read_json(FILE)
    PianoBindMidiProcessor.from_dict(dict(settings))
    PianoBindFeatureExtractor.from_dict(dict(settings))
    with loading(FILE):  # as in `from_pretrained`
        PianoBindConfig(midi_config=settings, audio_config=dict(settings))


def text(content: bytes) -> None:
    readable_text(content.decode("utf-8", "surrogateescape"))


TARGETS = {"midi": midi, "header": header, "config": config, "text": text}


def seeds(target: str) -> list[bytes]:
    """What the mutations begin with."""
    if target == "midi":
        cases = (midi_case(Random(seed)) for seed in range(300))
        return [case for case in cases if len(case) < 4_000]
    known = {"format": "pianobind-index", "format_version": 2, "checkpoint_fingerprint": "", "failures": []}
    stored = {name: {"name": f"{name}-0", "bytes": 3, "sha256": "0"} for name in ("rows", "embeddings")}
    headers = [{"dim": 3, "files": 1, "stored": stored}, {"shards": ["shard-00001-of-00001"]}, {"parquet": []}]
    dicts = {
        "header": [known | header for header in headers],
        "config": [PianoBindMidiProcessor().to_dict(), PianoBindFeatureExtractor().to_dict()],
    }
    return [json.dumps(value, default=str).encode() for value in dicts.get(target, ["calm piano"])]


def main():
    name, counts = sys.argv.pop(1), {"read": 0, "refused": 0}

    def test_one_input(content):
        try:
            TARGETS[name](content)
            counts["read"] += 1
        except ValueError as error:
            assert len(str(error)) < 2_000 and not isinstance(error, UnicodeError), f"{type(error).__name__}: {error}"
            counts["refused"] += 1
        total = sum(counts.values())
        if total % 100_000 == 0:
            print(f"{total} inputs: {counts}", file=sys.stderr)

    corpus = Path(FOLDER.name) / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(name)):
        (corpus / f"{number}").write_bytes(seed)
    warnings.simplefilter("ignore")
    atheris.Setup([*sys.argv, str(corpus)], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
