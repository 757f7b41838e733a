"""Masks and maps on disk: what is written is read back, and files appear whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from hintseg.errors import LabelError, RunError, ShapeError
from hintseg.files.atomic import whole_file
from hintseg.files.palette import voc_palette
from hintseg.geometry.runs import decode, parse_counts
from hintseg.store.coco import write_coco
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import MaskStore, read_label_png, write_mask
from hintseg.store.overlay import overlay, write_overlay
from hintseg.store.pool import WAITING, write_pool
from hintseg.types import Rle

MASK = np.array([[0, 1, 2], [0, 2, 2]], np.uint8)

# The VOC development kit's table, labels 0 to 20 and 255.
VOC_COLOURS = (
    "000000 800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 c08000 400080 c00080 408080 c08080 "
    "004000 804000 00c000 80c000 004080 e0e0c0"
)


def test_palette_is_voc() -> None:
    colours = [bytes(colour).hex() for colour in voc_palette()[[*range(21), 255]]]
    assert colours == VOC_COLOURS.split()
    assert len({tuple(colour) for colour in voc_palette().tolist()}) == 256


def test_mask_png_holds_labels_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.png"
    labels = np.where([[False] * 3, [True, False, False]], np.uint8(255), MASK)
    write_mask(path, labels)
    np.testing.assert_array_equal(read_label_png(path), labels)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 1)) == (224, 224, 192)
    assert [p.name for p in path.parent.iterdir()] == ["b.png"]


@pytest.mark.parametrize("mask", [MASK.astype(np.int64), MASK[None], MASK[:0]])
def test_what_is_no_mask_is_refused(tmp_path: Path, mask: npt.NDArray[Any]) -> None:
    with pytest.raises(ShapeError, match=r"\(H, W\) uint8 is needed"):
        write_mask(tmp_path / "a.png", mask)


def test_grey_labels_are_read_and_colours_refused(tmp_path: Path) -> None:
    Image.fromarray(MASK).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_label_png(tmp_path / "grey.png"), MASK)
    Image.new("RGB", (3, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(LabelError, match=r"rgb\.png: an image of mode RGB.*index image"):
        read_label_png(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:40])
    with pytest.raises(LabelError, match=r"cut\.png: cannot be read"):
        read_label_png(tmp_path / "cut.png")
    with pytest.raises(LabelError, match="no such mask"):
        read_label_png(tmp_path / "none.png")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*"))


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_mask(path, MASK)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for target in ("pathlib.Path.replace", "PIL.Image.Image.save"):
        with monkeypatch.context() as patch:
            patch.setattr(target, full)
            with pytest.raises(RunError, match=r"a\.png: cannot be written \(No space left on device\); free space"):
                write_mask(path, np.ones((2, 2), np.uint8))
        assert names(tmp_path) == ["a.png"]
        np.testing.assert_array_equal(read_label_png(path), MASK)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole_file(tmp_path / "a.txt") as file:
            file.write(b"half")
            assert names(tmp_path) != ["a.txt"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_a_file_in_the_folders_place_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(RunError, match=r"b\.png: cannot be written"):
        write_mask(tmp_path / "a" / "b.png", MASK)


@pytest.fixture
def store(tmp_path: Path) -> MaskStore:
    store = MaskStore(tmp_path / "masks", ["cat", "dog"])
    store.write("b.1", MASK, quality=0.75)
    store.write("sub/a", np.ones((2, 2), np.uint8))
    return store


def test_store_remembers_masks_and_quality(store: MaskStore) -> None:
    assert store.ids() == ["b.1", "sub/a"]
    assert "sub/a" in store
    assert "c" not in store
    store.finish()
    assert names(store.folder) == ["a.png", "b.1.png", "manifest.json", "sub"]
    assert json.loads((store.folder / "manifest.json").read_text()) == {
        "classes": ["cat", "dog"],
        "background": True,
        "masks": {"b.1": {"quality": 0.75}, "sub/a": {"quality": None}},
    }
    again = MaskStore.load(store.folder)
    assert (again.classes, again.background) == (("cat", "dog"), True)
    np.testing.assert_array_equal(again.read("b.1"), MASK)


def test_quality_outlives_the_process_that_wrote_it(store: MaskStore) -> None:
    assert MaskStore(store.folder, ["cat", "dog"]).quality("b.1") == 0.75


def test_store_refuses_what_does_not_belong(store: MaskStore) -> None:
    with pytest.raises(ShapeError, match="label 3 in the mask of photo x, 0 to 2 is needed"):
        store.write("x", np.full((2, 2), 3, np.uint8))
    with pytest.raises(ShapeError, match=r"label 255 .* a mask that is judged has a label in every pixel"):
        store.write("x", np.full((2, 2), 255, np.uint8))
    with pytest.raises(ShapeError, match=r"quality 1\.5"):
        store.write("x", MASK, quality=1.5)
    for id in ("../x", "/x", ""):
        with pytest.raises(RunError, match="inside the store"):
            store.write(id, MASK)
    assert store.ids() == ["b.1", "sub/a"]


def test_load_explains_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json: no such file"):
        MaskStore.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="not the manifest"):
        MaskStore.load(tmp_path)


def test_maps_come_back(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((2, 5, 7), np.float32)
    write_maps(tmp_path / "s" / "a.npz", [3, 1], maps)
    keys, read = read_maps(tmp_path / "s" / "a.npz")
    assert keys.tolist() == [3, 1]
    assert keys.dtype == np.uint8
    np.testing.assert_array_equal(read, maps.astype(np.float16))
    write_maps(tmp_path / "none.npz", [], maps[:0])
    assert read_maps(tmp_path / "none.npz")[1].shape == (0, 5, 7)


@pytest.mark.parametrize(
    ("keys", "top", "text"),
    [([1], 1.0, r"\(n,\) and \(n, h, w\)"), ([1, 1], 1.0, "different"), ([0, 1], 1.0, "1..254"), ([1, 2], 1.5, "0..1")],
)
def test_bad_maps_are_refused(tmp_path: Path, keys: list[int], top: float, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        write_maps(tmp_path / "a.npz", keys, np.full((2, 3, 3), top))
    with pytest.raises(ShapeError, match=r"0\.\.1"):
        write_maps(tmp_path / "a.npz", [1, 2], np.full((2, 3, 3), np.nan))
    assert names(tmp_path) == []


def test_reading_maps_never_runs_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keys=np.array([1]), maps=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match=r"a\.npz: cannot be read"):
        read_maps(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(RunError, match=r"b\.npz: cannot be read"):
        read_maps(tmp_path / "b.npz")
    with pytest.raises(RunError, match="no such file"):
        read_maps(tmp_path / "c.npz")


def test_coco_says_what_the_masks_say(store: MaskStore, tmp_path: Path) -> None:
    write_coco(tmp_path / "coco.json", store, files={"b.1": "b.1.jpg", "sub/a": "photos/a.png"})
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "b.1.jpg", "height": 2, "width": 3},
        {"id": 2, "file_name": "photos/a.png", "height": 2, "width": 2},
    ]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in coco["annotations"]] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 1),
    ]
    dog = coco["annotations"][1]
    assert (dog["area"], dog["bbox"], dog["iscrowd"]) == (3, [1, 0, 2, 2], 0)
    # Down the columns: 3 zeros, then pixels (0, 2), (1, 1) are 3 ones. Each count is one character from '0' on.
    assert dog["segmentation"] == {"size": [2, 3], "counts": "33"}
    for annotation in coco["annotations"]:
        mask = store.read(["b.1", "sub/a"][annotation["image_id"] - 1])
        height, width = annotation["segmentation"]["size"]
        runs = Rle(height, width, parse_counts(annotation["segmentation"]["counts"]))
        np.testing.assert_array_equal(decode(runs), mask == annotation["category_id"])


def test_overlay_tints_outlines_and_leaves_the_background(tmp_path: Path) -> None:
    drawing = Image.new("L", (20, 20))
    ImageDraw.Draw(drawing).rectangle((5, 5, 14, 14), fill=1)
    mask = np.array(drawing)
    rgb = np.full((20, 20, 3), 100, np.uint8)
    picture = overlay(rgb, mask)
    assert picture[10, 10].tolist() == [114, 50, 50]
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[10, 4].tolist() == picture[10, 14].tolist() == [255, 255, 255]
    assert rgb.max() == 100
    write_overlay(tmp_path / "a.png", rgb, mask)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), picture)
    write_overlay(tmp_path / "a.jpg", rgb, mask)
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
    with pytest.raises(ShapeError, match="equal sizes"):
        overlay(rgb, mask[:10])


def test_write_pool_does_all_and_tells_the_first_error() -> None:
    done: list[int] = []
    with write_pool() as later:
        for number in range(100):
            later(done.append, number)
    assert sorted(done) == list(range(100))

    def fail() -> None:
        raise RunError("the disk is full")

    def work(then: Callable[..., Any]) -> None:
        with write_pool(1) as later:
            later(fail)
            then(later)

    with pytest.raises(RunError, match="the disk is full"):
        work(lambda later: None)
    with pytest.raises(RunError, match="the disk is full"):  # a later call tells, long before the end
        work(lambda later: [later(sleep, 0.001) for _ in range(10**9)])


def test_write_pool_drops_what_has_not_begun_after_an_error() -> None:
    done: list[int] = []

    def work() -> None:
        with write_pool(1) as later:
            later(sleep, 0.05)
            for number in range(WAITING - 1):
                later(done.append, number)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert not done


def test_write_pool_makes_the_caller_wait_when_writers_are_slow() -> None:
    begun, gate = [], Event()

    def slow() -> None:
        gate.wait()

    def fill(later: Callable[..., None]) -> None:
        for number in range(WAITING + 5):
            begun.append(number)
            later(slow)

    with write_pool() as later:
        caller = Thread(target=fill, args=(later,))
        caller.start()
        while len(begun) < WAITING + 1:
            sleep(0.001)
        caller.join(0.1)
        assert len(begun) == WAITING + 1
        gate.set()
        caller.join()
    assert len(begun) == WAITING + 5
