"""Heads that turn backbone features into class logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class AtrousPyramid(nn.Module):
    """Sum of 3x3 convolutions with different dilations: DeepLabv2's ASPP.

    Weights start normal with deviation `init_std`, biases at zero, as published.

    Args:
        channels: Channels of the features.
        outputs: Channels of the logits.
        rates: Dilations in cells of the features, one convolution each.
        init_std: Standard deviation of the initial weights.

    Source:
        Chen et al., TPAMI 2018, section 3.2.
    """

    def __init__(self, channels: int, outputs: int, rates: Sequence[int], init_std: float) -> None:
        super().__init__()
        branches = [nn.Conv2d(channels, outputs, 3, padding=rate, dilation=rate) for rate in rates]
        for branch in branches:
            nn.init.normal_(branch.weight, std=init_std)
            nn.init.zeros_(branch.get_parameter("bias"))
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, channels, h, w) to logits (B, outputs, h, w)."""
        first, *others = self.branches
        logits: Tensor = first(features)
        for branch in others:
            logits = logits + branch(features)
        return logits


class MlpHead(nn.Module):
    """Fuse all levels with per-cell linear layers: SegFormer's all-MLP decoder.

    Args:
        channels: Channels of each level, finest first.
        outputs: Channels of the logits.
        width: Channels each level is mapped to.
        dropout: Share of the fused channels dropped in training.

    Source:
        Xie et al., NeurIPS 2021, Eq. 4.
    """

    def __init__(self, channels: Sequence[int], outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(width * len(channels), width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, outputs, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map levels (B, channels[i], h_i, w_i), finest first, to logits (B, outputs, h_0, w_0)."""
        size = levels[0].shape[-2:]
        maps = [
            interpolate(project(level), size=size, mode="bilinear", align_corners=False)
            for project, level in zip(self.project, levels, strict=True)
        ]
        logits: Tensor = self.classify(self.dropout(self.fuse(torch.cat(maps, dim=1))))
        return logits
