"""Find photos on disk and match the names that label files use for them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from hintseg.errors import LabelError, PhotoError
from hintseg.hints.problems import Problems

PHOTO_FOLDERS = ("JPEGImages", "images", "photos", "imgs")
"""Names of the folder below a data set that holds its photos; without one the data set's folder itself does."""

LABEL_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationObject", "Annotations", "annotations")
MASK_FOLDERS = ("masks", "labels", "scribbles")

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


def photo_root(path: Path) -> Path:
    """Return the folder of `path` that holds the photos: one of `PHOTO_FOLDERS`, else `path` itself."""
    if not path.is_dir():
        raise LabelError(f"{path} is not a folder; name the folder that holds the photos")
    folders = {child.name.lower(): child for child in sorted(path.iterdir()) if child.is_dir()}
    return next((folders[name.lower()] for name in PHOTO_FOLDERS if name.lower() in folders), path)


def photo_files(root: Path, *, skip: Collection[str] = ()) -> Iterator[Path]:
    """Yield the photos below `root`, hidden files and the direct sub-folders named in `skip` left out."""
    suffixes = photo_suffixes()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        hidden = {name for name in subfolders if name.startswith((".", "__MACOSX"))}
        left_out = hidden | (set(skip) if here == root else set())
        subfolders[:] = sorted(set(subfolders) - left_out)
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122 (10x quicker)
                yield here / name


def photo_size(path: Path) -> tuple[int, int]:
    """Return the photo's (height, width) in pixels after its EXIF rotation; only the file's head is read.

    Raises:
        PhotoError: The file is missing or no photo.
    """
    try:
        with Image.open(path) as image:
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
    """

    def __init__(self, root: Path, *, skip: Collection[str] = ()) -> None:
        self.root = root
        names = {path.relative_to(root).as_posix(): path for path in photo_files(root, skip=skip)}
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
            shown = ", ".join(found[:3])
            problems.add(where, f"{line}: '{name}' fits {len(found)} photos ({shown}); write its path and suffix")
        else:
            problems.add(where, f"{line}: there is no photo '{name}' below {self.root}")
        return None


def find_photos(path: Path) -> PhotoFolder:
    """Return the photos of a data set's folder; folders that hold labels are left out.

    Raises:
        LabelError: There is no photo.
    """
    root = photo_root(path)
    folder = PhotoFolder(root, skip=(*LABEL_FOLDERS, *MASK_FOLDERS) if root == path else ())
    if not folder.paths:
        raise LabelError(f"there is no photo below {root}; name the folder that holds them")
    return folder
