"""Pipelines of transformers for files: `piano-embedding`, `zero-shot-piano-tagging` and `piano-classification`."""

from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .embedding_pianobind import embed_example, embed_text
from .labels_pianobind import label_embeddings, rank_labels
from .sources_pianobind import embed_sources, source_of

# What a published config.json records, so that `pipeline(task, model=..., trust_remote_code=True)` finds the classes.
CUSTOM_PIPELINES = {
    "piano-embedding": {
        "impl": "pipelines_pianobind.PianoEmbeddingPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    },
    "zero-shot-piano-tagging": {
        "impl": "pipelines_pianobind.PianoTaggingPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    },
    "piano-classification": {
        "impl": "pipelines_pianobind.PianoClassificationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
        "type": "multimodal",
    },
}


class PianoEmbeddingPipeline(Pipeline):
    """Embeds words, recordings and MIDI: `pipe("calm, slow")`, `pipe("waltz.mid")`, `pipe({"audio": content})`.

    An input is one of `source_of`, or a list of them; files may be of any length.
    Returns `np.ndarray` of shape `(dim,)`, float32, unit length, for each input.
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # A copy: `pipeline` replaces these names by classes, and a config with classes cannot be saved.
        for task in (getattr(self.model.config, "custom_pipelines", None) or {}).values():
            task["pt"] = [getattr(auto_class, "__name__", auto_class) for auto_class in task["pt"]]

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if kwargs:
            raise ValueError(f"{self.task} knows no {', '.join(map(repr, kwargs))}; leave it out.")
        return {}, {}, {}

    def preprocess(self, inputs: Any) -> dict:
        return {"source": source_of(inputs)}

    def _forward(self, model_inputs: dict) -> dict:
        sources = model_inputs["source"]
        sources = sources if isinstance(sources, list) else [sources]  # a list with `batch_size` above 1
        return {"embedding": torch.from_numpy(embed_sources(self.model, self.processor, sources))}  # (batch, dim)

    def postprocess(self, model_outputs: dict) -> np.ndarray:
        return model_outputs["embedding"][0].numpy()


class PianoTaggingPipeline(PianoEmbeddingPipeline):
    """Ranks labels by their cosine with a recording or MIDI file, without training on labels (zero-shot).

    `pipe("waltz.mid", candidate_labels=["calm", "fast"], top_k=2)` returns `[{"label": ..., "score": ...}, ...]`, best
    first; a score is a cosine and not a probability. `candidate_labels` are `labels_pianobind.LABELS` by default.
    """

    def _sanitize_parameters(
        self, candidate_labels: str | list[str] | None = None, top_k: int | None = None, **kwargs: Any
    ) -> tuple[dict, dict, dict]:
        super()._sanitize_parameters(**kwargs)
        given = {"candidate_labels": candidate_labels, "top_k": top_k}
        return {}, {}, {name: value for name, value in given.items() if value is not None}

    def postprocess(
        self, model_outputs: dict, candidate_labels: str | list[str] | None = None, top_k: int = 8
    ) -> list[dict]:
        embedding = super().postprocess(model_outputs)
        ranked = rank_labels(embedding, *self._label_embeddings(candidate_labels), top_k)
        return [{"label": label, "score": score} for label, score in ranked]

    def _label_embeddings(self, labels: str | list[str] | None) -> tuple[list[str], np.ndarray]:
        """The labels and their embeddings; cached for the next call with the same labels."""
        if isinstance(labels, str):  # as transformers' own zero-shot pipelines have it
            labels = labels.split(",")
        key = None if labels is None else tuple(labels)
        if getattr(self, "_kept", (0,))[0] != key:
            self._kept = key, label_embeddings(lambda texts: embed_text(self.model, self.processor, texts), labels)
        return self._kept[1]


class PianoClassificationPipeline(PianoEmbeddingPipeline):
    """Labels recordings, MIDI files and scores by a `PianoBindForSequenceClassification`.

    `pipe("waltz.mid", top_k=2)` returns `[{"label": ..., "score": ...}, ...]`, best first; a score is a probability,
    or the value where the model was trained on numbers. A published classifier answers to `audio-classification` too.
    """

    def _sanitize_parameters(self, top_k: int | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        super()._sanitize_parameters(**kwargs)
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def _forward(self, model_inputs: dict) -> dict:
        sources, head = model_inputs["source"], self.model.label_head
        embeds = []
        for source in sources if isinstance(sources, list) else [sources]:
            if source.modality == "text":
                raise ValueError(f"{source.content!r} is no recording, MIDI file or score; pass one of these.")
            file = embed_example(self.model, self.processor, source.content, source.modality, source.sampling_rate)
            embeds.append(torch.from_numpy(head.pool(file)))
        return {"embedding": torch.stack(embeds)}

    def postprocess(self, model_outputs: dict, top_k: int = 5) -> list[dict]:
        ranked = self.model.label_head.rank(super().postprocess(model_outputs), top_k)
        return [{"label": label, "score": score} for label, score in ranked]


__all__ = ["CUSTOM_PIPELINES", "PianoClassificationPipeline", "PianoEmbeddingPipeline", "PianoTaggingPipeline"]
