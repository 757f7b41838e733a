"""CFS: tell the object of a box from what is around it, and learn that from GrabCut's noisy cuts.

Constrained foreground segmentation: Xie et al., "Learning Effectively from Noisy Supervision for Weakly Supervised
Semantic Segmentation", BMVC 2020, sections 3.2 and 4.1. GrabCut knows colours only, so its cuts of boxes are noisy. A
network that sees one box at a time, is told where the box lies and what it holds, and has only foreground and
background to tell apart, learns from all of them what objects look like. Its probabilities are cut out along the
photo's edges once more, and the boxes of a photo are painted into one mask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hintseg.config.settings import Auto, Count, MethodConfig, Positive
from hintseg.errors import ConfigError
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.methods.method import Method
from hintseg.nn.decoders import GuidedUNet
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.resize import resize
from hintseg.nn.scale import FeatureScale
from hintseg.types import Batch, ParameterGroup, Progress, Supervision

Share = Annotated[float, Field(ge=0, le=1)]


class CfsConfig(MethodConfig):
    """Settings of CFS; the defaults are the paper's where it says them.

    Attributes:
        size: Side of the square crops, pixels; `auto` is the paper's 224 on a GPU, and 128 on a CPU for speed.
        expand: Height and width of a box grow by this share in total.
        iterations: Cuts of each GrabCut, the colours learned anew before each.
        smallest: A first GrabCut that finds less than this share of the box gives way to the filled box.
        longest: GrabCut works on crops reduced to this side, pixels, where they are larger; null: as they are.
        neighbours: Whether both GrabCuts spare the pixels of other boxes of the class; see `refine.box_proposal`.
        learn_filled: Whether boxes are learned from in which the first GrabCut found nothing, so that their proposal is
            the filled box. The paper does not say. They teach that objects are rectangles.
        smallest_side: Boxes with a shorter side, pixels, are not learned from. `auto` is the paper's 50 where at least
            half of the boxes pass, and else what keeps the larger half of them.
        per_epoch: Boxes of an epoch at most, in turns; `auto` is all of them on a GPU and 1000 on a CPU.
        flip: Whether the probabilities of a crop and of its mirror image are averaged.
        tight: Whether boxes are tight, so that an object must touch all four sides of its own: the probabilities of a
            box are raised until it does, or by 0.3 (see `hintseg.refine.tightness`). The paper does not ask that.
        refine: Whether the probabilities are cut out by GrabCut once more, or just cut at 0.5.
        high: Pixels with a higher probability are foreground for that GrabCut.
        low: Pixels with a lower one are background.
        widths: Channels of the decoder, from the coarsest level to the finest; the paper does not say them.
        finest: Pixels of the crop per cell of the decoder's last level; the logits are resized to the crop. 2 takes
            half of the time of 1, and the outlines come from GrabCut anyway.
    """

    task: ClassVar[Literal["localize", "refine", "segment", "propose"]] = "propose"
    read_out: ClassVar[frozenset[str]] = frozenset({"flip", "tight", "refine", "high", "low"})
    method: Literal["cfs"] = "cfs"
    size: Annotated[int, Field(ge=32)] | Auto = "auto"
    expand: Positive = 0.5
    iterations: Count = 1
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.2
    longest: Annotated[int, Field(ge=32)] | None = 320
    neighbours: bool = True
    learn_filled: bool = False
    smallest_side: Annotated[float, Field(ge=0)] | Auto = "auto"
    per_epoch: Count | Auto = "auto"
    flip: bool = True
    tight: bool = True
    refine: bool = True
    high: Share = 0.6
    low: Share = 0.4
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 128, 64, 64, 32)
    finest: Count = 2

    @model_validator(mode="after")
    def _check_bounds(self) -> CfsConfig:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}; between the two the second GrabCut decides")
        return self


class Cfs(Method):
    """A U-Net on any backbone that reads a crop, the box inside it and its class.

    A batch holds crops: `images` (B, 3, S, S); of its targets `boxes`, one for each crop, say what and where it is, and
    `pixels` (B, S, S) are 1 for the object, 0 around it and 255 where that is not known.
    """

    Config = CfsConfig
    supervision = frozenset({Supervision.BOXES})
    config: CfsConfig

    def __init__(self, config: CfsConfig, classes: int, background: bool) -> None:
        """Build the network.

        Args:
            config: The settings.
            classes: K.
            background: Not used: what lies around a box is always its background.
        """
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = build_encoder(config.backbone, extra=1 + classes)
        channels, strides = self.backbone.channels, self.backbone.strides
        self.scales = nn.ModuleList(FeatureScale() for _ in channels)
        self.decoder = GuidedUNet(channels, strides, classes, 2, config.widths, config.finest)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return ``cfs``, the cross entropy of foreground and background (Eq. 3)."""
        if batch.targets.pixels is None:
            raise ConfigError("CFS learns from proposals, but the batch has no pixels; give the data set a proposal")
        tags, boxes = self._hints(batch)
        return {"cfs": pixel_cross_entropy(self._logits(batch.images, tags, boxes), batch.targets.pixels)}

    def foreground(self, images: Tensor, tags: Tensor, boxes: Tensor) -> Tensor:
        """Return how probable each pixel is to belong to the object of the box.

        Args:
            images: Crops, (B, 3, S, S) float32 RGB in 0..1.
            tags: One-hot class of each box, (B, K).
            boxes: The box inside each crop, (B, 4), (x0, y0, x1, y1) in pixels, right and bottom exclusive.

        Returns:
            (B, S, S) float32, 0..1.
        """
        found = self._logits(images, tags, boxes).float().softmax(dim=1)[:, 1]
        if not self.config.flip:
            return found
        left, top, right, bottom = boxes.unbind(dim=1)
        mirrored = torch.stack([images.shape[3] - right, top, images.shape[3] - left, bottom], dim=1)
        twin = self._logits(images.flip(3), tags, mirrored).float().softmax(dim=1)[:, 1]
        return (found + twin.flip(2)) / 2

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of every level, in training mode: norms that are not frozen scale differently there."""
        mode, device = self.backbone.training, self.decoder.classify.weight.device
        self.backbone.train()
        with torch.no_grad():  # one number stands for a level of a batch: the levels of all would fill the memory
            seen = []
            for batch in batches:
                images = batch.images.to(device)
                tags, boxes = (hint.to(device) for hint in self._hints(batch))
                levels = self._levels(images, box_maps(boxes, images), tags)
                seen.append([level.square().mean().sqrt() for level in levels])
        self.backbone.train(mode)
        for scale, values in zip(self.scales, zip(*seen, strict=True), strict=True):
            cast(FeatureScale, scale).measure(values)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return backbone (1x) and decoder (`fit.head_lr`)."""
        return [
            *encoder_groups(self.backbone),
            ParameterGroup(list(self.decoder.parameters()), head=True),
        ]

    def _hints(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the one-hot class (B, K) and the box (B, 4) of each crop."""
        boxes = batch.targets.boxes
        if boxes is None or any(len(one) != 1 for one in boxes):
            raise ConfigError("CFS looks at one box at a time: give a batch of crops with one box each")
        rows = torch.cat(boxes)
        return one_hot(rows[:, 0].long() - 1, self.classes).float(), rows[:, 1:]

    def _logits(self, images: Tensor, tags: Tensor, boxes: Tensor) -> Tensor:
        """Return logits of background and foreground, (B, 2, S, S)."""
        box = box_maps(boxes, images)
        levels = self._levels(images, box, tags)
        logits: Tensor = self.decoder([scale(x) for scale, x in zip(self.scales, levels, strict=True)], box, tags)
        return resize(logits, images.shape[-2:])

    def _levels(self, images: Tensor, box: Tensor, tags: Tensor) -> list[Tensor]:
        tiled = tags[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        levels: list[Tensor] = self.backbone(images, torch.cat([box, tiled], dim=1))
        return levels


def box_maps(boxes: Tensor, images: Tensor) -> Tensor:
    """Return B_exp: 1 inside boxes (B, 4) and 0 elsewhere, (B, 1, H, W), for images (B, 3, H, W).

    Source:
        Eq. 2 of the CFS and LGSA paper.

    Example:
        >>> box_maps(torch.tensor([[1, 0, 3, 1]]), torch.zeros(1, 3, 2, 4))
        tensor([[[[0., 1., 1., 0.],
                  [0., 0., 0., 0.]]]])
    """
    height, width = images.shape[-2:]
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    x, y = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)
    across, down = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
    return (down[:, None, :, None] & across[:, None, None, :]).to(images.dtype)
