"""Score a folder of masks, or of class maps, against a folder of true masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hintseg.errors import HintsegError, LabelError, RunError, join, list_problems
from hintseg.evaluation.boundary import BoundaryIou
from hintseg.evaluation.confusion import Confusion
from hintseg.evaluation.sweep import THRESHOLDS, SeedSweep, winners
from hintseg.formats.colours import find_colours
from hintseg.formats.index_image import (
    LOSSLESS,
    LOSSY,
    Index,
    MaskError,
    black_and_white,
    differing,
    only_ignored,
    open_index,
    tell,
)
from hintseg.formats.layout import read_classes
from hintseg.formats.mask_folders import with_colours
from hintseg.formats.mask_names import affixed
from hintseg.formats.photos import walk
from hintseg.formats.problems import Problems
from hintseg.formats.records import Colour
from hintseg.store.maps import read_maps
from hintseg.store.masks import MaskStore
from hintseg.types import BACKGROUND, IGNORE, MaskFile


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
    """Score masks (index images) or class maps (npz) against true masks of the same names, in one pass.

    Class maps of data with a background are scored as seeds at 60 background thresholds in that pass; of data without
    one, each pixel takes its largest map. True pixels of 255 are left out, and so are predicted ones (their share is
    reported).

    Where both folders list their classes (a manifest, or `classes.txt` in them or beside) in different orders, classes
    are compared by name.

    Args:
        masks: Folder of index images, or of class maps as `hintseg.store.maps.write_maps` makes them; sub-folders
            count.
        truth: Folder of index images.
        classes: Names of the K foreground classes. None: from the manifest in `masks`, or a table of colours beside the
            masks (`hintseg.formats.colours`); without both, the labels found.
        background: Whether pixels may belong to no class. None: from the manifest in `masks`, otherwise yes.
        split: Photo ids to score, which must all be there. None: the ids in both folders.
        workers: Threads.

    Raises:
        LabelError: No pairs, files missing for `split`, lists of classes that contradict each other, wrong sizes,
            labels outside the class list, files that cannot be read or hold no class ids (colours, JPEGs, 0 and 255
            alone), or no pixel to score; all problems at once.
    """
    found, truths = _files(masks, (*LOSSLESS, ".npz")), _files(truth, LOSSLESS)
    ids = _pairs(found, truths, split, masks, truth)
    named = classes is not None
    if classes is None and (masks / "manifest.json").is_file():
        store = MaskStore.load(masks)
        classes, background = store.classes, store.background if background is None else background
    problems = Problems()
    own, true = (
        _order(folder, background is not False) or _coloured(files, folder, classes if named else None, problems)
        for folder, files in ((masks, found), (truth, truths))
    )
    ids_by_name = _by_name(own, true, masks, truth)
    if ids_by_name is not None and not named:
        classes = true
    classes = classes or max(true, own, key=len) or None
    true_files = with_colours({id: MaskFile(truths[id]) for id in ids}, truth, tuple(classes or ()), {}, problems)
    mask_files = {id: MaskFile(found[id]) for id in ids if found[id].suffix.lower() != ".npz"}
    mask_files = with_colours(mask_files, masks, own if ids_by_name is not None else tuple(classes or ()), {}, problems)
    problems.raise_all()
    background = background is not False
    known = _MOST if classes is None else len(classes)
    if known > _MOST:
        raise LabelError(f"{known} classes are named; a mask holds at most {_MOST}, so this is another list")

    def count(id: str) -> _Counted | HintsegError:
        try:
            several = known if classes else 1
            tally = _Tally.empty(known, background)
            return _count(mask_files.get(id, found[id]), true_files[id], tally, several, ids_by_name)
        except HintsegError as error:
            return error

    total, files = _Tally.empty(known, background), _Files()
    wrong, sentences = list[MaskError](), list[str]()
    with ThreadPoolExecutor(workers) as pool:
        for id, part in zip(ids, pool.map(count, ids), strict=True):
            if isinstance(part, MaskError):
                wrong.append(part)
            elif isinstance(part, HintsegError):
                sentences.append(f"{id}: {part}")
            else:
                total = total + part.tally
                files.add(part, found[id], truths[id])
    sentences = [*tell(wrong, len(ids)), *sentences, *files.problems()]
    if sentences:
        raise LabelError(list_problems(f"{masks} against {truth}", sentences))
    if nothing := files.says_nothing(masks, truth, classes or (), background):
        raise LabelError(nothing)
    if np.isnan(total.iou()).all():
        raise LabelError(f"{masks} against {truth}: no pixel to score: every true pixel is 255 or every prediction is")

    missing, extra = (truths.keys() - found.keys(), found.keys() - truths.keys()) if split is None else ((), ())
    scores = _scores(total, len(ids), classes, background, tuple(sorted(missing)), tuple(sorted(extra)))
    by_name = "" if ids_by_name is None else " Classes are compared by name: their order in both folders differs."
    return replace(scores, protocol=f"{scores.protocol}{by_name} {files}")


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


class _Counted(NamedTuple):
    """One photo: its counts, and what its masks hold; None for class maps."""

    tally: _Tally
    truth: Index
    mask: Index | None


class _Files:
    """What the masks of all photos hold."""

    def __init__(self) -> None:
        self._seen: dict[str, Counter[int]] = {"truth": Counter(), "masks": Counter()}
        self._palettes: dict[str, dict[Path, Mapping[int, Colour]]] = {"truth": {}, "masks": {}}

    def add(self, part: _Counted, path: Path, truth_path: Path) -> None:
        """Add those of one photo."""
        for side, file, index in (("truth", truth_path, part.truth), ("masks", path, part.mask)):
            if index is not None:
                self._seen[side].update(np.flatnonzero(np.bincount(index.values.ravel(), minlength=1)).tolist())
                self._palettes[side][file] = index.palette

    def problems(self) -> list[str]:
        """Say where values cannot be class ids."""
        return [f"{wrong}. {self}" for side in self._palettes.values() if (wrong := differing(side))]

    def says_nothing(self, masks: Path, truth: Path, classes: Sequence[str], background: bool) -> str:
        """Say where files hold nothing that could be scored; empty where they do."""
        sides = (("truth", f"the true masks in {truth}"), ("masks", f"the masks in {masks}"))
        for side, what in sides:
            if wrong := only_ignored(self._seen[side], what, classes):
                return wrong
        ids = {value for seen in self._seen.values() for value in seen if BACKGROUND < value < IGNORE}
        if background and self._seen["masks"] and not ids:
            return (
                f"neither {masks} nor {truth} holds a class id, so only background (0) would be compared; give masks "
                "whose values are class ids"
            )
        return ""

    def __str__(self) -> str:
        """Say which values were found."""
        sides = [f"{side} {join([str(v) for v in sorted(seen)], 30)}" for side, seen in self._seen.items() if seen]
        return f"Values found: {'; '.join(sides)}."


def _coloured(
    files: Mapping[str, Path], folder: Path, given: Sequence[str] | None, problems: Problems
) -> tuple[str, ...]:
    """Return the classes of a folder of coloured masks in the order of their ids: the given ones, or its table's."""
    places = (place for file in files.values() for place in (file.parent, file.parent.parent))
    table = find_colours([*dict.fromkeys(places), folder], {}, problems)
    return () if table is None else tuple(given or table.classes)


def _by_name(own: tuple[str, ...], true: tuple[str, ...], masks: Path, truth: Path) -> npt.NDArray[np.uint8] | None:
    """Return the truth's id for each id of the masks, (256,); None where they are the same.

    Raises:
        LabelError: A class has another id in the truth, and the truth has not all classes of the masks.
    """
    if all(name == other for name, other in zip(own, true, strict=False)):
        return None
    if unknown := sorted(set(own) - set(true)):
        raise LabelError(
            f"the classes of {masks} ({join(list(own), 8)}) and of {truth} ({join(list(true), 8)}) have other ids, and "
            f"the truth has no '{unknown[0]}'; write both with one list, `hintseg convert --to index_png` does"
        )
    ids = np.arange(IGNORE + 1, dtype=np.uint8)
    ids[1 : len(own) + 1] = [true.index(name) + 1 for name in own]
    ids[len(own) + 1 : IGNORE] = _MOST  # of no class in the list of the masks, so it is refused
    return ids


def _order(folder: Path, background: bool) -> tuple[str, ...]:
    """Return the classes of a folder of masks in the order of their ids; none where no list says them."""
    if (folder / "manifest.json").is_file():
        with suppress(RunError):  # the manifest of something else
            return MaskStore.load(folder).classes
    problems = Problems()
    try:
        found = read_classes(folder.parent, folder, problems, background=background)
        problems.raise_all()
    except LabelError:  # a list of something else
        return ()
    return found or ()


def _count(
    file: MaskFile | Path,
    truth_file: MaskFile,
    tally: _Tally,
    classes: int,
    ids_by_name: npt.NDArray[np.uint8] | None,
) -> _Counted:
    """Count one photo into an empty tally; a path is one of class maps."""
    truth, mask = _index(truth_file, classes), None
    if isinstance(file, MaskFile):
        mask = _index(file, classes)
        prediction = mask.values if ids_by_name is None else ids_by_name[mask.values]
    else:
        class_ids, maps = read_maps(file)
        class_ids = class_ids if ids_by_name is None else ids_by_name[class_ids]
        if tally.confusion.background:
            tally.sweep.add(truth.values, class_ids, maps)
            return _Counted(tally, truth, None)
        prediction = winners(class_ids.astype(np.int64), maps, truth.values.shape)[0].astype(np.uint8)
    if prediction.shape != truth.values.shape:
        (height, width), (h, w) = truth.values.shape, prediction.shape
        turned = ", turned: write both as the photo is shown" if (h, w) == (width, height) else "; make them equal"
        raise LabelError(f"the mask has {w} x {h} pixels, its truth {width} x {height}{turned}")
    tally.confusion.add(truth.values, prediction)
    tally.boundary.add(truth.values, prediction)
    return _Counted(tally, truth, mask)


def _index(file: MaskFile, classes: int) -> Index:
    index = open_index(file.path, file.colours)
    if index.bilevel and classes > 1 and index.values.any():
        raise black_and_white(file.path, classes)
    return index


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files below `folder` by id, of the first suffix that occurs; hidden ones are left out.

    Raises:
        LabelError: There is no such folder, or it holds JPEGs alone.
    """
    if not folder.is_dir():
        raise LabelError(f"{folder}: no such folder; give a folder of index PNGs")
    files = {file: file.suffix.lower() for file in walk(folder)}
    for suffix in suffixes:
        found = {f.relative_to(folder).with_suffix("").as_posix(): f for f, own in files.items() if own == suffix}
        if found:
            return found
    if lossy := sum(suffix in LOSSY for suffix in files.values()):
        raise LabelError(
            f"{folder} holds {lossy} JPEGs and no PNG: JPEG cannot keep class ids, it blurs values; write the masks as "
            "PNG, whose values are class ids (0 background, 1..K, 255 ignore), from where they were drawn"
        )
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
            _refuse_affixes(found, truths, masks, truth)
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


def _refuse_affixes(found: Mapping[str, Path], truths: Mapping[str, Path], masks: Path, truth: Path) -> None:
    for folder, longer, shorter in ((truth, truths, found), (masks, found, truths)):
        more = affixed(longer, {name: name for name in shorter})
        if more.photos and all(any(affix) for affix in more.affixes):
            name, other = next(iter(more.photos.items()))
            affixes = join([str(affix) for affix in more.affixes])
            raise LabelError(
                f"the names in {folder} {affixes}, those of the other folder do not; give both folders files with the "
                f"same names: rename {longer[name].name} to {other.rpartition('/')[2]}{longer[name].suffix}, and so on"
            )


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
