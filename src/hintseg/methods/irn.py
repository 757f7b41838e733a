"""IRN: learn where classes end, then spread class maps up to there.

Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019.

Class maps say where a class is strongest, not where it ends. IRN takes from them only what is nearly certain
(`ir_labels`), and teaches a frozen classifier two branches about pairs of nearby cells: an *edge* branch, whose largest
value on the path between two cells says whether they are parted, and a *displacement* branch, by which all cells of an
object point to one place (it tells apart instances; masks of classes do not use it). Edges learned from certain pairs
alone turn out to lie where classes meet. A random walk that edges stop then spreads the maps over the whole object.

The walk runs as sparse steps: the published code squares a dense (h*w)^2 matrix eight times for the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu

from hintseg.cam.background import seeds
from hintseg.cam.maps import EPSILON
from hintseg.config.settings import Auto, Positive
from hintseg.errors import ConfigError, ShapeError
from hintseg.losses.affinity import affinity_loss, displacement_loss, labels_on_grid, pair_labels
from hintseg.methods.refiner import Refiner, RefinerConfig
from hintseg.nn.backbones import Backbone
from hintseg.nn.resize import resize
from hintseg.refine.dense_crf import DenseCrf, label_probabilities
from hintseg.refine.random_walk import Path, edge_transition, path_offsets, random_walk
from hintseg.types import BACKGROUND, IGNORE, Batch, ParameterGroup, Progress, Supervision

_CELL = 4
"""Image pixels per cell of the edge map, in training and in the walk."""

_SURE = 0.7
"""Probability of a hard label in the CRFs that make the labels."""

Score = Annotated[float, Field(ge=0, le=1)]


class IrnConfig(RefinerConfig):
    """Settings of IRN; the defaults are the paper's.

    `fit.lr` is the rate of the edge branch, `fit.head_lr` the factor on it for the displacement branch (published:
    0.1 and 10, without momentum); the backbone is frozen.

    Attributes:
        radius: Reach of the pairs in training, cells of a quarter of the crop; small crops reduce it to a third of
            their side.
        displacement: Whether to train the displacement branch beside the edges. Masks do not depend on it, and without
            it training takes about half as long.
        walk_radius: Reach of a step of the walk, cells.
        beta: Power of the affinity in the walk: high values make weak edges count.
        foreground: Background score whose seeds are nearly certain: the foreground of the labels. `auto` is twice the
            threshold of the seeds, as the paper's 0.30 is twice its 0.15; above 1/3 the middle between it and 1.
        background_score: Background score that leaves out nearly nothing: what lies below is the background of the
            labels. `auto` is a third of the threshold of the seeds, as the paper's 0.05 is of its 0.15.
    """

    read_out: ClassVar[frozenset[str]] = frozenset({"steps", "beta", "walk_radius"})
    method: Literal["irn"] = "irn"
    radius: Annotated[float, Field(gt=1)] = 10.0
    displacement: bool = True
    walk_radius: Annotated[float, Field(gt=1)] = 5.0
    beta: Positive = 10.0
    foreground: Score | Auto = "auto"
    background_score: Score | Auto = "auto"

    def cuts(self, threshold: float | None) -> tuple[float, float]:
        """Return the two background scores of the labels, for seeds cut at `threshold` (None: no background).

        Example:
            >>> IrnConfig().cuts(0.15), IrnConfig(foreground=0.4).cuts(0.6)
            ((0.3, 0.05), (0.4, 0.2))
        """
        seeds_at = 0.15 if threshold is None else threshold
        high = min(2 * seeds_at, (1 + seeds_at) / 2) if self.foreground == "auto" else self.foreground
        low = seeds_at / 3 if self.background_score == "auto" else self.background_score
        return round(high, 4), round(low, 4)

    def labels(self, maps: Tensor, class_ids: Tensor, rgb: Tensor, *, threshold: float | None) -> Tensor:
        """Return `ir_labels` with the two background scores for seeds cut at `threshold`, (H, W) uint8."""
        high, low = self.cuts(threshold)
        return ir_labels(maps, class_ids, rgb, background=threshold is not None, foreground=high, background_score=low)


@torch.no_grad()
def ir_labels(
    maps: Tensor,
    class_ids: Tensor,
    rgb: Tensor,
    *,
    background: bool = True,
    foreground: float = 0.30,
    background_score: float = 0.05,
) -> Tensor:
    """Keep what is nearly certain of a photo's class maps: the labels IRN learns from.

    Two DenseCRFs start from hard masks, one cut with a high background score, one with a low one. Pixels that stay a
    class under the high score are that class; pixels that stay background under the low score are background; the
    rest is unknown.

    Where the data has no background, the first CRF alone decides: its "background" are places where no map is high,
    and they are unknown. So a photo with a single tag gives joined pairs only, and no border is made up.

    Args:
        maps: Normalised maps of the n present classes, (n, h, w) in 0..1, any size.
        class_ids: Their class ids 1..K, (n,).
        rgb: The photo, (3, H, W) uint8.
        background: Whether pixels may belong to no class.
        foreground: Background score of the first CRF, 0..1.
        background_score: Background score of the second, 0..1.

    Returns:
        (H, W) uint8, 255 where unknown. A photo without classes is background, or unknown without background.

    Cost:
        Two DenseCRFs of n + 1 labels that share a lattice.

    Source:
        Section 3.2; settings of the released code.
    """
    if not len(class_ids):
        return torch.full(rgb.shape[-2:], BACKGROUND if background else IGNORE, dtype=torch.uint8, device=rgb.device)
    grown = resize(maps[None].float(), (rgb.shape[-2], rgb.shape[-1]))[0]
    ids = class_ids.to(grown.device, torch.uint8)
    places = torch.arange(1, len(ids) + 1)
    crf = DenseCrf(rgb[None], gaussian=(3, 3), bilateral=(50, 5, 10))

    def cut(score: float) -> Tensor:
        """Return per pixel the place of its class in `class_ids`, counted from 1; 0 is background."""
        start = label_probabilities(seeds(grown, places, score)[None].long(), len(ids) + 1, _SURE)
        return crf.infer(start, iterations=10)[0].argmax(dim=0)

    stayed = cut(foreground)
    labels = pad(ids, (1, 0), value=IGNORE)[stayed]
    if background:
        labels[(stayed == 0) & (cut(background_score) == 0)] = BACKGROUND
    return labels


def path_affinity(edge: Tensor, paths: Sequence[Path]) -> Tensor:
    """Return how freely one gets from each cell to its neighbours: 1 - the largest edge on the way.

    The gradient goes to the cell with the largest edge, as in max pooling.

    Args:
        edge: Edge strength, (B, h, w), float in 0..1.
        paths: N paths, ends included. Sources are those of `hintseg.losses.affinity.pair_ends`: the S cells from which
            every path stays on the grid.

    Returns:
        (B, N, S) in 0..1.

    Raises:
        ShapeError: The grid is too small to hold a source.

    Cost:
        Radius 10 on 16 grids of 56 x 56 cells: about 0.1 s on one CPU thread, 35 MB for the backward pass.

    Source:
        Eq. 4.
    """
    batch, height, width = edge.shape
    reach = max(max(path.dy, abs(path.dx)) for path in paths)
    rows, columns = height - reach, width - 2 * reach
    if rows < 1 or columns < 1:
        raise ShapeError(f"a grid of {height} x {width} cells holds no path of {reach} cells to every side")
    # One integer per cell, its edge above its place: bits of floats >= 0 are ordered like their values. So the largest
    # integer on a path says where the largest edge is, without a second pass and without a graph of a thousand maxima.
    value = edge.detach().float().contiguous().view(torch.int32).long() << 32
    place = torch.arange(height * width, device=edge.device).view(height, width)
    ranked = value | place
    best = ranked.new_zeros(batch, len(paths), rows, columns)
    for path, plane in zip(paths, best.unbind(dim=1), strict=True):
        for y, x in path.cells:
            torch.maximum(plane, ranked[:, y : y + rows, reach + x : reach + x + columns], out=plane)
    index = (best & 0xFFFFFFFF).flatten(1)
    return (1 - edge.flatten(1).gather(1, index)).view(batch, len(paths), rows * columns)


def _norm_conv(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs))


class _EdgeBranch(nn.Module):
    """Every level to 32 channels on the edge grid, and one logit per cell from all of them."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(_norm_conv(count, 32, 4) for count in channels)
        self.classify = nn.Conv2d(32 * len(channels), 1, 1)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return edge logits (B, 1, h, w) of levels (B, channels[i], h_i, w_i)."""
        maps = [relu(resize(reduce(level), size)) for reduce, level in zip(self.reduce, levels, strict=True)]
        logits: Tensor = self.classify(torch.cat(maps, dim=1))
        return logits


class _DisplacementBranch(nn.Module):
    """Every level to a width of its own; the coarse ones are mixed first, then all on the edge grid."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        # Published widths of ResNet-50's five levels: 64, 128, 256, 256, 256.
        widths = [min(256, 64 * 2**level) for level in range(len(channels))]
        self.fine = sum(stride <= _CELL for stride in strides)
        self.reduce = nn.ModuleList(
            _norm_conv(count, width, min(16, width // 8)) for count, width in zip(channels, widths, strict=True)
        )
        coarse = sum(widths[self.fine :])
        self.mix_coarse = _norm_conv(coarse, 256, 16) if coarse else None
        self.mix = _norm_conv(sum(widths[: self.fine]) + (256 if coarse else 0), 256, 16)
        self.point = nn.Conv2d(256, 2, 1, bias=False)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return displacements (B, 2, h, w), (dy, dx) in cells, of levels (B, channels[i], h_i, w_i)."""
        reduced = [reduce(level) for reduce, level in zip(self.reduce, levels, strict=True)]
        maps = [relu(resize(values, size)) for values in reduced[: self.fine]]
        coarse = reduced[self.fine :]
        if self.mix_coarse is not None:
            middle = (coarse[0].shape[-2], coarse[0].shape[-1])
            mixed = self.mix_coarse(torch.cat([relu(resize(values, middle)) for values in coarse], dim=1))
            maps.append(relu(resize(mixed, size)))
        displacement: Tensor = self.point(relu(self.mix(torch.cat(maps, dim=1))))
        return displacement


class Irn(Refiner):
    """IRN on any backbone: class boundaries and displacements on frozen features, learned from `ir_labels`."""

    Config = IrnConfig
    supervision = frozenset({Supervision.MASKS})
    config: IrnConfig
    mean_displacement: Tensor

    def __init__(self, config: IrnConfig, classes: int, background: bool) -> None:
        super().__init__()
        self.config, self.background = config, background
        self.backbone = Backbone(config.backbone).requires_grad_(False)
        self.edge = _EdgeBranch(self.backbone.channels)
        self.displacement = (
            _DisplacementBranch(self.backbone.channels, self.backbone.strides) if config.displacement else None
        )
        self.register_buffer("mean_displacement", torch.zeros(2))

    def train(self, mode: bool = True) -> Irn:
        """Set the branches to training mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the losses of joined pairs, parted pairs and displacements (Eqs. 2, 3 and 5)."""
        if batch.targets.pixels is None:
            raise ConfigError("IRN learns from labels made of seeds, but the batch has no masks; run a localizer first")
        levels, size = self._levels(batch.images)
        # Logarithms of 1e-5 need full precision.
        edge = self.edge(levels, size)[:, 0].float().sigmoid()
        paths = path_offsets(min(self.config.radius, min(size) / 3))
        offsets = [(path.dy, path.dx) for path in paths]
        pairs = pair_labels(labels_on_grid(batch.targets.pixels, size), offsets)
        positive, negative = affinity_loss(path_affinity(edge, paths), pairs, background=self.background)
        losses = {"affinity_positive": positive / 2, "affinity_negative": negative / 2}
        if self.displacement is not None:
            displacement = self.displacement(levels, size).float()
            losses["displacement"] = displacement_loss(displacement, pairs, offsets, background=self.background)
        return losses

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return edge branch (1x) and displacement branch (`fit.head_lr`)."""
        groups = [ParameterGroup(list(self.edge.parameters()))]
        if self.displacement is not None:
            groups.append(ParameterGroup(list(self.displacement.parameters()), head=True))
        return groups

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Store the mean displacement over training photos: objects lie anywhere, so it should be zero."""
        if self.displacement is None:
            return
        self.mean_displacement.zero_()
        device = self.mean_displacement.device
        means = [self.displacements(batch.images.to(device)).mean(dim=(2, 3)) for batch in batches]
        if means:
            self.mean_displacement.copy_(torch.cat(means).mean(dim=0))

    @torch.no_grad()
    def displacements(self, images: Tensor) -> Tensor:
        """Return steps to the object's centre, (B, 2, ceil(H/4), ceil(W/4)), (dy, dx) in cells, mean removed.

        Raises:
            ConfigError: The branch was not trained.
        """
        if self.displacement is None:
            raise ConfigError("this IRN has no displacement branch; train it with displacement=true")
        displacement: Tensor = self.displacement(*self._levels(images))
        return displacement.float() - self.mean_displacement[:, None, None]

    @torch.no_grad()
    def edges(self, images: Tensor) -> Tensor:
        """Return class boundaries: the sigmoid of the mean logits of photos and their mirrored twins.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, any size.

        Returns:
            (B, 1, ceil(H/4), ceil(W/4)), 0..1.
        """
        # Strided layers start at the left: only whole strides look the same from both sides. Repeated border pixels
        # make no edge of their own.
        stride = self.backbone.strides[-1]
        bottom, right = (-side % stride for side in images.shape[-2:])
        padded = pad(images, (0, right, 0, bottom), mode="replicate")
        logits: Tensor = self.edge(*self._levels(padded)) + self.edge(*self._levels(padded.flip(-1))).flip(-1)
        height, width = _grid(images)
        return (logits.float() / 2).sigmoid()[..., :height, :width]

    def refine(self, images: Tensor, maps: Tensor) -> Tensor:
        """Spread the class maps of one photo up to its class boundaries.

        Args:
            images: The photo, (1, 3, H, W) float RGB in 0..1, any size.
            maps: Maps of its n classes, (n, h, w) float in 0..1, any size.

        Returns:
            Scores (n, ceil(H/4), ceil(W/4)) in 0..1, the largest of all classes being 1.

        Cost:
            Two forward passes, and a walk of about 0.1 s for two classes of a 321 x 481 photo on one CPU thread.
        """
        config = self.config
        edge = self.edges(images)[0, 0]
        return spread(
            edge, maps, radius=config.walk_radius, beta=config.beta, steps=config.steps_on(edge.numel() * _CELL**2)
        )

    def _levels(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Return frozen features, none finer than the edge grid, and the size of that grid."""
        size = _grid(images)
        with torch.no_grad():
            levels = self.backbone(images)
            return [resize(level, size) if level.shape[-1] > size[1] else level for level in levels], size


def _grid(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return ceil(height / _CELL), ceil(width / _CELL)


def spread(edge: Tensor, maps: Tensor, *, radius: float = 5, beta: float = 10, steps: int = 256) -> Tensor:
    """Walk class maps along an edge map.

    Args:
        edge: Edge strength, (h, w), 0..1.
        maps: Maps of n classes, (n, any, any), float in 0..1; they are resized to the edges.
        radius: Reach of a step, cells, > 1.
        beta: Power of the affinity, > 0.
        steps: Number of steps, >= 1.

    Returns:
        Scores (n, h, w) in 0..1, divided by the largest of all classes.

    Source:
        Section 4.3, Eqs. 7 and 8.

    Example:
        >>> scores = spread(torch.zeros(4, 6), torch.rand(1, 4, 6), steps=200)
        >>> bool(torch.allclose(scores, torch.ones(1, 4, 6), atol=1e-3))  # nothing stops the walk
        True
    """
    if not len(maps):
        return maps.new_zeros(0, *edge.shape)
    seeds = resize(maps[None].float(), (edge.shape[0], edge.shape[1]))[0]
    transition = edge_transition(edge, radius=radius, beta=beta)
    scores = random_walk(seeds * (1 - edge), transition, steps=steps)  # Eq. 8
    return scores / scores.max().clamp(min=EPSILON)


def masks(scores: Tensor, class_ids: Tensor, size: tuple[int, int], *, threshold: float | None = 0.25) -> Tensor:
    """Cut walked scores into a mask.

    Args:
        scores: Scores of n classes, (n, ceil(H/4), ceil(W/4)), as `Irn.refine` returns.
        class_ids: Their class ids 1..K, (n,).
        size: (H, W), pixels.
        threshold: Background score after division by the largest score, 0..1; None where the data has no background:
            then every pixel gets the strongest of the n classes.

    Returns:
        (H, W) uint8. A photo without classes is all background, or all ignored where there is no background.
    """
    if not len(class_ids):
        return seeds(scores.new_zeros(0, *size), class_ids, threshold)
    # Cells are four pixels: resizing to a size that is no multiple would shift them.
    grown = interpolate(scores[None], scale_factor=_CELL, mode="bilinear", align_corners=False)
    grown = grown[0, :, : size[0], : size[1]]
    return seeds(grown / grown.max().clamp(min=EPSILON), class_ids, threshold)
