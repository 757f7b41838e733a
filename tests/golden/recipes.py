"""Run every built-in recipe on small made data and write a checksum of every mask, to compare two commits.

    python tests/golden/recipes.py --out before.json        # on one commit
    python tests/golden/recipes.py --out after.json         # on the other, same machine
    diff before.json after.json                             # one line a mask

`shapes`, seed 0, two epochs each, tiny networks of random weights, one thread; a minute or two. `--out FILE cam vwe`
runs only those. The checksums are of pixels, not of files. Names are those in the run folder, so moved masks show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order

import numpy as np
import torch
from PIL import Image

import hintseg
from hintseg.config.loader import recipe_names
from hintseg.data.shapes import write_shapes

STAGES = {  # the stages of each recipe, and its own settings
    "afa": (("segment",), ["backbone.name=mit_tiny", "segment.width=16", "segment.scales=[1.0]"]),
    "bmp": (("segment",), ["backbone.name=mit_tiny", "segment.width=16", "segment.scales=[1.0]"]),
    "boxes": (("propose", "segment"), ["propose.size=32", "propose.smallest_side=0"]),
    "cam": (("localize", "segment"), []),
    "csd_irn": (("localize", "refine", "segment"), ["refine.foreground=0.3"]),
    "csd_mct": (("localize", "refine", "segment"), ["refine.cell=4"]),
    "demo": (("localize", "refine", "segment"), []),
    "full": (("segment",), []),
    "mctformer": (("localize", "refine", "segment"), ["refine.cell=4"]),
    "points": (("segment",), []),
    "quick": (("localize", "segment"), []),
    "strokes": (("segment",), []),
    "vwe": (("localize", "refine", "segment"), []),
}
VIT = [
    *("localize.backbone.name=vit_tiny_patch16_224", "localize.backbone.output_stride=8"),
    *("localize.backbone.depth=2", "localize.backbone.width=24", "localize.backbone.heads=3"),
]


def settings(recipe: str) -> list[str]:
    """Return the settings that make a recipe small."""
    stages, own = STAGES[recipe]
    backbone = [] if recipe in ("afa", "bmp") else ["backbone.name=resnet10t", "backbone.output_stride=8"]
    fit = ("epochs=2", "batch_size=8", *(() if recipe == "boxes" else ("crop=48",)))
    return [
        *("seed=0", "backbone.weights=random", "trainer.workers=0", "trainer.precision=32-true", "trainer.pictures=0"),
        *("trainer.accelerator=cpu", "maps.scales=[1.0]", "test.scales=[1.0]"),
        *backbone,
        *(f"{stage}.fit.{word}" for stage in stages for word in fit),
        *(VIT if "mct" in recipe else []),
        *own,
    ]


def checksums(run: Path) -> dict[str, str]:
    """Return a checksum of the pixels of every mask in a run folder, by its path there."""
    found = {}
    for path in sorted(run.rglob("*.png")):
        image = Image.open(path)
        if image.mode in ("L", "P"):  # masks; pictures are in colour
            name = path.relative_to(run).as_posix()
            found[name] = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]
    return found


def main() -> None:
    """Run the recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("recipes", nargs="*", help="recipes to run; all but paper/* where none is named")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = asked.recipes or [name for name in recipe_names() if not name.startswith("paper/")]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        write_shapes(data, train=32, val=8, seed=0, size=48)
        for name in names:
            form, labels = "voc" if name in ("boxes", "full") else "auto", None
            if name in ("points", "strokes"):
                kind = "scribbles" if name == "strokes" else name
                labels = hintseg.simulate(data, Path(folder) / kind, hints=kind, format="voc").labels
            run = hintseg.train(
                data,
                Path(folder) / name,
                recipe=name,
                format=form,
                labels=labels,
                unlabelled=255 if name == "strokes" else None,
                settings=settings(name),
            )
            found[name] = checksums(run.path)
            print(f"{name}: {len(found[name])} masks, {len(set(found[name].values()))} of them different")
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
