"""The loop that every look at whole photos goes through, with a network or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar
from typing import cast as cast_to

from hintseg.config.run import RunConfig
from hintseg.store.pool import WAITING, write_pool
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Features, Photo

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# What needs torch imports it when called: masks are written without it.

T = TypeVar("T")

BATCH = 8
"""Photos of equal size that inference takes at once."""

Make = Callable[[list[Photo], "Tensor"], Iterable[T]]
"""From photos of one size and their pixels, (B, 3, H, W) uint8 on the device, to something of each of them."""

Reader = Callable[[Sequence[Photo]], tuple[list[Photo], Features] | None]
"""From photos of one size to those of them that could be read, and features that stand in for their pixels."""


def each_photo(
    task: str,
    photos: Sequence[Photo],
    make: Make[T],
    write: Callable[[Photo, T], object],
    config: RunConfig,
    watch: Watch,
    *,
    network: nn.Module | None = None,
    done: Callable[[Photo], bool] = lambda _: False,
    batch: int = BATCH,
    whole: bool = False,
    heavy: bool = False,
    kept: Reader | None = None,
) -> int:
    """Make something of each photo of this process's share, and write it on threads meanwhile.

    Batches of equal size are formed over all photos, dealt out to the processes, and made whole where one of their
    photos is not done: networks round differently in batches of another size, and so no bit depends on what is left to
    do. All processes must call it; they have met again when it returns. Photos that cannot be read are reported and
    left out.

    Args:
        task: What people read while it goes on.
        photos: All of them, those that are done too.
        make: What is done to a batch, without gradient and, with a network, at the precision of training.
        write: Called on a thread with each photo and what was made of it.
        config: The run's settings.
        watch: Told about the progress.
        network: What `make` runs: it is on the device and in evaluation mode meanwhile, on the CPU afterwards.
        done: Whether a photo's part is there already.
        batch: Photos at once; 1 where `make` takes one photo.
        whole: Whether photos are read at their own size, whatever `data.longest` says.
        kept: Reads features that stand in for the pixels of a batch; no photo is decoded then.
        heavy: Whether `write` is the larger part of the work: it then has all cores, and holds few photos at a time.

    Returns:
        How many photos this process made.
    """
    from hintseg.data.inference import size_groups

    writers, waiting = (machine.cores(), machine.cores()) if heavy else (2, WAITING)
    groups = [group for group in machine.share(size_groups(photos, batch)) if not all(map(done, group))]
    longest, count = None if whole else config.data.longest_side, 0
    watch.start(task, sum(map(len, groups)))
    with machine.at_work(network, config.trainer) as device, write_pool(writers, waiting) as write_behind:
        for photo, made in looked(groups, make, device, config, cast=network is not None, longest=longest, kept=kept):
            write_behind(write, photo, made)
            watch.advance()
            count += 1
    watch.stop()
    machine.barrier()
    return count


def looked(
    groups: Sequence[list[Photo]],
    make: Make[T],
    device: torch.device,
    config: RunConfig,
    *,
    cast: bool,
    longest: int | None,
    kept: Reader | None = None,
) -> Iterator[tuple[Photo, T]]:
    """Yield each photo of the groups and what `make` makes of it; see `each_photo`.

    Args:
        groups: Photos of one size each.
        make: What is done to a batch.
        device: Where.
        config: The run's settings.
        cast: Whether it is done at the precision of training.
        longest: Photos with a longer side, pixels, are reduced to it when read.
        kept: See `each_photo`.
    """
    import torch

    from hintseg.data.inference import read_batches

    found = None if kept is None else (pair for group in groups if (pair := kept(group)) is not None)
    for group, pixels in read_batches(groups, longest=longest) if found is None else found:
        with torch.inference_mode(), machine.autocast(config.trainer, enabled=cast):
            made = list(make(group, cast_to("Tensor", pixels.to(device))))
        yield from zip(group, made, strict=True)


def on_threads(
    task: str,
    photos: Sequence[Photo],
    work: Callable[[Photo], object],
    watch: Watch,
    *,
    done: Callable[[Photo], bool] = lambda _: False,
    threads: int = 2,
) -> None:
    """Do `work`, which needs no network, to each photo of this process's share that is not done, on threads.

    All processes must call it; they have met again when it returns.
    """
    left = [photo for photo in machine.share(photos) if not done(photo)]
    with write_pool(threads) as start:
        for photo in watch.each(task, left, len(left)):
            start(work, photo)
    machine.barrier()
