"""The gated CRF loss: neighbours of like colour shall have one label, and labelled cells need not be told."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.config.settings import Count, Positive
from hintseg.losses.reduced import PhotoObjective, Scene
from hintseg.types import IGNORE, Prediction, Progress, Targets


class GatedCrf(PhotoObjective):
    """``(1 / N) sum_i g_i sum_(j in window of i) K_ij (1 - sum_k p_ik p_jk)`` over the N cells of a photo.

    K_ij = exp(-|x_i - x_j|^2 / (2 sigma_px^2) - |c_i - c_j|^2 / (2 sigma_rgb^2)); a cell is not its own neighbour. The
    gate g_i is 0 where the cell has a label already, which partial cross entropy teaches better.

    Source:
        Obukhov, Georgoulis, Dai and Van Gool, "Gated CRF Loss for Weakly Supervised Semantic Image Segmentation",
        2019, Eqs. 4 to 7.

    Attributes:
        radius: Half of the window's side, cells.
        sigma_px: Standard deviation of the position, image pixels.
        sigma_rgb: Standard deviation of the colour, levels of 255.
        gate: Whether labelled cells are told nothing.
    """

    name: Literal["gated_crf"] = "gated_crf"
    radius: Count = 5
    sigma_px: Positive = 24.0
    sigma_rgb: Positive = 25.0
    gate: bool = True

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``gated_crf``."""
        return {"gated_crf": self.mean(seen, targets, images)}

    def of(self, scene: Scene, seen: Prediction) -> Tensor:
        """Return `gated_energy` of one photo."""
        gates = (scene.labels == IGNORE).float() if self.gate else torch.ones_like(scene.colours[0])
        sigmas = {"sigma_px": self.sigma_px / self.cell, "sigma_rgb": self.sigma_rgb / 255}
        return gated_energy(scene.probabilities, scene.colours, gates, radius=self.radius, **sigmas)


def gated_energy(
    probabilities: Tensor, colours: Tensor, gates: Tensor, *, radius: int, sigma_px: float, sigma_rgb: float
) -> Tensor:
    """Return the gated energy of one photo.

    Args:
        probabilities: (C, h, w), which sum to 1 in each cell.
        colours: (3, h, w).
        gates: (h, w), 0..1, how far each cell is told.
        radius: Half of the window's side, cells.
        sigma_px: Standard deviation of the position, cells.
        sigma_rgb: Standard deviation of the colour, in the unit of `colours`.

    Returns:
        Scalar >= 0, the mean over the cells.
    """
    height, width = gates.shape
    energy = probabilities.sum() * 0
    # Each pair of cells is met once, and tells both ends.
    for dy in range(min(radius, height - 1) + 1):
        for dx in range(-min(radius, width - 1) if dy else 1, min(radius, width - 1) + 1):
            here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
            there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
            one, other = (slice(None), *here), (slice(None), *there)
            apart = (colours[one] - colours[other]).square().sum(dim=0)
            near = torch.exp(-(dy * dy + dx * dx) / (2 * sigma_px**2) - apart / (2 * sigma_rgb**2))
            unlike = 1 - (probabilities[one] * probabilities[other]).sum(dim=0)
            energy = energy + (near * (gates[here] + gates[there]) * unlike).sum()
    return energy / gates.numel()
