"""Draw the picture of the front page: photos of the made data, what was said of them, and the masks that came of it.

hintseg demo && python docs/picture.py runs/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from hintseg.run.folder import RunFolder
from hintseg.store.masks import MaskStore
from hintseg.store.overlay import overlay

OUT = Path(__file__).parent / "images" / "shapes.png"
PHOTOS = 5


def draw(run: RunFolder, out: Path = OUT) -> None:
    """Draw a column for each of some training photos: the photo, its tags, its mask."""
    made = run.masks_of(("refine",))
    if made is None:
        raise SystemExit(f"{run.path} has no masks yet: run `hintseg demo` first")
    store = MaskStore(made.folder, run.classes, run.background)
    rows = [row for row in run.photos if row.split == "train" and row.tags]
    chosen = rows[:: len(rows) // PHOTOS][:PHOTOS]  # evenly, not by how well they came out
    figure = Figure(figsize=(1.6 * PHOTOS, 3.6))
    axes = figure.subplots(2, PHOTOS, squeeze=False)
    for column, row in zip(axes.T, chosen, strict=True):
        rgb = np.asarray(Image.open(row.path).convert("RGB"))
        column[0].imshow(rgb)
        column[0].set_title(", ".join(run.classes[label - 1] for label in sorted(row.tags or ())), fontsize=10)
        column[1].imshow(overlay(rgb, store.read(row.id)))
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out, dpi=90)
    picture = Image.open(out).convert("RGB").quantize(128)  # a third of the bytes
    picture.save(out, optimize=True)


if __name__ == "__main__":
    draw(RunFolder.open(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
