"""Piano rolls as SVG: notes as bars, recordings as the strength of each key."""

import base64
import io

import numpy as np

from ..notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes
from .music import Excerpt, Midi, Recording

WIDTH = 1000  # of the drawing; the page stretches it
LOUDNESS_BANDS = 6  # the page's colours for velocities
MAX_NOTES_DRAWN = 6_000
MOOD_HEIGHT, MOOD_POINTS = 40, 60
HEARD_COLOUR = (184, 92, 40)
MIN_KEYS, MARGIN_KEYS = 40, 3
KEYS = np.arange(LOWEST_KEY, HIGHEST_KEY + 1)
ENERGY_RATE, ENERGY_FFT, ENERGY_COLUMNS, ENERGY_DECIBELS = 16_000, 8_192, 600, 36.0


def draw_roll(music: Midi | Recording, excerpt: Excerpt, window: tuple[float, float] | None = None) -> str:
    """Draws an excerpt of a piece.

    Args:
        music (`Midi` or `Recording`): the piece.
        excerpt (`Excerpt`): the part to draw.
        window (`tuple[float, float]`, *optional*): start and end in seconds of the marked window.
    Returns:
        `str`: an SVG element without any text in it.
    """
    if isinstance(music, Midi):
        notes = music.notes.crop(excerpt.start_seconds, excerpt.end_seconds)
        lowest, highest = _key_range(notes.pitch)
        drawing = _note_paths(notes, excerpt.seconds)
    else:
        lowest, highest = LOWEST_KEY, HIGHEST_KEY
        image = png(key_strengths(music.samples(excerpt, ENERGY_RATE, channels=1)[:, 0]))
        drawing = (
            f'<image href="data:image/png;base64,{base64.b64encode(image).decode()}" x="0" '
            f'y="{_top(HIGHEST_KEY)}" width="{WIDTH}" height="{len(KEYS)}" preserveAspectRatio="none"/>'
        )
    top, height = _top(highest), highest - lowest + 1
    octaves = "".join(f"M0 {_top(key) + 1}h{WIDTH}" for key in range(24, HIGHEST_KEY, 12) if lowest < key <= highest)
    return (
        f'<svg viewBox="0 {top} {WIDTH} {height}" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'{_mark(excerpt, window, top, height)}<path class="octaves" d="{octaves}"/>{drawing}</svg>'
    )


def draw_moods(excerpt: Excerpt, spans: np.ndarray, curve: np.ndarray) -> str:
    """Draws valence and arousal along an excerpt, to stand under its roll.

    Args:
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
        curve (`np.ndarray` of shape `(windows, 2)`): valence and arousal of each, -1 to 1.
    Returns:
        `str`: an SVG element without any text in it.
    """
    middles = spans.mean(axis=1)
    times = np.linspace(excerpt.start_seconds, excerpt.end_seconds, MOOD_POINTS)
    left = np.linspace(0, WIDTH, MOOD_POINTS)
    order = np.argsort(middles, kind="stable")
    lines = []
    for name, values in zip(("valence", "arousal"), curve.T, strict=True):
        top = (1 - np.interp(times, middles[order], values[order])) / 2 * MOOD_HEIGHT
        points = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(left, top, strict=True))
        lines.append(f'<polyline class="{name}" points="{points}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {MOOD_HEIGHT}" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<path class="octaves" d="M0 {MOOD_HEIGHT / 2:g}h{WIDTH}"/>{"".join(lines)}</svg>'
    )


def _top(key: int) -> int:
    """The upper edge of a key's row."""
    return HIGHEST_KEY - key


def _key_range(pitch: np.ndarray) -> tuple[int, int]:
    """Keys to draw: the played range with a margin, and a minimum so that a trill does not fill the picture."""
    lowest, highest = (int(pitch.min()), int(pitch.max())) if len(pitch) else (60, 60)
    missing = max(0, MIN_KEYS - (highest - lowest + 1 + 2 * MARGIN_KEYS))
    lowest, highest = lowest - MARGIN_KEYS - missing // 2, highest + MARGIN_KEYS + -(-missing // 2)
    return max(LOWEST_KEY, lowest), min(HIGHEST_KEY, highest)


def _note_paths(notes: PianoNotes, seconds: float) -> str:
    """One path a loudness band, drawn from soft to loud; a note is a bar of one key's height."""
    scale = WIDTH / max(seconds, 1e-3)
    left = np.round(notes.onset * scale, 1)
    width = np.round(np.clip(notes.duration * scale, 1.5, WIDTH - left), 1)
    band = np.clip(notes.velocity * LOUDNESS_BANDS // 128, 0, LOUDNESS_BANDS - 1)
    bars = np.unique(np.stack([band, left, width, notes.pitch], axis=1), axis=0)  # without duplicates
    if len(bars) > MAX_NOTES_DRAWN:
        bars = bars[np.linspace(0, len(bars) - 1, MAX_NOTES_DRAWN).astype(int)]
    paths = []
    for number in range(LOUDNESS_BANDS):
        d = "".join(f"M{x:g} {_top(int(key))}h{w:g}v.9h-{w:g}z" for _, x, w, key in bars[bars[:, 0] == number])
        if d:
            paths.append(f'<path class="loud{number}" d="{d}"/>')
    return "".join(paths)


def _mark(excerpt: Excerpt, window: tuple[float, float] | None, top: int, height: int) -> str:
    if window is None:
        return ""
    scale = WIDTH / max(excerpt.seconds, 1e-3)
    left, right = (min(max(0.0, (at - excerpt.start_seconds) * scale), WIDTH) for at in window)
    return f'<rect class="match" x="{left:.1f}" y="{top}" width="{max(0.0, right - left):.1f}" height="{height}"/>'


def key_strengths(samples: np.ndarray) -> np.ndarray:
    """Energy of each key over time.

    Args:
        samples (`np.ndarray` of shape `(samples,)`): at `ENERGY_RATE`.
    Returns:
        `np.ndarray` of shape `(88, columns)`, 0 to 1, the lowest key first: decibels below the loudest moment of any
        key. Overtones count as keys too.
    """
    columns = int(np.clip(len(samples) // 400, 1, ENERGY_COLUMNS))
    padded = np.pad(samples, ENERGY_FFT // 2)
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    hertz = np.fft.rfftfreq(ENERGY_FFT, 1 / ENERGY_RATE)
    edges = np.searchsorted(hertz, 440.0 * 2 ** ((np.append(KEYS, HIGHEST_KEY + 1) - 69.5) / 12))
    edges = np.minimum(edges, len(hertz) - 1)
    window, strengths = np.hanning(ENERGY_FFT).astype(np.float32), np.zeros((len(KEYS), columns))
    for column, start in enumerate(starts):
        power = np.abs(np.fft.rfft(padded[start : start + ENERGY_FFT] * window)) ** 2
        strengths[:, column] = np.maximum.reduceat(power, edges[:-1])
    decibels = 10 * np.log10(strengths + 1e-12)
    return np.clip((decibels - decibels.max()) / ENERGY_DECIBELS + 1, 0, 1)


def png(levels: np.ndarray) -> bytes:
    """`(rows, columns)` levels from 0 to 1, the bottom row first, as a PNG of 16 opacities of one colour."""
    from PIL import Image

    image = Image.fromarray(np.round(levels[::-1] * 15).astype(np.uint8), "P")
    image.putpalette(bytes(HEARD_COLOUR) * 16)
    opacities = bytes(round(255 * (step / 15) ** 1.5) for step in range(16))
    content = io.BytesIO()
    image.save(content, "PNG", transparency=opacities, bits=4)
    return content.getvalue()


__all__ = ["draw_moods", "draw_roll", "key_strengths", "png"]
