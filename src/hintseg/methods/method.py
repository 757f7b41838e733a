"""The contract every method keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from hintseg.config.settings import MethodConfig
from hintseg.run.schema import Show
from hintseg.types import Batch, ParameterGroup, Progress, Supervision

Pictures = dict[str, dict[str, npt.NDArray[Any]]]
"""Named arrays of one photo, by what they show."""


class ExtraLabels(NamedTuple):
    """Labels that a method makes of photos beside its result.

    Attributes:
        kind: What metrics and reports call them.
        how: How they are made, in words.
    """

    kind: str
    how: str


class Method(nn.Module):
    """A network that learns from hints.

    Built as ``Method(config, classes, background)`` with K = `classes` foreground classes; `background` says whether
    pixels may belong to no class. Images are (B, 3, H, W) float32 RGB in 0..1.
    """

    Config: ClassVar[type[MethodConfig]]
    supervision: ClassVar[frozenset[Supervision]]
    config: MethodConfig

    one_scale: ClassVar[bool] = True
    """Whether class maps of one photo can be held against each other, as scores of one classifier can."""

    @property
    def reads_features(self) -> bool:
        """Whether it looks at images through its `backbone` alone, so that kept features may stand in for them."""
        return False

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the weighted scalar losses of a batch by name; their sum is minimised."""
        raise NotImplementedError

    def class_maps(self, images: Tensor) -> Tensor:
        """Return class maps (B, K, h, w), >= 0, not normalised. Localizers only."""
        raise NotImplementedError

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return class maps (B, K, h, w) before any ReLU or normalisation, with a gradient.

        Localizers only; what wrappers of one compare.
        """
        raise NotImplementedError

    def segment(self, images: Tensor) -> Tensor:
        """Return class logits (B, C, h, w), C = K + 1 with background first. Segmenters only."""
        raise NotImplementedError

    @property
    def shows(self) -> tuple[Show, ...]:
        """How reports show what `pictures` gives (kind `rows`), and the maps of `extras` (kind `heat`), in this order.

        The folder is the name under which they give it. Labels of `extras` are shown as `extra_labels` say.
        """
        return ()

    def pictures(self, images: Tensor, mask: npt.NDArray[np.uint8]) -> Pictures:
        """Return what reports show of a photo beside its mask, as ``STAGE/NAME/ID.npz``; see `shows`. Segmenters only.

        Args:
            images: The photo, (1, 3, H, W).
            mask: What the method segmented, at the photo's own size, (h, w).
        """
        return {}

    @property
    def extra_labels(self) -> dict[str, ExtraLabels]:
        """Those of the `extras` that are labels, by name: they are kept as masks, ``STAGE/NAME``, and judged."""
        return {}

    def extras(self, images: Tensor, tags: Tensor) -> dict[str, Tensor]:
        """Return what a segmenter that learned from tags makes of photos beside its masks, by name.

        Args:
            images: Photos of one size, (B, 3, H, W).
            tags: 1 where the class is present, (B, K).

        Returns:
            Labels (B, H, W) uint8 as masks have them, and maps (B, H, W) float in 0..1.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters with their learning-rate factors."""
        raise NotImplementedError

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure what has to be known of the data before the first step (feature scale, say)."""

    def finish(self, batches: Iterable[Batch]) -> None:
        """Measure what has to be known of the data after the last step (IRN's mean displacement, say)."""


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation mode; every part returns to its own mode afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
