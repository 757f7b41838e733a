"""`python -m benchmarks`; see the package's docstring."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import benchmarks
from benchmarks import hints, one_photo, speed
from benchmarks.render import render
from benchmarks.runner import run
from benchmarks.tables import TABLES


def main() -> None:
    """Run, render or list tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=benchmarks.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the tables and their rows")
    running = verbs.add_parser("run", help="run the rows of a table that are missing")
    running.add_argument("table", choices=TABLES)
    running.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    running.add_argument("--weights", type=Path, required=True, help="folder of the weight files")
    running.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the runs")
    running.add_argument("--rows", nargs="+", default=[])
    running.add_argument("--sets", nargs="+", default=[])
    running.add_argument("--seeds", nargs="+", type=int, default=[])
    running.add_argument("--fresh", action="store_true", help="drop results of another version of the code")
    for name, words in ((speed.BENCH, "`hintseg bench`, one and two threads"), (speed.STARTUP, "what commands cost")):
        verbs.add_parser(name, help=f"measure {words}, with nothing beside it")
    hinting = verbs.add_parser(hints.NAME, help="run the studies of the kinds of hint")
    hinting.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    hinting.add_argument("--weights", type=Path, required=True, help="folder of the weight files")
    hinting.add_argument("--out", type=Path, default=Path("runs/hints"), help="folder of the studies")
    hinting.add_argument("--sets", nargs="+", default=[])
    hinting.add_argument("--kinds", nargs="+", default=[])
    hinting.add_argument("--shares", nargs="+", type=float, default=[1.0])
    hinting.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    photo = verbs.add_parser(one_photo.NAME, help="label photos one by one from two marks each")
    photo.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    photo.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    rendering = verbs.add_parser("render", help="write the tables into the docs")
    rendering.add_argument("--check", action="store_true", help="write nothing; exit 1 where docs and results differ")
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    if args.verb == "list":
        for name, table in TABLES.items():
            print(f"{name}: {table.title}; rows {', '.join(table.rows)}; data {', '.join(table.data)}")
    elif args.verb == "run":
        chosen = {name: getattr(args, name) for name in ("data", "weights", "out", "rows", "sets", "seeds", "fresh")}
        run(args.table, TABLES[args.table], **chosen)
    elif args.verb == hints.NAME:
        chosen = {name: getattr(args, name) for name in ("data", "weights", "out", "sets", "kinds", "shares", "seeds")}
        hints.run_hints(**chosen)
    elif args.verb == one_photo.NAME:
        one_photo.run_one_photo(data=args.data, seeds=args.seeds)
    elif args.verb == speed.BENCH:
        speed.run_bench((1, 2))
    elif args.verb == speed.STARTUP:
        speed.run_startup()
    else:
        changed = render(check=args.check)
        print(
            "\n".join(f"{'differs' if args.check else 'written'}: {page}" for page in changed) or "docs are as results"
        )
        sys.exit(1 if args.check and changed else 0)


if __name__ == "__main__":
    main()
