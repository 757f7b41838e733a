"""How YOLO's label files are written: `labels/ID.txt` for each photo, the names and splits in `data.yaml`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hintseg.errors import PhotoError
from hintseg.files.atomic import whole_file
from hintseg.formats.codec import Written
from hintseg.formats.index_image import read_checked
from hintseg.formats.photos import photo_size
from hintseg.geometry.polygons import join, outlines
from hintseg.geometry.rasterise import rasterise
from hintseg.types import BACKGROUND, IGNORE, Box, HintSet, Mark, MaskFile, Photo, Region, Shape

Size = tuple[int, int]

SPLITS = ("train", "val", "test")

_LOST = {
    "unread": "photos cannot be read for their size and have no label file",
    "crowds": "objects that stand for many are left out: YOLO knows no crowds",
    "background": "boxes of background are left out: YOLO knows objects only",
    "trust": "objects lose how far they are trusted",
    "regions": "regions are left out: YOLO's outlines are of whole objects",
    "boxes": "boxes of photos with a whole mask are left out: its outlines are written in their place",
    "moved": "boxes are not those around their object's outline; read again they are",
    "holes": "masks or objects have holes or parts: filled or joined by lines of no width, as YOLO has one ring each",
    "ignored": "masks have pixels of which nothing is known; read again they are background",
    "tags": "photos have tags other than their boxes say, and YOLO has boxes only",
}


def write_yolo(hint_set: HintSet, out: Path) -> Written:
    """Write a hint set; see `Yolo.write`."""
    lost: Counter[str] = Counter()
    classes = len(hint_set.classes)
    for photo in hint_set.photos:
        mask = photo.truth if photo.truth is not None else photo.hints.mask
        objects = photo.hints.shaped(Box)
        tags = photo.hints.tags
        negative = tags is not None and not tags.present and len(tags.said) == classes
        lost["regions"] += len(photo.hints.shaped(Region))
        if not objects and mask is None and not negative:
            continue
        try:
            size = photo_size(photo.path)
        except PhotoError:
            lost["unread"] += 1
            continue
        if isinstance(mask, MaskFile):
            lost["boxes"] += len(photo.hints.objects)
            marks = _marks_of_image(mask, size, classes, lost)
        else:
            marks = _marks(objects, mask or (), lost)
        lines = [_line(mark, size, lost) for mark in marks]
        said = {mark.label for mark in marks}
        lost["tags"] += tags is not None and (set(tags.present) != said or len(tags.said) < classes)
        with whole_file(out / "labels" / f"{photo.id}.txt") as file:
            file.write("".join(lines).encode())
    config = ["names:\n", *(f"  {n}: {_quoted(name)}\n" for n, name in enumerate(hint_set.classes))]
    files = {photo.id: photo for photo in hint_set.photos}
    for split, ids in hint_set.splits.items():
        if split not in SPLITS:
            lost[f"photos are in the split '{split}'; YOLO knows {', '.join(SPLITS)} only"] += len(ids)
            continue
        config.append(f"{split}: {split}.txt\n")
        with whole_file(out / f"{split}.txt") as file:
            file.write("".join(f"./images/{id}{_suffix(files[id])}\n" for id in ids if id in files).encode())
    with whole_file(out / "data.yaml") as file:
        file.write("".join(config).encode())
    return Written(out / "data.yaml", tuple(f"{n} {_LOST.get(what, what)}" for what, n in lost.items() if n))


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _suffix(photo: Photo) -> str:
    """Return the suffix of a photo's file where its id lacks it."""
    return "" if photo.id.endswith(photo.path.suffix) else photo.path.suffix


def _marks(boxes: Sequence[Mark[Box]], mask: Sequence[Mark[Shape]], lost: Counter[str]) -> list[Mark[Shape]]:
    """Return the objects: those of the mask in the place of their boxes."""
    outlined = {mark.object: mark for mark in mask if isinstance(mark.shape, Region) and mark.label != IGNORE}
    found = list[Mark[Shape]]()
    for box in boxes:
        if box.label in (BACKGROUND, IGNORE):
            lost["crowds" if box.label == IGNORE else "background"] += 1
            continue
        lost["trust"] += box.trust < 1
        mark = None if box.object is None else outlined.pop(box.object, None)
        if mark is not None and isinstance(mark.shape, Region):
            lost["moved"] += bool(mark.shape.polygons) and not np.allclose(_bounds(mark.shape), box.shape.corners)
        found.append(box if mark is None else mark)
    found.extend(outlined.values())
    return found


def _bounds(region: Region) -> tuple[float, float, float, float]:
    xs = [x for ring in region.polygons for x in ring[0::2]]
    ys = [y for ring in region.polygons for y in ring[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _marks_of_image(mask: MaskFile, size: Size, classes: int, lost: Counter[str]) -> list[Mark[Shape]]:
    """Return each connected part of each class as an object."""
    values = read_checked(mask, size, classes)
    lost["ignored"] += bool((values == IGNORE).any())
    found = list[Mark[Shape]]()
    for label in np.unique(values).tolist():
        if label in (BACKGROUND, IGNORE):
            continue
        own = values == label
        rings = [Region((tuple(ring.ravel().tolist()),)) for ring in outlines(own)]
        filled = np.zeros(size, dtype=np.bool_)
        for ring in rings:
            filled |= rasterise(ring, size)
        lost["holes"] += bool((filled != own).any())
        found.extend(Mark(label, ring) for ring in rings)
    return found


def _line(mark: Mark[Shape], size: Size, lost: Counter[str]) -> str:
    height, width = size
    if isinstance(mark.shape, Region):
        ring = _ring(mark.shape, size, lost)
        values = [value / side for value, side in zip(ring, (width, height) * (len(ring) // 2), strict=True)]
    elif isinstance(mark.shape, Box):
        x0, y0, x1, y1 = mark.shape.corners
        values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
    else:
        raise TypeError(f"{mark.shape} is neither a box nor an outline")
    return f"{mark.label - 1} {' '.join(f'{value:.10g}' for value in values)}\n"


def _ring(region: Region, size: Size, lost: Counter[str]) -> Sequence[float]:
    """Return one ring for an object."""
    if region.rle is None and len(region.polygons) == 1:
        return region.polygons[0]
    mask = rasterise(region, size)
    rings = outlines(mask)
    ring: Sequence[float] = join(rings).ravel().tolist()
    lost["holes"] += len(rings) > 1 or bool((rasterise(Region((tuple(ring),)), size) != mask).any())
    return ring
