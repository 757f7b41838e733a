"""CPU kernels of pixel-adaptive refinement, fused so that no stack of shifted maps is ever made."""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from hintseg.refine._compile import compiled
from hintseg.refine._parallel import run

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def affinity(photo: Tensor, shifts: Tensor, position: Tensor, *, centres: int, squared: bool, scale: float) -> Tensor:
    """Compute affinities (B, N, H, W) as `hintseg.refine.par.affinity` does."""
    weight = photo.new_empty(len(photo), len(shifts), *photo.shape[2:])
    padded = _replicate_columns(photo, shifts)
    arrays = padded.numpy(), shifts.numpy(), position.numpy(), weight.numpy()
    run(_affinity, len(photo) * photo.shape[2], *arrays, centres, squared, scale)
    return weight


def propagate(weight: Tensor, shifts: Tensor, maps: Tensor, iterations: int) -> Tensor:
    """Spread maps (B, C, H, W) as `hintseg.refine.par.propagate` does."""
    margin = int(shifts.max())
    now = _replicate_columns(maps, shifts)
    after = torch.empty_like(now)
    rows = maps.shape[0] * maps.shape[2]
    for _ in range(iterations):
        run(_propagate, rows, weight.numpy(), shifts.numpy(), now.numpy(), after.numpy())
        now, after = after, now
    return now[..., margin : now.shape[-1] - margin]


def _replicate_columns(maps: Tensor, shifts: Tensor) -> Tensor:
    # Rows are clamped by the kernels; padded columns keep their inner loops free of branches.
    margin = int(shifts.max())
    return pad(maps, (margin, margin, 0, 0), mode="replicate")


@compiled
def _affinity(
    begin: int,
    end: int,
    photo: Floats,
    shifts: Integers,
    position: Floats,
    weight: Floats,
    centres: int,
    squared: bool,
    scale: float,
) -> None:
    """Write the affinities of pixels to their shifted neighbours.

    Args:
        begin: First of the rows of all photos.
        end: Row to stop before.
        photo: Columns padded by replication, (B, 3, H, W + 2 * margin), 0..1.
        shifts: Neighbour offsets (dy, dx), (N, 2), |dx| <= margin.
        position: Added to every pixel's affinities, (N,).
        weight: Output, (B, N, H, W).
        centres: How often the pixel itself counts in the standard deviation.
        squared: Square the normalised colour distance (PAR) or not (PAMR).
        scale: Colour distances are in units of `scale` standard deviations.
    """
    _, count, height, width = weight.shape
    margin = (photo.shape[3] - width) // 2
    members = count + centres
    for row in range(begin, end):
        b = row // height
        y = row % height
        difference = np.empty((count, width), np.float32)
        distance = np.zeros((count, width), np.float32)
        mean = np.empty(width, np.float32)
        unit = np.empty(width, np.float32)
        for c in range(3):
            centre = photo[b, c, y, margin : margin + width]
            mean[:] = 0
            for n in range(count):
                yy = min(max(y + shifts[n, 0], 0), height - 1)
                start = margin + shifts[n, 1]
                near = photo[b, c, yy, start : start + width]
                d = difference[n]
                for x in range(width):
                    d[x] = near[x] - centre[x]
                    mean[x] += d[x]
            for x in range(width):
                mean[x] /= np.float32(members)
                unit[x] = np.float32(centres) * mean[x] * mean[x]
            for n in range(count):
                d = difference[n]
                for x in range(width):
                    unit[x] += (d[x] - mean[x]) * (d[x] - mean[x])
            for x in range(width):
                # The unbiased deviation; 1e-8 as published keeps a flat neighbourhood finite.
                deviation = np.sqrt(unit[x] / np.float32(members - 1)) + np.float32(1e-8)
                unit[x] = np.float32(1) / (deviation * np.float32(scale))
            for n in range(count):
                d = difference[n]
                out = distance[n]
                if squared:
                    for x in range(width):
                        out[x] += (d[x] * unit[x]) * (d[x] * unit[x])
                else:
                    for x in range(width):
                        out[x] += abs(d[x]) * unit[x]
        # Softmax over the neighbours of minus the mean distance of the 3 channels.
        mean[:] = distance[0]
        for n in range(1, count):
            d = distance[n]
            for x in range(width):
                mean[x] = min(mean[x], d[x])
        unit[:] = 0
        for n in range(count):
            d = distance[n]
            for x in range(width):
                d[x] = np.exp((mean[x] - d[x]) / np.float32(3))
                unit[x] += d[x]
        for x in range(width):
            unit[x] = np.float32(1) / unit[x]
        for n in range(count):
            d = distance[n]
            out = weight[b, n, y]
            for x in range(width):
                out[x] = d[x] * unit[x] + position[n]


@compiled
def _propagate(begin: int, end: int, weight: Floats, shifts: Integers, maps: Floats, out: Floats) -> None:
    """Replace pixels by the affinity-weighted sum of their neighbours.

    Args:
        begin: First of the rows of all photos.
        end: Row to stop before.
        weight: Affinities, (B, N, H, W); N is a multiple of 8.
        shifts: Neighbour offsets (dy, dx), (N, 2), |dx| <= margin.
        maps: Columns padded by replication, (B, C, H, W + 2 * margin).
        out: Output, same shape and padding as `maps`.
    """
    _, count, height, width = weight.shape
    margin = (maps.shape[3] - width) // 2
    for row in range(begin, end):
        b = row // height
        y = row % height
        for c in range(maps.shape[1]):
            total = np.zeros(width, np.float32)
            # Eight neighbours at a time: the running total is loaded and stored once for them.
            for n in range(0, count, 8):
                w0, m0 = weight[b, n, y], _neighbour(maps, b, c, y, n, shifts, margin, width)
                w1, m1 = weight[b, n + 1, y], _neighbour(maps, b, c, y, n + 1, shifts, margin, width)
                w2, m2 = weight[b, n + 2, y], _neighbour(maps, b, c, y, n + 2, shifts, margin, width)
                w3, m3 = weight[b, n + 3, y], _neighbour(maps, b, c, y, n + 3, shifts, margin, width)
                w4, m4 = weight[b, n + 4, y], _neighbour(maps, b, c, y, n + 4, shifts, margin, width)
                w5, m5 = weight[b, n + 5, y], _neighbour(maps, b, c, y, n + 5, shifts, margin, width)
                w6, m6 = weight[b, n + 6, y], _neighbour(maps, b, c, y, n + 6, shifts, margin, width)
                w7, m7 = weight[b, n + 7, y], _neighbour(maps, b, c, y, n + 7, shifts, margin, width)
                for x in range(width):
                    total[x] += (
                        w0[x] * m0[x]
                        + w1[x] * m1[x]
                        + w2[x] * m2[x]
                        + w3[x] * m3[x]
                        + w4[x] * m4[x]
                        + w5[x] * m5[x]
                        + w6[x] * m6[x]
                        + w7[x] * m7[x]
                    )
            target = out[b, c, y]
            target[:margin] = total[0]
            target[margin : margin + width] = total
            target[margin + width :] = total[width - 1]


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _neighbour(maps: Floats, b: int, c: int, y: int, n: int, shifts: Integers, margin: int, width: int) -> Floats:
    yy = min(max(y + shifts[n, 0], 0), maps.shape[2] - 1)
    start = margin + shifts[n, 1]
    return maps[b, c, yy, start : start + width]
