"""Signals of one photo's mask, without truth: functions on numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.types import BACKGROUND, IGNORE

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]

SMALLEST = 0.002
"""Share of the photo below which a part of a mask is no object of its own."""

MOST_OBJECTS = 20
"""Objects of a photo that are listed, the largest."""


def disagreement(pairs: Numbers, *, background: bool = True) -> Floats:
    """Return how much two labellings of a photo differ in each class.

    Args:
        pairs: Pixels by label, (C, C), rows one labelling, columns the other.
        background: Whether label 0 is a class.

    Returns:
        1 - IoU of each class, (C,) in 0..1; NaN for a class that neither shows.

    Example:
        >>> disagreement(np.array([[2, 0, 0], [2, 4, 0], [0, 0, 0]])).round(2).tolist()
        [0.5, 0.33, nan]
    """
    both = np.diag(pairs).astype(np.float64)
    either = pairs.sum(axis=0) + pairs.sum(axis=1) - both
    found: Floats = 1 - np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
    if not background:
        found[BACKGROUND] = np.nan
    return found


def runner_up(
    labels: Sequence[int], scores: npt.NDArray[np.float32], classes: int, pixels: int
) -> tuple[Floats, float]:
    """Return how close the second best label of each cell comes to the best.

    Args:
        labels: Label 0..K of each score, (n,); background's is 0.
        scores: Scores >= 0, (n, h, w).
        classes: K.
        pixels: Pixels of the photo that the cells stand for.

    Returns:
        Pixels, (C, C), columns the best label: as far as the second score reaches the first, 0..1, a cell counts in
        the row of the second best label, and for the rest in that of the best. And the mean of that doubt.

    Example:
        >>> scores = np.array([[[0.5, 0.0]], [[1.0, 1.0]]], np.float32)
        >>> pairs, doubt = runner_up([0, 1], scores, 1, 8)
        >>> pairs.tolist(), doubt
        ([[0.0, 2.0], [0.0, 6.0]], 0.25)
    """
    found = np.zeros((classes + 1, classes + 1))
    if len(labels) < 2:
        found[labels[:1], labels[:1]] = pixels
        return found, 0.0
    order = np.argpartition(-scores, 1, axis=0)[:2] if len(labels) > 2 else np.argsort(-scores, axis=0)
    best, second = (np.take_along_axis(scores, order[at : at + 1], axis=0)[0] for at in (0, 1))
    close = np.divide(second, best, out=np.zeros_like(best), where=best > 0).astype(np.float64)
    names = np.asarray(labels)[order]
    cell = pixels / close.size
    np.add.at(found, (names[1], names[0]), close * cell)
    np.add.at(found, (names[0], names[0]), (1 - close) * cell)
    return found, float(close.mean())


def unsteady(answers: Bytes) -> float:
    """Return how far the answers of a network that was asked several times differ from all of them together.

    Args:
        answers: Labels, (1 + n, h, w) uint8: of all answers together, then of each.

    Returns:
        The share of the cells that differ, mean over the answers, 0..1.

    Example:
        >>> unsteady(np.array([[[0, 1]], [[0, 0]], [[0, 1]]], np.uint8))
        0.25
    """
    return float((answers[1:] != answers[0]).mean())


def off_edges(rgb: Bytes, mask: Bytes) -> float | None:
    """Return how far the outlines of a mask keep away from the edges of its photo.

    Each pixel of an outline is placed among all pixels of the photo by the strength of the colour edge within two
    pixels of it: 0 on the strongest, 1 on the weakest.

    Args:
        rgb: The photo, (H, W, 3) uint8.
        mask: Labels, (H, W) uint8.

    Returns:
        The mean place, 0..1; None for a mask of a single label.
    """
    import cv2  # here: importing it takes a tenth of a second

    outline = np.zeros(mask.shape, np.bool_)
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    outline[:-1] |= mask[:-1] != mask[1:]
    if not outline.any():
        return None
    lab = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1)
    slope = sum(cv2.Sobel(lab, cv2.CV_32F, *axis) ** 2 for axis in ((1, 0), (0, 1))).sum(axis=2)
    near = cv2.dilate(slope, np.ones((5, 5), np.uint8))
    places = np.searchsorted(np.sort(near, axis=None), near[outline], side="right") / near.size
    return float(1 - places.mean())


class TagDoubts(NamedTuple):
    """What a mask says against the tags of its photo.

    Attributes:
        missing: Tagged classes that the mask does not show.
        untagged: Share of the photo, 0..1, of each class that is seen and not tagged.
    """

    missing: tuple[int, ...]
    untagged: dict[int, float]


def against_tags(counts: npt.NDArray[np.int64], tags: Sequence[int] | None, *, least: float = 0.01) -> TagDoubts:
    """Compare what labellings of a photo show with its tags.

    Args:
        counts: Pixels of each label, (n, C): of the mask first, then of what else labels the photo.
        tags: Class ids of the photo; None: not said.
        least: Share of the photo that a class which was not tagged must cover in one of them.

    Example:
        >>> against_tags(np.array([[50, 50, 0], [40, 50, 10]]), [1])
        TagDoubts(missing=(), untagged={2: 0.1})
        >>> against_tags(np.array([[100, 0, 0]]), [1])
        TagDoubts(missing=(1,), untagged={})
    """
    if tags is None:
        return TagDoubts((), {})
    shares = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).max(axis=0)
    untagged = {int(label): float(shares[label]) for label in np.flatnonzero(shares >= least)}
    strong = {label: share for label, share in untagged.items() if label not in (BACKGROUND, *tags)}
    return TagDoubts(tuple(label for label in tags if counts[0][label] == 0), strong)


def unusual_area(area: float, areas: Sequence[float]) -> float:
    """Return how unusual the area of a class in a photo is, against its areas in all photos.

    Args:
        area: Share of the photo, 0..1.
        areas: Shares in all photos that show the class; at least one.

    Returns:
        How many times the usual (the median of the distances from it) its logarithm is away from the median; a tenth
        of the logarithm is the least that counts as usual.

    Example:
        >>> unusual_area(0.2, [0.2, 0.2, 0.1]), round(unusual_area(0.01, [0.2, 0.2, 0.1]), 1)
        (0.0, 30.0)
    """
    logs = np.log(np.maximum(areas, 1e-4))
    middle = np.median(logs)
    usual = max(float(np.median(np.abs(logs - middle))), 0.1)
    return float(abs(np.log(max(area, 1e-4)) - middle) / usual)


class Part(NamedTuple):
    """A connected part of a class in a mask.

    Attributes:
        label: Its class.
        box: x0, y0, x1, y1, pixels, right and bottom exclusive.
        area: Share of the photo, 0..1.
        doubt: Mean over its pixels of the share of voices that say something else, 0..1.
    """

    label: int
    box: tuple[int, int, int, int]
    area: float
    doubt: float


def parts_in_doubt(mask: Bytes, doubt: npt.NDArray[np.floating]) -> list[Part]:
    """Return the connected parts of a mask's classes, the most doubtful first.

    Args:
        mask: Labels, (H, W) uint8.
        doubt: Share of voices that say something else in each pixel, (H, W) in 0..1.
    """
    import cv2

    found = []
    for label in np.unique(mask):
        if label in (BACKGROUND, IGNORE):
            continue
        _, numbers, stats, _ = cv2.connectedComponentsWithStats((mask == label).astype(np.uint8))
        sums = np.bincount(numbers.ravel(), doubt.ravel(), minlength=len(stats))
        for (x, y, width, height, area), total in list(zip(stats.tolist(), sums.tolist(), strict=True))[1:]:
            if area >= SMALLEST * mask.size:
                box = (x, y, x + width, y + height)
                found.append(Part(int(label), box, area / mask.size, total / area))
    largest = sorted(found, key=lambda part: -part.area)[:MOST_OBJECTS]
    return sorted(largest, key=lambda part: -part.doubt)


def worth(voices: Mapping[str, npt.NDArray[np.float64]], *, background: bool = True) -> Floats:
    """Return the share of all doubt of a run that lies in each photo: what mending it first brings.

    mIoU counts a pixel by the size of its class: one of a rare class weighs more. So each voice says of each photo how
    many pixels of each class it would change, as a share of all pixels of that class in the run; summed over classes
    and divided by the sum over photos. The mean over the voices is taken. No number in it is fitted.

    Args:
        voices: For each voice its pairs, (n, C, C), in each photo: rows what it says, columns the mask.
        background: Whether label 0 is a class.

    Returns:
        Shares, (n,), that sum to 1; all 0 where no voice says anything else.

    Example:
        >>> common, rare = np.zeros((3, 3)), np.zeros((3, 3))
        >>> common[0, 1], rare[0, 2] = 10, 10
        >>> rest = np.diag([0.0, 990, 0])
        >>> worth({"seed": np.stack([common + rest, rare])}, background=False).round(3).tolist()
        [0.01, 0.99]
    """
    total = None
    for pairs in voices.values():
        same = np.diagonal(pairs, axis1=1, axis2=2)
        apart = pairs.sum(axis=1) + pairs.sum(axis=2) - 2 * same
        union = (apart + same).sum(axis=0)
        share = np.divide(apart, union, out=np.zeros(apart.shape), where=union > 0)
        of_photo = share[:, 0 if background else 1 :].sum(axis=1)
        if of_photo.sum() > 0:
            part = of_photo / of_photo.sum()
            total = part if total is None else total + part
    if total is None:
        return np.zeros(len(next(iter(voices.values()))) if voices else 0)
    return np.asarray(total / total.sum())
