"""The values that walk through the house: hints, photos, batches, targets, predictions, progress.

Axes: B images; K foreground classes; C = K + 1 with background first; H, W image pixels; h, w feature cells.
Masks are uint8 with 0 background, 1..K classes and 255 ignore. Coordinates are pixels (x, y) with the origin at the
top-left corner of the top-left pixel; boxes are (x0, y0, x1, y1) with right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BACKGROUND = 0
"""Mask value of pixels that belong to no class."""

IGNORE = 255
"""Mask value of pixels nothing is known about; never counted, never learned from."""


class Supervision(StrEnum):
    """A kind of hint: what a label file carries, and what a method learns from."""

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
    """A rectangle, pixels; right and bottom are exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1), pixels, right and bottom exclusive."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line drawn over pixels.

    Attributes:
        points: Its vertices as ``(x, y, x, y, ...)``, pixels; at least one.
        width: How wide the pen is, pixels, >= 1.
    """

    points: tuple[float, ...]
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Click:
    """One point (x, y), pixels."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Region:
    """Some pixels, as outlines or as run lengths; not necessarily all pixels of the object.

    Attributes:
        polygons: Outlines as flat ``(x, y, x, y, ...)`` rings, each filled by the even-odd rule.
        rle: Run lengths of the whole photo, in place of polygons.
    """

    polygons: tuple[tuple[float, ...], ...] = ()
    rle: Rle | None = None


Shape = Box | Stroke | Click | Region
S = TypeVar("S", bound=Shape)
S_co = TypeVar("S_co", bound=Shape, covariant=True)


@dataclass(frozen=True, slots=True)
class Mark(Generic[S_co]):
    """One statement of a person, a file or a model about some pixels.

    Attributes:
        label: 1..K; 0: "this is background"; 255: "nothing can be learned here", such as a crowd.
        shape: Where.
        object: Number of the object in its photo, counted from 1; marks of one object share it. None: not said.
        source: Who says so: ``person``, ``file`` or ``model:NAME``.
        trust: How far to believe it, 0..1.
    """

    label: int
    shape: S_co
    object: int | None = None
    source: str = "file"
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Tags(Collection[int]):
    """What is said about the classes of a whole photo. As a collection it holds the classes that are present.

    It is false where none is present, also where that was said: ask `is None` for photos nothing is said about.

    Attributes:
        present: Class ids 1..K that are in the photo.
        said: Class ids that anything is said about: the present ones, and those that are absent. Most photos share one
            such set: of many classes and photos, sets of the absent ones would fill the memory.

    Example:
        >>> tags = Tags.complete({2}, classes=3)
        >>> sorted(tags), sorted(tags.absent), 2 in tags
        ([2], [1, 3], True)
        >>> tags == Tags(frozenset({2}), frozenset({1, 3}))
        True
    """

    present: frozenset[int] = frozenset()
    said: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", _shared(self.said if self.present <= self.said else self.said | self.present))

    @classmethod
    def complete(cls, present: Iterable[int], classes: int) -> Tags:
        """Say of all `classes` classes whether they are present."""
        return cls(frozenset(present), _numbers(classes))

    @property
    def absent(self) -> frozenset[int]:
        """Class ids that are not in the photo."""
        return self.said - self.present

    def __iter__(self) -> Iterator[int]:
        return iter(self.present)

    def __len__(self) -> int:
        return len(self.present)

    def __contains__(self, label: object) -> bool:
        return label in self.present


@lru_cache
def _shared(labels: frozenset[int]) -> frozenset[int]:
    """Return one set for all that hold the same."""
    return labels


@lru_cache
def _numbers(classes: int) -> frozenset[int]:
    return frozenset(range(1, classes + 1))


@dataclass(frozen=True, slots=True)
class MaskFile:
    """An index image on disk; it is decoded when it is asked for.

    Attributes:
        path: A PNG, TIFF, BMP or GIF whose pixel values are class ids, or colours of `colours`.
        unlabelled: The value that means "nothing known here", besides 255; None if there is none.
        ids: Class id of each value 1..n of the image, where the image counts the classes otherwise; empty: as they are.
        shows: Class ids that occur in it; None where nobody looked.
        colours: Class id (0..K, or 255) of each colour (red, green, blue); empty: values are class ids.
        orientation: EXIF's number, 1..8, of how it is to be turned, where it was drawn on a photo as that is stored.
    """

    path: Path
    unlabelled: int | None = None
    ids: tuple[int, ...] = ()
    shows: frozenset[int] | None = None
    colours: tuple[tuple[tuple[int, int, int], int], ...] = ()
    orientation: int = 1


FullMask = MaskFile | tuple[Mark[Shape], ...]
"""What every pixel of a photo is: an index image, or the outlines of all its objects (none: all is background)."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a person said about one photo, to learn from.

    Attributes:
        tags: Its classes. None: not said.
        marks: Boxes, points, strokes and regions, in the order of the file.
        scribbles: Strokes as an index image, on an otherwise unlabelled photo.
        mask: A full mask that may be learned from; see `data.learn_masks`.
    """

    tags: Tags | None = None
    marks: tuple[Mark[Shape], ...] = ()
    scribbles: MaskFile | None = None
    mask: FullMask | None = None

    def shaped(self, kind: type[S]) -> tuple[Mark[S], ...]:
        """Return the marks of one shape.

        Example:
            >>> hints = Hints(marks=(Mark(1, Box(0, 0, 4, 4), object=1), Mark(2, Click(3, 3))))
            >>> [mark.label for mark in hints.shaped(Click)]
            [2]
        """
        return tuple(mark for mark in self.marks if isinstance(mark.shape, kind))  # type: ignore[misc]

    @property
    def kinds(self) -> frozenset[Supervision]:
        """The kinds of hints that are given.

        Example:
            >>> sorted(Hints(Tags(), marks=(Mark(2, Click(3, 3)),)).kinds)
            [<Supervision.POINTS: 'points'>, <Supervision.TAGS: 'tags'>]
        """
        given = {
            Supervision.TAGS: self.tags is not None,
            Supervision.BOXES: bool(self.shaped(Box)),
            Supervision.SCRIBBLES: self.scribbles is not None or bool(self.shaped(Stroke)),
            Supervision.POINTS: bool(self.shaped(Click)),
            Supervision.MASKS: self.mask is not None,
        }
        return frozenset(kind for kind, there in given.items() if there)

    @property
    def objects(self) -> tuple[Mark[Box], ...]:
        """The boxes of single objects: neither crowds nor boxes of background."""
        return tuple(mark for mark in self.shaped(Box) if BACKGROUND < mark.label < IGNORE)


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo.

    Attributes:
        id: Unique: its path below the photo folder without suffix, ``/`` kept.
        path: Its file.
        hints: What a person said about it.
        truth: Its full mask, which judges. It teaches only where `data.learn_masks` says so.
    """

    id: str
    path: Path
    hints: Hints = field(default_factory=Hints)
    truth: FullMask | None = None


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
        closed: Whether a photo with marks has a mark of each of its classes: then those without are absent.
    """

    name: str
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    background: bool = True
    notes: tuple[str, ...] = ()
    closed: bool = True

    @property
    def training(self) -> frozenset[str]:
        """Ids of the photos that teach if nobody says which: ``train``; without it all but ``val`` and ``test``.

        Where those are all there are, all teach.
        """
        if "train" in self.splits:
            return frozenset(self.splits["train"])
        everything = frozenset(photo.id for photo in self.photos)
        return everything.difference(*(self.splits.get(name, ()) for name in ("val", "test"))) or everything


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
        taught: (B, C, h, w) float32, logits of a teacher, C = K + 1 with background first, without a gradient; very low
            for classes known to be absent. None: there is no teacher. See `hintseg.methods.taught`.
        views: So many images at the end are strong views of others: all that is known of them is what is `taught`.
    """

    tags: Tensor
    tags_known: Tensor
    windows: Tensor
    pixels: Tensor | None = None
    trust: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    taught: Tensor | None = None
    views: int = 0

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
            None if self.taught is None else moved(self.taught),
            self.views,
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
class Features:
    """What a frozen encoder gave of images: it stands in for them where nothing but that encoder would look at them.

    An encoder that is given features returns their levels. Whatever else needs pixels fails on them.

    Attributes:
        levels: (B, c, h, w) float32 each, the finest first; behind them what else that encoder keeps.
        size: (H, W) of the images, pixels.
        mirrored: Levels of the mirrored images, where they are at hand.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, int]
    mirrored: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, 3, H, W) of the images."""
        return len(self.levels[0]), 3, *self.size

    @property
    def device(self) -> torch.device:
        """Where the levels are."""
        return self.levels[0].device

    def flip(self, _dim: int) -> Features:
        """Return what the encoder gave of the mirrored images."""
        return Features(self.mirrored, self.size, self.levels)

    def to(self, device: object) -> Features:
        """Return the features with every tensor on `device`."""
        levels, mirrored = (
            tuple(level.to(device) for level in levels)  # type: ignore[call-overload]
            for levels in (self.levels, self.mirrored)
        )
        return Features(levels, self.size, mirrored)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a method sees of the data.

    Attributes:
        ids: Photo ids, length B.
        images: (B, 3, H, W) float32 RGB in 0..1; backbones normalise by their own mean and std. For a method that
            `reads_features` of a frozen encoder, those may stand in for them: `Features`.
        targets: What is known about them.
        source: One photo known to have a single tag for each photo of this batch that has two or more, in their order,
            with pixels. None where no photo is paired.
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
