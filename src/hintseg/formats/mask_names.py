"""Which mask image belongs to which photo: by equal names, else by what the names of all masks have more.

Masks are called `NAME_mask`, `NAME_gt`, `NAME_gtFine_labelIds` or `mask_NAME`, and photos `NAME_sat` or
`NAME_leftImg8bit`: what is common to the names is found in them and left out, with a note.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import NamedTuple

from hintseg.errors import join, shown
from hintseg.formats.index_image import LOSSLESS, LOSSY
from hintseg.formats.photos import walk

KNOWN = frozenset(
    {"mask", "masks", "seg", "segmentation", "segmented", "gt", "groundtruth", "label", "labels", "labelids", "index"}
    | {"labeltrainids", "annotation", "ann", "semantic", "target", "l", "p"}
)
"""Words that masks alone have in their names; other words count where more than half of the masks have them."""

NOT_IDS = frozenset(
    {"color", "colour", "colored", "coloured", "rgb", "instance", "instances", "instanceids", "instancetrainids", "vis"}
    | {"viz", "overlay", "preview", "edge", "edges", "depth", "disparity", "polygons"}
)
"""Words in the names of pictures that lie beside masks and hold no class ids."""

_THUMBNAILS = ("thumbs", "thumbnails")
_SPLIT = re.compile(r"([_\-. ]+)")
_SEPARATORS = "_-. "


def mask_files(folder: Path) -> list[Path]:
    """Return the mask images in a folder and below, sorted; JPEGs only where there are no others.

    Hidden files and folders, thumbnails and what hintseg wrote are left out.
    """
    files = sorted(file for file in walk(folder) if not {*_THUMBNAILS} & {*file.relative_to(folder).parts[:-1]})
    suffixes = {file: file.suffix.lower() for file in files}
    found = [file for file in files if suffixes[file] in LOSSLESS]
    return found or [file for file in files if suffixes[file] in LOSSY]


def find_masks(folder: Path) -> dict[str, Path]:
    """Return the mask images below `folder` by their path without suffix."""
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in mask_files(folder)}


class Affix(NamedTuple):
    """What the names of masks have before and after those of their photos."""

    before: str
    after: str

    def __str__(self) -> str:
        """Say it."""
        ends = [f"begin with '{shown(self.before)}'"] if self.before else []
        ends += [f"end in '{shown(self.after)}'"] if self.after else []
        return " and ".join(ends) or "lack a part"

    @property
    def words(self) -> set[str]:
        """Its words, in lower case."""
        return {word.lower() for word in _SPLIT.split(self.before + " " + self.after) if word.strip(_SEPARATORS)}


class Affixed(NamedTuple):
    """Masks that have more in their names than their photos.

    Attributes:
        photos: The photo of each mask.
        affixes: What their names have more, and how many masks do.
        left: Masks that are left out: other pictures of the same photos.
        several: Two masks and more of one photo: which counts is not clear.
    """

    photos: dict[str, str]
    affixes: dict[Affix, int]
    left: tuple[str, ...]
    several: dict[str, list[str]]

    def note(self) -> str:
        """Say what was left out of the names; empty if nothing was."""
        parts = [f"{count} names of masks {affix}" for affix, count in self.affixes.items()]
        left = f"; {len(self.left)} other pictures beside them are left out: {join(list(self.left), 2)}"
        return f"{join(parts)}, unlike those of their photos{left if self.left else ''}" if parts else ""


def affixed(masks: Collection[str], photos: Mapping[str, str], *, of: int | None = None) -> Affixed:
    """Find what the names of masks have more than those of their photos.

    Args:
        masks: Names of masks without suffix, with the folders that masks and photos have in common.
        photos: Photo by such a name.
        of: How many masks there are, those included whose names fit as they are.

    Example:
        >>> found = affixed(["p1_mask", "p2_mask"], {"p1": "images/p1", "p2": "images/p2"})
        >>> found.photos["p2_mask"], found.note()
        ('images/p2', "2 names of masks end in '_mask', unlike those of their photos")
    """
    named = _cores(photos)
    whole = {name.casefold() for name in photos}
    groups: dict[Affix, dict[str, str]] = defaultdict(dict)
    for mask in masks:
        folder, _, name = mask.rpartition("/")
        if mask.casefold() in whole:
            continue
        for before, core, after in _pieces(name):
            if photo := named.get((folder, core.casefold())):
                groups[Affix(before, after)][mask] = photo
                break
    total = len(masks) if of is None else of
    groups = {affix: found for affix, found in groups.items() if _clear(affix, len(found), total)}
    plain = {affix: found for affix, found in groups.items() if not affix.words & NOT_IDS} or groups
    left = [mask for affix in groups.keys() - plain.keys() for mask in groups[affix]]
    of_photo: dict[str, list[str]] = defaultdict(list)
    for found in plain.values():
        for mask, photo in found.items():
            of_photo[photo].append(mask)
    several = {photo: sorted(names) for photo, names in of_photo.items() if len(names) > 1}
    pairs = {names[0]: photo for photo, names in of_photo.items() if len(names) == 1}
    counts = {affix: len(found) for affix, found in plain.items()}
    return Affixed(pairs, counts, tuple(sorted(left)), several)


def _clear(affix: Affix, count: int, total: int) -> bool:
    """Return whether an affix tells masks from photos, and not one photo from another."""
    many = 2 * count > total > 1
    return bool(affix.words & (KNOWN | NOT_IDS)) or (many and (not any(affix) or any(map(str.isalpha, "".join(affix)))))


def _cores(photos: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return the photos by folder and name: as it stands, and without what all photos' names have in common."""
    stems = [name.rpartition("/")[2] for name in photos]
    before, after = _common(stems) if len(photos) > 1 else ("", "")
    named: dict[tuple[str, str], str] = {}
    for name, photo in photos.items():
        folder, _, stem = name.rpartition("/")
        core = stem[len(before) : len(stem) - len(after)]
        if any(letter.isalnum() for letter in core):
            named.setdefault((folder, core.casefold()), photo)
    for name, photo in photos.items():
        folder, _, stem = name.rpartition("/")
        named[folder, stem.casefold()] = photo
    return named


def _common(stems: Sequence[str]) -> tuple[str, str]:
    """Return what all names begin with, up to a separator, and what they end in, from a separator on."""
    before = re.sub(r"[^_\-. ]*$", "", commonprefix(stems))  # noqa: RUF071 (characters are meant)
    after = re.sub(r"^[^_\-. ]*", "", commonprefix([stem[::-1] for stem in stems])[::-1])  # noqa: RUF071
    return (before, after) if all(len(before) + len(after) < len(stem) for stem in stems) else ("", "")


def _pieces(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield what stands before, in and after each run of whole words of a name, the longest first."""
    parts = _SPLIT.split(name)
    words = range(0, len(parts), 2)
    runs = ((first, last) for first in words for last in words if first <= last)
    for first, last in sorted(runs, key=lambda run: run[0] - run[1]):
        yield "".join(parts[:first]), "".join(parts[first : last + 1]), "".join(parts[last + 1 :])
