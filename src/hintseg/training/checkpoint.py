"""Where a training stands, on disk: written whole, checked when read, the one before kept."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from hintseg.errors import RunError
from hintseg.files.atomic import remove_quietly, whole_file
from hintseg.files.owned import enter, foreign

logger = logging.getLogger("hintseg")

LAST, BEFORE = "last.ckpt", "before.ckpt"

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What the system calls a full disk, or a used-up share of it."""


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``last.ckpt``; the one that was there becomes ``before.ckpt`` once the new one is whole.

    A file is the SHA-256 of its content, a line, and that content as `torch.save` writes it.

    Args:
        folder: The stage's folder.
        state: Tensors, numbers, strings, lists and dicts of them.

    Raises:
        RunError: The disk is full, or the folder cannot be written to. The checkpoint that was there stays.
    """
    content = io.BytesIO()
    torch.save(state, content)
    raw = content.getbuffer()
    try:
        with whole_file(folder / LAST) as file:
            file.write(hashlib.sha256(raw).hexdigest().encode() + b"\n")
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the one before gives way, should the power fail
            if (folder / LAST).is_file():
                enter(folder / BEFORE, folder / LAST)
                (folder / LAST).replace(folder / BEFORE)
    except RunError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
            raise RunError(
                f"{folder / LAST}: the disk is full; about {len(raw) / 2**20:.0f} MiB are needed in {folder}. Nothing "
                "is lost: free space, and `--resume` goes on"
            ) from error
        raise


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return what the newest whole checkpoint holds; None where there is none. No code of a file runs.

    Damaged ones are reported through the logger ``hintseg`` and deleted.

    Raises:
        RunError: The system refuses to read the file.
    """
    damaged = False
    for path in (folder / LAST, folder / BEFORE):
        if not path.is_file() or foreign(path):
            continue
        state = _read(path)
        if state is not None:
            if damaged:
                logger.warning("%s is damaged; going on from the one before, of step %s", folder / LAST, state["step"])
            return state
        damaged = True
        remove_quietly(path)
    if damaged:
        logger.warning("the checkpoints in %s are damaged; the training of this stage begins again", folder)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete what is no longer needed, also what a killed process left half-written in the folder."""
    for path in (folder / LAST, folder / BEFORE, *folder.glob(".*.tmp")):
        remove_quietly(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); make it readable, or delete it") from error
    try:
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a file of anything else; torch raises what its reader happens to meet
        return None
    return state if isinstance(state, dict) and "step" in state else None
