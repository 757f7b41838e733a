"""Masks of single objects on disk, and what other tools read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import RunError, ShapeError
from hintseg.geometry.polygons import join, outlines
from hintseg.geometry.rasterise import fill
from hintseg.geometry.runs import encode, encode_part, parse_counts
from hintseg.store.instances import (
    Instances,
    read_instances,
    write_instances,
    write_objects,
)


def blobs(rng: np.random.Generator, count: int = 5, size: tuple[int, int] = (40, 50)) -> Instances:
    """Random windows with random, somewhat smooth masks."""
    labels, windows, masks = [], [], []
    for _ in range(count):
        y0, x0 = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
        y1, x1 = rng.integers(y0 + 1, size[0] + 1), rng.integers(x0 + 1, size[1] + 1)
        noise = rng.random((y1 - y0 + 2, x1 - x0 + 2))
        masks.append((noise[:-2, :-2] + noise[1:-1, 1:-1] + noise[2:, 2:]) > 1.4)
        labels.append(rng.integers(1, 4))
        windows.append((x0, y0, x1, y1))
    return Instances(size, np.array(labels, np.uint8), np.array(windows, np.int64), masks)


@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_instances_survive_the_disk(tmp_path: Path, count: int) -> None:
    before = (
        blobs(np.random.default_rng(count), count)
        if count
        else Instances((3, 4), np.zeros(0, np.uint8), np.zeros((0, 4), np.int64), [])
    )
    write_instances(tmp_path / "sub" / "a.npz", before)
    after = read_instances(tmp_path / "sub" / "a.npz")
    assert (after.size, after.labels.tolist()) == (before.size, before.labels.tolist())
    np.testing.assert_array_equal(after.windows, before.windows)
    for one, other in zip(after.masks, before.masks, strict=True):
        np.testing.assert_array_equal(one, other)


def test_smaller_boxes_lie_in_front_and_only_foreground_is_painted() -> None:
    photo = blobs(np.random.default_rng(3), 20)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in photo.windows.tolist()]
    labels, ids = photo.semantic(), photo.ids()
    for y in range(photo.size[0]):
        for x in range(photo.size[1]):
            here = [i for i in range(20) if photo.full(i)[y, x]]
            front = min(here, key=lambda i: (areas[i], -i), default=None)  # of equal boxes the later one covers
            assert ids[y, x] == (0 if front is None else front + 1)
            assert labels[y, x] == (0 if front is None else photo.labels[front])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="one each per object"):
        Instances((4, 4), np.array([1], np.uint8), np.array([[0, 0, 2, 2]]), [np.ones((3, 2), bool)])


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no npz")
    for name in ("a.npz", "b.npz"):
        with pytest.raises(RunError, match=name):
            read_instances(tmp_path / name)


def test_outlines_fill_back_to_the_mask() -> None:
    for seed in range(20):
        for mask in blobs(np.random.default_rng(seed)).masks:
            rings = outlines(mask)
            filled = fill(rings, mask.shape)
            assert not (mask & ~filled).any(), "every pixel lies in an outline"
            ringed = np.pad(mask, 1)
            outside = np.zeros_like(ringed)
            outside[0], grown = True, None
            while grown is None or (grown != outside).any():  # flood from the border, diagonals too
                grown = outside.copy()
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        outside |= np.roll(grown, (dy, dx), (0, 1)) & ~ringed
            assert not (filled & outside[1:-1, 1:-1]).any(), "what is filled besides the mask are its holes"


def test_joined_outlines_cover_what_the_parts_cover() -> None:
    mask = np.zeros((12, 30), bool)
    mask[2:6, 1:5], mask[3:11, 9:14], mask[5:7, 20:28] = True, True, True
    joined = fill([join(outlines(mask))], mask.shape)
    np.testing.assert_array_equal(joined, mask)


def test_other_tools_get_the_same_objects(tmp_path: Path) -> None:
    photo = blobs(np.random.default_rng(1))
    write_objects(tmp_path, [("sub/a", "sub/a.jpg", photo)], ["x", "y", "z"])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "instances" / "sub" / "a.png")), photo.ids())
    written = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    drawn = json.loads((tmp_path / "coco_polygons.json").read_text())["annotations"]
    assert [a["category_id"] for a in written] == photo.labels.tolist()
    for index, (runs, rings) in enumerate(zip(written, drawn, strict=True)):
        mask = photo.full(index)
        counts = parse_counts(runs["segmentation"]["counts"])
        flat = np.repeat(np.arange(len(counts)) % 2, counts)
        np.testing.assert_array_equal(flat.reshape(photo.size[1], photo.size[0]).T, mask)
        rows, columns = np.nonzero(mask)
        assert runs["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert runs["area"] == rings["area"] == mask.sum()
        filled = fill([np.reshape(ring, (-1, 2)) for ring in rings["segmentation"]], photo.size)
        assert not (mask & ~filled).any()


def test_yolo_outlines_are_relative_and_count_classes_from_0(tmp_path: Path) -> None:
    mask = np.ones((10, 20), bool)
    photo = Instances((40, 50), np.array([2], np.uint8), np.array([[5, 10, 25, 20]]), [mask])
    write_objects(tmp_path, [("a", "a.jpg", photo)], ["x", 'a "y"'])
    label, *numbers = (tmp_path / "yolo" / "labels" / "a.txt").read_text().split()
    points = np.array(numbers, float).reshape(-1, 2)
    assert label == "1"
    np.testing.assert_allclose([points.min(0), points.max(0)], [[5 / 50, 10 / 40], [25 / 50, 20 / 40]], atol=1e-6)
    assert (tmp_path / "yolo" / "data.yaml").read_text() == 'names:\n  0: "x"\n  1: "a \\"y\\""\n'


def test_runs_of_a_window_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 12, 2)
        y0, x0 = rng.integers(0, height), rng.integers(0, width)
        part = rng.random((rng.integers(1, height - y0 + 1), rng.integers(1, width - x0 + 1))) > rng.random()
        whole = np.zeros((height, width), bool)
        whole[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
        assert encode_part(part, (x0, y0), (height, width)) == encode(whole)
