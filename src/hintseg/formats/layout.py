"""What several formats share: the class list, split lists, truth masks, and putting a hint set together."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hintseg.errors import LabelError, join, printable, shown
from hintseg.files.parse import is_file
from hintseg.formats.mask_names import affixed
from hintseg.formats.mask_names import find_masks as find_masks
from hintseg.formats.photos import PhotoFolder
from hintseg.formats.problems import Problems, read_text
from hintseg.types import FullMask, Hints, HintSet, MaskFile, Photo

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of Pascal VOC, in the order of their ids."""

MAX_CLASSES = 254
"""Masks are uint8: 0 is background and 255 is ignore."""

LONGEST_CLASS = 200
"""The most characters of a class's name."""

CLASS_LIST = "classes.txt"
TRUTH_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
"""Folders of full masks below a data set; where a photo has both, the first is used."""

_SPLIT_FOLDERS = ("ImageSets/Segmentation", "ImageSets/Main", "ImageSets")
_SPLIT_FILES = ("train.txt", "val.txt", "test.txt", "all.txt")


def is_background(name: str) -> bool:
    """Tell whether a class name means background, such as `_background_`."""
    return name.strip("_ ").lower() == "background"


def folded(name: str) -> str:
    """Return what spellings of one class have in common: they differ by letter case, spaces or the form of accents.

    Example:
        >>> folded("Guide  Dog"), folded("BÉBÉ")
        ('guide dog', 'bébé')
    """
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def read_classes(path: Path, labels: Path | None, problems: Problems, *, background: bool) -> tuple[str, ...] | None:
    """Read `classes.txt` beside the labels or in the data set's folder: line n is class n.

    A first line that says `background` is id 0 and no class, unless the data has no background.

    Returns:
        The class names, or None where there is no such file.
    """
    beside = [] if labels is None else [labels if labels.is_dir() else labels.parent]
    file = next((f / CLASS_LIST for f in (*beside, path) if is_file(f / CLASS_LIST)), None)
    if file is None:
        return None
    names = list_classes(file, problems)
    classes = names[1:] if background and is_background(names[0]) else names
    check_classes(classes, CLASS_LIST, problems)
    return classes


def list_classes(file: Path, problems: Problems) -> tuple[str, ...]:
    """Read a list of class names, one a line; blank lines and names that occur twice are problems."""
    names = tuple(line.strip() for line in read_text(file).rstrip().splitlines())
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            problems.add(file.name, f"line {number}: is blank, so the ids after it are not clear; delete it")
        elif name in seen:
            problems.add(file.name, f"line {number}: class '{shown(name)}' is also in line {seen[name]}; delete one")
        seen.setdefault(name, number)
    return names


def check_classes(classes: tuple[str, ...], where: str, problems: Problems) -> None:
    """Add a problem where there is no class, or a name that is too long or holds a line break.

    Raises:
        LabelError: There are more than a uint8 mask holds: no tag can be looked up among them.
    """
    if not classes:
        problems.add(where, "names no class; at least one is needed")
    if len(classes) > MAX_CLASSES:
        problems.add(where, f"{len(classes)} classes; at most {MAX_CLASSES} fit into uint8 masks; merge some")
        problems.raise_all()
    for name in classes:
        if len(name) > LONGEST_CLASS:
            problems.add(
                where, f"the class '{shown(name)}' has {len(name)} characters; at most {LONGEST_CLASS} are read"
            )
        elif "\n" in name or "\t" in name or printable(name) != name:
            problems.add(where, f"the class '{shown(name)}' holds a line break or control character; rename it")


def read_splits(path: Path, folder: PhotoFolder, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Read the lists of photos of a data set: ImageSets/Segmentation, else ImageSets/Main, else train.txt, val.txt, ...

    A list has one photo per line; what follows the photo's name (such as a mask's path) is ignored. VOC's lists of one
    class (`NAME 1`, `NAME -1`) are not splits and are left out.
    """
    lists: list[Path] = []
    for sub in _SPLIT_FOLDERS:
        lists = sorted((path / sub).glob("*.txt"))
        if lists:
            break
    else:
        lists = [path / name for name in _SPLIT_FILES if (path / name).is_file()]
    splits = {}
    for file in lists:
        where = file.relative_to(path).as_posix()
        lines = [(n, line.strip()) for n, line in enumerate(read_text(file).splitlines(), start=1) if line.strip()]
        words = lines[0][1].split() if lines else []
        if len(words) == 2 and words[1] in ("1", "0", "-1") and not folder.find(lines[0][1]):
            continue
        first: dict[str, int] = {}
        for number, line in lines:
            name = line if folder.find(line) else line.split()[0]
            photo = folder.locate(name, problems, where, f"line {number}")
            if photo is None:
                continue
            if photo in first:
                problems.add(where, f"line {number}: '{shown(name)}' is also in line {first[photo]}; delete one")
            first.setdefault(photo, number)
        splits[file.stem] = tuple(sorted(first))
    return splits


def find_truth(
    path: Path, folder: PhotoFolder, notes: list[str], *, named: bool, unlabelled: int | None
) -> dict[str, MaskFile]:
    """Return the full masks in `TRUTH_FOLDERS`, by photo id.

    Args:
        path: Folder of the data set.
        folder: Its photos.
        notes: Gets a sentence on what was found.
        named: Whether a class list fixes which id is which class; without one, masks cannot be used.
        unlabelled: The value that means "nothing known here", besides 255.
    """
    found = [path / name for name in TRUTH_FOLDERS if (path / name).is_dir()]
    masks: dict[str, Path] = {}
    for masks_folder in reversed(found):
        masks |= find_masks(masks_folder)
    names = join([f.name for f in found])
    if masks and not named:
        notes.append(f"the masks in {names} are not used: no {CLASS_LIST} says which id is which class")
        return {}
    of_photo = {name: file for name, file in masks.items() if name in folder.paths}
    more = affixed(masks.keys() - of_photo.keys(), {photo: photo for photo in folder.paths}, of=len(masks))
    of_photo = {photo: masks[name] for name, photo in more.photos.items()} | of_photo
    if of_photo:
        notes.append(f"{len(of_photo)} photos have their true mask in {names}")
    if note := more.note():
        notes.append(note)
    if len(masks) > len(of_photo) + len(more.left):
        notes.append(
            f"{len(masks) - len(of_photo) - len(more.left)} masks in {names} have no photo, or share it with another "
            "mask, and are not used"
        )
    return {photo: MaskFile(of_photo[photo], unlabelled) for photo in sorted(of_photo)}


def assemble(
    path: Path,
    folder: PhotoFolder,
    classes: tuple[str, ...],
    hints: Mapping[str, Hints],
    *,
    truth: Mapping[str, FullMask] = MappingProxyType({}),
    source: str,
    problems: Problems,
    notes: list[str],
    splits: Mapping[str, tuple[str, ...]],
    background: bool,
) -> HintSet:
    """Put a hint set together, or raise all problems.

    Raises:
        LabelError: `problems` is not empty, or nothing is said about any photo.
    """
    problems.raise_all()
    notes.extend(folder.notes)
    silent = [photo for photo in folder.paths if hints.get(photo, Hints()) == Hints()]
    if silent:
        shown = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
        notes.append(f"{len(silent)} of {len(folder.paths)} photos are not in {source} and stay unlabelled: {shown}")
    if len(silent) == len(folder.paths) and not truth:
        raise LabelError(f"{source} says nothing about any of the {len(folder.paths)} photos below {folder.root}")
    photos = tuple(
        Photo(photo, file, hints.get(photo, Hints()), truth.get(photo)) for photo, file in folder.paths.items()
    )
    return HintSet(path.resolve().name, classes, photos, dict(splits), background, tuple(notes))
