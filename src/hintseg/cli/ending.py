"""How commands end: where the result lies, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import typer

from hintseg.run.folder import RunFolder
from hintseg.training import machine


def end(*lines: str) -> None:
    """Print the last lines of a command; where several processes work on it, the first one does."""
    if machine.rank() == 0:
        for line in lines:
            typer.echo(line)


def command(*words: object) -> str:
    """Return a command to copy, with quotes where a shell needs them.

    Example:
        >>> command("masks", Path("my runs/first"))
        "hintseg masks 'my runs/first'"
    """
    return shlex.join(["hintseg", *map(str, words)])


def after_training(run: Path) -> str:
    """Return what to do with a run that is finished."""
    offers = ["open the report"]
    if RunFolder(run).masks_of_photos() is not None:
        offers.append(f"`{command('masks', run)}` writes the masks of its photos")
    if (run / "segment" / "model.safetensors").is_file():
        offers.append(f"`{command('predict', run, 'NEW-PHOTOS')}` segments other photos")
    return f"next: {'; '.join(offers)}"


def of_masks(out: Path, *, overlays: bool, formats: Iterable[str] = ()) -> tuple[str, str]:
    """Return where masks lie, and what to do with them."""
    more = "".join(f", {out / name}" for name in formats)
    look = f"look at {out / 'overlays'}; " if overlays else ""
    judge = command("evaluate", out / "png", "TRUTH")
    return (
        f"masks: {out / 'png'}, {out / 'coco.json'}{more}; value k is line k of {out / 'classes.txt'}",
        f"next: {look}where there are true masks, `{judge}` judges these",
    )
