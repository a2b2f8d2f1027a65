"""The published PianoBind's audio tower: CLIP's modified ResNet and its attention pooling, for one input channel."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

EXPANSION = 4  # a block's output channels over its inner ones


class ResNetBlock(nn.Module):
    """A bottleneck block that halves the grid by average pooling instead of a strided convolution."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * EXPANSION)
        self.downsample = None
        if stride > 1 or channels != width * EXPANSION:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width * EXPANSION, 1, bias=False), nn.BatchNorm2d(width * EXPANSION)
            )

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.bn1(self.conv1(grid)))
        hidden = self._halve(F.relu(self.bn2(self.conv2(hidden))))
        hidden = self.bn3(self.conv3(hidden))
        shortcut = grid if self.downsample is None else self.downsample(self._halve(grid))
        return F.relu(hidden + shortcut)

    def _halve(self, grid: torch.Tensor) -> torch.Tensor:
        return grid if self.stride == 1 else F.avg_pool2d(grid, self.stride)


class ModifiedResNet(nn.Module):
    """Three stem convolutions and four stages; the grid of cells is given out as a sequence."""

    # Adapted from https://github.com/openai/CLIP/blob/a1d071733d7111c9c014f024669f959182114e33/clip/model.py#L94 (MIT)
    # Differs: one input channel, grids that need not be square, and pooling is a separate step.

    def __init__(self, layers: Sequence[int], width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.stages = nn.ModuleList()
        channels = width
        for stage, blocks in enumerate(layers):
            inner = width * 2**stage
            self.stages.append(
                nn.Sequential(
                    *(
                        ResNetBlock(channels if i == 0 else inner * EXPANSION, inner, 2 if i == 0 and stage else 1)
                        for i in range(blocks)
                    )
                )
            )
            channels = inner * EXPANSION

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """`(windows, 1, bands, frames)` -> `(windows, cells, channels)`, rows of bands one after the other."""
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            grid = F.relu(norm(convolution(grid)))
        grid = F.avg_pool2d(grid, 2)
        for stage in self.stages:
            grid = stage(grid)
        return grid.flatten(2).transpose(1, 2)


class AttentionPool(nn.Module):
    """One attention whose query is the mean of all cells."""

    # Adapted from https://github.com/openai/CLIP/blob/a1d071733d7111c9c014f024669f959182114e33/clip/model.py#L58 (MIT)
    # Differs: only the mean asks, so nothing is computed for the other cells' queries.

    def __init__(self, cells: int, channels: int, heads: int, output_size: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.zeros(cells + 1, channels))
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, output_size)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """`(windows, cells, channels)` -> `(windows, output_size)`."""
        places = torch.cat([cells.mean(1, keepdim=True), cells], dim=1) + self.positional_embedding
        q, k, v = (
            projection(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, hidden in ((self.q_proj, places[:, :1]), (self.k_proj, places), (self.v_proj, places))
        )  # (windows, heads, 1 or cells + 1, head_size)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


def grid_cells(bands: int, frames: int, stages: int) -> int:
    """Cells that a spectrogram of `bands` x `frames` ends in: the stem and each stage but the first halve both."""
    bands, frames = (bands + 1) // 2, (frames + 1) // 2  # the strided convolution rounds up, pooling down
    return (bands >> stages) * (frames >> stages)


__all__ = ["AttentionPool", "ModifiedResNet", "grid_cells"]
