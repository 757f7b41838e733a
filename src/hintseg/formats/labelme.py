"""labelme: one JSON for each photo, beside it or in a folder of their own.

Shapes of one `group_id` and label are one object. Flags of the whole picture are tags: those that are true are there.
The labels `_background_` and `__ignore__` mean what they say.
"""

from __future__ import annotations

import base64
import json
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from hintseg.errors import HintsegError, LabelError, join, shown
from hintseg.files.atomic import whole_file
from hintseg.files.images import open_embedded
from hintseg.files.parse import is_file, read_json
from hintseg.formats.codec import Fit, Written
from hintseg.formats.drawn import Drawn, drawn
from hintseg.formats.gather import IGNORED, gather
from hintseg.formats.json_files import LOOKED_AT, json_below, json_kind, picture_size
from hintseg.formats.labelme_shapes import items_of
from hintseg.formats.layout import is_background, read_classes, read_splits
from hintseg.formats.photos import PhotoFolder, file_name, find_photos
from hintseg.formats.problems import Problems, read_text
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.geometry import runs
from hintseg.types import BACKGROUND, IGNORE, Click, HintSet, Stroke, Supervision, Tags

CLASS_FILE = "labels.txt"
"""labelme's own list of labels, one a line."""

BACKGROUND_LABEL = "_background_"
_VERSION = "5.5.0"

_MASKS = "photos have a full mask that cannot be written"
_ABSENT = "photos say of some classes that nothing is known; labelme says that they are not there"
_SPLITS = "splits are left out"
_WIDTH = "strokes have a width, which is left out"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file: where it lies, and what it holds but for the photo inside."""

    file: Path
    image: str
    size: tuple[int, int] | None
    items: tuple[Item, ...]
    flags: dict[str, bool]
    embedded: bool


class Labelme:
    """labelme JSON, one for each photo."""

    name = "labelme"
    carries = frozenset(Supervision)
    sign = "JSON files with shapes and imagePath"
    writes = carries

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look into the first JSON files."""
        files = _files(path, labels)[:LOOKED_AT]
        return Fit.YES if any(json_kind(file) == self.name for file in files) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read the JSON files of photos.

        Args:
            path: Folder of the data set.
            labels: A JSON file, or a folder of them; None looks for them below `path`.
            reading: How they are to be read.

        Raises:
            LabelError: There is no such file, or all problems of the files at once.
        """
        problems, notes = Problems(), list[str]()
        base = labels if labels is not None and labels.is_dir() else path
        where = f"the labelme files of {base.name}"
        entries = [*_entries(_files(path, labels), where, problems, notes)]
        problems.raise_all()
        if not entries:
            raise LabelError(f"there is no labelme JSON in {labels or path}; name the label file with labels=FILE")
        folder = _photos(path, base, entries, reading)
        named = {item.label for entry in entries for item in entry.items}
        listed = _classes(path, base, labels, named, problems, reading)
        flags = _tag_flags(entries, named, listed, notes)
        records = []
        for entry in entries:
            names = _names(entry, base, folder, problems, where)
            said = tuple(name for name, there in entry.flags.items() if there and name in flags)
            tags = said if flags & entry.flags.keys() else None
            line = entry.file.relative_to(base).as_posix() if entry.file.is_relative_to(base) else entry.file.name
            records.append(Record(names[0], entry.items, tags, size=entry.size, also=names[1:], where=where, line=line))
        splits = read_splits(path, folder, problems)
        said_all = Labels(tuple(records), where, listed, splits, notes=tuple(notes))
        return gather(path, folder, said_all, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write a JSON for each photo of which something is said, and `labels.txt`."""
        lost: Counter[str] = Counter()
        names = {BACKGROUND: BACKGROUND_LABEL, IGNORE: IGNORED, **dict(enumerate(hint_set.classes, start=1))}
        for photo in hint_set.photos:
            found = drawn(photo, len(hint_set.classes))
            lost[_MASKS] += bool(found.wrong)
            tags = photo.hints.tags
            if tags is None and not found.drawn and not found.negative:
                continue
            flags = dict[str, bool]()
            shown_ = {one.mark.label for one in found.drawn}
            if tags is not None:
                lost[_ABSENT] += tags != Tags.complete(tags.present, len(hint_set.classes))
                if tags.present - shown_:
                    flags = {name: label in tags for label, name in names.items() if label in tags.said}
            for one in found.drawn:
                lost[_WIDTH] += isinstance(one.mark.shape, Stroke) and one.mark.shape.width != 1.0
            height, width = found.size or (None, None)
            content = {
                "version": _VERSION,
                "flags": flags,
                "shapes": [shape for one in found.drawn for shape in _shapes(one, names[one.mark.label])],
                "imagePath": file_name(photo).rpartition("/")[2],
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            with whole_file(out / f"{photo.id}.json") as file:
                file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())
        lost[_SPLITS] += len(hint_set.splits)
        with whole_file(out / CLASS_FILE) as file:
            file.write("".join(f"{name}\n" for name in (IGNORED, BACKGROUND_LABEL, *hint_set.classes)).encode())
        return Written(out, tuple(f"{count} {what}" for what, count in lost.items() if count))


def _files(path: Path, labels: Path | None) -> list[Path]:
    if labels is None or labels.is_dir():
        return json_below(labels or path)
    return [labels] if labels.suffix.lower() == ".json" else []


def _entries(files: Sequence[Path], where: str, problems: Problems, notes: list[str]) -> Iterator[_Entry]:
    others = []
    for file in files:
        try:
            content: Any = read_json(file, LabelError, "it may be cut off: save it again")
        except LabelError as error:
            problems.add(where, str(error))
            continue
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list) or "imagePath" not in content:
            others.append(file.name)
            continue
        size = picture_size(content.get("imageHeight"), content.get("imageWidth"))
        flags = content.get("flags")
        given = {str(key): value is True for key, value in flags.items()} if isinstance(flags, dict) else {}
        image = str(content["imagePath"] or "")
        yield _Entry(file, image, size, tuple(items_of(shapes, size)), given, bool(content.get("imageData")))
    if others:
        notes.append(f"{len(others)} JSON files are not of labelme and left out: {join(others, limit=3)}")


def _names(entry: _Entry, base: Path, folder: PhotoFolder, problems: Problems, where: str) -> tuple[str, ...]:
    """Return what the photo of a file may be called: its `imagePath` seen from the file, that name, the file's own."""
    parent = entry.file.parent
    root = next((one for one in (folder.root, base) if parent.is_relative_to(one)), parent)
    place = parent.relative_to(root).as_posix()
    given = PureWindowsPath(entry.image)
    foreign = bool(given.drive or given.root)  # a whole path of some machine
    seen = [] if foreign or not given.name else [f"{place}/{given.as_posix()}"]
    own = _plain(f"{place}/{entry.file.stem}")
    names = dict.fromkeys(map(_plain, [*seen, given.name, own]))
    by_path, by_file = folder.find(next(iter(names))), folder.find(own)
    if given.name and len(by_path) == len(by_file) == 1 and by_path != by_file:
        problems.add(
            where,
            f"{entry.file.name} names the photo '{shown(entry.image)}', but there is a photo {by_file[0]} beside it; "
            "correct its imagePath, or rename it",
        )
    return tuple(name for name in names if name)


def _plain(name: str) -> str:
    """Return a path without steps to and fro."""
    return "/".join(part for part in posixpath.normpath(name).split("/") if part not in (".", ".."))


def _photos(path: Path, base: Path, entries: Sequence[_Entry], reading: Reading) -> PhotoFolder:
    """Return the photos; where some are only inside the JSON files, the error says how to write them out."""
    inside = [entry.file.name for entry in entries if entry.embedded and not _beside(entry)]
    try:
        folder = find_photos(path, missing=reading.missing)
    except LabelError:
        if not inside:
            raise
    else:
        gone = [entry for entry in entries if entry.embedded and not _beside(entry) and not _found(entry, folder)]
        if not gone or reading.missing == "skip":
            return folder
        inside = [entry.file.name for entry in gone]
    raise LabelError(
        f"{len(inside)} photos are not there but inside their labelme files ({join(inside, limit=3)}); write them "
        f"beside these with: python -m hintseg.formats.labelme {base}"
    )


def _beside(entry: _Entry) -> bool:
    return bool(entry.image) and is_file(entry.file.parent / PureWindowsPath(entry.image).as_posix())


def _found(entry: _Entry, folder: PhotoFolder) -> bool:
    return bool(folder.find(PureWindowsPath(entry.image).name) or folder.find(entry.file.stem))


def _classes(
    path: Path, base: Path, labels: Path | None, named: set[str], problems: Problems, reading: Reading
) -> tuple[str, ...] | None:
    """Return the classes of `classes.txt` or, where it lists labels of these files, of labelme's own `labels.txt`."""
    listed = read_classes(path, labels, problems, background=reading.background)
    if listed is not None:
        return listed
    for folder in dict.fromkeys((base, path)):
        if is_file(folder / CLASS_FILE):
            lines = dict.fromkeys(line.strip() for line in read_text(folder / CLASS_FILE).splitlines())
            names = [one for one in lines if one not in ("", IGNORED, BACKGROUND_LABEL)]
            names = [one for one in names if not (reading.background and is_background(one))]
            if not named or named & {*names}:
                return tuple(names)
    return None


def _tag_flags(
    entries: Sequence[_Entry], named: set[str], listed: tuple[str, ...] | None, notes: list[str]
) -> frozenset[str]:
    """Return the flags that are classes; a note says which are not."""
    flags = {name for entry in entries for name in entry.flags}
    if listed is not None:
        tags = flags & {*listed}
    else:
        tags = flags if not named or flags & named else set[str]()
    if left := sorted(flags - tags):
        some = join([shown(name) for name in left], limit=4)
        notes.append(
            f"the flags {some} are taken for properties of the photo and left out; if they are classes, list all "
            f"classes in {CLASS_FILE}"
        )
    return frozenset(tags)


def _shapes(one: Drawn, label: str) -> Iterator[dict[str, object]]:
    """Yield the shapes of a mark."""
    head: dict[str, object] = {"label": label, "group_id": one.mark.object, "flags": {}, "description": ""}
    if one.mark.trust != 1.0:
        head["score"] = one.mark.trust
    shape = one.mark.shape
    if isinstance(shape, Click):
        yield {**head, "shape_type": "point", "points": [[shape.x, shape.y]]}
    elif isinstance(shape, Stroke):
        yield {**head, "shape_type": "linestrip", "points": _pairs(shape.points)}
    elif one.box and one.own_box:
        yield {**head, "shape_type": "rectangle", "points": _pairs(one.box.corners)}
    if one.outline is None:
        return
    for ring in one.outline.polygons:
        yield {**head, "shape_type": "polygon", "points": _pairs(ring)}
    if one.outline.rle is not None:
        x0, y0, x1, y1 = runs.bounds(one.outline.rle) or (0, 0, 1, 1)
        part = runs.decode(one.outline.rle)[y0:y1, x0:x1]
        data = BytesIO()
        Image.fromarray(part.astype(np.uint8) * 255).save(data, "PNG")
        mask = base64.b64encode(data.getvalue()).decode()
        yield {**head, "shape_type": "mask", "points": [[x0, y0], [x1 - 1, y1 - 1]], "mask": mask}


def _pairs(flat: Sequence[float]) -> list[list[float]]:
    return [list(pair) for pair in zip(flat[0::2], flat[1::2], strict=True)]


def write_photos(path: Path) -> list[Path]:
    """Write the photos that labelme files hold inside beside them, where there is none; return the photos' files.

    Raises:
        LabelError: A file cannot be read, or holds no photo.
    """
    written = []
    for file in json_below(path):
        content: Any = read_json(file, LabelError, "it may be cut off: save it again")
        if not isinstance(content, dict) or "shapes" not in content or not content.get("imageData"):
            continue
        data = str(content["imageData"])
        try:
            with open_embedded(data) as image:
                kind = image.format or ""
        except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
            raise LabelError(f"the photo inside {file} cannot be read: {error}") from error
        name = PureWindowsPath(str(content.get("imagePath") or "")).name or file.name
        same = Image.registered_extensions().get(Path(name).suffix.lower()) == kind
        target = file.with_name(name if same else f"{Path(name).stem}.{kind.lower()}")
        if not target.exists():
            with whole_file(target) as out:
                out.write(base64.b64decode(data.partition("base64,")[2] or data))
            written.append(target)
    return written


if __name__ == "__main__":
    try:
        write_photos(Path(sys.argv[1]))
    except HintsegError as error:
        raise SystemExit(f"error: {error}") from None
