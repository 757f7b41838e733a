"""`hintseg convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options

EPILOG = (
    "Examples:  hintseg convert photos --labels tags.csv --to cvat --out for-cvat   |   "
    "hintseg convert VOC2012 --to coco --out coco   |   hintseg list formats"
)


def convert(
    data: Annotated[Path, typer.Argument(help="Folder of the photos.")],
    to: Annotated[str, typer.Option(help="Format to write (`hintseg list formats`).")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    labels: options.Labels = None,
    format: options.Format = "auto",
    unlabelled: options.Unlabelled = None,
    no_background: options.NoBackground = False,
    missing: options.MissingPhotos = options.Missing.error,
    colours: options.Colours = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier convert wrote.")] = False,
) -> None:
    """Write labels in another format. Photos stay where they are; what the format cannot hold is said."""
    from hintseg import api

    written = api.convert(
        data,
        out,
        to=to,
        labels=labels,
        format=format,
        unlabelled=unlabelled,
        background=not no_background,
        missing=missing.value,
        colours=colours,
        overwrite=overwrite,
    )
    for sentence in written.lost:
        typer.echo(f"lost: {sentence}")
    typer.echo(f"labels: {written.labels}")
    typer.echo(f"to use them: hintseg check {data} --labels {written.labels} --format {to}")
