"""Folder per class: PATH/CLASS/PHOTO, or PATH/{train,val,test}/CLASS/PHOTO.

Photos in a folder called `negatives` (or `negative`, `_negative`, `_negatives`) are negatives: they show no class.
Photos directly in PATH are in no class folder, so nothing is said about them: they stay unlabelled.
"""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import LabelError
from hintseg.formats.codec import Fit
from hintseg.formats.layout import TRUTH_FOLDERS, assemble, check_classes
from hintseg.formats.photos import (
    LABEL_FOLDERS,
    MASK_FOLDERS,
    PHOTO_FOLDERS,
    PhotoFolder,
    is_ours,
    leads_back,
    photo_files,
)
from hintseg.formats.problems import Problems
from hintseg.formats.records import Reading
from hintseg.types import Hints, HintSet, Supervision, Tags

NEGATIVE_FOLDERS = ("negatives", "negative", "_negative", "_negatives")
SPLIT_FOLDERS = ("train", "val", "valid", "test")


def class_folders(path: Path) -> list[Path]:
    """Return the direct sub-folders of `path` that hold at least one photo; runs and masks of ours are none."""
    folders = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith((".", "__"))]
    folders = [child for child in folders if not is_ours(child) and not leads_back(child, path)]
    return [child for child in folders if next(photo_files(child), None) is not None]


def split_folders(path: Path) -> list[Path]:
    """Return the folders that hold the class folders: the splits where all sub-folders are splits, else `path`."""
    children = class_folders(path)
    return children if children and all(child.name in SPLIT_FOLDERS for child in children) else [path]


class Folders:
    """A folder of photos per class."""

    name = "folders"
    carries = frozenset({Supervision.TAGS})
    sign = "sub-folders with photos, and no label file"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for sub-folders with photos that are not those of another layout."""
        if labels is not None:
            return Fit.NO
        names = {child.name for part in split_folders(path) for child in class_folders(part)}
        return (
            Fit.WEAK
            if names - {*PHOTO_FOLDERS, *MASK_FOLDERS, *LABEL_FOLDERS, *TRUTH_FOLDERS, *NEGATIVE_FOLDERS}
            else Fit.NO
        )

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a folder per class: every photo has the one tag its folder says. Classes are in alphabetical order.

        Args:
            path: Folder of the class folders.
            labels: None; this format has no label file.
            reading: How it is to be read.

        Raises:
            LabelError: `labels` is given, or there is no class folder with photos.
        """
        background = reading.background
        if labels is not None:
            raise LabelError(f"the format 'folders' has no label file, but labels={labels} is given; leave it out")
        parts = split_folders(path)
        names = {child.name for part in parts for child in class_folders(part)}
        classes = tuple(sorted(names - set(NEGATIVE_FOLDERS)))
        problems = Problems()
        check_classes(classes, str(path), problems)
        folder = PhotoFolder(path)
        hints: dict[str, Hints] = {}
        for photo, file in folder.paths.items():
            steps = file.relative_to(path).parts[:-1][0 if parts == [path] else 1 :]
            if steps and steps[0] in NEGATIVE_FOLDERS:
                hints[photo] = Hints(Tags.complete((), len(classes)))
            elif steps and steps[0] in classes:
                hints[photo] = Hints(Tags.complete({classes.index(steps[0]) + 1}, len(classes)))
        splits = {}
        if parts != [path]:
            for part in parts:
                name = "val" if part.name == "valid" else part.name
                splits[name] = tuple(p for p, file in folder.paths.items() if file.is_relative_to(part))
        return assemble(
            path,
            folder,
            classes,
            hints,
            source="a class folder",
            problems=problems,
            notes=[],
            splits=splits,
            background=background,
        )
