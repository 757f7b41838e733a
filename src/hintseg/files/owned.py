"""Folders that hintseg writes into carry a mark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from hintseg.files.parse import is_file, parse_json

Kind = Literal["run", "masks", "photos"]

MARK = ".hintseg"
"""Name of the mark."""


def kind_of(folder: Path) -> Kind | None:
    """Return what hintseg made `folder` for; None where it carries no mark of ours.

    Example:
        >>> kind_of(getfixture("tmp_path")) is None
        True
    """
    mark = folder / MARK
    if not is_file(mark):
        return None
    try:
        with mark.open("rb") as file:
            header = parse_json(file.readline(4096))
        return header["kind"] if header["kind"] in get_args(Kind) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
