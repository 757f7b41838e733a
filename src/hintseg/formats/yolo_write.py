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
from hintseg.geometry.boxes import pixel_window
from hintseg.geometry.polygons import Ring, join, outlines
from hintseg.geometry.rasterise import pixels, rasterise
from hintseg.types import BACKGROUND, IGNORE, Box, HintSet, Mark, MaskFile, Photo, Region, Shape

Size = tuple[int, int]

SPLITS = ("train", "val", "test")

_LOST = {
    "unread": "photos cannot be read for their size and have no label file",
    "crowds": "objects that stand for many are left out: YOLO knows no crowds",
    "background": "boxes of background are left out: YOLO knows objects only",
    "trust": "objects lose how far they are trusted",
    "regions": "regions are left out: YOLO's outlines are of whole objects",
    "bare": "boxes of photos with a whole mask have no pixel of their class in it",
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
            marks = _marks_of_image(mask, _objects(objects, lost), size, classes, lost)
        else:
            marks = _marks(_objects(objects, lost), mask or (), lost)
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


def _objects(boxes: Sequence[Mark[Box]], lost: Counter[str]) -> list[Mark[Box]]:
    lost["crowds"] += sum(box.label == IGNORE for box in boxes)
    lost["background"] += sum(box.label == BACKGROUND for box in boxes)
    objects = [box for box in boxes if BACKGROUND < box.label < IGNORE]
    lost["trust"] += sum(box.trust < 1 for box in objects)
    return objects


def _marks(boxes: Sequence[Mark[Box]], mask: Sequence[Mark[Shape]], lost: Counter[str]) -> list[Mark[Shape]]:
    """Return the objects: those of the mask in the place of their boxes."""
    outlined = {mark.object: mark for mark in mask if isinstance(mark.shape, Region) and mark.label != IGNORE}
    found = list[Mark[Shape]]()
    for box in boxes:
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


def _marks_of_image(
    mask: MaskFile, boxes: Sequence[Mark[Box]], size: Size, classes: int, lost: Counter[str]
) -> list[Mark[Shape]]:
    """Return the objects of an index image: a pixel is of the smallest box of its class, or a connected part is one."""
    values = read_checked(mask, size, classes)
    lost["ignored"] += bool((values == IGNORE).any())
    found: dict[int, Mark[Shape]] = dict(enumerate(boxes))
    windows = {n: pixel_window(box.shape.corners, size) for n, box in enumerate(boxes)}
    smallest = sorted(windows, key=lambda n: (windows[n][2] - windows[n][0]) * (windows[n][3] - windows[n][1]))
    for label in sorted({*np.unique(values).tolist()} - {BACKGROUND, IGNORE}):
        own = values == label
        left, filled = own.copy(), np.zeros(size, dtype=np.bool_)
        regions = list[Region]()
        for n in smallest:
            x0, y0, x1, y1 = windows[n]
            if boxes[n].label == label and left[y0:y1, x0:x1].any():
                regions.append(_region(join(outlines(left[y0:y1, x0:x1])), (x0, y0)))
                left[y0:y1, x0:x1] = False
                found[n] = Mark(label, regions[-1])
                lost["moved"] += not np.allclose(_bounds(regions[-1]), boxes[n].shape.corners)
        for ring in outlines(left):
            regions.append(_region(ring))
            found[len(found)] = Mark(label, regions[-1])
        for region in regions:
            filled[pixels(region, size)] = True
        lost["holes"] += bool((filled != own).any())
    lost["bare"] += sum(isinstance(mark.shape, Box) for mark in found.values())
    return list(found.values())


def _region(ring: Ring, corner: tuple[int, int] = (0, 0)) -> Region:
    """Return the outline of a window whose corner is at (x, y) as one of the photo."""
    return Region((tuple(np.add(ring, corner).ravel().tolist()),))


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
    rows, columns = pixels(region, size)
    if not rows.size:  # thinner than the way between centres of pixels
        lost["holes"] += 1
        return region.polygons[0]
    x, y = int(columns.min()), int(rows.min())
    mask = np.zeros((int(rows.max()) - y + 1, int(columns.max()) - x + 1), dtype=np.bool_)
    mask[rows - y, columns - x] = True
    rings = outlines(mask)
    one = join(rings)
    lost["holes"] += len(rings) > 1 or bool((rasterise(_region(one), mask.shape) != mask).any())
    return _region(one, (x, y)).polygons[0]
