"""PianoBind: piano audio, piano MIDI and text in one embedding space."""

import inspect
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.utils import ModelOutput

from .audio_encoder_pianobind import PianoBindEncoderTower, audio_encoder_of
from .configuration_pianobind import PianoBindAudioConfig, PianoBindConfig
from .towers_pianobind import PianoBindAudioModel, PianoBindMidiModel, PianoBindPreTrainedModel, masked_mean

MAX_LOGIT_SCALE = 4.6052  # ln(100): CLIP's bound, arXiv 2103.00020, section 2.5


@dataclass
class PianoBindOutput(ModelOutput):
    """Output of `PianoBindModel`; fields of absent modalities are None.

    Attributes:
        loss (`torch.Tensor` of shape `()`): mean over the pairs of `config.loss_pairs` that are there; only with
            `return_loss=True`.
        logits_per_audio (`torch.Tensor` of shape `(audio batch, text batch)`): scaled similarities.
        logits_per_midi (`torch.Tensor` of shape `(MIDI batch, text batch)`): scaled similarities.
        logits_per_text (`torch.Tensor` of shape `(text batch, audio or MIDI batch)`): the transpose of
            `logits_per_audio`, or of `logits_per_midi` where no audio was given.
        logits_per_audio_midi (`torch.Tensor` of shape `(audio batch, MIDI batch)`): scaled similarities.
        audio_embeds, midi_embeds, text_embeds (`torch.Tensor` of shape `(batch, projection_dim)`): unit length.
    """

    loss: torch.FloatTensor | None = None
    logits_per_audio: torch.FloatTensor | None = None
    logits_per_midi: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    logits_per_audio_midi: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    midi_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None


def contrastive_loss(
    logits: torch.Tensor, positives: torch.Tensor | None = None, ignored: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric contrastive loss.

    Args:
        logits (`torch.Tensor` of shape `(rows, columns)`): scaled similarities.
        positives (`torch.Tensor` of shape `(rows, columns)`, bool, *optional*): pairs that belong together; the
            diagonal by default. With several in a row, the loss is the mean of their cross-entropies.
        ignored (`torch.Tensor` of shape `(rows, columns)`, bool, *optional*): pairs left out of the loss.
    Returns:
        `torch.Tensor` of shape `()`: mean of both directions. Rows (or columns) without a positive take no part.
    Source: CLIP (arXiv 2103.00020, figure 3); several positives as L_out of arXiv 2004.11362, equation 2.
    """
    if positives is None:
        positives = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    if ignored is not None:
        logits = logits.masked_fill(ignored & ~positives, float("-inf"))
    losses = []
    for scores, right in ((logits, positives), (logits.T, positives.T)):
        log_probabilities = scores.float().log_softmax(dim=1)
        count = right.sum(1)
        row_loss = -log_probabilities.masked_fill(~right, 0.0).sum(1) / count.clamp(min=1)
        losses.append(row_loss.sum() / (count > 0).sum().clamp(min=1))
    return sum(losses) / 2


class LogitScale(nn.Module):
    """The learned inverse temperature; a module of its own, so that PEFT can train and save it."""

    def __init__(self, initial: float):
        super().__init__()
        self.initial = initial
        self.weight = nn.Parameter(torch.tensor(float(initial)))

    def forward(self, similarities: torch.Tensor) -> torch.Tensor:
        return similarities * self.weight.clamp(max=MAX_LOGIT_SCALE).exp()


class PianoBindModel(PianoBindPreTrainedModel):
    """The three towers and their projections into one space."""

    config_class = PianoBindConfig
    main_input_name = "input_features"

    def __init__(self, config: PianoBindConfig):
        super().__init__(config)
        self.audio_model = self.midi_model = self.text_model = None
        if config.audio_config is not None:
            self.audio_model = _audio_tower(config.audio_config)
            width = getattr(config.audio_config, "output_size", None) or config.audio_config.hidden_size
            self.audio_projection = nn.Linear(width, config.projection_dim, bias=False)
        if config.midi_config is not None:
            self.midi_model = PianoBindMidiModel._from_config(config.midi_config)
            self.midi_projection = nn.Linear(config.midi_config.output_size, config.projection_dim, bias=False)
        if config.text_config is not None:
            self.text_model = AutoModel.from_config(config.text_config, **without_pooler(config.text_config))
            self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = LogitScale(config.logit_scale_init_value)
        self.post_init()

    @classmethod
    def from_encoders(
        cls,
        audio: str | os.PathLike | None = None,
        midi: str | os.PathLike | None = None,
        text: str | os.PathLike | None = None,
        **overrides: Any,
    ) -> "PianoBindModel":
        """Puts pretrained encoders together; the projections between them are new and have to be trained.

        A tower of a PianoBind checkpoint with the same `projection_dim` brings its projection, and a text tower its
        temperature.

        Args:
            audio (`str` or `Path`, *optional*): Hub id or folder of a PianoBind checkpoint, or of AST, Wav2Vec2,
                HuBERT, WavLM, Whisper or CLAP.
            midi (`str` or `Path`, *optional*): of a PianoBind checkpoint, or of a converted MIDI-BERT.
            text (`str` or `Path`, *optional*): of any Hugging Face text encoder.
            overrides: fields of `PianoBindConfig`.
        Returns:
            `PianoBindModel` in eval mode; `PianoBindProcessor.from_encoders` makes the processor that belongs to it.
        """
        towers, projections, temperature = {}, {}, None
        for modality, source in (("audio", audio), ("midi", midi), ("text", text)):
            if source is None:
                continue
            towers[modality], whole = load_tower(modality, source, cls)
            overrides[f"{modality}_config"] = towers[modality].config
            if whole is not None:
                projections[modality] = getattr(whole, f"{modality}_projection").weight
                if modality == "text":
                    overrides.setdefault("pool_text_padding", whole.config.pool_text_padding)
                    temperature = whole.logit_scale.weight
        if not towers:
            raise ValueError("nothing to put together: name an encoder for `audio`, `midi` or `text`.")
        model = cls(PianoBindConfig(**overrides))
        for modality, tower in towers.items():
            setattr(model, f"{modality}_model", tower)
            own = getattr(model, f"{modality}_projection").weight
            if modality in projections and projections[modality].shape == own.shape:
                own.data.copy_(projections[modality].data)
        if temperature is not None:
            model.logit_scale.weight.data.copy_(temperature.data)
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        """Word embeddings of the text tower; trainers compare their number with the tokenizer's."""
        return (super() if self.text_model is None else self.text_model).get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        (super() if self.text_model is None else self.text_model).set_input_embeddings(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LogitScale):
            init.constant_(module.weight, module.initial)

    def forward(
        self,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        midi_ids: torch.Tensor | None = None,
        midi_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> PianoBindOutput:
        """Embeds what is given and compares each modality with each other.

        Args:
            input_features, audio_attention_mask: see `get_audio_features`.
            midi_ids, midi_attention_mask: see `get_midi_features`.
            input_ids, attention_mask: see `get_text_features`.
            return_loss (`bool`): also the contrastive loss; row `i` of each modality is then the same piece.
            return_dict (`bool`, *optional*): False gives a tuple; the config says which by default.
        """
        audio = midi = text = None
        if input_features is not None:
            audio = self.get_audio_features(input_features, audio_attention_mask)
        if midi_ids is not None:
            midi = self.get_midi_features(midi_ids, midi_attention_mask)
        if input_ids is not None:
            text = self.get_text_features(input_ids, attention_mask, **kwargs)
        if audio is None and midi is None and text is None:
            raise ValueError("nothing to embed: pass `input_features`, `midi_ids` or `input_ids`.")

        per_audio, per_midi, audio_midi = (
            None if first is None or second is None else self.logit_scale(first @ second.T)
            for first, second in ((audio, text), (midi, text), (audio, midi))
        )
        per_text = next((logits.T for logits in (per_audio, per_midi) if logits is not None), None)
        loss = None
        if return_loss:
            logits_of = {"audio_text": per_audio, "midi_text": per_midi, "audio_midi": audio_midi}
            given = [logits_of[pair] for pair in self.config.loss_pairs if logits_of[pair] is not None]
            if not given:
                pairs = " or ".join(self.config.loss_pairs)
                raise ValueError(f"`return_loss=True` needs two modalities that are compared ({pairs}).")
            loss = sum(contrastive_loss(logits) for logits in given) / len(given)
        output = PianoBindOutput(loss, per_audio, per_midi, per_text, audio_midi, audio, midi, text)
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()

    def get_audio_features(
        self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds recordings.

        Args:
            input_features (`torch.Tensor` of shape `(batch, windows, frames, mels)`): log-mel windows;
                `(batch, frames, mels)` is one window each.
            audio_attention_mask (`torch.Tensor` of shape `(batch, windows, frames)`, *optional*): 0 on padding; a
                window that is 0 throughout does not exist.
        Returns:
            `torch.Tensor` of shape `(batch, projection_dim)`, float32, unit length: the mean over its windows.
        """
        return mean_of_windows(*self.audio_windows(input_features, audio_attention_mask))

    def audio_windows(
        self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Embeds the windows of recordings, which `get_audio_features` averages.

        Returns:
            `(windows, projection_dim)` unit rows, the recording of each `(windows,)`, and their count.
        """
        tower = self._tower("audio")
        if input_features.dim() == 1 + tower.window_dims:
            input_features = input_features[:, None]
        if audio_attention_mask is None:
            audio_attention_mask = input_features.new_ones(input_features.shape[:3], dtype=torch.long)
        audio_attention_mask = audio_attention_mask.view(*input_features.shape[:2], -1)
        exists = (audio_attention_mask != 0).any(-1)  # (batch, windows)
        piece = exists.nonzero()[:, 0]
        features, mask = input_features[exists], audio_attention_mask[exists]
        return self._project("audio", tower.pool(tower(features, mask), mask)), piece, len(exists)

    def get_midi_features(
        self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds MIDI.

        Args:
            midi_ids (`torch.Tensor` of shape `(batch, notes, fields)`): note rows.
            midi_attention_mask (`torch.Tensor` of shape `(batch, notes)`, *optional*): 0 on padding, `k` for notes of
                the `k`-th window; a mask of 0 and 1 is one window. Without it, rows of PAD are padding.
        Returns:
            `torch.Tensor` of shape `(batch, projection_dim)`, float32, unit length: the mean over its windows.
        """
        return mean_of_windows(*self.midi_windows(midi_ids, midi_attention_mask))

    def midi_windows(
        self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Embeds the windows of MIDI, which `get_midi_features` averages; returns what `audio_windows` does."""
        tower = self._tower("midi")
        if midi_attention_mask is None:
            pad = self.config.midi_config.field_sizes[0] - 2
            midi_attention_mask = (midi_ids[..., 0] != pad).long()
        piece = torch.arange(len(midi_ids), device=midi_ids.device)
        if midi_attention_mask.max() > 1:
            midi_ids, midi_attention_mask, piece = _split_windows(midi_ids, midi_attention_mask)
        midi_ids, midi_attention_mask = tower.pad(midi_ids, midi_attention_mask)
        hidden = tower.pool(tower(midi_ids, midi_attention_mask), midi_attention_mask)
        return self._project("midi", hidden), piece, int(piece[-1]) + 1

    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Embeds text.

        Args:
            input_ids, attention_mask (`torch.Tensor` of shape `(batch, tokens)`): what the tokenizer gives.
        Returns:
            `torch.Tensor` of shape `(batch, projection_dim)`, float32, unit length.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self._tower("text")(input_ids=input_ids, attention_mask=attention_mask, **kwargs)[0]
        mask = torch.ones_like(attention_mask) if self.config.pool_text_padding else attention_mask
        return self._project("text", masked_mean(hidden, mask))

    def _tower(self, modality: str) -> nn.Module:
        tower = getattr(self, f"{modality}_model")
        if tower is None:
            has = [name for name in ("audio", "midi", "text") if getattr(self, f"{name}_model") is not None]
            raise ValueError(
                f"this checkpoint has no {modality} tower, only {' and '.join(has)}; load one that has it, "
                f"such as `default_checkpoint()`."
            )
        return tower

    def _project(self, modality: str, pooled: torch.Tensor) -> torch.Tensor:
        projected = getattr(self, f"{modality}_projection")(pooled)
        return F.normalize(projected.float(), dim=-1)


def _audio_tower(config: PreTrainedConfig) -> nn.Module:
    # By its name, since code loaded from the Hub may know the config's class from another folder than the model's.
    if config.model_type == PianoBindAudioConfig.model_type:
        return PianoBindAudioModel._from_config(config)
    return PianoBindEncoderTower(config)


def _split_windows(midi_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Splits rows of several windows into one row for each window.

    Returns:
        ids `(windows, notes, fields)`, mask `(windows, notes)` of 0 and 1, and the piece of each window `(windows,)`.
    """
    windows = int(mask.max()) + 1
    row, place = mask.nonzero(as_tuple=True)
    window, place_window, counts = torch.unique_consecutive(
        row * windows + mask[row, place], return_inverse=True, return_counts=True
    )
    first = counts.cumsum(0) - counts
    column = torch.arange(len(row), device=mask.device) - first[place_window]
    ids = midi_ids.new_zeros(len(window), int(counts.max()), midi_ids.shape[-1])
    ids[place_window, column] = midi_ids[row, place]
    split_mask = mask.new_zeros(ids.shape[:2])
    split_mask[place_window, column] = 1
    return ids, split_mask, window // windows


def mean_of_windows(embeds: torch.Tensor, piece: torch.Tensor, pieces: int) -> torch.Tensor:
    """Unit embeddings of windows -> unit embeddings of the pieces that they belong to."""
    if len(embeds) == pieces:
        return embeds
    return F.normalize(embeds.new_zeros(pieces, embeds.shape[1]).index_add(0, piece, embeds), dim=-1)


def load_tower(modality: str, source: str | os.PathLike, whole_class: type) -> tuple:
    """Loads one modality's pretrained encoder.

    Args:
        modality (`str`): "audio", "midi" or "text".
        source (`str` or `Path`): Hub id or folder of an encoder, or of a whole PianoBind checkpoint.
        whole_class: `PianoBindModel`.
    Returns:
        The tower, and the whole checkpoint that it comes from, or None.
    Raises:
        ValueError: there is no encoder for this modality in it.
    """
    config = AutoConfig.from_pretrained(source)
    float32 = {"dtype": torch.float32}  # training starts from full precision, whatever is on disk
    if config.model_type == "pianobind":
        whole = whole_class.from_pretrained(source, **float32)
        return whole._tower(modality), whole
    own_class = {"audio": PianoBindAudioModel, "midi": PianoBindMidiModel}.get(modality)
    if own_class is not None and config.model_type == own_class.config_class.model_type:
        return own_class.from_pretrained(source, **float32), None
    if modality == "midi" or config.model_type.startswith("pianobind"):
        raise ValueError(
            f"{source} holds a {config.model_type!r} model; the {modality} tower needs a PianoBind checkpoint with one"
            + (", or MIDI-BERT converted by `convert_original_checkpoint`." if modality == "midi" else ".")
        )
    if modality == "audio":
        encoder = audio_encoder_of(AutoModel.from_pretrained(source, **float32))
        return PianoBindEncoderTower(encoder.config, encoder), None
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ValueError(f"{source} holds a {config.model_type!r} model, not a text encoder; give one such as BERT.")
    return AutoModel.from_pretrained(source, **float32, **without_pooler(config)), None


def without_pooler(config: PreTrainedConfig) -> dict:
    """Keyword arguments that build a text encoder without BERT's pooler, whose weights would get no gradient."""
    model_class = AutoModel._model_mapping[type(config)]
    takes = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


__all__ = ["PianoBindModel", "PianoBindOutput", "contrastive_loss"]
