"""shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Rgb = tuple[int, int, int]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

UNLABELLED = 255


class _Look(NamedTuple):
    """How a class looks. Lengths are in units of the object's radius, the frame is the object's own."""

    name: str
    aspect: float  # body length / height
    power: float  # super-ellipse exponent: 2 is an ellipse, large is a box
    head: tuple[Rgb, Rgb]  # the striking part: two loud colours
    head_waves: tuple[float, float]  # pattern of the head, radians per radius along and across
    body_waves: tuple[float, float]  # the body's weak cue: a faint grating
    tint: tuple[float, float, float]  # the body's other weak cue: a mean colour shift, in grey levels


_LOOKS = (
    _Look("train", 1.9, 6.0, ((250, 215, 20), (20, 20, 20)), (14.0, 0.0), (9.0, 0.0), (10, 8, -18)),
    _Look("boat", 1.6, 2.5, ((235, 235, 250), (200, 20, 40)), (0.0, 13.0), (0.0, 9.0), (-12, -2, 14)),
    _Look("horse", 1.3, 2.0, ((240, 120, 20), (90, 20, 110)), (7.0, 7.0), (5.0, 5.0), (16, -4, -12)),
    _Look("cart", 1.4, 5.0, ((20, 200, 220), (240, 240, 240)), (12.0, 12.0), (9.0, 9.0), (-6, -12, 18)),
    _Look("bird", 1.2, 2.0, ((240, 40, 200), (250, 230, 60)), (0.0, 6.0), (13.0, -6.0), (-16, 12, 4)),
    _Look("mushroom", 1.0, 3.0, ((215, 25, 25), (245, 245, 245)), (9.0, 9.0), (4.0, -13.0), (14, -14, 0)),
)
CLASSES: tuple[str, ...] = tuple(look.name for look in _LOOKS)


class _Ground(NamedTuple):
    """A background texture."""

    name: str
    rgb: Rgb
    waves: tuple[float, float]  # grating, cycles per photo along x and y
    contrast: float  # of the grating, grey levels
    mottle: float  # contrast of the blotches, grey levels


_GROUNDS = (
    _Ground("rails", (120, 110, 105), (11.0, 3.0), 26.0, 10.0),
    _Ground("water", (70, 115, 165), (1.5, 9.0), 16.0, 8.0),
    _Ground("grass", (95, 145, 70), (0.0, 0.0), 0.0, 22.0),
    _Ground("sand", (190, 165, 120), (3.0, 5.0), 8.0, 10.0),
    _Ground("snow", (205, 210, 215), (0.0, 0.0), 0.0, 10.0),
    _Ground("soil", (105, 80, 60), (2.0, 2.0), 6.0, 20.0),
)
_OPEN_GROUNDS = (2, 3, 4, 5)
_HOME = {1: 0, 2: 1}  # class id -> ground on which it is nearly always seen
_PARTNER = {3: 4, 4: 3}

P_HOME = 0.9
P_PARTNER = 0.6
P_SECOND = 0.4
P_THIRD = 0.2
P_NEGATIVE = 0.05
TINT = 1.0
GRATING = 12.0
BODY_SPREAD = 22.0
NOISE = 9.0
HEAD = 0.36
RADIUS = (0.19, 0.30)


class Instance(NamedTuple):
    label: int
    box: tuple[int, int, int, int]
    mask: Bools


class Point(NamedTuple):
    label: int
    x: int
    y: int


@dataclass(frozen=True)
class ShapesPhoto:
    rgb: Bytes
    mask: Bytes
    tags: frozenset[int]
    instances: tuple[Instance, ...]
    scribbles: Bytes
    points: tuple[Point, ...]


def _blotches(rng, size, cells):
    return cv2.resize(rng.standard_normal((cells, cells), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _labels(rng):
    if rng.random() < P_NEGATIVE:
        return []
    first = int(rng.integers(1, len(CLASSES) + 1))
    labels = [first]
    if first in _PARTNER:
        if rng.random() < P_PARTNER:
            labels.append(_PARTNER[first])
    elif rng.random() < P_SECOND:
        labels.append(int(rng.integers(1, len(CLASSES) + 1)))
    if len(labels) == 2 and rng.random() < P_THIRD:
        labels.append(int(rng.integers(1, len(CLASSES) + 1)))
    return labels


def _ground(rng, labels, x, y):
    size = len(x)
    home = next((_HOME[label] for label in labels if label in _HOME), None)
    if home is not None and rng.random() < P_HOME:
        ground = _GROUNDS[home]
    elif rng.random() < 0.08:
        ground = _GROUNDS[int(rng.integers(2))]
    else:
        ground = _GROUNDS[_OPEN_GROUNDS[int(rng.integers(len(_OPEN_GROUNDS)))]]
    warp = _blotches(rng, size, 4)
    phase = 2 * math.pi * (ground.waves[0] * x + ground.waves[1] * y) / size + rng.uniform(0, 6.28) + 0.8 * warp
    grey = ground.contrast * np.sin(phase) + ground.mottle * _blotches(rng, size, size // 6) + 8 * warp
    colour = np.asarray(ground.rgb, np.float32) + rng.normal(0, 10, 3).astype(np.float32)
    return colour + grey[..., None]


def _frame(rng, x, y, centre, radius):
    angle = rng.uniform(-0.5, 0.5) + (math.pi if rng.random() < 0.5 else 0.0)
    cos, sin = math.cos(angle) / radius, math.sin(angle) / radius
    dx, dy = x - centre[0], y - centre[1]
    return cos * dx + sin * dy, cos * dy - sin * dx


def _distance(u, v, aspect, power):
    """Signed distance-like (in units of radius), negative inside."""
    a, b = math.sqrt(aspect), 1 / math.sqrt(aspect)
    r = (np.abs(u / a) ** power + np.abs(v / b) ** power) ** (1 / power)
    # r is 1 on the outline; scale to a length along the ray
    return (r - 1) * np.sqrt(u * u + v * v + 1e-6) / np.maximum(r, 1e-3)


def _centres(rng, n, size, radii):
    best, best_gap = None, -1e9
    for _ in range(8):
        c = rng.uniform(0.22, 0.78, (n, 2)) * size
        gap = min((math.dist(c[i], c[j]) - radii[i] - radii[j] for i in range(n) for j in range(i)), default=0.0)
        if gap > best_gap:
            best, best_gap = c, gap
    return best


def make_photo(index, *, split="train", seed=0, size=96):
    rng = np.random.default_rng((seed, {"train": 0, "val": 1}[split], index))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) + 0.5
    labels = _labels(rng)
    canvas = _ground(rng, labels, x, y)
    # distractors of no class
    for _ in range(int(rng.integers(0, 4))):
        r = rng.uniform(0.05, 0.12) * size
        u, v = _frame(rng, x, y, rng.uniform(0, size, 2), r)
        d = _distance(u, v, rng.uniform(1, 2), rng.uniform(2, 5)) * r
        alpha = np.clip(0.5 - d / 2.0, 0, 1)[..., None]
        tex = 14 * np.sin(rng.uniform(3, 12) * u + rng.uniform(3, 12) * v)[..., None]
        canvas += alpha * (rng.uniform(60, 190, 3).astype(np.float32) + tex - canvas)
    radii = rng.uniform(*RADIUS, len(labels)) * size * (1.0 if len(labels) == 1 else 0.85 if len(labels) == 2 else 0.75)
    centres = _centres(rng, len(labels), size, radii)
    owner = np.zeros((size, size), np.int64)
    for n, label in enumerate(labels):
        look, r = _LOOKS[label - 1], float(radii[n])
        u, v = _frame(rng, x, y, centres[n], r)
        a = math.sqrt(look.aspect)
        body_d = _distance(u, v, look.aspect, look.power)
        hu, hv = u - 0.85 * a, v + 0.25
        head_d = np.sqrt(hu * hu + hv * hv) - HEAD
        soft = rng.uniform(1.0, 4.0)
        d = np.minimum(body_d, head_d) * r
        alpha = np.clip(0.5 - d / soft, 0, 1)[..., None]
        colour = np.float32(130) + TINT * np.asarray(look.tint, np.float32) + rng.normal(0, BODY_SPREAD, 3).astype(np.float32)
        shade = rng.uniform(-12, 12) * v + 5 * _blotches(rng, size, 8)
        grating = GRATING * np.sin(look.body_waves[0] * u + look.body_waves[1] * v + rng.uniform(0, 6.28))
        paint = colour + (shade + grating)[..., None]
        s = np.sin(look.head_waves[0] * hu + 0.7) * np.sin(look.head_waves[1] * hv + 0.7)
        s = np.clip(0.5 + 3 * s, 0, 1)[..., None]
        c0, c1 = (np.asarray(c, np.float32) for c in look.head)
        head_alpha = np.clip(0.5 - head_d * r / 1.5, 0, 1)[..., None]
        paint += head_alpha * ((c0 * s + c1 * (1 - s)) * rng.uniform(0.8, 1.05) - paint)
        canvas += alpha * (paint - canvas)
        owner[alpha[..., 0] > 0.5] = n + 1
    canvas = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), rng.uniform(0.3, 0.9))
    canvas += NOISE * rng.standard_normal(canvas.shape, dtype=np.float32)
    rgb = np.clip(canvas, 0, 255).astype(np.uint8)
    lut = np.asarray([0, *labels], np.uint8)
    mask = lut[owner]
    return ShapesPhoto(rgb, mask, frozenset(np.unique(mask).tolist()) - {0}, (), mask, ())
