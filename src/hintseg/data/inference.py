"""Whole photos, batched by equal size, decoded ahead of the network."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from hintseg.data.photos import photo_size, read_photo
from hintseg.data.transforms import reduction
from hintseg.errors import PhotoError
from hintseg.lean import torchvision
from hintseg.types import Photo

logger = logging.getLogger("hintseg")


def read_batches(
    groups: Sequence[list[Photo]], *, longest: int | None = None, workers: int = 2
) -> Iterator[tuple[list[Photo], Tensor]]:
    """Read whole photos, group by group.

    Threads decode two batches ahead, so the network does not wait for the disk. Photos that cannot be read are
    reported through the logger ``hintseg`` and left out.

    Args:
        groups: Photos of one size each, as `size_groups` gives them.
        longest: Photos with a longer side, pixels, are reduced to it; None: as they are.
        workers: Decoding threads.

    Yields:
        The photos of a batch and their pixels, (B, 3, H, W) uint8 RGB; divide by 255 for a network.

    Cost:
        Memory of up to three decoded batches.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[tuple[list[Photo], Tensor] | None]] = deque()
        batches = iter(groups)
        try:
            for group in islice(batches, 2):
                waiting.append(pool.submit(_read_batch, group, longest))
            while waiting:
                ready = waiting.popleft().result()
                for group in islice(batches, 1):
                    waiting.append(pool.submit(_read_batch, group, longest))
                if ready is not None:
                    yield ready
        finally:  # the consumer may stop early
            for future in waiting:
                future.cancel()


def size_groups(photos: Sequence[Photo], batch_size: int) -> list[list[Photo]]:
    """Split photos into groups of equal upright size, at most `batch_size` each, sizes in order of first appearance.

    Only headers are read. Photos without a readable header are reported through the logger ``hintseg`` and left out.
    """
    by_size: dict[tuple[int, int], list[Photo]] = {}
    for photo in photos:
        try:
            by_size.setdefault(photo_size(photo.path), []).append(photo)
        except PhotoError as error:
            logger.warning("photo skipped: %s", error)
    return [group[i : i + batch_size] for group in by_size.values() for i in range(0, len(group), batch_size)]


def _read_batch(photos: list[Photo], longest: int | None) -> tuple[list[Photo], Tensor] | None:
    readable, images = [], []
    for photo in photos:
        try:
            image = torch.from_numpy(read_photo(photo.path)).permute(2, 0, 1)
            factor = reduction(image.shape[1:], longest)
            if factor < 1:
                size = [max(1, round(side * factor)) for side in image.shape[1:]]
                image = torchvision.transforms.v2.functional.resize(image, size, antialias=True)
            images.append(image)
            readable.append(photo)
        except PhotoError as error:
            logger.warning("photo skipped: %s", error)
    return (readable, torch.stack(images)) if images else None
