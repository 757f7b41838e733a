"""Options that several commands share: how label files are read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hintseg.errors import ConfigError


class Missing(StrEnum):
    """What happens where labels name photos that are not there."""

    error = "error"
    skip = "skip"


Labels = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="Label file or folder, if not found by itself; give it again for more of them."),
]
Format = Annotated[str, typer.Option("--format", help="Label format; `auto` recognises it.")]
Unlabelled = Annotated[
    int | None, typer.Option("--unlabelled", help="Value of scribble images that means unlabelled, 0 to 255.")
]
NoBackground = Annotated[bool, typer.Option("--no-background", help="Every pixel has a class; 0 is none.")]
MissingPhotos = Annotated[
    Missing, typer.Option("--missing", help="Labels name photos that are not there: stop, or go on without them.")
]
Colours = Annotated[
    Path | None,
    typer.Option("--colours", help="Table of the colours of colour masks, CSV name,r,g,b, if none lies beside them."),
]
To = Annotated[
    list[str] | None,
    typer.Option("--to", help="Also write the masks in this label format, to OUT/FORMAT; give it again for more."),
]


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of an option, which stand between commas.

    Raises:
        ConfigError: One is none.

    Example:
        >>> numbers("0.5, 1", "--shares")
        [0.5, 1.0]
    """
    return [named_number(f"x={word}", option)[1] for word in text.split(",")]


def counts(text: str, option: str) -> list[int]:
    """Return the whole numbers of an option, which stand between commas.

    Raises:
        ConfigError: One is none, or below 0.

    Example:
        >>> counts("0, 1", "--seeds")
        [0, 1]
    """
    found = numbers(text, option)
    if wrong := [number for number in found if not (number >= 0 and number.is_integer())]:
        raise ConfigError(f"{option} takes whole numbers from 0 on, such as 0,1,2; {wrong[0]:g} is none")
    return [int(number) for number in found]


def named(word: str, option: str) -> tuple[str, str]:
    """Return the name and the text of NAME=TEXT.

    Raises:
        ConfigError: It is not of that form.

    Example:
        >>> named("boxes=mixed", "--recipe")
        ('boxes', 'mixed')
    """
    name, _, text = word.partition("=")
    if not (name and text):
        raise ConfigError(f"{option}: '{word}' is not of the form NAME=VALUE; give such as boxes=mixed")
    return name, text


def named_number(word: str, option: str) -> tuple[str, float]:
    """Return the name and the number of NAME=NUMBER.

    Raises:
        ConfigError: It is not of that form.

    Example:
        >>> named_number("boxes=7", "--cost")
        ('boxes', 7.0)
    """
    name, _, value = word.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ConfigError(f"{option}: '{value or word}' is no number; give such as 0.5 or boxes=7") from None
