"""A piece -> the rows of the dataset: its files are opened, checked, completed, cut and described."""

import hashlib
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from modeling_pianobind.feature_extraction_pianobind import SILENCE_AMPLITUDE
from modeling_pianobind.inputs_pianobind import check_content, content_hash, explain, modality_of
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi, score_from, window_starts
from modeling_pianobind.transcription_pianobind import transcribed_midi

from .build_arguments import BuildArguments
from .captions import MOODS, choose_facts, facts_of_tags, write_caption, write_piast_caption
from .corpus_layouts import UNSTATED_LICENCE
from .cutting import cut_midi, encode_flac, read_span
from .dataset_schema import clean_labels
from .descriptors import descriptor_facts, measure
from .facts import GENRES, creator_name, label_facts
from .melody import melody_fingerprint
from .pieces import Piece
from .rendering import Instrument, fit_length

RENDERED_PEAK = 0.9
DESCRIBED_SECONDS = 20.0  # the thresholds of `descriptors` were set on stretches of this length
MIN_NOTES = 6  # in a stretch that is described
BLOCK_FRAMES = 1 << 20
UNSTATED = (UNSTATED_LICENCE, "unknown", "unspecified", "none", "n/a", "?")
CAPTION_TRIES = 12  # to find wordings that differ


class RefusedError(ValueError):
    """A refused piece: `reason` is a category, the message names the problem."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass
class Inspection:
    """A piece whose files have been opened and checked.

    Attributes:
        seconds (`float`): length of the recording, or of the MIDI if there is none.
        shared_seconds (`float`): up to where both of its files reach; windows end there.
        digests (`list[str]`): of the notes and of the recording; another piece that has one of them is a duplicate.
        fingerprint (`np.ndarray`): of the melody; empty without MIDI.
        notes, velocities (`int`): how many notes, and how many distinct velocities; 0 without MIDI.
        pedal (`bool`): whether the MIDI has sustain pedal.
        files (`dict[Path, tuple[int, int]]`): size and time of the last change of its files, before they were opened.
    """

    seconds: float
    shared_seconds: float
    digests: list[str]
    fingerprint: np.ndarray
    notes: int = 0
    velocities: int = 0
    pedal: bool = False
    files: dict = field(default_factory=dict)


def inspect(piece: Piece, arguments: BuildArguments, work_folder: Path) -> Inspection:
    """Opens and checks the files of a piece; transcribes missing MIDI if the arguments say so.

    Raises:
        RefusedError: the piece does not enter the dataset.
    """
    _check_licence(piece, arguments)
    try:
        piece.labels = clean_labels(piece.labels)
    except ValueError as error:
        raise RefusedError("bad label", str(error)) from error
    if piece.problem:
        raise RefusedError("several files", piece.problem)
    for path in (piece.midi, piece.audio):
        if path is not None and not path.is_file():
            raise RefusedError("missing file", f"{path}: the metadata name it, but it is not there.")
    if piece.midi is None and piece.audio is None:
        raise RefusedError("missing file", "the metadata name this piece, but neither MIDI nor recording is there.")
    seconds, shared, digests = 0.0, np.inf, []
    if piece.audio is not None:
        seconds = _check_audio(piece.audio)
        shared = seconds
        digests.append("audio " + content_hash(piece.audio))
        if seconds > arguments.max_seconds:  # before the transcription, which takes long
            raise RefusedError("too long", f"it lasts {seconds:.0f} s; `max_seconds` is {arguments.max_seconds:.0f}.")
        if piece.midi is None and arguments.transcribe:
            name = hashlib.sha256(piece.piece_id.encode()).hexdigest()[:24]
            piece.midi, piece.midi_origin = work_folder / f"{name}.mid", "transcribed"
            try:
                piece.midi.write_bytes(transcribed_midi(piece.audio))
            except ValueError as error:
                raise RefusedError("not transcribed", str(error)) from error
    notes = None
    if piece.midi is not None:
        notes = _read_notes(piece.midi)
        ends = _ring_seconds(notes)
        if piece.audio is not None and abs(ends - seconds) > arguments.pair_seconds:
            raise RefusedError(
                "lengths differ",
                f"the recording lasts {seconds:.1f} s, the MIDI {ends:.1f} s; `pair_seconds` allows less.",
            )
        seconds = seconds or ends
        shared = min(shared, ends)
        digests += _note_digests(notes)
        if len(notes) < arguments.min_notes:
            raise RefusedError("too short", f"it has {len(notes)} notes; `min_notes` is {arguments.min_notes}.")
    for reason, wrong, limit in (
        ("too short", seconds < arguments.min_seconds, "min_seconds"),
        ("too long", seconds > arguments.max_seconds, "max_seconds"),
    ):
        if wrong:
            raise RefusedError(reason, f"it lasts {seconds:.1f} s; `{limit}` is {getattr(arguments, limit):g}.")
    if notes is None:
        return Inspection(seconds, shared, digests, np.zeros(0, np.uint64))
    pedal = bool((notes.pedal > 0).any())
    velocities = len(np.unique(notes.velocity))
    return Inspection(seconds, shared, digests, melody_fingerprint(notes), len(notes), velocities, pedal)


def _check_licence(piece: Piece, arguments: BuildArguments) -> None:
    licence = str(piece.labels.get("licence") or "").strip()
    if not licence:
        raise RefusedError(
            "no licence", "no licence is given; write one in the metadata or as `licence` of the source."
        )
    if licence.lower() in UNSTATED and not arguments.keep_unstated_licence:
        raise RefusedError(
            "licence not stated",
            "its corpus states no licence; give the source a `licence` that you know, or set `keep_unstated_licence`.",
        )
    piece.labels["licence"] = licence


def _check_audio(path: Path) -> float:
    """Decodes a whole recording block by block; returns its length in seconds."""
    try:
        check_content(path, "audio")
        with soundfile.SoundFile(path) as sound:
            peak, frames = 0.0, 0
            while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise RefusedError("corrupt", f"{path}: it holds samples that are not finite numbers.")
                peak, frames = max(peak, float(np.abs(block).max())), frames + len(block)
            rate = sound.samplerate
    except soundfile.LibsndfileError as error:
        raise RefusedError("corrupt", f"{path}: cannot be decoded as audio ({error.error_string}).") from error
    except (ValueError, OSError) as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError("corrupt", explain(path, error)) from error
    if peak <= SILENCE_AMPLITUDE:
        raise RefusedError("silent", f"{path}: the recording is silent.")
    return frames / rate


def _read_notes(path: Path) -> PianoNotes:
    try:
        check_content(path, modality_of(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few notes beyond the piano's keys are no reason to refuse a piece
            return read_midi(path, solo_only=True)
    except (ValueError, OSError) as error:
        message = explain(path, error)
        not_piano = "not a piano piece" in message or "lies on a piano" in message
        raise RefusedError("not piano" if not_piano else "corrupt", message) from error


def _ring_seconds(notes: PianoNotes) -> float:
    return float((notes.onset + notes.duration + notes.pedal).max())


def _note_digests(notes: PianoNotes) -> list[str]:
    """Two digests; files of the same performance share at least one, regardless of name and resolution.

    They are made of the pitches in their order and of the length on a logarithmic scale, in bins of a percent that
    overlap by half; so another tempo or key, or another player, is not a duplicate.
    """
    pitches = hashlib.sha256(notes.pitch.astype(np.uint8).tobytes()).hexdigest()
    bins = np.log(max(float(notes.onset[-1] - notes.onset[0]), 0.01)) / np.log(1.01)
    return [f"notes {pitches} {np.floor(bins):.0f}", f"notes {pitches} half {np.floor(bins + 0.5):.0f}"]


def rows_of(piece: Piece, seen: Inspection, arguments: BuildArguments, instruments: list) -> Iterator[dict]:
    """The rows of a piece, in time order: one, or one a window. Audio and MIDI of a row cover the same seconds.

    Args:
        instruments (`list`): instruments that render missing audio (training.data.rendering); empty for none.
    """
    random_piece = random.Random(f"{arguments.seed} {piece.piece_id}")
    notes = score = rendered = None
    if piece.midi is not None:
        score = score_from(piece.midi, str(piece.midi))
        notes = _read_notes(piece.midi)
    if piece.audio is None and instruments:
        rendered = _render(notes, seen.seconds, random_piece.choice(instruments), arguments.sampling_rate)
    base = {
        "piece_id": piece.piece_id,
        "source": piece.source,
        "audio_origin": "real" if piece.audio else "rendered" if rendered is not None else None,
        "midi_origin": piece.midi_origin if piece.midi else None,
        "notes": seen.notes,
        "velocities": seen.velocities,
        "pedal": seen.pedal,
        **{key: value for key, value in piece.labels.items() if key != "captions"},
        "tags": _tags(piece.labels),
    }
    window = arguments.window_seconds
    if not window:
        spans = [(0.0, seen.seconds)]
    else:
        starts = window_starts(seen.shared_seconds, window, arguments.hop_seconds or window)
        spans = [(float(start), min(float(start) + window, seen.shared_seconds)) for start in starts]
    for start, end in spans:
        row = base | {"start_seconds": start, "end_seconds": end, "seconds": end - start, "audio": None, "midi": None}
        inside = None
        if notes is not None:
            inside = notes.crop(start, end)
            if len(inside) < arguments.min_notes:
                continue
            row["midi"] = cut_midi(score, start, end) if window or not _is_midi(piece) else piece.midi.read_bytes()
        row["audio"] = _audio_of(piece, rendered, start, end, bool(window), arguments.sampling_rate)
        row |= _captions_of(piece, inside, end - start, arguments, random_piece)
        yield row


def _is_midi(piece: Piece) -> bool:
    return modality_of(piece.midi) == "midi"


def _render(notes: PianoNotes, seconds: float, instrument: Instrument, sampling_rate: int) -> np.ndarray:
    audio = fit_length(instrument.render(notes, sampling_rate), round(seconds * sampling_rate))
    return audio * np.float32(RENDERED_PEAK / max(float(np.abs(audio).max()), 1e-4))


def _audio_of(
    piece: Piece, rendered: np.ndarray | None, start: float, end: float, cut: bool, sampling_rate: int
) -> dict | None:
    name = f"{piece.piece_id.replace('/', '-')}-{start:.0f}.flac"
    if rendered is not None:
        first = round(start * sampling_rate)
        samples = rendered[first : first + round((end - start) * sampling_rate)]
        return {"bytes": encode_flac(samples, sampling_rate), "path": name}
    if piece.audio is None:
        return None
    if not cut:
        return {"bytes": piece.audio.read_bytes(), "path": piece.audio.name}
    return {"bytes": encode_flac(*read_span(piece.audio, start, end)), "path": name}


def _tags(labels: dict) -> list[str]:
    return list(dict.fromkeys(tag for key in ("tags", "genre", "mood", "style") for tag in labels.get(key, ())))


def _captions_of(
    piece: Piece, notes: PianoNotes | None, seconds: float, arguments: BuildArguments, words: random.Random
) -> dict:
    """The given captions, filled up with written ones to the required number, each with its origin."""
    captions = list(dict.fromkeys(piece.labels.get("captions", ())))
    origins = ["given"] * len(captions)
    sure, from_notes, creators = _facts(piece, notes, seconds)
    level = "potentially" if piece.labels["tier"] in ("weak", "generated") else "definitely"
    for _ in range(CAPTION_TRIES):
        if len(captions) >= arguments.captions or not sure | from_notes:
            break
        chosen = choose_facts(sure | from_notes, creators, words)
        caption = ""
        if words.choice(arguments.caption_styles) == "piast":
            caption = write_piast_caption([(level if fact in sure else "also", fact) for fact in chosen])
        if not caption and "search" in arguments.caption_styles:
            caption = write_caption(chosen, creators, words)
        if caption and caption not in captions:
            captions.append(caption)
            origins.append("generated")
    return {"captions": captions, "caption_origins": origins}


def _facts(piece: Piece, notes: PianoNotes | None, seconds: float) -> tuple[set[str], set[str], set[str]]:
    """Facts of the labels, facts of the notes that no label contradicts, and the creator's name."""
    labels = piece.labels | {"source": piece.source}
    tag_facts = facts_of_tags(_tags(labels))
    labels["genre"] = [fact for fact in tag_facts if fact in GENRES]
    labels["mood"] = [fact for fact in tag_facts if fact in MOODS]
    creators = {name} if (name := creator_name(labels)) else set()
    sure, denied = label_facts(labels, creators)
    sure |= set(tag_facts) - {"neutral"}
    from_notes = set()
    if notes is not None:
        starts = window_starts(seconds, DESCRIBED_SECONDS, DESCRIBED_SECONDS)
        windows = [notes.crop(start, start + DESCRIBED_SECONDS) for start in starts]
        windows = [window for window in windows if len(window) >= MIN_NOTES]
        votes = Counter()
        for window in windows:
            votes.update(descriptor_facts(measure(window, min(DESCRIBED_SECONDS, seconds)))[0])
        from_notes = {fact for fact, count in votes.items() if count > len(windows) / 2}
    return sure, from_notes - denied - sure, creators


__all__ = ["Inspection", "RefusedError", "inspect", "rows_of"]
