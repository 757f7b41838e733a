"""labelme's JSON files, one for each photo, as people have them and as they are written."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.formats.labelme import write_photos
from hintseg.hints import read_hints, recognise
from hintseg.hints.convert import writer
from hintseg.hints.masks import read_mask
from hintseg.types import IGNORE, Box, Click, Hints, HintSet, Mark, Photo, Region, Stroke, Tags
from label_sets import NAMES, full_set, outline_of, photo_files, same_marks, same_masks, same_tags

SQUARE = [[4, 5], [14, 5], [14, 17], [4, 17]]
CORNERS = Box(4.0, 5.0, 14.0, 17.0)


def shape(kind: str | None = "polygon", points: Any = None, label: str = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": SQUARE if points is None else points, "shape_type": kind, "flags": {}, **more}


def png(pixels: Any) -> str:
    data = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def put(folder: Path, name: str, *shapes: dict[str, Any], photo: str | None = "", **more: Any) -> Path:
    """Write a labelme file, and its photo of 40 x 30 pixels beside it, called `photo`; None: none."""
    image = Path(name).stem + ".png"
    if photo is not None:
        photo_files((folder / name).parent, photo or image)
    content: dict[str, object] = {
        "version": "5.2.1",
        "flags": {},
        "shapes": [*shapes],
        "imagePath": image,
        "imageData": None,
    }
    file = (folder / name).with_suffix(".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**content, "imageHeight": 30, "imageWidth": 40, **more}))
    return folder


def marks(hint_set: HintSet, photo: str = "a") -> tuple[Mark[Any], ...]:
    return next(one.hints.marks for one in hint_set.photos if one.id == photo)


def tags(hint_set: HintSet, photo: str = "a") -> set[str] | None:
    said = next(one.hints.tags for one in hint_set.photos if one.id == photo)
    return None if said is None else {hint_set.classes[label - 1] for label in said}


class TestShapes:
    def test_all_of_them(self, tmp_path: Path) -> None:
        put(
            tmp_path,
            "a",
            shape("rectangle", [[14, 17], [4, 5]]),
            shape("rectangle", SQUARE, "dog"),
            shape("point", [[3.5, 4]]),
            shape("points", [[1, 2], [3, 4]]),
            shape("line", [[1, 1], [9, 9]]),
            shape("linestrip", [[1, 1], [9, 9], [9, 1]], "dog"),
        )
        assert marks(read_hints(tmp_path)) == (
            Mark(1, CORNERS, 1),
            Mark(2, CORNERS, 2),
            Mark(1, Click(3.5, 4.0)),
            Mark(1, Click(1.0, 2.0)),
            Mark(1, Click(3.0, 4.0)),
            Mark(1, Stroke((1.0, 1.0, 9.0, 9.0))),
            Mark(2, Stroke((1.0, 1.0, 9.0, 9.0, 9.0, 1.0))),
        )

    def test_a_stroke_that_leaves_the_photo_and_comes_back_is_two(self, tmp_path: Path) -> None:
        lines = [shape("linestrip", [[1, n], [9, n]]) for n in range(3)]
        put(tmp_path, "a", *lines, shape("linestrip", [[35, 5], [45, 5], [45, 9], [35, 9]], "dog"))
        found = read_hints(tmp_path)
        assert marks(found)[3:] == (Mark(2, Stroke((35, 5, 40, 5))), Mark(2, Stroke((40, 9, 35, 9))))
        assert any("1 of 4 annotations in" in note and "are cut off" in note for note in found.notes)

    @pytest.mark.parametrize("kind", ["polygon", None, "oriented_rectangle", "rotation"])
    def test_outlines(self, tmp_path: Path, kind: str | None) -> None:
        found = read_hints(put(tmp_path, "a", shape(kind)))
        assert marks(found) == (Mark(1, CORNERS, 1),)
        assert found.photos[0].truth == (Mark(1, Region(((4.0, 5.0, 14.0, 5.0, 14.0, 17.0, 4.0, 17.0),)), 1),)

    def test_a_circle(self, tmp_path: Path) -> None:
        found = read_hints(put(tmp_path, "a", shape("circle", [[20, 15], [26, 23]])))
        mask = read_mask(found.photos[0])
        assert mask is not None
        y, x = np.mgrid[:30, :40]
        np.testing.assert_array_equal(mask, (x + 0.5 - 20) ** 2 + (y + 0.5 - 15) ** 2 <= 100)

    def test_a_mask_is_a_part_of_the_picture(self, tmp_path: Path) -> None:
        part = np.zeros((6, 4), bool)
        part[1:, 2:] = True
        found = read_hints(put(tmp_path, "a", shape("mask", [[10, 20], [13, 25]], mask=png(part))))
        whole = np.zeros((30, 40), np.uint8)
        whole[21:26, 12:14] = 1
        np.testing.assert_array_equal(read_mask(found.photos[0]), whole)
        over = read_hints(put(tmp_path, "a", shape("mask", [[-2, -1], [1, 4]], mask=png(part))))
        whole[:] = 0
        whole[0:5, 0:2] = 1
        np.testing.assert_array_equal(read_mask(over.photos[0]), whole)

    @pytest.mark.parametrize(
        ("bad", "part"),
        [
            (shape("mask", [[1, 1], [2, 2]], mask="xx"), "its mask cannot be read"),
            (shape("mask", [[1, 1], [2, 2]], mask=png(np.ones((99, 99), bool))), "99 x 99 pixels, the picture 40 x 30"),
            (shape("polygon", [[1, 1], [2, 2]]), "a polygon has 4 numbers"),
            (shape("polygon", [[1, "x"]]), "not a number"),
            (shape("circle", [[1, 1]]), "a circle has 1 points; 2 are needed"),
            (shape("cuboid", SQUARE), "is of the type 'cuboid', which is not read"),
            (shape("polygon", []), "has no points"),
        ],
    )
    def test_a_bad_one_does_not_cost_the_others(self, tmp_path: Path, bad: dict[str, Any], part: str) -> None:
        put(tmp_path, "a", shape())
        put(tmp_path, "b", shape(), shape("rectangle", [[1, 1], [9, 9]]), bad)
        found = read_hints(tmp_path)
        assert len(marks(found, "b")) == 2
        assert any(f"1 of 4 annotations in the labelme files of {tmp_path.name}" in note for note in found.notes)
        assert any(part in note for note in found.notes)

    def test_a_group_is_one_object(self, tmp_path: Path) -> None:
        far = [[20, 20], [30, 20], [30, 28]]
        click = shape("point", [[5, 6]], group_id=7)
        parts = shape(group_id=7), shape("polygon", far, group_id=7), shape("polygon", far, "dog", group_id=7)
        put(tmp_path, "a", *parts, click)
        found = read_hints(tmp_path)
        assert marks(found) == (
            Mark(1, Box(4.0, 5.0, 30.0, 28.0), 1),
            Mark(2, Box(20.0, 20.0, 30.0, 28.0), 2),
            Mark(1, Click(5.0, 6.0), 1),
        )
        truth = found.photos[0].truth
        assert isinstance(truth, tuple)
        assert len(outline_of(truth[0]).polygons) == 2

    def test_ignored_and_background(self, tmp_path: Path) -> None:
        far = shape("polygon", [[20, 20], [30, 20], [30, 28]], "dog")
        put(tmp_path, "a", shape(label="__ignore__"), shape("point", [[1, 1]], "_background_"), far)
        found = read_hints(tmp_path)
        assert found.classes == ("dog",)
        assert marks(found) == (
            Mark(IGNORE, CORNERS),
            Mark(0, Click(1.0, 1.0)),
            Mark(1, Box(20.0, 20.0, 30.0, 28.0), 1),
        )
        mask = read_mask(found.photos[0])
        assert mask is not None
        assert (mask == IGNORE).sum() == 120
        assert {*np.unique(mask).tolist()} == {0, 1, IGNORE}


class TestPhotos:
    @pytest.mark.parametrize(
        ("file", "image", "photo"),
        [
            ("a.json", "a.png", "a.png"),
            ("a.json", r"..\images\a.png", "a.png"),
            ("a.json", r"C:\Users\x\photos\a.png", "a.png"),
            ("a.json", "/home/x/a.png", "a.png"),
            ("a.json", "other.png", "a.png"),
            ("ann/a.json", "../images/sub/a.png", "images/sub/a.png"),
            ("json/sub/a.json", "a.png", "images/sub/a.png"),
            ("images/sub/a.json", "a.png", "images/sub/a.png"),
            ("a.json", "A.PNG", "a.png"),
            ("a.json", "a.jpg", "a.png"),
        ],
    )
    def test_they_are_found(self, tmp_path: Path, file: str, image: str, photo: str) -> None:
        photo_files(tmp_path, photo)
        put(tmp_path, file, shape(), photo=None, imagePath=image)
        assert recognise(tmp_path) == "labelme"
        assert len(read_hints(tmp_path).photos[0].hints.marks) == 1

    def test_equal_names_in_two_folders(self, tmp_path: Path) -> None:
        put(put(tmp_path, "one/a", shape()), "two/a", shape(label="dog"))
        found = read_hints(tmp_path)
        assert [tags(found, f"{name}/a") for name in ("one", "two")] == [{"cat"}, {"dog"}]

    def test_two_photos_that_a_file_may_mean_are_asked_about(self, tmp_path: Path) -> None:
        photo_files(tmp_path, "b.png")
        put(tmp_path, "a", shape(), imagePath="b.png")
        with pytest.raises(LabelError, match=r"names the photo 'b.png', but there is a photo a beside it"):
            read_hints(tmp_path)

    def test_another_size_than_the_file_says(self, tmp_path: Path) -> None:
        put(tmp_path, "a", shape(points=[[8, 10], [28, 10], [28, 34]]), imageHeight=60, imageWidth=80)
        found = read_hints(tmp_path)
        assert marks(found) == (Mark(1, CORNERS, 1),)
        assert any("drawn on 80 x 60, the photos are 40 x 30 now" in note for note in found.notes)
        put(tmp_path, "a", shape(), imageHeight=60, imageWidth=40)
        with pytest.raises(LabelError, match="but the file says 40 x 60"):
            read_hints(tmp_path)

    def test_photos_inside_the_files_are_written_out(self, tmp_path: Path) -> None:
        inside = png(np.full((30, 40, 3), 7, np.uint8))
        put(tmp_path, "a", shape(), photo=None, imageData=inside, imagePath="../x/a.jpg")
        with pytest.raises(LabelError, match=r"1 photos are not there but inside .* \(a.json\)") as caught:
            read_hints(tmp_path)
        _, _, command = str(caught.value).partition("with: python ")
        subprocess.run([sys.executable, *command.split()], check=True)
        assert [file.name for file in tmp_path.iterdir() if file.suffix != ".json"] == ["a.png"]
        assert marks(read_hints(tmp_path)) == (Mark(1, CORNERS, 1),)
        assert write_photos(tmp_path) == []
        put(tmp_path, "b", shape(), photo=None, imageData=inside)
        with pytest.raises(LabelError, match=r"inside their labelme files \(b.json\)"):
            read_hints(tmp_path)
        assert len(marks(read_hints(tmp_path, missing="skip"))) == 1

    def test_files_that_are_cut_off_are_all_named(self, tmp_path: Path) -> None:
        put(put(put(tmp_path, "a", shape()), "b", shape()), "c", shape())
        for name in "bc":
            (tmp_path / f"{name}.json").write_text('{"shapes": [')
        with pytest.raises(LabelError, match=r"(?s)2 problems.*b.json is no valid JSON.*c.json is no valid JSON"):
            read_hints(tmp_path, format="labelme")

    def test_other_json_files_beside_them(self, tmp_path: Path) -> None:
        put(tmp_path, "a", shape())
        (tmp_path / "settings.json").write_text('{"colour": 3}')
        found = read_hints(tmp_path)
        assert any("1 JSON files are not of labelme and left out: settings.json" in note for note in found.notes)


class TestFlags:
    def test_flags_alone_are_tags(self, tmp_path: Path) -> None:
        put(tmp_path, "a", flags={"cat": True, "dog": False})
        put(tmp_path, "b", flags={"cat": False, "dog": False})
        found = read_hints(tmp_path)
        assert (found.classes, tags(found), tags(found, "b")) == (("cat",), {"cat"}, set())

    def test_flags_about_the_photo_are_no_classes(self, tmp_path: Path) -> None:
        put(tmp_path, "a", shape(), flags={"blurry": True})
        found = read_hints(tmp_path)
        assert (found.classes, tags(found)) == (("cat",), {"cat"})
        assert any("the flags blurry are taken for properties" in note for note in found.notes)
        (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\nblurry\n")
        found = read_hints(tmp_path)
        assert (found.classes, tags(found)) == (("cat", "blurry"), {"cat", "blurry"})

    def test_no_shape_is_a_negative_and_no_file_is_unlabelled(self, tmp_path: Path) -> None:
        photo_files(tmp_path, "c.png")
        put(put(tmp_path, "a", shape()), "b")
        found = read_hints(tmp_path)
        assert [tags(found, name) for name in "abc"] == [{"cat"}, set(), None]


def read_back(hint_set: HintSet, root: Path, out: Path) -> tuple[HintSet, tuple[str, ...]]:
    written = writer("labelme").write(hint_set, out)
    assert recognise(root, written.labels) == "labelme"
    return read_hints(root, written.labels, background=hint_set.background), written.lost


class TestWriting:
    @pytest.mark.parametrize("background", [True, False])
    def test_what_is_written_is_read_again(self, tmp_path: Path, background: bool) -> None:
        hint_set = full_set(tmp_path / "photos", background=background, strokes=True)
        again, lost = read_back(hint_set, tmp_path / "photos", tmp_path / "out")
        assert (again.classes, lost) == (NAMES, ())
        same_marks(hint_set, again)
        same_masks(hint_set, again)
        same_tags(hint_set, again, without=())

    def test_beside_the_photos_too(self, tmp_path: Path) -> None:
        hint_set = full_set(tmp_path / "photos")
        writer("labelme").write(hint_set, tmp_path / "photos")
        same_marks(hint_set, read_hints(tmp_path / "photos"))

    def test_one_class_clicks_of_objects_trust_and_areas_to_be_ignored(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        own = (
            Mark(1, Box(1.0, 1.0, 9.0, 9.0), 1, trust=0.5),
            Mark(1, Box(1.0, 1.0, 9.5, 9.0), 2),
            Mark(1, Click(5.0, 5.0), 2),
            Mark(IGNORE, Box(2.0, 2.0, 5.0, 5.0)),
        )
        hint_set = HintSet("x", ("cat",), (Photo("a", path, Hints(None, own)),))
        again, lost = read_back(hint_set, path.parent, tmp_path / "out")
        assert (again.classes, again.photos[0].hints.marks, lost) == (("cat",), own, ())

    def test_what_is_lost_is_said(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        hints = Hints(Tags(frozenset({1}), frozenset()), (Mark(1, Stroke((1.0, 1.0, 9.0, 9.0), 5.0)),))
        hint_set = HintSet("x", ("cat", "dog"), (Photo("a", path, hints),), {"train": ("a",)})
        _, lost = read_back(hint_set, path.parent, tmp_path / "out")
        assert lost == (
            "1 photos say of some classes that nothing is known; labelme says that they are not there",
            "1 strokes have a width, which is left out",
            "1 splits are left out",
        )
