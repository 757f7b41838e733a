"""Read real data sets in every form they lie in and compare what the forms say.

python benchmarks/real_data.py DATA

DATA holds the folders `msrc`, `coco-things` and `nuclei`. Ends with an AssertionError where two forms disagree.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from hintseg.hints import read_hints
from hintseg.hints.check import check
from hintseg.hints.masks import read_mask
from hintseg.types import Click


def msrc(data: Path) -> None:
    """Compare the tags of the masks with the table, and both with the published counts."""
    hint_set = read_hints(data / "msrc", background=False)
    assert len(hint_set.photos) == 591
    assert {name: len(ids) for name, ids in hint_set.splits.items()} == {"train": 355, "val": 236}
    train = set(hint_set.splits["train"])
    counts = Counter(t for photo in hint_set.photos if photo.id in train for t in photo.hints.tags or ())
    table = [90, 142, 87, 27, 21, 98, 18, 52, 34, 28, 18, 21, 20, 23, 21, 19, 101, 14, 18, 38, 22]
    assert [counts[k] for k in range(1, 22)] == table
    by_csv = read_hints(data / "msrc", data / "msrc" / "tags.csv", background=False)
    assert by_csv.photos == hint_set.photos
    report = check(hint_set)
    assert abs(report.multi_tag_share - 0.817) < 5e-4
    assert any("'aeroplane' never appears without 'grass', 'sky'" in verdict for verdict in report.verdicts)
    assert not report.unreadable
    assert not report.problems


def coco_things(data: Path) -> None:
    """Compare boxes and tags of three formats."""
    voc, coco = (read_hints(data / "coco-things", format=name) for name in ("voc", "coco"))
    assert len(voc.photos) == len(coco.photos) == 200
    assert voc.classes == coco.classes
    table = [11, 28, 19, 21, 85, 19, 85, 9, 94, 13, 42, 18, 7, 7, 517, 30, 1, 8, 6, 17]
    for hint_set in (voc, coco):
        objects = Counter(mark.label for p in hint_set.photos for mark in p.hints.objects)
        assert [objects[k] for k in range(1, 21)] == table
    assert sum(mark.label == 255 for p in coco.photos for mark in p.hints.marks) == 14
    assert [p.hints.tags for p in voc.photos] == [p.hints.tags for p in coco.photos]
    tags_csv = read_hints(data / "coco-things", format="csv")
    assert [p.hints.tags for p in tags_csv.photos] == [p.hints.tags for p in coco.photos]


def nuclei(data: Path) -> None:
    """Compare boxes and points of three formats."""
    voc, coco, points = (read_hints(data / "nuclei", format=name) for name in ("voc", "coco", "points"))
    assert sum(len(p.hints.objects) for p in voc.photos) == 6495
    assert sum(len(p.hints.objects) for p in coco.photos) == 6495
    assert sum(len(p.hints.shaped(Click)) for p in points.photos) == 6495
    assert {name: len(ids) for name, ids in points.splits.items()} == {"train": 82, "val": 38}
    for one, other in zip(voc.photos, coco.photos, strict=True):
        corners = [sorted(mark.shape.corners for mark in photo.hints.objects) for photo in (one, other)]
        assert corners[0] == corners[1]


def painted(data: Path, name: str, least: float) -> None:
    """Compare painted outlines with masks that other code made from the same annotations."""
    by_mask, by_outline = read_hints(data / name, format="voc"), read_hints(data / name, format="coco")
    same = known = 0
    for one, other in zip(by_mask.photos[::4], by_outline.photos[::4], strict=True):
        assert one.id == other.id
        mask, painted = read_mask(one, n_classes=20), read_mask(other, n_classes=20)
        assert mask is not None
        assert painted is not None
        same += int(((mask == painted) & (mask != 255)).sum())
        known += int((mask != 255).sum())
    assert same / known >= least


def main() -> None:
    """Compare all."""
    data = Path(sys.argv[1])
    msrc(data)
    coco_things(data)
    nuclei(data)
    painted(data, "coco-things", 0.999)
    painted(data, "nuclei", 1.0)
    print("all forms agree")


if __name__ == "__main__":
    main()
