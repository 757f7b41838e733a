"""Gaussian filtering on a permutohedral lattice, and mean field with it: torch operators for a batch of photos.

The same mathematics as `_lattice_numba`, for accelerators: the lattices of all photos are one, told apart by their
codes; vertices are found by sorting and neighbours by binary search. Splatting adds in 64-bit fixed point, where
order does not matter: the result is the same however the device schedules it and whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hintseg.refine._lattice import LEAST, Coding, Kernel, coding

# Splatted values are at most a pixel's normalisation, which is near 1; 2^63 leaves room for 2^31 pixels of it.
_FIXED_POINT = 2.0**32


class Lattice(NamedTuple):
    """The lattice of B photos with N pixels each and M vertices in all; row M of values is always zero."""

    vertex: Tensor
    """Vertices of each pixel's simplex, (B * N, d + 1)."""
    weight: Tensor
    """Barycentric weight of each of them, (B * N, d + 1), times the pixel's normalisation."""
    neighbours: Tensor
    """The two neighbours of each vertex along each direction, (d + 1, 2, M + 1); M where there is none."""


def build(features: Tensor, coding: Coding) -> Lattice:
    """Build the lattice of a batch.

    Args:
        features: One row per pixel, (B, N, d), in units of the standard deviation.
        coding: How lattice points become integers, with room for B photos.
    """
    photos, size, d = features.shape
    scaled = features.flatten(0, 1) * torch.from_numpy(coding.scale).to(features)
    # Rotate into the plane whose coordinates sum to 0.
    elevated = scaled.new_empty(photos * size, d + 1)
    partial = scaled.new_zeros(photos * size)
    for i in range(d, 0, -1):
        elevated[:, i] = partial - i * scaled[:, i - 1]
        partial = partial + scaled[:, i - 1]
    elevated[:, 0] = partial
    # The nearest point whose coordinates are multiples of d + 1; its sum may be off by whole steps.
    share = torch.tensor(1 / (d + 1), dtype=torch.float32).item()
    nearest = torch.floor(elevated * share + 0.5).long()
    remainder = nearest * (d + 1)
    # Rank the coordinates by their distance to it, largest first: that is the simplex.
    rank = nearest.sum(dim=1, keepdim=True).repeat(1, d + 1)
    distance = elevated - remainder
    for i in range(d):
        less = distance[:, i : i + 1] < distance[:, i + 1 :]
        rank[:, i] += less.sum(dim=1)
        rank[:, i + 1 :] += ~less
    wrap = (rank < 0).long() - (rank > d).long()
    rank += (d + 1) * wrap
    remainder += (d + 1) * wrap
    part = (elevated - remainder) * share
    # Every rank occurs once: the part of the coordinate that ranks r-th is added at d - r and taken at d - r + 1.
    ordered = torch.empty_like(part).scatter_(1, d - rank, part)
    weight = ordered.clone()
    weight[:, 1:] -= ordered[:, :-1]
    weight[:, 0] += 1 - ordered[:, -1]
    # The vertex of class r: r more in every coordinate, d + 1 less in the r that rank last.
    stride = torch.from_numpy(coding.stride).to(features.device)
    code = ((remainder[:, :d] - torch.from_numpy(coding.low).to(features.device)) * stride).sum(dim=1)
    code += torch.arange(photos, device=code.device).repeat_interleave(size) * coding.total
    classes = [code + r * stride.sum() - (d + 1) * ((rank[:, :d] > d - r) * stride).sum(dim=1) for r in range(d + 1)]
    codes, vertex = torch.unique(torch.stack(classes, dim=1), return_inverse=True)
    steps = torch.from_numpy(coding.step).to(codes.device)
    neighbours = [_find(codes, codes + sign * step) for step in steps for sign in (1, -1)]
    return Lattice(vertex, weight, torch.stack(neighbours).view(d + 1, 2, -1))


def _find(codes: Tensor, wanted: Tensor) -> Tensor:
    """Return where each wanted code is among the M sorted codes, or M; one more M for the row of zeros."""
    missing = len(codes)
    place = torch.searchsorted(codes, wanted).clamp_(max=missing - 1)
    place = torch.where(codes[place] == wanted, place, missing)
    return torch.cat([place, place.new_tensor([missing])])


def normalise(lattice: Lattice) -> Lattice:
    """Normalise the filter K of a lattice symmetrically: n K n with n = 1 / sqrt(K 1)."""
    mass = filter_values(lattice, lattice.weight.new_ones(len(lattice.vertex), 1))
    return lattice._replace(weight=lattice.weight / mass.sqrt())


def filter_values(lattice: Lattice, values: Tensor) -> Tensor:
    """Filter values (B * N, C); the constant factor of the lattice, which normalisation cancels, is left out."""
    exact = torch.zeros(lattice.neighbours.shape[2], values.shape[1], dtype=torch.int64, device=values.device)
    # One class of vertices after the other keeps the products small in memory.
    for vertex, weight in zip(lattice.vertex.t(), lattice.weight.t(), strict=True):
        exact.index_add_(0, vertex, (weight[:, None] * values * _FIXED_POINT).round().long())
    rows = exact.to(values.dtype) / _FIXED_POINT
    for before, after in lattice.neighbours:
        rows = rows + 0.5 * (rows[before] + rows[after])
    out = torch.zeros_like(values)
    for vertex, weight in zip(lattice.vertex.t(), lattice.weight.t(), strict=True):
        out += weight[:, None] * rows[vertex]
    return out


class MeanField:
    """Mean field for all photos at once; see `hintseg.refine._lattice.MeanField`."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        """Build and normalise the lattices."""
        codes = [coding(kernel.extent, photos=len(kernel.features)) for kernel in kernels]
        self._lattices = [normalise(build(k.features, code)) for k, code in zip(kernels, codes, strict=True)]
        self.vertices = tuple(lattice.neighbours.shape[2] - 1 for lattice in self._lattices)

    def __call__(self, probabilities: Tensor, present: Tensor, iterations: int, weights: Sequence[float]) -> Tensor:
        """Infer the marginals."""
        # Each photo's own channels first: as many are computed as the richest photo holds.
        most = int(present.sum(dim=1).max()) if len(present) else 0
        chosen = present.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        index = chosen[:, :, None].expand(-1, -1, probabilities.shape[2])
        own = present.gather(1, chosen)[:, :, None]
        # An infinite energy keeps the channels that only others hold at 0.
        logarithms = probabilities.gather(1, index).float().clamp(min=LEAST).log().where(own, -torch.inf)
        logarithms = logarithms.transpose(1, 2).flatten(0, 1)
        q = logarithms.softmax(dim=1)
        for _ in range(iterations):
            logits = logarithms
            for lattice, weight in zip(self._lattices, weights, strict=True):
                # Potts: a class pays for the others' mass, which is a constant less its own.
                logits = logits + weight * filter_values(lattice, q)
            q = logits.softmax(dim=1)
        marginals = q.view(len(probabilities), probabilities.shape[2], most).transpose(1, 2)
        # A photo without any channel has no softmax.
        marginals = marginals.where(own, 0).to(probabilities.dtype)
        return torch.zeros_like(probabilities).scatter_(1, index, marginals)
