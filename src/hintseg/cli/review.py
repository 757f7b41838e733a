"""`hintseg review`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hintseg.quality.review_list import ReviewList

EPILOG = (
    "Examples:  hintseg review runs/first   |   hintseg review runs/first --list   |   "
    "hintseg review runs/first --list --csv > list.csv   |   hintseg review runs/first --to cvat --out worst   |   "
    "hintseg review runs/first --from annotations.xml"
)

SHOWN = 20
"""Photos of the printed table."""


def review(
    run: Annotated[Path, typer.Argument(help="A run folder with masks.")],
    list_: Annotated[bool, typer.Option("--list", help="Print which masks to look at first, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --list: all of it as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="With --list: a row a photo as CSV.")] = False,
    port: Annotated[int, typer.Option(help="Where the page is served; 0 takes a free port.", min=0, max=65535)] = 0,
    to: Annotated[
        str | None,
        typer.Option(help="Write the worst masks for another tool, into --out: cvat, label-studio, labelme, ..."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --to: folder to make.")] = None,
    worst: Annotated[int, typer.Option(min=1, help="With --to: how many photos.")] = 50,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Read masks that another tool mended, and accept them.")
    ] = None,
    no_network: Annotated[
        bool,
        typer.Option(
            "--no-network", help="Do not ask the segmenter again, which takes a few looks of it at each photo, once."
        ),
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser; the address is printed.")] = False,
) -> None:
    """Look at the masks of a run, the most doubtful first, and mend them, on a page in the browser.

    The page is served to this machine alone. Every change is on disk at once, in RUN/review; `hintseg train
    --from-review RUN` learns from it. The list needs no truth. `worth` is a photo's share of all doubt in the run, each
    class weighing the same: mending the first photos brings most. `doubt` says how far the mask is from what the other
    stages say, and the segmenter, which is asked again about each photo the first time, 0 to 1.
    """
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.watch import Bars
    from hintseg.errors import ConfigError

    if ((json or csv) and not list_) or (json and csv):
        raise ConfigError("--json and --csv say how --list prints; give --list and one of them")
    if (to is None) != (out is None):
        raise ConfigError("--to says the format and --out the folder of what another tool opens; give both")
    if to is not None and out is not None:
        written = api.send_review(
            run, out, to=to.replace("-", "_"), most=worst, network=not no_network, watch=Bars(Console(stderr=True))
        )
        typer.echo(f"labels: {written.labels}  (`hintseg review {run} --from FILE` reads the mended ones back)")
        for sentence in written.lost:
            typer.echo(f"note: {sentence}")
        return
    if from_ is not None:
        mended, equal = api.take_review(run, from_)
        typer.echo(f"{mended} masks mended and accepted, {equal} accepted as they were")
        return
    if not list_:
        bars = Bars(Console(stderr=True))
        api.review(run, port=port, opened=not no_open, network=not no_network, say=typer.echo, watch=bars)
        return
    found = api.review_list(run, network=not no_network, watch=Bars(Console(stderr=True)))
    if json:
        typer.echo(found.model_dump_json(indent=1))
    elif csv:
        typer.echo(found.as_csv(), nl=False)
    else:
        _print(found)


def _print(found: ReviewList) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    table = Table("photo", "worth", "doubt", "why")
    for row in found.photos[:SHOWN]:
        table.add_row(row.id, f"{row.worth:.1%}", f"{row.doubt:.2f}", "; ".join(row.why) or "-")
    console.print(table)
    known = sorted(((v, name) for name, v in found.classes.items() if v is not None), reverse=True)
    if known:
        console.print("most doubtful classes: " + ", ".join(f"{name} {value:.2f}" for value, name in known[:8]))
    compared = f" compared with {', '.join(found.voices)}" if found.voices else ""
    more = f"; {len(found.photos) - SHOWN} more with --csv or --json" if len(found.photos) > SHOWN else ""
    console.print(f"masks of stage '{found.stage}'{compared}: {found.summary}{more}", highlight=False)
