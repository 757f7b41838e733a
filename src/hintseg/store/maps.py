"""Class maps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hintseg.errors import RunError, ShapeError
from hintseg.files.arrays import read_arrays
from hintseg.files.atomic import whole_file


def write_maps(path: Path, class_ids: Sequence[int] | npt.NDArray[np.integer], maps: npt.NDArray[np.floating]) -> None:
    """Write the class maps of one photo, whole or not at all.

    Args:
        path: The npz file: ``keys`` (n,) uint8 and ``maps`` (n, h, w) float16.
        class_ids: Class ids 1..K of the maps, (n,); none twice.
        maps: Scores in 0..1, (n, h, w).

    Raises:
        ShapeError: Class ids and maps do not fit together, or values are not in 0..1.
        RunError: The file cannot be written.
    """
    ids = np.asarray(class_ids, dtype=np.int64)
    if maps.ndim != 3 or ids.shape != maps.shape[:1]:
        raise ShapeError(f"class ids {ids.shape} and maps {maps.shape} given, (n,) and (n, h, w) are needed")
    if len(set(ids.tolist())) < len(ids) or (ids.size and not (ids.min() >= 1 and ids.max() <= 254)):
        raise ShapeError(f"class ids {ids.tolist()} given, different class ids in 1..254 are needed")
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise ShapeError(f"maps from {maps.min()} to {maps.max()} given, 0..1 is needed; normalise them first")
    with whole_file(path) as file:
        np.savez_compressed(file, keys=ids.astype(np.uint8), maps=maps.astype(np.float16))


def read_maps(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Read class ids (n,) uint8 and class maps (n, h, w) float32 in 0..1. Never runs code of the file.

    Raises:
        RunError: The file is missing, broken, or holds something else.
    """
    class_ids, maps = read_arrays(path, {"keys": "ui", "maps": "f"})
    if maps.ndim != 3 or class_ids.shape != maps.shape[:1]:
        raise RunError(f"{path}: keys {class_ids.shape} and maps {maps.shape} found, (n,) and (n, h, w) are needed")
    if len(np.unique(class_ids)) < len(class_ids) or (
        class_ids.size and not 1 <= class_ids.min() <= class_ids.max() <= 254
    ):
        raise RunError(
            f"{path}: keys {class_ids.tolist()} found, different class ids in 1..254 are needed; make it again"
        )
    if 0 in maps.shape[1:] or (maps.size and not (maps.min() >= 0 and maps.max() <= 1)):
        raise RunError(f"{path}: maps {maps.shape} with values outside 0..1 found; make it again")
    return class_ids.astype(np.uint8), maps.astype(np.float32)
