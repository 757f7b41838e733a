"""What marks imply: a box, a click or a stroke of a class says that the class is in the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hintseg.types import BACKGROUND, IGNORE, Hints, HintSet, Tags


def shown(hints: Hints) -> frozenset[int]:
    """Return the class ids that the marks and scribbles of a photo show; crowds show none.

    Example:
        >>> from hintseg.types import Box, Click, Mark
        >>> marks = (Mark(2, Click(0, 0)), Mark(0, Click(3, 3)), Mark(255, Box(0, 0, 4, 4)))
        >>> sorted(shown(Hints(marks=marks)))
        [2]
    """
    marked = {mark.label for mark in hints.marks if BACKGROUND < mark.label < IGNORE}
    return frozenset(marked | ((hints.scribbles and hints.scribbles.shows) or frozenset()))


def implied_tags(hints: Hints, classes: int, *, closed: bool = True) -> Tags | None:
    """Return the tags of a photo: those that were said, and those that its marks imply.

    Args:
        hints: What is said of the photo.
        classes: K.
        closed: Whether marks without tags show every class of their photo, so that all others are absent.

    Returns:
        The tags; None where nothing is said about any class.

    Example:
        >>> from hintseg.types import Click, Mark
        >>> tags = implied_tags(Hints(marks=(Mark(2, Click(0, 0)),)), classes=3)
        >>> sorted(tags.present), sorted(tags.absent)
        ([2], [1, 3])
    """
    present = shown(hints)
    if hints.tags is not None:
        return replace(hints.tags, present=hints.tags.present | present) if present else hints.tags
    if not hints.marks and (hints.scribbles is None or hints.scribbles.shows is None):
        return None
    return Tags.complete(present, classes) if closed else Tags(present)


def with_implied(hint_set: HintSet) -> HintSet:
    """Return the hint set with the tags that the marks of its photos imply."""
    k, closed = len(hint_set.classes), hint_set.closed
    photos = tuple(
        replace(photo, hints=replace(photo.hints, tags=implied_tags(photo.hints, k, closed=closed)))
        for photo in hint_set.photos
    )
    return replace(hint_set, photos=photos)


def tag_rows(hints: Sequence[Hints], classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return tags as rows.

    Args:
        hints: Of n photos.
        classes: K.

    Returns:
        (n, K) float32, 1 where the class is present; (n, K) bool, whether anything is said about it.

    Example:
        >>> values, known = tag_rows([Hints(Tags(frozenset({2}), frozenset({1}))), Hints()], classes=3)
        >>> values.tolist(), known.tolist()
        ([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[True, True, False], [False, False, False]])
    """
    values = np.zeros((len(hints), classes), np.float32)
    known = np.zeros((len(hints), classes), np.bool_)
    for row, one in enumerate(hints):
        tags = Tags() if one.tags is None else one.tags
        values[row, [label - 1 for label in tags.present]] = 1
        known[row, [label - 1 for label in tags.said]] = True
    return values, known
