"""CSV of Label Studio: one row for each annotation of a photo; choices as text, shapes as JSON in percent of the photo.

Source: https://labelstud.io/guide/export
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import parse_json
from hintseg.formats.codec import Fit
from hintseg.formats.csv import find_tables, sniff_tables
from hintseg.formats.csv_tags import in_cells
from hintseg.formats.gather import gather
from hintseg.formats.layout import read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.tables import LABEL_COLUMNS, Table, cell, is_table, kind_at, kind_of, read_table
from hintseg.geometry.polygons import ellipse
from hintseg.types import Box, Click, HintSet, Region, Shape, Supervision

FILES = ("label_studio.csv",)
"""Names looked for first in the data set's folder where no label file is given."""

OWN = ("annotationid", "annotator", "createdat", "updatedat", "leadtime", "id", "agreement", "innerid", "sentiment")
"""Columns that say nothing about the photo."""

_NOWHERE = Box(0, 0, 0, 0)


class LabelStudioCsv:
    """CSV of Label Studio."""

    name = "label_studio_csv"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES, Supervision.MASKS, Supervision.POINTS})
    sign = "a table with annotation_id, annotator, lead_time"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look at the header of tables in the folder, or of the one that is given."""
        if labels is not None and is_table(labels):
            return Fit.YES if kind_at(labels) == "label_studio" else Fit.NO
        return sniff_tables(labels or path, ["label_studio"], FILES)

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read choices, rectangles, polygons, ellipses and key points.

        Args:
            path: Folder of the data set.
            labels: The table; None looks for one in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: All problems of the table at once, with their lines.
        """
        problems, notes = Problems(), list[str]()
        files = find_tables(path, labels, ["label_studio"], FILES, notes)
        first = next(iter(files))
        listed = read_classes(path, first, problems, background=reading.background)
        folder = find_photos(path, missing=reading.missing)
        records = list[Record]()
        for file in files:
            table = read_table(file, folder)
            if kind_of(table) != "label_studio":
                raise LabelError(
                    f"{file.name} has no column annotation_id: it is no table of the format 'label_studio_csv'"
                )
            notes.extend(table.notes)
            records += _records(table, listed, problems, notes)
        splits = read_splits(path, folder, problems)
        said = Labels(tuple(records), join([file.name for file in files]), listed, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)


def _records(table: Table, listed: Sequence[str] | None, problems: Problems, notes: list[str]) -> list[Record]:
    open_ = [i for i, name in enumerate(table.plain) if i != table.file and name not in OWN and name]
    parsed = {i: [_shapes(text) for text in table.cells(i)] for i in open_}
    drawn = [i for i in open_ if any(parsed[i])]
    chosen = [
        i
        for i in open_
        if i not in drawn and (table.plain[i] in LABEL_COLUMNS or any('"choices"' in text for text in table.cells(i)))
    ]
    if table.file is None or not drawn + chosen:
        names = join([f"'{shown(name)}'" for name in table.header])
        problems.add(
            table.name,
            f"columns found: {names}; needed is one of choices, or of shapes as JSON; export with JSON-MIN or JSON",
        )
        return []
    if left := [f"'{shown(table.header[i])}'" for i in open_ if i not in drawn + chosen]:
        notes.append(f"columns of {table.name} that are not read: {join(left, 8)}")
    counts = Counter(text for i in chosen for text in table.cells(i) if text)
    said = in_cells(counts, listed, table.name, problems, notes)
    records = []
    for row, (number, cells) in enumerate(table.rows):
        record = Record(cell(cells, table.file), where=table.name, line=f"line {number}")
        tags = tuple(dict.fromkeys(name for i in chosen if (text := cell(cells, i)) for name in said[text]))
        found = [value for i in drawn for value in parsed[i][row] or ()]
        records += _of_shapes(record, found) or [replace(record, tags=tags)]
        if chosen and found and tags:
            records.append(replace(record, tags=tags))
    none = len({record.photo for record in records if record.tags == () and not record.items})
    if none:
        notes.append(
            f"{none} photos have an empty annotation in {table.name}: they are taken to show none of the classes"
        )
    twice = sum(count > 1 for count in Counter(cell(cells, table.file) for _, cells in table.rows).values())
    if twice:
        notes.append(f"{twice} photos have several annotations in {table.name}: what they say is put together")
    return records


def _shapes(text: str) -> list[dict[str, Any]] | None:
    """Return the shapes that a cell holds; None where it holds something else."""
    try:
        found = parse_json(text.encode()) if text[:1] == "[" else None
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(value, dict) for value in found) else None


def _of_shapes(record: Record, values: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return what shapes say, one record for each size of picture that they state."""
    found: dict[tuple[int, int] | None, list[Item]] = {}
    for number, value in enumerate(values, start=1):
        width, height = value.get("original_width"), value.get("original_height")
        size = (
            (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None
        )
        names = next((names for key, names in value.items() if key.endswith("labels") and isinstance(names, list)), [])
        line = f"shape {number}"
        try:
            if not names or not all(isinstance(name, str) for name in names):
                raise LabelError("has no class")
            shape = percent_shape(value, size)
            items = [Item(name, shape, line=line) for name in names]
        except LabelError as error:
            items = [Item("", _NOWHERE, line=line, wrong=str(error))]
        found.setdefault(size, []).extend(items)
    return [replace(record, items=tuple(items), size=size, relative=size is None) for size, items in found.items()]


def percent_shape(value: Mapping[str, Any], size: tuple[int, int] | None) -> Shape:
    """Return a shape of Label Studio, whose coordinates are percent of the photo's width and height.

    Args:
        value: Its coordinates.
        size: (height, width) of the photo, pixels; None: then the shape is in shares of them, and may not be turned.

    Raises:
        LabelError: Its coordinates are missing or no numbers, or it is of another kind.

    Example:
        >>> percent_shape({"x": 10, "y": 20, "width": 50, "height": 40}, (100, 200))
        Box(x0=20.0, y0=20.0, x1=120.0, y1=60.0)
    """
    down, across = (1 / 100, 1 / 100) if size is None else (size[0] / 100, size[1] / 100)
    angle = math.radians(_number(value, "rotation", 0.0))
    if angle and size is None:
        raise LabelError("is turned, but original_width and original_height are not said")
    if isinstance(points := value.get("points"), list):
        pairs = [point for point in points if isinstance(point, list) and len(point) == 2]
        numbers = [v for point in pairs for v in point if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != 2 * len(points):
            raise LabelError("a polygon has a point that is not two numbers")
        return Region((tuple(v * scale for v, scale in zip(numbers, (across, down) * len(points), strict=True)),))
    if "rle" in value:
        raise LabelError("is a brush's mask; export as JSON to read those")
    x, y = _number(value, "x") * across, _number(value, "y") * down
    if "radiusX" in value:
        return Region((ellipse(x, y, _number(value, "radiusX") * across, _number(value, "radiusY") * down, angle),))
    if "keypointlabels" in value:
        return Click(x, y)
    width, height = _number(value, "width") * across, _number(value, "height") * down
    u, v = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))  # turned about the upper left
    xs = [x + a * width * u[0] + b * height * v[0] for a in (0, 1) for b in (0, 1)]
    ys = [y + a * width * u[1] + b * height * v[1] for a in (0, 1) for b in (0, 1)]
    return Box(min(xs), min(ys), max(xs), max(ys))


def _number(value: Mapping[str, Any], key: str, default: float | None = None) -> float:
    found = value.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise LabelError(f"needs a number `{key}`")
    return float(found)
