"""Pascal VOC: an XML file of boxes for each photo, in VOC's own layout with masks and lists, or in any other.

- VOC's layout: JPEGImages, Annotations/*.xml, SegmentationClass(Aug)/*.png, ImageSets/{Segmentation,Main}/*.txt.
- XML files beside the photos (LabelImg), in a folder of their own beside `images`, or in folders of splits (Roboflow).

An XML file belongs to the photo of its own name; where there is none, to that of its `<filename>`. Corners count from 1
and are inclusive there; from 0, exclusive here. A file without objects is a negative. Without any XML file tags come
from `tags.csv`, without that from the masks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from hintseg.errors import LabelError, shown
from hintseg.files.atomic import whole_file
from hintseg.files.parse import is_file
from hintseg.formats.codec import Fit, Written
from hintseg.formats.fitting import SWAPPED
from hintseg.formats.gather import gather
from hintseg.formats.index_image import tags_of_masks
from hintseg.formats.layout import (
    CLASS_LIST,
    TRUTH_FOLDERS,
    VOC_CLASSES,
    find_truth,
    read_classes,
    read_splits,
)
from hintseg.formats.mask_names import find_masks
from hintseg.formats.photos import LABEL_FOLDERS, PhotoFolder, file_name, find_photos, size_or_none
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.words import split_of
from hintseg.formats.xml import add, number, read_tree, size_of, write_xml, xml_files, xml_roots
from hintseg.geometry.boxes import turned_box
from hintseg.types import BACKGROUND, IGNORE, Box, HintSet, Photo, Region, Supervision

XML_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
"""Names (in any case) of the folder that holds the XML files; without one they are looked for everywhere."""

TAG_TABLE = "tags.csv"
SBD_FOLDER = "SegmentationClassAug"
"""Masks of SBD (Hariharan et al., ICCV 2011) and of VOC's own photos, as they are commonly handed on."""
AUGMENTED = "train_aug"
"""The field's training list of VOC 2012: 10,582 photos, all with such a mask but those of the validation list."""

_ROOT = "annotation"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_root(path: Path) -> Path | None:
    """Return the folder that holds JPEGImages: `path`, or the one VOC folder below it as the archives unpack it."""
    candidates = [path, *sorted(path.glob("VOC20*")), *sorted(path.glob("VOCdevkit/VOC20*"))]
    found = [candidate for candidate in candidates if (candidate / "JPEGImages").is_dir()]
    return found[0] if found and (found[0] == path or len(found) == 1) else None


class Voc:
    """Pascal VOC: XML boxes, masks, split lists."""

    name = "voc"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES, Supervision.MASKS})
    writes = frozenset({Supervision.BOXES})
    sign = "JPEGImages beside Annotations or masks, or XML files with <annotation>"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for JPEGImages with masks or XML files beside it, or for XML files whose root is `<annotation>`."""
        if labels is not None:
            return Fit.YES if _ROOT in xml_roots(labels) else Fit.NO
        root = voc_root(path)
        if root is not None and is_file(root / "labelmap.txt") and _ROOT not in xml_roots(_xml_folder(root)):
            return Fit.NO  # CVAT's masks, whose colours are those of that file
        if root is not None and any((root / name).is_dir() for name in LABEL_FOLDERS if name.startswith("Seg")):
            return Fit.WHOLE
        if _ROOT not in xml_roots(_xml_folder(root or path)):
            return Fit.NO
        return Fit.YES if root is None else Fit.WHOLE

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read VOC's XML files, or its layout without them.

        Args:
            path: Folder of the data set.
            labels: Folder of XML files, or one of them; None looks in `XML_FOLDERS`, then everywhere.
            reading: How it is to be read.

        Raises:
            LabelError: There are no labels, or all problems of the label files at once.

        Cost:
            Without XML files and tags.csv every mask is read: some milliseconds each.
        """
        root = voc_root(path) or path
        base = labels or _xml_folder(root)
        files = sorted(xml_files(base))
        if not files and labels is not None:
            raise LabelError(f"there is no XML file in {labels}; name VOC's files, or the folder that holds them")
        if not files and is_file(root / TAG_TABLE):
            return _from_table(root, reading)
        problems, notes = Problems(), list[str]()
        folder = find_photos(root, missing=reading.missing)
        lists = base.parent if labels is not None and (base.parent / "ImageSets").is_dir() else root
        splits = read_splits(lists, folder, problems)
        where = (base if base.is_dir() else base.parent).resolve().name
        records = _records(files, base if base.is_dir() else base.parent, where, not splits, problems, notes)
        _compare_names(records, folder, notes)
        _count_from_0(records, notes)
        listed = read_classes(root, base, problems, background=reading.background)
        classes = listed or _vocs_own(root, records, notes)
        truth = find_truth(root, folder, notes, named=classes is not None, unlabelled=reading.unlabelled)
        source = where if base != root else "the XML files"
        if files:
            notes.append(f"tags come from {source}")
        else:
            if listed is None or not truth:
                problems.raise_all()
                needed = f"*.xml, {TAG_TABLE}, or {' or '.join(TRUTH_FOLDERS)} with {CLASS_LIST}"
                raise LabelError(f"there are no labels in {root}; needed is one of: {needed}")
            source = "the masks"
            tags = tags_of_masks(truth, folder.paths, len(listed), problems)
            records = [Record(id, tags=tuple(listed[k - 1] for k in sorted(ids))) for id, ids in tags.items()]
            notes.append("tags come from the masks")
        splits = _with_augmented(splits, root, folder, notes)
        said = Labels(tuple(records), source, classes, splits, truth, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write Annotations, an XML file for each photo whose classes have boxes; `classes.txt`; lists of splits."""
        folder, lost = out / "Annotations", _Lost()
        for photo in hint_set.photos:
            tree = _tree(photo, hint_set, lost)
            if tree is not None:
                write_xml(folder / f"{photo.id}.xml", tree)
        with whole_file(folder / CLASS_LIST) as file:
            file.write("".join(f"{name}\n" for name in hint_set.classes).encode())
        for split, members in hint_set.splits.items():
            with whole_file(out / "ImageSets" / "Main" / f"{split}.txt") as file:
                file.write("".join(f"{id}\n" for id in members).encode())
        return Written(folder, lost.sentences())


def _xml_folder(root: Path) -> Path:
    """Return the folder below `root` whose XML files count: one of `XML_FOLDERS`, else all of `root`."""
    children = {child.name.lower(): child for child in sorted(root.iterdir(), reverse=True) if child.is_dir()}
    named = (children[name] for name in XML_FOLDERS if name in children)
    return next((child for child in named if any(xml_files(child))), root)


def _from_table(root: Path, reading: Reading) -> HintSet:
    """Read VOC's layout with a table of tags in place of XML files."""
    from hintseg.formats.csv import Csv

    found = Csv().read(root, root / TAG_TABLE, reading)
    notes = [*found.notes, f"tags come from {TAG_TABLE}"]
    splits = _with_augmented(dict(found.splits), root, find_photos(root, missing=reading.missing), notes)
    return replace(found, splits=splits, notes=tuple(notes))


def _with_augmented(
    splits: dict[str, tuple[str, ...]], root: Path, folder: PhotoFolder, notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the splits with `AUGMENTED`, where its masks are there."""
    if AUGMENTED not in splits and "trainaug" in splits:  # the other usual name of the list
        return {**splits, AUGMENTED: splits["trainaug"]}
    if AUGMENTED not in splits and "val" in splits and (root / SBD_FOLDER).is_dir():
        masked = find_masks(root / SBD_FOLDER).keys() & folder.paths.keys()
        notes.append(f"{AUGMENTED} is made of all photos with a mask in {SBD_FOLDER} but those of val")
        return {**splits, AUGMENTED: tuple(sorted(masked - set(splits["val"])))}
    return splits


def _vocs_own(root: Path, records: list[Record], notes: list[str]) -> tuple[str, ...] | None:
    """Return VOC's 20 classes where the data is VOC's, or masks beside the boxes need its ids; else None."""
    names = {" ".join(item.label.split()) for record in records for item in record.items}
    masks = any(find_masks(root / name) for name in TRUTH_FOLDERS if (root / name).is_dir())
    if not names or not names <= set(VOC_CLASSES) or not (masks or root.resolve().name.startswith("VOC20")):
        return None
    notes.append(f"the classes are Pascal VOC's 20; list your own in {CLASS_LIST}, in the order of the masks' ids")
    return VOC_CLASSES


def _records(
    files: list[Path], base: Path, where: str, split_folders: bool, problems: Problems, notes: list[str]
) -> list[Record]:
    """Return what each XML file says; those of other kinds are left out with a note."""
    records, foreign = list[Record](), list[str]()
    for file in files:
        place = PurePosixPath(file.relative_to(base).as_posix())
        try:
            tree = read_tree(file)
        except LabelError as error:
            problems.add(where, str(error))
            continue
        if tree.tag != _ROOT:
            foreign.append(f"{place} (<{shown(tree.tag)}>)")
            continue
        split = next(filter(None, map(split_of, place.parts[:-1])), None)
        name = (tree.findtext("filename") or "").strip()
        records.append(
            Record(
                str(place.with_name(file.stem)),
                tuple(_item(item, count) for count, item in enumerate(tree.findall("object"), start=1)),
                size=size_of(tree.findtext("size/width"), tree.findtext("size/height")),
                split=split if split_folders else None,
                also=(file.stem, name) if name else (file.stem,),
                where=where,
                line=str(place),
            )
        )
    if foreign:
        some = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        notes.append(f"{len(foreign)} XML files are not VOC's and are left out: {some}")
        if not records:
            problems.add(where, f"no XML file has VOC's <annotation> as its outermost element: {some}")
    return records


def _compare_names(records: list[Record], folder: PhotoFolder, notes: list[str]) -> None:
    """Note XML files that are named after one photo and have the name of another inside."""
    stems = {id.rpartition("/")[2] for id in folder.paths}
    pairs = [(record, record.also[0], PurePosixPath(record.also[-1].replace("\\", "/")).stem) for record in records]
    other = [record for record, own, inside in pairs if own != inside and {own, inside} <= stems]
    if other:
        notes.append(
            f"{len(other)} XML files have another photo's name in <filename>; their own name counts: {other[0].line} "
            f"has '{shown(other[0].also[-1])}'"
        )


def _count_from_0(records: list[Record], notes: list[str]) -> None:
    """Note files that seem to count from 0, as datumaro and CVAT write them."""
    boxes = [item.shape for record in records for item in record.items if not item.wrong]
    early = sum(isinstance(box, Box) and min(box.x0, box.y0) <= -1 for box in boxes)
    if early:
        notes.append(
            f"{early} of {len(boxes)} boxes begin at 0, but VOC counts from 1: where the tool counts from 0, all boxes "
            "are read one pixel too far to the left and top"
        )


def _item(element: Element, count: int) -> Item:
    """Return one object of an XML file."""
    name, line = (element.findtext("name") or "").strip(), f"object {count}"
    turned = [number(element.findtext(f"robndbox/{key}")) for key in ("cx", "cy", "w", "h", "angle")]
    corners = [number(element.findtext(f"bndbox/{side}")) for side in _SIDES]
    if not name or None in corners:
        if name and None not in turned:  # roLabelImg: centre, size, radians
            x, y, width, height, angle = (value for value in turned if value is not None)
            return Item(name, Box(*turned_box((x, y), (width, height), angle)), line=line)
        return Item(name, Box(0, 0, 0, 0), line=line, wrong=f"needs a name and a bndbox with {', '.join(_SIDES)}")
    x0, y0, x1, y1 = (value for value in corners if value is not None)
    mended = ""
    if x1 < x0 or y1 < y0:  # here, as the corners are counted differently
        x0, y0, x1, y1, mended = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), SWAPPED
    return Item(name, Box(x0 - 1, y0 - 1, x1, y1), _outline(element.find("polygon")), line=line, mended=mended)


def _outline(polygon: Element | None) -> Region | None:
    """Return the outline that Roboflow writes beside the box: x1, y1, x2, y2, ..., pixels."""
    if polygon is None or polygon.find("x1") is None:
        return None
    values: list[float] = []
    while (x := polygon.find(f"x{len(values) // 2 + 1}")) is not None:
        y = polygon.findtext(f"y{len(values) // 2 + 1}")
        values += (math.nan if value is None else value for value in (number(x.text), number(y)))
    return Region((tuple(values),))


class _Lost:
    """What of a hint set no XML file can hold: how many photos, boxes."""

    def __init__(self) -> None:
        self.unread = self.boxless = self.guessed = self.thin = self.others = self.trust = 0

    def sentences(self) -> tuple[str, ...]:
        counted = (
            (self.unread, "photos cannot be read, so their size is not known, and have no XML file"),
            (
                self.boxless,
                "photos show classes that no box is of, or say only of some that they are absent, and have no XML file",
            ),
            (self.guessed, "photos say nothing of some classes; without a box those are absent in VOC"),
            (self.thin, "boxes are narrower than a pixel and written one pixel wide"),
            (self.others, "boxes of crowds or background are left out"),
            (self.trust, "boxes are not wholly trusted; VOC has no trust"),
        )
        return tuple(f"{count} {what}" for count, what in counted if count)


def _tree(photo: Photo, hint_set: HintSet, lost: _Lost) -> Element | None:
    """Return the XML of a photo; None where it would say what is not known."""
    objects, tags = photo.hints.objects, photo.hints.tags
    if tags is None:
        return None
    known = len(tags.said) == len(hint_set.classes)
    if tags.present - {mark.label for mark in objects} or not (objects or known):
        lost.boxless += 1
        return None
    size = size_or_none(photo.path)
    if size is None:
        lost.unread += 1
        return None
    lost.guessed += not known
    lost.others += sum(mark.label in (BACKGROUND, IGNORE) for mark in photo.hints.shaped(Box))
    root = Element(_ROOT)
    add(root, "folder", photo.path.parent.name)
    add(root, "filename", file_name(photo).rpartition("/")[2])
    dimensions = add(root, "size")
    for side, pixels in (("width", size[1]), ("height", size[0]), ("depth", 3)):
        add(dimensions, side, pixels)
    add(root, "segmented", 0)
    for mark in objects:
        x0, y0, x1, y1 = mark.shape.corners
        lost.thin += min(x1 - x0, y1 - y0) < 1
        lost.trust += mark.trust < 1
        item = add(root, "object")
        add(item, "name", hint_set.classes[mark.label - 1])
        add(item, "pose", "Unspecified")
        add(item, "truncated", 0)
        add(item, "difficult", 0)
        box = add(item, "bndbox")
        for side, value in zip(_SIDES, (x0 + 1, y0 + 1, max(x1, x0 + 1), max(y1, y0 + 1)), strict=True):
            add(box, side, value)
    return root
