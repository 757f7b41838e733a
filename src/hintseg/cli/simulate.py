"""`hintseg simulate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options

EPILOG = (
    "Examples:  hintseg simulate photos --hints points --out clicks   |   "
    "hintseg simulate photos --hints scribbles --share 0.1 --out strokes"
)


class Hints(StrEnum):
    """What is drawn."""

    scribbles = "scribbles"
    points = "points"
    boxes = "boxes"
    tags = "tags"


class Per(StrEnum):
    """What gets a click or a stroke of its own."""

    object = "object"
    class_ = "class"


def simulate(
    data: Annotated[Path, typer.Argument(help="Folder of photos with full masks.")],
    hints: Annotated[Hints, typer.Option(help="What to draw.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    share: Annotated[float, typer.Option(help="Scribbles: share of a stroke's length that is kept; 0 is a spot.")] = 1,
    width: Annotated[float, typer.Option(help="Scribbles: how wide the pen is, pixels.")] = 3,
    per: Annotated[Per, typer.Option(help="Scribbles, points: one on each object, or on each class.")] = Per.object,
    centre: Annotated[bool, typer.Option("--centre", help="Points: in the middle instead of at random.")] = False,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal hints.")] = 0,
    labels: options.Labels = None,
    format: options.Format = "auto",
    no_background: options.NoBackground = False,
    missing: options.MissingPhotos = options.Missing.error,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was drawn there earlier.")] = False,
) -> None:
    """Draw cheap hints out of full masks, for studies: how much do clicks or short strokes cost?

    Photos stay where they are.
    """
    from hintseg import api

    drawn = api.simulate(
        data,
        out,
        hints=hints.value,
        share=share,
        width=width,
        per=per.value,
        centre=centre,
        seed=seed,
        labels=labels,
        format=format,
        background=not no_background,
        missing=missing.value,
        overwrite=overwrite,
    )
    typer.echo(drawn.said)
    typer.echo(f"labels: {drawn.labels}")
    unlabelled = " --unlabelled 255" if hints is Hints.scribbles else ""
    typer.echo(f"to use them: hintseg check {data} --labels {drawn.labels}{unlabelled}")
