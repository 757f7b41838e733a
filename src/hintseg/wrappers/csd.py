"""CSD: photos with one tag teach where things are in photos with several. It wraps the training of any localizer.

Yang, Ke, Hancke and Lau, "Cross-domain Semantic Decoupling for Weakly-Supervised Semantic Segmentation", BMVC 2023.

A photo with a single tag is easily mapped: there is nothing to mistake its object for. Such photos are the *source*,
photos with several tags the *target*. A localizer is first trained as it is, and its refined masks of the source photos
are kept (stage one). Then it is trained again, and at each step objects of source photos are pasted into target photos,
and their background into the targets' background: the class scores of what was pasted shall stay those that it had at
home. Classification learns from the ordinary photos only; pasted ones have no tag loss.

Which source photo a target gets is drawn by how often classes come together (`hintseg.data.sources`); the batch brings
it along as `Batch.source`. What a run needs around that is in `hintseg.wrappers.decoupling`.

What the paper leaves open, and the way taken here: pastes are hard-edged; a cell counts where its pixels were all
pasted. The localizer is not changed: what is saved after training is the plain localizer.

Three things are ours, `form=paper teacher=online` takes them back. The paper's losses compare raw scores and are sums,
so their weights mean something else with every network: `hintseg.wrappers.consistency` has forms without scale. Their
gradient is at most a share of that of the tags. And the teacher is the localizer of stage one: one that learns beside
its pupil is as wrong as it is in the first steps, and can agree with it by scoring nothing at all.
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
    """Settings of CSD, which wraps the training of the localizer.

    Where photos have no background class, there is no background to paste.

    Attributes:
        form: `scale_free`: scores in units of the source's largest, means over cells and pairs, and no loss pulls
            harder than `most`. `paper`: raw scores, and sums over a grid of 14 x 14 cells (on other grids scaled to
            it). On `voc12-animals` (MobileNetV2, GAP, 120 steps) seeds of photos of several tags were at 16.2 mIoU
            without CSD and 15.4 with the first (three seeds), at 16.6, 15.1 and, with the second and a teacher that is
            `online`, 5.3 in one of them.
        foreground: lambda_1, weight of the consistency of pasted objects; 0 leaves it out. The paper: 0.01.
        background: lambda_2, weight of the consistency of pasted background, in the scale-free form of its suppression;
            0 leaves it out. The paper has 0.1, and either one alone does harm there. In its form and with a classifier
            of few classes, whose scores go to tens, 0.1 ruined the maps (docs/notebook.md).
        most: Largest gradient of each of the two losses, as a share of that of the tags, in the last weights before the
            heads. The paper has no such limit.
        teacher: Who says what sources show at home: the localizer of stage one (`baseline`), or, as the paper's text
            may be read, the one that learns (`online`).
        dummy: M', the constant score beside the sum of all class scores. The paper does not say it; 0.1 is the
            authors' earlier code.
        reliable: A cell of an object counts where the score of its class, stretched to 0..1 over the source photo, is
            at least this. The paper speaks of reliable pseudo-labels and gives no number; 0.5 is the authors' earlier
            code; 0 counts every cell that the object's mask covers.
        shift: Largest shift of a paste, in cells of the class maps, up, down and sideways. 0 pastes in place.
        resample: Whether source photos are drawn by how often classes come together (the paper's resampling), or all
            alike (its row "copy-and-paste").
        crops: Share of the single-class crops of photos with several tags that are sources too: of each class those in
            which it leads the photo's other tags by most. The paper has none (0), and classes that are never alone
            then no source. 0.5 was no better than 0 on msrc and voc12-animals (frozen DeiT-Ti).
        diagonal: What a class counts with itself, see `hintseg.hints.cooccurrence.cooccurrence_prior`.
    """

    form: Literal["scale_free", "paper"] = "scale_free"
    foreground: Annotated[float, Field(ge=0)] = 1.0
    background: Annotated[float, Field(ge=0)] = 0.0
    most: Annotated[float, Field(gt=0)] = 0.3
    teacher: Literal["baseline", "online"] = "baseline"
    dummy: float = 0.1
    reliable: Annotated[float, Field(ge=0, le=1)] = 0.5
    shift: Annotated[int, Field(ge=0)] = 0
    resample: bool = True
    crops: Annotated[float, Field(ge=0, le=1)] = 0.0
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

    def __init__(self, localizer: Method, settings: CsdConfig, teacher: Method | None = None) -> None:
        """Wrap a localizer.

        Args:
            localizer: Any localizer with `raw_maps`.
            settings: Weights and how pastes are made.
            teacher: The trained localizer of stage one, which says what sources show at home, and learns nothing any
                more; None: the localizer itself.

        Raises:
            ConfigError: The localizer has no `raw_maps`.
        """
        super().__init__()
        check_wrappable(type(localizer), localizer.config.method)
        self.localizer, self.settings, self.config = localizer, settings, localizer.config
        # In a tuple it is no part of the module, so it is neither trained nor saved.
        self.teacher: tuple[Method, ...] = () if teacher is None else (teacher.eval(),)

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
        tags = torch.stack(list(losses.values())).sum()
        losses |= {name: batch.images.new_zeros(()) for name in ("loss_fg", "loss_bg")}
        judges: dict[str, Objective] = {}  # Eq. 6
        free = self.settings.form == "scale_free"
        if self.settings.foreground:
            judges["loss_fg"] = ObjectConsistency(weight=self.settings.foreground, scale_free=free)
        if self.settings.background:
            weight, dummy = self.settings.background, self.settings.dummy
            judges["loss_bg"] = BackgroundConsistency(weight=weight, dummy=dummy, scale_free=free)
        if not judges:
            return losses
        if batch.source is None:
            return losses | self._keep_pace(batch.images[:1], list(judges), tags)
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
        return losses | self._capped({name: losses[name] for name in judges}, tags)

    def _capped(self, losses: dict[str, Tensor], tags: Tensor) -> dict[str, Tensor]:
        """Scale down losses whose gradient is more than `most` times that of the tags, in the encoder's last weight."""
        if self.settings.form == "paper" or not tags.requires_grad:
            return losses
        last = _last_weight(self.localizer)
        allowed = self.settings.most * _pull(tags, last)
        pulls = {name: _pull(loss, last).clamp_min(1e-12) for name, loss in losses.items()}
        return {name: loss * (allowed / pulls[name]).clamp(max=1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Tensor:
        """Return the raw maps of source photos (P, 3, H, W), without gradient, dropout and dropped paths.

        Batch norm that learns goes by the batch, as it does for the student: with its running statistics the same
        object would score differently at home and away, and the losses would teach that difference.

        Called after the localizer's own losses: autocast keeps the first cast of a weight, and one made here would
        have no gradient.
        """
        if self.teacher:
            return self.teacher[0].to(images.device).raw_maps(images)
        norms = [p for p in self.localizer.modules() if isinstance(p, nn.modules.batchnorm._BatchNorm) and p.training]
        with frozen(self.localizer):
            for norm in norms:
                norm.train()
            return self.localizer.raw_maps(images)

    def _keep_pace(self, images: Tensor, wanted: list[str], tags: Tensor) -> dict[str, Tensor]:
        """Take the passes of a step with pairs, for losses of 0, where there are other processes.

        Batch norm that learns from the photos of all processes waits in every pass, forward and backward, for each.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return {}
        self._teach(images)
        nothing = 0.0 * self.localizer.raw_maps(images.repeat(len(wanted), 1, 1, 1)).mean()
        self._capped(dict.fromkeys(wanted, nothing), tags)
        return {wanted[0]: nothing}

    def _offsets(self, batch: Batch, pairs: int, progress: Progress) -> Tensor:
        """Draw the shifts (dy, dx) of `pairs` pastes, (P, 2) cells.

        Step and photos are the seed: a resumed run draws alike, another seed, process or part of a step does not.
        """
        random = torch.Generator().manual_seed(crc32(repr((progress.step, batch.ids)).encode()))
        most = self.settings.shift
        return torch.randint(-most, most + 1, (pairs, 2), generator=random)


def _last_weight(localizer: Method) -> Tensor:
    """Return the weights of the last layer that learns before the heads, or of the last one that learns."""
    groups = localizer.parameter_groups()
    inner_last = sorted(groups, key=lambda group: not group.head)
    weights: list[Tensor] = [p for g in inner_last for p in g.parameters if p.requires_grad and p.ndim > 1]
    return weights[-1]


def _pull(loss: Tensor, weight: Tensor) -> Tensor:
    """Return the norm of a loss's gradient in a weight; 0 where it does not depend on it."""
    if not loss.requires_grad:
        return loss.new_zeros(())
    found = torch.autograd.grad(loss, weight, retain_graph=True, allow_unused=True)[0]
    pull: Tensor = loss.new_zeros(()) if found is None else found.float().norm()
    return pull


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
