"""`hintseg check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    data: Annotated[Path, typer.Argument(help="Folder of the photos.")],
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Label file or folder, if not found below DATA by itself; give it again for more of them."),
    ] = None,
    format: Annotated[str, typer.Option(help="Label format; `auto` recognises it.")] = "auto",
    unlabelled: Annotated[int | None, typer.Option(help="Value of scribble images that means unlabelled.")] = None,
    no_background: Annotated[bool, typer.Option("--no-background", help="Every pixel has a class; 0 is none.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Look at photos and labels before training: what is there, and what will hurt."""
    from json import dumps

    from rich.console import Console

    from hintseg import api
    from hintseg.cli.tables import check_tables

    report = api.check(data, labels=labels, format=format, unlabelled=unlabelled, background=not no_background)
    if json:
        typer.echo(dumps(report.as_dict()))
        return
    console = Console(markup=False)
    for part in check_tables(report):
        console.print(part)
