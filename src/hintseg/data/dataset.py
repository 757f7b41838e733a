"""Photos and hints as training batches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from hintseg.data.photos import read_photo
from hintseg.data.sources import SourcePool
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import PhotoError, ShapeError
from hintseg.geometry.boxes import Window
from hintseg.hints.implied import tag_rows
from hintseg.signals import leave_to_parent
from hintseg.types import IGNORE, Batch, Features, Photo, Targets

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

logger = logging.getLogger("hintseg")

START: Literal["fork", "spawn"] = "fork" if sys.platform == "linux" else "spawn"
"""How loader workers start: forking is quicker, and safe on Linux alone."""

TRIES = 20
"""Sources drawn for a photo until one can be read."""


class Item(NamedTuple):
    """One transformed photo.

    Attributes:
        id: The photo's id.
        image: (3, crop, crop) uint8 RGB; or `Features` of one image that stand in for it, as in a `Batch`.
        tags: (K,) float32, 1 where the class is known to be present.
        tags_known: (K,) bool, whether it is known of the class.
        window: (4,) int64 box of the photo inside the crop.
        pixels: (crop, crop) uint8 labels, 255 not said, or None.
        boxes: (n, 5) float32 label and box inside the crop, or None.
        source: The photo with a single tag that it is paired with, if any.
        trust: (crop, crop) uint8, how far to trust `pixels`, 255 = wholly; None where trust is not read.
    """

    id: str
    image: Tensor
    tags: Tensor
    tags_known: Tensor
    window: Tensor
    pixels: Tensor | None = None
    boxes: Tensor | None = None
    source: Item | None = None
    trust: Tensor | None = None


class EpochDataset(Dataset[Item]):
    """What all training sets share: the epoch, on which chance depends, and photos that cannot be read.

    Chance depends on the seed, the epoch and the item's index only, so a run sees the same views whatever the number
    of loader workers, and a resumed run the same as an unbroken one. A photo that cannot be read is reported once
    through the logger ``hintseg``, listed in `skipped`, and replaced by another.

    Args:
        photos: The photos to learn from.
        seed: The run's seed.
    """

    def __init__(self, photos: Sequence[Photo], seed: int) -> None:
        self.photos = tuple(photos)
        self.seed = seed
        # Shared memory: persistent workers see the main process set the epoch, and it sees which photos they skipped.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._broken = torch.zeros(len(self.photos), dtype=torch.bool)
        for shared in (self._epoch, self._broken):
            shared.share_memory_()

    def __getstate__(self) -> tuple[dict[str, Tensor], bytes]:
        """Return what a worker that was not forked is sent: shared memory, and all else by value.

        Label readers are often closures, which pickle does not know.
        """
        import cloudpickle

        shared = {"_epoch": self._epoch, "_broken": self._broken}
        return shared, cloudpickle.dumps({name: value for name, value in vars(self).items() if name not in shared})

    def __setstate__(self, state: tuple[dict[str, Tensor], bytes]) -> None:
        """Become what `__getstate__` says."""
        import cloudpickle

        shared, others = state
        vars(self).update(shared | cast(dict[str, Any], cloudpickle.loads(others)))

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """The epoch the next views are drawn for, counted from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw new views: those of `epoch`. Call it between epochs, and before the first batch of a resumed run."""
        self._epoch.fill_(epoch)

    @property
    def skipped(self) -> list[str]:
        """Ids of the photos found unreadable so far, by any worker."""
        return [self.photos[int(i)].id for i in self._broken.nonzero().flatten()]

    def skip(self, ids: Collection[str]) -> None:
        """Count photos as unreadable that an earlier part of the run found so."""
        for place, photo in enumerate(self.photos):
            if photo.id in ids:
                self._broken[place] = True

    def read(self, index: int) -> Bytes | None:
        """Return photo `index`, (H, W, 3) uint8, or None if it cannot be read."""
        if self._broken[index]:
            return None
        try:
            return read_photo(self.photos[index].path)
        except PhotoError as error:
            self._broken[index] = True
            logger.warning("photo skipped: %s", error)
            return None

    def none_left(self) -> PhotoError:
        """Return the error to raise when no photo can be read."""
        return PhotoError(f"none of the {len(self.photos)} photos can be read; the first is {self.photos[0].path}")


class PhotoDataset(EpochDataset):
    """Read, label and transform photos, one at a time; for one that cannot be read the next one stands in.

    Args:
        photos: The photos to learn from, at least one.
        classes: Number of foreground classes K.
        transform: What is done to each photo and mask.
        masks: Returns a photo's labels (H, W) uint8 of the photo's upright size, or None where it has none (the
            photo then counts as unlabelled: all 255). Leave it out for methods that learn without masks. A class all of
            whose labels and boxes a crop leaves out is not known there, unless photos are paired.
        trust: Returns how far to trust each label, (H, W) float32 in 0..1, or None: wholly. Leave it out where losses
            weigh all labels alike.
        sources: Draws a source, one of `photos` or a part of one, for each photo with two or more tags; it is labelled
            and transformed likewise, by chance of its own. Leave it out for methods that pair no photos.
        boxes: Whether the boxes of objects are read.
        seed: The run's seed.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        classes: int,
        transform: TrainingTransform,
        masks: Callable[[Photo], Bytes | None] | None = None,
        *,
        trust: Callable[[Photo], Floats | None] | None = None,
        sources: SourcePool | None = None,
        boxes: bool = False,
        seed: int = 0,
    ) -> None:
        if not photos:
            raise PhotoError("0 photos given, at least one is needed; check the split and that its photos have hints")
        super().__init__(photos, seed)
        self.classes = classes
        self.transform = transform
        self.masks = masks
        self.trust = trust
        self.sources = sources
        self.boxes = boxes
        self._places = {photo.id: place for place, photo in enumerate(photos)} if sources else {}

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Item:
        random = np.random.default_rng((self.seed, self.epoch, index))
        photo, rgb = self._next(index)
        item = self._item(photo, rgb, random)
        tags: Collection[int] = photo.hints.tags or ()
        if self.sources is None or len(tags) < 2:
            return item
        # Drawn after the photo's own view, which is thus the same with and without sources.
        return item._replace(source=self._source(self.sources, tags, random))

    def _source(self, pool: SourcePool, tags: Collection[int], random: np.random.Generator) -> Item:
        for _ in range(TRIES):
            source = pool.draw(tags, random)
            rgb = self.read(self._places[source.photo.id])
            if rgb is not None:
                return self._item(source.photo, rgb, random, source.window)
        path = source.photo.path
        raise PhotoError(f"{TRIES} photos with a single tag were drawn and none can be read; the last is {path}")

    def _item(self, photo: Photo, rgb: Bytes, random: np.random.Generator, window: Window | None = None) -> Item:
        size = rgb.shape[:2]
        x0, y0, x1, y1 = window or (0, 0, size[1], size[0])
        labels, trust = (
            None if one is None else one[y0:y1, x0:x1] for one in (self._labels(photo, size), self._trust(photo, size))
        )
        view = self.transform(rgb[y0:y1, x0:x1], labels, random, trust)
        boxes = view.place.boxes(photo.hints, size) if self.boxes else None
        tags = self._tags(photo, labels, view.mask, boxes)
        return Item(photo.id, view.image, *tags, view.window, view.mask, boxes, trust=view.trust)

    def _tags(
        self, photo: Photo, labels: Bytes | None, shown: Tensor | None, boxes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the tags of a crop and which are known: a class that is elsewhere in the photo may be here or not."""
        values, known = (torch.from_numpy(rows[0]) for rows in tag_rows([photo.hints], self.classes))
        if self.sources is None:
            elsewhere, here = set(np.unique(labels)) if labels is not None else set(), set()
            if shown is not None:
                here |= set(shown.unique().tolist())
            if boxes is not None:
                elsewhere |= {mark.label for mark in photo.hints.objects}
                here |= set(boxes[:, 0].int().tolist())
            for label in (elsewhere - here) & set(range(1, self.classes + 1)):
                values[label - 1], known[label - 1] = 0.0, False
        return values, known

    def _next(self, index: int) -> tuple[Photo, Bytes]:
        for step in range(len(self.photos)):
            i = (index + step) % len(self.photos)
            rgb = self.read(i)
            if rgb is not None:
                return self.photos[i], rgb
        raise self.none_left()

    def _labels(self, photo: Photo, size: tuple[int, ...]) -> Bytes | None:
        if self.masks is None:
            return None
        mask = self.masks(photo)
        if mask is None:
            return np.full(size, IGNORE, np.uint8)
        if mask.shape != size:
            raise ShapeError(
                f"the mask of photo {photo.id} is {mask.shape[1]}x{mask.shape[0]} pixels but the photo {photo.path} is "
                f"{size[1]}x{size[0]}; make the mask anew from the upright photo"
            )
        return mask

    def _trust(self, photo: Photo, size: tuple[int, ...]) -> Bytes | None:
        if self.trust is None:
            return None
        trust = self.trust(photo)
        if trust is None:
            return np.full(size, 255, np.uint8)
        if trust.shape != size:
            raise ShapeError(f"the trust of photo {photo.id} is {trust.shape} pixels but the photo is {size}")
        return (trust * 255).round().astype(np.uint8)


def collate(items: Sequence[Item]) -> Batch:
    """Stack items of one size into a batch; images become float32 in 0..1, features float32."""
    pixels = [item.pixels for item in items if item.pixels is not None]
    trust = [item.trust for item in items if item.trust is not None]
    boxes = tuple(item.boxes for item in items if item.boxes is not None)
    sources = [item.source for item in items if item.source is not None]
    return Batch(
        ids=[item.id for item in items],
        images=_stack([item.image for item in items]),
        targets=Targets(
            tags=torch.stack([item.tags for item in items]),
            tags_known=torch.stack([item.tags_known for item in items]),
            windows=torch.stack([item.window for item in items]),
            pixels=torch.stack(pixels) if pixels else None,
            trust=torch.stack(trust).float() / 255 if trust else None,
            boxes=boxes or None,
        ),
        source=collate(sources) if sources else None,
    )


def _stack(images: Sequence[Tensor | Features]) -> Tensor:
    """Stack images, or features that stand in for them."""
    kept = [image for image in images if isinstance(image, Features)]
    if kept:
        levels = zip(*(one.levels for one in kept), strict=True)
        return cast(Tensor, Features(tuple(torch.cat(level).float() for level in levels), kept[0].size))
    return torch.stack([image for image in images if isinstance(image, Tensor)]).float() / 255


class EpochSampler(Sampler[int]):
    """Shuffle by seed and epoch, deal the photos out to the processes, and leave out a last batch that is not full.

    It asks for the process group late, so a loader may be built before there is one, and it shares its epoch with the
    data set.
    """

    def __init__(self, dataset: EpochDataset, batch_size: int) -> None:
        self.dataset: EpochDataset = dataset
        self.batch_size = batch_size
        self.done = 0

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Shuffle, and draw the data set's views, for `epoch`; its first `done` batches are left out."""
        self.dataset.set_epoch(epoch)
        self.done = done

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.dataset.seed, self.dataset.epoch)).permutation(len(self.dataset))
        rank, processes = _place()
        # Every process must take as many steps as the others: the first photos fill the last gaps.
        dealt = np.resize(order, processes * self._share())[rank::processes]
        return iter(dealt[self.done * self.batch_size : len(self)].tolist())

    def __len__(self) -> int:
        share = self._share()
        return share if share < self.batch_size else share - share % self.batch_size

    def _share(self) -> int:
        return -(-len(self.dataset) // _place()[1])


def _place() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def train_loader(dataset: EpochDataset, *, batch_size: int, workers: int = 0) -> DataLoader[Item]:
    """Build the loader of shuffled training batches.

    The same seed gives the same batches whatever `workers` is. A last batch that is not full is left out, unless it
    is the only one.

    Args:
        dataset: The photos, or the boxes; its seed also shuffles them.
        batch_size: Items per batch and process.
        workers: Loader processes, started as `START` says; 0 reads in the training process.

    Returns:
        A loader of `Batch`.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, batch_size),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        worker_init_fn=leave_to_parent,
        multiprocessing_context=START if workers else None,
        # Its own generator: starting workers then draws nothing from the stream the network's dropout uses.
        generator=torch.Generator().manual_seed(dataset.seed),
    )
