"""What a segmenter with attention looks at: heat maps of a few pixels, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hintseg.config.run import RunConfig
from hintseg.data.inference import equal_size_batches
from hintseg.files.atomic import whole_file
from hintseg.methods.lgsa import LgsaDeepLabV2
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training import machine
from hintseg.types import IGNORE, Photo

QUERIES = 3
"""Pixels per photo, one in each of its largest regions."""

SMALLEST = 0.01
"""Share of a photo that a region with a query covers at least."""


def write_affinity(run: RunFolder, method: LgsaDeepLabV2, photos: Sequence[Photo], config: RunConfig) -> None:
    """Write the rows of the affinity matrix of a few pixels of photos that have a predicted mask.

    ``RUN/segment/affinity/ID.npz`` holds ``queries`` (Q, 2), x and y as shares of the photo, and ``maps`` (Q, h, w),
    each of maximum 1.

    Source:
        Fig. 6 of the CFS and LGSA paper.
    """
    where, folder = machine.device(config.trainer), run.stage("segment")
    method.to(where).eval()
    predicted = [photo for photo in photos if (folder / "masks" / f"{photo.id}.png").is_file()]
    for group, pixels in equal_size_batches(predicted, 1, longest=config.data.longest):
        queries = inner_points(read_label_png(folder / "masks" / f"{group[0].id}.png"))
        images = pixels.to(where).float() / 255
        with machine.autocast(config.trainer):
            rows = method.affinity(images, torch.from_numpy(queries)[None].float().to(where))[0]
        maps = rows.float() / rows.float().amax(dim=(1, 2), keepdim=True)
        _write(folder / "affinity" / f"{group[0].id}.npz", queries, maps.cpu().numpy())
    method.to("cpu")


def inner_points(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the innermost pixel of each of the largest regions of a mask, (Q, 2), x and y as shares of its size.

    Example:
        >>> mask = np.zeros((9, 9), np.uint8)
        >>> mask[:, 6:] = 2
        >>> (inner_points(mask) * 9).tolist()
        [[3.5, 4.5], [7.5, 4.5]]
    """
    import cv2

    labels, counts = np.unique(mask[mask != IGNORE], return_counts=True)
    points = []
    for index in np.argsort(-counts, kind="stable")[:QUERIES]:
        if counts[index] >= SMALLEST * mask.size:
            region = np.pad((mask == labels[index]).astype(np.uint8), 1)
            depth = cv2.distanceTransform(region, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            deepest = np.argwhere(depth == depth.max())
            y, x = deepest[len(deepest) // 2]
            points.append(((x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]))
    return np.array(points).reshape(-1, 2)


def _write(path: Path, queries: npt.NDArray[np.float64], maps: npt.NDArray[np.float32]) -> None:
    with whole_file(path) as file:
        np.savez_compressed(file, queries=queries, maps=maps.astype(np.float16))
