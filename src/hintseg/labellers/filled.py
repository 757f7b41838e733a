"""Filled boxes: the baseline of whatever labels by boxes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from hintseg.labellers.labeller import Bytes, Evidence, Labeller, check
from hintseg.labellers.objects import evidence_of, instances, size_of, windows
from hintseg.types import Hints, Supervision


class Filled(Labeller):
    """Take each box as its object's mask: the baseline of methods that learn from boxes.

    Attributes:
        method: `filled`.
    """

    needs = frozenset({Supervision.BOXES})
    title = "filled boxes"
    sees = False
    method: Literal["filled"] = "filled"

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Fill the boxes."""
        check(self.method, self.needs, hints)
        size = size_of(rgb)
        masks = [np.ones((y1 - y0, x1 - x0), np.bool_) for x0, y0, x1, y1 in windows(hints, size)]
        return evidence_of(instances(hints, size, masks), hints)
