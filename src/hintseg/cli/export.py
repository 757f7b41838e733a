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

    made = api.export(run, out, size=size, overwrite=overwrite)
    sizes = "photos of any size" if made.dynamic_size else f"photos of {size[0]} x {size[1]} pixels only"
    typer.echo(
        f"model: {made.path}, {made.size_bytes / 1e6:.1f} MB; on random images {made.agreement:.2%} of the pixels get "
        f"the class that torch gives them, and logits differ by {made.max_difference:.1g} at most"
    )
    typer.echo(
        f"next: it takes {sizes} as `images` (B, 3, H, W), float32 RGB in 0..1, and gives `logits` (B, C, H, W), "
        f"background first, such as onnxruntime.InferenceSession({str(made.path)!r}).run(None, {{'images': images}})"
    )
