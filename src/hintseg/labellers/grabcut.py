"""GrabCut in each box."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hintseg.config.settings import Count
from hintseg.labellers.labeller import Bytes, Evidence, Labeller, check
from hintseg.labellers.objects import evidence_of, instances, neighbours, size_of
from hintseg.refine.grabcut import box_proposal
from hintseg.types import Hints, Supervision


class GrabCut(Labeller):
    """Cut the object out of each box by its colours. Nothing is learned, so it also serves few photos.

    Attributes:
        method: `grabcut`.
        expand: How much wider and higher than the box the region is that GrabCut sees; what is added is background.
        iterations: Cuts per box, the colours learned anew before each. More than one lets thin and dim objects fade
            away: docs/notebook.md, "GrabCut's defaults".
        smallest: Results that cover less of the box than this share are replaced by the filled box.
        longest: Larger crops are reduced to this side, pixels, meanwhile; null: never.
        neighbours: Whether the pixels of other boxes of the class are spared when GrabCut learns the background's
            colours. The paper does not say so; see `hintseg.refine.box_proposal`.
    """

    needs = frozenset({Supervision.BOXES})
    title = "GrabCut"
    method: Literal["grabcut"] = "grabcut"
    expand: Annotated[float, Field(ge=0)] = 0.5
    iterations: Count = 1
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.2
    longest: Annotated[int, Field(ge=32)] | None = 320
    neighbours: bool = True

    @property
    def how(self) -> str:
        """How it works, in a few words."""
        return "GrabCut in each box"

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Cut the objects out of the boxes."""
        check(self.method, self.needs, hints)
        options = self.model_dump(exclude={"method", "neighbours"})
        masks = [
            box_proposal(rgb, mark.shape.corners, neighbours(hints, index, self.neighbours), **options)
            for index, mark in enumerate(hints.objects)
        ]
        return evidence_of(instances(hints, size_of(rgb), masks), hints)
