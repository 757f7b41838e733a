"""What people said about photos: read from any format, merged, and looked at before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from hintseg.errors import ConfigError, LabelError
from hintseg.formats.photos import refuse_ours
from hintseg.formats.recognise import codec, recognise
from hintseg.formats.records import Colour, Reading
from hintseg.formats.words import MASK_WORDS
from hintseg.hints.implied import with_implied
from hintseg.hints.merge import merge
from hintseg.types import HintSet, Supervision

__all__ = ["read_hints", "recognise"]


def read_hints(
    path: Path,
    labels: Path | Sequence[Path] | None = None,
    *,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
    missing: Literal["error", "skip"] = "error",
    colours: Mapping[Colour, str] = MappingProxyType({}),
) -> HintSet:
    r"""Read a labelled folder.

    Args:
        path: Folder of the data set.
        labels: Label file or folder, or several: each is recognised by itself, and what they say is put together. None
            looks for it in `path`.
        format: A name of `registry.formats()`, or `auto` to recognise it; with several labels `auto`.
        unlabelled: The value of index images that means "nothing known here", 0..255; needed for scribbles.
            With several labels it is that of the images of scribbles, where there are any. Beside a folder called so,
            one called as masks are (`masks`, `SegmentationClass`, `gt`) holds full masks.
        background: Whether pixels may belong to no class.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Class of each colour (red, green, blue) of colour masks; empty: as the data set's own table says.

    Raises:
        ConfigError: No such format.
        LabelError: The format is not recognised, or all problems of the label files at once, or all contradictions
            between them.

    Example:
        >>> from PIL import Image
        >>> folder = getfixture("tmp_path")
        >>> for name in ("a.png", "b.png"):
        ...     Image.new("RGB", (8, 8)).save(folder / name)
        >>> _ = (folder / "tags.csv").write_text("a.png,bird,dog\nb.png\n")
        >>> hints = read_hints(folder)
        >>> hints.classes
        ('bird', 'dog')
        >>> [(photo.id, sorted(photo.hints.tags)) for photo in hints.photos]
        [('a', [1, 2]), ('b', [])]
    """
    refuse_ours(path)
    given = [labels] if isinstance(labels, Path) else [*(labels or ())]
    files: list[Path | None] = [*dict.fromkeys(given)] or [None]
    if len(files) > 1 and format != "auto":
        raise ConfigError(f"format '{format}' is given for {len(files)} labels; leave it out: each is recognised")
    try:
        codecs = [codec(recognise(path, file) if format == "auto" else format) for file in files]
        drawn = any(file is not None and "scribble" in file.name.lower() for file in files)
        masks = [drawn and file is not None and file.name.lower() in MASK_WORDS for file in files]
        strokes = [Supervision.SCRIBBLES in one.carries and not full for one, full in zip(codecs, masks, strict=True)]
        parts = []
        for one, file, has_strokes in zip(codecs, files, strokes, strict=True):
            value = unlabelled if has_strokes or not any(strokes) else None
            reading = Reading(value, background, missing, colours)
            parts.append((_name(file, given), one.read(path, file, reading)))
    except OSError as error:  # a folder that may not be listed, a name in a label file that no file system takes
        raise LabelError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    hint_set = with_implied(merge(parts))
    if unlabelled is not None and 1 <= unlabelled <= len(hint_set.classes):
        taken = hint_set.classes[unlabelled - 1]
        raise LabelError(f"unlabelled={unlabelled} is the id of class '{taken}'; give the value that marks no class")
    return hint_set


def _name(file: Path | None, given: Sequence[Path]) -> str:
    """Return a label file's name for messages; its path where others are called alike."""
    alone = file is None or [other.name for other in given].count(file.name) == 1
    return file.name if file is not None and alone else str(file)
