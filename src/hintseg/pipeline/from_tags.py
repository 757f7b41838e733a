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
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.cam import choose_threshold, grow, multi_scale, normalise, seeds
from hintseg.config.run import RunConfig
from hintseg.config.settings import MethodConfig
from hintseg.data.inference import size_groups
from hintseg.data.photos import photo_size
from hintseg.errors import RunError
from hintseg.evaluation.confusion import Confusion
from hintseg.evaluation.labels import LabelQuality
from hintseg.files.atomic import whole_file
from hintseg.hints.masks import read_taught
from hintseg.methods.method import Method, frozen
from hintseg.methods.one_stage import OneStage
from hintseg.pipeline.each_photo import BATCH, looked
from hintseg.pipeline.evidence import marks_of
from hintseg.pipeline.extras import write_extras
from hintseg.pipeline.maps import choose, cut_maps, record, score, tag_rows, write_class_maps
from hintseg.pipeline.plan import placed
from hintseg.pipeline.stages import predict_photos, read_out, train_on_photos, write_learned
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Show
from hintseg.store.masks import MaskStore, read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo, Targets

Bytes = npt.NDArray[np.uint8]

CURVE_POINTS = 25
"""Times at most that both branches are measured during a training."""


SEEDS = Show(folder="seeds", title="seed", kind="mask")
CURVES = Show(
    folder="curves.csv",
    title="Two branches",
    note="Seeds of the classification branch (tags known) and masks of the segmentation branch (no tags), measured on "
    "a few photos with a truth after some epochs: one scale, no flips. The truth is judged with, never learned.",
    kind="curve",
    labels={"branch_c": "Branch-C, seeds", "branch_s": "Branch-S, segmentation"},
)


LABELS = Show(
    folder="curves.csv",
    title="Labels that the branches teach each other",
    note="Y^c teaches the segmentation branch, Y^s, once it has begun, the classification branch. On the same "
    "photos, tags known: how many pixels are labelled, how many of those rightly, and the share of the labels that the "
    "commonest class has. A share near 100 % says that one class takes everything.",
    kind="curve",
    labels={
        f"{name}_{what}": f"{title}, {words}"
        for name, title in (("y_c", "Y^c"), ("y_s", "Y^s"))
        for what, words in (("covered", "labelled"), ("right", "right"), ("top", "commonest class"))
    },
)


def segment_from_tags(
    run: RunFolder, config: RunConfig, photos: Sequence[Photo], val: Sequence[Photo], watch: Watch
) -> None:
    """Train both branches, then write and judge what each makes of the photos."""
    settings = config.segment
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has no segmenter")
    measured = _curves(run, config, settings, photos, val)

    def said(photo: Photo) -> Bytes | None:
        mask = read_taught(photo, n_classes=len(run.classes), background=run.background)
        marked = marks_of(photo, run, config) if mask is None else None
        return mask if marked is None else marked.pixels

    taught = any(photo.hints.mask is not None or placed(photo.hints) for photo in photos)
    read = said if taught else None
    method = train_on_photos(run, "segment", settings, photos, config, watch, read, after_epoch=measured)

    write_class_maps(run, "segment", method, photos, config, watch)
    chosen = choose(run, "segment", photos, config.maps.area, config.maps.threshold)
    how = f"Branch-C (Table II): class maps of scales {list(config.maps.scales)}; tags used at test time"
    rows = cut_maps(run, "segment", "seed", photos, chosen, how, watch, "seeds")

    named = [photo for photo in val if photo.hints.tags is not None]
    write_extras(run, "segment", method, [*photos, *named], config, watch)
    store = MaskStore(run.stage("segment") / "masks", run.classes, run.background)
    judged = {photo.id for photo in val}  # a photo in both splits gets the mask that does not know its tags
    learned = [photo for photo in photos if photo.id not in judged]

    def write(photo: Photo, mask: Bytes, quality: float) -> None:
        store.write(photo.id, mask, quality=quality)

    def write_tagged(photo: Photo, mask: Bytes, quality: float) -> None:
        if run.background or mask.any():  # without background and tags nothing is known: no mask
            write_learned(store, photo, mask, quality)

    predict_photos(method, learned, write_tagged, config, watch, tagged=len(run.classes))
    predict_photos(method, val, write, config, watch)
    if machine.rank() != 0:
        return
    store.finish()
    how = f"Branch-S (Tables I, VI): {read_out(config)}"
    for name, labels in method.extra_labels.items():
        rows += score(run, "segment", labels.kind, "train", labels.how, None, name, photos)
        rows += score(run, "segment", labels.kind, "val", labels.how, None, name, named)
    rows += score(run, "segment", "pseudo mask", "train", f"{how}; tags used at test time", None, photos=learned)
    rows += score(run, "segment", "segmentation", "val", f"{how}; no tags at test time", None, photos=val)
    record(run, "segment", rows)
    labels_shown = [Show(folder=name, title=made.kind, kind="mask") for name, made in method.extra_labels.items()]
    run.update_stage("segment", shows=(SEEDS, *method.shows, *labels_shown, CURVES, LABELS))


def _curves(
    run: RunFolder, config: RunConfig, settings: MethodConfig, photos: Sequence[Photo], val: Sequence[Photo]
) -> Callable[[Method, int, int], None] | None:
    """Return what measures both branches after an epoch; None where there is nothing to measure with."""
    taught = {photo.id for photo in photos if photo.hints.mask is not None}
    told = [photo for photo in (val or photos) if photo.hints.tags and photo.id not in taught]
    judged = [photo for photo in told if run.truth_path(photo.id).is_file()]
    if not settings.watched or not judged:
        return None
    chosen = judged[:: max(1, -(-len(judged) // settings.watched))]
    path = run.stage("segment") / "curves.csv"

    def measure(method: Method, epoch: int, step: int) -> None:
        every = -(-int(method.config.fit.epochs) // CURVE_POINTS)
        if (epoch + 1) % every or not isinstance(method, OneStage):
            return
        done = (epoch + 1) / int(method.config.fit.epochs)
        found = measure_branches(run, method, chosen, config, done)
        rows = [row for row in read_curves(path) if int(row["step"]) < step]
        rows.append({"step": step, "epoch": epoch} | {name: round(value, 4) for name, value in found.items()})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with whole_file(path) as file:
            file.write(text.getvalue().encode())

    return measure


def read_curves(path: Path) -> list[dict[str, float | int]]:
    """Return the rows of curves.csv; none where there is no file. Cells that are empty are left out.

    Raises:
        RunError: The file was edited or damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: int(row[name]) for name in ("step", "epoch")}
                | {name: float(value) for name, value in row.items() if name not in ("step", "epoch") and value}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({error}); restore the file, or delete it") from error


def measure_branches(
    run: RunFolder, method: OneStage, photos: Sequence[Photo], config: RunConfig, done: float
) -> dict[str, float]:
    """Return what both branches and the labels that they make are worth on a few photos.

    One scale and no flips; the seeds' threshold is chosen without the truth, as for a localizer.

    Args:
        run: The run.
        method: The network.
        photos: Photos with tags and a truth.
        config: Its settings.
        done: Share of all steps taken, 0..1: what of its labels has begun.

    Returns:
        ``branch_c``, mIoU of the seeds, tags known; ``branch_s``, that of the segmentation, without tags; and for each
        of `OneStage.taught` how many pixels are labelled, how many of those are right and what share the commonest
        label has, ``NAME_covered``, ``NAME_right`` and ``NAME_top``. All are 0..1.
    """

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Tensor, Bytes, dict[str, Bytes]]]:
        images = pixels.float() / 255
        tags = tag_rows(group, len(run.classes)).to(pixels.device)
        merged = multi_scale(method.class_maps, images, scales=(1.0,), flip="none")
        maps = normalise(merged, tags, own_maximum=run.background).cpu()
        size = photo_size(group[0].path)
        masks = grow(method.segment(images), size).argmax(dim=1).byte().cpu().numpy()
        whole = images.new_tensor([[0, 0, images.shape[3], images.shape[2]]], dtype=torch.int64)
        targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), whole.expand(len(images), -1))
        taught = {
            name: interpolate(labels[:, None], size)[:, 0].cpu().numpy()
            for name, labels in method.taught(images, targets, done).items()
        }
        for i, photo in enumerate(group):
            yield maps[i, _class_ids(photo) - 1], masks[i], {name: labels[i] for name, labels in taught.items()}

    groups, device = size_groups(photos, BATCH), next(method.parameters()).device
    with frozen(method):
        found = list(looked(groups, make, device, config, cast=True, longest=config.data.longest_side))
    threshold = config.maps.threshold if run.background else None
    if isinstance(threshold, str):
        threshold = choose_threshold((maps for _, (maps, _, _) in found), area=config.maps.area)
    branch_c, branch_s = (Confusion(len(run.classes), background=run.background) for _ in range(2))
    qualities: dict[str, LabelQuality] = {}
    for photo, (maps, mask, taught) in found:
        truth = read_label_png(run.path / "truth" / f"{photo.id}.png")
        branch_c.add(truth, seeds(grow(maps[None], truth.shape)[0], _class_ids(photo), threshold).numpy())
        branch_s.add(truth, mask)
        for name, labels in taught.items():
            qualities.setdefault(name, LabelQuality()).add(truth, labels)
    result = {"branch_c": branch_c.miou(), "branch_s": branch_s.miou()}
    for name, quality in qualities.items():
        result |= {f"{name}_covered": quality.covered, f"{name}_right": quality.right, f"{name}_top": quality.top_class}
    return result


def _class_ids(photo: Photo) -> Tensor:
    return torch.tensor(sorted(photo.hints.tags or ()), dtype=torch.int64)
