"""The shapes of a labelme file as items: shapes of one group and label are one object."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hintseg.errors import LabelError, shown
from hintseg.files.images import open_embedded
from hintseg.formats.fitting import Size
from hintseg.formats.json_files import number, numbers
from hintseg.formats.records import Item
from hintseg.geometry import runs
from hintseg.geometry.polygons import ellipse
from hintseg.geometry.rasterise import rasterise
from hintseg.types import Box, Click, Region, Shape, Stroke

_NOTHING = Box(0, 0, 0, 0)

Json = Mapping[str, Any]
Ring = tuple[float, ...]


def items_of(shapes: Sequence[Any], size: Size | None) -> list[Item]:
    """Return the objects, strokes and clicks of a file.

    Args:
        shapes: Its list `shapes`.
        size: (height, width) of the picture as the file states it, pixels.
    """
    items = list[Item]()
    groups: dict[tuple[str, str], list[Item]] = defaultdict(list)
    numbers_: dict[tuple[str, str], int] = {}
    for place, shape in enumerate(shapes, start=1):
        for item, group in _read(shape, size, f"shape {place}", numbers_):
            if group is None or item.wrong or isinstance(item.shape, Click | Stroke):
                items.append(item)
            else:
                if not groups[group]:
                    items.append(item)  # its place in the order, until the group is known
                groups[group].append(item)
    first = {id(parts[0]): parts for parts in groups.values()}
    return [one for item in items for one in (_one_object(first[id(item)], size) if id(item) in first else [item])]


def _read(
    shape: Any, size: Size | None, line: str, numbers_: dict[tuple[str, str], int]
) -> Iterator[tuple[Item, tuple[str, str] | None]]:
    """Yield what a shape says, and the group it belongs to; several points say as many things."""
    if not isinstance(shape, dict):
        yield Item("", _NOTHING, line=line, wrong="is no object with `label` and `points`"), None
        return
    label, group = str(shape.get("label") or ""), None
    object_ = None
    if shape.get("group_id") is not None:
        group = label, str(shape["group_id"])
        object_ = numbers_.setdefault(group, len(numbers_) + 1)
    try:
        score = shape.get("score")
        trust = 1.0 if score is None else min(max(number(score, "score"), 0.0), 1.0)
        for found in _shapes(shape, size):
            yield Item(label, found, object=object_, trust=trust, line=line), group
    except LabelError as error:
        yield Item(label, _NOTHING, line=line, wrong=str(error)), None


def _shapes(shape: Json, size: Size | None) -> Iterator[Shape]:
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise LabelError("has no points")
    pairs = [numbers(point, "point", count=2) for point in points]
    ring = tuple(value for pair in pairs for value in pair)
    kind = shape.get("shape_type") or "polygon"
    if kind in ("point", "points"):
        yield from (Click(x, y) for x, y in pairs)
    elif kind in ("line", "linestrip"):
        yield Stroke(ring)
    elif kind in ("polygon", "oriented_rectangle", "rotation", "quadrilateral"):
        yield Region((ring,))
    elif kind == "rectangle":
        yield _rectangle(ring)
    elif kind == "circle":
        (x, y), (x1, y1) = _two(pairs, kind)
        radius = math.hypot(x1 - x, y1 - y)
        yield Region((ellipse(x, y, radius, radius),))
    elif kind == "mask":
        yield _mask(shape, _two(pairs, kind)[0], size)
    else:
        raise LabelError(f"is of the type '{shown(kind)}', which is not read")


def _two(pairs: Sequence[tuple[float, ...]], kind: str) -> Sequence[tuple[float, ...]]:
    if len(pairs) != 2:
        raise LabelError(f"a {kind} has {len(pairs)} points; 2 are needed")
    return pairs


def _rectangle(ring: Ring) -> Shape:
    """Return the box between two corners; of four corners, as some tools write them, also where it is turned."""
    xs, ys = ring[0::2], ring[1::2]
    if len(xs) == 2 or (len(xs) == 4 and len(set(xs)) <= 2 and len(set(ys)) <= 2):
        return Box(min(xs), min(ys), max(xs), max(ys))
    if len(xs) != 4:
        raise LabelError(f"a rectangle has {len(xs)} points; 2 or 4 are needed")
    return Region((ring,))


def _mask(shape: Json, corner: tuple[float, ...], size: Size | None) -> Region:
    if size is None:
        raise LabelError("is a mask, but the file lacks `imageHeight` and `imageWidth`")
    try:
        with open_embedded(str(shape.get("mask") or "")) as image:
            width, height = image.size
            if width > size[1] + 1 or height > size[0] + 1:
                raise LabelError(f"its mask has {width} x {height} pixels, the picture {size[1]} x {size[0]}")
            part = np.array(image.convert("L")) > 0
    except LabelError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise LabelError(f"its mask cannot be read: {error}") from error
    whole = np.zeros(size, dtype=np.bool_)
    x, y = round(corner[0]), round(corner[1])
    top, left = max(-y, 0), max(-x, 0)
    part = part[top:, left:][: max(size[0] - max(y, 0), 0), : max(size[1] - max(x, 0), 0)]
    whole[max(y, 0) : max(y, 0) + part.shape[0], max(x, 0) : max(x, 0) + part.shape[1]] = part
    return Region(rle=runs.encode(whole))


def _one_object(parts: Sequence[Item], size: Size | None) -> list[Item]:
    """Return a group as one object: its outlines together, with its box where it has one; several boxes stay apart."""
    boxes = [item for item in parts if isinstance(item.shape, Box)]
    outlines = [item.shape for item in parts if isinstance(item.shape, Region)]
    if not outlines or len(boxes) > 1:
        return list(parts)
    outline = outlines[0] if len(outlines) == 1 else _together(outlines, size)
    first = boxes[0] if boxes else parts[0]
    shape = first.shape if boxes else outline
    return [
        Item(first.label, shape, outline if boxes else None, object=first.object, trust=first.trust, line=first.line)
    ]


def _together(outlines: Sequence[Region], size: Size | None) -> Region:
    if size is None or all(one.rle is None for one in outlines):
        return Region(tuple(ring for one in outlines for ring in one.polygons))
    whole = np.zeros(size, dtype=np.bool_)
    for one in outlines:
        whole |= rasterise(one, size)
    return Region(rle=runs.encode(whole))
