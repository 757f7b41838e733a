"""`hintseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder with a trained segmenter.")],
    out: Annotated[Path | None, typer.Option(help="File to write; RUN/model.onnx if left out.")] = None,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width the model is traced and checked at.")] = (
        512,
        512,
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file --out where it exists.")] = False,
) -> None:
    """Export the run's segmenter as ONNX and check it against torch."""
    from hintseg import api

    typer.echo(str(api.export(run, out, size=size, overwrite=overwrite)))
