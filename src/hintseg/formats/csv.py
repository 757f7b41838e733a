"""Tables of labels: tags, one-hot tags, boxes, and run lengths, as people and tools write them.

What a table holds is seen from its header; without one, from what is in its rows. Beside plain tables (`file,tags`;
`file,cat,dog` above 0 and 1; `file,x0,y0,x1,y1,label`) these are RetinaNet's, TensorFlow's, makesense.ai's and Google
Cloud's boxes, Open Images' boxes and labels, Roboflow's `_classes.csv`, and Kaggle's run lengths. Several tables with
train, val or test in their names, or in those of their folders, become splits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hintseg.errors import LabelError, join
from hintseg.files.atomic import whole_file
from hintseg.formats.codec import Fit, Written
from hintseg.formats.csv_boxes import read_boxes
from hintseg.formats.csv_masks import read_masks
from hintseg.formats.csv_open_images import is_open_images, read_image_labels, with_names
from hintseg.formats.csv_tags import Parsed, read_tags
from hintseg.formats.gather import gather
from hintseg.formats.layout import CLASS_LIST, find_truth, read_classes, read_splits
from hintseg.formats.photos import PhotoFolder, file_name, find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading
from hintseg.formats.tables import Kind, is_table, kind_at, kind_of, not_understood, of_folder, read_table, split_of
from hintseg.types import BACKGROUND, IGNORE, Box, Hints, HintSet, Supervision, Tags

FILES = ("tags.csv", "labels.csv", "boxes.csv", "annotations.csv")
"""Names looked for first in the data set's folder where no label file is given."""

KINDS: tuple[Kind, ...] = ("tags", "boxes", "masks")


class Csv:
    """Tables of tags, one-hot tags, boxes or run lengths."""

    name = "csv"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES, Supervision.MASKS})
    writes = frozenset({Supervision.TAGS, Supervision.BOXES})
    sign = "a table of photos and tags, boxes or run lengths, such as tags.csv"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look at the header of tables in the folder, or of the one that is given."""
        if labels is not None and is_table(labels):
            return Fit.WEAK if kind_at(labels) in (*KINDS, "") else Fit.NO
        return sniff_tables(labels or path, KINDS, FILES)

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a table; its header tells what it holds.

        Args:
            path: Folder of the data set.
            labels: The table; None looks for one in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: There is no table, or all problems of the tables at once, with their lines.
        """
        problems, notes = Problems(), list[str]()
        files = find_tables(path, labels, KINDS, FILES, notes)
        first = next(iter(files))
        listed = read_classes(path, first, problems, background=reading.background)
        folder = find_photos(path, missing=reading.missing)
        background, names = reading.background, {file: _name(file, files) for file in files}
        parts = [
            read_part(file, split, folder, listed, problems, notes, name=names[file], background=background)
            for file, split in files.items()
        ]
        if not any(part.records for part in parts):
            problems.raise_all()
        records = with_names((r for part in parts for r in part.records), (first.parent, path), notes)
        own = [part.classes for part in parts if part.classes]
        classes = listed if listed is not None else tuple(dict.fromkeys(n for names in own for n in names)) or None
        if listed is None and any(set(names) != set(own[0]) for names in own):
            problems.add(join([*names.values()]), "their headers name different classes; mend one")
        splits = {} if any(record.split for record in records) else read_splits(path, folder, problems)
        truth = find_truth(path, folder, notes, named=listed is not None, unlabelled=reading.unlabelled)
        said = Labels(records, join([*names.values()]), classes, splits, truth, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write `boxes.csv` where there are boxes, else the one-hot table `tags.csv`; and `classes.txt`.

        In a table of tags, 1 is there, 0 is not, and ? is not said. In one of boxes, a row with a class and no box says
        that the class is in the photo, and a row with a photo alone that none is.
        """
        boxes = any(photo.hints.shaped(Box) for photo in hint_set.photos)
        write_classes(hint_set, out)
        return _write_boxes(hint_set, out) if boxes else _write_tags(hint_set, out)


def read_part(
    file: Path,
    split: str | None,
    folder: PhotoFolder,
    listed: Sequence[str] | None,
    problems: Problems,
    notes: list[str],
    *,
    name: str,
    background: bool,
) -> Parsed:
    """Return what one table says.

    Args:
        file: The table.
        split: The split it is of.
        folder: The photos.
        listed: The classes of the class list.
        problems: Gets what is wrong.
        notes: Gets how it was understood.
        name: Its name for messages.
        background: Whether pixels may belong to no class.

    Raises:
        LabelError: It cannot be read, or is of another format.
    """
    table = read_table(file, folder, name)
    notes.extend(table.notes)
    kind = kind_of(table)
    if kind not in KINDS and kind:
        raise LabelError(f"{name} is of the format '{kind}', by its header; read it with --format {kind}")
    if not table.rows:
        raise LabelError(f"{name} has a header and no rows: it says nothing about any photo; write the labels into it")
    if kind == "boxes":
        found = read_boxes(table, listed, problems, notes, split=split)
        if not is_open_images(table):
            return found
        notes.append(f"classes without a box in {name} are not said to be absent")
        return found._replace(records=tuple(replace(record, complete=False) for record in found.records))
    if kind == "masks":
        return read_masks(table, folder, listed, problems, notes, split=split)
    if not kind:
        problems.add(name, not_understood(table))
        return Parsed(())
    if is_open_images(table):
        return read_image_labels(table, notes, split=split)
    return read_tags(table, listed, problems, notes, background=background, split=split)


def sniff_tables(path: Path, kinds: Sequence[Kind], names: Sequence[str]) -> Fit:
    """Tell how surely a folder holds a table of one of `kinds`: by its name, or by its header alone."""
    found = {file: kind_at(file) for file in of_folder(path)} if path.is_dir() else {}
    fitting = [file for file, kind in found.items() if kind in kinds or (not kind and file.name in names)]
    sure = any(file.name in names or file.name.startswith("_") or split_of(file) for file in fitting)
    return Fit.YES if sure else Fit.WEAK if fitting else Fit.NO


def find_tables(
    path: Path, labels: Path | None, kinds: Sequence[Kind], names: Sequence[str], notes: list[str]
) -> dict[Path, str | None]:
    """Return the tables to read, each with the split it is of: the one given, one of `names`, or those of the splits.

    Raises:
        LabelError: There is none, or there are several and nothing says which is meant.
    """
    if labels is not None and labels.is_file():
        return {labels: None}
    if labels is not None and not labels.is_dir():
        raise LabelError(f"the label file {labels} is missing; correct the path")
    folder = labels or path
    tables = of_folder(folder)
    fitting = [file for file in tables if kind_at(file) in kinds or (file.name in names and not kind_at(file))]
    named = [file for name in names for file in fitting if file.name == name]
    if named:
        others = [file.name for file in fitting if file != named[0]]
        if others:
            notes.append(f"{join(others, 4)} beside {named[0].name} are not read; name each with a --labels of its own")
        return {named[0]: None}
    splits = {file: split for file in fitting if (split := split_of(file))}
    if len(splits) > 1:
        return dict(splits)
    if len(fitting) == 1 or len(splits) == 1:
        return {(list(splits) or fitting)[0]: None}
    if not fitting:
        raise LabelError(f"there is no {', '.join(names)} in {folder}; name the label file with labels=FILE")
    some = join([file.relative_to(folder).as_posix() for file in fitting], 4)
    raise LabelError(f"{folder} holds {len(fitting)} tables of labels: {some}; name one with --labels FILE")


def _name(file: Path, files: Iterable[Path]) -> str:
    """Return a table's name for messages, with its folder where others are called alike."""
    alone = [other.name for other in files].count(file.name) == 1
    return file.name if alone else f"{file.parent.name}/{file.name}"


def write_classes(hint_set: HintSet, out: Path) -> None:
    """Write the class list beside a table."""
    with whole_file(out / CLASS_LIST) as file:
        file.write(("\n".join(hint_set.classes) + "\n").encode())


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write a table of UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def _write_tags(hint_set: HintSet, out: Path) -> Written:
    rows = [["file", *hint_set.classes]]
    for photo in hint_set.photos:
        if (tags := photo.hints.tags) is not None:
            cells = ["1" if k in tags else "0" if k in tags.said else "?" for k in range(1, len(hint_set.classes) + 1)]
            rows.append([file_name(photo), *cells])
    return Written(write_rows(out / "tags.csv", rows))


def _write_boxes(hint_set: HintSet, out: Path) -> Written:
    trusted = all(mark.trust == 1 for photo in hint_set.photos for mark in photo.hints.shaped(Box))
    rows = [["file", "x0", "y0", "x1", "y1", "label", *([] if trusted else ["confidence"])]]
    crowds = open_ = 0
    for photo in hint_set.photos:
        own = []
        for mark in photo.hints.shaped(Box):
            if mark.label == IGNORE:
                crowds += 1
                continue
            label = "background" if mark.label == BACKGROUND else hint_set.classes[mark.label - 1]
            own.append([*map(_number, mark.shape.corners), label, *([] if trusted else [_number(mark.trust)])])
        tags = tags_beside(photo.hints, {mark.label for mark in photo.hints.shaped(Box)})
        own += [["", "", "", "", hint_set.classes[k - 1], *([] if trusted else [""])] for k in sorted(tags)]
        if not own and photo.hints.tags is not None and len(photo.hints.tags.absent) == len(hint_set.classes):
            own = [[""] * (len(rows[0]) - 1)]
        open_ += _is_open(photo.hints.tags, own, len(hint_set.classes))
        rows += [[file_name(photo), *cells] for cells in own]
    lost = (f"{crowds} boxes of crowds are left out: a table of boxes has none",) if crowds else ()
    return Written(write_rows(out / "boxes.csv", rows), lost + lost_tags(open_, "boxes"))


def tags_beside(hints: Hints, marked: set[int]) -> set[int]:
    """Return the classes that are in a photo and have no mark there."""
    return set() if hints.tags is None else set(hints.tags.present) - marked


def _is_open(tags: Tags | None, rows: Sequence[object], classes: int) -> bool:
    """Tell whether a photo is listed, or not listed, though it is not said of all classes whether they are there."""
    if tags is None:
        return False
    return len(tags.said) < classes and (bool(rows) or bool(tags.said))


def lost_tags(photos: int, what: str) -> tuple[str, ...]:
    """Return the sentence on photos of which only some classes are known, where there are any."""
    if not photos:
        return ()
    return (f"of {photos} photos only some classes are known; a table of {what} says that all others are absent",)


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(float(value))
