"""What readers of JSON share: which format a file is of, told by its keys, so none takes another's; its numbers."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, shown
from hintseg.files.parse import is_file
from hintseg.formats.photos import matching, walk
from hintseg.formats.words import split_of as split_of_word

LARGEST = 10**9
"""Larger numbers are no pixels: refused, so that no sum or product of them overflows."""

LOOKED_AT = 50
"""How many JSON files of a folder are looked into; there may be one for each photo, with the photo inside."""

PLACES = ("*.json", "annotations/*.json", "*/*.json")
"""Where JSON files that hold the labels of many photos are looked for; the first that has any counts."""

_OBJECTS: dict[str, tuple[str, ...]] = {
    "via": ("_via_img_metadata",),
    "via3": ("fid_list", "vid"),
    "labelme": ("shapes", "imagePath"),
    "panoptic": ("segments_info", "annotations"),
    "coco": ("images", "annotations", "categories"),
    "captions": ("images", "annotations", "caption"),
    "via_annotations": ("filename", "regions"),
    "label_studio_task": ("data", "result", "annotations"),
    "label_studio_old_task": ("data", "result", "completions"),
}
"""Keys of a JSON object by its kind; the first kind all of whose keys occur counts."""

_LISTS: dict[str, tuple[str, ...]] = {
    "label_studio": ("data", "annotations"),
    "label_studio_predictions": ("data", "predictions"),
    "label_studio_old": ("data", "completions"),
    "label_studio_min": ("annotator", "annotation_id"),
    "label_studio_bare": ("original_width", "original_height"),
    "coco_results": ("image_id", "category_id"),
    "createml": ("image", "annotations"),
    "createml_old": ("imagefilename", "annotation"),
    "createml_one": ("image", "annotation"),
    "createml_tags": ("image", "label"),
}
"""The same of a JSON list of objects."""

_FORMATS = {"captions": "coco", "panoptic": "coco"}
"""The format of a kind that does not begin with its name."""

_NAMES = ("label_studio", "labelme", "via", "createml", "coco")


def json_kind(file: Path) -> str:
    """Return the kind of a JSON file, a key of the tables above; an empty string where it is none of them.

    Cost:
        The file is read and searched, not parsed.

    Example:
        >>> file = getfixture("tmp_path") / "a.json"
        >>> _ = file.write_text('{"version": "5", "shapes": [], "imagePath": "a.jpg"}')
        >>> json_kind(file)
        'labelme'
    """
    try:
        found = file.stat()
    except OSError:
        return ""
    return _kind(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _kind(file: Path, size: int, changed: int) -> str:
    try:
        data = file.read_bytes()
    except OSError:
        return ""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    table = {b"{": _OBJECTS, b"[": _LISTS}.get(start, {})
    return next((kind for kind, keys in table.items() if all(_has(data, key) for key in keys)), "")


def _has(data: bytes, key: str) -> bool:
    quoted = f'"{key}"'.encode()  # looked for first: plain bytes are found much sooner
    return quoted in data and re.search(quoted + rb"\s*:", data) is not None


def json_format(file: Path) -> str:
    """Return the name of the format that a JSON file is of; an empty string where it is none we know."""
    kind = json_kind(file)
    return _FORMATS.get(kind) or next((name for name in _NAMES if kind.startswith(name)), "")


def holds_json(labels: Path, name: str) -> bool:
    """Return whether a label file is a JSON of the format `name`; or a folder, among the first in it and below."""
    if labels.is_dir():
        return any(json_format(file) == name for file in json_below(labels)[:LOOKED_AT])
    return labels.suffix.lower() == ".json" and json_format(labels) == name


def json_below(folder: Path) -> list[Path]:
    """Return the JSON files in a folder and below."""
    return [file for file in walk(folder) if file.suffix.lower() == ".json" and is_file(file)]


def find_json(path: Path, labels: Path | None, name: str) -> list[Path]:
    """Return the label files of a format: the one that is given, or those in the first of `PLACES` that has any.

    Args:
        path: Folder of the data set.
        labels: Label file, or folder of them, where one is given.
        name: The format.
    """
    if labels is not None and not labels.is_dir():
        return [labels]
    for place in PLACES:
        files = matching(labels or path, place)[:LOOKED_AT]
        if found := [file for file in files if json_format(file) == name]:
            return found
    return []


def split_of(file: Path) -> str:
    """Return the split that a file is of, see `spoken_split`; its name where it speaks of none."""
    return spoken_split(file) or file.stem


def spoken_split(file: Path) -> str | None:
    """Return the split that a file's own name, or else that of its folder, speaks of, by whole words.

    Example:
        >>> spoken_split(Path("instances_train2017.json")), spoken_split(Path("valid/_annotations.coco.json"))
        ('train', 'val')
        >>> spoken_split(Path("latest.json")) is None
        True
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", f"{file.stem} {file.parent.name}")
    return next((split for word in words if (split := split_of_word(word))), None)


def number(value: Any, name: str) -> float:
    """Return a number of a JSON file, also where it is written as text.

    Raises:
        LabelError: It is none, or too large for a coordinate.

    Example:
        >>> number("12.5", "x"), number(3, "x")
        (12.5, 3.0)
    """
    return numbers([value], name)[0]


def numbers(values: Any, name: str, count: int | None = None) -> tuple[float, ...]:
    """Return a list of numbers of a JSON file; see `number`.

    Args:
        values: The list.
        name: What they are, for messages.
        count: How many are needed; None: any.

    Raises:
        LabelError: They are not.
    """
    found = [_number(value) for value in values] if isinstance(values, list) else [None]
    good = tuple(value for value in found if value is not None and abs(value) <= LARGEST)
    if len(good) < len(found):
        given = shown(values[0] if isinstance(values, list) and len(values) == 1 else values)
        raise LabelError(f"{name} {given} holds something that is not a number of at most {LARGEST:,}")
    if count is not None and len(good) != count:
        raise LabelError(f"{name} has {len(good)} numbers; {count} are needed")
    return good


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def picture_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the size that a file states, (height, width) in pixels; None where it states none.

    Example:
        >>> picture_size(80.0, "120"), picture_size(None, 120)
        ((80, 120), None)
    """
    found = _number(height), _number(width)
    if None in found:
        return None
    rows, columns = (round(value) if value is not None and 0 < value <= LARGEST else 0 for value in found)
    return rows, columns
