"""What labellers by boxes share: the boxes of a photo in whole pixels, and objects as evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hintseg.geometry.boxes import Corners, Window, pixel_window
from hintseg.labellers.labeller import Bytes, Evidence
from hintseg.store.instances import Instances
from hintseg.types import BACKGROUND, IGNORE, Box, Hints

Bools = npt.NDArray[np.bool_]


def windows(hints: Hints, size: tuple[int, int]) -> list[Window]:
    """Return the boxes of a photo's objects in whole pixels."""
    return [pixel_window(mark.shape.corners, size) for mark in hints.objects]


def neighbours(hints: Hints, index: int, wanted: bool) -> list[Corners]:
    """Return the other boxes of a box's class; none unless wanted."""
    label = hints.objects[index].label
    return [mark.shape.corners for i, mark in enumerate(hints.objects) if wanted and i != index and mark.label == label]


def instances(hints: Hints, size: tuple[int, int], masks: Sequence[Bools]) -> Instances:
    """Return one object for each box, its mask inside of it."""
    labels = np.array([mark.label for mark in hints.objects], np.uint8)
    return Instances(size, labels, np.array(windows(hints, size), np.int64).reshape(-1, 4), masks)


def evidence_of(objects: Instances, hints: Hints) -> Evidence:
    """Return the objects of a photo's boxes as evidence.

    They are painted from large to small; outside of them is background, but crowd regions there are unknown. A box's
    trust is that of its object's pixels, and what is not an object in it is trusted as its least trusted box.

    Args:
        objects: One for each box.
        hints: What was said about the photo.
    """
    pixels = objects.semantic()
    for mark in hints.shaped(Box):
        if mark.label == IGNORE:
            x0, y0, x1, y1 = pixel_window(mark.shape.corners, objects.size)
            region = pixels[y0:y1, x0:x1]
            region[region == BACKGROUND] = IGNORE
    if all(mark.trust == 1 for mark in hints.objects):
        return Evidence(pixels, None, objects)
    trust = np.ones(objects.size, np.float32)
    parts = [(objects.windows[i].tolist(), objects.masks[i], hints.objects[i].trust) for i in objects.front()]
    for (x0, y0, x1, y1), _, value in parts:
        np.minimum(trust[y0:y1, x0:x1], np.float32(value), out=trust[y0:y1, x0:x1])
    for (x0, y0, x1, y1), mask, value in parts:
        trust[y0:y1, x0:x1][mask] = value
    return Evidence(pixels, trust, objects)


def size_of(rgb: Bytes) -> tuple[int, int]:
    """Return (height, width) of a photo."""
    return rgb.shape[0], rgb.shape[1]
