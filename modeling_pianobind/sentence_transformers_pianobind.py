"""PianoBind as the one module of a `SentenceTransformer` (5.4 or newer), with routes for text, audio and MIDI."""

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.modules import InputModule
from transformers import AutoModel, AutoProcessor

from .sources_pianobind import embed_sources, source_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor


class PianoBindSentenceModule(InputModule):
    """Takes the inputs of `source_of`: text, paths, `{"midi": content}`, `{"array": ..., "sampling_rate": ...}`.

    Text goes through the towers as tensors, so that it can be trained; files are embedded window by window, whatever
    their length, without gradients. The files of one call to `encode` are of one modality.

    Args:
        model (`PianoBindModel`), processor (`PianoBindProcessor`): of one checkpoint.
    """

    def __init__(self, model: "PianoBindModel", processor: "PianoBindProcessor"):
        super().__init__()
        self.model, self.processor = model, processor

    @property
    def modalities(self) -> list[str]:
        return [name for name in ("text", "audio", "midi") if getattr(self.model, f"{name}_model") is not None]

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self.processor.tokenizer

    @property
    def max_seq_length(self) -> int:
        return min(self.tokenizer.model_max_length, self.processor.text_max_length)

    def get_embedding_dimension(self) -> int:
        return self.model.config.projection_dim

    def preprocess(self, inputs: list, prompt: str | None = None, **kwargs: Any) -> dict:
        """One batch: `input_ids` and `attention_mask` where all of it is text, `sources` otherwise."""
        sources = [source_of(value) for value in inputs]
        if any(source.modality != "text" for source in sources):
            return {"sources": sources}
        return dict(self.processor.tokenize([(prompt or "") + source.content for source in sources], "pt"))

    def forward(self, features: dict, **kwargs: Any) -> dict:
        """Adds `sentence_embedding`, `(batch, dim)` of unit length."""
        if "sources" in features:
            embeds = embed_sources(self.model, self.processor, features["sources"])
            features["sentence_embedding"] = torch.from_numpy(embeds).to(self.model.device)
        else:
            tokens = {name: features[name] for name in ("input_ids", "attention_mask")}
            features["sentence_embedding"] = self.model.get_text_features(**tokens)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        token: str | bool | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> "PianoBindSentenceModule":
        """Loads model and processor of a published checkpoint; see `InputModule.load` for the arguments."""
        hub = {"token": token, "cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only}
        hub["trust_remote_code"] = True  # as this code, which is in the folder of the model's code
        model = AutoModel.from_pretrained(model_name_or_path, **hub, **(kwargs.get("model_kwargs") or {}))
        processor = AutoProcessor.from_pretrained(model_name_or_path, **hub, **(kwargs.get("processor_kwargs") or {}))
        return cls(model, processor)


__all__ = ["PianoBindSentenceModule"]
