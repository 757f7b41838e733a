"""DeepLabv2 with loss-guided self-attention between backbone and atrous pyramid.

Xie et al., "Learning Effectively from Noisy Supervision for Weakly Supervised Semantic Segmentation", BMVC 2020,
section 3.3. Masks made from boxes are wrong in places. Attention lets every cell hear the cells it resembles, and the
affinity loss teaches it which those are: cells of its own class, and no others. So a cell with a wrong label is
outvoted by its kind, first in its features (Eq. 5), then in its class logits (Eq. 8).

The paper trains 15 epochs at 2.5e-4 (a tenth of that in the first epoch), otherwise as `hintseg.methods.deeplab` says,
and tests with a DenseCRF. Eq. 7 is a mean over pairs of cells, so the same `alpha` weighs more on coarse grids: between
a uniform map and the target it is (classes - 1) / N^2, 7e-3 after `alpha` with three classes on the paper's 41 x 41
cells, and 1 on 12 x 12, where it drowns the segmentation (docs/notebook.md). Here it is scaled by (N / 1681)^2.

Not the paper's by default: the walk is mixed in by half, takes two steps and begins after a third of the training.
Walked from the first step on, logits are averages over a map that has learned nothing. One seed on `shapes` with frozen
features gave a whole walk 78.5, no walk 78.0, log-mass without walk 80.3, log-mass and half a walk of two steps 81.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hintseg.config.objective import Objective
from hintseg.config.settings import Auto, Count, Positive
from hintseg.errors import ConfigError
from hintseg.losses.affinity import labels_on_grid
from hintseg.losses.guided_attention import GuidedAttention
from hintseg.methods.deeplab import pyramid_rates, training_levels, with_background
from hintseg.methods.method import Pictures
from hintseg.methods.segmenter import Segmenter, SegmenterConfig, judge
from hintseg.nn.attention import Attended, Lgsa, NonLocal, cascade
from hintseg.nn.decoders import AtrousPyramid
from hintseg.nn.encoders import build_encoder, encoder_groups
from hintseg.nn.scale import FeatureScale
from hintseg.run.schema import Show
from hintseg.types import IGNORE, Batch, ParameterGroup, Prediction, Progress, Targets

QUERIES = 3
"""Pixels per photo whose affinity is shown, one in each of its largest regions."""

SMALLEST = 0.01
"""Share of a photo that a region with such a pixel covers at least."""


class LgsaConfig(SegmenterConfig):
    """Settings of DeepLabv2 with attention; the defaults are the paper's.

    Attributes:
        attention: `lgsa`, the paper's; `non_local`: the same modules without the affinity loss; `none`: DeepLabv2.
        modules: Attention modules, one after the other.
        inner: Channels of theta, phi and g; `auto` is half of the backbone's, at most 512.
        alpha: Weight of the affinity loss (Eq. 10) on the paper's grid of 41 x 41 cells, `lgsa` only; on N cells the
            loss is multiplied by (N / 1681)^2, so that it pulls alike. `auto` is 10,000, or 1,000 with one module, and
            1 for `mass`. 0 switches the loss off.
        attention_loss: `mse`, Eq. 7; `mass`, not the paper's: see `hintseg.nn.attention.mass_loss`.
        walk: Whether the last module's map also averages the class logits (Eq. 8); `auto`: with `lgsa`.
        walk_on: What is averaged: `logits`, which keeps the cross entropy plain, or `probabilities`, whose logarithm is
            then the logits.
        walk_share: lambda: the walk's result counts so much, what it walked on the rest; 1 is the paper's. A map that
            has learned little averages everything away: half of the walk loses half as much by it.
        walk_start: Share of the steps after which the walk begins; 0 is the paper's. Before, W is close to uniform.
        walk_steps: Steps of the walk, W^n; 1 is the paper's.
        rates: Dilations of the pyramid in cells of stride 8; see `deeplabv2`.
        init_std: Standard deviation of the pyramid's initial weights.
    """

    method: Literal["lgsa"] = "lgsa"
    attention: Literal["lgsa", "non_local", "none"] = "lgsa"
    modules: Count = 2
    inner: Count | Auto = "auto"
    alpha: Annotated[float, Field(ge=0)] | Auto = "auto"
    attention_loss: Literal["mse", "mass"] = "mse"
    walk: bool | Auto = "auto"
    walk_on: Literal["logits", "probabilities"] = "logits"
    walk_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    walk_start: Annotated[float, Field(ge=0, le=1)] = 0.33
    walk_steps: Count = 2
    rates: Annotated[tuple[Count, ...], Field(min_length=1)] | Auto = "auto"
    init_std: Positive = 0.01

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.attention == "none" and self.walk is True:
            raise ValueError("walk=true needs a map to walk on; set attention=lgsa or non_local, or walk=auto")
        if self.attention != "lgsa" and self.alpha not in ("auto", 0):
            raise ValueError(f"alpha={self.alpha} weighs the loss of attention=lgsa; set that, or alpha=auto")
        return self

    @property
    def weight(self) -> float:
        """`alpha` without `auto`."""
        if self.alpha != "auto":
            return self.alpha
        if self.attention != "lgsa":
            return 0.0
        if self.attention_loss == "mass":
            return 1.0
        return 1000.0 if self.modules == 1 else 10000.0


class LgsaDeepLabV2(Segmenter):
    """Backbone, attention, atrous pyramid, random walk on any backbone."""

    Config = LgsaConfig
    config: LgsaConfig

    def __init__(self, config: LgsaConfig, classes: int, background: bool) -> None:
        super().__init__()
        self.config, self.background = config, background
        self.backbone = build_encoder(config.backbone)
        self.scale = FeatureScale()
        channels = self.backbone.channels[-1]
        inner = None if config.inner == "auto" else config.inner
        guided = config.attention == "lgsa"
        count = 0 if config.attention == "none" else config.modules
        mass = config.attention_loss == "mass"
        self.attention = nn.ModuleList(
            Lgsa(channels, inner, mass=mass) if guided else NonLocal(channels, inner) for _ in range(count)
        )
        rates = pyramid_rates(config.rates, self.backbone.strides[-1], config.fit.crop)
        self.head = AtrousPyramid(channels, classes + background, rates, config.init_std)
        self.walks = count > 0 and config.walk is not False and (config.walk is True or guided)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Those of the recipe (Eq. 9 is the cross entropy), and the affinity loss of the attention, if on (Eq. 10)."""
        if not self.config.weight or not len(self.attention):
            return self.config.objectives
        return (*self.config.objectives, GuidedAttention(weight=self.config.weight, form=self.config.attention_loss))

    @property
    def reads_features(self) -> bool:
        """Whether its objectives look at labels alone; attention and walk look at features."""
        return self.objectives_see_labels_alone

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return what the objectives say; the walk begins at `walk_start`."""
        share = self.config.walk_share if progress.fraction >= self.config.walk_start else 0.0
        for objective in self.objectives:
            objective.check(batch.targets)
        return judge(self._predict(batch.images, batch.targets, share), self.objectives, batch, progress)

    def predict(self, images: Tensor, targets: Targets | None = None) -> Prediction:
        """Return logits (B, C, h, w) at the backbone's stride, after the random walk.

        With targets, `attention_loss` is measured too, if it has a weight.
        """
        return self._predict(images, targets, self.config.walk_share)

    def _predict(self, images: Tensor, targets: Targets | None, share: float) -> Prediction:
        """Return a prediction of which the random walk makes a `share`."""
        guides = None if targets is None or not self.config.weight else targets.pixels
        levels, attended = self._attend(images, guides)
        logits = self.head(levels[-1] if attended is None else attended.features)
        if attended is not None and self.walks and share > 0:  # Eq. 8, mixed with what it walks on
            steps = self.config.walk_steps
            if self.config.walk_on == "logits":
                logits = _mix(attended.affinity.walk(logits, steps), logits, share)
            else:
                own = logits.float().softmax(dim=1)
                mean = _mix(attended.affinity.walk(own, steps), own, share)
                logits = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
        # The channel that never wins comes after the walk, which would only blur it by rounding.
        logits = with_background(logits, self.background)
        own = {} if attended is None or guides is None else {"attention_loss": attended.loss}
        return Prediction(logits, levels, own=own)

    @property
    def shows(self) -> tuple[Show, ...]:
        """Where there is attention, the rows of its affinity matrix."""
        note = (
            "Rows of the last attention module's affinity matrix on validation photos, brightest where it is largest. "
            "A good map stays on the pixel's own class."
        )
        title = "Where pixels take their values from"
        return (Show(folder="affinity", title=title, note=note, kind="rows"),) if len(self.attention) else ()

    def pictures(self, images: Tensor, mask: npt.NDArray[np.uint8]) -> Pictures:
        """Return the rows of the affinity matrix of a few pixels, where there is attention.

        Returns:
            ``affinity``: ``queries`` (Q, 2), x and y as shares of the photo, and ``maps`` (Q, h, w) float16, each of
            maximum 1.

        Source:
            Fig. 6 of the CFS and LGSA paper.
        """
        if not len(self.attention):
            return {}
        queries = inner_points(mask)
        rows = self.affinity(images, torch.from_numpy(queries)[None].float().to(images.device))[0].float()
        maps = rows / rows.amax(dim=(1, 2), keepdim=True)
        return {"affinity": {"queries": queries, "maps": maps.cpu().numpy().astype(np.float16)}}

    @torch.no_grad()
    def affinity(self, images: Tensor, queries: Tensor) -> Tensor:
        """Return where single pixels take their values from, by the last module's map (the paper's Fig. 6).

        Args:
            images: (B, 3, H, W).
            queries: Q points per photo as shares of its width and height, (x, y) in 0..1, (B, Q, 2).

        Returns:
            Heat maps (B, Q, h, w) on the feature grid, each >= 0 and of sum 1.

        Raises:
            ConfigError: The network has no attention.
        """
        attended = self._attend(images, None)[1]
        if attended is None:
            raise ConfigError("attention=none has no affinity to show; train with attention=lgsa or non_local")
        height, width = attended.affinity.size
        x = (queries[..., 0] * width).long().clamp(0, width - 1)
        y = (queries[..., 1] * height).long().clamp(0, height - 1)
        return attended.affinity.rows((y * width + x).to(images.device))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of the features."""
        self.scale.measure(levels[-1] for levels in training_levels(self.backbone, batches))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return backbone (1x), new weights (`fit.head_lr`), and the biases of the pyramid (twice that, no decay)."""
        weights = [value for name, value in self.head.named_parameters() if name.endswith("weight")]
        biases = [value for name, value in self.head.named_parameters() if name.endswith("bias")]
        return [
            *encoder_groups(self.backbone),
            ParameterGroup([*self.attention.parameters(), *weights], head=True),
            ParameterGroup(biases, 2.0, head=True, weight_decay=0.0),
        ]

    def _attend(self, images: Tensor, masks: Tensor | None) -> tuple[list[Tensor], Attended | None]:
        """Return the levels, the last one scaled, and what the attention gave."""
        levels: list[Tensor] = self.backbone(images)
        levels = [*levels[:-1], self.scale(levels[-1])]
        if not len(self.attention):
            return levels, None
        labels = None if masks is None else labels_on_grid(masks, (levels[-1].shape[2], levels[-1].shape[3]))
        return levels, cascade(self.attention, levels[-1], labels)


def _mix(walked: Tensor, own: Tensor, share: float) -> Tensor:
    """Return `share` of the first and the rest of the second."""
    return walked if share == 1 else share * walked + (1 - share) * own


def inner_points(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the innermost pixel of each of the largest regions of a mask, (Q, 2), x and y as shares of its size.

    Example:
        >>> mask = np.zeros((9, 9), np.uint8)
        >>> mask[:, 6:] = 2
        >>> (inner_points(mask) * 9).tolist()
        [[3.5, 4.5], [7.5, 4.5]]
    """
    import cv2

    labels, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    points = []
    for index in np.argsort(-counts, kind="stable")[:QUERIES]:
        if counts[index] >= SMALLEST * mask.size:
            region = np.pad((mask == labels[index]).astype(np.uint8), 1)
            depth = cv2.distanceTransform(region, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            deepest = np.argwhere(depth == depth.max())
            y, x = deepest[len(deepest) // 2]
            points.append(((x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]))
    return np.array(points).reshape(-1, 2)
