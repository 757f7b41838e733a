"""JSON of the VGG Image Annotator as people have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hintseg.errors import LabelError
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Box, Click, HintSet, Mark, Region, Stroke
from label_sets import photo_files

RECT = {"name": "rect", "x": 4, "y": 5, "width": 10, "height": 12}
CORNERS = Box(4.0, 5.0, 14.0, 17.0)


def region(shape: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape or RECT, "region_attributes": attributes}


def entry(name: str, *regions: dict[str, Any], size: int = 99, **attributes: Any) -> dict[str, Any]:
    return {f"{name}{size}": {"filename": name, "size": size, "regions": [*regions], "file_attributes": attributes}}


def put(folder: Path, *entries: dict[str, Any], name: str = "via_region_data.json", project: bool = False) -> Path:
    photo_files(folder / "images", "a.png", "b.png", "c.png")
    content = {key: one for part in entries for key, one in part.items()}
    whole = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {"region": {}}}
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(whole if project else content))
    return folder


def marks(hint_set: HintSet, photo: str = "a") -> tuple[Mark[Any], ...]:
    return next(one.hints.marks for one in hint_set.photos if one.id == photo)


def tags(hint_set: HintSet, photo: str = "a") -> set[str] | None:
    said = next(one.hints.tags for one in hint_set.photos if one.id == photo)
    return None if said is None else {hint_set.classes[label - 1] for label in said}


@pytest.mark.parametrize("project", [False, True])
def test_all_shapes(tmp_path: Path, project: bool) -> None:
    line = {"name": "polyline", "all_points_x": [1, 9, 9], "all_points_y": [1, 9, 1]}
    ring = {"name": "polygon", "all_points_x": [4, 14, 14], "all_points_y": [5, 5, 17]}
    one = entry(
        "a.png", region(type="cat"), region({"name": "point", "cx": 3, "cy": 4}, type="dog"), region(line, type="dog")
    )
    two = entry("b.png", region(ring, type="cat"))
    three = entry(
        "c.png", region({"name": "ellipse", "cx": 20, "cy": 15, "rx": 9, "ry": 4, "theta": np.pi / 2}, type="cat")
    )
    found = read_hints(put(tmp_path, one, two, three, project=project))
    assert recognise(tmp_path) == "via"
    assert marks(found) == (
        Mark(1, CORNERS, 1),
        Mark(2, Click(3.0, 4.0)),
        Mark(2, Stroke((1.0, 1.0, 9.0, 9.0, 9.0, 1.0))),
    )
    assert found.photos[1].truth == (Mark(1, Region(((4.0, 5.0, 14.0, 5.0, 14.0, 17.0),)), 1),)
    mask = read_mask(found.photos[2])
    assert mask is not None
    y, x = np.nonzero(mask)
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (16, 24, 6, 24)
    assert mask.sum() == pytest.approx(np.pi * 36, rel=0.05)


def test_version_1_has_regions_by_number(tmp_path: Path) -> None:
    one = {
        "a.png77": {
            "fileref": "",
            "size": 77,
            "filename": "",
            "regions": {"0": region(name="cat"), "1": region(name="dog")},
        }
    }
    found = read_hints(put(tmp_path, one))
    assert (found.classes, len(marks(found))) == (("cat", "dog"), 2)


@pytest.mark.parametrize(
    ("attributes", "classes"),
    [
        ([{"label": "cat", "colour": "red"}, {"label": "dog", "colour": "blue"}], ("cat", "dog")),
        ([{"animal_type": "cat", "truncated": "no"}, {"animal_type": "cat", "truncated": "no"}], ("cat",)),
        ([{"Classes": "cat", "id": "7"}, {"Classes": "dog", "id": "8"}], ("cat", "dog")),
        ([{"thing": "cat"}, {"thing": "dog", "note": "?"}], ("cat", "dog")),
        ([{"class": {"cat": True}}, {"class": {"dog": True, "cat": False}}], ("cat", "dog")),
        ([{"class": 7}, {"class": "cat"}], ("7", "cat")),
    ],
)
def test_which_attribute_is_the_class(
    tmp_path: Path, attributes: list[dict[str, Any]], classes: tuple[str, ...]
) -> None:
    found = read_hints(
        put(tmp_path, *(entry(f"{n}.png", region(**one)) for n, one in zip("ab", attributes, strict=True)))
    )
    assert found.classes == classes
    assert all(len(marks(found, name)) == 1 for name in "ab")


def test_several_boxes_ticked_are_several_classes_of_one_object(tmp_path: Path) -> None:
    found = read_hints(put(tmp_path, entry("a.png", region(type={"cat": True, "pet": True}))))
    assert marks(found) == (Mark(1, CORNERS, 1), Mark(2, CORNERS, 1))


def test_attributes_that_nothing_tells_apart_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"have the attributes 'colour' and 'form'; which is the class"):
        read_hints(put(tmp_path, entry("a.png", region(colour="red", form="round"))))


def test_regions_without_any_attribute_are_of_one_class(tmp_path: Path) -> None:
    found = read_hints(put(tmp_path, entry("a.png", region())))
    assert len(found.classes) == 1
    assert any(f"all is '{found.classes[0]}'; one line in classes.txt renames it" in note for note in found.notes)
    (tmp_path / "classes.txt").write_text("balloon\n")
    assert read_hints(tmp_path).classes == ("balloon",)
    (tmp_path / "classes.txt").write_text("balloon\nkite\n")
    with pytest.raises(LabelError, match=r"no attribute that names their class, but classes.txt lists 2"):
        read_hints(tmp_path)


def test_attributes_of_photos(tmp_path: Path) -> None:
    usual: dict[str, Any] = {"caption": "a cat", "public_domain": "no", "image_url": ""}
    one = entry("a.png", region(type="cat"), **usual, weather="sunny", animals={"cat": True, "cow": True})
    found = read_hints(put(tmp_path, one, entry("b.png"), entry("c.png", animals={"cow": True})))
    assert [tags(found, name) for name in "abc"] == [{"cat", "cow"}, set(), {"cow"}]
    assert any("the attribute 'weather' of photos (sunny) is taken for a property" in note for note in found.notes)
    assert any("1 photos have no region in via_region_data.json and count as negatives" in note for note in found.notes)


def test_tags_alone(tmp_path: Path) -> None:
    found = read_hints(put(tmp_path, entry("a.png", what="cat"), entry("b.png", what="")))
    assert [tags(found, name) for name in "abc"] == [{"cat"}, set(), None]


def test_splits_in_folders_with_equal_names(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val")):
        photo_files(tmp_path / split, "a.png")
        one = entry("a.png", region({**RECT, "x": number}, type="cat"))
        (tmp_path / split / "via_region_data.json").write_text(json.dumps(one))
    found = read_hints(tmp_path)
    assert dict(found.splits) == {"train": ("train/a",), "val": ("val/a",)}
    assert [marks(found, f"{split}/a")[0].shape.x0 for split in ("train", "val")] == [0, 1]


def test_bad_regions_do_not_cost_the_others(tmp_path: Path) -> None:
    bad = region({"name": "polygon", "all_points_x": [1], "all_points_y": [1, 2]}, type="cat"), region(type="")
    found = read_hints(put(tmp_path, entry("a.png", *[region({**RECT, "x": n}, type="cat") for n in range(6)], *bad)))
    assert len(marks(found)) == 6
    assert any("2 of 8 annotations in via_region_data.json are left out" in note for note in found.notes)
    with pytest.raises(LabelError, match="has no 'type'"):
        read_hints(put(tmp_path, entry("a.png", region(type="cat"), region(type=""))))


def test_version_3_and_foreign_files_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    three = {"project": {"pid": "1"}, "file": {"1": {"fname": "a.png"}}, "view": {"1": {"fid_list": ["1"]}}}
    (tmp_path / "via_region_data.json").write_text(json.dumps({**three, "metadata": {"1": {"vid": "1"}}}))
    with pytest.raises(LabelError, match="is a project of VIA 3, which is not read"):
        read_hints(tmp_path)
    (tmp_path / "via_region_data.json").write_text('{"a": 1}')
    with pytest.raises(LabelError, match="it must hold an object for each photo"):
        read_hints(tmp_path, tmp_path / "via_region_data.json", format="via")
