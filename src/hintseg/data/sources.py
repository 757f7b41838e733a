"""Source photos: those with a single tag, and parts of others that show one class, drawn for photos with several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.errors import PhotoError
from hintseg.geometry.boxes import Window
from hintseg.types import BACKGROUND, IGNORE, Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_GRID = 24
"""Windows are looked for on a grid of at most so many rows and columns."""


class Source(NamedTuple):
    """What a source photo shows.

    Attributes:
        photo: The photo, with exactly one tag.
        window: The part of it that shows the tag's class alone, (x0, y0, x1, y1) pixels; None: the whole.
    """

    photo: Photo
    window: Window | None = None


class SourcePool:
    """Photos with a single tag, drawn by the classes that the tags of a target photo come with.

    Args:
        sources: The source photos, at least one.
        prior: P, (K, K): how often class j comes with class i, see `hintseg.hints.cooccurrence`. None draws all source
            photos alike.

    Example:
        >>> from pathlib import Path
        >>> from hintseg.types import Hints
        >>> cow, dog = (Source(Photo(n, Path(n), Hints(tags=frozenset({t})))) for n, t in (("cow", 1), ("dog", 3)))
        >>> pool = SourcePool([cow, dog], np.array([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]]))
        >>> pool.probabilities({1, 2}).round(2).tolist()
        [0.83, 0.0, 0.17]
    """

    def __init__(self, sources: Sequence[Source], prior: Floats | None) -> None:
        if not sources:
            raise PhotoError("0 source photos given, at least one photo with a single tag is needed")
        self.sources = tuple(sources)
        self.prior = prior
        self._of_class: dict[int, list[Source]] = {}
        for source in sources:
            for tag in source.photo.hints.tags or ():
                self._of_class.setdefault(tag, []).append(source)

    def probabilities(self, tags: Collection[int]) -> Floats | None:
        """Return how likely each class is drawn for a photo with these tags, (K,); None where all photos are alike.

        The rows of P of the photo's tags are summed; classes without a source photo get 0; the rest is brought to sum
        1. Where nothing is left, the classes tell nothing and all photos are alike.

        Source:
            Section 3.2, "Co-occurrence Oriented Resampling", of Yang et al., BMVC 2023.
        """
        if self.prior is None:
            return None
        summed = self.prior[[tag - 1 for tag in sorted(tags)]].sum(axis=0)
        drawn: Floats = np.zeros_like(summed)
        there = [tag - 1 for tag in self._of_class]
        drawn[there] = summed[there]
        return drawn / drawn.sum() if drawn.any() else None

    def draw(self, tags: Collection[int], random: np.random.Generator) -> Source:
        """Return a source for a photo with these tags: a class by `probabilities`, then any source of it."""
        probabilities = self.probabilities(tags)
        sources: Sequence[Source] = self.sources
        if probabilities is not None:
            sources = self._of_class[int(random.choice(len(probabilities), p=probabilities)) + 1]
        return sources[int(random.integers(len(sources)))]


def single_class_window(mask: Bytes, label: int, *, least: float = 0.05, others: float = 0.02) -> Window | None:
    """Return the part of a photo that shows most of one class and hardly any other; background may be in it.

    Args:
        mask: Labels of the photo, (H, W) uint8; 0 is background, 255 not known.
        label: The class.
        least: Share of the photo's pixels that must be in the window and of the class, 0..1.
        others: Pixels of other classes in the window, as a share of those of the class, that are let pass.

    Returns:
        Of the windows on a grid of 24 x 24 cells the one with most pixels of the class, the largest of equal ones;
        None where there is none.

    Example:
        >>> mask = np.zeros((48, 48), np.uint8)
        >>> mask[:, :20], mask[8:, 30:] = 1, 2
        >>> single_class_window(mask, 1), single_class_window(mask, 3)
        ((0, 0, 30, 48), None)
    """
    rows, columns = (np.unique(np.linspace(0, side, min(side, _GRID) + 1).round().astype(int)) for side in mask.shape)

    def within(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Count the pixels of every window, (y0, y1, x0, x1)."""
        summed = np.pad(marked.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))[np.ix_(rows, columns)]
        bands = summed[None] - summed[:, None]  # (y0, y1, x)
        counts: npt.NDArray[np.int64] = bands[:, :, None, :] - bands[:, :, :, None]
        return counts

    own = within(mask == label)
    other = within((mask != label) & (mask != BACKGROUND) & (mask != IGNORE))
    area = (rows[None] - rows[:, None])[:, :, None, None] * (columns[None] - columns[:, None])
    upright = (rows[None] > rows[:, None])[:, :, None, None] & (columns[None] > columns[:, None])
    fits = upright & (own >= max(1.0, least * mask.size)) & (other <= others * own)
    if not fits.any():
        return None
    place = np.where(fits, own * (mask.size + 1) + area, -1).argmax()
    y0, y1, x0, x1 = np.unravel_index(place, own.shape)
    return int(columns[x0]), int(rows[y0]), int(columns[x1]), int(rows[y1])
