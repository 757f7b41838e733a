"""Gaussian filtering on a permutohedral lattice, and mean field with it: CPU kernels for one photo.

A lattice in d dimensions is made of simplices with d + 1 vertices, one of each remainder class modulo d + 1. A
filter adds every pixel to the vertices of its simplex (splat), blurs along the d + 1 directions, and reads the
pixels back (slice): Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice", 2010.

Every pixel has exactly one vertex of each class, and a step along a direction leads from one class to the next.
So the classes are built side by side, each with a hash table of its own, without locks. Vertices gather their
pixels through a sorted list, in pixel order: sums do not depend on the number of threads.

The vertices of a class are in the order of their codes. A step adds a constant to a code: along a direction the
neighbours of one vertex after the other are in ascending order too, and a blur walks memory forwards.

Values are kept in groups of 4 or 8 channels, (G, N, lanes): a vector in registers each, see `_vector`.
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
from hintseg.refine._parallel import Job, run, run_all
from hintseg.refine._vector import add, exp, fill, larger, largest, load, multiply, multiply_add, store, total

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Codes = NDArray[np.int64]
Lanes = tuple[int, ...]

_GRAIN = 8192  # pixels or vertices that are worth a thread
_TILE = 256  # pixels whose values stay in the nearest cache


class Lattice(NamedTuple):
    """The lattice of one photo with N pixels and M vertices in d dimensions."""

    vertex: Indices
    """Vertices of each pixel's simplex, one of each class, (d + 1, N)."""
    weight: Floats
    """Barycentric weight of each of them, (d + 1, N), times the pixel's normalisation."""
    first: Codes
    """First vertex of each class, and M at the end, (d + 2,)."""
    chains: list[Indices]
    """For each of the d + 1 directions, the chains of neighbours along it, with an M before and after each chain.

    Vertices without neighbours are in none: a blur leaves them as they are."""

    @property
    def vertices(self) -> int:
        """M."""
        return int(self.first[-1])


def build(features: Floats, coding: Coding) -> Lattice:
    """Build the lattice of one photo.

    Args:
        features: One row per pixel, (N, d), in units of the standard deviation.
        coding: How lattice points become integers.
    """
    size, dimensions = features.shape
    classes = dimensions + 1
    weight = np.empty((classes, size), np.float32)
    codes = np.empty((classes, size), np.int64)
    run(_embed, size, features, coding.scale, coding.low, coding.stride, weight, codes, grain=_GRAIN)
    vertex = np.empty((classes, size), np.int32)
    counts = np.empty(classes, np.int64)
    places = np.empty((classes, size), np.int32)
    run(_number_in_order, classes, codes, vertex, counts, places)
    first = np.concatenate([[0], np.cumsum(counts)])
    run(_place, classes, first, places, vertex)
    chains = np.empty((classes, 3 * first[-1] // 2 + 2), np.int32)
    lengths = np.empty(classes, np.int64)
    run(_chain, classes, codes, first, coding.step, chains, lengths)
    rows = [chain[:length] for chain, length in zip(chains, lengths, strict=True)]
    return Lattice(vertex, weight, first, rows)


def _number_in_order(begin: int, end: int, codes: Codes, vertex: Indices, counts: Codes, places: Indices) -> None:
    """Number the distinct codes of each class, sort them, and note the place of each number in that order."""
    _number(begin, end, codes, vertex, counts)
    for row, place, count in zip(codes[begin:end], places[begin:end], counts[begin:end], strict=True):
        order = np.argsort(row[:count])
        row[:count] = row[order]
        place[order] = np.arange(count, dtype=np.int32)


def normalise(lattice: Lattice) -> Lattice:
    """Normalise the filter K of a lattice symmetrically, in place: n K n with n = 1 / sqrt(K 1)."""
    mass = filter_values(lattice, np.ones((1, lattice.vertex.shape[1], 4), np.float32))[0, :, 0]
    lattice.weight[:] /= np.sqrt(mass)
    return lattice


def filter_values(lattice: Lattice, values: Floats) -> Floats:
    """Filter values (G, N, 4 or 8); the constant factor of the lattice, which normalisation cancels, is left out."""
    rows = [_rows(lattice, values)]
    _splat_and_blur([lattice], values, rows)
    out = np.zeros_like(values)
    lanes = (0,) * values.shape[2]
    for group, target in zip(rows[0], out, strict=True):
        one = np.float32(1)
        run(_slice, len(target), lattice.vertex, lattice.weight, one, group, target, lanes, grain=_GRAIN)
    return out


class MeanField:
    """Mean field photo by photo; see `hintseg.refine._lattice.MeanField`."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        """Build and normalise the lattices of all photos."""
        self._lattices = [_lattices(kernel) for kernel in kernels]
        self.vertices = tuple(sum(lattice.vertices for lattice in row) for row in self._lattices)

    def __call__(self, probabilities: Tensor, present: Tensor, iterations: int, weights: Sequence[float]) -> Tensor:
        """Infer the marginals."""
        marginals = torch.from_numpy(np.zeros(probabilities.shape, np.float32))
        for b, channels in enumerate(row.nonzero().flatten().numpy() for row in present):
            if len(channels):
                lattices = [row[b] for row in self._lattices]
                _infer(probabilities[b].float().numpy(), channels, lattices, weights, iterations, marginals[b].numpy())
        return marginals.to(probabilities.dtype)


def _lattices(kernel: Kernel) -> list[Lattice]:
    if kernel.grid is not None:
        return [_position(*kernel.grid)] * len(kernel.features)
    code = coding(kernel.extent)
    return [normalise(build(features.numpy(), code)) for features in kernel.features]


@lru_cache(maxsize=4)
def _position(height: int, width: int, sigma: float) -> Lattice:
    """Build the lattice of a kernel on position alone: photos of a size share it (30 bytes per pixel are kept)."""
    made = kernel(torch.empty(1, 3, height, width), sigma)
    return normalise(build(made.features[0].numpy(), coding(made.extent)))


def _infer(
    probabilities: Floats,
    channels: Codes,
    lattices: Sequence[Lattice],
    weights: Sequence[float],
    iterations: int,
    marginals: Floats,
) -> None:
    """Write the marginals of some channels of a photo, (C, N)."""
    size, count = probabilities.shape[1], len(channels)
    lanes = (0,) * (4 if count <= 4 else 8)
    logarithms = torch.empty(-(-count // len(lanes)), size, len(lanes)).numpy()
    run(_logarithm, size, probabilities, channels, logarithms, grain=_GRAIN)
    q = torch.empty(logarithms.shape).numpy()
    run(_softmax, size, logarithms, q, lanes, grain=_GRAIN)
    rows = tuple(_rows(lattice, q) for lattice in lattices)
    vertices = tuple(lattice.vertex for lattice in lattices)
    shares = tuple(lattice.weight for lattice in lattices)
    factors = np.array(weights, np.float32)
    for _ in range(iterations if lattices else 0):
        _splat_and_blur(lattices, q, rows)
        # Potts: a class pays for the others' mass, which is a constant less its own.
        run(_update, size, vertices, shares, factors, rows, logarithms, q, lanes, grain=_GRAIN)
    run(_unpack, size, q, channels, marginals, grain=_GRAIN)


def _rows(lattice: Lattice, values: Floats) -> Floats:
    """Make room for the values of the vertices, (G, M + 2, lanes): row M stays zero, row M + 1 is never read."""
    rows = torch.empty(len(values), lattice.vertices + 2, values.shape[2]).numpy()  # torch's begin at a cache line
    rows[:, -2] = 0
    return rows


def _splat_and_blur(lattices: Sequence[Lattice], values: Floats, rows: Sequence[Floats]) -> None:
    """Add values (G, N, lanes) to the vertices of all lattices, and blur."""
    lanes = (0,) * values.shape[2]
    every = list(zip(lattices, rows, strict=True))
    jobs = [
        Job(_splat, len(one.vertex), (one.first, one.vertex, one.weight, group, target, lanes))
        for one, room in every
        for group, target in zip(values, room, strict=True)
    ]
    run_all(jobs)
    for direction in range(max(len(one.chains) for one in lattices)):
        jobs = [
            Job(_blur, one.chains[direction].size, (one.chains[direction], target, lanes), _GRAIN)
            for one, room in every
            if direction < len(one.chains)
            for target in room
        ]
        run_all(jobs)


@compiled
def _embed(
    begin: int, end: int, features: Floats, scale: Floats, low: Codes, stride: Codes, weight: Floats, codes: Codes
) -> None:
    """Find the simplex of each pixel, tile by tile: the inner loops are over pixels, for vectors of them."""
    d = features.shape[1]
    share = np.float32(1 / (d + 1))
    ones = stride.sum()
    elevated = np.empty((d + 1, _TILE), np.float32)
    base = np.empty((d + 1, _TILE), np.float32)
    rest = np.empty((d + 1, _TILE), np.float32)
    rank = np.empty((d + 1, _TILE), np.int32)
    excess = np.empty(_TILE, np.int32)
    ordered = np.empty((d + 1, _TILE), np.float32)
    step = np.empty((d + 1, _TILE), np.int64)
    for first in range(begin, end, _TILE):
        size = min(_TILE, end - first)
        # Rotate into the plane whose coordinates sum to 0.
        partial = elevated[0]
        partial[:] = 0
        for i in range(d, 0, -1):
            for t in range(size):
                feature = features[first + t, i - 1] * scale[i - 1]
                elevated[i, t] = partial[t] - np.float32(i) * feature
                partial[t] += feature
        # The nearest point whose coordinates are multiples of d + 1; its sum may be off by whole steps.
        excess[:] = 0
        for i in range(d + 1):
            for t in range(size):
                nearest = np.floor(elevated[i, t] * share + np.float32(0.5))
                base[i, t] = nearest * np.float32(d + 1)
                rest[i, t] = elevated[i, t] - base[i, t]
                excess[t] += np.int32(nearest)
        # Rank the coordinates by their distance to it, largest first: that is the simplex.
        for i in range(d + 1):
            rank[i] = excess
        for i in range(d):
            for j in range(i + 1, d + 1):
                for t in range(size):
                    less = np.int32(rest[i, t] < rest[j, t])
                    rank[i, t] += less
                    rank[j, t] += np.int32(1) - less
        codes[0, first : first + size] = 0
        for i in range(d + 1):
            for t in range(size):
                turns = np.int32(rank[i, t] < 0) - np.int32(rank[i, t] > d)
                rank[i, t] += np.int32(d + 1) * turns
                base[i, t] += np.float32((d + 1) * turns)
                rest[i, t] = (elevated[i, t] - base[i, t]) * share
            # The distances and the strides, by rank from the end.
            for t in range(size):
                ordered[d - rank[i, t], t] = rest[i, t]
                step[d - rank[i, t], t] = stride[i] if i < d else 0
            if i < d:
                for t in range(size):
                    codes[0, first + t] += (np.int64(base[i, t]) - low[i]) * stride[i]
        for t in range(size):
            weight[0, first + t] = ordered[0, t] + (np.float32(1) - ordered[d, t])
        # The next class: 1 more in every coordinate, and d + 1 less in the one that ranks next from the end.
        for r in range(1, d + 1):
            for t in range(size):
                weight[r, first + t] = ordered[r, t] - ordered[r - 1, t]
                codes[r, first + t] = codes[r - 1, first + t] + (ones - (d + 1) * step[r - 1, t])


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
            p, count = _number_until_full(codes[r], p, count, table, number, bits, vertex[r])
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
def _place(begin: int, end: int, first: Codes, places: Indices, vertex: Indices) -> None:
    """Turn numbers within a class into vertices."""
    for r in range(begin, end):
        for p in range(vertex.shape[1]):
            vertex[r, p] = first[r] + places[r, vertex[r, p]]


@compiled
def _chain(begin: int, end: int, codes: Codes, first: Codes, step: Codes, chains: Indices, lengths: Codes) -> None:
    """List the chains of neighbours along each direction: a step leads from class r + 1 to class r."""
    classes = codes.shape[0]
    vertices = first[classes]
    for j in range(begin, end):
        following = np.full(vertices, -1, np.int32)
        led = np.zeros(vertices, np.bool_)
        for r in range(classes):
            source = (r + 1) % classes
            here, last = first[source], first[source + 1]
            there, stop = first[r], first[r + 1]
            while here < last and there < stop:
                difference = codes[source, here - first[source]] + step[j] - codes[r, there - first[r]]
                if difference == 0:
                    following[here] = there
                    led[there] = True
                here += difference <= 0
                there += difference >= 0
        chain = chains[j]
        chain[0] = vertices
        length = 1
        for v in range(vertices):
            if not led[v] and following[v] >= 0:
                chain[length] = v
                length += 1
                following_one = following[v]
                while following_one >= 0:
                    chain[length] = following_one
                    length += 1
                    following_one = following[following_one]
                chain[length] = vertices
                length += 1
        lengths[j] = length


@compiled
def _splat(
    begin: int, end: int, first: Codes, vertex: Indices, weight: Floats, values: Floats, out: Floats, lanes: Lanes
) -> None:
    """Add pixels to the vertices of some classes."""
    size = vertex.shape[1]
    quarter = size // 4
    for r in range(begin, end):
        out[first[r] : first[r + 1]] = 0
        # Pixels side by side share vertices, and a sum waits for the one before it: so four parts take turns.
        for p in range(quarter):
            _splat_one(r, p, vertex, weight, values, out, lanes)
            _splat_one(r, p + quarter, vertex, weight, values, out, lanes)
            _splat_one(r, p + 2 * quarter, vertex, weight, values, out, lanes)
            _splat_one(r, p + 3 * quarter, vertex, weight, values, out, lanes)
        for p in range(4 * quarter, size):
            _splat_one(r, p, vertex, weight, values, out, lanes)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _splat_one(r: int, p: int, vertex: Indices, weight: Floats, values: Floats, out: Floats, lanes: Lanes) -> None:
    v = vertex[r, p]
    store(out, v, multiply_add(fill(weight[r, p], lanes), load(values, p, lanes), load(out, v, lanes)))


@compiled
def _blur(begin: int, end: int, chain: Indices, values: Floats, lanes: Lanes) -> None:
    """Blur, in place, the chains that begin in a range."""
    none = values.shape[0] - 2
    while begin < end and chain[begin] != none:
        begin += 1
    if begin == end:
        return
    while end < chain.size and chain[end] != none:
        end += 1
    half = fill(np.float32(0.5), lanes)
    before = now = fill(np.float32(0), lanes)
    v = none
    for k in range(begin + 1, min(end + 1, chain.size)):
        after = load(values, chain[k], lanes)
        # Between chains the row that is never read takes the result.
        store(values, v + (v == none), multiply_add(half, add(before, after), now))
        before = now
        now = after
        v = chain[k]


@compiled
def _slice(
    begin: int,
    end: int,
    vertex: Indices,
    weight: Floats,
    factor: np.float32,
    values: Floats,
    out: Floats,
    lanes: Lanes,
) -> None:
    """Add factor * sliced values to `out`."""
    for r in range(len(vertex)):
        for p in range(begin, end):
            w = fill(factor * weight[r, p], lanes)
            store(out, p, multiply_add(w, load(values, vertex[r, p], lanes), load(out, p, lanes)))


@compiled
def _update(
    begin: int,
    end: int,
    vertices: tuple[Indices, ...],
    weights: tuple[Floats, ...],
    factors: Floats,
    rows: tuple[Floats, ...],
    logarithms: Floats,
    q: Floats,
    lanes: Lanes,
) -> None:
    for g in range(len(q)):
        q[g, begin:end] = logarithms[g, begin:end]
        for i in range(len(rows)):
            _slice(begin, end, vertices[i], weights[i], factors[i], rows[i][g], q[g], lanes)
    _softmax(begin, end, q, q, lanes)


@compiled
def _logarithm(begin: int, end: int, probabilities: Floats, channels: Codes, out: Floats) -> None:
    """Write the logarithms of channels of (C, N) in groups, (G, N, lanes); lanes that are left over get -inf."""
    lanes = out.shape[2]
    for first in range(begin, end, _TILE):
        for c in range(out.shape[0] * lanes):
            for p in range(first, min(first + _TILE, end)):
                value = np.float32(-np.inf)
                if c < channels.size:
                    value = np.log(max(probabilities[channels[c], p], np.float32(LEAST)))
                out[c // lanes, p, c % lanes] = value


@compiled
def _unpack(begin: int, end: int, values: Floats, channels: Codes, out: Floats) -> None:
    """Write values (G, N, lanes) to channels of (C, N)."""
    lanes = values.shape[2]
    for first in range(begin, end, _TILE):
        for c in range(channels.size):
            for p in range(first, min(first + _TILE, end)):
                out[channels[c], p] = values[c // lanes, p, c % lanes]


@compiled
def _softmax(begin: int, end: int, logits: Floats, out: Floats, lanes: Lanes) -> None:
    """Write the softmax of (G, N, lanes) over groups and lanes."""
    for p in range(begin, end):
        most = load(logits[0], p, lanes)
        for g in range(1, len(logits)):
            most = larger(most, load(logits[g], p, lanes))
        shift = fill(-largest(most), lanes)
        mass = fill(np.float32(0), lanes)
        for g in range(len(logits)):
            e = exp(add(load(logits[g], p, lanes), shift))
            store(out[g], p, e)
            mass = add(mass, e)
        share = fill(np.float32(1) / total(mass), lanes)
        for g in range(len(logits)):
            store(out[g], p, multiply(load(out[g], p, lanes), share))
