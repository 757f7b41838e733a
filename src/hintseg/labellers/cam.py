"""Class maps as a labeller: tags are placed where a trained localizer sees their classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hintseg.cam import grow, multi_scale, normalise, seeds
from hintseg.config.settings import MapsConfig
from hintseg.errors import ConfigError
from hintseg.hints.implied import tag_rows
from hintseg.labellers.labeller import Bytes, Evidence, check
from hintseg.methods.method import Method, frozen
from hintseg.types import Hints, Supervision

MAP_STRIDE = 4
"""Class maps are kept at this fraction of the photo's size, as the published pipelines do."""


class CamLabeller:
    """The class maps of any localizer, cut by one background score.

    The stage `localize` trains the localizer and goes the same way in steps: `look` at batches of photos, the maps on
    disk, the background score chosen from all of them, `place`.
    """

    needs = frozenset({Supervision.TAGS})
    title = "class maps"

    def __init__(
        self,
        network: Method,
        settings: MapsConfig,
        classes: int,
        *,
        background: bool = True,
        threshold: float | None = None,
    ) -> None:
        """Take what was learned.

        Args:
            network: The trained localizer.
            settings: How its maps are read out.
            classes: K.
            background: Whether pixels may belong to no class.
            threshold: Background score, 0..1, that `label` needs where there is a background.
        """
        self.network, self.settings, self.classes = network, settings, classes
        self.background, self.threshold = background, threshold

    def look(self, images: Tensor, tags: Tensor) -> Tensor:
        """Return class maps, (B, K, h, w) in 0..1, a quarter of the photo's size; absent classes are 0.

        Args:
            images: Photos of one size, (B, 3, H, W) float RGB in 0..1.
            tags: 1 where the class is present, (B, K).
        """
        size = [-(-side // MAP_STRIDE) for side in images.shape[-2:]]
        merged = multi_scale(
            self.network.class_maps,
            images,
            scales=self.settings.scales,
            flip=self.settings.flip,
            size=(size[0], size[1]),
        )
        own_maximum = self.background or not self.network.one_scale
        return normalise(merged.float(), tags, own_maximum=own_maximum)

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Say where the classes of a photo's tags are; see `hintseg.labellers.labeller.Labeller.label`."""
        check("cam", self.needs, hints)
        if self.background and self.threshold is None:
            raise ConfigError("class maps need a background score to label a photo with; give `threshold`, 0..1")
        images = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        device = next(self.network.parameters()).device
        with torch.inference_mode(), frozen(self.network):
            tags = torch.from_numpy(tag_rows([hints], self.classes)[0])
            maps = self.look(images.to(device), tags.to(device)).cpu()[0]
        class_ids = torch.tensor(sorted(hints.tags or ()), dtype=torch.int64)
        size = rgb.shape[:2]
        scores = grow(maps[None, class_ids - 1], size)[0] if len(class_ids) else maps.new_zeros(0, *size)
        return place(class_ids, scores, self.threshold if self.background else None)


def place(class_ids: Tensor, scores: Tensor, threshold: float | None) -> Evidence:
    """Give each pixel the class that leads there; trust it as clearly as it leads.

    Args:
        class_ids: Class ids of n classes, (n,); n may be 0.
        scores: Their scores, (n, H, W) in 0..1.
        threshold: Background's score, 0..1; None where the data has none.

    Example:
        >>> found = place(torch.tensor([2]), torch.tensor([[[1.0, 0.5, 0.0]]]), 0.25)
        >>> found.pixels.tolist(), found.trust.tolist()
        ([[2, 2, 0]], [[0.75, 0.25, 0.25]])
    """
    rows = scores if threshold is None else torch.cat([scores, scores.new_full((1, *scores.shape[1:]), threshold)])
    return Evidence(seeds(scores, class_ids, threshold).numpy(), lead(rows).numpy())


def strongest(labels: Tensor, scores: Tensor) -> Evidence:
    """Give each pixel the label of its largest score, background being one of them; trust it as clearly as it leads.

    Args:
        labels: Of n scores, 0..K, (n,); n may be 0: then nothing is known.
        scores: (n, H, W) in 0..1.
    """
    if not len(labels):
        return place(labels, scores, None)
    return Evidence(labels[scores.argmax(dim=0)].numpy().astype(np.uint8), lead(scores).numpy())


def lead(scores: Tensor) -> Tensor:
    """Return how far the largest of n scores (n, H, W) leads the second in each pixel, (H, W) float32 in 0..1.

    A single one has no rival: 1. Without any it is 0.
    """
    if len(scores) < 2:
        return scores.new_full(scores.shape[1:], float(len(scores)), dtype=torch.float32)
    first, winner = scores.max(dim=0)
    second = scores.scatter(0, winner[None], -torch.inf).amax(dim=0)  # a top-2 takes twice as long
    return (first - second).float().clamp(0, 1)
