"""Outlines of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]

_MIDWAY = 0.5
"""Outlines run midway between the centres of pixels inside and outside."""

_STRAIGHT = 0.25
"""Vertices this close to the line of their neighbours, pixels, are left out of an outline."""


def outlines(mask: Bools) -> list[Ring]:
    """Return the outer outlines of a mask's parts, largest first, each (n, 2) points (x, y) in pixels of the mask.

    They run along the pixels' edges and cut corners by half a pixel, so that filling them gives the mask back (without
    its holes).

    Example:
        >>> (ring,) = outlines(np.ones((2, 3), bool))
        >>> ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
        ([0.0, 0.0], [3.0, 2.0])
    """
    import cv2
    from contourpy import contour_generator

    found = []
    for line in contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(_MIDWAY):
        ring = np.asarray(line, np.float64)[:-1]
        if _area(ring) > 0:  # the mask lies on its left; outlines of holes run the other way round
            corners = cv2.approxPolyDP(ring.astype(np.float32), _STRAIGHT, True)[:, 0]
            found.append(np.subtract(corners, 0.5, dtype=np.float64))  # pixel centres lie at + 0.5, and 1 is padding
    return sorted(found, key=_area, reverse=True)


def join(rings: Sequence[Ring]) -> Ring:
    """Join outlines into one: a part hangs on the nearest vertex of what is there, to and fro on the same line."""
    joined = rings[0]
    for ring in rings[1:]:
        apart = ((joined[:, None] - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(apart.argmin()), apart.shape)
        turned = np.roll(ring, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    return joined


def _area(ring: Ring) -> float:
    """Return the area inside a ring, negative where it runs the other way round."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def ellipse(x: float, y: float, across: float, down: float, angle: float = 0.0) -> tuple[float, ...]:
    """Return an ellipse as a ring (x, y, x, y, ...) of 64 corners: less than 0.2 % of its radius off.

    Args:
        x: Its centre from the left, pixels.
        y: Its centre from the top, pixels.
        across: Half its width, pixels.
        down: Half its height, pixels.
        angle: How far it is turned clockwise, radians.

    Example:
        >>> ring = ellipse(5, 5, 4, 2)
        >>> len(ring), ring[:2]
        (128, (9.0, 5.0))
    """
    turns = np.arange(64) * (2 * np.pi / 64)
    u, v = across * np.cos(turns), down * np.sin(turns)
    xs, ys = x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)
    return tuple(np.stack([xs, ys], axis=1).ravel().tolist())
