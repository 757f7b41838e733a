"""Where mask images lie: in folders beside those of the photos, below splits, or beside the photos themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from hintseg.errors import LabelError, PhotoError, join
from hintseg.files.images import open_image
from hintseg.formats import words as folder_words
from hintseg.formats.colours import find_colours
from hintseg.formats.index_image import LOSSLESS, LOSSY, MaskError, only_ignored, open_index, tell
from hintseg.formats.photos import (
    LABEL_FOLDERS,
    MASK_FOLDERS,
    PHOTO_FOLDERS,
    PhotoFolder,
    is_ours,
    leads_back,
    photo_head,
    photo_suffixes,
    walk,
)
from hintseg.formats.problems import Problems
from hintseg.formats.records import Colour, Reading
from hintseg.types import IGNORE, FullMask, MaskFile

MASK_WORDS = frozenset(
    {name.lower() for name in (*MASK_FOLDERS, *LABEL_FOLDERS)} - {"segmentationobject"}
    | {"mask", "label", "labelids", "scribble", "segmentation", "segmentations", "seg", "segs", "semantic", "gt", "gts"}
    | {"groundtruth", "ground_truth", "gtfine", "gtcoarse", "annotation", "ann", "anns", "annot", "annots", "ann_dir"}
)
"""Names of folders of masks, in lower case; also with a split's name, as in `train_masks`."""

PHOTO_WORDS = frozenset(
    {name.lower() for name in PHOTO_FOLDERS} | {"image", "img", "img_dir", "photo", "leftimg8bit", "rgb"}
)
"""Names of folders of photos, in lower case."""

_DEEPEST = 3
_WORDS = re.compile(r"[_\-. ]")
_BESIDE = re.compile(r"(?i)(?:(?:mask|seg|gt|label)s?[_\-. ])?(.+?)(?:[_\-. ](?:masks?|seg|gt|labels?|labelids))?")


def mask_folders(path: Path) -> list[Path]:
    """Return the folders below `path`, at most three deep, whose names say that they hold masks, and that do."""
    found, level = list[Path](), [path]
    for _ in range(_DEEPEST):
        below = list[Path]()
        for folder in level:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
            for child in sorted(folder / name for name in names):
                if not child.is_dir() or is_ours(child) or leads_back(child, path):
                    continue
                if _without(child.name, MASK_WORDS) is not None:
                    found += [child] if _holds_masks(child) else []
                else:
                    below.append(child)
        level = below
    return found


def _holds_masks(folder: Path) -> bool:
    """Return whether a folder has an image of a mask; JPEGs are taken for one only where the name speaks of masks."""
    suffixes = (*LOSSLESS, *LOSSY) if "mask" in folder.name.lower() else LOSSLESS
    return any(file.suffix.lower() in suffixes for file in walk(folder))


def masks_beside(folder: Path) -> list[Path]:
    """Return the masks that lie among the photos in `folder` and below: `NAME_mask.png` beside `NAME.jpg`.

    Empty where a file is called so and there is no such photo: then the words mean something else.
    """
    suffixes = photo_suffixes()
    files = [file for file in walk(folder) if file.suffix.lower() in suffixes]
    stems = {file.with_suffix("") for file in files}
    masks = []
    for file in files:
        name = _BESIDE.fullmatch(file.stem)
        lossless = file.suffix.lower() in LOSSLESS
        if name is None or name[1] == file.stem or not (lossless or "mask" in file.stem.lower()):
            continue
        if file.with_name(name[1]) not in stems:
            return []
        masks.append(file)
    return masks


def key(relative: PurePosixPath) -> str:
    """Return what the paths of a photo and of its mask have in common: without suffix, and without the words for them.

    Example:
        >>> key(PurePosixPath("train/images/a.jpg")), key(PurePosixPath("train_masks/a.png"))
        ('train/a', 'train/a')
    """
    folders = []
    for part in relative.parts[:-1]:
        inner = _without(part, MASK_WORDS | PHOTO_WORDS)
        folders += [part] if inner is None else [inner] if inner else []
    return "/".join([*folders, relative.stem])


def _without(name: str, words: Collection[str]) -> str | None:
    """Return a folder's name without the word for masks or photos; empty if it is that word, None if it has none."""
    if name.lower() in words:
        return ""
    parts = _WORDS.split(name)
    for split, other in ((0, 1), (-1, -2)):
        if len(parts) == 2 and folder_words.split_of(parts[split]) and parts[other].lower() in words:
            return parts[split]
    return None


def split_of(relative: PurePosixPath) -> str | None:
    """Return the split that the folders of a photo speak of."""
    names = (folder_words.split_of(_without(part, PHOTO_WORDS) or part) for part in relative.parts[:-1])
    return next(filter(None, names), None)


def prepared(
    files: Mapping[str, FullMask],
    folder: PhotoFolder,
    path: Path,
    classes: tuple[str, ...],
    reading: Reading,
    problems: Problems,
    notes: list[str],
) -> dict[str, FullMask]:
    """Return the full masks of photos as they can be read: with their table of colours, and turned with their photos.

    Args:
        files: Full mask by photo id; images that were looked into are left as they are.
        folder: The photos.
        path: Folder of the data set, where a table of colours may lie.
        classes: Names of the K foreground classes.
        reading: How they are to be read.
        problems: Gets a sentence where all of them hold nothing of any class, or none can be read.
        notes: Gets a sentence where masks are turned.

    Cost:
        Masks are read until one shows a class.
    """
    new = {photo: f for photo, f in files.items() if isinstance(f, MaskFile) and f.shows is None}
    new = turned_with_photos(with_colours(new, path, classes, reading.colours, problems), folder.paths, notes)
    errors, seen = list[MaskError](), dict[int, int]()
    for file in new.values():
        try:
            values = open_index(file.path, file.colours).values
        except MaskError as error:
            errors.append(error)
            continue
        shown = {*np.flatnonzero(np.bincount(values.ravel(), minlength=1)).tolist()} - {file.unlabelled}
        seen |= {value: seen.get(value, 0) + 1 for value in shown}
        if any(0 < value < IGNORE for value in shown):
            break
    else:
        for sentence in tell(errors, len(new)) if len(errors) == len(new) else []:
            problems.add("the true masks", sentence)
        places = join(sorted({file.path.parent.name for file in new.values()}), 2)
        if wrong := only_ignored(seen, f"all {len(new)} true masks in {places}", classes):
            raise LabelError(wrong)
    return {**files, **new}


def with_colours(
    files: Mapping[str, MaskFile],
    path: Path,
    classes: tuple[str, ...],
    given: Mapping[Colour, str],
    problems: Problems,
) -> dict[str, MaskFile]:
    """Return mask images with the table of colours of their folder, of a folder above it, or of the data set.

    Where the table is one of colours, an image of a single channel keeps its values: they are ids of the class list.
    """
    places = dict.fromkeys(p for file in files.values() for p in (file.path.parent, file.path.parent.parent))
    table = find_colours([*places, path], given, problems) if files else None
    if table is None:
        return dict(files)
    colours = table.ids(classes, problems)
    return {
        photo: file if not table.of_values and _one_channel(file.path) else replace(file, colours=colours)
        for photo, file in files.items()
    }


def _one_channel(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return image.mode.startswith(("L", "I"))
    except Exception:  # whoever reads it says why
        return False


def turned_with_photos(
    files: Mapping[str, MaskFile], photos: Mapping[str, Path], notes: list[str]
) -> dict[str, MaskFile]:
    """Return mask images of photos that EXIF turns with that turn, where they were drawn on the stored picture.

    The sizes tell; where some of them do, the masks whose size would fit either way are taken to be drawn alike.
    """
    turns: dict[str, int] = {}
    stored, upright = set[str](), set[str]()
    for photo, file in files.items():
        try:
            size, turn = photo_head(photos[photo])
        except PhotoError:
            continue
        if turn == 1:
            continue
        turns[photo] = turn
        if turn >= 5 and size[0] != size[1]:
            given = _mask_size(file.path)
            (stored if given == size else upright if given == size[::-1] else set[str]()).add(photo)
    moved = set(turns) - upright if not upright else stored
    if not stored:
        if set(turns) - upright and not upright:
            notes.append(
                f"EXIF turns {len(turns)} photos, and the sizes of their masks do not tell whether those are turned "
                "too; they are taken to be"
            )
        return dict(files)
    notes.append(f"{len(moved)} masks are drawn on photos as they are stored, and are turned with them as EXIF says")
    return {p: replace(file, orientation=turns[p]) if p in moved else file for p, file in files.items()}


def _mask_size(path: Path) -> tuple[int, int] | None:
    try:
        (height, width), turn = photo_head(path)
    except PhotoError:
        return None
    return (width, height) if turn >= 5 else (height, width)
