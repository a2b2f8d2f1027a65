"""Valence, arousal and difficulty: heads beside a checkpoint, `describe --emotion`, and how they are fitted."""

import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from evaluation.measure_emotion import figures, reliability, zero_shot
from evaluation.scores import Bootstrap
from modeling_pianobind import (
    PianoBindModel,
    PianoBindProcessor,
    describe_difficulty,
    describe_emotion,
    embed_midi,
    embed_text,
)
from modeling_pianobind.app.cards import MAP_WIDTH, card, corpus_map
from modeling_pianobind.app.library import Library
from modeling_pianobind.app.music import Excerpt
from modeling_pianobind.app.piano_roll import MOOD_HEIGHT, WIDTH, draw_moods
from modeling_pianobind.app.synthesis import AdditivePiano
from modeling_pianobind.cli import main
from modeling_pianobind.commands.moods import over_time, resampled
from modeling_pianobind.commands.output import clock
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS
from modeling_pianobind.notes_pianobind import HIGHEST_KEY, LOWEST_KEY
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.piece_heads import QUADRANTS, DifficultyHead, EmotionHead
from training.data.corpus import PackedCorpus
from training.data.emotion_labels import emotion_of, is_easy
from training.data.head_pieces import (
    HeadPieces,
    RowEmbedder,
    difficulty_pieces,
    emotion_pieces,
    emotion_places,
    graded_pieces,
    played_windows,
)
from training.data.mel_rendering import VELOCITIES, MelInstrument
from training.fit_heads import fit_difficulty, instruments_of, prompt_directions
from training.loop.emotion_fit import fit_emotion

from .corpus_files import make_notes
from .hub_folder import make_hub_folder


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint with heads."""
    folder = tmp_path_factory.mktemp("moods") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    fingerprint = Checkpoint(str(folder)).weights_fingerprint
    weight = np.random.default_rng(0).normal(size=(2, 24))
    EmotionHead(weight, np.array([0.5, -0.5])).save(folder / EmotionHead.file, fingerprint)
    DifficultyHead(weight[0], 4.0, 1.5, 0.8).save(folder / DifficultyHead.file, fingerprint)
    return folder


@pytest.fixture
def waltz(tmp_path, write_midi):
    return str(write_midi(tmp_path / "waltz.mid", seconds=65, seed=3))


class TestHeads:
    def test_values_and_quadrants_by_hand(self):
        head = EmotionHead(np.array([[np.log(3.0), 0.0], [0.0, -np.log(4.0)]]), np.zeros(2))
        embeds = np.array([[1.0, 0.0], [0.0, 1.0]])
        np.testing.assert_allclose(head.values(embeds), [[0.5, 0.0], [0.0, -0.6]], atol=1e-6)
        np.testing.assert_allclose(head.quadrants(embeds)[0], [0.375, 0.125, 0.125, 0.375], atol=1e-6)
        np.testing.assert_allclose(head.quadrants(embeds)[1], [0.1, 0.1, 0.4, 0.4], atol=1e-6)

    def test_grades_stay_on_the_scale(self):
        head = DifficultyHead(np.array([10.0, 0.0]), np.array(4.0), np.array(1.5), np.array(1.0))
        np.testing.assert_allclose(head.grades(np.array([[0.0, 1.0], [1.0, 0.0]])), [[4, 2.5, 5.5], [7, 7, 7]])

    def test_the_package_has_heads_for_its_own_weights(self):
        """Where this fails, the weights are new: `python -m training.fit_heads` fits the heads to them."""
        own = Checkpoint()
        for kind in (EmotionHead, DifficultyHead):
            assert kind.of_checkpoint(own.name, own.weights_fingerprint).weight.shape[-1] == 384

    def test_they_belong_to_one_set_of_weights(self, checkpoint, tmp_path):
        path = checkpoint / EmotionHead.file
        assert EmotionHead.load(path, Checkpoint(str(checkpoint)).weights_fingerprint) is not None
        assert EmotionHead.load(path, "other") is None
        assert EmotionHead.load(tmp_path / "none", "other") is None
        (tmp_path / "damaged").write_bytes(path.read_bytes()[:50])
        assert EmotionHead.load(tmp_path / "damaged", "other") is None


class TestDescribe:
    def test_a_file_in_numbers_over_time_and_as_a_picture(self, checkpoint, waltz, tmp_path, capsys):
        picture = tmp_path / "waltz.png"
        asked = [
            "describe",
            waltz,
            "--emotion",
            "--difficulty",
            "--checkpoint",
            str(checkpoint),
            "--plot",
            str(picture),
        ]
        assert main(asked) == 0
        valence, arousal, quadrants, plotted, grade = capsys.readouterr().out.splitlines()
        model, processor = PianoBindModel.from_pretrained(checkpoint), PianoBindProcessor.from_pretrained(checkpoint)
        emotion = describe_emotion(model, processor, waltz)
        assert valence.startswith(f"valence {emotion.valence:+.2f}  ") and arousal.startswith("arousal")
        assert set(valence.split()[2] + arousal.split()[2]) <= set("▁▂▃▄▅▆▇█")
        best = max(QUADRANTS, key=emotion.quadrants.get)
        assert quadrants.startswith(f"{best} {emotion.quadrants[best]:.2f}")
        assert quadrants.endswith(clock(0, emotion.spans.max()))
        assert plotted == str(picture) and picture.read_bytes().startswith(b"\x89PNG")
        assert grade.startswith(
            "grade {:.1f} of 7 ({:.1f} to {:.1f}".format(*describe_difficulty(model, processor, waltz))
        )
        head = EmotionHead.of_checkpoint(checkpoint, Checkpoint(str(checkpoint)).weights_fingerprint)
        expected = head.values(embed_midi(model, processor, [waltz]))[0]
        np.testing.assert_allclose([emotion.valence, emotion.arousal], expected, atol=1e-5)
        assert len(emotion.curve) == len(emotion.spans) > 4

    def test_a_folder_as_csv(self, checkpoint, corpus, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PIANOBIND_CACHE", str(tmp_path / "cache"))
        assert main(["describe", str(corpus), "--emotion", "--csv", "--checkpoint", str(checkpoint)]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head == "path,valence,arousal,happy,tense,sad,calm" and len(rows) == 4
        assert all(sum(map(float, row.split(",")[3:])) == pytest.approx(1, abs=0.03) for row in rows)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--plot", "x.png"], "give a file and --emotion"),
            (["--emotion", "--plot", "x.pdf"], "is not .png"),
            (["--emotion", "--plot", "none/x.png"], "its folder does not exist"),
            (["--emotion", "--labels", "a,b"], "leave out --labels"),
        ],
    )
    def test_options_that_do_not_fit_are_one_line(self, options, message, checkpoint, waltz, capsys):
        assert main(["describe", waltz, *options, "--checkpoint", str(checkpoint)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    def test_a_checkpoint_without_heads_says_how_to_make_them(self, tiny_checkpoint, waltz, capsys):
        assert main(["describe", waltz, "--emotion", "--checkpoint", str(tiny_checkpoint)]) == 2
        error = capsys.readouterr().err
        assert "has no emotion.safetensors" in error and "training.fit_heads" in error and error.count("\n") == 1

    def test_a_published_checkpoint_carries_them(self, checkpoint, tmp_path):
        folder = make_hub_folder(checkpoint, tmp_path / "published")
        for kind in (EmotionHead, DifficultyHead):
            assert (folder / kind.file).read_bytes() == (checkpoint / kind.file).read_bytes()

    def test_the_line_over_time_shows_what_sounds_there(self):
        spans = np.array([[0.0, 20.0], [10.0, 30.0], [20.0, 40.0]])
        curve = np.array([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
        np.testing.assert_allclose(resampled(spans, curve, 60), [[-1, 1], [0, 0], [1, -1]], atol=0.51)
        assert over_time(spans, np.array([[-1.0, 1.0]] * 3)) == ["▁▁▁", "███"]
        assert len(over_time(np.stack([np.arange(500), np.arange(500) + 2.0], 1), np.zeros((500, 2)))[0]) == 60


class TestApp:
    def test_a_curve_stands_under_the_roll_where_the_checkpoint_tells_one(
        self, checkpoint, tiny_checkpoint, corpus, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("PIANOBIND_CACHE", str(tmp_path / "cache"))
        for name, is_there in ((checkpoint, True), (tiny_checkpoint, False)):
            library = Library(corpus, Checkpoint(str(name)), AdditivePiano())
            assert [('class="pb-moods"' in card(library.view(str(key)))) for key in range(4)] == [is_there] * 4

    def test_a_map_by_mood_stands_beside_the_one_by_sound(self, checkpoint, corpus, tmp_path, monkeypatch):
        monkeypatch.setenv("PIANOBIND_CACHE", str(tmp_path / "cache"))
        library = Library(corpus, Checkpoint(str(checkpoint)), AdditivePiano())
        head = EmotionHead.of_checkpoint(checkpoint, library.checkpoint.weights_fingerprint)
        maps = ElementTree.fromstring(f"<div>{corpus_map(library, library.search('calm'))}</div>")
        assert [part.get("class") for part in maps] == ["pb-map pb-by-sound", "pb-map pb-by-mood"]
        by_mood = {point.get("data-key"): point.find("circle") for point in maps[1].iter("g")}
        assert by_mood.keys() == {str(number) for number in range(len(library))}
        places = np.array(
            [[float(by_mood[str(key)].get(name)) for name in ("cx", "cy")] for key in range(len(library))]
        )
        values = head.values(library.index.embeddings)
        assert (places[:, 0].argsort() == values[:, 0].argsort()).all()  # to the right: brighter
        assert (places[:, 1].argsort() == (-values[:, 1]).argsort()).all()  # upwards: more stirred
        assert ((places[:, 0] > MAP_WIDTH / 2) == (values[:, 0] > 0)).all()

    def test_the_curve_by_hand(self):
        spans = np.array([[0.0, 20.0], [20.0, 40.0]])
        svg = ElementTree.fromstring(draw_moods(Excerpt(10, 30), spans, np.array([[-1.0, 0.5], [1.0, 0.5]])))
        valence, arousal = (
            [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            for line in svg.iter("polyline")
        )
        assert (valence[0], valence[-1]) == ((0, MOOD_HEIGHT), (WIDTH, 0))
        assert {y for _, y in arousal} == {MOOD_HEIGHT / 4}


class TestFit:
    def pieces(self, noise, sources):
        random = np.random.default_rng(1)
        embeds = random.normal(size=(len(sources), 16))
        embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
        latent = embeds[:, :2] * 4 + random.normal(size=(len(sources), 2)) * noise[:, None]
        songs = np.array([f"song {number // 2}" for number in range(len(sources))])
        return HeadPieces([*range(len(sources))], embeds, (latent > 0).astype(float), songs, sources)

    def test_a_noisy_source_is_read_less_sharply_and_unknown_labels_are_left_out(self):
        sources = np.arange(600) % 2
        pieces = self.pieces(np.where(sources == 1, 4.0, 0.2), sources)
        pieces.targets[::5, 1] = np.nan
        weight, bias, report = fit_emotion(pieces)
        sharp, blurred = report["sharpness"]["emopia"], report["sharpness"]["vgmidi"]
        assert sharp[0] > 1.5 * blurred[0]
        clear = sources == 0
        guess = pieces.embeds @ weight.T + bias > 0
        assert (guess == (pieces.embeds[:, :2] > 0))[clear].mean() > 0.85

    def test_windows_teach_and_a_given_direction_costs_nothing(self):
        sources = np.zeros(60, int)
        pieces = self.pieces(np.full(60, 0.2), sources)
        towards = np.eye(2, 16)  # the right directions
        shares = {}
        for name, given in (("none", None), ("right", towards)):
            weight, _, told = fit_emotion(
                pieces, pieces.windows([row[None].repeat(2, 0) for row in pieces.embeds]), given
            )
            shares[name] = np.abs(weight[0, 0]) / np.linalg.norm(weight[0])
            assert told["chances"].shape == (60, 2)
        assert shares["right"] > shares["none"] and shares["right"] > 0.9

    def test_a_run_without_instruments_cannot_play_pieces(self, tmp_path):
        run = tmp_path / "run.yaml"
        run.write_text("checkpoint: default\ncorpus: x\noutput: y\nmel_rendering: z\nstages: [{steps: 1}]\n")
        with pytest.raises(ValueError, match=r"run\.yaml: names no `instruments`"):
            instruments_of(run, None)

    def test_prompts_of_bright_music_lie_on_the_side_of_high_valence(self, tiny_model, tiny_processor):
        valence, arousal = prompt_directions(tiny_model, tiny_processor)
        texts = [prompt for prompts in EMOTION_PROMPTS.values() for prompt in prompts]
        scores = embed_text(tiny_model, tiny_processor, texts) @ np.stack([valence, arousal], axis=1)
        happy, tense, sad, calm = scores.reshape(4, 3, 2).mean(axis=1)
        assert (happy + calm - tense - sad)[0] > 0 and (happy + tense - sad - calm)[1] > 0

    def test_windows_have_the_targets_of_their_pieces(self):
        pieces = HeadPieces([4, 9], np.eye(2), np.array([[1.0, 0], [0, 1]]), np.array(["a", "b"]), np.array([0, 1]))
        windows = pieces.windows([np.ones((1, 2)), np.zeros((3, 2))])
        assert windows.places == [4, 9, 9, 9] and windows.songs.tolist() == list("abbb")
        assert windows.targets.tolist() == [[1, 0], *[[0, 1]] * 3] and windows.embeds[:, 0].tolist() == [1, 0, 0, 0]
        both = pieces + windows
        assert both.places == [4, 9, 4, 9, 9, 9] and both.sources.tolist() == [0, 1, 0, 1, 1, 1]

    def test_an_adversary_hides_what_gives_the_source_away(self):
        sources = np.arange(400) % 2
        pieces = self.pieces(np.full(400, 0.2), sources)
        pieces.embeds[:, 0] += sources * 0.5  # the source shows, and its labels lean to it
        plain, hidden = (np.abs(fit_emotion(pieces, adversarial=weight)[0][0, 0]) for weight in (0.0, 3.0))
        assert hidden < plain

    def test_grades_follow_the_direction_from_easy_to_hard(self):
        random = np.random.default_rng(0)
        level = np.repeat([0.0, 1.0, 2.0], 30)
        embeds = np.c_[level, random.normal(size=(90, 7)) * 0.3]
        songs = np.array([f"song {number}" for number in range(90)])
        levels = HeadPieces([], embeds, level, songs, np.zeros(90, int))
        grades = np.array([1.0, 2, 3, 4, 5, 6, 7])
        graded = HeadPieces([], np.c_[grades / 3, np.zeros((7, 7))], grades, songs[:7], np.zeros(7, int))
        head, order = fit_difficulty(levels, graded)
        assert order == pytest.approx(1) and head.error < 0.7 and head.margin >= head.error
        assert (np.diff(head.grades(graded.embeds)[:, 0]) > 0).all()


class TestMeasure:
    def test_shares_of_quadrants_and_signs_by_hand(self):
        chances = np.array([[0.9, 0.8], [0.4, 0.9], [0.7, 0.2], [0.2, 0.3]])
        truth = np.array([[1, 1], [1, 1], [1, 0], [0, 1]])
        result = figures(chances, truth, list("abcd"), Bootstrap(samples=20))
        assert (result["quadrant"], result["valence"], result["arousal"]) == (0.5, 0.75, 0.75)
        assert result["quadrant_interval"][0] <= 0.5 <= result["quadrant_interval"][1]

    def test_reliability_by_hand(self):
        chances = np.array([[0.1, 0.5], [0.1, 0.5], [0.9, 0.5], [1.0, 0.5]])
        result = reliability(chances, np.array([[0, 1], [1, 1], [1, 0], [1, 0]]))
        assert result["arousal"]["calibration_error"] == 0
        assert [row["pieces"] for row in result["valence"]["bins"]] == [2, 2]
        assert result["valence"]["calibration_error"] == pytest.approx((0.4 * 2 + 0.05 * 2) / 4)

    def test_quadrants_by_prompts(self):
        chances = zero_shot(np.eye(4), np.eye(4))
        assert chances.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]


class TestRows:
    def corpus(self):
        notes = [make_notes(seed, seconds=70) for seed in range(3)]
        rows = [
            {"id": "a", "source": "emopia", "split": "train", "song": "1", "emotion_quadrant": 2, "title": ""},
            {
                "id": "b",
                "source": "everyonepiano",
                "split": "train",
                "song": "2",
                "mood": ["calm"],
                "title": "easy version",
            },
            {"id": "c", "source": "everyonepiano", "split": "train", "song": "2", "title": "", "difficulty": 3},
        ]
        return PackedCorpus.pack(rows, notes)

    def test_pieces_and_targets(self, tiny_model, tiny_processor, tmp_path):
        corpus, cache = self.corpus(), tmp_path / "embeds.safetensors"
        embed = RowEmbedder(corpus, tiny_model, tiny_processor, "weights", cache)
        assert emotion_places(corpus, "train") == [0, 1]
        pieces = emotion_pieces(corpus, [0, 1], embed)
        np.testing.assert_array_equal(pieces.targets, [[0, 1], [np.nan, 0]])
        assert pieces.sources.tolist() == [0, 3] and graded_pieces(corpus, embed).targets.tolist() == [3]
        assert difficulty_pieces(corpus, embed).targets.tolist() == [0, 1]  # the easy version, then the other
        (windows,) = embed.windows([2])
        assert len(windows) > 1
        np.testing.assert_allclose(embed([2])[0], windows.mean(0) / np.linalg.norm(windows.mean(0)), atol=1e-6)
        again = RowEmbedder(corpus, None, None, "weights", cache)  # has no model to embed with
        np.testing.assert_array_equal(again([2, 0]), embed([2, 0]))
        assert RowEmbedder(corpus, None, None, "others", cache).known == {}
        with pytest.raises(ValueError, match="no piece with labels"):
            embed([])


def test_labels_of_every_form():
    assert emotion_of({"emotion_quadrant": 2, "mood": ["happy"]}) == (0, 1)
    assert emotion_of({"mood": ["melancholic"]}) == (0, 0)
    valence, arousal = emotion_of({"mood": ["sad", "cheerful", "epic"]})  # of two minds, and stirred
    assert np.isnan(valence) and arousal == 1
    assert np.isnan(emotion_of({})).all()
    assert is_easy({"title": "Hey Jude (Easy Version)"}) and not is_easy({"title": "Easy Winners"}) and not is_easy({})

    def test_pieces_are_heard_as_instruments_play_them(self, tiny_model, tiny_processor, tmp_path):
        extractor = tiny_processor.feature_extractor
        loud = MelInstrument(None, extractor)
        loud.notes = {
            (key, velocity): np.full((40, extractor.feature_size), 0.5, np.float32)
            for key in range(LOWEST_KEY, HIGHEST_KEY + 1)
            for velocity in VELOCITIES
        }
        corpus, cache = self.corpus(), tmp_path / "embeds.safetensors"
        features, mask = played_windows(corpus.notes(0).crop(0, 45), loud, 1)
        assert len(features) == len(mask) == 4  # of 20 s: at 0, 10 and 20, and at the end
        assert mask.bool().all() and features.max() <= 1
        embed = RowEmbedder(corpus, tiny_model, tiny_processor, "weights", cache, [loud])
        rendered = embed.rendered_windows([1, 0])
        assert not np.allclose(rendered[1][0], embed.windows([0])[0][0])
        again = RowEmbedder(corpus, None, None, "weights", cache, [loud])
        for before, after in zip(rendered, again.rendered_windows([1, 0]), strict=True):
            np.testing.assert_array_equal(before, after)
