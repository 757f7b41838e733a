"""Photos that differ in what is said of them learn side by side: masks, boxes and tags, each by what serves it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import hintseg
from hintseg.config.loader import load_config
from hintseg.data.shapes import write_shapes
from hintseg.run.fingerprint import broken, parts
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png, write_mask
from made import given

MIXED = [
    "localize.method=cam",
    "refine.method=par",
    "propose.method=filled",
    "segment.method=deeplabv2",
    "backbone.name=resnet10t",
    "backbone.weights=random",
    "localize.fit.epochs=1",
    "segment.fit.epochs=1",
    "localize.fit.crop=48",
    "segment.fit.crop=48",
    "maps.scales=[1.0]",
    "test.scales=[1.0]",
    "trainer.workers=0",
    "trainer.accelerator=cpu",
    "trainer.pictures=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos: masks that may teach of two, boxes of four more (one with a tag more than boxes), tags of four."""
    folder = tmp_path_factory.mktemp("mixed")
    write_shapes(folder / "shapes", train=12, val=2, size=48)
    photos, rows = folder / "photos", []
    boxes: list[tuple[str, ...]] = [("file", "xmin", "ymin", "xmax", "ymax", "label")]
    photos.mkdir()
    (folder / "shapes" / "JPEGImages").rename(photos / "JPEGImages")
    (folder / "shapes" / "classes.txt").rename(photos / "classes.txt")
    (folder / "shapes" / "SegmentationClass").rename(photos / "SegmentationClass")
    with (folder / "shapes" / "tags.csv").open(newline="") as file:
        tags = {row[0]: row[1:] for row in csv.reader(file)}
    for number in range(10):
        name = f"train_{number:04d}.png"
        objects = ElementTree.parse(folder / "shapes" / "Annotations" / name.replace("png", "xml")).iter("object")
        if 2 <= number < 6:
            found = [(given(one.findtext("name")), given(one.find("bndbox"))) for one in objects]
            dropped = {found[0][0]} if number == 2 and len({label for label, _ in found}) > 1 else set()
            boxes += [
                (name, *(given(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")), label)
                for label, box in found
                if label not in dropped
            ]
        rows.append((name, *tags[name]))
    for path, content in (("tags.csv", rows), ("boxes.csv", boxes)):
        with (folder / path).open("w", newline="") as file:
            csv.writer(file).writerows(content)
    (folder / "masks.txt").write_text("train_0000\ntrain_0001\n")
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> RunFolder:
    settings = [*MIXED, f"data.learn_masks={data / 'masks.txt'}"]
    made = hintseg.train(
        data / "photos", data / "run", labels=[data / "tags.csv", data / "boxes.csv"], recipe="boxes", settings=settings
    )
    return RunFolder.open(made.path)


def test_the_plan_counts_every_photo(run: RunFolder) -> None:
    assert run.data.plan == (
        "2 photos teach by masks (deeplabv2)",
        "4 photos teach by boxes (filled, deeplabv2)",
        "4 photos teach by tags (cam, par, deeplabv2)",
        "4 photos left out: recipe 'boxes' learns nothing from a mask (data.learn_masks lets it teach)",
    )
    assert "4 photos teach by boxes" in (run.path / "report.html").read_text()


def test_each_photo_is_labelled_by_the_strongest_that_is_said_of_it(run: RunFolder, data: Path) -> None:
    labels = {path.stem: read_label_png(path) for path in (run.path / "labels").glob("*.png")}
    assert sorted(labels) == [f"train_{number:04d}" for number in range(10)]
    for number in range(2):
        name = f"train_{number:04d}"
        np.testing.assert_array_equal(
            labels[name], read_label_png(data / "photos" / "SegmentationClass" / f"{name}.png")
        )
    for number in range(3, 6):
        name = f"train_{number:04d}"
        np.testing.assert_array_equal(labels[name], read_label_png(run.mask_path("propose", name)))
    for number in range(6, 10):
        name = f"train_{number:04d}"
        np.testing.assert_array_equal(labels[name], read_label_png(run.mask_path("refine", name)))


def test_masks_for_people_are_of_all_photos(run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="hintseg"):
        out = hintseg.masks(run.path, tmp_path / "masks")
    listed = json.loads((out / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == [f"train_{number:04d}.png" for number in range(10)]
    name = "train_0004"
    np.testing.assert_array_equal(
        read_label_png(out / "png" / f"{name}.png"), read_label_png(run.mask_path("propose", name))
    )

    objects = json.loads((out / "objects" / "coco.json").read_text())
    boxed = {row.id: row.boxes or () for row in run.photos if run.mask_path("propose", row.id).is_file()}
    assert [image["file_name"] for image in objects["images"]] == [f"{name}.png" for name in sorted(boxed)]
    assert 4 <= len(boxed) < 10
    assert [one["category_id"] for one in objects["annotations"]] == [
        box[0] for name in sorted(boxed) for box in boxed[name]
    ]
    assert (
        f"objects of {len(boxed)} photos are in {out / 'objects'}; {10 - len(boxed)} photos have no boxes"
        in caplog.text
    )


def test_what_tags_teach_does_not_depend_on_boxes() -> None:
    data = {"path": "photos"}
    before = load_config("boxes", ["localize.method=cam"], data=data)
    now = load_config("boxes", ["localize.method=cam", "propose.expand=0.7"], data=data)
    assert [part.key for part in broken(before, now)] == [("propose", "learn"), ("segment", "learn")]
    reads = {part.key: part.reads for part in parts(load_config("boxes", MIXED, data=data))}
    assert reads["segment", "learn"] == (("propose", "masks"), ("refine", "masks"))


def test_a_mask_that_was_mended_before_the_segmenter_learned_is_what_it_learns(
    run: RunFolder, data: Path, tmp_path: Path
) -> None:
    mended = tmp_path / "run"
    shutil.copytree(run.path, mended)
    RunFolder.open(mended).update_stage("segment", done=False)
    shutil.rmtree(mended / "segment")
    mask = np.full((48, 48), 3, np.uint8)
    write_mask(mended / "refine" / "masks" / "train_0007.png", mask)
    settings = [*MIXED, f"data.learn_masks={data / 'masks.txt'}"]
    labels = [data / "tags.csv", data / "boxes.csv"]
    hintseg.train(data / "photos", mended, labels=labels, recipe="boxes", settings=settings, resume=True)
    np.testing.assert_array_equal(read_label_png(mended / "labels" / "train_0007.png"), mask)
