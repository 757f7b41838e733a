"""COCO instances JSON: boxes, polygons, run-length masks and crowds.

Category ids become 1..K in the order of the ids. Photos in the JSON without annotations are negatives. Boxes `[x, y,
width, height]` become (x0, y0, x1, y1). A photo's tags are the classes of its objects that are no crowd.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import is_file, read_json
from hintseg.formats.codec import Fit, holds
from hintseg.formats.gather import gather
from hintseg.formats.layout import is_background, read_splits
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.geometry import runs
from hintseg.types import Box, HintSet, Region, Rle, Supervision

PLACES = ("instances*.json", "annotations/instances*.json", "*/_annotations.coco.json", "*.json", "annotations/*.json")
"""Where the files are looked for below the data set's folder; the first that fits counts."""

LARGEST = 10**9
"""Larger numbers are no pixels: refused, so that no sum or product of them overflows."""

_SPLIT_WORDS = ("train", "val", "test")


def find_json(path: Path) -> list[Path]:
    """Return the label files of a data set's folder: those of the first of `PLACES` that has any."""
    for pattern in PLACES:
        found = [file for file in sorted(path.glob(pattern)) if is_file(file) and _is_instances(file)]
        if found:
            return found
    return []


def _is_instances(file: Path) -> bool:
    data = file.read_bytes()
    return file.name.startswith("instances") or all(
        key in data for key in (b'"images"', b'"annotations"', b'"categories"')
    )


class Coco:
    """COCO instances JSON: boxes, polygons, RLE."""

    name = "coco"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS})
    sign = "a JSON with images, annotations, categories"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a JSON with COCO's lists; one that is not called `instances*` is read for it."""
        if labels is None:
            return Fit.YES if find_json(path) else Fit.NO
        return Fit.WEAK if labels.suffix.lower() == ".json" or holds(labels, ".json") else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read COCO instances; several files (such as instances_train.json and instances_val.json) become splits.

        Args:
            path: Folder of the data set.
            labels: The JSON file or the folder of them; None looks in `PLACES`.
            reading: How it is to be read.

        Raises:
            LabelError: There is no label file, or all problems of the files at once.

        Cost:
            Memory about ten times the size of the JSON.
        """
        files = [labels] if labels is not None and not labels.is_dir() else find_json(labels or path)
        if not files:
            raise LabelError(f"there is no COCO JSON in {labels or path}; name the label file with labels=FILE")
        problems, notes = Problems(), list[str]()
        contents = {file: _load(file) for file in files}
        folder = find_photos(path, missing=reading.missing)
        classes, ids = _classes(contents, problems, notes, background=reading.background)
        problems.raise_all()
        records = tuple(
            record
            for file, content in contents.items()
            for record in _records(file, content, ids, _split(file) if len(files) > 1 else None, problems, notes)
        )
        splits = {} if len(files) > 1 else read_splits(path, folder, problems)
        said = Labels(records, join([file.name for file in files]), classes, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)


def _split(file: Path) -> str:
    """Return the split a file's own name, or else that of its folder, speaks of."""
    places = [(name, word) for name in (file.name, file.parent.name) for word in _SPLIT_WORDS]
    return next((word for name, word in places if word in name), file.stem)


def _load(file: Path) -> dict[str, Any]:
    """Return the content of a COCO JSON, checked for its three lists."""
    content = read_json(file, LabelError, "it may be cut off: write it again")
    lists = ("images", "annotations", "categories")
    missing = [k for k in lists if not isinstance(content, dict) or not isinstance(content.get(k), list)]
    if missing:
        raise LabelError(f"{file.name} is no COCO file: it lacks the lists {', '.join(missing)}")
    odd = [k for k in lists if not all(isinstance(item, dict) for item in content[k])]
    if odd:
        raise LabelError(f"{file.name} is no COCO file: {', '.join(odd)} must be lists of objects")
    return dict(content)


def _id(value: Any) -> str | None:
    """Return an id as text: 1, "1" and 1.0 are one; None where it is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _order(id_: str) -> tuple[bool, int, str]:
    """Sort ids that are numbers as such, before others."""
    number = id_.isdecimal() and len(id_) < 20
    return not number, int(id_) if number else 0, id_


def _classes(
    contents: dict[Path, dict[str, Any]], problems: Problems, notes: list[str], *, background: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the class names in the order of the ids, and the name of every category id; all files must agree."""
    first: dict[str, str] = {}
    groups: set[str] = set()
    used: set[str | None] = set()
    for number, (file, content) in enumerate(contents.items()):
        own: dict[str, str] = {}
        names: set[str] = set()
        for item in content["categories"]:
            id_, name = _id(item.get("id")), " ".join(str(item.get("name", "")).split())
            if id_ is None or not name:
                problems.add(file.name, f"category {shown(item)} needs an `id`, a number or text, and a `name`")
                continue
            if id_ in own or name in names:
                problems.add(file.name, f"category {shown(id_)} '{shown(name)}' occurs twice")
            own[id_] = name
            names.add(name)
            groups.add(str(item.get("supercategory")))
        used |= {_id(item.get("category_id")) for item in content["annotations"]}
        if number == 0:
            first = own
        for changed in sorted(own.items() ^ first.items()):
            problems.add(
                file.name, f"category {shown(changed[0])} '{shown(changed[1])}' is not the same in all label files"
            )
    names_of = dict(first)
    for id_, name in names_of.items():
        if background and is_background(name):
            notes.append(f"category {shown(id_)} '{name}' is background and no class")
            del first[id_]
        elif name in groups and id_ not in used and len(first) > 1:
            notes.append(f"category {shown(id_)} '{name}' groups others, has no annotation, and is no class")
            del first[id_]
    order = sorted(first, key=_order)
    if order != [str(number) for number in range(1, len(order) + 1)]:
        some = ", ".join(f"{shown(id_)} -> {new}" for new, id_ in enumerate(order[:4], start=1))
        notes.append(f"category ids are mapped to 1..{len(order)} in their order: {some}, ...")
    return tuple(first[id_] for id_ in order), names_of


def _records(
    file: Path, content: dict[str, Any], ids: dict[str, str], split: str | None, problems: Problems, notes: list[str]
) -> list[Record]:
    """Return what one file says of each photo it lists."""
    where = file.name
    images: dict[str, dict[str, Any]] = {}
    for image in content["images"]:
        id_, name = _id(image.get("id")), image.get("file_name")
        if id_ is None or not isinstance(name, str) or not name:
            problems.add(where, f"image {shown(image)} needs an `id` and a `file_name`")
        elif id_ in images:
            problems.add(where, f"image {shown(id_)}: this id occurs twice in `images`")
        else:
            images[id_] = image
    items: dict[str, list[Item]] = defaultdict(list)
    empty = 0
    for annotation in content["annotations"]:
        line = f"annotation {shown(annotation.get('id', '?'))}"
        image_id, category = _id(annotation.get("image_id")), _id(annotation.get("category_id"))
        if image_id not in images:
            problems.add(where, f"{line}: image_id {shown(annotation.get('image_id'))} is not in `images`")
        elif category not in ids:
            known = ", ".join(shown(one) for one in sorted(ids, key=_order)[:5])
            given = shown(annotation.get("category_id"))
            problems.add(where, f"{line}: category_id {given} is not in `categories` ({known}, ...)")
        else:
            try:
                item = _item(annotation, ids[category], line)
            except LabelError as error:
                item = Item(ids[category], Box(0, 0, 0, 0), line=line, wrong=str(error))
            if item is None:
                empty += 1
            else:
                items[image_id].append(item)
    if empty:
        notes.append(f"{empty} annotations without any area in {where} are left out")
    return [
        Record(
            image["file_name"],
            tuple(items[id_]),
            size=_size(image),
            split=split,
            where=where,
            line=f"image {shown(id_)}",
        )
        for id_, image in images.items()
    ]


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _item(annotation: dict[str, Any], name: str, line: str) -> Item | None:
    """Return one object; None where it has no area."""
    box, crowd = annotation.get("bbox"), bool(annotation.get("iscrowd", 0))
    outline, mended = None, ""
    try:
        outline = _outline(annotation.get("segmentation"))
    except LabelError as error:
        if not box:
            raise
        mended = f"have an outline that cannot be used, so their box alone counts ({error})"
    if box:
        x, y, width, height = _numbers(box, "bbox", count=4)
        if 0.0 in (width, height):
            return None
        return Item(name, Box(x, y, x + width, y + height), outline, crowd, line=line, mended=mended)
    if outline is None:
        raise LabelError("has neither a bbox nor a segmentation")
    if outline.rle is not None and runs.bounds(outline.rle) is None:
        return None
    return Item(name, outline, None, crowd, line=line)


def _outline(segmentation: Any) -> Region | None:
    """Return what a `segmentation` entry holds; None where it is empty."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        rings = [segmentation] if isinstance(segmentation[0], int | float) else segmentation
        return Region(tuple(_numbers(ring, "polygon") for ring in rings))
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise LabelError("segmentation is neither a list of polygons nor a run-length mask with `size` and `counts`")
    height, width = (int(v) for v in _numbers(segmentation["size"], "size", count=2))
    counts = segmentation["counts"]
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        counts = counts[2:-1].replace("\\\\", "\\")  # Python's way to show bytes, written as text
    parsed = runs.parse_counts(counts) if isinstance(counts, str) else tuple(int(v) for v in _numbers(counts, "counts"))
    mask = Rle(height, width, parsed)
    runs.check_runs(mask)
    return Region(rle=mask)


def _numbers(values: Any, name: str, count: int | None = None) -> tuple[float, ...]:
    """Return a list of numbers from the JSON, checked."""
    if not isinstance(values, list) or not all(isinstance(v, int | float) and abs(v) <= LARGEST for v in values):
        raise LabelError(f"{name} {shown(values)} holds something that is not a number of at most {LARGEST:,}")
    if count is not None and len(values) != count:
        raise LabelError(f"{name} has {len(values)} numbers; {count} are needed")
    return tuple(float(v) for v in values)
