"""YOLO: what is written reads back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hintseg.formats.codec import Writer
from hintseg.formats.yolo import Yolo
from hintseg.geometry.rasterise import paint
from hintseg.geometry.runs import encode
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Box, Click, Hints, HintSet, Mark, MaskFile, Photo, Region, Tags
from labelled import boxes, photo

NAMES = ("cat", "big dog", "été, 'vrai' \"x\"", "no", "1e3", "日本: a # b", "- dash")


def made(root: Path, classes: tuple[str, ...], photos: dict[str, Hints], truth: dict[str, object]) -> HintSet:
    found = []
    for id, hints in sorted(photos.items()):
        file = photo(root / f"{id}.png", size=(31, 77))
        found.append(Photo(id, file, hints, truth.get(id)))  # type: ignore[arg-type]
    return HintSet(root.name, classes, tuple(found))


def again(hint_set: HintSet, root: Path, out: Path) -> HintSet:
    codec = Yolo()
    assert isinstance(codec, Writer)
    return read_hints(root, codec.write(hint_set, out).labels, background=hint_set.background)


def test_boxes_read_back(tmp_path: Path) -> None:
    root, k = tmp_path / "my photos", len(NAMES)
    marks = tuple(Mark(n + 1, Box(n, 1.5, n + 3.25, 30.125), n + 1) for n in range(k))
    photos = {
        "a": Hints(Tags.complete(range(1, k + 1), k), marks),
        "été/b c": Hints(Tags.complete({4}, k), (Mark(4, Box(0, 0, 77, 31), 1),)),
        "sub/labels/x.y": Hints(Tags.complete((), k)),
        "unknown": Hints(),
        "train": Hints(Tags.complete({1}, k), (Mark(1, Box(3, 4, 5, 6), 1), Mark(1, Box(3, 4, 5, 7), 2))),
        "classes": Hints(Tags.complete((), k)),
    }
    before = made(root, NAMES, photos, {})
    before = replace(before, splits={"train": ("a", "classes"), "val": ("été/b c",)})
    written = Yolo().write(before, tmp_path / "out")
    assert written.lost == ()
    after = read_hints(root, written.labels)
    assert after.classes == before.classes
    assert after.splits == before.splits
    assert boxes(after) == boxes(before)
    assert {one.id: one.hints.tags for one in after.photos} == {one.id: one.hints.tags for one in before.photos}
    assert recognise(root, written.labels) == recognise(root, tmp_path / "out") == "yolo"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12).filter(
            lambda text: text.strip() == text and text.strip("_ ").lower() != "background"
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda name: " ".join(name.split()),
    ),
    rings=st.lists(st.lists(st.tuples(st.floats(0, 77), st.floats(0, 31)), min_size=3, max_size=6), max_size=4),
    data=st.data(),
)
def test_outlines_of_any_numbers_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    rings: list[list[tuple[float, float]]],
    data: st.DataObject,
) -> None:
    tmp_path = tmp_path_factory.mktemp("made")
    k, boxed, regions = len(names), list[Mark[Box]](), list[Mark[Region]]()
    for ring in rings:
        xs, ys = zip(*ring, strict=True)
        box = Box(min(xs), min(ys), max(xs), max(ys))
        if box.x1 - box.x0 < 0.5 or box.y1 - box.y0 < 0.5 or any(box == other.shape for other in boxed):
            continue
        label = data.draw(st.integers(1, k))
        boxed.append(Mark(label, box, len(boxed) + 1))
        regions.append(Mark(label, Region((tuple(v for point in ring for v in point),)), len(boxed)))
    tags = Tags.complete({mark.label for mark in boxed}, k)
    before = made(tmp_path / "p", tuple(names), {"a": Hints(tags, tuple(boxed))}, {"a": tuple(regions)})
    after = again(before, tmp_path / "p", tmp_path / "out")
    assert after.classes == before.classes
    (one,) = after.photos
    assert one.hints.tags == tags
    for mark, same in zip(one.hints.objects, boxed, strict=True):
        assert (mark.label, mark.object) == (same.label, same.object)
        assert mark.shape.corners == pytest.approx(same.shape.corners, abs=1e-3)
    assert (one.truth is None) == (not regions)
    assert not isinstance(one.truth, MaskFile)
    for found, region in zip(one.truth or (), regions, strict=True):
        assert isinstance(found.shape, Region)
        assert found.shape.polygons[0] == pytest.approx(region.shape.polygons[0], abs=1e-3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_index_images_become_outlines(tmp_path: Path, orientation: int) -> None:
    height, width = (77, 31) if orientation == 6 else (31, 77)
    mask = np.zeros((height, width), np.uint8)
    mask[2:9, 3:20], mask[20:25, 5:8], mask[4:6, 10:12] = 1, 1, 2
    file = photo(tmp_path / "p" / "a.jpg", size=(31, 77), orientation=orientation)
    Image.fromarray(mask).save(tmp_path / "m.png")
    tags = Tags.complete({1, 2}, 2)
    before = HintSet("p", ("x", "y"), (Photo("a", file, Hints(tags), MaskFile(tmp_path / "m.png")),))
    written = Yolo().write(before, tmp_path / "out")
    (lost,) = written.lost
    assert lost.startswith("1 masks or objects have holes or parts: filled or joined")
    (after,) = read_hints(tmp_path / "p", written.labels).photos
    np.testing.assert_array_equal(read_mask(after), mask)
    assert len(after.hints.objects) == 3


def test_pixels_of_an_index_image_go_to_the_boxes_of_their_class(tmp_path: Path) -> None:
    mask = np.zeros((31, 77), np.uint8)
    mask[2:9, 3:20], mask[2:9, 20:40], mask[20:25, 5:8], mask[4:6, 30:34] = 1, 1, 1, 2
    Image.fromarray(mask).save(tmp_path / "m.png")
    corners = [(1, (3, 2, 20, 9)), (1, (20, 2, 40, 9)), (2, (30, 4, 34, 6)), (2, (50, 20, 60, 30))]
    marks = tuple(Mark(label, Box(*map(float, box)), n) for n, (label, box) in enumerate(corners, start=1))
    root = tmp_path / "p"
    file = photo(root / "a.png", size=(31, 77))
    tags = Tags.complete({1, 2}, 2)
    before = HintSet("p", ("x", "y"), (Photo("a", file, Hints(tags, marks), MaskFile(tmp_path / "m.png")),))
    written = Yolo().write(before, tmp_path / "out")
    assert any("1 boxes of photos with a whole mask have no pixel" in sentence for sentence in written.lost)
    after = read_hints(root, written.labels)
    assert boxes(after)["a"][:4] == boxes(before)["a"]
    assert boxes(after)["a"][4:] == [("x", 5, 20, 8, 25)]


def test_objects_far_from_the_corner_and_thinner_than_a_pixel(tmp_path: Path) -> None:
    with_hole = np.zeros((31, 77), bool)
    with_hole[20:29, 50:70] = True
    with_hole[23:25, 55:60] = False
    thin = Region(((30.1, 3.0, 30.3, 3.0, 30.3, 9.0), (33.1, 3.0, 33.3, 3.0, 33.3, 9.0)))
    outlined = (Mark(1, Region(rle=encode(with_hole)), 1), Mark(2, thin, 2))
    before = made(tmp_path / "p", ("x", "y"), {"a": Hints(Tags.complete({1, 2}, 2))}, {"a": outlined})
    written = Yolo().write(before, tmp_path / "out")
    assert any("2 masks or objects have holes or parts" in sentence for sentence in written.lost)
    (after,) = read_hints(tmp_path / "p", written.labels).photos
    assert boxes(HintSet("p", ("x", "y"), (after,)))["a"] == [("x", 50, 20, 70, 29), ("y", 30.1, 3, 30.3, 9)]


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    parts = Region(((1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0), (20.0, 1.0, 29.0, 1.0, 29.0, 9.0, 20.0, 9.0)))
    photos = {
        "parts": Hints(Tags.complete({1}, 2), (Mark(1, Box(1, 1, 29, 9), 1, trust=0.5),)),
        "crowd": Hints(Tags.complete({1}, 2), (Mark(255, Box(1, 1, 5, 5)), Mark(0, Box(6, 6, 9, 9)))),
        "tagged": Hints(Tags.complete({1}, 2)),
        "partly": Hints(Tags(frozenset({1})), (Mark(1, Box(1, 1, 5, 5), 1),)),
        "clicked": Hints(None, (Mark(1, Click(3, 3)), Mark(1, Region(((1.0, 1.0, 9.0, 1.0, 9.0, 9.0),))))),
    }
    before = made(tmp_path / "p", ("x", "y"), photos, {"parts": (Mark(1, parts, 1),)})
    (tmp_path / "p" / "broken.png").write_bytes(b"")
    broken = Photo("broken", tmp_path / "p" / "broken.png", photos["partly"])
    before = replace(before, photos=(broken, *before.photos), splits={"fold1": ("crowd",)})
    written = Yolo().write(before, tmp_path / "out")
    said = "\n".join(written.lost)
    for expected in (
        "1 photos cannot be read",
        "1 objects that stand for many",
        "1 boxes of background",
        "1 objects lose how far they are trusted",
        "1 masks or objects have holes or parts",
        "2 photos have tags other than their boxes say",
        "1 regions are left out",
        "1 photos are in the split 'fold1'",
    ):
        assert expected in said
    assert sorted(file.name for file in (tmp_path / "out" / "labels").iterdir()) == [
        "crowd.txt",
        "partly.txt",
        "parts.txt",
    ]
    (after,) = (one for one in read_hints(tmp_path / "p", written.labels).photos if one.id == "parts")
    assert isinstance(after.truth, tuple)
    np.testing.assert_array_equal(paint(after.truth, (31, 77)), paint((Mark(1, parts, 1),), (31, 77)))
