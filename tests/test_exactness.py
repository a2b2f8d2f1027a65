"""One file, one embedding: whatever stands beside it, in any order, on any number of threads, in any run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import modeling_pianobind
from modeling_pianobind import (
    EmbeddingIndex,
    PianoBindModel,
    default_checkpoint,
    embed_audio,
    embed_midi,
    embed_text,
)
from modeling_pianobind.app.synthesis import SAMPLING_RATE, AdditivePiano
from modeling_pianobind.index.build import SETTLED_SECONDS
from modeling_pianobind.notes_pianobind import read_midi

FILES = sorted((Path(modeling_pianobind.__file__).parent / "examples").glob("*.mid"))
QUERIES = ["ragtime", "slow and calm", "a fast virtuoso piece", "a sad waltz in a minor key", "loud and dramatic"]
SAME, NEARLY_SAME = 0.99999, 0.999  # cosines: float32 however it is batched, and bfloat16 beside it
SOUNDS, SECONDS = 6, 25  # recordings of two windows


@pytest.fixture(scope="module")
def sounds():
    piano = AdditivePiano()
    return [piano.render(read_midi(path).crop(0, SECONDS)).T for path in FILES[:SOUNDS]]


@pytest.fixture(scope="module")
def embed(default_processor, sounds):
    """`embed(model, batch_size, order)` -> unit rows of all examples, sounds and queries, in their own order."""

    def each(make, sources, order):
        embeds = make([sources[place] for place in order(len(sources))])
        return embeds[np.argsort(order(len(sources)))]

    def run(default_model, batch_size=16, order=np.arange):
        options = {"batch_size": batch_size}
        return {
            "midi": each(lambda paths: embed_midi(default_model, default_processor, paths, **options), FILES, order),
            "audio": each(
                lambda waves: embed_audio(default_model, default_processor, waves, SAMPLING_RATE, **options),
                sounds,
                order,
            ),
            "text": each(lambda texts: embed_text(default_model, default_processor, texts, **options), QUERIES, order),
        }

    return run


@pytest.fixture(scope="module")
def expected(default_model, embed):
    return embed(default_model)


def top_ten(embeds):
    index = EmbeddingIndex()
    index.add([path.name for path in FILES], embeds["midi"])
    return [[hit.path for hit in hits] for hits in index.search(embeds["text"], 10)]


def check_same(embeds, expected, cosine=SAME):
    for kind, rows in expected.items():
        assert (embeds[kind] * rows).sum(axis=1).min() > cosine, kind


@pytest.mark.parametrize(
    ("batch_size", "order"),
    [(1, np.arange), (7, lambda count: np.arange(count)[::-1]), (64, lambda count: np.roll(np.arange(count), 3))],
    ids=["alone", "sevens, backwards", "all at once, shifted"],
)
def test_batches_and_order_change_nothing(default_model, embed, expected, batch_size, order):
    embeds = embed(default_model, batch_size, order)
    check_same(embeds, expected)
    assert top_ten(embeds) == top_ten(expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(default_model, embed, expected, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        embeds = embed(default_model)
    finally:
        torch.set_num_threads(before)
    check_same(embeds, expected)
    assert top_ten(embeds) == top_ten(expected)


def test_padding_changes_nothing(default_model, default_processor):
    batch = default_processor(midi=[FILES[0], FILES[1]], text=QUERIES[:2], return_tensors="pt")
    with torch.inference_mode():
        midi = default_model.get_midi_features(batch["midi_ids"], batch["midi_attention_mask"])
        text = default_model.get_text_features(batch["input_ids"], batch["attention_mask"])
        pad = torch.nn.functional.pad
        padded_midi = default_model.get_midi_features(
            pad(batch["midi_ids"], (0, 0, 0, 99)), pad(batch["midi_attention_mask"], (0, 99))
        )
        padded_text = default_model.get_text_features(
            pad(batch["input_ids"], (0, 40)), pad(batch["attention_mask"], (0, 40))
        )
    assert torch.cosine_similarity(midi, padded_midi).min() > SAME
    assert torch.cosine_similarity(text, padded_text).min() > SAME


def test_bfloat16_is_nearly_float32(embed, expected):
    half = PianoBindModel.from_pretrained(default_checkpoint(), dtype=torch.bfloat16).eval()
    embeds = embed(half)
    check_same(embeds, expected, NEARLY_SAME)
    shared = [len({*actual} & {*right}) for actual, right in zip(top_ten(embeds), top_ten(expected), strict=True)]
    assert min(shared) >= 9


COMMANDS = """
import sys
from modeling_pianobind.cli import main
music, folder, *options = sys.argv[1:]
for command in (
    ["index", music, "--output", f"{folder}/index"],
    ["search", f"{folder}/index", "calm, slow, rainy", "--json"],
    ["search", f"{folder}/index", "--like", f"{music}/0.mid"],
    ["describe", f"{music}/1.mid"],
    ["embed", music, "--output", f"{folder}/embeds.npz"],
    ["embed", music, "--output", f"{folder}/embeds.parquet"],
):
    assert main([*command, *options]) == 0, command
"""


def test_two_runs_of_the_command_line_are_equal_byte_for_byte(tmp_path, write_midi, tiny_checkpoint):
    music = tmp_path / "music"
    music.mkdir()
    for number in range(5):
        write_midi(music / f"{number}.mid", seconds=15 + 9 * number, seed=number)
    time.sleep(SETTLED_SECONDS + 0.5)  # times of files that just changed are not kept
    runs = []
    for hash_seed in "12":  # sets of strings are in another order
        folder = tmp_path / hash_seed
        folder.mkdir()
        command = [sys.executable, "-c", COMMANDS, music, folder, "--checkpoint", tiny_checkpoint, "--device", "cpu"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        runs.append({"stdout": printed.replace(bytes(folder), b"FOLDER")} | files)
    first, second = runs
    assert len(first) > 4 and first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_bfloat16_is_near_float32_and_an_index_knows_which_it_is(tiny_model, tiny_processor, corpus):
    exact = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
    fast = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, dtype="bfloat16")
    assert ((exact.embeddings * fast.embeddings).sum(1) > 0.99).all()
    assert not np.array_equal(exact.embeddings, fast.embeddings)
    fast.check_fingerprint(exact.fingerprint, "index")  # the same weights: words may search it
    again = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=fast)
    assert np.array_equal(again.embeddings, exact.embeddings), "what another precision made is not taken over"
    with pytest.raises(ValueError, match="give auto, float32 or bfloat16"):
        EmbeddingIndex.build(tiny_model, tiny_processor, corpus, dtype="float16")
