"""Checks that an instrument is in tune."""

from typing import TYPE_CHECKING

import numpy as np

from modeling_pianobind.notes_pianobind import PianoNotes

if TYPE_CHECKING:
    from .rendering import Instrument

KEYS = (60, 64, 67, 72, 76, 81, 84)
SAMPLING_RATE = 16_000
HELD_SECONDS, HEARD_SECONDS = 0.6, (0.05, 0.45)
FFT_SIZE = 1 << 16
TOLERANCE_SEMITONES = 0.4  # around each harmonic; includes honky-tonk pianos
MIN_SHARE = 0.5  # of the energy; a piano in tune has 0.95 and more


def in_tune_share(instrument: "Instrument") -> float:
    """Median over some keys of the share of energy on the harmonics of the played key.

    Args:
        instrument: made by `training.data.rendering`.
    Returns:
        `float` from 0 to 1; near 1 for a piano in tune, near 0.1 for one that plays other keys.
    """
    shares = []
    for key in KEYS:
        single = np.ones(1)
        notes = PianoNotes(
            0 * single, (HELD_SECONDS * single).astype("f4"), np.array([key]), np.array([90]), 0 * single
        )
        first, last = (round(seconds * SAMPLING_RATE) for seconds in HEARD_SECONDS)
        sound = instrument.render(notes, SAMPLING_RATE)[first:last]
        energy = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), FFT_SIZE)) ** 2
        hertz = np.fft.rfftfreq(FFT_SIZE, 1 / SAMPLING_RATE)[1:]
        fundamental = 440.0 * 2 ** ((key - 69) / 12)
        harmonic = np.maximum(np.round(hertz / fundamental), 1) * fundamental
        near = np.abs(12 * np.log2(hertz / harmonic)) < TOLERANCE_SEMITONES
        shares.append(energy[1:][near].sum() / max(energy[1:].sum(), 1e-12))
    return float(np.median(shares))


def check_instruments(instruments: list, names: list[str]) -> None:
    """Refuses an instrument that is out of tune, before music is rendered with it.

    symusic 0.5.8 plays the usual SF2 fonts (FluidR3, TimGM6mb) at the right times but on other keys; SF3 fonts with
    compressed samples (MuseScore General) and folders of samples are right.

    Raises:
        ValueError: an instrument is out of tune.
    """
    for name, instrument in zip(names, instruments, strict=True):
        share = in_tune_share(instrument)
        if share < MIN_SHARE:
            raise ValueError(
                f"{name}: rendered through symusic it plays wrong keys (only {share:.0%} of its sound is in tune); "
                "use an SF3 font such as MuseScore_General.sf3, or a folder of samples."
            )


__all__ = ["check_instruments", "in_tune_share"]
