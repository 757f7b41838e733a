"""Class maps spread by the attention of a plain vision transformer with learned weights; nothing is trained.

Lin et al., "CLIP is Also an Efficient Segmenter", CVPR 2023, section 3.3, for any plain transformer and any class maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from hintseg.config.run import AttentionRefine
from hintseg.errors import ConfigError
from hintseg.nn.plain_vit import PlainVit, is_plain_vit
from hintseg.refine.attention import LEAST, attention_refine

EPSILON = 1e-5
"""Scores that differ by less, as a share of the largest, are alike."""


class AttentionWalk(nn.Module):
    """A plain vision transformer that spreads the class maps of a photo by its attention."""

    def __init__(self, config: AttentionRefine) -> None:
        """Build the network and load its weights.

        Raises:
            ConfigError: The network is no plain vision transformer, or has no learned weights.
            WeightsError: The weight file cannot be read or belongs to another network.
        """
        super().__init__()
        name = config.backbone.name
        if not is_plain_vit(name):
            raise ConfigError(
                f"refine.method=attention reads the attention of a plain vision transformer, and '{name}' is none; set "
                "refine.backbone.name to one, such as deit_tiny_patch16_224 or vit_small_patch14_dinov2 (`hintseg list "
                "backbones`), or refine.method to another refiner"
            )
        self.config = config
        self.backbone = PlainVit(config.backbone)
        if not self.backbone.pretrained:
            raise ConfigError(
                f"refine.method=attention trains nothing, and without learned weights the attention of '{name}' says "
                "nothing; set refine.backbone.weights to pretrained or to a file, or refine.method to another refiner"
            )

    @torch.no_grad()
    def refine(self, images: Tensor, maps: Tensor) -> Tensor:
        """Spread the class maps of one photo.

        Args:
            images: The photo, (1, 3, H, W) float RGB in 0..1, any size.
            maps: Maps of its n classes, (n, any, any), float in 0..1; they are averaged over cells.

        Returns:
            Scores (n, h, w) in 0..1 on the grid of the patches: of each class the largest is 1 and the least of its
            boxes 0, as attention lifts every cell a little; all are 1 where all are alike. 0 outside of the boxes.
        """
        levels, affinity = self.backbone.affinity(images, blocks=self.config.blocks)
        size = (levels[-1].shape[-2], levels[-1].shape[-1])
        if not len(maps):
            return maps.new_zeros(0, *size)
        pooled = adaptive_avg_pool2d(maps.float(), size)
        scores = attention_refine(pooled, affinity[0], power=self.config.power, threshold=self.config.threshold)
        inside, most = scores > 0, scores.amax(dim=(1, 2), keepdim=True)
        least = torch.where(inside, scores, most).amin(dim=(1, 2), keepdim=True)
        alike = most - least <= EPSILON * most
        return torch.where(alike, inside.float(), (scores - least).clamp(min=0) / (most - least).clamp(min=LEAST))
