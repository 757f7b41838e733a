"""Pascal VOC's XML files, wherever they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelformat.formats.coco import COCOObjectDetectionInput
from labelformat.formats.pascalvoc import PascalVOCObjectDetectionInput, PascalVOCObjectDetectionOutput
from labelformat.model.bounding_box import BoundingBoxFormat
from PIL import Image

from hintseg.errors import LabelError
from hintseg.formats.voc import Voc
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import IGNORE, Box, Click, Hints, HintSet, Mark, Tags
from round_trip import CLASSES, NAMES, boxes_of, coordinates, photo_of, same, tagged

REFERENCE = Path(__file__).parent / "reference" / "formats"


def photos(folder: Path, *names: str, size: tuple[int, int] = (60, 40), turned: int = 1) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = turned
        Image.new("RGB", size, (90, 120, 30)).save(folder / name, exif=exif)
    return folder


@pytest.mark.parametrize(("turned", "told"), [(1, False), (3, True), (6, False)])
def test_where_the_size_does_not_tell_how_a_photo_lay_it_is_said(tmp_path: Path, turned: int, told: bool) -> None:
    photos(tmp_path / "JPEGImages", "a.jpg", turned=turned)
    write(tmp_path / "Annotations" / "a.xml", annotation(box("cat", 1, 1, 9, 9), size=(60, 40)))
    hint_set = read_hints(tmp_path)
    assert any("1 photos are turned by EXIF, and coordinates" in note for note in hint_set.notes) == told


def box(name: str, x0: Any, y0: Any, x1: Any, y1: Any, more: str = "") -> str:
    return (
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
    )


def annotation(
    *objects: str, size: tuple[Any, Any] | None = (60, 40), filename: str = "", root: str = "annotation"
) -> str:
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    named = f"<filename>{filename}</filename>" if filename else ""
    return f"<{root}>{named}{stated}{''.join(objects)}</{root.split()[0]}>"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def corners(hint_set: HintSet) -> dict[str, list[tuple[float, ...]]]:
    return {photo.id: [mark.shape.corners for mark in photo.hints.objects] for photo in hint_set.photos}


def refusal(*place: Any, **settings: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(*place, **settings)
    return str(caught.value)


def noted(hint_set: HintSet, text: str) -> bool:
    return any(text in note for note in hint_set.notes)


class TestPlaces:
    """Where people keep XML files."""

    @pytest.mark.parametrize(
        ("photo", "xml"),
        [
            ("{}.jpg", "{}.xml"),
            ("images/{}.jpg", "annotations/{}.xml"),
            ("images/{}.jpg", "images/{}.xml"),
            ("images/{}.jpg", "Annotations/{}.XML"),
            ("images/{}.jpg", "annotations/xmls/{}.xml"),
            ("imgs/{}.jpg", "labels/{}.xml"),
            ("JPEGImages/{}.jpg", "Annotations/{}.xml"),
            ("JPEGImages/deep/{}.jpg", "Annotations/deep/{}.xml"),
            ("some photos/{}.jpg", "their boxes/{}.xml"),
            ("images/{}.jpg", "{}.xml"),
        ],
    )
    def test_all_are_found(self, tmp_path: Path, photo: str, xml: str) -> None:
        for number, name in enumerate(("a", "b")):
            photos(tmp_path, photo.format(name))
            write(tmp_path / xml.format(name), annotation(box("cat", 1 + number, 2, 30, 40)))
        assert recognise(tmp_path) == "voc"
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat",)
        assert [*corners(hint_set).values()] == [[(0, 1, 30, 40)], [(1, 1, 30, 40)]]

    @pytest.mark.parametrize("inside", ["", "images/"])
    def test_folders_of_splits(self, tmp_path: Path, inside: str) -> None:
        for split, name in (("train", "a"), ("train", "b"), ("valid", "a"), ("test", "c")):
            photos(tmp_path, f"{split}/{inside}{name}.jpg")
            write(
                tmp_path / split / f"{'annotations/' if inside else ''}{name}.xml", annotation(box("cat", 1, 1, 9, 9))
            )
        hint_set = read_hints(tmp_path)
        assert dict(hint_set.splits) == {
            "train": (f"train/{inside}a", f"train/{inside}b"),
            "val": (f"valid/{inside}a",),
            "test": (f"test/{inside}c",),
        }
        assert all(len(found) == 1 for found in corners(hint_set).values())

    def test_labels_elsewhere_as_a_folder_or_one_file(self, tmp_path: Path) -> None:
        photos(tmp_path / "data", "a.jpg", "b.jpg")
        file = write(tmp_path / "boxes" / "a.xml", annotation(box("cat", 1, 1, 9, 9)))
        for labels in (tmp_path / "boxes", file):
            assert recognise(tmp_path / "data", labels) == "voc"
            hint_set = read_hints(tmp_path / "data", labels)
            assert corners(hint_set) == {"a": [(0, 0, 9, 9)], "b": []}
            assert hint_set.photos[1].hints == Hints()
        assert "there is no XML file in" in refusal(tmp_path / "data", tmp_path / "data", format="voc")

    def test_other_xml_files_are_no_annotations(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        write(tmp_path / "sitemap.xml", "<urlset/>")
        assert "no known labels" in refusal(tmp_path)
        assert "no XML file has VOC's <annotation> as its outermost element: sitemap.xml (<urlset>)" in refusal(
            tmp_path, format="voc"
        )
        write(tmp_path / "a.xml", annotation(box("cat", 1, 1, 9, 9)))
        hint_set = read_hints(tmp_path)
        assert corners(hint_set) == {"a": [(0, 0, 9, 9)]}
        assert noted(hint_set, "1 XML files are not VOC's and are left out: sitemap.xml (<urlset>)")

    def test_coco_in_annotations_beside_jpegimages_is_not_voc(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "a.jpg")
        write(tmp_path / "annotations" / "instances.json", '{"images": [], "annotations": [], "categories": []}')
        assert recognise(tmp_path) == "coco"


class TestNames:
    def test_the_name_inside_counts_where_no_photo_has_the_files_name(self, tmp_path: Path) -> None:
        photos(tmp_path / "images", "a.jpg", "b.jpg")
        write(tmp_path / "annotations" / "1.xml", annotation(box("cat", 1, 1, 9, 9), filename="C:\\photos\\b.jpg"))
        hint_set = read_hints(tmp_path)
        assert corners(hint_set) == {"a": [], "b": [(0, 0, 9, 9)]}
        assert noted(hint_set, "1 photos are found by another name that the labels have: '1' is b")

    def test_two_files_of_one_photo_are_asked_about(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        write(tmp_path / "a.xml", annotation(box("cat", 1, 1, 9, 9), filename="a.jpg"))
        write(tmp_path / "a - copy.xml", annotation(box("cat", 1, 1, 19, 19), filename="a.jpg"))
        assert "'a' and 'a - copy' both fit the photo a" in refusal(tmp_path)

    def test_another_photos_name_inside_is_said(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg", "b.jpg")
        write(tmp_path / "a.xml", annotation(box("cat", 1, 1, 9, 9), filename="b.jpg"))
        hint_set = read_hints(tmp_path)
        assert corners(hint_set) == {"a": [(0, 0, 9, 9)], "b": []}
        assert noted(hint_set, "1 XML files have another photo's name in <filename>; their own name counts: a.xml has")

    @pytest.mark.parametrize(
        ("stem", "photo"), [("IMG_1", "img_1.JPG"), ("a.rf.0", "a.rf.0.jpg"), ("a%20b", "a b.jpg")]
    )
    def test_looser_names(self, tmp_path: Path, stem: str, photo: str) -> None:
        photos(tmp_path, photo)
        write(tmp_path / f"{stem}.xml", annotation(box("cat", 1, 1, 9, 9), filename="%s"))
        assert [*corners(read_hints(tmp_path)).values()] == [[(0, 0, 9, 9)]]

    def test_photos_that_are_gone(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        for name in ("a", "gone"):
            write(tmp_path / f"{name}.xml", annotation(box("cat", 1, 1, 9, 9)))
        assert "there is no photo 'gone'" in refusal(tmp_path)
        hint_set = read_hints(tmp_path, missing="skip")
        assert corners(hint_set) == {"a": [(0, 0, 9, 9)]}
        assert noted(hint_set, "1 photos that the labels name are not there and are left out: 'gone'")


class TestObjects:
    def read(self, folder: Path, *objects: str, **settings: Any) -> HintSet:
        photos(folder, "a.jpg", "b.jpg", "c.jpg")
        for name in "bc":
            write(folder / f"{name}.xml", annotation(box("cat", 1, 1, 9, 9), box("dog", 2, 2, 9, 9)))
        write(folder / "a.xml", annotation(*objects, **settings))
        return read_hints(folder)

    @pytest.mark.parametrize("size", [None, (0, 0), ("", ""), ("60.0", "40.0"), (-1, 7)])
    def test_floats_and_sizes_that_say_nothing(self, tmp_path: Path, size: tuple[Any, Any] | None) -> None:
        hint_set = self.read(tmp_path, box("cat", 2.25, " 3 ", "1e1", 30.5), size=size)
        assert corners(hint_set)["a"] == [(1.25, 2, 10, 30.5)]

    def test_namespaces_and_capitals(self, tmp_path: Path) -> None:
        text = annotation(box("cat", 2, 3, 10, 30), root="v:annotation xmlns:v='http://x'")
        photos(tmp_path, "a.jpg", "b.jpg")
        write(tmp_path / "a.xml", text.replace("<object>", "<v:Object>").replace("</object>", "</v:Object>"))
        write(tmp_path / "b.xml", annotation(box("dog", 2, 3, 10, 30), root="annotation xmlns='http://x'"))
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert corners(hint_set) == {"a": [(1, 2, 10, 30)], "b": [(1, 2, 10, 30)]}

    def test_corners_the_other_way_round_are_turned_before_they_are_counted_from_0(self, tmp_path: Path) -> None:
        hint_set = self.read(tmp_path, box("cat", 10, 30, 2, 3))
        assert corners(hint_set)["a"] == [(1, 2, 10, 30)]
        assert noted(hint_set, "1 of 5 annotations in")
        assert noted(hint_set, "have their corners the other way round and are read so: a.xml: object 1")

    def test_one_bad_object_costs_itself_and_what_it_would_have_said(self, tmp_path: Path) -> None:
        hint_set = self.read(tmp_path, box("cat", 2, 3, 10, 30), "<object><name>dog</name></object>")
        assert corners(hint_set)["a"] == [(1, 2, 10, 30)]
        assert hint_set.photos[0].hints.tags == Tags(frozenset({1}), frozenset({1})), "a dog may be there"
        assert noted(hint_set, "1 of 6 annotations in")
        assert noted(hint_set, "a.xml: object 2: needs a name and a bndbox with xmin, ymin, xmax, ymax")

    @pytest.mark.parametrize("bad", ["<object><bndbox/></object>", box("", 1, 1, 9, 9)])
    def test_an_object_without_a_name_makes_no_photo_negative(self, tmp_path: Path, bad: str) -> None:
        hint_set = self.read(tmp_path, bad)
        assert hint_set.photos[0].hints.tags is None, "something is there, but nobody knows what"
        assert noted(hint_set, "1 of 5 annotations in")

    def test_difficult_and_truncated_objects_and_parts(self, tmp_path: Path) -> None:
        part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        more = f"<difficult>1</difficult><truncated>1</truncated>{part}"
        hint_set = self.read(tmp_path, box("cat", 2, 3, 10, 30, more))
        assert hint_set.classes == ("cat", "dog")
        assert corners(hint_set)["a"] == [(1, 2, 10, 30)]

    def test_boxes_outside(self, tmp_path: Path) -> None:
        hint_set = self.read(tmp_path, box("cat", 50, 30, 70, 40), box("dog", 0, 0, 61, 41))
        assert corners(hint_set)["a"] == [(49, 29, 60, 40), (0, 0, 60, 40)]
        assert noted(hint_set, "1 of 6 annotations in")
        assert noted(hint_set, "reach outside of the photo and are cut off: a.xml: object 1")

    def test_polygons_beside_the_boxes_are_full_masks_where_all_have_them(self, tmp_path: Path) -> None:
        ring = "<polygon><x1>2</x1><y1>2</y1><x2>8</x2><y2>2</y2><x3>8</x3><y3>9</y3><x4>2</x4><y4>9</y4></polygon>"
        photos(tmp_path, "a.jpg", "b.jpg")
        write(tmp_path / "a.xml", annotation(box("cat", 3, 3, 8, 9, ring)))
        write(tmp_path / "b.xml", annotation(box("cat", 3, 3, 8, 9, ring), box("cat", 30, 3, 38, 9)))
        first, second = read_hints(tmp_path).photos
        mask = read_mask(first)
        assert mask is not None
        assert (mask.sum(), mask[2:9, 2:8].sum()) == (42, 42)
        assert first.hints.objects[0].shape == Box(2, 2, 8, 9)
        assert second.truth is None

    def test_turned_boxes_of_rolabelimg(self, tmp_path: Path) -> None:
        turned = "<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>"
        hint_set = self.read(tmp_path, f"<object><type>robndbox</type><name>cat</name>{turned}</object>")
        assert corners(hint_set)["a"][0] == pytest.approx((25, 10, 35, 30), abs=1e-5)

    def test_shares_are_asked_about(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        write(tmp_path / "a.xml", annotation(box("cat", 0.1, 0.1, 0.9, 0.9)))
        assert "all coordinates are between 0 and 1; they must be pixels" in refusal(tmp_path)

    def test_code_pages_and_cut_off_files(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg", "b.jpg")
        text = "<?xml version='1.0' encoding='iso-8859-1'?>" + annotation(box("Bär", 1, 1, 9, 9))
        (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
        assert read_hints(tmp_path).classes == ("Bär",)
        (tmp_path / "b.xml").write_bytes(annotation(box("Bär", 1, 1, 9, 9)).encode("latin-1"))
        assert "b.xml is no valid XML: not well-formed" in refusal(tmp_path)
        assert "or hold letters that are not UTF-8" in refusal(tmp_path)


class TestSizes:
    def test_photos_that_exif_turns_and_photos_made_smaller(self, tmp_path: Path) -> None:
        photos(tmp_path, "turned.jpg", turned=6)
        photos(tmp_path, "small.jpg", size=(30, 20))
        for name in ("turned", "small"):
            write(tmp_path / f"{name}.xml", annotation(box("cat", 1, 1, 20, 10)))
        hint_set = read_hints(tmp_path)
        assert corners(hint_set) == {"small": [(0, 0, 10, 5)], "turned": [(30, 0, 40, 20)]}
        assert noted(hint_set, "drawn on photos as they are stored, 60 x 40, that EXIF turns to 40 x 60")
        assert noted(hint_set, "drawn on 60 x 40, the photos are 30 x 20 now, and are scaled")

    def test_photos_that_are_others(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg", size=(60, 60))
        write(tmp_path / "a.xml", annotation(box("cat", 1, 1, 20, 10)))
        assert "'a' is 60 x 60 pixels (EXIF applied), but the file says 60 x 40" in refusal(tmp_path)


class TestClasses:
    def test_vocs_own_ids_where_masks_need_them(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "a.jpg")
        write(tmp_path / "Annotations" / "a.xml", annotation(box("person", 1, 1, 9, 9)))
        assert read_hints(tmp_path).classes == ("person",)
        (tmp_path / "SegmentationClass").mkdir()
        assert read_hints(tmp_path).classes == ("person",), "no mask lies there"
        Image.new("L", (60, 40), 15).save(tmp_path / "SegmentationClass" / "a.png")
        hint_set = read_hints(tmp_path)
        assert hint_set.classes[14] == "person"
        assert noted(hint_set, "the classes are Pascal VOC's 20; list your own in classes.txt")
        write(tmp_path / "classes.txt", "person\n")
        Image.new("L", (60, 40), 1).save(tmp_path / "SegmentationClass" / "a.png")
        assert read_hints(tmp_path).classes == ("person",)

    def test_background_is_no_class(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg", "b.jpg")
        write(tmp_path / "a.xml", annotation(box("cat", 1, 1, 9, 9)))
        write(tmp_path / "b.xml", annotation())
        hint_set = read_hints(tmp_path)
        assert [photo.hints.tags for photo in hint_set.photos] == [Tags.complete({1}, 1), Tags.complete((), 1)]


class TestWriting:
    @pytest.mark.parametrize("classes", [CLASSES, ("only",)])
    def test_what_is_written_is_read_again(self, tmp_path: Path, classes: tuple[str, ...]) -> None:
        made = boxes_of(tmp_path / "photos", classes)
        written = Voc().write(made, tmp_path / "out")
        assert written.lost == ()
        assert recognise(tmp_path / "photos", written.labels) == "voc"
        same(made, read_hints(tmp_path / "photos", written.labels))

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        names=st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold),
        boxes=st.lists(st.tuples(coordinates(60), coordinates(40)), min_size=1, max_size=4, unique=True),
    )
    def test_any_boxes_and_names(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        names: list[str],
        boxes: list[tuple[tuple[float, float], tuple[float, float]]],
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        k = len(names)
        marks = tuple(Mark(at % k + 1, Box(x[0], y[0], x[1], y[1]), at + 1) for at, (x, y) in enumerate(boxes))
        made = HintSet("photos", tuple(names), (photo_of(folder / "photos", "a.png", tagged(marks, k)),))
        written = Voc().write(made, folder / "out")
        same(made, read_hints(folder / "photos", written.labels))

    def test_what_cannot_be_held_is_said(self, tmp_path: Path) -> None:
        k = 2
        thin = (Mark(1, Box(5.0, 5.0, 5.5, 9.0), 1, trust=0.5), Mark(IGNORE, Box(0, 0, 4, 4)))
        made = (
            photo_of(tmp_path / "photos", "a.png", tagged(thin, k)),
            photo_of(tmp_path / "photos", "b.png", tagged((Mark(2, Click(3, 3)),), k)),
            photo_of(tmp_path / "photos", "c.png", Hints(Tags(frozenset(), frozenset({1})))),
            photo_of(tmp_path / "photos", "d.png", Hints(Tags(frozenset({1})), (Mark(1, Box(1, 1, 9, 9), 1),))),
            photo_of(tmp_path / "photos", "e.png", Hints(Tags.complete((), k))),
        )
        made[4].path.write_bytes(b"broken")
        written = Voc().write(HintSet("x", ("cat", "dog"), made), tmp_path / "out")
        assert sorted(file.name for file in written.labels.glob("*.xml")) == ["a.xml", "d.xml"]
        assert written.lost == (
            "1 photos cannot be read, so their size is not known, and have no XML file",
            "2 photos show classes that no box is of, or say only of some that they are absent, and have no XML file",
            "1 photos say nothing of some classes; without a box those are absent in VOC",
            "1 boxes are narrower than a pixel and written one pixel wide",
            "1 boxes of crowds or background are left out",
            "1 boxes are not wholly trusted; VOC has no trust",
        )

    def test_labelformat_reads_what_is_written(self, tmp_path: Path) -> None:
        made = boxes_of(tmp_path / "photos", ("cat", "dog"))
        folder = Voc().write(made, tmp_path / "out").labels
        for place, name in ((folder, "a.b.png"), (folder / "sub folder", "a.b.png")):
            (found,) = [
                one
                for one in PascalVOCObjectDetectionInput(place, "cat,dog").get_labels()
                if one.image.filename == name
            ]
            assert (found.image.width, found.image.height) == (60, 40)
            photo = next(
                photo for photo in made.photos if photo.id == place.relative_to(folder).joinpath("a.b").as_posix()
            )
            wanted = [
                (made.classes[m.label - 1], [m.shape.x0 + 1, m.shape.y0 + 1, m.shape.x1, m.shape.y1])
                for m in photo.hints.objects
            ]
            assert [(o.category.name, o.box.to_format(BoundingBoxFormat.XYXY)) for o in found.objects] == wanted

    def test_whole_numbers_are_written_as_such(self, tmp_path: Path) -> None:
        made = HintSet(
            "x", ("cat",), (photo_of(tmp_path, "a.png", tagged((Mark(1, Box(0.0, 2.0, 9.0, 30.5), 1),), 1)),)
        )
        tree = ElementTree.parse(Voc().write(made, tmp_path / "out").labels / "a.xml")
        assert [side.text for side in tree.findall("object/bndbox/*")] == ["1", "3", "9", "30.5"]
        assert [tree.findtext(name) for name in ("filename", "size/width", "size/height")] == ["a.png", "60", "40"]


def test_labelformats_files_are_read(tmp_path: Path) -> None:
    """labelformat writes the numbers it has; VOC counts them from 1."""
    photos(tmp_path / "images", "a.jpg", "b.jpg")
    coco = write(
        tmp_path / "coco.json",
        '{"images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}, {"id": 2, "file_name": "b.jpg", '
        '"width": 60, "height": 40}], "categories": [{"id": 1, "name": "cat"}], "annotations": [{"id": 1, "image_id": '
        '1, "category_id": 1, "bbox": [3, 4, 10.5, 20], "area": 210, "iscrowd": 0}]}',
    )
    PascalVOCObjectDetectionOutput(tmp_path / "annotations").save(COCOObjectDetectionInput(coco))
    coco.unlink()
    hint_set = read_hints(tmp_path)
    assert recognise(tmp_path) == "voc"
    assert corners(hint_set)["a"] == [(2, 3, 13.5, 24)]
    assert hint_set.photos[0].hints.tags == Tags.complete({1}, 1)


def test_datumaros_files_are_read_and_it_is_said_that_they_count_from_0(tmp_path: Path) -> None:
    photos(tmp_path, "one.png")
    (tmp_path / "one.xml").write_bytes((REFERENCE / "datumaro_voc.xml").read_bytes())
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == ("cat", "dog")
    assert corners(hint_set) == {"one": [(2, 3, 13.5, 24), (0, 0, 60, 40)]}
    assert noted(hint_set, "1 of 2 boxes begin at 0, but VOC counts from 1")
