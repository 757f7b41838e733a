"""CVAT for images 1.1: an XML file of tags, boxes, polygons, polylines, points, masks and ellipses for each image.

Coordinates are pixels of the image as it is shown, from 0, right and bottom exclusive. Shapes of one label and one
`group_id` are one object: several polygons its parts, a box its box, points and polylines clicks and strokes on it. An
image without any shape or tag is a negative; a photo that the file does not list is unlabelled.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import xml_root
from hintseg.formats.codec import Fit, Written
from hintseg.formats.cvat_writer import SIDES, write_cvat
from hintseg.formats.gather import gather
from hintseg.formats.layout import is_background, read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.words import split_of
from hintseg.formats.xml import number, read_tree, size_of, xml_files, xml_roots
from hintseg.geometry import runs
from hintseg.geometry.boxes import turned_box
from hintseg.geometry.rasterise import rasterise
from hintseg.types import Box, Click, HintSet, Region, Shape, Stroke, Supervision

_ROOT = "annotations"
_CORNERS = 72
"""Corners of the polygon that an ellipse becomes: it is less than 0.1 % of the radius off."""
_NOWHERE = Box(0, 0, 0, 0)


class Cvat:
    """CVAT for images 1.1: tags, boxes, polygons, polylines, points, masks."""

    name = "cvat"
    carries = frozenset(Supervision)
    writes = frozenset(Supervision)
    sign = "an XML file with <annotations>, such as annotations.xml"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for an XML file whose root is `<annotations>`."""
        return Fit.YES if _ROOT in xml_roots(labels or path) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read exports of CVAT; several files are put together.

        Args:
            path: Folder of the data set.
            labels: The XML file or the folder of it; None looks everywhere below `path`.
            reading: How it is to be read.

        Raises:
            LabelError: There is no such file, it is "CVAT for video", or all problems of the files at once.
        """
        base = labels or path
        files = sorted(file for file in xml_files(base) if xml_root(file) == _ROOT)
        if not files:
            raise LabelError(f"there is no XML file with <annotations> in {base}; export the task as {_EXPORT}")
        problems, notes = Problems(), list[str]()
        trees = {file: _load(file) for file in files}
        folder = find_photos(path, missing=reading.missing)
        classes = _classes(list(trees.values()), notes, background=reading.background)
        if classes is None:
            classes = read_classes(path, labels, problems, background=reading.background)
        reader = _Reader(problems)
        records = [
            record
            for file, tree in trees.items()
            for record in reader.records(tree, file, base if len(files) > 1 and base.is_dir() else file.parent)
        ]
        names = join([file.name for file in files])
        empty = sum(not record.items and not record.tags and record.whole for record in records)
        if records and empty == len(records):
            problems.add(names, "no image has a shape or a tag; annotate some in CVAT and export the task again")
        if empty:
            notes.append(
                f"{empty} of {len(records)} images in {names} have no shape and no tag and are negatives; take those "
                "out of the file that nobody has looked at"
            )
        splits = {} if any(record.split for record in records) else read_splits(path, folder, problems)
        said = Labels(tuple(records), names, classes, splits, notes=(*notes, *reader.notes(names)))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write annotations.xml, with an image for each photo of which something is said."""
        return write_cvat(hint_set, out)


_EXPORT = "'CVAT for images 1.1'"


def _load(file: Path) -> Element:
    tree = read_tree(file)
    if tree.find("track") is not None:
        raise LabelError(
            f"{file.name} is 'CVAT for video': its tracks name no photos; export the task from CVAT as {_EXPORT}, with "
            "the images"
        )
    if tree.find("image") is None:
        raise LabelError(f"{file.name} has no <image>; export the task from CVAT as {_EXPORT}")
    return tree


def _classes(trees: Sequence[Element], notes: list[str], *, background: bool) -> tuple[str, ...] | None:
    """Return the labels of the tasks in their order; None where the files have none. Those of joints are no classes."""
    labels = [
        label for tree in trees for meta in tree.findall("meta") for listed in meta.iter("labels") for label in listed
    ]
    names = [(one.findtext("name") or "").strip() for one in labels if not (one.findtext("parent") or "").strip()]
    found = dict.fromkeys(name for name in names if name)
    for name in [name for name in found if background and is_background(name)]:
        notes.append(f"the label '{shown(name)}' is background and no class")
        del found[name]
    return tuple(found) or None


class _Reader:
    """Reads images, and counts what of them is left out."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.left: Counter[str] = Counter()
        self.outside = self.turned = 0
        self._numbers = count(1)

    def notes(self, where: str) -> list[str]:
        """Return what was left out, in sentences."""
        found = []
        if self.left:
            kinds = join([f"{number} <{shown(kind)}>" for kind, number in sorted(self.left.items())])
            found.append(f"{kinds} in {where} are left out; only that their class is in the photo is read")
        if self.outside:
            found.append(f"{self.outside} shapes in {where} that are marked as outside are left out")
        if self.turned:
            found.append(f"{self.turned} boxes in {where} are turned; the upright box around each counts")
        return found

    def records(self, tree: Element, file: Path, base: Path) -> Iterator[Record]:
        """Yield what a file says of each image; `base` is the folder its name is said from."""
        where, parent = file.relative_to(base).as_posix(), file.parent.relative_to(base).as_posix()
        for image in tree.findall("image"):
            name, subset = image.get("name", ""), image.get("subset", "")
            line = f"image {shown(name or image.get('id', '?'))}"
            if not name.strip():
                self.problems.add(where, f"{line}: needs a name")
                continue
            split = (split_of(subset) or subset) if subset.lower() not in ("", "default") else None
            if not subset and parent != ".":
                split = split_of(parent)
            size = size_of(image.get("width"), image.get("height"))
            items, tags, whole = self._items(image, size)
            yield Record(
                name if parent == "." else f"{parent}/images/{name}",
                items,
                tags=tuple(tags) if tags else None,
                size=size,
                split=split,
                whole=whole,
                also=() if parent == "." else (f"{parent}/{name}", name),
                where=where,
                line=line,
            )

    def _items(self, image: Element, size: tuple[int, int] | None) -> tuple[tuple[Item, ...], list[str], bool]:
        """Return the objects, strokes and clicks of an image, the classes it names, and whether those are all."""
        items: list[tuple[str, Item]] = []
        tags, whole, counts = list[str](), True, Counter[str]()
        for element in image:
            kind, label, group = element.tag, element.get("label", "").strip(), element.get("group_id", "0")
            counts[kind] += 1
            line = f"{kind} {counts[kind]}"
            if element.get("outside") == "1":
                self.outside += 1
            elif not label:
                items.append(("0", Item("", _NOWHERE, line=line, wrong="has no label")))
            elif kind == "tag":
                tags.append(label)
            elif kind not in _SHAPES:
                self.left[kind] += 1
                tags.append(label)
                whole = False
            else:
                self.turned += kind == "box" and _angle(element) != 0
                try:
                    items += [(group, Item(label, shape, line=line)) for shape in _SHAPES[kind](element, size)]
                except LabelError as error:
                    items.append(("0", Item(label, _NOWHERE, line=line, wrong=str(error))))
        return self._joined(items, size), tags, whole

    def _joined(self, items: list[tuple[str, Item]], size: tuple[int, int] | None) -> tuple[Item, ...]:
        """Make one item of the shapes of a group and label: parts of an outline, a box and its outline."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for at, (group, item) in enumerate(items):
            if group not in ("", "0"):
                groups[group, item.label].append(at)
        found: dict[int, Item] = {at: item for at, (_, item) in enumerate(items)}
        for members in groups.values():
            boxes = [at for at in members if isinstance(found[at].shape, Box)]
            parts = [shape for at in members if isinstance(shape := found[at].shape, Region)]
            if len(boxes) + len(parts) == len(members) == 1 or (len(boxes) > 1 and not parts):
                continue  # one shape, or several objects that belong together
            object_, outline = next(self._numbers), _union(parts, size) if parts else None
            own = boxes if len(boxes) == 1 else []
            whole = [at for at in members if at in own or isinstance(found[at].shape, Region)]
            for at in set(members) - set(boxes) - set(whole):
                found[at] = replace(found[at], object=object_)
            if own:
                found[whole[0]] = replace(found[own[0]], outline=outline, object=object_)
            elif outline is not None:
                found[whole[0]] = replace(found[whole[0]], shape=outline, object=object_)
            for at in whole[1:]:
                del found[at]
        return tuple(found.values())


def _union(regions: Sequence[Region], size: tuple[int, int] | None) -> Region:
    if len(regions) == 1:
        return regions[0]
    if size is None or not any(region.rle for region in regions):
        return Region(tuple(ring for region in regions for ring in region.polygons))
    return Region(rle=runs.encode(np.logical_or.reduce([rasterise(region, size) for region in regions])))


def _values(element: Element, names: Sequence[str]) -> list[float]:
    """Return the numbers of some attributes.

    Raises:
        LabelError: One is missing, no number or infinite.
    """
    values = [number(element.get(name)) for name in names]
    if not all(value is not None and math.isfinite(value) for value in values):
        given = ", ".join(f"{name}='{shown(element.get(name, ''))}'" for name in names)
        raise LabelError(f"needs numbers in {', '.join(names)}, but has {given}")
    return [value for value in values if value is not None]


def _points(element: Element) -> tuple[float, ...]:
    """Return the points of a shape, `x,y;x,y`, as a flat list."""
    text = element.get("points", "")
    pairs = [pair.split(",") for pair in text.split(";") if pair.strip()]
    values = [number(value) for pair in pairs for value in pair]
    if not pairs or None in values or any(len(pair) != 2 for pair in pairs):
        raise LabelError(f"needs points as 'x,y;x,y', but has '{shown(text)}'")
    return tuple(value for value in values if value is not None)


def _angle(element: Element) -> float:
    return math.radians(number(element.get("rotation")) or 0.0)


def _box(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    x0, y0, x1, y1 = _values(element, SIDES)
    if not (angle := _angle(element)):
        return [Box(x0, y0, x1, y1)]
    left, top, right, bottom = turned_box(((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0, y1 - y0), angle)
    if size is not None:  # corners of a turned box reach outside without fault
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, size[1]), min(bottom, size[0])
    return [Box(left, top, right, bottom)]


def _polygon(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    return [Region((_points(element),))]


def _polyline(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    return [Stroke(_points(element))]


def _clicks(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    flat = _points(element)
    return [Click(x, y) for x, y in zip(flat[0::2], flat[1::2], strict=True)]


def _ellipse(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    x, y, across, down = _values(element, ("cx", "cy", "rx", "ry"))
    turns, angle = np.arange(_CORNERS) * (2 * math.pi / _CORNERS), _angle(element)
    u, v = across * np.cos(turns), down * np.sin(turns)
    xs, ys = x + u * math.cos(angle) - v * math.sin(angle), y + u * math.sin(angle) + v * math.cos(angle)
    return [Region((tuple(np.stack([xs, ys], axis=1).ravel().tolist()),))]


def _mask(element: Element, size: tuple[int, int] | None) -> list[Shape]:
    """Return a mask: run lengths along the rows of a window, the first of zeros."""
    left, top, width, height = (int(value) for value in _values(element, ("left", "top", "width", "height")))
    if size is None or math.prod(size) > runs.MOST_PIXELS:
        raise LabelError(f"needs an image whose width and height are given, of at most {runs.MOST_PIXELS:,} pixels")
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise LabelError(f"its window {width} x {height} at ({left}, {top}) reaches outside {size[1]} x {size[0]}")
    try:
        counts = [int(text) for text in element.get("rle", "").split(",")]
    except ValueError:
        raise LabelError(f"needs run lengths in rle, but has '{shown(element.get('rle', ''))}'") from None
    if min(counts) < 0 or sum(counts) != width * height:
        raise LabelError(f"its run lengths sum to {sum(counts)}, but its window has {width} x {height} pixels")
    window = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return [Region(rle=runs.encode_part(window, (left, top), size))]


_SHAPES = {
    "box": _box,
    "polygon": _polygon,
    "polyline": _polyline,
    "points": _clicks,
    "ellipse": _ellipse,
    "mask": _mask,
}
