"""The verbs: typed and thin. The command line calls exactly these."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hintseg.errors import ConfigError, PhotoError, RunError
from hintseg.pipeline.folder import RunFolder, read_json
from hintseg.types import Photo

if TYPE_CHECKING:
    from hintseg.evaluation.folders import Scores
    from hintseg.exporting import ExportReport
    from hintseg.hints.check import CheckReport
    from hintseg.training.watch import Watch

# Each verb imports its own rooms when called: checking or evaluating should not wait for torch.

Bytes = npt.NDArray[np.uint8]
Settings = Sequence[str] | Mapping[str, Any]

MARK = ".hintseg"
"""Empty file in a folder of masks: what is in the folder was written by hintseg and may be replaced."""

logger = logging.getLogger("hintseg")


@dataclass(frozen=True)
class Run:
    """A finished (or unfinished) run.

    Attributes:
        path: The run folder.
    """

    path: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The result rows: stage, kind, split, miou (0..1), iou per class, threshold, oracle, protocol."""
        return list(read_json(self.path / "metrics.json"))

    def masks(self, out: Path | str | None = None, *, overlays: bool = True) -> Path:
        """Write the masks of the training photos; see `hintseg.masks`."""
        return masks(self.path, out, overlays=overlays)

    def predict(self, photos: Path | str, out: Path | str = "predictions", *, overlays: bool = True) -> Path:
        """Segment new photos; see `hintseg.predict`."""
        return predict(self.path, photos, out, overlays=overlays)

    def report(self) -> Path:
        """Write the report again; see `hintseg.report`."""
        return report(self.path)

    def export(self, out: Path | str | None = None, *, size: tuple[int, int] = (512, 512)) -> ExportReport:
        """Export the segmenter as ONNX; see `hintseg.export`."""
        return export(self.path, out, size=size)


def load(run: Path | str) -> Run:
    """Open a run folder.

    Raises:
        RunError: There is no run.
    """
    return Run(RunFolder.open(run).path)


def train(
    data: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    recipe: str | Path = "vwe",
    format: str = "auto",
    settings: Settings = (),
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Learn masks and a segmentation model from photos and hints.

    Args:
        data: Folder of the photos.
        out: Run folder to make.
        labels: Label file or folder, where it is not found below `data` by itself.
        recipe: A built-in recipe's name or a YAML file.
        format: Label format; `auto` recognises it.
        settings: Dotted settings: ``{"localize.fit.epochs": 10}`` or ``["localize.fit.epochs=10"]``.
        resume: Go on with the run in `out`; finished stages are not run again.
        overwrite: Start the run in `out` afresh.
        watch: Told about the progress; by default lines go to the logger ``hintseg``.

    Returns:
        The run: `metrics`, `masks()`, `predict()`, `report()`, `export()`.

    Raises:
        HintsegError: Anything the user can mend; nothing is half-written.
    """
    from hintseg.config.loader import load_config
    from hintseg.pipeline.recipe import run_recipe

    block = {"path": str(data), "labels": None if labels is None else str(labels), "format": format}
    config = load_config(recipe, _words(settings), data=block)
    return Run(run_recipe(config, Path(out), resume=resume, overwrite=overwrite, watch=watch).path)


def masks_from_boxes(
    data: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    format: str = "auto",
    settings: Settings = (),
    overlays: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Turn the boxes of a data set into masks of each object and of each photo.

    Runs the recipe `boxes` without its segmenter on all photos that have boxes, in ``OUT/run``, and writes its masks.

    Args:
        data: Folder of the photos.
        out: Folder to write to.
        labels: Label file or folder, where it is not found below `data` by itself.
        format: Label format; `auto` recognises it.
        settings: Dotted settings, as for `train`: ``propose.method=grabcut`` trains nothing.
        overlays: Whether to draw each mask over its photo too.
        resume: Go on after a stop.
        overwrite: Start afresh.
        watch: Told about the progress.

    Returns:
        The folder, as `masks` writes it.

    Raises:
        HintsegError: Anything the user can mend; nothing is half-written.
    """
    _refuse_foreign(Path(out))
    run = train(
        data,
        Path(out) / "run",
        labels=labels,
        recipe="boxes",
        format=format,
        settings=["segment=null", "data.train=all", *_words(settings)],
        resume=resume,
        overwrite=overwrite,
        watch=watch,
    )
    return masks(run.path, out, overlays=overlays, watch=watch)


def masks(run: Path | str, out: Path | str | None = None, *, overlays: bool = True, watch: Watch | None = None) -> Path:
    """Write the masks of a run's training photos: palette PNG, COCO JSON (RLE), overlays.

    A run from boxes has masks of each object too. Then ``coco.json`` holds those, and there are ``instances/ID.png``
    (16 bit, objects numbered from 1 in the order of the boxes), ``coco_polygons.json`` and ``yolo/`` (YOLO segment).

    Args:
        run: Run folder.
        out: Folder to write to; ``RUN/masks`` by default.
        overlays: Whether to draw each mask over its photo too.
        watch: Told about the progress.

    Returns:
        The folder: ``png/``, ``coco.json``, ``classes.txt`` and ``overlays/``.

    Raises:
        RunError: The run has no masks yet, or `out` holds what hintseg did not write. Its own earlier masks there are
            replaced.
    """
    from hintseg.store.masks import MaskStore

    folder = RunFolder.open(run)
    made = folder.masks_of_photos()
    if made is None:
        raise RunError(f"{run} has no masks yet; `hintseg train ... --out {run} --resume` makes them")
    target = Path(out) if out is not None else folder.path / "masks"
    store = MaskStore(made[1], folder.classes, folder.background)
    # A photo may be in both splits.
    paths = {row["id"]: Path(row["path"]) for row in read_json(folder.path / "photos.json") if row["split"] == "train"}
    names = [name for name in store.ids() if name in paths]
    found = ((Photo(name, paths[name]), store.read(name)) for name in names)
    files = {name: _file_name(name, paths[name]) for name in names}
    objects = folder.path / "propose" / "instances" if made[0] == "propose" else None
    shown = found if watch is None else watch.each("writing masks", found, len(names))
    return _write_out(target, shown, folder, files, overlays, objects)


def predict(
    run: Path | str,
    photos: Path | str,
    out: Path | str = "predictions",
    *,
    overlays: bool = True,
    watch: Watch | None = None,
) -> Path:
    """Segment new photos with a run's model.

    Args:
        run: Run folder with a trained segmenter.
        photos: A photo, or a folder of photos (sub-folders too).
        out: Folder to write to.
        overlays: Whether to draw each mask over its photo too.
        watch: Told about the progress.

    Returns:
        The folder: ``png/``, ``coco.json``, ``classes.txt`` and ``overlays/``.

    Raises:
        RunError: The run has no segmenter yet, or `out` holds what hintseg did not write. Its own earlier masks there
            are replaced.
        LabelError: There is no photo.
    """
    from hintseg.hints.photos import find_photos
    from hintseg.pipeline.stages import predict_photos
    from hintseg.training import machine
    from hintseg.training.watch import Watch
    from hintseg.training.weights import load_weights

    machine.join()
    folder, photos = RunFolder.open(run), Path(photos)
    if photos.is_file():
        chosen = [Photo(photos.stem, photos)]
    else:
        chosen = [Photo(name, path) for name, path in find_photos(photos).paths.items()]
    method, _, _ = load_weights(folder.path / "segment" / "model.safetensors")
    config = folder.config
    found = ((photo, mask) for photo, mask, _ in predict_photos(method, chosen, config, watch or Watch()))
    files = {photo.id: _file_name(photo.id, photo.path) for photo in chosen}
    return _write_out(Path(out), found, folder, files, overlays)


def evaluate(
    masks: Path | str,
    truth: Path | str,
    *,
    classes: Sequence[str] | None = None,
    split: Sequence[str] | None = None,
    background: bool | None = None,
) -> Scores:
    """Compare a folder of masks (or class maps) with the truth; see `hintseg.evaluation.folders.evaluate_folders`."""
    from hintseg.evaluation.folders import evaluate_folders

    return evaluate_folders(Path(masks), Path(truth), classes=classes, split=split, background=background)


def report(run: Path | str) -> Path:
    """Write the run's ``report.html`` again and return its path."""
    from hintseg.reporting import write_report

    return write_report(RunFolder.open(run).path)


def export(run: Path | str, out: Path | str | None = None, *, size: tuple[int, int] = (512, 512)) -> ExportReport:
    """Export the run's segmenter as ONNX and check it against torch.

    Args:
        run: Run folder with a trained segmenter.
        out: File to write; ``RUN/model.onnx`` by default.
        size: (H, W) the model is traced and checked at, pixels.

    Raises:
        ConfigError: `size` is below 32.
        WeightsError: The run has no segmenter yet.
        RunError: The exported model does not agree with torch, or `hintseg[export]` is not installed.
    """
    from hintseg.exporting import export_onnx
    from hintseg.training.weights import load_weights

    if min(size) < 32:
        raise ConfigError(f"size {size[0]} x {size[1]} given, at least 32 x 32 is needed; try --size 512 512")
    folder = RunFolder.open(run)
    method, classes, background = load_weights(folder.path / "segment" / "model.safetensors")
    target = Path(out) if out is not None else folder.path / "model.onnx"
    return export_onnx(method, target, size=size, classes=classes, background=background)


def check(
    data: Path | str,
    *,
    labels: Path | str | None = None,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
) -> CheckReport:
    """Look at photos and labels before training: what is there, and what will hurt.

    Args:
        data: Folder of the photos.
        labels: Label file or folder, where it is not found below `data` by itself.
        format: Label format; `auto` recognises it.
        unlabelled: Value of scribble images that means "nothing known here".
        background: Whether pixels may belong to no class.

    Raises:
        LabelError: All problems of the label files at once.
    """
    from hintseg.hints import read_hints
    from hintseg.hints.check import check as check_hints

    hint_set = read_hints(
        Path(data), Path(labels) if labels else None, format=format, unlabelled=unlabelled, background=background
    )
    return check_hints(hint_set)


def demo(
    out: Path | str = "runs/demo",
    *,
    settings: Settings = (),
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Run the whole main job on the embedded synthetic data set `shapes`.

    Args:
        out: Run folder to make; the photos lie in a folder beside it.
        settings: Dotted settings, as for `train`.
        resume: Go on with the run in `out` after a stop.
        overwrite: Start the run in `out` afresh.
        watch: Told about the progress.

    Raises:
        RunError: The folder of the run or of the photos holds something else.
    """
    from hintseg.data.shapes import write_shapes

    out = Path(out)
    if not out.name:
        raise RunError(f"{out} is no folder to make; name one, such as --out runs/demo")
    data = out.with_name(out.name + "-photos")
    if not (data / "classes.txt").is_file():
        write_shapes(data)
    return train(data, out, recipe="demo", settings=settings, resume=resume, overwrite=overwrite, watch=watch)


def _words(settings: Settings) -> list[str]:
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return list(settings)


def _file_name(id: str, path: Path) -> str:
    """Return a photo's file name; of two photos that differ in it only, the id has the suffix already."""
    return id if id.endswith(path.suffix) else f"{id}{path.suffix}"


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder to write masks to that holds anything but earlier masks and the run they came from."""
    foreign = out.exists() and (not out.is_dir() or any(path.name != "run" for path in out.iterdir()))
    if foreign and not (out / MARK).is_file():
        raise RunError(f"{out} holds files that hintseg did not write there; choose another --out")


def _write_out(
    out: Path,
    found: Iterable[tuple[Photo, Bytes]],
    run: RunFolder,
    files: Mapping[str, str],
    overlays: bool,
    objects: Path | None = None,
) -> Path:
    """Write masks as PNG, COCO and overlays, and those of single objects in the forms other tools read.

    `files` holds the photos' file names by id, `objects` the folder of their objects, where there is one.
    """
    from hintseg.data.photos import read_photo
    from hintseg.store.coco import write_coco
    from hintseg.store.instances import read_instances, write_objects
    from hintseg.store.masks import MaskStore
    from hintseg.store.overlay import write_overlay
    from hintseg.store.pool import write_pool
    from hintseg.training import machine

    if machine.rank() == 0:
        _refuse_foreign(out)
        for earlier in ("png", "overlays", "instances", "yolo"):
            shutil.rmtree(out / earlier, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    machine.barrier()
    store = MaskStore(out / "png", run.classes, run.background)

    def write(photo: Photo, mask: Bytes) -> None:
        store.write(photo.id, mask)
        if not overlays:
            return
        try:
            write_overlay(out / "overlays" / f"{photo.id}.jpg", read_photo(photo.path), mask)
        except PhotoError as error:
            logger.warning("no overlay: %s", error)

    with write_pool() as later:
        for photo, mask in found:
            later(write, photo, mask)
    machine.barrier()
    if machine.rank() == 0:
        store.finish()
        if objects is None:
            write_coco(out / "coco.json", store, files=files)
        else:
            write_objects(
                out, ((id, name, read_instances(objects / f"{id}.npz")) for id, name in files.items()), run.classes
            )
        (out / "classes.txt").write_text("\n".join(run.classes) + "\n", encoding="utf-8")
    machine.barrier()
    return out
