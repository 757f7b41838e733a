"""What tight boxes change in CFS's masks, and what they cost where boxes are loose: docs/notebook.md, "Tight boxes".

python benchmarks/tight_boxes.py RUN DATA [--grow 0 0.02 0.05] [--every 1] [--size 128]

RUN has trained CFS on DATA's boxes. Its network sees every box again, made larger by `--grow` of it on every side, and
its probabilities are cut at 0.5 and at the sides, without a second GrabCut. `--every 3` takes each third photo: numbers
looked up on those can be checked on the others. Prints markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hintseg.data.crops import BoxMap, foreground_of
from hintseg.data.photos import read_photo
from hintseg.evaluation.confusion import Confusion
from hintseg.geometry.boxes import pixel_window
from hintseg.hints import read_hints
from hintseg.methods.cfs import Cfs
from hintseg.refine.tightness import lift_to_sides
from hintseg.store.instances import Instances
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import Box, Mark, Photo

CUTS: dict[str, dict[str, float] | None] = {
    "cut at 0.5": None,
    "down to 0.1, 2 % of slack": {"least": 0.1, "slack": 0.02},
    "down to 0.2, 5 %": {},
}


def larger(box: Mark[Box], share: float) -> Mark[Box]:
    """Return the box with every side moved outwards by a share of its width or height."""
    x0, y0, x1, y1 = box.shape.corners
    across, down = share * (x1 - x0), share * (y1 - y0)
    return replace(box, shape=Box(x0 - across, y0 - down, x1 + across, y1 + down))


def cut(
    rgb_size: tuple[int, int], boxes: list[Mark[Box]], maps: Iterable[BoxMap], how: dict[str, float] | None
) -> Instances:
    """Cut the probabilities of a photo's boxes into masks."""
    masks = []
    for found in maps:
        x0, y0, x1, y1 = found.inner
        lifted = found.probability if how is None else lift_to_sides(found.probability, found.inner, **how)
        mask = lifted[y0:y1, x0:x1] > 0.5
        masks.append(mask if mask.any() else np.ones_like(mask))
    windows = np.array([pixel_window(box.shape.corners, rgb_size) for box in boxes], np.int64).reshape(-1, 4)
    return Instances(rgb_size, np.array([box.label for box in boxes], np.uint8), windows, masks)


def measure(run: Path, photos: list[Photo], network: Cfs, grow: float, size: int) -> list[Confusion]:
    """Return one confusion matrix for each of CUTS."""
    counts = [Confusion(network.classes, undecided="background") for _ in CUTS]
    for photo in photos:
        rgb, boxes = read_photo(photo.path), [larger(box, grow) for box in photo.hints.objects]
        truth = read_label_png(run / "truth" / f"{photo.id}.png")
        corners, labels = [box.shape.corners for box in boxes], [box.label for box in boxes]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            maps = list(
                foreground_of(
                    network.foreground,
                    rgb,
                    corners,
                    labels,
                    network.classes,
                    size=size,
                    expand=network.config.expand,
                    device=torch.device("cpu"),
                )
            )
        for count, how in zip(counts, CUTS.values(), strict=True):
            count.add(truth, cut((rgb.shape[0], rgb.shape[1]), boxes, maps, how).semantic())
    return counts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--grow", type=float, nargs="+", default=[0.0, 0.02, 0.05])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--size", type=int, default=128, help="side of the crops in training")
    args = parser.parse_args()
    network, _, _ = load_weights(args.run / "propose" / "model.safetensors")
    if not isinstance(network, Cfs):
        raise SystemExit(f"{args.run} has trained no CFS")
    folder = args.run / "propose" / "instances"
    photos = [photo for photo in read_hints(args.data).photos if (folder / f"{photo.id}.npz").is_file()][:: args.every]
    print(f"mIoU, percent (and IoU of the first class), {len(photos)} photos\n\n| larger by | {' | '.join(CUTS)} |")
    print("|" + "---|" * (len(CUTS) + 1))
    for grow in args.grow:
        counts = measure(args.run, photos, network, grow, args.size)
        cells = [f"{100 * count.miou():.1f} ({100 * count.iou()[1]:.1f})" for count in counts]
        print(f"| {100 * grow:g} % | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
