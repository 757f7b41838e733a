"""Source photos: those with a single tag, drawn for photos with several."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from hintseg.errors import PhotoError
from hintseg.types import Photo

Floats = npt.NDArray[np.float64]


class SourcePool:
    """Photos with a single tag, drawn by the classes that the tags of a target photo come with.

    Args:
        photos: The source photos, at least one, each with exactly one tag.
        prior: P, (K, K): how often class j comes with class i, see `hintseg.hints.cooccurrence`. None draws all source
            photos alike.

    Example:
        >>> from pathlib import Path
        >>> from hintseg.types import Hints
        >>> cow, dog = (Photo(n, Path(n), Hints(tags=frozenset({t}))) for n, t in (("cow", 1), ("dog", 3)))
        >>> pool = SourcePool([cow, dog], np.array([[0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]]))
        >>> pool.probabilities({1, 2}).round(2).tolist()
        [0.83, 0.0, 0.17]
    """

    def __init__(self, photos: Sequence[Photo], prior: Floats | None) -> None:
        if not photos:
            raise PhotoError("0 source photos given, at least one photo with a single tag is needed")
        self.photos = tuple(photos)
        self.prior = prior
        self._of_class: dict[int, list[Photo]] = {}
        for photo in photos:
            for tag in photo.hints.tags or ():
                self._of_class.setdefault(tag, []).append(photo)

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

    def draw(self, tags: Collection[int], random: np.random.Generator) -> Photo:
        """Return a source photo for a photo with these tags: a class by `probabilities`, then any photo of it."""
        probabilities = self.probabilities(tags)
        photos: Sequence[Photo] = self.photos
        if probabilities is not None:
            photos = self._of_class[int(random.choice(len(probabilities), p=probabilities)) + 1]
        return photos[int(random.integers(len(photos)))]
