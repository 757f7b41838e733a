"""Which classes come together: counts and probabilities from the tags of photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from hintseg.hints.implied import tag_rows
from hintseg.types import Photo

Counts = npt.NDArray[np.int64]


def tag_matrix(photos: Sequence[Photo], classes: int) -> Counts:
    """Return which photo has which tag, (photos, K) of 0 and 1; photos without known tags are left out."""
    values, _ = tag_rows([photo.hints for photo in photos if photo.hints.tags is not None], classes)
    return values.astype(np.int64)


def single_tag_counts(tags: npt.NDArray[np.integer]) -> Counts:
    """Return in how many photos each class is the only one, (K,), from a tag matrix (photos, K)."""
    alone: Counts = tags[tags.sum(axis=1) == 1].sum(axis=0).astype(np.int64)
    return alone


def cooccurrence_prior(
    tags: npt.NDArray[np.integer], *, diagonal: Literal["single", "all"] = "single"
) -> npt.NDArray[np.float64]:
    """Return the probability that class j comes with class i.

    Args:
        tags: Which photo has which tag, (photos, K) of 0 and 1.
        diagonal: What a class counts with itself: the photos in which it is the only class (`single`: "a class is
            likelier if it has more single-label samples", and the authors' earlier code), or all photos that show it
            (`all`: Eq. 1 to the letter).

    Returns:
        P, (K, K); rows sum to 1, those of classes no photo shows are 0.

    Example:
        >>> tags = np.array([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> cooccurrence_prior(tags).round(2).tolist()
        [[0.67, 0.33], [0.5, 0.5]]
        >>> cooccurrence_prior(tags, diagonal="all").round(2).tolist()
        [[0.75, 0.25], [0.33, 0.67]]

    Source:
        Eq. 1 of Yang et al., BMVC 2023.
    """
    together = tags.T @ tags
    if diagonal == "single":
        np.fill_diagonal(together, single_tag_counts(tags))
    prior: npt.NDArray[np.float64] = together / np.maximum(together.sum(axis=1, keepdims=True), 1)
    return prior
