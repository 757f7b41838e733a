"""Pixel-adaptive refinement: scores flow to neighbours of like colour (PAR of AFA, and its ancestor PAMR).

Every pixel looks at 8 directions x 6 distances = 48 neighbours. Its affinity to them is a softmax over minus their
colour distance in units of the local standard deviation; an iteration replaces every score by the affinity-weighted
sum of the neighbours' scores. The affinity depends on the photo only, so `ParAffinity` keeps it for several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from hintseg.errors import ShapeError
from hintseg.refine._checks import as_photos, check_scores

DILATIONS = (1, 2, 4, 8, 12, 24)

Dilations = Sequence[int] | Literal["auto"]

SIDE = 256
"""Shorter side in pixels that the dilations are published for: half of a crop of 512."""


def reach(side: int) -> tuple[int, ...]:
    """Return dilations that reach as far on a photo, measured by its size, as the published ones on theirs.

    On a photo of 64 pixels the published 24 join places that have nothing to do with each other, and small objects
    dissolve. Photos larger than the published ones keep those.

    Args:
        side: Shorter side of the photo, pixels.

    Returns:
        Distances in pixels, rising, each >= 1.

    Example:
        >>> reach(256), reach(112)
        ((1, 2, 4, 8, 12, 24), (1, 2, 4, 5, 10))
    """
    return tuple(sorted({max(1, round(distance * min(1.0, side / SIDE))) for distance in DILATIONS}))


def par(scores: Tensor, rgb: Tensor, *, dilations: Dilations = DILATIONS, iterations: int = 10) -> Tensor:
    """Refine scores with pixel-adaptive refinement (PAR).

    Affinities sum to 1.01 as published, so a constant map grows by 1.01 at every iteration.

    Args:
        scores: Scores or probabilities, (B, C, h, w), float; resized to the photo, bilinear with aligned corners.
        rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.
        dilations: Distances of the neighbours in pixels, each >= 1; `auto`: `reach` of the photos' shorter side.
        iterations: Number of propagation steps, >= 0; AFA uses 10 for VOC and 15 for COCO.

    Returns:
        Refined scores, (B, C, H, W), in the dtype of `scores`, without gradient.

    Raises:
        ShapeError: Shapes, ranges, dtypes or devices of `scores` and `rgb` do not fit, or a setting is out of range.

    Cost:
        Memory 4 * 8 * len(dilations) bytes per pixel: 30 MB for a photo of 321 x 481. Time about 0.05 s for it
        and 4 channels on one CPU thread.

    Source:
        Ru et al., AFA, CVPR 2022, Eqs. 9-11; the position term is squared as in the released code.

    Example:
        >>> scores = torch.rand(1, 2, 5, 6)
        >>> rgb = torch.full((1, 3, 10, 12), 128, dtype=torch.uint8)
        >>> par(scores, rgb).shape
        torch.Size([1, 2, 10, 12])
    """
    return ParAffinity(rgb, dilations=dilations).propagate(scores, iterations)


def pamr(scores: Tensor, rgb: Tensor, *, dilations: Dilations = DILATIONS, iterations: int = 10) -> Tensor:
    """Refine scores with pixel-adaptive mask refinement (PAMR).

    The ancestor of `par`: distances are not squared and there is no position term, so affinities sum to 1.

    Args:
        scores: Scores or probabilities, (B, C, h, w), float; resized to the photo, bilinear with aligned corners.
        rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.
        dilations: Distances of the neighbours in pixels, each >= 1; `auto`: `reach` of the photos' shorter side.
        iterations: Number of propagation steps, >= 0.

    Returns:
        Refined scores, (B, C, H, W), in the dtype of `scores`, without gradient.

    Raises:
        ShapeError: As in `par`.

    Cost:
        As `par`.

    Source:
        Araslanov and Roth, CVPR 2020, section 3.3.

    Example:
        >>> rgb = torch.full((1, 3, 4, 4), 128, dtype=torch.uint8)
        >>> pamr(torch.full((1, 1, 4, 4), 0.5), rgb)[0, 0, 0]
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    return ParAffinity(rgb, dilations=dilations, variant="pamr").propagate(scores, iterations)


class ParAffinity:
    """Colour affinities of photos, computed once and used for any number of score maps.

    Attributes:
        weight: Affinities, (B, N, H, W), float32, N = 8 * number of dilations; they sum to 1.01 over N (PAR) or 1
            (PAMR).
        shifts: Offsets (dy, dx) of the N neighbours in pixels, (N, 2), int64, on the CPU; beyond the border the
            border pixel counts.

    Example:
        >>> affinity = ParAffinity(torch.zeros(1, 3, 4, 6))
        >>> affinity.weight.shape
        torch.Size([1, 48, 4, 6])
        >>> affinity.propagate(torch.rand(1, 5, 2, 3)).shape
        torch.Size([1, 5, 4, 6])
    """

    weight: Tensor
    shifts: Tensor

    @torch.no_grad()
    def __init__(
        self, rgb: Tensor, *, dilations: Dilations = DILATIONS, variant: Literal["par", "pamr"] = "par"
    ) -> None:
        """Compute the affinities of a batch of photos.

        Args:
            rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.
            dilations: Distances of the neighbours in pixels, each >= 1; `auto`: `reach` of the photos' shorter side.
            variant: Distance and normalisation: PAR's or PAMR's.

        Raises:
            ShapeError: `rgb` is no batch of photos, `dilations` is empty or holds a number below 1, or `variant` is
                unknown.
        """
        if dilations == "auto":
            dilations = reach(min(rgb.shape[2:]))
        if not dilations or min(dilations) < 1:
            raise ShapeError(f"dilations are {tuple(dilations)}; give at least one, each 1 pixel or more")
        if variant not in ("par", "pamr"):
            raise ShapeError(f"variant {variant!r} is unknown; give 'par' or 'pamr'")
        photo = as_photos(rgb) / 255
        directions = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
        self.shifts = torch.tensor([(dy * d, dx * d) for d in dilations for dy, dx in directions])
        compute = affinity
        if photo.device.type == "cpu":
            from hintseg.refine._par_numba import affinity as compute
        if variant == "par":
            distance = self.shifts.double().norm(dim=1)
            position = 0.01 * (-((distance / distance.std() / 0.3) ** 2)).softmax(dim=0)
            self.weight = compute(photo, self.shifts, position.float(), centres=0, squared=True, scale=0.3)
        else:
            # PAMR takes the deviation over whole 3 x 3 windows: the pixel itself counts once per dilation.
            position = torch.zeros(len(self.shifts))
            centres = len(dilations)
            self.weight = compute(photo, self.shifts, position, centres=centres, squared=False, scale=0.1)

    @torch.no_grad()
    def propagate(self, scores: Tensor, iterations: int = 10) -> Tensor:
        """Spread scores along the affinities.

        Args:
            scores: Scores, (B, C, h, w), float, for the same photos; resized to them, bilinear, aligned corners.
            iterations: Number of steps, >= 0.

        Returns:
            Refined scores, (B, C, H, W), in the dtype of `scores`.

        Raises:
            ShapeError: `scores` do not fit the photos, or `iterations` is negative.
        """
        check_scores(scores, self.weight, name="scores")
        if iterations < 0:
            raise ShapeError(f"iterations is {iterations}; give 0 or more, such as 10")
        # The only resize of the package with aligned corners: as published.
        maps = interpolate(scores.float(), size=self.weight.shape[2:], mode="bilinear", align_corners=True)
        spread = propagate
        if maps.device.type == "cpu":
            from hintseg.refine._par_numba import propagate as spread
        return spread(self.weight, self.shifts, maps, iterations).to(scores.dtype)


def affinity(photo: Tensor, shifts: Tensor, position: Tensor, *, centres: int, squared: bool, scale: float) -> Tensor:
    """Compute the affinities of every pixel to its shifted neighbours with torch operators, shift by shift.

    Args:
        photo: (B, 3, H, W), float32 in 0..1.
        shifts: Offsets (dy, dx), (N, 2).
        position: Added to every pixel's affinities, (N,).
        centres: How often the pixel itself counts in the standard deviation.
        squared: Square the normalised colour distance (PAR) or not (PAMR).
        scale: Colour distances are in units of `scale` standard deviations.

    Returns:
        (B, N, H, W).
    """
    offsets = shifts.tolist()
    members = len(offsets) + centres
    near = _Shifted(photo, offsets)
    mean = torch.zeros_like(photo)
    for dy, dx in offsets:
        mean += near(dy, dx) - photo
    mean /= members
    variance = centres * mean**2
    for dy, dx in offsets:
        variance += (near(dy, dx) - photo - mean) ** 2
    # The unbiased deviation; 1e-8 as published keeps a flat neighbourhood finite.
    unit = 1 / (((variance / (members - 1)).sqrt() + 1e-8) * scale)
    weight = photo.new_empty(len(photo), len(offsets), *photo.shape[2:])
    for n, (dy, dx) in enumerate(offsets):
        distance = ((near(dy, dx) - photo) * unit).abs()
        weight[:, n] = -(distance**2 if squared else distance).mean(dim=1)
    weight -= weight.amax(dim=1, keepdim=True)
    weight.exp_()
    weight /= weight.sum(dim=1, keepdim=True)
    weight += position.to(weight).view(1, -1, 1, 1)
    return weight


def propagate(weight: Tensor, shifts: Tensor, maps: Tensor, iterations: int) -> Tensor:
    """Spread maps (B, C, H, W) along affinities (B, N, H, W) with torch operators, shift by shift."""
    offsets = shifts.tolist()
    for _ in range(iterations):
        near = _Shifted(maps, offsets)
        maps = torch.zeros_like(maps)
        for n, (dy, dx) in enumerate(offsets):
            maps.addcmul_(weight[:, n : n + 1], near(dy, dx))
    return maps


class _Shifted:
    """Views of maps (B, C, H, W) shifted by (dy, dx), padded by replication."""

    def __init__(self, maps: Tensor, offsets: list[list[int]]) -> None:
        self.size = maps.shape[2:]
        self.margin = max(dx for _, dx in offsets)
        self.padded = pad(maps, (self.margin,) * 4, mode="replicate")

    def __call__(self, dy: int, dx: int) -> Tensor:
        y, x = self.margin + dy, self.margin + dx
        return self.padded[..., y : y + self.size[0], x : x + self.size[1]]
