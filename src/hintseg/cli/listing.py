"""`hintseg list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    recipes = "recipes"
    refiners = "refiners"
    objectives = "objectives"
    labellers = "labellers"
    backbones = "backbones"
    formats = "formats"


def listing(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    filter: Annotated[str, typer.Option(help="Backbones only: a timm name pattern, such as 'resnet*'.")] = "",
) -> None:
    """List methods, recipes, refiners, objectives, labellers, backbones or label formats, with a line on each."""
    for name, text in rows(kind, filter):
        typer.echo(f"{name:<24} {text}".rstrip())


def rows(kind: Kind, pattern: str = "") -> list[tuple[str, str]]:
    """Return names and one-line descriptions."""
    if kind is Kind.methods:
        from hintseg.registry import WRAPPERS, methods

        return [(name, entry.summary) for name, entry in (methods() | WRAPPERS).items()]
    if kind is Kind.refiners:
        from hintseg.registry import REFINERS, methods_to

        return [(name, entry.summary) for name, entry in (methods_to("refine") | REFINERS).items()]
    if kind is Kind.objectives:
        from hintseg.registry import objectives

        return [(name, entry.summary) for name, entry in objectives().items()]
    if kind is Kind.labellers:
        from hintseg.registry import labellers

        return [(name, entry.summary) for name, entry in labellers().items()]
    if kind is Kind.recipes:
        from hintseg.config.loader import recipe_names, summary

        return [(name, summary(name)) for name in recipe_names()]
    if kind is Kind.formats:
        from hintseg.registry import formats

        return [(name, entry.summary) for name, entry in formats().items()]
    from hintseg.lean import timm

    return [(name, "") for name in timm.list_models(pattern)]
