"""Hints against the truth: tags and boxes that the photo's own true mask does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from hintseg.geometry.rasterise import pixels
from hintseg.types import BACKGROUND, IGNORE, Click, HintSet, Photo, Stroke


@dataclass(frozen=True, slots=True)
class Against:
    """What the true mask of a photo shows.

    Attributes:
        shows: Class ids in it.
        empty_boxes: Boxes of the photo in which the mask does not show their class.
        ignored: Whether it holds 255, and no class.
        wrong_marks: Clicks and strokes most of whose pixels it calls something else; strokes of an image count as one
            for each label.
    """

    shows: frozenset[int]
    empty_boxes: int = 0
    ignored: bool = False
    wrong_marks: int = 0


def compare(photo: Photo, mask: npt.NDArray[np.uint8], strokes: npt.NDArray[np.uint8] | None = None) -> Against:
    """Compare the hints of a photo with its true mask, (H, W) uint8, and its image of strokes, likewise.

    Example:
        >>> from pathlib import Path
        >>> from hintseg.types import Box, Hints, Mark
        >>> boxed = Photo("a", Path("a.png"), Hints(marks=(Mark(1, Box(0, 0, 2, 1)), Mark(1, Box(2, 0, 4, 1)))))
        >>> compare(boxed, np.array([[0, 0, 1, 1]], np.uint8))
        Against(shows=frozenset({1}), empty_boxes=1, ignored=False, wrong_marks=0)
    """
    there = frozenset(np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist())
    empty = 0
    for mark in photo.hints.objects:
        x0, y0, x1, y1 = mark.shape.corners
        inside = mask[int(y0) : max(ceil(y1), int(y0) + 1), int(x0) : max(ceil(x1), int(x0) + 1)]
        empty += not (inside == mark.label).any()
    marked = [(mark.label, mask[pixels(mark.shape, mask.shape)]) for mark in photo.hints.shaped(Click)]
    marked += [(mark.label, mask[pixels(mark.shape, mask.shape)]) for mark in photo.hints.shaped(Stroke)]
    if strokes is not None:
        marked += [(label, mask[strokes == label]) for label in np.unique(strokes).tolist()]
    wrong = sum(label != IGNORE and _differs(found, label) for label, found in marked)
    return Against(there - {BACKGROUND, IGNORE}, empty, IGNORE in there and there <= {BACKGROUND, IGNORE}, wrong)


def _differs(found: npt.NDArray[np.uint8], label: int) -> bool:
    """Return whether a mask calls most of the pixels of a mark something else, void left out."""
    known = found[found != IGNORE]
    return bool(2 * int((known == label).sum()) < known.size)


def verdicts(hint_set: HintSet, found: Sequence[Against | None]) -> list[str]:
    """Say where true masks show something else than the hints of their photos.

    Args:
        hint_set: The photos and their hints.
        found: What the true mask of each photo shows; None where there is none, or nobody looked.
    """
    names = hint_set.classes
    none, others, unseen, boxes = [], [], [], []
    example = ""
    known = [(photo, one) for photo, one in zip(hint_set.photos, found, strict=True) if one is not None]
    for photo, look in known:
        tags = photo.hints.tags
        if tags and not tags.present & look.shows:
            none.append(photo.id)
            seen = ", ".join(names[label - 1] for label in sorted(look.shows)) or "none of the classes"
            example = example or f"{photo.id} is tagged {_tagged(tags.present, names)}, its mask shows {seen}"
        elif tags is not None and look.shows & tags.absent:
            others.append(photo.id)
        elif tags and tags.present - look.shows:
            unseen.append(photo.id)
        if look.empty_boxes:
            boxes.append(photo.id)
    verdicts = []
    if none:
        verdicts.append(
            f"{_masks(len(none), 'show')} none of their photo's tags ({example}): do the values of the masks count the "
            "classes as the class list does? Scores on them would be wrong"
        )
    if others:
        verdicts.append(
            f"{_masks(len(others), 'show')} classes that are not among their photo's tags ({some(others)}): add the "
            "tags, or correct the masks"
        )
    if unseen:
        verdicts.append(f"{_masks(len(unseen), 'do')} not show all of their photo's tags ({some(unseen)})")
    if boxes:
        count = sum(look.empty_boxes for _, look in known)
        verdicts.append(
            f"{count} boxes hold no pixel of their class in the true mask ({some(boxes)}): boxes or masks are of "
            "other photos, were turned or scaled, or count the classes otherwise"
        )
    missed = [photo.id for photo, look in known if look.wrong_marks]
    if missed:
        count = sum(look.wrong_marks for _, look in known)
        verdicts.append(
            f"{count} clicks or strokes lie on what the true mask calls something else ({some(missed)}): move them, or "
            "correct the masks; what is marked is learned as it is"
        )
    ignored = [photo.id for photo, look in known if look.ignored]
    if ignored:
        verdicts.append(
            f"{_masks(len(ignored), 'hold')} only 0 and 255 ({some(ignored)}), and 255 is left out of everything; if "
            "it is meant as a class, write its id"
        )
    return verdicts


def _tagged(present: frozenset[int], names: tuple[str, ...]) -> str:
    return ", ".join(names[label - 1] for label in sorted(present))


def _masks(count: int, verb: str) -> str:
    if count == 1:
        return f"1 mask {'does' if verb == 'do' else verb + 's'}"
    return f"{count} masks {verb}"


def some(names: Sequence[str], limit: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
