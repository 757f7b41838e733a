"""What the folders above photos mean: splits, classes, negatives, or words of a layout. Works on paths alone."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hintseg.errors import LabelError, join, shown
from hintseg.formats.layout import CLASS_LIST, folded, is_background
from hintseg.formats.words import LAYOUT_WORDS, MASK_WORDS, PHOTO_WORDS, plain, split_of

Parts = tuple[str, ...]
"""A file's path below the data set, in its parts."""

NEGATIVES = frozenset({"negative", "negatives", "neg", "none", "nothing", "empty", "noobject", "noobjects"})
"""Folders of photos that show none of the classes, beside those of background."""

_BACKGROUNDS = frozenset({"background", "backgrounds", "backgroundgoogle"})
_UNLABELLED = frozenset({"unlabeled", "unlabelled", "unknown", "unsorted", "segpred", "pred", "predict", "inference"})
_ABSENT = re.compile(r"(no|non|not|without)[ _-]?[a-z]\w*", re.I)
_PIECE = re.compile(
    r"(part|batch|session|day|folder|dir|group|fold|seq|sequence|clip|video|camera|cam|site|patient|subject|sample)s?"
    r"[ _-]?\d+|\d{4}[-_.]?\d\d[-_.]?\d\d|\d{3}[A-Z_]{5}",
    re.I,
)
_MASK_NAME = re.compile(r"(.+?)[ _-](mask|masks|gt|seg|segmentation)[ _-]?\d*", re.I)

_FEW = 3
"""Among more folders than this, one of photos called `train` is a class as they are."""

_ALONE = 3
"""More folders than this, each of one photo, are no classes."""


@dataclass(slots=True)
class Tree:
    """What folders say of the photos in them.

    Attributes:
        tags: Classes of each photo; empty: none; photos that nothing is said about are not in it.
        splits: Split of each photo.
        classes: Class names, sorted, or as listed.
        masks: Photos that look like masks of others.
        notes: What was taken for what.
    """

    tags: dict[Parts, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[Parts, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    masks: set[Parts] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Place:
    split: str | None
    label: str | None  # name of the class folder
    rest: Parts = ()  # folders below it


def arrange(files: Sequence[Parts], listed: Sequence[str] | None, *, background: bool) -> Tree:
    """Return what the folders above photos say.

    Args:
        files: Paths of the photos.
        listed: Class names, where a list says which folders are classes.
        background: Whether pixels may belong to no class; then folders of background are negatives.

    Raises:
        LabelError: It is not clear which folders are classes.

    Example:
        >>> tree = arrange([("Train", "cat", "1.jpg"), ("Train", "dog", "2.jpg")], None, background=True)
        >>> tree.classes, tree.tags["Train", "cat", "1.jpg"], tree.splits["Train", "cat", "1.jpg"]
        (('cat', 'dog'), ('cat',), 'train')
    """
    tree = Tree()
    if listed is not None:
        return _by_list(files, listed, background)
    places = _places([(file, file) for file in files], None, "")
    if all(_is_word(place.label) for place in places.values() if place.label):
        return tree
    _below(places, tree)
    labels = sorted({place.label for file, place in places.items() if place.label and file not in tree.masks})
    odd = [label for label in labels if _is_word(label)]
    rests = {file: place.rest for file, place in places.items() if place.label in odd}
    if odd == ["train"] and not any(rests.values()) and len(labels) > _FEW:
        tree.notes.append(f"the folder '{odd[0]}' is read as a class, as those beside it are")  # VOC has a class train
    elif odd:
        others = [label for label in labels if label not in odd]
        raise LabelError(
            f"{_quoted(odd)} beside {_quoted(others)}: words of layouts beside folders that may be classes; take them "
            f"away, or write the names of the classes into {CLASS_LIST}, one a line"
        )
    negative = {label for label in labels if _is_negative(label, background)}
    names = _spelt([place.label for place in places.values() if place.label and place.label not in negative], tree)
    for file, place in places.items():
        if file in tree.masks:
            continue
        if place.split is not None:
            tree.splits[file] = place.split
        if place.label is not None:
            tree.tags[file] = () if place.label in negative else (names[place.label],)
    tree.classes = tuple(sorted(set(names.values())))
    _ask(tree, negative)
    _remark(tree, negative)
    return tree


def _is_word(name: str) -> bool:
    """Return whether a folder's name is one of layouts."""
    return split_of(name) is not None or plain(name) in LAYOUT_WORDS


def _places(files: Sequence[tuple[Parts, Parts]], split: str | None, above: str) -> dict[Parts, _Place]:
    """Return where each file lies: `files` are whole paths, and what of them is below the folder `above`."""
    found = {file: _Place(split, None) for file, left in files if len(left) == 1 or plain(left[0]) in _UNLABELLED}
    groups = defaultdict[str, list[tuple[Parts, Parts]]](list)
    for file, left in files:
        if file not in found:
            groups[left[0]].append((file, left[1:]))
    if groups and all(map(split_of, groups)):
        for head, group in groups.items():
            found |= _places(group, split or split_of(head), head)
        return found
    if len(groups) == 1:
        ((head, group),) = groups.items()
        wraps = plain(head) in PHOTO_WORDS or plain(head) == plain(above) != ""
        if wraps or all(len(left) > 1 for _, left in group):
            return found | _places(group, split, head)
    for head, group in groups.items():
        found |= {file: _Place(split, head, left[:-1]) for file, left in group}
    return found


def _below(places: dict[Parts, _Place], tree: Tree) -> None:
    """Look at the folders below those of the classes, and at masks among the photos."""
    stems = defaultdict[Parts, set[str]](set)
    for file in places:
        stems[file[:-1]].add(file[-1].rpartition(".")[0])
    for file, place in places.items():
        named = _MASK_NAME.fullmatch(file[-1].rpartition(".")[0])
        if any(plain(part) in MASK_WORDS for part in place.rest) or (named and named[1] in stems[file[:-1]]):
            tree.masks.add(file)
    deep = {file: place for file, place in places.items() if place.rest and file not in tree.masks}
    if deep and all(split_of(place.rest[0]) for place in deep.values()):
        for place in deep.values():
            place.split, place.rest = place.split or split_of(place.rest[0]), place.rest[1:]
    for place in deep.values():
        place.rest = tuple(part for part in place.rest if plain(part) not in PHOTO_WORDS)
    deep = {file: place for file, place in deep.items() if place.rest}
    if not deep:
        return
    direct = [file for file, place in places.items() if place.label and not place.rest and file not in tree.masks]
    below = defaultdict[str | None, set[str]](set)
    for place in deep.values():
        below[place.label].add(place.rest[0])
    if not direct and max(map(len, below.values())) > 1:
        label, inner = max(below.items(), key=lambda item: len(item[1]))
        raise LabelError(
            f"folders lie in folders: {shown(label)} holds {_quoted(sorted(inner))}; which are the classes? Write "
            f"their names into {CLASS_LIST}, one a line"
        )
    tree.notes.append(f"{len(deep)} photos lie deeper than their class folder and have its class: {_some(deep)}")


def _by_list(files: Sequence[Parts], listed: Sequence[str], background: bool) -> Tree:
    tree, names = Tree(classes=tuple(listed)), {folded(name): name for name in listed}
    for file in files:
        found = [names[folded(part)] for part in file[:-1] if folded(part) in names]
        split = next((split for part in file[:-1] if folded(part) not in names and (split := split_of(part))), None)
        if split is not None:
            tree.splits[file] = split
        if found or any(_is_negative(part, background) for part in file[:-1]):
            tree.tags[file] = tuple(dict.fromkeys(found))
    without = [file[:-1] for file, tags in tree.tags.items() if not tags]
    _remark(tree, {part for parts in without for part in parts if _is_negative(part, background)})
    return tree


def _is_negative(name: str, background: bool) -> bool:
    word = plain(name)
    return word in NEGATIVES or (background and (word in _BACKGROUNDS or is_background(name)))


def _spelt(labels: Iterable[str], tree: Tree) -> dict[str, str]:
    """Return the class of each class folder: names that differ by letter case or the form of accents are one."""
    counts = Counter(labels)
    chosen: dict[str, str] = {}
    for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        chosen.setdefault(folded(label), unicodedata.normalize("NFC", label))
    names = {label: chosen[folded(label)] for label in counts}
    for name in chosen.values():
        spelt = sorted(label for label, one in names.items() if one == name)
        if len(spelt) > 1:
            tree.notes.append(f"the folders {_quoted(spelt)} are read as one class, '{shown(name)}'")
    return names


def _ask(tree: Tree, negative: set[str]) -> None:
    """Refuse folders that are hardly classes."""
    sizes = Counter(label for labels in tree.tags.values() for label in labels)
    stems = {(label, file[-1].rpartition(".")[0]) for file, labels in tree.tags.items() for label in labels}
    way = f"If so, write the names into {CLASS_LIST}, one a line; if not, name the file that says what photos show"
    few = _quoted(tree.classes)
    if not sizes:
        return
    if len(tree.classes) == 1 and not negative and not tree.splits:
        raise LabelError(f"all photos lie in one folder, {few}; is it a class? {way}: --labels")
    pieces = all(_PIECE.fullmatch(name) for name in tree.classes)
    alone = max(sizes.values()) == 1 and (len(sizes) > _ALONE or all((name, name) in stems for name in sizes))
    if pieces or alone:
        why = "each of one photo" if alone else "whose names are those of pieces of a set"
        raise LabelError(f"are the folders {few}, {why}, classes? {way}: --labels")


def _remark(tree: Tree, negative: set[str]) -> None:
    if negative:
        count = sum(not labels for labels in tree.tags.values())
        tree.notes.append(
            f"{count} photos in {_quoted(sorted(negative))} are negatives: they show none of the classes; if that is a "
            f"class, list all classes in {CLASS_LIST}"
        )
    absent = [name for name in tree.classes if _ABSENT.fullmatch(name)]
    if absent and not negative:
        tree.notes.append(
            f"{_quoted(absent)} is read as a class; if its photos show none of the others, call the folder 'negatives'"
        )
    if tree.masks:
        tree.notes.append(
            f"{len(tree.masks)} pictures that look like masks of others are left out: {_some(tree.masks)}"
        )


def _quoted(names: Sequence[str]) -> str:
    return join([f"'{shown(name)}'" for name in names], 5)


def _some(files: Iterable[Parts]) -> str:
    paths = ["/".join(file) for file in sorted(files)]
    return ", ".join(map(shown, paths[:3])) + (", ..." if len(paths) > 3 else "")
