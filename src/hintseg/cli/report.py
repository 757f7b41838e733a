"""`hintseg report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")]) -> None:
    """Write RUN/report.html again: one file, opens without a network."""
    from hintseg import api

    typer.echo(f"report: {api.report(run)}; open it in a browser, it needs no network")
