"""How npz files are read: their stated sizes are checked before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from hintseg.errors import RunError

_parsing = Lock()
"""Held while numpy parses a header: Python 3.11's parser fails now and then where several threads are in it."""

MOST_BYTES = 1 << 28
"""The most bytes of one unpacked array: zip makes 1 MB of zeros out of 1 KB."""


def read_arrays(path: Path, kinds: dict[str, str], *, most: int = MOST_BYTES) -> list[npt.NDArray[Any]]:
    """Return the named arrays of an npz file. Never runs code of the file.

    Args:
        path: The file.
        kinds: Name of each array, and the kinds of dtype it may have (`u`, `i`, `f`, `b`).
        most: Bytes of the largest array that is unpacked.

    Raises:
        RunError: The file is missing, broken, lacks an array, or holds other or larger ones.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        with zipfile.ZipFile(path) as archive:
            return [_read(archive, name, allowed, most) for name, allowed in kinds.items()]
    except Exception as error:  # a broken zip raises nearly anything; none of it is a bug of ours
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"{path}: cannot be read as an npz of {', '.join(map(repr, kinds))} ({reason}); make it again"
        ) from error


def _read(archive: zipfile.ZipFile, name: str, allowed: str, most: int) -> npt.NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > most:
        raise ValueError(f"'{name}' has {info.file_size:,} bytes, at most {most:,} are read")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(cast(BinaryIO, file))
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with _parsing:
            shape, by_columns, dtype = read_header(cast(BinaryIO, file))
        if dtype.kind not in allowed:
            raise ValueError(f"'{name}' holds values of the type {dtype}")
        data = file.read()
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
