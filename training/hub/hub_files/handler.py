"""Inference Endpoint of a published PianoBind checkpoint: words or a file in, embeddings or ranked labels out.

A request is `{"inputs": ..., "parameters": {"candidate_labels": [...], "top_k": 8}}`; `parameters` may be left out.
`inputs` is words or a list of them, the content of a file (bytes), or one of `{"text": words}`, `{"audio": file}`,
`{"midi": file}`, `{"score": file}` and `{"file": file}`, where a file is bytes or base64. The answer is
`{"embeddings": [[...], ...]}`, with `candidate_labels` `{"labels": [{"label": ..., "score": ...}, ...]}`, best first,
or `{"error": "what is wrong"}`.
"""

import base64
import binascii
import io
import logging

import soundfile
from transformers import AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

# What differs from the page's limits: one request at a time, but with larger files and longer texts.
LIMITS = {"file_megabytes": 25.0, "midi_share": 0.08, "characters": 2_000, "running": 1}
MAX_TEXTS, MAX_LABELS = 64, 256
FILES = {"midi": "a MIDI file", "score": "a score", "audio": "no MIDI file or score"}  # by their content


class RequestError(ValueError):
    """An invalid request; the message is one line."""


class EndpointHandler:
    """Answers requests one at a time, so that memory stays bounded.

    Args:
        path (`str`): folder of the published checkpoint, its code files included.
    """

    def __init__(self, path: str = ""):
        self.model = AutoModel.from_pretrained(path, trust_remote_code=True).eval()
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)
        self.embed, self.tag = (
            get_class_from_dynamic_module(f"pipelines_pianobind.{name}", path)(
                model=self.model, processor=self.processor
            )
            for name in ("PianoEmbeddingPipeline", "PianoTaggingPipeline")
        )
        self._limits = get_class_from_dynamic_module("gate_pianobind.Limits", path)(**LIMITS)
        self.gate = get_class_from_dynamic_module("gate_pianobind.Gate", path)(
            self._limits.running, self._limits.waiting, self._limits.patience_seconds
        )
        self._modality_of = get_class_from_dynamic_module("inputs_pianobind.content_modality", path)

    def __call__(self, data: dict) -> dict:
        """Answers one request; every failure is an answer too."""
        try:
            with self.gate.turn():
                sources, labels, top_k = self._read(data)
                if labels is not None:
                    return {"labels": self.tag(sources[0], candidate_labels=labels, top_k=top_k)}
                return {"embeddings": [row.tolist() for row in self.embed(sources)]}
        except (ValueError, OSError) as error:  # a wrong request, or a server that is busy
            return {"error": " ".join(str(error).split())}
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            return {"error": "the request failed on the server; its log says why."}

    def _read(self, data: object) -> tuple[list, list[str] | None, int]:
        """Sources, candidate labels and `top_k` of a request, all within the limits."""
        if not isinstance(data, dict) or "inputs" not in data:
            raise RequestError('the request has no "inputs"; send {"inputs": ..., "parameters": {...}}.')
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict) or set(parameters) - {"candidate_labels", "top_k"}:
            raise RequestError('"parameters" may hold "candidate_labels" and "top_k", and nothing else.')
        labels, top_k = parameters.get("candidate_labels"), parameters.get("top_k", 8)
        if isinstance(labels, str):
            labels = labels.split(",")
        if labels is not None:
            self._check_texts(labels, "candidate_labels", MAX_LABELS)
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise RequestError(f'"top_k" is {top_k!r}; it must be a whole number of at least 1.')
        sources = self._sources(data["inputs"])
        if labels is not None and len(sources) != 1:
            raise RequestError("labels are ranked for one input at a time; send one.")
        return sources, labels, top_k

    def _sources(self, inputs: object) -> list:
        if isinstance(inputs, (str, list)):
            inputs = {"text": inputs}
        elif isinstance(inputs, (bytes, bytearray)):
            inputs = {"file": inputs}
        if not isinstance(inputs, dict) or len(inputs) != 1 or set(inputs) - {"text", "file", *FILES}:
            raise RequestError(
                '"inputs" is neither words, bytes nor one of {"text"}, {"audio"}, {"midi"}, {"score"}, {"file"}.'
            )
        ((kind, value),) = inputs.items()
        if kind == "text":
            texts = [value] if isinstance(value, str) else value
            self._check_texts(texts, "the text", MAX_TEXTS)
            return [{"text": text} for text in texts]
        content = self._content(value)
        modality = self._modality_of(content[:12])
        modality = modality if modality in FILES else "audio"  # whatever else decodes
        if kind != "file" and (modality == "audio") != (kind == "audio"):
            raise RequestError(f'the content sent as "{kind}" is {FILES[modality]}; send it as "file".')
        return [self._audio(content) if modality == "audio" else self._notes(content, modality)]

    def _notes(self, content: bytes, modality: str) -> dict:
        limits = self._limits
        if modality == "midi" and len(content) > limits.midi_megabytes * 1e6:
            raise RequestError(_too_large(FILES[modality], len(content), limits.midi_megabytes))
        notes = self.processor.midi_processor.read(content)  # notes only; its windows come after the check
        if notes.seconds > 60 * limits.minutes or len(notes) > limits.notes:
            raise RequestError(
                f"the piece has {len(notes)} notes in {notes.seconds:.0f} s; at most {limits.notes} in "
                f"{60 * limits.minutes:g} s are allowed: send a part of it."
            )
        return {"midi": notes}

    def _audio(self, content: bytes) -> dict:
        try:
            seconds = soundfile.info(io.BytesIO(content)).duration  # of the header; nothing is decoded
        except soundfile.LibsndfileError as error:
            raise RequestError(
                "the content is neither MIDI, a score nor audio that can be decoded "
                f"({error.error_string.strip('. ')}); send WAV, FLAC, MP3, OGG, a Standard MIDI File or MusicXML."
            ) from error
        max_seconds = 60 * self._limits.minutes
        if seconds > max_seconds:
            raise RequestError(
                f"the recording lasts {seconds:.0f} s; at most {max_seconds:g} s are allowed: send a part."
            )
        return {"audio": content}

    def _check_texts(self, texts: object, name: str, max_count: int) -> None:
        if not isinstance(texts, list) or not 1 <= len(texts) <= max_count:
            raise RequestError(f"{name}: send a list of 1 to {max_count} strings.")
        max_characters = self._limits.characters
        for text in texts:
            if not isinstance(text, str) or not text.strip() or len(text) > max_characters:
                raise RequestError(f"{name}: each has to be a string of 1 to {max_characters} characters.")

    def _content(self, value: object) -> bytes:
        """The bytes of a file; base64 is measured before it is decoded."""
        max_megabytes = self._limits.file_megabytes
        if isinstance(value, str):
            encoded = value.partition("base64,")[2] if value.startswith("data:") else value
            if len(encoded) * 3 // 4 > max_megabytes * 1e6 + 3:
                raise RequestError(_too_large("a file", len(encoded) * 3 // 4, max_megabytes))
            try:
                value = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                raise RequestError(f"the file is not valid base64 ({error}); encode its bytes again.") from error
        if not isinstance(value, (bytes, bytearray)):
            raise RequestError(f"a file is bytes or base64, not {type(value).__name__}.")
        if len(value) > max_megabytes * 1e6:
            raise RequestError(_too_large("a file", len(value), max_megabytes))
        if not value:
            raise RequestError("the file is empty; send its content.")
        return bytes(value)


def _too_large(what: str, size: int, max_megabytes: float) -> str:
    return f"{what} has {size / 1e6:.1f} MB; at most {max_megabytes:g} MB are allowed: send a shorter one."
