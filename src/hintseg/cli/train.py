"""`hintseg train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hintseg.cli import options

EPILOG = (
    "Examples:  hintseg train photos --labels tags.csv --out runs/first   |   "
    "hintseg train VOC2012 --recipe vwe --out runs/voc backbone.name=resnet101 localize.fit.epochs=10   |   "
    "hintseg train photos --out runs/first --resume   |   hintseg train --from-review runs/first --out runs/second"
)


def train(
    data: Annotated[
        str | None, typer.Argument(help="Folder of the photos, in any format of `hintseg list formats`.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings, such as backbone.weights=FILE or localize.fit.epochs=10."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to make.")] = Path("runs/hintseg"),
    labels: options.Labels = None,
    from_review: Annotated[
        Path | None,
        typer.Option(
            "--from-review",
            metavar="RUN",
            help="In place of DATA: learn from what was accepted, mended and marked in RUN (`hintseg review RUN`), "
            "with its photos, labels and settings, beginning with its weights.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(help="A name of `hintseg list recipes`, or a YAML file; `auto` takes what fits the hints."),
    ] = "auto",
    format: options.Format = "auto",
    unlabelled: options.Unlabelled = None,
    no_background: options.NoBackground = False,
    missing: options.MissingPhotos = options.Missing.error,
    colours: options.Colours = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out after a stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start the run in --out afresh.")] = False,
) -> None:
    """Learn masks and a segmentation model from photos and hints, whatever hints there are.

    Tags: a localizer learns them, its class maps are cut into seeds and sharpened into masks. Boxes, strokes and points
    become masks by themselves. A segmenter learns from the masks, and OUT/report.html says how far to trust it. Stopped
    at any time, --resume goes on.
    """
    from rich.console import Console

    from hintseg import api
    from hintseg.cli.ending import after_training, end
    from hintseg.cli.watch import Bars
    from hintseg.errors import ConfigError

    words = list(settings or ())
    if from_review is not None:
        if data is not None and "=" not in data:
            raise ConfigError(f"--from-review takes the photos of {from_review}; leave {data} out")
        words = [*([data] if data else []), *words]
        api.train_again(from_review, out, settings=words, resume=resume, overwrite=overwrite, watch=Bars(Console()))
        return
    if data is None:
        raise ConfigError("no photos given; name their folder: hintseg train PHOTOS --out RUN")
    run = api.train(
        data,
        out,
        labels=labels,
        recipe=recipe,
        format=format,
        unlabelled=unlabelled,
        background=not no_background,
        missing=missing.value,
        colours=colours,
        settings=words,
        resume=resume,
        overwrite=overwrite,
        watch=Bars(Console()),
    )
    end(after_training(run.path))
