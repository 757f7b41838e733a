"""What labels that a network makes for itself are worth: how many there are, how many are right, what most say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hintseg.types import IGNORE

Labels = npt.NDArray[np.uint8]


class LabelQuality:
    """Counts over photos of labels that may leave pixels out.

    Example:
        >>> quality = LabelQuality()
        >>> quality.add(np.array([[1, 1, 2, 255]], np.uint8), np.array([[1, 2, 255, 1]], np.uint8))
        >>> quality.covered, quality.right, quality.top_class
        (0.6666666666666666, 0.5, 0.5)
    """

    def __init__(self) -> None:
        self._known = self._right = 0
        self._said = np.zeros(IGNORE, np.int64)

    def add(self, truth: Labels, labels: Labels) -> None:
        """Count a photo.

        Args:
            truth: (H, W), 255 where it is not known; such pixels do not count.
            labels: (H, W), 255 where they say nothing.
        """
        known = truth != IGNORE
        said = known & (labels != IGNORE)
        self._known += int(known.sum())
        self._right += int((said & (labels == truth)).sum())
        self._said += np.bincount(labels[said], minlength=IGNORE)[:IGNORE]

    @property
    def covered(self) -> float:
        """Share of the pixels that are labelled, 0..1."""
        return float(self._said.sum() / max(self._known, 1))

    @property
    def right(self) -> float:
        """Share of the labelled pixels whose label is right, 0..1; 0 where none is labelled."""
        return float(self._right / max(self._said.sum(), 1))

    @property
    def top_class(self) -> float:
        """Share of the labelled pixels that the commonest label has, 0..1: near 1 where one class takes everything."""
        return float(self._said.max() / max(self._said.sum(), 1))
