"""What sigma_c leaves of BMP's labels Y^c: how many pixels, how many of them right, how much of each class.

python benchmarks/bmp_labels.py RUN DATA [--every 4] [--side 96]

RUN has trained AFA or BMP on DATA. Branch-C labels every fourth training photo, resized to a square; the truth judges.
Prints markdown, in percent; the last column is the mean over the classes of the share of their pixels labelled right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hintseg.evaluation.confusion import Confusion
from hintseg.hints import read_hints
from hintseg.methods.one_stage import OneStage
from hintseg.refine.pseudo_labels import CropPar, background_aware
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE

SIGMAS = (0.0, 0.5, 0.75, 0.9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--side", type=int, default=96)
    args = parser.parse_args()
    method, classes, background = load_weights(args.run / "segment" / "model.safetensors")
    if not isinstance(method, OneStage):
        raise SystemExit(f"{args.run} has trained neither AFA nor BMP")
    counts = [Confusion(len(classes), background=background) for _ in SIGMAS]
    hints, side = read_hints(args.data), args.side
    for photo in [p for p in hints.photos if p.id in set(hints.splits["train"]) and p.hints.tags][:: args.every]:
        rgb = np.asarray(Image.open(photo.path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        truth = Image.fromarray(read_label_png(args.run / "truth" / f"{photo.id}.png"))
        true = np.asarray(truth.resize((side, side), Image.Resampling.NEAREST))
        tags = torch.zeros(1, len(classes))
        tags[0, [tag - 1 for tag in photo.hints.tags or ()]] = 1
        seen = method.look(image, decode=method.uses_background)
        prior = seen.background if seen.background is not None else method.constant_background(seen.maps)
        winner, sure = background_aware(CropPar(image, torch.tensor([[0, 0, side, side]])), seen.maps, prior, tags)
        for sigma, count in zip(SIGMAS, counts, strict=True):
            kept = winner if sigma == 0 else winner.masked_fill(sure <= sigma, IGNORE)
            count.add(true, kept[0].numpy())
    print("| sigma_c | pixels labelled | right | of each class |\n|---|---|---|---|")
    for sigma, count in zip(SIGMAS, counts, strict=True):
        per_class = count.matrix.sum(axis=1)
        total = per_class.sum() + count.left_out
        print(f"| {sigma:g} | {100 * per_class.sum() / total:.0f} | {100 * count.pixel_accuracy():.0f} | ", end="")
        print(f"{100 * recall(count, counts[0]):.0f} |")


def recall(count: Confusion, everything: Confusion) -> float:
    """Return the mean over classes of pixels labelled right among all of the class (those of `everything`)."""
    true = everything.matrix.sum(axis=1)
    return float((np.diag(count.matrix)[true > 0] / true[true > 0]).mean())


if __name__ == "__main__":
    main()
