"""Seeds scored at many background thresholds in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.evaluation.confusion import check_labels, jaccard, mean
from hintseg.types import IGNORE

Floats = npt.NDArray[np.float64]

THRESHOLDS = tuple(step / 100 for step in range(60))
"""The field's usual sweep: 0.00, 0.01, ... 0.59."""


class SeedSweep:
    """Score class maps as seeds at every background threshold at once.

    At threshold t a pixel takes the class of its largest map where that map exceeds t, and is background where the
    largest map is t or less, as the arg-max over (t, map, map, ...) decides it; among equal maps the first wins.
    Each pixel's winner is counted in the bin of its score; the counts of a threshold are then cumulative sums. Two
    sweeps over the same thresholds add up with ``+``.

    The optimum of this curve is an *oracle*: it is chosen on ground truth.

    Args:
        classes: Number of foreground classes K.
        thresholds: Rising background scores, T of them.

    Cost:
        Memory O(K T), time of one pass over the pixels whatever T is.

    Example:
        >>> sweep = SeedSweep(1, thresholds=(0.2, 0.6))
        >>> sweep.add(np.array([[0, 1]]), [1], np.array([[[0.6, 0.9]]]))
        >>> sweep.miou().tolist(), sweep.best()
        ([0.25, 1.0], (0.6, 1.0))
    """

    def __init__(self, classes: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        self.classes = classes
        self.thresholds = tuple(thresholds)
        bins = len(self.thresholds) + 1
        # Bin b: the score exceeds exactly the first b thresholds.
        self._won = np.zeros((classes + 1, bins), np.int64)  # pixels by winner and bin
        self._right = np.zeros((classes + 1, bins), np.int64)  # those of them whose winner is the truth
        self._ground = np.zeros(bins, np.int64)  # pixels of true background by bin
        self._true = np.zeros(classes + 1, np.int64)  # pixels by truth

    def add(
        self,
        truth: npt.NDArray[np.integer],
        class_ids: Sequence[int] | npt.NDArray[np.integer],
        maps: npt.NDArray[np.floating],
    ) -> None:
        """Count one photo.

        Args:
            truth: True labels, (H, W), 0..K or 255.
            class_ids: Class ids 1..K of the maps, (n,).
            maps: Scores, (n, h, w) in 0..1, resized to the truth.

        Raises:
            ShapeError: Keys and maps do not fit together, or labels lie outside 0..K and 255.
        """
        ids = np.asarray(class_ids, dtype=np.int64)
        if maps.ndim != 3 or ids.shape != maps.shape[:1]:
            raise ShapeError(f"class ids {ids.shape} and maps {maps.shape} given, (n,) and (n, h, w) are needed")
        check_labels("truth", np.unique(truth), self.classes)
        if ids.size and not (ids.min() >= 1 and ids.max() <= self.classes):
            raise ShapeError(f"maps of classes {ids.tolist()} given, 1 to {self.classes} are needed")
        winner, score = winners(ids, maps, truth.shape)
        known = truth != IGNORE
        true, winner = truth[known].astype(np.int64), winner[known]
        # In float32 like the scores: a map of exactly 0.29 does not exceed the threshold 0.29.
        bins = np.searchsorted(np.array(self.thresholds, np.float32), score[known], side="left")
        cells = winner * len(self._ground) + bins
        self._won += np.bincount(cells, minlength=self._won.size).reshape(self._won.shape)
        self._right += np.bincount(cells[winner == true], minlength=self._won.size).reshape(self._won.shape)
        self._ground += np.bincount(bins[true == 0], minlength=len(self._ground))
        self._true += np.bincount(true, minlength=self.classes + 1)

    def __add__(self, other: SeedSweep) -> SeedSweep:
        if self.thresholds != other.thresholds:
            raise ShapeError("sweeps over different thresholds given, equal ones are needed to add them")
        total = SeedSweep(self.classes, self.thresholds)
        for name in ("_won", "_right", "_ground", "_true"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def iou(self) -> Floats:
        """Return the IoU of label 0..K at each threshold, (T, K + 1) in 0..1; NaN for classes that do not occur."""
        predicted, hits = _above(self._won), _above(self._right)
        predicted[:, 0] = self._true.sum() - predicted[:, 1:].sum(axis=1)
        hits[:, 0] = np.cumsum(self._ground)[:-1]
        return jaccard(hits, self._true, predicted, background=True)

    def miou(self) -> Floats:
        """Return the mean IoU at each threshold, (T,) in 0..1."""
        return np.array([mean(scores) for scores in self.iou()])

    def best(self) -> tuple[float, float]:
        """Return the oracle: the threshold with the largest mean IoU, the lowest of equals, and that mean IoU."""
        curve = np.nan_to_num(self.miou())
        index = int(curve.argmax())
        return self.thresholds[index], float(curve[index])

    @property
    def pixels(self) -> int:
        """Pixels counted so far."""
        return int(self._true.sum())


def winners(
    ids: npt.NDArray[np.int64], maps: npt.NDArray[np.floating], size: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return each pixel's class of the largest map and that map's score, both of `size`; without maps 0 and -1."""
    winner = np.zeros(size, np.int64)
    score = np.full(size, -1, np.float32)
    for id, small in zip(ids.tolist(), maps, strict=True):
        # cv2's linear resize is bilinear with align_corners=False.
        full = cv2.resize(small.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        higher = full > score
        winner[higher] = id
        score[higher] = full[higher]
    return winner, score


def _above(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Turn counts (K + 1, T + 1) by bin into counts (T, K + 1) of scores above each threshold."""
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above[:, 1:].T.copy()
