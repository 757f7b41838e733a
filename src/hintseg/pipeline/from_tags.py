"""The one stage of AFA and BMP: tags in; a segmentation model, masks of the training photos, scores of both branches.

What it writes, all below ``RUN/segment``:

    maps/        class maps of Branch-C, as a localizer's
    seeds/       those maps cut by one background score
    branch_c/    Y^c: class maps and background (for BMP that of Branch-S) spread by colour
    background/  that background of Branch-S, grey 0..255, a quarter of the photo's size
    masks/       Branch-S: training photos with their tags known, validation photos without
    curves.csv   both branches on a few judged photos, over the training
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hintseg.cam import choose_threshold, multi_scale, normalise, seeds
from hintseg.config.run import RunConfig
from hintseg.data.inference import equal_size_batches, read_batches
from hintseg.data.photos import photo_size
from hintseg.errors import RunError
from hintseg.evaluation.confusion import Confusion
from hintseg.files.atomic import whole_file
from hintseg.methods.method import Method, frozen
from hintseg.methods.one_stage import OneStage, OneStageConfig
from hintseg.pipeline.maps import (
    BATCH,
    MAP_STRIDE,
    batches_left,
    choose,
    cut_maps,
    grow,
    record,
    score,
    tag_rows,
    write_class_maps,
)
from hintseg.pipeline.stages import predict_photos, train_on_photos
from hintseg.run.folder import RunFolder
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import BACKGROUND, IGNORE, Photo

CURVE_POINTS = 25
"""Times at most that both branches are measured during a training."""


def segment_from_tags(
    run: RunFolder, config: RunConfig, photos: Sequence[Photo], val: Sequence[Photo], watch: Watch
) -> None:
    """Train both branches, then write and judge what each makes of the photos."""
    settings = config.segment
    if not isinstance(settings, OneStageConfig):
        raise RunError(f"recipe '{config.recipe}' has no segmenter that learns from tags")
    method = train_on_photos(
        run, "segment", settings, photos, config, watch, after_epoch=_curves(run, config, photos, val)
    )
    if not isinstance(method, OneStage):
        raise RunError(f"{run.path / 'segment'} holds no one-stage network; start the run afresh")

    write_class_maps(run, "segment", method, photos, config, watch)
    chosen = choose(run, "segment", photos, config.maps.area, config.maps.threshold)
    how = f"Branch-C (Table II): class maps of scales {list(config.maps.scales)}; tags used at test time"
    rows = cut_maps(run, "segment", "seed", photos, chosen, how, watch, "seeds")

    named = [photo for photo in val if photo.hints.tags is not None]
    _write_branch_c(run, method, [*photos, *named], config, watch)
    store = MaskStore(run.stage("segment") / "masks", run.classes, run.background)
    judged = {photo.id for photo in val}  # a photo in both splits gets the mask that does not know its tags
    learned = [photo for photo in photos if photo.id not in judged]
    for photo, mask, quality in predict_photos(method, learned, config, watch, tagged=len(run.classes)):
        if not run.background:
            mask[mask == BACKGROUND] = IGNORE  # a photo without tags: nothing is known
        store.write(photo.id, mask, quality=quality)
    for photo, mask, quality in predict_photos(method, val, config, watch):
        store.write(photo.id, mask, quality=quality)
    machine.barrier()
    if machine.rank() != 0:
        return
    store.finish()
    MaskStore(run.path / "segment" / "branch_c", run.classes, run.background).finish()
    cut = "BSP with Branch-S's background" if method.uses_background else "PAR with a constant background"
    how_c = f"Branch-C (Table VI): {cut}, scales {list(settings.scales)} with flips; tags used at test time"
    crf = "DenseCRF" if config.test.crf else "no CRF"
    flips = " with flips" if config.test.flip else ""
    how_s = f"Branch-S (Tables I, VI): scales {list(config.test.scales)}{flips}, {crf}"
    rows += score(run, "segment", "Branch-C", "train", how_c, None, "branch_c", photos)
    rows += score(run, "segment", "Branch-C", "val", how_c, None, "branch_c", named)
    rows += score(run, "segment", "pseudo mask", "train", f"{how_s}; tags used at test time", None, photos=learned)
    rows += score(run, "segment", "segmentation", "val", f"{how_s}; no tags at test time", None, photos=val)
    record(run, "segment", rows)


def _write_branch_c(run: RunFolder, method: OneStage, photos: Sequence[Photo], config: RunConfig, watch: Watch) -> None:
    """Write Y^c of photos whose tags are known, and the background map it was cut with."""
    where = machine.device(config.trainer)
    method.to(where).eval()
    store = MaskStore(run.stage("segment") / "branch_c", run.classes, run.background)
    mine = batches_left(photos, lambda photo: photo.id in store)
    watch.start("Branch-C", sum(map(len, mine)))
    for group, pixels in read_batches(mine, longest=config.data.longest):
        with torch.inference_mode(), machine.autocast(config.trainer):
            images = pixels.to(where).float() / 255
            labels, background = method.label_photos(images, tag_rows(group, len(run.classes)).to(where))
        own = photo_size(group[0].path)
        if labels.shape[1:] != own:
            labels = torch.nn.functional.interpolate(labels[:, None].float(), own, mode="nearest-exact")[:, 0].byte()
        coarse = [-(-side // MAP_STRIDE) for side in background.shape[2:]]
        grey = (grow(background, (coarse[0], coarse[1])).clamp(min=0) * 255).round().byte().cpu().numpy()
        for photo, mask, prior in zip(group, labels.cpu().numpy(), grey, strict=True):
            if method.uses_background:
                with whole_file(run.path / "segment" / "background" / f"{photo.id}.png") as file:
                    Image.fromarray(prior[0]).save(file, "PNG")
            store.write(photo.id, mask)
            watch.advance()
    watch.stop()
    machine.barrier()
    method.to("cpu")


def _curves(
    run: RunFolder, config: RunConfig, photos: Sequence[Photo], val: Sequence[Photo]
) -> Callable[[Method, int, int], None] | None:
    """Return what measures both branches after an epoch; None where there is nothing to measure with."""
    settings = config.segment
    judged = [p for p in (val or photos) if p.hints.tags and (run.path / "truth" / f"{p.id}.png").is_file()]
    if not isinstance(settings, OneStageConfig) or not settings.curve_photos or not judged:
        return None
    chosen = judged[:: max(1, -(-len(judged) // settings.curve_photos))]
    path = run.stage("segment") / "curves.csv"

    def measure(method: Method, epoch: int, step: int) -> None:
        every = -(-int(method.config.fit.epochs) // CURVE_POINTS)
        if (epoch + 1) % every:
            return
        miou_c, miou_s = measure_branches(run, method, chosen, config)
        rows = [row for row in read_curves(path) if int(row["step"]) < step]
        rows.append({"step": step, "epoch": epoch, "branch_c": round(miou_c, 4), "branch_s": round(miou_s, 4)})
        with whole_file(path) as file:
            lines = [",".join(map(str, row.values())) for row in rows]
            file.write("\n".join(["step,epoch,branch_c,branch_s", *lines, ""]).encode())

    return measure


def read_curves(path: Path) -> list[dict[str, float | int]]:
    """Return the rows of curves.csv; none where there is no file.

    Raises:
        RunError: The file was edited or damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: int(row[name]) for name in ("step", "epoch")}
                | {name: float(row[name]) for name in ("branch_c", "branch_s")}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}); restore the file, or delete it") from error


def measure_branches(run: RunFolder, method: Method, photos: Sequence[Photo], config: RunConfig) -> tuple[float, float]:
    """Return the mIoU of seeds (Branch-C, tags known) and of the segmentation (Branch-S) on a few photos.

    One scale and no flips; the seeds' threshold is chosen without the truth, as for a localizer.
    """
    device = next(method.parameters()).device
    found: list[tuple[Photo, torch.Tensor, np.ndarray[tuple[int, int], np.dtype[np.uint8]]]] = []
    with frozen(method), torch.inference_mode(), machine.autocast(config.trainer):
        for group, pixels in equal_size_batches(photos, BATCH, longest=config.data.longest):
            images = pixels.to(device).float() / 255
            tags = tag_rows(group, len(run.classes)).to(device)
            maps = normalise(multi_scale(method.class_maps, images, scales=(1.0,), flip="none"), tags).cpu()
            masks = grow(method.segment(images).float(), photo_size(group[0].path)).argmax(dim=1).byte().cpu().numpy()
            for photo, one, mask in zip(group, maps, masks, strict=True):
                found.append((photo, one[[tag - 1 for tag in sorted(photo.hints.tags or ())]], mask))
    threshold = config.maps.threshold if run.background else None
    if isinstance(threshold, str):
        threshold = choose_threshold((maps for _, maps, _ in found), area=config.maps.area)
    branch_c, branch_s = (Confusion(len(run.classes), background=run.background) for _ in range(2))
    for photo, maps, mask in found:
        truth = read_label_png(run.path / "truth" / f"{photo.id}.png")
        keys = torch.tensor(sorted(photo.hints.tags or ()))
        branch_c.add(truth, seeds(grow(maps[None], truth.shape)[0], keys, threshold).numpy())
        branch_s.add(truth, mask)
    return branch_c.miou(), branch_s.miou()
