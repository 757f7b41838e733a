"""The table of formats, and recognising the format of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from hintseg.errors import LabelError
from hintseg.hints import cls_labels, coco, csv, folders, index_png, points, voc, yolo
from hintseg.hints.layout import TRUTH_FOLDERS
from hintseg.hints.photos import LABEL_FOLDERS, MASK_FOLDERS, PHOTO_FOLDERS
from hintseg.hints.tables import kind_of, read_rows
from hintseg.types import HintSet


class Reader(Protocol):
    """What every format's `read` looks like."""

    def __call__(
        self, path: Path, labels: Path | None, *, unlabelled: int | None = None, background: bool = True
    ) -> HintSet:
        """Read a labelled folder."""
        ...


class Format(NamedTuple):
    """One format: its reader, what it is, and what it is recognised by."""

    read: Reader
    summary: str
    sign: str


FORMATS: dict[str, Format] = {
    "folders": Format(folders.read, "a folder of photos per class", "sub-folders with photos, and no label file"),
    "csv": Format(csv.read, "CSV of tags, one-hot tags, or boxes", f"one of {', '.join(csv.FILES)}"),
    "voc": Format(
        voc.read, "Pascal VOC layout: XML boxes, masks, split lists", "JPEGImages beside Annotations or masks"
    ),
    "coco": Format(
        coco.read, "COCO instances JSON: boxes, polygons, RLE", "a JSON with images, annotations, categories"
    ),
    "yolo": Format(
        yolo.read, "YOLO .txt with data.yaml: boxes or polygons", "data.yaml, or a folder labels with .txt files"
    ),
    "index_png": Format(index_png.read, "index PNGs: masks or scribbles", f"PNGs in one of {', '.join(MASK_FOLDERS)}"),
    "points": Format(points.read, "CSV of points", f"one of {', '.join(points.FILES)}"),
    "cls_labels": Format(cls_labels.read, "cls_labels.npy of research code", cls_labels.FILE),
}
"""All formats by name."""

_BY_SUFFIX = {".json": "coco", ".npy": "cls_labels", ".yaml": "yolo", ".yml": "yolo"}
_BY_CONTENT = {".xml": "voc", ".txt": "yolo", ".png": "index_png", ".json": "coco"}


def recognise(path: Path, labels: Path | None = None) -> str:
    """Return the name of the format of a labelled folder.

    Args:
        path: Folder of the data set.
        labels: Label file or folder, where one is given; then it alone decides.

    Raises:
        LabelError: No format fits, or more than one (a Pascal VOC layout aside); the message says how to name it.

    Cost:
        A JSON that is not called `instances*` is read to see what it holds.
    """
    if not path.is_dir():
        raise LabelError(f"{path} is not a folder; name the folder of the data set")
    if labels is not None:
        return _recognise_labels(labels)
    found = _fitting(path)
    if len(found) == 1 or "voc" in found:  # a whole layout of folders is no accident; single files may lie beside it
        return "voc" if "voc" in found else found[0]
    if found:
        shown = ", ".join(f"'{name}' ({FORMATS[name].sign})" for name in found)
        raise LabelError(
            f"{path} fits {len(found)} formats: {shown}; choose one with --format {found[0]} or another of them"
        )
    looked = "\n".join(f"  {name}: {entry.sign}" for name, entry in FORMATS.items())
    raise LabelError(
        f"no known labels in {path}. Looked for:\n{looked}\nName the file with --labels FILE and --format NAME"
    )


def _recognise_labels(labels: Path) -> str:
    if not labels.exists():
        raise LabelError(f"the labels {labels} are missing; correct the path")
    if labels.is_dir():
        suffixes = {file.suffix.lower() for file in labels.rglob("*") if file.is_file() and file.name != "classes.txt"}
        found = [name for suffix, name in _BY_CONTENT.items() if suffix in suffixes]
        if len(found) == 1:
            return found[0]
        raise LabelError(
            f"the folder {labels} does not show its format; name it with --format NAME: {', '.join(FORMATS)}"
        )
    known = _BY_SUFFIX.get(labels.suffix.lower())
    if known is not None:
        return known
    if labels.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise LabelError(f"the label file {labels} has an unknown suffix; name its format with --format NAME")
    return "points" if kind_of(read_rows(labels)) == "points" else "csv"


def _fitting(path: Path) -> list[str]:
    """Return the names of the formats whose sign is there."""
    found = []
    root = voc.voc_root(path)
    if root is not None and any((root / name).is_dir() for name in LABEL_FOLDERS):
        found.append("voc")  # tags.csv is part of this layout
    elif any((path / name).is_file() for name in csv.FILES):
        found.append("csv")
    if coco.find_json(path):
        found.append("coco")
    if yolo.find_config(path, None) or next((path / "labels").rglob("*.txt"), None):
        found.append("yolo")
    if any((path / name).is_file() for name in points.FILES):
        found.append("points")
    if (path / cls_labels.FILE).is_file():
        found.append("cls_labels")
    masks = index_png.find_folder(path, None) if root is None else None
    if masks is not None and (masks.name not in TRUTH_FOLDERS or not found):  # beside other labels it is the truth
        found.append("index_png")
    if not found:
        names = {child.name for part in folders.split_folders(path) for child in folders.class_folders(part)}
        if names - set(PHOTO_FOLDERS) - set(folders.NEGATIVE_FOLDERS):
            found.append("folders")
    return found
