"""Boxes as square crops: what CFS learns from, and what it looks at."""

from __future__ import annotations

import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, one_hot

from hintseg.data.dataset import EpochDataset, Item
from hintseg.data.transforms import adjust_colours
from hintseg.errors import PhotoError, ShapeError
from hintseg.geometry.boxes import Window, pixel_window
from hintseg.geometry.boxes import expand_box as expand_box
from hintseg.lean import torchvision
from hintseg.types import IGNORE, Box, Photo

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

SMALLEST_PX = 50.0
"""Boxes with a shorter side are not learned from: the paper's number, for VOC."""

_CACHE_BYTES = 128 * 2**20
"""Decoded photos that each loader worker keeps: the boxes of a photo come at different times."""


def smallest_side(photos: Sequence[Photo]) -> float:
    """Return the shorter side, pixels, below which boxes are left out of training.

    It is the paper's 50, where at least half of the boxes have that, and else what keeps the larger half of them.

    Example:
        >>> from pathlib import Path
        >>> from hintseg.types import Hints, Mark
        >>> boxes = tuple(Mark(1, Box(0, 0, 90, side)) for side in (8, 20, 22, 60))
        >>> smallest_side([Photo("a", Path("a.jpg"), Hints(marks=boxes))])
        20
    """
    sides = [_short_side(mark.shape) for photo in photos for mark in photo.hints.objects]
    return min(SMALLEST_PX, statistics.median_low(sides)) if sides else SMALLEST_PX


def _short_side(box: Box) -> float:
    return min(box.x1 - box.x0, box.y1 - box.y0)


class CropDataset(EpochDataset):
    """Read the boxes of photos as square crops, one at a time.

    An item is one box with its surroundings: image (3, S, S), all of it photo; pixels (S, S) with 1 where its proposal
    is foreground and 0 elsewhere (Eq. 1); boxes (1, 5), its class and its place inside the crop, from which the method
    draws the box map (Eq. 2). Of the tags only its class is known. Crops are flipped at random, and their margins
    drawn. A box whose photo cannot be read is replaced by the next one that can.

    Args:
        photos: Photos with boxes; crowds are left out.
        classes: Number of foreground classes K.
        proposal: Returns the foreground of box `index` of ``photo.hints.objects``, bool, of the size of the box's
            `pixel_window`; None where there is none: the pixels are then 255 in the box, 0 around it.
        size: S, side of the crops, pixels.
        expand: Height and width grow by this share in total.
        scale: Each of the four margins is multiplied by a random number of this range: objects change size and place.
        jitter: Brightness, contrast and saturation are multiplied by random factors in 1 - jitter .. 1 + jitter.
        smallest_side: Boxes with a shorter side, pixels, are left out.
        worth: Says of box `index` of a photo whether to learn from it; where that leaves no box, all are learned from.
        per_epoch: Boxes of an epoch at most; the epochs take turns, so that all are seen equally often. None: all.
        seed: The run's seed.

    Raises:
        PhotoError: No box is left.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        classes: int,
        proposal: Callable[[Photo, int], Bools | None],
        *,
        size: int = 224,
        expand: float = 0.5,
        scale: tuple[float, float] = (0.5, 1.5),
        jitter: float = 0.0,
        smallest_side: float = 0.0,
        worth: Callable[[Photo, int], bool] = lambda photo, index: True,
        per_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(photos, seed)
        self.items = [
            (number, index)
            for number, photo in enumerate(self.photos)
            for index, mark in enumerate(photo.hints.objects)
            if _short_side(mark.shape) >= smallest_side
        ]
        self.items = [item for item in self.items if worth(self.photos[item[0]], item[1])] or self.items
        if not self.items:
            raise PhotoError(
                f"{len(self.photos)} photos have 0 boxes whose shorter side is at least {smallest_side:g} px; at "
                "least one is needed: check the split and its labels, or lower smallest_side"
            )
        self.classes, self.proposal, self.size, self.expand = classes, proposal, size, expand
        self.scale, self.jitter, self.per_epoch = scale, jitter, per_epoch
        self._order = np.random.default_rng(seed).permutation(len(self.items))
        self._kept: OrderedDict[int, Bytes] = OrderedDict()

    def __len__(self) -> int:
        return min(len(self.items), self.per_epoch or len(self.items))

    def __getitem__(self, index: int) -> Item:
        random = np.random.default_rng((self.seed, self.epoch, index))
        photo, box, rgb = self._next(int(self._order[(self.epoch * len(self) + index) % len(self.items)]))
        size = rgb.shape[:2]
        hint = photo.hints.objects[box]
        window = pixel_window(hint.shape.corners, size)
        left, top, right, bottom = random.uniform(*self.scale, size=4).tolist()
        frame = expand_box(window, size, self.expand, (left, top, right, bottom))
        flip = random.random() < 0.5
        colours = random.uniform(1 - self.jitter, 1 + self.jitter, size=3)

        image, inner = _crop(rgb, frame, self.size), _place(window, frame, self.size)
        mask = torch.from_numpy(_nearest(self._expanded(photo, box, window, frame), self.size))
        if self.jitter:
            image = adjust_colours(image, colours)
        if flip:
            image, mask = image.flip(-1), mask.flip(-1)
            inner = (self.size - inner[2], inner[1], self.size - inner[0], inner[3])
        tags = torch.zeros(self.classes)
        tags[hint.label - 1] = 1.0
        return Item(
            f"{photo.id}#{box}",
            image,
            tags,
            tags > 0,
            torch.tensor([0, 0, self.size, self.size]),
            mask,
            torch.tensor([[hint.label, *inner]], dtype=torch.float32),
        )

    def _expanded(self, photo: Photo, box: int, window: Window, frame: Window) -> Bytes:
        """Return M_exp of Eq. 1 at the frame's own size: the proposal in the box, 0 around it."""
        mask = np.zeros((frame[3] - frame[1], frame[2] - frame[0]), np.uint8)
        x0, y0, x1, y1 = (window[i] - frame[i % 2] for i in range(4))
        found = self.proposal(photo, box)
        if found is not None and found.shape != (y1 - y0, x1 - x0):
            raise ShapeError(
                f"the proposal of box {box} of photo {photo.id} is {found.shape[1]}x{found.shape[0]} pixels but the "
                f"box is {x1 - x0}x{y1 - y0}; make the proposal anew from the upright photo"
            )
        mask[y0:y1, x0:x1] = IGNORE if found is None else found
        return mask

    def _next(self, item: int) -> tuple[Photo, int, Bytes]:
        """Return the photo, the box's index and the pixels of an item, or of the next one whose photo can be read."""
        for step in range(len(self.items)):
            number, box = self.items[(item + step) % len(self.items)]
            rgb = self._kept.pop(number, None)
            if rgb is None:
                rgb = self.read(number)
            if rgb is not None:
                self._kept[number] = rgb  # at the end: the newest
                while sum(one.nbytes for one in self._kept.values()) > _CACHE_BYTES and len(self._kept) > 1:
                    self._kept.popitem(last=False)
                return self.photos[number], box, rgb
        raise self.none_left()


class Crops(NamedTuple):
    """Some boxes of one photo, as a network takes them.

    Attributes:
        images: (n, 3, S, S) float32 RGB in 0..1.
        boxes: (n, 4) int64 box inside each crop.
        frames: The part of the photo that each crop shows, pixels.
    """

    images: Tensor
    boxes: Tensor
    frames: list[Window]


def crops_of(
    rgb: Bytes, boxes: Sequence[Sequence[float]], size: int = 224, *, expand: float = 0.5, batch: int = 32
) -> Iterator[Crops]:
    """Cut the boxes of a photo out as square crops, `batch` at a time.

    Args:
        rgb: The photo, (H, W, 3) uint8.
        boxes: (x0, y0, x1, y1) each, pixels, right and bottom exclusive.
        size: S, side of the crops, pixels.
        expand: Height and width grow by this share in total.
        batch: Crops at once, at most.

    Yields:
        The crops, in the order of the boxes.
    """
    for begin in range(0, len(boxes), batch):
        windows = [pixel_window(box, rgb.shape[:2]) for box in boxes[begin : begin + batch]]
        frames = [expand_box(window, rgb.shape[:2], expand) for window in windows]
        images = torch.stack([_crop(rgb, frame, size) for frame in frames]).float() / 255
        places = torch.tensor([_place(window, frame, size) for window, frame in zip(windows, frames, strict=True)])
        yield Crops(images, places, frames)


class BoxMap(NamedTuple):
    """How probable each pixel around a box is to be its object.

    Attributes:
        frame: The part of the photo that the map covers, pixels.
        inner: The box inside that part, pixels.
        probability: (h, w) float32, 0..1, of the frame's size.
    """

    frame: Window
    inner: Window
    probability: Floats


@torch.inference_mode()
def foreground_of(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    rgb: Bytes,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    classes: int,
    *,
    size: int = 224,
    expand: float = 0.5,
    batch: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[BoxMap]:
    """Predict the foreground of every box of a photo.

    Args:
        predict: Maps images (n, 3, S, S) float32 in 0..1, one-hot classes (n, K) and boxes (n, 4) to probabilities
            (n, S, S), such as ``Cfs.foreground``.
        rgb: The photo, (H, W, 3) uint8.
        boxes: (x0, y0, x1, y1) each, pixels, right and bottom exclusive.
        labels: Class 1..K of each box.
        classes: K.
        size: S, side of the crops, pixels.
        expand: Height and width grow by this share in total.
        batch: Crops at once, at most.
        device: Where `predict` works.

    Yields:
        One map per box, in their order. Take them one by one: hundreds of boxes then need the memory of one batch.
    """
    done = 0
    for crops in crops_of(rgb, boxes, size, expand=expand, batch=batch):
        ids = torch.tensor(labels[done : done + len(crops.frames)])
        tags = one_hot(ids - 1, classes).float()
        maps = predict(*(values.to(device) for values in (crops.images, tags, crops.boxes))).float().cpu()
        for one, frame, box in zip(maps, crops.frames, boxes[done:], strict=False):
            x0, y0, x1, y1 = frame
            window = pixel_window(box, rgb.shape[:2])
            inner = (window[0] - x0, window[1] - y0, window[2] - x0, window[3] - y0)
            yield BoxMap(frame, inner, _resize_map(one, y1 - y0, x1 - x0))
        done += len(crops.frames)


def _crop(rgb: Bytes, frame: Window, size: int) -> Tensor:
    """Return the frame of a photo as (3, S, S) uint8."""
    x0, y0, x1, y1 = frame
    part = torch.from_numpy(np.ascontiguousarray(rgb[y0:y1, x0:x1])).permute(2, 0, 1)
    image: Tensor = torchvision.transforms.v2.functional.resize(part, [size, size], antialias=True)
    return image


def _resize_map(probability: Tensor, height: int, width: int) -> Floats:
    """Resize (S, S) to (height, width): the mean where it shrinks, bilinear where it grows.

    Not by torch's antialiasing, which reads one row only where the result is one pixel wide (seen with torch 2.15).
    """
    side = len(probability)
    shrunk = adaptive_avg_pool2d(probability[None, None], (min(side, height), min(side, width)))
    resized = interpolate(shrunk, (height, width), mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)
    return np.asarray(resized)


def _place(window: Window, frame: Window, size: int) -> Window:
    """Return where a box lies in the resized frame: the cells whose nearest pixel is inside the box."""
    x0, x1 = (_cell(window[i] - frame[0], frame[2] - frame[0], size) for i in (0, 2))
    y0, y1 = (_cell(window[i] - frame[1], frame[3] - frame[1], size) for i in (1, 3))
    return x0, y0, x1, y1


def _cell(edge: int, side: int, size: int) -> int:
    """Return the first of `size` cells whose nearest of `side` pixels is `edge` or beyond, in whole numbers."""
    return -(-(2 * edge * size - side) // (2 * side))


def _nearest(mask: Bytes, size: int) -> Bytes:
    """Resize a mask (h, w) to (S, S): each cell takes the pixel under its centre."""
    rows, columns = ((2 * np.arange(size) + 1) * side // (2 * size) for side in mask.shape)
    return mask[np.ix_(rows, columns)]
