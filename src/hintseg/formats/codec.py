"""What a format is: how its label files are recognised, what they carry, and how they are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from hintseg.formats.records import Reading
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

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a labelled folder. Codecs return what `formats.gather.gather` makes of their `Labels`.

        Tags are what the file says of whole photos; what boxes, points and scribbles imply about a photo's classes is
        worked out later, for all formats alike (`hints.implied`).

        Args:
            path: Folder of the data set.
            labels: Label file or folder; None looks for it in `path`.
            reading: How it is to be read.

        Raises:
            LabelError: All problems of the label files at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What a codec wrote.

    Attributes:
        labels: The label file or folder, as `Codec.read` takes it.
        lost: What the format cannot hold, or not as it was, one sentence each.
    """

    labels: Path
    lost: tuple[str, ...] = ()


@runtime_checkable
class Writer(Protocol):
    """A codec that also writes its format.

    Attributes:
        writes: The kinds of hints it writes; a photo's full mask (`Photo.truth`, or `Hints.mask`) is `masks`. What a
            hint set has beside them is said to be lost by `hints.convert`, for all formats alike.
    """

    writes: frozenset[Supervision]

    def write(self, hint_set: HintSet, out: Path) -> Written:
        """Write label files; photos stay where they are.

        What is read again with the photos' folder and `Written.labels` equals what was written, as far as `writes` and
        `Written.lost` go. Files appear whole or not at all (`files.atomic.whole_file`).

        Args:
            hint_set: What is said of the photos.
            out: An empty folder.
        """
        ...


def holds(folder: Path, suffix: str) -> bool:
    """Return whether a folder holds files of a suffix (in any case), the class list aside; a file holds none."""
    names = (name for _, _, files in os.walk(folder) for name in files if name != "classes.txt")
    return any(os.path.splitext(name)[1].lower() == suffix for name in names)  # noqa: PTH122 (10x quicker)
