"""Find photos on disk, and how large they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image

from hintseg.errors import LabelError, PhotoError, list_problems, printable, shown
from hintseg.files.images import open_image, with_heif
from hintseg.files.owned import MARK, kind_of
from hintseg.files.parse import is_file
from hintseg.formats.names import Names
from hintseg.formats.problems import Problems
from hintseg.types import Photo

PHOTO_FOLDERS = ("JPEGImages", "images", "photos", "imgs")
"""Names of the folder below a data set that holds its photos; without one the data set's folder itself does."""

LABEL_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationObject", "Annotations", "annotations")
MASK_FOLDERS = ("masks", "labels", "scribbles")

NO_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Names of folders that systems and network disks put among others': thumbnails, deleted files."""

UNREAD = {
    **dict.fromkeys((".heic", ".heif"), "pip install 'hintseg[heic]' reads them, or convert them to JPEG"),
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
        "raw files of cameras: develop them to JPEG or PNG first",
    ),
    **dict.fromkeys((".psd", ".svg", ".ai"), "convert them to PNG first"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "videos: take frames out of them first"),
    **dict.fromkeys((".dcm", ".nii", ".npy", ".npz"), "arrays and volumes: write their slices as PNG first"),
}
"""What may be meant as photos by its suffix and is not read, and what to do then."""

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
    with_heif()
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
    return kind_of(folder) not in (None, "photos", "labels")


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


def matching(root: Path, pattern: str) -> list[Path]:
    """Return the plain files below `root` that a pattern fits, by name, but those in folders that hintseg wrote."""
    return sorted(
        file
        for file in root.glob(pattern)
        if is_file(file) and not any(map(is_ours, file.parents[: len(file.relative_to(root).parents) - 1]))
    )


def walk(root: Path, *, skip: Collection[str] = (), notes: list[str] | None = None) -> Iterator[Path]:
    """Yield the plain files below `root`, each folder's before those of its sub-folders, by name.

    Left out are hidden files and folders, `NO_FOLDERS`, and folders that hintseg itself wrote (runs, masks). A link to
    a folder is followed once, and not where it leads to a folder above it or back into `root`, so the walk ends. Pipes,
    sockets and devices are no files: opening one could wait for ever.

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
                if not leads_back(path, root) and entry.name not in NO_FOLDERS:
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


def photo_head(path: Path) -> tuple[tuple[int, int], int]:
    """Return the photo's (height, width) as stored, pixels, and its EXIF orientation, 1..8; only its head is read.

    Raises:
        PhotoError: The file is missing or no photo.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise PhotoError(f"cannot read the photo {path}: {error}") from error
    return (height, width), turned if turned in range(1, 9) else 1


def photo_size(path: Path) -> tuple[int, int]:
    """Return the photo's (height, width) in pixels after its EXIF rotation; only the file's head is read.

    Raises:
        PhotoError: The file is missing or no photo.
    """
    (height, width), turned = photo_head(path)
    return (width, height) if turned >= 5 else (height, width)


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
        unread: Files that may be meant as photos and are not read, see `UNREAD`.

    Args:
        root: The folder.
        skip: Names of its direct sub-folders to leave out.
        missing: What `locate` does where there is no such photo.
        but: Files that are no photos, such as masks among them.

    Raises:
        LabelError: Names that cannot be written into label files, reports or the names of masks, all at once; or the
            folder is one that hintseg wrote.
    """

    def __init__(
        self,
        root: Path,
        *,
        skip: Collection[str] = (),
        missing: Literal["error", "skip"] = "error",
        but: Collection[Path] = (),
    ) -> None:
        refuse_ours(root)
        self.root = root
        self._notes: list[str] = []
        self._missing: dict[str, None] = {}
        self._skip_missing = missing == "skip"
        self._named: dict[tuple[str, str], tuple[str, bool]] = {}
        self._renamed: dict[str, str] = {}
        names, unread = dict[str, Path](), list[Path]()
        for path in walk(root, skip=skip, notes=self._notes):
            suffix = os.path.splitext(path.name)[1].lower()  # noqa: PTH122 (10x quicker)
            if suffix in photo_suffixes() and path not in but:
                names[path.relative_to(root).as_posix()] = path
            elif suffix in UNREAD:
                unread.append(path)
        self.unread = tuple(unread)
        check_names(root, names)
        stems = {name: name.rpartition(".")[0] for name in names}
        count = Counter(stems.values())
        ids = {name: stem if count[stem] == 1 and stem not in names else name for name, stem in stems.items()}
        self.paths: dict[str, Path] = {ids[name]: names[name] for name in sorted(names, key=lambda name: ids[name])}
        self._names = Names(ids, root.name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and what was found by less than its exact name, one sentence each."""
        kinds = Counter(path.suffix.lower() for path in self.unread)
        left = (f"{count} {suffix} files are left out; {UNREAD[suffix]}" for suffix, count in sorted(kinds.items()))
        gone = len(self._missing)
        some = ", ".join(f"'{shown(name)}'" for name in list(self._missing)[:3]) + (", ..." if gone > 3 else "")
        missing = [f"{gone} photos that the labels name are not there and are left out: {some}"] if gone else []
        renamed = [
            f"{len(self._renamed)} photos are found by another name that the labels have: '{shown(name)}' is {id}"
            for name, id in list(self._renamed.items())[:1]
        ]
        return (*self._notes, *left, *self._names.notes(), *renamed, *missing)

    def leave_out(self, ids: Iterable[str]) -> None:
        """Take out what is no photo of the data set, though it is a picture below its folder."""
        for id in [*ids]:
            del self.paths[id]

    def find(self, name: str, within: str = "") -> list[str]:
        """Return the ids of the photos that `name` may mean.

        A name is a path below the folder with or without suffix, also with the folder's own name (and what stands
        before it) in front. A name without folders also finds a photo in a sub-folder. Where that finds none, letter
        case, Unicode form, percent signs, the suffix and folders in front may differ, each with a note.

        Args:
            name: The name.
            within: Name of a folder that is preferred where several photos fit, such as a split's. Where it is there, a
                name without folders finds no photo in the folder of another split.
        """
        return self._names.search(name, within)[0]

    def locate(
        self, name: str, problems: Problems, where: str, line: str, *, within: str = "", also: Collection[str] = ()
    ) -> str | None:
        """Return the id of the one photo `name` means; None where there is none, which is a problem or left out.

        Args:
            name: The name, as for `find`.
            problems: Gets a sentence where no photo fits, or several do.
            where: The label file.
            line: Where in it.
            within: As for `find`.
            also: Other names, tried in their order where there is no photo `name`.
        """
        hits = ((one, *self._names.search(one, within)) for one in (name, *also))
        said, found, how = next((hit for hit in hits if hit[1]), (name, [], ""))
        if len(found) == 1:
            if said != name:
                how = how or "by another name"
                self._renamed[name] = found[0]
            other, loosely = self._named.setdefault((where, found[0]), (name, bool(how)))
            if other != name and (how or loosely):  # by its base name one photo fits names from different folders
                problems.add(
                    where, f"{line}: '{shown(name)}' and '{shown(other)}' both fit the photo {found[0]}; write its path"
                )
            return found[0]
        if found:
            some = ", ".join(found[:3])
            problems.add(where, f"{line}: '{shown(name)}' fits {len(found)} photos ({some}); write its path and suffix")
        elif self._skip_missing:
            self._missing[name] = None
        else:
            of = f" of the split '{shown(within)}'" if within else ""
            problems.add(
                where,
                f"{line}: there is no photo '{shown(name)}'{of} below {self.root}{self._names.nearest(name)}; "
                "add it, or go on without such photos: --missing skip",
            )
        return None


def file_name(photo: Photo) -> str:
    """Return the path of a photo's file below the photos' folder, as label files name it.

    Example:
        >>> file_name(Photo("a/b", Path("/x/a/b.jpg"))), file_name(Photo("b.jpg", Path("/x/b.jpg")))
        ('a/b.jpg', 'b.jpg')
    """
    whole = photo.id.rpartition("/")[2] == photo.path.name  # the id keeps the suffix where two photos differ by it
    return photo.id if whole else photo.id + photo.path.suffix


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


def find_photos(path: Path, *, missing: Literal["error", "skip"] = "error", but: Collection[Path] = ()) -> PhotoFolder:
    """Return the photos of a data set's folder; folders that hold labels are left out.

    Args:
        path: The folder.
        missing: What happens where labels name photos that are not there.
        but: Files that are no photos, such as masks among them.

    Raises:
        LabelError: There is no photo, or the names of some cannot be used.
    """
    refuse_ours(path)
    root = photo_root(path)
    skip = (*LABEL_FOLDERS, *MASK_FOLDERS) if root == path else ()
    folder = PhotoFolder(root, skip=skip, missing=missing, but=but)
    if not folder.paths:
        left = "".join(f"; {note}" for note in folder.notes)
        raise LabelError(f"there is no photo below {root}; name the folder that holds them{left}")
    return folder
