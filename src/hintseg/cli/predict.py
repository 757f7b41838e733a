"""`hintseg predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder with a trained segmenter.")],
    photos: Annotated[Path, typer.Argument(help="A photo, or a folder of photos (sub-folders too).")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("predictions"),
    overlays: Annotated[bool, typer.Option(help="Also draw each mask over its photo.")] = True,
    to: options.To = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace earlier masks in --out, those changed by hand too.")
    ] = False,
) -> None:
    """Segment new photos with the run's model: palette PNG, COCO JSON (RLE) and overlays."""
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.ending import end, of_masks
    from hintseg.cli.watch import Bars

    made = api.predict(run, photos, out, overlays=overlays, overwrite=overwrite, to=to or (), watch=Bars(Console()))
    end(*of_masks(made, overlays=overlays, formats=to or ()))
