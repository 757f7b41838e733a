"""The bilateral filter of the dense CRF by itself: what each pixel hears from those near it and like it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hintseg.errors import ShapeError
from hintseg.refine._lattice import coding, kernel


@torch.no_grad()
def bilateral_filter(values: Tensor, rgb: Tensor, *, sigma_px: float, sigma_rgb: float) -> Tensor:
    """Filter values of a photo by a Gaussian on position and colour.

    Args:
        values: (C, H, W), float.
        rgb: The photo, (3, H, W), float in 0..255.
        sigma_px: Standard deviation of the position, pixels.
        sigma_rgb: Standard deviation of the colour, levels of 255.

    Returns:
        W values, (C, H, W) float32, with the kernel K_ij = exp(-|p_i - p_j|^2 / (2 sigma_px^2) - |c_i - c_j|^2 / (2
        sigma_rgb^2)) normalised symmetrically, W = D^(-1/2) K D^(-1/2) with the row sums D, so that W's entries of a
        pixel sum to about 1. The permutohedral lattice makes it an approximation.

    Raises:
        ShapeError: The sizes differ.

    Source:
        Adams, Baek and Davis, Eurographics 2010; the normalisation of Kraehenbuehl and Koltun's DenseCRF library.
    """
    if values.ndim != 3 or rgb.shape != (3, *values.shape[1:]):
        raise ShapeError(
            f"values of {tuple(values.shape)} and a photo of {tuple(rgb.shape)}; (C, H, W), (3, H, W) needed"
        )
    made = kernel(rgb[None].float(), sigma_px, sigma_rgb)
    rows = values.float().flatten(1)
    if values.device.type != "cpu":
        from hintseg.refine import _lattice_torch

        lattice = _lattice_torch.normalise(_lattice_torch.build(made.features, coding(made.extent)))
        return _lattice_torch.filter_values(lattice, rows.t()).t().reshape(values.shape)
    from hintseg.refine import _lattice_numba

    flat = _lattice_numba.normalise(_lattice_numba.build(made.features[0].numpy(), coding(made.extent)))
    lanes = 4 if len(rows) <= 4 else 8
    groups = -(-len(rows) // lanes)
    packed = np.zeros((groups * lanes, rows.shape[1]), np.float32)
    packed[: len(rows)] = rows.numpy()
    packed = np.ascontiguousarray(packed.reshape(groups, lanes, -1).transpose(0, 2, 1))
    out = _lattice_numba.filter_values(flat, packed).transpose(0, 2, 1).reshape(groups * lanes, -1)
    return torch.from_numpy(np.ascontiguousarray(out[: len(rows)])).reshape(values.shape)
