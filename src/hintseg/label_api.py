"""The verbs that are about labels, and what verbs share; `hintseg.api` has them too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hintseg.errors import ConfigError, RunError
from hintseg.files.owned import refuse_inputs
from hintseg.types import Supervision

if TYPE_CHECKING:
    from hintseg.formats.codec import Written
    from hintseg.hints.check import CheckReport
    from hintseg.hints.simulate import Drawn
    from hintseg.pipeline.study import Cell
    from hintseg.training.watch import Watch
    from hintseg.types import HintSet

Labels = Path | str | Sequence[Path | str]
Missing = Literal["error", "skip"]
Settings = Sequence[str] | Mapping[str, Any]


def check(
    data: Path | str,
    *,
    labels: Labels | None = None,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
    missing: Missing = "error",
    colours: Path | str | None = None,
) -> CheckReport:
    """Look at photos and labels before training: what is there, and what will hurt.

    Args:
        data: Folder of the photos.
        labels: Label file or folder, where it is not found below `data` by itself; or several, which are put together.
        format: Label format; `auto` recognises it.
        unlabelled: Value of scribble images that means "nothing known here".
        background: Whether pixels may belong to no class.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Table of the colours of colour masks, where none lies beside them: a CSV `name,r,g,b`.

    Raises:
        LabelError: All problems of the label files at once.
    """
    from hintseg.hints.check import check as check_hints

    hint_set, _ = _read(
        data, labels, colours, format=format, unlabelled=unlabelled, background=background, missing=missing
    )
    return check_hints(hint_set)


def convert(
    data: Path | str,
    out: Path | str,
    *,
    to: str,
    labels: Labels | None = None,
    format: str = "auto",
    unlabelled: int | None = None,
    background: bool = True,
    missing: Missing = "error",
    colours: Path | str | None = None,
    overwrite: bool = False,
) -> Written:
    """Write labels in another format; photos stay where they are.

    Args:
        data: Folder of the photos.
        out: Folder to make.
        to: Format to write, one of those that are written (`hintseg list formats`).
        labels: Label file or folder, where it is not found below `data` by itself; or several, which are put together.
        format: Label format; `auto` recognises it.
        unlabelled: Value of scribble images that means "nothing known here", 0..255.
        background: Whether pixels may belong to no class.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Table of the colours of colour masks, where none lies beside them: a CSV `name,r,g,b`.
        overwrite: Replace what an earlier `convert` wrote there, and nothing else.

    Returns:
        `labels`: what to give as labels to read them again; `lost`: what the format cannot hold, in sentences.

    Raises:
        ConfigError: The format is not written.
        LabelError: All problems of the label files at once, or the format can hold nothing of what they say.
        RunError: `out` holds what hintseg did not write, or earlier labels.
    """
    from hintseg.files.owned import owned
    from hintseg.hints.convert import write, writer

    writer(to)
    hint_set, files = _read(
        data, labels, colours, format=format, unlabelled=unlabelled, background=background, missing=missing
    )
    refuse_inputs(Path(out), [*files, *(photo.path for photo in hint_set.photos)])
    with owned(Path(out), "labels", alone=True) as folder:
        if folder.hashes and not overwrite:
            raise RunError(f"{out} holds labels that were written before; choose another --out, or use --overwrite")
        folder.renew()
        return write(hint_set, to, Path(out))


def simulate(
    data: Path | str,
    out: Path | str,
    *,
    hints: str,
    share: float = 1.0,
    width: float = 3.0,
    per: Literal["object", "class"] = "object",
    centre: bool = False,
    seed: int = 0,
    labels: Labels | None = None,
    format: str = "auto",
    background: bool = True,
    missing: Missing = "error",
    colours: Path | str | None = None,
    overwrite: bool = False,
) -> Drawn:
    """Draw cheap hints out of full masks, for studies; see `hintseg.hints.simulate`.

    Args:
        data: Folder of photos with full masks.
        out: Folder to make.
        hints: `scribbles`, `points`, `boxes` or `tags`.
        share: Of scribbles, the share of a stroke's length that is kept, 0..1; 0 is a spot.
        width: Of scribbles, how wide the pen is, pixels.
        per: Of scribbles and points, whether each object gets one, or each class of a photo.
        centre: Of points, whether they are in the middle, not at random.
        seed: Equal seeds draw equal hints.
        labels: Label file or folder of the masks, where it is not found below `data` by itself; or several.
        format: Label format; `auto` recognises it.
        background: Whether pixels may belong to no class; then background gets strokes and points too.
        missing: What happens where labels name photos that are not there: `error`, or `skip` them with a note.
        colours: Table of the colours of colour masks, where none lies beside them: a CSV `name,r,g,b`.
        overwrite: Replace what was drawn there earlier, and nothing else.

    Returns:
        `labels`: what to give as labels to read the hints; `said`: what was drawn.

    Raises:
        ConfigError: A setting out of its range.
        LabelError: All problems of the label files at once, or no photo has a full mask.
        RunError: `out` holds what hintseg did not write, or earlier labels.
    """
    from hintseg.files.owned import owned
    from hintseg.hints.simulate import KINDS, Drawing
    from hintseg.hints.simulate import simulate as draw

    if hints not in KINDS:
        raise ConfigError(f"hints '{hints}' given, one of {', '.join(KINDS)} is needed")
    drawing = Drawing(seed, per, centre, share, width)
    hint_set, files = _read(data, labels, colours, format=format, background=background, missing=missing)
    refuse_inputs(Path(out), [*files, *(photo.path for photo in hint_set.photos)])
    with owned(Path(out), "labels", alone=True) as folder:
        if folder.hashes and not overwrite:
            raise RunError(f"{out} holds labels that were written before; choose another --out, or use --overwrite")
        folder.renew()
        return draw(hint_set, Supervision(hints), Path(out), drawing)


def label_paths(labels: Labels) -> list[str]:
    """Return one label file, or several, as a list of text."""
    return [str(labels)] if isinstance(labels, Path | str) else [str(file) for file in labels]


def _read(
    data: Path | str, labels: Labels | None, colours: Path | str | None, **options: Any
) -> tuple[HintSet, list[Path]]:
    """Read a labelled folder; return what it says, and the label files that were given."""
    from hintseg.formats.colours import read_colours
    from hintseg.hints import read_hints

    files = [Path(file) for file in label_paths(labels or ())]
    table = {} if colours is None else read_colours(Path(colours))
    return read_hints(Path(data), files, colours=table, **options), files


def study(
    data: Path | str,
    out: Path | str,
    *,
    kinds: Sequence[str] = (),
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    seeds: Sequence[int] = (0,),
    seconds: Mapping[str, float] | None = None,
    recipes: Mapping[str, str] | None = None,
    labels: Labels | None = None,
    format: str = "auto",
    background: bool = True,
    settings: Settings = (),
    watch: Watch | None = None,
) -> list[Cell]:
    """Train on shares of the photos with each kind of hint, and say what more labels would buy.

    Args:
        data: Folder of photos; the split `val` needs full masks.
        out: Folder to make, or to go on with: a run for each cell, ``study.json``, ``study.csv``, ``curves.svg``.
        kinds: Of tags, points, scribbles, boxes and masks, or two of them joined by `+`; none: what the data has.
        shares: Of the training photos, above 0, at most 1.
        seeds: Of the runs.
        seconds: What one hint of a kind takes a person, where it is not what the literature says.
        recipes: Recipes of some kinds, names or files, in place of those that `train` takes for them.
        labels: As for `train`.
        format: As for `train`.
        background: As for `train`.
        settings: Dotted settings of all runs.
        watch: Told about the progress.

    Returns:
        The cells: what was learned from, what it takes to say it, and the mIoU on the split `val`.

    Raises:
        HintsegError: Anything the user can mend.
    """
    from hintseg.pipeline.study import SECONDS
    from hintseg.pipeline.study import study as run_study

    if unknown := (seconds or {}).keys() - SECONDS.keys():
        raise ConfigError(f"no hint is called '{min(unknown)}'; costs can be given for {', '.join(SECONDS)}")
    block: dict[str, Any] = {"labels": None if labels is None else label_paths(labels), "format": format}
    block |= {} if background else {"background": "none"}
    return run_study(
        Path(data),
        Path(out),
        kinds=kinds,
        shares=shares,
        seeds=seeds,
        seconds=SECONDS | dict(seconds or {}),
        recipes=dict(recipes or {}),
        settings=setting_words(settings),
        block=block,
        watch=watch,
    )


def setting_words(settings: Settings) -> list[str]:
    """Return dotted settings as words, ``key=value``, whichever way they were given."""
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
    return list(settings)
