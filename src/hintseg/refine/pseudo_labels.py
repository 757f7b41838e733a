"""Labels that a network makes for itself while it learns: class maps, spread by colour, cut by background scores.

Used by AFA (two constant background scores, high and low) and BMP (a background map of the segmentation branch). Only
the classes that the tags name go through the propagation, packed into as many channels as the richest photo has tags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from hintseg.errors import ShapeError
from hintseg.nn.resize import grow
from hintseg.refine.par import DILATIONS, ParAffinity, reach
from hintseg.types import BACKGROUND, IGNORE, Targets

GAIN = 1.01
"""PAR's affinities sum to this, so every iteration multiplies a constant map by it."""

Reach = Literal["crop", "fixed"]

_ABSENT = -1e4
"""Score of a channel that holds no class, before a softmax."""


class Present(NamedTuple):
    """The classes of each photo, packed.

    Attributes:
        labels: Mask value of each channel, (B, 1 + n) int64: 0 background, then class ids; n = most tags of a photo.
        valid: Whether the channel holds something, (B, 1 + n) bool.
    """

    labels: Tensor
    valid: Tensor

    def pack(self, background: Tensor, maps: Tensor) -> Tensor:
        """Return [background (B, 1, h, w), maps (B, K, h, w)] of the present classes, (B, 1 + n, h, w); 0 elsewhere."""
        index = (self.labels[:, 1:] - 1).clamp(min=0)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        return torch.cat([background, maps.gather(1, index)], dim=1) * self.valid[:, :, None, None]

    def softmax(self, packed: Tensor) -> Tensor:
        """Return the softmax over the channels that hold something; the others are 0."""
        return packed.masked_fill(~self.valid[:, :, None, None], _ABSENT).softmax(dim=1)


def present(tags: Tensor) -> Present:
    """Return which classes each photo has.

    Args:
        tags: True or 1 where the class may be there, (B, K).

    Example:
        >>> present(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])).labels
        tensor([[0, 2, 3],
                [0, 1, 0]])
    """
    have = tags > 0
    most = max(1, int(have.sum(dim=1).max()))
    order = have.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    found = have.gather(1, order)
    labels = torch.cat([order.new_zeros(len(tags), 1), (order + 1) * found], dim=1)
    return Present(labels, torch.cat([found.new_ones(len(tags), 1), found], dim=1))


class CropPar:
    """PAR on the photos inside padded crops, at half resolution; the colour affinity is computed once for all maps.

    The published crops of 512 pixels are halved, and the farthest of PAR's neighbours is then 9 % of the side away. On
    crops of 96 to 160 pixels the same distances are 30 to 50 % of it. On 60 photos of voc12-animals at 128 pixels, maps
    made by blurring the truth gave labels of 66.6 % IoU with them and 73.5 % with distances that follow the crop (at
    224: 74.7 and 83.4); of the object pixels, 56 and 80 % were labelled and right.

    Source:
        Ru et al., AFA, CVPR 2022, section 3.4 and their code.
    """

    @torch.no_grad()
    def __init__(self, images: Tensor, windows: Tensor, *, iterations: int = 10, reach_of: Reach = "crop") -> None:
        """Compute the colour affinities.

        Args:
            images: Crops, (B, 3, H, W), RGB in 0..1.
            windows: Boxes (x0, y0, x1, y1) of the photo inside each crop, (B, 4) int64, pixels.
            iterations: Steps of the propagation.
            reach_of: `crop`: distances follow the shorter side of the crops (see `hintseg.refine.par.reach`); `fixed`:
                as published.

        Raises:
            ShapeError: A window is not inside its crop, or has a side below 2 pixels.

        Cost:
            Crops whose photos have one size go together.
        """
        self.size = (images.shape[2], images.shape[3])
        self.iterations = iterations
        dilations = DILATIONS if reach_of == "fixed" else reach(min(self.size) // 2)
        self.boxes = windows.tolist()
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (x0, y0, x1, y1) in enumerate(self.boxes):
            if not (0 <= x0 <= x1 - 2 < self.size[1] - 1 and 0 <= y0 <= y1 - 2 < self.size[0] - 1):
                raise ShapeError(
                    f"window {self.boxes[i]} must be at least 2 x 2 pixels and lie in its crop of {self.size[1]} x "
                    f"{self.size[0]}; leave out photos that are this narrow, or raise fit.scale"
                )
            groups.setdefault((y1 - y0, x1 - x0), []).append(i)
        self.groups = []
        for members in groups.values():
            half = _halve(self._cut(images, members))
            self.groups.append((members, ParAffinity((half * 255).clamp(0, 255), dilations=dilations)))

    def _cut(self, maps: Tensor, members: list[int]) -> Tensor:
        boxes = [self.boxes[i] for i in members]
        return torch.stack([maps[i, :, y0:y1, x0:x1] for i, (x0, y0, x1, y1) in zip(members, boxes, strict=True)])

    @torch.no_grad()
    def __call__(self, maps: Tensor, before: Callable[[Tensor, list[int]], Tensor] | None = None) -> Tensor:
        """Spread maps by colour.

        Args:
            maps: Scores on the crops, (B, n, H, W).
            before: Applied to the maps of some photos (b, n, h, w), given with their numbers, cut to the photo.

        Returns:
            (B, m, H, W), 0 outside the windows.
        """
        pieces: dict[int, Tensor] = {}
        for members, affinity in self.groups:
            inner = self._cut(maps.float(), members)
            size = inner.shape[2:]
            if before is not None:
                inner = before(inner, members)
            outer = affinity.propagate(inner, self.iterations)
            outer = grow(outer, size)
            pieces |= dict(zip(members, outer, strict=True))
        height, width = self.size
        return torch.stack(
            [pad(pieces[i], (x0, width - x1, y0, height - y1)) for i, (x0, y0, x1, y1) in enumerate(self.boxes)]
        )


def inside(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels of crops (H, W) lie in their windows (B, 4), (B, H, W) bool."""
    x = torch.arange(size[1], device=windows.device)[None, None]
    y = torch.arange(size[0], device=windows.device)[None, :, None]
    x0, y0, x1, y1 = (side[:, None, None] for side in windows.unbind(dim=1))
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


@torch.no_grad()
def par_labels(spread: CropPar, maps: Tensor, tags: Tensor, windows: Tensor, *, high: float, low: float) -> Tensor:
    """Label crops from class maps: classes that win against a high background score, background that wins a low one.

    Args:
        spread: PAR of the crops.
        maps: Class maps, (B, K, H, W) in 0..1.
        tags: True or 1 where the class may be there, (B, K).
        windows: Boxes of the photos inside the crops, (B, 4).
        high: Background score that a class must beat.
        low: Background score that all classes must lose to.

    Returns:
        (B, H, W) uint8: 0 background, 1..K, 255 undecided or outside the window.

    Source:
        Ru et al., AFA, CVPR 2022, Eq. 3 and their code (softmax over present classes, then PAR).
    """
    found = present(tags)
    stack = torch.cat([found.pack(torch.full_like(maps[:, :1], level), maps) for level in (high, low)], dim=1)

    def weigh(inner: Tensor, members: list[int]) -> Tensor:
        own = Present(found.labels[members], found.valid[members])
        return torch.cat([own.softmax(part) for part in _halve(inner).chunk(2, dim=1)], dim=1)

    return _agree(spread(stack, weigh), found, windows)


@torch.no_grad()
def affinity_labels(
    spread: CropPar,
    maps: Tensor,
    tags: Tensor,
    windows: Tensor,
    walk: Callable[[Tensor], Tensor],
    *,
    high: float,
    low: float,
) -> Tensor:
    """As `par_labels`, but the maps are first spread along affinities learned from self-attention.

    Args:
        spread: PAR of the crops.
        maps: Class maps on the affinity's grid, (B, K, h, w) in 0..1.
        tags: True or 1 where the class may be there, (B, K).
        windows: Boxes of the photos inside the crops, (B, 4).
        walk: Spreads scores (B, n, h, w) along the affinities, such as `hintseg.nn.affinity.spread`.
        high: Background score that a class must beat.
        low: Background score that all classes must lose to.

    Returns:
        (B, H, W) uint8, as `par_labels`.

    Source:
        Ru et al., AFA, CVPR 2022, section 3.3 and their code.
    """
    found = present(tags)
    packed = [found.softmax(found.pack(torch.full_like(maps[:, :1], level), maps)) for level in (high, low)]
    # A softmax gives the empty channels nothing, so the walk and PAR leave them at 0.
    grown = grow(walk(torch.cat(packed, dim=1)), spread.size)
    return _agree(spread(grown), found, windows)


@torch.no_grad()
def background_aware(
    spread: CropPar, maps: Tensor, background: Tensor, tags: Tensor, *, keep_gain: bool = False
) -> tuple[Tensor, Tensor]:
    """Spread class maps and a background map together and let the strongest win: BMP's spatial propagation (BSP).

    Args:
        spread: PAR of the crops, p in Eq. 13.
        maps: Class maps of the classification branch, u(C), (B, K, H, W) in 0..1.
        background: Background of the segmentation branch, B^s, (B, 1, H, W) in 0..1.
        tags: True or 1 where the class may be there, (B, K).
        keep_gain: Keep the factor that PAR multiplies scores by, 1.01 per iteration, as the authors' code does; without
            it S^c stays in 0..1, where a threshold means the same for any number of iterations.

    Returns:
        Y^c, the winner (B, H, W) uint8, and its score max(S^c), (B, H, W), 0 outside the windows.

    Source:
        Zhu et al., BMP, Eqs. 3, 12 and 13.
    """
    found = present(tags)
    scores = spread(found.pack(background, maps))  # Eq. 13
    if not keep_gain:
        scores = scores / GAIN**spread.iterations
    best, channel = scores.max(dim=1)  # Eq. 3
    return found.labels.gather(1, channel.flatten(1)).view_as(channel).to(torch.uint8), best


def only_said(labels: Tensor, targets: Targets) -> Tensor:
    """Take out of labels the classes whose tag was not said.

    All classes that may be in a photo compete for its pixels. Class maps are stretched to their maximum, so that of an
    absent class wins somewhere too: where a class wins of which nothing was said, the pixel may be anything.

    Args:
        labels: (B, H, W) uint8: 0 background, 1..K, 255 unknown.
        targets: The tags.

    Returns:
        (B, H, W) uint8; the same labels where all tags are known.

    Example:
        >>> said = Targets(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]), torch.zeros(1, 4))
        >>> only_said(torch.tensor([[[0, 1, 2]]], dtype=torch.uint8), said)
        tensor([[[  0,   1, 255]]], dtype=torch.uint8)
    """
    guessed = pad(targets.possible & (targets.tags == 0), (1, IGNORE - targets.tags.shape[1]))  # (B, 256), by value
    return labels.masked_fill(guessed.gather(1, labels.flatten(1).long()).view_as(labels), IGNORE)


def _agree(scores: Tensor, found: Present, windows: Tensor) -> Tensor:
    """Combine the winners against the high and the low background score, (B, 2 * (1 + n), H, W) -> (B, H, W)."""
    winners = []
    for part in scores.chunk(2, dim=1):
        channel = part.argmax(dim=1)
        winners.append(found.labels.gather(1, channel.flatten(1)).view_as(channel))
    sure, doubtful = winners
    labels = sure.masked_fill((sure == BACKGROUND) & (doubtful != BACKGROUND), IGNORE)
    return labels.masked_fill(~inside(windows, (scores.shape[2], scores.shape[3])), IGNORE).to(torch.uint8)


def _halve(maps: Tensor) -> Tensor:
    size = [side // 2 for side in maps.shape[2:]]
    return grow(maps, size)
