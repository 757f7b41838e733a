"""Tables of run lengths, as Kaggle's competitions have them, against the usual way to write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hintseg.formats.csv_masks import _item, _parse
from hintseg.geometry.runs import decode
from hintseg.hints import read_hints
from hintseg.hints.masks import read_mask
from hintseg.types import HintSet, Region
from table_sets import absent, data, note, refused, tags


def run_lengths(mask: np.ndarray, order: Literal["C", "F"] = "F") -> str:
    """Write a mask as Kaggle's competitions do."""
    flat = np.concatenate([[0], mask.ravel(order=order), [0]])
    runs = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs[1::2] -= runs[::2]
    return " ".join(map(str, runs))


def disc(size: tuple[int, int] = (10, 20), centre: tuple[int, int] = (5, 6), radius: int = 4) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2)


def masks(hint_set: HintSet) -> Mapping[str, np.ndarray]:
    return {photo.id: read_mask(photo) for photo in hint_set.photos if photo.truth is not None}  # type: ignore[misc]


@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_mask_is_read_as_it_was_written(height: int, width: int, across: bool, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    mask[0, 0] = True
    numbers = _parse(run_lengths(mask, "C" if across else "F"))
    assert isinstance(numbers, list)
    shape = _item("x", numbers, (height, width), across=across).shape
    assert isinstance(shape, Region)
    assert shape.rle is not None
    np.testing.assert_array_equal(decode(shape.rle), mask)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("ImageId,EncodedPixels,ClassId", "{name}.png,{runs},{label}"),
        ("id,class,rle", "{name},{label},{runs}"),
        ("ImageId_ClassId,EncodedPixels", "{name}.png_{label},{runs}"),
        ("Image_Label,EncodedPixels", "{name}.png_{label},{runs}"),
    ],
)
def test_masks_of_classes_and_negatives(tmp_path: Path, header: str, row: str) -> None:
    one, two = disc(), disc(centre=(4, 15))
    rows = [("a", one, "cat"), ("a", two, "dog"), ("b", np.zeros((10, 20), bool), "cat"), ("c", two, "cat")]
    lines = [row.format(name=name, runs=run_lengths(mask), label=label) for name, mask, label in rows]
    hint_set = read_hints(data(tmp_path, "\n".join([header, *lines]), "train.csv"))
    assert hint_set.classes == ("cat", "dog")
    found = masks(hint_set)
    np.testing.assert_array_equal(found["a"], one + 2 * two)
    np.testing.assert_array_equal(found["c"], two.astype(int))
    assert not found["b"].any()
    assert tags(hint_set) == {"a": {"cat", "dog"}, "b": set(), "c": {"cat"}}
    assert absent(hint_set)["b"] == {"cat", "dog"}
    assert note(hint_set, "the run lengths of train.csv are read down the columns")


def test_a_class_that_no_photo_shows_is_kept(tmp_path: Path) -> None:
    text = f"Image_Label,EncodedPixels\na.png_Fish,{run_lengths(disc())}\na.png_Sugar,\n"
    assert read_hints(data(tmp_path, text, "train.csv")).classes == ("Fish", "Sugar")


@pytest.mark.parametrize("empty", ["", "-1", "nan"])
def test_one_class_without_a_name(tmp_path: Path, empty: str) -> None:
    text = f"id,rle_mask\na,{run_lengths(disc())}\nb,{empty}\n"
    hint_set = read_hints(data(tmp_path, text, "train.csv"))
    assert tags(hint_set) == {"a": {"object"}, "b": set()}
    assert note(hint_set, "all is 'object'; one line in classes.txt renames it")
    assert tags(read_hints(data(tmp_path, text, files={"classes.txt": "salt\n"})))["a"] == {"salt"}


def test_runs_along_the_rows_are_seen(tmp_path: Path) -> None:
    rows = "".join(f"{photo},{run_lengths(disc(centre=(5, n)), 'C')}\n" for n, photo in enumerate("abcd", start=5))
    hint_set = read_hints(data(tmp_path, f"img,rle_mask\n{rows}", "train.csv"))
    np.testing.assert_array_equal(masks(hint_set)["a"], disc(centre=(5, 5)).astype(int))
    assert note(hint_set, "the run lengths of train.csv are read along the rows")


def test_photos_turned_by_exif(tmp_path: Path) -> None:
    folder = data(tmp_path, f"id,rle\na.jpg,{run_lengths(disc())}\n", "train.csv", photos=())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(folder / "a.jpg", exif=exif)
    np.testing.assert_array_equal(masks(read_hints(folder))["a"], np.rot90(disc(), -1).astype(int))


def test_bad_rows(tmp_path: Path) -> None:
    good = "".join(f"{photo},{run_lengths(disc())}\n" for photo in "abc")
    for bad, why in {
        "195 10": "its runs end at pixel 204, but the photo has 20 x 10 = 200",
        "1 2 3": "its run lengths have 3 numbers; needed are pairs of start and length",
        "5 9 6 1": "its runs overlap or do not rise",
        "0 5": "its runs overlap or do not rise",
        "1 -2": "'1 -2' holds something else than numbers",
        "1 2.5": "'1 2.5' holds something else than numbers",
    }.items():
        hint_set = read_hints(data(tmp_path, f"id,rle\n{good}d,{bad}\n", "train.csv"))
        assert note(hint_set, f"1 of 4 annotations in train.csv are left out: line 5: {why}")
        assert set(masks(hint_set)) == {"a", "b", "c"}
    message = refused(data(tmp_path, "id,rle\na,1 2 3\nb,5 9 6 1\n", "train.csv"))
    assert "2 of 2 annotations do not fit their photos" in message


def test_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    rows = "".join(f"{photo},{run_lengths(disc())}\n" for photo in "abcd")
    folder = data(tmp_path, f"id,rle\n{rows}", "train.csv")
    (folder / "d.png").write_bytes(b"no photo")
    assert note(read_hints(folder), "line 5: cannot read the photo")
    (folder / "d.png").unlink()
    assert "line 5: there is no photo 'd'" in refused(folder)
    assert set(masks(read_hints(folder, missing="skip"))) == {"a", "b", "c"}


def test_long_cells_are_read(tmp_path: Path) -> None:
    mask = np.indices((500, 500)).sum(axis=0) % 2 == 0
    text = f"id,rle\na,{run_lengths(mask)}\n"
    assert len(text) > 500_000
    np.testing.assert_array_equal(masks(read_hints(data(tmp_path, text, size=(500, 500))))["a"], mask.astype(int))
