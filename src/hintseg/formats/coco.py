"""COCO instances JSON: boxes, polygons, run-length masks and crowds.

Category ids become 1..K in the order of the ids. Photos in the JSON without annotations are negatives. Boxes `[x, y,
width, height]` become (x0, y0, x1, y1). A photo's tags are the classes of its objects that are no crowd.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import read_json
from hintseg.formats.coco_writer import write_instances
from hintseg.formats.codec import Fit, Written
from hintseg.formats.gather import IGNORED, gather
from hintseg.formats.json_files import (
    LOOKED_AT,
    json_format,
    json_kind,
    number,
    numbers,
    picture_size,
    split_of,
    spoken_split,
)
from hintseg.formats.layout import is_background, read_splits
from hintseg.formats.photos import find_photos, matching
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.geometry import runs
from hintseg.types import Box, HintSet, Region, Rle, Supervision

PLACES = (
    "instances*.json",
    "annotations/instances*.json",
    "*/_annotations.coco.json",
    "*.json",
    "annotations/*.json",
    "*/*.json",
)
"""Where the files are looked for below the data set's folder; the first that fits counts."""

NOT_INSTANCES = {
    "captions": "holds COCO captions: sentences and no objects; name the instances file of the same photos",
    "panoptic": "is COCO panoptic: its masks are PNGs whose colours number segments; turn it into instances with "
    "panopticapi (converters/panoptic2detection_coco_format.py)",
    "coco_results": "is a list of COCO results, which names photos and classes by numbers alone; put it as "
    "`annotations` into the JSON with their `images` and `categories`",
}
"""COCO's other files, and what to do with them."""


def find_instances(path: Path) -> list[Path]:
    """Return the label files of a data set's folder: those of the first of `PLACES` that has any.

    Where there is none, COCO's other files, such as captions, are returned: reading them says what they are.
    """
    others = list[Path]()
    for pattern in PLACES:
        files = matching(path, pattern)[:LOOKED_AT]
        kinds = {file: json_kind(file) or ("coco" if file.name.startswith("instances") else "") for file in files}
        if found := [file for file, kind in kinds.items() if kind == "coco"]:
            return found
        others = others or [file for file, kind in kinds.items() if kind in NOT_INSTANCES]
    return others[:1]


class Coco:
    """COCO instances JSON: boxes, polygons, RLE."""

    name = "coco"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS})
    writes = carries
    sign = "a JSON with images, annotations, categories"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for a JSON with COCO's lists. A JSON of no known format is taken for one, to say what it lacks."""
        if labels is None:
            files = find_instances(path)
            return Fit.NO if not files else Fit.WEAK if json_kind(files[0]) in NOT_INSTANCES else Fit.YES
        if labels.is_dir():
            return Fit.YES if find_instances(labels) else Fit.NO
        return Fit.WEAK if labels.suffix.lower() == ".json" and json_format(labels) in ("coco", "") else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read COCO instances; several files (such as instances_train.json and instances_val.json) become splits.

        Args:
            path: Folder of the data set.
            labels: The JSON file or the folder of them; None looks in `PLACES`.
            reading: How it is to be read.

        Raises:
            LabelError: There is no label file, several list the same photo, or all problems of the files at once.

        Cost:
            Memory about ten times the size of the JSON.
        """
        files = [labels] if labels is not None and not labels.is_dir() else find_instances(labels or path)
        if not files:
            raise LabelError(f"there is no COCO JSON in {labels or path}; name the label file with labels=FILE")
        problems, notes = Problems(), list[str]()
        contents = {file: _load(file) for file in files}
        _refuse_versions(labels or path, contents)
        folder = find_photos(path, missing=reading.missing)
        classes, ids = _classes(contents, problems, notes, background=reading.background)
        problems.raise_all()
        records = tuple(
            record
            for file, content in contents.items()
            for record in _records(
                file, content, ids[file], split_of(file) if len(files) > 1 else None, problems, notes
            )
        )
        splits = {} if len(files) > 1 else read_splits(path, folder, problems)
        said = Labels(records, join([file.name for file in files]), classes, splits, notes=tuple(notes))
        return gather(path, folder, said, reading, problems)

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write `instances.json`, or one file for each split where train, val and test part the labelled photos."""
        return write_instances(hint_set, out)


def _load(file: Path) -> dict[str, Any]:
    """Return the content of a COCO JSON, checked for its three lists; a mapping by id is one too."""
    if (kind := json_kind(file)) in NOT_INSTANCES:
        raise LabelError(f"{file.name} {NOT_INSTANCES[kind]}")
    content = read_json(file, LabelError, "it may be cut off: write it again")
    lists = {key: _list(content.get(key)) for key in _LISTS} if isinstance(content, dict) else {}
    missing = [key for key in _LISTS if lists.get(key) is None]
    if missing:
        raise LabelError(f"{file.name} is no COCO file: it lacks the lists {', '.join(missing)}")
    found = {key: items for key, items in lists.items() if items is not None}
    odd = [key for key, items in found.items() if not all(isinstance(item, dict) for item in items)]
    if odd:
        raise LabelError(f"{file.name} is no COCO file: {', '.join(odd)} must be lists of objects")
    marks = found["annotations"]
    if marks and not any(item.get("bbox") or item.get("segmentation") for item in marks):
        for key in ("keypoints", "caption"):
            if any(key in item for item in marks):
                raise LabelError(
                    f"{file.name} holds {key if key == 'keypoints' else 'captions'} only, no boxes or masks; name the "
                    "instances file of the same photos"
                )
    return found


def _refuse_versions(folder: Path, contents: dict[Path, dict[str, Any]]) -> None:
    """Refuse files that list the same photo, but for those of different splits, whose photos may be called alike."""
    listed: dict[str, list[Path]] = defaultdict(list)
    for file, content in contents.items():
        for name in {_photo(image) for image in content["images"]} - {""}:
            listed[name].append(file)
    splits = {file: spoken_split(file) for file in contents}
    twice = {
        name: files
        for name, files in listed.items()
        if len(files) > max(1, len({splits[file] for file in files} - {None}))
    }
    if twice:
        versions = sorted({file for files in twice.values() for file in files})
        some = join([file.relative_to(folder).as_posix() for file in versions], 4)
        raise LabelError(
            f"{folder} holds {len(versions)} COCO files that list the same photos, such as '{shown(min(twice))}': "
            f"{some}; name one with --labels FILE, or each that counts where they are parts (--labels A --labels B)"
        )


_LISTS = ("images", "annotations", "categories")


def _list(value: Any) -> list[Any] | None:
    if isinstance(value, dict):  # LIVECell's annotations, by id
        return [{"id": key, **item} if isinstance(item, dict) else item for key, item in value.items()]
    return value if isinstance(value, list) else None


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
) -> tuple[tuple[str, ...], dict[Path, dict[str, str]]]:
    """Return the class names in the order of the ids, and each file's names by category id.

    Files may number their categories differently: their names count, those of the first file first.
    """
    names_of: dict[Path, dict[str, str]] = {}
    groups: set[str] = set()
    used: set[str] = set()
    for file, content in contents.items():
        own: dict[str, str] = {}
        for item in content["categories"]:
            id_, name = _id(item.get("id")), " ".join(str(item.get("name") or "").split())
            if id_ is None or not name:
                problems.add(file.name, f"category {shown(item)} needs an `id`, a number or text, and a `name`")
                continue
            if id_ in own or name in own.values():
                problems.add(file.name, f"category {shown(id_)} '{shown(name)}' occurs twice; delete one")
            own[id_] = name
            if (group := str(item.get("supercategory"))) != name:
                groups.add(group)
        ids = {_id(item.get("category_id")) for item in content["annotations"]}
        used |= {name for id_, name in own.items() if id_ in ids}
        names_of[file] = own
    ids_of: dict[str, str] = {}
    for own in names_of.values():
        for id_ in sorted(own, key=_order):
            ids_of.setdefault(own[id_], id_)
    if any(own.get(id_, name) != name for own in names_of.values() for name, id_ in ids_of.items()):
        notes.append(f"the category ids of {join([file.name for file in contents])} differ; classes go by their names")
    for name, id_ in [*ids_of.items()]:
        if name == IGNORED:
            del ids_of[name]
        elif background and is_background(name):
            notes.append(f"category {shown(id_)} '{name}' is background and no class")
            del ids_of[name]
        elif name in groups and name not in used and len(ids_of) > 1:
            notes.append(f"category {shown(id_)} '{name}' groups others, has no annotation, and is no class")
            del ids_of[name]
    if [*ids_of.values()] != [str(k) for k in range(1, len(ids_of) + 1)]:
        some = [f"{shown(id_)} -> {new}" for new, id_ in enumerate(ids_of.values(), start=1)]
        more = ", ..." if len(some) > 4 else ""
        notes.append(f"category ids are mapped to 1..{len(some)} in their order: {', '.join(some[:4])}{more}")
    return tuple(ids_of), names_of


def _records(
    file: Path, content: dict[str, Any], ids: dict[str, str], split: str | None, problems: Problems, notes: list[str]
) -> list[Record]:
    """Return what one file says of each photo it lists."""
    where = file.name
    images: dict[str, dict[str, Any]] = {}
    for image in content["images"]:
        id_ = _id(image.get("id"))
        if id_ is None or not _photo(image):
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
            empty += item.empty
            items[image_id].append(item)
    if empty:
        notes.append(f"{empty} annotations without any area in {where} are left out")
    return [
        Record(
            _photo(image),
            tuple(items[id_]),
            size=picture_size(image.get("height"), image.get("width")),
            split=split,
            where=where,
            line=f"image {shown(id_)}",
        )
        for id_, image in images.items()
    ]


def _photo(image: dict[str, Any]) -> str:
    """Return the photo's name: its file name, or the last part of its address."""
    for key in ("file_name", "path", "coco_url", "flickr_url", "url"):
        if isinstance(name := image.get(key), str) and name:
            return name if key in ("file_name", "path") else name.partition("?")[0].rpartition("/")[2]
    return ""


def _item(annotation: dict[str, Any], name: str, line: str) -> Item:
    """Return one object: its box and outline; the outline alone where the box has no area, as some tools write it."""
    box, crowd = annotation.get("bbox"), annotation.get("iscrowd") in (1, True, "1", "true")
    outline, mended = None, ""
    try:
        outline = _outline(annotation.get("segmentation"))
    except LabelError as error:
        if not box:
            raise
        mended = f"have an outline that cannot be used, so their box alone counts ({error})"
    if box:
        x, y, width, height = numbers(box, "bbox", count=4)
        if 0.0 not in (width, height):
            whole = Box(x, y, x + width, y + height)
            return Item(name, whole, outline, crowd, trust=_trust(annotation), line=line, mended=mended)
    elif outline is None:
        raise LabelError("has neither a bbox nor a segmentation")
    if outline is None or _is_empty(outline):
        return Item(name, Box(0, 0, 0, 0), crowd=crowd, line=line, empty=True)
    return Item(name, outline, None, crowd, trust=_trust(annotation), line=line)


def _is_empty(outline: Region) -> bool:
    if outline.rle is not None:
        return runs.bounds(outline.rle) is None
    return all(len({*ring[0::2]}) < 2 or len({*ring[1::2]}) < 2 for ring in outline.polygons)


def _trust(annotation: dict[str, Any]) -> float:
    """Return the score of a result; annotations of people have none."""
    score = annotation.get("score")
    return 1.0 if score is None else min(max(number(score, "score"), 0.0), 1.0)


def _outline(segmentation: Any) -> Region | None:
    """Return what a `segmentation` entry holds; None where it is empty."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return Region(tuple(numbers(ring, "polygon") for ring in rings))
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise LabelError("segmentation is neither a list of polygons nor a run-length mask with `size` and `counts`")
    height, width = (int(v) for v in numbers(segmentation["size"], "size", count=2))
    counts, shown_bytes = segmentation["counts"], False
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        counts, shown_bytes = counts[2:-1].replace("\\\\", "\\"), True
    try:
        parsed = runs.parse_counts(counts) if isinstance(counts, str) else _whole(counts)
        mask = Rle(height, width, parsed)
        runs.check_runs(mask)
    except LabelError as error:
        if not shown_bytes:
            raise
        raise LabelError(
            f"`counts` is Python's way to show bytes, b'...', written as text, and what is inside does not fit: "
            f"{error}; write counts.decode()"
        ) from error
    return Region(rle=mask)


def _whole(counts: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in numbers(counts, "counts"))
