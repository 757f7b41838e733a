"""`hintseg check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options


def check(
    data: Annotated[Path, typer.Argument(help="Folder of the photos.")],
    labels: options.Labels = None,
    format: options.Format = "auto",
    unlabelled: options.Unlabelled = None,
    no_background: options.NoBackground = False,
    missing: options.MissingPhotos = options.Missing.error,
    colours: options.Colours = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Look at photos and labels before training: what is there, and what will hurt."""
    from json import dumps

    from rich.console import Console

    from hintseg import api
    from hintseg.cli.ending import command, end
    from hintseg.cli.tables import check_tables

    report = api.check(
        data,
        labels=labels,
        format=format,
        unlabelled=unlabelled,
        background=not no_background,
        missing=missing.value,
        colours=colours,
    )
    if json:
        typer.echo(dumps(report.as_dict()))
        return
    console = Console(markup=False)
    for part in check_tables(report):
        console.print(part)
    given: list[str | Path] = [word for path in labels or () for word in ("--labels", path)]
    if format != "auto":
        given += ["--format", format]
    if unlabelled is not None:
        given += ["--unlabelled", str(unlabelled)]
    if no_background:
        given += ["--no-background"]
    if missing is not options.Missing.error:
        given += ["--missing", missing.value]
    if colours is not None:
        given += ["--colours", colours]
    end(f"next: {command('train', data, *given, '--out', 'runs/first')}")
