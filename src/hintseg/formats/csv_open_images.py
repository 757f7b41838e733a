"""Open Images in tables: labels of whole photos, also of what is not there, and names for their ids.

Source: https://storage.googleapis.com/openimages/web/download_v7.html
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hintseg.errors import join, shown
from hintseg.formats.csv_tags import Parsed, left_out
from hintseg.formats.problems import read_text
from hintseg.formats.records import Item, Record
from hintseg.formats.tables import Table, cell

_ID = re.compile(r"/[mgt]/\w+")


def is_open_images(table: Table) -> bool:
    """Tell whether a table has the columns of Open Images."""
    return {"imageid", "labelname", "confidence"} <= set(table.plain)


def read_image_labels(table: Table, notes: list[str], *, split: str | None) -> Parsed:
    """Return what a table of labels of whole photos says: a confidence of 1 is there, 0 is not, all else is open."""
    at_label, at_trust = table.column(("labelname",)), table.column(("confidence",))
    records, between = [], 0
    for number, cells in table.rows:
        name, trust = cell(cells, at_label), cell(cells, at_trust)
        yes, no = trust in ("1", "1.0"), trust in ("0", "0.0")
        between += not (yes or no)
        record = Record(cell(cells, table.file), complete=False, split=split, where=table.name, line=f"line {number}")
        if yes or no:
            records.append(replace(record, tags=(name,) if yes else (), absent=(name,) if no else ()))
    if between:
        notes.append(f"{between} lines of {table.name} with a confidence between 0 and 1 are left out")
    notes.append(f"classes that {table.name} does not name for a photo are not said to be absent from it")
    left_out(table, [at_label, at_trust], notes)
    return Parsed(tuple(records))


def with_names(records: Iterable[Record], folders: Iterable[Path], notes: list[str]) -> tuple[Record, ...]:
    """Return records with names for the ids of Open Images, such as /m/01yrx, where a table beside them has those."""
    records = tuple(records)
    used = {name for record in records for name in (*(record.tags or ()), *record.absent)}
    used |= {item.label for record in records for item in record.items}
    ids = {name for name in used if _ID.fullmatch(name)}
    if not ids:
        return records
    file = next((file for folder in folders for file in sorted(folder.glob("*class-descriptions*.csv"))), None)
    names: dict[str, str] = {}
    if file is not None:
        rows = csv.reader(read_text(file, notes).splitlines())
        names = {row[0].strip(): " ".join(row[1].split()) for row in rows if len(row) > 1 and row[0].strip() in ids}
    if missing := sorted(ids - names.keys()):
        notes.append(
            f"{len(missing)} classes are ids ({join([shown(name) for name in missing], 3)}); Open Images' table "
            "class-descriptions-boxable.csv beside the labels names them"
        )

    def named(item: Item) -> Item:
        return replace(item, label=names.get(item.label, item.label))

    return tuple(
        replace(
            record,
            items=tuple(map(named, record.items)),
            tags=None if record.tags is None else tuple(names.get(name, name) for name in record.tags),
            absent=tuple(names.get(name, name) for name in record.absent),
        )
        for record in records
    )
