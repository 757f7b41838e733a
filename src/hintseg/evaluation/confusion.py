"""Class-wise scores of masks from one confusion matrix."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.types import IGNORE

Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Confusion:
    """Count which labels were predicted for which, photo by photo.

    Pixels whose truth is 255 are left out. Two matrices of one kind add up with ``+``, so parts of a split can be
    counted apart. Scores come from the counts of the whole split, never from a mean over photos.

    Args:
        classes: Number of foreground classes K.
        background: Whether label 0 is a class of its own. If not, it is not in any mean, and predicting it is an error.
        undecided: What a predicted 255 is: `left_out` removes the pixel (and counts it in `left_out`), `background`
            takes it for label 0.

    Attributes:
        matrix: Pixels, (K + 1, K + 1) int64, rows truth, columns prediction.
        left_out: Pixels with a truth but without a decision, not in `matrix`.

    Example:
        >>> confusion = Confusion(2)
        >>> confusion.add(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]))
        >>> confusion.iou().tolist(), confusion.miou()
        ([0.5, 0.0, nan], 0.25)
    """

    def __init__(
        self, classes: int, *, background: bool = True, undecided: Literal["left_out", "background"] = "left_out"
    ) -> None:
        self.classes = classes
        self.background = background
        self.undecided = undecided
        self.matrix: Counts = np.zeros((classes + 1, classes + 1), np.int64)
        self.left_out = 0

    def add(self, truth: Labels, prediction: Labels) -> None:
        """Count one photo.

        Args:
            truth: True labels, (H, W), 0..K or 255.
            prediction: Predicted labels, (H, W), 0..K or 255.

        Raises:
            ShapeError: The sizes differ, or labels lie outside 0..K and 255.
        """
        size = self.classes + 1
        table = joint_counts(truth, prediction)
        for name, found in (("truth", table.any(axis=1)), ("prediction", table.any(axis=0))):
            check_labels(name, np.flatnonzero(found), self.classes)
        undecided = table[:size, IGNORE]
        self.matrix += table[:size, :size]
        if self.undecided == "background":
            self.matrix[:, 0] += undecided
        else:
            self.left_out += int(undecided.sum())

    def __add__(self, other: Confusion) -> Confusion:
        total = Confusion(self.classes, background=self.background, undecided=self.undecided)
        total.matrix = self.matrix + other.matrix
        total.left_out = self.left_out + other.left_out
        return total

    def iou(self) -> Floats:
        """Return intersection over union of label 0..K, (K + 1,) in 0..1.

        A class absent from truth and prediction is NaN, and so is label 0 where there is no background.
        """
        return jaccard(np.diag(self.matrix), self.matrix.sum(axis=1), self.matrix.sum(axis=0), self.background)

    def miou(self) -> float:
        """Return the mean IoU over the classes that occur in truth or prediction, 0..1."""
        return mean(self.iou())

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels predicted right, 0..1."""
        return _ratio(self._hits().sum(), self.matrix.sum())

    def mean_accuracy(self) -> float:
        """Return the class mean of the share of true pixels predicted right, over classes that occur in truth, 0..1."""
        true = self.matrix.sum(axis=1)
        return mean(np.divide(self._hits(), true, out=np.full(len(true), np.nan), where=true > 0))

    def frequency_weighted_iou(self) -> float:
        """Return the IoU weighted by each class's share of the true pixels, 0..1."""
        true = self.matrix.sum(axis=1)
        return _ratio(np.nansum(true * self.iou()), self.matrix.sum())

    def _hits(self) -> Counts:
        hits = np.diag(self.matrix).copy()
        if not self.background:
            hits[0] = 0
        return hits


def joint_counts(truth: Labels, prediction: Labels) -> Counts:
    """Count how often each pair of labels occurs, (256, 256) int64, rows truth, columns prediction.

    Raises:
        ShapeError: The sizes differ or labels lie outside 0..255.
    """
    if truth.shape != prediction.shape:
        raise ShapeError(
            f"a truth of {truth.shape} and a prediction of {prediction.shape} pixels given, equal sizes are needed"
        )
    for labels in (truth, prediction):
        if labels.size and not (labels.min() >= 0 and labels.max() <= IGNORE):
            raise ShapeError(f"labels from {labels.min()} to {labels.max()} given, 0 to 255 is needed")
    pairs = truth.astype(np.int64).ravel() * 256 + prediction.ravel()
    return np.bincount(pairs, minlength=256 * 256).reshape(256, 256)


def check_labels(name: str, labels: Labels, classes: int) -> None:
    """Refuse labels that are neither 0..K nor 255.

    Raises:
        ShapeError: There are such labels.
    """
    unknown = labels[(labels > classes) & (labels != IGNORE)]
    if unknown.size:
        ids = ", ".join(str(label) for label in unknown.tolist())
        raise ShapeError(f"the {name} holds label {ids}, 0 to {classes} or 255 is needed; check the class list")


def jaccard(hits: Labels, true: Labels, predicted: Labels, background: bool) -> Floats:
    """Return intersection over union along the last axis, label 0..K; NaN where nothing is true or predicted.

    Args:
        hits: Pixels that are both, (..., K + 1).
        true: True pixels, (..., K + 1).
        predicted: Predicted pixels, (..., K + 1).
        background: Whether label 0 is a class; if not its score is NaN.
    """
    union = true + predicted - hits
    scores: Floats = np.divide(hits, union, out=np.full(union.shape, np.nan), where=union > 0)
    if not background:
        scores[..., 0] = np.nan
    return scores


def mean(scores: Floats) -> float:
    """Return the mean of the scores that are not NaN; NaN where there is none."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if known.size else float("nan")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
