"""The stages of a run. Each reads what the stage before wrote in the run folder and writes its own part."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from hintseg.cam import choose_threshold, multi_scale, normalise, seeds
from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.run import DenseCrfRefine, ParRefine, RunConfig
from hintseg.config.settings import MethodConfig
from hintseg.data.dataset import PhotoDataset, train_loader
from hintseg.data.inference import equal_size_batches
from hintseg.data.photos import photo_size
from hintseg.data.transforms import TrainingTransform, reduction
from hintseg.errors import PhotoError, RunError
from hintseg.evaluation.folders import evaluate_folders
from hintseg.evaluation.sweep import SeedSweep
from hintseg.methods.deeplab import multi_scale_logits
from hintseg.methods.irn import Irn, IrnConfig, ir_labels
from hintseg.methods.method import Method
from hintseg.pipeline.folder import RunFolder, read_json, write_json
from hintseg.refine import dense_crf, pamr, par
from hintseg.registry import methods, resolve
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import MaskStore, read_label_png, write_mask
from hintseg.training import machine
from hintseg.training.fit import fit
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import BACKGROUND, IGNORE, Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MAP_STRIDE = 4
"""Class maps are kept at this fraction of the photo's size, as the published pipelines do."""

BATCH = 8
"""Photos of equal size that inference takes at once."""


def localize(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Train the localizer, write class maps of the training photos and cut them into seeds."""
    settings = config.localize
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has no localizer")
    method = _train(run, "localize", settings, photos, config, watch)
    _write_class_maps(run, "localize", method, photos, config, watch)
    chosen = _choose(run, "localize", photos, config.maps.area, config.maps.threshold)
    how = f"maps of scales {list(config.maps.scales)}, flips merged by {config.maps.flip}; tags used at test time"
    _record(run, "localize", _cut(run, "localize", "seed", photos, chosen, how, watch))


def refine(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Sharpen the seeds into pseudo masks, by a function or by a network that learns from them."""
    settings = config.refine
    if isinstance(settings, DenseCrfRefine | ParRefine):
        threshold = _read_threshold(run, "localize")
        _refine_by_function(run, settings, config, photos, threshold, watch)
        if machine.rank() == 0:
            how = f"{settings.method} on class maps; tags used at test time"
            run.add_metrics("refine", _score(run, "refine", "pseudo mask", "train", how, threshold))
    elif isinstance(settings, IrnConfig):
        labels = _write_ir_labels(run, settings, photos, config, watch)
        method = _train(run, "refine", settings, photos, config, watch, labels)
        _walk(run, method, photos, config, watch)
        chosen = _choose(run, "refine", photos, config.maps.area, "auto")
        how = "class maps after the random walk along learned boundaries; tags used at test time"
        _record(run, "refine", _cut(run, "refine", "pseudo mask", photos, chosen, how, watch))


def segment(run: RunFolder, config: RunConfig, photos: Sequence[Photo], val: Sequence[Photo], watch: Watch) -> None:
    """Train the segmenter on the masks and predict the validation photos."""
    settings = config.segment
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has no segmenter")
    made = run.masks_of_photos()
    folder = run.path / "truth" if made is None else made[1]
    source = "true masks" if made is None else f"masks of stage '{made[0]}'"
    method = _train(run, "segment", settings, photos, config, watch, _label_reader(folder))
    if val:
        store = MaskStore(run.stage("segment") / "masks", run.classes, run.background)
        for photo, mask, quality in predict_photos(method, val, config, watch):
            store.write(photo.id, mask, quality=quality)
        machine.barrier()
        crf = "DenseCRF" if config.test.crf else "no CRF"
        flips = " with flips" if config.test.flip else ""
        how = f"trained on {source}; scales {list(config.test.scales)}{flips}, {crf}; no tags at test time"
        if machine.rank() == 0:
            store.finish()
            run.add_metrics("segment", _score(run, "segment", "segmentation", "val", how, None))


def predict_photos(
    method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch, *, tagged: int | None = None
) -> Iterator[tuple[Photo, Bytes, float]]:
    """Segment photos with a trained segmenter.

    Args:
        method: The segmenter.
        photos: The photos.
        config: Settings of the test.
        watch: Told about the progress.
        tagged: K, where the photos' tags are known and classes outside of them cannot win.

    Yields:
        Each photo of this process's share, its mask (H, W) uint8 0..K, and the mean probability of the winning class.
    """
    test = config.test
    where = machine.device(config.trainer)
    method.to(where).eval()
    mine = photos[machine.rank() :: machine.world()]
    watch.start("predicting", len(mine))
    for group, pixels in equal_size_batches(mine, BATCH, longest=config.data.longest):
        images = pixels.to(where).float() / 255
        with torch.inference_mode(), machine.autocast(config.trainer):
            logits = multi_scale_logits(method.segment, images, scales=test.scales, flip=test.flip, merge=test.merge)
        if tagged is not None:
            absent = pad(_tag_rows(group, tagged) == 0, (1, 0)).to(where)  # background may always be there
            logits = logits.masked_fill(absent[:, :, None, None], -torch.inf)
        probabilities = logits.float().softmax(dim=1)
        if test.crf is not None:
            probabilities = dense_crf(probabilities, pixels.to(where), **_kernels(test.crf))
        best, mask = _grow(probabilities, photo_size(group[0].path)).max(dim=1)
        for photo, one, sure in zip(group, mask.cpu().numpy(), best.mean(dim=(1, 2)).tolist(), strict=True):
            watch.advance()
            yield photo, one.astype(np.uint8), min(1.0, sure)
    watch.stop()
    method.to("cpu")


def _train(
    run: RunFolder,
    stage: str,
    settings: MethodConfig,
    photos: Sequence[Photo],
    config: RunConfig,
    watch: Watch,
    masks: Callable[[Photo], Bytes | None] | None = None,
    after_epoch: Callable[[Method, int, int], None] | None = None,
) -> Method:
    """Build a method and train it, unless its weights are there already."""
    folder = run.stage(stage)
    weights = folder / "model.safetensors"
    if weights.is_file():
        return load_weights(weights)[0]
    kind: type[Method] = resolve("method", settings.method, methods())
    torch.manual_seed(config.seed)
    method = kind(settings, len(run.classes), run.background)
    facts = Facts(
        photos=len(photos),
        side=_median_side(photos, config.data.longest),
        pretrained=bool(getattr(getattr(method, "backbone", None), "pretrained", False)),
        gpu=machine.device(config.trainer).type == "cuda",
    )
    resolved = resolve_fit(settings, facts)
    method.config = settings.model_copy(update={"fit": resolved})
    together = resolved.accumulate * machine.devices(config.trainer) * config.trainer.num_nodes
    transform = TrainingTransform(int(resolved.crop), resolved.scale, resolved.jitter, config.data.longest)  # type: ignore[arg-type]
    dataset = PhotoDataset(photos, len(run.classes), transform, masks, seed=config.seed)
    loader = train_loader(
        dataset, batch_size=max(1, int(resolved.batch_size) // together), workers=machine.workers(config.trainer)
    )
    call = None if after_epoch is None else partial(after_epoch, method)
    steps = fit(method, loader, resolved, config.trainer, folder, watch=watch, after_epoch=call)
    if machine.rank() == 0:
        save_weights(method, weights, classes=run.classes, background=run.background)
        run.update_stage(stage, steps=steps, fit=resolved.model_dump(mode="json"), skipped=dataset.skipped)
    machine.barrier()
    return method


def _tag_rows(photos: Sequence[Photo], classes: int) -> Tensor:
    """Return the tags of photos, (B, K) float32 of 0 and 1."""
    rows = torch.zeros(len(photos), classes)
    for row, photo in zip(rows, photos, strict=True):
        row[[tag - 1 for tag in photo.hints.tags or ()]] = 1
    return rows


def _write_class_maps(
    run: RunFolder, stage: str, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    where = machine.device(config.trainer)
    method.to(where).eval()
    folder = run.stage(stage) / "maps"
    missing = [photo for photo in photos if not (folder / f"{photo.id}.npz").is_file()]
    mine = missing[machine.rank() :: machine.world()]
    watch.start("class maps", len(mine))
    for group, pixels in equal_size_batches(mine, BATCH, longest=config.data.longest):
        height, width = pixels.shape[-2:]
        size = (-(-height // MAP_STRIDE), -(-width // MAP_STRIDE))
        tags = _tag_rows(group, len(run.classes))
        with torch.inference_mode(), machine.autocast(config.trainer):
            images = pixels.to(where).float() / 255
            merged = multi_scale(method.class_maps, images, scales=config.maps.scales, flip=config.maps.flip, size=size)
        maps = normalise(merged.float(), tags.to(where)).cpu().numpy()
        for photo, one in zip(group, maps, strict=True):
            _write_scores(folder, photo, one[[tag - 1 for tag in sorted(photo.hints.tags or ())]])
            watch.advance()
    watch.stop()
    machine.barrier()
    method.to("cpu")


def _write_scores(folder: Path, photo: Photo, maps: Floats) -> None:
    keys = np.array(sorted(photo.hints.tags or ()), dtype=np.uint8)
    write_maps(folder / f"{photo.id}.npz", keys, maps)


def _scores(run: RunFolder, stage: str, photo: Photo) -> tuple[Bytes, Tensor]:
    """Return a photo's classes (n,) and their scores at the photo's own size, (n, H, W) float32."""
    keys, maps = read_maps(run.path / stage / "maps" / f"{photo.id}.npz")
    scores = torch.from_numpy(maps.astype(np.float32))
    if not len(keys):
        return keys, scores.new_zeros(0, *photo_size(photo.path))
    return keys, _grow(scores[None], photo_size(photo.path))[0]


def _grow(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize scores (B, C, h, w) to a photo's own size (H, W)."""
    if scores.shape[-2:] == size:
        return scores
    return interpolate(scores, size, mode="bilinear", align_corners=False)


def _readable(run: RunFolder, stage: str, photos: Sequence[Photo]) -> list[Photo]:
    """Return the photos that the stage has maps of: broken ones were reported and left out."""
    return [photo for photo in photos if (run.path / stage / "maps" / f"{photo.id}.npz").is_file()]


def _choose(
    run: RunFolder, stage: str, photos: Sequence[Photo], area: float, given: float | str
) -> tuple[float | None, str]:
    """Return the background threshold of a stage's maps, and where it came from in words."""
    if not run.background:
        return None, "none: every pixel has one of the present classes"
    if not isinstance(given, str):
        return given, "given in the settings"
    sample = _readable(run, stage, [photo for photo in photos if photo.hints.tags])
    chosen = sample[:: max(1, len(sample) // 200)]
    maps = (torch.from_numpy(read_maps(run.path / stage / "maps" / f"{photo.id}.npz")[1]) for photo in chosen)
    return choose_threshold(
        maps, area=area
    ), f"chosen without ground truth: masks cover {area:.0%} of the tagged photos"


def _cut(
    run: RunFolder,
    stage: str,
    kind: str,
    photos: Sequence[Photo],
    chosen: tuple[float | None, str],
    how: str,
    watch: Watch,
    folder: str = "masks",
) -> list[dict[str, Any]]:
    """Cut a stage's maps into masks and return the rows for metrics.json (first process only).

    With truth at hand the threshold is swept in the same pass (the oracle).
    """
    if machine.rank() != 0:
        return []
    threshold, how_chosen = chosen
    store = MaskStore(run.stage(stage) / folder, run.classes, run.background)
    sweep = SeedSweep(len(run.classes))
    swept = 0
    mine = _readable(run, stage, photos)
    for photo in watch.each(f"cutting {kind}s", mine, len(mine)):
        keys, scores = _scores(run, stage, photo)
        store.write(
            photo.id, seeds(scores, torch.from_numpy(keys), threshold).numpy(), quality=_margin(scores, threshold)
        )
        truth = run.path / "truth" / f"{photo.id}.png"
        if threshold is not None and truth.is_file():
            sweep.add(read_label_png(truth), keys, scores.numpy())
            swept += 1
    store.finish()
    best, _ = sweep.best() if swept else (None, 0.0)
    facts = {
        "thresholds": [round(float(t), 4) for t in sweep.thresholds],
        "miou": [float(m) for m in sweep.miou()] if swept else None,
        "chosen": threshold,
        "how": how_chosen,
        "oracle": best,
    }
    write_json(run.stage(stage) / "sweep.json", facts)
    rows = _score(run, stage, kind, "train", how, threshold, folder)
    if swept:
        index = int(np.nanargmax(sweep.miou()))
        iou = [None if np.isnan(value) else float(value) for value in sweep.iou()[index]]
        names = ["background", *run.classes]
        oracle = {"miou": float(sweep.miou()[index]), "iou": dict(zip(names, iou, strict=True))}
        rows.append(
            {
                "stage": stage,
                "kind": kind,
                "split": "train",
                "photos": swept,
                **oracle,
                "pixel_accuracy": None,
                "boundary_iou": None,
                "threshold": best,
                "oracle": True,
                "protocol": how,
            }
        )
    return rows


def _record(run: RunFolder, stage: str, rows: list[dict[str, Any]]) -> None:
    if machine.rank() == 0:
        run.add_metrics(stage, rows)


def _margin(scores: Tensor, threshold: float | None) -> float:
    """Return how clearly the winning class leads the second best (background included), averaged over the pixels."""
    rows = scores if threshold is None else torch.cat([scores, scores.new_full((1, *scores.shape[1:]), threshold)])
    if len(rows) < 2:
        return 1.0
    first, second = rows.topk(2, dim=0).values
    return float((first - second).mean().clamp(0, 1))


def _score(
    run: RunFolder,
    stage: str,
    kind: str,
    split: str,
    how: str,
    threshold: float | None,
    folder: str = "masks",
    photos: Sequence[Photo] | None = None,
) -> list[dict[str, Any]]:
    """Compare a stage's masks (of `photos`; None: all) with the truth, where there is any; return metric rows."""
    masks, truth = run.path / stage / folder, run.path / "truth"
    judged = None if photos is None else {photo.id for photo in photos}
    ids = [id for id in MaskStore(masks, run.classes).ids() if (truth / f"{id}.png").is_file()]
    ids = [id for id in ids if judged is None or id in judged]
    if not ids:
        return []
    found = evaluate_folders(masks, truth, classes=run.classes, background=run.background, split=ids)
    row = {
        "stage": stage,
        "kind": kind,
        "split": split,
        "photos": found.photos,
        "miou": found.miou,
        "iou": found.iou,
        "pixel_accuracy": found.pixel_accuracy,
        "boundary_iou": found.boundary_iou,
        "threshold": threshold,
        "oracle": False,
        "protocol": how,
    }
    return [row]


def _write_ir_labels(
    run: RunFolder, settings: IrnConfig, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> Callable[[Photo], Bytes | None]:
    """Write the labels IRN learns from: what the class maps say nearly for certain."""
    folder = run.stage("refine") / "labels"
    high, low = settings.cuts(_read_threshold(run, "localize"))
    missing = [p for p in _readable(run, "localize", photos) if not (folder / f"{p.id}.png").is_file()]
    mine = missing[machine.rank() :: machine.world()]
    watch.start("labels for the refiner", len(mine))
    for group, pixels in equal_size_batches(mine, 1, longest=config.data.longest):
        keys, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        mask = ir_labels(
            torch.from_numpy(maps),
            torch.from_numpy(keys),
            pixels[0],
            background=run.background,
            foreground=high,
            background_score=low,
        )
        grown = interpolate(mask[None, None].float(), photo_size(group[0].path), mode="nearest-exact")
        write_mask(folder / f"{group[0].id}.png", grown[0, 0].byte().numpy())
        watch.advance()
    watch.stop()
    machine.barrier()
    return _label_reader(folder)


def _walk(run: RunFolder, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch) -> None:
    """Spread the class maps along the learned boundaries."""
    if not isinstance(method, Irn):
        raise RunError(f"{run.path / 'refine'} holds no IRN; start the run afresh")
    where = machine.device(config.trainer)
    method.to(where).eval()
    folder = run.stage("refine") / "maps"
    missing = [p for p in _readable(run, "localize", photos) if not (folder / f"{p.id}.npz").is_file()]
    mine = missing[machine.rank() :: machine.world()]
    watch.start("random walk", len(mine))
    for group, pixels in equal_size_batches(mine, 1, longest=config.data.longest):
        keys, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        with machine.autocast(config.trainer):
            scores = method.refine(pixels.to(where).float() / 255, torch.from_numpy(maps).to(where))
        write_maps(folder / f"{group[0].id}.npz", keys, scores.float().clamp(0, 1).cpu().numpy())
        watch.advance()
    watch.stop()
    machine.barrier()
    method.to("cpu")


def _refine_by_function(
    run: RunFolder,
    settings: DenseCrfRefine | ParRefine,
    config: RunConfig,
    photos: Sequence[Photo],
    threshold: float | None,
    watch: Watch,
) -> None:
    """Refine [background, class maps] of each photo with its colours and write the strongest."""
    where = machine.device(config.trainer)
    store = MaskStore(run.stage("refine") / "masks", run.classes, run.background)
    mine = _readable(run, "localize", photos)[machine.rank() :: machine.world()]
    watch.start(f"refining with {settings.method}", len(mine))
    for group, pixels in equal_size_batches(mine, 1, longest=config.data.longest):
        keys, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        ids, size = torch.from_numpy(keys), (pixels.shape[-2], pixels.shape[-1])
        scores = _grow(torch.from_numpy(maps)[None], size)[0] if len(maps) else torch.zeros(0, *size)
        if threshold is not None:
            scores = torch.cat([torch.full((1, *size), threshold), scores])
            ids = torch.cat([ids.new_full((1,), BACKGROUND), ids])
        if len(ids) > 1:
            rows, rgb = scores[None].to(where), pixels.to(where)
            if isinstance(settings, DenseCrfRefine):
                refined = dense_crf(rows / rows.sum(dim=1, keepdim=True), rgb, **_kernels(settings))[0].cpu()
            else:
                spread = par if settings.method == "par" else pamr
                refined = spread(rows, rgb, dilations=settings.dilations, iterations=settings.iterations)[0].cpu()
            scores = refined / refined.sum(dim=0, keepdim=True).clamp(min=1e-6)
        own = photo_size(group[0].path)
        if len(ids):
            mask, quality = ids[_grow(scores[None], own)[0].argmax(dim=0)].numpy(), _margin(scores, None)
        else:
            mask, quality = np.full(own, IGNORE, np.uint8), 0.0
        store.write(group[0].id, mask, quality=quality)
        watch.advance()
    watch.stop()
    machine.barrier()
    if machine.rank() == 0:
        store.finish()


def _kernels(settings: DenseCrfRefine) -> dict[str, Any]:
    return settings.model_dump(exclude={"method"})


def _label_reader(folder: Path) -> Callable[[Photo], Bytes | None]:
    def read(photo: Photo) -> Bytes | None:
        path = folder / f"{photo.id}.png"
        return read_label_png(path) if path.is_file() else None

    return read


def _read_threshold(run: RunFolder, stage: str) -> float | None:
    chosen = read_json(run.path / stage / "sweep.json")["chosen"]
    return None if chosen is None else float(chosen)


def _median_side(photos: Sequence[Photo], longest: int) -> int:
    """Return the median of the shorter sides of at most 200 photos as the network sees them, pixels."""
    sides = []
    for photo in photos[:: max(1, len(photos) // 200)]:
        try:
            size = photo_size(photo.path)
            sides.append(min(size) * reduction(size, longest))
        except PhotoError:
            continue  # reported when it is read
    if not sides:
        raise PhotoError(f"none of the photos can be read; the first is {photos[0].path}")
    return int(statistics.median(sides))
