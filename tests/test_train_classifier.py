"""From a folder and a table of labels to a classifier: the command, what it refuses, and `pianobind describe`."""

import csv

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindForSequenceClassification
from modeling_pianobind.cli import main as pianobind
from training.data.label_table import as_classes, as_numbers, as_sets, read_labels, without_rare
from training.finetune_classifier import main as finetune
from training.loop.linear_heads import LinearClassifier, LinearRegressor, LinearTagger, held_out
from training.publish import main as publish
from training.train_classifier import main


def write_table(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def music(tmp_path_factory, write_midi):
    """Twenty pieces of twelve songs, half of them of few notes and half of many; a table of them."""
    folder = tmp_path_factory.mktemp("music")
    rows = []
    for number in range(20):
        dense = number % 2
        write_midi(folder / f"piece{number}.mid", seconds=6, notes_per_second=1 + 11 * dense, seed=number)
        rows.append(
            {
                "file": f"piece{number}.mid",
                "touch": "dense" if dense else "sparse",
                "moods": ";".join(["busy"] * dense + ["odd"] * (number % 3 == 0)),
                "grade": 1 + 4 * dense,
                "song": f"song {number % 12}",
            }
        )
    return folder, rows


@pytest.fixture(scope="module")
def made(music, tiny_checkpoint, tmp_path_factory):
    folder, rows = music
    place = tmp_path_factory.mktemp("made")
    rows = [*rows[:-1], rows[-1] | {"touch": ""}]  # one is not labelled
    table = write_table(place / "labels.csv", rows)
    given = [folder, "--labels", table, "--label-column", "touch", "--output", place / "touch"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIANOBIND_CACHE", str(place / "cache"))
        assert main([*map(str, given), "--checkpoint", str(tiny_checkpoint)]) == 0
        yield place / "touch"


def test_the_folder_is_a_checkpoint_with_card_and_picture(made, capsys):
    card = (made / "README.md").read_text()
    assert "19 pieces of 12 songs" in card and "| dense | 9 |" in card and "confusion.png" in card
    assert (made / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert publish([str(made), "--repo-id", "a/touch", "--licence", "apache-2.0", "--dry-run", "--output",
                    str(made.parent / "published")]) == 0  # fmt: skip
    published = made.parent / "published"
    assert (published / "plots" / "confusion.png").is_file() and (published / "classification_pianobind.py").is_file()


def test_describe_tells_what_was_learnt(made, music, capsys):
    folder, _ = music
    assert pianobind(["describe", str(folder / "piece1.mid"), "--classifier", str(made)]) == 0
    best = capsys.readouterr().out.splitlines()[0].split()
    assert best[1] == "dense" and 0.5 < float(best[0]) <= 1
    assert pianobind(["describe", str(folder), "--classifier", str(made), "--top-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    right = sum(("dense" in line) == (int(line.split("piece")[1].split(".")[0]) % 2 == 1) for line in lines)
    assert len(lines) == 20 and right >= 17


def test_another_checkpoint_and_words_beside_it_are_refused(made, music, tmp_path, capsys):
    from .conftest import PianoBindModel, PianoBindProcessor, make_config

    folder, _ = music
    other = tmp_path / "other"
    PianoBindModel(make_config()).save_pretrained(other)
    PianoBindProcessor.from_pretrained(made).save_pretrained(other)
    asked = ["describe", str(folder / "piece1.mid"), "--classifier", str(made)]
    assert pianobind([*asked, "--checkpoint", str(other)]) == 2
    assert "belongs to another checkpoint than" in capsys.readouterr().err
    assert pianobind([*asked, "--labels", "a,b"]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert pianobind(["describe", str(folder / "piece1.mid"), "--classifier", str(other)]) == 2
    assert "holds no classifier" in capsys.readouterr().err
    assert pianobind(["describe", str(folder / "piece1.mid"), "--classifier", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, ["--label-column", "artist"], "has no column 'artist', only file, touch"),
        ({"touch": "same"}, ["--label-column", "touch"], "needs two labels of two songs each"),
        ({"file": "absent.mid"}, ["--label-column", "touch"], "none of its 20 rows"),
        ({"grade": "hard"}, ["--label-column", "grade", "--regression"], "a label is no number"),
        ({"grade": "3"}, ["--label-column", "grade", "--regression"], "all labels are the same number"),
        ({"file": "piece3.mid"}, ["--label-column", "touch"], "piece3.mid and others has two different labels"),
    ],
)
def test_a_table_that_cannot_be_learnt_is_one_line(
    changes, options, message, music, made, tiny_checkpoint, tmp_path, capsys
):
    folder, rows = music
    table = write_table(tmp_path / "labels.csv", [row | changes for row in rows])
    given = [str(folder), "--labels", str(table), *options, "--output", str(tmp_path / "out")]
    assert main([*given, "--checkpoint", str(tiny_checkpoint)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train_classifier: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()


def test_a_missing_table_and_an_output_that_holds_something(music, tmp_path, tiny_checkpoint, capsys):
    folder, _ = music
    given = [str(folder), "--labels", str(tmp_path / "none.csv"), "--checkpoint", str(tiny_checkpoint), "--output"]
    assert main([*given, str(tmp_path / "out")]) == 2
    assert "none.csv: does not exist" in capsys.readouterr().err
    assert main([*given, str(folder)]) == 2
    assert "already holds something" in capsys.readouterr().err


class TestTable:
    PATHS = ["/m/a/x.mid", "/m/b/x.mid", "/m/b/y.flac", "/m/z.mid"]

    def read(self, tmp_path, rows, column="label"):
        return read_labels(write_table(tmp_path / "t.csv", rows), column, self.PATHS, "/m")

    def test_files_are_named_by_path_or_by_name_with_or_without_extension(self, tmp_path):
        names = ["a/x.mid", "./b/x", "y", "/m/z.mid"]
        labels = self.read(tmp_path, [{"path": name, "label": name} for name in names])
        assert labels.pieces == [0, 1, 2, 3] and labels.values == names and not labels.problems

    def test_a_name_that_two_pieces_have_names_neither(self, tmp_path):
        labels = self.read(tmp_path, [{"path": "x.mid", "label": "1"}, {"path": "z", "label": "2"}])
        assert labels.pieces == [3] and "1 rows name files that are not in /m (x.mid)" in labels.problems[0]

    def test_classes_of_one_song_are_left_out_by_a_line(self, tmp_path):
        rows = [{"path": path, "label": label, "song": song} for path, label, song in
                zip(self.PATHS, "aabb", "1234", strict=True)]  # fmt: skip
        labels = without_rare(self.read(tmp_path, rows), "t.csv")
        assert as_classes(labels)[0].tolist() == [0, 0, 1, 1]
        rows[1]["song"] = "1"
        with pytest.raises(ValueError, match="two labels of two songs"):
            without_rare(self.read(tmp_path, rows), "t.csv")

    def test_sets_and_numbers(self, tmp_path):
        rows = [
            {"path": path, "label": label}
            for path, label in zip(self.PATHS, ["a;b", "a", "b ; c", "b;d"], strict=True)
        ]
        sets, names = as_sets(self.read(tmp_path, rows), ";", "t.csv")
        assert names == ["a"] and sets.tolist() == [[1], [1], [0], [0]]  # b, c and d are rare on one side
        rows = [{"path": path, "label": label} for path, label in zip(self.PATHS, ["1", "2.5", "", "4"], strict=True)]
        assert as_numbers(self.read(tmp_path, rows), "t.csv").tolist() == [[1], [2.5], [4]]


class TestHeads:
    songs = [f"song {number // 2}" for number in range(60)]
    features = np.random.default_rng(0).normal(size=(60, 6))

    def test_one_layer_gives_what_scaler_and_regression_give(self):
        for classes in (self.features[:, 0] > 0, np.digitize(self.features[:, 0], (-0.5, 0.5))):
            model = LinearClassifier().fit(self.features, classes.astype(int), self.songs)
            weight, bias = model.weights()
            logits = self.features @ weight.T + bias
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            np.testing.assert_allclose(chances, model.estimator.predict_proba(self.features), atol=1e-6)
        values = self.features[:, :1] * 3 + 1
        model = LinearRegressor().fit(self.features, values, self.songs)
        weight, bias = model.weights()
        np.testing.assert_allclose(self.features @ weight.T + bias, model.predict(self.features), atol=1e-9)

    def test_no_song_is_learnt_from_and_measured_on(self):
        class Spy:
            def fit(self, features, targets, songs):
                self.songs = set(songs)
                return self

            def predict(self, features):
                seen = {row.tobytes(): song for row, song in zip(TestHeads.features, TestHeads.songs, strict=True)}
                assert not {seen[row.tobytes()] for row in features} & self.songs
                return np.ones(len(features), int)

        assert held_out(Spy, self.features, np.arange(60) % 2, self.songs).sum() == 60

    def test_tags_are_found_and_one_that_a_fold_lacks_stops_nothing(self):
        tags = np.stack([self.features[:, 0] > 0, np.arange(60) < 4], axis=1).astype(float)
        chances = held_out(LinearTagger, self.features, tags, self.songs)
        assert ((chances[:, 0] > 0.5) == (tags[:, 0] == 1)).mean() > 0.8 and np.isfinite(chances).all()


@pytest.mark.parametrize("how", ["lora", "head"])
def test_transformers_trainer_makes_a_classifier_too(how, music, tiny_checkpoint, tmp_path):
    folder, rows = music
    table = write_table(tmp_path / "labels.csv", rows)
    given = [str(folder), str(table), "touch", str(tmp_path / "out"), "--checkpoint", str(tiny_checkpoint)]
    finetune([*given, "--how", how, "--epochs", "1", "--batch", "4"])
    trained = PianoBindForSequenceClassification.from_pretrained(tmp_path / "out")
    before = PianoBindForSequenceClassification.from_pretrained(tiny_checkpoint)
    moved = {
        name
        for name, weight in trained.state_dict().items()
        if not name.startswith("classifier.") and not torch.equal(weight, before.state_dict()[name])
    }
    assert trained.config.id2label == {0: "dense", 1: "sparse"} and trained.classifier.attention.weight.abs().sum() > 0
    assert bool(moved) == (how == "lora") and all(name.startswith("midi_model.") for name in moved)
