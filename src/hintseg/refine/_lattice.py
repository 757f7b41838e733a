"""What both implementations of the dense CRF share: kernels, and lattice points as single integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hintseg.errors import ShapeError

LEAST = 1e-5  # a probability below costs no more than this, as in the DenseCRF library


class Kernel(NamedTuple):
    """A Gaussian kernel on the pixels of a batch of photos."""

    features: Tensor
    """(B, N, d), float32, in units of the standard deviation."""
    extent: tuple[float, ...]
    """The features lie in 0..extent, (d,)."""
    grid: tuple[int, int, float] | None
    """(H, W, sigma) of a kernel on position alone: it is the same for all photos of a size."""


def kernel(photos: Tensor, sigma_px: float, sigma_rgb: float | None = None) -> Kernel:
    """Make the kernel on the positions in photos (B, 3, H, W), and on their colours if `sigma_rgb` is given."""
    count, _, height, width = photos.shape
    extent = [(width - 1) / sigma_px, (height - 1) / sigma_px]
    if sigma_rgb is not None:
        extent += [255 / sigma_rgb] * 3
    features = torch.empty(count, height, width, len(extent), device=photos.device)
    x, y = (torch.arange(n, device=photos.device).float() / sigma_px for n in (width, height))
    into, colours = _plain(features), _plain(photos.movedim(1, -1))
    into[..., 0] = _plain(x)
    into[..., 1] = _plain(y)[:, None]
    if sigma_rgb is not None:
        into[..., 2:] = colours / sigma_rgb
    grid = None if sigma_rgb is not None else (height, width, sigma_px)
    return Kernel(features.flatten(1, 2), tuple(extent), grid)


def _plain(values: Tensor) -> Tensor:
    """Return values on a CPU as an array, to be used as the tensor is.

    On a busy machine torch's threads wait for each other longer than the work on a few photos takes.
    """
    return cast(Tensor, values.numpy()) if values.device.type == "cpu" else values


class MeanField(Protocol):
    """Mean field with a Potts model on the lattices of a batch (Krahenbuhl and Koltun, NIPS 2011, algorithm 1)."""

    vertices: tuple[int, ...]
    """Lattice vertices of each kernel, all photos together."""

    def __call__(self, probabilities: Tensor, present: Tensor, iterations: int, weights: Sequence[float]) -> Tensor:
        """Infer the marginals.

        Args:
            probabilities: (B, C, N), float.
            present: The channels that a photo holds, (B, C), bool.
            iterations: Number of updates, >= 0.
            weights: Factors of the kernels' messages.

        Returns:
            The marginals, (B, C, N); 0 in the channels a photo does not hold.
        """
        ...


class Coding(NamedTuple):
    """Mixed-radix code of lattice points in d dimensions: the sum of (coordinate - low) * stride.

    A lattice point has d + 1 coordinates that sum to 0; the first d are coded.
    """

    scale: NDArray[np.float32]
    """Factor of each feature before it is rotated into the lattice's plane, (d,)."""
    low: NDArray[np.int64]
    """Smallest coordinates, (d,)."""
    stride: NDArray[np.int64]
    """(d,)."""
    step: NDArray[np.int64]
    """What a step along each of the d + 1 directions adds to a code, (d + 1,)."""
    total: int
    """All codes are below."""


def coding(extent: Sequence[float], photos: int = 1) -> Coding:
    """Plan the codes for features between 0 and `extent`.

    Args:
        extent: Largest value of each feature, in units of the standard deviation, >= 0.
        photos: Number of photos whose codes must fit one 64-bit integer beside each other.

    Raises:
        ShapeError: The features span too many standard deviations for 64 bits, or for whole numbers in float32.

    Source:
        Adams, Baek and Davis, 2010, section 3: the rotation's columns, and a blur of standard deviation
        (d + 1) * sqrt(2 / 3) which the features are scaled to.
    """
    d = len(extent)
    index = np.arange(d)
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt((index + 1) * (index + 2))
    reach = np.asarray(extent, dtype=np.float64) * scale
    # Coordinate i is the sum of the scaled features i + 1 .. d minus i times feature i. A simplex reaches d + 1
    # beyond a feature, a neighbour d + 1 further.
    margin = 3 * (d + 1)
    low = np.floor(-index * np.concatenate([[0.0], reach[:-1]])).astype(np.int64) - margin
    high = np.ceil([reach[i:].sum() for i in index]).astype(np.int64) + margin
    radix = [int(r) for r in high - low + 1]
    strides = [1]
    for r in radix:
        strides.append(strides[-1] * r)
    if strides[-1] * photos >= 2**63 or max(-low.min(), high.max()) >= 2**24:
        raise ShapeError(
            f"features spanning {', '.join(f'{e:.0f}' for e in extent)} standard deviations are too fine for the "
            "lattice; give larger sigmas"
        )
    stride = np.array(strides[:-1], dtype=np.int64)
    step = np.full(d + 1, -stride.sum())
    step[:d] += (d + 1) * stride
    return Coding(scale.astype(np.float32), low, stride, step, strides[-1])
