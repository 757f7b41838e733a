"""Files that appear whole or not at all, and are entered in the list of the folder they belong to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hintseg.errors import RunError
from hintseg.files.owned import enter

PARTIAL = ".hintseg-tmp"
"""End of the name of a file that is being written, in the folder of the file it will be."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only once it is completely written.

    It is written beside its place and renamed at the end; missing folders are made. On any error the place stays as it
    was and nothing is left behind. In a folder of ours (`hintseg.files.owned`) the file is entered in the list.

    Raises:
        RunError: The folder cannot be written to, or the disk is full; or the place holds a file of somebody else in a
            folder of ours.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a", "b.txt")) as file:
        ...         written = file.write(b"all of it")
        ...     Path(folder, "a", "b.txt").read_text()
        'all of it'
    """
    # Short, as the name itself may have the greatest length; always the same, so what a kill leaves is written over.
    short = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    beside = path.with_name(f".{short}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside.is_symlink():
            beside.unlink()
        with beside.open("wb") as file:
            yield file
        enter(path, beside)
        beside.replace(path)
    except BaseException as error:
        remove_quietly(beside)
        if isinstance(error, OSError):
            raise RunError(
                f"{path}: cannot be written ({error.strerror or error}); free space on the disk or make the folder "
                "writable"
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def remove_quietly(path: Path) -> None:
    """Delete a file, if it is there and can be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
