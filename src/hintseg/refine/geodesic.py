"""Geodesic distances: how far each pixel is from what is labelled, where crossing an edge is a long way."""

from __future__ import annotations

import heapq
import math

import cv2
import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.refine._compile import compiled
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def geodesic(rgb: Bytes, labels: Bytes, *, step: float = 0.03, smooth: float = 1.5) -> tuple[Bytes, Floats]:
    """Measure the shortest way from every pixel to each label.

    A step from a pixel to one of its eight neighbours costs ``sqrt(|colour difference|^2 + (step * distance)^2)``.
    Pixels of other labels are not crossed.

    Args:
        rgb: The photo, (H, W, 3) uint8.
        labels: (H, W) uint8; 255 where nothing is said.
        step: What a pixel of way costs beside the colours, in Lab units of 0..255, > 0.
        smooth: Standard deviation of the Gaussian that the photo is smoothed with first, pixels; 0: it is not.

    Returns:
        The n labels that occur, ascending, and the distances to them, (n, H, W) >= 0, infinite where other labels bar
        the way.

    Raises:
        ShapeError: The sizes differ, or a setting is out of range.

    Cost:
        Time O(n * H * W * log(H * W)): about 30 ms for a label on 192 x 256 pixels.

    Source:
        Bai and Sapiro, "A Geodesic Framework for Fast Interactive Image and Video Segmentation and Matting", ICCV
        2007; Criminisi, Sharp and Blake, "GeoS: Geodesic Image Segmentation", ECCV 2008, Eq. 2.

    Example:
        >>> rgb = np.zeros((1, 4, 3), np.uint8)
        >>> found, distances = geodesic(rgb, np.array([[1, 255, 255, 0]], np.uint8), step=1.0)
        >>> found.tolist(), distances.tolist()
        ([0, 1], [[[inf, 2.0, 1.0, 0.0]], [[0.0, 1.0, 2.0, inf]]])
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != labels.shape:
        raise ShapeError(f"a photo of {rgb.shape} and labels of {labels.shape} given; (H, W, 3) and (H, W) are needed")
    if not step > 0 or not smooth >= 0:
        raise ShapeError(f"step is {step} and smooth {smooth}; give a step above 0 and a smooth of 0 or more")
    seen = cv2.GaussianBlur(rgb, (0, 0), smooth) if smooth else rgb
    colours = cv2.cvtColor(seen.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) * np.array([255 / 100, 1, 1], np.float32)
    found = np.unique(labels[labels != IGNORE])
    distances = np.full((len(found), *labels.shape), np.inf)
    for label, distance in zip(found, distances, strict=True):
        _spread(colours, labels, label, step, distance)
    return found, distances


@compiled
def _spread(colours: npt.NDArray[np.float32], labels: Bytes, label: int, step: float, distance: Floats) -> None:
    """Dijkstra's algorithm from all pixels of a label."""
    height, width = labels.shape
    front = [(0.0, 0)]
    front.pop()  # a list of this type, empty
    for y in range(height):
        for x in range(width):
            if labels[y, x] == label:
                distance[y, x] = 0.0
                front.append((0.0, y * width + x))  # all are equal: this is a heap
    while len(front) > 0:
        way, place = heapq.heappop(front)
        y, x = place // width, place % width
        if way > distance[y, x]:
            continue
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or v >= height or u >= width or (labels[v, u] != label and labels[v, u] != IGNORE):
                    continue
                cost = step * step * (dy * dy + dx * dx)
                for channel in range(3):
                    difference = colours[v, u, channel] - colours[y, x, channel]
                    cost += difference * difference
                further = way + math.sqrt(cost)
                if further < distance[v, u]:
                    distance[v, u] = further
                    heapq.heappush(front, (further, v * width + u))
