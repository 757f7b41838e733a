"""Masks of single objects: one small npz per photo, and what other tools read (instance PNG, COCO, YOLO segment)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.errors import RunError, ShapeError
from hintseg.files.arrays import read_arrays
from hintseg.files.atomic import whole_file
from hintseg.geometry import runs
from hintseg.geometry.polygons import join, outlines
from hintseg.types import BACKGROUND

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

MOST_BITS = 1 << 29
"""The most pixels of all windows of a photo together."""


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of one photo.

    Attributes:
        size: (height, width) of the photo, pixels.
        labels: Class ids 1..K, (n,) uint8.
        windows: (n, 4) int64 pixel windows (x0, y0, x1, y1), right and bottom exclusive, inside the photo.
        masks: One (y1 - y0, x1 - x0) bool mask per object, within its window.
    """

    size: tuple[int, int]
    labels: Bytes
    windows: npt.NDArray[np.int64]
    masks: Sequence[Bools]

    def __post_init__(self) -> None:
        shapes = [(int(y1 - y0), int(x1 - x0)) for x0, y0, x1, y1 in self.windows]
        if len(self.labels) != len(shapes) or [mask.shape for mask in self.masks] != shapes:
            raise ShapeError(
                f"{len(self.labels)} labels, {len(shapes)} windows of {shapes[:3]} and {len(self.masks)} masks of "
                f"{[mask.shape for mask in self.masks[:3]]} given; one each per object, of one size"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def front(self) -> list[int]:
        """Return the objects' indices from back to front: large windows lie behind small ones, ties in given order.

        Source:
            Xie et al., BMVC 2020, section 3.2: the smaller of two boxes that overlap is more likely in front.
        """
        x0, y0, x1, y1 = self.windows.T if len(self) else np.zeros((4, 0), np.int64)
        return np.argsort(-(x1 - x0) * (y1 - y0), kind="stable").tolist()  # type: ignore[no-any-return]

    def semantic(self) -> Bytes:
        """Paint all objects from back to front, only their own pixels: (H, W) uint8, 0 background, 1..K.

        Example:
            >>> windows = np.array([[0, 0, 1, 2], [0, 0, 3, 2]])
            >>> masks = [np.ones((2, 1), bool), np.ones((2, 3), bool)]
            >>> Instances((2, 4), np.array([1, 2], np.uint8), windows, masks).semantic().tolist()
            [[1, 2, 2, 0], [1, 2, 2, 0]]
        """
        return self._paint(self.labels, np.uint8)  # type: ignore[return-value]

    def ids(self) -> npt.NDArray[np.uint16]:
        """Paint the number 1..n of each object, (H, W) uint16, 0 background; hidden parts are left out."""
        return self._paint(np.arange(1, len(self) + 1), np.uint16)  # type: ignore[return-value]

    def full(self, index: int) -> Bools:
        """Return one object's mask on the photo, (H, W) bool."""
        mask = np.zeros(self.size, np.bool_)
        x0, y0, x1, y1 = self.windows[index].tolist()
        mask[y0:y1, x0:x1] = self.masks[index]
        return mask

    def _paint(self, values: npt.NDArray[np.integer], kind: type[np.integer]) -> npt.NDArray[np.integer]:
        mask = np.full(self.size, BACKGROUND, kind)
        for index in self.front():
            x0, y0, x1, y1 = self.windows[index].tolist()
            mask[y0:y1, x0:x1][self.masks[index]] = values[index]
        return mask


def write_instances(path: Path, instances: Instances) -> None:
    """Write the objects of one photo, whole or not at all, as an npz of one bit per pixel of each window.

    Raises:
        RunError: The file cannot be written.
    """
    flat = np.concatenate([mask.ravel() for mask in instances.masks] or [np.zeros(0, np.bool_)])
    with whole_file(path) as file:
        np.savez_compressed(
            file,
            size=np.array(instances.size, np.int64),
            labels=instances.labels.astype(np.uint8),
            windows=instances.windows.astype(np.int64).reshape(-1, 4),
            bits=np.packbits(flat),
        )


def read_instances(path: Path) -> Instances:
    """Read the objects of one photo. Never runs code of the file.

    Raises:
        RunError: The file is missing, broken, or holds something else.
    """
    kinds = {"size": "i", "labels": "u", "windows": "i", "bits": "u"}
    size, labels, windows, bits = read_arrays(path, kinds, most=MOST_BITS // 8)
    try:
        height, width = size.reshape(2).tolist()
        windows = windows.astype(np.int64).reshape(-1, 4)
        x0, y0, x1, y1 = windows.T
        inside = (x0 >= 0) & (x0 <= x1) & (x1 <= width) & (y0 >= 0) & (y0 <= y1) & (y1 <= height)
        if not inside.all() or not 1 <= height * width <= MOST_BITS or bits.dtype != np.uint8 or (labels < 1).any():
            raise ValueError(f"windows that do not fit into {width} x {height} pixels, or labels of 0")
        areas = (x1 - x0) * (y1 - y0)
        if (needed := -(-int(areas.sum()) // 8)) != bits.size:
            raise ValueError(f"{bits.size} bytes of masks, {needed} are needed")
        flat = np.unpackbits(bits, count=int(areas.sum())).astype(np.bool_)
        shapes = np.stack([y1 - y0, x1 - x0], axis=1).tolist()
        parts = [
            part.reshape(shape) for part, shape in zip(np.split(flat, np.cumsum(areas)[:-1]), shapes, strict=False)
        ]
        return Instances((height, width), labels.astype(np.uint8).reshape(-1), windows, parts)
    except ValueError as error:  # also of numpy, and ShapeError
        raise RunError(f"{path}: cannot be read as instances of a photo ({error}); make them again") from error


def write_objects(out: Path, photos: Iterable[tuple[str, str, Instances]], classes: Sequence[str]) -> None:
    """Write objects in the forms other tools read, each file whole or not at all.

    - ``instances/ID.png``: the objects' numbers 1..n as 16-bit grey, 0 background; hidden parts left out.
    - ``coco.json``: COCO with run lengths, one annotation per object, hidden parts included. Image ids count from 1 in
      the given order, category ids are the class ids 1..K.
    - ``coco_polygons.json``: the same with outlines. COCO's polygons know no holes: those are filled.
    - ``yolo/labels/ID.txt`` and ``yolo/data.yaml``: YOLO segment, classes counted from 0, outlines as shares of width
      and height. It has one outline per object and no holes: separate parts are joined by bridges of no width.

    Objects without a pixel are left out of COCO and YOLO.

    Args:
        out: The folder.
        photos: Id, file name and objects of each photo.
        classes: Names of the K classes.

    Raises:
        RunError: A file cannot be written.

    Cost:
        About 1 ms per object.
    """
    images: list[dict[str, object]] = []
    with_runs: list[dict[str, object]] = []
    with_rings: list[dict[str, object]] = []
    for number, (id, name, instances) in enumerate(photos, start=1):
        height, width = instances.size
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        lines = []
        for index, label in enumerate(instances.labels.tolist()):
            mask, corner = instances.masks[index], instances.windows[index, :2]
            if not mask.any():
                continue
            rings = [ring + corner for ring in outlines(mask)]
            common = {"id": len(with_runs) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
            common |= {"area": int(mask.sum()), "bbox": _bounds(mask, corner)}
            coded = runs.encode_part(mask, (int(corner[0]), int(corner[1])), instances.size)
            counts = {"size": [height, width], "counts": runs.write_counts(coded.counts)}
            with_runs.append(common | {"segmentation": counts})
            with_rings.append(common | {"segmentation": [np.round(ring, 2).ravel().tolist() for ring in rings]})
            points = (join(rings) / (width, height)).ravel().tolist()
            lines.append(f"{label - 1} " + " ".join(f"{value:.6g}" for value in points) + "\n")
        with whole_file(out / "instances" / f"{id}.png") as file:
            Image.fromarray(instances.ids()).save(file, "PNG")
        with whole_file(out / "yolo" / "labels" / f"{id}.txt") as file:
            file.write("".join(lines).encode())
    categories = [{"id": label, "name": name} for label, name in enumerate(classes, start=1)]
    for name, found_there in (("coco.json", with_runs), ("coco_polygons.json", with_rings)):
        with whole_file(out / name) as file:
            found = {"images": images, "annotations": found_there, "categories": categories}
            file.write(json.dumps(found).encode())
    names = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(classes)]
    with whole_file(out / "yolo" / "data.yaml") as file:
        file.write("\n".join(["names:", *names, ""]).encode())


def _bounds(mask: Bools, corner: npt.NDArray[np.int64]) -> list[int]:
    """Return COCO's box (x, y, width, height) around a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return [x + int(corner[0]), y + int(corner[1]), int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
