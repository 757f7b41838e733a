"""The stage that turns boxes into masks: of each object, and of the whole photo."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hintseg.config.run import FilledPropose, GrabCutPropose, RunConfig
from hintseg.config.settings import FitConfig
from hintseg.data.crops import BoxMap, CropDataset, foreground_of, smallest_side
from hintseg.data.photos import photo_size, read_photo
from hintseg.errors import PhotoError, RunError, ShapeError
from hintseg.evaluation.confusion import Confusion
from hintseg.geometry.boxes import pixel_window
from hintseg.methods.cfs import Cfs, CfsConfig
from hintseg.pipeline.each_photo import each_photo, on_threads
from hintseg.pipeline.learn import learn
from hintseg.refine.grabcut import box_proposal, refine_proposal
from hintseg.refine.tightness import lift_to_sides
from hintseg.run.folder import RunFolder, by_class
from hintseg.run.schema import MetricRow, Show
from hintseg.store.instances import Instances, read_instances, write_instances
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import BACKGROUND, IGNORE, Box, Mark, Photo

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

logger = logging.getLogger("hintseg")

INSTANCES = "instances"
"""Folder of the stage's final objects; what came before lies in `grabcut` and `cfs` beside it."""

CPU_EPOCH, CPU_SIZE, SIZE = 1000, 128, 224
"""Where `auto` is asked for: boxes of an epoch at most and side of the crops on a CPU; that side on a GPU."""


def propose(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Cut the object out of every box, and merge them into one mask per photo.

    Writes ``RUN/propose/instances/ID.npz`` and ``RUN/propose/masks/ID.png``. With `cfs` the proposals it learned from
    and its own masks before the second GrabCut stay beside them, in ``grabcut`` and ``cfs``.
    """
    settings, folder = config.propose, run.stage("propose")
    steps: list[tuple[str, str]] = [("filled", "filled boxes")]
    if isinstance(settings, FilledPropose):
        _cut_out(folder / INSTANCES, "filling boxes", photos, _filled, watch)
        how = "filled boxes"
    elif isinstance(settings, GrabCutPropose):
        _cut_out(folder / INSTANCES, "GrabCut", photos, _grabcut(settings), watch)
        how = "GrabCut in each box"
    elif isinstance(settings, CfsConfig):
        shared = set(GrabCutPropose.model_fields) - {"method"}
        first = GrabCutPropose(**settings.model_dump(include=shared))
        _cut_out(folder / "grabcut", "GrabCut", photos, _grabcut(first), watch)
        network = _learn_cfs(run, settings, config, photos, watch)
        _segment_boxes(run, network, settings, config, photos, watch)
        steps += [("grabcut", "GrabCut")]
        steps += [("cfs", "CFS")] if settings.refine else []
        how = "CFS trained on GrabCut of the boxes" + (", outlines by a second GrabCut" if settings.refine else "")
    else:
        raise RunError(f"recipe '{config.recipe}' has nothing that turns boxes into masks")
    if machine.rank() == 0:
        _merge(run, photos, watch)
        rows = [_score(run, name, kind, photos, f"{kind}; boxes used at test time") for name, kind in steps]
        rows.append(_score(run, INSTANCES, "pseudo mask", photos, f"{how}; boxes used at test time"))
        run.add_metrics("propose", [row for row in rows if row])
        before = [Show(folder=name, title=kind, kind="objects") for name, kind in steps if name != "filled"]
        run.update_stage("propose", shows=before)
    machine.barrier()


def _filled(photo: Photo) -> Instances:
    size = photo_size(photo.path)
    masks = [np.ones((y1 - y0, x1 - x0), np.bool_) for x0, y0, x1, y1 in _windows(photo, size).tolist()]
    return _instances(photo, size, masks)


def _grabcut(settings: GrabCutPropose) -> Callable[[Photo], Instances]:
    options = settings.model_dump(exclude={"method", "neighbours"})

    def cut(photo: Photo) -> Instances:
        rgb, boxes = read_photo(photo.path), photo.hints.objects
        near = [_neighbours(boxes, index, settings.neighbours) for index in range(len(boxes))]
        masks = [
            box_proposal(rgb, box.shape.corners, others, **options) for box, others in zip(boxes, near, strict=True)
        ]
        return _instances(photo, _size(rgb), masks)

    return cut


def _neighbours(boxes: Sequence[Mark[Box]], index: int, wanted: bool) -> list[tuple[float, float, float, float]]:
    """Return the other boxes of a box's class; none unless wanted."""
    label = boxes[index].label
    return [box.shape.corners for i, box in enumerate(boxes) if wanted and i != index and box.label == label]


def _instances(photo: Photo, size: tuple[int, int], masks: Sequence[Bools]) -> Instances:
    labels = np.array([box.label for box in photo.hints.objects], np.uint8)
    return Instances(size, labels, _windows(photo, size), masks)


def _size(rgb: Bytes) -> tuple[int, int]:
    return rgb.shape[0], rgb.shape[1]


def _windows(photo: Photo, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    windows = [pixel_window(box.shape.corners, size) for box in photo.hints.objects]
    return np.array(windows, np.int64).reshape(-1, 4)


def _cut_out(
    folder: Path, doing: str, photos: Sequence[Photo], cut: Callable[[Photo], Instances], watch: Watch
) -> None:
    """Cut the objects out of the photos of this process that are not done, on all cores, and write them."""

    def one(photo: Photo) -> None:
        try:
            write_instances(folder / f"{photo.id}.npz", cut(photo))
        except PhotoError as error:
            logger.warning("photo skipped: %s", error)
        except ShapeError as error:
            raise ShapeError(f"{photo.path}: {error}") from error

    def done(photo: Photo) -> bool:
        return (folder / f"{photo.id}.npz").is_file()

    on_threads(doing, photos, one, watch, done=done, threads=machine.cores())  # OpenCV lets other threads run meanwhile


def _learn_cfs(run: RunFolder, settings: CfsConfig, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> Cfs:
    folder = run.stage("propose") / "grabcut"
    readable = [photo for photo in photos if (folder / f"{photo.id}.npz").is_file()]
    least = smallest_side(readable) if settings.smallest_side == "auto" else settings.smallest_side

    all_at_once = machine.device(config.trainer).type == "cuda"
    most = (None if all_at_once else CPU_EPOCH) if settings.per_epoch == "auto" else settings.per_epoch
    read = lru_cache(256)(read_instances)  # the boxes of a photo come at different times

    def proposal(photo: Photo, index: int) -> Bools:
        return read(folder / f"{photo.id}.npz").masks[index]

    def worth(photo: Photo, index: int) -> bool:
        return settings.learn_filled or not proposal(photo, index).all()

    def dataset(fit: FitConfig) -> CropDataset:
        return CropDataset(
            readable,
            len(run.classes),
            proposal,
            size=_crop_size(settings, config),
            expand=settings.expand,
            scale=fit.scale if fit.scale != "auto" else (1.0, 1.0),
            jitter=fit.jitter,
            smallest_side=least,
            worth=worth,
            per_epoch=most,
            seed=config.seed,
        )

    crops = len(dataset(settings.fit))
    method = learn(
        run, "propose", settings, config, watch, examples=crops, side=_crop_size(settings, config), dataset=dataset
    )
    if not isinstance(method, Cfs):
        raise RunError(f"{run.path / 'propose'} holds no CFS; start the run afresh")
    return method


def _crop_size(settings: CfsConfig, config: RunConfig) -> int:
    if settings.size != "auto":
        return settings.size
    return SIZE if machine.device(config.trainer).type == "cuda" else CPU_SIZE


def _segment_boxes(
    run: RunFolder, network: Cfs, settings: CfsConfig, config: RunConfig, photos: Sequence[Photo], watch: Watch
) -> None:
    """Run CFS on every box; while the network works on a photo, the cores cut the outlines of those before.

    The settings are the run's: the network may come from another run, with its own.
    """
    folder = run.stage("propose")

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, list[BoxMap]]]:
        rgb, boxes = np.ascontiguousarray(pixels[0].permute(1, 2, 0).cpu().numpy()), group[0].hints.objects
        found = foreground_of(
            network.foreground,
            rgb,
            [box.shape.corners for box in boxes],
            [box.label for box in boxes],
            len(run.classes),
            size=_crop_size(settings, config),
            expand=settings.expand,
            device=pixels.device,
        )
        yield rgb, list(found)

    def write(photo: Photo, made: tuple[Bytes, list[BoxMap]]) -> None:
        rgb, found = made
        if settings.tight:
            found = [one._replace(probability=lift_to_sides(one.probability, one.inner)) for one in found]
        masks = [_above_half(one) for one in found]
        if settings.refine:
            write_instances(folder / "cfs" / f"{photo.id}.npz", _instances(photo, _size(rgb), masks))
            masks = [_outlined(rgb, photo.hints.objects, i, one, settings) for i, one in enumerate(found)]
        write_instances(folder / INSTANCES / f"{photo.id}.npz", _instances(photo, _size(rgb), masks))

    each_photo(
        "masks of boxes",
        [photo for photo in photos if (folder / "grabcut" / f"{photo.id}.npz").is_file()],
        make,
        write,
        config,
        watch,
        network=network,
        done=lambda photo: (folder / INSTANCES / f"{photo.id}.npz").is_file(),
        batch=1,
        whole=True,
        heavy=True,  # outlines are cut from whole photos, and each box has a map as large as it
    )


def _above_half(found: BoxMap) -> Bools:
    """Return where CFS sees the object inside its box; the filled box where it sees none."""
    x0, y0, x1, y1 = found.inner
    mask = found.probability[y0:y1, x0:x1] > 0.5
    return mask if mask.any() else np.ones_like(mask)


def _outlined(rgb: Bytes, boxes: Sequence[Mark[Box]], index: int, found: BoxMap, settings: CfsConfig) -> Bools:
    """Give what CFS found the edges of the photo."""
    x0, y0, x1, y1 = found.frame
    others = _neighbours(boxes, index, settings.neighbours)
    near = [(a - x0, b - y0, c - x0, d - y0) for a, b, c, d in others]
    limits = settings.model_dump(include={"high", "low", "iterations", "longest"})
    return refine_proposal(rgb[y0:y1, x0:x1], found.probability, found.inner, near, **limits)


def _merge(run: RunFolder, photos: Sequence[Photo], watch: Watch) -> None:
    """Paint each photo's objects into one mask, crowd regions as 255 behind them."""
    folder = run.stage("propose")
    store = MaskStore(folder / "masks", run.classes, run.background)
    for photo, instances in _read_all(folder / INSTANCES, photos, watch):
        store.write(photo.id, _mask(photo, instances, run.background))
    store.finish()


def _mask(photo: Photo, instances: Instances, background: bool) -> Bytes:
    mask = instances.semantic()
    if not background:  # what lies in no box has a class too, but nobody said which
        mask[mask == BACKGROUND] = IGNORE
    for mark in photo.hints.shaped(Box):
        if mark.label == IGNORE:
            x0, y0, x1, y1 = pixel_window(mark.shape.corners, (mask.shape[0], mask.shape[1]))
            region = mask[y0:y1, x0:x1]
            region[region == BACKGROUND] = IGNORE
    return mask


def _read_all(folder: Path, photos: Sequence[Photo], watch: Watch) -> Iterator[tuple[Photo, Instances]]:
    ready = [photo for photo in photos if (folder / f"{photo.id}.npz").is_file()]
    for photo in watch.each("merging objects", ready, len(ready)):
        yield photo, read_instances(folder / f"{photo.id}.npz")


def _score(run: RunFolder, name: str, kind: str, photos: Sequence[Photo], how: str) -> MetricRow | None:
    """Compare one kind of objects, merged, with the truth, where there is any."""
    folder = run.stage("propose")
    confusion, judged = Confusion(len(run.classes), background=run.background, undecided="background"), 0
    for photo in photos:
        path, truth = folder / name / f"{photo.id}.npz", run.path / "truth" / f"{photo.id}.png"
        made = folder / INSTANCES / f"{photo.id}.npz"
        if truth.is_file() and made.is_file():
            found = _filled(photo) if name == "filled" else read_instances(path)
            confusion.add(read_label_png(truth), _mask(photo, found, run.background))
            judged += 1
    if not judged:
        return None
    return MetricRow(
        stage="propose",
        kind=kind,
        split="train",
        protocol=how,
        photos=judged,
        miou=confusion.miou(),
        iou=by_class(run.classes, confusion.iou()),
        pixel_accuracy=confusion.pixel_accuracy(),
    )
