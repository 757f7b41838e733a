"""The stage that lets a labeller turn marks (boxes, say) into evidence, and that into masks of photos and objects.

Which labeller it is only the registry knows. One that must learn first is taught by another one, and then asked alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hintseg.config.run import RunConfig
from hintseg.config.settings import MethodConfig
from hintseg.data.photos import photo_size, read_photo
from hintseg.errors import PhotoError, RunError, ShapeError
from hintseg.evaluation.confusion import Confusion
from hintseg.labellers.filled import Filled
from hintseg.labellers.labeller import Evidence, Labeller, LearnedLabeller, labeller_class, without_background
from hintseg.labellers.objects import evidence_of
from hintseg.pipeline.each_photo import each_photo, on_threads
from hintseg.pipeline.evidence import EvidenceStore, keeps_trust
from hintseg.pipeline.learn import learn
from hintseg.pipeline.plan import needs_of, words
from hintseg.run.folder import RunFolder, by_class
from hintseg.run.schema import MetricRow, Show
from hintseg.store.instances import Instances, read_instances, write_instances
from hintseg.store.masks import read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import BACKGROUND, Photo, Supervision

Bytes = npt.NDArray[np.uint8]

logger = logging.getLogger("hintseg")

INSTANCES = "instances"
"""Folder of the stage's final objects; what came before lies in folders of the methods' names beside it."""


def propose(run: RunFolder, config: RunConfig, photos: Sequence[Photo], watch: Watch) -> None:
    """Label photos by their marks: evidence, objects where the labeller tells them apart, and one mask per photo.

    Writes ``RUN/propose/masks/ID.png``, which are judged and have a label in every pixel
    (`hintseg.labellers.labeller.Evidence.complete`), and ``RUN/propose/evidence/ID.png`` of photos of which that is not
    known: what may be learned from, with 255. Objects go to ``RUN/propose/instances/ID.npz``; those that a labeller
    learned from, and its own before a last step, stay beside them, as ``grabcut`` and ``cfs`` do.
    """
    settings, folder = config.propose, run.stage("propose")
    if settings is None:
        raise RunError(f"recipe '{config.recipe}' has nothing that labels photos by their marks")
    needs = needs_of(config)
    store = EvidenceStore(run, "propose", trust=keeps_trust(config))
    labeller: Labeller | LearnedLabeller[Any, Any]
    steps: list[tuple[str, str]] = []
    if isinstance(settings, Labeller):
        labeller = settings.told(config.data)
        _label(run, labeller, store, photos, watch)
    elif isinstance(settings, MethodConfig):
        kind: type[LearnedLabeller[Any, Any]] = labeller_class(settings.method)
        teacher = kind.teacher(settings)
        _teach(folder / teacher.method, teacher, photos, watch)
        labeller = _learn(run, kind, settings, folder / teacher.method, config, photos, watch)
        _look(run, labeller, store, folder / teacher.method, config, photos, watch)
        steps = [(teacher.method, teacher.title), (settings.method, kind.title)]
    else:
        raise RunError(f"propose.method={settings.method} is no labeller; see `hintseg list labellers`")
    if machine.rank() == 0:
        store.finish(photos, watch)
        used = f"{words(needs)} used at test time"
        rows = [_score(run, name, title, photos, f"{title}; {used}") for name, title in steps]
        if Supervision.BOXES in needs:
            rows = [_score(run, None, Filled.title, photos, f"{Filled.title}; {used}"), *rows]
        rows.append(_score(run, "masks", "pseudo mask", photos, f"{labeller.how}; {used}"))
        run.add_metrics("propose", [row for row in rows if row])
        before = [Show(folder=name, title=kind, kind="objects") for name, kind in steps if name != "filled"]
        run.update_stage("propose", shows=before)
    machine.barrier()


def ask(labeller: Labeller, photo: Photo) -> Evidence:
    """Return what a labeller knows of a photo; one that is known to show none of the classes is all background.

    Raises:
        PhotoError: The photo cannot be read.
        ShapeError: The labeller gave labels of another size.
    """
    size = photo_size(photo.path)
    rgb = read_photo(photo.path) if labeller.sees else np.broadcast_to(np.uint8(0), (*size, 3))
    if not labeller.needs & photo.hints.kinds:
        return _nothing(size, objects=Supervision.BOXES in labeller.needs)
    evidence = labeller.label(rgb, photo.hints)
    if evidence.pixels.shape != size:
        raise ShapeError(f"labeller '{labeller.method}' gave labels of {evidence.pixels.shape}, {size} is needed")
    return evidence


def _nothing(size: tuple[int, int], *, objects: bool) -> Evidence:
    """Return that a photo shows none of the classes."""
    none = Instances(size, np.zeros(0, np.uint8), np.zeros((0, 4), np.int64), []) if objects else None
    return Evidence(np.full(size, BACKGROUND, np.uint8), None, none)


def _each(
    doing: str,
    labeller: Labeller,
    photos: Sequence[Photo],
    write: Callable[[Photo, Evidence], None],
    done: Callable[[Photo], bool],
    watch: Watch,
) -> None:
    """Label the photos of this process that are not done, on all cores, and write what came of it."""

    def one(photo: Photo) -> None:
        try:
            write(photo, ask(labeller, photo))
        except PhotoError as error:
            logger.warning("photo skipped: %s", error)
        except ShapeError as error:
            raise ShapeError(f"{photo.path}: {error}") from error

    on_threads(doing, photos, one, watch, done=done, threads=machine.cores())  # OpenCV lets other threads run meanwhile


def _label(run: RunFolder, labeller: Labeller, store: EvidenceStore, photos: Sequence[Photo], watch: Watch) -> None:
    """Label the photos by what need not learn."""
    folder = run.stage("propose") / INSTANCES

    def write(photo: Photo, evidence: Evidence) -> None:
        _write_objects(folder, photo, evidence.objects)
        store.write(photo, _known(run, evidence))

    _each(labeller.how, labeller, photos, write, store.done, watch)


def _known(run: RunFolder, evidence: Evidence) -> Evidence:
    """Return evidence as the data allows it: what is in no box has a class too, but nobody said which."""
    return evidence if run.background else without_background(evidence)


def _write_objects(folder: Path, photo: Photo, objects: Instances | None) -> None:
    if objects is not None:
        write_instances(folder / f"{photo.id}.npz", objects)


def _teach(folder: Path, teacher: Labeller, photos: Sequence[Photo], watch: Watch) -> None:
    """Write the objects that the network learns from."""

    def write(photo: Photo, evidence: Evidence) -> None:
        _write_objects(folder, photo, evidence.objects)

    _each(teacher.how, teacher, photos, write, lambda photo: (folder / f"{photo.id}.npz").is_file(), watch)


def _learn(
    run: RunFolder,
    kind: type[LearnedLabeller[Any, Any]],
    settings: MethodConfig,
    taught: Path,
    config: RunConfig,
    photos: Sequence[Photo],
    watch: Watch,
) -> LearnedLabeller[Any, Any]:
    """Train the network of a labeller on what its teacher said."""
    ready, gpu = _ready(taught, photos), machine.device(config.trainer).type == "cuda"

    def objects(photo: Photo) -> Instances:
        return read_instances(taught / f"{photo.id}.npz")

    def dataset(fit: Any, _network: Any = None) -> Any:
        return kind.examples(settings, fit, ready, len(run.classes), objects, gpu=gpu, seed=config.seed)

    side, examples = kind.side(settings, gpu=gpu), len(dataset(settings.fit))
    network = learn(run, "propose", settings, config, watch, examples=examples, side=side, dataset=dataset)
    return kind(network, settings, len(run.classes), gpu=gpu)


def _ready(taught: Path, photos: Sequence[Photo]) -> list[Photo]:
    """Return the photos that the teacher labelled: broken ones were reported and left out."""
    return [photo for photo in photos if (taught / f"{photo.id}.npz").is_file()]


def _look(
    run: RunFolder,
    labeller: LearnedLabeller[Any, Any],
    store: EvidenceStore,
    taught: Path,
    config: RunConfig,
    photos: Sequence[Photo],
    watch: Watch,
) -> None:
    """Label the photos; while the network looks at one, the cores finish those before."""
    folder, method = run.stage("propose"), labeller.settings.method

    def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, Any]]:
        rgb = np.ascontiguousarray(pixels[0].permute(1, 2, 0).cpu().numpy())
        yield rgb, labeller.look(rgb, group[0].hints)

    def write(photo: Photo, made: tuple[Bytes, Any]) -> None:
        rgb, seen = made
        evidence, before = labeller.conclude(rgb, photo.hints, seen)
        _write_objects(folder / method, photo, before)
        _write_objects(folder / INSTANCES, photo, evidence.objects)
        store.write(photo, _known(run, evidence))

    each_photo(
        "masks of boxes",
        _ready(taught, photos),
        make,
        write,
        config,
        watch,
        network=labeller.network,
        done=store.done,
        batch=1,
        whole=True,
        heavy=True,  # outlines are cut from whole photos, and each box has a map as large as it
    )


def _score(run: RunFolder, name: str | None, kind: str, photos: Sequence[Photo], how: str) -> MetricRow | None:
    """Compare masks with the truth, where there is any.

    Args:
        run: The run.
        name: `masks`, or the folder of objects, which are merged into masks here; None: the filled boxes.
        kind: What was judged.
        photos: The photos; those without a mask are left out.
        how: How it was made.
    """
    folder = run.stage("propose")
    confusion, judged = Confusion(len(run.classes), background=run.background), 0
    for photo in photos:
        truth, made = run.truth_path(photo.id), run.mask_path("propose", photo.id)
        objects = folder / str(name) / f"{photo.id}.npz"
        if not truth.is_file() or not made.is_file():
            continue
        if name == "masks":
            mask: Bytes | None = read_label_png(made)
        elif name is None:
            mask = _known(run, ask(Filled(), photo)).complete(run.background)
        elif objects.is_file():
            mask = _known(run, evidence_of(read_instances(objects), photo.hints)).complete(run.background)
        else:
            continue
        if mask is not None:
            confusion.add(read_label_png(truth), mask)
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
