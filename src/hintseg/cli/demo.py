"""`hintseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out after a stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the run in --out afresh.")] = False,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, as for `hintseg train`.")
    ] = None,
) -> None:
    """Run the whole main job on an embedded synthetic data set: nothing to download, a few minutes on a laptop."""
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.ending import after_training, end
    from hintseg.cli.watch import Bars

    run = api.demo(out, settings=settings or (), resume=resume, overwrite=overwrite, watch=Bars(Console()))
    end(after_training(run.path))
