"""The relaxed energy of a dense CRF as a loss: pixels that are near and alike shall have one label."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hintseg.config.settings import Positive
from hintseg.losses.reduced import PhotoObjective, Scene
from hintseg.refine.bilateral import bilateral_filter
from hintseg.types import Prediction, Progress, Targets


class DenseCrfLoss(PhotoObjective):
    """``(1 / N) sum_k S_k^T W (1 - S_k)`` of the class probabilities S of the N cells of a photo.

    W is the bilateral Gaussian of position and colour, normalised symmetrically
    (`hintseg.refine.bilateral.bilateral_filter`): the loss lies in 0..1 whatever the photo's size, where the paper's
    sums the bare kernel and takes a weight of 1e-9 or so.

    Source:
        Tang, Perazzi, Djelouah, Ben Ayed, Schroers and Boykov, "On Regularized Losses for Weakly-supervised CNN
        Segmentation", ECCV 2018, Eq. 7; its gradient, Eq. 8.

    Attributes:
        sigma_px: Reach of the kernel, image pixels.
        sigma_rgb: How unlike in colour cells may be, levels of 255.
    """

    name: Literal["dense_crf_loss"] = "dense_crf_loss"
    sigma_px: Positive = 100.0
    sigma_rgb: Positive = 15.0

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``dense_crf``."""
        return {"dense_crf": self.mean(seen, targets, images)}

    def of(self, scene: Scene, seen: Prediction) -> Tensor:
        """Return `crf_energy` of one photo."""
        rgb = scene.colours * 255
        return crf_energy(scene.probabilities, rgb, sigma_px=self.sigma_px / self.cell, sigma_rgb=self.sigma_rgb)


def crf_energy(probabilities: Tensor, rgb: Tensor, *, sigma_px: float, sigma_rgb: float) -> Tensor:
    """Return ``(1 / N) sum_k S_k^T W (1 - S_k)``.

    Args:
        probabilities: S, (C, h, w), which sum to 1 in each of the N cells.
        rgb: (3, h, w) in 0..255.
        sigma_px: Standard deviation of the position, cells.
        sigma_rgb: Standard deviation of the colour, levels of 255.

    Returns:
        Scalar >= 0. Its gradient is that of Eq. 8, ``-2 W S_k / N``: the term W 1, which is the same for all classes,
        changes nothing of probabilities that sum to 1.

    Cost:
        A lattice is built for each photo: about 20 ms for 80 x 80 cells on one CPU thread.
    """
    found: Tensor = _Energy.apply(probabilities, rgb, sigma_px, sigma_rgb)
    return found


class _Energy(torch.autograd.Function):
    """The energy, with the filtered probabilities kept for its gradient."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, rgb: Tensor, sigma_px: float, sigma_rgb: float) -> Tensor:
        ones = torch.ones_like(probabilities[:1])
        both = bilateral_filter(torch.cat([probabilities, ones]), rgb, sigma_px=sigma_px, sigma_rgb=sigma_rgb)
        heard, all_heard = both[:-1], both[-1:]
        cells = probabilities[0].numel()
        ctx.save_for_backward(heard)
        return (probabilities * (all_heard - heard)).sum() / cells

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (heard,) = ctx.saved_tensors
        return -2 * heard / heard[0].numel() * gradients[0], None, None, None
