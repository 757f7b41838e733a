"""Pascal VOC layout: JPEGImages, Annotations/*.xml, SegmentationClass(Aug)/*.png, ImageSets/{Segmentation,Main}/*.txt.

Boxes come from the XML files (corners counted from 1, inclusive there; from 0, exclusive here). Tags come from the XML
files too; without any from `tags.csv`; without that from the masks. The names of objects' parts are ignored. Classes
are those of `classes.txt`; without it VOC's own 20 where all names are among them.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from hintseg.errors import LabelError, shown
from hintseg.files.parse import is_file, read_xml
from hintseg.formats.codec import Fit, holds
from hintseg.formats.csv import read_tags
from hintseg.formats.index_image import tags_of_masks
from hintseg.formats.layout import (
    CLASS_LIST,
    TRUTH_FOLDERS,
    VOC_CLASSES,
    Found,
    assemble,
    boxes_and_truth,
    check_classes,
    class_ids,
    find_masks,
    find_truth,
    read_classes,
    read_splits,
)
from hintseg.formats.photos import LABEL_FOLDERS, PhotoFolder, find_photos, size_or_none
from hintseg.formats.problems import Problems
from hintseg.formats.records import Reading
from hintseg.formats.tables import read_rows, table_classes
from hintseg.geometry.boxes import fit_box
from hintseg.types import Box, Hints, HintSet, Supervision, Tags

XML_FOLDER = "Annotations"
TAG_TABLE = "tags.csv"
SBD_FOLDER = "SegmentationClassAug"
"""Masks of SBD (Hariharan et al., ICCV 2011) and of VOC's own photos, as they are commonly handed on."""
AUGMENTED = "train_aug"
"""The field's training list of VOC 2012: 10,582 photos, all with such a mask but those of the validation list."""


def voc_root(path: Path) -> Path | None:
    """Return the folder that holds JPEGImages: `path`, or the one VOC folder below it as the archives unpack it."""
    candidates = [path, *sorted(path.glob("VOC20*")), *sorted(path.glob("VOCdevkit/VOC20*"))]
    found = [candidate for candidate in candidates if (candidate / "JPEGImages").is_dir()]
    return found[0] if found and (found[0] == path or len(found) == 1) else None


class Voc:
    """Pascal VOC layout: XML boxes, masks, split lists."""

    name = "voc"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES, Supervision.MASKS})
    sign = "JPEGImages beside Annotations or masks"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for JPEGImages with folders of labels beside it, or for XML files in the given folder."""
        if labels is not None:
            return Fit.WEAK if holds(labels, ".xml") else Fit.NO
        root = voc_root(path)
        if root is not None and is_file(root / "labelmap.txt") and not holds(root, ".xml"):
            return Fit.NO  # CVAT's masks, whose colours are those of that file
        return Fit.WHOLE if root is not None and any((root / name).is_dir() for name in LABEL_FOLDERS) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a folder in Pascal VOC layout.

        Args:
            path: Folder of the data set.
            labels: Folder of XML files; None takes `Annotations`.
            reading: How it is to be read.

        Raises:
            LabelError: There are no labels, or all problems of the label files at once.

        Cost:
            Without XML files and tags.csv every mask is read: some milliseconds each.
        """
        unlabelled, background = reading.unlabelled, reading.background
        root = voc_root(path)
        if root is None:
            raise LabelError(f"there is no one folder JPEGImages in {path}; name the folder that holds it")
        if labels is not None and not labels.is_dir():
            raise LabelError(f"labels={labels} is no folder; the format 'voc' needs a folder of XML files")
        xml_folder = labels or root / XML_FOLDER
        xml_files = sorted(xml_folder.glob("[!.]*.xml"))
        table = root / TAG_TABLE
        problems, notes = Problems(), list[str]()
        folder = find_photos(root)
        objects = {file: _read_xml(file, problems) for file in xml_files}
        rows = read_rows(table) if not xml_files and is_file(table) else []
        names = {name for found in objects.values() for name, _, _ in found}
        names |= set(table_classes(rows, "tags")) if rows else set()
        listed = read_classes(root, xml_folder, problems, background=background)
        named = listed is not None or (bool(names) and names <= set(VOC_CLASSES))
        if listed is not None:
            classes = listed
        elif named:
            classes = VOC_CLASSES
            notes.append("the classes are Pascal VOC's 20")
        else:
            classes = tuple(sorted(names))
        if listed is None and (xml_files or rows):
            check_classes(classes, XML_FOLDER if xml_files else TAG_TABLE, problems)
        hints: dict[str, Hints] = {}
        source = XML_FOLDER
        if xml_files:
            found = _boxes(objects, classes, folder, problems, xml_folder.name)
            hints, _ = boxes_and_truth(found, len(classes))
        elif rows:
            source = TAG_TABLE
            tags = read_tags(rows, classes, folder, problems, TAG_TABLE)
            hints = {photo: Hints(Tags.complete(ids, len(classes))) for photo, ids in tags.items()}
        truth = find_truth(root, folder, notes, named=named, unlabelled=unlabelled)
        if not xml_files and not rows:
            if listed is None or not truth:
                problems.raise_all()
                needed = f"{XML_FOLDER}/*.xml, {TAG_TABLE}, or {' or '.join(TRUTH_FOLDERS)} with {CLASS_LIST}"
                raise LabelError(f"there are no labels in {root}; needed is one of: {needed}")
            source = "the masks"
            tags = tags_of_masks(truth, folder.paths, len(classes), problems)
            hints = {photo: Hints(Tags.complete(ids, len(classes))) for photo, ids in tags.items()}
            notes.append("tags come from the masks")
        else:
            notes.append(f"tags come from {source}")
        splits = read_splits(root, folder, problems)
        if AUGMENTED not in splits and "trainaug" in splits:  # the other usual name of the list
            splits[AUGMENTED] = splits["trainaug"]
        elif AUGMENTED not in splits and "val" in splits and (root / SBD_FOLDER).is_dir():
            masked = find_masks(root / SBD_FOLDER).keys() & folder.paths.keys()
            splits[AUGMENTED] = tuple(sorted(masked - set(splits["val"])))
            notes.append(f"{AUGMENTED} is made of all photos with a mask in {SBD_FOLDER} but those of val")
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source=source,
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )


_Object = tuple[str, tuple[float, float, float, float], tuple[int, int] | None]


def _read_xml(file: Path, problems: Problems) -> list[_Object]:
    """Return the objects of an XML file: name, box (x0, y0, x1, y1) exclusive, and the photo's (height, width)."""
    where = file.parent.name
    try:
        tree = read_xml(file, LabelError, "it may be cut off: write it again")
    except LabelError as error:
        problems.add(where, str(error))
        return []
    if tree.tag != "annotation":
        problems.add(where, f"{file.name}: its outermost element is <{shown(tree.tag)}>, not VOC's <annotation>")
        return []
    width, height = _number(tree, "size/width"), _number(tree, "size/height")
    size = (int(height), int(width)) if height and width and math.isfinite(height + width) else None
    objects: list[_Object] = []
    for number, item in enumerate(tree.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        corners = [_number(item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not name or None in corners:
            problems.add(where, f"{file.name}: object {number} needs a name and a bndbox with xmin, ymin, xmax, ymax")
            continue
        x0, y0, x1, y1 = (value for value in corners if value is not None)
        objects.append((name, (x0 - 1, y0 - 1, x1, y1), size))
    return objects


def _number(element: Element, path: str) -> float | None:
    """Return the number an XML element holds, or None."""
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None


def _boxes(
    objects: dict[Path, list[_Object]], classes: tuple[str, ...], folder: PhotoFolder, problems: Problems, where: str
) -> dict[str, list[Found]]:
    """Return the objects of every photo that has an XML file."""
    found_in = {}
    for file, found in objects.items():
        photo = folder.locate(file.stem, problems, where, file.name)
        boxes: list[Found] = []
        for number, (name, corners, declared) in enumerate(found, start=1):
            ids = class_ids(classes, [name], problems, where, f"{file.name}: object {number}")
            size = declared or (size_or_none(folder.paths[photo]) if photo else None)
            try:
                fitted = fit_box(corners, size)
            except LabelError as error:
                problems.add(where, f"{file.name}: object {number}: {error}")
                continue
            boxes.extend(Found(label, Box(*fitted)) for label in ids)
        if photo is not None:
            found_in[photo] = boxes
    return found_in
