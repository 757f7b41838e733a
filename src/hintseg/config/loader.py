"""Recipes, YAML and dotted overrides -> one validated `RunConfig`; all mistakes at once, with the nearest key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from hintseg.config.run import FREE_REFINERS, STAGES, RunConfig, run_model
from hintseg.config.settings import LOCALIZER, Settings
from hintseg.errors import ConfigError, did_you_mean, join, list_problems, printable, shown
from hintseg.files.parse import is_file, parse_json, parse_yaml, read_yaml
from hintseg.registry import WRAPPERS, labellers, methods, methods_to, resolve

RECIPES = Path(__file__).parent / "recipes"


DEEPEST = 8
"""The most names in a dotted setting; the deepest real one has four."""


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes.

    Example:
        >>> "vwe" in recipe_names()
        True
    """
    return sorted(p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml"))


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Return the raw settings of a built-in recipe or of a YAML file.

    Raises:
        ConfigError: No such recipe or file, or the file is no YAML mapping.
    """
    path = RECIPES / f"{recipe}.yaml"
    if str(recipe).endswith((".yaml", ".yml")):
        path = Path(recipe)
    if not is_file(path):
        known = recipe_names()
        raise ConfigError(
            f"unknown recipe '{shown(recipe)}'{did_you_mean(str(recipe), known) or '.'} Known: {', '.join(known)}; "
            "or give the path of a .yaml file"
        )
    raw = read_yaml(path, ConfigError, "correct it; `hintseg train --help` shows the form")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(raw).__name__}")
    return {"recipe": str(recipe)} | raw


def summary(recipe: str) -> str:
    """Return the first comment line of a built-in recipe."""
    first = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ").strip()


def parse_overrides(overrides: Iterable[str]) -> list[tuple[list[str], Any]]:
    """Split ``a.b=value`` words; values are read as YAML.

    Raises:
        ConfigError: Words that are not of that form, all at once.

    Example:
        >>> parse_overrides(["localize.fit.epochs=3", "maps.scales=[1, 0.5]"])
        [(['localize', 'fit', 'epochs'], 3), (['maps', 'scales'], [1, 0.5])]
    """
    parsed, problems = [], []
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key or not all(key.split(".")):
            problems.append(f"'{shown(word)}' is not of the form key=value, such as localize.fit.epochs=3")
            continue
        if key.count(".") >= DEEPEST or printable(key) != key:
            problems.append(f"no setting is called '{shown(key)}'; names look like localize.fit.epochs")
            continue
        try:
            parsed.append((key.split("."), parse_yaml(value)))
        except ValueError as error:
            problems.append(f"the value of '{shown(word)}' is not YAML ({error}); put it in quotes")
    if problems:
        raise ConfigError(list_problems("the settings given", problems))
    return parsed


def load_config(
    recipe: str | Path, overrides: Sequence[str] = (), *, data: Mapping[str, Any] | None = None
) -> RunConfig:
    """Return the settings of a run: a recipe, then the data set, then overrides, in that order.

    Choosing another method for a stage (`localize.method=cam`) drops the recipe's settings of the one it replaces.

    Args:
        recipe: Name of a built-in recipe or path of a YAML file.
        overrides: Words such as ``localize.backbone.name=resnet18``; a stage is left out with ``refine=null``.
        data: Values of the `data` block.

    Raises:
        ConfigError: All mistakes at once, each with the nearest known key.

    Example:
        >>> config = load_config("cam", ["seed=3"], data={"path": "photos"})
        >>> config.seed, config.localize.method
        (3, 'cam')
    """
    raw = read_recipe(recipe)
    if not isinstance(raw.get("data") or {}, dict):
        raise ConfigError(f"'data' of {recipe} must be a block of settings, such as {{path: photos}}")
    if data:
        raw["data"] = (raw.get("data") or {}) | {key: value for key, value in data.items() if value is not None}
    return parse_config(_overridden(raw, overrides))


def changed_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the settings of a run with some of them changed, as `load_config` changes those of a recipe.

    Raises:
        ConfigError: All mistakes at once, each with the nearest known key.

    Example:
        >>> changed_config(load_config("cam", data={"path": "photos"}), ["seed=3"]).seed
        3
    """
    return parse_config(_overridden(config.model_dump(mode="json"), overrides))


def _overridden(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return raw settings with words such as `a.b=value` applied."""
    parsed = parse_overrides(overrides)
    for stage in STAGES:
        chosen = next((value for key, value in reversed(parsed) if key == [stage, "method"]), None)
        old = raw.get(stage)
        if chosen is not None and chosen != (old.get("method") if isinstance(old, dict) else None):
            raw[stage] = {"method": chosen}
    for key, value in parsed:
        block = raw
        for part in key[:-1]:
            inner = block.get(part)
            block[part] = dict(inner) if isinstance(inner, dict) else {}
            block = block[part]
        block[key[-1]] = value
    return raw


def parse_config(settings: Mapping[str, Any]) -> RunConfig:
    """Validate raw settings, as read from a recipe or from the `config.yaml` of a run.

    Raises:
        ConfigError: All mistakes at once, each with the nearest known key.
    """
    try:
        raw: dict[str, Any] = parse_json(json.dumps(dict(settings), default=str).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the settings cannot be read: {error}") from error
    problems: list[str] = []
    unset = raw.get("localize") in (None, "none")
    kinds: dict[str, type[Settings] | None] = dict.fromkeys(STAGES)
    for stage in STAGES:
        block = raw.get(stage)
        if block is None or block == "none":
            raw[stage] = None
            continue
        try:
            kinds[stage] = _settings_class(stage, block)
        except ConfigError as error:
            problems.append(str(error))
            raw[stage] = None
    inherited = _inherit_backbone(raw, kinds)
    wrappers = [name for name in WRAPPERS if raw.get(name) is not None]
    found = ((name, resolve("wrapper", name, WRAPPERS).Config if name in wrappers else None) for name in WRAPPERS)
    model = run_model(tuple(kinds.values()), tuple(found))
    try:
        config = model.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        problems += _sentences(error, model, inherited)
    if wrappers and unset and not problems:
        name = wrappers[0]
        problems.append(
            f"'{name}' wraps a localizer and there is none; set localize.method, or leave {name} out ({name}=null)"
        )
    early = [stage for stage in ("propose", "localize") if _begins_with(raw[stage]) == LOCALIZER]
    late = [stage for stage in ("refine", "segment") if _begins_with(raw[stage]) == LOCALIZER]
    if early:
        problems.append(
            f"'{early[0]}.backbone.weights' = '{LOCALIZER}': the localizer has learned nothing yet; give it to the "
            "stages refine and segment alone"
        )
    elif late and unset:
        problems.append(f"'{late[0]}.backbone.weights' = '{LOCALIZER}': there is no localizer; set localize.method")
    if len(wrappers) > 1:
        problems.append(f"{join(wrappers)} are given, one wrapper is possible; leave the others out (=null)")
    if problems:
        raise ConfigError(list_problems("the settings", problems))
    return config


def dump_config(config: RunConfig) -> str:
    """Return the settings as YAML; `parse_config` of it gives an equal object.

    Example:
        >>> config = load_config("cam", data={"path": "photos"})
        >>> parse_config(yaml.safe_load(dump_config(config))) == config
        True
    """
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _settings_class(stage: str, block: Any) -> type[Settings]:
    if not isinstance(block, dict) or not isinstance(block.get("method"), str):
        raise ConfigError(f"'{stage}' needs a method, such as {stage}.method=NAME (see `hintseg list methods`)")
    name = block["method"]
    if name in WRAPPERS:
        raise ConfigError(f"'{stage}.method': '{name}' wraps a localizer; set {name}={{}} beside the localize block")
    if stage == "refine" and name in FREE_REFINERS:
        return FREE_REFINERS[name]
    table = methods()
    free: list[str] = list(FREE_REFINERS) if stage == "refine" else []
    if stage == "propose":
        free = [name for name in labellers() if name not in table]
        if name in free:
            labeller: type[Settings] = resolve("labeller", name, labellers())
            return labeller
    if name not in table:
        known = [*free, *methods_to(stage)]
        near = did_you_mean(name, known) or "."
        raise ConfigError(f"'{stage}.method': unknown method '{shown(name)}'{near} Known: {', '.join(known)}")
    kind: type[Settings] = resolve("method", name, table).Config
    task = getattr(kind, "task", stage)
    if task != stage:
        raise ConfigError(f"'{stage}.method': '{name}' is a method to {task}, not to {stage}")
    return kind


def _begins_with(block: Any) -> Any:
    """Return a stage's `backbone.weights`, as far as there is one."""
    backbone = block.get("backbone") if isinstance(block, dict) else None
    return backbone.get("weights") if isinstance(backbone, dict) else None


def _inherit_backbone(raw: dict[str, Any], kinds: Mapping[str, type[Settings] | None]) -> set[str]:
    """Fill what a stage leaves out of its backbone from the run's top-level one; return the dotted names filled."""
    common = raw.get("backbone") or {}
    filled: set[str] = set()
    for stage, kind in kinds.items():
        if kind is not None and "backbone" in kind.model_fields and isinstance(common, dict):
            own = raw[stage].get("backbone") or {}
            if isinstance(own, dict):
                raw[stage]["backbone"] = common | own
                filled |= {f"{stage}.backbone.{key}" for key in common if key not in own}
    return filled


def _sentences(error: ValidationError, model: type[BaseModel], inherited: set[str]) -> list[str]:
    """Turn pydantic's errors into one sentence per setting; what stages inherited is told where it was given."""
    found: dict[str, list[str]] = {}
    items = error.errors(include_url=False)
    for item in items:
        at = item["loc"]
        if item["type"] == "too_short" and any(len(o["loc"]) > len(at) and o["loc"][: len(at)] == at for o in items):
            continue  # what it holds was refused one by one
        path, level = _walk(item["loc"], model)
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            prefix = ".".join(path)
            full = f"{prefix}.{key}" if prefix else key
            near = did_you_mean(full, [f"{prefix}.{name}" if prefix else name for name in level.model_fields])
            hint = near or f". Known here: {', '.join(level.model_fields)}"
            found.setdefault(full, []).append(f"unknown setting '{shown(full)}'{hint}")
        else:
            full = ".".join(path)
            given = "" if item["type"] == "missing" else f" = {shown(repr(item['input']))}"
            text = item["msg"][0].lower() + item["msg"][1:]
            found.setdefault(full, []).append(f"'{full}'{given}: {text}")
    merged = []
    for full, texts in found.items():
        if full in inherited and full.partition(".")[2] in found:
            continue
        reasons = dict.fromkeys(text.rpartition(": ")[2] for text in texts)
        merged.append(texts[0] + "".join(f", or {reason}" for reason in list(reasons)[1:]))
    return merged


def _walk(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Follow an error's location as far as it names fields; drop what pydantic adds for unions."""
    path: list[str] = []
    level = model
    for part in loc:
        if part not in level.model_fields:
            break
        path.append(str(part))
        annotation = level.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not inner:
            break
        level = inner[0]
    return path, level
