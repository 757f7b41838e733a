"""Masks as images: index images whose values are class ids, colour masks with a table, or scribbles.

Without `unlabelled` the images are full masks: 0 is background and 255 is ignored. With `unlabelled` they are
scribbles: that value and 255 mean "nothing known here", 0 is a stroke on background (where it is not the unlabelled
value itself). The value is never guessed: a scribble read as a mask would turn all unmarked pixels into background.
A mask has its photo's name, or one that says more (`NAME_mask`); `classes.txt` says which id is which class, or a table
of colours (`formats.colours`) which colour is. Tags are the classes that occur in the mask. Beside scribbles, full
masks in SegmentationClass are taken as truth.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from hintseg.errors import LabelError, join, shown
from hintseg.files.atomic import whole_file
from hintseg.files.parse import is_file
from hintseg.formats.codec import Fit, Written
from hintseg.formats.colours import TABLES, find_colours, is_colour_table
from hintseg.formats.folders import has_class_folders
from hintseg.formats.gather import gather
from hintseg.formats.index_image import (
    MaskError,
    look_into,
    only_ignored,
    read_checked,
    read_index,
    write_index,
)
from hintseg.formats.layout import CLASS_LIST, TRUTH_FOLDERS, find_truth, read_classes, read_splits
from hintseg.formats.mask_folders import (
    key,
    mask_folders,
    masks_beside,
    split_of,
    turned_with_photos,
    with_colours,
)
from hintseg.formats.mask_names import affixed, find_masks, mask_files
from hintseg.formats.mvtec import MvTec
from hintseg.formats.nuclei import has_photo_folders
from hintseg.formats.photos import MASK_FOLDERS, PhotoFolder, find_photos, is_ours, photo_size
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.formats.voc import Voc
from hintseg.geometry.rasterise import paint
from hintseg.types import FullMask, HintSet, MaskFile, Supervision

FOLDERS = (*MASK_FOLDERS, *TRUTH_FOLDERS)
"""Names of the folder of masks in the data set's own folder, the first that has any; others: `formats.mask_folders`."""


def find_mask_files(path: Path, labels: Path | None) -> tuple[dict[str, Path], str]:
    """Return the masks by their names without suffix, as `key` says, and where they lie.

    Args:
        path: Folder of the data set.
        labels: Folder of the masks, where it is given.
    """
    if labels is not None:
        return (find_masks(labels), labels.name) if labels.is_dir() else ({}, labels.name)
    for name in FOLDERS:
        if (path / name).is_dir() and not is_ours(path / name) and (found := find_masks(path / name)):
            return {key(PurePosixPath(name, f"{mask}.png")): file for mask, file in found.items()}, name
    folders = mask_folders(path)
    files = [file for folder in folders for file in mask_files(folder)] or masks_beside(path)
    where = join(sorted({file.relative_to(path).parent.as_posix() for file in files}), 3)
    return {key(PurePosixPath(file.relative_to(path).as_posix())): file for file in files}, where


class IndexPng:
    """Masks as images: index images, colour masks with a table, or scribbles."""

    name = "index_png"
    carries = frozenset({Supervision.SCRIBBLES, Supervision.MASKS})
    writes = frozenset({Supervision.MASKS})
    sign = f"PNGs in one of {', '.join(MASK_FOLDERS)}, or NAME_mask.png beside NAME.jpg"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for masks; those in SegmentationClass are the truth where there are other labels beside them.

        In folders of other names than `FOLDERS`, and beside photos, they count only with a class list or a table of
        colours.
        """
        if labels is None and (Voc().sniff(path, None) or MvTec().sniff(path, None) or has_photo_folders(path)):
            return Fit.NO
        masks, where = find_mask_files(path, labels)
        if not masks:
            return Fit.NO
        if labels is not None or where in TRUTH_FOLDERS:
            return Fit.WEAK
        if not _names_classes(path, masks) and (where not in FOLDERS or has_class_folders(path)):
            return Fit.NO
        return Fit.YES

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read mask images: scribbles where `unlabelled` is given, full masks otherwise.

        Args:
            path: Folder of the data set.
            labels: Folder of the masks; None looks for it.
            reading: How it is to be read.

        Raises:
            LabelError: There are no masks, no class list, or all problems of the masks at once.

        Cost:
            Every mask is read: some milliseconds each.
        """
        found, where = find_mask_files(path, labels)
        if not found:
            looked = labels or ", ".join(FOLDERS)
            raise LabelError(f"there are no PNGs in {looked} (data set {path}); name their folder with labels=FOLDER")
        unlabelled = reading.unlabelled
        if "scribble" in where.lower() and unlabelled is None:
            raise LabelError(
                f"{where} in {path} holds scribbles, and it is not said which value means 'nothing known here'; "
                "pass unlabelled=VALUE (often 255; 0 where unmarked pixels are 0)"
            )
        problems, notes = Problems(), list[str]()
        folder = find_photos(path, missing=reading.missing, but={*found.values()})
        files = _of_photos(found, folder, path, where, problems, notes)
        classes = _classes(path, labels, found, reading, problems, notes)
        images = {photo: MaskFile(file, unlabelled) for photo, file in files.items()}
        images = with_colours(images, path, classes, reading.colours, problems)
        images = turned_with_photos(images, folder.paths, notes)
        images, seen = look_into(images, folder.paths, len(classes), problems)
        problems.raise_all()
        names = f"all {len(images)} masks in {where}"
        if wrong := only_ignored(seen, names, classes):
            raise LabelError(wrong)
        if not any(image.shows for image in images.values()):
            values = join([str(value) for value in sorted(seen)])
            raise LabelError(
                f"{names} hold only {values}: no class id 1..{len(classes)}; a mask's values must be class ids"
            )
        truth: Mapping[str, FullMask] = images
        if unlabelled is not None:
            notes.append(f"the masks are read as scribbles: {unlabelled} means nothing known here")
            truth = {}
            if where not in TRUTH_FOLDERS:
                truth = find_truth(path, folder, notes, named=True, unlabelled=None)
        splits = read_splits(path, folder, problems) or _splits(images, folder, path)
        records = tuple(
            Record(photo, tags=tuple(classes[label - 1] for label in sorted(image.shows or ())), where=where)
            for photo, image in images.items()
            if unlabelled is None
        )
        scribbles = images if unlabelled is not None else {}
        said = Labels(records, where, classes, splits, truth, tuple(notes), scribbles)
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write each full mask as a palette PNG of its photo's name, in Pascal VOC's colours, and `classes.txt`.

        Args:
            hint_set: What is said of the photos.
            out: An empty folder.

        Raises:
            HintsegError: A mask cannot be read, or a file not be written.
        """
        folder = out / "masks"
        objects = 0
        for photo in hint_set.photos:
            full = photo.truth if photo.truth is not None else photo.hints.mask
            if full is None:
                continue
            size = photo_size(photo.path)
            if isinstance(full, MaskFile):
                mask = read_checked(full, size, len(hint_set.classes))
            else:
                mask = paint(full, size)
                objects += len(full) > 0
            write_index(folder / f"{photo.id}.png", mask)
        write_classes(folder, hint_set)
        lost = f"{objects} photos have outlines of objects: as one mask, those that touch are no longer told apart"
        return Written(folder, (lost,) if objects else ())


def write_classes(folder: Path, hint_set: HintSet) -> None:
    """Write the class list of index images into their folder: line n is class n, after one of the background."""
    lines = [*(["background"] if hint_set.background else []), *hint_set.classes]
    with whole_file(folder / CLASS_LIST) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _names_classes(path: Path, masks: Mapping[str, Path]) -> bool:
    """Return whether a class list or a table of colours lies with the masks."""
    places = {path, *(place for file in masks.values() for place in (file.parent, file.parent.parent))}
    return any(is_file(place / CLASS_LIST) or any(is_colour_table(place / name) for name in TABLES) for place in places)


def _splits(photos: Iterable[str], folder: PhotoFolder, path: Path) -> dict[str, tuple[str, ...]]:
    """Return the splits that the photos' folders speak of."""
    splits = defaultdict[str, list[str]](list)
    for photo in sorted(photos):
        if name := split_of(_relative(folder, photo, path)):
            splits[name].append(photo)
    return {name: tuple(members) for name, members in splits.items()}


def _relative(folder: PhotoFolder, photo: str, path: Path) -> PurePosixPath:
    return PurePosixPath(folder.paths[photo].relative_to(path).as_posix())


def _of_photos(
    masks: Mapping[str, Path], folder: PhotoFolder, path: Path, where: str, problems: Problems, notes: list[str]
) -> dict[str, Path]:
    """Return the mask of each photo."""
    names = {photo: photo for photo in folder.paths} | {
        key(_relative(folder, photo, path)): photo for photo in folder.paths
    }
    exact = {name: names[name] for name in masks if name in names}
    more = affixed([name for name in masks if name not in exact], names, of=len(masks))
    alone = _alone(masks.keys() - exact.keys() - more.photos.keys(), names)
    several = more.several | {photo: found for photo, found in alone.items() if len(found) > 1}
    if several:
        example = next(iter(several))
        some = join([masks[name].name for name in several[example]], 3)
        raise LabelError(
            f"{len(several)} photos have several masks in {where}, such as {shown(example)}: {some}; needed is one "
            "mask for each photo, whose values are class ids: put those of a photo together into one, or write the "
            "objects as COCO JSON"
        )
    exact |= {found[0]: photo for photo, found in alone.items()}
    if alone:
        notes.append(f"{len(alone)} masks have other names than their photos, but are alone with them in a folder")
    if note := more.note():
        notes.append(note)
    files: dict[str, Path] = {}
    for name, file in masks.items():
        if name in more.left:
            continue
        photo = exact.get(name) or more.photos.get(name) or folder.locate(name, problems, where, file.name)
        if photo in files:
            problems.add(where, f"{file.name}: '{photo}' also has {files[photo].name}; delete one")
        elif photo is not None:
            files[photo] = file
    return files


def _alone(masks: Collection[str], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the masks of each photo that is the only one of its folder."""
    photos: dict[str, set[str]] = defaultdict(set)
    for name, photo in names.items():
        photos[name.rpartition("/")[0]].add(photo)
    found: dict[str, list[str]] = defaultdict(list)
    for mask in sorted(masks):
        there = photos.get(mask.rpartition("/")[0], set())
        if len(there) == 1 and "/" in mask:
            found[next(iter(there))].append(mask)
    return dict(found)


def _classes(
    path: Path,
    labels: Path | None,
    masks: Mapping[str, Path],
    reading: Reading,
    problems: Problems,
    notes: list[str],
) -> tuple[str, ...]:
    """Return the class names: those of classes.txt, else those of a table of colours."""
    first = next(iter(masks.values()))
    for folder in dict.fromkeys((labels or first.parent, first.parent)):
        listed = read_classes(path, folder, problems, background=reading.background)
        if listed is not None:
            return listed
    places = dict.fromkeys(p for file in masks.values() for p in (file.parent, file.parent.parent))
    table = find_colours([*places, path], reading.colours, problems)
    if table is not None:
        notes.append(f"the classes are those of {table.source}: {join([shown(name) for name in table.classes])}")
        return table.classes
    raise LabelError(
        f"no {CLASS_LIST} in {first.parent} or {path}; write one class name per line: line n is id n. {_ids_in(masks)}"
    )


def _ids_in(masks: Mapping[str, Path]) -> str:
    """Say which values the first masks hold."""
    found = Counter[int]()
    some = [*masks.values()][:20]
    for file in some:
        try:
            found.update(set(read_index(file).ravel().tolist()))
        except MaskError as error:
            return f"Besides, {error}"
    return f"The first {len(some)} masks hold the values {join([str(value) for value in sorted(found)])}"
