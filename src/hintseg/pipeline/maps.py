"""Class maps on disk: written by a network, cut into masks, and those compared with the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.cam import choose_threshold, multi_scale, normalise, seeds
from hintseg.config.run import RunConfig
from hintseg.data.inference import read_batches, size_groups
from hintseg.data.photos import photo_size
from hintseg.evaluation.folders import evaluate_folders
from hintseg.evaluation.sweep import SeedSweep
from hintseg.methods.method import Method
from hintseg.run.folder import RunFolder, by_class
from hintseg.run.schema import MetricRow, Split, Stage, Sweep
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.store.pool import write_pool
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MAP_STRIDE = 4
"""Class maps are kept at this fraction of the photo's size, as the published pipelines do."""

BATCH = 8
"""Photos of equal size that inference takes at once."""


def tag_rows(photos: Sequence[Photo], classes: int) -> Tensor:
    """Return the tags of photos, (B, K) float32 of 0 and 1."""
    rows = torch.zeros(len(photos), classes)
    for row, photo in zip(rows, photos, strict=True):
        row[[tag - 1 for tag in photo.hints.tags or ()]] = 1
    return rows


def batches_left(photos: Sequence[Photo], done: Callable[[Photo], bool] = lambda _: False) -> list[list[Photo]]:
    """Return this process's batches of equal size in which a photo is not done.

    Batches are formed over all photos and dealt out and made whole: networks round differently in batches of another
    size, and so no bit depends on what is left to do or on the number of processes.
    """
    return [group for group in machine.share(size_groups(photos, BATCH)) if not all(map(done, group))]


def write_class_maps(
    run: RunFolder, stage: Stage, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    """Write the class maps of the photos that have none yet: ``RUN/STAGE/maps/ID.npz``."""
    where = machine.device(config.trainer)
    method.to(where).eval()
    folder = run.stage(stage) / "maps"
    mine = batches_left(photos, lambda photo: (folder / f"{photo.id}.npz").is_file())
    watch.start("class maps", sum(map(len, mine)))
    with write_pool() as later:
        for group, pixels in read_batches(mine, longest=config.data.longest):
            height, width = pixels.shape[-2:]
            size = (-(-height // MAP_STRIDE), -(-width // MAP_STRIDE))
            tags = tag_rows(group, len(run.classes))
            with torch.inference_mode(), machine.autocast(config.trainer):
                images = pixels.to(where).float() / 255
                merged = multi_scale(
                    method.class_maps, images, scales=config.maps.scales, flip=config.maps.flip, size=size
                )
            maps = normalise(merged.float(), tags.to(where)).cpu().numpy()
            for photo, one in zip(group, maps, strict=True):
                later(_write_scores, folder, photo, one[[tag - 1 for tag in sorted(photo.hints.tags or ())]])
                watch.advance()
    watch.stop()
    machine.barrier()
    method.to("cpu")


def _write_scores(folder: Path, photo: Photo, maps: Floats) -> None:
    keys = np.array(sorted(photo.hints.tags or ()), dtype=np.uint8)
    write_maps(folder / f"{photo.id}.npz", keys, maps)


def read_scores(run: RunFolder, stage: Stage, photo: Photo) -> tuple[Bytes, Tensor]:
    """Return a photo's classes (n,) and their scores at the photo's own size, (n, H, W) float32."""
    keys, maps = read_maps(run.path / stage / "maps" / f"{photo.id}.npz")
    scores = torch.from_numpy(maps.astype(np.float32))
    if not len(keys):
        return keys, scores.new_zeros(0, *photo_size(photo.path))
    return keys, grow(scores[None], photo_size(photo.path))[0]


def grow(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize scores (B, C, h, w) to a photo's own size (H, W)."""
    if scores.shape[-2:] == size:
        return scores
    return interpolate(scores, size, mode="bilinear", align_corners=False)


def readable(run: RunFolder, stage: Stage, photos: Sequence[Photo]) -> list[Photo]:
    """Return the photos that the stage has maps of: broken ones were reported and left out."""
    return [photo for photo in photos if (run.path / stage / "maps" / f"{photo.id}.npz").is_file()]


def choose(
    run: RunFolder, stage: Stage, photos: Sequence[Photo], area: float, given: float | str
) -> tuple[float | None, str]:
    """Return the background threshold of a stage's maps, and where it came from in words."""
    if not run.background:
        return None, "none: every pixel has one of the present classes"
    if not isinstance(given, str):
        return given, "given in the settings"
    sample = readable(run, stage, [photo for photo in photos if photo.hints.tags])
    chosen = sample[:: max(1, len(sample) // 200)]
    maps = (torch.from_numpy(read_maps(run.path / stage / "maps" / f"{photo.id}.npz")[1]) for photo in chosen)
    return choose_threshold(
        maps, area=area
    ), f"chosen without ground truth: masks cover {area:.0%} of the tagged photos"


def cut_maps(
    run: RunFolder,
    stage: Stage,
    kind: str,
    photos: Sequence[Photo],
    chosen: tuple[float | None, str],
    how: str,
    watch: Watch,
    folder: str = "masks",
) -> list[MetricRow]:
    """Cut a stage's maps into masks and return the rows for metrics.json (first process only).

    With truth at hand the threshold is swept in the same pass (the oracle).
    """
    threshold, how_chosen = chosen
    store = MaskStore(run.stage(stage) / folder, run.classes, run.background)
    sweep, swept, adding = SeedSweep(len(run.classes)), 0, Lock()
    mine = machine.share(readable(run, stage, photos))

    def cut(photo: Photo) -> None:
        nonlocal sweep, swept
        keys, scores = read_scores(run, stage, photo)
        mask = seeds(scores, torch.from_numpy(keys), threshold).numpy()
        store.write(photo.id, mask, quality=margin(scores, threshold))
        truth = run.path / "truth" / f"{photo.id}.png"
        if threshold is not None and truth.is_file():
            part = SeedSweep(len(run.classes))
            part.add(read_label_png(truth), keys, scores.numpy())
            with adding:
                sweep, swept = sweep + part, swept + 1

    with write_pool() as later:
        for photo in watch.each(f"cutting {kind}s", mine, len(mine)):
            later(cut, photo)
    parts = machine.gather((sweep, swept))
    if machine.rank() != 0:
        return []
    sweep = sum((part for part, _ in parts), SeedSweep(len(run.classes)))
    swept = sum(count for _, count in parts)
    store.finish()
    best, _ = sweep.best() if swept else (None, 0.0)
    facts = Sweep(
        thresholds=tuple(round(float(t), 4) for t in sweep.thresholds),
        miou=tuple(map(float, sweep.miou())) if swept else None,
        chosen=threshold,
        how=how_chosen,
        oracle=best,
    )
    run.write_sweep(stage, facts)
    rows = score(run, stage, kind, "train", how, threshold, folder)
    if swept:
        index = int(np.nanargmax(sweep.miou()))
        rows.append(
            MetricRow(
                stage=stage,
                kind=kind,
                split="train",
                photos=swept,
                miou=float(sweep.miou()[index]),
                iou=by_class(run.classes, sweep.iou()[index]),
                threshold=best,
                oracle=True,
                protocol=how,
            )
        )
    return rows


def record(run: RunFolder, stage: Stage, rows: list[MetricRow]) -> None:
    """Put a stage's results into metrics.json, in the first process."""
    if machine.rank() == 0:
        run.add_metrics(stage, rows)


def margin(scores: Tensor, threshold: float | None) -> float:
    """Return how clearly the winning class leads the second best (background included), averaged over the pixels."""
    rows = scores if threshold is None else torch.cat([scores, scores.new_full((1, *scores.shape[1:]), threshold)])
    if len(rows) < 2:
        return 1.0
    first, winner = rows.max(dim=0)
    second = rows.scatter(0, winner[None], -torch.inf).amax(dim=0)  # a top-2 takes twice as long
    return float((first - second).mean().clamp(0, 1))


def score(
    run: RunFolder,
    stage: Stage,
    kind: str,
    split: Split,
    how: str,
    threshold: float | None,
    folder: str = "masks",
    photos: Sequence[Photo] | None = None,
) -> list[MetricRow]:
    """Compare a stage's masks (of `photos`; None: all) with the truth, where there is any; return metric rows."""
    masks, truth = run.path / stage / folder, run.path / "truth"
    judged = None if photos is None else {photo.id for photo in photos}
    ids = [id for id in MaskStore(masks, run.classes).ids() if (truth / f"{id}.png").is_file()]
    ids = [id for id in ids if judged is None or id in judged]
    if not ids:
        return []
    found = evaluate_folders(masks, truth, classes=run.classes, background=run.background, split=ids)
    row = MetricRow(
        stage=stage,
        kind=kind,
        split=split,
        protocol=how,
        photos=found.photos,
        miou=found.miou,
        iou=found.iou,
        pixel_accuracy=found.pixel_accuracy,
        boundary_iou=found.boundary_iou,
        threshold=threshold,
    )
    return [row]
