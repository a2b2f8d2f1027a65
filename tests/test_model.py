"""The model: the loss by hand, shapes, unit length, padding, gradients, saving and Auto classes."""

import json
import math

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from modeling_pianobind import PianoBindConfig, PianoBindMidiConfig, PianoBindModel, contrastive_loss

from .conftest import make_config


def test_equal_similarities_cost_the_logarithm_of_the_batch():
    assert contrastive_loss(torch.zeros(7, 7)).item() == pytest.approx(math.log(7))


def test_perfect_pairs_cost_nothing():
    assert contrastive_loss(100 * torch.eye(5)).item() == pytest.approx(0, abs=1e-6)


def test_two_pairs_cost_what_pen_and_paper_say():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    rows = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    columns = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))
    assert contrastive_loss(logits).item() == pytest.approx((rows / 2 + columns / 2) / 2, abs=1e-6)


def test_swapping_the_modalities_leaves_the_loss_as_it_is():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    assert contrastive_loss(logits).item() == pytest.approx(contrastive_loss(logits.T).item(), abs=1e-6)


def test_several_positives_cost_the_mean_of_their_cross_entropies_and_ignored_pairs_nothing():
    logits = torch.tensor([[1.0, 2.0, 5.0]])
    positives, ignored = torch.tensor([[True, True, False]]), torch.tensor([[False, False, True]])
    both = math.log(math.exp(1) + math.exp(2))
    row = ((both - 1) + (both - 2)) / 2
    columns = 0.0  # each of the two columns has this row alone, which is right; the third has no positive
    assert contrastive_loss(logits, positives, ignored).item() == pytest.approx((row + columns) / 2, abs=1e-6)


def some_batch(model, batch=3, notes=9, frames=801):
    random = torch.Generator().manual_seed(1)
    sizes = model.config.midi_config.field_sizes
    return {
        "input_features": torch.rand(batch, 1, frames, 229, generator=random),
        "midi_ids": torch.stack([torch.randint(0, size - 2, (batch, notes), generator=random) for size in sizes], -1),
        "midi_attention_mask": torch.ones(batch, notes, dtype=torch.long),
        "input_ids": torch.randint(5, 30, (batch, 6), generator=random),
        "attention_mask": torch.ones(batch, 6, dtype=torch.long),
    }


def test_forward_names_every_output_and_embeddings_have_unit_length(tiny_model):
    with torch.no_grad():
        output = tiny_model(**some_batch(tiny_model), return_loss=True)
    for embeds in (output.audio_embeds, output.midi_embeds, output.text_embeds):
        assert embeds.shape == (3, 24)
        assert embeds.dtype == torch.float32
        assert torch.allclose(embeds.norm(dim=1), torch.ones(3), atol=1e-6)
    logits = (output.logits_per_audio, output.logits_per_midi, output.logits_per_audio_midi)
    assert torch.equal(output.logits_per_text, output.logits_per_audio.T)
    mean = sum(contrastive_loss(matrix) for matrix in logits) / 3
    assert output.loss.item() == pytest.approx(mean.item(), abs=1e-6)


def test_forward_gives_the_features_that_search_uses(tiny_model):
    batch = some_batch(tiny_model)
    with torch.no_grad():
        output = tiny_model(**batch)
        midi = tiny_model.get_midi_features(batch["midi_ids"], batch["midi_attention_mask"])
        text = tiny_model.get_text_features(batch["input_ids"], batch["attention_mask"])
        audio = tiny_model.get_audio_features(batch["input_features"])
    assert torch.equal(output.midi_embeds, midi)
    assert torch.equal(output.text_embeds, text)
    assert torch.equal(output.audio_embeds, audio)


@pytest.mark.parametrize("given", ["input_features", "midi_ids", "input_ids"])
def test_each_modality_works_alone(tiny_model, given):
    with torch.no_grad():
        output = tiny_model(**{given: some_batch(tiny_model)[given]})
    assert sum(value is not None for value in output.values()) == 1
    assert output.loss is None


def test_a_loss_of_one_modality_and_an_empty_call_are_refused(tiny_model):
    with pytest.raises(ValueError, match="two modalities"):
        tiny_model(input_ids=some_batch(tiny_model)["input_ids"], return_loss=True)
    with pytest.raises(ValueError, match="nothing to embed"):
        tiny_model()


def test_a_midi_row_alone_equals_the_row_in_a_longer_batch(tiny_model):
    batch = some_batch(tiny_model)
    ids, mask = batch["midi_ids"], batch["midi_attention_mask"]
    longer = torch.cat([ids, torch.randint(0, 20, (3, 40, 5))], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 40, dtype=torch.long)], dim=1)
    with torch.no_grad():
        alone = tiny_model.get_midi_features(ids[:1], mask[:1])
        beside = tiny_model.get_midi_features(longer, longer_mask)[:1]
    assert torch.cosine_similarity(alone, beside).item() > 0.999999


def test_a_text_row_alone_equals_the_row_in_a_longer_batch(tiny_model):
    batch = some_batch(tiny_model)
    longer = torch.cat([batch["input_ids"], torch.zeros(3, 20, dtype=torch.long)], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.zeros(3, 20, dtype=torch.long)], dim=1)
    with torch.no_grad():
        alone = tiny_model.get_text_features(batch["input_ids"][:1], batch["attention_mask"][:1])
        assert torch.cosine_similarity(alone, tiny_model.get_text_features(longer, mask)[:1]).item() > 0.999999


def test_an_audio_row_alone_equals_the_row_beside_one_of_more_windows(tiny_model):
    features = torch.rand(2, 3, 801, 229, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 3, 801, dtype=torch.long)
    mask[0, 1:] = 0
    mask[0, 0, 500:] = 0
    with torch.no_grad():
        alone = tiny_model.get_audio_features(features[:1, :1], mask[:1, :1])
        beside = tiny_model.get_audio_features(features, mask)[:1]
    assert torch.cosine_similarity(alone, beside).item() > 0.999999


def test_masked_frames_are_not_heard(tiny_model):
    features = torch.rand(1, 1, 801, 229)
    mask = torch.ones(1, 1, 801, dtype=torch.long)
    mask[..., 400:] = 0
    changed = features.clone()
    changed[:, :, 400:] = 0.7
    with torch.no_grad():
        assert torch.equal(tiny_model.get_audio_features(features, mask), tiny_model.get_audio_features(changed, mask))


def test_numbers_in_the_midi_mask_are_windows_whose_mean_is_the_embedding(tiny_model):
    batch = some_batch(tiny_model, batch=1, notes=9)
    windows = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    with torch.no_grad():
        whole = tiny_model.get_midi_features(batch["midi_ids"], windows)
        first = tiny_model.get_midi_features(batch["midi_ids"][:, :4])
        second = tiny_model.get_midi_features(batch["midi_ids"][:, 4:])
    assert torch.allclose(whole, torch.nn.functional.normalize(first + second), atol=1e-6)


def test_a_gradient_reaches_every_parameter():
    model = PianoBindModel(make_config()).train()
    model(**some_batch(model), return_loss=True).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # a key's bias shifts all scores of a query alike, so that softmax takes it out again
    assert [name for name in without if "k_proj.bias" not in name and "key.bias" not in name] == []


def test_saving_and_loading_keeps_every_weight(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    again, report = PianoBindModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for (name, weight), (other, loaded) in zip(
        tiny_model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(weight, loaded)
    assert again.config.to_dict()["midi_config"] == tiny_model.config.to_dict()["midi_config"]


def test_no_buffer_would_be_lost_on_saving(tiny_model):
    saved = set(tiny_model.state_dict())
    assert [name for name, _ in tiny_model.named_buffers() if name not in saved and "text_model" not in name] == []


def test_auto_classes_give_the_same_embeddings(tiny_checkpoint, tiny_model, tmp_path, write_midi):
    model = AutoModel.from_pretrained(tiny_checkpoint).eval()
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    assert type(model) is PianoBindModel
    assert type(AutoConfig.from_pretrained(tiny_checkpoint)) is PianoBindConfig
    batch = processor(midi=[write_midi(tmp_path / "a.mid")], text=["a calm waltz"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**batch).midi_embeds, tiny_model(**batch).midi_embeds)


def test_settings_of_the_processor_come_back_from_disk(tiny_processor, tmp_path):
    tiny_processor.midi_processor.max_notes, before = 77, tiny_processor.midi_processor.max_notes
    try:
        tiny_processor.save_pretrained(tmp_path)
    finally:
        tiny_processor.midi_processor.max_notes = before
    assert AutoProcessor.from_pretrained(tmp_path).midi_processor.max_notes == 77
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "PianoBindProcessor"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 50}, "attention heads"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"norm_position": "mid"}, "norm"),
    ],
)
def test_a_config_refuses_what_cannot_be_built(change, message):
    with pytest.raises(Exception, match=message):
        PianoBindMidiConfig(**change)


def test_a_checkpoint_without_a_tower_says_so():
    model = PianoBindModel(make_config(audio_config=None))
    with pytest.raises(ValueError, match="no audio tower, only midi and text"):
        model.get_audio_features(torch.zeros(1, 801, 229))
