"""Any Hugging Face audio encoder as an audio tower: AST, CLAP's, Wav2Vec2 and its kin, Whisper's."""

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from .towers_pianobind import masked_mean


class PianoBindEncoderTower(nn.Module):
    """Passes windows to an encoder's main input and pools its output.

    Args:
        config (`PreTrainedConfig`): the encoder's own.
        encoder (`PreTrainedModel`, *optional*): a pretrained one; by default one with random weights is made.
    """

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None):
        super().__init__()
        self.config = config
        self.encoder = _encoder_from(config) if encoder is None else encoder

    @property
    def window_dims(self) -> int:
        """Dimensions of one window: a waveform has 1, a spectrogram 2, CLAP's with its channels 3."""
        if self._reads_waveforms:
            return 1
        return 3 if self.config.model_type == "clap_audio_model" else 2

    @property
    def _reads_waveforms(self) -> bool:
        return hasattr(self.config, "conv_stride")

    def forward(self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of single windows.

        Args:
            input_features (`torch.Tensor` of shape `(windows, ...)`): output of the encoder's own feature extractor.
            audio_attention_mask (`torch.Tensor` of shape `(windows, places)`): 0 on padding.
        Returns:
            `torch.Tensor` of shape `(windows, tokens, hidden_size)`; one token if the encoder pools.
        """
        inputs = {self.encoder.main_input_name: input_features}
        if self._reads_waveforms and getattr(self.config, "feat_extract_norm", "layer") == "layer":
            inputs["attention_mask"] = audio_attention_mask  # encoders with group norms were trained without one
        output = self.encoder(**inputs)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state if pooled is None else pooled[:, None]

    def pool(self, hidden: torch.Tensor, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        """`(windows, tokens, hidden_size)` -> `(windows, hidden_size)`, without the tokens of padding."""
        tokens = hidden.shape[1]
        if self._reads_waveforms:
            mask = self.encoder._get_feature_vector_attention_mask(tokens, audio_attention_mask)
        else:
            mask = audio_attention_mask[:, :: max(1, audio_attention_mask.shape[1] // tokens)][:, :tokens]
        return masked_mean(hidden, mask.expand(-1, tokens))


def _encoder_from(config: PreTrainedConfig) -> PreTrainedModel:
    """The encoder of a config, with random weights; of models with a text side or a decoder, the audio encoder."""
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(config)
    if config.model_type == "clap_audio_model":
        from transformers import ClapAudioModel

        return ClapAudioModel(config)
    return AutoModel.from_config(config)


def audio_encoder_of(model: PreTrainedModel) -> nn.Module:
    """The part of a loaded Hugging Face model that reads audio.

    Raises:
        ValueError: the model reads no audio.
    """
    if model.config.model_type == "clap":
        model = model.audio_model
    elif getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if model.main_input_name not in ("input_values", "input_features"):
        raise ValueError(
            f"a {model.config.model_type!r} model reads `{model.main_input_name}`, not audio; give an audio encoder "
            "such as AST, Wav2Vec2, HuBERT, Whisper or CLAP."
        )
    return model


__all__ = ["PianoBindEncoderTower", "audio_encoder_of"]
