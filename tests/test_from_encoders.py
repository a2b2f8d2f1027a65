"""First checkpoints from pretrained encoders: tiny random ones of each kind, saved to folders; no network."""

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from modeling_pianobind import PianoBindConfig, PianoBindFeatureExtractor, PianoBindModel, PianoBindProcessor
from modeling_pianobind.convert_original_checkpoint import main as convert
from tests import original_reference as reference
from training.initialize_checkpoint import main

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
CONVOLUTIONS = {"conv_dim": (8, 8), "conv_stride": (20, 16), "conv_kernel": (20, 16)}
CONVOLUTIONS.update(num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)


def _save(folder, config, extractor):
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model.eval()


def _ast(folder):
    config = transformers.ASTConfig(**TINY, max_length=96, num_mel_bins=16)
    return _save(folder, config, transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=96))


def _wav2vec2(folder):
    config = transformers.Wav2Vec2Config(**TINY, **CONVOLUTIONS, feat_extract_norm="layer")
    return _save(folder, config, transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True))


def _hubert(folder):
    config = transformers.HubertConfig(**TINY, **CONVOLUTIONS, feat_extract_norm="group")
    return _save(folder, config, transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False))


def _whisper(folder):
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=100,
        vocab_size=60,
        **{f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "decoder_start")},
    )
    return _save(folder, config, transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2))


def _clap(folder):
    audio = {"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 2, "patch_stride": 2}
    audio.update(hidden_size=32, patch_embeds_hidden_size=16, depths=[1, 1], num_attention_heads=[2, 2])
    audio.update(num_hidden_layers=2, freq_ratio=4, projection_dim=16)
    config = transformers.ClapConfig(
        audio_config=audio, text_config={**TINY, "vocab_size": 40, "projection_dim": 16}, projection_dim=16
    )
    return _save(
        folder,
        config,
        transformers.ClapFeatureExtractor(
            feature_size=16, sampling_rate=16_000, hop_length=160, max_length_s=1, truncation="rand_trunc"
        ),
    )


ENCODERS = {"ast": _ast, "wav2vec2": _wav2vec2, "hubert": _hubert, "whisper": _whisper, "clap": _clap}
WINDOW_SECONDS = {"ast": 0.96, "wav2vec2": 20.0, "hubert": 20.0, "whisper": 2.0, "clap": 1.0}


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    BertModel(BertConfig(**TINY, vocab_size=10)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "calm", "slow", "jazz"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def noise(seconds, seed=0):
    return np.random.default_rng(seed).standard_normal(round(seconds * 16_000)).astype(np.float32) * 0.1


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_audio_encoder_becomes_the_audio_tower(kind, tmp_path, text_folder):
    encoder = ENCODERS[kind](tmp_path / kind)
    output = tmp_path / "checkpoint"
    status = main(
        [
            "--audio",
            str(tmp_path / kind),
            "--text",
            str(text_folder),
            "--output",
            str(output),
            "--projection-dim",
            "24",
        ]
    )
    assert status == 0
    model, info = PianoBindModel.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    model = model.eval()
    given = encoder.state_dict()
    kept = {name: value for name, value in model.audio_model.encoder.state_dict().items() if value.is_floating_point()}
    prefix = {"whisper": "encoder.", "clap": "audio_model."}.get(kind, "")
    assert kept and all(torch.equal(value, given[prefix + name]) for name, value in kept.items())

    processor = PianoBindProcessor.from_pretrained(output)
    extractor = processor.feature_extractor
    assert extractor.window_seconds == WINDOW_SECONDS[kind] and extractor.sampling_rate == 16_000
    recordings = [noise(0.7), noise(2.4 * extractor.window_seconds, seed=1), noise(0.3, seed=2)]

    def embed(audio):
        batch = processor(audio=audio, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            return model.get_audio_features(**batch)

    together = embed(recordings)
    assert together.shape == (3, 24)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    alone = torch.cat([embed(recording) for recording in recordings])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    windows = list(extractor.windows(recordings[1], 16_000))
    features, mask = extractor.batch(windows)
    with torch.no_grad():
        mean = model.get_audio_features(features, mask).mean(0)
    torch.testing.assert_close(together[1], mean / mean.norm(), atol=1e-5, rtol=0)


def test_wav2vec2_tower_pools_what_the_encoder_gives_over_the_sound_alone(tmp_path, text_folder):
    encoder = _wav2vec2(tmp_path / "encoder")
    model = PianoBindModel.from_encoders(audio=tmp_path / "encoder", text=text_folder)
    processor = PianoBindProcessor.from_encoders(audio=tmp_path / "encoder", text=text_folder)
    samples = noise(0.5)
    batch = processor(audio=samples, sampling_rate=16_000, return_tensors="pt")
    normal = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))
    with torch.no_grad():
        hidden = encoder(normal[None]).last_hidden_state[0]
        plain = model.audio_projection(hidden.mean(0))
        ours = model.get_audio_features(**batch)[0]
    torch.testing.assert_close(ours, plain / plain.norm(), atol=1e-5, rtol=0)


def test_towers_of_a_whole_checkpoint_are_taken_over_with_their_processors(tmp_path, text_folder):
    torch.manual_seed(1)
    tower = {**TINY, "window_frames": 801}
    whole = PianoBindModel(PianoBindConfig(audio_config=tower, midi_config=TINY, text_config=_text_config()))
    whole.save_pretrained(tmp_path / "whole")
    settings = PianoBindFeatureExtractor(hop_seconds=7.0)
    tokenizer = PianoBindProcessor.from_encoders(text=text_folder).tokenizer
    PianoBindProcessor(settings, tokenizer, text_max_length=9).save_pretrained(tmp_path / "whole")
    sources = {name: tmp_path / "whole" for name in ("audio", "midi", "text")}
    model = PianoBindModel.from_encoders(**sources, projection_dim=12)
    processor = PianoBindProcessor.from_encoders(**sources)
    for part in ("audio_model", "midi_model", "text_model"):
        state = getattr(whole, part).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in getattr(model, part).state_dict().items())
    assert model.audio_projection.weight.shape == (12, 32)
    assert processor.feature_extractor.hop_seconds == 7.0 and processor.text_max_length == 9


def test_towers_of_a_checkpoint_bring_projections_and_the_text_tower_the_temperature(tmp_path, text_folder):
    _ast(tmp_path / "ast")
    first = PianoBindModel.from_encoders(audio=tmp_path / "ast", text=text_folder, projection_dim=12)
    with torch.no_grad():
        first.logit_scale.weight.fill_(1.25)
    first.save_pretrained(tmp_path / "first")
    PianoBindProcessor.from_encoders(audio=tmp_path / "ast", text=text_folder).save_pretrained(tmp_path / "first")
    for sources, temperature in (
        ({"audio": tmp_path / "ast", "text": tmp_path / "first"}, 1.25),
        ({"audio": tmp_path / "first", "text": text_folder}, PianoBindConfig().logit_scale_init_value),
    ):
        model = PianoBindModel.from_encoders(**sources, projection_dim=12)
        kept = "text" if temperature == 1.25 else "audio"
        assert model.logit_scale.weight.item() == pytest.approx(temperature)
        for modality in ("audio", "text"):
            weight, former = (getattr(whole, f"{modality}_projection").weight for whole in (model, first))
            assert torch.equal(weight, former) == (modality == kept)


def _text_config():
    return BertConfig(**TINY, vocab_size=10).to_dict()


def test_a_converted_midi_bert_becomes_the_midi_tower(tmp_path, text_folder):
    torch.save(reference.midi_bert_state_dict(), tmp_path / "midi_bert.ckpt")
    assert convert(["--checkpoint", str(tmp_path / "midi_bert.ckpt"), "--output", str(tmp_path / "tower")]) == 0
    model = PianoBindModel.from_encoders(midi=tmp_path / "tower", text=text_folder)
    processor = PianoBindProcessor.from_encoders(midi=tmp_path / "tower", text=text_folder)
    assert model.config.midi_config.position_embedding_type == "relative_key_query"
    assert processor.midi_processor.representation == "compound_word"
    assert processor.midi_processor.max_notes == reference.NOTES
    with pytest.raises(ValueError, match="no audio tower"):
        model.get_audio_features(torch.zeros(1, 801, 229))


def test_gradients_reach_the_encoders_and_the_projections(tmp_path, text_folder):
    _ast(tmp_path / "ast")
    model = PianoBindModel.from_encoders(audio=tmp_path / "ast", text=text_folder).train()
    features = torch.randn(2, 1, 96, 16)
    model(input_features=features, input_ids=torch.tensor([[2, 3], [4, 2]]), return_loss=True).loss.backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert silent == []


def test_overrides_reach_the_config(text_folder, tmp_path):
    _whisper(tmp_path / "whisper")
    model = PianoBindModel.from_encoders(audio=tmp_path / "whisper", text=text_folder, pool_text_padding=True)
    assert model.config.pool_text_padding


@pytest.mark.parametrize(
    ("modality", "message"),
    [("midi", "the midi tower needs a PianoBind checkpoint"), ("audio", "reads `input_ids`, not audio")],
)
def test_an_encoder_of_another_modality_is_refused(modality, message, text_folder):
    with pytest.raises(ValueError, match=message):
        PianoBindModel.from_encoders(**{modality: text_folder})


def test_speech_models_are_no_text_encoders(tmp_path):
    _whisper(tmp_path / "whisper")
    with pytest.raises(ValueError, match="not a text encoder"):
        PianoBindModel.from_encoders(text=tmp_path / "whisper")


def test_nothing_to_put_together_is_refused():
    with pytest.raises(ValueError, match="name an encoder"):
        PianoBindModel.from_encoders()
    with pytest.raises(ValueError, match="needs a tokenizer"):
        PianoBindProcessor.from_encoders()


def test_an_unknown_extractor_is_refused():
    extractor = PianoBindFeatureExtractor(encoder_extractor={"feature_extractor_type": "NoSuchExtractor"})
    with pytest.raises(ValueError, match="NoSuchExtractor"):
        extractor(noise(1.0), sampling_rate=16_000)


def test_the_command_leaves_a_full_folder_alone(tmp_path, text_folder, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = ["--audio", str(tmp_path), "--text", str(text_folder), "--output", str(tmp_path)]
    assert main(arguments) == 2
    assert "already holds something" in capsys.readouterr().err
