"""What tables of the VGG Image Annotator share with its JSON: the shapes of regions; and their rows.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hintseg.errors import LabelError, shown
from hintseg.files.parse import parse_json
from hintseg.formats.tables import cell, read_table
from hintseg.geometry.polygons import ellipse
from hintseg.types import Box, Click, Region, Shape, Stroke

Json = Mapping[str, Any]


class Row(NamedTuple):
    """A row of a table: its photo, the shape and attributes of its region (empty: it has none), those of its photo."""

    name: str
    shape: Json
    attributes: Json
    of_photo: Json
    line: str


def rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a table.

    Raises:
        LabelError: It cannot be read.
    """
    table = read_table(file)
    columns = [table.column((name,)) for name in ("regionshapeattributes", "regionattributes", "fileattributes")]
    for number, cells in table.rows:
        shape, attributes, of_photo = (_object(cell(cells, column)) for column in columns)
        yield Row(cell(cells, table.file), shape, attributes, of_photo, f"line {number}")


def _object(text: str) -> Json:
    """Return the JSON object in a cell; what is none becomes the name of a shape, which no shape has."""
    try:
        found = parse_json((text or "{}").encode())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"name": text}


def via_shape(attributes: Mapping[str, Any]) -> Shape:
    """Return the shape of a region.

    Raises:
        LabelError: It has no known name, or coordinates are missing or no numbers.

    Example:
        >>> via_shape({"name": "rect", "x": 1, "y": 2, "width": 10, "height": 5})
        Box(x0=1.0, y0=2.0, x1=11.0, y1=7.0)
    """

    def number(key: str, default: float | None = None) -> float:
        value = attributes.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LabelError(f"a {shown(kind)} needs a number `{key}`")
        return float(value)

    def ring() -> tuple[float, ...]:
        xs, ys = attributes.get("all_points_x"), attributes.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise LabelError(f"a {shown(kind)} needs lists all_points_x and all_points_y of one length")
        values = [value for pair in zip(xs, ys, strict=True) for value in pair]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise LabelError(f"a {shown(kind)} has a coordinate that is no number")
        return tuple(map(float, values))

    kind = attributes.get("name")
    if kind == "rect":
        x, y = number("x"), number("y")
        return Box(x, y, x + number("width"), y + number("height"))
    if kind == "polygon":
        return Region((ring(),))
    if kind == "polyline":
        return Stroke(ring())
    if kind == "point":
        return Click(number("cx"), number("cy"))
    if kind == "circle":
        return Region((ellipse(number("cx"), number("cy"), number("r"), number("r")),))
    if kind == "ellipse":
        angle = number("theta", 0.0)
        return Region((ellipse(number("cx"), number("cy"), number("rx"), number("ry"), angle),))
    raise LabelError(f"its shape '{shown(kind)}' is not known; VIA has rect, polygon, polyline, point, circle, ellipse")
