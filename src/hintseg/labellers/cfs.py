"""CFS as a labeller: it learns from GrabCut's cuts of all boxes, sees one box at a time, and cuts out what it saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from hintseg.config.settings import FitConfig
from hintseg.data.crops import BoxMap, CropDataset, foreground_of, smallest_side
from hintseg.errors import RunError
from hintseg.labellers.grabcut import GrabCut
from hintseg.labellers.labeller import Bytes, Evidence, Labeller, LearnedLabeller
from hintseg.labellers.objects import Bools, evidence_of, instances, neighbours, size_of
from hintseg.methods.cfs import Cfs, CfsConfig
from hintseg.refine.grabcut import refine_proposal
from hintseg.refine.tightness import lift_to_sides
from hintseg.store.instances import Instances
from hintseg.types import Hints, Photo, Supervision

CPU_EPOCH, CPU_SIZE, SIZE = 1000, 128, 224
"""Where `auto` is asked for: boxes of an epoch at most and side of the crops on a CPU; that side on a GPU."""


class CfsLabeller(LearnedLabeller[CfsConfig, list[BoxMap]]):
    """The objects of boxes, as a trained `Cfs` sees them, with the edges of the photo."""

    needs = frozenset({Supervision.BOXES})
    title = "CFS"

    @classmethod
    def teacher(cls, settings: CfsConfig) -> Labeller:
        """Return GrabCut with the settings that both share."""
        shared = set(GrabCut.model_fields) - {"method"}
        return GrabCut(**settings.model_dump(include=shared))

    @classmethod
    def side(cls, settings: CfsConfig, *, gpu: bool) -> int:
        """Return the side of the crops, pixels."""
        if settings.size != "auto":
            return settings.size
        return SIZE if gpu else CPU_SIZE

    @classmethod
    def examples(
        cls,
        settings: CfsConfig,
        fit: FitConfig,
        photos: Sequence[Photo],
        classes: int,
        objects: Callable[[Photo], Instances],
        *,
        gpu: bool,
        seed: int,
    ) -> CropDataset:
        """Return the boxes as crops, with GrabCut's cuts."""
        least = smallest_side(photos) if settings.smallest_side == "auto" else settings.smallest_side
        most = (None if gpu else CPU_EPOCH) if settings.per_epoch == "auto" else settings.per_epoch
        by_id = {photo.id: photo for photo in photos}
        read = lru_cache(256)(lambda id: objects(by_id[id]))  # the boxes of a photo come at different times

        def proposal(photo: Photo, index: int) -> Bools:
            return read(photo.id).masks[index]

        return CropDataset(
            photos,
            classes,
            proposal,
            size=cls.side(settings, gpu=gpu),
            expand=settings.expand,
            scale=fit.scale if fit.scale != "auto" else (1.0, 1.0),
            jitter=fit.jitter,
            smallest_side=least,
            worth=lambda photo, index: settings.learn_filled or not proposal(photo, index).all(),
            per_epoch=most,
            seed=seed,
        )

    @property
    def how(self) -> str:
        """How it works, in a few words."""
        return "CFS trained on GrabCut of the boxes" + (
            ", outlines by a second GrabCut" if self.settings.refine else ""
        )

    def look(self, rgb: Bytes, hints: Hints) -> list[BoxMap]:
        """Return how probable each pixel around each box is to be its object."""
        network = self.network
        if not isinstance(network, Cfs):
            raise RunError(f"the weights are those of {type(network).__name__}, not of CFS; start the run afresh")
        found = foreground_of(
            network.foreground,
            rgb,
            [mark.shape.corners for mark in hints.objects],
            [mark.label for mark in hints.objects],
            self.classes,
            size=self.side(self.settings, gpu=self.gpu),
            expand=self.settings.expand,
            device=next(network.parameters()).device,
        )
        return list(found)

    def conclude(self, rgb: Bytes, hints: Hints, seen: list[BoxMap]) -> tuple[Evidence, Instances | None]:
        """Cut the objects out: at 0.5, and with `refine` along the edges of the photo."""
        size = size_of(rgb)
        if self.settings.tight:
            seen = [one._replace(probability=lift_to_sides(one.probability, one.inner)) for one in seen]
        cut = instances(hints, size, [_above_half(one) for one in seen])
        if not self.settings.refine:
            return evidence_of(cut, hints), None
        masks = [self._outlined(rgb, hints, index, one) for index, one in enumerate(seen)]
        return evidence_of(instances(hints, size, masks), hints), cut

    def _outlined(self, rgb: Bytes, hints: Hints, index: int, found: BoxMap) -> Bools:
        """Give what CFS found the edges of the photo."""
        x0, y0, x1, y1 = found.frame
        others = neighbours(hints, index, self.settings.neighbours)
        near = [(a - x0, b - y0, c - x0, d - y0) for a, b, c, d in others]
        limits = self.settings.model_dump(include={"high", "low", "iterations", "longest"})
        return refine_proposal(rgb[y0:y1, x0:x1], found.probability, found.inner, near, **limits)


def _above_half(found: BoxMap) -> Bools:
    """Return where CFS sees the object inside its box; the filled box where it sees none."""
    x0, y0, x1, y1 = found.inner
    mask = found.probability[y0:y1, x0:x1] > 0.5
    return mask if mask.any() else np.ones_like(mask)
