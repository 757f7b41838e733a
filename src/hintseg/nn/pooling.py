"""Global pooling of feature maps: average, maximum, and the hybrid pyramid of Ru et al., IJCAI 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Pooling = Literal["gap", "gmp", "hspp"]
Bins = Literal["adaptive", "floor"]

POOLED_NORM = 27.0
"""Norm of a photo's pooled features that the papers' learning rates are made for.

A ResNet-50 trained on ImageNet has a root mean square of about 0.6 over its 2048 channels behind global average
pooling: 0.6 * sqrt(2048) = 27. A step of gradient descent on a linear classifier moves its score by the learning rate
times the squared norm of its input, so equal norms make equal learning rates mean the same.
"""


def gap(features: Tensor) -> Tensor:
    """Average features over the image.

    Args:
        features: (B, d, h, w).

    Returns:
        (B, d).

    Source:
        Eq. 6 of Ru, Du and Wu, IJCAI 2021; Zhou et al., CVPR 2016.
    """
    return features.mean(dim=(2, 3))


def gmp(features: Tensor) -> Tensor:
    """Take the maximum of features over the image.

    Args:
        features: (B, d, h, w).

    Returns:
        (B, d).

    Source:
        Oquab et al., CVPR 2015.
    """
    return features.amax(dim=(2, 3))


def hspp(features: Tensor, *, splits: Sequence[int] = (1, 2, 4), gamma: float = 2.0, bins: Bins = "adaptive") -> Tensor:
    """Pool with hybrid spatial pyramid pooling: local maxima of several grids, and the average.

    Average pooling rewards maps that cover too much, maximum pooling maps that cover too little; this lies between.

    Args:
        features: (B, d, h, w).
        splits: Bins per side of each grid, r.
        gamma: Weight of the average against each grid.
        bins: How a grid is laid over a map that r does not divide. `adaptive`: r x r bins that cover every cell, as
            the paper's text says. `floor`: bins of (h // r, w // r) cells as in the authors' code, which leaves out the
            last rows and columns and can make more than r x r bins. Both agree on the paper's 32 x 32 maps.

    Returns:
        (B, d).

    Example:
        >>> import torch
        >>> hspp(torch.ones(1, 3, 8, 8))
        tensor([[1., 1., 1.]])

    Source:
        Eqs. 5-7 of Ru, Du and Wu, IJCAI 2021.
    """
    total = gamma * gap(features)
    for r in splits:
        if bins == "adaptive":
            maxima = F.adaptive_max_pool2d(features, r)
        else:
            cell = (max(features.shape[2] // r, 1), max(features.shape[3] // r, 1))
            maxima = F.max_pool2d(features, cell, stride=cell)
        total = total + gap(maxima)  # Eq. 5
    return total / (gamma + len(splits))  # Eq. 7


def pool(features: Tensor, pooling: Pooling, *, gamma: float = 2.0) -> Tensor:
    """Pool features (B, d, h, w) to (B, d) by the pooling's name; `gamma` counts for `hspp` only.

    Example:
        >>> import torch
        >>> pool(torch.tensor([[[[1.0, 3.0]]]]), "gmp")
        tensor([[3.]])
    """
    if pooling == "hspp":
        return hspp(features, gamma=gamma)
    return gmp(features) if pooling == "gmp" else gap(features)
