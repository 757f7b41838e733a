"""COCO instances JSON: boxes, polygons, run-length masks and crowds.

Category ids become 1..K in the order of the ids. Photos in the JSON without annotations are negatives. Boxes `[x, y,
width, height]` become (x0, y0, x1, y1). A photo's tags are the classes of its objects that are no crowd.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, shown
from hintseg.files.parse import is_file, read_json
from hintseg.formats.codec import Fit, holds
from hintseg.formats.layout import Found, assemble, boxes_and_truth, check_classes, is_background, read_splits
from hintseg.formats.photos import PhotoFolder, find_photos, size_or_none
from hintseg.formats.problems import Problems
from hintseg.geometry import runs
from hintseg.geometry.boxes import fit_box
from hintseg.types import Box, HintSet, Region, Rle, Supervision

PLACES = ("instances*.json", "annotations/instances*.json", "*/_annotations.coco.json", "*.json", "annotations/*.json")
"""Where the files are looked for below the data set's folder; the first that fits counts."""

OPENED = 500
"""Photos of a file, spread evenly, whose own size is compared with the stated one."""

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

    def read(
        self, path: Path, labels: Path | None, *, unlabelled: int | None = None, background: bool = True
    ) -> HintSet:
        """Read COCO instances; several files (such as instances_train.json and instances_val.json) become splits.

        Args:
            path: Folder of the data set.
            labels: The JSON file or the folder of them; None looks in `PLACES`.
            unlabelled: Not used; this format has no index images.
            background: Whether pixels may belong to no class.

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
        folder = find_photos(path)
        classes, ids = _classes(contents, problems, notes, background=background)
        problems.raise_all()
        objects: dict[str, list[Found]] = {}
        parts: dict[str, tuple[str, ...]] = {}
        for file, content in contents.items():
            found = _Reader(file, content, folder, ids, problems).objects(notes)
            for photo in found.keys() & objects.keys():
                problems.add(file.name, f"photo '{photo}' is also in another of the label files")
            objects |= found
            places = [(name, word) for name in (file.name, file.parent.name) for word in _SPLIT_WORDS]
            word = next((word for name, word in places if word in name), file.stem)
            parts[word] = (*parts.get(word, ()), *sorted(found))
        splits = parts if len(files) > 1 else read_splits(path, folder, problems)
        source = ", ".join(file.name for file in files)
        hints, truth = boxes_and_truth(objects, len(classes))
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source=source,
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )


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


def _classes(
    contents: dict[Path, dict[str, Any]], problems: Problems, notes: list[str], *, background: bool
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the class names and the class id 1..K of every category id; all files must agree."""
    first: dict[Any, str] = {}
    for number, (file, content) in enumerate(contents.items()):
        own: dict[Any, str] = {}
        names: set[str] = set()
        for item in content["categories"]:
            if (
                not isinstance(item, dict)
                or not isinstance(item.get("id"), int)
                or not str(item.get("name", "")).strip()
            ):
                problems.add(file.name, f"category {shown(item)} needs a whole number `id` and a `name`")
                continue
            name = str(item["name"]).strip()
            if item["id"] in own or name in names:
                problems.add(file.name, f"category {shown(item['id'])} '{shown(name)}' occurs twice")
            own[item["id"]] = name
            names.add(name)
        if number == 0:
            first = own
        for id_ in sorted(own.items() ^ first.items()):
            problems.add(file.name, f"category {shown(id_[0])} '{shown(id_[1])}' is not the same in all label files")
    if background:
        zero = {id_ for id_, name in first.items() if is_background(name)}
        notes.extend(f"category {shown(id_)} '{first.pop(id_)}' is background and no class" for id_ in zero)
    order = sorted(first)
    classes = tuple(first[id_] for id_ in order)
    check_classes(classes, ", ".join(file.name for file in contents), problems)
    if order != list(range(1, len(order) + 1)):
        some = ", ".join(f"{shown(id_)} -> {new}" for new, id_ in enumerate(order[:4], start=1))
        notes.append(f"category ids are mapped to 1..{len(order)} in their order: {some}, ...")
    return classes, {id_: new for new, id_ in enumerate(order, start=1)}


class _Reader:
    """Reads one JSON file."""

    def __init__(
        self, file: Path, content: dict[str, Any], folder: PhotoFolder, ids: dict[Any, int], problems: Problems
    ) -> None:
        self.where = file.name
        self.content = content
        self.folder = folder
        self.ids = ids
        self.problems = problems

    def objects(self, notes: list[str]) -> dict[str, list[Found]]:
        """Return the objects of all photos the file lists."""
        photos = self._photos()
        boxes: dict[Any, list[Found]] = defaultdict(list)
        empty = 0
        for item in self.content["annotations"]:
            line = f"annotation {shown(item.get('id', '?'))}"
            image, category = item.get("image_id"), item.get("category_id")
            if not isinstance(image, int | str) or image not in photos:
                self.problems.add(self.where, f"{line}: image_id {shown(image)} is not in `images`")
                continue
            if not isinstance(category, int) or category not in self.ids:
                known = ", ".join(shown(id_) for id_ in list(self.ids)[:5])
                self.problems.add(
                    self.where, f"{line}: category_id {shown(category)} is not in `categories` ({known}, ...)"
                )
                continue
            try:
                box = self._box(item, self.ids[category], photos[image][1])
            except LabelError as error:
                self.problems.add(self.where, f"{line}: {error}")
                continue
            if box is None:
                empty += 1
            else:
                boxes[image].append(box)
        if empty:
            notes.append(f"{empty} annotations without any area in {self.where} are left out")
        return {photo: boxes[image] for image, (photo, _) in photos.items() if photo is not None}

    def _photos(self) -> dict[Any, tuple[str | None, tuple[int, int] | None]]:
        """Return the photo id and (height, width) of every image id."""
        photos: dict[Any, tuple[str | None, tuple[int, int] | None]] = {}
        seen: dict[str, Any] = {}
        every = max(1, len(self.content["images"]) // OPENED)
        for number, item in enumerate(self.content["images"]):
            image, name = item.get("id"), item.get("file_name")
            line = f"image {shown(image)}"
            if not isinstance(image, int | str) or not isinstance(name, str) or not name:
                self.problems.add(self.where, f"image {shown(item)} needs an `id` and a `file_name`")
                continue
            if image in photos:
                self.problems.add(self.where, f"{line}: this id occurs twice in `images`")
            photo = self.folder.locate(name, self.problems, self.where, line)
            if photo is not None and photo in seen:
                self.problems.add(self.where, f"{line}: '{shown(name)}' is also image {shown(seen[photo])}")
            if photo is not None:
                seen.setdefault(photo, image)
            height, width = item.get("height"), item.get("width")
            size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            if photo is not None and (size is None or number % every == 0):
                own = size_or_none(self.folder.paths[photo])
                if size is not None and own is not None and size != own:
                    self.problems.add(
                        self.where,
                        f"{line}: '{shown(name)}' is {own[1]} x {own[0]} pixels (EXIF applied), but the file says "
                        f"{shown(width)} x {shown(height)}; its boxes would lie elsewhere: give the photos they were "
                        "drawn on, or scale the boxes",
                    )
                size = size or own
            photos.setdefault(image, (photo, size))
        return photos

    def _box(self, item: dict[str, Any], label: int, size: tuple[int, int] | None) -> Found | None:
        """Return one object, or None where it has no area."""
        outline = _outline(item.get("segmentation"), size)
        corners: tuple[float, float, float, float] | None = None
        if item.get("bbox"):
            x, y, width, height = _numbers(item["bbox"], "bbox", count=4)
            if 0.0 in (width, height):
                return None
            corners = (x, y, x + width, y + height)
        elif outline is not None and outline.rle is not None:
            corners = runs.bounds(outline.rle)
        elif outline is not None:
            xs = [v for ring in outline.polygons for v in ring[0::2]]
            ys = [v for ring in outline.polygons for v in ring[1::2]]
            corners = (min(xs), min(ys), max(xs), max(ys))
        else:
            raise LabelError("has neither a bbox nor a segmentation")
        if corners is None:
            return None
        return Found(label, Box(*fit_box(corners, size)), outline, crowd=bool(item.get("iscrowd", 0)))


def _outline(segmentation: Any, size: tuple[int, int] | None) -> Region | None:
    """Return what a `segmentation` entry holds; None where it is empty."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        rings = [segmentation] if isinstance(segmentation[0], int | float) else segmentation
        polygons = tuple(_numbers(ring, "polygon") for ring in rings)
        for ring in polygons:
            if len(ring) < 6 or len(ring) % 2:
                raise LabelError(f"a polygon has {len(ring)} numbers; at least 3 points (x, y) are needed")
        return Region(polygons)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise LabelError("segmentation is neither a list of polygons nor a run-length mask with `size` and `counts`")
    height, width = (int(v) for v in _numbers(segmentation["size"], "size", count=2))
    counts = segmentation["counts"]
    parsed = runs.parse_counts(counts) if isinstance(counts, str) else tuple(int(v) for v in _numbers(counts, "counts"))
    mask = Rle(height, width, parsed)
    runs.check_runs(mask)
    if size is not None and (height, width) != tuple(size):
        raise LabelError(f"the run-length mask is {width} x {height}, but its image is {size[1]} x {size[0]}")
    return Region(rle=mask)


def _numbers(values: Any, name: str, count: int | None = None) -> tuple[float, ...]:
    """Return a list of numbers from the JSON, checked."""
    if not isinstance(values, list) or not all(isinstance(v, int | float) and abs(v) <= LARGEST for v in values):
        raise LabelError(f"{name} {shown(values)} holds something that is not a number of at most {LARGEST:,}")
    if count is not None and len(values) != count:
        raise LabelError(f"{name} has {len(values)} numbers; {count} are needed")
    return tuple(float(v) for v in values)
