"""Photos of any kind become upright 8-bit RGB, or a PhotoError that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.data.photos import photo_size, read_photo
from hintseg.errors import PhotoError

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (7, 10, 3), np.uint8)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


# What EXIF 2.3 says of the stored rows and columns: (visual side of row 0, visual side of column 0).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_brought_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](PIXELS))
    path = save(Image.fromarray(stored), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_photo(path), PIXELS)
    assert photo_size(path) == PIXELS.shape[:2]


def test_broken_exif_does_not_lose_the_photo(tmp_path: Path) -> None:
    path = save(Image.fromarray(PIXELS), tmp_path / "a.jpg", exif=b"Exif\0\0not a tiff block")
    assert read_photo(path).shape == (7, 10, 3)
    assert photo_size(path) == (7, 10)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = save(Image.fromarray(PIXELS[..., 0]), tmp_path / "a.png")
    np.testing.assert_array_equal(read_photo(path), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
    path = save(Image.fromarray(levels), tmp_path / f"a.{suffix}")
    assert read_photo(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_float_tiff_in_unit_range(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), tmp_path / "a.tif")
    assert read_photo(path)[0, :, 1].tolist() == [0, 128, 255]


def test_float_tiff_of_unknown_range_is_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.array([[-1.0, 0.5]], np.float32)), tmp_path / "a.tif")
    with pytest.raises(PhotoError, match=r"a\.tif.*-1 to 0\.5"):
        read_photo(path)


def test_one_bit(tmp_path: Path) -> None:
    path = save(Image.fromarray(PIXELS[..., 0] > 100), tmp_path / "a.png")
    np.testing.assert_array_equal(read_photo(path)[..., 2], np.where(PIXELS[..., 0] > 100, 255, 0))


def test_cmyk(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan ink takes the red away
    path = save(Image.fromarray(ink, mode="CMYK"), tmp_path / "a.tif")
    assert read_photo(path)[0, 0].tolist() == [0, 255, 255]
    jpeg = save(Image.fromarray(ink, mode="CMYK"), tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_photo(jpeg)[4, 4], [0, 255, 255], atol=4)


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 0])
    assert read_photo(save(image, tmp_path / "a.png"))[0].tolist() == [[10, 20, 30], [200, 100, 0]]
    clear = save(image, tmp_path / "b.png", transparency=1)
    assert read_photo(clear)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    path = save(Image.fromarray(rgba), tmp_path / "a.png")
    assert read_photo(path)[0].tolist() == [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    la = save(Image.fromarray(rgba).convert("LA"), tmp_path / "b.png")
    assert read_photo(la)[0, 1:].tolist() == [[255, 255, 255], [204, 204, 204]]


def test_animation_gives_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_photo(path).max() == 0


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_truncated_file_is_named_with_its_cause(tmp_path: Path, suffix: str) -> None:
    noise = GENERATOR.integers(0, 256, (64, 64, 3), np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(PhotoError, match=rf"cut\.{suffix}: cannot be read as a photo \(.+\); replace"):
        read_photo(path)


def test_text_file_is_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("not a photo")
    with pytest.raises(PhotoError, match=r"a\.jpg"):
        read_photo(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"a\.jpg: no such photo"):
        read_photo(tmp_path / "a.jpg")


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.new("RGB", (100, 100)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PhotoError, match="too many pixels"):
        read_photo(path)
