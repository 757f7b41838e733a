"""Photos of any kind become upright 8-bit RGB, or a PhotoError that names the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from hintseg.data.photos import photo_size, read_photo
from hintseg.errors import PhotoError
from hintseg.files.images import with_heif
from hintseg.formats.photos import find_photos

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
@pytest.mark.parametrize(("largest", "bits"), [(65535, 16), (16384, 16), (16383, 14), (3060, 12), (1023, 10), (255, 8)])
def test_sixteen_bits_are_scaled_by_the_bits_that_are_used(
    tmp_path: Path, suffix: str, largest: int, bits: int
) -> None:
    levels = np.array([[0, largest // 3, largest]], np.uint16)
    path = save(Image.fromarray(levels), tmp_path / f"a.{suffix}")
    expected = [round(level * 255 / (2**bits - 1)) for level in levels[0].tolist()]
    assert read_photo(path)[0, :, 0].tolist() == expected


def test_photos_of_one_camera_keep_their_brightness(tmp_path: Path) -> None:
    paths = [save(Image.fromarray(np.array([[1500, top]], np.uint16)), tmp_path / f"{top}.png") for top in (2000, 4000)]
    first, second = (read_photo(path)[0, 0, 0] for path in paths)
    assert first == second, "stretched by its own levels each would have another"


def test_sixteen_bits_of_big_endian_and_of_integers(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (2, 1), np.array([[0, 4095]], ">u2").tobytes())
    assert read_photo(save(big, tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 255]
    wide = save(Image.fromarray(np.array([[0, 65535]], np.int32)), tmp_path / "b.tif")
    assert read_photo(wide)[0, :, 0].tolist() == [0, 255]
    too_wide = save(Image.fromarray(np.array([[0, 70000]], np.int32)), tmp_path / "c.tif")
    with pytest.raises(PhotoError, match="levels from 0 to 70000 in mode I, 0 to 65535 are known"):
        read_photo(too_wide)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_of_sixteen_bits_are_not_cut_to_their_high_half(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[[0, 1000, 4095], [4095, 0, 0]]], np.uint16)  # 12 bits, red green blue
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), levels[..., ::-1])
    assert read_photo(tmp_path / f"a.{suffix}")[0].tolist() == [[0, 62, 255], [255, 0, 0]]


def test_transparency_of_sixteen_bits(tmp_path: Path) -> None:
    levels = np.array([[[0, 0, 4095, 65535], [0, 0, 4095, 0]]], np.uint16)  # blue green red alpha
    cv2.imwrite(str(tmp_path / "a.png"), levels)
    assert read_photo(tmp_path / "a.png")[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_heic_is_read_upright_and_sized_so(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert with_heif()
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24] = (250, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](upright)))
    stored.info["exif"] = exif.tobytes()  # which pillow-heif writes as phones do: the container turns the picture
    path = save(stored, tmp_path / "a.heic", quality=95)
    assert photo_size(path) == (48, 64)
    np.testing.assert_allclose(read_photo(path).astype(int), upright, atol=30)
    assert [*find_photos(tmp_path).paths] == ["a"]


def test_without_the_extra_heic_photos_are_counted_and_named(tmp_path: Path) -> None:
    save(Image.fromarray(PIXELS), tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC"):
        (tmp_path / name).write_bytes(b"ftypheic")
    code = (
        "import hintseg.files.images as images; images.find_spec = lambda name: None\n"
        "from pathlib import Path; from hintseg.formats.photos import find_photos\n"
        f"found = find_photos(Path({str(tmp_path)!r})); print([*found.paths], *found.notes)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("['a'] 2 .heic files are left out; pip install 'hintseg[heic]' reads them")


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
