"""Shared fixtures: a tiny random checkpoint, and small MIDI files and recordings made on the spot; no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import numpy as np
import pytest
import soundfile
import symusic
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from modeling_pianobind import (
    PianoBindAudioConfig,
    PianoBindConfig,
    PianoBindFeatureExtractor,
    PianoBindMidiConfig,
    PianoBindModel,
    PianoBindProcessor,
    cli,
    default_checkpoint,
)
from modeling_pianobind import embedding_pianobind as embedding
from modeling_pianobind.service.calibration import FILE, Calibration, example_files
from modeling_pianobind.service.checkpoint import Checkpoint

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORDS = """
a an and for in is like of piano piece music the this with calm slow rainy nocturne fast happy sad dark bright jazz
ragtime waltz classical march blues dreamy gentle stormy loud quiet high low swing , . ; /
"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with BERT's special tokens and some forty words."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **SPECIAL_TOKENS)


def make_config(**changes) -> PianoBindConfig:
    """Config of a model of all three towers, far below a million parameters."""
    size = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    towers = {
        "audio_config": PianoBindAudioConfig(**size),
        "midi_config": PianoBindMidiConfig(field_embedding_size=8, note_statistics=True, **size),
        "text_config": BertConfig(vocab_size=len(make_tokenizer()), max_position_embeddings=128, **size),
        "projection_dim": 24,
    }
    return PianoBindConfig(**{**towers, **changes})


def save_tiny_checkpoint(folder) -> None:
    """Saves a tiny model and its processor; its embeddings mean nothing, but they tell files apart."""
    torch.manual_seed(0)
    model = PianoBindModel(make_config())
    for name, weight in model.named_parameters():
        # At initialisation a transformer's output hardly depends on its input; larger weights make files differ.
        if weight.dim() > 1 and not name.startswith("text_model.embeddings"):
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    PianoBindProcessor(PianoBindFeatureExtractor(), make_tokenizer()).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Folder of what `save_tiny_checkpoint` saves."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_tiny_checkpoint(folder)
    checkpoint = Checkpoint(str(folder))
    calibration = Calibration.measure(checkpoint.embed_text, checkpoint.embed_background(example_files()[:20]))
    calibration.save(folder / FILE, checkpoint.weights_fingerprint)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint):
    """The tiny model, in eval mode. Tests share it: do not change it."""
    return PianoBindModel.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="session")
def tiny_processor(tiny_checkpoint):
    return PianoBindProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def default_model():
    """The package's own model, in eval mode. Tests share it: do not change it."""
    return PianoBindModel.from_pretrained(default_checkpoint()).eval()


@pytest.fixture(scope="session")
def default_processor():
    return PianoBindProcessor.from_pretrained(default_checkpoint())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder of the package, in the test's own folder."""
    monkeypatch.setenv("PIANOBIND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pianobind(tiny_checkpoint, capsys, cache):
    """`pianobind(*arguments)` -> exit status, stdout, stderr, with the tiny checkpoint and an empty cache.

    Its weights are random, so most queries fit nothing; the line that says so has tests of its own and is left out.
    """

    def run(*arguments, checkpoint=tiny_checkpoint):
        argv = list(map(str, arguments)) + (["--checkpoint", str(checkpoint)] if checkpoint else [])
        status = cli.main(argv)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, "".join(line for line in err.splitlines(True) if "nothing fits well" not in line)

    return run


@pytest.fixture
def embedded(monkeypatch):
    """Names of the files that are embedded, in the order in which they are read."""
    names, check = [], embedding.check_content
    monkeypatch.setattr(
        embedding, "check_content", lambda path, kind: (names.append(os.path.basename(path)), check(path, kind))
    )
    return names


@pytest.fixture(scope="session")
def write_midi():
    """`write_midi(path, seconds=8, notes_per_second=4, seed=0, program=0, is_drum=False)` -> path of a MIDI file."""

    def write(path, seconds=8.0, notes_per_second=4.0, seed=0, program=0, is_drum=False):
        random = np.random.default_rng(seed)
        score = symusic.Score(480)  # ticks a quarter note; at 120 beats a minute, 960 ticks are a second
        score.tempos.append(symusic.Tempo(0, qpm=120))
        track = symusic.Track(program=program, is_drum=is_drum)
        for onset in np.linspace(0, seconds, max(1, round(seconds * notes_per_second)), endpoint=False):
            pitch, velocity = int(random.integers(36, 96)), int(random.integers(30, 110))
            length = int(random.integers(100, 900))
            track.notes.append(symusic.Note(int(onset * 960), length, pitch, velocity))
        for tick, value in ((0, 127), (int(seconds * 480), 0)):  # symusic writes controllers, but not `pedals`
            track.controls.append(symusic.ControlChange(tick, 64, value))
        score.tracks.append(track)
        score.dump_midi(path)
        return path

    return write


def piano_waveform(seconds, sampling_rate=16_000, seed=0) -> np.ndarray:
    """Decaying harmonic tones, two a second: `(samples,)` float32."""
    random = np.random.default_rng(seed)
    samples = np.zeros(round(seconds * sampling_rate), np.float32)
    for start in range(0, len(samples), sampling_rate // 2):
        time = np.arange(min(sampling_rate, len(samples) - start)) / sampling_rate
        frequency = 440.0 * 2 ** ((random.integers(40, 90) - 69) / 12)
        for harmonic in range(1, 5):
            tone = np.sin(2 * np.pi * frequency * harmonic * time) * np.exp(-3 * harmonic * time) / harmonic
            samples[start : start + len(time)] += (0.2 * tone).astype(np.float32)
    return samples


@pytest.fixture(scope="session")
def write_audio():
    """`write_audio(path, seconds=6, sampling_rate=16000, seed=0)` -> path; the extension chooses the format."""

    def write(path, seconds=6.0, sampling_rate=16_000, seed=0):
        soundfile.write(path, piano_waveform(seconds, sampling_rate, seed), sampling_rate)
        return path

    return write


@pytest.fixture
def corpus(tmp_path, write_midi, write_audio):
    """A folder of four pieces: two MIDI files, a recording, and one that exists as both; one lies in a subfolder."""
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    write_midi(folder / "march.mid", seed=1)
    write_midi(folder / "more" / "waltz.MIDI", seconds=45, seed=2)
    write_audio(folder / "rain.wav", seconds=25, seed=3)
    write_midi(folder / "take.mid", seed=4)
    write_audio(folder / "take.flac", seed=4)
    return folder
