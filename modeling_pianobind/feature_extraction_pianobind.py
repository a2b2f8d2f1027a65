"""Recording -> log-mel windows: the arrays that the audio tower reads."""

import io
import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from .decoding_pianobind import ffmpeg_blocks, needs_ffmpeg
from .encoder_extractor_pianobind import encoder_batch, load_extractor
from .inputs_pianobind import check_numbers

BLOCK_SECONDS = 10.0  # decoded at a time, so that memory does not grow with the recording
BLOCK_SAMPLES = 2**22  # of all channels together, which a header may say are a thousand
# In Hz; at a wrong rate, seconds of music would be resampled to weeks.
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 2_000, 768_000
MAX_WINDOW_NUMBERS = 2**25  # numbers of its spectrum: twenty times the usual
FILTER_GROUPS = 8
MAX_SAMPLE = 2.0**32  # 32-bit integers may have been written as floats; the power of larger samples overflows
SILENCE_AMPLITUDE = 10 ** (-70 / 20)  # of full scale; windows below it are silent

MIN_SETTINGS = {
    "feature_size": 1,
    "sampling_rate": 1_000,
    "fft_size": 16,
    "hop_length": 1,
    "min_frequency": 0.0,
    "max_frequency": 0.0,
    "window_seconds": 0.1,
    "hop_seconds": 0.01,
    "top_db": 1.0,
    "amplitude_floor": 1e-30,
}


@dataclass
class AudioWindow:
    """A stretch of a recording: `samples` (mono float32, at the extractor's rate) from `start_seconds` on."""

    samples: np.ndarray
    start_seconds: float
    end_seconds: float


class PianoBindFeatureExtractor(SequenceFeatureExtractor):
    """Turns recordings of any length into log-mel windows.

    Every window is treated by itself: its decibels are counted from its own loudest bin and cut off `top_db` below,
    so that its features depend neither on the batch nor on the recording level.

    Args:
        feature_size (`int`): mel bands.
        sampling_rate (`int`): of the samples that the features are made from, in Hz; recordings are resampled to it.
        fft_size, hop_length (`int`): of the short-time Fourier transform, in samples.
        min_frequency, max_frequency (`float`): edges of the mel bands in Hz.
        window_seconds, hop_seconds (`float`): length of a window, and time between the starts of two.
        top_db (`float`): dynamic range that is kept, in decibels.
        amplitude_floor (`float`): smallest power that differs from zero.
        normalize (`str`): "unit" maps the kept range to 0..1; "none" keeps decibels of the power, as the published
            PianoBind does.
        window_norm (`bool`): divide the spectrum by the norm of the Hann window.
        filter_precision (`str`): "float64" or "float32", in which the mel filters are computed. In float32 they equal
            torchaudio's, with which the published PianoBind was trained; `max_frequency` may then lie above half of
            the sampling rate, and the bands up there are always empty.
        encoder_extractor (`dict`, *optional*): settings of a Hugging Face audio encoder's own feature extractor, which
            then makes the features of each window; only `sampling_rate`, `window_seconds` and `hop_seconds` count
            beside it.
    """

    model_input_names = ["input_features", "audio_attention_mask"]

    def __init__(
        self,
        feature_size: int = 229,
        sampling_rate: int = 16_000,
        fft_size: int = 2048,
        hop_length: int = 400,
        min_frequency: float = 30.0,
        max_frequency: float = 8_000.0,
        window_seconds: float = 20.0,
        hop_seconds: float = 10.0,
        top_db: float = 80.0,
        amplitude_floor: float = 1e-10,
        normalize: str = "unit",
        window_norm: bool = False,
        filter_precision: str = "float64",
        encoder_extractor: dict | None = None,
        padding_value: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_size = fft_size
        self.hop_length = hop_length
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.top_db = top_db
        self.amplitude_floor = amplitude_floor
        self.normalize = normalize
        self.window_norm = window_norm
        self.filter_precision = filter_precision
        self.encoder_extractor = encoder_extractor
        self._check_settings()

    def _check_settings(self) -> None:
        check_numbers(self, MIN_SETTINGS)
        if self.hop_seconds > self.window_seconds:
            raise ValueError(
                f"`hop_seconds` is {self.hop_seconds} with windows of {self.window_seconds} s; "
                "it must be at most `window_seconds`, or music would be skipped."
            )
        if self.min_frequency >= self.max_frequency:
            raise ValueError(
                f"`min_frequency` is {self.min_frequency} and `max_frequency` {self.max_frequency}; it must be lower."
            )
        if self.normalize not in ("unit", "none"):
            raise ValueError(f"`normalize` is {reprlib.repr(self.normalize)}; it must be 'unit' or 'none'.")
        if self.filter_precision not in ("float32", "float64"):
            precision = reprlib.repr(self.filter_precision)
            raise ValueError(f"`filter_precision` is {precision}; it must be 'float32' or 'float64'.")
        if not isinstance(self.encoder_extractor, dict | None):
            raise ValueError(f"`encoder_extractor` is {reprlib.repr(self.encoder_extractor)}; it must be settings.")
        largest = max(self.window_samples, self.feature_size * self.fft_size, self._frames * self.fft_size)
        if self.sampling_rate > MAX_SAMPLING_RATE or largest > MAX_WINDOW_NUMBERS:
            raise ValueError(
                f"a window of {self.window_seconds} s at {self.sampling_rate} Hz, with {self.feature_size} bands of "
                f"transforms of {self.fft_size} samples {self.hop_length} apart, is too large to compute; shorten it."
            )

    @property
    def _frames(self) -> int:
        return self.window_samples // self.hop_length + 1

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sampling_rate)

    def to_dict(self) -> dict:
        return {key: value for key, value in super().to_dict().items() if not key.startswith("_cached")}

    def windows(self, audio: Any, sampling_rate: int | None = None) -> Iterator[AudioWindow]:
        """Yields a recording's windows; decodes and resamples by blocks.

        Args:
            audio (`str`, `Path`, `bytes`, array of shape `(samples,)` or `(channels, samples)`): a file, its content,
                or a waveform.
            sampling_rate (`int`, *optional*): of a waveform, in Hz; a file knows its own.
        Raises:
            FileNotFoundError, PermissionError, IsADirectoryError: the file cannot be opened.
            ValueError: it is not audio, is damaged, holds no sample, or is silent throughout.
        """
        name = audio_name(audio)
        blocks = audio_blocks(audio, sampling_rate, self.sampling_rate)
        has_sound = False
        for window in _cut(blocks, self.sampling_rate, self.window_seconds, self.hop_seconds, name):
            if np.abs(window.samples).max() > SILENCE_AMPLITUDE:
                has_sound = True
                yield window
        if not has_sound:
            raise ValueError(f"{name}: the recording is silent (below -70 dB throughout); check how it was made.")

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrograms, each with its own decibel reference.

        Args:
            waveforms (`torch.Tensor` of shape `(windows, samples)`, float32): on any device.
        Returns:
            `torch.Tensor` of shape `(windows, frames, feature_size)`; frames are `hop_length` apart and centred.
        """
        hann, groups = self._constants(waveforms.device)
        half = self.fft_size // 2
        padded = F.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
        spectrum = torch.fft.rfft(padded.unfold(1, self.fft_size, self.hop_length) * hann)
        if self.window_norm:
            spectrum = spectrum / hann.pow(2).sum().sqrt()
        power = spectrum.real.square() + spectrum.imag.square()  # faster than abs()
        mels = torch.cat([power[..., low:high] @ filters for low, high, filters in groups], dim=-1)
        decibels = 10 * torch.log10(torch.clamp(mels, min=self.amplitude_floor))
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        if self.normalize == "none":
            return torch.maximum(decibels, loudest - self.top_db)
        return torch.clamp((decibels - loudest) / self.top_db + 1, min=0)

    def frame_mask(self, samples: torch.Tensor, frames: int) -> torch.Tensor:
        """`(windows, frames)` int64: 1 for frames whose centre lies within each window's `samples`."""
        centres = torch.arange(frames, device=samples.device) * self.hop_length
        return (centres[None] < torch.clamp(samples, min=1)[:, None]).long()

    def batch(self, windows: list[AudioWindow]) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows -> features `(windows, frames, feature_size)` and their frame mask `(windows, frames)`.

        With an `encoder_extractor` the features have that encoder's shape, and the mask that of its own mask.
        """
        if self.encoder_extractor is not None:
            if "encoder" not in self._cached:
                self._cached["encoder"] = load_extractor(self.encoder_extractor)
            return encoder_batch(self._cached["encoder"], [window.samples for window in windows], self.window_samples)
        waveforms = torch.zeros(len(windows), self.window_samples)
        for row, window in enumerate(windows):
            waveforms[row, : len(window.samples)] = torch.from_numpy(window.samples)
        features = self.log_mel(waveforms)
        lengths = torch.tensor([len(window.samples) for window in windows])
        return features, self.frame_mask(lengths, features.shape[1])

    def __call__(
        self, audio: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Reads recordings of any length.

        Args:
            audio: one or a list of paths or waveforms (arrays of shape `(samples,)` or `(channels, samples)`).
            sampling_rate (`int`, *optional*): of the waveforms, in Hz.
            return_tensors (`str`, *optional*): "pt" or "np".
        Returns:
            `input_features` of shape `(batch, windows, frames, feature_size)` and `audio_attention_mask` of shape
            `(batch, windows, frames)` (or as `batch` says), 1 where there is sound; a shorter recording has windows
            that are 0 throughout.
        """
        recordings = audio if isinstance(audio, (list, tuple)) and not _is_waveform(audio) else [audio]
        made = [self.batch(list(self.windows(recording, sampling_rate))) for recording in recordings]
        max_windows = max(len(features) for features, _ in made)
        shape, mask_shape = ((len(made), max_windows, *part.shape[1:]) for part in made[0])
        features, mask = torch.full(shape, self.padding_value), torch.zeros(mask_shape, dtype=torch.long)
        for row, (piece_features, piece_mask) in enumerate(made):
            features[row, : len(piece_features)] = piece_features
            mask[row, : len(piece_mask)] = piece_mask
        data = {"input_features": features, "audio_attention_mask": mask}
        if return_tensors != "pt":
            data = {key: value.numpy() for key, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def _constants(self, device: torch.device) -> tuple[torch.Tensor, list[tuple[int, int, torch.Tensor]]]:
        """The Hann window and the mel filters on a device, made once.

        A mel band covers few of the transform's bins: filters come in groups of bands with the bins `low:high` that
        they cover, as `(low, high, (bins, bands))`; one product of all bins and bands takes five times as long.
        """
        if device not in self._cached:
            if self.filter_precision == "float32":
                filters = self.float32_filters()
            else:
                filters = mel_filter_bank(
                    self.fft_size // 2 + 1,
                    self.feature_size,
                    self.min_frequency,
                    self.max_frequency,
                    self.sampling_rate,
                    norm=None,
                    mel_scale="htk",
                )
                filters = torch.from_numpy(filters).float()
            groups = []
            for bands in filters.tensor_split(FILTER_GROUPS, dim=1):
                bins = bands.any(dim=1).nonzero()
                low, high = (int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 1)
                groups.append((low, high, bands[low:high].contiguous().to(device)))
            self._cached[device] = torch.hann_window(self.fft_size, device=device), groups
        return self._cached[device]

    def float32_filters(self) -> torch.Tensor:
        """Triangular mel filters `(fft bins, mel bands)` on the HTK scale, rounded where torchaudio rounds."""
        # Adapted from https://github.com/pytorch/audio/blob/v2.5.1/src/torchaudio/functional/functional.py#L508 (BSD)
        # Differs: no area normalisation and no warning, since bands above half of the sampling rate are empty.
        lowest, highest = (
            2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (self.min_frequency, self.max_frequency)
        )
        corners = 700.0 * (10.0 ** (torch.linspace(lowest, highest, self.feature_size + 2) / 2595.0) - 1.0)
        bins = torch.linspace(0, self.sampling_rate // 2, self.fft_size // 2 + 1)
        distances = corners[None] - bins[:, None]
        widths = corners.diff()
        rising, falling = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
        return torch.clamp(torch.minimum(rising, falling), min=0)

    @property
    def _cached(self) -> dict:
        return self.__dict__.setdefault("_cached_objects", {})


def audio_name(audio: Any) -> str:
    """Name of a recording in error messages."""
    if isinstance(audio, (str, Path)):
        return str(audio)
    return "the given recording" if isinstance(audio, bytes) else "the given waveform"


def _is_waveform(audio: Any) -> bool:
    return bool(len(audio)) and isinstance(audio[0], (float, int, np.floating))


def audio_blocks(audio: Any, given_rate: int | None, sampling_rate: int) -> Iterator[np.ndarray]:
    """Yields a recording as mono float32 blocks `(samples,)` at `sampling_rate` Hz; `audio` as in `windows`."""
    if isinstance(audio, (str, Path)):
        return _file_blocks(Path(audio), sampling_rate)
    if isinstance(audio, bytes):
        return _decoded_blocks(io.BytesIO(audio), audio_name(audio), sampling_rate)
    return _waveform_blocks(audio, given_rate, sampling_rate)


def _file_blocks(path: Path, sampling_rate: int) -> Iterator[np.ndarray]:
    with path.open("rb") as handle:  # so that a missing or forbidden file raises the system's own error
        yield from _decoded_blocks(handle, str(path), sampling_rate)


def _decoded_blocks(handle: BinaryIO, name: str, sampling_rate: int) -> Iterator[np.ndarray]:
    """Mono float32 blocks of an opened file at `sampling_rate`; `name` is used in error messages."""
    head = handle.read(12)
    if not head:
        raise ValueError(f"{name}: the file is empty; copy or export it again.")
    handle.seek(0)
    if needs_ffmpeg(head):
        yield from ffmpeg_blocks(handle, name, sampling_rate)
        return
    try:
        with soundfile.SoundFile(handle) as sound:
            if not MIN_SAMPLING_RATE <= sound.samplerate <= MAX_SAMPLING_RATE:
                raise ValueError(
                    f"{name}: says that it has {sound.samplerate} samples a second, and {MIN_SAMPLING_RATE} to "
                    f"{MAX_SAMPLING_RATE} are allowed; its header is damaged, export it again."
                )
            resampler = soxr.ResampleStream(sound.samplerate, sampling_rate, 1, dtype="float32")
            block_frames = max(1, min(round(BLOCK_SECONDS * sound.samplerate), BLOCK_SAMPLES // sound.channels))
            while len(block := sound.read(block_frames, dtype="float32", always_2d=True)):
                yield resampler.resample_chunk(np.ascontiguousarray(block.mean(axis=1)))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{name}: cannot be decoded as audio ({error.error_string.strip('. ')}); "
            "if it plays elsewhere, convert it to WAV or FLAC."
        ) from error


def _waveform_blocks(waveform: Any, given_rate: int | None, sampling_rate: int) -> Iterator[np.ndarray]:
    if given_rate is None:
        raise ValueError(
            "`sampling_rate` is missing: a waveform does not know its own. Pass it in Hz, or pass a file's path."
        )
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim not in (1, 2) or not samples.size or len(samples) > samples.shape[-1]:
        raise ValueError(
            f"the given waveform has shape {samples.shape}; it must be (samples,) or (channels, samples)."
        )
    if samples.ndim == 2:
        samples = samples.mean(axis=0)
    if given_rate == sampling_rate:
        yield samples
        return
    resampler = soxr.ResampleStream(given_rate, sampling_rate, 1, dtype="float32")
    yield resampler.resample_chunk(np.ascontiguousarray(samples), last=True)


def _cut(
    blocks: Iterator[np.ndarray], sampling_rate: int, window_seconds: float, hop_seconds: float, name: str
) -> Iterator[AudioWindow]:
    """Cuts a stream of blocks by the rule of `window_starts`, holding no more than a window and a block."""
    window, hop = round(window_seconds * sampling_rate), round(hop_seconds * sampling_rate)
    held, start, reached = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        peak = np.abs(block).max(initial=0.0)
        if not np.isfinite(peak):
            raise ValueError(f"{name}: it holds samples that are not finite numbers; decode it again.")
        if peak > MAX_SAMPLE:
            raise ValueError(f"{name}: it holds samples of {peak:.1g}, where full scale is 1; export it again.")
        held = np.concatenate([held, block])
        while len(held) >= window:
            reached = start + window
            yield AudioWindow(held[:window].copy(), start / sampling_rate, reached / sampling_rate)
            held, start = held[hop:], start + hop
    if not start and not len(held):
        raise ValueError(f"{name}: the recording holds no sample; record or export it again.")
    if start + len(held) > reached:  # the rest after the last full window
        yield AudioWindow(held, start / sampling_rate, (start + len(held)) / sampling_rate)


__all__ = ["AudioWindow", "PianoBindFeatureExtractor", "audio_blocks", "audio_name"]
