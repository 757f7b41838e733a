"""What the table scripts share: their arguments, a row of means and spreads, and what each stage cost."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hintseg.run.folder import RunFolder


def arguments(
    description: str | None, rows: Iterable[str], seeds: Sequence[int] = (0, 1, 2)
) -> argparse.ArgumentParser:
    """Return a parser of DATA [KEY=VALUE ...] --out --seeds --rows; `{seed}` in DATA stands for the seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--rows", nargs="+", choices=list(rows), default=list(rows))
    return parser


def data_of(args: argparse.Namespace, seed: int) -> Path:
    """Return the data set of a seed."""
    return Path(args.data.format(seed=seed))


def print_head(*columns: str) -> None:
    """Print the head of a table."""
    print(f"| row | seeds | {' | '.join(columns)} |\n|" + "---|" * (len(columns) + 2))


def print_row(row: str, seeds: Sequence[int], columns: Iterable[str], found: Mapping[str, Sequence[float]]) -> None:
    """Print a row: mean and standard deviation of the shares `found` under each column, in percent."""
    cells = []
    for column in columns:
        values = [100 * value for value in found.get(column, ())]
        cells.append(f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}" if values else "")
    print(f"| {row} | {len(seeds)} | {' | '.join(cells)} |", flush=True)


def print_cost(row: str, run: Path) -> None:
    """Print seconds, memory and steps of each stage of a run."""
    folder = RunFolder.open(run)
    ended = {event.what: event for event in folder.history}
    for stage, facts in folder.stages.items():
        cost = f"{ended[stage].seconds} s, peak {ended[stage].peak_memory_mb} MiB"
        print(f"{row}/{stage}: {cost}, {facts.steps} steps")
