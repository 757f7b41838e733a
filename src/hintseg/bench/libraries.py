"""Libraries of others that `hintseg bench` puts beside ours where they are installed: the extra `bench`."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor


def missing() -> str | None:
    """Say how to install what is not there; None if all is."""
    if find_spec("pydensecrf") is not None:
        return None
    return (
        "The C++ DenseCRF is not installed: pip install 'hintseg[bench]' puts it beside ours (pydensecrf2; it needs "
        "a C++ compiler)."
    )


def dense_crf(probabilities: Tensor, rgb: Tensor, iterations: int) -> Tensor:
    """Run the DenseCRF library of Krahenbuhl with the default kernels of ours, photo by photo, on one thread.

    Args:
        probabilities: (B, C, H, W), float. Classes that are exactly zero in a photo are left out, as ours does.
        rgb: (B, 3, H, W), uint8.
        iterations: Number of updates.

    Returns:
        Marginal probabilities, (B, C, H, W), float32.
    """
    from pydensecrf.densecrf import DenseCRF2D

    out = torch.zeros_like(probabilities, dtype=torch.float32)
    height, width = rgb.shape[2:]
    for scores, photo, result in zip(probabilities, rgb, out, strict=True):
        present = scores.flatten(1).amax(dim=1) > 0
        energy = -scores[present].float().clamp(min=1e-5).log().flatten(1)
        crf = DenseCRF2D(width, height, len(energy))
        crf.setUnaryEnergy(energy.numpy())
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=64, srgb=5, rgbim=photo.permute(1, 2, 0).contiguous().numpy(), compat=4)
        result[present] = torch.from_numpy(np.array(crf.inference(iterations))).view(-1, height, width)
    return out
