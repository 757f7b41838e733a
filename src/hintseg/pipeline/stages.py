"""The stages of a run. Each reads what the stage before wrote in the run folder and writes its own part."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from hintseg.config.run import AttentionRefine, FunctionRefine, RunConfig
from hintseg.config.settings import FitConfig, MethodConfig
from hintseg.data.dataset import PhotoDataset
from hintseg.data.kept import FeatureDataset
from hintseg.data.photos import photo_size
from hintseg.data.transforms import TrainingTransform, reduction
from hintseg.errors import PhotoError, RunError, join
from hintseg.files.owned import mended, stays
from hintseg.hints.masks import read_taught
from hintseg.labellers.labeller import Evidence
from hintseg.methods.attention import AttentionWalk
from hintseg.methods.deeplab import multi_scale_logits
from hintseg.methods.method import Method
from hintseg.methods.refiner import Refiner, RefinerConfig
from hintseg.methods.segmenter import SegmenterConfig
from hintseg.methods.taught import with_teacher
from hintseg.pipeline.each_photo import each_photo, on_threads
from hintseg.pipeline.evidence import EvidenceStore, keeps_trust, marks_of, teaches_trust
from hintseg.pipeline.extras import write_pictures_of
from hintseg.pipeline.kept import keep
from hintseg.pipeline.learn import learn
from hintseg.pipeline.maps import (
    choose,
    cut_maps,
    readable,
    record,
    score,
    tag_rows,
    write_class_maps,
)
from hintseg.pipeline.photo_masks import PhotoMasks
from hintseg.pipeline.plan import (
    UNHINTED,
    combine,
    direct,
    labelled_by,
    learns_unhinted,
    needs_of,
    of_person,
    overruled,
    placed,
    shows_nothing,
)
from hintseg.pipeline.rounds import Rounds, as_before, last_labels
from hintseg.pipeline.sharpen import refine_by_function
from hintseg.pipeline.tiles import strongest_grown, tiled
from hintseg.refine import dense_crf
from hintseg.registry import WRAPPERS, resolve
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MetricRow, Stage
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import MaskStore, read_label_png, write_mask
from hintseg.store.trust import read_trust, write_trust
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo, Supervision
from hintseg.wrappers.wrapper import Wrapper

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def localize(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Train the localizer, write class maps of the training photos and cut them into seeds."""
    settings = config.localize
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has no localizer")
    chosen_wrapper = config.wrapper
    wrapper = None if chosen_wrapper is None else wrapper_class(chosen_wrapper.name)(run, config, photos)
    method = train_on_photos(run, "localize", settings, photos, config, watch, wrapper=wrapper)
    if wrapper is not None and machine.rank() == 0:
        wrapper.draw(method)
    write_class_maps(run, "localize", method, photos, config, watch)
    chosen = choose(run, "localize", photos, config.maps.area, config.maps.threshold)
    how = f"maps of scales {list(config.maps.scales)}, flips merged by {config.maps.flip}; tags used at test time"
    trust = config.refine is None and teaches_trust(config)
    record(run, "localize", cut_maps(run, "localize", "seed", photos, chosen, how, watch, trust=trust))


def wrapper_class(name: str) -> type[Wrapper]:
    """Return what wraps a localizer by that name."""
    kind: type[Wrapper] = resolve("wrapper", name, WRAPPERS)
    return kind


def refine(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Sharpen the seeds into pseudo masks, by a function, a network that learns from them, or attention."""
    settings = config.refine
    if isinstance(settings, FunctionRefine):
        threshold = _read_threshold(run, "localize")
        refine_by_function(run, settings, config, photos, threshold, watch)
        if machine.rank() == 0:
            how = f"{settings.method} on class maps; tags used at test time"
            run.add_metrics("refine", score(run, "refine", "pseudo mask", "train", how, threshold))
    elif isinstance(settings, RefinerConfig | AttentionRefine):
        network: Method | AttentionWalk
        if isinstance(settings, AttentionRefine):
            network, along = AttentionWalk(settings), f"the attention of {settings.backbone.name}"
        else:
            labels = _write_labels(run, settings, photos, config, watch)
            network = train_on_photos(run, "refine", settings, photos, config, watch, labels)
            along = f"what {settings.method} learned"
        _walk(run, network, photos, config, watch)
        chosen = choose(run, "refine", photos, config.maps.area, "auto")
        how = f"class maps after the random walk along {along}; tags used at test time"
        trust = teaches_trust(config)
        record(run, "refine", cut_maps(run, "refine", "pseudo mask", photos, chosen, how, watch, trust=trust))


def segment(run: RunFolder, config: RunConfig, photos: Sequence[Photo], val: Sequence[Photo], watch: Watch) -> None:
    """Train the segmenter on the masks and predict the validation photos."""
    settings = config.segment
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has no segmenter")
    rounds, source = _labels_to_learn(run, config, photos, watch)
    last = settings.rounds if isinstance(settings, SegmenterConfig) and rounds.anew else 1
    while True:
        method = train_on_photos(run, "segment", settings, photos, config, watch, rounds=rounds)
        if rounds.done + 1 >= last:
            break
        rounds.end(method, photos, config, watch)
    store, rows = MaskStore(run.stage("segment") / "masks", run.classes, run.background), list[MetricRow]()
    if last > 1:
        source += f", and anew after each of {last - 1} rounds"
        rows = _label_learned(run, rounds, method, store, config, photos, val, watch)
    if val:
        predict_photos(method, val, partial(_write_mask, store), config, watch)
        how = f"trained on {source}; {read_out(config)}; no tags at test time"
        if machine.rank() == 0:
            rows += score(run, "segment", "segmentation", "val", how, None, photos=val)
        shown = config.trainer.pictures
        write_pictures_of(run, "segment", method, val[:: max(1, len(val) // max(1, shown))][:shown], config, watch)
        if machine.rank() == 0:
            run.update_stage("segment", shows=method.shows)
    if machine.rank() == 0 and (val or last > 1):
        store.finish()
        run.add_metrics("segment", rows)


def _label_learned(
    run: RunFolder,
    rounds: Rounds,
    method: Method,
    store: MaskStore,
    config: RunConfig,
    photos: Sequence[Photo],
    val: Sequence[Photo],
    watch: Watch,
) -> list[MetricRow]:
    """Write the masks of the photos that a segmenter learned from in rounds, as its last one sees them; judge them."""
    judged = {photo.id for photo in val}  # a photo in both splits gets the mask that does not know its tags
    learned = [photo for photo in photos if photo.id not in judged]
    rounds.look(method, learned, partial(write_learned, store), config, watch)
    masks = PhotoMasks(run)
    made = [p for p in learned if p.id not in rounds.anew and p.id in masks.photos and p.hints.mask is None]

    def copy(photo: Photo) -> None:
        mask = masks.read(photo.id)
        if mask is not None:
            write_learned(store, photo, mask)

    on_threads("masks of other hints", made, copy, watch)
    if machine.rank() != 0:
        return []
    sharp = f", sharpened by {config.refine.method}" if isinstance(config.refine, FunctionRefine) else ""
    how = f"what the last round says of the photos it learned from{sharp}; tags used at test time"
    run.update_stage("segment", learned_masks=True)
    known = [photo for photo in learned if photo.hints.mask is None]
    return score(run, "segment", "final mask", "train", how, None, photos=known)


def read_out(config: RunConfig) -> str:
    """Say how a segmenter is read out."""
    flips = " with flips" if config.test.flip else ""
    return f"scales {list(config.test.scales)}{flips}, {'DenseCRF' if config.test.crf else 'no CRF'}"


def _write_mask(store: MaskStore, photo: Photo, mask: Bytes, quality: float) -> None:
    store.write(photo.id, mask, quality=quality)


def write_learned(store: MaskStore, photo: Photo, mask: Bytes, quality: float | None = None) -> None:
    """Write the mask of a photo that was learned from; one that was mended by hand while the run was stopped stays."""
    if not stays(store.path(photo.id)):
        store.write(photo.id, mask, quality=quality)


def _labels_to_learn(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> tuple[Rounds, str]:
    """Write what the segmenter learns from in its first round, and return what reads it, and its source in words.

    It goes to ``RUN/labels``, and with `segment.trust` to ``RUN/trust``, where it is not trusted wholly. A mask that a
    person gave or mended wins; else what marks and tags say is combined, and where no stage made anything of them, the
    pixels under strokes and clicks teach alone. Labels are apart from masks, which are judged: a label may be 255 where
    nothing is known. What a person said of single pixels on the review page wins over all of it.

    Raises:
        RunError: There are none: no stage before made any, and nothing that is said may be learned from directly.
    """
    by_marks, by_tags = run.masks_of(("propose",)), run.masks_of(("refine", "localize"))
    taught = sum(photo.hints.mask is not None for photo in photos)
    made = [found for found in (by_marks, by_tags) if found is not None]
    marked = sum(placed(photo.hints) and photo.hints.mask is None for photo in photos)
    if not (made or taught or marked or direct(config) & {Supervision.BOXES, Supervision.TAGS}):
        raise RunError(
            f"there are no masks in {run.path} to learn from, and true masks teach only where data.learn_masks says "
            "so; set it, or choose a recipe with a stage that makes masks"
        )
    labels, trusted, trust = run.path / "labels", run.path / "trust", teaches_trust(config)
    kept = (keeps_trust(config), trust)
    stores = [
        None if one is None else EvidenceStore(run, one.stage, trust=own)
        for one, own in zip((by_marks, by_tags), kept, strict=True)
    ]

    def guessed(photo: Photo) -> bool:
        """Return whether a photo's labels are made of its tags, or spread from clicks and strokes."""
        boxed = photo.hints.objects and stores[0] is not None and stores[0].done(photo)
        if photo.hints.mask is not None or boxed:
            return False
        made_of = [store for store in stores if store is not None and store.done(photo)]
        return bool(made_of) and not any(mended(store.masks.path(photo.id)) for store in made_of)

    last = last_labels(run, config, watch)

    def write(photo: Photo) -> None:
        said = read_taught(photo, n_classes=len(run.classes), background=run.background)
        if said is None:
            made_of = [store for store in stores if store is not None and store.done(photo)]
            by_hand = any(mended(store.masks.path(photo.id)) for store in made_of)
            marks = None if by_hand else marks_of(photo, run, config)
            of_marks, of_tags = (None if store is None else store.read(photo) for store in stores)
            found = combine(photo.hints.tags, of_marks, of_tags, marks, background=run.background)
            if found is not None and guessed(photo):
                found = as_before(last.get(photo.path.resolve()), photo, found, marks)
            if found is None and run.background and shows_nothing(photo.hints):
                found = Evidence(np.zeros(photo_size(photo.path), np.uint8))
        else:
            found = Evidence(said)
        if person := of_person(photo.hints):
            found = overruled(found, person, photo_size(photo.path))
        if found is not None:
            write_mask(labels / f"{photo.id}.png", found.pixels)
        path = trusted / f"{photo.id}.png"
        if trust and found is not None and found.trust is not None:
            write_trust(path, found.trust)
        elif trust and path.is_file():
            path.unlink()  # of a mask that was mended since

    on_threads("labels", photos, write, watch)  # always: masks may have been mended by hand since
    sources = [f"stage '{found.stage}'" for found in made]
    words = [f"masks of {join(sources)}"] if sources else []
    if taught:
        words.append(f"true masks of {taught} photos" if sources or marked else "true masks")
    if marked:
        words.append(f"points or scribbles of {marked} photos")
    if not words:
        words.append(f"{join(sorted(direct(config)))} alone")

    def read(photo: Photo) -> Floats | None:
        label = labels / f"{photo.id}.png"
        return read_trust(trusted / f"{photo.id}.png", read_label_png(label)) if label.is_file() else None

    anew = {photo.id for photo in photos if guessed(photo)}
    spread = (lambda _: None) if stores[0] is None else stores[0].read
    return Rounds(run, anew, _label_reader(labels), read if trust else None, spread), " and ".join(words)


def predict_photos(
    method: Method,
    photos: Sequence[Photo],
    write: Callable[[Photo, Bytes, float], object],
    config: RunConfig,
    watch: Watch,
    *,
    tagged: int | None = None,
) -> int:
    """Segment photos with a trained segmenter.

    Args:
        method: The segmenter.
        photos: The photos.
        write: Called on a thread with each photo of this process's share, its mask (H, W) uint8 0..K, and the mean
            probability of the winning class.
        config: Settings of the test.
        watch: Told about the progress.
        tagged: K, where the photos' tags are known and classes outside of them cannot win.

    Returns:
        How many photos this process segmented.
    """
    test = config.test

    def read(group: list[Photo], pixels: Tensor) -> Tensor:
        images = pixels.float() / 255
        logits = multi_scale_logits(method.segment, images, scales=test.scales, flip=test.flip, merge=test.merge)
        if tagged is not None:
            absent = pad(tag_rows(group, tagged) == 0, (1, 0)).to(pixels.device)  # background may always be there
            logits = logits.masked_fill(absent[:, :, None, None], -torch.inf)
        probabilities = logits.float().softmax(dim=1)
        if test.crf is not None:
            probabilities = dense_crf(probabilities, pixels, **test.crf.model_dump(exclude={"method"}))
        return probabilities

    def make(group: list[Photo], pixels: Tensor) -> Iterable[tuple[Bytes, float]]:
        size = photo_size(group[0].path)
        if max(pixels.shape[-2:]) <= test.tile:
            return (strongest_grown(probabilities, size) for probabilities in read(group, pixels))
        return (
            tiled(partial(read, [photo]), own, size, tile=test.tile) for photo, own in zip(group, pixels, strict=True)
        )

    return each_photo(
        "predicting", photos, make, lambda photo, made: write(photo, *made), config, watch, network=method
    )


def train_on_photos(
    run: RunFolder,
    stage: Stage,
    settings: MethodConfig,
    photos: Sequence[Photo],
    config: RunConfig,
    watch: Watch,
    masks: Callable[[Photo], Bytes | None] | None = None,
    *,
    rounds: Rounds | None = None,
    wrapper: Wrapper | None = None,
    after_epoch: Callable[[Method, int, int], None] | None = None,
) -> Method:
    """Train a stage's network on whole photos, within its wrapper where it has one, or for its next round."""
    shown = evenly(photos, config) if isinstance(settings, SegmenterConfig) else photos
    sources = None if wrapper is None else wrapper.sources
    labels = masks if wrapper is None else wrapper.masks
    trust, start, seed = None, None, config.seed
    if rounds is not None:
        labels, trust = rounds.labels, rounds.trust if teaches_trust(config) else None
        if rounds.done:
            start, seed = rounds.weights(rounds.done), seed + rounds.done

    def dataset(fit: FitConfig, method: Method) -> PhotoDataset:
        crop, classes = int(fit.crop), len(run.classes)
        kept = keep(method, photos, config, watch) if wrapper is None else None
        if kept is not None:
            return FeatureDataset(shown, classes, kept.read, kept.strides, crop, labels, trust=trust, seed=seed)
        transform = TrainingTransform(crop, fit.scale, fit.jitter, config.data.longest_side)  # type: ignore[arg-type]
        boxes = isinstance(settings, SegmenterConfig) and Supervision.BOXES in settings.needs
        return PhotoDataset(shown, classes, transform, labels, trust=trust, sources=sources, boxes=boxes, seed=seed)

    side = _median_side(photos, config.data.longest_side)
    return learn(
        run,
        stage,
        settings,
        config,
        watch,
        examples=len(shown),
        side=side,
        dataset=dataset,
        wrap=wrapper.wrap if wrapper is not None else with_teacher,
        after_epoch=after_epoch,
        start=start,
    )


def evenly(photos: Sequence[Photo], config: RunConfig) -> Sequence[Photo]:
    """Return the photos of an epoch: beside many without hints the others occur several times, to be half of it."""
    if not learns_unhinted(config):
        return photos
    needs = needs_of(config)
    without = {photo.id for photo in photos if labelled_by(photo, config, needs, one_stage=False) == UNHINTED}
    hinted = [photo for photo in photos if photo.id not in without]
    return [*hinted * (max(1, round(len(without) / len(hinted))) - 1), *photos]


def _write_labels(
    run: RunFolder, settings: RefinerConfig, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> Callable[[Photo], Bytes | None]:
    """Write the labels a refiner learns from: what the class maps say nearly for certain."""
    folder = run.stage("refine") / "labels"
    threshold = _read_threshold(run, "localize")

    def make(group: list[Photo], pixels: Tensor) -> Iterator[Bytes]:
        class_ids, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        rgb = pixels[0].cpu()
        mask = settings.labels(torch.from_numpy(maps), torch.from_numpy(class_ids), rgb, threshold=threshold)
        grown = interpolate(mask[None, None].float(), photo_size(group[0].path), mode="nearest-exact")
        yield grown[0, 0].byte().numpy()

    def write(photo: Photo, mask: Bytes) -> None:
        write_mask(folder / f"{photo.id}.png", mask)

    each_photo(
        "labels for the refiner",
        readable(run, "localize", photos),
        make,
        write,
        config,
        watch,
        batch=1,
        done=lambda photo: (folder / f"{photo.id}.png").is_file(),
    )
    return _label_reader(folder)


def _walk(
    run: RunFolder, network: Method | AttentionWalk, photos: Sequence[Photo], config: RunConfig, watch: Watch
) -> None:
    """Spread the class maps by what the refiner learned, or by attention."""
    if not isinstance(network, Refiner | AttentionWalk):
        raise RunError(f"{run.path / 'refine'} holds no refiner; start the run afresh")
    folder = run.stage("refine") / "maps"

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, Floats]]:
        class_ids, maps = read_maps(run.path / "localize" / "maps" / f"{group[0].id}.npz")
        scores = network.refine(pixels.float() / 255, torch.from_numpy(maps).to(pixels.device))
        yield class_ids, scores.float().clamp(0, 1).cpu().numpy()

    def write(photo: Photo, made: tuple[Bytes, Floats]) -> None:
        write_maps(folder / f"{photo.id}.npz", *made)

    each_photo(
        "random walk",
        readable(run, "localize", photos),
        make,
        write,
        config,
        watch,
        network=network,
        batch=1,
        done=lambda photo: (folder / f"{photo.id}.npz").is_file(),
    )


def _label_reader(folder: Path) -> Callable[[Photo], Bytes | None]:
    def read(photo: Photo) -> Bytes | None:
        path = folder / f"{photo.id}.png"
        return read_label_png(path) if path.is_file() else None

    return read


def _read_threshold(run: RunFolder, stage: Stage) -> float | None:
    sweep = run.sweep(stage)
    if sweep is None:
        raise RunError(
            f"{run.path / stage} has no sweep.json, which says where its maps were cut; start the run afresh"
        )
    return sweep.chosen


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
