"""Create ML's JSON as people have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hintseg.errors import LabelError
from hintseg.hints import read_hints, recognise
from hintseg.types import Box, HintSet, Mark
from label_sets import photo_files


def mark(label: str = "cat", **place: Any) -> dict[str, Any]:
    return {"label": label, "coordinates": {"x": 9, "y": 11, "width": 10, "height": 12, **place}}


def put(folder: Path, *entries: dict[str, Any]) -> Path:
    photo_files(folder / "images", "a.png", "b.png", "c.png")
    (folder / "annotations.json").write_text(json.dumps([*entries]))
    return folder


def marks(hint_set: HintSet, photo: str = "a") -> tuple[Mark[Any], ...]:
    return next(one.hints.marks for one in hint_set.photos if one.id == photo)


def tags(hint_set: HintSet, photo: str = "a") -> set[str] | None:
    said = next(one.hints.tags for one in hint_set.photos if one.id == photo)
    return None if said is None else {hint_set.classes[label - 1] for label in said}


@pytest.mark.parametrize("keys", [("image", "annotations"), ("imagefilename", "annotation")])
def test_boxes_by_their_centre(tmp_path: Path, keys: tuple[str, str]) -> None:
    name, list_ = keys
    first = {name: "a.png", list_: [mark(), mark("dog", x="20.5", width=3)]}
    found = read_hints(put(tmp_path, first, {name: "b.png", list_: []}))
    assert recognise(tmp_path) == "createml"
    assert marks(found) == (Mark(1, Box(4.0, 5.0, 14.0, 17.0), 1), Mark(2, Box(19.0, 5.0, 22.0, 17.0), 2))
    assert [tags(found, one) for one in "abc"] == [{"cat", "dog"}, set(), None]


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "a.png", "label": "cat"},
        {"image": "a.png", "annotation": "cat"},
        {"image": "a.png", "annotations": ["cat"]},
        {"image": "a.png", "annotations": [{"label": "cat"}]},
    ],
)
def test_labels_of_photos(tmp_path: Path, entry: dict[str, Any]) -> None:
    found = read_hints(put(tmp_path, entry, {**entry, "image": "sub/../b.png"}))
    assert (found.classes, tags(found), marks(found)) == (("cat",), {"cat"}, ())


def test_splits_of_roboflow(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        photo_files(tmp_path / split, "a.png")
        text = json.dumps([{"image": "a.png", "annotations": [mark(x=9 + number)]}])
        (tmp_path / split / "_annotations.createml.json").write_text(text)
    found = read_hints(tmp_path)
    assert {name: len(ids) for name, ids in found.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert [marks(found, f"{split}/a")[0].shape.x0 for split in ("train", "valid", "test")] == [4, 5, 6]


def test_bad_ones_do_not_cost_the_others(tmp_path: Path) -> None:
    bad = [{"label": "", "coordinates": {}}, mark(width=None), {"coordinates": {"x": 1}}]
    found = read_hints(put(tmp_path, {"image": "a.png", "annotations": [*[mark(x=9 + n) for n in range(6)], *bad]}))
    assert len(marks(found)) == 6
    assert any("3 of 9 annotations in annotations.json are left out" in note for note in found.notes)


def test_what_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"image": "a.png", "annotations": [mark(x=0.5, y=0.5, width=0.2, height=0.2)]})
    with pytest.raises(LabelError, match="all coordinates are between 0 and 1"):
        read_hints(tmp_path)
    put(tmp_path, {"annotations": [mark()]}, {"image": "zzz.png", "annotations": []})
    with pytest.raises(LabelError, match=r"(?s)entry 1 names no photo.*there is no photo 'zzz.png'"):
        read_hints(tmp_path)
    (tmp_path / "annotations.json").write_text('[1, "image"]')
    with pytest.raises(LabelError, match="it must be a list of photos"):
        read_hints(tmp_path, tmp_path / "annotations.json", format="createml")
