"""Finding a format by its name, or by looking at the folder and the label file."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from hintseg.errors import ConfigError, LabelError, did_you_mean, join, shown
from hintseg.formats.codec import Codec
from hintseg.formats.photos import walk
from hintseg.registry import formats, resolve


def codec(name: str) -> Codec:
    """Return the format of that name.

    Raises:
        ConfigError: There is none, or it is a plug-in that cannot be imported.
    """
    table = formats()
    if name not in table:
        raise ConfigError(
            f"unknown format '{shown(name)}'{did_you_mean(name, list(table)) or '.'} Known: {', '.join(table)}"
        )
    try:
        found: Codec = resolve("format", name, table)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the format '{name}' ({table[name].target}) cannot be loaded: {error}; mend or remove its package"
        ) from error
    return found


def recognise(path: Path, labels: Path | None = None) -> str:
    """Return the name of the format of a labelled folder.

    Args:
        path: Folder of the data set.
        labels: Label file or folder, where one is given; then it alone decides.

    Raises:
        LabelError: No format fits, or more than one (a Pascal VOC layout aside); the message says how to name it.

    Cost:
        A JSON that is not called `instances*` is read to see what it holds.
    """
    if not path.is_dir():
        raise LabelError(f"{path} is not a folder; name the folder of the data set")
    if labels is not None and not labels.exists():
        raise LabelError(f"the labels {labels} are missing; correct the path")
    codecs = [codec(name) for name in formats()]
    fits = {one.name: one.sniff(path, labels) for one in codecs}
    surest = max(fits.values())
    found = [name for name, fit in fits.items() if fit == surest and fit]
    if len(found) == 1:
        return found[0]
    if labels is not None and labels.is_dir():
        raise LabelError(f"the folder {labels} does not show its format; name it with --format NAME: {', '.join(fits)}")
    if labels is not None and not found:
        raise LabelError(f"the label file {labels} has an unknown suffix; name its format with --format NAME")
    signs = {one.name: one.sign for one in codecs}
    if found:
        both = ", ".join(f"'{name}' ({signs[name]})" for name in found)
        raise LabelError(
            f"{labels or path} fits {len(found)} formats: {both}; choose one with --format {found[0]} or another of "
            "them, or name each label file with a --labels of its own"
        )
    looked = "\n".join(f"  {name}: {sign}" for name, sign in signs.items())
    raise LabelError(
        f"no known labels in {path}. Looked for:\n{looked}\nThere are: {_what_lies(path)}\nName the file with --labels "
        "FILE and --format NAME; where the folders of the photos are their classes, say so with --format folders"
    )


def _what_lies(path: Path) -> str:
    """Return the kinds of files below a folder, the most frequent first, each with one of them."""
    kinds = defaultdict[str, list[Path]](list)
    for file in walk(path):
        kinds[file.suffix.lower()].append(file)
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    files = [
        f"{len(found)} {shown(suffix or 'files without suffix')} ({shown(found[0].relative_to(path).as_posix())})"
        for suffix, found in most
    ]
    return join(files, 6) or "no files"
