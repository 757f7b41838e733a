"""`--recipe auto`: the recipe that fits the hints that were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from hintseg.config.run import RunConfig
from hintseg.errors import RunError, join
from hintseg.pipeline.begin import with_taught_masks
from hintseg.run.folder import RunFolder
from hintseg.types import HintSet, Photo, Supervision

AUTO = "auto"

MIXED = "mixed"

OF_KIND = {
    Supervision.MASKS: "full",
    Supervision.BOXES: "boxes",
    Supervision.SCRIBBLES: "strokes",
    Supervision.POINTS: "points",
    Supervision.TAGS: "quick",
}
"""The recipe for photos of one kind of hint; the kind that says most about a photo comes first."""


def choose_recipe(hint_set: HintSet, config: RunConfig) -> tuple[str, str]:
    """Return the recipe for the hints of the training photos, and why in a sentence.

    Of each photo the hint counts that says most; see `recipe_for`.

    Args:
        hint_set: The photos and their hints.
        config: Settings of any recipe: which photos teach, and whose masks may.

    Raises:
        LabelError: `data.learn_masks` names what is not there.
    """
    split = config.data.train
    training = hint_set.training if split == AUTO else set(hint_set.splits.get(split, (p.id for p in hint_set.photos)))
    kinds = [_best(photo) for photo in with_taught_masks(hint_set, config) if photo.id in training]
    counts = Counter(kind for kind in kinds if kind is not None)
    found = [kind for kind in OF_KIND if counts[kind]] or [Supervision.TAGS]
    name = recipe_for(found)
    said = join([f"{counts[kind]} photos have {kind}" for kind in found])
    return name, f"'{name}', as {said}; --recipe takes another"


def recipe_for(kinds: Collection[Supervision]) -> str:
    """Return the recipe for photos of some kinds of hint, at least one.

    Of one kind it is that one's, of strokes and clicks that of strokes, of masks and tags that of tags, which learns
    from masks too; else `mixed`.

    Example:
        >>> [recipe_for({Supervision.TAGS, kind}) for kind in (Supervision.MASKS, Supervision.BOXES)]
        ['quick', 'mixed']
    """
    found = [kind for kind in OF_KIND if kind in kinds]
    if found == [Supervision.MASKS, Supervision.TAGS]:
        return OF_KIND[Supervision.TAGS]
    alike = len(found) == 1 or found == [Supervision.SCRIBBLES, Supervision.POINTS]
    return OF_KIND[found[0]] if alike else MIXED


def recipe_of(out: Path) -> str | None:
    """Return the recipe of the run in a folder; None where there is none."""
    try:
        return RunFolder.open(out).config.recipe
    except RunError:
        return None


def _best(photo: Photo) -> Supervision | None:
    """Return the kind of hint that says most about a photo."""
    return next((kind for kind in OF_KIND if kind in photo.hints.kinds), None)
