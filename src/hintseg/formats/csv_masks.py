"""Tables of run lengths, as Kaggle's competitions have them: pairs of start and length, counted from 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from hintseg.errors import LabelError, PhotoError, shown
from hintseg.formats.csv_boxes import names_of
from hintseg.formats.csv_tags import Parsed, left_out, settle, splits_of
from hintseg.formats.photos import PhotoFolder, photo_head
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Record
from hintseg.formats.tables import RUN_COLUMNS, Table, cell, is_nothing, label_columns, not_understood, size_columns
from hintseg.geometry import runs
from hintseg.types import Box, Region, Rle

TOGETHER = ("imageidclassid", "imagelabel")
"""Columns that hold a photo and a class in one: ``a.jpg_1``."""

_Runs = list[int]

_NOWHERE = Box(0, 0, 0, 0)


def read_masks(
    table: Table,
    folder: PhotoFolder,
    listed: Sequence[str] | None,
    problems: Problems,
    notes: list[str],
    *,
    split: str | None,
) -> Parsed:
    """Return what a table of run lengths says; see `csv_tags.read_tags`. The photo's size is that of its mask."""
    at_runs = table.column(RUN_COLUMNS)
    if at_runs is None or table.file is None:
        problems.add(table.name, not_understood(table))
        return Parsed(())
    together = table.plain[table.file] in TOGETHER
    labels = [] if together else label_columns(table)[:1]
    size_at = size_columns(table, ())
    rows = []
    for (number, cells), part in zip(table.rows, splits_of(table, split, notes), strict=True):
        photo, label = cell(cells, table.file), cell(cells, labels[0]) if labels else ""
        if together:
            photo, _, label = photo.rpartition("_")
        rows.append((f"line {number}", part, photo, label, cell(cells, at_runs), _stated(cells, size_at)))
    if together:
        texts = dict.fromkeys(row[3] for row in rows)
        names = settle({text: (text,) for text in texts}, listed, table.name, problems, notes)
    else:
        names = names_of(table, labels, listed, problems, notes)
    if names is None:
        return Parsed(())
    parsed = [_parse(row[4]) for row in rows]
    sizes = _Sizes(folder)
    stored = [row[5] or sizes.of(row[2]) for row in rows]
    across = _are_across(
        [(found, size) for found, size in zip(parsed, stored, strict=True) if isinstance(found, list) and size]
    )
    notes.append(f"the run lengths of {table.name} are read {'along the rows' if across else 'down the columns'}")
    records = []
    for (line, part, photo, label, text, _), numbers, size in zip(rows, parsed, stored, strict=True):
        record = Record(photo, tags=(), size=size, split=part, where=table.name, line=line)
        if _is_empty(text):
            records.append(replace(record, absent=names.get(label, ()) if label else ()))
            continue
        name = names[label][0] if label in names else ""
        if not name:
            item = Item("", _NOWHERE, wrong="has no class")
        elif isinstance(numbers, str):
            item = Item(name, _NOWHERE, wrong=numbers)
        elif size is None:
            item = Item(name, _NOWHERE, wrong=sizes.why(photo))
        else:
            item = _item(name, numbers, size, across=across)
        records.append(replace(record, items=(item,), tags=None))
    left_out(table, [at_runs, *labels, *(size_at or ())], notes)
    return Parsed(tuple(records))


class _Sizes:
    """The sizes of photos as they are stored, (height, width): what masks were drawn on."""

    def __init__(self, folder: PhotoFolder) -> None:
        self._folder = folder
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._why: dict[str, str] = {}

    def of(self, photo: str) -> tuple[int, int] | None:
        if photo not in self._sizes:
            self._sizes[photo] = None
            found = self._folder.find(photo)
            if len(found) == 1:
                try:
                    self._sizes[photo] = photo_head(self._folder.paths[found[0]])[0]
                except PhotoError as error:
                    self._why[photo] = str(error)
        return self._sizes[photo]

    def why(self, photo: str) -> str:
        return self._why.get(photo, "the size of its photo is not known")


def _stated(cells: list[str], columns: tuple[int, int] | None) -> tuple[int, int] | None:
    texts = [cell(cells, index) for index in columns or ()]
    if len(texts) == 2 and all(text.isdecimal() and len(text) < 7 for text in texts):
        return int(texts[0]), int(texts[1])
    return None


def _is_empty(text: str) -> bool:
    return is_nothing(text) or text == "-1"


def _parse(text: str) -> _Runs | str:
    """Return the numbers of run lengths, or why they are none."""
    words = text.split()
    if not all(word.isdecimal() and len(word) < 12 for word in words):
        return f"'{shown(text)}' holds something else than numbers"
    if len(words) % 2:
        return f"its run lengths have {len(words)} numbers; needed are pairs of start and length"
    found = list(map(int, words))
    starts, ends = found[0::2], [start + length for start, length in zip(found[0::2], found[1::2], strict=True)]
    if any(start < 1 for start in starts) or any(a < b for a, b in zip(starts[1:], ends, strict=False)):
        return "its runs overlap or do not rise; needed are pairs of start (from 1) and length"
    return found


def _are_across(found: Sequence[tuple[_Runs, tuple[int, int]]]) -> bool:
    """Tell whether runs go along the rows: then most begin about a width after the one before, else a height."""
    votes = 0
    for numbers, (height, width) in found:
        if len(numbers) < 6 or height == width:
            continue
        step = median(np.diff(numbers[0::2]).tolist())
        votes += 1 if abs(step - width) < abs(step - height) else -1
    return votes > 0


def _item(name: str, numbers: _Runs, size: tuple[int, int], *, across: bool) -> Item:
    """Return one object."""
    height, width = size
    counts, at = list[int](), 0
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        counts += [start - 1 - at, length]
        at = start - 1 + length
    if at > height * width:
        wrong = f"its runs end at pixel {at}, but the photo has {width} x {height} = {height * width}"
        return Item(name, _NOWHERE, wrong=wrong)
    counts = [*counts, height * width - at]
    rle = Rle(width, height, tuple(counts)) if across else Rle(height, width, tuple(counts))
    try:
        runs.check_runs(rle)
        rle = runs.encode(np.ascontiguousarray(runs.decode(rle).T)) if across else rle
    except LabelError as error:
        return Item(name, _NOWHERE, wrong=str(error))
    return Item(name, Region(rle=rle))
