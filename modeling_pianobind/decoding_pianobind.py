"""Recordings that libsndfile does not read (m4a, aac, wma), decoded by FFmpeg through PyAV (extra `[formats]`)."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soxr

AAC_STARTS = (b"\xff\xf1", b"\xff\xf9")  # ADTS frames
# First bytes of formats that FFmpeg decodes: AAC, ASF, Matroska. MPEG-4 has `ftyp` in bytes 4 to 8.
FFMPEG_STARTS = (*AAC_STARTS, b"\x30\x26\xb2\x75", b"\x1a\x45\xdf\xa3")


class MissingDecoderError(ValueError):
    """A file needs an extra that is not installed: it can be read once it is."""


def needs_ffmpeg(head: bytes) -> bool:
    """Whether content with these first 12 bytes is decoded by FFmpeg."""
    return head.startswith(FFMPEG_STARTS) or head[4:8] == b"ftyp"


def ffmpeg_blocks(handle: BinaryIO, name: str, sampling_rate: int) -> Iterator[np.ndarray]:
    """Yields mono float32 blocks `(samples,)` of an opened file.

    Args:
        handle: at its beginning.
        name (`str`): of the file, for messages.
        sampling_rate (`int`): in Hz.
    Raises:
        MissingDecoderError: PyAV is not installed.
        ValueError: it has no sound, or is damaged.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDecoderError(
            f'{name}: needs FFmpeg to be decoded; run `pip install "pianobind[formats]"`, or convert it to FLAC.'
        ) from error
    try:
        with av.open(handle) as container:
            if not container.streams.audio:
                raise ValueError(f"{name}: there is no sound in it; leave it out.")
            stream = container.streams.audio[0]
            if not stream.rate:
                raise ValueError(f"{name}: cannot be decoded as audio (it states no sampling rate); export it again.")
            planes = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            resampler = soxr.ResampleStream(stream.rate, sampling_rate, 1, dtype="float32")
            for frame in container.decode(stream):
                for part in planes.resample(frame):
                    yield resampler.resample_chunk(np.ascontiguousarray(part.to_ndarray().mean(axis=0)))
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    except av.FFmpegError as error:
        raise ValueError(
            f"{name}: cannot be decoded as audio ({error.strerror}); if it plays elsewhere, convert it to WAV or FLAC."
        ) from error


__all__ = ["AAC_STARTS", "MissingDecoderError", "ffmpeg_blocks", "needs_ffmpeg"]
