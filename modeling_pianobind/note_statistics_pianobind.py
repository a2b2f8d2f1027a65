"""Statistics of a whole window of notes (histograms, key, density, rhythm), an input of the MIDI tower."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from .configuration_pianobind import PianoBindMidiConfig

LOWEST_PITCH_CLASS = 9  # the lowest key is A
MAX_INTERVAL = 12
TIE_STEP = 1e-5  # breaks ties of correlations; far above their rounding errors
FRAME_SECONDS, RHYTHM_SECONDS, MAX_LAG_SECONDS = 0.02, 20.0, 5.0
LOW_KEY = 31  # keys below E3 count as low
MAX_ONSETS = 3.0
FIXED_LAGS, GAP_BINS = 40, 24
BEAT_SECONDS = 0.55
BEAT_MULTIPLES = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
RHYTHM_SIZE = 2 * (FIXED_LAGS + len(BEAT_MULTIPLES)) + GAP_BINS + 1
# Krumhansl and Kessler's ratings for major and minor (Krumhansl, Cognitive Foundations of Musical Pitch, 1990)
KEY_PROFILES = (
    (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
)


def histogram(places: torch.Tensor, weights: torch.Tensor, size: int) -> torch.Tensor:
    """Sums `weights (windows, entries)` at `places (windows, entries)` and divides by their sum: `(windows, size)`."""
    counts = torch.zeros(places.shape[0], size, device=places.device).scatter_add(1, places, weights)
    return counts / weights.sum(1, keepdim=True).clamp(min=1)


def key_correlations(pitch_classes: torch.Tensor) -> torch.Tensor:
    """Correlation of `pitch_classes (windows, 12)` with all keys: `(windows, 2, 12)`, major and minor on C to B."""
    profiles = torch.tensor(KEY_PROFILES, device=pitch_classes.device)
    turns = torch.arange(12, device=pitch_classes.device)
    keys = profiles[:, (turns[None] - turns[:, None]) % 12]  # (mode, tonic, pitch class)
    keys = F.normalize(keys - keys.mean(-1, keepdim=True), dim=-1)
    centred = F.normalize(pitch_classes - pitch_classes.mean(-1, keepdim=True), dim=-1)
    return (centred[:, None, None] * keys).sum(-1)  # no matrix product, which autocast would compute in bfloat16


def tonics(strengths: torch.Tensor) -> torch.Tensor:
    """The tonic that fits best, 0 for C: `(windows, 1)`; of several that fit equally well, the lowest."""
    # A symmetric chord fits several keys alike. Rounding, which depends on the batch, must not choose between them.
    return (strengths.amax(1) - TIE_STEP * torch.arange(12, device=strengths.device)).argmax(1, keepdim=True)


def onset_envelopes(keys: torch.Tensor, present: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """Onsets over time, `(windows, 2, frames)`: of all notes, and of the low ones, which carry the beat.

    Args:
        keys (`torch.Tensor` of shape `(windows, notes)`): 0 for A0; present (`(windows, notes)`): 1 for a note, 0 for
            padding; seconds (`(windows, notes)`): onsets.
    """
    frames = round(RHYTHM_SECONDS / FRAME_SECONDS)
    frame = (seconds / FRAME_SECONDS).clamp(0, frames - 2)
    inside = present * (seconds < (frames - 1) * FRAME_SECONDS)
    weights = torch.stack([inside, inside * (keys < LOW_KEY)], dim=1)
    below = frame.long()[:, None].expand(-1, 2, -1)
    share = frame[:, None] - below
    envelopes = torch.zeros(keys.shape[0], 2, frames, device=keys.device)
    envelopes = envelopes.scatter_add(2, below, weights * (1 - share)).scatter_add(2, below + 1, weights * share)
    envelopes = envelopes.clamp(max=MAX_ONSETS)  # a large chord counts little more than a small one
    return F.avg_pool1d(envelopes, 3, 1, 1) * 1.5


def periodicity(envelopes: torch.Tensor) -> torch.Tensor:
    """Autocorrelation of `envelopes (..., frames)` at lags of 0 to `MAX_LAG_SECONDS`, 1 at lag 0."""
    frames = envelopes.shape[-1]
    centred = envelopes - envelopes.mean(-1, keepdim=True)
    count = round(MAX_LAG_SECONDS / FRAME_SECONDS)
    if torch.compiler.is_exporting():  # onnxruntime's Fourier transforms are less exact, and the beat is a maximum
        places = torch.arange(frames, device=envelopes.device) + torch.arange(count, device=envelopes.device)[:, None]
        products = (F.pad(centred, (0, count))[..., places] @ centred[..., None])[..., 0]
    else:
        spectrum = torch.fft.rfft(centred, n=2 * frames)
        products = torch.fft.irfft(spectrum.abs().square(), n=2 * frames)[..., :count]
    lags = torch.arange(count, device=products.device)
    return products / products[..., :1].clamp(min=1e-3) * (frames / (frames - lags))


def at_lags(correlation: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """`correlation (windows, 2, lags)` at `seconds (windows, n)`, linear between lags: `(windows, 2, n)`."""
    place = (seconds / FRAME_SECONDS).clamp(0, correlation.shape[-1] - 2)
    below = place.long()
    index = below[:, None].expand(-1, 2, -1)
    share = (place - below)[:, None]
    return correlation.gather(2, index) * (1 - share) + correlation.gather(2, index + 1) * share


def rhythm(keys: torch.Tensor, present: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """Repetition of a window's onsets, `(windows, RHYTHM_SIZE)`; it differs between a waltz and a march.

    The autocorrelation of onsets at fixed lags, the same at fractions and multiples of the beat (the period that
    repeats most clearly near `BEAT_SECONDS`), so that duple and triple metre differ at any tempo, and the times
    between successive onsets in beats, where swing and dotted rhythms show.
    """
    correlation = periodicity(onset_envelopes(keys, present, seconds))
    lags = torch.logspace(*np.log10([0.12, MAX_LAG_SECONDS - 0.1]), FIXED_LAGS, device=keys.device)
    fixed = at_lags(correlation, lags.expand(keys.shape[0], -1))
    beats = torch.logspace(*np.log10([0.27, 1.1]), 60, device=keys.device)
    preference = 1 - (torch.log2(beats / BEAT_SECONDS) / 2).square()
    clarity = at_lags(correlation, beats.expand(keys.shape[0], -1)).sum(1) * preference
    beat = beats[(clarity - TIE_STEP * torch.arange(60, device=keys.device)).argmax(1)][:, None]
    multiples = torch.tensor(BEAT_MULTIPLES, device=keys.device)
    in_beats = at_lags(correlation, beat * multiples)
    gap = (seconds[:, 1:] - seconds[:, :-1]) / beat
    successive = present[:, 1:] * present[:, :-1] * (gap > 0.08)
    bins = (torch.log2(gap.clamp(0.1, 4.0) / 0.1) * GAP_BINS / math.log2(40)).long().clamp(0, GAP_BINS - 1)
    gaps = histogram(bins, successive, GAP_BINS).sqrt()
    return torch.cat([fixed.flatten(1), in_beats.flatten(1), gaps, beat.log()], 1)


class NoteStatistics(nn.Module):
    """Whole-window statistics -> a vector that is added to every note.

    Attention computes averages; density, register, loudness and mode are sums over a window.
    Hand-made features of this kind beat fine-tuned transformers where labels are few.
    """

    def __init__(self, config: "PianoBindMidiConfig"):
        super().__init__()
        self.field_sizes = tuple(config.field_sizes)
        self.time_field = config.time_field
        self.has_rhythm = config.rhythm_statistics
        size = sum(self.field_sizes) + 2 * (2 * MAX_INTERVAL + 1) + 12 + 2 + 2
        self.norm = nn.LayerNorm(size + (RHYTHM_SIZE if self.has_rhythm else 0))
        self.up_proj = nn.Linear(self.norm.normalized_shape[0], config.hidden_size)
        self.down_proj = nn.Linear(config.hidden_size, config.hidden_size)

    @torch.no_grad()
    def measure(
        self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor, seconds: torch.Tensor
    ) -> torch.Tensor:
        """Statistics of windows.

        Args:
            midi_ids (`torch.Tensor` of shape `(windows, notes, fields)`): rows whose first field is the piano key.
            midi_attention_mask (`torch.Tensor` of shape `(windows, notes)`): 0 on padding.
            seconds (`torch.Tensor` of shape `(windows, notes)`): onsets.
        Returns:
            `torch.Tensor` of shape `(windows, statistics)`, float32: square roots of each field's histogram, of the
            intervals between successive notes (struck together, or one after the other) and of the pitch classes
            counted from the tonic; how well major and minor fit; logarithms of the number of notes and of their rate;
            with `rhythm_statistics`, the output of `rhythm`.
        """
        present = (midi_attention_mask != 0).float()
        sizes = torch.tensor(self.field_sizes, device=midi_ids.device)
        places = (midi_ids + (sizes.cumsum(0) - sizes)).flatten(1)
        per_field = histogram(places, present.repeat_interleave(len(sizes), 1), sum(self.field_sizes)) * len(sizes)

        keys = midi_ids[..., 0]
        step = (keys[:, 1:] - keys[:, :-1]).clamp(-MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
        together = (midi_ids[:, 1:, self.time_field] == 0).long()
        span = 2 * MAX_INTERVAL + 1
        intervals = histogram(step + span * together, present[:, 1:] * present[:, :-1], 2 * span)

        pitch_classes = histogram((keys + LOWEST_PITCH_CLASS) % 12, present, 12)
        strengths = key_correlations(pitch_classes)
        tonic = tonics(strengths)
        from_tonic = pitch_classes.gather(1, (tonic + torch.arange(12, device=tonic.device)) % 12)

        notes = present.sum(1, keepdim=True)
        rate = notes / ((seconds * present).amax(1, keepdim=True) + 1)
        shapes = torch.cat([per_field, intervals, from_tonic], 1).sqrt()
        parts = [shapes, strengths.amax(2), notes.clamp(min=1).log(), rate.clamp(min=0.1).log()]
        if self.has_rhythm:
            parts.append(rhythm(keys, present, seconds))
        return torch.cat(parts, 1)

    def forward(
        self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor, seconds: torch.Tensor
    ) -> torch.Tensor:
        """`(windows, 1, hidden_size)`, to be added to every note; see `measure`."""
        statistics = self.measure(midi_ids, midi_attention_mask, seconds)  # float32, since it holds counts
        statistics = self.norm(statistics.to(self.norm.weight.dtype))
        return self.down_proj(F.gelu(self.up_proj(statistics)))[:, None]


__all__ = ["NoteStatistics", "histogram", "key_correlations", "tonics"]
