"""The verbs: typed and thin. The command line calls exactly these."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hintseg.errors import ConfigError, PhotoError, RunError
from hintseg.files.lock import refuse_busy
from hintseg.files.owned import adding, kind_of, refuse_foreign, refuse_inputs
from hintseg.label_api import Labels, Missing, Settings, label_paths, setting_words
from hintseg.label_api import check as check
from hintseg.label_api import convert as convert
from hintseg.label_api import simulate as simulate
from hintseg.label_api import study as study
from hintseg.review_api import review as review
from hintseg.review_api import review_list as review_list
from hintseg.review_api import send_review as send_review
from hintseg.review_api import take_review as take_review
from hintseg.run.folder import RunFolder
from hintseg.types import Photo

if TYPE_CHECKING:
    from hintseg.evaluation.folders import Scores
    from hintseg.exporting import ExportReport
    from hintseg.training.watch import Watch

# Each verb imports its own rooms when called: checking or evaluating should not wait for torch.

Bytes = npt.NDArray[np.uint8]

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
        return [row.model_dump() for row in RunFolder(self.path).metrics]

    def masks(self, out: Path | str | None = None, *, overlays: bool = True, overwrite: bool = False) -> Path:
        """Write the masks of the training photos; see `hintseg.masks`."""
        return masks(self.path, out, overlays=overlays, overwrite=overwrite)

    def predict(
        self,
        photos: Path | str,
        out: Path | str = "predictions",
        *,
        overlays: bool = True,
        overwrite: bool = False,
    ) -> Path:
        """Segment new photos; see `hintseg.predict`."""
        return predict(self.path, photos, out, overlays=overlays, overwrite=overwrite)

    def report(self) -> Path:
        """Write the report again; see `hintseg.report`."""
        return report(self.path)

    def export(
        self, out: Path | str | None = None, *, size: tuple[int, int] = (512, 512), overwrite: bool = False
    ) -> ExportReport:
        """Export the segmenter as ONNX; see `hintseg.export`."""
        return export(self.path, out, size=size, overwrite=overwrite)


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
    labels: Labels | None = None,
    recipe: str | Path = "auto",
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
    missing: Missing = "error",
    colours: Path | str | None = None,
    settings: Settings = (),
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Learn masks and a segmentation model from photos and hints.

    Args:
        data: Folder of the photos.
        out: Run folder to make.
        labels: Label file or folder, where it is not found below `data` by itself; or several, which are put together.
        recipe: A built-in recipe's name or a YAML file; `auto`: the one that fits the hints, or that of the run that is
            gone on with.
        format: Label format; `auto` recognises it.
        unlabelled: Value of scribble images that means "nothing known here", 0..255.
        background: Whether pixels may belong to no class.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Table of the colours of colour masks, where none lies beside them: a CSV `name,r,g,b`.
        settings: Dotted settings: ``{"localize.fit.epochs": 10}`` or ``["localize.fit.epochs=10"]``.
        resume: Go on with the run in `out`; finished stages are not run again.
        overwrite: Start the run in `out` afresh: what hintseg wrote there is deleted, and nothing else.
        watch: Told about the progress; by default lines go to the logger ``hintseg``.

    Returns:
        The run: `metrics`, `masks()`, `predict()`, `report()`, `export()`.

    Raises:
        HintsegError: Anything the user can mend; nothing is half-written.
    """
    from hintseg.config.loader import load_config
    from hintseg.pipeline.choose_recipe import AUTO, choose_recipe, recipe_of
    from hintseg.pipeline.recipe import read_data, run_recipe

    block: dict[str, Any] = {
        "path": str(data),
        "labels": None if labels is None else label_paths(labels),
        "format": format,
    }
    given = {
        "unlabelled": unlabelled,
        "background": None if background else "none",
        "missing": None if missing == "error" else missing,
        "colours": None if colours is None else str(colours),
    }
    block |= {name: value for name, value in given.items() if value is not None}  # else settings may say it
    words, hint_set = setting_words(settings), None
    why: Sequence[str] = ()
    if recipe == AUTO and resume:
        recipe = recipe_of(Path(out)) or AUTO
    if recipe == AUTO:
        said = load_config("quick", [word for word in words if word.startswith("data.")], data=block)
        hint_set = read_data(said.data)
        recipe, *why = choose_recipe(hint_set, said)
    config = load_config(recipe, words, data=block)
    run = run_recipe(config, Path(out), resume=resume, overwrite=overwrite, watch=watch, hint_set=hint_set, why=why)
    return Run(run.path)


def train_again(
    run: Path | str,
    out: Path | str,
    *,
    settings: Settings = (),
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Learn from what a person said of a run's masks on the review page: a new run that begins with the old weights.

    Photos, labels and settings are those of the old run. What was accepted, mended or marked teaches beside them, and
    wins over them; a copy of it is kept in ``RUN/review/learned``. What the new run changed is said at its end.

    Args:
        run: The run that was reviewed.
        out: Run folder to make.
        settings: Dotted settings that are others than in the old run.
        resume: Go on with the run in `out`, with what it began to learn from.
        overwrite: Start the run in `out` afresh.
        watch: Told about the progress; by default lines go to the logger ``hintseg``.

    Raises:
        HintsegError: Nothing was reviewed, or anything that `train` raises.
    """
    from hintseg.config.loader import changed_config
    from hintseg.pipeline.recipe import run_recipe
    from hintseg.reviewing.compare import differences
    from hintseg.reviewing.lessons import write_lessons
    from hintseg.reviewing.storage import Review
    from hintseg.training import machine
    from hintseg.training.watch import Watch

    before, out, watch = RunFolder.open(run), Path(out), watch or Watch()
    if out.resolve() == before.path.resolve():
        raise ConfigError(f"{out} is the run that was reviewed, which stays as it is; choose another --out")
    if resume and (out / "config.yaml").is_file():
        config = changed_config(RunFolder.open(out).config, setting_words(settings))
    else:
        refuse_busy(before.path)
        lessons = write_lessons(Review(before))
        own = [f"start={json.dumps(str(before.path.resolve()))}", f"data.review={json.dumps(str(lessons.resolve()))}"]
        config = changed_config(before.config, [*own, *setting_words(settings)])
    made = run_recipe(config, out, resume=resume, overwrite=overwrite, watch=watch)
    if machine.rank() == 0:
        for sentence in differences(before, made):
            watch.line(f"changed: {sentence}")
    return Run(made.path)


_FROM = {
    "boxes": (),
    "strokes": ("propose.method=strokes",),
    "points": ("propose.method=strokes", "localize=null", "refine=null"),
}
"""What the recipes that are named after hints need beside, to make masks of those."""


def masks_from(
    hints: Literal["boxes", "strokes", "points"],
    data: Path | str,
    out: Path | str,
    *,
    labels: Labels | None = None,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
    missing: Missing = "error",
    colours: Path | str | None = None,
    settings: Settings = (),
    overlays: bool = True,
    to: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Turn the boxes, strokes or clicks of a data set into masks of each photo, and of each object in a box.

    Runs the recipe of that name without its segmenter on all photos that have such hints, in ``OUT/run``, and writes
    its masks. Boxes train a small network; strokes and clicks train nothing.

    Args:
        hints: What to make masks from. Strokes and clicks of a photo are both used, whichever is named.
        data: Folder of the photos.
        out: Folder to write to.
        labels: Label file or folder, where it is not found below `data` by itself; or several, which are put together.
        format: Label format; `auto` recognises it.
        unlabelled: Value of scribble images that means "nothing known here", 0..255.
        background: Whether pixels may belong to no class.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Table of the colours of colour masks, where none lies beside them: a CSV `name,r,g,b`.
        settings: Dotted settings, as for `train`: ``propose.method=grabcut`` trains nothing.
        overlays: Whether to draw each mask over its photo too.
        to: Formats the masks are also written in, each in ``OUT/FORMAT``.
        resume: Go on after a stop.
        overwrite: Start afresh; masks that were changed by hand are replaced too.
        watch: Told about the progress.

    Returns:
        The folder, as `masks` writes it.

    Raises:
        HintsegError: Anything the user can mend; nothing is half-written.
    """
    from hintseg.pipeline.output import masks_folder, write_masks

    with masks_folder(Path(out)) as folder:
        run = train(
            data,
            Path(out) / "run",
            labels=labels,
            recipe=hints,
            format=format,
            unlabelled=unlabelled,
            background=background,
            missing=missing,
            colours=colours,
            settings=["segment=null", "data.train=all", *_FROM[hints], *setting_words(settings)],
            resume=resume,
            overwrite=overwrite,
            watch=watch,
        )
        with adding(run.path):
            return write_masks(RunFolder.open(run.path), folder, overlays, overwrite, watch, to)


def masks(
    run: Path | str,
    out: Path | str | None = None,
    *,
    overlays: bool = True,
    overwrite: bool = False,
    to: Sequence[str] = (),
    watch: Watch | None = None,
) -> Path:
    """Write the masks of a run's training photos: palette PNG, COCO JSON (RLE), overlays.

    A run from boxes has masks of each object too. Then ``coco.json`` holds those, and there are ``instances/ID.png``
    (16 bit, objects numbered from 1 in the order of the boxes), ``coco_polygons.json`` and ``yolo/`` (YOLO segment).
    Where only some photos have boxes, the objects of those lie in ``objects/``, and ``coco.json`` holds a region per
    class of all photos.

    Args:
        run: Run folder.
        out: Folder to write to; ``RUN/masks`` by default.
        overlays: Whether to draw each mask over its photo too.
        overwrite: Replace earlier masks there even where somebody changed them.
        to: Formats the masks are also written in, each in ``OUT/FORMAT``.
        watch: Told about the progress.

    Returns:
        The folder: ``png/``, ``coco.json``, ``classes.txt`` and ``overlays/``.

    Raises:
        RunError: The run has no masks yet, or `out` holds what hintseg did not write, or masks that were changed since.
            Its own earlier masks there are replaced.
    """
    from hintseg.pipeline.output import masks_folder, write_masks

    folder = RunFolder.open(run)
    with adding(folder.path), masks_folder(Path(out) if out is not None else folder.path / "masks") as target:
        return write_masks(folder, target, overlays, overwrite, watch, to)


def predict(
    run: Path | str,
    photos: Path | str,
    out: Path | str = "predictions",
    *,
    overlays: bool = True,
    overwrite: bool = False,
    to: Sequence[str] = (),
    watch: Watch | None = None,
) -> Path:
    """Segment new photos with a run's model.

    Args:
        run: Run folder with a trained segmenter.
        photos: A photo, or a folder of photos (sub-folders too).
        out: Folder to write to.
        overlays: Whether to draw each mask over its photo too.
        overwrite: Replace earlier masks there even where somebody changed them.
        to: Formats the masks are also written in, each in ``OUT/FORMAT``.
        watch: Told about the progress.

    Returns:
        The folder: ``png/``, ``coco.json``, ``classes.txt`` and ``overlays/``.

    Raises:
        RunError: The run has no segmenter yet, or `out` holds what hintseg did not write, or masks that were changed
            since. Its own earlier masks there are replaced.
        LabelError: There is no photo.
        PhotoError: None of the photos can be read.
    """
    from hintseg.formats.photos import check_names, find_photos
    from hintseg.pipeline.output import check_formats, clear, file_name, masks_folder, write_as, writing
    from hintseg.pipeline.stages import predict_photos
    from hintseg.training import machine
    from hintseg.training.watch import Watch
    from hintseg.training.weights import load_weights

    machine.join()
    folder, photos = RunFolder.open(run), Path(photos)
    if photos.is_file():
        check_names(photos.parent, [photos.name])
        chosen = [Photo(photos.stem, photos)]
    else:
        chosen = [Photo(name, path) for name, path in find_photos(photos).paths.items()]
    method, _, _ = load_weights(_segmenter(folder))
    config = folder.config
    files = {photo.id: file_name(photo.id, photo.path) for photo in chosen}
    with masks_folder(Path(out)) as target:
        refuse_inputs(target.root, [folder.path, *(photo.path for photo in chosen)])
        check_formats(to)
        clear(target, overwrite)
        with writing(target.root, folder, files, overlays) as write:
            made = predict_photos(method, chosen, lambda photo, mask, _: write(photo, mask), config, watch or Watch())
            if not any(machine.gather(made)):
                raise PhotoError(f"none of {len(chosen)} photos can be read; the first is {chosen[0].path}")
        write_as(target.root, folder, chosen, to)
    return Path(out)


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

    folder = RunFolder.open(run)
    with adding(folder.path):
        return write_report(folder.path)


def export(
    run: Path | str, out: Path | str | None = None, *, size: tuple[int, int] = (512, 512), overwrite: bool = False
) -> ExportReport:
    """Export the run's segmenter as ONNX and check it against torch.

    Args:
        run: Run folder with a trained segmenter.
        out: File to write; ``RUN/model.onnx`` by default.
        size: (H, W) the model is traced and checked at, pixels.
        overwrite: Replace `out` where it exists.

    Raises:
        ConfigError: `size` is below 32.
        WeightsError: The run has no segmenter yet.
        RunError: The exported model does not agree with torch, or `hintseg[export]` is not installed, or `out` exists.
    """
    from hintseg.exporting import export_onnx
    from hintseg.training.weights import load_weights

    if min(size) < 32:
        raise ConfigError(f"size {size[0]} x {size[1]} given, at least 32 x 32 is needed; try --size 512 512")
    folder = RunFolder.open(run)
    method, classes, background = load_weights(_segmenter(folder))
    target = Path(out) if out is not None else folder.path / "model.onnx"
    if out is not None and target.exists() and not overwrite:
        raise RunError(f"{target} exists; choose another --out, or replace it with --overwrite")
    with adding(folder.path):
        return export_onnx(method, target, size=size, classes=classes, background=background)


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
    if out.name in ("", ".."):
        raise RunError(f"{out} is no folder to make; name one, such as --out runs/demo")
    refuse_foreign(out, "run")
    data = out.with_name(out.name + "-photos")
    if kind_of(data) != "photos":
        write_shapes(data)
    return train(data, out, recipe="demo", settings=settings, resume=resume, overwrite=overwrite, watch=watch)


def _segmenter(run: RunFolder) -> Path:
    """Return where the weights of a run's segmenter lie."""
    if run.seen.segment is None:
        raise RunError(f"{run.path} has no segmenter: its settings say segment=null; give a run that trains one")
    return run.path / "segment" / "model.safetensors"
