"""YOLO: one .txt per photo with boxes or outlines, and a file with the class names.

`images/train/a.jpg` has its labels in `labels/train/a.txt` or beside it. A line is `class x y width height` (a box by
its centre) or `class x y x y ...` (an outline; the four corners of an oriented box are one too), all as shares of the
photo's width and height; class 0 becomes id 1. One number more is a detector's confidence, and one behind it that of a
track. An empty .txt says that the photo shows no class; a photo without .txt is unlabelled. The names are in a .yaml
under `names`, in `obj.names` or `classes.txt`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import read_bytes
from hintseg.formats.codec import Fit, Written, holds
from hintseg.formats.gather import gather
from hintseg.formats.layout import check_classes, is_background, read_splits
from hintseg.formats.photos import PhotoFolder, find_photos
from hintseg.formats.problems import Problems, read_text
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.words import LABEL_WORDS, OTHER_TEXTS, PHOTO_WORDS, plain, split_of
from hintseg.formats.yolo_config import (
    CONFIGS,
    YAML,
    Beside,
    is_yolo,
    look,
    number,
    read_config,
    read_config_splits,
)
from hintseg.formats.yolo_write import write_yolo
from hintseg.types import Box, HintSet, Region, Supervision

WHERE = "the .txt files"

_LOOKED_AT = 20
"""So many .txt files are opened to see whether they are YOLO's."""

_ROUNDED = 1.001
"""Shares may be this large: they were rounded."""

_NOWHERE = Box(0.0, 0.0, 0.0, 0.0)


class Yolo:
    """YOLO .txt with a list of names: boxes or outlines."""

    name = "yolo"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS})
    writes = frozenset({Supervision.BOXES, Supervision.MASKS})
    sign = "a .txt of numbers per photo, and data.yaml, classes.txt or obj.names"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for .txt files of YOLO's columns, or for a `data.yaml`."""
        if labels is not None:
            return Fit.WEAK if labels.suffix.lower() in YAML or holds(labels, ".txt") else Fit.NO
        beside = look(path)
        if _has_labels(path, beside):
            return Fit.YES
        return Fit.WEAK if any(file.name.lower() in CONFIGS for file in beside.configs) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a YOLO data set, for detection or for segmentation.

        Args:
            path: Folder of the data set.
            labels: The .yaml with the names, or the folder of the .txt files; None looks for both below `path`.
            reading: How it is to be read.

        Raises:
            LabelError: There are no class names or no .txt files, or all problems of the files at once.

        Cost:
            The head of every labelled photo is read for its size.
        """
        problems, notes = Problems(), list[str]()
        folder = find_photos(path, missing=reading.missing)
        own = look(path)
        root, beside = path, own
        if labels is not None:
            there = labels if labels.is_dir() else labels.parent
            if not there.resolve().is_relative_to(path.resolve()) or labels.is_dir():
                root, beside = there, look(there)
        if not beside.texts:
            root, beside = path, own
        config = read_config(path, None if labels is None or labels.is_dir() else labels, [beside, own], problems)
        base = path if root.resolve().is_relative_to(path.resolve()) else root
        lines = _Lines(config.names, config.keypoints, problems, notes)
        records = _records(beside.texts, base, folder, lines, notes)
        lines.finish()
        if not records:
            example = next(iter(folder.paths))
            raise LabelError(f"there are no YOLO labels below {root}; those of {example} would be in {example}.txt")
        classes = tuple(name for name in config.names.values() if not (reading.background and is_background(name)))
        if len(classes) < len(config.names):
            notes.append("the class 'background' is no class; boxes of it say where nothing else is")
        if [*config.names] != [*range(len(config.names))]:
            notes.append(
                f"class ids are mapped to 1..{len(classes)} in their order: {join([*map(str, config.names)], 5)}"
            )
        check_classes(classes, config.source.name, problems)
        if any(config.splits.values()):
            splits = read_config_splits(config, path, folder, problems, notes)
        else:
            splits = _splits_by_folder(path, folder) or read_splits(path, folder, problems)
        said = Labels(tuple(records), WHERE, classes, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write `labels/ID.txt` for each photo that boxes or masks are known of, and `data.yaml`.

        Objects with an outline are written as outlines, others as boxes. To train with them, put the photos into
        `images` beside `labels`.

        Args:
            hint_set: What is said of the photos.
            out: An empty folder.

        Raises:
            RunError: A file cannot be written.
            LabelError: A mask cannot be read.
        """
        return write_yolo(hint_set, out)


def _has_labels(path: Path, beside: Beside) -> bool:
    """Return whether one of the first .txt files in a folder of labels, or beside their photo, holds YOLO's columns."""

    def is_label(file: Path) -> bool:
        if any(plain(part) in LABEL_WORDS for part in file.relative_to(path).parts[:-1]):
            return True
        return str(file)[: -len(file.suffix)] in beside.photos and not OTHER_TEXTS.fullmatch(file.name)

    return any(map(is_yolo, islice(filter(is_label, beside.texts), _LOOKED_AT)))


def _records(texts: Sequence[Path], root: Path, folder: PhotoFolder, lines: _Lines, notes: list[str]) -> list[Record]:
    """Return what each label file says; texts that are none are left out."""
    stems = {file.stem for file in folder.paths.values()} | {file.name for file in folder.paths.values()}
    records, others = list[Record](), list[str]()
    seen: dict[str, str] = {}
    contents = {file: _content(file) for file in texts}
    lines.look([text for text in contents.values() if isinstance(text, str)])
    for file, text in contents.items():
        parts = file.relative_to(root).parts
        line = "/".join(parts)
        if isinstance(text, LabelError):
            items: tuple[Item, ...] = (Item("", _NOWHERE, wrong=str(text)),)
        else:
            usual = OTHER_TEXTS.fullmatch(file.name) is not None
            unknown = file.stem not in stems
            if (unknown or (usual and _is_list(text, stems))) and not is_yolo(file):
                if not usual:
                    others.append(line)
                continue
            if unknown and usual and not text:
                continue
            items = lines.items(text, line)
        names = _photo_names((*parts[:-1], file.stem), folder.paths.keys())
        if folder.root != root and parts[0] == folder.root.name:
            names = ["/".join((*parts[1:-1], file.stem))]
        if names[0] in seen:
            lines.problems.add(WHERE, f"{line} and {seen[names[0]]} are both of {names[0]}; delete one")
        seen[names[0]] = line
        also = () if names[0] in folder.paths else tuple(names[1:])
        records.append(Record(names[0], items, relative=True, also=also, where=WHERE, line=line))
    if others:
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        notes.append(f"{len(others)} .txt files hold no YOLO labels and have no photo, and are left out: {some}")
    return records


def _content(file: Path) -> str | LabelError:
    """Return the text of a file; the error, where it cannot be read."""
    try:
        return read_text(file) if read_bytes(file, LabelError, "make it readable").strip() else ""
    except LabelError as error:
        return error


def _is_inside(cells: Sequence[str]) -> bool:
    """Return whether the box of a line lies in its photo."""
    x, y, w, h = (number(cell) or 0.0 for cell in cells[1:5])
    return min(w, h) > 0 and max(abs(2 * x - 1) + w, abs(2 * y - 1) + h) <= _ROUNDED


def _is_list(text: str, stems: Collection[str]) -> bool:
    """Return whether a text begins with the name of a photo, as lists of the photos of a split do."""
    return Path(text.strip().partition("\n")[0].strip().replace("\\", "/")).stem in stems


def _photo_names(parts: Sequence[str], known: Collection[str]) -> list[str]:
    """Return what the photo of a label file may be called, the likeliest first: `labels` stands for `images`."""
    names = list[str]()
    for n in reversed(range(len(parts) - 1)):
        if plain(parts[n]) in LABEL_WORDS:
            around = [(*parts[:n], word, *parts[n + 1 :]) for word in PHOTO_WORDS]
            names += ["/".join(one) for one in (*around[:1], (*parts[:n], *parts[n + 1 :]), *around[1:])]
    names.append("/".join(parts))
    return sorted(names, key=lambda name: name not in known)


def _splits_by_folder(path: Path, folder: PhotoFolder) -> dict[str, tuple[str, ...]]:
    splits = defaultdict[str, list[str]](list)
    for id, file in folder.paths.items():
        split = next(filter(None, map(split_of, file.relative_to(path).parts[:-1])), None)
        if split is not None:
            splits[split].append(id)
    return {split: tuple(ids) for split, ids in splits.items()}


class _Lines:
    """What the lines of label files hold, and what is to be said of all of them together.

    Args:
        names: Class names by their ids.
        keypoints: Numbers that follow a box, 0 where there are none.
        problems: Gets what is wrong with all lines.
        notes: Gets what is left out.
    """

    def __init__(self, names: Mapping[int, str], keypoints: int, problems: Problems, notes: list[str]) -> None:
        self.problems = problems
        self._names = names
        self._keypoints = keypoints
        self._notes = notes
        self._outside: dict[str, list[str]] = defaultdict(list)
        self._seen: Counter[str] = Counter()
        self._columns: Counter[tuple[int, bool]] = Counter()
        self._twos: set[int] = set()
        self._tracks = False

    def look(self, texts: Iterable[str]) -> None:
        """Find out whether lines of seven cells are boxes with a confidence and the number of a track, or triangles.

        They are boxes where one of them ends with a whole number above 1; where all end with 1, as those of a single
        track do, only if they would lie in their photo, and each other line is a box with a confidence.
        """
        lines = [cells for text in texts for line in text.splitlines() if (cells := line.split())]
        seven = [cells for cells in lines if len(cells) == 7]
        above = any((last := number(cells[6])) is not None and last.is_integer() and last > 1 for cells in seven)
        single = all(len(cells) == 6 or (len(cells) == 7 and cells[6] == "1" and _is_inside(cells)) for cells in lines)
        self._tracks = above or single

    def items(self, text: str, file: str) -> tuple[Item, ...]:
        """Return the objects of one label file."""
        found = (
            self._item(line.split(), f"line {n}", file)
            for n, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        )
        return tuple(item for item in found if item is not None)

    def _item(self, cells: list[str], line: str, file: str) -> Item | None:
        """Return the object of one line; None where its class is in no list, which is told of all at once."""
        label = number(cells[0])
        if label is None or not label.is_integer():
            return Item("", _NOWHERE, line=line, wrong=f"'{shown(cells[0])}' is no class id; ids are 0, 1, 2, ...")
        if label not in self._names:
            self._outside[f"{label:g}"].append(f"{file} {line}")
            return None
        name = self._names[int(label)]
        values = [value for cell in cells[1:] if (value := number(cell)) is not None]
        if len(values) < len(cells) - 1:
            why = f"'{shown(' '.join(cells))}' holds something that is not a number"
            return Item(name, _NOWHERE, line=line, wrong=why)
        try:
            values, trust = self._without_more(values)
        except LabelError as error:
            return Item(name, _NOWHERE, line=line, wrong=str(error))
        if len(values) > 4:
            return Item(name, Region((tuple(values),)), trust=trust, line=line)
        x, y, w, h = values
        return Item(name, Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2), trust=trust, line=line)

    def _without_more(self, values: list[float]) -> tuple[list[float], float]:
        """Return the numbers of the box or outline, and how far to trust it."""
        count = len(values)
        if self._keypoints and count != 4:
            if count not in (4 + self._keypoints, 5 + self._keypoints):
                raise LabelError(f"{count + 1} columns; by kpt_shape they are {5 + self._keypoints}, or 5 for a box")
            self._seen["keypoints"] += 1
            values = values[:4] + values[4 + self._keypoints :]
        elif count > 5:
            thirds = values[6::3]
            self._columns[count, count % 3 == 1 and all(value in (0, 1, 2) for value in thirds)] += 1
            if 2 in thirds:
                self._twos.add(count)
        if self._tracks and len(values) == 6 and values[5].is_integer() and values[5] >= 0 and max(values[:5]) <= 1:
            values = values[:5]
            self._seen["tracks"] += 1
        if len(values) % 2 == 0 and len(values) >= 4:
            return values, 1.0
        if len(values) < 4:
            raise LabelError(f"{count + 1} columns; a box has 5, an outline 1 + 2 for each of at least 3 points")
        values, last = values[:-1], values[-1]
        if 0 <= last <= 1:
            self._seen["confidences"] += 1
            return values, last
        if last.is_integer() and last > 1:
            self._seen["tracks"] += 1
            return values, 1.0
        raise LabelError(f"{count + 1} columns, and the last, {last:g}, is no confidence: those lie between 0 and 1")

    def finish(self) -> None:
        """Say what holds of all lines."""
        if self._outside:
            some = "; ".join(f"{id} ({len(at)} lines, such as {at[0]})" for id, at in [*self._outside.items()][:5])
            ids = [*self._names]
            listed = f"0..{ids[-1]}" if ids == [*range(len(ids))] != [] else join([*map(str, ids)], 10) or "no ids"
            self.problems.add(
                WHERE, f"class ids outside the class list, which has {listed}: {some}; add their names, or delete them"
            )
        lines = sum(self._columns.values())
        for (count, points), found in self._columns.items():
            if points and found == lines and (count in self._twos or found >= 3):
                self.problems.add(
                    WHERE,
                    f"lines of {count + 1} numbers, of which every third from the eighth on is 0, 1 or 2, look like a "
                    f"box and {(count - 4) // 3} keypoints; if so, write kpt_shape: [{(count - 4) // 3}, 3] into a "
                    "data.yaml with `names`",
                )
        for kind, sentence in (
            ("keypoints", "{} objects have keypoints, which are left out; their boxes are kept"),
            ("confidences", "{} lines end with a detector's confidence, which is how far they are trusted"),
            ("tracks", "{} lines end with a whole number, that of a track, which is left out"),
        ):
            if self._seen[kind]:
                self._notes.append(sentence.format(self._seen[kind]))
