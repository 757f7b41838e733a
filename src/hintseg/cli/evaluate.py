"""`hintseg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    masks: Annotated[Path, typer.Argument(help="Folder of index PNGs (or of class maps, .npz) to judge.")],
    truth: Annotated[Path, typer.Argument(help="Folder of true index PNGs of the same names.")],
    classes: Annotated[
        Path | None, typer.Option(help="Text file, one class name a line; line n is class id n.")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Text file of the photo ids to judge, one a line.")] = None,
    no_background: Annotated[bool, typer.Option("--no-background", help="Every pixel has a class; 0 is none.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare masks with the truth: mIoU per class, pixel accuracy, boundary IoU, in one pass.

    A folder of class maps is swept over 60 background thresholds in the same pass; the best one is the *oracle*:
    it needs the truth, so it is no result.
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from hintseg import api
    from hintseg.formats.layout import is_background
    from hintseg.formats.problems import read_text

    names = [name.strip() for name in read_text(classes).splitlines() if name.strip()] if classes else None
    if names and not no_background and is_background(names[0]):
        names = names[1:]  # as in class lists of label folders: id 0 and no class
    scores = api.evaluate(
        masks,
        truth,
        classes=names,
        split=[id.strip() for id in read_text(split).splitlines() if id.strip()] if split else None,
        background=False if no_background else None,
    )
    if json:
        typer.echo(dumps(scores.as_json()))
        return
    table = Table("class", "IoU")
    for name, value in scores.iou.items():
        table.add_row(name, "missing" if value is None else f"{value:.3f}")
    console = Console(markup=False)
    console.print(table)
    facts = {
        "pixel accuracy": scores.pixel_accuracy,
        "boundary IoU": scores.boundary_iou,
        "oracle threshold": scores.threshold,
    }
    known = "".join(f", {name} {value:.3f}" for name, value in facts.items() if value is not None)
    console.print(f"{scores.photos} photos, mIoU {scores.miou:.3f}{known}", highlight=False)
    console.print(scores.protocol, highlight=False)
    console.print("nothing was written; --json prints the same for a program", highlight=False)
