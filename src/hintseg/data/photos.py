"""Photos of any kind PIL opens, as upright 8-bit RGB arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.errors import PhotoError
from hintseg.files.images import deep_levels, depth, open_image
from hintseg.formats.photos import photo_size as photo_size

Bytes = npt.NDArray[np.uint8]

_ORIENTATION = 0x0112
"""EXIF tag of the camera's orientation."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a photo of each EXIF orientation upright; orientations 5 to 8 swap height and width."""


def read_photo(path: Path) -> Bytes:
    """Read a photo as upright RGB.

    The EXIF rotation is applied. Grey, palette, CMYK and 1-bit images are converted; transparent ones are laid over
    white. Cameras keep 10, 12 or 14 bits in 16: the smallest of 8, 10, 12, 14 and 16 bits that holds the photo's
    largest level becomes 0..255. Stretching each photo by its own smallest and largest level would make photos of one
    scene differ in brightness. Of 32-bit floats, which state no range, the smallest of 0..1, 0..255 and 0..65535 that
    holds all values is taken. Of an animation, the first picture is read.

    Args:
        path: Any file PIL opens.

    Returns:
        The photo, (H, W, 3) uint8.

    Raises:
        PhotoError: The file is missing, broken, cut short, or too large to be decoded safely.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "grey.png")
        ...     Image.new("L", (3, 2), 7).save(path)
        ...     read_photo(path).shape
        (2, 3, 3)
    """
    try:
        with open_image(path) as image:
            levels = deep_levels(path, image)
            rgb = _to_rgb(image) if levels is None else _to_rgb(_of_levels(levels, image.mode))
            turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{path}: too many pixels to be decoded safely ({error}); scale the photo down") from error
    except FileNotFoundError as error:
        raise PhotoError(f"{path}: no such photo") from error
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise PhotoError(f"{path}: cannot be read as a photo ({error}); replace or remove the file") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB."""
    if image.mode == "F":
        return _of_floats(np.asarray(image))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _of_levels(levels: npt.NDArray[np.int64], mode: str) -> Image.Image:
    """Scale levels of up to 16 bits to 8, see `read_photo`; transparency always has 16."""
    bits = depth(levels)
    if levels.min() < 0 or bits > 16:
        raise ValueError(f"levels from {levels.min()} to {levels.max()} in mode {mode}, 0 to 65535 are known")
    scaled = np.rint(levels * (255 / ((1 << bits) - 1)))
    if levels.shape[2:] == (4,):
        scaled[..., 3] = np.rint(levels[..., 3] / 257)
    return Image.fromarray(scaled.astype(np.uint8))


def _of_floats(levels: npt.NDArray[np.float32]) -> Image.Image:
    """Scale grey floats to 8 bits by the smallest usual range that holds them."""
    low, high = float(levels.min()), float(levels.max())
    top = next((t for t in (1, 255, 65535) if high <= t), 65535)
    if not (low >= 0 and high <= top):
        raise ValueError(f"grey levels from {low:g} to {high:g} in mode F, 0 to {top} are known")
    return Image.fromarray(np.rint(levels * (255 / top)).astype(np.uint8)).convert("RGB")
