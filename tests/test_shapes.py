"""The synthetic data set: the same bytes from the same seed, and hints that agree with the truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hintseg.data.shapes import CLASSES, ShapesPhoto, make_photo, write_shapes
from hintseg.errors import ConfigError, RunError
from made import given

TRAIN, BOAT, HORSE, CART, BIRD, MUSHROOM = range(1, 7)


@pytest.fixture(scope="module")
def photos() -> list[ShapesPhoto]:
    return [make_photo(index) for index in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=12, val=4, seed=3, size=64)
    return folder


def test_the_same_seed_gives_the_same_bytes_in_any_order() -> None:
    forwards = [make_photo(index) for index in (4, 5)]
    backwards = [make_photo(index) for index in (5, 4)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert np.array_equal(one.rgb, other.rgb)
        assert np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.scribbles, other.scribbles)
        assert one.points == other.points


def test_index_seed_and_split_each_change_the_photo() -> None:
    base = make_photo(7).rgb
    for other in (make_photo(8), make_photo(7, seed=1), make_photo(7, split="val")):
        assert np.abs(base.astype(int) - other.rgb).mean() > 5


@pytest.mark.parametrize("size", [32, 96, 113])
def test_arrays_have_the_promised_type_and_size(size: int) -> None:
    photo = make_photo(0, size=size)
    assert photo.rgb.shape == (size, size, 3)
    assert photo.mask.shape == photo.scribbles.shape == (size, size)
    assert photo.rgb.dtype == photo.mask.dtype == photo.scribbles.dtype == np.uint8


def test_photos_are_neither_flat_nor_burnt_out(photos: list[ShapesPhoto]) -> None:
    values = np.stack([photo.rgb for photo in photos])
    assert values.std(axis=(1, 2)).min() > 5
    assert np.isin(values, (0, 255)).mean() < 0.05


def test_tags_and_instances_are_what_the_mask_shows(photos: list[ShapesPhoto]) -> None:
    for photo in photos:
        assert photo.tags == set(np.unique(photo.mask).tolist()) - {0}
        rebuilt = np.zeros_like(photo.mask)
        for instance in photo.instances:
            assert instance.mask.any()
            assert not rebuilt[instance.mask].any()  # the visible parts do not overlap
            rebuilt[instance.mask] = instance.label
        assert np.array_equal(rebuilt, photo.mask)


def test_boxes_are_tight(photos: list[ShapesPhoto]) -> None:
    for instance in (instance for photo in photos for instance in photo.instances):
        x0, y0, x1, y1 = instance.box
        inside = instance.mask[y0:y1, x0:x1]
        assert inside.sum() == instance.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_clicks_and_strokes_lie_on_what_they_name(photos: list[ShapesPhoto]) -> None:
    for photo in photos:
        drawn = photo.scribbles != 255
        assert np.array_equal(photo.scribbles[drawn], photo.mask[drawn])
        assert set(photo.scribbles[drawn].tolist()) == photo.tags | {0}
        assert drawn.mean() < 0.15
        assert [point.label for point in photo.points] == [instance.label for instance in photo.instances]
        for point, instance in zip(photo.points, photo.instances, strict=True):
            assert instance.mask[point.y, point.x]


def test_all_classes_occur_and_many_photos_have_one_tag(photos: list[ShapesPhoto]) -> None:
    tags = np.array([len(photo.tags) for photo in photos])
    assert 0.35 < (tags == 1).mean() < 0.55
    assert 0.01 < (tags == 0).mean() < 0.10
    assert tags.max() <= 3
    assert min(sum(label in photo.tags for photo in photos) for label in range(1, len(CLASSES) + 1)) > 30


def test_horse_and_cart_come_together(photos: list[ShapesPhoto]) -> None:
    horse = np.array([HORSE in photo.tags for photo in photos])
    cart = np.array([CART in photo.tags for photo in photos])
    assert (horse & cart).mean() > 1.5 * horse.mean() * cart.mean()


def test_boats_have_a_background_of_their_own() -> None:
    """Water is the only ground where blue leads; on it, boats are far above chance."""
    photos = [make_photo(index, seed=5) for index in range(300)]
    blue = np.array([np.median(p.rgb[p.mask == 0].astype(int), 0)[[2, 0]] @ (1, -1) > 40 for p in photos])
    boat = np.array([BOAT in photo.tags for photo in photos])
    assert boat[blue].mean() > 2 * boat.mean()
    assert not boat[blue].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "vla"}, "unknown split 'vla'.*did you mean 'val'"),
        ({"size": 8}, "size=8.*size >= 32"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_photo(0, **arguments)  # type: ignore[arg-type]


def test_written_photos_and_masks_are_the_ones_made(folder: Path) -> None:
    for split, count in (("train", 12), ("val", 4)):
        ids = (folder / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        assert ids == [f"{split}_{index:04d}" for index in range(count)]
        for index, photo_id in enumerate(ids):
            photo = make_photo(index, split=split, seed=3, size=64)
            for sub, truth in (
                ("JPEGImages", photo.rgb),
                ("SegmentationClass", photo.mask),
                ("Scribbles", photo.scribbles),
            ):
                with Image.open(folder / sub / f"{photo_id}.png") as image:
                    assert np.array_equal(np.asarray(image), truth)


def test_masks_carry_the_colours_of_voc(folder: Path) -> None:
    with Image.open(folder / "SegmentationClass/train_0000.png") as image:
        palette = np.reshape(given(image.getpalette()), (-1, 3))
    assert palette[[0, 1, 2, 3, 4, 5, 6, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [224, 224, 192],
    ]


def test_written_hints_agree_with_the_photos(folder: Path) -> None:
    assert (folder / "classes.txt").read_text().split() == list(CLASSES)
    with (folder / "tags.csv").open() as file:
        tags = {row[0]: {CLASSES.index(name) + 1 for name in row[1:]} for row in csv.reader(file)}
    with (folder / "Hints/points.csv").open() as file:
        points = [(row["filename"], row["x"], row["y"], row["label"]) for row in csv.DictReader(file)]
    coco = json.loads((folder / "Hints/instances.json").read_text())
    assert [entry["name"] for entry in coco["categories"]] == list(CLASSES)
    assert len(tags) == len(coco["images"]) == 16
    for image in coco["images"]:
        split, index = Path(image["file_name"]).stem.split("_")
        photo = make_photo(int(index), split=split, seed=3, size=64)
        assert tags[image["file_name"]] == photo.tags
        clicks = [(image["file_name"], str(p.x), str(p.y), CLASSES[p.label - 1]) for p in photo.points]
        negative = [(image["file_name"], None, None, None)]
        assert [row for row in points if row[0] == image["file_name"]] == (clicks or negative)
        objects = [entry for entry in coco["annotations"] if entry["image_id"] == image["id"]]
        xml = ElementTree.parse(folder / "Annotations" / f"{split}_{index}.xml").findall("object")
        assert len(objects) == len(xml) == len(photo.instances)
        for entry, thing, instance in zip(objects, xml, photo.instances, strict=True):
            x0, y0, x1, y1 = instance.box
            assert entry["bbox"] == [x0, y0, x1 - x0, y1 - y0]
            assert entry["category_id"] == instance.label
            runs = entry["segmentation"]["counts"]
            column_major = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
            assert np.array_equal(column_major.reshape(64, 64).T, instance.mask)
            assert thing.findtext("name") == CLASSES[instance.label - 1]
            corners = [int(thing.findtext(f"bndbox/{name}") or -1) for name in ("xmin", "ymin", "xmax", "ymax")]
            assert corners == [x0 + 1, y0 + 1, x1, y1]


def test_a_folder_in_use_is_left_alone(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match="is not empty; delete it or name another folder"):
        write_shapes(folder, train=1, val=1)
    assert sorted(folder.rglob("*")) == before


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hintseg.data.shapes._save_csv", full_disk)
    with pytest.raises(RunError, match="No space left on device"):
        write_shapes(tmp_path / "shapes", train=2, val=1, size=32)
    assert list(tmp_path.iterdir()) == []
