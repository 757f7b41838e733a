"""The values that walk through the house: hints, photos, batches, targets, predictions, progress.

Axes: B images; K foreground classes; C = K + 1 with background first; H, W image pixels; h, w feature cells.
Masks are uint8 with 0 background, 1..K classes and 255 ignore. Coordinates are pixels (x, y) with the origin at the
top-left corner of the top-left pixel; boxes are (x0, y0, x1, y1) with right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

BACKGROUND = 0
"""Mask value of pixels that belong to no class."""

IGNORE = 255
"""Mask value of pixels nothing is known about; never counted, never learned from."""


class Supervision(StrEnum):
    """What kind of hint a method learns from."""

    TAGS = "tags"
    BOXES = "boxes"
    SCRIBBLES = "scribbles"
    POINTS = "points"
    MASKS = "masks"


@dataclass(frozen=True, slots=True)
class Rle:
    """A COCO run-length mask: column-major runs, the first of zeros.

    Attributes:
        height: Rows of the mask, pixels.
        width: Columns of the mask, pixels.
        counts: Run lengths that sum to ``height * width``.
    """

    height: int
    width: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """One object: its class and box, and its outline where the label file has one.

    Attributes:
        label: Class id, 1..K.
        x0: Left edge, pixels.
        y0: Top edge, pixels.
        x1: Right edge, pixels, exclusive.
        y1: Bottom edge, pixels, exclusive.
        polygons: Outlines as flat ``(x, y, x, y, ...)`` rings; empty where unknown.
        rle: The object's mask; None where unknown.
        crowd: Whether the region stands for many objects; such regions are ignored, not learned.
    """

    label: int
    x0: float
    y0: float
    x1: float
    y1: float
    polygons: tuple[tuple[float, ...], ...] = ()
    rle: Rle | None = None
    crowd: bool = False

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1), pixels, right and bottom exclusive."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True, slots=True)
class Point:
    """One click: class id 1..K (0 = background) at pixel coordinates (x, y)."""

    label: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class MaskFile:
    """An index image on disk.

    Attributes:
        path: A PNG whose pixel values are class ids.
        unlabelled: The value that means "nothing known here", besides 255; None if there is none.
    """

    path: Path
    unlabelled: int | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """All that is known about one photo. None means "not said"; an empty collection means "said: there is none".

    Attributes:
        tags: Class ids 1..K present in the photo. Empty: a true negative.
        boxes: Objects with boxes (and outlines, where the format has them).
        points: Clicks.
        scribbles: Strokes on an otherwise unlabelled image.
        mask: A full mask. It is truth: used for evaluation, and for training only by methods that ask for masks.
    """

    tags: frozenset[int] | None = None
    boxes: tuple[Box, ...] | None = None
    points: tuple[Point, ...] | None = None
    scribbles: MaskFile | None = None
    mask: MaskFile | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo: a unique id (its path below the photo folder without suffix, ``/`` kept), its file and its hints."""

    id: str
    path: Path
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True, slots=True)
class HintSet:
    """A labelled folder, whatever format it came in.

    Attributes:
        name: The data set's name, for titles.
        classes: Names of the K foreground classes; class id k is ``classes[k - 1]``.
        photos: The photos, sorted by id.
        splits: Named lists of photo ids, such as ``train`` and ``val``; empty where the format has none.
        background: Whether pixels may belong to no class.
        notes: What the reader mapped or skipped, one sentence each, for people.
    """

    name: str
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    background: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known about the photos of a batch: all that may be learned from, and what was not said as such.

    Attributes:
        tags: (B, K) float32, 1 where the class is known to be present, 0 where it is not, or not known to be.
        tags_known: (B, K) bool, whether it was said of the class that it is present or absent.
        windows: (B, 4) int64 boxes (x0, y0, x1, y1) of what is photo in each image, the rest being padding.
        pixels: (B, H, W) uint8: 0 background, 1..K, 255 not said (padding included); None where the data set reads no
            labels of pixels. For `cfs` 1 is the object of the crop's box.
        trust: (B, H, W) float32, 0..1, how far to trust `pixels`; None: wholly.
        boxes: For each photo its boxes, (n, 5) float32: label 1..K, x0, y0, x1, y1 in pixels of the image; None where
            the data set reads no boxes.
    """

    tags: Tensor
    tags_known: Tensor
    windows: Tensor
    pixels: Tensor | None = None
    trust: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None

    @property
    def possible(self) -> Tensor:
        """(B, K) bool, the classes that may be in each photo: those known to be present, and those not known."""
        return (self.tags > 0) | ~self.tags_known

    @property
    def kinds(self) -> frozenset[Supervision]:
        """What kinds of hints these targets can hold. Labels of pixels may come from masks, strokes or clicks."""
        pixels = {Supervision.MASKS, Supervision.SCRIBBLES, Supervision.POINTS} if self.pixels is not None else set()
        boxes = {Supervision.BOXES} if self.boxes is not None else set()
        return frozenset({Supervision.TAGS} | pixels | boxes)

    def to(self, device: object) -> Targets:
        """Return the targets with every tensor on `device`."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device)  # type: ignore[call-overload, no-any-return]

        return Targets(
            moved(self.tags),
            moved(self.tags_known),
            moved(self.windows),
            None if self.pixels is None else moved(self.pixels),
            None if self.trust is None else moved(self.trust),
            None if self.boxes is None else tuple(moved(boxes) for boxes in self.boxes),
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a segmenter says of images in training. It has no loss of its own: objectives judge it.

    Attributes:
        logits: (B, C, h, w), C = K + 1 with background first; None where the pass had no such branch.
        levels: Feature levels they were read from, (B, c, h_i, w_i) each, the finest first.
        others: More logits of the same photos, such as those of other training scales; losses of logits count each.
        own: What only the objectives of this segmenter's paper read, by name.
    """

    logits: Tensor | None
    levels: Sequence[Tensor] = ()
    others: tuple[Tensor, ...] = ()
    own: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a method sees of the data.

    Attributes:
        ids: Photo ids, length B.
        images: (B, 3, H, W) float32 RGB in 0..1; backbones normalise by their own mean and std.
        targets: What is known about them.
        source: For methods that pair photos (CSD): one photo known to have a single tag for each photo of this batch
            that has two or more, in their order, with pixels. None where no photo is paired.
    """

    ids: list[str]
    images: Tensor
    targets: Targets
    source: Batch | None = None

    def to(self, device: object) -> Batch:
        """Return the batch with every tensor on `device`."""
        return Batch(
            self.ids,
            self.images.to(device),  # type: ignore[call-overload]
            self.targets.to(device),
            None if self.source is None else self.source.to(device),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: optimiser step `step` of `steps`, counted from 0."""

    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the training done, 0..1."""
        return self.step / max(self.steps, 1)


@dataclass(slots=True)
class ParameterGroup:
    """Parameters that share a learning-rate factor and weight decay.

    Attributes:
        parameters: The parameters; those that need no gradient are left out by the optimiser's builder.
        lr_factor: Multiplies the configured learning rate.
        head: Whether they start from random numbers beside a backbone: then `fit.head_lr` multiplies the rate too.
        weight_decay: Replaces the configured weight decay where given.
    """

    parameters: list[nn.Parameter]
    lr_factor: float = 1.0
    head: bool = False
    weight_decay: float | None = None
