"""CSV of points with a header: a file, `x`, `y` and a label, in any order; other columns are ignored.

One line per click, in pixels. A line with a file and nothing else is a negative. The label `background` is a click on
background. A photo's tags are the classes of its points, so every class of a
photo needs a point; a photo with clicks on background alone is a negative.
"""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import LabelError, shown
from hintseg.formats.codec import Fit
from hintseg.formats.layout import (
    assemble,
    check_classes,
    class_ids,
    find_truth,
    is_background,
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
    cell,
    column,
    find_table,
    header,
    is_table,
    kind_of,
    read_rows,
    repeated,
    table_classes,
)
from hintseg.geometry.boxes import fit_point
from hintseg.types import BACKGROUND, Click, Hints, HintSet, Mark, Supervision, Tags

FILES = ("points.csv", "clicks.csv")
"""Names looked for in the data set's folder where no label file is given."""


class Points:
    """CSV of points."""

    name = "points"
    carries = frozenset({Supervision.POINTS})
    sign = f"one of {', '.join(FILES)}"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for one of `FILES`, or at the header of the given table."""
        if labels is None:
            return Fit.YES if any((path / name).is_file() for name in FILES) else Fit.NO
        return Fit.YES if is_table(labels) and kind_of(read_rows(labels)) == "points" else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a CSV of points.

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
        if kind_of(rows) != "points":
            given = ",".join(rows[0][1])
            raise LabelError(
                f"{file.name} starts with '{shown(given)}'; a points file needs the header `filename,x,y,label`"
            )
        problems, notes = Problems(), list[str]()
        classes = read_classes(path, file, problems, background=background)
        folder = find_photos(path)
        named = classes is not None
        if classes is None:
            classes = tuple(name for name in table_classes(rows, "points") if not (background and is_background(name)))
            check_classes(classes, file.name, problems)
        points = _read_points(rows, classes, folder, problems, file.name, background=background)
        hints = {
            photo: Hints(tags=None if found else Tags.complete((), len(classes)), marks=tuple(found))
            for photo, found in points.items()
        }
        splits = read_splits(path, folder, problems)
        truth = find_truth(path, folder, notes, named=named, unlabelled=unlabelled)
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source=file.name,
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )


def _read_points(
    rows: list[Row], classes: tuple[str, ...], folder: PhotoFolder, problems: Problems, where: str, *, background: bool
) -> dict[str, list[Mark[Click]]]:
    names = header(rows)
    at_file, at_label = column(names, FILE_COLUMNS) or 0, column(names, LABEL_COLUMNS) or 0
    at_x, at_y = names.index("x"), names.index("y")
    points: dict[str, list[Mark[Click]]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    repeated(rows, problems, where)
    for number, cells in rows[1:]:
        line = f"line {number}"
        photo = folder.locate(cell(cells, at_file), problems, where, line)
        x_text, y_text, label = cell(cells, at_x), cell(cells, at_y), cell(cells, at_label)
        if not (x_text or y_text or label):  # a file and nothing else: said that there is none
            if photo is not None:
                points.setdefault(photo, [])
            continue
        if background and is_background(label) and label not in classes:
            ids = {BACKGROUND}
        else:
            ids = class_ids(classes, [label], problems, where, line)
        if photo is not None and photo not in sizes:
            sizes[photo] = size_or_none(folder.paths[photo])
        try:
            x, y = fit_point(float(x_text), float(y_text), sizes.get(photo) if photo else None)
        except LabelError as error:
            problems.add(where, f"{line}: {error}")
            continue
        except ValueError:
            problems.add(where, f"{line}: x '{shown(x_text)}' and y '{shown(y_text)}' are not two numbers")
            continue
        if photo is not None and ids:
            points.setdefault(photo, []).append(Mark(ids.pop(), Click(x, y)))
    return points
