"""The LGSA paper's Tables 3 and 5 on any data set: DeepLabv2 with no, free and guided attention, on the same masks.

python benchmarks/lgsa_table.py DATA [KEY=VALUE ...] --out OUT [--masks RUN] [--seeds 0 1 2] [--rows none lgsa-2 ...]

Every row is one training of the segmenter. With `--masks` all rows learn from the masks of that run, such as

    hintseg train DATA --recipe boxes --out RUN segment=null

without it from true masks. `{seed}` in DATA and RUN stands for the seed. The number in a row's name is its modules, or
alpha with two modules; alpha 10,000 is `lgsa-2`, alpha 0 without walk is `non-local-2`. Finished runs are not run
again. Prints markdown.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hintseg
from hintseg.config.loader import load_config
from hintseg.hints import read_hints
from hintseg.pipeline.begin import begin, make_plan
from hintseg.training.watch import Watch
from rows import arguments, data_of, print_cost, print_head, print_row

VAL = "segmentation, val"
ROWS = {"none": ["attention=none"]}
for count in (1, 2, 3):
    ROWS[f"non-local-{count}"] = ["attention=non_local", f"modules={count}"]
for count in (1, 2, 3):
    ROWS[f"lgsa-{count}"] = [f"modules={count}", "walk=false"]
    ROWS[f"lgsa-{count}-walk"] = [f"modules={count}", "walk=true"]
ROWS["alpha-0-walk"] = ["alpha=0.0", "walk=true"]
for alpha in (5000, 20000):
    ROWS[f"alpha-{alpha}"] = [f"alpha={alpha}.0", "walk=false"]
    ROWS[f"alpha-{alpha}-walk"] = [f"alpha={alpha}.0", "walk=true"]


def borrow(masks: Path, out: Path, data: Path, words: list[str]) -> None:
    """Start a run that has its masks already: those of the run `masks`."""
    if out.is_dir():
        return
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    config = load_config(masks / "config.yaml", words, data={"path": str(data), "format": "auto"})
    hint_set = read_hints(data, background=config.data.background == "present")
    with begin(part, config, hint_set, make_plan(hint_set, config), Watch()):
        shutil.copytree(masks / "propose", part / "propose")
    manifest, made = (json.loads((run / "manifest.json").read_text()) for run in (part, masks))
    manifest["stages"]["propose"] = made["stages"]["propose"]
    (part / "manifest.json").write_text(json.dumps(manifest, indent=1))
    metrics = json.loads((masks / "metrics.json").read_text())
    (part / "metrics.json").write_text(json.dumps([row for row in metrics if row["stage"] == "propose"]))
    part.rename(out)


def main() -> None:
    """Run the rows and print the table."""
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--masks")
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print_head(VAL)
    for row in args.rows:
        found = []
        for seed in args.seeds:
            out, data = args.out / f"{row}-{seed}", data_of(args, seed)
            own = [f"segment.{word}" for word in ROWS[row]]
            words = ["segment.method=lgsa", "segment.fit.first_epoch=0.1", *own, *args.settings, f"seed={seed}"]
            recipe: str | Path = "full"
            if args.masks:
                masks = Path(args.masks.format(seed=seed))
                recipe = masks / "config.yaml"
                borrow(masks, out, data, words)
            run = hintseg.train(data, out, recipe=recipe, settings=words, resume=True)
            found += [m["miou"] for m in run.metrics if m["stage"] == "segment"]
        print_row(row, args.seeds, [VAL], {VAL: found})
    for row in args.rows:
        print_cost(row, args.out / f"{row}-{args.seeds[0]}")


if __name__ == "__main__":
    main()
