"""The text tower's own training: what texts should find, and that it is learnt without touching the other towers."""

import math

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindModel
from training import train_text
from training.data.corpus import PackedCorpus
from training.data.lexicon import Query
from training.data.sources import TrainingCorpus
from training.loop.piece_facts import PieceFacts, cross_fitted
from training.train_text import divergence

from .test_training_parts import ROWS, scale_notes

HELD_OUT = "saloon rag"  # by its hash


def test_the_divergence_of_equal_distributions_is_nothing_and_unknown_columns_do_not_count():
    fits = torch.tensor([[0.0, math.log(3.0), float("-inf")]])
    known = torch.isfinite(fits)
    assert divergence(torch.tensor([[1.0, 1.0 + math.log(3.0), 99.0]]), fits, known).item() == pytest.approx(
        0, abs=1e-6
    )
    even = divergence(torch.zeros(1, 3), fits, known).item()  # 1/4, 3/4 against 1/2, 1/2
    assert even == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), abs=1e-6)


def test_known_facts_are_kept_and_unknown_ones_are_guessed_by_other_songs():
    generator = np.random.default_rng(0)
    songs = np.repeat(np.arange(120), 2)
    hidden = generator.normal(size=240) > 0  # the fact can be read off the first dimension
    embeddings = generator.normal(0, 0.1, (240, 8)).astype(np.float32)
    embeddings[:, 0] += np.where(hidden, 1.0, -1.0)
    true, false = hidden[:, None].astype(np.float32), (~hidden)[:, None].astype(np.float32)
    true[:80] = false[:80] = 0  # nobody labelled these
    generated = np.zeros_like(true)
    generated[0] = 1
    facts = PieceFacts(true, false, generated)
    likely = facts.probabilities(embeddings, songs)[:, 0]
    assert ((likely[80:] > 0.9) == hidden[80:]).all() and ((likely[80:] < 0.1) == ~hidden[80:]).all()
    assert ((likely[1:80] > 0.5) == hidden[1:80]).mean() > 0.95
    assert likely[0] >= 0.85
    guessed = cross_fitted(embeddings, true, false, songs, seed=1)
    assert guessed.shape == true.shape and np.isfinite(guessed).all()


@pytest.fixture
def trainer(tmp_path, tiny_checkpoint, monkeypatch):
    PackedCorpus.pack(ROWS, [scale_notes(60), scale_notes(60, 0.5), scale_notes(25)]).save(tmp_path / "packed")
    held = Query(HELD_OUT, ("ragtime",), ("classical",))
    open_ = Query("a waltz at the ball", ("waltz", "triple metre"), ("ragtime",))
    assert held.held_out and not open_.held_out
    monkeypatch.setattr(train_text, "read_lexicon", lambda: [held, open_])
    monkeypatch.setattr(train_text, "PIECES_AT_ONCE", 3)
    return train_text.TextTrainer(tiny_checkpoint, str(tmp_path / "packed"), None)


def test_a_batch_says_which_pieces_each_text_fits(trainer):
    texts, pieces, fits, _ = trainer.batch()
    assert len(texts) == len(fits) and fits.shape[1] == len(pieces)
    assert HELD_OUT not in texts
    row = texts.index("a waltz at the ball")
    waltz = [trainer.table.rows[piece]["id"] for piece in pieces.tolist()].index("b")
    assert fits[row].argmax() == waltz


def test_only_the_text_tower_its_projection_and_the_temperature_move(trainer, tiny_checkpoint):
    result = trainer.train(minutes=0.0, steps=3, learning_rate=1e-3)
    assert result["steps"] == 3 and all(math.isfinite(value) for value in result.values())
    before = PianoBindModel.from_pretrained(tiny_checkpoint).state_dict()
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"text_model", "text_projection", "logit_scale"}


def test_a_piece_is_embedded_as_the_mean_of_its_windows(trainer, tmp_path):
    corpus = TrainingCorpus.open(str(tmp_path / "packed"))
    notes = corpus.parts[0].corpus.notes(0)
    windows = train_text.some_windows(notes, trainer.processor.midi_processor)
    embeds = train_text.embed_windows(trainer.model, trainer.processor, [windows, windows[:1]])
    assert embeds.shape[0] == 2 and torch.allclose(embeds.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.equal(embeds[0], embeds[1])
