"""The parts of MCTformer's maps, each as seeds of its own, and where its patches look: docs/notebook.md.

python benchmarks/mct_parts.py RUN DATA [--photos 120]

RUN has trained an MCTformer on DATA. Each part of its maps (one scale and its mirror image) is scored at its own best
background threshold, chosen on the truth. Below: how much attention patches on an object and patches elsewhere give to
it, and how far each patch's attention lies from the mean of all, in total variation. Prints markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.data.photos import read_photo
from hintseg.evaluation.sweep import SeedSweep
from hintseg.hints import read_hints
from hintseg.methods.mctformer import MctFormer
from hintseg.nn.vit import VitOutput
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE

THRESHOLDS = tuple(step / 20 for step in range(1, 19))
PARTS = ("patch map", "attention", "fused", "after affinity")
SMALLEST = 4
"""Objects on fewer cells are left out of the shares of attention."""


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=120)
    args = parser.parse_args()
    method, classes, _ = load_weights(args.run / "localize" / "model.safetensors")
    if not isinstance(method, MctFormer):
        raise SystemExit(f"{args.run} has trained no MCTformer")
    sweeps = [SeedSweep(len(classes), THRESHOLDS) for _ in PARTS]
    objects: list[tuple[float, float, float]] = []
    differs: list[float] = []
    hints = read_hints(args.data)
    for photo in [p for p in hints.photos if p.id in set(hints.splits["train"])][: args.photos]:
        truth = read_label_png(args.run / "truth" / f"{photo.id}.png")
        image = torch.from_numpy(read_photo(photo.path)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            seen = method.backbone.attention(torch.cat([image, image.flip(3)]), layers=method.config.attention_layers)
            keys = sorted(photo.hints.tags or ())
            for sweep, both in zip(sweeps, parts(method, seen), strict=True):
                maps = zero_to_one(both[0] + both[1].flip(2))
                grown = interpolate(maps[None], truth.shape, mode="bilinear")[0]
                sweep.add(truth, keys, grown[[key - 1 for key in keys]].numpy())
        grid = seen.patches.shape[2:]
        cells = interpolate(torch.from_numpy(truth)[None, None].float(), grid, mode="nearest-exact")[0, 0]
        affinity = seen.affinity[0]
        objects += shares(affinity, cells)
        rows = affinity / affinity.sum(dim=1, keepdim=True)
        differs.append(float((rows - rows.mean(dim=0)).abs().sum(dim=1).mean() / 2))
    print(f"| {' | '.join(PARTS)} |\n|" + "---|" * len(PARTS))
    print("| " + " | ".join(f"{100 * sweep.best()[1]:.1f}" for sweep in sweeps) + " |\n")
    own, others, area = 100 * np.mean(objects, axis=0)
    print(f"an object covers {area:.0f} % of the cells; its own patches give it {own:.0f} % of their attention, all")
    print(f"others {others:.0f} %; rows differ from their mean by {np.mean(differs):.2f}")


if __name__ == "__main__":
    main()
