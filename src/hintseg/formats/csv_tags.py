"""Tables of tags: one or more in a cell, a column for each, a row for each, or a column of yes and no per class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hintseg.errors import did_you_mean, join, shown
from hintseg.files.parse import parse_json
from hintseg.formats.gather import NOTHING
from hintseg.formats.layout import CLASS_LIST, is_background
from hintseg.formats.problems import Problems
from hintseg.formats.records import Record
from hintseg.formats.tables import (
    ABSENT,
    NO,
    NOT_SAID,
    SPLIT_COLUMNS,
    YES,
    Table,
    are_answers,
    cell,
    index_column,
    is_nothing,
    is_number,
    label_columns,
    not_understood,
    one_hot_columns,
    other_columns,
)
from hintseg.formats.words import split_of

UNLABELLED = ("unlabeled", "unlabelled")
"""What Roboflow calls the column of photos nobody labelled."""

_SEVERAL = ("|", ";", ",", "/", "+", "&", " ")
"""What may separate tags in one cell; a class's name may hold the later ones."""

_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^\s,'\"\[\](){}]+)")


class Parsed(NamedTuple):
    """What one table says; the classes in its own order, where it has one."""

    records: tuple[Record, ...]
    classes: tuple[str, ...] | None = None


def read_tags(
    table: Table,
    listed: Sequence[str] | None,
    problems: Problems,
    notes: list[str],
    *,
    background: bool,
    split: str | None,
) -> Parsed:
    """Return what a table of tags says.

    Args:
        table: The table.
        listed: The classes of the class list.
        problems: Gets what is wrong.
        notes: Gets how the table was understood.
        background: Whether pixels may belong to no class.
        split: The split that the whole table belongs to.
    """
    if table.file is None:
        problems.add(table.name, not_understood(table))
        return Parsed(())
    splits = splits_of(table, split, notes)
    names = [" ".join(name.split()) for name in table.header]
    flags = [i for i, name in enumerate(names) if name in (listed or ()) and i != table.file]
    if not flags or {names[i] for i in flags} != set(listed or ()) or not are_answers(table, flags):
        flags = [] if label_columns(table) else one_hot_columns(table)
    if flags:
        return _one_hot(table, flags, listed, splits, problems, notes, background=background)
    columns = label_columns(table) or _rest(table, notes)
    if not columns:
        problems.add(table.name, not_understood(table))
    elif _are_tags(table, columns, problems):
        return _tags(table, columns, listed, splits, problems, notes)
    return Parsed(())


def _rest(table: Table, notes: list[str]) -> list[int]:
    """Return the columns of tags where no header names them."""
    if not table.header:
        return [i for i in range(table.width) if i != table.file] or [table.width]
    found = other_columns(table)
    if len(found) != 1:
        return []
    notes.append(f"the column '{shown(table.header[found[0]])}' of {table.name} is taken to be its tags")
    return found


def _are_tags(table: Table, columns: Sequence[int], problems: Problems) -> bool:
    """Refuse numbers in several columns without header: they are no tags, but coordinates, or yes and no."""
    if table.header:
        return True
    cells = [[text for i in columns if (text := cell(row, i))] for _, row in table.rows]
    numbers = [sum(map(is_number, row)) for row in cells]
    several = sum(count > 1 for count in numbers)
    if 2 * several <= max(sum(map(bool, cells)), 1):
        return True
    first = shown(table.separator.join(table.rows[0][1]))
    if all(text in ("0", "1") for row in cells for text in row):
        what = "every tag is 0 or 1: a one-hot table needs a first line with `file` and the class names"
    else:
        what = (
            f"it has no header, and its first line '{first}' holds {numbers[0]} numbers; are they a box or a point? "
            "Write a first line such as file,x0,y0,x1,y1,label or file,x,y,label"
        )
    problems.add(table.name, what)
    return False


def splits_of(table: Table, split: str | None, notes: list[str]) -> list[str | None]:
    """Return the split of each row: that of the whole table, else what its column of splits says."""
    at = next((i for i, name in enumerate(table.plain) if name in SPLIT_COLUMNS), None)
    if split is not None or at is None:
        return [split] * len(table.rows)
    texts = [text.lower() for text in table.cells(at)]
    word = table.plain[at].removeprefix("is")
    own = split_of(word)
    if own is not None:
        other = "val" if own == "train" else "train"
        found = [own if text in YES else other if text in NO else None for text in texts]
    else:
        found = [split_of(text) for text in texts]
    wrong = {text for text, name in zip(texts, found, strict=True) if text and name is None}
    if wrong:
        some = join([f"'{shown(text)}'" for text in sorted(wrong)], 3)
        notes.append(
            f"the column '{shown(table.header[at])}' of {table.name} is not used as splits: it holds {some}, not "
            "train, val and test"
        )
        return [None] * len(table.rows)
    return list(found)


def left_out(table: Table, used: Iterable[int | None], notes: list[str]) -> None:
    """Say which columns of a table are not read."""
    out = {*used, table.file, index_column(table)}
    out |= {i for i, name in enumerate(table.plain) if name in SPLIT_COLUMNS}
    left = [f"'{shown(name)}'" for i, name in enumerate(table.header) if i not in out and name]
    if left:
        notes.append(f"columns of {table.name} that are not read: {join(left, 8)}")


def _tags(
    table: Table,
    columns: Sequence[int],
    listed: Sequence[str] | None,
    splits: Sequence[str | None],
    problems: Problems,
    notes: list[str],
) -> Parsed:
    if table.header:
        left_out(table, columns, notes)
    texts = [[text for i in columns if (text := cell(cells, i))] for _, cells in table.rows]
    counts = Counter(text for row in texts for text in row)
    said = settle(in_cells(counts, listed, table.name, problems, notes), listed, table.name, problems, notes)
    if said is None:
        return Parsed(())
    records = []
    none: dict[str, int] = {}
    some: dict[str, int] = {}
    for (number, cells), row, split in zip(table.rows, texts, splits, strict=True):
        tags = tuple(dict.fromkeys(name for text in row for name in said[text]))
        photo = cell(cells, table.file)
        (some if tags else none).setdefault(photo, number)
        records.append(Record(photo, tags=tags, split=split, where=table.name, line=f"line {number}"))
    for photo in none.keys() & some.keys():
        problems.add(
            table.name,
            f"line {none[photo]}: '{shown(photo)}' has no tag, but line {some[photo]} gives it one; delete one of them",
        )
    if none:
        notes.append(f"{len(none)} photos have no tag in {table.name}: they are taken to show none of the classes")
    return Parsed(tuple(records))


def settle(
    said: Mapping[str, tuple[str, ...]], listed: Sequence[str] | None, where: str, problems: Problems, notes: list[str]
) -> dict[str, tuple[str, ...]] | None:
    """Find out what numbers in place of class names mean: lines of the class list, or names, which is asked about.

    Args:
        said: Names of the classes by the text of a cell.
        listed: The classes of the class list.
        where: The table's name.
        problems: Gets a sentence where it is not clear which class a number means.
        notes: Gets a sentence on what numbers are taken for.

    Returns:
        The names by the text of a cell; None, and a problem, where it is not clear what numbers mean.

    Example:
        >>> settle({"0": ("0",), "1.0": ("1.0",)}, ["cat", "dog"], "tags.csv", Problems(), notes := [])
        {'0': ('cat',), '1.0': ('dog',)}
        >>> notes
        ["numbers in tags.csv are lines of classes.txt: 0 is 'cat', 1 is 'dog'"]
    """
    names = {name for found in said.values() for name in found if name.lower() not in NOTHING}
    numbers = {name for name in names if is_number(name)}
    if not numbers or numbers <= set(listed or ()):
        return dict(said)
    whole = {name: re.sub(r"^([-+]?\d+)\.0*$", r"\1", name) for name in numbers}
    some = join(sorted(set(whole.values()), key=float), 4)
    if listed is None and numbers == names:
        notes.append(
            f"the classes in {where} are numbers ({some}); are they ids? Write names in their place, or list the names "
            f"in {CLASS_LIST} in the order of the numbers"
        )
    elif listed is None:
        notes.append(f"some classes in {where} are numbers ({some}), others names; is the table as it should be?")
    elif not set(whole.values()) & set(listed):
        meant = _lines({text: int(text) for text in whole.values() if re.fullmatch(r"\d{1,4}", text)}, listed)
        if meant.keys() != set(whole.values()):
            problems.add(
                where,
                f"its classes are numbers ({some}), and {CLASS_LIST} has {len(listed)} names, so it is not clear which "
                "means which; write names in their place",
            )
            return None
        pairs = join([f"{text} is '{shown(name)}'" for text, name in sorted(meant.items(), key=lambda m: int(m[0]))], 4)
        notes.append(f"numbers in {where} are lines of {CLASS_LIST}: {pairs}".replace(" and ", ", "))
        whole = {name: meant[text] for name, text in whole.items()}
    return {text: tuple(whole.get(name, name) for name in found) for text, found in said.items()}


def _lines(numbers: Mapping[str, int], listed: Sequence[str]) -> dict[str, str]:
    """Return the class of each number where lines are counted from 0, or from 1, 0 being background; else none."""
    highest = max(numbers.values(), default=-1)
    if highest == len(listed):
        return {text: listed[number - 1] if number else "background" for text, number in numbers.items()}
    if 0 in numbers.values() and highest == len(listed) - 1:
        return {text: listed[number] for text, number in numbers.items()}
    return {}


def in_cells(
    counts: Mapping[str, int], listed: Sequence[str] | None, where: str, problems: Problems, notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the tags in each cell: split where it is clear that there are several, else as they are, or asked about.

    Args:
        counts: How often each cell occurs.
        listed: The classes of the class list: a cell that is one of them is never split.
        where: The table's name.
        problems: Gets a sentence on cells that may be one tag or several.
        notes: Gets a sentence on what was split.

    Example:
        >>> in_cells({"cat dog": 3, "cat": 1, "dog": 1}, None, "tags.csv", Problems(), [])
        {'cat dog': ('cat', 'dog'), 'cat': ('cat',), 'dog': ('dog',)}
        >>> in_cells({"['cat', 'big dog']": 1}, None, "tags.csv", Problems(), [])
        {"['cat', 'big dog']": ('cat', 'big dog')}
    """
    said = {text: found for text in counts if (found := _listed_in(text)) is not None}
    plain = [text for text in counts if text not in said]
    if listed is not None:
        return {**{text: _of_list(text, listed) for text in plain}, **said}
    for mark in _SEVERAL:
        parts = {text: _parts(text, mark) for text in plain}
        several = {text: found for text, found in parts.items() if len(found) > 1}
        alone = {text for text, found in parts.items() if len(found) == 1 and not is_nothing(text)}
        alone |= {found[0] for found in parts.values() if len(found) == 1}
        if not several:
            continue
        if _evident(mark, several, alone, counts):
            first, cells = next(iter(several)), sum(counts[text] for text in several)
            apart = join([f"'{shown(name)}'" for name in several[first]])
            notes.append(
                f"{cells} cells of {where} hold several tags, separated by {_named(mark)}: '{shown(first)}' is {apart}"
                f"; where it is one class, list the classes in {CLASS_LIST}"
            )
            return {**parts, **said}
        if mark == " ":
            _ask_about_words(several, alone, where, problems, notes)
    return {**{text: (text,) for text in plain}, **said}


def _evident(mark: str, several: Mapping[str, Sequence[str]], alone: set[str], counts: Mapping[str, int]) -> bool:
    """Tell whether cells with a separator are clearly several tags.

    They are where one of them is made of tags that also stand alone, and the others of at least one; where there are
    more such cells than parts, or one in two orders: names do not combine so. Bars and semicolons, which names do not
    hold, need to occur more than once.
    """
    made = [all(name in alone for name in found) for found in several.values()]
    touched = [any(name in alone for name in found) for found in several.values()]
    names = {name for found in several.values() for name in found}
    orders = {frozenset(found) for found in several.values()}
    if (any(made) and all(touched)) or len(orders) > len(names) or len(orders) < len(several):
        return True
    return mark in "|;" and sum(counts[text] for text in several) > 1


def _ask_about_words(
    several: Mapping[str, Sequence[str]], alone: set[str], where: str, problems: Problems, notes: list[str]
) -> None:
    """Say that names of several words are one class each; ask where their words are also tags, or come again."""
    words = Counter(word for found in several.values() for word in set(found))
    doubtful = [text for text, found in several.items() if all(word in alone or words[word] > 1 for word in found)]
    some = join([f"'{shown(text)}'" for text in doubtful or several], 4)
    if doubtful:
        problems.add(
            where,
            f"are tags such as {some} one class or several? Separate several by '|', or list the classes in "
            f"{CLASS_LIST}",
        )
    else:
        notes.append(
            f"names of several words are one class each in {where}: {some}; separate several tags in a cell by '|'"
        )


def _named(mark: str) -> str:
    return "spaces" if mark == " " else f"'{mark}'"


def _parts(text: str, mark: str) -> tuple[str, ...]:
    parts = text.split() if mark == " " else [" ".join(part.split()) for part in text.split(mark)]
    return tuple(part for part in parts if part) or (text,)


def _of_list(text: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a list that a cell holds: itself, or all its parts; else the cell as it is."""
    known = {" ".join(name.split()).casefold() for name in listed}
    if " ".join(text.split()).casefold() in known:
        return (text,)
    for mark in _SEVERAL:
        parts = _parts(text, mark)
        fitting = sum(part.casefold() in known for part in parts)
        if len(parts) > 1 and (fitting == len(parts) or (mark in "|;," and fitting)):
            return parts
    return (text,)


def _listed_in(text: str) -> tuple[str, ...] | None:
    """Return the tags of a cell that holds a list of Python or JSON, or Label Studio's choices; None where it does not.

    Example:
        >>> _listed_in("['cat' 'dog']"), _listed_in('{"choices": ["cat"]}'), _listed_in("[]"), _listed_in("cat")
        (('cat', 'dog'), ('cat',), (), None)
    """
    if len(text) < 2 or text[0] + text[-1] not in ("[]", "{}", "()"):
        return None
    try:
        found = parse_json(text.encode())
    except ValueError:
        found = None
    if isinstance(found, dict) and "choices" in found:
        found = found["choices"]
    if isinstance(found, list) and all(isinstance(name, str | int | float) for name in found):
        return tuple(" ".join(str(name).split()) for name in found)
    if text[0] == "{" and ":" in text:
        return None
    return tuple(" ".join((single or double or bare).split()) for single, double, bare in _QUOTED.findall(text[1:-1]))


def _one_hot(
    table: Table,
    columns: Sequence[int],
    listed: Sequence[str] | None,
    splits: Sequence[str | None],
    problems: Problems,
    notes: list[str],
    *,
    background: bool,
) -> Parsed:
    silent = {i for i in columns if table.plain[i] in UNLABELLED and table.header[i] not in (listed or ())}
    names = {i: " ".join(table.header[i].split()) for i in columns if i not in silent}
    classes = tuple(name for name in names.values() if not (background and is_background(name)))
    if listed is not None:
        known = {*listed, *(name for name in names.values() if is_background(name))}
        extra = [i for i, name in names.items() if name not in known]
        _compare(classes, listed, problems, table.name)
        names = {i: name for i, name in names.items() if i not in extra}
    elif doubled := [name for name, count in Counter(classes).items() if count > 1]:
        problems.add(table.name, f"class '{shown(doubled[0])}' has {Counter(classes)[doubled[0]]} columns; rename one")
    left_out(table, columns, notes)
    answers = {i: {text.lower() for text in table.cells(i)} for i in names}
    said = set().union(*answers.values())
    zeros = bool(said & (NO - {""}))
    if said & ABSENT and said & {"0", "0.0"}:
        problems.add(
            table.name, "its cells are -1, 0 and 1; write 1 where a class is there, 0 where not, ? where not known"
        )
        return Parsed((), classes)
    absent = NO | ABSENT if not (zeros or said & ABSENT) else (NO - {""}) | ABSENT
    unknown = NOT_SAID if "" in absent else NOT_SAID | {""}
    records, open_ = [], 0
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # many photos share what they do not show
    for (number, cells), split in zip(table.rows, splits, strict=True):
        line = f"line {number}"
        if len(cells) != len(table.header):
            problems.add(table.name, f"{line}: {len(cells)} cells, but the header has {len(table.header)}")
            continue
        photo = cell(cells, table.file)
        if any(cells[i].lower() in YES for i in silent):
            continue
        found = defaultdict[str, list[str]](list)
        for i, name in names.items():
            value = cells[i].lower()
            kind = "yes" if value in YES else "no" if value in absent else "open" if value in unknown else ""
            if not kind:
                problems.add(table.name, f"{line}: '{shown(cells[i])}' under '{shown(name)}' is neither 0 nor 1")
            found[kind].append(name)
        present = tuple(found["yes"])
        open_ += len(found["open"])
        complete = not found["open"] and (listed is None or set(listed) <= set(names.values()))
        no = same.setdefault(tuple(found["no"]), tuple(found["no"]))
        records.append(Record(photo, (), present, no, complete, split=split, where=table.name, line=line))
    if open_:
        notes.append(f"{open_} cells of {table.name} are empty or ?: nothing is said of those classes in those photos")
    if silent and len(records) < len(table.rows):
        notes.append(f"{len(table.rows) - len(records)} photos of {table.name} are marked as unlabelled and left so")
    return Parsed(tuple(records), classes)


def _compare(names: Sequence[str], listed: Sequence[str], problems: Problems, where: str) -> None:
    """Add a problem for each class that only one of the header and the class list has."""
    for name, count in Counter(names).items():
        if name not in listed:
            problems.add(where, f"line 1: class '{shown(name)}' is not in {CLASS_LIST}{did_you_mean(name, listed)}")
        if count > 1:
            problems.add(where, f"line 1: class '{shown(name)}' has {count} columns")
    for name in listed:
        if name not in names:
            problems.add(
                where, f"line 1: class '{shown(name)}' of {CLASS_LIST} has no column{did_you_mean(name, names)}"
            )
