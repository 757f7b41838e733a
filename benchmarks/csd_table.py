"""The CSD paper's component table and its Fig. 6 on any data set: seeds, masks and segmenter of a localizer with CSD.

python benchmarks/csd_table.py DATA KEY=VALUE ... --out runs/csd --seeds 0 1 2 [--recipe csd_irn] [--rows ...] [--grid]

All rows of a seed share one baseline: the row `baseline` is their stage one, and is always run. `--recipe csd_mct` is
the table of MCTformer. `--grid` adds the rows of Fig. 6, lambda_1 x lambda_2, which stop at the seeds. Finished runs
are not run again. Prints markdown.
"""

from __future__ import annotations

import hintseg
from rows import arguments, data_of, print_cost, print_head, print_row

PUBLISHED = ["csd.form=paper", "csd.teacher=online", "csd.foreground=0.01", "csd.background=0.1"]
ROWS = {
    "baseline": ["csd=null"],
    "copy-paste": ["csd.resample=false"],
    "resampling": ["csd.resample=true"],
    "foreground-only": ["csd.background=0"],
    "background-only": ["csd.foreground=0"],
}
GRID = {
    f"lambda-{one:g}-{two:g}": [f"csd.foreground={one}", f"csd.background={two}", "refine=null", "segment=null"]
    for one in (0.0, 0.001, 0.01, 0.1)
    for two in (0.0, 0.001, 0.01, 0.1, 1.0)
    if one or two
}
COLUMNS = (
    ("seed", "localize", False),
    ("seed, oracle threshold", "localize", True),
    ("pseudo mask", "refine", False),
    ("pseudo mask, oracle threshold", "refine", True),
    ("segmentation, val", "segment", False),
)


def main() -> None:
    """Run the rows and print the table."""
    parser = arguments(__doc__, ROWS)
    parser.add_argument("--recipe", default="csd_irn")
    parser.add_argument("--grid", action="store_true", help="add Fig. 6")
    args = parser.parse_intermixed_args()
    rows = {name: ROWS[name] for name in ROWS if name in {*args.rows, "baseline"}} | (GRID if args.grid else {})
    folders = {name: args.out / name for name in rows}
    heads = [name for name, _, _ in COLUMNS]
    print_head(*heads)
    for row, own in rows.items():
        found: dict[str, list[float]] = {}
        for seed in args.seeds:
            words = [*PUBLISHED, *args.settings, *own, f"seed={seed}"]
            if row == "baseline":
                words = [word for word in words if not word.startswith("csd.")]
            else:
                words.append(f"csd.baseline={folders['baseline'] / str(seed)}")
            out = folders[row] / str(seed)
            run = hintseg.train(data_of(args, seed), out, recipe=args.recipe, settings=words, resume=True)
            for name, stage, oracle in COLUMNS:
                values = [m["miou"] for m in run.metrics if m["stage"] == stage and m["oracle"] is oracle]
                found.setdefault(name, []).extend(values)
        print_row(row, args.seeds, heads, found)
    for row in rows:
        print_cost(row, folders[row] / str(args.seeds[0]))


if __name__ == "__main__":
    main()
