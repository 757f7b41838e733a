"""MVTec AD: train/good, test/good, test/DEFECT, and ground_truth/DEFECT/NAME_mask.png.

Classes are the kinds of defects; photos in `good` show none. The masks of `ground_truth` are the truth: they judge.

Source:
    Bergmann et al., MVTec AD, CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import LabelError, PhotoError, shown
from hintseg.formats.codec import Fit
from hintseg.formats.gather import gather
from hintseg.formats.object_masks import read_object
from hintseg.formats.photos import PhotoFolder, photo_files, photo_size
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.types import FullMask, HintSet, Mark, Region, Rle, Supervision

GOOD = "good"
TRUTH = "ground_truth"
SPLITS = ("train", "validation", "test")


class MvTec:
    """MVTec AD: folders of defects, with their masks."""

    name = "mvtec"
    carries = frozenset({Supervision.TAGS, Supervision.MASKS})
    sign = f"train/{GOOD}, test and {TRUTH}"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for the three folders."""
        there = all((path / name).is_dir() for name in (f"train/{GOOD}", "test", TRUTH))
        return Fit.WHOLE if labels is None and there else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read one category of MVTec AD.

        Args:
            path: Folder of the category, such as `bottle`.
            labels: None; this format has no label file.
            reading: How it is to be read.

        Raises:
            LabelError: `labels` is given, there are no such folders, or all problems of the masks at once.

        Cost:
            Every mask is decoded.
        """
        if labels is not None:
            raise LabelError(f"the format 'mvtec' has no label file, but labels={labels} is given; leave it out")
        folder = PhotoFolder(path, skip=(TRUTH,), missing=reading.missing)
        problems, truth, records = Problems(), dict[str, FullMask](), list[Record]()
        placed = {id: file.relative_to(path).parts for id, file in folder.paths.items()}
        placed = {id: parts for id, parts in placed.items() if len(parts) > 2 and parts[0] in SPLITS}
        classes = tuple(sorted({parts[1] for parts in placed.values()} - {GOOD}))
        if not classes:
            raise LabelError(f"there is no folder of defects in {path}/test; 'mvtec' needs test/DEFECT/PHOTO")
        bare = 0
        for id, parts in placed.items():
            split, defect = {"validation": "val"}.get(parts[0], parts[0]), parts[1]
            tags = () if defect == GOOD else (defect,)
            records.append(Record("/".join(parts), tags=tags, split=split, where=SPLITS[-1], line="/".join(parts)))
            masks = _masks(path / TRUTH / defect, folder.paths[id].stem)
            if defect == GOOD:
                truth[id] = ()
            elif masks:
                truth[id] = _read(masks, classes.index(defect) + 1, folder.paths[id], problems)
            else:
                bare += 1
        notes = [f"photos in '{GOOD}' are negatives; the masks in {TRUTH} are the truth, which judges"]
        if bare:
            notes.append(f"{bare} photos of defects have no mask in {TRUTH}")
        said = Labels(tuple(records), "the folders", classes, truth=truth, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)


def _masks(folder: Path, stem: str) -> list[Path]:
    """Return the masks of a photo: NAME_mask.png, NAME.png, or all in a folder NAME."""
    files = [folder / f"{stem}_mask.png", folder / f"{stem}.png"]
    found = [file for file in files if file.is_file()][:1]
    return found or (sorted(photo_files(folder / stem)) if (folder / stem).is_dir() else [])


def _read(masks: list[Path], label: int, photo: Path, problems: Problems) -> tuple[Mark[Region], ...]:
    marks = list[Mark[Region]]()
    for number, file in enumerate(masks, start=1):
        try:
            rle = read_object(file)
            size = photo_size(photo)
        except PhotoError:
            continue  # listed where photos are decoded
        except LabelError as error:
            problems.add(TRUTH, str(error))
            continue
        if (rle.height, rle.width) != size:
            problems.add(TRUTH, f"{shown(file.name)} {_wrong(rle, size)}")
        marks.append(Mark(label, Region(rle=rle), number))
    return tuple(marks)


def _wrong(rle: Rle, size: tuple[int, int]) -> str:
    return f"has {rle.width} x {rle.height} pixels, but its photo has {size[1]} x {size[0]}; make them equal"
