"""Folders that hintseg writes into: each has a mark, and in it the list of what hintseg wrote.

Nothing else in such a folder is ever deleted or written over, and no folder without a mark is written into unless it is
empty. The mark is a text file, ``.hintseg``: its first line says what the folder is, each further line names a file and
its BLAKE2 hash. Lines are only added, before the file takes its name, so a kill at any moment leaves a list that has
every file. A folder in a folder (`name/`) is one with a mark of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

from hintseg.errors import RunError
from hintseg.files.lock import is_lock, locked
from hintseg.files.parse import is_file, parse_json

Kind = Literal["run", "masks", "photos", "labels", "study"]

MARK = ".hintseg"
"""Name of the mark."""

_LEFTOVER = re.compile(r"\.([0-9a-f]{16}|hintseg)\.hintseg-tmp")

_open: dict[Path, OwnedFolder] = {}
"""Folders this process writes into, by their real path."""


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


class OwnedFolder:
    """A folder with our mark.

    Attributes:
        root: The folder.
        hashes: What was written: the hashes of each file by its path below the folder (`/` between its parts; a folder
            with a mark of its own ends in one).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = Path(os.path.realpath(root))
        self.hashes: dict[str, set[str]] = defaultdict(set)
        self._old: bool | None = None
        self._emptied = set[Path]()
        self._renewing = Lock()
        self._read = 0
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes entered since."""
        with (self.root / MARK).open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines()
            self._read = file.tell()
        for line in lines:
            try:
                entry = parse_json(line)
            except ValueError:  # a kill cut it off; its file never took its name
                continue
            if isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
                name, digest = entry
                if _plain(name):
                    self.hashes[name].add(digest)

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the listed files that are there and really below the folder, not behind a link that leads elsewhere."""
        parents: dict[Path, bool] = {}
        for name in self.hashes:
            path = self._real / name
            if path.parent not in parents:
                parents[path.parent] = Path(os.path.realpath(path.parent)) == path.parent
            there = path.is_dir() and not path.is_symlink() if name.endswith("/") else path.is_file()
            if parents[path.parent] and there:
                yield name, path

    def changed(self, below: Sequence[str] = ("",)) -> list[str]:
        """Return the listed files, of those that `below` names as in `remove`, that somebody changed after us."""
        return [
            name
            for name, path in self.files()
            if _named(name, below) and not name.endswith("/") and _digest(path) not in self.hashes[name]
        ]

    def renew(self, *, inner: bool = True) -> None:
        """Let the first file that is written delete what `clear` deletes: what ends before it has lost nothing.

        Only for a folder that this process alone writes into.
        """
        self._old = inner

    def settle(self) -> None:
        """Delete what `renew` left until now, as something is about to take its place."""
        with self._renewing:
            if self._old is not None:
                # Other threads are about to write into those folders, and into files that look left over.
                self._clear(inner=self._old)
                self._old = None

    def clear(self, *, inner: bool = True) -> None:
        """Delete the listed files, the folders that are empty then, and what a kill left half-written.

        Args:
            inner: Whether folders with a mark of their own are cleared too.

        Raises:
            RunError: A file cannot be deleted.
        """
        self._clear(inner=inner)
        self.sweep()
        self.prune()

    def _clear(self, *, inner: bool) -> None:
        kept: list[str] = []
        try:
            for name, path in list(self.files()):
                if name.endswith("/"):
                    if not inner:
                        kept.append(name)
                        continue
                    if kind_of(path):
                        OwnedFolder(path).clear()
                        (path / MARK).unlink()
                    self._emptied.add(path)
                else:
                    path.unlink()
                    self._emptied |= {self._real / parent for parent in Path(name).parents if parent.parts}
        except OSError as error:
            raise RunError(f"{error.filename} cannot be deleted: {error.strerror}; make it writable") from error
        kind = kind_of(self.root)
        self.hashes.clear()
        self._read = 0
        if kind is not None:
            mark(self.root, kind)
            for name in kept:
                self.add(name)

    def prune(self) -> None:
        """Delete the folders that are empty since their files were deleted."""
        for folder in sorted(self._emptied, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        self._emptied.clear()

    def remove(self, below: Sequence[str]) -> None:
        """Delete the listed files that are one of `below`, or lie in one that ends in `/`.

        Raises:
            RunError: A file cannot be deleted.
        """
        for name, path in list(self.files()):
            if _named(name, below):
                try:
                    path.unlink()
                except OSError as error:
                    raise RunError(f"{path} cannot be deleted: {error.strerror}; make it writable") from error

    def sweep(self) -> None:
        """Delete what a kill left half-written."""
        for path in self._real.rglob(".*.hintseg-tmp"):
            if _LEFTOVER.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
                path.unlink(missing_ok=True)

    def add(self, name: str, digest: str = "") -> None:
        """Enter a file, or a folder (`name/`) with a mark of its own."""
        self.hashes[name].add(digest)
        with (self.root / MARK).open("ab") as file:
            file.write(b"\n" + json.dumps([name, digest]).encode())  # the break comes first: a line cut off stays alone


def enter(path: Path, written: Path) -> None:
    """Enter a file that is about to take its name in the list of the folder of ours that it lies in, if any.

    Raises:
        RunError: The place holds a file that hintseg did not write.
    """
    if (found := _owner(path)) is not None:
        folder, name = found
        if name not in folder.hashes and os.path.lexists(path):
            raise RunError(f"{path} is there and hintseg did not write it; move it away or choose another folder")
        folder.settle()
        folder.add(name, _digest(written))
    elif (root := _folder_around(path)) is not None:
        raise RunError(f"{path.parent} leads out of {root} by a link, to files that are not ours; remove the link")


def _named(name: str, below: Sequence[str]) -> bool:
    """Return whether a file is one of `below`, or lies in one that ends in `/`; all lie in one without a name."""
    return any(not place or name == place or (place.endswith("/") and name.startswith(place)) for place in below)


def _folder_around(path: Path) -> Path | None:
    """Return the open folder that a path names as its own, whether a link leads out of it or not."""
    return next((above for above in path.absolute().parents if Path(os.path.realpath(above)) in _open), None)


def _plain(name: str) -> bool:
    """Return whether a listed name is a path below its folder, as we write them."""
    parts = name.removesuffix("/").split("/")
    fits = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) < 256 for part in parts)
    return fits and "\0" not in name and len(name) < 4096


def adopt(path: Path) -> None:
    """Enter a file that got its name in another way than `whole_file`: renamed, or written by a library for us."""
    if (found := _owner(path)) is not None and path.is_file():
        folder, name = found
        folder.add(name, _digest(path))


def foreign(path: Path) -> bool:
    """Return whether a file lies in a folder of ours that is being written, and hintseg did not write it."""
    if (found := _owner(path)) is None:
        return False
    folder, name = found
    if name not in folder.hashes:
        folder.refresh()
    return name not in folder.hashes


def mended(path: Path) -> bool:
    """Return whether a file in a folder of ours that is being written was changed or put there by somebody else."""
    if (found := _owner(path)) is None:
        return False
    folder, name = found
    folder.refresh()
    return _digest(path) not in folder.hashes.get(name, ())


def stays(path: Path) -> bool:
    """Return whether a file of ours was changed by hand since, so that a stage that goes on leaves it as it is."""
    return path.is_file() and not foreign(path) and mended(path)


def _owner(path: Path) -> tuple[OwnedFolder, str] | None:
    """Return the innermost folder of ours that a file lies in, and its name there; None outside of all open ones."""
    place = Path(os.path.realpath(path.parent))
    inner = None
    for real in (place, *place.parents):
        if real in _open:
            folder = _open[real] if inner is None else OwnedFolder(inner)
            return folder, (place / path.name).relative_to(inner or real).as_posix()
        if inner is None and _open and kind_of(real) is not None:
            inner = real
    return None


@contextmanager
def owned(root: Path, kind: Kind, *, alone: bool = True) -> Iterator[OwnedFolder]:
    """Write into a folder of ours while the block runs; a new or empty one gets its mark.

    Args:
        root: The folder.
        kind: What it is for.
        alone: Whether to lock it; the other processes of a run write beside the first one, which holds the lock.

    Raises:
        RunError: The folder holds something that hintseg did not write and has no mark, or one of another kind; or
            another process writes into it; or it cannot be written.
    """
    refuse_foreign(root, kind)
    if not alone:
        with _writing(root) as folder:
            yield folder
        return
    with locked(root):
        refuse_foreign(root, kind)
        if kind_of(root) is None:
            mark(root, kind)
        with _writing(root) as folder:
            folder.sweep()
            try:
                yield folder
            finally:
                folder.prune()
                if not folder.hashes:  # nothing came of it
                    (root / MARK).unlink(missing_ok=True)


@contextmanager
def _writing(root: Path) -> Iterator[OwnedFolder]:
    real = Path(os.path.realpath(root))
    before = _open.get(real)
    folder = before or OwnedFolder(root)
    outer = next((parent for parent in real.parents if parent in _open), None)
    if outer is not None and (name := f"{real.relative_to(outer).as_posix()}/") not in _open[outer].hashes:
        _open[outer].add(name)
    _open[real] = folder
    try:
        yield folder
    finally:
        if before is None:
            del _open[real]


@contextmanager
def adding(root: Path) -> Iterator[None]:
    """Enter what is written below a finished folder of ours, such as a report, in its list; others stay as they are."""
    if kind_of(root) is None:
        yield
        return
    with _writing(root):
        yield


def refuse_foreign(root: Path, kind: Kind) -> None:
    """Refuse a folder that hintseg did not make for this, unless it is empty.

    Raises:
        RunError: It is a file, or holds something and has no mark, or one of another kind.
    """
    if not root.exists():
        return
    found = kind_of(root)
    if found == kind:
        return
    if not root.is_dir():
        raise RunError(f"{root} is a file; choose another --out")
    if found is not None:
        raise RunError(f"{root} is a folder of {_NAMES[found]}, not of {_NAMES[kind]}; choose another --out")
    if not all(is_lock(path) or (path.name == MARK and not path.stat().st_size) for path in root.iterdir()):
        raise RunError(f"{root} holds files that hintseg did not write there; choose another --out")


_NAMES: dict[Kind, str] = {
    "run": "a run",
    "masks": "masks",
    "photos": "made photos",
    "labels": "labels",
    "study": "a study",
}


def refuse_inputs(root: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write a folder anew while something that the command reads lies in it.

    Raises:
        RunError: One of `inputs` lies in `root`.
    """
    real = os.path.realpath(root)
    for path in inputs:
        if os.path.realpath(path) == real or os.path.realpath(path).startswith(real + os.sep):
            raise RunError(
                f"{path}, which is read, lies in {root}, whose files would be deleted first; move it out of there or "
                "choose another --out"
            )


def mark(root: Path, kind: Kind) -> None:
    """Give a folder our mark, with a list of nothing."""
    header = json.dumps({"hintseg": version("hintseg"), "kind": kind}).encode()
    beside = root / f"{MARK}.hintseg-tmp"
    beside.unlink(missing_ok=True)  # it might be a link
    try:
        beside.write_bytes(header)
        beside.replace(root / MARK)
    except OSError as error:
        raise RunError(f"{root} cannot be written: {error.strerror}; choose another --out") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
