"""Label Studio's CSV as the rows of its JSON-MIN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hintseg.files.parse import parse_json
from hintseg.formats.tables import Table, cell, read_table

_LAST = ("annotator", "annotationid", "createdat", "updatedat", "leadtime")
"""Columns that follow what was said; the file may have all columns by name."""


def rows(file: Path) -> list[dict[str, Any]]:
    """Return a row for each annotation: the photo, its number, what was said by question, then who said it when.

    Raises:
        LabelError: It cannot be read.
    """
    table = read_table(file)
    order = sorted(range(len(table.header)), key=lambda i: _place(table, i))
    return [
        {table.header[i]: _value(text) for i in order if (text := cell(cells, i)) or i == table.file}
        for _, cells in table.rows
    ]


def _place(table: Table, column: int) -> int:
    name = table.plain[column]
    return 0 if column == table.file else 1 if name == "id" else 3 if name in _LAST else 2


def _value(text: str) -> Any:
    """Return the list or object in a cell, else its text."""
    try:
        return parse_json(text.encode()) if text[:1] in ("[", "{") else text
    except ValueError:
        return text
