"""What label files say becomes a hint set: photos found, classes numbered, shapes fitted, and all of it checked.

All readers pass here, so every guard stands once: names of photos that differ in letter case or folders, stated sizes
that are not the photo's, photos turned by EXIF or broken, shapes that cannot be right, classes that no list has, tags
that tools write for an empty cell. One bad annotation is left out and counted; where more than `MANY` of a file's do
not fit, the file is refused: it was made for other photos, or is of another format.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hintseg.errors import LabelError, PhotoError, did_you_mean, shown
from hintseg.formats.fitting import fit
from hintseg.formats.layout import CLASS_LIST, assemble, check_classes, folded, is_background
from hintseg.formats.mask_folders import prepared
from hintseg.formats.photos import PhotoFolder, photo_head
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.geometry.frames import Frame
from hintseg.types import BACKGROUND, IGNORE, Box, Click, FullMask, Hints, HintSet, Mark, Region, Shape, Stroke, Tags

MANY = 1 / 3
"""A file more of whose annotations do not fit their photos is refused."""

SHARES = 2.0
"""Larger numbers are no shares of a photo's width or height."""

IGNORED = "__ignore__"
"""The label of areas where nothing can be learned, as labelme names them."""

NOTHING = frozenset({"nan", "none", "null", "-", "--", "n/a", "na", "nil", "#n/a", "?", "undefined", "<na>"})
"""What tools write for an empty cell: no class, unless a class list says so."""

_SEVERAL = (";", "|", ",")
"""What separates names in one cell."""


def gather(path: Path, folder: PhotoFolder, labels: Labels, reading: Reading, problems: Problems) -> HintSet:
    """Put together what label files say.

    Args:
        path: Folder of the data set.
        folder: Its photos.
        labels: What the files say.
        reading: How they are to be read.
        problems: What the reader found; what is found here is added.

    Raises:
        LabelError: All problems at once, or nothing is said about any photo.
    """
    classes = _classes(labels, reading, problems)
    asked = _ask_about(labels, classes, problems)
    said = _Gathered(folder, classes, reading, problems, asked)
    for record in labels.records:
        said.add(record)
    notes = [*labels.notes, *said.fitted()]
    hints, truth = said.hints()
    for photo, strokes in labels.scribbles.items():
        hints[photo] = replace(hints.get(photo, Hints()), scribbles=strokes)
    truth |= prepared(labels.truth, folder, path, classes, reading, problems, notes)
    splits = {name: tuple(members) for name, members in labels.splits.items()}
    for split, members in said.splits.items():
        splits[split] = tuple(sorted({*splits.get(split, ()), *members}))
    return assemble(
        path,
        folder,
        classes,
        hints,
        truth=truth,
        source=labels.source,
        problems=problems,
        notes=notes,
        splits=splits,
        background=reading.background,
    )


def _classes(labels: Labels, reading: Reading, problems: Problems) -> tuple[str, ...]:
    """Return the class names: those listed, else those that occur, each as it is spelt most often."""
    if labels.classes is not None:
        classes = labels.classes
    else:
        counts = Counter(name for r in labels.records for name in (*(r.tags or ()), *r.absent))
        counts.update(item.label for record in labels.records for item in record.items)
        spelt: dict[str, str] = {}
        for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            plain = _plain(name)
            if plain and plain != IGNORED and not (reading.background and is_background(plain)):
                spelt.setdefault(folded(plain), plain)
        classes = tuple(sorted(spelt.values()))
    check_classes(classes, labels.source, problems)
    return classes


def _ask_about(labels: Labels, classes: Iterable[str], problems: Problems) -> frozenset[str]:
    """Refuse names that are no classes to a person, though a file has them where it names classes; return them."""
    known = {_plain(name).casefold() for name in labels.classes or ()}
    said = (
        (name, record)
        for record in labels.records
        for name in (*(record.tags or ()), *record.absent, *(item.label for item in record.items))
    )
    empty: dict[str, list[str]] = defaultdict(list)
    for name, record in said:
        if name.lower() in NOTHING and name.lower() not in known:
            empty[name].append(record.line)
    if empty:
        names = ", ".join(f"'{shown(name)}'" for name in empty)
        lines = [line for found in empty.values() for line in found]
        problems.add(
            labels.source,
            f"{len(lines)} times the tag is {names}, which tools write for an empty cell ({_some(lines, ', ')}): leave "
            "the cell empty where the photo shows none of the classes, take the photo out where that is not known, or "
            f"list it in {CLASS_LIST}",
        )
    for name in classes if labels.classes is None else ():
        inside = next((mark for mark in _SEVERAL if mark in name), None)
        if inside is not None:
            problems.add(
                labels.source,
                f"the tag '{shown(name)}' looks like several, separated by '{inside}'; write each tag in a cell of its "
                f"own, or list '{shown(name)}' in {CLASS_LIST}",
            )
    return frozenset(map(_plain, empty))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", " ".join(name.split()))


@dataclass(slots=True)
class _Said:
    """What the files say of one photo."""

    tags: set[int] = field(default_factory=set)
    absent: set[int] = field(default_factory=set)
    tagged: bool = False
    complete: bool = True
    whole: bool = True
    unsure: set[int] = field(default_factory=set)  # of annotations that are left out: in the photo or not
    objects: dict[tuple[int, Shape], dict[Region | None, Mark[Shape]]] = field(default_factory=dict)
    crowds: set[int] = field(default_factory=set)


class _Gathered:
    """What is said so far, and what of it does not fit."""

    def __init__(
        self,
        folder: PhotoFolder,
        classes: tuple[str, ...],
        reading: Reading,
        problems: Problems,
        asked: frozenset[str],
    ) -> None:
        self.folder = folder
        self.classes = classes
        self.reading = reading
        self.problems = problems
        self._asked = asked
        self.splits: dict[str, set[str]] = defaultdict(set)
        self._ids: dict[str, int] = {_plain(name): k for k, name in reversed([*enumerate(classes, start=1)])}
        self._folded: dict[str, set[int]] = defaultdict(set)
        for name, k in self._ids.items():
            self._folded[folded(name)].add(k)
        self._photos: dict[str, _Said] = {}
        self._heads: dict[str, tuple[tuple[int, int], int] | None] = {}
        self._items: dict[str, int] = defaultdict(int)
        self._bad: dict[str, list[str]] = defaultdict(list)
        self._mended: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._respelt: dict[str, int] = defaultdict(int)
        self._moved: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._broken: dict[str, str] = {}
        self._turned: set[str] = set()
        self._repeated = 0
        self._largest: dict[str, float] = defaultdict(float)
        self._fractions: dict[str, bool] = defaultdict(bool)

    def add(self, record: Record) -> None:
        """Add what a file says of one photo."""
        tags = self._numbers(record.tags or (), record)
        absent = self._numbers(record.absent, record)
        items = [(item, self._label(item, record)) for item in record.items if item.label.strip() or not item.wrong]
        nameless = [item for item in record.items if not item.label.strip() and item.wrong]
        photo = self.folder.locate(
            record.photo, self.problems, record.where, record.line, within=record.split or "", also=record.also
        )
        if photo is None:
            return
        said = self._photos.setdefault(photo, _Said())
        if record.split:
            self.splits[record.split].add(photo)
        said.tagged |= record.tags is not None or bool(record.absent)
        said.complete &= record.complete and not nameless
        said.whole &= record.whole and not nameless
        said.tags |= tags
        said.absent |= absent
        for both in sorted(said.tags & said.absent):
            self._problem(
                record, f"of '{self.classes[both - 1]}' it is said that it is in the photo, and that it is not"
            )
        for item in nameless:
            self._leave_out(item, record, item.wrong)
        if not items:
            return
        frame = self._frame(photo, record)
        for item, label in items:
            if label is not None:
                self._add_item(said, photo, item, label, record, frame)

    def _add_item(self, said: _Said, photo: str, item: Item, label: int, record: Record, frame: Frame | None) -> None:
        if photo in self._broken:
            return
        where = record.where
        if item.empty:
            said.unsure.add(label)
            return
        try:
            if item.wrong:
                raise LabelError(item.wrong)
            self._measure(item, record)
            shape, outline = item.shape, item.outline
            if frame is not None:
                shape = frame.moved(shape)
                outline = None if outline is None else _region(frame.moved(outline))
            fitted = fit(shape, outline, None if frame is None else frame.upright)
        except LabelError as error:
            self._leave_out(item, record, str(error))
            said.unsure.add(label)
            said.whole = False
            return
        self._items[where] += 1
        if mended := item.mended or fitted.mended:
            kind, opened, why = mended.partition(" (")
            self._mended[where, kind].append(_line(item, record) + opened + why)
        number = IGNORE if item.crowd else label
        for one in fitted.shapes:
            alike = said.objects.setdefault((number, one), {})
            if fitted.outline in alike or (alike and fitted.outline is None):
                self._repeated += 1
                continue
            alike.pop(None, None)  # the same object without its outline
            if item.crowd and label != IGNORE:
                said.crowds.add(label)
            alike[fitted.outline] = Mark(number, one, item.object, item.source, item.trust)

    def _leave_out(self, item: Item, record: Record, why: str) -> None:
        self._items[record.where] += 1
        self._bad[record.where].append(f"{_line(item, record)}: {why}")

    def _measure(self, item: Item, record: Record) -> None:
        """Remember how large the coordinates of a file are: all below 1 are no pixels, those above 2 no shares."""
        if isinstance(item.shape, Region) and item.shape.rle is not None:
            self._largest[record.where] = max(self._largest[record.where], SHARES)
            return
        values = [value for value in _values(item.shape) if value == value]
        largest = max(values, default=0.0)
        self._fractions[record.where] |= any(value != int(value) for value in values if abs(value) < SHARES)
        if record.relative and largest > SHARES:
            raise LabelError(f"{largest:g} is above 1; coordinates are shares of the photo's width and height")
        self._largest[record.where] = max(self._largest[record.where], SHARES if record.relative else largest)

    def _frame(self, photo: str, record: Record) -> Frame | None:
        """Return where the picture that items were drawn on lies in the photo; None where nothing tells its size."""
        stated = None if record.size is None or min(record.size) < 1 else record.size
        if photo not in self._heads:
            try:
                self._heads[photo] = photo_head(self.folder.paths[photo])
            except PhotoError as error:
                self._heads[photo] = None
                if record.relative:  # without its size nothing can be placed
                    self._broken[photo] = str(error)
        head = self._heads[photo]
        if head is None:
            return None if stated is None else Frame(stated, stated)
        stored, turned = head
        upright = (stored[1], stored[0]) if turned >= 5 else stored
        if record.relative:
            if turned > 1:
                self._turned.add(photo)
            return Frame((1, 1), upright)
        if stated is None or stated == upright:
            if turned > 1 and (stated is None or stored == upright):  # the size does not tell what was drawn on
                self._turned.add(photo)
            return Frame(upright, upright)
        given, own = f"{shown(stated[1])} x {shown(stated[0])}", f"{upright[1]} x {upright[0]}"
        if stated == stored:
            self._moved[record.where, "turned"].append(
                f"drawn on photos as they are stored, {given}, that EXIF turns to {own}, and are turned with them"
            )
            return Frame(stated, stored, turned)
        if _alike(stated, upright):
            self._moved[record.where, "scaled"].append(f"drawn on {given}, the photos are {own} now, and are scaled")
            return Frame(stated, upright)
        self._problem(
            record,
            f"'{shown(record.photo)}' is {own} pixels (EXIF applied), but the file says {given}; its boxes would lie "
            "elsewhere: give the photos they were drawn on, or scale the boxes",
        )
        return Frame(upright, upright)

    def _label(self, item: Item, record: Record) -> int | None:
        """Return the class id of an item; 0: background, 255: to be ignored; None, and a problem: no list has it."""
        name = _plain(item.label)
        if name == IGNORED and name not in self._ids:
            return IGNORE
        if self.reading.background and is_background(name) and name not in self._ids:
            return BACKGROUND
        found = self._numbers([item.label], record, item.line)
        return next(iter(found), None)

    def _numbers(self, names: Iterable[str], record: Record, line: str = "") -> set[int]:
        """Return the class ids of names; each unknown one is a problem that names the nearest class."""
        found: set[int] = set()
        for raw in names:
            name = _plain(raw)
            number = self._ids.get(name)
            near = self._folded.get(folded(name), set())
            if number is None and len(near) == 1:
                (number,) = near
                self._respelt[f"'{shown(raw)}' is taken to be '{self.classes[number - 1]}'"] += 1
            if number is not None:
                found.add(number)
            elif name not in self._asked and not (self.reading.background and is_background(name)):
                inside = ": ".join(part for part in (record.line, line) if part)
                known = did_you_mean(name, self.classes)
                what = f"unknown tag '{shown(raw)}'{known}" if name else "a class without a name"
                self.problems.add(record.where, f"{inside}: {what}")
        return found

    def _problem(self, record: Record, what: str) -> None:
        self.problems.add(record.where, f"{record.line}: {what}" if record.line else what)

    def fitted(self) -> list[str]:
        """Return what was mended or left out, one sentence for each kind; a file with too much of it is a problem."""
        notes = []
        for where, total in self._items.items():
            bad = self._bad[where]
            mended = {kind: lines for (file, kind), lines in self._mended.items() if file == where}
            wrong = len(bad) + sum(map(len, mended.values()))
            one_pixel = total == 1 and not self._fractions[where]
            if self._largest.get(where, SHARES) <= 1 and not one_pixel:
                self.problems.add(
                    where,
                    "all coordinates are between 0 and 1; they must be pixels: multiply by the photo's width and "
                    "height",
                )
            if wrong > MANY * total:
                self._refuse(where, total, bad, mended)
                continue
            if bad:
                notes.append(f"{len(bad)} of {total} annotations in {where} are left out: {_some(bad)}")
            notes.extend(
                f"{len(lines)} of {total} annotations in {where} {kind}: {_some(lines)}"
                for kind, lines in mended.items()
            )
        for (where, _), moved in self._moved.items():
            notes.append(f"the annotations of {len(moved)} photos in {where} are {moved[0]}")
        if self._turned:
            notes.append(
                f"{len(self._turned)} photos are turned by EXIF, and coordinates are taken as those of the photo as it "
                f"is shown ({_some(sorted(self._turned))}); if they were drawn on the photo as it is stored, objects "
                "lie elsewhere: look at one, and if so take the orientation out of the files' EXIF"
            )
        notes.extend(f"{count} times the class {how}" for how, count in self._respelt.items())
        if self._repeated:
            notes.append(f"{self._repeated} annotations that repeat another are left out")
        if self._broken:
            some = _some(list(self._broken.values()))
            notes.append(
                f"{len(self._broken)} photos cannot be read, so nothing is known of where their objects are: {some}"
            )
        return notes

    def _refuse(self, where: str, total: int, bad: Sequence[str], mended: dict[str, list[str]]) -> None:
        for sentence in bad:
            self.problems.add(where, sentence)
        for kind, lines in mended.items():
            for line in lines:
                self.problems.add(where, f"{line}: annotations that {kind}")
        count = len(bad) + sum(map(len, mended.values()))
        if total > count or count > 1:
            self.problems.add(
                where,
                f"{count} of {total} annotations do not fit their photos; are these the photos they were drawn on, and "
                "is it the format it was taken for (--format)?",
            )

    def hints(self) -> tuple[dict[str, Hints], dict[str, FullMask]]:
        """Return the hints of each photo, and its full mask where every object of it has an outline.

        A photo without objects is a negative. Its mask counts as known only where other photos have outlines: in a set
        of plain boxes such photos alone would make a truth of background only. Nor is a mask known where an annotation
        was left out, all that is said of a class has no area, or a click or stroke lies beside the outlined objects.
        """
        outlined = any(region for said in self._photos.values() for alike in said.objects.values() for region in alike)
        hints: dict[str, Hints] = {}
        truth: dict[str, FullMask] = {}
        for photo, said in self._photos.items():
            if photo in self._broken:
                continue
            marks, full = _numbered(said)
            hints[photo] = Hints(self._tags(said, marks), marks)
            if outlined and full is not None and not (said.tags | said.unsure) - {mark.label for mark in full}:
                truth[photo] = full
        return hints, truth

    def _tags(self, said: _Said, marks: Sequence[Mark[Shape]]) -> Tags | None:
        """Return what is said of the whole photo; None where the marks alone tell."""
        unsure = said.unsure - {mark.label for mark in marks} - said.tags - {BACKGROUND}
        if marks and not (said.tagged or said.crowds or unsure) and said.complete:
            return None
        present = frozenset(said.tags | said.crowds | {mark.label for mark in marks} - {BACKGROUND, IGNORE})
        if said.complete:
            every = Tags.complete(present, len(self.classes))
            return Tags(present, every.said - unsure) if unsure else every
        return Tags(present, present | said.absent) if present or said.absent else None


def _line(item: Item, record: Record) -> str:
    return ": ".join(part for part in (record.line, item.line) if part) or record.photo


def _numbered(said: _Said) -> tuple[tuple[Mark[Shape], ...], tuple[Mark[Shape], ...] | None]:
    """Return the marks with their objects numbered from 1, and the full mask; None where not all have an outline."""
    marks, regions, numbers = list[Mark[Shape]](), list[Mark[Shape]](), dict[object, int]()
    full = said.whole
    for region, mark in (one for alike in said.objects.values() for one in alike.items()):
        is_object = isinstance(mark.shape, Box) and mark.label not in (BACKGROUND, IGNORE)
        own = mark.object if mark.object is not None else ((mark, region) if is_object else None)
        mark = replace(mark, object=None if own is None else numbers.setdefault(own, len(numbers) + 1))
        marks.append(mark)
        if isinstance(mark.shape, Box):
            full = full and (region is not None or mark.label == IGNORE)
            regions.append(Mark(mark.label, region or mark.shape, mark.object))
    boxes = [mark for mark in marks if isinstance(mark.shape, Box)]
    full = full and all(_within(mark, boxes) for mark in marks)
    return tuple(marks), tuple(regions) if full else None


def _within(mark: Mark[Shape], boxes: Sequence[Mark[Shape]]) -> bool:
    """Return whether a click or stroke lies on an object that has a box; others are on objects without an outline."""
    if isinstance(mark.shape, Box) or mark.label == BACKGROUND:
        return True
    xs, ys = _values(mark.shape)[0::2], _values(mark.shape)[1::2]
    return any(
        other.label == mark.label and x0 <= min(xs) and max(xs) <= x1 and y0 <= min(ys) and max(ys) <= y1
        for other in boxes
        for x0, y0, x1, y1 in [_values(other.shape)]
    )


def _region(shape: Shape) -> Region:
    if not isinstance(shape, Region):
        raise TypeError(f"an outline became a {type(shape).__name__}")
    return shape


def _values(shape: Shape) -> Sequence[float]:
    if isinstance(shape, Box):
        return shape.corners
    if isinstance(shape, Click):
        return shape.x, shape.y
    if isinstance(shape, Stroke):
        return shape.points
    return [value for ring in shape.polygons for value in ring]


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes are of one picture at two scales, but for rounding to whole pixels."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _some(lines: Sequence[str], between: str = "; ") -> str:
    return between.join(lines[:3]) + (f"{between}..." if len(lines) > 3 else "")
