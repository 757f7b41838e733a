"""Features of photos on disk, shared by all runs of a user: a file each, named by what it depends on, bounded in size.

A file holds what a frozen network gives of a photo and of its mirror image. Its name is a hash of the photo's bytes and
of the network with its weights, so equal names of photos or of runs do not meet. Files appear whole or not at all, and
begin with a hash of their content: one that is damaged counts as not there. The oldest go first.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hintseg.errors import RunError
from hintseg.files.parse import is_file

DIGEST = 16
"""Bytes of the hash that a file begins with."""

LIMIT = 8 * 2**30
"""Bytes that all files together may take, where nobody said otherwise."""

STALE = 24 * 3600
"""Seconds after which a file that was never finished is what a kill left."""


class Usage(NamedTuple):
    """What lies in the cache: how many files, and their bytes."""

    files: int
    bytes: int


def place() -> Path:
    """Return the folder: ``HINTSEG_CACHE``, else ``hintseg`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("HINTSEG_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hintseg"


class FeatureCache:
    """The files of features.

    Args:
        folder: Where they lie; None: `place`.

    Example:
        >>> cache = FeatureCache(getfixture("tmp_path"))
        >>> cache.write("ab12", [torch.ones(2, 3, 4, 5)])
        >>> [tuple(level.shape) for level in cache.read("ab12")], cache.read("ab13") is None
        ([(2, 3, 4, 5)], True)
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.root = place() if folder is None else folder
        self.folder = self.root / "features"
        self._new = 0

    @property
    def limit(self) -> int:
        """Bytes that all files together may take."""
        path = self.root / "limit"
        try:
            return int(path.read_text(encoding="ascii")) if is_file(path) else LIMIT
        except (OSError, ValueError):
            return LIMIT

    @limit.setter
    def limit(self, value: int) -> None:
        self._put(self.root / "limit", str(value).encode())
        self.trim()

    def read(self, key: str) -> tuple[Tensor, ...] | None:
        """Return the levels kept under a key, finest first; None where there are none, or they are damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, content = content[:DIGEST], content[DIGEST:]
        if _digest(content) != digest:
            return None
        try:
            found = load(content)
        except SafetensorError:
            return None
        return tuple(found[name] for name in sorted(found, key=int))

    def write(self, key: str, levels: Sequence[Tensor]) -> None:
        """Keep levels under a key, as float16.

        Args:
            key: Letters and digits.
            levels: Of a photo and of its mirror image, (2, c, h, w) each.

        Raises:
            RunError: A value does not fit into float16, or the folder cannot be written.
        """
        kept = {str(i): level.half().contiguous().cpu() for i, level in enumerate(levels)}
        if not all(bool(torch.isfinite(level).all()) for level in kept.values()):
            raise RunError("features are too large for float16; set backbone.keep=false, which trains on images")
        content = save(kept)
        self._put(self._path(key), _digest(content) + content)
        self._new += len(content)
        if self._new > self.limit // 20:
            self.trim()

    def touch(self, keys: Iterable[str]) -> None:
        """Count files as used now, so that they go last."""
        for key in keys:
            with suppress(OSError):
                os.utime(self._path(key))

    def trim(self, room: int = 0) -> None:
        """Delete the oldest files until all of them and `room` more bytes keep the limit."""
        self._new = 0
        found = sorted(self._files())
        total, limit = room + sum(size for _, size, _ in found), self.limit
        for _, size, path in found:
            if total <= limit:
                return
            with suppress(OSError):
                path.unlink()
            total -= size

    def usage(self) -> Usage:
        """Return how many files there are, and their bytes."""
        sizes = [size for _, size, _ in self._files()]
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Delete all files; return what there was."""
        before = self.usage()
        for _, _, path in self._files():
            with suppress(OSError):
                path.unlink()
        return before

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.features"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return when each file was last used, its bytes and its path; delete what kills left."""
        found = []
        for path in self.folder.glob("*/*"):
            try:
                facts = path.stat()
                if path.suffix == ".features":
                    found.append((facts.st_mtime, facts.st_size, path))
                elif facts.st_mtime < time.time() - STALE:
                    path.unlink()
            except OSError:
                continue  # another process deleted it
        return found

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all, whoever else writes it at the same time."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise RunError(
                f"features cannot be kept in {self.root} ({error.strerror}); free space, set HINTSEG_CACHE to a folder "
                "that can be written, or set backbone.keep=false"
            ) from error


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
