"""Several label files of the same photos become one hint set; what they say against each other is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hintseg.errors import HintsegError, join
from hintseg.formats.layout import check_classes, folded
from hintseg.formats.problems import Problems
from hintseg.hints.implied import shown
from hintseg.hints.masks import read_full
from hintseg.types import IGNORE, FullMask, Hints, HintSet, Mark, MaskFile, Photo, Shape, Tags


def merge(parts: Sequence[tuple[str, HintSet]]) -> HintSet:
    """Put together what several label files say of the same photos.

    Classes are united by name, those of the first file first; spellings that differ by letter case are one, unless a
    file has both. Photos are united by id; a mark that two files have counts once. A full mask out of a file that does
    not list a class which another file says the photo shows is not full: it is left out, with a note.

    Args:
        parts: Name of the file, for messages, and what it says; at least one. All of the same folder of photos.

    Raises:
        LabelError: All contradictions at once: a class that one file says is there and another says is not; two
            different full masks, or images of scribbles, of a photo; two photos of one id.

    Example:
        >>> photo, tags = Photo("a", Path("a.jpg")), Hints(Tags(frozenset({1})))
        >>> one = HintSet("x", ("bird",), (replace(photo, hints=tags),))
        >>> two = HintSet("x", ("cow", "bird"), (replace(photo, hints=tags),))
        >>> both = merge([("tags.csv", one), ("more.csv", two)])
        >>> both.classes, sorted(both.photos[0].hints.tags)
        (('bird', 'cow'), [1, 2])
    """
    if len(parts) == 1:
        return parts[0][1]
    problems = Problems()
    first = parts[0][1]
    spelt = _spelt([part.classes for _, part in parts])
    classes = tuple(dict.fromkeys(spelt.values()))
    names = join([name for name, _ in parts])
    check_classes(classes, names, problems)
    ids = {name: (0, *(classes.index(spelt[own]) + 1 for own in part.classes)) for name, part in parts}
    said: dict[str, list[tuple[str, Photo]]] = {}
    splits: dict[str, set[str]] = {}
    for name, part in parts:
        for photo in part.photos:
            said.setdefault(photo.id, []).append((name, photo))
        for split, members in part.splits.items():
            splits.setdefault(split, set()).update(members)
    listed = {name: frozenset(own[1:]) for name, own in ids.items()}
    photos, partial = [], Counter[tuple[str, int]]()
    for id in sorted(said):
        gathered = _Gathered(said[id][0][1], classes, listed)
        for name, photo in said[id]:
            gathered.add(name, _renumbered(photo, ids[name]), problems)
        photos.append(gathered.merged())
        partial.update(gathered.partial)
    _check_paths(photos, names, problems)
    problems.raise_all()
    notes = dict.fromkeys(note for _, part in parts for note in part.notes)
    other = {own: name for own, name in spelt.items() if own != name}
    notes |= dict.fromkeys(
        f"the class '{own}' of one file is taken to be '{name}' of another" for own, name in other.items()
    )
    for (name, label), count in partial.items():
        notes[
            f"the full masks of {count} photos in {name} are left out: it does not list '{classes[label - 1]}', which "
            f"other files say these photos show; what {name} marks in them stays"
        ] = None
    return HintSet(
        first.name,
        classes,
        tuple(photos),
        {split: tuple(sorted(members)) for split, members in splits.items()},
        first.background,
        tuple(notes),
        all(part.closed for _, part in parts),
    )


def _spelt(lists: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the class of each name: spellings of one are the first of them, unless a list tells them apart."""
    apart = {key for names in lists for key, n in Counter(map(folded, names)).items() if n > 1}
    first: dict[str, str] = {}
    own = dict.fromkeys(name for names in lists for name in names)
    return {name: name if folded(name) in apart else first.setdefault(folded(name), name) for name in own}


@dataclass(slots=True)
class _Gathered:
    """What was said of one photo so far, and which file said it; `listed`: the classes of each file."""

    photo: Photo
    classes: tuple[str, ...]
    listed: Mapping[str, frozenset[int]]
    partial: set[tuple[str, int]] = field(default_factory=set)
    tags: list[tuple[str, Tags]] = field(default_factory=list)
    tagged: bool = False
    marks: dict[tuple[int, Shape], Mark[Shape]] = field(default_factory=dict)
    scribbles: tuple[str, MaskFile] | None = None
    mask: tuple[str, FullMask] | None = None
    truth: tuple[str, FullMask] | None = None

    def add(self, name: str, photo: Photo, problems: Problems) -> None:
        hints = photo.hints
        if photo.path != self.photo.path:
            problems.add(name, f"photo '{photo.id}' is {photo.path}, but elsewhere {self.photo.path}; rename one")
        self.tagged |= hints.tags is not None
        self._tag(name, hints, problems)
        self._mark(hints.marks)
        if hints.scribbles is not None:
            if self.scribbles is not None and self.scribbles[1] != hints.scribbles:
                self._differ("has two images of scribbles", name, self.scribbles[0], problems)
            self.scribbles = self.scribbles or (name, hints.scribbles)
        self.mask = self._full(name, hints.mask, self.mask, problems)
        self.truth = self._full(name, photo.truth, self.truth, problems)

    def merged(self) -> Photo:
        present = frozenset[int]().union(*(tags.present for _, tags in self.tags))
        said = frozenset[int]().union(*(tags.said for _, tags in self.tags))
        hints = Hints(
            Tags(present, said) if self.tagged else None,
            tuple(self.marks.values()),
            self.scribbles and self.scribbles[1],
            self._whole(self.mask, present),
        )
        return replace(self.photo, hints=hints, truth=self._whole(self.truth, present))

    def _whole(self, mask: tuple[str, FullMask] | None, present: frozenset[int]) -> FullMask | None:
        """Return a full mask whose file knows all classes that the photo shows."""
        if mask is None:
            return None
        unlisted = present - self.listed[mask[0]]
        self.partial |= {(mask[0], label) for label in unlisted}
        return None if unlisted else mask[1]

    def _tag(self, name: str, hints: Hints, problems: Problems) -> None:
        """Add what is said of the classes; a mark says that its class is there."""
        said = Tags() if hints.tags is None else hints.tags
        tags = replace(said, present=said.present | shown(hints))
        for before, other in self.tags:
            for label in sorted((tags.present ^ other.present) & tags.said & other.said):
                how = "that it is" if label in other.present else "that it is not"
                problems.add(
                    f"{before} and {name}",
                    f"photo '{self.photo.id}': {before} says of '{self.classes[label - 1]}' {how} there, {name} says "
                    "the opposite; correct one",
                )
        self.tags.append((name, tags))

    def _mark(self, marks: Sequence[Mark[Shape]]) -> None:
        """Add marks; objects are counted on, and marks of an object that is there already join it."""
        last = max((mark.object or 0 for mark in self.marks.values()), default=0)
        same = {
            mark.object: self.marks[mark.label, mark.shape].object
            for mark in marks
            if mark.object is not None and (mark.label, mark.shape) in self.marks
        }
        for mark in marks:
            if mark.object is not None:
                mark = replace(mark, object=same.get(mark.object) or last + mark.object)
            self.marks.setdefault((mark.label, mark.shape), mark)

    def _full(
        self, name: str, mask: FullMask | None, before: tuple[str, FullMask] | None, problems: Problems
    ) -> tuple[str, FullMask] | None:
        if mask is None:
            return before
        if before is None:
            return name, mask
        if before[1] != mask and not self._alike(before[1], mask, problems, name):
            self._differ("has two different full masks", name, before[0], problems)
        return before

    def _alike(self, one: FullMask, other: FullMask, problems: Problems, name: str) -> bool:
        try:
            first, second = (read_full(mask, self.photo, None, len(self.classes), True) for mask in (one, other))
        except HintsegError as error:
            problems.add(name, f"photo '{self.photo.id}': {error}")
            return True
        return np.array_equal(first, second)

    def _differ(self, what: str, name: str, before: str, problems: Problems) -> None:
        problems.add(
            f"{before} and {name}", f"photo '{self.photo.id}': {what}, one of {before} and one of {name}; keep one"
        )


def _renumbered(photo: Photo, ids: tuple[int, ...]) -> Photo:
    """Give a photo the merged class ids: `ids` holds that of each of its own, 0 (background) first."""
    if ids == tuple(range(len(ids))):
        return photo

    def of_marks(marks: Sequence[Mark[Shape]]) -> tuple[Mark[Shape], ...]:
        return tuple(mark if mark.label == IGNORE else replace(mark, label=ids[mark.label]) for mark in marks)

    def of_file(file: MaskFile) -> MaskFile:
        shows = None if file.shows is None else frozenset(ids[label] for label in file.shows)
        return replace(file, ids=tuple(ids[label] for label in file.ids) or ids[1:], shows=shows)

    def of_mask(mask: FullMask | None) -> FullMask | None:
        if mask is None:
            return None
        return of_file(mask) if isinstance(mask, MaskFile) else of_marks(mask)

    hints = photo.hints
    tags = hints.tags
    if tags is not None:
        present, absent = (frozenset(ids[label] for label in labels) for labels in (tags.present, tags.absent))
        tags = Tags(present, absent)
    scribbles = None if hints.scribbles is None else of_file(hints.scribbles)
    return replace(
        photo,
        hints=Hints(tags, of_marks(hints.marks), scribbles, of_mask(hints.mask)),
        truth=of_mask(photo.truth),
    )


def _check_paths(photos: Sequence[Photo], names: str, problems: Problems) -> None:
    """Add a problem for each photo that goes by two ids: the files were read from different folders."""
    seen: dict[Path, str] = {}
    for photo in photos:
        other = seen.setdefault(photo.path, photo.id)
        if other != photo.id:
            problems.add(names, f"{photo.path} is called '{other}' and '{photo.id}'; name the folder of the photos")
