"""CSV of tags (`file,tag,tag,...`), one-hot CSV with a header, and CSV of boxes with a header.

- Tags: one line per photo, no header needed. A line without tags is a negative.
- One-hot: the header is `file` and the class names; cells are 0 or 1.
- Boxes: the header names a file, four corners (`x0,y0,x1,y1`, `xmin,ymin,xmax,ymax`, `x1,y1,x2,y2` or
  `left,top,right,bottom`) and a label, in any order; one line per object. Pixels, right and bottom exclusive. A line
  with a file and nothing else is a negative.

Without a `classes.txt` beside it every tag is a class, in alphabetical order (one-hot: in the header's order).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hintseg.errors import LabelError, did_you_mean, shown
from hintseg.formats.codec import Fit
from hintseg.formats.layout import (
    CLASS_LIST,
    Found,
    assemble,
    boxes_and_truth,
    check_classes,
    class_ids,
    find_truth,
    read_classes,
    read_splits,
)
from hintseg.formats.photos import PhotoFolder, find_photos, size_or_none
from hintseg.formats.problems import Problems
from hintseg.formats.records import Reading
from hintseg.formats.tables import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    Row,
    box_columns,
    cell,
    column,
    find_table,
    header,
    is_table,
    kind_of,
    read_rows,
    repeated,
    table_classes,
    tag_rows,
)
from hintseg.geometry.boxes import fit_box
from hintseg.types import Box, Hints, HintSet, Supervision, Tags

FILES = ("tags.csv", "labels.csv", "boxes.csv", "annotations.csv", "train.csv")
"""Names looked for in the data set's folder where no label file is given."""

_YES = {"1", "1.0", "true"}
_NO = {"0", "0.0", "false", ""}


class Csv:
    """CSV of tags, one-hot tags, or boxes."""

    name = "csv"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES})
    sign = f"one of {', '.join(FILES)}"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for one of `FILES`, or take any table that holds no points."""
        if labels is None:
            return Fit.YES if any((path / name).is_file() for name in FILES) else Fit.NO
        return Fit.WEAK if is_table(labels) and kind_of(read_rows(labels)) != "points" else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a CSV of tags, a one-hot CSV or a CSV of boxes; its header tells which.

        Args:
            path: Folder of the data set.
            labels: The CSV file; None looks for one of `FILES` in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: All problems of the file at once, with their lines.
        """
        unlabelled, background = reading.unlabelled, reading.background
        file = find_table(path, labels, FILES)
        rows = read_rows(file)
        kind = kind_of(rows)
        if kind == "points":
            raise LabelError(
                f"{file.name} has columns x and y but no corners: it holds points; read it with --format points"
            )
        problems, notes = Problems(), list[str]()
        classes = read_classes(path, file, problems, background=background)
        folder = find_photos(path)
        named = classes is not None
        if classes is None:
            classes = table_classes(rows, kind)
            check_classes(classes, file.name, problems)
        hints: dict[str, Hints] = {}
        if kind == "boxes":
            found = _read_boxes(rows, classes, folder, problems, file.name)
            hints, _ = boxes_and_truth(found, len(classes))
        else:
            tags = read_tags(rows, classes, folder, problems, file.name)
            hints = {photo: Hints(Tags.complete(ids, len(classes))) for photo, ids in tags.items()}
        splits = read_splits(path, folder, problems)
        source = file.name
        truth = find_truth(path, folder, notes, named=named, unlabelled=unlabelled)
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source=source,
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )


def read_tags(
    rows: list[Row], classes: tuple[str, ...], folder: PhotoFolder, problems: Problems, where: str
) -> dict[str, frozenset[int]]:
    """Return the class ids of each listed photo from a table of tags or a one-hot table.

    Args:
        rows: The table.
        classes: The class names.
        folder: The photos.
        problems: Gets unknown tags, missing and doubled photos, and cells that are neither 0 nor 1.
        where: The table's name for messages.
    """
    one_hot = kind_of(rows) == "one-hot"
    names = rows[0][1][1:] if one_hot else []
    if one_hot:
        _compare_lists(names, classes, problems, where)
    body = rows[1:] if one_hot else tag_rows(rows)
    if not one_hot and body and all(set(cells[1:]) <= {"0", "1"} and len(cells) > 2 for _, cells in body):
        problems.add(where, "every tag is 0 or 1: a one-hot table needs a first line with `file` and the class names")
        return {}
    tags: dict[str, frozenset[int]] = {}
    first: dict[str, int] = {}
    for number, cells in body:
        line = f"line {number}"
        if one_hot:
            present = _one_hot(cells, names, problems, where, line)
        else:
            present = [cell for cell in cells[1:] if cell]
        ids = class_ids(classes, [n for n in present if not one_hot or n in classes], problems, where, line)
        photo = folder.locate(cells[0], problems, where, line)
        if photo is None:
            continue
        if photo in first:
            problems.add(
                where, f"{line}: '{shown(cells[0])}' is also in line {first[photo]}; write all its tags in one line"
            )
        first.setdefault(photo, number)
        tags[photo] = frozenset(ids)
    return tags


def _one_hot(cells: list[str], names: list[str], problems: Problems, where: str, line: str) -> list[str]:
    """Return the names whose cell is 1."""
    if len(cells) != len(names) + 1:
        problems.add(where, f"{line}: {len(cells)} cells, but the header has {len(names) + 1}")
    present = []
    for name, value in zip(names, cells[1:], strict=False):
        if value.lower() in _YES:
            present.append(name)
        elif value.lower() not in _NO:
            problems.add(where, f"{line}: '{shown(value)}' under '{shown(name)}' is neither 0 nor 1")
    return present


def _compare_lists(names: list[str], classes: tuple[str, ...], problems: Problems, where: str) -> None:
    """Add a problem for each class that only one of the header and the class list has."""
    for name, count in Counter(names).items():
        if name not in classes:
            problems.add(where, f"line 1: class '{shown(name)}' is not in {CLASS_LIST}{did_you_mean(name, classes)}")
        if count > 1:
            problems.add(where, f"line 1: class '{shown(name)}' has {count} columns")
    for name in classes:
        if name not in names:
            problems.add(
                where, f"line 1: class '{shown(name)}' of {CLASS_LIST} has no column{did_you_mean(name, names)}"
            )


def _read_boxes(
    rows: list[Row], classes: tuple[str, ...], folder: PhotoFolder, problems: Problems, where: str
) -> dict[str, list[Found]]:
    """Return the objects of each listed photo."""
    names = header(rows)
    at_file, at_label, corners_at = column(names, FILE_COLUMNS), column(names, LABEL_COLUMNS), box_columns(names)
    if at_file is None or at_label is None or corners_at is None:
        problems.add(where, "line 1: the header of a table of boxes needs a file, four corners and a label")
        return {}
    boxes: dict[str, list[Found]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    repeated(rows, problems, where)
    for number, cells in rows[1:]:
        line = f"line {number}"
        photo = folder.locate(cell(cells, at_file), problems, where, line)
        texts = [cell(cells, index) for index in corners_at]
        label = cell(cells, at_label)
        if not label and not any(texts):  # a file and nothing else: said that there is none
            if photo is not None:
                boxes.setdefault(photo, [])
            continue
        ids = class_ids(classes, [label], problems, where, line)
        if photo is not None and photo not in sizes:
            sizes[photo] = size_or_none(folder.paths[photo])
        try:
            x0, y0, x1, y1 = (float(text) for text in texts)
            corners = fit_box((x0, y0, x1, y1), sizes.get(photo) if photo else None)
        except LabelError as error:
            problems.add(where, f"{line}: {error}")
            continue
        except ValueError:
            problems.add(where, f"{line}: the corners '{shown(','.join(texts))}' are not four numbers")
            continue
        if photo is not None and ids:
            boxes.setdefault(photo, []).append(Found(ids.pop(), Box(*corners)))
    largest = max(
        (value for found in boxes.values() for one in found for value in (one.box.x1, one.box.y1)), default=2.0
    )
    if largest <= 1:
        problems.add(
            where, "all corners are between 0 and 1; they must be pixels: multiply by the photo's width and height"
        )
    return boxes
