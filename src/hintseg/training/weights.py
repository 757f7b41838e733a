"""Trained weights on disk: safetensors with what is needed to build the network again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hintseg.errors import WeightsError
from hintseg.methods.method import Method
from hintseg.registry import methods, resolve


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
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
        state = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); train again or copy it again") from error
    if "config" not in metadata:
        raise WeightsError(f"{path} was not written by hintseg; give it as backbone.weights to start from it")
    raw = json.loads(metadata["config"])
    kind: type[Method] = resolve("method", raw["method"], methods())
    raw.pop("objectives", None)  # what it learned by; a plug-in of whoever trained it is not needed to use it
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
    classes, background = tuple(json.loads(metadata["classes"])), bool(json.loads(metadata["background"]))
    method = kind(config, len(classes), background)
    try:
        method.load_state_dict(state)
    except RuntimeError as error:  # torch names every tensor: too many to read
        raise WeightsError(f"{path} was written by another version of hintseg (other tensors); train again") from error
    return method.eval(), classes, background
