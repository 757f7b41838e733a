"""Create ML JSON: a list of photos with annotations, each a label and a box (centre, width, height; pixels)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import read_json
from hintseg.formats.codec import Fit
from hintseg.formats.gather import gather
from hintseg.formats.json_files import find_json, holds_json, number, split_of
from hintseg.formats.layout import read_classes, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.types import Box, HintSet, Supervision

_NOTHING = Box(0, 0, 0, 0)

Json = Mapping[str, Any]


class CreateMl:
    """Create ML JSON: boxes, or one label a photo."""

    name = "createml"
    carries = frozenset({Supervision.TAGS, Supervision.BOXES})
    sign = "a JSON list of photos with image and annotations"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a JSON list of photos."""
        if labels is None:
            return Fit.YES if find_json(path, None, self.name) else Fit.NO
        return Fit.YES if holds_json(labels, self.name) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read boxes and labels of photos; several files, as Roboflow writes them, become splits.

        Args:
            path: Folder of the data set.
            labels: The JSON file, or a folder of them; None looks for it.
            reading: How it is to be read.

        Raises:
            LabelError: There is no label file, or all problems of the files at once.
        """
        files = find_json(path, labels, self.name)
        if not files:
            raise LabelError(f"there is no Create ML JSON in {labels or path}; name the label file with labels=FILE")
        problems = Problems()
        folder = find_photos(path, missing=reading.missing)
        listed = read_classes(path, files[0], problems, background=reading.background)
        records = tuple(
            record for file in files for record in _records(file, split_of(file) if len(files) > 1 else None, problems)
        )
        splits = {} if len(files) > 1 else read_splits(path, folder, problems)
        said = Labels(records, join([file.name for file in files]), listed, splits)
        return gather(path, folder, said, reading, problems)


def _records(file: Path, split: str | None, problems: Problems) -> Iterator[Record]:
    content: Any = read_json(file, LabelError, "it may be cut off: export it again")
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise LabelError(f"{file.name} is no Create ML JSON: it must be a list of photos")
    for place, one in enumerate(content, start=1):
        name = next((one[key] for key in ("image", "imagefilename", "filename") if isinstance(one.get(key), str)), "")
        if not name:
            problems.add(file.name, f"entry {place} names no photo: it needs `image`")
            continue
        marks = one.get("annotations", one.get("annotation"))
        given = marks if isinstance(marks, list) else [] if marks is None else [marks]
        tags = [str(mark) for mark in given if isinstance(mark, str)]
        tags += [str(mark.get("label") or "") for mark in given if _is_tag(mark)]
        label = one.get("label")
        tags += [str(word) for word in (label if isinstance(label, list) else [label]) if word]
        items = [
            _item(mark, f"annotation {number_}")
            for number_, mark in enumerate(given, start=1)
            if not isinstance(mark, str) and not _is_tag(mark)
        ]
        yield Record(
            name, tuple(items), tuple(dict.fromkeys(tags)) or None, split=split, where=file.name, line=shown(name)
        )


def _is_tag(mark: object) -> bool:
    return isinstance(mark, dict) and "coordinates" not in mark and bool(mark.get("label"))


def _item(mark: object, line: str) -> Item:
    label = str(mark.get("label") or "") if isinstance(mark, dict) else ""
    try:
        if not isinstance(mark, dict) or not isinstance(mark.get("coordinates"), dict):
            raise LabelError("has no `coordinates`")
        if not label:
            raise LabelError("has no `label`")
        place = mark["coordinates"]
        x, y, width, height = (number(place.get(key), key) for key in ("x", "y", "width", "height"))
    except LabelError as error:
        return Item(label, _NOTHING, line=line, wrong=str(error))
    return Item(label, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), line=line)
