"""Trained weights on disk: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from hintseg.errors import WeightsError
from hintseg.files.atomic import whole_file
from hintseg.methods.method import Method
from hintseg.registry import methods, resolve

KEY = "hintseg"
"""The one entry of the metadata, JSON: safetensors writes several in any order, and equal runs make equal files."""


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
    facts = {
        "config": config.model_dump(mode="json"),
        "classes": classes,
        "background": background,
        "steps": steps,
        "skipped": list(skipped),
    }
    state = {name: value.contiguous() for name, value in method.state_dict().items()}
    content = save(state, {KEY: json.dumps(facts, sort_keys=True)})
    with whole_file(path) as file:
        file.write(content)


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a weights file says beside its tensors: config, classes, background, steps, skipped.

    Raises:
        WeightsError: No such file, or one that hintseg did not write.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: is the stage finished? `hintseg train ... --resume` goes on")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); train again or copy it again") from error
    if KEY not in metadata:
        raise WeightsError(f"{path} was not written by hintseg; give it as backbone.weights to start from it")
    facts: dict[str, Any] = json.loads(metadata[KEY])
    return facts


def load_weights(path: Path) -> tuple[Method, tuple[str, ...], bool]:
    """Build a method again from its weights file. No code of the file runs.

    Returns:
        The method in evaluation mode, the class names, and whether the data had a background.

    Raises:
        WeightsError: No such file, or one that hintseg did not write or another version of it wrote.
    """
    facts = read_facts(path)
    state = load_file(path)
    raw = facts["config"]
    kind: type[Method] = resolve("method", raw["method"], methods())
    for network in (raw["backbone"], raw["backbone"].get("stem")):
        if network is not None:
            network["weights"] = "random"  # the file holds all weights
    try:
        config = kind.Config.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise WeightsError(
            f"{path} was written by another version of hintseg (settings {wrong}); train again"
        ) from error
    classes, background = tuple(facts["classes"]), bool(facts["background"])
    method = kind(config, len(classes), background)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:  # torch names every tensor: too many to read
        raise WeightsError(f"{path} was written by another version of hintseg (other tensors); train again") from error
    return method.eval(), classes, background
