"""Bring features of any backbone to one scale."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """Multiply features by one fixed, measured number so that their root mean square is `rms`.

    Published learning rates and initial weights assume the feature scale of torchvision's ResNets, which is near 1.
    Other networks end a hundred times lower, and a layer on top then stays at its start. The factor is saved with
    the weights; until measured it is 1.

    Args:
        rms: The root mean square that the measured features get.

    Example:
        >>> scale = FeatureScale()
        >>> scale.measure([torch.full((2, 8, 4, 4), 0.01)])
        >>> scale(torch.full((1, 8, 1, 1), 0.03)).mean().item()
        3.0...
    """

    factor: Tensor

    def __init__(self, rms: float = 1.0) -> None:
        super().__init__()
        self.rms = rms
        self.register_buffer("factor", torch.ones(()))

    @torch.no_grad()
    def measure(self, features: Iterable[Tensor]) -> None:
        """Set the factor to `rms` / root mean square of `features`; features that are all zero leave it as it is.

        Args:
            features: Un-scaled features of some batches, any shapes.
        """
        squares, count = 0.0, 0
        for values in features:
            squares += values.double().square().sum().item()
            count += values.numel()
        if squares > 0:
            self.factor.fill_(self.rms * (count / squares) ** 0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` times the factor; shape and dtype stay."""
        return features * self.factor.to(features.dtype)
