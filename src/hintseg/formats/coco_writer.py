"""Writing COCO instances JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hintseg.files.atomic import whole_file
from hintseg.formats.codec import Written
from hintseg.formats.drawn import Drawn, PhotoMarks, drawn
from hintseg.formats.gather import IGNORED
from hintseg.formats.photos import file_name
from hintseg.geometry import runs
from hintseg.types import BACKGROUND, IGNORE, HintSet, Region, Tags

SPLITS = ("train", "val", "test")
"""Splits that file names tell again when they are read."""

_TAGS = "photos have tags, but no box or mask; COCO cannot say that, and they are not listed"
_ABSENT = "photos have tags that COCO cannot hold: it says that exactly the classes of the objects are there"
_CROWDS = "areas to be ignored are written as crowds of one of their photo's classes"
_MASKS = "photos have a full mask that cannot be written"
_SILENT = "photos of the splits are not listed, as nothing that COCO holds is said of them"
_SPLITS = "splits are left out: they do not part the labelled photos into train, val and test"


def write_instances(hint_set: HintSet, out: Path) -> Written:
    """Write boxes and masks; see `codec.Writer.write`.

    Category ids are the class ids. Photos of which nothing is said are not listed: those without annotations are
    negatives. Polygons stay polygons; what is known by its pixels becomes run lengths.
    """
    lost: Counter[str] = Counter()
    listed = []
    for photo in hint_set.photos:
        found = drawn(photo, len(hint_set.classes))
        lost[_MASKS] += bool(found.wrong)
        if found.negative or any(one.box for one in found.drawn):
            listed.append(found)
        else:
            lost[_TAGS] += photo.hints.tags is not None
    files = _files(hint_set, listed)
    if len(files) == 1:
        lost[_SPLITS] += len(hint_set.splits)
    else:
        lost[_SILENT] += sum(map(len, hint_set.splits.values())) - len(listed)
    for name, some in files.items():
        with whole_file(out / name) as file:
            file.write(json.dumps(_content(hint_set.classes, some, lost), ensure_ascii=False).encode())
    said = tuple(f"{count} {what}" for what, count in lost.items() if count)
    return Written(out if len(files) > 1 else out / next(iter(files)), said)


def _files(hint_set: HintSet, listed: Sequence[PhotoMarks]) -> dict[str, list[PhotoMarks]]:
    """Return the photos of each file: one for each split, where every photo is in exactly one that has a known name."""
    members = {name: set(ids) for name, ids in hint_set.splits.items()}
    found = [[name for name, ids in members.items() if one.photo.id in ids] for one in listed]
    if len(members) < 2 or not set(members) <= set(SPLITS) or any(len(names) != 1 for names in found):
        return {"instances.json": [*listed]}
    return {
        f"instances_{split}.json": [one for one, names in zip(listed, found, strict=True) if names == [split]]
        for split in members
    }


def _content(classes: Sequence[str], listed: Sequence[PhotoMarks], lost: Counter[str]) -> dict[str, object]:
    images, annotations = list[dict[str, object]](), list[dict[str, object]]()
    extra = dict[int, str]()
    for number, one in enumerate(listed, start=1):
        size = {} if one.size is None else {"height": one.size[0], "width": one.size[1]}
        images.append({"id": number, "file_name": file_name(one.photo), **size})
        boxes = [found for found in one.drawn if found.box]
        shown = {found.mark.label for found in boxes} - {BACKGROUND, IGNORE}
        crowds = any(found.mark.label == IGNORE for found in boxes)
        tags = one.photo.hints.tags
        known = frozenset() if tags is None else tags.present
        crowd = min(known - shown or known or shown, default=len(classes) + 1)
        if crowds and crowd > len(classes):
            extra[crowd] = IGNORED
        elif crowds:
            lost[_CROWDS] += sum(found.mark.label == IGNORE for found in boxes)
            shown = shown | {crowd}
        if tags is not None and tags != Tags.complete(shown, len(classes)):
            lost[_ABSENT] += 1
        for found in boxes:
            label = crowd if found.mark.label == IGNORE else found.mark.label
            if label == BACKGROUND:
                extra[BACKGROUND] = "background"
            head = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
            annotations.append({**head, **_annotation(found)})
    names = [*enumerate(classes, start=1), *sorted(extra.items())]
    categories = [{"id": label, "name": name} for label, name in names]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(one: Drawn) -> dict[str, object]:
    x0, y0, x1, y1 = one.box.corners if one.box else (0.0, 0.0, 0.0, 0.0)
    found: dict[str, object] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(one.mark.label == IGNORE)}
    if one.mark.trust != 1.0:
        found["score"] = one.mark.trust
    if one.outline is None:
        return {**found, "area": (x1 - x0) * (y1 - y0), "segmentation": []}
    if one.outline.rle is None:
        return {**found, "area": _area(one.outline), "segmentation": [list(ring) for ring in one.outline.polygons]}
    rle = one.outline.rle
    counts = {"size": [rle.height, rle.width], "counts": runs.write_counts(rle.counts)}
    return {**found, "area": sum(rle.counts[1::2]), "segmentation": counts}


def _area(region: Region) -> float:
    """Return the area inside the rings, pixels."""
    total = 0.0
    for ring in region.polygons:
        xs, ys = ring[0::2], ring[1::2]
        following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
        total += abs(sum(x * b - a * y for x, y, (a, b) in zip(xs, ys, following, strict=True))) / 2
    return total
