"""What stands beside YOLO's label files: the class names, which split each photo is in, what the columns are.

A `data.yaml` of Ultralytics or Roboflow (by whatever name), Darknet's `obj.data` with `obj.names`, or a plain list of
names such as LabelImg's `classes.txt`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, join, shown
from hintseg.files.parse import MOST_YAML_BYTES, is_file, read_bytes, read_yaml
from hintseg.formats.layout import CLASS_LIST, list_classes
from hintseg.formats.photos import PhotoFolder, photo_suffixes, walk
from hintseg.formats.problems import Problems, read_text
from hintseg.formats.words import split_of

YAML = (".yaml", ".yml")
CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_LISTS = (CLASS_LIST, "_darknet.labels", "predefined_classes.txt")
_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NAMES_KEY = re.compile(rb"""(^|[{,])\s*["']?names["']?\s*[:=]""", re.M)


@dataclass(frozen=True, slots=True)
class Beside:
    """The files below a folder that may be of a YOLO data set.

    Attributes:
        texts: The .txt files; lists of names left out.
        configs: Files that name the classes and more, the surest first: of several the first are equally sure.
        lists: Plain lists of class names.
        photos: Paths of the photos, with and without suffix.
    """

    texts: tuple[Path, ...]
    configs: tuple[Path, ...]
    lists: tuple[Path, ...]
    photos: frozenset[str]


@dataclass(frozen=True, slots=True)
class Config:
    """What a data set says of itself.

    Attributes:
        names: Class names by YOLO's ids, rising; those often are 0, 1, 2, ...
        source: The file they are from.
        splits: What it says of each split: folders, or lists of photos.
        start: The folder that these are in, by its own word.
        keypoints: Numbers that follow a box, 0 where there are none.
    """

    names: Mapping[int, str]
    source: Path
    splits: dict[str, list[str]] = field(default_factory=dict)
    start: str = ""
    keypoints: int = 0


def look(root: Path) -> Beside:
    """Return what lies below a folder."""
    texts, configs, lists, photos = list[Path](), list[Path](), list[Path](), set[str]()
    for file in walk(root):
        stem, suffix = os.path.splitext(file)  # noqa: PTH122 (10x quicker)
        suffix = suffix.lower()
        if suffix in photo_suffixes():
            photos |= {stem, str(file)}
        elif file.name.lower() in CLASS_LISTS or suffix == ".names":
            (texts if is_yolo(file) else lists).append(file)  # a photo may be called classes.jpg
        elif suffix == ".txt":
            texts.append(file)
        elif (suffix in YAML or suffix == ".data") and _has_names(file):
            configs.append(file)
    configs.sort(key=lambda file: _rank(file, root))
    sure = [file for file in configs if _rank(file, root) == _rank(configs[0], root)]
    return Beside(tuple(texts), tuple(sure), tuple(lists), frozenset(photos))


def is_yolo(file: Path) -> bool:
    """Return whether the first line that is not blank holds at least five numbers, or there is none."""
    try:
        text = read_bytes(file, LabelError, "make it readable").decode("utf-8-sig", "replace")
    except LabelError:  # said where it is read
        return False
    cells = next((line.split() for line in text.splitlines() if line.strip()), None)
    return cells is None or (len(cells) >= 5 and None not in map(number, cells))


def number(cell: str) -> float | None:
    """Return a cell's number; None where it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def _rank(file: Path, root: Path) -> tuple[bool, int, bool]:
    return file.suffix == ".data", len(file.relative_to(root).parts), file.name.lower() not in CONFIGS


def _has_names(file: Path) -> bool:
    try:
        small = is_file(file) and file.stat().st_size <= MOST_YAML_BYTES
        return small and (file.name.lower() in CONFIGS or _NAMES_KEY.search(file.read_bytes()) is not None)
    except OSError:
        return False


def read_config(path: Path, given: Path | None, places: Sequence[Beside], problems: Problems) -> Config:
    """Return what a data set says of itself.

    Args:
        path: Folder of the data set.
        given: A file of a person's choice.
        places: What lies beside the label files, and in the data set's folder.
        problems: Gets what is wrong.

    Raises:
        LabelError: There are no class names, or several files have some.
    """
    configs = [given] if given is not None else next((list(one.configs) for one in places if one.configs), [])
    if len({file.read_bytes() for file in configs}) > 1:
        inside = [file.relative_to(path) if file.is_relative_to(path) else file for file in configs]
        some = join([shown(file.as_posix()) for file in inside])
        raise LabelError(f"{some} all have `names`; say which one counts with --labels FILE")
    files = dict.fromkeys(file for one in places for file in one.lists)
    lists = {file: dict(enumerate(listed)) for file in files if (listed := list_classes(file, problems))}
    if configs:
        config = _load(configs[0], path, problems)
    elif lists:
        source, names = next(iter(lists.items()))
        config = Config(names, source)
    else:
        looked = ", ".join((*CONFIGS, "*.yaml with names", CLASS_LIST, "obj.names"))
        raise LabelError(
            f"no class names for the YOLO labels in {path}: there is none of {looked}; write a {CLASS_LIST}, one class "
            "a line in the order of the ids, the first is 0"
        )
    for file, names in lists.items():
        other = next((n for n in sorted(names.keys() & config.names) if names[n] != config.names[n]), None)
        if other is not None:
            problems.add(
                file.name,
                f"class {other} is '{shown(names[other])}' in {file}, but '{shown(config.names[other])}' in "
                f"{config.source}; delete the file that is wrong",
            )
    return config


def _load(file: Path, path: Path, problems: Problems) -> Config:
    return _load_darknet(file, path, problems) if file.suffix.lower() == ".data" else _load_yaml(file, problems)


def _load_yaml(file: Path, problems: Problems) -> Config:
    content = read_yaml(file, LabelError, "write the class names as a list under `names`", as_written=True)
    if not isinstance(content, dict) or "names" not in content:
        raise LabelError(f"{file.name} has no `names`; write the class names as a list: names: [cat, dog]")
    names = _names(content["names"], file.name)
    for name, count in sorted(Counter(names.values()).items()):
        if count > 1:
            problems.add(file.name, f"`names` lists '{shown(name)}' more than once")
    if "nc" in content and content["nc"] != str(len(names)):
        given = shown(content["nc"])
        problems.add(file.name, f"`nc` is {given}, but `names` lists {len(names)} classes; make them equal")
    splits = dict[str, list[str]]()
    for key, split in _KEYS.items():
        values = content.get(key)
        texts = [value for value in (values if isinstance(values, list) else [values]) if isinstance(value, str)]
        splits.setdefault(split, []).extend(text for text in texts if text.strip().lower() not in ("", "~", "null"))
    start = content.get("path")
    return Config(names, file, splits, start if isinstance(start, str) else "", _keypoints(content, file, problems))


def _names(names: Any, where: str) -> dict[int, str]:
    """Return the class names by their YOLO ids, rising."""
    ids: list[int] | None = None
    if isinstance(names, dict):
        odd = [shown(id) for id in names if not isinstance(id, str) or re.fullmatch("[0-9]{1,6}", id) is None]
        if odd or len({int(id) for id in names}) < len(names):
            some = ", ".join((odd or [*names])[:20])
            raise LabelError(f"{where}: `names` has the ids {some}; they must be whole numbers, each of them once")
        ids, names = [int(id) for id in names], [*names.values()]
    if not isinstance(names, list):
        parts = [part for part in re.split(r"[\s,;'\"\[\]()-]+", str(names)) if part] or ["cat", "dog"]
        form = shown(f"names: [{', '.join(parts)}]")
        raise LabelError(f"{where}: `names` must be a list of class names, but is '{shown(names)}'; write {form}")
    if wrong := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise LabelError(f"{where}: `names` holds {shown(wrong[0]) or 'a name that is empty'}, which is no class name")
    return dict(sorted(zip(range(len(names)) if ids is None else ids, map(str.strip, names), strict=True)))


def _keypoints(content: dict[str, Any], file: Path, problems: Problems) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdecimal() for n in shape):
        return int(shape[0][:6]) * int(shape[1][:6])
    problems.add(file.name, f"`kpt_shape` is {shown(shape)}; it must be [number of points, 2 or 3]")
    return 0


def _load_darknet(file: Path, path: Path, problems: Problems) -> Config:
    """Read Darknet's `key = value` lines."""
    pairs = (line.partition("=") for line in read_text(file).splitlines() if "=" in line)
    content = {key.strip().lower(): value.strip() for key, _, value in pairs}
    listed = locate(content.get("names", ""), "", [file.parent, path])
    if listed is None or not is_file(listed[0]):
        given = shown(content.get("names", ""))
        raise LabelError(f"{file.name}: `names` is '{given}', and there is no such file below {path}; correct it")
    splits = {_KEYS[key]: [value] for key, value in content.items() if key in _KEYS and value}
    return Config(dict(enumerate(list_classes(listed[0], problems))), file, splits)


def locate(text: str, start: str, bases: Iterable[Path]) -> tuple[Path, bool] | None:
    """Return what a path of a config means here, and whether only its last parts exist here.

    Args:
        text: The path; of another machine, perhaps, with backslashes.
        start: The folder it starts in, by the config's own word.
        bases: Where it may start.

    Returns:
        None where not even its last part exists.
    """
    text, start = (one.strip().replace("\\", "/") for one in (text, start))
    if not text:
        return None
    bases = list(bases)
    inside = [base.resolve() for base in bases]
    for base in bases:
        for place in (base / start / text, base / text):
            if exists(place) and any(place.resolve().is_relative_to(root) for root in inside):
                return place, False
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for first in range(len(parts)):
        if any(map(split_of, parts[:first])) and not any(map(split_of, parts[first:])):
            return None  # what is left of train/images says nothing of a split
        for base in bases:
            if exists(place := base.joinpath(*parts[first:])):
                return place, first > 0 or text.startswith("/")
    return None


def exists(place: Path) -> bool:
    """Return whether there is such a file or folder; never raises, whatever the name."""
    try:
        return place.exists()
    except (OSError, ValueError):
        return False


def read_config_splits(
    config: Config, path: Path, folder: PhotoFolder, problems: Problems, notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the photos of each split that a config names: folders, or text files that list photos."""
    where = config.source.name
    parents = {file.parent: file.parent.resolve() for file in folder.paths.values()}
    splits: dict[str, tuple[str, ...]] = {}
    by_place: dict[Path, tuple[str, str, bool]] = {}
    for split, texts in config.splits.items():
        photos = set[str]()
        for text in texts:
            found = locate(text, config.start, [config.source.parent, path])
            what = f"`{split}`: there is no '{shown(text)}' below {path}"
            if found is None:
                if split == "train":
                    problems.add(where, f"{what}; correct it or delete the line")
                elif split == "val":  # the test photos of public sets are often not there
                    notes.append(f"{what}, so there is no such split")
                continue
            place, loosely = found
            before = by_place.setdefault(place.resolve(), (split, text, loosely))
            if before[1] != text and (loosely or before[2]):
                problems.add(
                    where,
                    f"`{before[0]}: {shown(before[1])}` and `{split}: {shown(text)}` are not below {path}, and both "
                    f"could mean {place.name}; correct them or delete the lines",
                )
            if loosely:
                near = place.relative_to(path) if place.is_relative_to(path) else place
                notes.append(f"`{split}`: '{shown(text)}' is taken to be {near.as_posix()}, which is there")
            if place.is_dir():
                inside = place.resolve()
                photos |= {id for id, file in folder.paths.items() if parents[file.parent].is_relative_to(inside)}
            else:
                photos |= _listed(place, folder, problems)
            if not photos and split == "train":
                problems.add(where, f"`{split}`: there is no photo in '{shown(text)}'")
        if photos:
            splits[split] = tuple(sorted(photos))
    return splits


def _listed(file: Path, folder: PhotoFolder, problems: Problems) -> set[str]:
    found = set[str | None]()
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            found.add(folder.locate(line.strip(), problems, file.name, f"line {number}"))
    return {photo for photo in found if photo is not None}
