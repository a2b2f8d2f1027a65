"""Valence and arousal from labels of several sources: latent numbers that each source reads with its own noise."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import nn

from ..data.emotion_labels import SOURCES
from ..data.head_pieces import HeadPieces
from .linear_heads import scaled

SOURCE_WEIGHTS = (1.0, 1.0, 1.0, 0.3)  # of a label, by `SOURCES`; prose describes a song, not its arrangement
LISTENERS = 2  # the first of `SOURCES`, whose labels the calibration is made for
RIDGE = 1.0
SCALE_RIDGE = 0.005
STEPS = 60
ADVERSARY_WIDTH, ADVERSARY_STEPS, ADVERSARY_RATE = 32, 400, 3e-3
FOLDS = 5


def fit_emotion(
    pieces: HeadPieces,
    windows: HeadPieces | None = None,
    towards: np.ndarray | None = None,
    adversarial: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Fits valence and arousal, calibrated on songs that a fold has not seen.

    Args:
        pieces (`HeadPieces`): of `train`; what is calibrated, and counted in folds.
        windows (`HeadPieces`, *optional*): what is learnt from; by default the pieces themselves.
        towards (`np.ndarray` of shape `(2, dim)`, *optional*): directions of valence and arousal that cost nothing,
            such as those of prompts: only what differs from them has to be small.
        adversarial (`float`): above 0, the weight of the gradient that a classifier of sources sends back reversed.
    Returns:
        Weight `(2, dim)` and bias `(2,)` of calibrated logits of unit rows, and what was found: how sharply each
        source reads the latent numbers (`sharpness`), and the held-out `chances (pieces, 2)`.
    """
    windows = pieces if windows is None else windows
    features = scaled(pieces.embeds)
    latent = np.zeros((len(features), 2))
    folds = GroupKFold(min(FOLDS, len(set(pieces.songs))), shuffle=True, random_state=0)
    for _, test in folds.split(features, groups=pieces.songs):
        learnt_from = ~np.isin(windows.songs, pieces.songs[test])
        weight, bias, _ = _fit(windows, learnt_from, towards, adversarial)
        latent[test] = features[test] @ weight.T + bias
    weight, bias, sharpness = _fit(windows, slice(None), towards, adversarial)
    chances = np.zeros_like(latent)
    for place in (0, 1):
        known = ~np.isnan(pieces.targets[:, place]) & (pieces.sources < LISTENERS)
        platt = LogisticRegression(C=1e3).fit(latent[known, place, None], pieces.targets[known, place])
        chances[:, place] = platt.predict_proba(latent[:, place, None])[:, 1]
        weight[place] *= platt.coef_[0, 0]
        bias[place] = bias[place] * platt.coef_[0, 0] + platt.intercept_[0]
    names = {SOURCES[source]: sharpness[source].tolist() for source in np.unique(pieces.sources)}
    return weight * pieces.embeds.shape[1] ** 0.5, bias, {"sharpness": names, "chances": chances}


def _fit(
    windows: HeadPieces, chosen: np.ndarray | slice, towards: np.ndarray | None, adversarial: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight and bias of the latent numbers on scaled features, and the scale at which each source reads them."""
    features = scaled(windows.embeds[chosen])
    mean, spread = features.mean(0), features.std(0) + 1e-6
    inputs = torch.tensor((features - mean) / spread, dtype=torch.float32)
    labels = torch.tensor(windows.targets[chosen], dtype=torch.float32)
    source = torch.tensor(windows.sources[chosen])
    weights = torch.tensor(SOURCE_WEIGHTS)[source][:, None] * ~labels.isnan()
    torch.manual_seed(0)
    model = _Latent(inputs.shape[1], adversarial, None if towards is None else towards * spread)

    def loss():
        read, guess = model(inputs, source)
        errors = F.binary_cross_entropy_with_logits(read, labels.nan_to_num(), reduction="none")
        total = (errors * weights).sum() / weights.sum() + model.penalty()
        return total if guess is None else total + adversarial * F.cross_entropy(guess, source)

    if adversarial:
        optimizer = torch.optim.Adam(model.parameters(), lr=ADVERSARY_RATE)
        for _ in range(ADVERSARY_STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    else:
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)
    weight = model.weight().detach().numpy() / spread
    return weight.astype(np.float64), -(weight @ mean), model.scale.detach().exp().numpy()


class _Latent(nn.Module):
    """A linear map to two latent numbers, and each source's own scale and shift of them.

    With an adversary, the map goes through a narrow layer from which the source cannot be told.
    """

    def __init__(self, dim: int, adversarial: float, towards: np.ndarray | None):
        super().__init__()
        self.narrow = nn.Linear(dim, ADVERSARY_WIDTH, bias=False) if adversarial else None
        self.latent = nn.Parameter(torch.zeros(2, ADVERSARY_WIDTH if adversarial else dim))
        self.scale = nn.Parameter(torch.zeros(len(SOURCES), 2))
        self.shift = nn.Parameter(torch.zeros(len(SOURCES), 2))
        self.adversary = nn.Linear(ADVERSARY_WIDTH, len(SOURCES)) if adversarial else None
        towards = torch.zeros(2, dim) if towards is None else torch.tensor(towards, dtype=torch.float32)
        self.register_buffer("towards", F.normalize(towards))
        self.share = nn.Parameter(torch.zeros(2, 1))  # of the given directions

    def own_weight(self) -> torch.Tensor:
        return self.latent if self.narrow is None else self.latent @ self.narrow.weight

    def weight(self) -> torch.Tensor:
        return self.own_weight() + self.share * self.towards

    def forward(self, inputs: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        read = (inputs @ self.weight().T) * self.scale[source].exp() + self.shift[source]
        return read, None if self.adversary is None else self.adversary(_Reversed.apply(self.narrow(inputs)))

    def penalty(self) -> torch.Tensor:
        return RIDGE / 2 * self.own_weight().square().sum() + SCALE_RIDGE / 2 * self.scale.square().sum()


class _Reversed(torch.autograd.Function):
    """The identity, with the gradient reversed. Source: arXiv 1409.7495."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


__all__ = ["LISTENERS", "fit_emotion"]
