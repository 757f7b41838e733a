"""Tables of boxes: one row for each, in pixels or shares.

A box has two corners, or a corner or the centre, width and height; four corners are an outline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hintseg.errors import LabelError, shown
from hintseg.formats.csv_tags import Parsed, left_out, settle, splits_of
from hintseg.formats.layout import CLASS_LIST
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Record
from hintseg.formats.tables import (
    CONFIDENCES,
    BoxForm,
    Table,
    bare_boxes,
    box_columns,
    cell,
    is_nothing,
    label_columns,
    not_understood,
    size_columns,
)
from hintseg.types import Box, Region

CROWDS = ("isgroupof", "iscrowd", "crowd")

UNNAMED = "object"
"""The class of tables that name none."""

_Numbers = tuple[float, ...]

_ROUNDED = 1.001
"""Shares may be this large: they were rounded."""


def read_boxes(
    table: Table, listed: Sequence[str] | None, problems: Problems, notes: list[str], *, split: str | None
) -> Parsed:
    """Return what a table of boxes says; see `csv_tags.read_tags`.

    A row with a photo and nothing else says that it shows none of the classes; one with a class and no box says that
    the class is in the photo.
    """
    bare = None if table.header else bare_boxes(table)
    if bare is not None:
        table = with_header(table, bare, notes)
    columns, form = box_columns(table) or ([], "corners")
    at_box = table.column(("bbox",)) if not columns else None
    labels = label_columns(table)[:1]
    size = size_columns(table, columns)
    at_trust, at_crowd = table.column(CONFIDENCES), table.column(CROWDS)
    if table.file is None or not (columns or at_box is not None):
        problems.add(table.name, not_understood(table))
        return Parsed(())
    names = names_of(table, labels, listed, problems, notes)
    if names is None:
        return Parsed(())
    splits = splits_of(table, split, notes)
    rows: list[tuple[Record, _Numbers | None]] = []
    for (number, cells), part in zip(table.rows, splits, strict=True):
        label = cell(cells, labels[0]) if labels else ""
        try:
            values = _numbers(table, cells, columns, at_box)
            wrong = "" if values is None or label in names else "has no class"
        except LabelError as error:
            values, wrong = (0, 0, 0, 0), str(error)
        record = Record(
            cell(cells, table.file), size=size_of(cells, size), split=part, where=table.name, line=f"line {number}"
        )
        if values is None:
            rows.append((replace(record, tags=names[label] if labels and label in names else ()), None))
            continue
        name = names[label][0] if label in names else ""
        trust = trust_of(table, cells, at_trust)
        crowd = cell(cells, at_crowd) in ("1", "true", "True")
        shape = Box(*values) if len(values) == 4 else Region((values,))
        rows.append((replace(record, items=(Item(name, shape, None, crowd, trust=trust, wrong=wrong),)), values))
    if at_box is not None:
        form = _form(table, rows, problems)
        columns = [at_box]
    relative = _are_shares([values for _, values in rows if values is not None])
    if relative:
        notes.append(f"all coordinates of {table.name} are between 0 and 1: they are shares of width and height")
        if form == "sides" and any(v[0] + v[2] > _ROUNDED or v[1] + v[3] > _ROUNDED for _, v in rows if v):
            problems.add(
                table.name,
                "boxes reach beyond the photo if x and y are their upper left corner; if those are the centre, call "
                "them x_center and y_center",
            )
    none = sum(record.tags == () for record, _ in rows)
    if none:
        notes.append(f"{none} photos have no box in {table.name}: they are taken to show none of the classes")
    if bare is None:
        used = [*columns, *labels, *(size or ()), at_trust, at_crowd]
        left_out(table, used, notes)
    return Parsed(tuple(_placed(record, form, relative) for record, _ in rows))


def with_header(table: Table, names: tuple[str, ...], notes: list[str]) -> Table:
    """Return a table without header as one with it, which notes say."""
    said = ", ".join(name for name in names if name)
    notes.append(f"{table.name} has no header; its columns are taken to be {said}")
    return replace(table, header=names)


def names_of(
    table: Table, labels: Sequence[int], listed: Sequence[str] | None, problems: Problems, notes: list[str]
) -> dict[str, tuple[str, ...]] | None:
    """Return the class that each cell of the column of labels names; None, and a problem, where that is not clear."""
    if not labels:
        only = one_class(table, listed, problems, notes)
        return None if only is None else {"": (only,)}
    texts = dict.fromkeys(text for text in table.cells(labels[0]) if not is_nothing(text) or text in (listed or ()))
    return settle({text: (text,) for text in texts}, listed, table.name, problems, notes)


def one_class(table: Table, listed: Sequence[str] | None, problems: Problems, notes: list[str]) -> str | None:
    """Return the class of all objects of a table that has no column of classes; None, and a problem, where none is."""
    if listed is not None and len(listed) == 1:
        return listed[0]
    if listed is not None:
        problems.add(
            table.name, f"no column names the class, but {CLASS_LIST} lists {len(listed)}; add a column `label`"
        )
        return None
    notes.append(f"no column of {table.name} names a class: all is '{UNNAMED}'; one line in {CLASS_LIST} renames it")
    return UNNAMED


def _numbers(table: Table, cells: list[str], columns: Sequence[int], at_box: int | None) -> _Numbers | None:
    """Return the numbers of a row's box, four, or eight of four corners; None where it has none.

    Raises:
        LabelError: Some are missing, or are no numbers; or the lines between four corners cross.
    """
    if at_box is not None:
        text = cell(cells, at_box)
        texts = [] if is_nothing(text) else re.split(r"[\s,;]+", text.strip("[]() "))
    else:
        texts = [cell(cells, index) for index in columns]
    if all(map(is_nothing, texts)):
        return None
    try:
        found = [table.number(text) for text in texts]
    except LabelError:
        found = []
    values = tuple(value for value in found if value is not None)
    if len(values) != (len(columns) or 4):
        how_many = "eight" if len(columns) == 8 else "four"
        raise LabelError(f"the box '{shown(', '.join(texts))}' is not {how_many} numbers")
    if len(values) == 8 and _cross(list(zip(values[0::2], values[1::2], strict=True))):
        raise LabelError("the lines between its four corners cross; give them in their order around the object")
    return values


def _cross(corners: Sequence[tuple[float, float]]) -> bool:
    """Return whether two opposite sides of a quadrangle cross."""

    def side(a: int, b: int, c: int) -> float:
        (ax, ay), (bx, by), (cx, cy) = corners[a], corners[b], corners[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for a, b, c, d in ((0, 1, 2, 3), (1, 2, 3, 0))
    )


def _form(table: Table, rows: Sequence[tuple[Record, _Numbers | None]], problems: Problems) -> BoxForm:
    """Tell whether four numbers in one cell are corners, or a corner, width and height: only one of them fits."""
    found = [(record.size, values) for record, values in rows if values is not None and not record.items[0].wrong]
    corners = all(x1 > x0 and y1 > y0 for _, (x0, y0, x1, y1) in found)
    sides = all(
        size is None or (x + width <= size[1] + 1 and y + height <= size[0] + 1)
        for size, (x, y, width, height) in found
    )
    if corners == sides:
        what = "both" if corners else "neither"
        problems.add(
            table.name,
            f"the column bbox may hold x0, y0, x1, y1 or x, y, width, height ({what} fits all rows); write four "
            "columns with these names",
        )
    return "corners" if corners else "sides"


def _are_shares(boxes: Sequence[_Numbers]) -> bool:
    """Tell whether boxes are in shares: none is above 1, and not all are whole numbers."""
    values = [value for box in boxes for value in box]
    return max(values, default=2.0) <= _ROUNDED and any(0 < value < 1 for value in values)


def _placed(record: Record, form: BoxForm, relative: bool) -> Record:
    """Return a record with its box as corners."""
    items = tuple(
        replace(item, shape=_corners(item.shape, form)) if isinstance(item.shape, Box) else item
        for item in record.items
    )
    return replace(record, items=items, relative=relative)


def _corners(box: Box, form: BoxForm) -> Box:
    x, y, width, height = box.corners
    if form == "sides":
        return Box(x, y, x + width, y + height)
    if form == "centre":
        return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return box


def size_of(cells: list[str], columns: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the photo's (height, width) that a row states."""
    if columns is None:
        return None
    texts = [cell(cells, index) for index in columns]
    height, width = (int(float(text)) if re.fullmatch(r"\d{1,6}(\.0*)?", text) else 0 for text in texts)
    return (height, width) if height and width else None


def trust_of(table: Table, cells: list[str], column: int | None) -> float:
    """Return how far to trust a row, 0..1; percents are taken for what they are."""
    try:
        value = table.number(cell(cells, column))
    except LabelError:
        return 1.0
    if value is None or not 0 <= value <= 100:
        return 1.0
    return value if value <= 1 else value / 100
