"""The VWE paper's Table 1 on any data set: seeds of five localizers, then masks, segmenter and upper bound.

python benchmarks/vwe_table.py DATA --out runs/table --seeds 0 1 2 [--rows gap hspp ...] [KEY=VALUE ...]

Rows other than `vwe+hspp` and `full` stop at the seeds. Finished runs are not run again. Prints markdown.
"""

from __future__ import annotations

import hintseg
from rows import arguments, data_of, print_cost, print_head, print_row

ROWS = {
    "gap": ("cam", ["localize.pooling=gap", "refine=null", "segment=null"]),
    "gmp": ("cam", ["localize.pooling=gmp", "refine=null", "segment=null"]),
    "hspp": ("cam", ["localize.pooling=hspp", "refine=null", "segment=null"]),
    "vwe": ("vwe", ["localize.pooling=gap", "refine=null", "segment=null"]),
    "vwe+hspp": ("vwe", []),
    "full": ("full", []),
}
COLUMNS = (
    ("seed", "localize", False),
    ("seed, oracle threshold", "localize", True),
    ("pseudo mask", "refine", False),
    ("pseudo mask, oracle threshold", "refine", True),
    ("segmentation, val", "segment", False),
)


def fits(row: str, word: str) -> bool:
    """Whether a setting concerns the stages of a row."""
    stages = {"full": ("localize", "maps", "refine")}.get(row, () if row == "vwe+hspp" else ("refine", "segment"))
    return not word.startswith(tuple(f"{stage}." for stage in stages))


def main() -> None:
    """Run the rows and print the table."""
    args = arguments(__doc__, ROWS).parse_intermixed_args()
    heads = [name for name, _, _ in COLUMNS]
    print_head(*heads)
    for row in args.rows:
        recipe, own = ROWS[row]
        found: dict[str, list[float]] = {}
        for seed in args.seeds:
            words = [*own, *(word for word in args.settings if fits(row, word)), f"seed={seed}"]
            run = hintseg.train(
                data_of(args, seed), args.out / f"{row}-{seed}", recipe=recipe, settings=words, resume=True
            )
            for name, stage, oracle in COLUMNS:
                values = [m["miou"] for m in run.metrics if m["stage"] == stage and m["oracle"] is oracle]
                found.setdefault(name, []).extend(values)
        print_row(row, args.seeds, heads, found)
    for row in args.rows:
        print_cost(row, args.out / f"{row}-{args.seeds[0]}")


if __name__ == "__main__":
    main()
