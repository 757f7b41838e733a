"""The CFS paper's Table 2 on any data set with boxes: masks of four kinds, and DeepLabv2 trained on each.

python benchmarks/boxes_table.py DATA [KEY=VALUE ...] --out runs/boxes --seeds 0 [--rows filled grabcut ...]

Finished runs are not run again. Row `cfs` takes its network from row `cfs+grabcut`. Prints markdown.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

import hintseg
from rows import arguments, data_of, print_cost, print_head, print_row

ROWS = {
    "filled": ["propose.method=filled"],
    "grabcut": ["propose.method=grabcut"],
    "cfs+grabcut": [],
    "cfs": ["propose.refine=false"],
    "full": [],
}


def borrow(run: Path, out: Path) -> None:
    """Start the run of row `cfs` with the trained network and the proposals of row `cfs+grabcut`."""
    if out.is_dir():
        return
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("segment", "instances", "masks"))
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["propose"]["refine"] = False
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    manifest = json.loads((out / "manifest.json").read_text())
    for facts in manifest["stages"].values():
        facts["done"] = False
    (out / "manifest.json").write_text(json.dumps(manifest))


def main() -> None:
    """Run the rows and print the table."""
    args = arguments(__doc__, ROWS, seeds=[0]).parse_intermixed_args()
    heads = ("masks of the training photos", "segmentation, val")
    print_head(*heads)
    for row in args.rows:
        masks, val = [], []
        for seed in args.seeds:
            out = args.out / f"{row}-{seed}"
            stage = ("propose.",) if row == "full" else ()
            fixed = () if row.startswith("cfs") else ("propose.",)
            words = [word for word in args.settings if not word.startswith((*stage, *fixed))]
            words = [*ROWS[row], "segment.method=deeplabv2", *words, f"seed={seed}"]
            if row == "cfs":
                borrow(args.out / f"cfs+grabcut-{seed}", out)
            run = hintseg.train(
                data_of(args, seed), out, recipe="full" if row == "full" else "boxes", settings=words, resume=True
            )
            masks += [m["miou"] for m in run.metrics if m["kind"] == "pseudo mask"]
            val += [m["miou"] for m in run.metrics if m["stage"] == "segment"]
        print_row(row, args.seeds, heads, dict(zip(heads, (masks, val), strict=True)))
    for row in args.rows:
        print_cost(row, args.out / f"{row}-{args.seeds[0]}")


if __name__ == "__main__":
    main()
