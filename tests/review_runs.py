"""Run folders as the pipeline leaves them, made in no time: photos, seeds, pseudo masks, class maps, truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.files.owned import owned
from hintseg.store.maps import write_maps
from hintseg.store.masks import MaskStore, write_mask

Bytes = npt.NDArray[np.uint8]
CLASSES = ("cow", "sheep", "dog")
SIZE = (60, 80)


def thing(index: int, label: int, size: tuple[int, int] = SIZE) -> tuple[Bytes, Bytes]:
    """A photo (H, W, 3) of a bright disc on noise, and its true mask."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    mask[(y - size[0] / 2) ** 2 + (x - size[1] * (0.35 + 0.3 * (index % 2))) ** 2 < (0.3 * size[0]) ** 2] = label
    colours = np.array([[110, 110, 110], [220, 60, 60], [60, 60, 220], [60, 200, 80]])
    rgb = colours[mask] + rng.normal(0, 8, (*size, 3))
    return rgb.clip(0, 255).astype(np.uint8), mask


def shifted(mask: Bytes, by: int) -> Bytes:
    """The mask moved to the right; what comes in is background."""
    moved = np.zeros_like(mask)
    moved[:, by:] = mask[:, : mask.shape[1] - by]
    return moved


def write_run(root: Path, count: int = 12, *, truth: bool = True, size: tuple[int, int] = SIZE) -> Path:
    """Write ``root/photos`` and ``root/run``: photo i's pseudo mask is off by i pixels, and the seed is right."""
    run = root / "run"
    (root / "photos").mkdir(parents=True)
    rows: list[dict[str, object]] = []
    with owned(run, "run"):
        stores = {name: MaskStore(run / name / "masks", CLASSES) for name in ("localize", "refine")}
        for index in range(count):
            id, label = f"herd/{index:02d}" if index == 0 else f"{index:02d}", 1 + index % len(CLASSES)
            rgb, mask = thing(index, label, size)
            path = root / "photos" / f"{id}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rgb).save(path)
            if truth:
                write_mask(run / "truth" / f"{id}.png", mask)
            stores["localize"].write(id, mask)
            stores["refine"].write(id, shifted(mask, index))
            write_maps(run / "localize" / "maps" / f"{id}.npz", [label], (mask[None, ::4, ::4] == label) * 0.9)
            rows.append(
                {"id": id, "path": str(path), "split": "train", "tags": [label], "boxes": None, "points": None}
                | {"scribbles": None, "truth": truth}
            )
        for store in stores.values():
            store.finish()
        finish_run(run, root / "photos", rows)
    return run


def finish_run(run: Path, photos: Path, rows: list[dict[str, object]]) -> None:
    """Write the files that say what the run is."""
    sweep = {"thresholds": [0.1], "miou": None, "chosen": 0.3, "how": "chosen without ground truth", "oracle": None}
    facts = {"method": "vwe", "done": True, "photos": len(rows), "steps": 10}
    data = {"name": "farm", "path": str(photos), "format": "auto", "classes": CLASSES, "background": True}
    manifest = {"hintseg": "0.1.0", "made_as": 1, "python": "3.11", "torch": "2.6", "lightning": "2.6", "seed": 0}
    manifest |= {"learns_from": "tags", "data": data | {"notes": [], "plan": [], "hashes": {}}}
    manifest |= {"stages": {"localize": facts, "refine": facts | {"method": "par"}}}
    for name, value in {
        "photos.json": rows,
        "metrics.json": [],
        "manifest.json": manifest,
        "localize/sweep.json": sweep,
    }.items():
        (run / name).write_text(json.dumps(value))
    network = {"name": "resnet18", "weights": "random"}
    config: dict[str, object] = {
        "recipe": "vwe",
        "seed": 0,
        "backbone": network,
        "maps": {"scales": [1.0], "flip": "max"},
    }
    config["test"] = {"scales": [1.0], "flip": True, "crf": None}
    (run / "config.yaml").write_text(json.dumps(config))
