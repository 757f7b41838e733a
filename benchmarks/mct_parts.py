"""The parts of MCTformer's maps, each as seeds of its own, and where its patches look."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.data.photos import read_photo
from hintseg.evaluation.sweep import SeedSweep
from hintseg.methods.mctformer import MctFormer
from hintseg.nn.vit import VitOutput
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE

THRESHOLDS = (-0.5, *(step / 20 for step in range(1, 19)))
"""Below the first no pixel is background, as in data without any."""

PARTS = ("patch map", "attention", "fused", "after affinity")
SHARES = ("attention of an object's patches to it", "attention of others to it", "object's share of cells")
SMALLEST = 4
"""Objects on fewer cells are left out of the shares of attention."""

PHOTOS = 120
"""Training photos that are looked at, evenly dealt."""


def mct_parts(run: RunFolder) -> dict[str, float]:
    """Return how good each part of a run's maps is (one scale and its mirror image), and where patches look.

    Each part is scored at its own best background threshold, chosen on the truth; what it says of classes alone.

    Returns:
        The oracle mIoU of each of `PARTS`, and the shares of attention and of cells of `SHARES`, 0..1.
    """
    method, classes, _ = load_weights(run.stage("localize") / "model.safetensors")
    if not isinstance(method, MctFormer):
        raise SystemExit(f"{run.path} has trained no MCTformer")
    sweeps = [SeedSweep(len(classes), THRESHOLDS) for _ in PARTS]
    objects: list[tuple[float, float, float]] = []
    photos = [photo for photo in run.photos if photo.split == "train" and photo.truth and photo.tags]
    for photo in photos[:: max(1, len(photos) // PHOTOS)]:
        truth = read_label_png(run.truth_path(photo.id))
        image = torch.from_numpy(read_photo(photo.path)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            seen = method.backbone.attention(torch.cat([image, image.flip(3)]), layers=method.config.attention_layers)
            keys = sorted(photo.tags or ())
            for sweep, both in zip(sweeps, parts(method, seen), strict=True):
                maps = zero_to_one(both[0] + both[1].flip(2))
                grown = interpolate(maps[None], truth.shape, mode="bilinear")[0]
                sweep.add(truth, keys, grown[[key - 1 for key in keys]].numpy())
        grid = seen.patches.shape[2:]
        cells = interpolate(torch.from_numpy(truth)[None, None].float(), grid, mode="nearest-exact")[0, 0]
        objects += shares(seen.affinity[0], cells)
    found = {name: float(sweep.best()[1]) for name, sweep in zip(PARTS, sweeps, strict=True)}
    return found | dict(zip(SHARES, np.mean(objects, axis=0).tolist(), strict=True))


def parts(method: MctFormer, seen: VitOutput) -> list[Tensor]:
    """Return the maps of PARTS, (B, K, h, w) each."""
    patch = torch.relu(method.head(seen.patches).float())
    attention = seen.class_to_patch.view_as(patch)
    fused = patch * attention
    spread = (fused.flatten(2) @ seen.affinity.transpose(1, 2)).view_as(patch)
    return [patch, attention, fused, spread]


def zero_to_one(maps: Tensor) -> Tensor:
    """Stretch each map of (K, h, w) to 0..1."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-8)


def shares(affinity: Tensor, cells: Tensor) -> list[tuple[float, float, float]]:
    """Return (attention of an object's patches to it, of all others to it, its area) for each object of (h, w)."""
    rows, cells = affinity / affinity.sum(dim=1, keepdim=True), cells.flatten()
    found = []
    for label in cells.unique().tolist():
        on = cells == label
        if label not in (0, IGNORE) and SMALLEST <= int(on.sum()) < len(on):
            to = rows[:, on].sum(dim=1)
            found.append((float(to[on].mean()), float(to[~on].mean()), float(on.float().mean())))
    return found
