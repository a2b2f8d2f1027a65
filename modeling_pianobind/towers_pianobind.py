"""The audio and MIDI towers: one window in, one hidden vector out."""

import math
import os
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .checkpoint_pianobind import loading
from .configuration_pianobind import PianoBindAudioConfig, PianoBindMidiConfig
from .midi_pianobind import bin_seconds
from .note_statistics_pianobind import NoteStatistics
from .relative_attention_pianobind import relative_key_query_attention
from .resnet_pianobind import AttentionPool, ModifiedResNet, grid_cells

INDEX_PERIODS = (2 * math.pi, 2 * math.pi * 1_000)  # in places of the sequence
SECONDS_PERIODS = (0.1, 60.0)  # from a grace note to several phrases


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `hidden (batch, length, width)` over the places where `mask (batch, length)` is not 0."""
    weights = (mask != 0).to(hidden.dtype)
    return torch.einsum("bl,blw->bw", weights, hidden) / weights.sum(1, keepdim=True).clamp(min=1)


def rotary_embeddings(seconds: torch.Tensor, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rotary positions; half of them part with the place in the sequence, half with seconds.

    Args:
        seconds (`torch.Tensor` of shape `(batch, length)`): time of each place.
    Returns:
        Cosines and signed sines for `apply_rotary`, each `(batch, 1, length, head_size)`.
    Source: RoFormer (arXiv 2104.09864, section 3.2); differs in that half of the dimensions see seconds.
    """
    index = torch.arange(seconds.shape[1], device=seconds.device, dtype=torch.float32).expand_as(seconds)
    angles = []
    for places, (shortest, longest) in ((index, INDEX_PERIODS), (seconds, SECONDS_PERIODS)):
        steps = torch.linspace(0, 1, head_size // 4, device=seconds.device)
        angles.append(places[..., None] * (2 * math.pi / shortest * (shortest / longest) ** steps))
    angles = torch.cat(angles, dim=-1)[:, None]
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def apply_rotary(x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotates `x (batch, heads, length, head_size)` pairwise: dimension `i` with `i + head_size / 2`."""
    cosine, sine = rotary
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention; `q, k, v (batch, heads, length, head_size)`, `mask (batch, 1, 1, length)` bool.

    The backward pass of torch's fused kernel makes no use of a CPU's bfloat16 matrix products: it takes four to five
    times as long as plain products (64 tokens: 69 against 16 ms on one core), so training in bfloat16 leaves it out.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        hidden = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, torch.finfo(q.dtype).min)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (scores + hidden).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class PianoBindAttention(nn.Module):
    """Multi-head self-attention with rotary or relative key-query positions."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.distance_embedding = None
        if config.position_embedding_type == "relative_key_query":
            head_size = config.hidden_size // config.num_attention_heads
            self.distance_embedding = nn.Embedding(2 * config.max_relative_position - 1, head_size)

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        batch, length, width = hidden.shape
        q, k, v = (
            projection(hidden).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # (batch, heads, length, head_size)
        if self.distance_embedding is None:
            mixed = attend(apply_rotary(q, rotary), apply_rotary(k, rotary), v, attention_mask)
        else:
            mixed = relative_key_query_attention(q, k, v, self.distance_embedding.weight, attention_mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class PianoBindLayer(GradientCheckpointingLayer):
    """Transformer layer: `norm_position="pre"` normalises before attention and MLP, "post" after the residual."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention = PianoBindAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def mlp(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.gelu(self.up_proj(hidden)))

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        if self.pre_norm:
            hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), attention_mask, rotary))
            return hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, attention_mask, rotary)))
        return self.mlp_norm(hidden + self.dropout(self.mlp(hidden)))


class PianoBindTransformer(nn.Module):
    """A stack of layers; with `norm_position="pre"` the sum is normalised at the end."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.layers = nn.ModuleList(PianoBindLayer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_position == "pre" else None
        )

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor, seconds: torch.Tensor | None) -> torch.Tensor:
        """`hidden (batch, length, width)`, `mask (batch, length)` -> the shape of `hidden`.

        `seconds (batch, length)` is what rotary positions part with; None for relative positions.
        """
        attention_mask = (mask != 0)[:, None, None]  # (batch, 1, 1, length): every place sees all that are not padding
        rotary = None
        if seconds is not None:
            rotary = tuple(part.to(hidden.dtype) for part in rotary_embeddings(seconds, self.head_size))
        for layer in self.layers:
            hidden = layer(hidden, attention_mask, rotary)
        return hidden if self.final_norm is None else self.final_norm(hidden)


class PianoBindPreTrainedModel(PreTrainedModel):
    """What all PianoBind models share: initialisation and loading."""

    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["PianoBindLayer"]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *model_args: Any, **kwargs: Any
    ) -> Self:
        """Loads a checkpoint as transformers does; a damaged one raises a ValueError of one line.

        Weights come from safetensors only: those of other formats are pickles.
        """
        kwargs.setdefault("use_safetensors", True)
        with loading(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionPool):
            init.normal_(module.positional_embedding, std=module.positional_embedding.shape[1] ** -0.5)


class PianoBindMidiModel(PianoBindPreTrainedModel):
    """MIDI tower of both families; the config says which."""

    config_class = PianoBindMidiConfig
    main_input_name = "midi_ids"

    def __init__(self, config: PianoBindMidiConfig):
        super().__init__(config)
        self.embeddings = nn.ModuleList(nn.Embedding(size, config.field_embedding_size) for size in config.field_sizes)
        self.input_proj = nn.Linear(config.field_embedding_size * len(config.field_sizes), config.hidden_size)
        self.input_norm = None
        if config.embedding_norm:
            self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.token_proj = None
        if config.notes_per_token > 1:
            self.token_proj = nn.Linear(config.notes_per_token * config.hidden_size, config.hidden_size)
        self.statistics = NoteStatistics(config) if config.note_statistics else None
        self.encoder = PianoBindTransformer(config)
        self.post_init()

    def forward(self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of single windows.

        Args:
            midi_ids (`torch.Tensor` of shape `(windows, notes, fields)`): rows of the MIDI processor.
            midi_attention_mask (`torch.Tensor` of shape `(windows, notes)`): 0 on padding.
        Returns:
            `torch.Tensor` of shape `(windows, tokens, hidden_size)`; a token is `notes_per_token` notes.
        """
        fields = [embedding(midi_ids[..., field]) for field, embedding in enumerate(self.embeddings)]
        hidden = torch.cat(fields, dim=-1)
        if self.config.scale_embeddings:
            hidden = hidden * math.sqrt(self.config.field_embedding_size)
        hidden = self.input_proj(hidden)
        if self.input_norm is not None:
            hidden = F.dropout(self.input_norm(hidden), self.config.hidden_dropout, self.training)
        seconds = self.onset_seconds(midi_ids) if self.config.position_embedding_type == "rotary" else None
        mask, token_seconds = midi_attention_mask, seconds
        if self.token_proj is not None:
            present = (midi_attention_mask != 0)[..., None].to(hidden.dtype)
            hidden = self.token_proj(self._grouped(F.gelu(hidden) * present).flatten(2))
            mask = self._grouped(midi_attention_mask != 0).any(-1)
            token_seconds = None if seconds is None else seconds[:, :: self.config.notes_per_token]
        if self.statistics is not None:
            hidden = hidden + self.statistics(midi_ids, midi_attention_mask, seconds)
        return self.encoder(hidden, mask, token_seconds)

    def _grouped(self, notes: torch.Tensor) -> torch.Tensor:
        """`(windows, notes, ...)` -> `(windows, tokens, notes_per_token, ...)`; the last token is filled up with 0."""
        count = self.config.notes_per_token
        missing = -notes.shape[1] % count
        filled = F.pad(notes, (0, 0) * (notes.dim() - 2) + (0, missing))
        return filled.unflatten(1, (-1, count))

    def pad(self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fills windows up with PAD rows, as far as `pool` looks at padding at all.

        Args:
            midi_ids (`torch.Tensor` of shape `(windows, notes, fields)`): anything where there is no note.
            midi_attention_mask (`torch.Tensor` of shape `(windows, notes)`): 0 where there is none.
        Returns:
            Both, as they are; with `pool_padding`, of `max_relative_position` places.
        """
        if not self.config.pool_padding:
            return midi_ids, midi_attention_mask
        missing = max(0, self.config.max_relative_position - midi_ids.shape[1])
        mask = F.pad(midi_attention_mask, (0, missing))
        pad_row = midi_ids.new_tensor(self.config.field_sizes) - 2
        return torch.where((mask != 0)[..., None], F.pad(midi_ids, (0, 0, 0, missing)), pad_row), mask

    def onset_seconds(self, midi_ids: torch.Tensor) -> torch.Tensor:
        """Onset of each note from the window's first, `(windows, notes)`: the sum of the gaps before it."""
        field = self.config.time_field
        bins = self.config.field_sizes[field] - 2
        seconds = bin_seconds(range(bins), bins, tuple(self.config.time_range_seconds))
        table = torch.zeros(bins + 2, device=midi_ids.device)  # PAD and MASK take no time
        table[:bins] = torch.as_tensor(seconds, dtype=torch.float32)
        return table[midi_ids[..., field]].cumsum(1)

    def pool(self, hidden: torch.Tensor, midi_attention_mask: torch.Tensor) -> torch.Tensor:
        """`(windows, tokens, hidden_size)` -> `(windows, hidden_size)`, the mean over the notes."""
        if self.config.pool_padding:
            return hidden.mean(1)
        if self.token_proj is None:
            return masked_mean(hidden, midi_attention_mask)
        notes = self._grouped(midi_attention_mask != 0).sum(-1).to(hidden.dtype)  # in each token
        return torch.einsum("bt,btw->bw", notes, hidden) / notes.sum(1, keepdim=True).clamp(min=1)


class PatchStem(nn.Module):
    """Mel frames -> tokens of `patch_frames` frames: plain matrix products, faster than strided convolutions.

    All frames share the first layer, so that a pitch is learnt once and not for each place in a patch.
    """

    def __init__(self, config: PianoBindAudioConfig):
        super().__init__()
        self.patch_frames = config.patch_frames
        self.frame_proj = nn.Linear(config.num_mel_bins, config.hidden_size // 2)
        self.patch_proj = nn.Linear(config.patch_frames * (config.hidden_size // 2), config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`(windows, frames, num_mel_bins)` -> `(windows, tokens, hidden_size)`; the last patch is filled with 0."""
        frames = F.gelu(self.frame_proj(F.pad(features, (0, 0, 0, -features.shape[1] % self.patch_frames))))
        return self.patch_proj(frames.unflatten(1, (-1, self.patch_frames)).flatten(2))


class PianoBindAudioModel(PianoBindPreTrainedModel):
    """Audio tower of both families; the config says which."""

    config_class = PianoBindAudioConfig
    main_input_name = "input_features"

    window_dims = 2

    def __init__(self, config: PianoBindAudioConfig):
        super().__init__(config)
        if config.architecture == "modified_resnet":
            stages = len(config.resnet_layers)
            self.resnet = ModifiedResNet(config.resnet_layers, config.resnet_width)
            self.attention_pool = AttentionPool(
                grid_cells(config.num_mel_bins, config.window_frames, stages),
                config.resnet_width * 2 ** (stages + 1),
                config.resnet_heads,
                config.resnet_output_size,
            )
        else:
            self.stem = (
                PatchStem(config)
                if config.patch_frames
                else nn.ModuleList(
                    nn.Conv1d(
                        config.hidden_size if place else config.num_mel_bins, config.hidden_size, 3, stride, padding=1
                    )
                    for place, stride in enumerate(config.stem_strides)
                )
            )
            self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.encoder = PianoBindTransformer(config)
        self.post_init()

    def forward(self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of single windows.

        Args:
            input_features (`torch.Tensor` of shape `(windows, frames, num_mel_bins)`): log-mel spectrograms.
            audio_attention_mask (`torch.Tensor` of shape `(windows, frames)`): 0 on padding, which the ResNet sees
                as the silence that it is.
        Returns:
            `torch.Tensor` of shape `(windows, tokens, hidden_size)`; a token is `stride` frames. The ResNet's
            `(windows, cells, channels)` are cells of frequency and time.
        """
        if self.config.architecture == "modified_resnet":
            self._check_frames(input_features.shape[1])
            return self.resnet(input_features.transpose(1, 2)[:, None])
        present = (audio_attention_mask != 0)[..., None].to(input_features.dtype)
        hidden = input_features * present
        if self.config.patch_frames:
            hidden = self.stem(hidden)
        else:
            hidden = hidden.transpose(1, 2)
            for convolution in self.stem:
                hidden = F.gelu(convolution(hidden))  # (windows, hidden_size, time)
            hidden = hidden.transpose(1, 2)
        hidden = self.input_norm(hidden)
        places = torch.arange(hidden.shape[1], device=hidden.device, dtype=torch.float32)
        seconds = places * self.config.frame_seconds * self.stride
        return self.encoder(hidden, self.token_mask(audio_attention_mask), seconds.expand(hidden.shape[0], -1))

    @property
    def stride(self) -> int:
        """Frames that one token stands for."""
        return self.config.patch_frames or math.prod(self.config.stem_strides)

    def token_mask(self, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        return audio_attention_mask[:, :: self.stride]

    def pool(self, hidden: torch.Tensor, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        """`(windows, tokens, hidden_size)` -> `(windows, output_size)`."""
        if self.config.architecture == "modified_resnet":
            return self.attention_pool(hidden)
        return masked_mean(hidden, self.token_mask(audio_attention_mask))

    def _check_frames(self, frames: int) -> None:
        if frames != self.config.window_frames:
            raise ValueError(
                f"a window has {frames} frames; this tower's positions are made for {self.config.window_frames}. "
                "Let this checkpoint's own processor cut and pad the recording."
            )


__all__ = ["PianoBindAudioModel", "PianoBindMidiModel", "PianoBindPreTrainedModel", "masked_mean"]
