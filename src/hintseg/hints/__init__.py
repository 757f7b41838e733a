"""Read hints (tags, boxes, scribbles, points, masks) from the formats people have on disk."""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import ConfigError, LabelError, did_you_mean
from hintseg.hints.formats import FORMATS, recognise
from hintseg.types import HintSet

__all__ = ["FORMATS", "read_hints", "recognise"]


def read_hints(
    path: Path,
    labels: Path | None = None,
    *,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
) -> HintSet:
    r"""Read a labelled folder.

    Args:
        path: Folder of the data set.
        labels: Label file or folder; None looks for it in `path`.
        format: A name in `FORMATS`, or `auto` to recognise it.
        unlabelled: The value of index images that means "nothing known here", 0..255; needed for scribbles.
        background: Whether pixels may belong to no class.

    Raises:
        ConfigError: No such format.
        LabelError: The format is not recognised, or all problems of the label files at once.

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
    name = recognise(path, labels) if format == "auto" else format
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'{did_you_mean(name, list(FORMATS))}. Known: {', '.join(FORMATS)}")
    hint_set = FORMATS[name].read(path, labels, unlabelled=unlabelled, background=background)
    if unlabelled is not None and 1 <= unlabelled <= len(hint_set.classes):
        taken = hint_set.classes[unlabelled - 1]
        raise LabelError(f"unlabelled={unlabelled} is the id of class '{taken}'; give the value that marks no class")
    return hint_set
