"""CSV of the VGG Image Annotator, version 2: one row for each region, its shape and its attributes as JSON.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import parse_json
from hintseg.formats.codec import Fit
from hintseg.formats.csv import find_tables, sniff_tables
from hintseg.formats.csv_boxes import one_class
from hintseg.formats.gather import gather
from hintseg.formats.layout import read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.tables import LABEL_COLUMNS, Table, cell, is_nothing, is_table, kind_at, kind_of, plain, read_table
from hintseg.geometry.polygons import ellipse
from hintseg.types import Box, Click, HintSet, Region, Shape, Stroke, Supervision

FILES = ("via_region_data.csv", "via_project.csv")
"""Names looked for first in the data set's folder where no label file is given."""

NAMES = (*LABEL_COLUMNS, "name", "type")
"""Attributes that name the class, as `tables.plain` returns them, the surest first."""

_NOWHERE = Box(0, 0, 0, 0)


class ViaCsv:
    """CSV of the VGG Image Annotator."""

    name = "via_csv"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS, Supervision.POINTS, Supervision.SCRIBBLES})
    sign = "a table with region_shape_attributes"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look at the header of tables in the folder, or of the one that is given."""
        if labels is not None and is_table(labels):
            return Fit.YES if kind_at(labels) == "via" else Fit.NO
        return sniff_tables(labels or path, ["via"], FILES)

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read regions: boxes, polygons, circles and ellipses; polylines are strokes, points clicks.

        Args:
            path: Folder of the data set.
            labels: The table; None looks for one in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: All problems of the table at once, with their lines.
        """
        problems, notes = Problems(), list[str]()
        files = find_tables(path, labels, ["via"], FILES, notes)
        first = next(iter(files))
        listed = read_classes(path, first, problems, background=reading.background)
        folder = find_photos(path, missing=reading.missing)
        records = list[Record]()
        for file, split in files.items():
            table = read_table(file, folder)
            if kind_of(table) != "via":
                raise LabelError(
                    f"{file.name} has no column region_shape_attributes: it is no table of the format 'via_csv'"
                )
            notes.extend(table.notes)
            records += _records(table, listed, problems, notes, split=split)
        splits = {} if any(record.split for record in records) else read_splits(path, folder, problems)
        said = Labels(tuple(records), join([file.name for file in files]), listed, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)


def _records(
    table: Table, listed: Sequence[str] | None, problems: Problems, notes: list[str], *, split: str | None
) -> list[Record]:
    at_shape, at_names = table.column(("regionshapeattributes",)), table.column(("regionattributes",))
    rows = [(_object(cell(cells, at_shape)), _object(cell(cells, at_names))) for _, cells in table.rows]
    key = class_key([names for shape, names in rows if shape and names], table, problems)
    only = "" if key else one_class(table, listed, problems, notes)
    if only is None:
        return []
    records = []
    for (number, cells), (shape, names) in zip(table.rows, rows, strict=True):
        line, photo = f"line {number}", cell(cells, table.file)
        if shape == {}:
            records.append(Record(photo, split=split, where=table.name, line=line))
            continue
        label = only or class_named((names or {}).get(key))
        try:
            if shape is None:
                raise LabelError(f"its shape '{shown(cell(cells, at_shape))}' is no JSON object")
            if not label:
                raise LabelError(f"has no {shown(key)}")
            item = Item(label, via_shape(shape))
        except LabelError as error:
            item = Item(label, _NOWHERE, wrong=str(error))
        records.append(Record(photo, (item,), split=split, where=table.name, line=line))
    none = len({record.photo for record in records if not record.items})
    if none:
        notes.append(f"{none} photos have no region in {table.name}: they are taken to show none of the classes")
    return records


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in a cell; None where it holds something else."""
    try:
        found = parse_json((text or "{}").encode())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def class_key(attributes: Sequence[Mapping[str, Any]], table: Table, problems: Problems) -> str:
    """Return the attribute of regions that names their class; empty where they have none."""
    keys = Counter(key for names in attributes for key, value in names.items() if class_named(value))
    known = {plain(key): key for key in keys}
    if found := next((known[name] for name in NAMES if name in known), None):
        return found
    if len(keys) > 1:
        some = join([f"'{shown(key)}'" for key in keys], 6)
        problems.add(table.name, f"regions have the attributes {some}; which is the class? Call it `class`")
    return next(iter(keys), "")


def class_named(value: Any) -> str:
    """Return the class that an attribute's value names: itself, or the one box of several that is ticked."""
    if isinstance(value, dict):
        ticked = [key for key, on in value.items() if on is True]
        return ticked[0] if len(ticked) == 1 else ""
    return "" if isinstance(value, list) or value is None or is_nothing(str(value)) else str(value)


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
