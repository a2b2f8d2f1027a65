"""`pianobind app` without its page: searching, drawing, playing, and what visitors may send."""

import json
import re
import sys
import threading
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import soundfile
import soxr

from modeling_pianobind import cli
from modeling_pianobind.app import cards
from modeling_pianobind.app.library import Answer, Library
from modeling_pianobind.app.music import EXCERPT_SECONDS, Excerpt, Midi, Recording, excerpt_around, flac, open_music
from modeling_pianobind.app.piano_roll import WIDTH, draw_roll, key_strengths, png
from modeling_pianobind.app.synthesis import SAMPLING_RATE, AdditivePiano, Soundfont
from modeling_pianobind.app.uploads import Upload, Uploads, read_upload
from modeling_pianobind.gate_pianobind import BusyError, Gate, Limits
from modeling_pianobind.index.alignment import Example
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.errors import UserError
from training.data.tuning import in_tune_share

NASTY = '<img src=x onerror=alert(1)> {{value}} ${value} & "co"'


def make_notes(onset, pitch, duration=0.5, velocity=80):
    onset = np.asarray(onset, np.float64)
    full = np.ones(len(onset))
    return PianoNotes(
        onset,
        (duration * full).astype(np.float32),
        (pitch * full).astype(np.int64),
        (velocity * full).astype(np.int64),
        np.zeros(len(onset), np.float32),
    )


@pytest.fixture(scope="module")
def library(tiny_checkpoint, write_midi, write_audio, tmp_path_factory):
    """Four pieces: two MIDI files, one of which has a nasty title, a recording, and one whose file went away."""
    folder = tmp_path_factory.mktemp("app") / "corpus"
    folder.mkdir()
    write_midi(folder / "march.mid", seconds=45, seed=1)
    write_midi(folder / "waltz.mid", seed=2)
    write_midi(folder / "gone.mid", seed=3)
    write_audio(folder / "rain.wav", seconds=6, seed=4)
    row = {"file": "waltz.mid", "title": NASTY, "creator": "Nobody"}
    (folder / "examples.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIANOBIND_CACHE", str(folder.parent / "cache"))
        library = Library(folder, Checkpoint(tiny_checkpoint), AdditivePiano())
    (folder / "gone.mid").unlink()
    return library


def key_of(library, name):
    return str([path.endswith(name) for path in library.paths].index(True))


class TestSearching:
    def test_words_rank_all_pieces_and_mark_a_window(self, library):
        views = library.search("calm and slow")
        assert len(views) == 4
        assert [view.score for view in views] == sorted((view.score for view in views), reverse=True)
        march = next(view for view in views if view.title == "march")
        assert march.window[1] - march.window[0] <= 20.1 and 'class="match"' in march.roll

    def test_an_example_does_not_find_itself_and_words_steer_it(self, library):
        key = key_of(library, "march.mid")
        assert key not in [view.key for view in library.search("", key)]
        by = {share: [(view.key, view.score) for view in library.search("calm", key, share)] for share in (0, 0.5, 1)}
        assert by[0] == [(view.key, view.score) for view in library.search("", key)]
        words = {view.key: view.score for view in library.search("calm")}
        assert all(score == pytest.approx(words[other], abs=2e-6) for other, score in by[1])
        example, said = library.example(key), library.checkpoint.embed_text(["calm"])[0]
        length = np.linalg.norm(example.embedding + said)
        for other, score in by[0.5]:
            assert score == pytest.approx((dict(by[0])[other] + words[other]) / length, abs=1e-5)

    def test_thumbs_move_a_search_and_stay_on_their_cards(self, library):
        first, *_, last = (view.key for view in library.search("calm"))
        moved = library.answer("calm", more=[last], less=[first])
        keys = [view.key for view in moved.views]
        assert keys.index(last) < keys.index(first)
        page = cards.results(moved, {last: "more", first: "less"})
        assert page.count('aria-pressed="true"') == 2 and page.count("pb-thumb") >= 2 * len(moved.views)
        assert f'data-ask="more" data-key="{last}" aria-pressed="true"' in page
        assert "pb-thumb" not in cards.card(moved.views[0])

    def test_thumbs_that_contradict_each_other_are_refused(self, library):
        key = key_of(library, "march.mid")
        with pytest.raises(UserError, match="contradicts itself"):
            library.answer("calm", more=[key], less=[key])

    def test_thumbs_move_what_passes_the_filters(self, library):
        midi, keys = {"kind": "midi"}, {}
        first, *_, last = (view.key for view in library.answer("calm", filters=midi).views)
        for filters in (midi, {"kind": "audio"}):
            moved = library.answer("calm", filters=filters, more=[last], less=[first]).views
            keys[filters["kind"]] = [view.key for view in moved]
        assert len(keys["midi"]) == 3 and keys["midi"].index(last) < keys["midi"].index(first)
        assert keys["audio"] == [key_of(library, "rain.wav")]

    def test_filters_leave_only_what_passes_and_a_bad_one_says_how_to_write_it(self, library):
        kinds = {kind: {view.title for view in library.answer("calm", filters={"kind": kind}).views}
                 for kind in ("midi", "audio")}  # fmt: skip
        assert kinds == {"midi": {"march", NASTY, "gone"}, "audio": {"rain"}}
        long = library.answer("", key_of(library, "rain.wav"), filters={"minutes": "0.5-", "tempo": "", "key": ""})
        assert [view.title for view in long.views] == ["march"]
        none = library.answer("calm", filters={"minutes": "90-"})
        assert none.views == [] and "no piece passes the filters; widen them" in none.notes
        assert "No piece passes the filters; widen them." in cards.results(none)
        with pytest.raises(UserError, match="tempo is 'fast'; give a range"):
            library.answer("calm", filters={"tempo": "fast"})

    @pytest.mark.parametrize("kind", [ValueError, OSError])
    def test_a_damaged_index_is_told_without_folders_of_the_server(self, library, monkeypatch, capsys, kind):
        shard = library.index.shards[0]
        monkeypatch.setattr(shard, "source", "/srv/music/index")

        def damaged(*_, **__):
            raise kind("/srv/music/index: the index is damaged; build it again.")

        monkeypatch.setattr("modeling_pianobind.app.library.Finder.find", damaged)
        with pytest.raises(UserError, match="cannot be read; please tell whoever runs the page") as caught:
            library.answer("calm")
        assert "/srv" not in str(caught.value) and "/srv/music/index" in capsys.readouterr().err

    def test_a_card_says_how_well_a_piece_fits_and_the_page_that_nothing_does(self, library):
        answer = library.answer("calm")
        assert all(0 <= view.fit <= 1 for view in answer.views)
        page = cards.results(Answer(answer.views, ["nothing fits well: <b>no</b>"]))
        assert "Nothing fits well: &lt;b&gt;no&lt;/b&gt;." in page
        first = answer.views[0]
        assert f"{round(100 * first.fit)}%</span>" in page and f"cosine {first.score:.2f}" in page

    @pytest.mark.parametrize("words, said", [("  ", "nothing to search for"), ("x" * 501, "501 characters")])
    def test_a_request_that_says_nothing_or_too_much_is_refused(self, library, words, said):
        with pytest.raises(UserError, match=said):
            library.search(words)

    @pytest.mark.parametrize("key", ["99", "../../etc/passwd", "-1", "²", "0" * 4000])
    def test_keys_that_name_no_piece_are_refused(self, library, key):
        with pytest.raises(UserError):
            library.view(key)

    def test_a_piece_whose_file_went_away_is_still_listed_and_says_so_without_its_folder(self, library):
        view = library.view(key_of(library, "gone.mid"))
        assert not view.roll and view.problem == "gone.mid: does not exist; check the path."
        assert "gone.mid: does not exist" in cards.card(view)

    def test_the_map_has_each_piece_once_and_the_found_ones_ranked(self, library):
        views = library.search("calm")
        chart = ElementTree.fromstring(cards.corpus_map(library, views))
        points = chart.findall(".//g[@data-ask='show']")
        assert sorted(point.get("data-key") for point in points) == ["0", "1", "2", "3"]
        assert {point.find("text").text for point in points} == {"1", "2", "3", "4"}
        assert np.abs(library.map_points).max() <= 1 and all(library.map_words.values())

    def test_titles_are_escaped_wherever_they_stand(self, library):
        view = library.view(key_of(library, "waltz.mid"))
        for page in (cards.card(view, 1), cards.example_card(view), cards.corpus_map(library, [view], view.key)):
            assert "<img" not in page and "{{" not in page and "${" not in page
        assert cards.escaped(NASTY) == (
            "&lt;img src=x onerror=alert(1)&gt; &#123;&#123;value&#125;&#125; &#36;&#123;value&#125; "
            "&amp; &quot;co&quot;"
        )


class TestRoll:
    def test_a_note_is_a_bar_at_its_time_and_key(self):
        svg = ElementTree.fromstring(draw_roll(Midi(make_notes([0, 5], [60, 72])), Excerpt(0, 10), (2.5, 7.5)))
        bars = " ".join(path.get("d") for path in svg.findall("path") if path.get("class").startswith("loud"))
        assert re.findall(r"M([\d.]+) (\d+)h([\d.]+)", bars) == [("0", "48", "50"), ("500", "36", "50")]
        mark = svg.find("rect[@class='match']")
        assert (float(mark.get("x")), float(mark.get("width"))) == (0.25 * WIDTH, 0.5 * WIDTH)

    def test_louder_notes_have_other_colours(self):
        notes = make_notes([0, 1], [60, 60])
        notes.velocity = np.array([10, 120])
        classes = {path.get("class") for path in ElementTree.fromstring(draw_roll(Midi(notes), Excerpt(0, 2)))}
        assert {"loud0", "loud5"} <= classes

    def test_a_thousand_notes_at_one_instant_are_drawn_and_played_within_bounds(self):
        notes = make_notes(np.zeros(1000), np.tile(np.arange(60, 70), 100), velocity=127)
        assert len(draw_roll(Midi(notes), Excerpt(0, 1))) < 5000
        sound = AdditivePiano().render(notes)
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1

    def test_a_recording_shows_the_key_that_sounds(self):
        time = np.arange(32_000) / 16_000
        strengths = key_strengths(np.sin(2 * np.pi * 440 * time).astype(np.float32))
        assert (strengths.argmax(axis=0) == 69 - 21).all()

    def test_the_picture_of_a_recording_is_a_png_of_its_size(self):
        content = png(np.linspace(0, 1, 88 * 5).reshape(88, 5))
        assert content.startswith(b"\x89PNG") and content[16:24] == (5).to_bytes(4) + (88).to_bytes(4)

    def test_a_long_piece_is_cut_around_its_window(self):
        assert excerpt_around(100, (20, 40)) == Excerpt(0, 100)
        long = excerpt_around(7200, (3600, 3620))
        assert long.seconds == EXCERPT_SECONDS and long.start_seconds < 3600 < 3620 < long.end_seconds
        assert excerpt_around(7200, (7190, 7200)).end_seconds == 7200


class TestSound:
    def test_the_built_in_piano_is_in_tune(self):
        class Mono:
            def render(self, notes, sampling_rate):
                return soxr.resample(AdditivePiano().render(notes).mean(axis=1), SAMPLING_RATE, sampling_rate)

        assert in_tune_share(Mono()) > 0.9

    def test_a_note_sounds_from_its_onset_on(self):
        sound = np.abs(AdditivePiano().render(make_notes([1.0], [60]))).max(axis=1)
        onset = SAMPLING_RATE
        assert sound[: onset - 1].max() < 1e-3 < 0.1 < sound[onset : onset + SAMPLING_RATE // 10].max()

    def test_the_sound_of_a_piece_is_as_long_as_what_is_drawn(self, library, tmp_path):
        key = key_of(library, "rain.wav")
        (tmp_path / "sound.flac").write_bytes(library.sound(key))
        assert soundfile.info(tmp_path / "sound.flac").duration == pytest.approx(6, abs=0.01)
        with pytest.raises(UserError, match=r"gone\.mid: does not exist"):
            library.sound(key_of(library, "gone.mid"))

    def test_a_soundfont_that_would_play_out_of_tune_is_refused(self, tmp_path):
        (tmp_path / "font.sf2").write_bytes(b"RIFF")
        with pytest.raises(ValueError, match=r"is not an \.sf3 soundfont"):
            Soundfont(tmp_path / "font.sf2")


class TestUploads:
    limits = Limits(file_megabytes=1, minutes=1, notes=200)

    def refused(self, path):
        with pytest.raises(UserError) as caught:
            read_upload(path, lambda path: pytest.fail("embedded what had to be refused"), self.limits)
        assert str(path.parent) not in str(caught.value) and str(caught.value).startswith(path.name)
        return str(caught.value)

    def test_what_is_no_music_is_refused_by_name(self, tmp_path, write_audio):
        contents = {"notes.txt": b"x", "empty.mid": b"", "noise.mid": b"MThd" + bytes(30), "noise.flac": b"fLaC" * 99}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            assert self.refused(tmp_path / name)
        write_audio(tmp_path / "take.wav").rename(tmp_path / "take.mid")
        assert "its content is a WAV file" in self.refused(tmp_path / "take.mid")

    def test_what_is_too_large_or_too_long_is_refused_before_it_is_read(self, tmp_path, write_midi):
        (tmp_path / "large.wav").write_bytes(bytes(1_100_000))
        assert "the limit is 1 MB" in self.refused(tmp_path / "large.wav")
        (tmp_path / "large.mid").write_bytes(bytes(110_000))
        assert "the limit is 0.1 MB" in self.refused(tmp_path / "large.mid")
        soundfile.write(tmp_path / "hour.flac", np.zeros(8_000 * 3600, np.int16), 8_000)
        assert "lasts 60 minutes, and the limit is 1" in self.refused(tmp_path / "hour.flac")
        assert "minutes" in self.refused(write_midi(tmp_path / "days.mid", seconds=80_000, notes_per_second=1e-4))
        assert "has 240 notes" in self.refused(write_midi(tmp_path / "dense.mid", seconds=12, notes_per_second=20))

    def test_what_is_kept_can_be_searched_by_seen_and_heard_when_its_file_has_gone(
        self, library, tmp_path, write_midi, write_audio
    ):
        for path in (write_midi(tmp_path / f"{NASTY[:4]}.mid"), write_audio(tmp_path / "mine.wav", seconds=3)):
            upload = read_upload(path, library.checkpoint.embed_file, library.limits)
            path.unlink()
            key = library.uploads.keep(upload)
            assert len(library.search("calm", key)) == 4
            view = library.view(key)
            assert view.title == path.name and view.roll and library.sound(key).startswith(b"fLaC")

    def test_a_new_upload_takes_the_place_of_the_oldest(self):
        uploads, nothing = Uploads(max_megabytes=1), Example(np.ones(1), np.ones((0, 1)), np.ones((0, 2)))
        recording = Recording(flac(np.random.default_rng(0).standard_normal((100_000, 2)) / 9))
        assert 0.3 < recording.kept_bytes / 1e6 < 0.5
        keys = [uploads.keep(Upload(name, recording, nothing)) for name in "ab"]
        keys += [uploads.keep(Upload("notes", Midi(make_notes([0, 1], [60, 72])), nothing)) for _ in range(99)]
        uploads.get(keys[0])
        keys.append(uploads.keep(Upload("c", recording, nothing)))
        assert [uploads.get(key).name for key in (keys[0], keys[-2], keys[-1])] == ["a", "notes", "c"]
        with pytest.raises(UserError, match="no longer here"):
            uploads.get(keys[1])

    def test_a_recording_keeps_no_more_than_what_is_shown(self):
        recording = Recording(flac(np.zeros((SAMPLING_RATE * 4, 2), np.float32)))
        assert recording.sound(Excerpt(1, 3)).shape == (2 * SAMPLING_RATE, 2)

    def test_more_channels_than_anybody_records_are_refused(self, tmp_path):
        soundfile.write(tmp_path / "wide.wav", np.zeros((100, 9), np.int16), 8_000)
        assert "9 channels at 8000 Hz" in self.refused(tmp_path / "wide.wav")

    def test_an_excerpt_read_in_blocks_equals_the_whole_resampled(self, tmp_path):
        waves = np.random.default_rng(0).standard_normal((44_100 * 12, 3)).astype(np.float32) / 9
        soundfile.write(tmp_path / "noise.wav", waves, 44_100, subtype="FLOAT")
        samples = Recording(tmp_path / "noise.wav").samples(Excerpt(0, 12), 16_000, channels=1)
        whole = soxr.resample(waves.mean(axis=1), 44_100, 16_000)
        np.testing.assert_allclose(samples[:, 0], whole[: len(samples)], atol=1e-4)
        assert abs(len(samples) - len(whole)) <= 1

    def test_a_damaged_midi_of_the_corpus_is_an_error_of_one_line(self, tmp_path):
        (tmp_path / "x.mid").write_bytes(b"MThd")
        with pytest.raises(ValueError, match=r"x\.mid: the file ends within its header"):
            open_music(tmp_path / "x.mid")


class TestGate:
    def test_who_finds_no_place_is_told_that_the_server_is_busy(self):
        gate, inside, leave = Gate(running=1, waiting=0, patience_seconds=20), threading.Event(), threading.Event()

        def work():
            with gate.turn():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(10)
        with pytest.raises(BusyError, match="busy"), gate.turn():
            pass
        leave.set()
        thread.join()
        with gate.turn():
            pass

    def test_a_turn_that_fails_or_never_comes_frees_its_place(self):
        gate = Gate(running=1, waiting=1, patience_seconds=0.01)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), gate.turn():
                _ = 1 / 0
            with gate.turn(), pytest.raises(BusyError, match="did not come in time"), gate.turn():
                pass
        with gate.turn():
            pass


class TestCommand:
    def run(self, capsys, *arguments):
        status = cli.main(["app", *arguments])
        err = capsys.readouterr().err
        assert status == 2 and err.startswith("pianobind: ") and err.count("\n") == 1
        return err

    def test_without_gradio_it_says_what_to_install(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "gradio", None)
        assert 'pip install "pianobind[demo]"' in self.run(capsys)

    def test_limits_must_be_above_zero(self, capsys):
        assert "'-3' is not a number above 0" in self.run(capsys, "--max-minutes", "-3")
