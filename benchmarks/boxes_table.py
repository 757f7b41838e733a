"""The CFS paper's Table 2 on any data set with boxes: masks of four kinds, and DeepLabv2 trained on each.

python benchmarks/boxes_table.py DATA [KEY=VALUE ...] --out runs/boxes --seeds 0 [--rows filled grabcut ...]

Finished runs are not run again. Row `cfs` takes its network from row `cfs+grabcut`. Prints markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

import yaml

import hintseg

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_intermixed_args()
    print("| masks | seeds | masks of the training photos | segmentation, val |\n|---|---|---|---|")
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
                args.data, out, recipe="full" if row == "full" else "boxes", settings=words, resume=True
            )
            masks += [100 * m["miou"] for m in run.metrics if m["kind"] == "pseudo mask"]
            val += [100 * m["miou"] for m in run.metrics if m["stage"] == "segment"]
        cells = [f"{statistics.mean(v):.1f} ± {statistics.pstdev(v):.1f}" if v else "" for v in (masks, val)]
        print(f"| {row} | {len(args.seeds)} | {cells[0]} | {cells[1]} |", flush=True)
    for row in args.rows:
        manifest = json.loads((args.out / f"{row}-{args.seeds[0]}" / "manifest.json").read_text())
        for stage, facts in manifest["stages"].items():
            print(
                f"{row}/{stage}: {facts['seconds']} s, peak {facts['peak_memory_mb']} MiB, {facts.get('steps')} steps"
            )


if __name__ == "__main__":
    main()
