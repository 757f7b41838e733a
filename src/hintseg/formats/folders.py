"""Folder per class: PATH/CLASS/PHOTO, or PATH/SPLIT/CLASS/PHOTO.

Photos in a folder called `negatives`, `background`, `none` or alike are negatives: they show no class. Photos in no
class folder stay unlabelled. Where other files might say what the photos show, or folders are hardly classes, nothing
is guessed: `classes.txt` says which folders are classes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import is_file
from hintseg.formats.codec import Fit
from hintseg.formats.folder_tree import Parts, Tree, arrange
from hintseg.formats.gather import gather
from hintseg.formats.layout import CLASS_LIST, check_classes, read_classes, read_splits
from hintseg.formats.nuclei import has_photo_folders
from hintseg.formats.photos import UNREAD, PhotoFolder, photo_suffixes, refuse_ours, walk
from hintseg.formats.problems import Problems
from hintseg.formats.records import Labels, Reading, Record
from hintseg.formats.words import OTHER_TEXTS
from hintseg.types import HintSet, Supervision

LABEL_SUFFIXES = frozenset({".txt", ".xml", ".json", ".csv", ".tsv", ".names", ".yaml", ".yml", ".data"})
"""Files that may say what photos show: among such, folders are not taken for classes by themselves."""

SOURCE = "a class folder"


class Folders:
    """A folder of photos per class."""

    name = "folders"
    carries = frozenset({Supervision.TAGS})
    sign = "sub-folders with photos, and no label file"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for sub-folders with photos that are not those of another layout, and no files that may be labels."""
        if labels is not None or has_photo_folders(path):
            return Fit.NO
        try:
            return Fit.WEAK if has_class_folders(path) else Fit.NO
        except LabelError:
            return Fit.NO if is_file(path / CLASS_LIST) else Fit.WEAK  # its question is asked when it is read

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a folder per class: every photo has the one tag its folder says.

        Classes are in alphabetical order, or in that of `classes.txt`, which also says what folders are classes where
        that is not clear. The same photo in several class folders shows all of them.

        Args:
            path: Folder of the class folders.
            labels: None; this format has no label file.
            reading: How it is to be read.

        Raises:
            LabelError: `labels` is given, there is no class folder with photos, or it is not clear which folders are
                classes.

        Cost:
            Photos of equal size are read to find those that are the same.
        """
        if labels is not None:
            raise LabelError(f"the format 'folders' has no label file, but labels={labels} is given; leave it out")
        refuse_ours(path)
        problems = Problems()
        folder = PhotoFolder(path)
        files = {file.relative_to(path).parts: id for id, file in folder.paths.items()}
        unread = {file.relative_to(path).parts for file in folder.unread}
        listed = read_classes(path, None, problems, background=False)
        tree = arrange([*files, *unread], listed, background=reading.background)
        if not any(tree.tags.values()):
            raise LabelError(_none_found(path, files, listed))
        check_classes(tree.classes, str(path), problems)
        _refuse_lost(tree, unread, problems)
        same = _merge(tree, {parts: path.joinpath(*parts) for parts in files if parts in tree.tags}, problems)
        folder.leave_out(files[parts] for parts in (*tree.masks, *same) if parts in files)
        records, splits = list[Record](), defaultdict[str, list[str]](list)
        for parts, id in files.items():
            if id not in folder.paths:
                continue
            if parts in tree.tags:
                records.append(Record("/".join(parts), tags=tree.tags[parts], where=SOURCE, line="/".join(parts)))
            if parts in tree.splits:
                splits[tree.splits[parts]].append(id)
        found = {name: tuple(ids) for name, ids in splits.items()} or read_splits(path, folder, problems)
        said = Labels(tuple(records), SOURCE, tree.classes, found, notes=tuple(tree.notes))
        return gather(path, folder, said, reading, problems)


def has_class_folders(path: Path) -> bool:
    """Return whether there are folders of photos that are classes, and no files that may be labels.

    Raises:
        LabelError: It is not clear which folders are classes.
    """
    photos, has_list = list[Parts](), False
    for file in walk(path):
        suffix = file.suffix.lower()
        if suffix in photo_suffixes() or suffix in UNREAD:
            photos.append(file.relative_to(path).parts)
        elif file == path / CLASS_LIST:
            has_list = True
        elif suffix in LABEL_SUFFIXES and not (suffix == ".txt" and OTHER_TEXTS.fullmatch(file.name)):
            return False
    listed = read_classes(path, None, Problems(), background=False) if has_list else None
    return any(arrange(photos, listed, background=True).tags.values())


def _none_found(path: Path, files: Mapping[Parts, str], listed: tuple[str, ...] | None) -> str:
    folders = sorted({parts[0] for parts in files if len(parts) > 1})
    there = f"; its folders are {join([shown(name) for name in folders], 6)}" if folders else ""
    if listed is not None:
        return f"no folder below {path} is called as a class in {CLASS_LIST} ({join(listed, 4)}){there}"
    return (
        f"no class folder with photos in {path}{there}; PATH/CLASS/PHOTO is needed, PATH/train/CLASS/PHOTO or names of "
        f"class folders in {CLASS_LIST}"
    )


def _refuse_lost(tree: Tree, unread: set[Parts], problems: Problems) -> None:
    """Refuse where all files of a class cannot be read: it would be lost."""
    read = {name for parts, labels in tree.tags.items() if parts not in unread for name in labels}
    for name in tree.classes:
        lost = [parts for parts in unread if name in tree.tags.get(parts, ())]
        if lost and name not in read:
            suffix = lost[0][-1][lost[0][-1].rfind(".") :].lower()
            problems.add(
                SOURCE,
                f"the class '{shown(name)}' has only files that are not read: {len(lost)} {suffix}; {UNREAD[suffix]}, "
                "or take the folder away",
            )


def _merge(tree: Tree, paths: Mapping[Parts, Path], problems: Problems) -> set[Parts]:
    """Give photos of the same bytes the tags of all their folders; return those to leave out, one of each is kept."""
    sizes = defaultdict[int, list[Parts]](list)
    for parts, file in paths.items():
        sizes[file.stat().st_size if file.exists() else 0].append(parts)
    same = defaultdict[bytes, list[Parts]](list)
    for size, group in sizes.items():
        if size and len(group) > 1:
            for parts in group:
                same[hashlib.blake2b(paths[parts].read_bytes()).digest()].append(parts)
    left, merged, across = set[Parts](), 0, 0
    for group in same.values():
        labels = {tree.tags[parts] for parts in group}
        splits = {tree.splits.get(parts) for parts in group}
        across += len(splits) > 1
        if len(labels) < 2:
            continue
        if () in labels:
            some = " and ".join("/".join(parts) for parts in group[:2])
            problems.add(SOURCE, f"{shown(some)} are the same photo, once of a class and once a negative; delete one")
            continue
        merged += 1
        for parts in group:
            tree.tags[parts] = tuple(sorted({name for one in labels for name in one}))
        kept = dict[str | None, Parts]()
        left |= {parts for parts in group if kept.setdefault(tree.splits.get(parts), parts) != parts}
    if merged:
        tree.notes.append(f"{merged} photos lie in several class folders (same bytes) and show all of these classes")
    if across:
        tree.notes.append(
            f"{across} photos lie in several splits (same bytes): scores on val and test will be too good"
        )
    return left
