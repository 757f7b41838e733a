"""Text formats, read with care."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hintseg.errors import HintsegError


def read_json(path: Path, error: type[HintsegError], advice: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        error: What to raise.
        advice: What to do then, the end of the message.

    Raises:
        HintsegError: `error`: the file is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise error(f"{path} cannot be read ({reason}); {advice}") from reason


def read_yaml(path: Path, error: type[HintsegError], advice: str) -> Any:
    """Return what a YAML file holds; see `read_json`."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as reason:
        raise error(f"{path} cannot be read ({reason}); {advice}") from reason
