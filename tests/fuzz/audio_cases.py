"""Recordings with wrong headers and bodies, in every format that the decoder recognises by content."""

import io
from functools import cache
from random import Random

import numpy as np
import soundfile

from .byte_cases import damaged, number

SAMPLING_RATE = 16_000
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav8": ("WAV", "PCM_U8"),
    "wav24": ("WAV", "PCM_24"),
    "wav_float": ("WAV", "FLOAT"),
    "wav_double": ("WAV", "DOUBLE"),
    "wav_ulaw": ("WAV", "ULAW"),
    "wav_ima": ("WAV", "IMA_ADPCM"),
    "wav_ms": ("WAV", "MS_ADPCM"),
    "wav_gsm": ("WAV", "GSM610"),
    "wavex": ("WAVEX", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "flac24": ("FLAC", "PCM_24"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    # What these names may hide, since the decoder goes by content:
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "mat5": ("MAT5", "PCM_16"),
    "xi": ("XI", "DPCM_16"),
    "sds": ("SDS", "PCM_16"),
    "nist": ("NIST", "PCM_16"),
    "paf": ("PAF", "PCM_16"),
    "ircam": ("IRCAM", "PCM_16"),
    "svx": ("SVX", "PCM_16"),
    "pvf": ("PVF", "PCM_16"),
    "avr": ("AVR", "PCM_16"),
    "htk": ("HTK", "PCM_16"),
}
# By the extensions that the package reads; `audio_case` draws from all of `FORMATS` where it is given none of these.
FAMILIES = {
    "wav": tuple(name for name in FORMATS if name.startswith("wav")),
    "flac": ("flac", "flac24"),
    "mp3": ("mp3",),
    "ogg": ("vorbis", "opus"),
}


@cache
def sound_file(name: str) -> bytes:
    """A quarter of a second in a format of `FORMATS`."""
    file_format, subtype = FORMATS[name]
    time = np.arange(SAMPLING_RATE // 4) / SAMPLING_RATE
    samples = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    content, rate = io.BytesIO(), 8_000 if subtype == "GSM610" else SAMPLING_RATE
    soundfile.write(content, samples, rate, format=file_format, subtype=subtype)
    return content.getvalue()


def audio_case(random: Random, family: str | None = None) -> bytes:
    """The content of a recording in a format of a family of `FAMILIES`, or in any."""
    name = random.choice(FAMILIES.get(family) or list(FORMATS))
    content, chance = sound_file(name), random.random()
    if chance < 0.3 and name.startswith("wav"):
        content = wrong_wav_field(random, content)
    elif chance < 0.4 and name.startswith("flac"):
        content = wrong_flac_info(random, content)
    elif chance < 0.5:
        other = sound_file(random.choice(list(FORMATS)))
        content = content[: random.randrange(len(content))] + other[random.randrange(len(other)) :]
    return damaged(random, content) if random.random() < 0.7 else content


def wrong_wav_field(random: Random, content: bytes) -> bytes:
    """Another number for the tag, channels, rate, bytes a second, block size, bits, or a chunk's length."""
    at, size = random.choice(((4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (40, 4)))
    return content[:at] + number(random, size, "little") + content[at + size :]


def wrong_flac_info(random: Random, content: bytes) -> bytes:
    """Another number among block sizes, rate, channels and length, which FLAC keeps in the bytes 8 to 26."""
    at = random.randrange(8, 26)
    return content[:at] + number(random, random.choice((1, 2, 4, 5))) + content[at + 4 :]
