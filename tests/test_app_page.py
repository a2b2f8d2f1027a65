"""The page of `pianobind app`, served on the loopback: its answers over HTTP, and what a real browser makes of it."""

import os
import re
import shutil

import pytest

pytest.importorskip("gradio", reason='the page needs gradio: pip install "pianobind[demo]"')

import gradio
import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from modeling_pianobind import cli
from modeling_pianobind.app.library import Library
from modeling_pianobind.app.page import Handlers, launch
from modeling_pianobind.app.synthesis import AdditivePiano
from modeling_pianobind.gate_pianobind import Gate, Limits
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.examples import DEMO_QUERIES
from modeling_pianobind.service.piece_heads import EmotionHead

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def library(tiny_checkpoint, write_midi, write_audio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "corpus"
    folder.mkdir()
    name = shutil.copytree(tiny_checkpoint, folder.parent / "tiny")
    head = EmotionHead(np.random.default_rng(0).normal(size=(2, 24)), np.zeros(2))
    head.save(name / EmotionHead.file, Checkpoint(str(name)).weights_fingerprint)
    for seed in range(4):
        write_midi(folder / f"piece {seed}.mid", seconds=25, seed=seed)
    write_audio(folder / "rain.wav", seconds=5)
    limits = Limits(file_megabytes=0.5, running=1, waiting=1, patience_seconds=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIANOBIND_CACHE", str(folder.parent / "cache"))
        return Library(folder, Checkpoint(str(name)), AdditivePiano(), limits)


@pytest.fixture(scope="module")
def url(library):
    """Address of a running page, with a slash at its end."""
    blocks = launch(library, blocking=False)
    yield blocks.local_url
    blocks.close()


class TestAnswers:
    def test_the_page_asks_nobody_else_for_anything(self, url):
        page = httpx.get(url).text
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*?(?:src|href)=[\"']([^\"']+)", page)
        assert loaded and not [address for address in loaded if "//" in address]
        assert "fonts.googleapis" not in page

    def test_sound_is_served_by_key_and_only_by_key(self, url):
        answer = httpx.get(f"{url}audio/0.flac?middle=nonsense", timeout=60)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/flac")
        assert answer.content.startswith(b"fLaC")
        for key in ("99", "..%2F..%2Fetc%2Fpasswd", "nobody"):
            answer = httpx.get(f"{url}audio/{key}.flac")
            assert answer.status_code == 404 and "root:" not in answer.text

    def test_files_of_the_corpus_are_not_served(self, url, library):
        assert httpx.get(f"{url}gradio_api/file={library.paths[0]}").status_code in (403, 404)

    def test_an_upload_above_the_limit_is_refused_while_it_arrives(self, url):
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("x.mid", bytes(600_000))}, timeout=60)
        assert answer.status_code == 413 and "exceeded" in answer.text

    def test_programs_can_search_and_upload(self, url, library, tmp_path, write_midi):
        client = Client(url, verbose=False)
        cards, chart = client.predict("calm", 0.5, api_name="/search")
        assert cards.count("pb-card") == 5 and chart.count('data-ask="show"') == 2 * 5  # by sound, by mood
        cards, _ = client.predict("calm", 0.5, "", "", "", "audio", api_name="/search")
        assert cards.count("pb-card") == 1 and "rain" in cards
        with pytest.raises(AppError, match="give a range such as 2-5"):
            client.predict("calm", 0.5, "fast", "", "", "", api_name="/search")
        answer = client.predict(handle_file(write_midi(tmp_path / "mine.mid")), api_name="/upload")
        assert any("mine.mid" in str(part) for part in answer)
        (tmp_path / "bad.mid").write_bytes(b"MThd" + bytes(40))
        with pytest.raises(AppError, match=r"bad\.mid: its time division is zero"):
            client.predict(handle_file(tmp_path / "bad.mid"), api_name="/upload")

    def test_when_all_places_are_taken_it_says_busy(self, url, library):
        handlers = Handlers(library)
        handlers.gate = Gate(running=1, waiting=0, patience_seconds=20)
        with handlers.gate.turn():
            with pytest.raises(gradio.Error, match="busy"):
                handlers.search("calm", "", 0.5)
            assert handlers.sound_response("0", 0.0).status_code == 503

    def test_a_proxy_does_not_stop_the_page_and_a_page_that_cannot_be_reached_is_one_line(
        self, library, tiny_checkpoint, monkeypatch, capsys
    ):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        with monkeypatch.context() as behind:
            behind.setenv("http_proxy", "http://127.0.0.1:9")
            launch(library, blocking=False).close()

        def unreachable(*_, **__):
            raise httpx.ConnectError("[Errno 111] Connection refused")

        monkeypatch.setattr(gradio.Blocks, "launch", unreachable)
        capsys.readouterr()
        folder = os.path.dirname(library.paths[0])
        assert cli.main(["app", folder, "--checkpoint", str(tiny_checkpoint)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the page cannot be reached from here ([Errno 111] Connection refused); check proxies" in line

    def test_messages_with_names_in_them_are_escaped(self, library, tmp_path):
        path = tmp_path / "<b>x.txt"
        path.write_bytes(b"x")
        with pytest.raises(gradio.Error) as caught:
            Handlers(library).upload(str(path))
        assert "&lt;b&gt;x.txt" in caught.value.message and "<b>" not in caught.value.message


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """An open page; at the end it must have asked nobody else for anything and have had nothing to complain about."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#results .pb-card")
    yield page
    page.close()
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert complaints == []


class TestBrowser:
    def test_words_find_pieces_that_play(self, page):
        page.fill("#words textarea", "fast happy ragtime")
        with page.expect_response(lambda response: "queue/data" in response.url):
            page.keyboard.press("Enter")
        page.wait_for_selector("body:not(.pb-waiting)")
        page.locator("#results .pb-play").first.click()
        page.wait_for_selector('#results [data-state="playing"]')
        page.wait_for_function("() => parseFloat(document.querySelector('#results .pb-head').style.left) > 0")
        page.locator("#results .pb-play").first.click()
        page.wait_for_selector('#results [data-state="paused"]')

    def test_filters_are_chosen_on_the_page_and_stay_for_the_next_search(self, page):
        page.locator("#filters button").first.click()
        page.get_by_label("Kind").click()
        page.get_by_role("option", name="audio").click()
        page.wait_for_function("() => document.querySelectorAll('#results .pb-card').length === 1")
        assert page.locator("#results h3").inner_text() == "rain"
        page.locator("[data-ask=phrase]").nth(1).click()
        page.wait_for_function(
            "words => document.querySelector('#words textarea').value === words", arg=DEMO_QUERIES[1]
        )
        assert page.locator("#results .pb-card").count() == 1
        page.get_by_label("Minutes").fill("90-")
        page.get_by_label("Minutes").press("Enter")
        page.get_by_text("No piece passes the filters; widen them.").wait_for()
        assert page.locator("#results .pb-card").count() == 0

    def test_a_click_on_the_map_shows_a_piece_and_arrow_keys_reach_the_next(self, page):
        page.locator("#map .pb-point").first.click()
        page.wait_for_selector("#shown .pb-card")
        title = page.locator("#shown h3").inner_text()
        page.evaluate("document.querySelector('#map .pb-point').focus()")
        for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.classList.contains('pb-point')")
        page.locator("#map .pb-point").nth(1).press("Enter")
        page.wait_for_function("title => document.querySelector('#shown h3').innerText !== title", arg=title)

    def test_thumbs_move_the_list_and_can_be_taken_back(self, page):
        listed = page.locator("#results h3").all_inner_texts()
        last = page.locator("#results .pb-card").filter(has_text=listed[-1])
        with page.expect_response(lambda response: "queue/data" in response.url):
            last.locator("[data-ask=more]").click()
        page.wait_for_selector('#results [data-ask=more][aria-pressed="true"]')
        page.wait_for_function("title => document.querySelector('#results h3').innerText === title", arg=listed[-1])
        page.locator("#results [data-ask=more]").first.click()
        page.wait_for_function("title => document.querySelector('#results h3').innerText === title", arg=listed[0])
        assert page.locator('#results [aria-pressed="true"]').count() == 0
        assert page.locator("#results h3").all_inner_texts() == listed

    def test_a_click_on_the_curve_of_moods_plays_from_there(self, page):
        curve = page.locator("#results .pb-moods").first
        box = curve.bounding_box()
        curve.click(position={"x": box["width"] * 0.6, "y": box["height"] / 2})
        page.wait_for_selector('#results [data-state="playing"]')
        page.wait_for_function("() => parseFloat(document.querySelector('#results .pb-head').style.left) > 60")
        assert page.evaluate("parseFloat(document.querySelector('#results .pb-head').style.left)") < 90

    def test_the_map_by_mood_opens_pieces_and_stays_for_the_next_search(self, page):
        by_mood, by_sound = page.locator("#map .pb-by-mood"), page.locator("#map .pb-by-sound")
        assert by_sound.is_visible() and not by_mood.is_visible()
        by_sound.get_by_text("By mood").click()
        by_mood.wait_for()
        assert not by_sound.is_visible()
        point = by_mood.locator(".pb-point").last
        point.click()
        page.wait_for_selector("#shown .pb-card")
        assert page.locator("#shown .pb-card").get_attribute("data-key") == point.get_attribute("data-key")
        page.locator("[data-ask=phrase]").nth(1).click()
        page.wait_for_function(
            "words => document.querySelector('#words textarea').value === words", arg=DEMO_QUERIES[1]
        )
        assert by_mood.is_visible() and not by_sound.is_visible()
        by_mood.get_by_text("By sound").click()
        by_sound.wait_for()

    def test_a_found_piece_becomes_the_example_and_words_steer_it(self, page):
        title = page.locator("#results h3").first.inner_text()
        page.locator("#results [data-ask=like]").first.click()
        page.wait_for_selector("#example .pb-card")
        assert page.locator("#example h3").inner_text() == title
        assert title not in page.locator("#results h3").all_inner_texts()
        scores = page.locator("#results .pb-score").all_inner_texts()
        page.fill("#words textarea", "slow calm")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "scores => [...document.querySelectorAll('#results .pb-score')].map(s => s.innerText).join() !== scores",
            arg=",".join(scores),
        )
        page.locator("#example [data-ask=clear]").click()
        page.wait_for_selector("#example .pb-card", state="detached")
        assert page.input_value("#words textarea") == DEMO_QUERIES[0]

    def test_what_sounds_stops_when_its_card_goes(self, page):
        player = page.locator("#results .pb-player").first
        played = player.get_attribute("data-audio")
        page.locator("#results .pb-play").first.click()
        page.wait_for_selector('#results [data-state="playing"]')
        page.locator("#results [data-ask=like]").first.click()
        page.wait_for_selector("#example .pb-card")
        page.wait_for_selector('[data-state="playing"]', state="detached")
        assert page.locator(".pb-head:visible").count() == 0
        other = player.get_attribute("data-audio")
        assert other != played
        with page.expect_request(lambda request: other in request.url):
            page.locator("#results .pb-play").first.click()

    def test_a_midi_file_is_taken_and_a_damaged_one_is_refused_by_name(self, page, tmp_path, write_midi):
        page.set_input_files("#file input[type=file]", write_midi(tmp_path / "<b>mine.mid"))
        page.wait_for_selector("#example .pb-card")
        assert "mine.mid" in page.locator("#example h3").inner_text() and page.locator("#example b").count() == 0
        (tmp_path / "bad.mid").write_bytes(b"MThd" + bytes(40))
        page.set_input_files("#file input[type=file]", tmp_path / "bad.mid")
        page.get_by_text("bad.mid: its time division is zero").wait_for()
        page.wait_for_selector("body:not(.pb-waiting)")
        page.wait_for_selector("#file input[type=file]", state="attached")  # the next file can be dropped

    def test_a_narrow_screen_needs_no_sideways_scrolling(self, page):
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
