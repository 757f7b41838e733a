"""YOLO: `data.yaml` with the class names and splits, one .txt per photo with boxes or polygons.

`images/train/a.jpg` has its labels in `labels/train/a.txt`. A line is `class x y width height` (a box by its centre) or
`class x y x y x y ...` (a polygon), all as shares of the photo's width and height; class 0 becomes id 1. An empty .txt
says that the photo shows no class; a photo without .txt is unlabelled. Without `data.yaml` the names come from
`classes.txt`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hintseg.errors import LabelError, PhotoError, shown
from hintseg.files.parse import read_bytes, read_yaml
from hintseg.formats.codec import Fit, holds
from hintseg.formats.layout import (
    CLASS_LIST,
    Found,
    assemble,
    boxes_and_truth,
    check_classes,
    read_classes,
    read_splits,
)
from hintseg.formats.photos import PhotoFolder, find_photos, photo_size
from hintseg.formats.problems import Problems, read_text
from hintseg.formats.records import Reading
from hintseg.geometry.boxes import fit_box
from hintseg.types import Box, HintSet, Region, Supervision

CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_SPLITS = ("train", "val", "test")
_NOT_LABELS = (CLASS_LIST, "train.txt", "val.txt", "test.txt", "obj.names")


def find_config(path: Path, labels: Path | None) -> Path | None:
    """Return the given .yaml file, or the one of `CONFIGS` in the data set's folder."""
    if labels is not None and labels.suffix.lower() in (".yaml", ".yml"):
        return labels
    return next((path / name for name in CONFIGS if (path / name).is_file()), None)


class Yolo:
    """YOLO .txt with data.yaml: boxes or polygons."""

    name = "yolo"
    carries = frozenset({Supervision.BOXES, Supervision.MASKS})
    sign = "data.yaml, or a folder labels with .txt files"

    def sniff(self, path: Path, labels: Path | None) -> Fit:
        """Look for `data.yaml` or a folder `labels` with .txt files, or for those in the given folder."""
        if labels is not None:
            return Fit.WEAK if labels.suffix.lower() in (".yaml", ".yml") or holds(labels, ".txt") else Fit.NO
        return Fit.YES if find_config(path, None) or next((path / "labels").rglob("*.txt"), None) else Fit.NO

    def read(self, path: Path, labels: Path | None, reading: Reading) -> HintSet:
        """Read a YOLO data set, for detection or for segmentation.

        Args:
            path: Folder of the data set.
            labels: The `data.yaml`, or the folder of the .txt files; None looks for both below `path`.
            reading: How it is to be read.

        Raises:
            LabelError: There are no class names or no .txt files, or all problems of the files at once.

        Cost:
            The head of every labelled photo is read for its size.
        """
        background = reading.background
        config = find_config(path, labels)
        label_folder = labels if labels is not None and labels.is_dir() else None
        problems, notes = Problems(), list[str]()
        folder = find_photos(path)
        if config is not None:
            content = _load(config)
            classes = _names(content, config.name, problems)
        else:
            listed = read_classes(path, label_folder or path / "labels", problems, background=False)
            if listed is None:
                looked = ", ".join((*CONFIGS, CLASS_LIST))
                raise LabelError(
                    f"no class names for the YOLO labels in {path}: there is none of {looked}; write a data.yaml"
                )
            content, classes = {}, listed
        files = {photo: _label_file(path, label_folder, photo, file) for photo, file in folder.paths.items()}
        known = {file for file in files.values() if file.is_file()}
        if not known:
            example = next(iter(files.values()))
            raise LabelError(f"no photo below {folder.root} has its .txt file; the first would be {example}")
        for parent in sorted({file.parent for file in files.values()}):
            for file in sorted(parent.glob("[!.]*.txt")):
                if file not in known and file.name not in _NOT_LABELS:
                    problems.add(parent.name, f"{file.name}: there is no photo of this name")
        objects: dict[str, list[Found]] = {}
        repeated = 0
        for photo, file in files.items():
            if file in known:
                found = _read_labels(file, folder.paths[photo], classes, problems)
                objects[photo] = list(dict.fromkeys(found))
                repeated += len(found) - len(objects[photo])
        if repeated:
            notes.append(f"{repeated} lines that repeat another line of their file are left out")
        splits = _splits(content, config, path, folder, problems) if config else read_splits(path, folder, problems)
        hints, truth = boxes_and_truth(objects, len(classes))
        return assemble(
            path,
            folder,
            classes,
            hints,
            truth=truth,
            source="the .txt files",
            problems=problems,
            notes=notes,
            splits=splits,
            background=background,
        )


def _load(config: Path) -> dict[str, Any]:
    content = read_yaml(config, LabelError, "write the class names as a list under `names`")
    if not isinstance(content, dict) or "names" not in content:
        raise LabelError(f"{config.name} has no `names`; write the class names as a list")
    return content


def _names(content: dict[str, Any], where: str, problems: Problems) -> tuple[str, ...]:
    """Return the class names in the order of their YOLO ids."""
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            some = ", ".join(map(shown, [*names][:20])) + (", ..." if len(names) > 20 else "")
            problems.add(where, f"`names` has the ids {some}; they must be 0..{len(names) - 1}")
            return tuple(str(name) for name in names.values())
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise LabelError(f"{where}: `names` must be a list of class names, but is {shown(names)}")
    classes = tuple(str(name).strip() for name in names)
    check_classes(classes, where, problems)
    for name in sorted({name for name in classes if classes.count(name) > 1}):
        problems.add(where, f"`names` lists '{shown(name)}' more than once")
    count = content.get("nc", len(classes))
    if count != len(classes):
        problems.add(where, f"`nc` is {shown(count)}, but `names` lists {len(classes)} classes; make them equal")
    return classes


def _label_file(path: Path, label_folder: Path | None, photo: str, file: Path) -> Path:
    """Return where the labels of a photo are expected."""
    if label_folder is not None:
        return label_folder / f"{photo}.txt"
    parts = list(file.relative_to(path).parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
        return path.joinpath(*parts).with_suffix(".txt")
    if (path / "labels").is_dir():
        return path / "labels" / f"{photo}.txt"
    return file.with_suffix(".txt")


def _read_labels(file: Path, photo: Path, classes: tuple[str, ...], problems: Problems) -> list[Found]:
    """Return the objects of one .txt file."""
    where = file.parent.name
    if not read_bytes(file, LabelError, "write the labels into it").strip():
        return []
    try:
        height, width = photo_size(photo)
        text = read_text(file)
    except (PhotoError, LabelError) as error:
        problems.add(where, f"{file.name}: {error}")
        return []
    boxes = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            boxes.append(_object(line.split(), len(classes), height, width))
        except LabelError as error:
            problems.add(where, f"{file.name} line {number}: {error}")
    return boxes


def _object(cells: list[str], n_classes: int, height: int, width: int) -> Found:
    """Return the object of one line, in pixels."""
    try:
        label, values = float(cells[0]), [float(cell) for cell in cells[1:]]
    except ValueError:
        raise LabelError(f"'{shown(' '.join(cells))}' holds something that is not a number") from None
    if not (label.is_integer() and 0 <= label < n_classes):
        raise LabelError(f"class {shown(cells[0])} is outside the class list, which has the ids 0..{n_classes - 1}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise LabelError(f"{len(cells)} columns; a box has 5, a polygon 1 + 2 for each of at least 3 points")
    if any(value > 2 for value in values):
        raise LabelError(f"{max(values):g} is above 1; coordinates are shares of the photo's width and height")
    if len(values) == 4:
        x, y, w, h = values
        corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        return Found(int(label) + 1, Box(*fit_box(corners, (height, width))))
    if not all(map(math.isfinite, values)):
        raise LabelError("the polygon holds something that is not a number")
    xs, ys = [value * width for value in values[0::2]], [value * height for value in values[1::2]]
    ring = tuple(value for point in zip(xs, ys, strict=True) for value in point)
    box = Box(*fit_box((min(xs), min(ys), max(xs), max(ys)), (height, width)))
    return Found(int(label) + 1, box, Region((ring,)))


def _splits(
    content: dict[str, Any], config: Path, path: Path, folder: PhotoFolder, problems: Problems
) -> dict[str, tuple[str, ...]]:
    """Return the photos of each split that `data.yaml` names: folders, or text files that list photos."""
    start = Path(str(content.get("path") or "."))
    bases = [config.parent / start, config.parent, path]  # `path` is often that of the author's own machine
    splits: dict[str, tuple[str, ...]] = {}
    for split in _SPLITS:
        values = content.get(split) or []
        photos: set[str] = set()
        for value in values if isinstance(values, list) else [values]:
            text = str(value).removeprefix("../")
            place = next((base / text for base in bases if (base / text).exists()), None)
            if place is None:
                if split != "test":  # the test photos of public sets are often not there
                    problems.add(
                        config.name,
                        f"`{split}`: there is no '{shown(value)}' below {path}; correct it or delete the line",
                    )
            elif place.is_dir():
                inside = place.resolve()
                photos |= {p for p, file in folder.paths.items() if file.resolve().is_relative_to(inside)}
            else:
                lines = read_text(place).splitlines()
                found = [
                    folder.locate(line.strip(), problems, place.name, f"line {number}")
                    for number, line in enumerate(lines, start=1)
                    if line.strip()
                ]
                photos |= {photo for photo in found if photo is not None}
        if photos:
            splits[split] = tuple(sorted(photos))
        elif values and split != "test":
            problems.add(config.name, f"`{split}`: there is no photo in {shown(values)}")
    return splits
