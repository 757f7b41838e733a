"""`hintseg list`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import typer

from hintseg.errors import ConfigError, shown


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
    if kind is Kind.backbones:
        for line in backbone_lines(filter):
            typer.echo(line)
        return
    for name, text in rows(kind):
        typer.echo(f"{name:<24} {text}".rstrip())


def rows(kind: Kind) -> list[tuple[str, str]]:
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
    from hintseg.registry import formats

    return [(name, entry.summary) for name, entry in formats().items()]


def backbone_lines(pattern: str) -> Iterator[str]:
    """Yield a table of the networks whose names match a pattern, family by family.

    Raises:
        ConfigError: None does.
    """
    from hintseg.nn.catalogue import LAPTOP, networks

    found = networks(pattern)
    if not found:
        raise ConfigError(f"no network is called '{shown(pattern)}'; give a pattern, such as --filter 'vit_small*'")
    yield f"  {'network':<54} {'patch':>5} {'parameters':>10}  licence of the weights"
    yield f"* runs on a laptop: at most {LAPTOP // 10**6} million parameters"
    for family, members in groupby(found, key=lambda one: one.family):
        yield f"\n{family}:"
        for one in members:
            patch = "" if one.patch is None else str(one.patch)
            size = "?" if one.parameters is None else f"{one.parameters / 1e6:.1f} M"
            mark, licence = "*" if one.laptop else " ", one.licence or "no weights"
            yield f"{mark} {one.name:<54} {patch:>5} {size:>10}  {licence}"
