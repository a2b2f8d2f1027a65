"""The embedded checkpoint means something: the right examples come up for words, and audio finds its own MIDI."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

import modeling_pianobind
from modeling_pianobind import (
    EmbeddingIndex,
    default_checkpoint,
    describe,
    embed_audio,
    embed_example,
    embed_midi,
    embed_text,
)
from modeling_pianobind.app.synthesis import SAMPLING_RATE, AdditivePiano
from modeling_pianobind.notes_pianobind import read_midi

EXAMPLES = Path(modeling_pianobind.__file__).parent / "examples"
MAX_CHECKPOINT_BYTES = 90_000_000


@pytest.fixture(scope="module")
def files():
    return sorted(EXAMPLES.glob("*.mid"))


@pytest.fixture(scope="module")
def embeddings(default_model, default_processor, files):
    return embed_midi(default_model, default_processor, files)


@pytest.fixture
def ranked(default_model, default_processor, files, embeddings):
    """`ranked(words)` -> the example files' names, best first."""

    def rank(words):
        scores = embeddings @ embed_text(default_model, default_processor, [words])[0]
        return [files[place].stem for place in np.argsort(-scores)]

    return rank


RAGS = ("europe-castle-house-rag", "fall-sergeant-percy")  # the two that the collection itself calls ragtime


@pytest.mark.parametrize("words", ["ragtime", "a ragtime piano piece"])
def test_a_rag_comes_up_for_ragtime(ranked, words):
    order = ranked(words)
    assert any(rag in order[:3] for rag in RAGS)
    assert all(rag in order[:10] for rag in RAGS)


def test_slow_and_quiet_pieces_come_before_fast_and_loud_ones(files, ranked):
    order = ranked("slow and calm, quiet")
    rates = {path.stem: len(read_midi(path)) for path in files}
    top, bottom = order[:10], order[-10:]
    assert np.mean([rates[name] for name in top]) < 0.6 * np.mean([rates[name] for name in bottom])


def test_words_of_register_order_pieces_by_register(files, ranked):
    pitch = {path.stem: read_midi(path).pitch.mean() for path in files}
    low, high = ranked("in a low register")[:10], ranked("in a high register")[:10]
    assert np.mean([pitch[name] for name in high]) > np.mean([pitch[name] for name in low]) + 2


def test_classical_words_find_classical_pieces(ranked):
    romantic = ("brahms", "carreno", "chopin", "dvorak", "gounod", "lange", "liszt", "mendelssohn", "moszkowski")
    romantic += ("schubert", "schumann", "schutt", "schytte", "wagner")  # 21 of the 50 files
    top = ranked("romantic classical piano music")[:10]
    assert sum(name.startswith(romantic) for name in top) >= 8


def test_describe_puts_ragtime_before_lullaby_for_a_rag(default_model, default_processor):
    scores = dict(
        describe(default_model, default_processor, EXAMPLES / f"{RAGS[1]}.mid", ["ragtime", "lullaby", "calm"])
    )
    assert max(scores, key=scores.get) == "ragtime"


@pytest.fixture(scope="module")
def sounds(files):
    """The place of each fourth example, and how an additive piano plays it, which training never heard."""
    instrument = AdditivePiano()
    return {place: instrument.render(read_midi(files[place])).mean(1) for place in range(0, len(files), 4)}


def test_audio_finds_its_own_midi(default_model, default_processor, embeddings, sounds):
    scores = (
        embed_audio(default_model, default_processor, list(sounds.values()), sampling_rate=SAMPLING_RATE)
        @ embeddings.T
    )
    own = scores[np.arange(len(sounds)), list(sounds)]
    ranks = (scores > own[:, None]).sum(1) + 1
    assert (ranks == 1).mean() >= 0.5 and np.median(ranks) <= 2, "chance is 0.02, and 25"


def test_audio_finds_its_own_midi_by_its_windows(default_model, default_processor, files, sounds):
    index = EmbeddingIndex.build(default_model, default_processor, EXAMPLES)
    best = [
        index.search_like(embed_example(default_model, default_processor, sound, "audio", SAMPLING_RATE), 1)[0].path
        for sound in sounds.values()
    ]
    first = [Path(path).name == files[place].name for path, place in zip(best, sounds, strict=True)]
    assert np.mean(first) >= 0.7, "chance is 0.02; measured on the valid split: 0.76 among 200"


def test_auto_classes_give_the_same_embeddings_as_the_class(default_model, default_processor, files):
    auto = AutoModel.from_pretrained(default_checkpoint()).eval()
    batch = AutoProcessor.from_pretrained(default_checkpoint())(
        midi=[files[0]], text=["a calm waltz"], return_tensors="pt"
    )
    with torch.no_grad():
        ours, theirs = default_model(**batch), auto(**batch)
    assert torch.equal(ours.midi_embeds, theirs.midi_embeds)
    assert torch.equal(ours.text_embeds, theirs.text_embeds)


def test_the_checkpoint_is_small_on_disk_and_float32_in_memory(default_model):
    stored = sum(path.stat().st_size for path in Path(default_checkpoint()).iterdir())
    assert stored <= MAX_CHECKPOINT_BYTES
    assert {weight.dtype for weight in default_model.parameters()} == {torch.float32}


def test_every_example_has_a_row_that_states_its_licence(files):
    rows = [json.loads(line) for line in (EXAMPLES / "examples.jsonl").read_text().splitlines()]
    assert sorted(row["file"] for row in rows) == [path.name for path in files]
    assert len(rows) >= 40
    assert {row["licence"] for row in rows} == {"MIT"}
