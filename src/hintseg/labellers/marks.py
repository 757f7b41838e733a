"""Boxes, strokes and clicks of one photo, whichever there are."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np

from hintseg.config.settings import DataConfig
from hintseg.labellers.grabcut import GrabCut
from hintseg.labellers.labeller import Bytes, Evidence, Labeller, check
from hintseg.labellers.strokes import Strokes
from hintseg.types import BACKGROUND, Hints, Supervision


class Marks(Labeller):
    """Cut objects out of their boxes, and spread strokes and clicks by colour. Nothing is learned.

    In a photo that has both, boxes come first: outside of them, strokes and clicks of classes without a box say where
    those are, and what is left is background.

    Attributes:
        method: `marks`.
        boxes: Settings of `grabcut`.
        strokes: Settings of `strokes`.
    """

    needs = frozenset({Supervision.BOXES, Supervision.SCRIBBLES, Supervision.POINTS})
    title = "boxes cut out, marks spread by colour"
    method: Literal["marks"] = "marks"
    boxes: GrabCut = GrabCut()
    strokes: Strokes = Strokes()

    def told(self, data: DataConfig) -> Self:
        """Tell `strokes`."""
        return self.model_copy(update={"strokes": self.strokes.told(data)})

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Label a photo by all of its marks."""
        check(self.method, self.needs, hints)
        marked = bool(self.strokes.needs & hints.kinds)
        if not hints.objects and marked:
            return self.strokes.label(rgb, hints)
        by_boxes = self.boxes.label(rgb, hints)
        if not marked:
            return by_boxes
        spread = self.strokes.label(rgb, hints)
        others = sorted(spread.classes - by_boxes.classes)
        taken = (by_boxes.pixels == BACKGROUND) & np.isin(spread.pixels, others)
        if not taken.any():
            return by_boxes
        ones = np.ones(taken.shape, np.float32)
        theirs, ours = (ones if one.trust is None else one.trust for one in (spread, by_boxes))
        pixels = np.where(taken, spread.pixels, by_boxes.pixels)
        return Evidence(pixels, np.where(taken, theirs, ours), None)
