"""CSD: photos with one tag teach where things are in photos with several. It wraps the training of any localizer.

Yang, Ke, Hancke and Lau, "Cross-domain Semantic Decoupling for Weakly-Supervised Semantic Segmentation", BMVC 2023.

A photo with a single tag is easily mapped: there is nothing to mistake its object for. Such photos are the *source*,
photos with several tags the *target*. A localizer is first trained as it is, and its refined masks of the source photos
are kept (stage one). Then it is trained again, and at each step objects of source photos are pasted into target photos,
and their background into the targets' background: the class scores of what was pasted shall stay those that it had at
home. Classification learns from the ordinary photos only; pasted ones have no tag loss.

Which source photo a target gets is drawn by how often classes come together (`hintseg.data.sources`); the batch brings
it along as `Batch.source`. What a run needs around that is in `hintseg.wrappers.decoupling`.

What the paper leaves open, and the way taken here: the teacher is the localizer itself, without gradient; pastes are
hard-edged; a cell counts where its pixels were all pasted. The localizer is not changed: what is saved after training
is the plain localizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple
from zlib import crc32

import torch
from pydantic import Field
from torch import Tensor, distributed, nn

from hintseg.cam.maps import EPSILON
from hintseg.config.objective import Objective
from hintseg.config.settings import WrapperConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.methods.method import Method, frozen
from hintseg.refine.pseudo_labels import inside
from hintseg.types import BACKGROUND, IGNORE, Batch, ParameterGroup, Prediction, Progress, Supervision
from hintseg.wrappers.consistency import BackgroundConsistency, ObjectConsistency, covered


class CsdConfig(WrapperConfig):
    """Settings of CSD, which wraps the training of the localizer; the defaults are the paper's but for `background`.

    The weights belong to sums over a grid of 14 x 14 cells; on other grids the sums are scaled to it. Where photos have
    no background class, there is no background to paste.

    Attributes:
        foreground: lambda_1, weight of the consistency of pasted objects; 0 leaves it out.
        background: lambda_2, weight of the consistency of pasted background; 0 leaves it out. The paper has 0.1, and
            either one alone does harm there. With a classifier of few classes, whose scores go to tens, 0.1 ruined
            the maps (docs/benchmarks.md, section 9); the recipes `csd_mct` and `paper/csd-...` have it.
        dummy: M', the constant score beside the sum of all class scores. The paper does not say it; 0.1 is the
            authors' earlier code.
        reliable: A cell of an object counts where the score of its class, stretched to 0..1 over the source photo, is
            at least this. The paper speaks of reliable pseudo-labels and gives no number; 0.5 is the authors' earlier
            code; 0 counts every cell that the object's mask covers.
        shift: Largest shift of a paste, in cells of the class maps, up, down and sideways. 0 pastes in place.
        resample: Whether source photos are drawn by how often classes come together (the paper's resampling), or all
            alike (its row "copy-and-paste").
        diagonal: What a class counts with itself, see `hintseg.hints.cooccurrence.cooccurrence_prior`.
    """

    foreground: Annotated[float, Field(ge=0)] = 0.01
    background: Annotated[float, Field(ge=0)] = 0.0
    dummy: float = 0.1
    reliable: Annotated[float, Field(ge=0, le=1)] = 0.5
    shift: Annotated[int, Field(ge=0)] = 0
    resample: bool = True
    diagonal: Literal["single", "all"] = "single"


class Pastes(NamedTuple):
    """P pairs of photos and what was made of them.

    Attributes:
        source: Photos with a single tag, (P, 3, H, W), shifted as they are pasted.
        target: Photos with several tags, (P, 3, H, W).
        foreground: The targets with the sources' objects, (P, 3, H, W).
        background: The targets with the sources' background, (P, 3, H, W).
        objects: Pixels of pasted objects, (P, H, W) bool.
        surroundings: Pixels of pasted background, (P, H, W) bool.
        labels: Labels of the sources, shifted likewise, (P, H, W) uint8, 255 where nothing comes in.
    """

    source: Tensor
    target: Tensor
    foreground: Tensor
    background: Tensor
    objects: Tensor
    surroundings: Tensor
    labels: Tensor


class Csd(Method):
    """A localizer whose training step also compares pasted objects and background with themselves at home.

    Its maps, parameters and preparation are the localizer's.
    """

    supervision = frozenset({Supervision.TAGS})

    def __init__(self, localizer: Method, settings: CsdConfig) -> None:
        """Wrap a localizer.

        Args:
            localizer: Any localizer with `raw_maps`.
            settings: Weights and how pastes are made.

        Raises:
            ConfigError: The localizer has no `raw_maps`.
        """
        super().__init__()
        check_wrappable(type(localizer), localizer.config.method)
        self.localizer, self.settings, self.config = localizer, settings, localizer.config

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Let the localizer measure what it needs."""
        self.localizer.prepare(batches)

    def finish(self, batches: Iterable[Batch]) -> None:
        """Let the localizer measure what it needs."""
        self.localizer.finish(batches)

    def class_maps(self, images: Tensor) -> Tensor:
        """Return the localizer's class maps (B, K, h, w), >= 0, not normalised."""
        return self.localizer.class_maps(images)

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return the localizer's class maps (B, K, h, w) before any ReLU or normalisation."""
        return self.localizer.raw_maps(images)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the localizer's."""
        return self.localizer.parameter_groups()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the localizer's losses, and ``loss_fg`` and ``loss_bg``, the weighted terms of Eq. 6.

        Both are 0 for a batch in which no photo has two tags.

        Raises:
            ConfigError: The batch has no masks.

        Cost:
            With P photos of two or more tags: a forward pass of P photos without gradient, and one of 2P photos with
            it, beside the localizer's own step.
        """
        losses = self.localizer.losses(batch, progress)
        losses |= {name: batch.images.new_zeros(()) for name in ("loss_fg", "loss_bg")}
        judges: dict[str, Objective] = {}  # Eq. 6
        if self.settings.foreground:
            judges["loss_fg"] = ObjectConsistency(weight=self.settings.foreground)
        if self.settings.background:
            judges["loss_bg"] = BackgroundConsistency(weight=self.settings.background, dummy=self.settings.dummy)
        if not judges:
            return losses
        if batch.source is None:
            return losses | self._keep_pace(batch.images[:1], list(judges))
        teacher = self._teach(batch.source.images)
        size = (teacher.shape[-2], teacher.shape[-1])
        offsets = self._offsets(batch, len(teacher), progress)  # cells
        stride = _stride(batch, size) if self.settings.shift else 1
        pastes = make_pastes(batch, offsets * stride)
        pasted = {"loss_fg": (pastes.foreground, pastes.objects), "loss_bg": (pastes.background, pastes.surroundings)}
        students = self.localizer.raw_maps(torch.cat([pasted[name][0] for name in judges])).chunk(len(judges))
        # The source's scores move along with what was pasted.
        counted = reliable(teacher, batch.source, self.settings.reliable)
        home = {"teacher": _shifted(teacher, offsets, 0.0), "reliable": _shifted(counted, offsets, False)}
        for (name, judge), student in zip(judges.items(), students, strict=True):
            images, marked = pasted[name]
            targets = replace(batch.source.targets, pixels=pastes.labels.masked_fill(~marked, IGNORE))
            losses |= judge(Prediction(None, own=home | {"student": student}), targets, images, progress)
        return losses

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Tensor:
        """Return the raw maps of source photos (P, 3, H, W), without gradient, dropout and dropped paths.

        Batch norm that learns goes by the batch, as it does for the student: with its running statistics the same
        object would score differently at home and away, and the losses would teach that difference.

        Called after the localizer's own losses: autocast keeps the first cast of a weight, and one made here would
        have no gradient.
        """
        norms = [p for p in self.localizer.modules() if isinstance(p, nn.modules.batchnorm._BatchNorm) and p.training]
        with frozen(self.localizer):
            for norm in norms:
                norm.train()
            return self.localizer.raw_maps(images)

    def _keep_pace(self, images: Tensor, wanted: list[str]) -> dict[str, Tensor]:
        """Take the passes of a step with pairs, for losses of 0, where there are other processes.

        Batch norm that learns from the photos of all processes waits in every pass, forward and backward, for each.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return {}
        self._teach(images)
        return {wanted[0]: 0.0 * self.localizer.raw_maps(images.repeat(len(wanted), 1, 1, 1)).mean()}

    def _offsets(self, batch: Batch, pairs: int, progress: Progress) -> Tensor:
        """Draw the shifts (dy, dx) of `pairs` pastes, (P, 2) cells.

        Step and photos are the seed: a resumed run draws alike, another seed, process or part of a step does not.
        """
        random = torch.Generator().manual_seed(crc32(repr((progress.step, batch.ids)).encode()))
        most = self.settings.shift
        return torch.randint(-most, most + 1, (pairs, 2), generator=random)


def check_wrappable(kind: type[Method], name: str) -> None:
    """Refuse localizers that do not tell their raw class maps.

    Raises:
        ConfigError: The method has no `raw_maps`.
    """
    if kind.raw_maps is Method.raw_maps:
        raise ConfigError(
            f"'{name}' does not tell its class maps before ReLU and normalisation (it has no `raw_maps`), which CSD "
            "compares; wrap another localizer, such as localize.method=cam, or train it as it is: csd=null"
        )


def make_pastes(batch: Batch, offsets: Tensor) -> Pastes:
    """Paste the objects, and the background, of source photos into the photos they are paired with.

    An object is pasted wherever it lies. Background is pasted on background of the target only, so that the target's
    objects stay.

    Args:
        batch: Photos with masks, and with sources with masks.
        offsets: Shifts (dy, dx) of the sources, (P, 2) int64, pixels; what leaves the frame is lost.

    Raises:
        ConfigError: The batch has no masks.
    """
    if batch.source is None or batch.source.targets.pixels is None or batch.targets.pixels is None:
        raise ConfigError("CSD pastes by masks, but the batch has none; give the run a baseline with masks")
    several = batch.targets.tags.sum(dim=1) > 1
    target, target_masks = batch.images[several], batch.targets.pixels[several]
    source = _shifted(batch.source.images, offsets, 0.0)
    masks = _shifted(batch.source.targets.pixels, offsets, IGNORE)
    labels = batch.source.targets.tags.argmax(dim=1) + 1  # (P,)
    objects = masks == labels[:, None, None]
    surroundings = (masks == BACKGROUND) & (target_masks == BACKGROUND)
    return Pastes(
        source,
        target,
        torch.where(objects[:, None], source, target),
        torch.where(surroundings[:, None], source, target),
        objects,
        surroundings,
        masks,
    )


def reliable(teacher: Tensor, source: Batch, least: float) -> Tensor:
    """Return the cells where the teacher itself sees the source's class.

    Args:
        teacher: Raw maps of the source photos, (P, K, h, w).
        source: The source photos.
        least: Smallest score that counts, 0..1, once the class's map is stretched to 0..1 over the cells that lie
            wholly in the photo, not in its padding; 0 counts every cell.

    Returns:
        (P, h, w) bool.
    """
    size = (teacher.shape[-2], teacher.shape[-1])
    if not least:
        return torch.ones(len(teacher), *size, dtype=torch.bool, device=teacher.device)
    own = teacher[torch.arange(len(teacher), device=teacher.device), source.targets.tags.argmax(dim=1)].float()
    seen = covered(inside(source.targets.windows, (source.images.shape[-2], source.images.shape[-1])), size)
    low = own.masked_fill(~seen, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = own.masked_fill(~seen, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return seen & ((own - low) / (high - low).clamp_min(EPSILON) >= least)


def _stride(batch: Batch, size: tuple[int, int]) -> int:
    """Return the pixels per cell.

    Raises:
        ShapeError: They are no whole number, or not the same down and across.
    """
    height, width = batch.images.shape[-2:]
    stride = height // size[0]
    if (size[0] * stride, size[1] * stride) != (height, width):
        raise ShapeError(
            f"crops of {height} x {width} pixels have {size[0]} x {size[1]} cells: pastes cannot be shifted by whole "
            "cells; set localize.fit.crop to a multiple of the stride, or csd.shift=0"
        )
    return stride


def _shifted(values: Tensor, offsets: Tensor, fill: float) -> Tensor:
    """Move (P, ..., h, w) down and right by `offsets` (P, 2), each entry its own way; `fill` where nothing comes in."""
    if not offsets.any():
        return values
    result = torch.full_like(values, fill)
    height, width = values.shape[-2:]
    for one, moved, (dy, dx) in zip(values, result, offsets.tolist(), strict=True):
        rows, columns = max(0, height - abs(dy)), max(0, width - abs(dx))
        top, left = max(dy, 0), max(dx, 0)
        from_top, from_left = max(-dy, 0), max(-dx, 0)
        moved[..., top : top + rows, left : left + columns] = one[
            ..., from_top : from_top + rows, from_left : from_left + columns
        ]
    return result
