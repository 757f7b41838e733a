"""A folder of photos and a folder of index PNGs whose values are class ids: full masks, or scribbles.

Without `unlabelled` the PNGs are full masks: 0 is background and 255 is ignored. With `unlabelled` they are scribbles:
that value and 255 mean "nothing known here", 0 is a stroke on background (where it is not the unlabelled value itself).
The value is never guessed: a scribble read as a mask would turn all unmarked pixels into background. A PNG has its
photo's name; `classes.txt` says which id is which class; tags are the classes that occur in the PNG. Beside scribbles,
full masks in SegmentationClass are taken as truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hintseg.errors import LabelError
from hintseg.formats.codec import Fit, holds
from hintseg.formats.index_image import tags_of_masks
from hintseg.formats.layout import (
    CLASS_LIST,
    TRUTH_FOLDERS,
    assemble,
    find_masks,
    find_truth,
    png_files,
    read_classes,
    read_splits,
)
from hintseg.formats.photos import MASK_FOLDERS, find_photos, is_ours
from hintseg.formats.problems import Problems
from hintseg.formats.records import Reading
from hintseg.formats.voc import voc_root
from hintseg.types import FullMask, Hints, HintSet, MaskFile, Supervision, Tags

FOLDERS = (*MASK_FOLDERS, *TRUTH_FOLDERS)
"""Names of the folder of index PNGs where no labels are given."""


def find_folder(path: Path, labels: Path | None) -> Path | None:
    """Return the folder of index PNGs: the given one, else the first of `FOLDERS` below `path` that has a PNG."""
    candidates = [labels] if labels is not None else [path / name for name in FOLDERS if not is_ours(path / name)]
    return next((f for f in candidates if f.is_dir() and png_files(f)), None)


class IndexPng:
    """Index PNGs: masks or scribbles."""

    name = "index_png"
    carries = frozenset({Supervision.SCRIBBLES, Supervision.MASKS})
    sign = f"PNGs in one of {', '.join(MASK_FOLDERS)}"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a folder of PNGs; one of full masks is the truth where there are other labels beside it."""
        if labels is not None:
            return Fit.WEAK if holds(labels, ".png") else Fit.NO
        masks = find_folder(path, None) if voc_root(path) is None else None
        if masks is None:
            return Fit.NO
        return Fit.WEAK if masks.name in TRUTH_FOLDERS else Fit.YES

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read index PNGs: scribbles where `unlabelled` is given, full masks otherwise.

        Args:
            path: Folder of the data set.
            labels: Folder of the PNGs; None looks for one of `FOLDERS`.
            reading: How it is to be read.

        Raises:
            LabelError: There are no PNGs, no class list, or all problems of the PNGs at once.

        Cost:
            Every PNG is read: some milliseconds each.
        """
        unlabelled, background = reading.unlabelled, reading.background
        masks_folder = find_folder(path, labels)
        if masks_folder is None:
            looked = labels or ", ".join(FOLDERS)
            raise LabelError(f"there are no PNGs in {looked} (data set {path}); name their folder with labels=FOLDER")
        if "scribble" in masks_folder.name.lower() and unlabelled is None:
            raise LabelError(
                f"{masks_folder} holds scribbles, and it is not said which value means 'nothing known here'; "
                "pass unlabelled=VALUE (often 255; 0 where unmarked pixels are 0)"
            )
        problems, notes = Problems(), list[str]()
        classes = read_classes(path, masks_folder, problems, background=background)
        if classes is None:
            raise LabelError(
                f"no {CLASS_LIST} in {masks_folder} or {path}; write one class name per line: line n is id n"
            )
        folder = find_photos(path)
        files: dict[str, MaskFile] = {}
        for name, file in find_masks(masks_folder).items():
            photo = folder.locate(name, problems, masks_folder.name, file.name)
            if photo in files:
                problems.add(masks_folder.name, f"{file.name}: '{photo}' also has {files[photo].path.name}; delete one")
            elif photo is not None:
                files[photo] = MaskFile(file, unlabelled)
        tags = tags_of_masks(files, folder.paths, len(classes), problems)
        problems.raise_all()
        if not any(tags.values()):
            raise LabelError(
                f"no PNG in {masks_folder} holds a class id 1..{len(classes)}; a mask's values must be class ids, "
                "so foreground painted as 255 has to become 1"
            )
        truth: Mapping[str, FullMask] = {}
        if unlabelled is None:
            hints = {photo: Hints(Tags.complete(present, len(classes))) for photo, present in tags.items()}
            truth = files
        else:
            hints = {p: Hints(scribbles=replace(file, shows=tags[p])) for p, file in files.items()}
            notes.append(f"the PNGs are read as scribbles: {unlabelled} means nothing known here")
            if masks_folder.name not in TRUTH_FOLDERS:
                truth = find_truth(path, folder, notes, named=True, unlabelled=None)
        splits = read_splits(path, folder, problems)
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source=masks_folder.name,
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )
