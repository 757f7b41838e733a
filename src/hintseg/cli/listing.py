"""`hintseg list`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from hintseg.errors import ConfigError, shown

if TYPE_CHECKING:
    from hintseg.config.describe import Setting


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    recipes = "recipes"
    refiners = "refiners"
    objectives = "objectives"
    labellers = "labellers"
    backbones = "backbones"
    formats = "formats"
    settings = "settings"


EPILOG = (
    "Examples:  hintseg list recipes   |   hintseg list recipes quick --yaml > mine.yaml   |   "
    "hintseg list methods vwe   |   hintseg list settings fit   |   hintseg list backbones 'vit_small*'"
)


def listing(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    name: Annotated[str, typer.Argument(help="One of them: its settings, source and defaults.")] = "",
    yaml: Annotated[bool, typer.Option("--yaml", help="Of one recipe: print the file, to copy and change.")] = False,
    filter: Annotated[str, typer.Option(help="Backbones only: a timm name pattern, such as 'resnet*'.")] = "",
) -> None:
    """List what there is, with a line on each; with NAME all about one: its settings, their defaults, its source.

    `settings` are those that belong to no method: data, backbone, fit, maps, test, trainer.
    """
    if yaml and (kind is not Kind.recipes or not name):
        raise ConfigError("--yaml prints one recipe: hintseg list recipes NAME --yaml")
    if kind is Kind.backbones:
        lines = backbone_lines(filter or name)
    elif not name:
        lines = iter([f"{one:<24} {text}".rstrip() for one, text in rows(kind)] + ["", _more(kind)])
    elif kind is Kind.recipes:
        lines = recipe_lines(name, yaml=yaml)
    else:
        lines = lines_of(kind.value, name)
    for line in lines:
        typer.echo(line)


def rows(kind: Kind) -> list[tuple[str, str]]:
    """Return names and one-line descriptions."""
    if kind is Kind.settings:
        from hintseg.config.describe import BLOCKS

        return [(name, summary) for name, (_, summary) in BLOCKS.items()]
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


def lines_of(kind: str, name: str) -> Iterator[str]:
    """Yield all about a method, refiner, labeller, objective, format or block of settings.

    Raises:
        ConfigError: There is none by that name.
    """
    from hintseg.config.describe import describe

    found = describe(kind, name)
    yield f"{found.name}: {found.summary}"
    yield ""
    for fact, text in found.facts.items():
        yield f"{fact}: {text}"
    if found.facts:
        yield ""
    yield found.text
    if found.source:
        yield f"\nSource: {' '.join(found.source.split())}"
    if found.settings:
        where = f"`{found.key}.NAME=VALUE`" if found.key else "`NAME=VALUE`"
        if kind == "objectives":
            where = f"in `{found.key}=[{{name: {name}, NAME: VALUE}}]`"
        yield f"\nSettings, {where}:"
        for setting in found.settings:
            yield from setting_lines(setting)
    blocks = [one.name for one in found.settings if one.default == "{...}" and one.name in ("backbone", "fit")]
    if blocks:
        yield "\nTheir own settings: " + ", ".join(f"hintseg list settings {name}" for name in blocks)


def setting_lines(setting: Setting, value: str | None = None) -> Iterator[str]:
    """Yield a setting's name, default and limits, and its meaning below; of a recipe also the `value` it has there."""
    default = "needed" if setting.default is None else f"default {setting.default}"
    yield f"  {setting.name}" + (f" = {value}" if value is not None else "") + f"  ({default}; {setting.allowed})"
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    yield from textwrap.wrap(
        setting.meaning, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def recipe_lines(name: str, *, yaml: bool) -> Iterator[str]:
    """Yield what a recipe sets, or its file.

    Raises:
        ConfigError: There is no such recipe.
    """
    from hintseg.config.describe import recipe_settings
    from hintseg.config.loader import RECIPES, read_recipe, summary

    read_recipe(name)
    if name.endswith((".yaml", ".yml")):
        raise ConfigError(f"{shown(name)} is a file; give a name of `hintseg list recipes`")
    if yaml:
        yield (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
        return
    yield f"{name}: {summary(name)}"
    yield "\nWhat it sets; all else has its default:"
    for key, value, setting in recipe_settings(name):
        if key.endswith(".method"):
            yield f"  {key} = {value}"
        else:
            yield from setting_lines(setting._replace(name=key), value)
    yield f"\nTo change a setting: hintseg train PHOTOS --recipe {name} NAME=VALUE"
    yield (
        f"To change many: hintseg list recipes {name} --yaml > mine.yaml, then hintseg train PHOTOS --recipe mine.yaml"
    )


def _more(kind: Kind) -> str:
    what = {
        Kind.recipes: "what it sets (--yaml: the file, to copy)",
        Kind.formats: "what it reads and writes",
        Kind.settings: "what they are, their defaults and limits",
    }
    return f"hintseg list {kind} NAME shows {what.get(kind, 'its settings, their defaults and where it comes from')}"


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
