"""`hintseg masks`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options

EPILOG = (
    "Examples:  hintseg masks runs/first --out masks   |   "
    "hintseg masks photos --from boxes --labels instances.json --out masks   |   "
    "hintseg masks photos --from boxes --out quick propose.method=grabcut (no training)   |   "
    "hintseg masks photos --from boxes --out masks backbone.weights=FILE (offline)   |   "
    "hintseg masks photos --from points --labels points.csv --out masks   |   "
    "hintseg masks photos --from strokes --labels strokes --unlabelled 255 --out masks"
)


class Hint(StrEnum):
    """What masks can be made from in one command."""

    boxes = "boxes"
    strokes = "strokes"
    points = "points"


def masks(
    source: Annotated[Path, typer.Argument(help="A run folder, or with --from a folder of photos and their labels.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="With --from: settings of the recipe of that name."),
    ] = None,
    hint: Annotated[Hint | None, typer.Option("--from", help="Make masks from these hints, in one command.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; SOURCE/masks of a run if left out, needed with --from.")
    ] = None,
    labels: options.Labels = None,
    format: options.Format = "auto",
    unlabelled: options.Unlabelled = None,
    no_background: options.NoBackground = False,
    missing: options.MissingPhotos = options.Missing.error,
    colours: options.Colours = None,
    to: options.To = None,
    overlays: Annotated[bool, typer.Option(help="Also draw each mask over its photo.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="With --from: go on after a stop.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace earlier masks in --out, also those changed by hand; --from: start afresh."
        ),
    ] = False,
) -> None:
    """Write masks of photos: palette PNG, COCO JSON and overlays.

    Of a run folder: the masks of its training photos. With --from boxes: boxes in any format (VOC, COCO, YOLO, CSV)
    become masks of every object and of every photo, as palette PNG, instance PNG, COCO (RLE and polygons) and YOLO
    segment. A small network learns from GrabCut what your objects look like; the more boxes, the better.

    With --from strokes or points, each pixel takes the label of the mark that is nearest to it along the photo's
    colours; nothing is trained, so one photo is enough. Mark the background too: where a photo has no mark of it, what
    is far from all marks counts as background.

    In the palette PNGs value 0 is background and k the k-th class of classes.txt. Every pixel has a label: a crowd is
    background, and where no pixel is, what is in no box takes the class of the nearest object. A photo of which nothing
    is known gets no mask.
    """
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.ending import end, of_masks
    from hintseg.cli.watch import Bars
    from hintseg.errors import ConfigError

    watch = Bars(Console())
    if hint is None:
        reading = labels or format != "auto" or unlabelled is not None or no_background or missing != "error" or colours
        if settings or reading or resume:
            raise ConfigError(
                "settings, --resume, and how labels are read (--labels, --format, --unlabelled, --no-background, "
                "--missing, --colours) belong to --from, which was not given; "
                f"{source} is read as a run folder. To make masks from boxes, strokes or points: "
                "hintseg masks PHOTOS --from boxes --out DIR"
            )
        made = api.masks(source, out, overlays=overlays, overwrite=overwrite, to=to or (), watch=watch)
    elif out is None:
        raise ConfigError("--from needs --out DIR, the folder to write masks to")
    else:
        made = api.masks_from(
            hint.value,
            source,
            out,
            labels=labels,
            format=format,
            unlabelled=unlabelled,
            background=not no_background,
            missing=missing.value,
            colours=colours,
            to=to or (),
            settings=settings or (),
            overlays=overlays,
            resume=resume,
            overwrite=overwrite,
            watch=watch,
        )
    end(*of_masks(made, overlays=overlays, formats=to or ()))
