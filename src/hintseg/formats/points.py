"""Tables of points: a file, `x`, `y` and a label, in any order; one row for each click, in pixels.

A row with a photo and nothing else says that it shows none of the classes, one with a class and no point that the class
is in the photo. The label `background` is a click on background. A photo's tags are the classes of its points, so every
class of a photo needs a point; a photo with clicks on background alone is a negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hintseg.errors import LabelError, join, shown
from hintseg.formats.codec import Fit, Written
from hintseg.formats.csv import (
    find_tables,
    lost_tags,
    sniff_tables,
    tags_beside,
    write_classes,
    write_rows,
)
from hintseg.formats.csv_boxes import names_of, size_of, trust_of, with_header
from hintseg.formats.csv_tags import left_out, splits_of
from hintseg.formats.gather import gather
from hintseg.formats.layout import find_truth, read_classes, read_splits
from hintseg.formats.photos import file_name, find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.tables import (
    CONFIDENCES,
    Table,
    bare_points,
    cell,
    is_nothing,
    is_table,
    kind_at,
    kind_of,
    label_columns,
    point_columns,
    read_table,
    size_columns,
)
from hintseg.types import BACKGROUND, Click, HintSet, Supervision

FILES = ("points.csv", "clicks.csv")
"""Names looked for first in the data set's folder where no label file is given."""

OBJECTS = ("object", "objectid", "instance", "instanceid")
"""Headers of the column that tells which clicks are on one object."""


class Points:
    """Tables of points."""

    name = "points"
    carries = frozenset({Supervision.POINTS})
    writes = frozenset({Supervision.TAGS, Supervision.POINTS})
    sign = "a table of photos, x, y and labels, such as points.csv"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look at the header of tables in the folder, or of the one that is given."""
        if labels is not None and is_table(labels):
            return Fit.YES if kind_at(labels) == "points" else Fit.NO
        return sniff_tables(labels or path, ["points"], FILES)

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a table of points.

        Args:
            path: Folder of the data set.
            labels: The table; None looks for one in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: All problems of the table at once, with their lines.
        """
        problems, notes = Problems(), list[str]()
        files = find_tables(path, labels, ["points"], FILES, notes)
        first = next(iter(files))
        listed = read_classes(path, first, problems, background=reading.background)
        folder = find_photos(path, missing=reading.missing)
        records = list[Record]()
        for file, split in files.items():
            table = read_table(file, folder)
            if kind_of(table) != "points":
                given = table.separator.join(table.header or table.rows[0][1])
                raise LabelError(
                    f"{file.name} starts with '{shown(given)}'; a points file needs the header `filename,x,y,label`"
                )
            notes.extend(table.notes)
            records += _records(table, listed, problems, notes, split=split)
        splits = {} if any(record.split for record in records) else read_splits(path, folder, problems)
        truth = find_truth(path, folder, notes, named=listed is not None, unlabelled=reading.unlabelled)
        source = join([file.name for file in files])
        said = Labels(tuple(records), source, listed, splits, truth, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write `points.csv` and `classes.txt`."""
        write_classes(hint_set, out)
        rows = [["file", "x", "y", "label", "object", "confidence"]]
        open_ = 0
        for photo in hint_set.photos:
            own = []
            for mark in photo.hints.shaped(Click):
                label = "background" if mark.label == BACKGROUND else hint_set.classes[mark.label - 1]
                number = "" if mark.object is None else str(mark.object)
                own.append([repr(mark.shape.x), repr(mark.shape.y), label, number, repr(mark.trust)])
            tags = photo.hints.tags
            marked = {mark.label for mark in photo.hints.shaped(Click)}
            own += [["", "", hint_set.classes[k - 1], "", ""] for k in sorted(tags_beside(photo.hints, marked))]
            if not own and tags is not None and len(tags.absent) == len(hint_set.classes):
                own = [[""] * 5]
            open_ += tags is not None and bool(tags.said) and len(tags.said) < len(hint_set.classes)
            rows += [[file_name(photo), *cells] for cells in own]
        return Written(write_rows(out / "points.csv", rows), lost_tags(open_, "points"))


def _records(
    table: Table, listed: Sequence[str] | None, problems: Problems, notes: list[str], *, split: str | None
) -> list[Record]:
    """Return what one table of points says."""
    bare = None if table.header else bare_points(table)
    if bare is not None:
        table = with_header(table, bare, notes)
    columns = point_columns(table)
    if columns is None or table.file is None:
        return []
    at_object = table.column(OBJECTS)
    labels = [i for i in label_columns(table) if i != at_object][:1]
    size, at_trust = size_columns(table, columns), table.column(CONFIDENCES)
    names = names_of(table, labels, listed, problems, notes)
    if names is None:
        return []
    objects: dict[tuple[str, str], int] = {}
    records = []
    for (number, cells), part in zip(table.rows, splits_of(table, split, notes), strict=True):
        photo, label = cell(cells, table.file), cell(cells, labels[0]) if labels else ""
        x_text, y_text = (cell(cells, i) for i in columns)
        record = Record(photo, size=size_of(cells, size), split=part, where=table.name, line=f"line {number}")
        if is_nothing(x_text) and is_nothing(y_text):
            records.append(replace(record, tags=names.get(label, ()) if label else ()))
            continue
        try:
            x, y = table.number(x_text), table.number(y_text)
        except LabelError:
            x = y = None
        if x is None or y is None:
            item = Item("", Click(0, 0), wrong=f"x '{shown(x_text)}' and y '{shown(y_text)}' are not two numbers")
        elif label not in names:
            item = Item("", Click(0, 0), wrong="has no class")
        else:
            own = cell(cells, at_object)
            same = None if is_nothing(own) else objects.setdefault((photo, own), len(objects) + 1)
            item = Item(names[label][0], Click(x, y), object=same, trust=trust_of(table, cells, at_trust))
        records.append(replace(record, items=(item,)))
    left_out(table, [*columns, *labels, *(size or ()), at_object, at_trust], notes)
    return records
