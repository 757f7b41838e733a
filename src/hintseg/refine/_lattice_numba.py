"""Gaussian filtering on a permutohedral lattice, and mean field with it: CPU kernels for one photo.

A lattice in d dimensions is made of simplices with d + 1 vertices, one of each remainder class modulo d + 1. A
filter adds every pixel to the vertices of its simplex (splat), blurs along the d + 1 directions, and reads the
pixels back (slice): Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice", 2010.

Every pixel has exactly one vertex of each class, and a step along a direction leads from one class to the next.
So the classes are built side by side, each with a hash table of its own, without locks. Vertices gather their
pixels through a sorted list, in pixel order: sums do not depend on the number of threads.

Values are kept in groups of four channels, (G, N, 4): four running sums fit the registers, whatever C is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hintseg.refine._compile import compiled
from hintseg.refine._lattice import LEAST, Coding, Kernel, coding, kernel
from hintseg.refine._parallel import run

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Codes = NDArray[np.int64]

_GRAIN = 8192  # pixels or vertices that are worth a thread


class Lattice(NamedTuple):
    """The lattice of one photo with N pixels and M vertices in d dimensions; row M of values is always zero."""

    vertex: Indices
    """Vertices of each pixel's simplex, (N, d + 1)."""
    weight: Floats
    """Barycentric weight of each of them, (N, d + 1), times the pixel's normalisation."""
    neighbours: Indices
    """The two neighbours of each vertex along each direction, (d + 1, M + 1, 2); M where there is none."""
    start: Codes
    """Where a vertex's pixels begin in `pixel`, (M + 1,)."""
    pixel: Indices
    """Pixels of each vertex in ascending order, (N * (d + 1),)."""
    pixel_weight: Floats
    """`weight`, in the order of `pixel`."""


def build(features: Floats, coding: Coding) -> Lattice:
    """Build the lattice of one photo.

    Args:
        features: One row per pixel, (N, d), in units of the standard deviation.
        coding: How lattice points become integers.
    """
    size, dimensions = features.shape
    classes = dimensions + 1
    weight = np.empty((size, classes), np.float32)
    codes = np.empty((classes, size), np.int64)
    run(_embed, size, features, coding.scale, coding.low, coding.stride, weight, codes, grain=_GRAIN)
    vertex = np.empty((size, classes), np.int32)
    counts = np.empty(classes, np.int64)
    run(_number, classes, codes, vertex, counts)
    first = np.concatenate([[0], np.cumsum(counts)])
    start = np.full(first[-1] + 1, size * classes)
    pixel = np.empty(size * classes, np.int32)
    run(_sort_pixels, classes, first, vertex, start, pixel)
    neighbours = np.full((classes, first[-1] + 1, 2), first[-1], np.int32)
    run(_link, classes, codes, first, coding.step, neighbours)
    return _weighted(Lattice(vertex, weight, neighbours, start, pixel, np.empty(0, np.float32)), weight)


def normalise(lattice: Lattice) -> Lattice:
    """Normalise the filter K of a lattice symmetrically: n K n with n = 1 / sqrt(K 1)."""
    mass = filter_values(lattice, np.ones((1, len(lattice.vertex), 4), np.float32))[0, :, :1]
    return _weighted(lattice, (lattice.weight / np.sqrt(mass)).astype(np.float32))


def _weighted(lattice: Lattice, weight: Floats) -> Lattice:
    pixel_weight = np.empty(weight.size, np.float32)
    run(_sort_weights, weight.shape[1], weight, lattice.pixel, pixel_weight)
    return lattice._replace(weight=weight, pixel_weight=pixel_weight)


def filter_values(lattice: Lattice, values: Floats) -> Floats:
    """Filter values (G, N, 4); the constant factor of the lattice, which normalisation cancels, is left out."""
    out = np.zeros_like(values)
    _add_filtered(lattice, 1.0, values, out, out, _rows(lattice))
    return out


class MeanField:
    """Mean field photo by photo; see `hintseg.refine._lattice.MeanField`."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        """Build and normalise the lattices of all photos."""
        self._lattices = [_lattices(kernel) for kernel in kernels]
        self.vertices = tuple(sum(len(lattice.start) - 1 for lattice in row) for row in self._lattices)

    def __call__(self, probabilities: Tensor, present: Tensor, iterations: int, weights: Sequence[float]) -> Tensor:
        """Infer the marginals."""
        marginals = torch.zeros_like(probabilities)
        for b, channels in enumerate(row.nonzero().flatten() for row in present):
            if len(channels):
                lattices = [row[b] for row in self._lattices]
                q = _infer(probabilities[b, channels].float().numpy(), lattices, weights, iterations)
                marginals[b, channels] = torch.from_numpy(q).to(marginals.dtype)
        return marginals


def _lattices(kernel: Kernel) -> list[Lattice]:
    if kernel.grid is not None:
        return [_position(*kernel.grid)] * len(kernel.features)
    code = coding(kernel.extent)
    return [normalise(build(features.numpy(), code)) for features in kernel.features]


@lru_cache(maxsize=4)
def _position(height: int, width: int, sigma: float) -> Lattice:
    """Build the lattice of a kernel on position alone: photos of a size share it (50 bytes per pixel are kept)."""
    made = kernel(torch.empty(1, 3, height, width), sigma)
    return normalise(build(made.features[0].numpy(), coding(made.extent)))


def _infer(probabilities: Floats, lattices: Sequence[Lattice], weights: Sequence[float], iterations: int) -> Floats:
    count, size = probabilities.shape
    logarithms = np.zeros((-(-count // 4), size, 4), np.float32)
    run(_logarithm, size, probabilities, logarithms, grain=_GRAIN)
    q = logarithms.copy()
    run(_softmax, size, q, count, grain=_GRAIN)
    logits = np.empty_like(q)
    rows = [_rows(lattice) for lattice in lattices]
    for _ in range(iterations):
        before = logarithms
        for lattice, weight, row in zip(lattices, weights, rows, strict=True):
            # Potts: a class pays for the others' mass, which is a constant less its own.
            _add_filtered(lattice, weight, q, before, logits, row)
            before = logits
        if not lattices:
            np.copyto(logits, logarithms)
        run(_softmax, size, logits, count, grain=_GRAIN)
        q, logits = logits, q
    return q.transpose(0, 2, 1).reshape(-1, size)[:count]


def _rows(lattice: Lattice) -> tuple[Floats, Floats]:
    """Make room for the values of the vertices, twice; the last row stays zero."""
    size = len(lattice.start)
    return np.zeros((size, 4), np.float32), np.zeros((size, 4), np.float32)


def _add_filtered(
    lattice: Lattice, factor: float, values: Floats, before: Floats, out: Floats, rows: tuple[Floats, Floats]
) -> None:
    """Write before + factor * filtered values to `out`, all (G, N, 4)."""
    vertices = len(lattice.start) - 1
    now, after = rows
    for group, base, target in zip(values, before, out, strict=True):
        run(_splat, lattice.pixel.size, lattice.start, lattice.pixel, lattice.pixel_weight, group, now, grain=_GRAIN)
        for direction in lattice.neighbours:
            run(_blur, vertices, direction, now, after, grain=2 * _GRAIN)
            now, after = after, now
        run(_slice, len(group), lattice.vertex, lattice.weight, np.float32(factor), now, base, target, grain=_GRAIN)


@compiled
def _embed(
    begin: int, end: int, features: Floats, scale: Floats, low: Codes, stride: Codes, weight: Floats, codes: Codes
) -> None:
    d = features.shape[1]
    share = np.float32(1 / (d + 1))
    ones = stride.sum()
    elevated = np.empty(d + 1, np.float32)
    remainder = np.empty(d + 1, np.int64)
    rank = np.empty(d + 1, np.int64)
    rest = np.empty(d + 1, np.float32)
    barycentric = np.empty(d + 2, np.float32)
    ranked_stride = np.empty(d + 1, np.int64)
    for p in range(begin, end):
        # Rotate into the plane whose coordinates sum to 0.
        partial = np.float32(0)
        for i in range(d, 0, -1):
            feature = features[p, i - 1] * scale[i - 1]
            elevated[i] = partial - np.float32(i) * feature
            partial += feature
        elevated[0] = partial
        # The nearest point whose coordinates are multiples of d + 1; its sum may be off by whole steps.
        excess = 0
        for i in range(d + 1):
            nearest = int(np.floor(elevated[i] * share + np.float32(0.5)))
            remainder[i] = nearest * (d + 1)
            rest[i] = elevated[i] - np.float32(remainder[i])
            excess += nearest
        # Rank the coordinates by their distance to it, largest first: that is the simplex.
        rank[:] = excess
        for i in range(d):
            for j in range(i + 1, d + 1):
                if rest[i] < rest[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        for i in range(d + 1):
            if rank[i] < 0:
                rank[i] += d + 1
                remainder[i] += d + 1
            elif rank[i] > d:
                rank[i] -= d + 1
                remainder[i] -= d + 1
        barycentric[:] = 0
        for i in range(d + 1):
            part = (elevated[i] - np.float32(remainder[i])) * share
            barycentric[d - rank[i]] += part
            barycentric[d + 1 - rank[i]] -= part
        barycentric[0] += np.float32(1) + barycentric[d + 1]
        code = np.int64(0)
        ranked_stride[rank[d]] = 0
        for i in range(d):
            code += (remainder[i] - low[i]) * stride[i]
            ranked_stride[rank[i]] = stride[i]
        for r in range(d + 1):
            weight[p, r] = barycentric[r]
            codes[r, p] = code
            # The next class: 1 more in every coordinate, and d + 1 less in the one that ranks next from the end.
            code += ones - (d + 1) * ranked_stride[d - r]


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _slot(table: Codes, bits: int, code: np.int64) -> np.int64:
    """Return where `code` is in an open hash table of 2^bits places, or the free place (-1) for it."""
    # Fibonacci hashing: the top bits of the product depend on all bits of the code.
    slot = np.int64((np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))
    while table[slot] != code and table[slot] != -1:
        slot = (slot + 1) & (table.size - 1)
    return slot


@compiled
def _fill(codes: Codes, bits: int) -> tuple[Codes, Indices]:
    table = np.full(1 << bits, -1, np.int64)
    number = np.empty(1 << bits, np.int32)
    for n in range(codes.size):
        slot = _slot(table, bits, codes[n])
        table[slot] = codes[n]
        number[slot] = n
    return table, number


@compiled
def _number(begin: int, end: int, codes: Codes, vertex: Indices, counts: Codes) -> None:
    """Number the distinct codes of each class by first appearance, and move them to the front of its row."""
    for r in range(begin, end):
        bits = 12
        count = 0
        p = 0
        while p < codes.shape[1]:
            table, number = _fill(codes[r, :count], bits)
            p, count = _number_until_full(codes[r], p, count, table, number, bits, vertex[:, r])
            bits += 1
        counts[r] = count


@compiled
def _number_until_full(
    codes: Codes, p: int, count: int, table: Codes, number: Indices, bits: int, vertex: Indices
) -> tuple[int, int]:
    """Number codes from pixel p on until the table is half full; a loop of its own, as arrays that change are slow."""
    last = np.int64(-1)
    index = np.int32(0)
    while p < codes.size:
        code = codes[p]
        if code != last:  # pixels side by side often share their simplex
            slot = _slot(table, bits, code)
            if table[slot] == -1:
                if 2 * count == table.size:
                    break
                table[slot] = code
                number[slot] = count
                codes[count] = code
                count += 1
            index = number[slot]
            last = code
        vertex[p] = index
        p += 1
    return p, count


@compiled
def _sort_pixels(begin: int, end: int, first: Codes, vertex: Indices, start: Codes, pixel: Indices) -> None:
    """Turn numbers within a class into vertices, and list the pixels of each (counting sort)."""
    size = vertex.shape[0]
    for r in range(begin, end):
        place = np.zeros(first[r + 1] - first[r] + 1, np.int64)
        for p in range(size):
            place[vertex[p, r] + 1] += 1
        place[0] = r * size
        for v in range(1, place.size):
            place[v] += place[v - 1]
        start[first[r] : first[r + 1]] = place[:-1]
        for p in range(size):
            v = vertex[p, r]
            pixel[place[v]] = p
            place[v] += 1
            vertex[p, r] = v + first[r]


@compiled
def _sort_weights(begin: int, end: int, weight: Floats, pixel: Indices, out: Floats) -> None:
    size = weight.shape[0]
    for r in range(begin, end):
        for e in range(r * size, (r + 1) * size):
            out[e] = weight[pixel[e], r]


@compiled
def _link(begin: int, end: int, codes: Codes, first: Codes, step: Codes, neighbours: Indices) -> None:
    """Find the neighbours of all vertices: a step leads from class r + 1 to class r."""
    classes = codes.shape[0]
    for r in range(begin, end):
        count = first[r + 1] - first[r]
        bits = 1
        while 1 << bits < 2 * count:
            bits += 1
        table, number = _fill(codes[r, :count], bits)
        source = (r + 1) % classes
        for n in range(first[source + 1] - first[source]):
            for j in range(classes):
                slot = _slot(table, bits, codes[source, n] + step[j])
                if table[slot] != -1:
                    here = first[source] + n
                    there = first[r] + number[slot]
                    neighbours[j, here, 0] = there
                    neighbours[j, there, 1] = here


@compiled
def _splat(begin: int, end: int, start: Codes, pixel: Indices, weight: Floats, values: Floats, out: Floats) -> None:
    # Ranges of pixels give like work: vertices hold between one pixel and most of the sky.
    last = start.size - 1
    for v in range(np.searchsorted(start[:last], begin), np.searchsorted(start[:last], end)):
        s0 = s1 = s2 = s3 = np.float32(0)
        for e in range(start[v], start[v + 1]):
            p = pixel[e]
            w = weight[e]
            s0 += w * values[p, 0]
            s1 += w * values[p, 1]
            s2 += w * values[p, 2]
            s3 += w * values[p, 3]
        out[v, 0] = s0
        out[v, 1] = s1
        out[v, 2] = s2
        out[v, 3] = s3


@compiled
def _blur(begin: int, end: int, neighbours: Indices, values: Floats, out: Floats) -> None:
    half = np.float32(0.5)
    for v in range(begin, end):
        a = neighbours[v, 0]
        b = neighbours[v, 1]
        out[v, 0] = values[v, 0] + half * (values[a, 0] + values[b, 0])
        out[v, 1] = values[v, 1] + half * (values[a, 1] + values[b, 1])
        out[v, 2] = values[v, 2] + half * (values[a, 2] + values[b, 2])
        out[v, 3] = values[v, 3] + half * (values[a, 3] + values[b, 3])


@compiled
def _slice(
    begin: int,
    end: int,
    vertex: Indices,
    weight: Floats,
    factor: np.float32,
    values: Floats,
    before: Floats,
    out: Floats,
) -> None:
    classes = vertex.shape[1]
    for p in range(begin, end):
        s0 = s1 = s2 = s3 = np.float32(0)
        for r in range(classes):
            v = vertex[p, r]
            w = weight[p, r]
            s0 += w * values[v, 0]
            s1 += w * values[v, 1]
            s2 += w * values[v, 2]
            s3 += w * values[v, 3]
        out[p, 0] = before[p, 0] + factor * s0
        out[p, 1] = before[p, 1] + factor * s1
        out[p, 2] = before[p, 2] + factor * s2
        out[p, 3] = before[p, 3] + factor * s3


@compiled
def _logarithm(begin: int, end: int, probabilities: Floats, out: Floats) -> None:
    """Write the logarithms of probabilities (C, N) in groups of four channels, (G, N, 4)."""
    for c in range(probabilities.shape[0]):
        for p in range(begin, end):
            out[c // 4, p, c % 4] = np.log(max(probabilities[c, p], np.float32(LEAST)))


@compiled
def _softmax(begin: int, end: int, logits: Floats, count: int) -> None:
    """Replace the first `count` channels of (G, N, 4) by their softmax."""
    for p in range(begin, end):
        largest = logits[0, p, 0]
        for c in range(1, count):
            largest = max(largest, logits[c // 4, p, c % 4])
        total = np.float32(0)
        for c in range(count):
            e = np.exp(logits[c // 4, p, c % 4] - largest)
            logits[c // 4, p, c % 4] = e
            total += e
        share = np.float32(1) / total
        for c in range(count):
            logits[c // 4, p, c % 4] *= share
