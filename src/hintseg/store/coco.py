"""Masks as one COCO JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hintseg.files.atomic import whole_file
from hintseg.geometry.runs import bounds, encode, write_counts
from hintseg.store.masks import MaskStore
from hintseg.types import BACKGROUND, IGNORE


def write_coco(path: Path, store: MaskStore, *, files: Mapping[str, str] | None = None) -> None:
    """Write the masks of a store as COCO JSON, whole or not at all: one annotation per class and photo.

    Image ids count from 1 in the order of the photo ids, category ids are the class ids 1..K. Background and 255 are
    not written.

    Args:
        path: The JSON file.
        store: The masks.
        files: File names by photo id; other masks of the store are left out. None: all, as ``ID.jpg``.

    Raises:
        LabelError: A mask cannot be read.
        RunError: The file cannot be written.
    """
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    ids = [id for id in store.ids() if files is None or id in files]
    for number, id in enumerate(ids, start=1):
        mask = store.read(id)
        name = f"{id}.jpg" if files is None else files[id]
        images.append({"id": number, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]})
        for label in np.unique(mask).tolist():
            if label not in (BACKGROUND, IGNORE):
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": label, **_region(mask == label)}
                )
    categories = [{"id": label, "name": name} for label, name in enumerate(store.classes, start=1)]
    with whole_file(path) as file:
        file.write(json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode())


def _region(region: npt.NDArray[np.bool_]) -> dict[str, object]:
    """Describe a region (H, W) that is not empty in COCO's words; its box is (x, y, width, height)."""
    rle = encode(region)
    x0, y0, x1, y1 = bounds(rle) or (0, 0, 0, 0)
    return {
        "segmentation": {"size": [rle.height, rle.width], "counts": write_counts(rle.counts)},
        "area": int(region.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
