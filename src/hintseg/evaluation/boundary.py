"""Boundary IoU: how well outlines fit, whatever the size of the object."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hintseg.errors import ShapeError
from hintseg.evaluation.confusion import check_labels, jaccard, mean
from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]


class BoundaryIou:
    """IoU of the bands along the inner side of each class's outline.

    The band of a class holds its pixels within d of a pixel of another label or of the photo's edge (distance in the
    maximum norm), d = 2 % of the photo's diagonal. Intersections and unions are summed over the split, as for the IoU.
    Pixels that are 255 in truth or prediction are left out and are no outline. Two of them add up with ``+``.

    Args:
        classes: Number of foreground classes K.
        background: Whether label 0 is a class of its own.
        dilation: d as a share of the diagonal.

    Source:
        Cheng, Girshick, Dollar, Berg and Kirillov, Boundary IoU, CVPR 2021, equation 3.
    """

    def __init__(self, classes: int, *, background: bool = True, dilation: float = 0.02) -> None:
        self.classes = classes
        self.background = background
        self.dilation = dilation
        self._hits = np.zeros(classes + 1, np.int64)
        self._true = np.zeros(classes + 1, np.int64)
        self._predicted = np.zeros(classes + 1, np.int64)

    def add(self, truth: Bytes, prediction: Bytes) -> None:
        """Count one photo.

        Args:
            truth: True labels, (H, W) uint8, 0..K or 255.
            prediction: Predicted labels, (H, W) uint8, 0..K or 255.

        Raises:
            ShapeError: The sizes differ, or labels lie outside 0..K and 255.
        """
        if truth.shape != prediction.shape:
            raise ShapeError(
                f"a truth of {truth.shape} and a prediction of {prediction.shape} pixels given, equal sizes are needed"
            )
        for name, labels in (("truth", truth), ("prediction", prediction)):
            check_labels(name, np.unique(labels), self.classes)
        unknown = (truth == IGNORE) | (prediction == IGNORE)
        width = max(1, round(self.dilation * float(np.hypot(*truth.shape))))
        true, predicted = (np.where(unknown, np.uint8(IGNORE), labels) for labels in (truth, prediction))
        true_band, predicted_band = _band(true, width), _band(predicted, width)
        both = true_band & predicted_band & (true == predicted)
        size = self.classes + 1
        self._hits += np.bincount(true[both], minlength=size)
        self._true += np.bincount(true[true_band], minlength=size)
        self._predicted += np.bincount(predicted[predicted_band], minlength=size)

    def __add__(self, other: BoundaryIou) -> BoundaryIou:
        total = BoundaryIou(self.classes, background=self.background, dilation=self.dilation)
        total._hits = self._hits + other._hits
        total._true = self._true + other._true
        total._predicted = self._predicted + other._predicted
        return total

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the boundary IoU of label 0..K, (K + 1,) in 0..1; NaN for classes that do not occur."""
        return jaccard(self._hits, self._true, self._predicted, self.background)

    def miou(self) -> float:
        """Return the class mean of the boundary IoU, 0..1."""
        return mean(self.iou())


def _band(labels: Bytes, width: int) -> npt.NDArray[np.bool_]:
    """Return which pixels have another label, or the edge of the photo, within `width`; never 255.

    A pixel sees another label if the smallest or the largest label around it is not its own: two filters serve all
    classes. The 255 are taken out of each filter by the value that cannot win it.
    """
    unknown = labels == IGNORE
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    lowest = cv2.erode(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=IGNORE)
    highest = cv2.dilate(np.where(unknown, np.uint8(0), labels), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    band = np.ones(labels.shape, bool)
    inner = (slice(width, -width), slice(width, -width))
    band[inner] = (lowest != highest)[inner]
    band[unknown] = False
    return band
