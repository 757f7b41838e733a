"""CVAT for images 1.1, both ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelformat.formats.coco import COCOObjectDetectionInput
from labelformat.formats.cvat import CVATObjectDetectionInput, CVATObjectDetectionOutput
from labelformat.model.bounding_box import BoundingBoxFormat
from PIL import Image
from pycocotools import mask as coco_mask

from hintseg.errors import LabelError
from hintseg.formats.cvat import Cvat
from hintseg.geometry import runs
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import BACKGROUND, IGNORE, Box, Click, Hints, HintSet, Mark, MaskFile, Region, Shape, Stroke, Tags
from round_trip import CLASSES, NAMES, SIZE, boxes_of, coordinates, disc, many_of, photo_of, same, tagged

REFERENCE = Path(__file__).parent / "reference" / "formats"


def export(
    folder: Path, *images: str, labels: str = "cat dog", scope: str = "task", name: str = "annotations.xml"
) -> Path:
    listed = "".join(f"<label><name>{one}</name><color>#ff0000</color></label>" for one in labels.split())
    meta = f"<meta><{scope}><labels>{listed}</labels></{scope}></meta>" if labels else ""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<?xml version='1.0'?><annotations><version>1.1</version>{meta}{''.join(images)}</annotations>")
    return file


def image(name: str, *shapes: str, size: str = 'width="60" height="40"', more: str = "") -> str:
    return f'<image id="0" name="{name}" {size} {more}>{"".join(shapes)}</image>'


def shape(kind: str, label: str = "cat", **values: Any) -> str:
    given = "".join(f' {name}="{value}"' for name, value in values.items())
    attribute = '<attribute name="x">y</attribute>'
    return f'<{kind} label="{label}" source="manual" occluded="1"{given} z_order="0">{attribute}</{kind}>'


def box(x0: Any, y0: Any, x1: Any, y1: Any, label: str = "cat", **values: Any) -> str:
    return shape("box", label, xtl=x0, ytl=y0, xbr=x1, ybr=y1, **values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (90, 120, 30)).save(tmp_path / "images" / name)
    return tmp_path


def refusal(*place: Any, **settings: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(*place, **settings)
    return str(caught.value)


def noted(hint_set: HintSet, text: str) -> bool:
    return any(text in note for note in hint_set.notes)


def first(folder: Path, *shapes: str, **values: Any) -> HintSet:
    """The shapes in image a, three boxes that are as they should be in image b."""
    export(folder, image("a.jpg", *shapes, **values), image("b.jpg", *(box(1, 1, 9 + n, 9) for n in range(3))))
    return read_hints(folder)


class TestShapes:
    def test_boxes_clicks_strokes_and_tags(self, folder: Path) -> None:
        hint_set = first(
            folder,
            box(1.5, 2, 30.25, 40),
            shape("points", "dog", points="3,4;50.5,6"),
            shape("polyline", "cat", points="1,2;3.5,4;5,6"),
            shape("tag", "dog"),
            shape("points", "background", points="59,1"),
        )
        assert recognise(folder) == "cvat"
        assert hint_set.classes == ("cat", "dog")
        assert hint_set.photos[0].hints == Hints(
            Tags.complete({1, 2}, 2),
            (
                Mark(1, Box(1.5, 2, 30.25, 40), 1),
                Mark(2, Click(3, 4)),
                Mark(2, Click(50.5, 6)),
                Mark(1, Stroke((1, 2, 3.5, 4, 5, 6))),
                Mark(BACKGROUND, Click(59, 1)),
            ),
        )

    def test_tags_alone_say_of_all_labels_whether_they_are_there(self, folder: Path) -> None:
        hint_set = first(folder, shape("tag", "dog"))
        assert hint_set.photos[0].hints == Hints(Tags.complete({2}, 2))

    def test_masks_are_run_lengths_along_the_rows_of_their_window(self, folder: Path) -> None:
        hint_set = first(folder, shape("mask", rle="1, 2, 2, 1", left=10, top=5, width=3, height=2))
        mask = read_mask(hint_set.photos[0])
        assert mask is not None
        assert np.argwhere(mask).tolist() == [[5, 11], [5, 12], [6, 12]]
        assert hint_set.photos[0].hints.objects == (Mark(1, Box(11, 5, 13, 7), 1),)

    def test_ellipses_are_outlines(self, folder: Path) -> None:
        upright = first(folder, shape("ellipse", cx=30, cy=20, rx=20, ry=10))
        mask = read_mask(upright.photos[0])
        rows, columns = np.mgrid[:40, :60] + 0.5
        assert mask is not None
        assert ((mask == 1) != (((columns - 30) / 20) ** 2 + ((rows - 20) / 10) ** 2 <= 1)).sum() <= 4
        turned = first(folder, shape("ellipse", cx=30, cy=20, rx=18, ry=10, rotation=90))
        assert turned.photos[0].hints.objects[0].shape.corners == pytest.approx((20, 2, 40, 38), abs=0.05)

    def test_turned_boxes_become_the_box_around_them_and_are_no_outline(self, folder: Path) -> None:
        hint_set = first(folder, box(20, 15, 40, 25, rotation=90), box(0, 0, 20, 20, "dog", rotation=45))
        corners = [mark.shape.corners for mark in hint_set.photos[0].hints.objects]
        assert corners[0] == pytest.approx((25, 10, 35, 30))
        assert corners[1] == pytest.approx((0, 0, 10 + 10 * math.sqrt(2), 10 + 10 * math.sqrt(2)))
        assert hint_set.photos[0].truth is None
        assert noted(hint_set, "2 boxes in annotations.xml are turned; the upright box around each counts")

    @pytest.mark.parametrize("kind", ["cuboid", "skeleton"])
    def test_what_is_left_out_still_says_its_class_and_leaves_no_full_mask(self, folder: Path, kind: str) -> None:
        ring = shape("polygon", points="1,1;9,1;9,9")
        hint_set = first(folder, ring, shape(kind, "dog"))
        assert hint_set.photos[0].hints.tags == Tags.complete({1, 2}, 2)
        assert hint_set.photos[0].truth is None
        assert noted(hint_set, f"1 <{kind}> in annotations.xml are left out; only that their class is in the photo")
        assert first(folder, ring, shape(kind, "cat")).photos[0].truth is None, "one cat of two is outlined"
        assert first(folder, ring).photos[0].truth is not None

    def test_shapes_marked_as_outside_are_not_there(self, folder: Path) -> None:
        hint_set = first(folder, box(1, 1, 9, 9, outside=1), box(2, 2, 9, 9, "dog", outside=0))
        assert hint_set.photos[0].hints.tags == Tags.complete({2}, 2)
        assert noted(hint_set, "1 shapes in annotations.xml that are marked as outside")

    def test_clicks_beside_the_outlined_objects_leave_no_full_mask(self, folder: Path) -> None:
        ring = shape("polygon", points="1,1;9,1;9,9;1,9")
        assert first(folder, ring, shape("points", points="5,5")).photos[0].truth is not None
        assert first(folder, ring, shape("points", points="50,5")).photos[0].truth is None
        assert first(folder, ring, shape("points", "dog", points="5,5")).photos[0].truth is None
        assert first(folder, ring, shape("points", "background", points="50,5")).photos[0].truth is not None

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (shape("polygon", points="1,1;9,9"), "polygon 1: a polygon has 4 numbers; at least 3 points"),
            (shape("polygon", points="1,1;9"), "polygon 1: needs points as 'x,y;x,y', but has '1,1;9'"),
            (shape("polyline", points=""), "polyline 1: needs points as 'x,y;x,y', but has ''"),
            (box(1, "x", 9, 9), "box 1: needs numbers in xtl, ytl, xbr, ybr, but has xtl='1', ytl='x'"),
            (box(100, 1, 109, 9), "box 1: box (100, 1, 109, 9) lies outside of its photo of 60 x 40"),
            (shape("mask", rle="1,2", left=0, top=0, width=2, height=2), "mask 1: its run lengths sum to 3"),
            (
                shape("mask", rle="1,x", left=0, top=0, width=2, height=2),
                "mask 1: needs run lengths in rle, but has '1,x'",
            ),
            (
                shape("mask", rle="0,4", left=59, top=0, width=2, height=2),
                "mask 1: its window 2 x 2 at (59, 0) reaches",
            ),
            (shape("mask", rle="0,4", left=0, top=0, width=2), "mask 1: needs numbers in left, top, width, height"),
            (shape("box", ""), "box 1: has no label"),
        ],
    )
    def test_one_bad_shape_costs_itself_and_no_more(self, folder: Path, bad: str, why: str) -> None:
        hint_set = first(folder, bad)
        assert noted(hint_set, f"1 of 4 annotations in annotations.xml are left out: image a.jpg: {why}")
        tags = hint_set.photos[0].hints.tags
        assert tags is None or 1 not in tags.said, "whether there is a cat is not known"
        assert hint_set.photos[0].truth is None
        assert len(hint_set.photos[1].hints.objects) == 3


class TestGroups:
    def test_parts_of_an_object(self, folder: Path) -> None:
        hint_set = first(
            folder,
            shape("polygon", points="1,1;9,1;9,9;1,9", group_id=7),
            shape("polygon", points="20,1;29,1;29,9;20,9", group_id=7),
            shape("polygon", "dog", points="40,1;49,1;49,9;40,9", group_id=7),
        )
        assert hint_set.photos[0].hints.marks == (Mark(1, Box(1, 1, 29, 9), 1), Mark(2, Box(40, 1, 49, 9), 2))
        mask = read_mask(hint_set.photos[0])
        assert mask is not None
        assert np.bincount(mask.ravel()).tolist() == [2400 - 64 - 72 - 72, 136, 72]

    def test_a_polygon_and_a_mask_of_one_object(self, folder: Path) -> None:
        hint_set = first(
            folder,
            shape("polygon", points="1,1;9,1;9,9;1,9", group_id=1),
            shape("mask", rle="0,4", left=20, top=1, width=2, height=2, group_id=1),
        )
        assert hint_set.photos[0].hints.marks == (Mark(1, Box(1, 1, 22, 9), 1),)

    def test_a_box_and_its_outline_and_clicks(self, folder: Path) -> None:
        hint_set = first(
            folder,
            shape("points", points="5,5", group_id=2),
            shape("polygon", points="1,1;9,1;9,9;1,9", group_id=2),
            box(0, 0, 12, 12, group_id=2),
        )
        marks = (Mark(1, Click(5, 5), 1), Mark(1, Box(0, 0, 12, 12), 1))
        assert hint_set.photos[0].hints.marks == marks
        assert hint_set.photos[0].truth == (Mark(1, Region(((1, 1, 9, 1, 9, 9, 1, 9),)), 1),)

    def test_boxes_that_belong_together_stay_objects(self, folder: Path) -> None:
        hint_set = first(folder, box(1, 1, 9, 9, group_id=1), box(20, 1, 29, 9, group_id=1))
        assert [mark.object for mark in hint_set.photos[0].hints.objects] == [1, 2]

    def test_two_tasks_of_the_same_photo_do_not_share_objects(self, folder: Path) -> None:
        for n, name in enumerate(("one.xml", "two.xml")):
            corner = 20 * n
            export(
                folder,
                image(
                    "a.jpg",
                    box(corner, 1, corner + 9, 9, group_id=1),
                    shape("points", points=f"{corner + 5},5", group_id=1),
                ),
                name=name,
            )
        objects = [mark.object for mark in read_hints(folder).photos[0].hints.marks]
        assert objects == [1, 1, 2, 2]


class TestFiles:
    def test_images_without_shapes_are_negatives_and_said(self, folder: Path) -> None:
        export(folder, image("a.jpg", box(1, 1, 9, 9)), image("b.jpg"))
        hint_set = read_hints(folder)
        tags = [photo.hints.tags for photo in hint_set.photos]
        assert tags == [Tags.complete({1}, 2), Tags.complete((), 2), None]
        assert noted(hint_set, "1 of 2 images in annotations.xml have no shape and no tag and are negatives")
        export(folder, image("a.jpg"), image("b.jpg"))
        assert "no image has a shape or a tag; annotate some in CVAT" in refusal(folder)

    @pytest.mark.parametrize("scope", ["task", "job", "project"])
    def test_labels_in_their_order_also_unused_ones(self, folder: Path, scope: str) -> None:
        export(folder, image("a.jpg", box(1, 1, 9, 9)), labels="zebra cat background ant", scope=scope)
        assert read_hints(folder).classes == ("zebra", "cat", "ant")
        assert read_hints(folder, background=False).classes == ("zebra", "cat", "background", "ant")

    def test_labels_of_joints_are_no_classes_and_without_meta_those_that_occur(self, folder: Path) -> None:
        file = export(folder, image("a.jpg", box(1, 1, 9, 9)), labels="cat nose")
        file.write_text(file.read_text().replace("<name>nose</name>", "<name>nose</name><parent>cat</parent>"))
        assert read_hints(folder).classes == ("cat",)
        export(folder, image("a.jpg", box(1, 1, 9, 9, "dog"), shape("tag", "ant")), labels="")
        assert read_hints(folder).classes == ("ant", "dog")
        (folder / "classes.txt").write_text("dog\nant\n")
        assert read_hints(folder).classes == ("dog", "ant")

    def test_an_unknown_label_is_named(self, folder: Path) -> None:
        export(folder, image("a.jpg", box(1, 1, 9, 9, "cta")))
        assert "image a.jpg: box 1: unknown tag 'cta'; did you mean 'cat'?" in refusal(folder)

    def test_videos_and_files_without_images_are_refused_by_name(self, folder: Path) -> None:
        export(folder, '<track id="0" label="cat"><box frame="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track>')
        message = refusal(folder)
        assert "annotations.xml is 'CVAT for video': its tracks name no photos" in message
        assert "export the task from CVAT as 'CVAT for images 1.1'" in message
        export(folder)
        assert "annotations.xml has no <image>" in refusal(folder)

    def test_subsets_are_splits_and_tell_photos_of_one_name_apart(self, tmp_path: Path) -> None:
        for name in ("Train/a.jpg", "Validation/a.jpg"):
            (tmp_path / "images" / name).parent.mkdir(parents=True)
            Image.new("RGB", (60, 40)).save(tmp_path / "images" / name)
        export(
            tmp_path,
            image("a.jpg", box(1, 1, 9, 9), more='subset="Train" task_id="4"'),
            image("a.jpg", box(2, 2, 9, 9), more='subset="Validation" task_id="5"'),
        )
        hint_set = read_hints(tmp_path)
        assert dict(hint_set.splits) == {"train": ("Train/a",), "val": ("Validation/a",)}
        assert [photo.hints.objects[0].shape.x0 for photo in hint_set.photos] == [1, 2]

    def test_several_tasks_each_with_its_images(self, tmp_path: Path) -> None:
        for n, (task, label) in enumerate((("task_1", "cat"), ("task_2", "dog"))):
            (tmp_path / task / "images").mkdir(parents=True)
            Image.new("RGB", (60, 40)).save(tmp_path / task / "images" / "a.jpg")
            export(tmp_path / task, image("a.jpg", box(1 + n, 1, 9, 9, label)), labels=label)
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert [(photo.id, photo.hints.objects[0].shape.x0) for photo in hint_set.photos] == [
            ("task_1/images/a", 1),
            ("task_2/images/a", 2),
        ]

    def test_sizes_and_photos_that_are_gone(self, folder: Path) -> None:
        hint_set = first(folder, box(2, 4, 20, 40), size='width="120" height="80"')
        assert hint_set.photos[0].hints.objects[0].shape == Box(1, 2, 10, 20)
        assert noted(hint_set, "drawn on 120 x 80, the photos are 60 x 40 now, and are scaled")
        mask = shape("mask", rle="0,16", left=4, top=8, width=4, height=4)
        assert first(folder, mask, size='width="120" height="80"').photos[0].hints.objects[0].shape == Box(2, 4, 4, 6)
        export(folder, image("a.jpg", box(1, 1, 9, 9)), image("gone.jpg", box(1, 1, 9, 9)))
        assert "there is no photo 'gone.jpg'" in refusal(folder)
        assert len(read_hints(folder, missing="skip").photos[0].hints.objects) == 1

    def test_a_label_file_elsewhere(self, folder: Path) -> None:
        file = export(folder / "of others", image("a.jpg", box(1, 1, 9, 9)), name="task.xml")
        for labels in (file, file.parent):
            assert recognise(folder / "images", labels) == "cvat"
            assert len(read_hints(folder / "images", labels).photos[0].hints.objects) == 1
        assert "there is no XML file with <annotations> in" in refusal(folder, folder / "images", format="cvat")


class TestWriting:
    def test_all_kinds_are_read_again(self, tmp_path: Path) -> None:
        made = many_of(tmp_path / "photos")
        written = Cvat().write(made, tmp_path / "out")
        found = read_hints(tmp_path / "photos", written.labels)
        same(made, found, more_objects=frozenset({"e"}))
        assert written.lost == ("1 objects are the connected parts of an index image, as no box was drawn around them",)
        more = next(photo for photo in found.photos if photo.id == "e").hints.objects[2:]
        assert [mark.shape.corners for mark in more] == [(2, 2, 40, 5)]

    @pytest.mark.parametrize("classes", [CLASSES, ("only",)])
    def test_boxes_names_and_splits_are_read_again(self, tmp_path: Path, classes: tuple[str, ...]) -> None:
        made = boxes_of(tmp_path / "photos", classes)
        written = Cvat().write(made, tmp_path / "out")
        assert written.lost == ()
        assert recognise(tmp_path / "photos", written.labels) == "cvat"
        same(made, read_hints(tmp_path / "photos", written.labels))

    def test_data_without_background(self, tmp_path: Path) -> None:
        mask = disc(30, 20, 15)
        marks = (Mark(1, Box(15, 5, 45, 35), 1), Mark(2, Box(0, 0, 60, 40), 2))
        truth = (Mark(1, Region(rle=runs.encode(mask)), 1), Mark(2, Region(rle=runs.encode(~mask)), 2))
        photo = photo_of(tmp_path / "photos", "a.png", tagged(marks, 2), truth)
        made = HintSet("photos", ("background", "cat"), (photo,), background=False)
        written = Cvat().write(made, tmp_path / "out")
        same(made, read_hints(tmp_path / "photos", written.labels, background=False))

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        names=st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold),
        boxes=st.lists(st.tuples(coordinates(60), coordinates(40)), min_size=1, max_size=4, unique=True),
        points=st.lists(st.tuples(st.floats(0, 59.9), st.floats(0, 39.9)), min_size=2, max_size=5),
        pixels=st.lists(st.booleans(), min_size=24, max_size=24).filter(any),
    )
    def test_any_numbers_and_names(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        names: list[str],
        boxes: list[tuple[tuple[float, float], tuple[float, float]]],
        points: list[tuple[float, float]],
        pixels: list[bool],
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        k = len(names)
        marks: list[Mark[Shape]] = [
            Mark(at % k + 1, Box(x[0], y[0], x[1], y[1]), at + 1) for at, (x, y) in enumerate(boxes)
        ]
        marks += [Mark(1, Stroke(tuple(value for point in points for value in point))), Mark(k, Click(*points[0]))]
        whole = np.zeros(SIZE, np.bool_)
        whole[3:7, 50:56] = np.reshape(pixels, (4, 6))
        rle = runs.encode(whole)
        around = runs.bounds(rle)
        assert around is not None
        photos = (
            photo_of(folder / "photos", "a.png", tagged(tuple(marks), k)),
            photo_of(
                folder / "photos", "b.png", tagged((Mark(k, Box(*around), 1),), k), (Mark(k, Region(rle=rle), 1),)
            ),
        )
        made = HintSet("photos", tuple(names), photos)
        written = Cvat().write(made, folder / "out")
        assert written.lost == ()
        same(made, read_hints(folder / "photos", written.labels))

    def test_what_cannot_be_held_is_said(self, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        index = np.full(SIZE, 255, np.uint8)
        index[:9] = 1
        Image.fromarray(index).save(tmp_path / "index.png")
        crowd = Mark(IGNORE, Box(0, 0, 4, 4))
        photos = (
            photo_of(folder, "a.png", tagged((crowd, Mark(1, Stroke((1, 1, 9, 9), 5.0), trust=0.5)), 2)),
            photo_of(folder, "b.png", Hints(Tags(frozenset(), frozenset({1})))),
            photo_of(folder, "c.png", Hints(Tags(frozenset({2})), (Mark(2, Box(1, 1, 9, 9), 1),))),
            photo_of(folder, "d.png", tagged((Mark(2, Box(30, 20, 40, 30), 1),), 2), MaskFile(tmp_path / "index.png")),
            photo_of(folder, "e.png", Hints(Tags.complete({1}, 2), scribbles=MaskFile(tmp_path / "index.png"))),
            photo_of(folder, "f.png", Hints(Tags.complete((), 2))),
            photo_of(folder, "g.png", Hints()),
            photo_of(folder, "h.png", tagged((Mark(1, Region(((1, 1, 9, 1, 9, 9),))),), 2)),
        )
        photos[5].path.write_bytes(b"broken")
        made = HintSet("x", ("cat", "dog"), photos, {"train": ("a", "g"), "all": ("a", "c")})
        assert Cvat().write(made, tmp_path / "out").lost == (
            "1 photos cannot be read, so their size is not known, and are left out",
            "1 photos say nothing of some classes; CVAT has no way to say so, and they count as absent",
            "1 photos say only of some classes that they are absent, and are left out",
            "1 full masks have pixels of which nothing is known; they count as background in CVAT",
            "1 objects are the connected parts of an index image, as no box was drawn around them",
            "1 full masks have no pixel in one of the boxes of their photo, and are not read again as full masks",
            "1 boxes of crowds or background are left out",
            "1 parts of objects are left out: CVAT has whole objects only",
            "1 images of strokes are left out; their classes are written as tags",
            "1 strokes are not 1 pixel wide; CVAT has lines without a width",
            "1 marks are not wholly trusted; CVAT has no trust",
            "1 photos are in several splits; the first is their subset",
            "1 photos of the splits are unlabelled and not in the file",
        )

    def test_labels_have_colours_of_their_own_and_background_is_one_where_it_is_used(self, tmp_path: Path) -> None:
        marks = (Mark(BACKGROUND, Click(3, 3)), Mark(1, Click(9, 9)))
        made = HintSet("x", ("cat", "dog"), (photo_of(tmp_path, "a.png", tagged(marks, 2)),))
        tree = ElementTree.parse(Cvat().write(made, tmp_path / "out").labels)
        labels = tree.findall("meta/task/labels/label")
        assert [label.findtext("name") for label in labels] == ["cat", "dog", "background"]
        colours = [label.findtext("color", "") for label in labels]
        assert all(len(colour) == 7 and int(colour[1:], 16) for colour in colours)
        assert len(set(colours)) == 3

    def test_labelformat_reads_what_is_written(self, tmp_path: Path) -> None:
        made = boxes_of(tmp_path / "photos", ("cat", "dog"))
        found = CVATObjectDetectionInput(Cvat().write(made, tmp_path / "out").labels)
        assert [category.name for category in found.get_categories()] == ["cat", "dog"]
        labelled = {photo.id: photo for photo in made.photos if photo.hints != Hints()}
        seen = {one.image.filename.rpartition(".")[0]: one for one in found.get_labels()}
        assert seen.keys() == labelled.keys()
        for id, one in seen.items():
            assert (one.image.width, one.image.height) == (60, 40)
            assert [(o.category.name, o.box.to_format(BoundingBoxFormat.XYXY)) for o in one.objects] == [
                (made.classes[mark.label - 1], list(mark.shape.corners)) for mark in labelled[id].hints.objects
            ]


def test_labelformats_files_are_read(folder: Path, tmp_path: Path) -> None:
    coco = tmp_path / "coco.json"
    coco.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}, {"id": 2, "file_name": "b.jpg", '
        '"width": 60, "height": 40}], "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}], '
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [3, 4, 10.5, 20], "area": 1}]}'
    )
    CVATObjectDetectionOutput(folder).save(COCOObjectDetectionInput(coco))
    coco.unlink()
    hint_set = read_hints(folder)
    assert hint_set.classes == ("dog", "cat")
    assert hint_set.photos[0].hints.objects == (Mark(2, Box(3, 4, 13.5, 24), 1),)
    assert hint_set.photos[1].hints.tags == Tags.complete((), 2)


def test_windows_of_masks_hold_what_pycocotools_sees(tmp_path: Path) -> None:
    """The run lengths of a window, transposed, are COCO's of that window."""
    mask = disc(30, 20, 11) & ~disc(33, 22, 4)
    truth = (Mark(1, Region(rle=runs.encode(mask)), 1),)
    photo = photo_of(tmp_path, "a.png", tagged((Mark(1, Box(19, 9, 41, 31), 1),), 1), truth)
    tree = ElementTree.parse(Cvat().write(HintSet("x", ("cat",), (photo,)), tmp_path / "out").labels)
    element = tree.find("image/mask")
    assert element is not None
    left, top, width, height = (int(element.get(name, "")) for name in ("left", "top", "width", "height"))
    counts = [int(text) for text in element.get("rle", "").split(",")]
    packed = coco_mask.frPyObjects({"size": [width, height], "counts": counts}, width, height)
    decoded = coco_mask.decode([packed])[..., 0]
    np.testing.assert_array_equal(decoded.T, mask[top : top + height, left : left + width])


def test_datumaros_files_are_read(tmp_path: Path) -> None:
    for name in ("one.png", "sub/two.png", "three.png"):
        photo_of(tmp_path / "images", name, Hints())
    (tmp_path / "default.xml").write_bytes((REFERENCE / "datumaro_cvat.xml").read_bytes())
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == ("dog", "cat")
    one, two, three = (next(photo for photo in hint_set.photos if photo.id == id) for id in ("one", "sub/two", "three"))
    assert one.hints == Hints(
        Tags.complete({1, 2}, 2),
        (
            Mark(2, Box(3, 4, 13.5, 24), 1),
            Mark(1, Box(1, 1, 9, 9), 2),
            Mark(2, Stroke((1, 30, 20.5, 35, 50, 30))),
            Mark(1, Click(5, 5)),
            Mark(1, Click(7.5, 8)),
        ),
    )
    mask = np.zeros(SIZE, np.uint8)
    mask[10:20, 30:45] = 2
    mask[12:15, 33:36] = 0
    np.testing.assert_array_equal(read_mask(two), mask)
    assert three.hints.tags == Tags.complete((), 2)
