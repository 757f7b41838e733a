"""Read hints (tags, boxes, scribbles, points, masks) from the formats people have on disk."""

from __future__ import annotations

from pathlib import Path

from hintseg.errors import ConfigError, LabelError, did_you_mean, shown
from hintseg.hints.formats import FORMATS, recognise
from hintseg.hints.photos import refuse_ours
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
    refuse_ours(path)
    try:
        name = recognise(path, labels) if format == "auto" else format
        if name not in FORMATS:
            known = ", ".join(FORMATS)
            raise ConfigError(f"unknown format '{shown(name)}'{did_you_mean(name, list(FORMATS))}. Known: {known}")
        hint_set = FORMATS[name].read(path, labels, unlabelled=unlabelled, background=background)
    except OSError as error:  # a folder that may not be listed, a name in a label file that no file system takes
        raise LabelError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    if unlabelled is not None and 1 <= unlabelled <= len(hint_set.classes):
        taken = hint_set.classes[unlabelled - 1]
        raise LabelError(f"unlabelled={unlabelled} is the id of class '{taken}'; give the value that marks no class")
    return hint_set
