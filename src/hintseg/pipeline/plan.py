"""The plan of a run: which photos teach, what labels each of them for the segmenter, and who is left out and why.

Photos may differ in what is said of them. A photo whose mask may be learned from is labelled by that; else one with
boxes by the stage `propose`, where the recipe has one; else one whose tags are known by `localize` and `refine`, or by
the segmenter itself where it learns from tags. What several say of one photo is put together by `combine`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from hintseg.config.run import RunConfig
from hintseg.types import BACKGROUND, IGNORE, Box, Click, Hints, Photo, Stroke

Bytes = npt.NDArray[np.uint8]
Kind = Literal["masks", "boxes", "tags"]


@dataclass(frozen=True)
class Plan:
    """Which photos a run learns from, and which judge it.

    Attributes:
        train: Those it learns from.
        val: Those it is judged on.
        by: What labels each training photo for the segmenter, by its id.
        sentences: The plan in words: how many teach by what, and how many are left out and why.
    """

    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    by: Mapping[str, Kind] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()

    @cached_property
    def boxed(self) -> tuple[Photo, ...]:
        """The training photos that the stage `propose` looks at: those with boxes, and those known to need none."""
        return tuple(p for p in self.train if p.hints.shaped(Box) or shows_nothing(p.hints))

    @cached_property
    def tagged(self) -> tuple[Photo, ...]:
        """The training photos that `localize` and `refine` look at: all whose tags are known."""
        return tuple(photo for photo in self.train if photo.hints.tags is not None)


def shows_nothing(hints: Hints) -> bool:
    """Return whether it is said of a photo that none of the classes is there."""
    return hints.tags is not None and not hints.tags.present and bool(hints.tags.said)


def labelled_by(photo: Photo, config: RunConfig, *, one_stage: bool) -> Kind | None:
    """Return what labels a photo under a recipe; None where nothing can."""
    hints = photo.hints
    if hints.mask is not None and config.segment is not None and not one_stage:
        return "masks"
    if config.propose is not None and (hints.shaped(Box) or shows_nothing(hints)):
        return "boxes"
    if (config.localize is not None or one_stage) and hints.tags is not None:
        return "tags"
    return None


def sentences(
    usable: Sequence[Photo], by: Mapping[str, Kind], photos: Sequence[Photo], judged: Collection[str], config: RunConfig
) -> tuple[str, ...]:
    """Say the plan in words.

    Args:
        usable: The photos of the training split.
        by: What labels each of them, by id; the others are left out.
        photos: All photos.
        judged: Ids of the photos of the validation split.
        config: The settings.
    """
    stages: dict[Kind, tuple[str, ...]] = {"masks": (), "boxes": ("propose",), "tags": ("localize", "refine")}
    counts, said = Counter(by.values()), []
    for kind, names in stages.items():
        if counts[kind]:
            chosen = [getattr(config, name) for name in (*names, "segment")]
            methods = ", ".join(settings.method for settings in chosen if settings is not None)
            said.append(f"{counts[kind]} photos teach by {kind}" + (f" ({methods})" if methods else ""))
    reasons = Counter(_kinds(photo) for photo in usable if photo.id not in by)
    for kinds, count in sorted(reasons.items()):
        why = f"recipe '{config.recipe}' learns nothing from {kinds}" if kinds else "nothing is said of them"
        said.append(f"{count} photos left out: {why}")
    blind = sum(photo.id in judged and photo.truth is None for photo in photos)
    if blind:
        said.append(f"{blind} validation photos left out: they have no true mask to judge by")
    return tuple(said)


def _kinds(photo: Photo) -> str:
    """Name the kinds of hints of a photo."""
    hints = photo.hints
    there = {
        "tags": hints.tags is not None,
        "boxes": bool(hints.shaped(Box)),
        "points": bool(hints.shaped(Click)),
        "strokes": hints.scribbles is not None or bool(hints.shaped(Stroke)),
        "a mask (data.learn_masks lets it teach)": hints.mask is None and photo.truth is not None,
    }
    return ", ".join(kind for kind, known in there.items() if known)


def unboxed(tags: Collection[int] | None, boxed: Collection[int]) -> frozenset[int]:
    """Return the classes that are tagged but in no box."""
    return frozenset(tags or ()) - frozenset(boxed)


def combine(rest: Collection[int], by_boxes: Bytes | None, by_tags: Bytes | None) -> Bytes | None:
    """Put together what boxes and tags say of a photo; boxes win, as a person drew them.

    Args:
        rest: Class ids that are tagged but in no box.
        by_boxes: Labels cut out of its boxes, (H, W) uint8; None: it has none.
        by_tags: Labels placed by its tags, (H, W) uint8; None: nobody placed them.

    Returns:
        (H, W) uint8, 255 where nothing is known: a class of `rest` is somewhere outside of the boxes, and what lies
        there is background only where the tags were placed.

    Example:
        >>> boxes, tags = np.array([[1, 0, 0, 0]], np.uint8), np.array([[2, 2, 0, 1]], np.uint8)
        >>> combine({2}, boxes, tags).tolist(), combine({2}, boxes, None).tolist(), combine((), boxes, tags).tolist()
        ([[1, 2, 0, 0]], [[1, 255, 255, 255]], [[1, 0, 0, 0]])
    """
    if by_boxes is None:
        return by_tags
    if not rest:
        return by_boxes
    outside = by_boxes == BACKGROUND
    if by_tags is None:
        return np.where(outside, np.uint8(IGNORE), by_boxes)
    return np.where(outside & np.isin(by_tags, [*rest, IGNORE]), by_tags, by_boxes)
