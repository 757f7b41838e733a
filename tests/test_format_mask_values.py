"""Masks as images: what their values and colours mean, what is no mask of classes, and masks of turned photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.formats.gather import gather
from hintseg.formats.layout import find_truth
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.hints import read_hints
from hintseg.hints.masks import read_mask
from hintseg.types import HintSet
from mask_images import ANT, BEE, coloured, labels_of, mask_of, photo, refusal, save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three photos in images/, and a class list."""
    for name in "abc":
        photo(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    return tmp_path


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

    def test_jpegs_beside_the_photos(self, tmp_path: Path) -> None:
        photo(tmp_path / "a.jpg")
        save(tmp_path / "a_mask.jpg", mask_of(1))
        (tmp_path / "classes.txt").write_text("ant\n")
        assert "a_mask.jpg is a JPEG, which cannot keep class ids" in refusal(tmp_path)

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
        for name, label in (("a", 1), ("b", 2)):
            save(data / "SegmentationClass" / f"{name}.png", coloured(label))
        (data / "labelmap.txt").write_text(self.TABLES[0][1])
        assert labels_of(tagged(data)) == {"a": {1}, "b": {2}}


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


def tagged(data: Path) -> HintSet:
    """What a label file says that tags `a` as ant and `b` as bee, beside masks in SegmentationClass."""
    folder, notes = find_photos(data), list[str]()
    truth = find_truth(data, folder, notes, named=True, unlabelled=None)
    records = (Record("a", tags=("ant",)), Record("b", tags=("bee",)), Record("c", tags=()))
    said = Labels(records, "tags", ("ant", "bee"), truth=truth, notes=tuple(notes))
    return gather(data, folder, said, Reading(), Problems())


class TestTruth:
    """Full masks beside other labels are looked at before anything is trained or scored by them."""

    @pytest.mark.parametrize(
        ("masks", "expected"),
        [
            (mask_of(255), "all 2 true masks in SegmentationClass hold only 0 and 255"),
            (coloured(1), "2 of 2 (a.png and b.png): each is a colour image"),
            (np.full((10, 20), 255, np.uint8), "all 2 true masks in SegmentationClass hold only 255"),
        ],
    )
    def test_masks_that_hold_no_class_are_refused(self, data: Path, masks: np.ndarray, expected: str) -> None:
        for name in "ab":
            save(data / "SegmentationClass" / f"{name}.png", masks)
        with pytest.raises(LabelError) as caught:
            tagged(data)
        assert expected in str(caught.value)

    def test_one_good_mask_is_enough_to_go_on(self, data: Path) -> None:
        save(data / "SegmentationClass" / "a.png", mask_of(255))
        save(data / "SegmentationClass" / "b.png", mask_of(2))
        assert [one.truth is not None for one in tagged(data).photos] == [True, True, False]

    def test_masks_turn_with_their_photos(self, data: Path) -> None:
        photo(data / "images" / "a.jpg", turn=8)
        save(data / "SegmentationClass" / "a.png", mask_of(1))
        mask = read_mask(tagged(data).photos[0])
        assert mask is not None
        np.testing.assert_array_equal(mask, np.rot90(mask_of(1)))
