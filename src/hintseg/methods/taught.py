"""A segmenter that learns beside a teacher: an exponential moving average of its own weights.

The teacher looks at each batch as it is, without dropout, and what it says goes along as `Targets.taught`; objectives
judge by that (`teacher`, `consistency`). Where `consistency` is listed, strong views of the photos of whose pixels
nothing is said join the batch. What is kept after the training is the segmenter alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout2d, pad

from hintseg.lean import torchvision
from hintseg.losses.consistency import Consistency
from hintseg.losses.teacher import TaughtObjective
from hintseg.methods.deeplab import NEVER
from hintseg.methods.method import Method, frozen
from hintseg.methods.segmenter import Segmenter
from hintseg.types import IGNORE, Batch, Features, ParameterGroup, Progress, Targets

F = torchvision.transforms.v2.functional

MOMENTUM = 0.99
"""Share of the teacher that stays at each step: it is about the mean of the last hundred steps."""

DROPPED = 0.5
"""Share of the channels that are dropped from features (UniMatch, section 3.3)."""


def with_teacher(method: Method) -> Method:
    """Return what trains a method: itself, or with a teacher where one of its objectives learns from one."""
    if isinstance(method, Segmenter) and any(isinstance(one, TaughtObjective) for one in method.objectives):
        return Taught(method)
    return method


class Taught(Method):
    """A segmenter and its teacher. What is frozen is in memory once.

    Source:
        Tarvainen and Valpola, NeurIPS 2017, for the average: of the first n steps it is the plain mean, as there.
    """

    supervision = Segmenter.supervision

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter, self.config = segmenter, segmenter.config
        shared: dict[int, Any] = {id(value): value for value in segmenter.parameters() if not value.requires_grad}
        self.teacher = copy.deepcopy(segmenter, shared).requires_grad_(False)
        self.strong = any(isinstance(objective, Consistency) for objective in segmenter.objectives)
        self.followed = -1

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Let the segmenter measure what it needs."""
        self.segmenter.prepare(batches)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Let the segmenter measure what it needs."""
        self.segmenter.finish(batches)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return those of the segmenter."""
        return self.segmenter.parameter_groups()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the segmenter's losses, of the batch with what the teacher says of it."""
        self._follow(progress.step)
        with torch.no_grad(), frozen(self.teacher):
            said = self.teacher.segment(batch.images).float()
        absent = pad(~batch.targets.possible, (1, 0))  # not the background
        taught = said.masked_fill(absent[:, :, None, None], NEVER)
        told = replace(batch, targets=replace(batch.targets, taught=taught))
        pixels = batch.targets.pixels
        if not self.strong or pixels is None:
            return self.segmenter.losses(told, progress)
        rows = (pixels == IGNORE).flatten(1).all(dim=1).nonzero().flatten()
        with dropped(cast(nn.Module, self.segmenter.backbone), len(rows)):
            return self.segmenter.losses(with_views(told, rows), progress)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the teacher towards the segmenter as it is before a step, once where a step has several batches."""
        if step == self.followed:
            return
        self.followed, share = step, max(1 / (step + 1), 1 - MOMENTUM)
        for average, weight in zip(self.teacher.parameters(), self.segmenter.parameters(), strict=True):
            if weight.requires_grad:
                average.lerp_(weight, share)
        for kept, value in zip(self.teacher.buffers(), self.segmenter.buffers(), strict=True):
            kept.copy_(value)


def with_views(batch: Batch, rows: Tensor) -> Batch:
    """Let strong views of some photos join a batch; nothing but what is `taught` is known of them.

    Args:
        batch: With `Targets.taught`.
        rows: The photos, (U,) int64.

    Returns:
        The batch with 2U more images: their strong views, and behind these themselves, to drop features of; of kept
        features with U more, themselves.
    """
    targets, taught = batch.targets, cast(Tensor, batch.targets.taught)
    weak, said, windows = _of(batch.images, rows), taught[rows], targets.windows[rows]
    images: list[Tensor | Features] = [batch.images, weak]
    words, seen_in = [taught, said], [targets.windows, windows]
    if isinstance(weak, Tensor) and len(rows):
        strong, *mixed = cut_mix(torch.stack([strong_view(image) for image in weak]), said, windows)
        images.insert(1, strong)
        for listed, part in zip((words, seen_in), mixed, strict=True):
            listed.insert(1, part)
    count = sum(len(part) for part in words[1:])

    def more(values: Tensor, fill: float) -> Tensor:
        return torch.cat([values, values.new_full((count, *values.shape[1:]), fill)])

    known = Targets(
        more(targets.tags, 0),
        more(targets.tags_known, False),
        torch.cat(seen_in),
        None if targets.pixels is None else more(targets.pixels, IGNORE),
        None if targets.trust is None else more(targets.trust, 0),
        None if targets.boxes is None else (*targets.boxes, *[targets.windows.new_zeros(0, 5).float()] * count),
        torch.cat(words),
        count,
    )
    ids = [*batch.ids, *[batch.ids[row] for row in rows.tolist()] * (len(words) - 1)]
    return Batch(ids, _joined(images), known)


def strong_view(image: Tensor) -> Tensor:
    """Return an image (3, H, W) in 0..1 in other colours, grey or blurred by chance.

    Source:
        UniMatch's code: brightness, contrast and saturation by a factor in 0.5..1.5, in four of five images; grey in
        one of five; blurred by 0.1..2 pixels in every other one. Its shift of hue is left out.
    """
    often, grey, blurred, sigma, *factors = torch.rand(7).tolist()
    if often < 0.8:
        for adjust, factor in zip((F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), factors, strict=True):
            image = adjust(image, 0.5 + factor)
    if grey < 0.2:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if blurred < 0.5:
        deviation = 0.1 + 1.9 * sigma
        image = F.gaussian_blur(image, 2 * math.ceil(2 * deviation) + 1, deviation)
    return image


def cut_mix(images: Tensor, taught: Tensor, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a box of another image into every other one, by chance, and what is taught of it along.

    Args:
        images: (U, 3, H, W).
        taught: Logits, (U, C, h, w); boxes lie on whole cells of theirs.
        windows: (U, 4) boxes of what is photo; of a mixed one what is photo in both.

    Returns:
        The three, mixed.

    Source:
        Yun et al., ICCV 2019; boxes of 2 to 40 % of the image, as in UniMatch's code.
    """
    (height, width), (rows, columns) = images.shape[2:], taught.shape[2:]
    mixed, words, seen_in = images.clone(), taught.clone(), windows.clone()
    for one, other in enumerate(torch.randperm(len(images)).tolist()):
        chance, area, ratio, down, along = torch.rand(5).tolist()
        if chance < 0.5 or one == other:
            continue
        area, ratio = 0.02 + 0.38 * area, 0.3 ** (1 - 2 * ratio)
        h = min(rows, max(1, round(rows * math.sqrt(area * ratio))))
        w = min(columns, max(1, round(columns * math.sqrt(area / ratio))))
        top, left = int(down * (rows - h + 1)), int(along * (columns - w + 1))
        words[one, :, top : top + h, left : left + w] = taught[other, :, top : top + h, left : left + w]
        y0, y1 = (round(end * height / rows) for end in (top, top + h))
        x0, x1 = (round(end * width / columns) for end in (left, left + w))
        mixed[one, :, y0:y1, x0:x1] = images[other, :, y0:y1, x0:x1]
        pair = windows[[one, other]]
        seen_in[one] = torch.cat([pair[:, :2].amax(dim=0), pair[:, 2:].amin(dim=0)])
    return mixed, words, seen_in


@contextmanager
def dropped(encoder: nn.Module, count: int) -> Iterator[None]:
    """Drop half of the channels of what an encoder gives of the last `count` images of a batch, others for each."""

    def drop(_encoder: nn.Module, _inputs: object, levels: list[Tensor]) -> list[Tensor]:
        return [torch.cat([level[:-count], dropout2d(level[-count:], DROPPED)]) for level in levels]

    handle = encoder.register_forward_hook(drop) if count else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _of(images: Tensor | Features, rows: Tensor) -> Tensor | Features:
    """Return some of the images, or of the features that stand in for them."""
    if isinstance(images, Features):
        return Features(tuple(level[rows] for level in images.levels), images.size)
    return images[rows]


def _joined(images: Sequence[Tensor | Features]) -> Tensor:
    kept = [part for part in images if isinstance(part, Features)]
    if kept:
        levels = zip(*(part.levels for part in kept), strict=True)
        return cast(Tensor, Features(tuple(torch.cat(level) for level in levels), kept[0].size))
    return torch.cat([part for part in images if isinstance(part, Tensor)])
