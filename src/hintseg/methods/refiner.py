"""The contract of refiners that learn: labels from class maps, a network trained on them, a walk."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from hintseg.config.settings import Auto, Count, MethodConfig
from hintseg.methods.method import Method
from hintseg.refine.random_walk import steps_on


class RefinerConfig(MethodConfig):
    """Base of the settings of refiners that learn.

    Attributes:
        steps: Steps of the walk. `auto` takes the papers' 256 for a VOC photo and fewer for smaller ones, in proportion
            to their pixels: a walk gets as far as the root of its steps, and on a small photo it would lose its way.
    """

    task: ClassVar[Literal["refine"]] = "refine"
    read_out: ClassVar[frozenset[str]] = frozenset({"steps", "beta"})
    steps: Count | Auto = "auto"

    def steps_on(self, pixels: int) -> int:
        """Return the steps of the walk on a photo of `pixels`.

        Example:
            >>> RefinerConfig(method="any").steps_on(96 * 96), RefinerConfig(method="any", steps=64).steps_on(96 * 96)
            (13, 64)
        """
        return steps_on(pixels) if self.steps == "auto" else self.steps

    def labels(self, maps: Tensor, class_ids: Tensor, rgb: Tensor, *, threshold: float | None) -> Tensor:
        """Keep what is nearly certain of a photo's class maps: what the refiner learns from.

        Args:
            maps: Normalised maps of the n present classes, (n, h, w) in 0..1, any size; n may be 0.
            class_ids: Their class ids 1..K, (n,).
            rgb: The photo, (3, H, W) uint8.
            threshold: Background score the seeds are cut with, 0..1; None where the data has no background.

        Returns:
            (H, W) uint8: 0 background, 1..K, 255 unknown.
        """
        raise NotImplementedError


class Refiner(Method):
    """A method that learns from labels made of class maps, and spreads the maps by what it learned."""

    def refine(self, images: Tensor, maps: Tensor) -> Tensor:
        """Spread the class maps of one photo.

        Args:
            images: The photo, (1, 3, H, W) float RGB in 0..1, any size.
            maps: Maps of its n classes, (n, any, any) float in 0..1; n may be 0.

        Returns:
            Scores (n, h, w) in 0..1, the largest of all classes being 1.
        """
        raise NotImplementedError
