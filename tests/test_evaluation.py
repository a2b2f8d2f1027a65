"""Protocols on hand-made embeddings whose right answer is known, and the command from end to end on a tiny model."""

import io
import json

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from evaluation import audio_protocols, evaluate_checkpoint, measurement, midi_protocols, text_protocols
from evaluation.bench import Bench, UnsuitableError
from evaluation.changes import faster, through_mp3, transposed, with_noise, without_cues
from evaluation.corpora import load_corpus
from evaluation.scores import Bootstrap, paired_retrieval, tag_scores
from model_cards import plots, render_model_card
from model_cards.figures import deciding_figures, figure_table, figures_of
from modeling_pianobind.index.alignment import Example
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS
from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.corpus import PackedCorpus
from training.data.dataset_files import ShardWriter
from training.data.dataset_schema import features_of

DIM = 32
GENRES = ("classical", "jazz", "ragtime")
RATE = 8_000
LOWEST = 40  # piece number n is a piece on key 40 + n
FEW = Bootstrap(samples=20)


def one_hot(numbers) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[list(numbers)]


def examples(numbers) -> list[Example]:
    """Music of one window each."""
    return [Example(row, row[None], np.array([[0.0, 20.0]])) for row in one_hot(numbers)]


def piece(number: int, velocity: int = 70, count: int = 40) -> PianoNotes:
    """Repeats one key, five times a second."""
    full = np.full(count, 0.15, np.float32)
    return PianoNotes(
        np.arange(count) * 0.2, full, np.full(count, LOWEST + number), np.full(count, velocity), np.zeros_like(full)
    )


def number_of(notes: PianoNotes) -> int:
    return int(notes.pitch[0]) - LOWEST


def row(number: int, **labels) -> dict:
    known = {"id": f"piece {number}", "source": "x", "song": f"{number:02x}", "split": "valid", "tier": "human"}
    return known | {"licence": "CC BY-NC 4.0", "velocities": 40} | labels


class LengthInstrument:
    """The sound of piece n is noise of (n + 8) half seconds: no room, noise or compression changes its length much."""

    def render(self, notes, sampling_rate):
        samples = (number_of(notes) + 8) * sampling_rate // 2
        return np.random.default_rng(samples).normal(size=samples).astype(np.float32)


def make_bench(rows, notes=None, **changes) -> Bench:
    """Embeddings say which piece it is; a text "... 7" is that of piece 7."""
    known = {
        "corpus": PackedCorpus.pack(rows, notes or [piece(number) for number in range(len(rows))]),
        "embed_text": lambda texts: one_hot(int(text.split()[-1]) for text in texts),
        "embed_notes": lambda pieces: one_hot(map(number_of, pieces)),
        "audio_examples": lambda sounds, transcribe=False: examples(round(len(s) / RATE * 2) - 8 for s in sounds),
        "note_examples": lambda pieces: examples(map(number_of, pieces)),
        "sampling_rate": RATE,
        "bootstrap": FEW,
    }
    return Bench(**known | changes)


@pytest.fixture
def genres():
    """Six pieces of each genre to measure, and six to learn from; classical ones are loud."""
    rows, notes = [], []
    for number in range(36):
        genre = number % 3
        rows.append(row(number, genre=[GENRES[genre]], split=("train", "valid")[number >= 18]))
        notes.append(piece(genre, velocity=100 if genre == 0 else 50, count=30 + number))
    return make_bench(rows, notes, embed_text=embed_genre)


def embed_genre(texts):
    """Words are taken singly: a negation changes nothing."""
    return one_hot(next(n for n, genre in enumerate(GENRES) if genre in text) for text in texts)


def test_tags_that_are_told_apart_score_one_and_chance_a_half(genres):
    result = midi_protocols.tagging(genres)
    scores = result["scores"]
    assert scores["macro_roc_auc"] == scores["macro_pr_auc"] == scores["retrieval"]["map"] == 1.0
    assert scores["macro_roc_auc_interval"] == [1.0, 1.0]
    assert {tag: row["pieces"] for tag, row in scores["per_tag"].items()} == dict.fromkeys(GENRES, 6)
    assert result["baselines"]["chance"] == {"macro_roc_auc": 0.5, "macro_pr_auc": pytest.approx(1 / 3)}
    assert result["baselines"][midi_protocols.FEATURES]["macro_roc_auc"] == 1.0

    genres.embed_notes = lambda pieces: one_hot([5] * len(pieces))
    genres.__dict__.pop("_memory")
    assert midi_protocols.tagging(genres)["scores"]["macro_roc_auc"] == 0.5


def test_what_only_loudness_tells_is_gone_without_cues(genres):
    genres.embed_notes = lambda pieces: one_hot(0 if notes.velocity[0] > 80 else 9 for notes in pieces)
    assert midi_protocols.tagging(genres)["scores"]["per_tag"]["classical"]["roc_auc"] == 1.0
    assert midi_protocols.tagging_without_cues(genres)["scores"]["macro_roc_auc"] == 0.5


def test_a_negation_that_is_not_understood_shows(genres):
    scores = text_protocols.prompts(genres)["scores"]
    assert scores["negation"]["macro_roc_auc"] == 1.0
    assert scores["negation"]["cosine_to_plain"] == pytest.approx(1.0)
    assert scores["sentences_cosine"] == {"same_tag": pytest.approx(1.0), "other_tag": 0.0}

    genres.embed_text = lambda texts: np.stack(
        [embed_genre([text])[0] * (-1 if "not" in text or "without" in text else 1) for text in texts]
    )
    assert text_protocols.prompts(genres)["scores"]["negation"]["macro_roc_auc"] == 0.0


def test_the_map_has_every_piece_and_genres_that_are_apart(genres):
    rows = [{**row, "split": "valid"} for row in genres.corpus.rows[:36]]
    bench = make_bench(rows, [genres.corpus.notes(place) for place in range(36)])
    result = midi_protocols.corpus_map(bench)
    assert result["scores"]["similarity"] == np.eye(3).tolist()
    assert len(result["points"]["x"]) == len(result["points"]["genre"]) == 36


def quadrant_rows(source, split):
    return [
        row(number, source=source, split=split, emotion_quadrant=number % 4 + 1, official_split="valid")
        for number in range(24)
    ]


def test_emotion_is_the_quadrant_whose_prompts_are_nearest():
    def embed_text(texts):
        return one_hot(next(q for q, prompts in EMOTION_PROMPTS.items() if text in prompts) for text in texts)

    notes = [piece(number % 4 + 1) for number in range(24)]
    notes[0] = piece(4)  # a first quadrant that looks like a fourth
    bench = make_bench(quadrant_rows("emopia", "valid"), notes, embed_text=embed_text)
    result = midi_protocols.emotion(bench)
    assert result["scores"]["emopia"]["accuracy"] == result["scores"]["emopia_published"]["accuracy"] == 23 / 24
    assert result["scores"]["emopia"]["confusion"][0] == [5, 0, 0, 1]
    assert result["baselines"]["chance"]["emopia"] == {"accuracy": 0.25}


def test_a_probe_learns_on_train_and_is_measured_on_the_split():
    rows = quadrant_rows("emopia", "train") + quadrant_rows("emopia", "valid")
    notes = [piece(number % 4) for number in range(48)]
    result = midi_protocols.probes(make_bench(rows, notes))["scores"]
    assert result["emopia"]["accuracy"] == 1.0
    assert (result["emopia"]["train_pieces"], result["emopia"]["pieces"]) == (24, 24)
    with pytest.raises(UnsuitableError, match="in `train`"):
        midi_protocols.probes(make_bench(rows[24:], notes[24:]))


@pytest.fixture
def described():
    """Ten pieces, each with a caption that names it."""
    return make_bench([row(number, captions=[f"piece {number}"]) for number in range(10)])


def test_captions_find_their_own_piece_and_simple_means_stand_beside(described):
    result = text_protocols.text_to_piece(described)
    assert (
        result["scores"]["recall@1"] == result["scores"]["reverse_recall@1"] == result["scores"]["median_rank"] == 1.0
    )
    assert result["baselines"]["chance"]["recall@1"] == pytest.approx(0.1)
    assert set(result["baselines"]) == {"chance", "BM25 over generated captions"}

    described.embed_text = lambda texts: one_hot((int(text.split()[-1]) + 1) % 10 for text in texts)
    assert text_protocols.text_to_piece(described)["scores"]["recall@1"] < 0.5


def test_the_papers_item_is_the_mean_of_its_audio_and_midi(described):
    described.instruments = {"noise": LengthInstrument()}
    described.embed_notes = lambda pieces: one_hot([11] * len(pieces))  # MIDI says nothing, audio all
    scores = text_protocols.paper(described)["scores"]
    assert scores["midi"]["recall@1"] == pytest.approx(0.1)
    assert scores["audio"]["recall@1"] == scores["fused"]["recall@1"] == scores["fused"]["reverse_recall@1"] == 1.0


def test_the_papers_audio_is_the_recording_where_every_piece_has_one():
    rows = [row(number, captions=[f"piece {number}"], audio=wav(number)) for number in range(10)]
    scores = text_protocols.paper(make_bench(rows))["scores"]
    assert scores["audio"]["recall@1"] == 1.0
    del rows[0]["audio"]
    assert list(text_protocols.paper(make_bench(rows))["scores"]) == ["midi"]


def test_audio_finds_the_midi_of_its_own_stretch_with_and_without_transcription(described):
    with pytest.raises(UnsuitableError, match="--soundfont"):
        audio_protocols.audio_midi(described)
    described.instruments, described.transcribe = {"noise": LengthInstrument()}, True
    plain = described.audio_examples
    described.audio_examples = lambda sounds, transcribe=False: plain(sounds)[::-1] if transcribe else plain(sounds)
    scores = audio_protocols.audio_midi(described)["scores"]
    assert scores["among_10"]["recall@1"] == scores["among_10"]["reverse_recall@1"] == scores["cosine_plain"] == 1.0
    assert scores["among_10_transcribed"]["recall@1"] == scores["among_10_by_windows_transcribed"]["recall@1"] == 0.0
    assert scores["among_10_by_windows"]["recall@1"] == 1.0


def test_some_pieces_are_transcribed_and_seek_their_midi_among_all(described):
    described.instruments, described.transcribe = {"noise": LengthInstrument()}, True
    described.transcribed_pieces = 4
    result = audio_protocols.audio_midi(described)
    few = result["scores"]["among_10_transcribed"]
    assert (few["queries"], few["items"], few["recall@1"]) == (4, 10, 1.0) and "reverse_recall@1" not in few
    assert result["scores"]["among_10"]["queries"] == 10 and result["scores"]["cosine_transcribed"] == 1.0
    assert result["settings"]["pieces"] == 10 and result["settings"]["transcribed_pieces"] == 4


def test_tags_of_transcribed_audio_stand_beside_those_of_the_same_pieces_without(genres):
    genres.instruments, genres.transcribe, genres.transcribed_pieces = {"noise": LengthInstrument()}, True, 17
    plain = genres.audio_examples
    genres.audio_examples = lambda sounds, transcribe=False: (
        examples([0] * len(sounds)) if transcribe else plain(sounds)
    )
    scores = audio_protocols.tagging_audio(genres)["scores"]
    assert scores["macro_roc_auc"] == scores["transcribed"]["plain"]["macro_roc_auc"] == 1.0
    assert scores["transcribed"]["transcribed"]["macro_roc_auc"] == 0.5


def wav(number) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, LengthInstrument().render(piece(number), RATE), RATE, format="WAV")
    return content.getvalue()


def test_a_recording_seeks_its_transcription_among_all_pieces():
    rows = [row(number) for number in range(10)]
    rows[3]["audio"], rows[7]["audio"] = wav(3), wav(6)  # the second one sounds like another piece
    result = audio_protocols.recordings(make_bench(rows))
    assert result["scores"]["plain"]["ranks"] == [1, 2]
    assert result["scores"]["plain"]["recall@1"] == 0.5
    assert result["scores"]["plain_by_windows"]["ranks"] == [1, 2]
    assert result["baselines"]["chance"]["plain"]["recall@1"] == pytest.approx(0.1)
    rows[3]["audio"] = rows[7]["audio"] = "a.mp3"
    with pytest.raises(UnsuitableError, match="--recordings"):
        audio_protocols.recordings(make_bench(rows))


def test_robustness_is_one_where_nothing_changes_for_the_embedding(described):
    described.embed_notes = lambda pieces: one_hot(number_of(notes) % DIM for notes in pieces)
    scores = midi_protocols.robustness_midi(described)["scores"]
    assert scores["tempo x 0.9"]["cosine"] == scores["without cues"]["recall@1"] == 1.0
    assert scores["+3 semitones"]["cosine"] == 0.0
    assert scores["+3 semitones"]["recall@1"] < 0.05

    described.instruments = {"noise": LengthInstrument(), "other": LengthInstrument()}
    result = audio_protocols.robustness_audio(described)
    assert result["scores"]["room"]["cosine"] == result["scores"]["played by other"]["recall@1"] == 1.0
    assert result["scores"]["MP3"]["cosine"] == 1.0
    assert result["scores"]["+3 semitones"]["recall@1"] < 0.05
    assert result["baselines"]["random pairs"]["cosine"] == 0.0


def test_intervals_draw_whole_songs():
    values, seen = np.array([1, 1, 1, 0]), set()

    def figures(kept):
        seen.add(float(values[kept].mean()))
        return {"mean": float(values[kept].mean())}

    assert Bootstrap(100).intervals(figures, "aaab") == {"mean": 0.75, "mean_interval": [0.0, 1.0]}
    assert seen == {0.0, 0.75, 1.0}
    scores = tag_scores(np.array([[0.9], [0.8], [0.1], [0.2]]), np.array([[1], [1], [0], [0]]) > 0, ["a"], "aabb", FEW)
    assert scores["macro_roc_auc"] == 1.0  # draws of one song only have no area, and are left out
    assert scores["macro_roc_auc_interval"] == [1.0, 1.0]


def test_paired_retrieval_takes_the_mean_over_draws():
    scores = np.eye(20)
    scores[0] = scores[0, ::-1]  # one query of twenty finds another item
    single = [paired_retrieval(scores, 10, Bootstrap(0, seed))["recall@1"] for seed in range(6)]
    assert len(set(single)) > 1
    assert paired_retrieval(scores, 10, Bootstrap(0), draws=6)["recall@1"] == pytest.approx(np.mean(single))


def test_changes_leave_the_rest_of_the_music_alone():
    notes = piece(10)
    notes.pitch[:2] = 22, 107
    assert transposed(notes, 3).pitch[:3].tolist() == [25, 98, 53]
    assert transposed(notes, -3).pitch[:3].tolist() == [31, 104, 47]
    assert np.allclose(faster(notes, 1.25).onset, notes.onset / 1.25)
    twin = without_cues(notes, seed=1)
    assert set(twin.velocity) == {64} and not twin.pedal.any()
    assert 0 < np.abs(twin.onset - notes.onset).max() < 0.1
    tone = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    noisy = with_noise(tone, np.random.default_rng(0), noise_db=-20)
    assert np.corrcoef(tone, noisy)[0, 1] == pytest.approx(1 / np.sqrt(1.01), abs=1e-3)
    decoded = through_mp3(tone, 16_000)
    assert not np.array_equal(decoded[: len(tone)], tone)
    peak = np.abs(np.fft.rfft(decoded)).argmax() * 16_000 / len(decoded)
    assert peak == pytest.approx(440, abs=2)


def test_a_dataset_folder_is_read_like_a_packed_corpus(tmp_path, write_midi):
    midi = write_midi(tmp_path / "a.mid").read_bytes()
    (tmp_path / "data").mkdir()
    writer = ShardWriter(tmp_path / "data", "valid", features_of({"genre"}), 1e9)
    base = dict.fromkeys(features_of({"genre"})) | {
        "piece_id": "x/a",
        "song": "0" * 12,
        "split": "valid",
        "tier": "human",
    }
    base |= {
        "captions": ["a rag"],
        "source": "x",
        "licence": "MIT",
        "seconds": 8.0,
        "midi": midi,
        "genre": ["ragtime"],
    }
    for origin in ("real", "rendered"):
        audio = {"bytes": wav(2), "path": "a.wav"}
        writer.write(base | {"start_seconds": 20.0, "audio": audio, "audio_origin": origin})
    writer.close()
    corpus = load_corpus(tmp_path)
    assert [row["id"] for row in corpus.rows] == ["x/a@20", "x/a@20"]
    assert corpus.rows[0]["audio"] == wav(2) and "audio" not in corpus.rows[1], "what was rendered is not a recording"
    assert len(corpus.notes(0)) == 32 and "title" not in corpus.rows[0]
    with pytest.raises(FileNotFoundError, match="neither a packed corpus"):
        load_corpus(tmp_path / "data")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_checkpoint):
    """The folder of an evaluation of the tiny model, one protocol and then some more."""
    folder = tmp_path_factory.mktemp("evaluation")
    rows = [row(number, genre=[GENRES[number % 3]], split=("train", "valid")[number >= 12]) for number in range(36)]
    PackedCorpus.pack(rows, [piece(number, 40 + number) for number in range(36)]).save(folder / "packed")
    (folder / "piano").mkdir()
    time = np.arange(16_000) / 16_000
    for key in (48, 60, 72, 84):
        tone = 0.3 * np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * time) * np.exp(-3 * time)
        soundfile.write(folder / "piano" / f"{key}-v0.ogg", tone, 16_000)
    for protocols in ("tagging", "tagging_without_cues,text_to_piece,corpus_map,robustness_midi,audio_midi"):
        assert run(folder, tiny_checkpoint, "--protocols", protocols) == 0
    return folder


def run(folder, checkpoint, *options) -> int:
    return evaluate_checkpoint.main(
        [str(checkpoint), str(folder / "packed"), "--output", str(folder / "results.json"), "--device", "cpu",
         "--soundfont", str(folder / "piano"), "--audio-pieces", "3", "--audio-seconds", "2",
         "--bootstrap-samples", "5", *options]
    )  # fmt: skip


def test_the_command_adds_protocols_to_one_file(evaluated, tiny_checkpoint, capsys):
    results = json.loads((evaluated / "results.json").read_text())
    assert list(results["protocols"]) == [
        "tagging", "tagging_without_cues", "text_to_piece", "corpus_map", "robustness_midi", "audio_midi",
    ]  # fmt: skip
    assert results["split"] == "valid" and len(results["weights_sha256"]) == len(results["corpus"]["sha256"]) == 64
    assert results["sources"] == [{"name": "x", "pieces": 12, "licence": "CC BY-NC 4.0"}]
    for result in results["protocols"].values():
        assert {"scores", "baselines", "settings", "code_commit", "seed"} <= result.keys()
    low, high = results["protocols"]["text_to_piece"]["scores"]["recall@10_interval"]
    assert 0 <= low <= high <= 1
    assert list(evaluated.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("text", "path", "program"), [("a.sf3", "a.sf3", 0), ("a:b.sf3:3", "a:b.sf3", 3), ("C:piano", "C:piano", 0)]
)
def test_an_instrument_is_a_file_and_perhaps_a_program(text, path, program):
    result = measurement.instrument_of(text)
    assert (result.path, result.program) == (path, program)


def test_the_command_refuses_what_does_not_fit(evaluated, tiny_checkpoint, tmp_path, capsys):
    assert run(evaluated, tiny_checkpoint, "--protocols", "recordings") == 2
    assert "recordings: no row of this split has a recording" in capsys.readouterr().err
    assert run(evaluated, tiny_checkpoint, "--split", "train", "--protocols", "tagging") == 2
    assert "holds figures of another split" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(evaluated, tiny_checkpoint, "--protocols", "taging")
    assert "no protocol is called taging" in capsys.readouterr().err


def test_card_and_plots_are_made_of_the_results_alone(evaluated, tiny_checkpoint, tmp_path):
    results = json.loads((evaluated / "results.json").read_text())
    drawn = plots.draw(results, tmp_path / "plots")
    assert [path.stem for path in drawn] == ["tags", "map", "similarity", "robustness"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size < 150_000 for path in drawn)

    card = render_model_card.render(tiny_checkpoint, evaluated / "results.json", tmp_path / "plots")
    area = results["protocols"]["tagging"]["scores"]["macro_roc_auc"]
    metrics = {entry.metric_name: entry for entry in ModelCard(str(card)).data.eval_results}
    assert metrics["genre and style tags from MIDI, zero-shot, macro ROC-AUC"].metric_value == pytest.approx(area)
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert f"| {area:.3f} | " in card.text and "| jazz | " in card.text and "| x | 12 | CC BY-NC 4.0 |" in card.text
    assert card.text.count("![") == 4


def test_the_readme_quotes_the_results_of_the_embedded_checkpoint():
    root = measurement.ROOT
    results = json.loads((root / "evaluation" / "results" / "pianobind-mini.json").read_text())
    table = figure_table(deciding_figures(figures_of(results)))
    assert table.count("\n") == 1 + 6
    assert table in (root / "README.md").read_text()
    card = root / "modeling_pianobind" / "checkpoints" / "pianobind-mini" / "README.md"
    assert figure_table(figures_of(results)) in card.read_text()


def test_a_readme_gets_a_new_table_and_nothing_else():
    readme = "# A\n\n| protocol | old |\n|---|---|\n| x | 1 |\n\n| other | table |\n"
    assert (
        render_model_card.with_table(readme, "| protocol | new |")
        == "# A\n\n| protocol | new |\n\n| other | table |\n"
    )
    with pytest.raises(ValueError, match="no table"):
        render_model_card.with_table("# A", "| protocol |")


def test_audio_that_scores_higher_throughout_takes_all_first_places():
    midi = np.linspace(0, 0.1, 30)[:, None]
    result = audio_protocols.mixing(midi + 0.2, midi)
    assert result["offset"] == pytest.approx(0.2) and result["spread"] == pytest.approx(0, abs=1e-9)
    assert result["audio_share"] == 1.0
    fair = audio_protocols.mixing(midi, midi)
    assert fair["offset"] == 0 and fair["audio_share"] == 0.5
