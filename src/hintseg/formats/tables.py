"""Tables of labels as text: their encoding, separator, header and columns, and what kind of table they are."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import read_head
from hintseg.formats import words
from hintseg.formats.colours import is_colour_table
from hintseg.formats.gather import NOTHING
from hintseg.formats.photos import PhotoFolder, matching, photo_suffixes
from hintseg.formats.problems import decode, read_text

Row = tuple[int, list[str]]
"""A line's number and its cells."""

Kind = Literal["tags", "boxes", "masks", "points", "via", "label_studio", ""]
"""What a table holds; empty: its columns do not tell."""

SEPARATORS = ",;\t|"

FILE_COLUMNS = (
    *("file", "filename", "image", "imagename", "imagefile", "imagefilename", "img", "imgname", "photo", "photoname"),
    *("path", "filepath", "imagepath", "imgpath", "picture", "fname", "imageindex", "imageid", "imgid", "photoid"),
    *("images", "imageids", "imageurl", "url", "frame", "imagelabel", "imageidclassid", "id"),
)
"""Headers of the column that names the photo, as `plain` returns them, the surest first."""

LABEL_COLUMNS = (
    *("label", "class", "tag", "category", "labelname", "classname", "categoryname", "tagname", "choice", "labels"),
    *("classes", "tags", "categories", "choices", "findinglabels", "findings", "object", "objectname", "species"),
    *("diagnosis", "target", "labelid", "classid", "categoryid"),
)
"""Headers of the column that names the class."""

SPLIT_COLUMNS = (
    *("split", "subset", "set", "partition", "usage", "fold", "phase", "isvalid", "isval", "istest", "istrain"),
)
RUN_COLUMNS = ("encodedpixels", "rle", "rlemask", "maskrle", "runlengths", "encodedmask")
"""Headers of the column that holds run lengths as Kaggle writes them."""

CONFIDENCES = ("confidence", "score", "conf", "probability")

POINT_COLUMNS = (("x", "y"), ("px", "py"), ("pointx", "pointy"), ("clickx", "clicky"), ("xcoord", "ycoord"))

_CORNERS = (
    *(
        ("x0", "y0", "x1", "y1"),
        ("xmin", "ymin", "xmax", "ymax"),
        ("x1", "y1", "x2", "y2"),
        ("xtl", "ytl", "xbr", "ybr"),
    ),
    *(("left", "top", "right", "bottom"), ("minx", "miny", "maxx", "maxy"), ("startx", "starty", "endx", "endy")),
    *(("xstart", "ystart", "xend", "yend"), ("tlx", "tly", "brx", "bry"), ("ulx", "uly", "lrx", "lry")),
    *(("xleft", "ytop", "xright", "ybottom"), ("topleftx", "toplefty", "bottomrightx", "bottomrighty")),
)
_FOUR_CORNERS = tuple(tuple(f"{axis}{n}" for n in range(first, first + 4) for axis in "xy") for first in (0, 1))
_SIDES = (("w", "h"), ("width", "height"))
_UPPER_LEFT = (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("x0", "y0"), ("x1", "y1"))
_CENTRE = (("xcenter", "ycenter"), ("xcentre", "ycentre"), ("centerx", "centery"), ("centrex", "centrey"), ("cx", "cy"),
           ("xc", "yc"))  # fmt: skip
_IN_FRONT = re.compile(r"^(boundingbox|bbox|box|bb|roi)(?=.)")
_SIZES = (("height", "width"), ("imageheight", "imagewidth"), ("imgheight", "imgwidth"), ("imgh", "imgw"),
          ("originalheight", "originalwidth"))  # fmt: skip

_SAMPLE = 200
"""So many rows tell what a column holds."""

_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        name: Of the file, for messages.
        header: The cells of its header as they are; empty: it has none.
        rows: The rows below it, cells stripped.
        separator: What stands between cells.
        file: Column that names the photo; None where none seems to.
        notes: How it was read.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    separator: str
    file: int | None
    notes: tuple[str, ...] = ()
    plain: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", tuple(map(plain, self.header)))

    @property
    def width(self) -> int:
        """Number of columns."""
        return max([len(self.header), *(len(cells) for _, cells in self.rows)])

    def column(self, known: Sequence[str]) -> int | None:
        """Return the column of the first of `known` that the header has."""
        return next((self.plain.index(name) for name in known if name in self.plain), None)

    def cells(self, index: int) -> list[str]:
        """Return a column."""
        return [cell(cells, index) for _, cells in self.rows]

    def number(self, text: str) -> float | None:
        """Return the number a cell holds, with a decimal comma where commas do not separate; None where it is empty.

        Raises:
            LabelError: It holds something else.
        """
        if is_nothing(text):
            return None
        try:
            return float(text.replace(",", ".") if self.separator != "," else text)
        except ValueError:
            raise LabelError(f"'{shown(text)}' is no number") from None


def plain(name: str) -> str:
    """Return a header's cell as the tables above have it.

    Example:
        >>> plain("Image Index"), plain("Roi.X1"), plain(" image_id")
        ('imageindex', 'roix1', 'imageid')
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())


def is_nothing(text: str) -> bool:
    """Tell whether a cell is empty, or holds what tools write for that."""
    return not text or text.lower() in NOTHING


def cell(cells: list[str], index: int | None) -> str:
    """Return a row's cell, empty where the row is short."""
    return cells[index] if index is not None and index < len(cells) else ""


def read_table(path: Path, folder: PhotoFolder | None = None, name: str = "") -> Table:
    """Read a table.

    Args:
        path: The file.
        folder: Its photos: a column whose header says nothing is known by naming them. None: headers tell.
        name: The file's name for messages.

    Raises:
        LabelError: The file is missing, empty or no text, or its quotes do not close.
    """
    notes: list[str] = []
    text = read_text(path, notes)
    files = {} if folder is None else folder.paths
    names = frozenset(_stem(name) for id, file in files.items() for name in (id, file.name))
    return _table(text, name or path.name, names, notes)


def kind_at(path: Path) -> Kind:
    """Return what a file seems to hold, by its first lines."""
    head = read_head(path, _HEAD)
    try:
        text = decode(_whole_lines(head) if len(head) == _HEAD else head)
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    except ValueError:
        return ""
    try:
        table = _table(text, path.name, frozenset(), [], strict=False)
        return kind_of(table) if table.width > 1 and not is_colour_table(path) else ""
    except LabelError:
        return ""


def _whole_lines(head: bytes) -> bytes:
    end = max(head.rfind(b"\n"), head.rfind(b"\r")) + 1
    return head[: end + end % 2] if end else head


def _table(text: str, name: str, photos: frozenset[str], notes: list[str], *, strict: bool = True) -> Table:
    rows, separator = _rows(text, name, strict=strict)
    header, guessed = _header(rows, photos)
    body = rows[1:] if header else rows
    if header and body and all(len(cells) == len(header) + 1 and cells[-1] for _, cells in body):
        header = ["", *header]  # R leaves out the name of the column of rows' numbers
    if guessed:
        notes.append(f"the first line of {name} ({shown(', '.join(header))}) is taken to be its header")
    return Table(name, tuple(header), tuple(body), separator, _file_column(header, body, photos), tuple(notes))


def _rows(text: str, name: str, *, strict: bool) -> tuple[list[Row], str]:
    """Return the rows that are not blank, and what separates cells."""
    skipped = 0
    if stated := re.match(r"\s*\"?sep=(.)\"?[;,\s]*?(\r\n|\r|\n)", text, re.IGNORECASE):
        text, separator, skipped = text[stated.end() :], stated[1], 1
    else:
        separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=strict, skipinitialspace=True)
    before = csv.field_size_limit(len(text) + 1)  # a cell may hold a whole mask
    rows: list[Row] = []
    try:
        for cells in reader:
            stripped = [cell.strip().strip("\ufeff\u200b") for cell in cells]
            if any(stripped):
                rows.append((reader.line_num + skipped, stripped))
    except csv.Error as error:
        line = reader.line_num + skipped
        raise LabelError(f"1 problem in {name}:\n  line {line}: {error}; correct its quotes") from error
    finally:
        csv.field_size_limit(before)
    if not rows:
        raise LabelError(f"{name} is empty but for separators; write the labels into it, or name another file")
    return rows, separator


def _separator(text: str) -> str:
    """Return what separates cells: the one that comes first in most lines, quoted cells aside."""
    bare = re.sub(r'"[^"]*"', "", text[:_HEAD])
    first = Counter(mark[0] for line in bare.splitlines()[:_SAMPLE] if (mark := re.search(r"[,;\t|]", line)))
    return max(SEPARATORS, key=lambda mark: first[mark])


def _stem(name: str) -> str:
    """Return what two ways to write a photo's name have in common."""
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2]).casefold()
    stem, dot, suffix = base.rpartition(".")
    return stem if dot + suffix in photo_suffixes() else base


def _is_photo(text: str, photos: frozenset[str]) -> bool:
    return _stem(text) in photos or _has_suffix(text)


def _has_suffix(text: str) -> bool:
    return text[text.rfind(".") :].lower() in photo_suffixes()


def _header(rows: list[Row], photos: frozenset[str]) -> tuple[list[str], bool]:
    """Return the header, and whether that is a guess: none of its names is known, but the first line has no photo."""
    first = rows[0][1]
    names = set(map(plain, first))
    if len(first) < 2 or any(_has_suffix(text) for text in first):
        return [], False
    if names & set(FILE_COLUMNS):  # also where a photo is called so
        return first, False
    if any(_is_photo(text, photos) for text in first):
        return [], False
    if names & {*LABEL_COLUMNS, *RUN_COLUMNS}:
        return first, False
    below = [cells for _, cells in rows[1:_SAMPLE]]
    repeats = any(text and _form(text) == _form(cell(cells, i)) for i, text in enumerate(first) for cells in below)
    numbers = any(re.fullmatch(r"[-+]?[\d.]+", text) for text in first)
    with_photo = sum(any(_is_photo(text, photos) for text in cells) for cells in below)
    guessed = bool(below) and not repeats and not numbers and 2 * with_photo > len(below)
    return (first, True) if guessed else ([], False)


def _form(text: str) -> str:
    """Return what two names of one row of numbers have in common."""
    return re.sub(r"\d+", "0", text)


def _file_column(header: list[str], rows: list[Row], photos: frozenset[str]) -> int | None:
    """Return the column that names the photo: by its header, and by what is in it where several may be meant."""
    sample = [cells for _, cells in rows[:_SAMPLE]]
    width = len(header) or max(map(len, sample), default=0)
    hits = [sum(_is_photo(cell(cells, i), photos) for cells in sample) for i in range(width)]
    names = [plain(text) for text in header]
    named = [names.index(name) for name in FILE_COLUMNS if name in names]
    fitting = [i for i in named if i < width and 2 * hits[i] > len(sample)]
    others = [i for i in sorted(range(width), key=lambda i: -hits[i]) if 2 * hits[i] > len(sample)]
    if fitting or others:
        return (fitting or others)[0]
    return named[0] if named else None


def kind_of(table: Table) -> Kind:
    """Return what a table holds, by its header; without one, by what is in its first row."""
    names = set(table.plain)
    if not table.header:
        return "boxes" if bare_boxes(table) else "points" if bare_points(table) else "tags"
    if "regionshapeattributes" in names:
        return "via"
    if "annotationid" in names or {"annotator", "leadtime"} <= names:
        return "label_studio"
    if table.file is None:
        return ""
    if names & set(RUN_COLUMNS):
        return "masks"
    if box_columns(table) or "bbox" in names:
        return "boxes"
    if point_columns(table):
        return "points"
    known = label_columns(table)
    return "tags" if known or one_hot_columns(table) or len(other_columns(table)) == 1 else ""


BoxForm = Literal["four corners", "corners", "sides", "centre"]


def box_columns(table: Table) -> tuple[list[int], BoxForm] | None:
    """Return the columns of a box, and what they hold: corners, two or four, or a corner or the centre, and sides."""
    at: dict[str, int] = {}
    for index, name in enumerate(table.plain):  # with `bbox_width`, `width` is the photo's
        short = _IN_FRONT.sub("", name)
        if short not in at or short != name:
            at[short] = index
    forms: tuple[tuple[BoxForm, Sequence[tuple[str, ...]]], ...] = (
        ("four corners", _FOUR_CORNERS),
        ("corners", _CORNERS),
        ("centre", [(*centre, *sides) for centre in _CENTRE for sides in _SIDES]),
        ("sides", [(*corner, *sides) for corner in _UPPER_LEFT for sides in _SIDES]),
    )
    for form, spellings in forms:
        for spelling in spellings:
            if set(spelling) <= at.keys():
                return [at[name] for name in spelling], form
    return None


def size_columns(table: Table, taken: Sequence[int]) -> tuple[int, int] | None:
    """Return the columns of the photo's height and width, where there are some that are not `taken`."""
    for height, width in _SIZES:
        if height in table.plain and width in table.plain:
            found = table.plain.index(height), table.plain.index(width)
            if not set(found) & set(taken):
                return found
    return None


def point_columns(table: Table) -> tuple[int, int] | None:
    """Return the columns of a point's x and y."""
    return next(
        ((table.plain.index(x), table.plain.index(y)) for x, y in POINT_COLUMNS if {x, y} <= set(table.plain)), None
    )


def label_columns(table: Table) -> list[int]:
    """Return the columns that name classes: all that differ by a number at their end, such as tag1 and tag2."""
    bases = [re.sub(r"(?<=[^\W\d])\d+$", "", name) for name in table.plain]
    open_ = [i for i in range(len(bases)) if i != table.file]
    found = [columns for name in LABEL_COLUMNS if (columns := [i for i in open_ if bases[i] == name])]
    words = [columns for columns in found if not all(map(is_number, _values(table, columns)))]
    return next(iter(words or found), [])


def _values(table: Table, columns: Sequence[int]) -> list[str]:
    return [text for i in columns for text in table.cells(i)[:_SAMPLE] if not is_nothing(text)]


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def index_column(table: Table) -> int | None:
    """Return the column of the rows' numbers that pandas writes: the first, without a name."""
    if table.plain and table.plain[0] in ("", "unnamed0", "index") and table.file != 0:
        return 0 if all(text.isdigit() for text in table.cells(0)) else None
    return None


def other_columns(table: Table) -> list[int]:
    """Return the columns that name neither the photo, nor its split or size, and are not the rows' numbers."""
    sizes = {name for pair in _SIZES for name in pair}
    out = {table.file, index_column(table)}
    open_ = (i for i in range(len(table.header)) if i not in out)
    return [i for i in open_ if table.plain[i] not in (*SPLIT_COLUMNS, *sizes, "") and any(table.cells(i))]


YES = frozenset({"1", "1.0", "true", "yes", "x", "y", "t"})
NO = frozenset({"0", "0.0", "false", "no", "n", "f", ""})
NOT_SAID = frozenset({"?", "nan", "na", "n/a", "none", "null", "<na>"})
ABSENT = frozenset({"-1", "-1.0"})


def one_hot_columns(table: Table) -> list[int]:
    """Return the columns that say of one class each whether it is there: most of their cells do."""
    open_ = [i for i in other_columns(table) if table.plain[i] not in LABEL_COLUMNS]
    found = [i for i in open_ if are_answers(table, [i])]
    said = {text.lower() for i in found for text in table.cells(i)[:_SAMPLE]}
    return found if said & (YES | ABSENT | {"0"}) else []


def are_answers(table: Table, columns: Sequence[int]) -> bool:
    """Tell whether most cells of columns say yes, no or not known."""
    cells = [text.lower() for i in columns for text in table.cells(i)[:_SAMPLE]]
    return 2 * sum(text in YES | NO | NOT_SAID | ABSENT for text in cells) > len(cells)


BARE_CORNERS = ("file", "x1", "y1", "x2", "y2", "label")
BARE_SIDES = ("label", "x", "y", "w", "h", "file", "width", "height")
BARE_CLOUD = ("split", "file", "label", "x1", "y1", "", "", "x2", "y2", "", "")
"""The columns of tables of boxes without header: RetinaNet's, makesense.ai's, and Google Cloud's of shares."""

BARE_POINTS = ("label", "x", "y", "file", "width", "height")
"""The columns of makesense.ai's tables of points, which have no header."""


def bare_boxes(table: Table) -> tuple[str, ...] | None:
    """Return the columns of a table of boxes without header, where it is one that tools write."""
    forms = (BARE_CORNERS, BARE_SIDES, BARE_CLOUD)
    return next((form for form in forms if _fits(table, form)), None)


def bare_points(table: Table) -> tuple[str, ...] | None:
    """Return the columns of a table of points without header, where it is one that tools write."""
    return BARE_POINTS if _fits(table, BARE_POINTS) else None


def _fits(table: Table, form: tuple[str, ...]) -> bool:
    """Tell whether the rows of a table are as `form` says: numbers where it has numbers, in most rows."""
    rows = [cells for _, cells in table.rows[:_SAMPLE]]
    texts = {form.index(name) for name in ("file", "label") if name in form}
    numbers = {i for i, name in enumerate(form) if name not in ("file", "label", "split", "")}
    good = filled = 0
    for cells in rows:
        if len(cells) != len(form):
            return False
        if "split" in form and not (words.split_of(cells[0]) or cells[0].lower() in ("unassigned", "")):
            return False
        if not any(cells[i] for i in numbers):
            continue
        filled += 1
        good += all(is_number(cells[i].replace(",", ".")) for i in numbers) and all(cells[i] for i in texts)
    return table.file == form.index("file") and 2 * good > filled


def not_understood(table: Table) -> str:
    """Return the sentence on a table whose columns do not tell what it holds."""
    if table.header:
        found = "columns found: " + join([f"'{shown(name)}'" for name in table.header])
    else:
        found = f"no header found; it starts with '{shown(table.separator.join(table.rows[0][1]))}'"
    lengths = Counter(len(cells) for _, cells in table.rows)
    usual = lengths.most_common(1)[0][0] if lengths else 0
    odd = [number for number, cells in table.rows if len(cells) != usual]
    uneven = f"; most lines have {usual} cells, not so line {join(list(map(str, odd)), 5)}" if odd else ""
    return (
        f"{found}{uneven}; a table needs a first line with `file` and: `tags`; or the names of the classes above 0 and "
        "1; or x0,y0,x1,y1,label; or x,y,width,height,label; or x,y,label; or EncodedPixels,label"
    )


def of_folder(folder: Path) -> list[Path]:
    """Return the tables in a folder, and those that some tools write into each folder of photos."""
    found = chain.from_iterable(matching(folder, one) for one in ("*", "*/_classes.csv", "*/_annotations.csv"))
    suffixes = (".csv", ".tsv")
    return sorted(
        file
        for file in found
        if file.suffix.lower() in suffixes
        and not file.name.startswith(".")
        and "class-descriptions" not in file.name
        and not is_colour_table(file)
    )


def find_kind(path: Path, labels: Path | None, kind: Kind) -> list[Path]:
    """Return the tables of a kind: the one that is given, or those of a folder."""
    if labels is not None and not labels.is_dir():
        return [labels] if is_table(labels) and kind_at(labels) == kind else []
    return [file for file in of_folder(labels or path) if kind_at(file) == kind]


def is_table(labels: Path) -> bool:
    """Return whether a label file has the suffix of a table."""
    return labels.is_file() and labels.suffix.lower() in (".csv", ".tsv", ".txt")


def split_of(file: Path) -> str | None:
    """Return the split that a table's name, or that of its folder, speaks of."""
    place = file.parent.name if file.name.startswith("_") else file.stem
    return next((split for word in re.split(r"[^a-z]+", place.lower()) if (split := words.split_of(word))), None)
