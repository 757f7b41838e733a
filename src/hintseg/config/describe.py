"""What can be said about a registered thing: what it does, where it comes from, and each of its settings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types as limits
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from hintseg import registry
from hintseg.config.loader import load_config, read_recipe
from hintseg.config.objective import Objective
from hintseg.config.run import FREE_REFINERS, RunConfig, TestConfig
from hintseg.config.settings import (
    BackboneConfig,
    DataConfig,
    FitConfig,
    MapsConfig,
    TrainerConfig,
)
from hintseg.errors import ConfigError, did_you_mean, shown
from hintseg.registry import WRAPPERS, Entry

BLOCKS: dict[str, tuple[type[BaseModel], str]] = {
    "run": (RunConfig, "what stands above all blocks: the recipe's name, the seed, the stages"),
    "data": (DataConfig, "which photos, which labels"),
    "backbone": (BackboneConfig, "the feature network, of the run or of a stage"),
    "fit": (FitConfig, "how a network is trained, in each stage that trains one"),
    "maps": (MapsConfig, "how class maps are read out and cut into seeds"),
    "test": (TestConfig, "how a trained segmenter is read out"),
    "trainer": (TrainerConfig, "where and how training runs"),
}
"""Blocks of settings that are no method's own, and what they are about."""


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: Its name within its block.
        default: Its default as YAML; None: it must be given. A block has `{...}`.
        allowed: What it may be, in words.
        meaning: What it does.
    """

    name: str
    default: str | None
    allowed: str
    meaning: str


class Description(NamedTuple):
    """What a registered thing is.

    Attributes:
        name: Its name.
        summary: What it does, in a line.
        text: What its documentation says, without lists of arguments.
        source: The papers, where they are named apart from the text.
        facts: More about it, by what they are: the stage, the hints it needs.
        key: How its settings begin on the command line, such as ``localize``.
        settings: Its settings, in the order of its class.
    """

    name: str
    summary: str
    text: str
    source: str
    facts: Mapping[str, str]
    key: str
    settings: tuple[Setting, ...]


def describe(kind: str, name: str) -> Description:
    """Describe a method, refiner, labeller, objective, format or block of settings.

    Args:
        kind: ``methods``, ``refiners``, ``labellers``, ``objectives``, ``formats`` or ``settings``.
        name: Its registry name, or that of a block of `BLOCKS`.

    Raises:
        ConfigError: There is none by that name; the message names the nearest.

    Example:
        >>> found = describe("labellers", "grabcut")
        >>> found.settings[1].name, found.settings[1].default, found.settings[1].allowed
        ('iterations', '1', 'whole number >= 1')
    """
    if kind == "settings":
        if name not in BLOCKS:
            raise ConfigError(f"no block of settings is called '{shown(name)}'{_nearest(name, BLOCKS)}")
        block, summary = BLOCKS[name]
        prefix = {"run": "", "fit": "STAGE.fit"}.get(name, name)
        return Description(name, summary, sections(block.__doc__)[""], "", {}, prefix, settings_of(block))
    table = _table(kind)
    found = registry.resolve(kind[:-1], name, table)
    entry = table[name]
    if kind == "formats":
        facts = {"reads": _kinds(found.carries), "writes": _kinds(getattr(found, "writes", ())) or "nothing"}
        parts = sections(sys.modules[found.__module__].__doc__)
        return Description(
            name, entry.summary, parts[""], parts.get("Source", ""), facts | {"recognised by": found.sign}, "", ()
        )
    if kind == "objectives":
        parts = sections(found.__doc__)
        listed = settings_of(found, leave_out=("name",))
        facts = {"needs": _kinds(found.needs) or "nothing"}
        return Description(name, entry.summary, parts[""], parts.get("Source", ""), facts, "segment.objectives", listed)
    model = settings_class(kind, name)
    facts = _facts(entry, found, model)
    key = "" if model is None else facts["stage"].split()[-1] if name not in WRAPPERS else name
    free = name in FREE_REFINERS and inspect.isfunction(found)
    documented = (
        found if free or kind == "labellers" else sys.modules[(found.Config if name in WRAPPERS else found).__module__]
    )
    parts = sections(documented.__doc__)
    listed = () if model is None else settings_of(model, leave_out=("method",))
    return Description(name, entry.summary, parts[""], parts.get("Source", ""), facts, key, listed)


def settings_class(kind: str, name: str) -> type[BaseModel] | None:
    """Return the class of the settings of a method, refiner or labeller; None: it has none of its own."""
    if kind == "refiners" and name in FREE_REFINERS:
        return FREE_REFINERS[name]
    if kind == "labellers" and name in registry.methods():
        kind = "methods"
        if registry.methods()[name].stage != "propose":
            return None
    found: Any = registry.resolve(kind[:-1], name, _table(kind))
    model: type[BaseModel] = found if inspect.isclass(found) and issubclass(found, BaseModel) else found.Config
    return model


def settings_of(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Return the settings of a class: defaults and limits from its fields, meanings from its docstring.

    Example:
        >>> [row for row in settings_of(MapsConfig) if row.name == "area"][0].allowed
        'number > 0 and < 1'
    """
    meanings: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind.__doc__ and kind is not BaseModel:
            meanings |= entries(sections(kind.__doc__).get("Attributes", ""))
    rows = []
    for name, field in model.model_fields.items():
        if name not in leave_out:
            rows.append(Setting(name, _default(field), _allowed(field), meanings.get(name, "")))
        common = next((kind for kind, _ in BLOCKS.values() if _is_block(field.annotation, kind)), None)
        if common is not None and field.annotation is not common:  # what this block has beside the common ones
            own = settings_of(field.annotation, tuple(common.model_fields))  # type: ignore[arg-type]
            rows += [row._replace(name=f"{name}.{row.name}") for row in own]
    return tuple(rows)


def recipe_settings(name: str) -> Iterator[tuple[str, str, Setting]]:
    """Yield what a recipe sets: dotted names, values as YAML, and the settings they are.

    Args:
        name: Name of a built-in recipe, or path of a YAML file.

    Raises:
        ConfigError: There is no such recipe.

    Example:
        >>> next(iter(recipe_settings("quick")))[:2]
        ('backbone.name', 'deit_tiny_patch16_224')
    """
    config = load_config(name, data={"path": "PHOTOS"})
    raw = {key: value for key, value in read_recipe(name).items() if key != "recipe"}
    yield from _flat(raw, type(config), ())


def _flat(raw: Mapping[str, Any], model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, str, Setting]]:
    known = {row.name: row for row in settings_of(model)}
    for key, value in raw.items():
        block = next(
            (kind for kind in _members(model.model_fields[key].annotation) if _is_block(kind, BaseModel)), None
        )
        if isinstance(value, dict) and block is not None:
            yield from _flat(value, block, (*above, key))
        else:
            yield ".".join((*above, key)), _as_yaml(value), known[key]


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_block(annotation: Any, kind: type[BaseModel]) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, kind)


def sections(docstring: str | None) -> dict[str, str]:
    r"""Split a docstring in Google's style: its text under an empty name, then its sections by their names.

    Example:
        >>> sections("Do it.\n\nSource:\n    Me, 2020.")
        {'': 'Do it.', 'Source': 'Me, 2020.'}
    """
    parts: dict[str, list[str]] = {"": []}
    now = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        head = re.fullmatch(r"(Attributes|Args|Returns|Raises|Source|Cost|Example):( .*)?", line)
        if head:
            now = head[1]
            parts[now] = [(head[2] or "").strip()]
        else:
            parts[now].append(line)
    return {name: inspect.cleandoc("\n".join(lines)).strip() for name, lines in parts.items()}


def entries(section: str) -> dict[str, str]:
    r"""Return the entries of a section ``name: what it means``, continued on indented lines.

    Example:
        >>> entries("a: First\n    and more.\nb: Second.")
        {'a': 'First and more.', 'b': 'Second.'}
    """
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        head = re.match(r"(\w+): (.*)", line)
        if head:
            name = head[1]
            found[name] = head[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _table(kind: str) -> dict[str, Entry]:
    tables = {
        "methods": lambda: registry.methods() | WRAPPERS,
        "refiners": lambda: registry.methods_to("refine") | registry.REFINERS,
        "labellers": registry.labellers,
        "objectives": registry.objectives,
        "formats": registry.formats,
    }
    return tables[kind]()


def _facts(entry: Entry, found: Any, model: type[BaseModel] | None) -> dict[str, str]:
    """Return which stage a method is for and what it learns from."""
    if entry in WRAPPERS.values():
        return {"stage": "around localize", "learns from": "tags"}
    stage = entry.stage or getattr(model, "task", "propose" if hasattr(found, "needs") else "refine")
    facts = {"stage": str(stage)}
    kinds = getattr(found, "supervision", getattr(found, "needs", ()))
    if kinds:
        facts["labels by" if hasattr(found, "needs") else "learns from"] = _kinds(kinds)
    return facts


def _kinds(kinds: Any) -> str:
    return ", ".join(sorted(str(kind) for kind in kinds))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    return did_you_mean(name, list(known)) or f" (there are {', '.join(known)})"


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) and not isinstance(value, Objective):
        return "{...}"
    plain = to_jsonable_python(value, serialize_unknown=True)
    if isinstance(plain, list) and plain and isinstance(plain[0], dict):  # objectives: what differs from their defaults
        plain = [one.model_dump(mode="json", exclude_defaults=True) | {"name": one.name} for one in value]
    return _as_yaml(plain)


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()


def _allowed(field: FieldInfo) -> str:
    return _words(field.annotation, tuple(field.metadata))


def _words(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Say what values an annotation takes."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [m for one in args[1:] for m in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return _words(args[0], (*metadata, *inner))
    if origin is Literal:
        return ", ".join(f"{value}" for value in args)
    if origin in (Union, UnionType):
        named = sorted(args, key=lambda one: one is NoneType)
        bare = [get_origin(one) is Literal or one is NoneType for one in named]
        parts = [_words(one, () if is_bare else metadata) for one, is_bare in zip(named, bare, strict=True)]
        return "; or ".join(dict.fromkeys(parts))
    if origin is tuple:
        if args[-1] is not Ellipsis:
            kinds = [_words(one) for one in args]
            return f"list of {len(kinds)}: {kinds[0]}" if len(set(kinds)) == 1 else f"list: {', '.join(kinds)}"
        return f"list of {_words(args[0])}" + (", at least one" if _least(metadata) else "")
    if isinstance(annotation, type) and issubclass(annotation, Objective):
        return "blocks `{name: ...}`"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    plain = {bool: "true, false", NoneType: "null", str: "text", int: "whole number", float: "number"}
    return " ".join([plain.get(annotation, "path"), _bounds(metadata)]).strip()


def _bounds(metadata: tuple[Any, ...]) -> str:
    signs = ((limits.Gt, ">", "gt"), (limits.Ge, ">=", "ge"), (limits.Lt, "<", "lt"), (limits.Le, "<=", "le"))
    found = [
        f"{sign} {getattr(one, part):g}" for kind, sign, part in signs for one in metadata if isinstance(one, kind)
    ]
    return " and ".join(found)


def _least(metadata: tuple[Any, ...]) -> bool:
    return any(isinstance(one, limits.MinLen) and one.min_length for one in metadata)
