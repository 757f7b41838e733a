"""Several label files of the same photos: what they say is put together, contradictions are listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.config.loader import dump_config, load_config, parse_config
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError, LabelError
from hintseg.files.parse import parse_yaml
from hintseg.hints import read_hints
from hintseg.hints.masks import read_mask, read_scribbles
from hintseg.pipeline.begin import make_plan
from hintseg.types import Box, Click, HintSet, Mark, Tags


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos of 20 x 10 pixels, with tags of two of them."""
    (tmp_path / "images").mkdir()
    for name in "abcd":
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "tags.csv").write_text("a.png,dog,bird\nb.png\n")
    return tmp_path


def merged(folder: Path, *names: str, **settings: object) -> HintSet:
    return read_hints(folder, [folder / name for name in names], **settings)  # type: ignore[arg-type]


def tags_of(hint_set: HintSet) -> dict[str, tuple[set[str], set[str]]]:
    """Present and absent classes, by name, of each photo that anything is said about."""
    found = {}
    for photo in hint_set.photos:
        if (tags := photo.hints.tags) is not None:
            present, absent = ({hint_set.classes[k - 1] for k in side} for side in (tags.present, tags.absent))
            found[photo.id] = present, absent
    return found


def test_classes_are_united_and_each_file_speaks_of_its_own(folder: Path) -> None:
    (folder / "points.csv").write_text("file,x,y,label\na.png,3,4,dog\nc.png,5,5,cat\nd.png,,,\n")
    both = merged(folder, "tags.csv", "points.csv")
    assert both.classes == ("bird", "dog", "cat")
    assert tags_of(both) == {
        "a": ({"bird", "dog"}, set()),  # nobody spoke of cats here
        "b": (set(), {"bird", "dog"}),
        "c": ({"cat"}, {"bird", "dog"}),  # only points: what has none is absent
        "d": (set(), {"dog", "cat"}),
    }
    assert both.photos[0].hints.marks == (Mark(2, Click(3.0, 4.0)),)
    assert any("2 of 4 photos are not in tags.csv" in note for note in both.notes)
    assert any("1 of 4 photos are not in points.csv" in note for note in both.notes)
    turned = merged(folder, "points.csv", "tags.csv")
    assert turned.classes == ("cat", "dog", "bird")
    assert tags_of(turned) == tags_of(both)


def test_spellings_of_one_class_are_joined_unless_a_file_has_both(folder: Path) -> None:
    (folder / "points.csv").write_text("file,x,y,label\na.png,3,4,Dog\nc.png,5,5,BIRD\n")
    both = merged(folder, "tags.csv", "points.csv")
    assert both.classes == ("bird", "dog")
    assert tags_of(both)["c"] == ({"bird"}, {"dog"})
    assert both.photos[0].hints.marks == (Mark(2, Click(3.0, 4.0)),)
    assert "the class 'Dog' of one file is taken to be 'dog' of another" in both.notes
    (folder / "table.csv").write_text("file,Dog,dog\na.png,0,1\nc.png,1,0\n")
    assert merged(folder, "tags.csv", "table.csv").classes == ("bird", "dog", "Dog")


def test_what_is_said_twice_counts_once_and_objects_are_counted_on(folder: Path) -> None:
    (folder / "one.csv").write_text("file,x0,y0,x1,y1,label\na.png,1,1,9,9,dog\na.png,0,0,4,4,bird\n")
    (folder / "two.csv").write_text("file,x0,y0,x1,y1,label\na.png,2,2,8,8,dog\na.png,1,1,9,9,dog\n")
    marks = merged(folder, "one.csv", "two.csv").photos[0].hints.marks
    boxes = [(2, (1, 1, 9, 9), 1), (1, (0, 0, 4, 4), 2), (2, (2, 2, 8, 8), 3)]
    assert marks == tuple(Mark(label, Box(*corners), number) for label, corners, number in boxes)
    same = merged(folder, "one.csv", "one.csv")
    assert same == read_hints(folder, folder / "one.csv")


def test_contradictions_are_listed_all_at_once_with_both_files(folder: Path) -> None:
    (folder / "boxes.csv").write_text("file,x0,y0,x1,y1,label\na.png,,,,,\nb.png,1,1,5,5,dog\nc.png,1,1,5,5,dog\n")
    (folder / "more.csv").write_text("c.png,bird\nd.png,dog\n")
    with pytest.raises(LabelError) as caught:
        merged(folder, "tags.csv", "boxes.csv", "more.csv")
    message = str(caught.value)
    assert "2 problems in tags.csv and boxes.csv:" in message
    assert "photo 'a': tags.csv says of 'dog' that it is there, boxes.csv says the opposite; correct one" in message
    assert "photo 'b': tags.csv says of 'dog' that it is not there, boxes.csv says the opposite" in message
    assert "photo 'c': boxes.csv says of 'dog' that it is there, more.csv says the opposite" in message
    assert "'bird'" not in message


def index_png(path: Path, value: int, mark: int | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((10, 20), value, np.uint8)
    if mark is not None:
        pixels[2:5, 2:9] = mark
    Image.fromarray(pixels).save(path)


def test_truth_of_two_files_must_be_the_same_pixels(folder: Path) -> None:
    (folder / "classes.txt").write_text("bird\ndog\n")
    index_png(folder / "SegmentationClass" / "a.png", 0, mark=2)
    ring = [2, 2, 9, 2, 9, 5, 2, 5]
    item = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 2, 7, 3], "segmentation": [ring]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [
            item,
            item | {"id": 2, "category_id": 9, "bbox": [10, 2, 3, 3], "segmentation": [[10, 2, 13, 2, 13, 5]]},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "bird"}],
    }
    (folder / "objects.json").write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"has two different full masks, one of tags.csv and one of objects"):
        merged(folder, "tags.csv", "objects.json")
    (folder / "tags.csv").write_text("a.png,dog\n")
    content["annotations"] = [item]
    (folder / "objects.json").write_text(json.dumps(content))
    both = merged(folder, "objects.json", "tags.csv")
    assert both.classes == ("dog", "bird")
    mask = read_mask(both.photos[0])
    assert mask is not None
    assert set(np.unique(mask)) == {0, 1}, "an image that counts the classes otherwise gives the merged ids"


def test_a_full_mask_that_does_not_know_a_class_of_the_photo_is_none(folder: Path) -> None:
    """Outlines of cats alone would make the dog background."""
    images = [{"id": k, "file_name": f"{name}.png", "width": 20, "height": 10} for k, name in enumerate("abc")]
    outline = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6]]}
    cats = {"images": images, "annotations": [outline], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "cats.json").write_text(json.dumps(cats))
    (folder / "dogs.csv").write_text("file,x0,y0,x1,y1,label\na.png,9,1,19,9,dog\nb.png,2,1,9,9,dog\n")
    alone = {photo.id: photo.truth is not None for photo in merged(folder, "cats.json").photos}
    assert alone == {"a": True, "b": True, "c": True, "d": False}
    both = merged(folder, "cats.json", "dogs.csv")
    assert {photo.id: photo.truth is not None for photo in both.photos} == alone | {"a": False, "b": False}
    assert [photo.hints.tags and set(photo.hints.tags) for photo in both.photos][:2] == [{1, 2}, {2}]
    (note,) = (note for note in both.notes if "left out" in note)
    assert note.startswith("the full masks of 2 photos in cats.json are left out: it does not list 'dog'")


def test_scribbles_are_read_by_their_own_class_list_and_value(folder: Path) -> None:
    (folder / "strokes").mkdir()
    (folder / "strokes" / "classes.txt").write_text("dog\ncat\n")
    index_png(folder / "strokes" / "a.png", 0, mark=1)
    index_png(folder / "strokes" / "c.png", 0, mark=2)
    both = merged(folder, "tags.csv", "strokes", unlabelled=0)
    assert both.classes == ("bird", "dog", "cat")
    strokes = [read_scribbles(photo, n_classes=3) for photo in both.photos]
    assert [None if one is None else set(np.unique(one)) for one in strokes] == [{2, 255}, None, {3, 255}, None]
    assert tags_of(both)["a"] == ({"bird", "dog"}, set())
    assert tags_of(both)["c"] == ({"cat"}, {"bird", "dog"})
    (folder / "again").mkdir()
    (folder / "again" / "classes.txt").write_text("dog\ncat\n")
    index_png(folder / "again" / "a.png", 0, mark=1)
    with pytest.raises(LabelError, match="photo 'a': has two images of scribbles, one of strokes and one of again"):
        merged(folder, "strokes", "again", unlabelled=0)


def test_splits_are_united(folder: Path) -> None:
    (folder / "train.txt").write_text("a\nb\n")
    (folder / "more.csv").write_text("c.png,dog\n")
    assert merged(folder, "tags.csv", "more.csv").splits == {"train": ("a", "b")}


def test_all_hints_of_shapes_agree(tmp_path: Path) -> None:
    write_shapes(tmp_path / "s", train=12, val=3, size=48)
    names = ["tags.csv", "Annotations", "Hints/instances.json", "Hints/points.csv", "Scribbles"]
    both, voc = merged(tmp_path / "s", *names, unlabelled=255), read_hints(tmp_path / "s")
    assert set(both.classes) == set(voc.classes)
    for photo, one in zip(both.photos, voc.photos, strict=True):
        tags = [{s.classes[k - 1] for k in p.hints.tags or ()} for s, p in ((both, photo), (voc, one))]
        assert tags[0] == tags[1]
        assert len(photo.hints.objects) == len(one.hints.objects) == len(photo.hints.shaped(Click))
        assert photo.hints.scribbles is not None
        names_of = np.array(["", *both.classes]), np.array(["", *voc.classes])
        one_mask, other = (table[read_mask(p)] for table, p in zip(names_of, (photo, one), strict=True))
        np.testing.assert_array_equal(one_mask, other)
    assert both.splits == voc.splits


class TestSeveralLabels:
    def test_the_command_line_takes_labels_repeatedly(self, folder: Path) -> None:
        (folder / "points.csv").write_text("file,x,y,label\na.png,3,4,dog\nc.png,5,5,dog\n")
        words = [
            "check",
            str(folder),
            "--json",
            "--labels",
            str(folder / "tags.csv"),
            "--labels",
            str(folder / "points.csv"),
        ]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["hints"] == {"tags": 3, "boxes": 0, "scribbles": 0, "points": 2, "masks": 0}
        report = hintseg.check(folder, labels=[folder / "tags.csv", str(folder / "points.csv")])
        assert report.objects_per_class == {"bird": 0, "dog": 2}

    def test_settings_take_one_path_or_several(self, folder: Path) -> None:
        for given, expected in [("a.csv", 1), (["a.csv", "b.csv"], 2), (None, 0)]:
            config = load_config("cam", data={"path": "photos", "labels": given})
            assert len(config.data.labels) == expected
            assert parse_config(parse_yaml(dump_config(config))) == config
        config = load_config("cam", ["data.labels=[a.csv, b.csv]"], data={"path": "photos"})
        assert config.data.labels == (Path("a.csv"), Path("b.csv"))
        with pytest.raises(ConfigError, match=r"data\.labels"):
            load_config("cam", ["data.labels=[1, 2]"], data={"path": "photos"})

    def test_one_format_is_not_that_of_several_files(self, folder: Path) -> None:
        (folder / "points.csv").write_text("file,x,y,label\na.png,3,4,dog\n")
        with pytest.raises(ConfigError, match="format 'csv' is given for 2 labels; leave it out"):
            merged(folder, "tags.csv", "points.csv", format="csv")
        assert merged(folder, "tags.csv", format="csv").photos[1].hints.tags == Tags.complete((), 2)


def test_the_plan_says_who_teaches_and_who_is_left_out_and_why(tmp_path: Path) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    for name in "abcde":
        Image.new("RGB", (40, 32)).save(data / f"{name}.png")
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax,label\na.png,1,1,20,20,cow\nb.png,2,2,30,30,cow\n")
    (tmp_path / "tags.csv").write_text("c.png,cow\nd.png,cow\n")
    hint_set = read_hints(data, (tmp_path / "boxes.csv", tmp_path / "tags.csv"))
    plans = {
        recipe: make_plan(hint_set, load_config(recipe, data={"path": str(data)})).sentences
        for recipe in ("boxes", "cam")
    }
    assert plans["boxes"] == (
        "2 photos teach by boxes (cfs, lgsa)",
        "1 photos left out: nothing is said of them",
        "2 photos left out: recipe 'boxes' learns nothing from tags",
    )
    assert plans["cam"] == (
        "4 photos teach by tags (cam, dense_crf, deeplabv2)",
        "1 photos left out: nothing is said of them",
    )
