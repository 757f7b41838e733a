"""Heads that turn backbone features into class logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from hintseg.nn.resize import resize


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
        maps = [resize(project(level), size) for project, level in zip(self.project, levels, strict=True)]
        logits: Tensor = self.classify(self.dropout(self.fuse(torch.cat(maps, dim=1))))
        return logits


class GuidedUNet(nn.Module):
    """U-Net decoder that is told at every level which part of the image is meant, and what it shows.

    The coarsest level passes a block, then each step resizes to the next finer level, joins its features and passes
    another one. A block is two 3x3 convolutions with batch-norm and ReLU. A box map and the class, constant over the
    cells, are joined to the input of every block: what only the first layers are told gets lost on the way.

    Args:
        channels: Channels of each level, finest first.
        strides: Image pixels per cell of each level.
        classes: K, length of the class vector.
        outputs: Channels of the logits.
        widths: Channels of the blocks from the coarsest to the finest step. Of more than there are steps, the last
            ones are taken; the first one is also that of the coarsest level's block, and of any steps beyond.
        finest: Image pixels per cell of the logits: levels finer than that are left out, and a step without a level
            follows where all are coarser.

    Source:
        Section 3.2 of the CFS and LGSA paper; the widths are not in it.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
        outputs: int,
        widths: Sequence[int],
        finest: int,
    ) -> None:
        super().__init__()
        self.finest = finest
        self.joined = [i for i in reversed(range(len(channels) - 1)) if strides[i] >= finest]
        steps = [channels[i] for i in self.joined]
        if strides[self.joined[-1] if self.joined else -1] > finest:
            steps.append(0)
        padded = [widths[0]] * len(steps) + list(widths)
        chosen = padded[len(padded) - len(steps) :]
        guide = classes + 1
        self.bottleneck = _double_conv(channels[-1] + guide, widths[0])
        entering = [widths[0], *chosen]
        self.blocks = nn.ModuleList(
            _double_conv(width_in + joined + guide, width)
            for width_in, joined, width in zip(entering, steps, chosen, strict=False)
        )
        self.classify = nn.Conv2d(entering[-1], outputs, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, levels: Sequence[Tensor], box: Tensor, tags: Tensor) -> Tensor:
        """Map levels, finest first, a box map (B, 1, H, W) and classes (B, K) to logits (B, outputs, h, w)."""

        def guided(*parts: Tensor) -> Tensor:
            size = parts[0].shape[-2:]
            part_inside = adaptive_avg_pool2d(box, (size[0], size[1]))
            joined = torch.cat([*parts, part_inside, tags[:, :, None, None].expand(-1, -1, *size)], dim=1)
            return joined.contiguous(memory_format=torch.channels_last)

        features: Tensor = self.bottleneck(guided(levels[-1]))
        for step, block in enumerate(self.blocks):
            skip = [levels[self.joined[step]]] if step < len(self.joined) else []
            size = skip[0].shape[-2:] if skip else [-(-side // self.finest) for side in box.shape[-2:]]
            grown = resize(features, size)
            features = block(guided(grown, *skip))
        logits: Tensor = self.classify(features)
        return logits


def _double_conv(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
