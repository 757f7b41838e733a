"""What the tests of CSD share: pairs of photos, a localizer that is one matrix, Eq. 3 cell by cell."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hintseg.config.settings import MethodConfig
from hintseg.methods.method import Method
from hintseg.types import Batch, Hints, ParameterGroup, Photo, Progress, Tags
from made import batch_of, rand


def photo(name: str, *tags: int, path: Path | None = None) -> Photo:
    return Photo(name, path or Path(name), Hints(Tags(frozenset(tags))))


def blocks(count: int, side: int = 8, seed: int = 0, values: tuple[int, int, int, int] = (0, 1, 2, 255)) -> Tensor:
    """Random masks of blocks of two pixels, (count, side, side) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.choice(np.array(values, np.uint8), (count, side // 2, side // 2))
    return torch.from_numpy(small.repeat(2, axis=1).repeat(2, axis=2))


def pairs() -> Batch:
    """Three photos of 8 pixels and 3 classes; the first and the last have two tags, and sources of classes 2 and 1."""
    source = batch_of(rand(2, 3, 8, 8, seed=1), torch.tensor([[0.0, 1, 0], [1, 0, 0]]), blocks(2, seed=2))
    tags = torch.tensor([[1.0, 1, 0], [0, 0, 1], [0, 1, 1]])
    return batch_of(rand(3, 3, 8, 8), tags, blocks(3, seed=3, values=(0, 0, 1, 2)), source=source)


class Plain(Method):
    """A localizer whose maps are a mix of the colours of 2 x 2 pixels; it notes how its maps are asked for."""

    config = MethodConfig(method="plain")

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Parameter(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)) * 3)
        self.asked: list[tuple[int, bool, bool]] = []

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        return {"loss_own": self.raw_maps(batch.images).square().mean()}

    def raw_maps(self, images: Tensor) -> Tensor:
        self.asked.append((len(images), self.training, torch.is_grad_enabled()))
        return torch.einsum("kc,bchw->bkhw", self.mix, torch.nn.functional.avg_pool2d(images, 2))

    def class_maps(self, images: Tensor) -> Tensor:
        return self.raw_maps(images).relu()

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(list(self.parameters()))]


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exponentials) for e in exponentials]


def plain_consistency(teacher: Tensor, student: Tensor, cells: Tensor) -> tuple[float, Tensor]:
    """Value and gradient (to the student) of the KL divergence, cell by cell."""
    photos, _, height, width = teacher.shape
    scale = 196 / (height * width) / photos
    value, gradient = 0.0, torch.zeros_like(student)
    for b in range(photos):
        for y in range(height):
            for x in range(width):
                if cells[b, y, x]:
                    p, q = softmax(teacher[b, :, y, x].tolist()), softmax(student[b, :, y, x].tolist())
                    value += scale * sum(i * math.log(i / j) for i, j in zip(p, q, strict=True))
                    gradient[b, :, y, x] = scale * (torch.tensor(q) - torch.tensor(p))
    return value, gradient
