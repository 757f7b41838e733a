"""JSON of the VGG Image Annotator (VIA), versions 1 and 2: annotations, or a whole project.

The class of a region is one of its attributes: the one called label, class, name or type, else the only one. Attributes
of files are tags where they are called so, or name classes of regions.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import read_json
from hintseg.formats.codec import Fit
from hintseg.formats.csv_boxes import UNNAMED
from hintseg.formats.gather import gather
from hintseg.formats.json_files import find_json, holds_json, json_kind, split_of
from hintseg.formats.layout import CLASS_LIST, read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.formats.tables import find_kind, is_table
from hintseg.formats.via_table import rows, via_shape
from hintseg.types import Box, HintSet, Supervision

CLASS_ATTRIBUTES = ("label", "class", "name", "type", "category", "object", "species", "tag")
"""Attributes that name a class, the surest first; also in the plural, and with words in front of a `_`."""

_DEFAULTS = frozenset({"caption", "public_domain", "image_url"})
"""Attributes of files that every project of VIA has."""

_NOTHING = Box(0, 0, 0, 0)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Photo:
    """One photo: its name, its regions (shape and attributes), its attributes, its file and its place in it."""

    name: str
    regions: tuple[tuple[Json, Json], ...]
    attributes: Json
    file: Path
    line: str


class Via:
    """VIA JSON and CSV: all their shapes, attributes as classes and tags."""

    name = "via"
    carries = frozenset(Supervision)
    sign = "a JSON of photos with filename and regions, or _via_img_metadata; a table with region_shape_attributes"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a JSON with VIA's keys, or a table with its header."""
        if find_kind(path, labels, "via"):
            return Fit.YES
        if labels is None:
            return Fit.YES if find_json(path, None, self.name) else Fit.NO
        return Fit.YES if holds_json(labels, self.name) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read regions and attributes.

        Args:
            path: Folder of the data set.
            labels: The JSON or CSV file, or a folder of them; None looks for it.
            reading: How it is to be read.

        Raises:
            LabelError: There is no label file, no attribute is the class, or all problems of the files at once.
        """
        files = find_kind(path, labels, "via") or find_json(path, labels, self.name)
        if not files:
            raise LabelError(f"there is no VIA JSON or CSV in {labels or path}; name the label file with labels=FILE")
        problems, notes = Problems(), list[str]()
        photos = [photo for file in files for photo in _load(file)]
        folder = find_photos(path, missing=reading.missing)
        listed = read_classes(path, files[0], problems, background=reading.background)
        source = join([file.name for file in files])
        regions = [attributes for photo in photos for _, attributes in photo.regions]
        key = _class_of(regions, source)
        only = "" if key or not regions else _only_class(listed, source, notes)
        named = {only, *(listed or ())}.union(*(named_in(attributes.get(key)) for attributes in regions)) - {""}
        tagged = _tag_attributes(photos, named, notes)
        records = [
            Record(
                photo.name,
                tuple(_items(photo, key, only)),
                _tags(photo, tagged),
                split=split_of(photo.file) if len(files) > 1 else None,
                where=photo.file.name,
                line=photo.line,
            )
            for photo in photos
        ]
        if none := sum(not record.items and not record.tags for record in records):
            notes.append(
                f"{none} photos have no region in {source} and count as negatives; VIA lists photos also where nobody "
                "has looked yet: take those out"
            )
        splits = {} if len(files) > 1 else read_splits(path, folder, problems)
        return gather(
            path, folder, Labels(tuple(records), source, listed, splits, notes=tuple(notes)), reading, problems
        )


def _load(file: Path) -> Iterator[_Photo]:
    if is_table(file):
        for row in rows(file):
            regions = ((row.shape, row.attributes),) if row.shape else ()
            yield _Photo(row.name, regions, row.of_photo, file, row.line)
        return
    if json_kind(file) == "via3":
        raise LabelError(f"{file.name} is a project of VIA 3, which is not read; export it as COCO or use VIA 2")
    content: Any = read_json(file, LabelError, "it may be cut off: export it again")
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
        raise LabelError(f"{file.name} is no VIA JSON: it must hold an object for each photo")
    for key, one in entries.items():
        regions = one.get("regions")
        parts = regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
        name = str(one.get("filename") or key.removesuffix(str(one.get("size", ""))))
        attributes = one.get("file_attributes")
        yield _Photo(
            name,
            tuple((_object(part, "shape_attributes"), _object(part, "region_attributes")) for part in parts),
            attributes if isinstance(attributes, dict) else {},
            file,
            shown(name),
        )


def _object(part: Any, key: str) -> Json:
    found = part.get(key) if isinstance(part, dict) else None
    return found if isinstance(found, dict) else {}


def named_in(value: Any) -> tuple[str, ...]:
    """Return the names in the value of an attribute: text, a number, or the boxes that are ticked.

    Example:
        >>> named_in("cat"), named_in({"cat": True, "dog": False, "cow": True}), named_in("")
        (('cat',), ('cat', 'cow'), ())
    """
    if isinstance(value, dict):
        return tuple(str(key) for key, on in value.items() if on is True or on == "true")
    if value is None or isinstance(value, bool | list):
        return ()
    return (str(value).strip(),) if str(value).strip() else ()


def _rank(attribute: str) -> int:
    """Return how surely the name of an attribute says that it is the class, 0 the surest."""
    last = attribute.lower().replace("-", "_").replace(" ", "_").rpartition("_")[2]
    forms = ({one, f"{one}s", f"{one}es", f"{one[:-1]}ies"} for one in CLASS_ATTRIBUTES)
    return next((place for place, names in enumerate(forms) if last in names), len(CLASS_ATTRIBUTES))


def _class_of(regions: list[Json], source: str) -> str:
    """Return the attribute that names the class of most regions; empty where regions have none."""
    counts = Counter(key for attributes in regions for key, value in attributes.items() if named_in(value))
    if not counts:
        return ""
    common = [key for key, count in counts.items() if 2 * count > len(regions)] or [*counts]
    best = min(common, key=_rank)
    if len(common) > 1 and _rank(best) == len(CLASS_ATTRIBUTES):
        some = join([f"'{shown(key)}'" for key in sorted(common)], 6)
        raise LabelError(f"the regions in {source} have the attributes {some}; which is the class? Call it `class`")
    return best


def _only_class(listed: tuple[str, ...] | None, source: str, notes: list[str]) -> str:
    """Return the class of all regions where they have no attribute."""
    if listed is not None and len(listed) != 1:
        raise LabelError(
            f"the regions in {source} have no attribute that names their class, but {CLASS_LIST} lists {len(listed)}; "
            "give them an attribute `class`"
        )
    if listed is None:
        notes.append(f"no region in {source} names a class: all is '{UNNAMED}'; one line in {CLASS_LIST} renames it")
    return UNNAMED if listed is None else listed[0]


def _items(photo: _Photo, key: str, only: str) -> Iterator[Item]:
    """Yield the regions of a photo, once for each of their names."""
    for number, (shape, attributes) in enumerate(photo.regions, start=1):
        names = (only,) if only else named_in(attributes.get(key))
        line = f"region {number}"
        try:
            found, wrong = via_shape(shape), ""
        except LabelError as error:
            found, wrong = _NOTHING, str(error)
        if not names:
            yield Item("", _NOTHING, line=line, wrong=f"has no '{shown(key)}'")
        for name in names:
            yield Item(name, found, object=number if len(names) > 1 else None, line=line, wrong=wrong)


def _tag_attributes(photos: list[_Photo], named: set[str], notes: list[str]) -> frozenset[str]:
    """Return the attributes of files that are tags; a note says which are not."""
    values: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        for key, value in photo.attributes.items():
            if key not in _DEFAULTS:
                values[key] |= {*named_in(value)}
    asked = {key: found for key, found in values.items() if found}
    tags = {key for key, found in asked.items() if _rank(key) < len(CLASS_ATTRIBUTES) or found & named}
    if not tags and not named and len(asked) == 1:
        tags = {*asked}
    for key in sorted(asked.keys() - tags):
        some = join(sorted(map(shown, asked[key])), 4)
        notes.append(
            f"the attribute '{shown(key)}' of photos ({some}) is taken for a property and left out; if it names "
            "classes, call it `class`"
        )
    return frozenset(tags)


def _tags(photo: _Photo, tagged: frozenset[str]) -> tuple[str, ...] | None:
    found = [name for key in sorted(tagged) for name in named_in(photo.attributes.get(key))]
    return tuple(dict.fromkeys(found)) if found else None
