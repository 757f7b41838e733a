"""Writing the tables into the docs and the README, between `<!-- table NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import hints, one_photo, person, results, review_order, sizes, speed
from benchmarks.results import Result
from benchmarks.tables import FINAL, MASKS, SUMMARY, TABLES, VAL, Table

DOCS = Path(__file__).parent.parent / "docs"

_OTHERS = {module.NAME: module.markdown for module in (hints, one_photo, person, review_order, sizes)}
"""Tables that are made by a module of their own."""

PICTURE = "images/costs.svg"

_PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(*, check: bool = False, docs: Path = DOCS, folder: Path = results.FOLDER) -> list[str]:
    """Write every table of the docs and the picture of what hints cost; return what was not as the results say.

    Args:
        check: Whether nothing is written.
        docs: Folder of the pages.
        folder: Folder of the results.

    Raises:
        SystemExit: A page names a table that there is not.
    """
    changed = []
    for page in [*sorted(docs.rglob("*.md")), *docs.parent.glob("README.md")]:
        before = page.read_text(encoding="utf-8")
        after = _PLACE.sub(lambda place: _filled(place, folder), before)
        if after != before:
            changed.append(page.relative_to(docs.parent).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8")
    found, file = results.read(hints.NAME, folder), docs / PICTURE
    if file.is_file() and hints.said_in(file.read_bytes()) != json.dumps(hints.points(found)):
        changed.append(file.relative_to(docs.parent).as_posix())
        if not check:
            file.write_bytes(hints.picture(found))
    return changed


def _filled(place: re.Match[str], folder: Path) -> str:
    name = place[2]
    if name == "summary":
        text = summary(folder)
    elif name in (speed.BENCH, speed.STARTUP):
        text = speed.markdown(name, results.read(name, folder))
    elif name in _OTHERS:
        text = _OTHERS[name](results.read(name, folder))
    elif name in TABLES:
        text = markdown(TABLES[name], results.read(name, folder))
    else:
        raise SystemExit(f"a page has a place for the table '{name}', which there is not; known: {', '.join(TABLES)}")
    return f"{place[1]}{text}\n{place[3]}"


def summary(folder: Path = results.FOLDER) -> str:
    """Return the rows of other tables that answer what most people ask."""
    rows = []
    for line in SUMMARY:
        found = [one for one in results.read(line.table, folder) if one.data == line.data]
        columns: dict[tuple[str, str], dict[int, float]] = {}
        for one in found:
            columns.setdefault((one.row, one.column), {})[one.seed] = one.value
        mine, upper = columns.get((line.row, VAL.title), {}), columns.get((line.upper, VAL.title), {})
        if mine:
            shares = [mine[seed] / upper[seed] for seed in mine if seed in upper]
            cells = [line.words, line.hints, line.recipe]
            masks = columns.get((line.row, FINAL.title)) or columns.get((line.row, MASKS.title), {})
            cells += [_percent(list(masks.values()))]
            cells += [_percent(list(values.values())) for values in (mine, upper)]
            cells += [f"{_percent(shares)} %" if shares else "", str(len(mine))]
            rows.append(cells)
    heads = ["data", "hints", "recipe", "masks", "segmentation", "with true masks", "share", "runs"]
    return results.grid(heads, rows)


def markdown(table: Table, found: Sequence[Result]) -> str:
    """Return a table, its commands, version, machine and dates."""
    if not found:
        return f"**{table.title}.** Not run."
    parts = [f"**{table.title}.**"]
    for data_set in table.data:
        of_set = [one for one in found if one.data == data_set]
        if of_set:
            parts.append(_of_set(table, data_set, of_set))
    protocols = {(one.column, one.protocol) for one in found if one.protocol}
    parts.append("\n".join(f"- {column}: {protocol}" for column, protocol in sorted(protocols)))
    parts[-1] += "".join(f"\n- {note}" for note in table.notes)
    parts.append(f"{results.source(found)} Seconds and memory are of whole runs, with their evaluation.")
    parts.append(results.commands(re.sub(r" seed=\d+$", " seed=N", one.command) for one in found))
    return "\n\n".join(parts)


def _of_set(table: Table, data_set: str, found: Sequence[Result]) -> str:
    shares = any(row.upper for row in table.rows.values())
    columns = [column.title for column in table.columns if any(one.column == column.title for one in found)]
    seconds = {column.title for column in table.columns if column.metric == "seconds"}
    heads = [data_set, "runs", *columns, *([f"less {table.baseline}, {columns[0]}"] if table.baseline else [])]
    heads += ["share of true masks"] * shares + ["seconds", "peak MiB"]
    rows = []
    values: dict[str, dict[str, dict[int, float]]] = {}
    for one in found:
        values.setdefault(one.row, {}).setdefault(one.column, {})[one.seed] = one.value
    for row in table.rows:
        if row in values:
            cells = [row, str(len(values[row]["seconds"]))]
            cells += [_cell(values[row].get(title, {}), seconds=title in seconds) for title in columns]
            if table.baseline:
                base = values.get(table.baseline, {}).get(columns[0], {})
                cells.append(_difference(values[row].get(columns[0], {}), base) if row != table.baseline else "")
            if shares:
                cells.append(_share(values[row], values.get(table.rows[row].upper, {})))
            cells += [f"{statistics.mean(values[row]['seconds'].values()):.0f}"]
            cells += [f"{max(values[row]['peak_mib'].values()):.0f}"]
            rows.append(cells)
    return results.grid(heads, rows)


def _cell(values: Mapping[int, float], *, seconds: bool) -> str:
    """Return what stands for the runs of a row: percent, or seconds."""
    return f"{statistics.mean(values.values()):.3f}" if seconds and values else _percent(list(values.values()))


def _percent(values: Sequence[float]) -> str:
    """Return the mean of shares in percent and, of several, the standard deviation."""
    return results.spread([100 * value for value in values])


def _share(values: Mapping[str, Mapping[int, float]], upper: Mapping[str, Mapping[int, float]]) -> str:
    """Return how much of what true masks give is had, equal seeds held against each other."""
    mine, whole = (of.get(VAL.title, {}) for of in (values, upper))
    shares = [mine[seed] / whole[seed] for seed in mine if whole.get(seed)]
    return f"{_percent(shares)} %" if shares else ""


def _difference(values: Mapping[int, float], base: Mapping[int, float]) -> str:
    """Return the mean of the differences of equal seeds, and their standard deviation."""
    pairs = [values[seed] - base[seed] for seed in values if seed in base]
    if not pairs:
        return ""
    text = _percent(pairs)
    return text if text.startswith("-") else f"+{text}"
