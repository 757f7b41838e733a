"""AffinityNet (PSA): learn which neighbouring cells belong together, then let class maps walk between them.

Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic
Segmentation", CVPR 2018.

Class maps are cut twice, once against a strong background and once against a weak one. What is a class against the
strong one, and what is background against the weak one, is nearly certain (`affinity_labels`). A network on the three
last levels of a backbone learns features that are alike where two nearby cells carry the same label, and apart where
they do not. How alike they are elsewhere then says how freely scores walk from cell to cell.

The walk runs as sparse steps: the published code squares a dense (h*w)^2 matrix eight times for the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, log
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, elu, pad
from torch.utils.checkpoint import checkpoint

from hintseg.cam.background import power_background
from hintseg.cam.maps import EPSILON
from hintseg.config.auto import Facts
from hintseg.config.settings import Auto, Count, Positive
from hintseg.errors import ConfigError
from hintseg.losses.affinity import affinity_loss, labels_on_grid, pair_ends, pair_labels
from hintseg.methods.refiner import Refiner, RefinerConfig
from hintseg.nn.backbones import Backbone
from hintseg.nn.resize import resize
from hintseg.nn.scale import FeatureScale
from hintseg.refine.dense_crf import DenseCrf
from hintseg.refine.random_walk import pair_transition, path_offsets, random_walk
from hintseg.types import BACKGROUND, IGNORE, Batch, ParameterGroup, Progress, Supervision

_WIDTHS = (64, 128, 256)
"""Channels that the three levels are reduced to; 448 in all."""


class AffinityNetConfig(RefinerConfig):
    """Settings of AffinityNet; the defaults are the paper's.

    `fit.lr` is the rate of the backbone, `fit.head_lr` the factor on it for the affinity layers (published: 0.1 and 10,
    without momentum).

    Attributes:
        cell: Image pixels per cell of the grid; 4 suits photos of a few hundred pixels.
        radius: Reach of a pair and of a step of the walk, cells; small crops reduce it to a third of their side in
            training.
        beta: Power of the affinity in the walk: high values make small differences count.
        low_power: Background is (1 - largest score) ** power; what is a class against this one is the foreground of the
            labels. `auto` lets scores win from twice the threshold of the seeds on, as the paper's 4 does for a
            threshold of 0.14.
        high_power: What is background against this one is the background of the labels. `auto` lets scores win from
            half the threshold of the seeds on, as the paper's 32 does.
    """

    method: Literal["affinitynet"] = "affinitynet"
    cell: Count = 8
    radius: Annotated[float, Field(gt=1)] = 5.0
    beta: Positive = 8.0
    low_power: Positive | Auto = "auto"
    high_power: Positive | Auto = "auto"

    def defaults(self, facts: Facts) -> dict[str, Any]:
        """Return a refiner's, but lower rates: the backbone learns too."""
        learned = {"lr": 0.0001, "head_lr": 10.0}
        return super().defaults(facts) | (learned if facts.pretrained else {})

    def powers(self, threshold: float | None) -> tuple[float, float]:
        """Return the low and the high power of the labels, for seeds cut at `threshold` (None: no background).

        Example:
            >>> AffinityNetConfig().powers(0.15), AffinityNetConfig(low_power=1.0, high_power=12.0).powers(0.4)
            ((3.376, 33.225), (1.0, 12.0))
        """
        seeds_at = 0.15 if threshold is None else threshold
        low = _power(min(2 * seeds_at, (1 + seeds_at) / 2)) if self.low_power == "auto" else self.low_power
        high = _power(seeds_at / 2) if self.high_power == "auto" else self.high_power
        return low, high

    def labels(self, maps: Tensor, class_ids: Tensor, rgb: Tensor, *, threshold: float | None) -> Tensor:
        """Return `affinity_labels` with the two powers for seeds cut at `threshold`, (H, W) uint8."""
        low, high = self.powers(threshold)
        return affinity_labels(maps, class_ids, rgb, background=threshold is not None, low_power=low, high_power=high)


def _power(score: float) -> float:
    """Return the power at which the background of a cell is as strong as its largest score."""
    score = min(max(score, 0.01), 0.99)
    return round(log(score) / log(1 - score), 3)


@torch.no_grad()
def affinity_labels(
    maps: Tensor,
    class_ids: Tensor,
    rgb: Tensor,
    *,
    background: bool = True,
    low_power: float = 4.0,
    high_power: float = 32.0,
) -> Tensor:
    """Keep what is nearly certain of a photo's class maps: the labels AffinityNet learns from.

    Two DenseCRFs start from the maps and a background (1 - largest score) ** power. Pixels that are a class under the
    low power are that class; pixels that are background under the high power are background; the rest is unknown.

    Where the data has no background, the first CRF alone decides, and its "background" is unknown.

    Args:
        maps: Normalised maps of the n present classes, (n, h, w) in 0..1, any size.
        class_ids: Their class ids 1..K, (n,).
        rgb: The photo, (3, H, W) uint8.
        background: Whether pixels may belong to no class.
        low_power: Power of the strong background, > 0.
        high_power: Power of the weak background, > 0.

    Returns:
        (H, W) uint8, 255 where unknown. A photo without classes is background, or unknown without background.

    Cost:
        Two DenseCRFs of n + 1 labels that share a lattice.

    Source:
        Ahn and Kwak, CVPR 2018; settings of the released code, which averages the CRF's probabilities over a cell
        before the largest is taken. Here pixels are labelled, and a cell takes the label at its centre.
    """
    if not len(class_ids):
        return torch.full(rgb.shape[-2:], BACKGROUND if background else IGNORE, dtype=torch.uint8, device=rgb.device)
    grown = resize(maps[None].float(), (rgb.shape[-2], rgb.shape[-1]))[0].clamp(0, 1)
    crf = DenseCrf(rgb[None], gaussian=(3, 3), bilateral=(80, 13, 10))

    def cut(power: float) -> Tensor:
        """Return per pixel the place of its class in `class_ids`, counted from 1; 0 is background."""
        scores = torch.cat([power_background(grown, power), grown])  # as published, they do not sum to 1
        return crf.infer(scores[None], iterations=10)[0].argmax(dim=0)

    labels = pad(class_ids.to(grown.device, torch.uint8), (1, 0), value=IGNORE)[cut(low_power)]
    if background:
        labels[cut(high_power) == 0] = BACKGROUND
    return labels


def pair_affinity(features: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Return how alike cells and their neighbours are: exp(-mean absolute difference of their features).

    Args:
        features: (B, d, h, w).
        offsets: N offsets (dy, dx), dy >= 0. Sources are those of `hintseg.losses.affinity.pair_ends`: the S cells from
            which every offset stays on the grid.

    Returns:
        (B, N, S) in 0..1.

    Cost:
        Time O(B d N S). The differences of one offset at a time are in memory, d * S floats a photo; the backward pass
        makes them again.

    Example:
        >>> pair_affinity(torch.tensor([[[[1.0, 1.0, 0.0]]]]).expand(1, 1, 2, 3), [(0, 1), (1, 0)])
        tensor([[[0.3679],
                 [1.0000]]])
    """
    reach = max(max(dy, abs(dx)) for dy, dx in offsets)
    rows, columns = features.shape[-2] - reach, features.shape[-1] - 2 * reach

    def alike(values: Tensor, y: int, x: int) -> Tensor:
        source = values[..., :rows, reach : reach + columns]
        partner = values[..., y : y + rows, reach + x : reach + x + columns]
        return torch.exp(-(source - partner).abs().mean(dim=1)).flatten(1)

    planes = [
        checkpoint(alike, features, y, x, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else alike(features, y, x)
        for y, x in offsets
    ]
    return torch.stack(planes, dim=1)


@torch.no_grad()
def feature_transition(features: Tensor, *, radius: float = 5, beta: float = 8) -> Tensor:
    """Turn features into the sparse transition matrix of a random walk.

    The published code leaves out the pairs whose first cell lies within the radius of the left, right or lower border,
    so that scores hardly move there; here all pairs on the grid count.

    Args:
        features: (d, h, w), float.
        radius: Reach of a step, cells, > 1.
        beta: Power of the affinity, > 0.

    Returns:
        Row-stochastic CSR matrix, (h*w, h*w), as of `hintseg.refine.random_walk.pair_transition`.
    """
    height, width = features.shape[-2:]
    offsets = _offsets(radius)
    reach = ceil(radius) - 1
    border = (reach, reach, 0, reach)  # with it every cell is a source
    affinity = pair_affinity(pad(features[None], border), offsets)[0]
    _, inside = pair_ends(pad(features.new_ones(height, width), border), offsets)
    return pair_transition((affinity**beta * inside).view(-1, height, width), radius=radius)


class AffinityNet(Refiner):
    """The affinity layers on the three last levels of any backbone, learned from `affinity_labels`."""

    Config = AffinityNetConfig
    supervision = frozenset({Supervision.MASKS})
    config: AffinityNetConfig

    def __init__(self, config: AffinityNetConfig, classes: int, background: bool) -> None:
        """Build the network.

        Args:
            config: The settings.
            classes: Not used: affinity knows no classes.
            background: Whether pixels may belong to no class.

        Raises:
            ConfigError: The backbone has fewer than three levels.
        """
        super().__init__()
        self.config, self.background = config, background
        self.backbone = Backbone(config.backbone)
        channels = self.backbone.channels[-3:]
        if len(channels) < 3:
            raise ConfigError(
                f"affinitynet needs three feature levels, '{config.backbone.name}' with backbone.levels="
                f"{config.backbone.levels} has {len(channels)}; raise backbone.levels or choose another network"
            )
        self.scales = nn.ModuleList(FeatureScale() for _ in channels)
        layers = [nn.Conv2d(count, width, 1, bias=False) for count, width in zip(channels, _WIDTHS, strict=True)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
        self.reduce = nn.ModuleList(layers)
        self.mix = nn.Conv2d(sum(_WIDTHS), sum(_WIDTHS), 1, bias=False)
        nn.init.xavier_uniform_(self.mix.weight, gain=4)  # so that cells start apart

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measure the scale of each level on some batches, in training mode: differences depend on it."""
        mode, device = self.training, self.mix.weight.device
        self.train()
        seen = [self.backbone(batch.images.to(device))[-3:] for batch in batches]
        self.train(mode)
        for scale, levels in zip(self.scales, zip(*seen, strict=True), strict=False):
            cast(FeatureScale, scale).measure(levels)

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the losses of pairs: joined (background and foreground one quarter each) and parted (one half)."""
        if batch.targets.pixels is None:
            raise ConfigError(
                "affinitynet learns from labels made of seeds, but the batch has no masks; run a localizer first"
            )
        features = self.features(batch.images)
        size = (features.shape[-2], features.shape[-1])
        offsets = _offsets(min(self.config.radius, min(size) / 3))
        pairs = pair_labels(labels_on_grid(batch.targets.pixels, size), offsets)
        positive, negative = affinity_loss(pair_affinity(features, offsets), pairs, background=self.background)
        return {"affinity_positive": positive / 2, "affinity_negative": negative / 2}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the backbone at the configured learning rate and the affinity layers at ``fit.head_lr`` times it."""
        return [
            ParameterGroup(list(self.backbone.parameters())),
            ParameterGroup([*self.reduce.parameters(), *self.mix.parameters()], head=True),
        ]

    def features(self, images: Tensor) -> Tensor:
        """Return what affinity is measured on, (B, 448, ceil(H / cell), ceil(W / cell)) float32.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, any size.
        """
        size = (ceil(images.shape[-2] / self.config.cell), ceil(images.shape[-1] / self.config.cell))
        levels = zip(self.scales, self.reduce, self.backbone(images)[-3:], strict=True)
        reduced = [resize(elu(reduce(scale(level))), size) for scale, reduce, level in levels]
        # Differences of neighbours are small against their features: they need full precision.
        with torch.autocast(images.device.type, enabled=False):
            mixed: Tensor = elu(self.mix(torch.cat([level.float() for level in reduced], dim=1)))
        return mixed

    @torch.no_grad()
    def refine(self, images: Tensor, maps: Tensor) -> Tensor:
        """Spread the class maps of one photo to the cells that are like theirs.

        The published walk carries a background score along; here background is a threshold on the result, as for IRN,
        and scores are divided by the largest so that one threshold suits all photos.

        Args:
            images: The photo, (1, 3, H, W) float RGB in 0..1, any size.
            maps: Maps of its n classes, (n, any, any), float in 0..1; they are averaged over cells.

        Returns:
            Scores (n, ceil(H / cell), ceil(W / cell)) in 0..1, the largest of all classes being 1.
        """
        features = self.features(images)[0]
        size = (features.shape[-2], features.shape[-1])
        if not len(maps):
            return maps.new_zeros(0, *size)
        config = self.config
        transition = feature_transition(features, radius=config.radius, beta=config.beta)
        steps = config.steps_on(size[0] * size[1] * config.cell**2)
        scores = random_walk(adaptive_avg_pool2d(maps.float(), size), transition, steps=steps)
        return scores / scores.max().clamp(min=EPSILON)


def _offsets(radius: float) -> list[tuple[int, int]]:
    return [(path.dy, path.dx) for path in path_offsets(radius)]
