"""One process at a time in a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from hintseg.errors import RunError
from hintseg.files.parse import is_file, parse_json

logger = logging.getLogger("hintseg")

LOCK = ".hintseg.lock"
"""File in a folder that is being written to; it says who writes."""

_held: set[Path] = set()
"""Folders this process holds: the system's locks do not tell two threads of a process apart."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if need be, while the block runs.

    The lock is the operating system's, on an open file: it ends with the process, so a crash leaves none behind. The
    file itself is deleted at the end of the block. Where the file system knows no locks, a warning is logged.

    Raises:
        RunError: Another process holds the folder; the error says which, on which machine. Or it cannot be written.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> with locked(folder), locked(folder):
        ...     pass
        Traceback (most recent call last):
            ...
        hintseg.errors.RunError: ... is being written to by process ... on ..., this one; wait for it, ...
    """
    real = Path(os.path.realpath(folder))
    path = real / LOCK
    if real in _held:
        raise _taken(folder, path)
    if os.path.lexists(path) and not is_lock(path):
        raise RunError(f"{path} is in the way: hintseg did not write it; move it away")
    made = not real.exists()
    try:
        real.mkdir(parents=True, exist_ok=True)
        number = _acquire(path)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written: {error.strerror or error}; free space, make it writable or choose another "
            "folder"
        ) from error
    if number is None:
        raise _taken(folder, path)
    _held.add(real)
    try:
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        os.truncate(number, 0)
        os.write(number, json.dumps({"process": os.getpid(), "machine": socket.gethostname(), "since": since}).encode())
        yield
    finally:
        _held.discard(real)
        if sys.platform == "win32":
            os.close(number)  # an open file is not deleted there
        try:
            path.unlink(missing_ok=True)  # still locked: whoever opened it meanwhile finds it gone and tries again
        except OSError:  # on Windows another process may have opened it since
            logger.debug("%s stays", path)
        if sys.platform != "win32":
            os.close(number)
        if made and not any(real.iterdir()):
            real.rmdir()


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that a process writes into at this moment.

    Raises:
        RunError: Another process, or this one, holds it.
    """
    if (folder / LOCK).exists():  # else nobody does, and the folder need not be writable
        with locked(folder):
            return


def is_busy(folder: Path) -> bool:
    """Return whether a process writes into a folder at this moment."""
    try:
        refuse_busy(folder)
    except RunError:
        return True
    return False


def is_lock(path: Path) -> bool:
    """Return whether a file is a lock of ours: held, or left by a crash."""
    if path.name == LOCK and Path(os.path.realpath(path.parent)) in _held:
        return True  # not to be opened: closing any handle of a file ends this process's locks on it
    try:
        if path.name != LOCK or path.is_symlink() or not is_file(path):
            return False
        content = path.read_bytes()
        return not content or "process" in parse_json(content)
    except (OSError, ValueError, TypeError):
        return False


_ALONE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Neither handed on to programs we start, nor opened through a link."""


_ALONE = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""Neither handed on to programs we start, nor opened through a link."""


def _acquire(path: Path) -> int | None:
    """Return the open, locked file; None where another process holds it."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | _ALONE, 0o644)
        try:
            if not _lock(number, path):
                os.close(number)
                return None
            if _same_file(number, path):
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # the one before deleted it between our two steps


def _same_file(number: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(number), there)


if sys.platform == "win32":
    import msvcrt

    def lend(file: BinaryIO) -> None:
        """Do nothing: a lock is not handed on here."""

    def is_lent(path: Path) -> bool:
        """Return False: nobody knows here."""
        return False

    def _lock(number: int, path: Path) -> bool:
        os.lseek(number, 1 << 20, os.SEEK_SET)  # far behind the text, which others may read
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(number, 0, os.SEEK_SET)
        return True

else:
    import errno
    import fcntl

    def lend(file: BinaryIO) -> None:
        """Lock an open file for as long as this process, or one that inherits it, has it open."""
        with suppress(OSError):  # a file system that knows no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_lent(path: Path) -> bool:
        """Return whether a process still runs to which `lend` gave a file."""
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
        return False

    def _lock(number: int, path: Path) -> bool:
        try:
            fcntl.lockf(
                number, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # unlike flock's, forked loader workers do not inherit it
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            logger.warning("%s: this file system knows no locks; do not start two runs in one folder", path.parent)
        return True


def _taken(folder: Path, path: Path) -> RunError:
    if path.parent in _held:  # by this process, which must not open the file again
        who = f"process {os.getpid()} on {socket.gethostname()}, this one"
        return RunError(f"{folder} is being written to by {who}; wait for it, or choose another folder (--out)")
    try:
        who = parse_json(path.read_bytes())
        name = f"process {who['process']} on {who['machine']} (since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        name = "another process"
    return RunError(f"{folder} is being written to by {name}; wait for it or stop it, or choose another folder (--out)")
