"""The command line: `hintseg VERB`. Mistakes a person can mend end in one clear message and exit code 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import typer

from hintseg import signals
from hintseg.cli import (
    bench,
    cache,
    check,
    convert,
    demo,
    evaluate,
    export,
    listing,
    masks,
    predict,
    report,
    review,
    simulate,
    study,
    train,
)
from hintseg.errors import HintsegError, HintsegWarning
from hintseg.training import processes

app = typer.Typer(
    help=(
        "From cheap hints to pixel masks. Tell hintseg which things are in your photos and it returns masks, "
        "a segmentation model you can export, and a report that says how far to trust both.\n\n"
        "Start with `hintseg check PHOTOS`, then `hintseg train PHOTOS --out runs/first`."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check.check)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("masks", epilog=masks.EPILOG)(masks.masks)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("simulate", epilog=simulate.EPILOG)(simulate.simulate)
app.command("study", epilog=study.EPILOG)(study.study)
app.command("report")(report.report)
app.command("review", epilog=review.EPILOG)(review.review)
app.command("export")(export.export)
app.command("convert", epilog=convert.EPILOG)(convert.convert)
app.command("list", epilog=listing.EPILOG)(listing.listing)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("cache")(cache.cache)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.captureWarnings(True)
    plain = warnings.formatwarning
    warnings.formatwarning = lambda said, kind, *place: (
        str(said) if issubclass(kind, HintsegWarning) else plain(said, kind, *place)
    )
    try:
        app()
    except HintsegError as error:
        signals.end()
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:  # a full disk or a folder taken away: nothing half-written lies under a final name
        signals.end()
        sys.stderr.write(f"error: {error.filename or 'a file'}: {error.strerror or error}\n")
        sys.exit(2)
    except Exception:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            processes.wait_for_reason()  # what a broken connection raises when a process beside this one is gone
        raise
