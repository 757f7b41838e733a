"""The BMP paper's Table VI on any data set: its six rows, AFA beside them, and the upper bound.

python benchmarks/bmp_table.py DATA [KEY=VALUE ...] --out runs/bmp-table --seeds 0 1 2 [--rows cls ... full]

Settings of `segment` go to every row but `full`, which trains the same decoder on true masks; give it its own with
`full.KEY=VALUE`. Row `aff` differs from `ofd` only where the encoder has self-attention (backbone.name=mit_...).
Finished runs are not run again. Prints markdown.
"""

from __future__ import annotations

import hintseg
from rows import arguments, data_of, print_cost, print_head, print_row

OFF = {
    "s2c": "segment.lambda_s2c=0.0",
    "bsp": "segment.bsp=false",
    "ofd": "segment.ofd=false",
    "aff": "segment.lambda_aff=0.0",
}


def without(*names: str) -> tuple[str, list[str]]:
    """Return the recipe with some mechanisms switched off."""
    return "bmp", [OFF[name] for name in names]


ROWS = {
    "cls": ("bmp", ["segment.lambda_c2s=0.0", *OFF.values()]),
    "c2s": without("s2c", "bsp", "ofd", "aff"),
    "s2c": without("bsp", "ofd", "aff"),
    "bsp": without("ofd", "aff"),
    "ofd": without("aff"),
    "aff": without(),
    "afa": ("afa", []),
    "full": ("full", ["segment.method=segformer_head"]),
}
COLUMNS = (
    ("seed, train", "seed", "train"),
    ("Branch-C, train", "Branch-C", "train"),
    ("Branch-C, val", "Branch-C", "val"),
    ("Branch-S with tags, train", "pseudo mask", "train"),
    ("Branch-S, val", "segmentation", "val"),
)


def settings_of(row: str, words: list[str]) -> list[str]:
    """Return the settings that concern a row."""
    if row != "full":
        return [word for word in words if not word.startswith("full.")]
    kept = [word for word in words if not word.startswith(("segment.", "maps."))]
    return [word.removeprefix("full.") for word in kept]


def main() -> None:
    """Run the rows and print the table."""
    args = arguments(__doc__, ROWS).parse_intermixed_args()
    heads = [name for name, _, _ in COLUMNS]
    print_head(*heads)
    for row in args.rows:
        recipe, own = ROWS[row]
        found: dict[str, list[float]] = {}
        for seed in args.seeds:
            words = [*own, *settings_of(row, args.settings), f"seed={seed}"]
            out = args.out / f"{row}-{seed}"
            run = hintseg.train(data_of(args, seed), out, recipe=recipe, settings=words, resume=True)
            for name, kind, split in COLUMNS:
                if row == "cls" and name.startswith("Branch-S"):
                    continue  # nothing has trained it
                rows = [m for m in run.metrics if (m["kind"], m["split"], m["oracle"]) == (kind, split, False)]
                found.setdefault(name, []).extend(m["miou"] for m in rows)
        print_row(row, args.seeds, heads, found)
    for row in args.rows:
        print_cost(row, args.out / f"{row}-{args.seeds[0]}")


if __name__ == "__main__":
    main()
