"""Find photos on disk and match the names that label files use for them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from hintseg.errors import LabelError, PhotoError, list_problems, printable, shown
from hintseg.files.images import open_image
from hintseg.files.owned import MARK, kind_of
from hintseg.files.parse import is_file
from hintseg.formats.problems import Problems

PHOTO_FOLDERS = ("JPEGImages", "images", "photos", "imgs")
"""Names of the folder below a data set that holds its photos; without one the data set's folder itself does."""

LABEL_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationObject", "Annotations", "annotations")
MASK_FOLDERS = ("masks", "labels", "scribbles")

LONGEST_NAME = 240
"""The most bytes of a photo's file name: masks, maps and overlays are named after it, and file systems take 255."""

_EXIF_ORIENTATION = 0x0112
_NOT_PHOTOS = {
    "BUFR",
    "EPS",
    "FITS",
    "GRIB",
    "HDF5",
    "MPEG",
    "PDF",
    "WMF",
}  # PIL knows these but cannot decode them alone


@cache
def photo_suffixes() -> frozenset[str]:
    """Return the file suffixes of all photo formats PIL opens, lower case with the dot."""
    Image.init()
    extensions = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in extensions if kind in Image.OPEN and kind not in _NOT_PHOTOS)


def leads_back(folder: Path, root: Path) -> bool:
    """Return whether a folder is a link into `root` or above it: following it would find photos twice, or all."""
    if not folder.is_symlink():
        return False
    real, top = folder.resolve(), root.resolve()
    return real.is_relative_to(top) or top.is_relative_to(real)


def is_ours(folder: Path) -> bool:
    """Return whether hintseg wrote a run or masks into this very folder: no data, whatever lies in it."""
    return kind_of(folder) not in (None, "photos")


def refuse_ours(path: Path) -> None:
    """Refuse to take what hintseg wrote for data.

    Raises:
        LabelError: `path` is a run folder or a folder of masks.
    """
    if is_ours(path):
        raise LabelError(
            f"{path} is no data set: hintseg wrote it (a folder of kind '{kind_of(path)}', says its file {MARK}); name "
            "the folder of the photos, or copy what you want to use to a folder of its own"
        )


def photo_root(path: Path) -> Path:
    """Return the folder of `path` that holds the photos: one of `PHOTO_FOLDERS`, else `path` itself."""
    if not path.is_dir():
        raise LabelError(f"{path} is not a folder; name the folder that holds the photos")
    children = [child for child in sorted(path.iterdir()) if child.is_dir()]
    folders = {child.name.lower(): child for child in children if not is_ours(child) and not leads_back(child, path)}
    return next((folders[name.lower()] for name in PHOTO_FOLDERS if name.lower() in folders), path)


def walk(root: Path, *, skip: Collection[str] = (), notes: list[str] | None = None) -> Iterator[Path]:
    """Yield the plain files below `root`, each folder's before those of its sub-folders, by name.

    Left out are hidden files and folders, and folders that hintseg itself wrote (runs, masks). A link to a folder is
    followed once, and not where it leads to a folder above it or back into `root`, so the walk ends. Pipes, sockets and
    devices are no files: opening one could wait for ever.

    Args:
        root: The folder.
        skip: Names of its direct sub-folders to leave out.
        notes: Gets a sentence on each pipe, socket or device.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if (identity := _identity(folder)) in seen or (folder != root and is_ours(folder)):
            continue
        seen.add(identity)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        below = []
        for entry in entries:
            if entry.name.startswith(".") or (folder == root and entry.name in skip):
                continue
            path = folder / entry.name
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                if not leads_back(path, root) and not entry.name.startswith("__MACOSX"):
                    below.append(path)
            elif is_file(path) if entry.is_symlink() else entry.is_file():
                yield path
            elif path.exists():
                if notes is not None:
                    notes.append(f"{shown(path.relative_to(root))} is a pipe, socket or device and is left out")
            else:
                yield path  # a link to nothing: whoever opens it says so
        waiting += reversed(below)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def photo_files(root: Path, *, skip: Collection[str] = (), notes: list[str] | None = None) -> Iterator[Path]:
    """Yield the photos below `root`: the files of `walk` with the suffix of a photo."""
    suffixes = photo_suffixes()
    for path in walk(root, skip=skip, notes=notes):
        if os.path.splitext(path.name)[1].lower() in suffixes:  # noqa: PTH122 (10x quicker)
            yield path


def photo_size(path: Path) -> tuple[int, int]:
    """Return the photo's (height, width) in pixels after its EXIF rotation; only the file's head is read.

    Raises:
        PhotoError: The file is missing or no photo.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise PhotoError(f"cannot read the photo {path}: {error}") from error
    return (width, height) if turned else (height, width)


def size_or_none(photo: Path) -> tuple[int, int] | None:
    """Return the photo's (height, width), or None where it cannot be read: then only its boxes go unchecked."""
    try:
        return photo_size(photo)
    except PhotoError:
        return None


class PhotoFolder:
    """The photos below a folder.

    Attributes:
        root: The folder.
        paths: Photo file by id, sorted by id. The id is the path below `root` without suffix; where two photos differ
            by their suffix only, it keeps the suffix.
        notes: What was left out, one sentence each.

    Raises:
        LabelError: Names that cannot be written into label files, reports or the names of masks, all at once; or the
            folder is one that hintseg wrote.
    """

    def __init__(self, root: Path, *, skip: Collection[str] = ()) -> None:
        refuse_ours(root)
        self.root = root
        self.notes: list[str] = []
        names = {path.relative_to(root).as_posix(): path for path in photo_files(root, skip=skip, notes=self.notes)}
        check_names(root, names)
        stems = {name: name.rpartition(".")[0] for name in names}
        count = Counter(stems.values())
        ids = {name: stem if count[stem] == 1 and stem not in names else name for name, stem in stems.items()}
        self.paths: dict[str, Path] = {ids[name]: names[name] for name in sorted(names, key=lambda name: ids[name])}
        # Names a label file may use, the most exact first.
        self._tiers: tuple[dict[str, list[str]], ...] = tuple(defaultdict(list) for _ in range(4))
        for name, stem in stems.items():
            keys = (name, stem, name.rpartition("/")[2], stem.rpartition("/")[2])
            for tier, key in zip(self._tiers, keys, strict=True):
                tier[key].append(ids[name])

    def find(self, name: str) -> list[str]:
        """Return the ids of the photos that `name` may mean.

        A name is a path below the folder with or without suffix, also with the folder's own name (and what stands
        before it) in front. A name without folders also finds a photo in a sub-folder.
        """
        parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        if self.root.name in parts[:-1]:
            below = len(parts) - parts[::-1].index(self.root.name)
            candidates = ["/".join(parts), "/".join(parts[below:])]
        else:
            candidates = ["/".join(parts)]
        for tier in self._tiers:
            for candidate in candidates:
                if candidate in tier:
                    return tier[candidate]
        return []

    def locate(self, name: str, problems: Problems, where: str, line: str) -> str | None:
        """Return the id of the one photo `name` means, or add a problem and return None."""
        found = self.find(name)
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(found[:3])
            problems.add(where, f"{line}: '{shown(name)}' fits {len(found)} photos ({some}); write its path and suffix")
        else:
            problems.add(where, f"{line}: there is no photo '{shown(name)}' below {self.root}")
        return None


def check_names(root: Path, names: Collection[str]) -> None:
    """Refuse names that would break later what is written about them.

    Raises:
        LabelError: All of them.
    """
    wrong = []
    for name in (str(root), *names):
        if "\n" in name or "\t" in name or printable(name) != name:
            wrong.append(f"'{shown(name)}' holds a control character or bytes that are no UTF-8; rename it")
        elif len(name.rpartition("/")[2].encode()) > LONGEST_NAME:
            wrong.append(f"'{shown(name)}' has a name of more than {LONGEST_NAME} bytes; masks add to it: rename it")
    if wrong:
        raise LabelError(list_problems(f"the names of the photos below {root}", wrong))


def find_photos(path: Path) -> PhotoFolder:
    """Return the photos of a data set's folder; folders that hold labels are left out.

    Raises:
        LabelError: There is no photo, or the names of some cannot be used.
    """
    refuse_ours(path)
    root = photo_root(path)
    folder = PhotoFolder(root, skip=(*LABEL_FOLDERS, *MASK_FOLDERS) if root == path else ())
    if not folder.paths:
        raise LabelError(f"there is no photo below {root}; name the folder that holds them")
    return folder
