"""Score a folder of masks, or of class maps, against a folder of true masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hintseg.errors import HintsegError, LabelError, list_problems
from hintseg.evaluation.boundary import BoundaryIou
from hintseg.evaluation.confusion import Confusion
from hintseg.evaluation.sweep import THRESHOLDS, SeedSweep, winners
from hintseg.store.maps import read_maps
from hintseg.store.masks import MaskStore, read_label_png


@dataclass(frozen=True, slots=True)
class Scores:
    """How good the masks of a folder are.

    Attributes:
        photos: Photos scored.
        miou: Class mean of the IoU, 0..1; at the oracle threshold where class maps were swept.
        iou: IoU by class name, 0..1; None where the class occurs neither in truth nor in prediction.
        missing: Ids with a truth but without a mask, not scored.
        extra: Ids with a mask but without a truth, not scored.
        protocol: What was done, in words.
        pixel_accuracy: Share of pixels predicted right, 0..1; None for swept class maps, as the three after it.
        mean_accuracy: Class mean of the share of true pixels predicted right, 0..1.
        boundary_iou: Class mean of the boundary IoU, 0..1.
        left_out: Share of the pixels with a truth that were left out because the prediction is 255.
        threshold: The background threshold of `miou`, chosen on the truth (an oracle); None if nothing was swept.
        thresholds: The background thresholds swept; None if nothing was swept.
        curve: The mean IoU at each of `thresholds`.
    """

    photos: int
    miou: float
    iou: dict[str, float | None]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    protocol: str
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    boundary_iou: float | None = None
    left_out: float | None = None
    threshold: float | None = None
    thresholds: tuple[float, ...] | None = None
    curve: tuple[float, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the scores as plain values for `json.dump`."""
        return asdict(self)


def evaluate_folders(
    masks: Path,
    truth: Path,
    *,
    classes: Sequence[str] | None = None,
    background: bool | None = None,
    split: Sequence[str] | None = None,
    workers: int = 2,
) -> Scores:
    """Score masks (PNG) or class maps (npz) against true masks (PNG) of the same names, in one pass.

    Class maps of data with a background are scored as seeds at 60 background thresholds in that pass; of data without
    one, each pixel takes its largest map. True pixels of 255 are left out, and so are predicted ones (their share is
    reported).

    Args:
        masks: Folder of index PNGs, or of class maps as `hintseg.store.maps.write_maps` makes them; sub-folders count.
        truth: Folder of index PNGs.
        classes: Names of the K foreground classes. None: from the manifest in `masks`; without one, the labels found.
        background: Whether pixels may belong to no class. None: from the manifest in `masks`, otherwise yes.
        split: Photo ids to score, which must all be there. None: the ids in both folders.
        workers: Threads.

    Raises:
        LabelError: No pairs, files missing for `split`, wrong sizes, labels outside the class list, files that cannot
            be read, or no pixel to score; all problems at once.
    """
    found, truths = _files(masks, (".png", ".npz")), _files(truth, (".png",))
    ids = _pairs(found, truths, split, masks, truth)
    if classes is None and (masks / "manifest.json").is_file():
        store = MaskStore.load(masks)
        classes, background = store.classes, store.background if background is None else background
    background = background is not False
    known = _MOST if classes is None else len(classes)
    if known > _MOST:
        raise LabelError(f"{known} classes are named; a mask holds at most {_MOST}, so this is another list")

    def count(id: str) -> _Tally | str:
        try:
            return _count(found[id], truths[id], _Tally.empty(known, background))
        except HintsegError as error:
            return f"{id}: {error}"

    total, problems = _Tally.empty(known, background), []
    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(count, ids):
            if isinstance(part, str):
                problems.append(part)
            else:
                total = total + part
    if not problems and np.isnan(total.iou()).all():
        problems.append("no pixel to score: every true pixel is 255 or every prediction is")
    if problems:
        raise LabelError(list_problems(f"{masks} against {truth}", problems))

    missing, extra = (truths.keys() - found.keys(), found.keys() - truths.keys()) if split is None else ((), ())
    return _scores(total, len(ids), classes, background, tuple(sorted(missing)), tuple(sorted(extra)))


_MOST = 254
"""The most classes a mask file can hold; what is counted where no class list is known."""


@dataclass(slots=True)
class _Tally:
    """The counts of some photos: the first two of masks, the last of swept class maps."""

    confusion: Confusion
    boundary: BoundaryIou
    sweep: SeedSweep

    @classmethod
    def empty(cls, classes: int, background: bool) -> _Tally:
        return cls(
            Confusion(classes, background=background), BoundaryIou(classes, background=background), SeedSweep(classes)
        )

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(self.confusion + other.confusion, self.boundary + other.boundary, self.sweep + other.sweep)

    def swept(self) -> bool:
        return bool(self.sweep.pixels)

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the IoU of label 0..K; at the oracle threshold where class maps were swept."""
        if not self.swept():
            return self.confusion.iou()
        best: npt.NDArray[np.float64] = self.sweep.iou()[THRESHOLDS.index(self.sweep.best()[0])]
        return best


def _count(path: Path, truth_path: Path, tally: _Tally) -> _Tally:
    """Count one photo into an empty tally."""
    truth = read_label_png(truth_path)
    if path.suffix == ".png":
        prediction = read_label_png(path)
    else:
        class_ids, maps = read_maps(path)
        if tally.confusion.background:
            tally.sweep.add(truth, class_ids, maps)
            return tally
        prediction = winners(class_ids.astype(np.int64), maps, truth.shape)[0].astype(np.uint8)
    tally.confusion.add(truth, prediction)
    tally.boundary.add(truth, prediction)
    return tally


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files below `folder` by id, of the first suffix that occurs.

    Raises:
        LabelError: There is no such folder.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder; give a folder of index PNGs")
    for suffix in suffixes:
        files = {p.relative_to(folder).as_posix().removesuffix(suffix): p for p in folder.rglob(f"*{suffix}")}
        if files:
            return files
    return {}


def _pairs(
    found: Mapping[str, Path], truths: Mapping[str, Path], split: Sequence[str] | None, masks: Path, truth: Path
) -> list[str]:
    """Return the ids to score, sorted.

    Raises:
        LabelError: There are none, or a file of `split` is missing.
    """
    if split is None:
        ids = sorted(found.keys() & truths.keys())
        if not ids:
            example = f"{min(found, default='nothing')} there, {min(truths, default='nothing')} here"
            raise LabelError(
                f"no file of {masks} ({len(found)} files) has the name of one in {truth} ({len(truths)} files): "
                f"{example}; give two folders of files with the same names"
            )
        return ids
    ids = sorted(set(split))
    problems = [f"{id}: no mask in {masks}" for id in ids if id not in found]
    problems += [f"{id}: no truth in {truth}" for id in ids if id not in truths]
    if not ids:
        problems = ["no photo id is listed"]
    if problems:
        raise LabelError(list_problems(f"the split of {len(ids)} photos", problems))
    return ids


def _scores(
    total: _Tally,
    photos: int,
    classes: Sequence[str] | None,
    background: bool,
    missing: tuple[str, ...],
    extra: tuple[str, ...],
) -> Scores:
    """Put the counts into words and numbers."""
    iou = total.iou()
    if classes is None:
        classes = [f"class {label}" for label in range(1, int(np.flatnonzero(~np.isnan(iou)).max()) + 1)]
    values = {name: None if np.isnan(v) else float(v) for name, v in zip(("background", *classes), iou, strict=False)}
    if not background:
        del values["background"]
    scored = f"{len(classes)} classes{' and background' if background else ', no background'}"
    protocol = f"Mean IoU over {scored} from one confusion matrix over {photos} photos; true pixels of 255 left out."
    if missing:
        protocol += f" {len(missing)} photos with a truth have no mask and are not scored."
    if extra:
        protocol += f" {len(extra)} masks have no truth and are not scored."
    if total.swept():
        threshold, miou = total.sweep.best()
        return Scores(
            photos=photos,
            miou=miou,
            iou=values,
            missing=missing,
            extra=extra,
            threshold=threshold,
            thresholds=THRESHOLDS,
            curve=tuple(total.sweep.miou().tolist()),
            protocol=f"{protocol} Class maps at background threshold {threshold:g}, the best of "
            f"{len(THRESHOLDS)} on the truth (oracle).",
        )
    confusion = total.confusion
    counted = int(confusion.matrix.sum()) + confusion.left_out
    share = confusion.left_out / counted
    if share:
        protocol += f" {share:.1%} of the pixels left out because the prediction is 255."
    return Scores(
        photos=photos,
        miou=confusion.miou(),
        iou=values,
        pixel_accuracy=confusion.pixel_accuracy(),
        mean_accuracy=confusion.mean_accuracy(),
        boundary_iou=total.boundary.miou(),
        left_out=share,
        missing=missing,
        extra=extra,
        protocol=protocol,
    )
