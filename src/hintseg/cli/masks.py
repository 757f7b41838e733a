"""`hintseg masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def masks(
    run: Annotated[Path, typer.Argument(help="A run folder made by `hintseg train`.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; RUN/masks if left out.")] = None,
    overlays: Annotated[bool, typer.Option(help="Also draw each mask over its photo.")] = True,
) -> None:
    """Write the masks of the training photos: palette PNG, COCO JSON (RLE) and overlays.

    Value 0 is background, k is the k-th class of classes.txt, 255 is unknown.
    """
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.watch import Bars

    api.masks(run, out, overlays=overlays, watch=Bars(Console()))
