"""Comparisons beyond the batch: windows of earlier batches, the MIDI of a whole bank, statistics of an embedding."""

import json
import math
from dataclasses import fields

import pytest
import torch

from modeling_pianobind import PianoBindMidiConfig, PianoBindModel, PianoBindProcessor
from modeling_pianobind.note_statistics_pianobind import NoteStatistics
from training import train as training
from training.data.arguments import StageArguments, weight_field
from training.data.audio_bank import AudioBank, render_bank
from training.data.corpus import PackedCorpus
from training.data.dataset import WindowSampler
from training.data.sources import TrainingCorpus
from training.loop.heads import StatisticsHead
from training.loop.losses import LOSSES, AudioMidiLoss, Comparison, ViewLoss, WorkLoss
from training.loop.objective import TrainingModel

from .conftest import make_config
from .test_training_parts import ROWS, scale_notes
from .training_data import Clicks, make_arguments


def test_statistics_that_are_their_mean_cost_nothing_when_nothing_is_read():
    statistics = NoteStatistics(PianoBindMidiConfig(note_statistics=True))
    head = StatisticsHead(24, statistics).eval()
    torch.nn.init.zeros_(head.head.weight)
    torch.nn.init.zeros_(head.head.bias)
    measured = torch.zeros(3, statistics.norm.normalized_shape[0])
    assert head(torch.randn(3, 24), measured).tolist() == [0.0, 3.0]
    measured[:, -1] = 2.0  # of a mean of 0 and a standard deviation of 1
    error, count = head(torch.randn(3, 24), measured)
    assert error.item() / 3 == pytest.approx(4 / head.scale.num_features, rel=1e-3) and count == 3


def test_values_of_a_field_are_grouped_in_their_order_and_none_is_lost():
    statistics = NoteStatistics(PianoBindMidiConfig(note_statistics=True))
    grouping = StatisticsHead(24, statistics).grouping
    assert torch.equal(grouping.sum(1), torch.ones(sum(statistics.field_sizes)))
    assert grouping[:90, :8].argmax(1).tolist() == sorted(grouping[:90, :8].argmax(1).tolist())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PianoBindModel(make_config())


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float), dim=1)


def test_every_loss_has_a_weight_and_every_weight_a_loss(model):
    weights = {item.name for item in fields(StageArguments) if item.name.endswith("_weight")}
    assert {weight_field(loss.name) for loss in LOSSES} == weights and len(LOSSES) == len(weights)
    made = TrainingModel(model, torch.tensor([True]))
    nothing = dict.fromkeys(weights, 0.0)
    for name, loss in made.all_losses.items():
        stage = StageArguments(steps=1, **nothing | {loss.weight_field: 1.0})
        assert made.used_losses(stage) == [loss] and loss.name == name
    stage = StageArguments(steps=1, frozen=["midi"], **nothing | {"fact_weight": 1.0, "onset_weight": 1.0})
    assert [block for block in ("audio", "midi", "label") if made.needs(block, stage)] == ["audio"]
    stage.frozen = []
    assert made.needs("midi", stage), "facts of the pieces train the MIDI tower"


def test_a_view_is_told_from_the_windows_of_earlier_batches_but_not_from_its_own_song(model):
    loss = ViewLoss(queue_size=3, dim=2)
    loss.scale.weight.data.fill_(0.0)
    axis = unit([1.0, 0.0], [0.0, 1.0])
    rows = {"view": torch.tensor([0]), "midi": torch.tensor([0, 1])}

    def value(*songs):
        stage = StageArguments(steps=1, view_weight=1.0)
        embeds = {"view": axis[:1], "midi": axis}
        return loss(Comparison(model, stage, embeds, {}, rows, {"song": torch.tensor(songs)})).item()

    row = math.log(1 + math.exp(-1))  # against one other window; the column has this view alone
    assert value(5, 6) == pytest.approx(row / 2, abs=1e-6)
    assert loss.queue.song.tolist() == [5, 6, -1]
    row = math.log(math.e + 1 + 1) - 1  # the queue's window of song 5 does not count, that of song 6 does
    assert value(5, 6) == pytest.approx(row / 2, abs=1e-6)
    assert loss.queue.song.tolist() == [6, 6, 5], "the newest windows take the places of the oldest"
    row = math.log(math.e + 1 + 1 + 1 + math.e) - 1  # the queue holds songs 6, 6 and 5
    assert value(7, 6) == pytest.approx(row / 2, abs=1e-6)


def test_captions_that_say_the_same_are_no_negatives(model):
    loss = WorkLoss()
    dim = model.text_projection.in_features
    loss.texts = torch.nn.functional.pad(unit([1.0, 0.0], [1.0, 0.1], [0.0, 1.0]), (0, dim - 2))[:, None]
    torch.nn.init.eye_(model.text_projection.weight)
    model.logit_scale.weight.data.fill_(0.0)
    embeds = torch.nn.functional.pad(unit([1.0, 0.0], [1.0, 0.1], [0.0, 1.0]), (0, model.config.projection_dim - 2))
    known = {"work": torch.tensor([0, 1, 2]), "song": torch.tensor([1, 2, 3])}
    stage = StageArguments(steps=1, work_weight=1.0)
    value = loss(Comparison(model, stage, {"midi": embeds}, {}, {"midi": torch.arange(3)}, known)).item()
    near = 1 / math.sqrt(1.01)  # cosine of the first two; against the third it is 0 and 0.1 * near
    tenth = 0.1 * near
    rows = [
        math.log(math.e + 1) - 1,
        math.log(math.e + math.exp(tenth)) - 1,
        math.log(math.e + 1 + math.exp(tenth)) - 1,
    ]
    assert value == pytest.approx(sum(rows) / 3, abs=1e-5)  # both directions are alike
    nobody = known | {"work": torch.tensor([-1, -1, 2])}
    assert loss(Comparison(model, stage, {"midi": embeds}, {}, {"midi": torch.arange(3)}, nobody)) is None


def test_a_recording_is_told_from_the_midi_of_the_whole_bank():
    loss = AudioMidiLoss(queue_size=0, dim=2)
    loss.scale.weight.data.fill_(0.0)
    embeds = unit([1.0, 0.0], [0.0, 1.0], [1.0, 0.0])
    loss.bank = embeds, torch.tensor([1, 2, 1])
    among = loss.among_bank(embeds[:1], torch.tensor([0]), torch.tensor([1]))
    assert among.item() == pytest.approx(math.log(math.e + 1) - 1, abs=1e-6), "window 2 is of the same song"


@pytest.fixture
def bank(tmp_path, tiny_processor):
    """Five rendered windows of three pieces, and the corpus that they are of."""

    PackedCorpus.pack(ROWS, [scale_notes(60), scale_notes(60, 0.5), scale_notes(25)]).save(tmp_path / "packed")
    sampler = WindowSampler(
        corpus=TrainingCorpus.open(str(tmp_path / "packed")),
        processor=tiny_processor, instruments=[Clicks()], audio_share=1.0, seed=3,
    )  # fmt: skip
    render_bank(sampler, tiny_processor.feature_extractor, tmp_path / "bank", windows=5)
    return tmp_path


def test_the_midi_of_a_bank_is_embedded_window_by_window(bank, tiny_model, tiny_processor):
    corpus = TrainingCorpus.open(str(bank / "packed"))
    held = AudioBank(bank / "bank", corpus.vocabulary, tiny_processor.feature_extractor, seed=0)
    embeds = held.embed_midi(tiny_model, tiny_processor, batch_notes=100)
    example = held[2]
    ids, mask = tiny_processor.midi_processor.pad([example["rows"]])
    assert torch.allclose(embeds[example["window"]], tiny_model.get_midi_features(ids, mask)[0], atol=1e-5)


def test_a_stage_on_a_bank_trains_the_audio_tower_and_no_other(bank, tiny_checkpoint):
    stage = {
        "bank": str(bank / "bank"), "frozen": ["midi", "text"], "midi_text_weight": 0.0, "audio_text_weight": 0.0,
        "audio_midi_weight": 1.0, "distillation_weight": 1.0, "onset_weight": 1.0, "label_weight": 1.0,
    }  # fmt: skip
    training.train(make_arguments(bank, tiny_checkpoint, str(bank / "packed"), stage=stage))
    line = json.loads((bank / "run" / "log.jsonl").read_text().splitlines()[0])
    assert {"audio_midi", "distillation", "onset", "label"} <= line.keys()
    before = PianoBindModel.from_pretrained(tiny_checkpoint).state_dict()
    after = PianoBindModel.from_pretrained(bank / "run" / "checkpoint").state_dict()
    moved = {name.split("_")[0] for name in before if not torch.allclose(before[name], after[name], atol=1e-3)}
    assert moved <= {"audio", "logit"} and "audio" in moved
    PianoBindProcessor.from_pretrained(bank / "run" / "checkpoint")
