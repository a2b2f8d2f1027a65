"""The page in gradio: components and event handlers. The rest of `app` does not import gradio."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..gate_pianobind import BusyError, Gate
from ..index.facts import KEYS
from ..index.filters import KINDS
from ..inputs_pianobind import EXTENSIONS
from ..service.errors import UserError
from ..service.examples import DEMO_QUERIES
from .cards import card, corpus_map, escaped, example_card, results
from .library import Library
from .uploads import read_upload

# Interval of removing gradio's copies on disk, and the age that they may reach.
UPLOADS_SWEPT_SECONDS = (60, 300)
WORDS = {"label": "Describe the music", "placeholder": "slow, rainy, late at night"}
FILTERS = ("tempo", "key", "minutes", "kind")  # in the order of their fields
STEERING = {"label": "More like this, but …", "placeholder": "calmer, slower, as a waltz"}
# What was clicked in the HTML goes to Python as an event with `ask` and `key`.
ASKING = """element.addEventListener("click", (event) => {
  const asked = event.target.closest("[data-ask]");
  if (asked) trigger("click", { ask: asked.dataset.ask, key: asked.dataset.key || "" });
});"""


def build_page(library: Library, page: "Handlers") -> gr.Blocks:
    """Makes the page of a library; `launch` starts it."""
    first, limits = library.answer(DEMO_QUERIES[0]), library.limits

    with gr.Blocks(title="PianoBind", analytics_enabled=False, delete_cache=UPLOADS_SWEPT_SECONDS) as blocks:
        example, thumbs = gr.State(""), gr.State({})
        gr.HTML(_title(len(library)))
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                words = gr.Textbox(
                    DEMO_QUERIES[0], **WORDS, max_length=limits.characters, submit_btn="Search", elem_id="words"
                )
                phrases = gr.HTML(_phrases(), js_on_load=ASKING)
                with gr.Accordion("Filters, measured from the notes", open=False, elem_id="filters"), gr.Row():
                    any_key, any_kind = [("any", ""), *((key, key) for key in KEYS)], [("any", ""), *KINDS]
                    filters = [
                        gr.Textbox("", label="Beats a minute", placeholder="110-130", max_length=20, min_width=120),
                        gr.Dropdown(any_key, value="", label="Key", min_width=120),
                        gr.Textbox("", label="Minutes", placeholder="2-5", max_length=20, min_width=120),
                        gr.Dropdown(any_kind, value="", label="Kind", min_width=120),
                    ]
                file = gr.File(
                    label=f"or MIDI, a score or a recording, up to {limits.minutes:g} min",
                    file_types=list(EXTENSIONS),
                    height=120,
                    elem_id="file",
                )
                like = gr.HTML("", visible=False, js_on_load=ASKING, elem_id="example")
                share = gr.Slider(0, 1, 0.5, step=0.05, label="Weight: example (0) to words (1)", visible=False)
                listing = gr.HTML(results(first), js_on_load=ASKING, elem_id="results")
            with gr.Column(scale=2, min_width=320, elem_classes="pb-side"):
                chart = gr.HTML(corpus_map(library, first.views), js_on_load=ASKING, elem_id="map")
                shown = gr.HTML("", visible=False, js_on_load=ASKING, elem_id="shown")

        request, hits = [words, example, share, *filters], [listing, chart]
        whole = [words, example, share, like, *hits]
        events = [
            (words.submit, page.search, request, hits, "search"),
            (share.release, page.search, [*request, thumbs], hits, None),
            *((field.submit, page.search, [*request, thumbs], hits, None) for field in (filters[0], filters[2])),
            *((field.input, page.search, [*request, thumbs], hits, None) for field in (filters[1], filters[3])),
            (phrases.click, page.phrase, filters, whole, None),
            (file.upload, page.upload, [file, *filters], whole, "upload"),
            (listing.click, page.chosen, [*request, thumbs], [*whole, thumbs], None),
            *((cards.click, page.like, filters, whole, None) for cards in (shown, like)),
            (chart.click, page.show, None, shown, None),
        ]
        for asks in (words.submit, phrases.click, file.upload, shown.click, like.click):  # thumbs are for one search
            asks(dict, None, thumbs, api_visibility="private", show_progress="hidden")
        for happens, handler, inputs, outputs, name in events:
            happens(None, js="() => pianobind.waiting(true)")
            answered = happens(
                handler,
                inputs,
                outputs,
                api_name=name,
                api_visibility="public" if name else "private",
                show_progress="hidden",  # hides gradio's badge on each output; the page has its own sign
                concurrency_limit=None,  # the gate refuses excess requests; gradio would queue them without limit
            )
            for after in (answered.success, answered.failure):  # `then` does not come after a failure
                after(None, js="() => pianobind.waiting(false)")
                if handler == page.upload:
                    after(lambda: None, None, file, api_visibility="private")  # ready for the next file
    return blocks


class Handlers:
    """Event handlers of the page; each returns the new values of some components."""

    def __init__(self, library: Library):
        limits = library.limits
        self.library, self.gate = library, Gate(limits.running, limits.waiting, limits.patience_seconds)

    def search(
        self,
        words: str,
        example: str,
        share: float,
        tempo: str = "",
        key: str = "",
        minutes: str = "",
        kind: str = "",
        thumbs: dict[str, str] | None = None,
    ) -> tuple:
        return self._answer(lambda: self._found(words, example, share, (tempo, key, minutes, kind), thumbs))

    def phrase(self, tempo: str, key: str, minutes: str, kind: str, event: gr.EventData) -> tuple:
        """One of the phrases was clicked."""
        number = str(getattr(event, "key", ""))
        words = DEMO_QUERIES[int(number)] if number in map(str, range(len(DEMO_QUERIES))) else DEMO_QUERIES[0]
        return self._answer(lambda: self._whole(words, "", (tempo, key, minutes, kind)))

    def like(self, tempo: str, key: str, minutes: str, kind: str, event: gr.EventData) -> tuple:
        """A card's button was clicked: the piece becomes the example, or goes."""
        piece = "" if getattr(event, "ask", "") == "clear" else str(getattr(event, "key", ""))
        asked = tempo, key, minutes, kind
        return self._answer(lambda: self._whole("" if piece else DEMO_QUERIES[0], piece, asked))

    def chosen(
        self,
        words: str,
        example: str,
        share: float,
        tempo: str,
        key: str,
        minutes: str,
        kind: str,
        thumbs: dict[str, str] | None,
        event: gr.EventData,
    ) -> tuple:
        """A button of a result was clicked: a thumb, which moves the search, or it becomes the example."""
        ask, piece = getattr(event, "ask", ""), str(getattr(event, "key", ""))
        asked = tempo, key, minutes, kind
        if ask not in ("more", "less"):
            return (*self.like(*asked, event), {})
        given = {other: side for other, side in (thumbs or {}).items() if other != piece}
        if (thumbs or {}).get(piece) != ask:  # a second click takes it back
            given[piece] = ask
        listing, chart = self._answer(lambda: self._found(words, example, share, asked, given))
        return (*[gr.skip()] * 4, listing, chart, given)

    def show(self, event: gr.EventData) -> gr.HTML:
        """A point of the map was clicked."""
        return self._answer(lambda: gr.HTML(card(self.library.view(str(getattr(event, "key", "")))), visible=True))

    def upload(self, path: str, tempo: str = "", key: str = "", minutes: str = "", kind: str = "") -> tuple:
        def embed():
            upload = read_upload(path, self.library.checkpoint.embed_file, self.library.limits)
            return self._whole("", self.library.uploads.keep(upload), (tempo, key, minutes, kind))

        return self._answer(embed)

    def _found(
        self, words: str, example: str, share: float, asked: tuple[str, ...], thumbs: dict[str, str] | None = None
    ) -> tuple[str, str]:
        filters = {name: str(text or "") for name, text in zip(FILTERS, asked, strict=True)}
        given = thumbs or {}
        sides = {side: [key for key, thumb in given.items() if thumb == side] for side in ("more", "less")}
        answer = self.library.answer(words, example, share, filters, **sides)
        return results(answer, given), corpus_map(self.library, answer.views, example)

    def _whole(self, words: str, key: str, asked: tuple[str, ...]) -> tuple:
        listing, chart = self._found(words, key, 0.5, asked)
        like = gr.HTML(example_card(self.library.view(key)) if key else "", visible=bool(key))
        box = gr.Textbox(value=words, **(STEERING if key else WORDS))
        return box, key, gr.Slider(value=0.5, visible=bool(key)), like, listing, chart

    def _answer(self, work: Callable) -> Any:
        """Runs `work` under the gate; the page shows errors of the request."""
        try:
            with self.gate.turn():
                return work()
        except BusyError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except UserError as error:  # gradio shows the message as HTML
            raise gr.Error(escaped(error), print_exception=False) from error

    async def audio(self, request: Request) -> Response:
        """GET audio/KEY.flac?middle=SECONDS"""
        middle = _seconds(request.query_params.get("middle", ""))
        return await run_in_threadpool(self.sound_response, request.path_params["key"], middle)

    async def score(self, request: Request) -> Response:
        """GET score/KEY?start=SECONDS&end=SECONDS"""
        start, end = (_seconds(request.query_params.get(name, "")) for name in ("start", "end"))
        return await run_in_threadpool(self.score_response, request.path_params["key"], (start, end))

    def score_response(self, key: str, window: tuple[float, float]) -> Response:
        """The page of a piece's score on which the window begins, or why there is none."""
        return self._sent(lambda: HTMLResponse(self.library.score(key, window)))

    def sound_response(self, key: str, middle_seconds: float) -> Response:
        """The sound around a moment of a piece, or why there is none."""
        return self._sent(lambda: Response(self.library.sound(key, middle_seconds), media_type="audio/flac"))

    def _sent(self, make: Callable[[], Response]) -> Response:
        """Response of a route, computed under the gate."""
        try:
            with self.gate.turn():
                return make()
        except BusyError as error:
            return PlainTextResponse(str(error), 503, {"Retry-After": "2"})
        except UserError as error:
            return PlainTextResponse(str(error), 404)


def _seconds(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


def launch(library: Library, host: str | None = None, port: int | None = None, blocking: bool = True) -> gr.Blocks:
    """Serves the page.

    Args:
        host (`str`, *optional*): address to listen on; "0.0.0.0" lets other machines in. By default what the
            environment says, as on a Space, else this machine alone.
        port (`int`, *optional*): the first free one from 7860 on by default.
        blocking (`bool`): wait for Ctrl-C; otherwise the server runs in background threads.
    Returns:
        The page, whose `local_url` says where it is and whose `close()` stops it.
    Raises:
        OSError: the port is taken.
        ValueError: gradio, which looks at its page first, cannot reach it.
    """
    for name in ("no_proxy", "NO_PROXY"):  # gradio requests its own page at start
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))
    if "GRADIO_TEMP_DIR" not in os.environ:  # uploads are in a temporary folder that is removed at exit
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="pianobind-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    handlers, here = Handlers(library), Path(__file__).parent
    blocks = build_page(library, handlers)
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            show_error=False,  # unexpected errors, whose text may name folders
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            max_file_size=round(library.limits.file_megabytes * 2**20),
            theme=_theme(),
            css=(here / "page.css").read_text(encoding="utf-8"),
            head=f"<script>{(here / 'page.js').read_text(encoding='utf-8')}</script>",
            app_kwargs={"routes": [Route("/audio/{key}.flac", handlers.audio), Route("/score/{key}", handlers.score)]},
        )
    except httpx.HTTPError as error:
        blocks.close()
        raise ValueError(str(error)) from error
    print(f"PianoBind: {blocks.local_url} ({len(library)} pieces; Ctrl-C stops it)", flush=True)
    if blocking:
        blocks.block_thread()
    return blocks


def _theme() -> gr.themes.Base:
    """Fonts and colours; fonts by name only, since named ones would be fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.red,
        neutral_hue=gr.themes.colors.stone,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="#faf7f1",
        body_background_fill_dark="#191715",
        button_primary_background_fill="#9a3324",
        button_primary_background_fill_hover="#7d281c",
        button_primary_background_fill_dark="#b4472f",
        button_primary_text_color="#ffffff",
        block_radius="12px",
        slider_color="#9a3324",
    )


def _title(pieces: int) -> str:
    return (
        '<div class="pb-title"><h1>PianoBind</h1><p>Describe piano music in words, or give an example: '
        f"the nearest of {pieces} pieces come up.</p></div>"
    )


def _phrases() -> str:
    buttons = "".join(
        f'<button type="button" data-ask="phrase" data-key="{number}">{escaped(phrase)}</button>'
        for number, phrase in enumerate(DEMO_QUERIES)
    )
    return f'<div class="pb-chips" role="group" aria-label="Phrases to try">{buttons}</div>'


__all__ = ["Handlers", "build_page", "launch"]
