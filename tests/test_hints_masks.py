"""Run lengths, painting outlines, reading index images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError, PhotoError
from hintseg.formats.gather import gather
from hintseg.formats.index_image import read_index
from hintseg.formats.photos import PhotoFolder, photo_size
from hintseg.formats.problems import Problems
from hintseg.formats.records import Item, Labels, Reading, Record
from hintseg.geometry.rasterise import fill, paint
from hintseg.geometry.runs import bounds, decode, encode, parse_counts, write_counts
from hintseg.hints.masks import read_mask, read_scribbles
from hintseg.types import IGNORE, Box, FullMask, Hints, HintSet, Mark, MaskFile, Photo, Region, Rle


def slow_runs(mask: np.ndarray) -> list[int]:
    """Count runs pixel by pixel, down the columns, zeros first."""
    counts, value = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != value:
                counts.append(0)
                value = not value
            counts[-1] += 1
    return counts


def slow_parse(text: str) -> list[int]:
    """Read compressed run lengths one character at a time."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[position]) - 48
            value |= (code & 31) << shift
            more = bool(code & 32)
            position += 1
            shift += 5
            if not more and code & 16:
                value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


def slow_fill(ring: np.ndarray, height: int, width: int) -> np.ndarray:
    """Test every pixel's centre: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    inside[row, column] ^= True
    return inside


class TestRle:
    @pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
    def test_against_plain_loops_and_back(self, density: float) -> None:
        rng = np.random.default_rng(0)
        for height, width in [(1, 1), (7, 3), (3, 40), (60, 50)]:
            mask = rng.random((height, width)) < density
            rle = encode(mask)
            assert list(rle.counts) == slow_runs(mask)
            assert (decode(rle) == mask).all()
            text = write_counts(rle.counts)
            assert list(parse_counts(text)) == slow_parse(text) == list(rle.counts)

    def test_long_runs_need_several_characters(self) -> None:
        counts = (1_000_000, 1, 15, 16, 17, 31, 32, 33, 1023, 1024, 0, 5_000_000, 3)
        assert parse_counts(write_counts(counts)) == counts

    def test_a_text_from_coco(self) -> None:
        # 6 zeros, then two columns of 3 in a mask of 4 rows and 4 columns, written by hand from the definition.
        assert parse_counts("6310") == (6, 3, 1, 3)

    def test_bounds(self) -> None:
        mask = np.zeros((9, 7), dtype=bool)
        mask[2:5, 1:4] = True
        mask[8, 3] = True
        assert bounds(encode(mask)) == (1, 2, 4, 9)
        assert bounds(encode(np.zeros((9, 7), dtype=bool))) is None

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(LabelError, match=r"sum to 5, but the mask has 2 x 3 = 6 pixels"):
            decode(Rle(2, 3, (2, 3)))
        with pytest.raises(LabelError, match="sum to 6"):
            decode(Rle(2, 3, (-1, 7)))
        with pytest.raises(LabelError, match="cut off"):
            parse_counts("52P")
        with pytest.raises(LabelError, match="more than 60 bits"):
            parse_counts("P" * 20 + "0")


class TestFill:
    def test_against_a_ray_per_pixel(self) -> None:
        rng = np.random.default_rng(1)
        for corners in (3, 4, 7, 12):
            ring = rng.uniform(-4, 24, (corners, 2))
            assert (fill([ring], (18, 21)) == slow_fill(ring, 18, 21)).all()

    def test_a_rectangle_covers_its_pixels_and_rings_add_up(self) -> None:
        def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
            return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)

        filled = fill([box(2, 1, 5, 3), box(4, 2, 6, 8)], (6, 9))
        expected = np.zeros((6, 9), dtype=bool)
        expected[1:3, 2:5] = True
        expected[2:, 4:6] = True
        assert (filled == expected).all()


def polygon(label: int, x0: float, y0: float, x1: float, y1: float) -> Mark[Region]:
    return Mark(label, Region(((x0, y0, x1, y0, x1, y1, x0, y1),)))


class TestPaint:
    def test_smaller_objects_lie_in_front_and_crowds_behind(self) -> None:
        small = polygon(1, 2, 2, 4, 4)
        large = Mark(2, Region(rle=encode(np.pad(np.ones((6, 6), dtype=bool), ((0, 2), (0, 4))))))
        crowd = Mark(IGNORE, Box(5, 5, 9, 7))
        expected = np.zeros((8, 10), dtype=np.uint8)
        expected[5:7, 5:9] = 255
        expected[:6, :6] = 2
        expected[2:4, 2:4] = 1
        orders: list[list[Mark[Box | Region]]] = [[small, large, crowd], [crowd, large, small]]
        for order in orders:
            assert (paint(order, (8, 10)) == expected).all()

    def test_outlines_beyond_the_photo_are_cut(self) -> None:
        mask = paint([polygon(3, -5, 4, 4, 30), polygon(2, 40, 1, 50, 3)], (8, 10))
        assert (np.argwhere(mask == 3).min(axis=0) == (4, 0)).all()
        assert (mask == 3).sum() == 16
        assert not (mask == 2).any()

    def test_run_lengths_of_another_size(self) -> None:
        with pytest.raises(LabelError, match=r"run lengths are for 2 x 3 pixels, but the photo has 10 x 8"):
            paint([Mark(1, Region(rle=Rle(3, 2, (6,))))], (8, 10))


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    return Photo("a", tmp_path / "a.png")


def judged(photo: Photo, truth: FullMask) -> Photo:
    return Photo(photo.id, photo.path, truth=truth)


def save(path: Path, mask: np.ndarray) -> Path:
    Image.fromarray(mask).save(path)
    return path


class TestReadMask:
    def test_what_is_not_known_is_none(self, photo: Photo) -> None:
        assert read_mask(photo) is None
        assert read_scribbles(photo) is None
        assert read_mask(Photo("a", photo.path, Hints(marks=(polygon(1, 3, 3, 5, 5),)))) is None, "a hint is no truth"

    def test_outlines_and_photos_without_objects(self, photo: Photo) -> None:
        mask = read_mask(judged(photo, (polygon(2, 1, 1, 4, 3),)))
        assert mask is not None
        assert mask.shape == (8, 10)
        assert mask.dtype == np.uint8
        assert mask.sum() == 2 * 6
        empty = read_mask(judged(photo, ()))
        assert empty is not None
        assert not empty.any()
        ignored = read_mask(judged(photo, ()), background=False)
        assert ignored is not None
        assert (ignored == 255).all()

    def test_index_files_of_any_one_channel_mode(self, photo: Photo, tmp_path: Path) -> None:
        values = np.arange(80, dtype=np.uint8).reshape(8, 10) % 3
        palette = Image.fromarray(values, mode="P")
        palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        palette.save(tmp_path / "p.png")
        save(tmp_path / "wide.png", values.astype(np.uint16))
        save(tmp_path / "grey.png", values)
        for name in ("p", "wide", "grey"):
            mask = read_mask(judged(photo, MaskFile(tmp_path / f"{name}.png")), n_classes=2)
            assert mask is not None
            assert (mask == values).all()
        Image.fromarray(values > 0).save(tmp_path / "one.png")
        assert (read_index(tmp_path / "one.png") == (values > 0)).all()

    def test_the_unlabelled_value_becomes_255(self, photo: Photo, tmp_path: Path) -> None:
        values = np.array([[0, 1, 7, 255]], dtype=np.uint8).repeat(8, axis=0)
        file = MaskFile(save(tmp_path / "s.png", values), unlabelled=7)
        strokes = read_scribbles(Photo("a", photo.path, Hints(scribbles=file)), (8, 4), n_classes=1)
        assert strokes is not None
        assert strokes[0].tolist() == [0, 1, 255, 255]
        file = MaskFile(file.path, unlabelled=0)
        with pytest.raises(LabelError, match="ids outside the class list: 7"):
            read_scribbles(Photo("a", photo.path, Hints(scribbles=file)), (8, 4), n_classes=1)

    def test_bad_files(self, photo: Photo, tmp_path: Path) -> None:
        good = save(tmp_path / "good.png", np.arange(80, dtype=np.uint8).reshape(8, 10))
        (tmp_path / "cut.png").write_bytes(good.read_bytes()[:50])
        save(tmp_path / "small.png", np.zeros((3, 3), dtype=np.uint8))
        save(tmp_path / "colour.png", np.full((8, 10, 3), (9, 0, 0), dtype=np.uint8))
        save(tmp_path / "high.png", np.full((8, 10), 900, dtype=np.uint16))
        for name, expected in [
            ("good", r"holds ids outside the class list: 21 \(1 px\), 22 .*\.\.\.; allowed are 0 .*1\.\.20 and 255"),
            ("cut", "cut.png cannot be read .*cut off"),
            ("small", "has 3 x 3 pixels, but its photo has 10 x 8"),
            ("colour", r"is a colour image \(mode RGB\): \(9, 0, 0\) \(80 px\)"),
            ("high", r"numbers above 255 .* \(an instance mask\).*it holds 900 to 900"),
            ("lost", "lost.png cannot be read"),
        ]:
            with pytest.raises(LabelError, match=expected):
                read_mask(judged(photo, MaskFile(tmp_path / f"{name}.png")), n_classes=20)

    def test_size_of_a_turned_or_missing_photo(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (10, 8)).save(tmp_path / "turned.jpg", exif=exif)
        assert photo_size(tmp_path / "turned.jpg") == (10, 8)
        mask = read_mask(Photo("t", tmp_path / "turned.jpg", truth=()))
        assert mask is not None
        assert mask.shape == (10, 8)
        with pytest.raises(PhotoError, match="cannot read the photo"):
            read_mask(Photo("x", tmp_path / "x.jpg", truth=()))


def test_truth_is_known_for_outlines_and_the_negatives_beside_them(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")

    def read(*photos: list[Item]) -> HintSet:
        records = tuple(Record(f"{number}.png", tuple(items)) for number, items in enumerate(photos))
        labels = Labels(records, "x", ("a",))
        return gather(tmp_path, PhotoFolder(tmp_path), labels, Reading(), Problems())

    def known(*photos: list[Item]) -> set[str]:
        return {photo.id for photo in read(*photos).photos if photo.truth is not None}

    box, ring = Box(0, 0, 2, 2), Region(((0, 0, 2, 0, 2, 2, 0, 2),))
    plain, outlined, crowd = Item("a", Box(4, 4, 8, 8)), Item("a", box, ring), Item("a", box, crowd=True)
    assert known([plain], []) == set()
    assert known([outlined, crowd], [plain, outlined], []) == {"0", "2"}
    photos = read([outlined, crowd, plain], [outlined, crowd]).photos
    assert photos[0].hints.marks == (Mark(1, box, 1), Mark(IGNORE, box), Mark(1, Box(4, 4, 8, 8), 2))
    assert photos[1].truth == (Mark(1, ring, 1), Mark(IGNORE, box))


def test_hints_need_no_torch() -> None:
    code = "import sys, hintseg.hints, hintseg.hints.check; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
