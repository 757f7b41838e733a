"""The names that others build on: those of the package, its contracts, its registries, its settings and its commands.

`tests/api_surface.json` holds them as they were when somebody last said that they should be so. To say it again::

    python tests/api_surface.py --write
"""

from __future__ import annotations

import ast
import enum
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin

import typer
from pydantic import BaseModel
from typer.core import TyperGroup, TyperOption

import hintseg
from hintseg import registry
from hintseg.cli.app import app
from hintseg.config.run import RunConfig
from hintseg.config.settings import FitConfig

FILE = Path(__file__).with_suffix(".json")
REWRITE = "python tests/api_surface.py --write"
CONTRACTS = (
    "hintseg.types",
    "hintseg.methods.method",
    "hintseg.methods.segmenter",
    "hintseg.methods.refiner",
    "hintseg.config.objective",
    "hintseg.formats.codec",
    "hintseg.labellers.labeller",
    "hintseg.wrappers.wrapper",
)
"""The modules that what is added, here or in a package of its own, is built on."""

Surface = dict[str, dict[str, str]]
"""Sections, and in each the names with what is to be kept of them: a signature, a default, a value."""


def surface() -> Surface:
    """Return the names of the package as it is."""
    tables = {name: found for name, found in vars(registry).items() if name.isupper() and isinstance(found, dict)}
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    return {
        "package": _sorted(_exported(hintseg)),
        "contracts": _sorted(item for module in CONTRACTS for item in _defined(import_module(module))),
        "registry": _sorted(
            (f"{table}.{name}", e.stage) for table, found in tables.items() for name, e in found.items()
        ),
        "settings": _sorted(chain(_settings(RunConfig), (("fit." + key, said) for key, said in _settings(FitConfig)))),
        "settings of methods": _sorted(
            (f"{name}.{key}", value)
            for name in registry.METHODS
            for key, value in _settings(registry.resolve("method", name, registry.METHODS).Config)
            if "." not in key  # blocks that all methods have
        ),
        "commands": _sorted(_options(commands)),
    }


def differences(kept: Surface, found: Surface) -> list[str]:
    """Return in words which names of `kept` are gone or changed in `found`, and which came."""
    said = []
    for section in sorted(kept.keys() | found.keys()):
        old, new = kept.get(section, {}), found.get(section, {})
        said += [f"{section}: {name} is gone (it was {old[name]!r})" for name in sorted(old.keys() - new.keys())]
        said += [f"{section}: {name} is new ({new[name]!r})" for name in sorted(new.keys() - old.keys())]
        said += [
            f"{section}: {name} changed from {old[name]!r} to {new[name]!r}"
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        ]
    return said


def _sorted(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(sorted(items))


def _exported(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            yield f"{module.__name__}.{name}", "module"
            yield from _exported(value)
        else:
            yield from _described(f"{module.__name__}.{name}", value)


def _defined(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield what a module defines itself, not what it imports."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        for name in names:
            if not name.startswith("_"):
                yield from _described(f"{module.__name__}.{name}", getattr(module, name))


def _described(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, type):
        yield name, "class" + (_signature(value) if _is_built_by_people(value) else "")
        for member, said in _members(value).items():
            yield f"{name}.{member}", said
    elif inspect.isfunction(inspect.unwrap(value)):
        yield name, _signature(value)
    elif get_origin(value) is not None and get_origin(value) is not Literal:
        yield name, "type"
    else:
        yield name, _shown(value)


def _is_built_by_people(kind: type) -> bool:
    """Tell whether the constructor's signature is the class's own and not listed by its fields."""
    own = any("__init__" in vars(base) or "_fields" in vars(base) for base in kind.__mro__ if _ours(base))
    return own and not issubclass(kind, BaseModel | enum.Enum) and not getattr(kind, "_is_protocol", False)


def _ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "hintseg"


def _members(kind: type) -> dict[str, str]:
    """Return the public names of a class and of those it is made of, as far as they are this package's."""
    if issubclass(kind, enum.Enum):
        return {name: _shown(member.value) for name, member in kind.__members__.items()}
    found: dict[str, str] = {}
    for base in filter(_ours, reversed(kind.__mro__)):
        for name in vars(base).get("__annotations__", {}):
            found[name] = "attribute"
        for name, value in vars(base).items():
            inner = getattr(value, "__func__", value)
            if isinstance(value, property):
                found[name] = "property"
            elif inspect.isfunction(inner):
                found[name] = _signature(inner)
            elif name in found and not inspect.isdatadescriptor(value):
                found[name] = _shown(value)
        if issubclass(base, BaseModel):
            found |= {name: _default(field) for name, field in base.model_fields.items()}
    return {name: said for name, said in found.items() if name == "__call__" or not name.startswith(("_", "model_"))}


def _settings(config: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in config.model_fields.items():
        block = field.annotation
        if isinstance(block, type) and issubclass(block, BaseModel):
            yield from ((f"{name}.{key}", said) for key, said in _settings(block))
        else:
            yield name, _default(field)


def _default(field: Any) -> str:  # pydantic's FieldInfo gives its default as Any
    if field.is_required():
        return "needed"
    return _shown(field.get_default(call_default_factory=True))


def _options(group: TyperGroup) -> Iterator[tuple[str, str]]:
    for name, command in group.commands.items():
        yield name, "command"
        for param in command.params:
            if isinstance(param, TyperOption):
                words, value = "/".join([*param.opts, *param.secondary_opts]), _shown(param.default)
                kind = "flag" if param.is_flag else "list" if param.multiple else "option"
                yield f"{name} {words}", f"{kind}, {'needed' if param.required else 'default ' + value}"
            else:
                count = "any number" if param.nargs < 0 else "one"
                yield f"{name} {param.name}", f"argument, {count}{', needed' if param.required else ''}"


def _signature(function: Any) -> str:
    """Return names, kinds and defaults of the parameters; types are mypy's to watch."""
    found = inspect.signature(function)
    bare = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else _Words(_shown(parameter.default)),
        )
        for parameter in found.parameters.values()
    ]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


class _Words(str):
    """A text that is its own repr."""

    __repr__ = str.__str__


def _shown(value: object) -> str:
    """Return a value in words that are the same on every machine and in every run."""
    if isinstance(value, enum.Enum):
        return _shown(value.value)
    if isinstance(value, frozenset | set):
        return "{" + ", ".join(sorted(map(_shown, value))) + "}"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "(" + "".join(f"{_shown(part)}, " for part in value).removesuffix(", ") + ")"
    if isinstance(value, BaseModel):
        said = ", ".join(f"{key}={_shown(getattr(value, key))}" for key in type(value).model_fields)
        return f"{type(value).__name__}({said})"
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(said)}" for key, said in value.items()) + "}"
    if inspect.isfunction(value) or isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REWRITE}")
    FILE.write_text(json.dumps(surface(), indent=1) + "\n")
