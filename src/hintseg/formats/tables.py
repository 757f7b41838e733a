"""Read CSV tables of labels and tell their kinds apart by their header."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

from hintseg.errors import LabelError
from hintseg.formats.problems import Problems, read_text

Row = tuple[int, list[str]]
Kind = Literal["tags", "one-hot", "boxes", "points"]

FILE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "image",
    "image_id",
    "imageid",
    "image_name",
    "img",
    "photo",
    "path",
    "id",
)
LABEL_COLUMNS = ("label", "labels", "class", "classes", "class_name", "tag", "tags", "category")
BOX_COLUMNS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file with their line numbers, cells stripped, blank lines left out.

    The separator is the comma, semicolon or tab the first line has most of.

    Raises:
        LabelError: The file is missing, empty or not UTF-8, or its quotes do not close.
    """
    text = read_text(path)
    first = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise LabelError(f"1 problem in {path.name}:\n  line {reader.line_num}: {error}; correct its quotes") from error
    if not rows:
        raise LabelError(f"{path} is empty but for separators; write the labels into it, or name another file")
    return rows


def header(rows: list[Row]) -> list[str]:
    """Return the cells of the first row in lower case."""
    return [cell.lower() for cell in rows[0][1]]


def column(names: list[str], known: tuple[str, ...]) -> int | None:
    """Return the index of the first of the header's `names` that is `known`, or None."""
    return next((index for index, name in enumerate(names) if name in known), None)


def box_columns(names: list[str]) -> list[int] | None:
    """Return where the header has left, top, right and bottom, or None."""
    for columns in BOX_COLUMNS:
        if set(columns) <= set(names):
            return [names.index(name) for name in columns]
    return None


def kind_of(rows: list[Row]) -> Kind:
    """Tell what a table holds by its first row; without a header it holds tags."""
    names = header(rows)
    if column(names, FILE_COLUMNS) is not None and column(names, LABEL_COLUMNS) is not None:
        if box_columns(names):
            return "boxes"
        if {"x", "y"} <= set(names):
            return "points"
    if names[0] not in (*FILE_COLUMNS, "") or len(names) == 1 or set(names[1:]) <= {*LABEL_COLUMNS, ""}:
        return "tags"
    return "one-hot"


def is_table(labels: Path) -> bool:
    """Return whether a label file has the suffix of a table."""
    return labels.is_file() and labels.suffix.lower() in (".csv", ".tsv", ".txt")


def find_table(path: Path, labels: Path | None, names: tuple[str, ...]) -> Path:
    """Return the given label file, or the first of `names` that is in the data set's folder.

    Raises:
        LabelError: There is none.
    """
    if labels is not None and labels.is_file():
        return labels
    if labels is not None and not labels.is_dir():
        raise LabelError(f"the label file {labels} is missing; correct the path")
    folder = labels or path
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise LabelError(f"there is no {', '.join(names)} in {folder}; name the label file with labels=FILE")
    return found


def cell(cells: list[str], index: int) -> str:
    """Return a row's cell, empty where the row is short."""
    return cells[index] if index < len(cells) else ""


def tag_rows(rows: list[Row]) -> list[Row]:
    """Return the rows of a table of tags without its header, where it has one."""
    return rows[1:] if len(rows[0][1]) > 1 and header(rows)[0] in FILE_COLUMNS else rows


def table_classes(rows: list[Row], kind: str) -> tuple[str, ...]:
    """Return the class names a table itself gives, where there is no class list."""
    if kind == "one-hot":
        return tuple(rows[0][1][1:])
    if kind == "tags":
        return tuple(sorted({tag for _, cells in tag_rows(rows) for tag in cells[1:] if tag}))
    label = column(header(rows), LABEL_COLUMNS)
    return tuple(sorted({name for _, cells in rows[1:] if label is not None and (name := cell(cells, label))}))


def repeated(rows: list[Row], problems: Problems, where: str) -> None:
    """Add a problem for each row that says the same as one before."""
    first: dict[tuple[str, ...], int] = {}
    for number, cells in rows:
        if tuple(cells) in first:
            problems.add(where, f"line {number}: repeats line {first[tuple(cells)]}; delete one")
        first.setdefault(tuple(cells), number)
