"""How image files are opened."""

from __future__ import annotations

import base64
import binascii
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from hintseg.files.parse import is_file


@cache
def with_heif() -> bool:
    """Teach PIL to read HEIC photos where the extra ``hintseg[heic]`` is installed, and return whether it is."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()  # PIL then opens them like any photo
    return True


def open_image(path: Path) -> Image.Image:
    """Return an image of which only the head is read yet.

    Raises:
        OSError: It is missing or no plain file; a pipe would make the reader wait for ever.
        Exception: Whatever PIL's decoders raise: SyntaxError, ValueError, struct.error and more.
    """
    if not is_file(path):
        path.stat()  # raises where it is missing, and says why
        raise OSError("it is no plain file")
    with_heif()
    return Image.open(path)


def open_embedded(text: str) -> Image.Image:
    """Return an image that a text file holds in base 64, of which only the head is read yet.

    Raises:
        ValueError: It is no base 64.
        Exception: Whatever PIL's decoders raise, as for `open_image`.
    """
    try:
        data = base64.b64decode(text.partition("base64,")[2] or text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base 64 ({error})") from error
    with_heif()
    return Image.open(io.BytesIO(data))
