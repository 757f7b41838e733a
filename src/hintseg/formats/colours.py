"""Tables of what the colours of a colour mask mean, in the files that tools write beside such masks.

- `labelmap.txt` (CVAT, "Segmentation mask 1.1"): lines `name:red,green,blue:parts:actions`.
- `_classes.csv` (Roboflow, semantic masks): `Pixel Value, Class`; a value v is the colour (v, v, v).
- `colours.csv`, `colors.csv`, `class_dict.csv` (CamVid as it is handed on): a header `name,r,g,b`.
- `label_colors.txt` (CamVid): lines `red green blue name`.

Source:
    CVAT and Datumaro: "CamVid", "Pascal VOC" and "Segmentation mask" in their documentation of formats.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hintseg.errors import LabelError, did_you_mean, shown
from hintseg.files.parse import is_file
from hintseg.formats.layout import is_background
from hintseg.formats.problems import Problems, read_text
from hintseg.formats.records import Colour
from hintseg.types import BACKGROUND, IGNORE

UNKNOWN = frozenset({"ignore", "ignored", "void", "unlabelled", "unlabeled", "unknown", "undefined"})
"""Names of colours that mean "nothing known here", where the class list does not have them."""

LONGEST_LINE = 1000
"""The most characters of a line."""

_LABELMAP = re.compile(r"(?P<name>.+?):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+)(:.*)?")
_CAMVID = re.compile(r"(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)\s+(?P<name>.+)")
_COLUMNS = {
    "name": ("name", "class", "class_name", "label"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}

_VALUES = ["pixel value", "class"]

Rows = list[tuple[Colour, str]]


class ColourTable(NamedTuple):
    """What colours mean.

    Attributes:
        source: Name of the file.
        names: Name of each colour, in the order of the file.
    """

    source: str
    names: Mapping[Colour, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: neither background nor what means that nothing is known."""
        names = dict.fromkeys(self.names.values())
        return tuple(n for n in names if not is_background(n) and n.lower() not in UNKNOWN)

    @property
    def of_values(self) -> bool:
        """Whether all colours are grey: values of a single channel."""
        return all(r == g == b for r, g, b in self.names)

    def ids(self, classes: Sequence[str], problems: Problems) -> tuple[tuple[Colour, int], ...]:
        """Return the class id of each colour; names that are no class are problems."""
        found = []
        for colour, name in self.names.items():
            if name in classes:
                found.append((colour, classes.index(name) + 1))
            elif is_background(name) or name.lower() in UNKNOWN:
                found.append((colour, BACKGROUND if is_background(name) else IGNORE))
            else:
                problems.add(self.source, f"the class '{shown(name)}' is not listed{did_you_mean(name, list(classes))}")
        return tuple(found)


def find_colours(places: Iterable[Path], given: Mapping[Colour, str], problems: Problems) -> ColourTable | None:
    """Return the table of colours: the given one, else that of the first folder of `places` that has one.

    Args:
        places: Folders to look in.
        given: Name of each colour, where the user says it.
        problems: Gets a sentence for each bad line.
    """
    if given:
        return ColourTable("the given table of colours", given)
    for folder in dict.fromkeys(places):
        for name, parse in TABLES.items():
            file = folder / name
            if is_file(file) and (rows := parse(file, problems)):
                return ColourTable(name, _checked(rows, name, problems))
    return None


def read_colours(file: Path) -> Mapping[Colour, str]:
    """Return the name of each colour of a table of any name, in one of the forms above.

    Raises:
        LabelError: It cannot be read, has no line, or holds something else: all problems at once.
    """
    problems = Problems()
    by_name = TABLES.get(file.name)
    parse = by_name or (_table if file.suffix.lower() == ".csv" else TABLES["labelmap.txt"])
    names = _checked(parse(file, problems), file.name, problems)
    problems.raise_all()
    if not names:
        raise LabelError(f"{file} names no colour; write lines name,r,g,b under that header")
    return names


def is_colour_table(file: Path) -> bool:
    """Return whether a file is a table of colours, by its name; by its header where Roboflow's tags are called so."""
    if file.name not in TABLES or not is_file(file):
        return False
    if file.name != "_classes.csv":
        return True
    with file.open(encoding="utf-8", errors="replace") as text:
        header = text.readline(LONGEST_LINE)
    return [cell.strip().lower() for cell in header.lstrip("\ufeff").split(",")] == _VALUES


def _checked(rows: Rows, where: str, problems: Problems) -> dict[Colour, str]:
    names: dict[Colour, str] = {}
    for colour, name in rows:
        if max(colour) > 255:
            problems.add(where, f"the colour {colour} of '{shown(name)}' has a number above 255")
        if names.setdefault(colour, name) != name:
            problems.add(where, f"the colour {colour} is that of '{shown(names[colour])}' and of '{shown(name)}'")
    return names


def _lines(pattern: re.Pattern[str]) -> Callable[[Path, Problems], Rows]:
    def parse(file: Path, problems: Problems) -> Rows:
        rows: Rows = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = pattern.fullmatch(line.strip()) if len(line) <= LONGEST_LINE else None
            if found is None:
                problems.add(file.name, f"line {number}: '{shown(line)}' has no name with a colour red, green, blue")
                continue
            rows.append(((int(found["r"][:9]), int(found["g"][:9]), int(found["b"][:9])), found["name"].strip()))
        return rows

    return parse


def _table(file: Path, problems: Problems) -> Rows:
    header, *lines = _cells(file)
    columns = [cell.lower() for cell in header]
    at = {key: next((columns.index(n) for n in names if n in columns), -1) for key, names in _COLUMNS.items()}
    if -1 in at.values():
        raise LabelError(
            f"{file.name} has the columns {shown(', '.join(header))}; a table of colours needs name,r,g,b: one colour "
            "a line"
        )
    return _numbered(file, lines, [at["r"], at["g"], at["b"]], at["name"], problems)


def _values(file: Path, problems: Problems) -> Rows:
    header, *lines = _cells(file)
    if [cell.lower() for cell in header] != _VALUES:
        return []  # Roboflow's table of tags has the same name
    return _numbered(file, lines, [0, 0, 0], 1, problems)


def _numbered(file: Path, lines: list[list[str]], at: list[int], name: int, problems: Problems) -> Rows:
    rows: Rows = []
    for number, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        values = [cells[i] if i < len(cells) else "" for i in at]
        if not all(value.isdecimal() and len(value) < 9 for value in values) or name >= len(cells) or not cells[name]:
            problems.add(file.name, f"line {number}: '{shown(','.join(cells))}' is no name with whole numbers 0..255")
            continue
        red, green, blue = map(int, values)
        rows.append(((red, green, blue), cells[name]))
    return rows


def _cells(file: Path) -> list[list[str]]:
    lines = [line[:LONGEST_LINE] for line in read_text(file).splitlines()]
    return [[cell.strip() for cell in row] for row in csv.reader(lines)]


TABLES: dict[str, Callable[[Path, Problems], Rows]] = {
    "labelmap.txt": _lines(_LABELMAP),
    "_classes.csv": _values,
    "colours.csv": _table,
    "colors.csv": _table,
    "class_dict.csv": _table,
    "label_colors.txt": _lines(_CAMVID),
}
"""How each table is read, by the name of its file."""
