"""Trained weights on disk: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save
from torch import Tensor

from hintseg.errors import ConfigError, WeightsError
from hintseg.files.atomic import whole_file
from hintseg.files.parse import parse_json
from hintseg.formats.layout import MAX_CLASSES
from hintseg.methods.method import Method
from hintseg.nn.weight_file import read_tensors
from hintseg.registry import methods, resolve

KEY = "hintseg"
"""The one entry of the metadata, JSON: safetensors writes several in any order, and equal runs make equal files."""


class WeightFacts(BaseModel):
    """What a weights file says beside its tensors.

    Attributes:
        config: The method's settings, those of training resolved.
        classes: Names of the K classes.
        background: Whether pixels may belong to no class.
        steps: Optimiser steps it was trained for.
        skipped: Ids of the training photos that could not be read.
    """

    config: dict[str, Any]
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    background: bool
    steps: int
    skipped: tuple[str, ...]


def save_weights(
    method: Method,
    path: Path,
    *,
    classes: tuple[str, ...],
    background: bool,
    steps: int = 0,
    skipped: Sequence[str] = (),
) -> None:
    """Write the method's weights, settings and classes; the file appears whole or not at all.

    Args:
        method: What was trained.
        path: The safetensors file.
        classes: Names of the K classes.
        background: Whether pixels may belong to no class.
        steps: Optimiser steps it was trained for.
        skipped: Ids of the training photos that could not be read.

    Raises:
        RunError: The file cannot be written.
    """
    config = method.config
    backbone = getattr(method, "backbone", None)
    if backbone is not None:  # a weights file may have cut the network: build as many levels again
        config = config.model_copy(update={"backbone": backbone.config})
    facts = WeightFacts(
        config=config.model_dump(mode="json"),
        classes=classes,
        background=background,
        steps=steps,
        skipped=tuple(skipped),
    )
    state = {name: value.contiguous() for name, value in method.state_dict().items()}
    content = save(state, {KEY: json.dumps(facts.model_dump(), sort_keys=True)})
    with whole_file(path) as file:
        file.write(content)


def read_facts(path: Path) -> WeightFacts:
    """Return what a weights file says beside its tensors.

    Raises:
        WeightsError: No such file, or one that hintseg did not write.
    """
    return _read(path)[0]


def load_weights(path: Path) -> tuple[Method, tuple[str, ...], bool]:
    """Build a method again from its weights file. No code of the file runs.

    Returns:
        The method in evaluation mode, the class names, and whether the data had a background.

    Raises:
        WeightsError: No such file, or one that hintseg did not write or another version of it wrote.
    """
    facts, state = _read(path)
    try:
        kind: type[Method] = resolve("method", str(facts.config["method"]), methods())
        facts.config.pop(
            "objectives", None
        )  # what it learned by; a plug-in of whoever trained it is not needed to use it
        for network in (facts.config["backbone"], facts.config["backbone"].get("stem")):
            if network is not None:
                network["weights"] = "random"  # the file holds all weights
        config = kind.Config.model_validate_json(json.dumps(facts.config), strict=True)
    except ValidationError as error:
        raise _other_version(path, error) from error
    except (ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
        raise WeightsError(f"{path}: its metadata were edited or damaged ({error}); train again") from error
    try:
        method = kind(config, len(facts.classes), facts.background)
        method.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # torch names every tensor: too many to read
        raise WeightsError(f"{path} was written by another version of hintseg (other tensors); train again") from error
    return method.eval(), facts.classes, facts.background


def _read(path: Path) -> tuple[WeightFacts, dict[str, Tensor]]:
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: is the stage finished? `hintseg train ... --resume` goes on")
    state, metadata = read_tensors(path)
    if KEY not in metadata:
        raise WeightsError(
            f"{path} was not written by hintseg, or by another version; give it as backbone.weights to start from it"
        )
    try:
        return WeightFacts.model_validate(parse_json(metadata[KEY].encode())), dict(state)
    except ValidationError as error:
        raise _other_version(path, error) from error
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata were edited or damaged ({error}); train again") from error


def _other_version(path: Path, error: ValidationError) -> WeightsError:
    wrong = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
    return WeightsError(f"{path} was written by another version of hintseg (settings {wrong}); train again")
