"""What a format is: how its label files are recognised, what they carry, and how they are read."""

from __future__ import annotations

import os
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from hintseg.types import HintSet, Supervision


class Fit(IntEnum):
    """How surely a folder or label file is of a format; the surest one is taken."""

    NO = 0
    WEAK = 1  # by its suffix alone, or only where no other format fits
    YES = 2
    WHOLE = 3  # a whole layout of folders is no accident: single files of other formats may lie beside it


class Codec(Protocol):
    """One label format, in one file; an object of it is made without arguments.

    Attributes:
        name: Its name in `registry.FORMATS`, or that of the entry point.
        carries: The kinds of hints its files can hold.
        sign: What it is recognised by, for people.
    """

    name: str
    carries: frozenset[Supervision]
    sign: str

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Tell how surely a data set is of this format.

        Args:
            path: Folder of the data set.
            labels: Label file or folder that is there, where one is given; then it alone decides.
        """
        ...

    def read(
        self, path: Path, labels: Path | None, *, unlabelled: int | None = None, background: bool = True
    ) -> HintSet:
        """Read a labelled folder.

        Tags are what the file says of whole photos; what boxes, points and scribbles imply about a photo's classes is
        worked out later, for all formats alike (`hints.implied`).

        Args:
            path: Folder of the data set.
            labels: Label file or folder; None looks for it in `path`.
            unlabelled: The value of index images that means "nothing known here".
            background: Whether pixels may belong to no class.

        Raises:
            LabelError: All problems of the label files at once.
        """
        ...


def holds(folder: Path, suffix: str) -> bool:
    """Return whether a folder holds files of a suffix (in any case), the class list aside; a file holds none."""
    names = (name for _, _, files in os.walk(folder) for name in files if name != "classes.txt")
    return any(os.path.splitext(name)[1].lower() == suffix for name in names)  # noqa: PTH122 (10x quicker)
