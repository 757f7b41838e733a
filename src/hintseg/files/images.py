"""How image files are opened."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from hintseg.files.parse import is_file


def open_image(path: Path) -> Image.Image:
    """Return an image of which only the head is read yet.

    Raises:
        OSError: It is missing or no plain file; a pipe would make the reader wait for ever.
        Exception: Whatever PIL's decoders raise: SyntaxError, ValueError, struct.error and more.
    """
    if not is_file(path):
        path.stat()  # raises where it is missing, and says why
        raise OSError("it is no plain file")
    return Image.open(path)
