"""Class maps on disk: written by a network, cut into masks, and those compared with the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hintseg.cam import choose_threshold, grow
from hintseg.config.run import RunConfig
from hintseg.data.photos import photo_size
from hintseg.evaluation.folders import evaluate_folders
from hintseg.evaluation.sweep import SeedSweep
from hintseg.hints import implied
from hintseg.labellers.cam import CamLabeller, place
from hintseg.methods.method import Method
from hintseg.pipeline.each_photo import each_photo, on_threads
from hintseg.pipeline.evidence import EvidenceStore
from hintseg.pipeline.kept import images_of, keep_to_look
from hintseg.run.folder import RunFolder, by_class
from hintseg.run.schema import MetricRow, Split, Stage, Sweep
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def tag_rows(photos: Sequence[Photo], classes: int) -> Tensor:
    """Return the tags of photos, (B, K) float32 of 0 and 1."""
    return torch.from_numpy(implied.tag_rows([photo.hints for photo in photos], classes)[0])


def write_class_maps(
    run: RunFolder, stage: Stage, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    """Write the class maps of the photos that have none yet: ``RUN/STAGE/maps/ID.npz``."""
    folder = run.stage(stage) / "maps"
    kept = keep_to_look(method, photos, config.maps.scales, config, watch)
    labeller = CamLabeller(method, config.maps, len(run.classes), background=run.background)

    def make(group: list[Photo], pixels: Tensor) -> Iterator[Floats]:
        tags = tag_rows(group, len(run.classes)).to(pixels.device)
        maps = labeller.look(images_of(pixels), tags).cpu().numpy()
        return (one[_class_ids(photo) - 1] for photo, one in zip(group, maps, strict=True))

    def write(photo: Photo, maps: Floats) -> None:
        write_maps(folder / f"{photo.id}.npz", _class_ids(photo), maps)

    each_photo(
        "class maps",
        photos,
        make,
        write,
        config,
        watch,
        network=method,
        done=lambda photo: (folder / f"{photo.id}.npz").is_file(),
        kept=None if kept is None else kept.batch,
    )


def _class_ids(photo: Photo) -> npt.NDArray[np.int64]:
    """Return the class ids of a photo's tags in the order of its maps, (n,)."""
    return np.array(sorted(photo.hints.tags or ()), dtype=np.int64)


def read_scores(run: RunFolder, stage: Stage, photo: Photo) -> tuple[Bytes, Tensor]:
    """Return a photo's classes (n,) and their scores at the photo's own size, (n, H, W) float32."""
    class_ids, maps = read_maps(run.path / stage / "maps" / f"{photo.id}.npz")
    scores = torch.from_numpy(maps)
    if not len(class_ids):
        return class_ids, scores.new_zeros(0, *photo_size(photo.path))
    return class_ids, grow(scores[None], photo_size(photo.path))[0]


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
    *,
    trust: bool = False,
) -> list[MetricRow]:
    """Cut a stage's maps into masks and return the rows for metrics.json (first process only).

    With truth at hand the threshold is swept in the same pass (the oracle). With `trust` how clearly the class of each
    pixel leads is kept beside the masks.
    """
    threshold, how_chosen = chosen
    store = EvidenceStore(run, stage, trust=trust, masks=folder)
    sweep, swept, adding = SeedSweep(len(run.classes)), 0, Lock()

    def cut(photo: Photo) -> None:
        nonlocal sweep, swept
        class_ids, scores = read_scores(run, stage, photo)
        store.write(photo, place(torch.from_numpy(class_ids), scores, threshold), quality=True)
        truth = run.path / "truth" / f"{photo.id}.png"
        if threshold is not None and truth.is_file():
            part = SeedSweep(len(run.classes))
            part.add(read_label_png(truth), class_ids, scores.numpy())
            with adding:
                sweep, swept = sweep + part, swept + 1

    on_threads(f"cutting {kind}s", readable(run, stage, photos), cut, watch)
    parts = machine.gather((sweep, swept))
    if machine.rank() != 0:
        return []
    sweep = sum((part for part, _ in parts), SeedSweep(len(run.classes)))
    swept = sum(count for _, count in parts)
    store.finish(photos, watch)
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
