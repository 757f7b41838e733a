"""Writing "CVAT for images 1.1", as CVAT takes it under "Upload annotations"."""

from __future__ import annotations

import colorsys
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from hintseg.formats.codec import Written
from hintseg.formats.fitting import bounds_of
from hintseg.formats.objects import Outlined, outlined
from hintseg.formats.photos import file_name, size_or_none
from hintseg.formats.xml import add, shortest, write_xml
from hintseg.geometry import runs
from hintseg.types import BACKGROUND, IGNORE, Box, Click, HintSet, Mark, Photo, Region, Rle, Shape, Stroke, Tags

FILE = "annotations.xml"

SIDES = ("xtl", "ytl", "xbr", "ybr")

_BACKGROUND = "background"
"""The label of clicks and strokes on background."""

_LOST = {
    "unread": "photos cannot be read, so their size is not known, and are left out",
    "guessed": "photos say nothing of some classes; CVAT has no way to say so, and they count as absent",
    "half": "photos say only of some classes that they are absent, and are left out",
    "unknown": "full masks have pixels of which nothing is known; they count as background in CVAT",
    "parts": "objects are the connected parts of an index image, as no box was drawn around them",
    "gaps": "full masks have no pixel in one of the boxes of their photo, and are not read again as full masks",
    "others": "boxes of crowds or background are left out",
    "regions": "parts of objects are left out: CVAT has whole objects only",
    "images": "images of strokes are left out; their classes are written as tags",
    "widths": "strokes are not 1 pixel wide; CVAT has lines without a width",
    "trust": "marks are not wholly trusted; CVAT has no trust",
    "splits": "photos are in several splits; the first is their subset",
    "alone": "photos of the splits are unlabelled and not in the file",
}


def write_cvat(hint_set: HintSet, out: Path) -> Written:
    """Write a hint set as `annotations.xml`; see `Cvat.write`."""
    lost: Counter[str] = Counter()
    splits: dict[str, list[str]] = {photo.id: [] for photo in hint_set.photos}
    for split, members in hint_set.splits.items():
        for id in members:
            splits[id].append(split)
    images: list[Element] = []
    for photo in hint_set.photos:
        image = _image(photo, hint_set, len(images), lost)
        if image is None:
            lost["alone"] += bool(splits[photo.id])
            continue
        lost["splits"] += len(splits[photo.id]) > 1
        if splits[photo.id]:
            image.set("subset", splits[photo.id][0])
        images.append(image)
    root = Element("annotations")
    add(root, "version", "1.1")
    task = add(add(root, "meta"), "task")
    add(task, "name", hint_set.name)
    add(task, "size", len(images))
    add(task, "mode", "annotation")
    labels = add(task, "labels")
    on_background = any(shape.get("label") == _BACKGROUND for image in images for shape in image)
    names = [*hint_set.classes, *([_BACKGROUND] if on_background and _BACKGROUND not in hint_set.classes else [])]
    for at, name in enumerate(names):
        label = add(labels, "label")
        add(label, "name", name)
        add(label, "color", _colour(at))
        add(label, "type", "any")
        add(label, "attributes")
    root.extend(images)
    write_xml(out / FILE, root)
    return Written(out / FILE, tuple(f"{lost[kind]} {what}" for kind, what in _LOST.items() if lost[kind]))


def _colour(at: int) -> str:
    """Return the colour of a label; steps of the golden ratio around the circle keep neighbours apart."""
    channels = colorsys.hsv_to_rgb(at * 0.618034 % 1, 0.75, 0.95)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _image(photo: Photo, hint_set: HintSet, id: int, lost: Counter[str]) -> Element | None:
    """Return the <image> of a photo; None where nothing is said of it, or nothing that CVAT can say."""
    hints = photo.hints
    tags = Tags() if hints.tags is None else hints.tags
    lost["images"] += hints.scribbles is not None
    full = photo.truth is not None or hints.mask is not None
    if not (full or hints.marks or hints.tags is not None):
        return None
    size = size_or_none(photo.path)
    if size is None:
        lost["unread"] += 1
        return None
    image = Element("image", id=str(id), name=file_name(photo), width=str(size[1]), height=str(size[0]))
    objects, unknown = outlined(photo, size, len(hint_set.classes), background=hint_set.background)
    names = (_BACKGROUND, *hint_set.classes)
    marked = {mark.object for mark in hints.marks if isinstance(mark.shape, Click | Stroke)} - {None}
    last = max((one.number or 0 for one in objects), default=0)
    for one in objects:
        last = _object(image, one, names, last, shared=one.number in marked)
    for mark in hints.marks:
        _mark(image, mark, names, lost)
    shown = {one.label for one in objects} | {mark.label for mark in hints.marks if not isinstance(mark.shape, Region)}
    for label in sorted(tags.present - shown):
        _shape(image, "tag", names[label])
    known = hints.tags is None or len(tags.said) == len(hint_set.classes)
    if not known and not len(image):
        lost["half"] += 1
        return None
    lost["guessed"] += not known
    lost["unknown"] += unknown
    lost["gaps"] += full and any(one.outline is None for one in objects)
    lost["parts"] += sum(one.box is None for one in objects)
    return image


def _object(image: Element, one: Outlined, names: tuple[str, ...], last: int, *, shared: bool) -> int:
    """Add the shapes of an object; more than one have its number, or else the next after `last`, as `group_id`."""
    outline = one.outline
    boxed = one.box if one.box is not None and (outline is None or bounds_of(outline) != one.box.corners) else None
    parts = 0 if outline is None else 1 if outline.rle is not None else len(outline.polygons)
    group: dict[str, str] = {}
    if parts + (boxed is not None) > 1 or shared:
        number = one.number if one.number is not None else last + 1
        group, last = {"group_id": str(number)}, max(last, number)
    label = names[one.label]
    if boxed is not None:
        _shape(image, "box", label, **dict(zip(SIDES, map(shortest, boxed.corners), strict=True)), **group)
    if outline is not None and outline.rle is not None:
        _shape(image, "mask", label, **_window(outline.rle), **group)
    elif outline is not None:
        for ring in outline.polygons:
            _shape(image, "polygon", label, points=_points(ring), **group)
    return last


def _mark(image: Element, mark: Mark[Shape], names: tuple[str, ...], lost: Counter[str]) -> None:
    """Add a click or stroke; boxes are written with their objects."""
    shape = mark.shape
    lost["trust"] += mark.trust < 1
    if isinstance(shape, Box):
        lost["others"] += mark.label in (BACKGROUND, IGNORE)
        return
    if isinstance(shape, Region) or mark.label == IGNORE:
        lost["regions"] += 1
        return
    group = {} if mark.object is None else {"group_id": str(mark.object)}
    if isinstance(shape, Click):
        _shape(image, "points", names[mark.label], points=_points((shape.x, shape.y)), **group)
        return
    lost["widths"] += shape.width != 1
    points = shape.points if len(shape.points) > 2 else shape.points * 2  # a line has two ends
    _shape(image, "polyline", names[mark.label], points=_points(points), **group)


def _shape(image: Element, kind: str, label: str, **values: str) -> None:
    if kind == "tag":
        add(image, kind, label=label, source="manual")
    else:
        add(image, kind, label=label, source="manual", occluded="0", **values, z_order="0")


def _points(flat: tuple[float, ...]) -> str:
    return ";".join(f"{shortest(x)},{shortest(y)}" for x, y in zip(flat[0::2], flat[1::2], strict=True))


def _window(rle: Rle) -> dict[str, str]:
    """Return a mask as CVAT has it: the window around it, and run lengths along the window's rows."""
    x0, y0, x1, y1 = runs.bounds(rle) or (0, 0, 1, 1)
    window = runs.decode(rle)[y0:y1, x0:x1]
    counts = runs.encode(np.ascontiguousarray(window.T)).counts
    values = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
    return {"rle": ", ".join(map(str, counts)), **{name: str(value) for name, value in values.items()}}
