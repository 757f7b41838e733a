"""`hintseg study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options

EPILOG = (
    "Examples:  hintseg study photos --kinds tags,boxes,masks --out studies/first   |   "
    "hintseg study photos --kinds tags,tags+boxes --shares 0.1,0.5 --seeds 0,1,2 --cost boxes=5"
)


def study(
    data: Annotated[Path, typer.Argument(help="Folder of photos; the split `val` needs full masks.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of all runs, such as backbone.weights=FILE."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make, or to go on with.")] = Path("studies/hintseg"),
    kinds: Annotated[
        str, typer.Option(help="tags, points, scribbles, boxes, masks, or two joined by +; none: what the data has.")
    ] = "",
    shares: Annotated[str, typer.Option(help="Shares of the training photos.")] = "0.125,0.25,0.5,1",
    seeds: Annotated[str, typer.Option(help="Seeds of the runs.")] = "0",
    cost: Annotated[
        list[str] | None, typer.Option(help="Seconds a hint takes you, such as boxes=7; may be given several times.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Recipe of a kind in place of its own, such as boxes=mixed; may be given several times."),
    ] = None,
    labels: options.Labels = None,
    format: options.Format = "auto",
    no_background: options.NoBackground = False,
) -> None:
    """What would more labels buy? Train on shares of the photos with each kind of hint, and draw mIoU over hours.

    Hints that the data lacks are drawn out of its full masks. Each cell is a run of its own below OUT/runs, and none is
    run twice: a study that was stopped goes on where it was. OUT/curves.svg, study.csv and study.json hold the cells
    that were asked for last.
    """
    from rich.console import Console
    from rich.table import Table

    from hintseg import api
    from hintseg.cli.watch import Bars

    cells = api.study(
        data,
        out,
        kinds=[word for word in kinds.split(",") if word],
        shares=options.numbers(shares, "--shares"),
        seeds=options.counts(seeds, "--seeds"),
        seconds=dict(options.named_number(word, "--cost") for word in cost or ()),
        recipes=dict(options.named(word, "--recipe") for word in recipe or ()),
        labels=labels,
        format=format,
        background=not no_background,
        settings=settings or (),
        watch=Bars(Console()),
    )
    table = Table("kind", "photos", "hints", "hours", "seed", "mIoU, %")
    for one in cells:
        table.add_row(
            one.kind, str(one.photos), str(one.hints), f"{one.hours:.2f}", str(one.seed), f"{100 * one.miou:.1f}"
        )
    Console(markup=False).print(table)
    typer.echo(f"{out / 'curves.svg'} shows mIoU over hours; {out / 'study.csv'} holds the table")
