"""Trained weights on disk: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save_file

from hintseg.errors import ConfigError, WeightsError
from hintseg.files.parse import parse_json
from hintseg.hints.layout import MAX_CLASSES
from hintseg.methods.method import Method
from hintseg.nn.weight_file import read_tensors
from hintseg.registry import methods, resolve


class _Facts(BaseModel):
    """The metadata of a weights file."""

    config: dict[str, Any]
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    background: bool


def save_weights(method: Method, path: Path, *, classes: tuple[str, ...], background: bool) -> None:
    """Write the method's weights, settings and classes; the file appears whole or not at all."""
    config = method.config
    backbone = getattr(method, "backbone", None)
    if backbone is not None:  # a weights file may have cut the network: build as many levels again
        config = config.model_copy(update={"backbone": backbone.config})
    metadata = {
        "config": config.model_dump_json(),
        "classes": json.dumps(classes),
        "background": json.dumps(background),
    }
    partial = path.with_name(path.name + ".part")
    save_file({name: value.contiguous() for name, value in method.state_dict().items()}, partial, metadata)
    partial.replace(path)


def load_weights(path: Path) -> tuple[Method, tuple[str, ...], bool]:
    """Build a method again from its weights file. No code of the file runs.

    Returns:
        The method in evaluation mode, the class names, and whether the data had a background.

    Raises:
        WeightsError: No such file, or one that hintseg did not write or another version of it wrote.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: is the stage finished? `hintseg train ... --resume` goes on")
    state, metadata = read_tensors(path)
    if "config" not in metadata:
        raise WeightsError(f"{path} was not written by hintseg; give it as backbone.weights to start from it")
    try:
        found = {key: parse_json(metadata[key].encode()) for key in _Facts.model_fields if key in metadata}
        facts = _Facts.model_validate(found)
        name = str(facts.config["method"])
        kind: type[Method] = resolve("method", name, methods())
        for network in (facts.config["backbone"], facts.config["backbone"].get("stem")):
            if network is not None:
                network["weights"] = "random"  # the file holds all weights
        config = kind.Config.model_validate_json(json.dumps(facts.config), strict=True)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise WeightsError(
            f"{path} was written by another version of hintseg (settings {wrong}); train again"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
        raise WeightsError(f"{path}: its metadata were edited or damaged ({error}); train again") from error
    try:
        method = kind(config, len(facts.classes), facts.background)
        method.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # torch names every tensor: too many to read
        raise WeightsError(f"{path} was written by another version of hintseg (other tensors); train again") from error
    return method.eval(), facts.classes, facts.background
