"""Masks as images: how they are named, where they lie, what their values mean, and what is no mask of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hintseg.errors import LabelError
from hintseg.formats.index_png import IndexPng
from hintseg.formats.mask_names import affixed
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Box, FullMask, Hints, HintSet, Mark, MaskFile, Photo, Region, Tags

ANT, BEE = (200, 0, 0), (0, 0, 200)
SIZE = (20, 10)


def mask_of(label: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask of `size` (width, height) whose upper left quarter is of one class."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[: size[1] // 2, : size[0] // 2] = label
    return mask


def save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def photo(path: Path, size: tuple[int, int] = SIZE, turn: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = turn
    return save(path, Image.new("RGB", size, (90, 120, 30)), exif=exif)


def coloured(label: int) -> np.ndarray:
    colours: np.ndarray = np.array([(0, 0, 0), ANT, BEE], np.uint8)[mask_of(label)]
    return colours


def refusal(path: Path, labels: Path | None = None, **options: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(path, labels, **options)
    return str(caught.value)


def labels_of(hint_set: HintSet) -> dict[str, set[int]]:
    """The classes that the mask of each photo shows, which its tags say too."""
    found = {}
    for one in hint_set.photos:
        mask = read_mask(one, n_classes=len(hint_set.classes))
        if mask is not None:
            assert (mask > 0)[: mask.shape[0] // 2, : mask.shape[1] // 2].mean() in (0, 1)
            found[one.id] = set(np.unique(mask).tolist()) - {0, 255}
            assert set(one.hints.tags or ()) == found[one.id]
    return found


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


class TestValues:
    @pytest.mark.parametrize(
        "make",
        [
            lambda m: Image.fromarray(m),
            lambda m: Image.fromarray(m.astype(np.uint16)),
            lambda m: Image.fromarray(m.astype(np.int32)),
            lambda m: Image.fromarray(m.astype(np.float32)),
            lambda m: Image.fromarray(np.dstack([m, m, m])),
            lambda m: Image.fromarray(np.dstack([m, m, m, np.full_like(m, 255)])),
        ],
    )
    def test_class_ids_in_any_kind_of_picture(self, data: Path, make: Callable[[np.ndarray], Image.Image]) -> None:
        image = make(mask_of(2))
        save(data / "masks" / f"a.{'tif' if image.mode in ('F', 'I') else 'png'}", image)
        assert labels_of(read_hints(data)) == {"a": {2}}

    def test_a_palette_keeps_its_values(self, data: Path) -> None:
        image = Image.fromarray(mask_of(2))
        image.putpalette([0, 0, 0, *ANT, *BEE])
        save(data / "masks" / "a.png", image)
        assert labels_of(read_hints(data)) == {"a": {2}}

    def test_palettes_of_their_own_are_no_class_ids(self, data: Path) -> None:
        for name, label in (("a", 1), ("b", 2)):
            save(data / "masks" / f"{name}.png", Image.fromarray(coloured(label)).quantize())
        message = refusal(data)
        assert "in the palette of a.png" in message
        assert "values are no class ids" in message

    def test_jpegs(self, data: Path) -> None:
        for name in "ab":
            save(data / "masks" / f"{name}.jpg", mask_of(1))
        message = refusal(data)
        assert message.startswith("1 problem in masks:")
        assert "2 of 2 (a.jpg and b.jpg): each is a JPEG, which cannot keep class ids" in message
        assert "write the masks as PNG" in message

    def test_a_jpeg_under_another_suffix(self, data: Path) -> None:
        save(data / "masks" / "a.jpg", mask_of(1)).rename(data / "masks" / "a.png")
        assert "a.png is a JPEG" in refusal(data)

    def test_0_and_255_are_asked_about(self, data: Path) -> None:
        for name in "ab":
            save(data / "masks" / f"{name}.png", mask_of(255))
        message = refusal(data)
        assert "all 2 masks in masks hold only 0 and 255" in message
        assert "wanted are class ids (1 ant, 2 bee)" in message
        (data / "classes.txt").write_text("ant\n")
        lines = "name,r,g,b\nbackground,0,0,0\nant,255,255,255\n"
        assert all(line in refusal(data) for line in lines.split())
        (data / "masks" / "colours.csv").write_text(lines)  # what the message says to do
        assert labels_of(read_hints(data)) == {"a": {1}, "b": {1}}

    def test_black_and_white_says_which_class_only_where_there_is_one(self, data: Path) -> None:
        save(data / "masks" / "a.png", mask_of(1).astype(bool))
        save(data / "masks" / "b.gif", mask_of(255))  # a palette of black and white
        assert (
            "2 of 2 (a.png and b.gif): each is black and white, so it does not say which of the 2 classes"
            in refusal(data)
        )
        (data / "classes.txt").write_text("ant\n")
        assert labels_of(read_hints(data)) == {"a": {1}, "b": {1}}

    def test_a_palette_of_other_greys_is_asked_about(self, data: Path) -> None:
        save(data / "masks" / "a.gif", mask_of(2))  # Pillow writes value 1, grey 2
        assert "a.gif has a palette of greys that are not its values, so either could be" in refusal(data)

    def test_numbers_of_objects(self, data: Path) -> None:
        save(data / "masks" / "a.png", mask_of(1).astype(np.uint16) * 300)
        assert "such as those of objects (an instance mask)" in refusal(data)

    def test_smooth_edges(self, data: Path) -> None:
        ramp = np.tile(np.arange(20, dtype=np.uint8) * 12, (10, 1))
        colours = np.dstack([ramp, ramp.T[:10, :1].repeat(20, 1) + np.arange(10, dtype=np.uint8)[:, None], 0 * ramp])
        save(data / "masks" / "a.png", colours)
        assert "it has smooth edges, or was a JPEG once" in refusal(data)

    def test_transparency(self, data: Path) -> None:
        rgba = np.dstack([coloured(1), np.full((10, 20), 128, np.uint8)])
        save(data / "masks" / "a.png", rgba)
        assert "a.png has transparent pixels, of which it is not clear what they mean" in refusal(data)

    def test_several_pictures_in_one_file(self, data: Path) -> None:
        first, second = (Image.fromarray(mask_of(label)) for label in (1, 2))
        save(data / "masks" / "a.tif", first, save_all=True, append_images=[second])
        assert "a.tif holds several pictures" in refusal(data)

    @pytest.mark.parametrize(("size", "how"), [((10, 5), "2 times as many each way"), ((15, 10), "make them equal")])
    def test_another_size_than_the_photo(self, data: Path, size: tuple[int, int], how: str) -> None:
        save(data / "masks" / "a.png", mask_of(1, size))
        message = refusal(data)
        assert f"a.png has {size[0]} x {size[1]} pixels, but its photo has 20 x 10" in message
        assert how in message


class TestColours:
    TABLES = (
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nant:200,0,0::\nbee:0,0,200:head,leg:\n"),
        ("colours.csv", "name,r,g,b\nbackground,0,0,0\nant,200,0,0\nbee,0,0,200\n"),
        ("class_dict.csv", "r,g,b,class\n0,0,0,Void\n200,0,0,ant\n0,0,200,bee\n"),
        ("label_colors.txt", "0 0 0\tbackground\n200 0 0\tant\n0 0 200\tbee\n"),
    )

    @pytest.mark.parametrize(("name", "table"), TABLES)
    @pytest.mark.parametrize("place", ["", "masks"])
    def test_tables_say_which_class_a_colour_is(self, data: Path, name: str, table: str, place: str) -> None:
        (data / "classes.txt").unlink()
        for one, label in (("a", 1), ("b", 2)):
            save(data / "masks" / f"{one}.png", coloured(label))
        (data / place / name).write_text(table)
        hint_set = read_hints(data)
        assert hint_set.classes == ("ant", "bee")
        assert labels_of(hint_set) == {"a": {1}, "b": {2}}
        unsure = read_mask(hint_set.photos[0])
        assert unsure is not None
        assert unsure[-1, -1] == (255 if "Void" in table else 0)

    def test_the_class_list_says_the_ids_where_there_is_one(self, data: Path) -> None:
        (data / "classes.txt").write_text("bee\nant\n")
        save(data / "masks" / "a.png", coloured(1))
        (data / "colours.csv").write_text(self.TABLES[1][1])
        assert labels_of(read_hints(data)) == {"a": {2}}
        (data / "classes.txt").write_text("bee\nwasp\n")
        assert "the class 'ant' is not listed" in refusal(data)

    def test_cvats_masks_in_its_own_layout(self, tmp_path: Path) -> None:
        for name, label in (("a", 1), ("b", 2)):
            photo(tmp_path / "JPEGImages" / f"{name}.jpg")
            save(tmp_path / "SegmentationClass" / f"{name}.png", coloured(label))
            save(tmp_path / "SegmentationObject" / f"{name}.png", coloured(1))
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "default.txt").write_text("a\nb\n")
        (tmp_path / "labelmap.txt").write_text(self.TABLES[0][1])
        hint_set = read_hints(tmp_path)
        assert (hint_set.classes, labels_of(hint_set)) == (("ant", "bee"), {"a": {1}, "b": {2}})
        assert dict(hint_set.splits) == {"default": ("a", "b")}

    def test_colours_may_be_given(self, data: Path) -> None:
        save(data / "masks" / "a.png", coloured(2))
        given = {(0, 0, 0): "background", ANT: "ant", BEE: "bee"}
        assert labels_of(read_hints(data, colours=given)) == {"a": {2}}

    def test_a_palette_is_read_by_its_colours(self, data: Path) -> None:
        image = Image.fromarray(np.where(mask_of(1), 7, 3).astype(np.uint8))
        palette = np.zeros((8, 3), np.uint8)
        palette[7] = BEE
        image.putpalette(palette.tobytes())
        save(data / "masks" / "a.png", image)
        (data / "colours.csv").write_text(self.TABLES[1][1])
        assert labels_of(read_hints(data)) == {"a": {2}}

    def test_colours_without_or_outside_of_a_table_are_listed_with_counts(self, data: Path) -> None:
        for name in "ab":
            save(data / "masks" / f"{name}.png", coloured(1))
        message = refusal(data)
        assert "2 of 2 (a.png and b.png): each is a colour image (mode RGB): " in message
        assert "(0, 0, 0) (300 px), (200, 0, 0) (100 px)" in message
        (data / "colours.csv").write_text("name,r,g,b\nbackground,0,0,0\nbee,0,0,200\n")
        assert "has colours that the table of colours does not have: (200, 0, 0) (100 px)" in refusal(data)

    @pytest.mark.parametrize(
        ("name", "table", "expected"),
        [
            ("labelmap.txt", "ant:200,0::\n", "line 1: 'ant:200,0::' has no name with a colour"),
            ("colours.csv", "name,r,g,b\nant,200,0,x\n", "line 2: 'ant,200,0,x' is no name with whole numbers"),
            ("colours.csv", "name,r,g,b\nant,300,0,0\n", "has a number above 255"),
            ("colours.csv", "name,r,g,b\nant,1,1,1\nbee,1,1,1\n", "is that of 'ant' and of 'bee'"),
            ("colours.csv", "a,b\n1,2\n", "has the columns a, b; a table of colours needs name,r,g,b"),
        ],
    )
    def test_bad_tables(self, data: Path, name: str, table: str, expected: str) -> None:
        save(data / "masks" / "a.png", coloured(1))
        (data / name).write_text(table)
        assert expected in refusal(data)

    def test_truth_beside_other_labels_has_colours_too(self, data: Path) -> None:
        (data / "tags.csv").write_text("a.jpg,ant\nb.jpg,bee\nc.jpg\n")
        for name, label in (("a", 1), ("b", 2)):
            save(data / "SegmentationClass" / f"{name}.png", coloured(label))
        (data / "labelmap.txt").write_text(self.TABLES[0][1])
        assert labels_of(read_hints(data)) == {"a": {1}, "b": {2}}


class TestTurnedPhotos:
    @pytest.fixture
    def turned(self, tmp_path: Path) -> Path:
        photo(tmp_path / "images" / "a.jpg", turn=6)
        photo(tmp_path / "images" / "b.jpg", turn=3)
        photo(tmp_path / "images" / "c.jpg")
        (tmp_path / "classes.txt").write_text("ant\n")
        return tmp_path

    def test_masks_of_the_stored_picture_turn_with_it(self, turned: Path) -> None:
        for name in "abc":
            save(turned / "masks" / f"{name}.png", mask_of(1))
        hint_set = read_hints(turned)
        a, b, c = (read_mask(one) for one in hint_set.photos)
        for mask, turns in ((a, -1), (b, 2), (c, 0)):
            assert mask is not None
            np.testing.assert_array_equal(mask, np.rot90(mask_of(1), turns))
        assert any("2 masks are drawn on photos as they are stored" in note for note in hint_set.notes)

    def test_upright_masks_stay(self, turned: Path) -> None:
        save(turned / "masks" / "a.png", mask_of(1, (10, 20)))
        save(turned / "masks" / "b.png", mask_of(1))
        masks = [read_mask(one) for one in read_hints(turned).photos[:2]]
        np.testing.assert_array_equal(masks[0], mask_of(1, (10, 20)))
        np.testing.assert_array_equal(masks[1], mask_of(1))

    def test_where_nothing_tells_it_is_said(self, turned: Path) -> None:
        save(turned / "masks" / "b.png", mask_of(1))
        save(turned / "masks" / "c.png", mask_of(1))
        assert any("do not tell whether those are turned too" in note for note in read_hints(turned).notes)


class TestTruth:
    """Full masks beside other labels are looked at before anything is trained or scored by them."""

    @pytest.fixture
    def tagged(self, data: Path) -> Path:
        (data / "tags.csv").write_text("a.jpg,ant\nb.jpg,bee\nc.jpg\n")
        return data

    @pytest.mark.parametrize(
        ("masks", "expected"),
        [
            (mask_of(255), "all 2 true masks in SegmentationClass hold only 0 and 255"),
            (coloured(1), "2 of 2 (a.png and b.png): each is a colour image"),
            (np.full((10, 20), 255, np.uint8), "all 2 true masks in SegmentationClass hold only 255"),
        ],
    )
    def test_masks_that_hold_no_class_are_refused(self, tagged: Path, masks: np.ndarray, expected: str) -> None:
        for name in "ab":
            save(tagged / "SegmentationClass" / f"{name}.png", masks)
        assert expected in refusal(tagged)

    def test_one_good_mask_is_enough_to_go_on(self, tagged: Path) -> None:
        save(tagged / "SegmentationClass" / "a.png", mask_of(255))
        save(tagged / "SegmentationClass" / "b.png", mask_of(2))
        assert [one.truth is not None for one in read_hints(tagged).photos] == [True, True, False]


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
        colours = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        assert colours is not None
        assert colours[0, 0, ::-1].tolist() == [0, 128, 0], "Pascal VOC's colour of the second class"


def test_boxes_beside_masks_keep_their_truth(data: Path) -> None:
    """A label file and a folder of masks, named one after the other."""
    save(data / "masks" / "a.png", mask_of(1))
    (data / "boxes.csv").write_text("filename,x0,y0,x1,y1,label\na.jpg,0,0,10,5,ant\n")
    both = read_hints(data, [data / "boxes.csv", data / "masks"])
    assert both.photos[0].hints.objects == (Mark(1, Box(0, 0, 10, 5), 1),)
    assert both.photos[0].hints.tags == Tags.complete({1}, 2)
    assert both.photos[0].truth is not None
