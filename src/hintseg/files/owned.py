"""Folders that hintseg writes into carry a mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["run", "masks", "photos"]

MARK = ".hintseg"
"""Name of the mark."""


def kind_of(folder: Path) -> Kind | None:
    """Return what hintseg made `folder` for; None where it carries no mark of ours.

    Example:
        >>> kind_of(getfixture("tmp_path")) is None
        True
    """
    try:
        with (folder / MARK).open("rb") as file:
            header = json.loads(file.readline(4096))
        return header["kind"] if header["kind"] in get_args(Kind) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
