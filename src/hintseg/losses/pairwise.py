"""BoxInst's pairwise loss for a semantic segmenter: neighbours of like colour have one label, in and around boxes."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.config.objective import Objective
from hintseg.config.settings import Count, Positive
from hintseg.losses.projection import boxed
from hintseg.losses.reduced import grid_of, logits_of
from hintseg.nn.resize import resize
from hintseg.types import Prediction, Progress, Supervision, Targets

WHITE = (0.95047, 1.0, 1.08883)
"""CIE XYZ of the white of sRGB, D65."""


class Pairwise(Objective):
    """``-(1 / N) sum_(i, j) log sum_k p_ik p_jk`` over the N pairs of cells that are surely alike.

    Pairs are a cell and its eight neighbours `dilation` cells away, at least one of both in a box. They are surely
    alike where ``exp(-|c_i - c_j| / theta) >= tau``, with colours c in CIE Lab; then they shall have one label.

    Source:
        Tian, Shen, Wang and Chen, BoxInst, CVPR 2021, Eqs. 5 to 7, there of two classes and for each object.

    Attributes:
        cell: Side of the cells that it is worked out on, image pixels.
        dilation: Distance of the neighbours, cells.
        tau: How alike in colour they must be, 0..1.
        theta: Unit of the distance of colours, Lab units of 0..100.
        warmup: Share of the training in which the weight rises from 0.
    """

    name: Literal["pairwise"] = "pairwise"
    needs = frozenset({Supervision.BOXES})
    cell: Count = 4
    dilation: Count = 2
    tau: Annotated[float, Field(ge=0, le=1)] = 0.3
    theta: Positive = 2.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``pairwise``."""
        self.check(targets)
        grid, logits = grid_of(images, self.cell), logits_of(self, seen)
        inside = torch.zeros(len(logits), *grid, dtype=torch.bool, device=logits.device)
        photo = torch.zeros_like(inside)
        for number, _, box, cells in boxed(self, targets, images, grid):
            inside[number] |= box
            photo[number][cells] = True
        alike = resize(logits.float(), grid).log_softmax(dim=1)
        colours = lab(interpolate(images.float(), size=grid, mode="area"))
        total, count = logits[:0].sum(), torch.zeros((), device=logits.device)
        height, width = grid
        for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):  # each pair once
            y, x = dy * self.dilation, dx * self.dilation
            if y >= height or abs(x) >= width:
                continue
            here = (slice(0, height - y), slice(max(0, -x), width - max(0, x)))
            there = (slice(y, height), slice(max(0, x), width + min(0, x)))
            one, other = (..., *here), (..., *there)
            apart = (colours[one] - colours[other]).norm(dim=1)
            sure = ((-apart / self.theta).exp() >= self.tau) & (inside[one] | inside[other]) & photo[one] & photo[other]
            total = total - ((alike[one] + alike[other]).logsumexp(dim=1) * sure).sum()
            count = count + sure.sum()
        rise = min(1.0, progress.fraction / self.warmup) if self.warmup else 1.0
        return {"pairwise": self.weight * rise * total / count.clamp(min=1)}


def lab(images: Tensor) -> Tensor:
    """Return the CIE Lab colours of images (B, 3, H, W) sRGB in 0..1: L in 0..100, a and b in about -100..100.

    Example:
        >>> lab(torch.ones(1, 3, 1, 1)).round().flatten().abs().tolist()
        [100.0, 0.0, 0.0]
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = torch.einsum("ij,bjhw->bihw", linear.new_tensor(matrix), linear) / linear.new_tensor(WHITE)[:, None, None]
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
