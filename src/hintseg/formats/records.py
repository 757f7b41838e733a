"""What label files say, in their own words: what readers return, before photos, classes and sizes are compared.

A reader knows its file; everything that could be wrong with any file is looked at once, for all formats, in
`formats.gather`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hintseg.types import FullMask, MaskFile, Region, Shape

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """How label files are to be read.

    Attributes:
        unlabelled: The value of index images that means "nothing known here", 0..255; needed for scribbles.
        background: Whether pixels may belong to no class.
        missing: What happens where a label file names photos that are not there: `error`, or `skip` them with a note.
        colours: Class of each colour (red, green, blue) of colour masks; empty: as the data set's own table says.
    """

    unlabelled: int | None = None
    background: bool = True
    missing: Literal["error", "skip"] = "error"
    colours: Mapping[Colour, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """One object, stroke or click, as the file has it.

    Attributes:
        label: Name of its class; a name that means background, such as `_background_`, says that this is background.
        shape: Where: in pixels of the picture it was drawn on, boxes right and bottom exclusive; or, where
            `Record.relative`, in shares of that picture's width and height. A region is the object's whole outline.
        outline: The object's whole outline where `shape` is its box.
        crowd: Whether it stands for many objects that lie together.
        object: Number of the object, where several items (a click and a box) are of one.
        source: Who says so: ``person``, ``file`` or ``model:NAME``.
        trust: How far to believe it, 0..1.
        line: Where in the file, such as ``line 3`` or ``object 2``.
        wrong: Why the reader could make nothing of it; it is then left out and counted. Empty: it is as it should be.
        empty: Whether it has no area, and so says nothing but that its class may be there; the reader tells of it.
        mended: What the reader changed, as what annotations do: ``have no outline (the reason)``.
    """

    label: str
    shape: Shape
    outline: Region | None = None
    crowd: bool = False
    object: int | None = None
    source: str = "file"
    trust: float = 1.0
    line: str = ""
    wrong: str = ""
    empty: bool = False
    mended: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What a label file says of one photo.

    Attributes:
        photo: Its name as the file has it: a path, a name, a stem; what `PhotoFolder.locate` finds.
        items: Its objects, strokes and clicks.
        tags: Names of the classes that the file says are in the photo; None: it says nothing of whole photos.
        absent: Names of classes that it says are not there.
        complete: Whether a class that is neither among `tags` nor in an item is absent.
        whole: Whether all its objects are among `items`; else their outlines are no full mask.
        size: (height, width) of the picture that items were drawn on, pixels, where the file says so.
        relative: Whether coordinates are shares of width and height.
        split: Name of the part of the data it belongs to, where the file says so.
        also: Other names the file has for it, tried in their order where there is no photo `photo`.
        where: Name of the label file.
        line: Where in the file.
    """

    photo: str
    items: tuple[Item, ...] = ()
    tags: tuple[str, ...] | None = None
    absent: tuple[str, ...] = ()
    complete: bool = True
    whole: bool = True
    size: tuple[int, int] | None = None
    relative: bool = False
    split: str | None = None
    also: tuple[str, ...] = ()
    where: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """All that label files say.

    Attributes:
        records: One or more for each photo that they name, in the order of the files.
        source: The files in words, such as `tags.csv`.
        classes: Names of the classes in the order of their ids, where a file lists them. None: those of classes.txt
            beside it, else those that occur, by name.
        splits: Photo ids of each split, where files list them; those of records are added.
        truth: Full masks on disk, by photo id.
        notes: What the reader mapped or left out, one sentence each.
        scribbles: Images of strokes on disk, by photo id.
    """

    records: tuple[Record, ...]
    source: str
    classes: tuple[str, ...] | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    truth: Mapping[str, FullMask] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scribbles: Mapping[str, MaskFile] = field(default_factory=dict)
