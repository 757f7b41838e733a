"""Masks as images: how they are named, where they lie, and how they are written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hintseg.formats.index_png import IndexPng
from hintseg.formats.mask_names import affixed
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Box, FullMask, Hints, HintSet, Mark, MaskFile, Photo, Region, Tags
from mask_images import coloured, labels_of, mask_of, photo, refusal, save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three photos in images/, and a class list."""
    for name in "abc":
        photo(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    return tmp_path


class TestNames:
    @pytest.mark.parametrize(
        ("pattern", "end"),
        [
            ("{}_mask", "end in '_mask'"),
            ("{}_seg", "end in '_seg'"),
            ("{}-gt", "end in '-gt'"),
            ("{}_gtFine_labelIds", "end in '_gtFine_labelIds'"),
            ("mask_{}", "begin with 'mask_'"),
            ("{}_2024_final", "end in '_2024_final'"),
            ("seg_{}_v2", "begin with 'seg_' and end in '_v2'"),
        ],
    )
    def test_what_all_names_have_more_is_found_and_said(self, data: Path, pattern: str, end: str) -> None:
        for name, label in (("a", 1), ("b", 2), ("c", 1)):
            save(data / "masks" / f"{pattern.format(name)}.png", mask_of(label))
        hint_set = read_hints(data)
        assert labels_of(hint_set) == {"a": {1}, "b": {2}, "c": {1}}
        assert any(f"3 names of masks {end}, unlike those of their photos" in note for note in hint_set.notes)

    def test_photos_may_have_more_in_their_names_too(self, tmp_path: Path) -> None:
        for number in (119, 855, 3):
            photo(tmp_path / "images" / f"{number}_sat.jpg")
            save(tmp_path / "masks" / f"{number}_mask.png", mask_of(1))
        (tmp_path / "classes.txt").write_text("ant\n")
        assert labels_of(read_hints(tmp_path)) == {f"{number}_sat": {1} for number in (119, 3, 855)}

    def test_pictures_beside_the_masks_are_left_out(self, tmp_path: Path) -> None:
        for name in ("aachen_01", "aachen_02"):
            photo(tmp_path / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png")
            at = tmp_path / "gtFine" / "train"
            save(at / f"{name}_gtFine_labelIds.png", mask_of(2))
            save(at / f"{name}_gtFine_color.png", coloured(2))
            save(at / f"{name}_gtFine_instanceIds.png", mask_of(1).astype(np.uint16) * 26001)
        (tmp_path / "classes.txt").write_text("ant\nbee\n")
        hint_set = read_hints(tmp_path)
        assert set(map(frozenset, labels_of(hint_set).values())) == {frozenset({2})}
        assert len(labels_of(hint_set)) == 2
        assert any("4 other pictures beside them are left out" in note for note in hint_set.notes)

    def test_several_masks_of_a_photo_are_refused_with_their_names(self, data: Path) -> None:
        for name in "abc":
            for label in ("ant", "bee"):
                save(data / "masks" / f"{name}_{label}_mask.png", mask_of(1))
        message = refusal(data)
        assert "3 photos have several masks in masks, such as a: a_ant_mask.png and a_bee_mask.png" in message
        assert "needed is one mask for each photo" in message

    def test_a_folder_for_each_photo_with_a_mask_for_each_object(self, tmp_path: Path) -> None:
        for name in ("p1", "p2"):
            photo(tmp_path / name / "images" / f"{name}.png")
            for number in (31, 47):
                save(tmp_path / name / "masks" / f"{number}.png", mask_of(255))
        assert recognise(tmp_path) == "nuclei"
        assert "2 photos have several masks in p1/masks and p2/masks" in refusal(tmp_path, format="index_png")

    def test_one_photo_is_not_taken_for_another(self, data: Path) -> None:
        for name in ("a", "b", "b_2"):  # the photo b_2 is missing
            save(data / "masks" / f"{name}.png", mask_of(1))
        assert "b_2.png: there is no photo 'b_2'" in refusal(data)
        (data / "masks" / "b_2.png").unlink()
        save(data / "masks" / "c_night.png", mask_of(1))
        assert "c_night.png: there is no photo 'c_night'" in refusal(data)

    def test_numbers_tell_photos_apart(self) -> None:
        photos = {f"scan_{number}": f"scan_{number}" for number in (1, 2)}
        assert affixed([f"scan_{number}_1" for number in (1, 2)], photos).photos == {}
        longest = affixed(["a_b_mask", "a_mask"], {"a": "a", "a_b": "a_b"})
        assert longest.photos == {"a_b_mask": "a_b", "a_mask": "a"}

    def test_hidden_folders_and_thumbnails_are_left_out(self, data: Path) -> None:
        save(data / "masks" / "a.png", mask_of(1))
        save(data / "masks" / ".ipynb_checkpoints" / "a-checkpoint.png", mask_of(2))
        save(data / "masks" / "@eaDir" / "a.png", mask_of(2))
        save(data / "masks" / "thumbs" / "a.png", mask_of(2, (2, 1)))
        assert labels_of(read_hints(data)) == {"a": {1}}

    def test_truth_beside_a_table_may_have_such_names_too(self, data: Path) -> None:
        (data / "tags.csv").write_text("a.jpg,ant\nb.jpg,bee\nc.jpg\n")
        save(data / "SegmentationClass" / "a_mask.png", mask_of(1))
        save(data / "SegmentationClass" / "b_mask.png", mask_of(2))
        assert labels_of(read_hints(data)) == {"a": {1}, "b": {2}}


class TestPlaces:
    def layout(self, folder: Path, photos: str, masks: str, names: str = "ab", lists: bool = True) -> HintSet:
        for name, label in zip(names, (1, 2), strict=False):
            photo(folder / photos.format(name))
            save(folder / masks.format(name), mask_of(label))
        if lists:
            (folder / "classes.txt").write_text("ant\nbee\n")
        return read_hints(folder)

    @pytest.mark.parametrize(
        ("photos", "masks", "split"),
        [
            ("images/{}.jpg", "masks/{}.png", None),
            ("img/{}.jpg", "ann/{}.png", None),
            ("image/{}.jpg", "label/{}.png", None),
            ("images/{}.jpg", "ground_truth/{}.tif", None),
            ("train/images/{}.jpg", "train/masks/{}.png", "train"),
            ("images/valid/{}.jpg", "masks/valid/{}.png", "val"),
            ("img_dir/test/{}.jpg", "ann_dir/test/{}.png", "test"),
            ("train/{}.jpg", "train_masks/{}_mask.bmp", "train"),
            ("val/{}.png", "val_labels/{}_L.png", "val"),
            ("train/{}.jpg", "train/{}_mask.png", "train"),
            ("{}.jpg", "{}_mask.png", None),
            ("{}.png", "mask_{}.png", None),
        ],
    )
    def test_layouts(self, tmp_path: Path, photos: str, masks: str, split: str | None) -> None:
        hint_set = self.layout(tmp_path, photos, masks)
        assert recognise(tmp_path) == "index_png"
        assert len(hint_set.photos) == 2, "masks are no photos"
        found = labels_of(hint_set)
        assert {id.rpartition("/")[2]: labels for id, labels in found.items()} == {"a": {1}, "b": {2}}
        assert dict(hint_set.splits) == ({split: tuple(sorted(found))} if split else {})

    def test_a_word_for_masks_in_a_photos_own_name(self, tmp_path: Path) -> None:
        for name in ("with_mask", "without_mask"):
            photo(tmp_path / "faces" / f"{name}.png")
        assert recognise(tmp_path) == "folders"

    def test_roboflows_masks_lie_among_the_photos_with_a_table_of_values(self, tmp_path: Path) -> None:
        for split, label in (("train", 1), ("valid", 2)):
            name = f"{split}_jpg.rf.0a1b"
            photo(tmp_path / split / f"{name}.jpg")
            save(tmp_path / split / f"{name}_mask.png", mask_of(label))
            (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, ant\n2, bee\n")
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("ant", "bee")
        assert labels_of(hint_set) == {"train/train_jpg.rf.0a1b": {1}, "valid/valid_jpg.rf.0a1b": {2}}
        assert set(hint_set.splits) == {"train", "val"}

    def test_without_a_class_list_the_values_are_said(self, data: Path) -> None:
        (data / "classes.txt").unlink()
        save(data / "masks" / "a.png", mask_of(2))
        message = refusal(data)
        assert "write one class name per line: line n is id n" in message
        assert "The first 1 masks hold the values 0 and 2" in message


LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"))
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name.strip() == name)


def made(folder: Path, masks: list[np.ndarray], classes: tuple[str, ...], *, outlines: bool = False) -> HintSet:
    """Photos in sub-folders with odd names, the last without a mask."""
    photos = []
    for number, mask in enumerate([*masks, None]):
        id = f"Ümlaut {number % 2}/é,'{number}"
        height, width = (5, 7) if mask is None else mask.shape
        path = photo(folder / "photos" / f"{id}.png", (width, height))
        truth: FullMask | None = None
        if mask is not None and outlines:
            truth = (Mark(1, Region(((0, 0, 4, 0, 4, 3, 0, 3),)), 1),)
        elif mask is not None:
            truth = MaskFile(save(folder / "own" / f"{number}.png", mask))
        photos.append(Photo(id, path, Hints(), truth))
    return HintSet("set", classes, tuple(sorted(photos, key=lambda one: one.id)))


def same(before: HintSet, after: HintSet) -> None:
    assert [one.id for one in before.photos] == [one.id for one in after.photos]
    for one, other in zip(before.photos, after.photos, strict=True):
        first, second = read_mask(one), read_mask(other)
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            np.testing.assert_array_equal(first, second)


class TestWrite:
    @given(
        st.lists(
            NAMES.filter(lambda name: name.strip() == name and "background" not in name),
            min_size=1,
            max_size=4,
            unique=True,
        ),
        st.integers(0, 99),
    )
    @settings(max_examples=15, deadline=None)
    def test_what_is_written_is_read_again(
        self, tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int
    ) -> None:
        folder = tmp_path_factory.mktemp("made")
        rng = np.random.default_rng(seed)
        masks = [rng.choice([0, 255, *range(1, len(names) + 1)], (3 + i, 5)).astype(np.uint8) for i in range(3)]
        masks[0][0, 0] = len(names)
        masks[1][:] = 0
        hint_set = made(folder, masks, tuple(names))
        written = IndexPng().write(hint_set, folder / "out")
        assert written.lost == ()
        again = read_hints(folder / "photos", written.labels)
        assert again.classes == tuple(names)
        same(hint_set, again)

    def test_outlines_become_pixels_and_it_is_said(self, tmp_path: Path) -> None:
        hint_set = made(tmp_path, [mask_of(1)] * 2, ("ant",), outlines=True)
        written = IndexPng().write(hint_set, tmp_path / "out")
        assert written.lost == (
            "2 photos have outlines of objects: as one mask, those that touch are no longer told apart",
        )
        same(hint_set, read_hints(tmp_path / "photos", written.labels))

    def test_without_background(self, tmp_path: Path) -> None:
        hint_set = made(tmp_path, [np.array([[1, 2], [2, 255]], np.uint8)], ("background", "sky"))
        hint_set = HintSet("set", hint_set.classes, hint_set.photos, background=False)
        written = IndexPng().write(hint_set, tmp_path / "out")
        assert read_hints(tmp_path / "photos", written.labels, background=False).classes == ("background", "sky")

    def test_opencv_and_pillow_read_the_same_ids(self, tmp_path: Path) -> None:
        hint_set = made(tmp_path, [mask_of(2)], ("ant", "bee"))
        (file,) = IndexPng().write(hint_set, tmp_path / "out").labels.rglob("*.png")
        image = Image.open(file)
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), mask_of(2))
        colours = np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR))
        assert colours[0, 0].tolist() == [0, 128, 0], "Pascal VOC's colour of the second class"


def test_boxes_beside_masks_keep_their_truth(data: Path) -> None:
    """A label file and a folder of masks, named one after the other."""
    save(data / "masks" / "a.png", mask_of(1))
    (data / "boxes.csv").write_text("filename,x0,y0,x1,y1,label\na.jpg,0,0,10,5,ant\n")
    both = read_hints(data, [data / "boxes.csv", data / "masks"])
    assert both.photos[0].hints.objects == (Mark(1, Box(0, 0, 10, 5), 1),)
    assert both.photos[0].hints.tags == Tags.complete({1}, 2)
    assert both.photos[0].truth is not None
