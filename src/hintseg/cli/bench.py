"""`hintseg bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hintseg.bench import Row


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Operations to measure; all if left out.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[
        list[int] | None, typer.Option(help="CPU threads; may be given several times. All of torch's if left out.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Run plain versions that take minutes, too.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="Small sizes, to try the command.")] = False,
    startup: Annotated[
        bool, typer.Option("--startup", help="Measure what commands cost to start instead; NAMES are commands then.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure refiners and maps on this machine against plain versions of the same mathematics.

    DenseCRF is measured against the C++ library, too, where it is installed (pip install 'hintseg[bench]').

    Both take turns in one process after a warm-up; times are medians of 5. Peak memory is measured in a fresh process
    each, beside the arguments. Shares are the bytes and operations that ours moves and does, over what the machine
    reaches in a large copy and a large matrix product.

    With --startup: each command on the smallest job there is (a run of four photos of 32 pixels, one to predict), in a
    fresh process: CPU seconds of all its threads, and seconds that passed, medians of 5 after one that is not counted.
    """
    if startup:
        _startup(names or [], json=json)
        return
    from dataclasses import asdict
    from json import dumps

    import torch
    from rich.console import Console

    from hintseg.bench import OPERATIONS, libraries, machine_facts, measure, rates
    from hintseg.bench.measuring import PLAIN
    from hintseg.cli.watch import Bars
    from hintseg.errors import ConfigError, did_you_mean

    for name in names or ():
        if name not in OPERATIONS:
            hint = did_you_mean(name, list(OPERATIONS))
            raise ConfigError(f"no operation '{name}'{hint} (there are {', '.join(OPERATIONS)})")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device '{device}' is unknown; give cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda asked for, but torch sees no such device; leave --device out")
    if threads and min(threads) < 1:
        raise ConfigError(f"--threads {min(threads)} given, 1 or more is needed")
    processor = torch.device(device)
    chosen = [row for row in OPERATIONS.values() if not names or row.name in names]
    left_out = [row.name for row in chosen if processor.type == "cuda" and not row.cuda]
    chosen = [row for row in chosen if row.name not in left_out]
    console = Console(stderr=json)
    reached, rows = [], []
    watch, counts = Bars(console), threads or [torch.get_num_threads()]
    watch.start("measuring", len(counts) * (1 + len(chosen)))
    for count in counts:
        reached.append(rates(processor, count, tiny=tiny))
        watch.advance(f"rates of the machine, {count} threads")
        for operation in chosen:
            rows.append(measure(operation, processor, reached[-1], slow=slow, tiny=tiny))
            watch.advance(f"{operation.name}, {count} threads")
    watch.stop()
    if json:
        facts = {"machine": machine_facts(processor), "rates": [asdict(rate) for rate in reached]}
        typer.echo(dumps(facts | {"rows": [asdict(row) for row in rows]}))
        return
    console.print(_speeds(rows))
    if any(row.plain_runs == 1 for row in rows):
        console.print("* one run only", highlight=False)
    if any(row.library_seconds is not None for row in rows):
        console.print("\nBeside the C++ library (pydensecrf2, always on one thread):", highlight=False)
        console.print(_beside(rows))
    console.print("\nBytes and operations of ours, and which share of the machine's reach that is:", highlight=False)
    console.print(_work(rows))
    for rate in reached:
        speeds = f"copies {rate.copy / 1e9:.1f} GB/s, multiplies {rate.multiply / 1e9:.0f} GFLOP/s"
        console.print(f"{rate.threads} threads: {speeds}", highlight=False)
    console.print(", ".join(f"{key} {value}" for key, value in machine_facts(processor).items()), highlight=False)
    if not PLAIN.is_file():
        console.print(
            "The plain versions are not part of the installed package; run this in a source checkout "
            "(benchmarks/plain.py) to compare.",
            highlight=False,
        )
    elif not slow and any(row.slow for row in chosen):
        console.print("Where no plain time is shown it takes minutes: --slow runs it, too.", highlight=False)
    advice = libraries.missing()
    if advice and processor.type == "cpu" and any(row.library for row in chosen):
        console.print(advice, highlight=False, markup=False)
    if left_out:
        console.print(f"Not on an accelerator: {', '.join(left_out)}.", highlight=False)
    console.print("nothing was written; --json prints the same for a program", highlight=False)


def _startup(names: list[str], *, json: bool) -> None:
    """Measure what commands cost to start."""
    from dataclasses import asdict
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from hintseg.bench.startup import starts
    from hintseg.cli.watch import Bars

    found = list(starts(names, watch=Bars(Console(stderr=True))))
    if json:
        typer.echo(dumps([asdict(row) for row in found]))
        return
    table = Table("command", box=None)
    for head in ("CPU", "passed"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in found:
        table.add_row(row.command, _seconds(row.cpu), _seconds(row.seconds))
    Console().print(table)


def _speeds(rows: list[Row]) -> Table:
    """Times and memory, narrow enough for a terminal of 80 columns."""
    from rich.table import Table

    table = Table("operation", box=None)
    for head in ("threads", "ours", "plain", "ratio", "peak", "plain", "differ by"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            str(row.threads),
            _seconds(row.seconds),
            "-" if row.plain_seconds is None else _seconds(row.plain_seconds) + ("*" if row.plain_runs == 1 else ""),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
            f"{row.peak / 2**20:.0f} MiB",
            "-" if row.plain_peak is None else f"{row.plain_peak / 2**20:.0f} MiB",
            "-" if row.difference is None else f"{row.difference:.0e}",
        )
    return table


def _beside(rows: list[Row]) -> Table:
    """Times of ours and of another library."""
    from rich.table import Table

    table = Table("operation", box=None)
    for head in ("threads", "ours", "library", "ratio", "differ by (mean)"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        if row.library_seconds is not None:
            ratio, difference = f"{row.library_ratio:.2f}x", f"{row.library_difference:.0e}"
            table.add_row(
                row.name, str(row.threads), _seconds(row.seconds), _seconds(row.library_seconds), ratio, difference
            )
    return table


def _work(rows: list[Row]) -> Table:
    """What was done, and which share of the machine's reach that is."""
    from rich.table import Table

    table = Table("operation", "threads", "bytes", "operations", "copy", "multiply", "shape", box=None)
    for row in rows:
        done = row.operations > 0
        table.add_row(
            row.name,
            str(row.threads),
            f"{row.bytes / 1e6:.0f} M",
            f"{row.operations / 1e6:.0f} M" if done else "-",
            f"{row.copy_share:.0%}",
            f"{row.multiply_share:.0%}" if done else "-",
            row.shape,
        )
    return table


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
