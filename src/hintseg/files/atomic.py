"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hintseg.errors import RunError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only once it is completely written.

    It is written beside its place and renamed at the end; missing folders are made. On any error the place stays as it
    was and nothing is left behind.

    Raises:
        RunError: The folder cannot be written to, or the disk is full.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a", "b.txt")) as file:
        ...         written = file.write(b"all of it")
        ...     Path(folder, "a", "b.txt").read_text()
        'all of it'
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except BaseException as error:
        remove_quietly(beside)
        if isinstance(error, OSError):
            raise RunError(
                f"{path}: cannot be written ({error.strerror or error}); free space on the disk or make the folder "
                "writable"
            ) from error
        raise


def remove_quietly(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
