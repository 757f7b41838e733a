"""Running a table: what is there is not run again, and versions of the code are not mixed."""

from __future__ import annotations

import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import hintseg
from benchmarks import results
from benchmarks.mct_parts import mct_parts
from benchmarks.results import Result
from benchmarks.several_tags import several_tags
from benchmarks.tables import PARTS, SEVERAL, STEP, Row, Table
from hintseg.run.folder import RunFolder


def run(
    name: str,
    table: Table,
    *,
    data: Path,
    weights: Path,
    out: Path,
    rows: Sequence[str] = (),
    sets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    fresh: bool = False,
    folder: Path = results.FOLDER,
) -> list[Result]:
    """Run the rows of a table that are missing, and keep what they give after each run.

    Args:
        name: The table's name.
        table: The table.
        data: Folder of the data sets.
        weights: Folder of the weight files.
        out: Folder of the runs.
        rows: Rows to run; all where none is named.
        sets: Data sets, likewise.
        seeds: Seeds, likewise.
        fresh: Whether results of another version of the code are dropped; else they are a mistake.
        folder: Folder of the results.

    Raises:
        SystemExit: There are results of another version, or no such row or data set.
    """
    kept, version = results.read(name, folder), results.version()
    others = sorted({one.version for one in kept} - {version})
    if others and not fresh:
        raise SystemExit(
            f"{name} holds results of version {', '.join(others)}, the code is {version}; a table is of one version: "
            "check out that one, or drop them with --fresh"
        )
    kept = [one for one in kept if one.version == version]
    for words, known in ((rows, list(table.rows)), (sets, list(table.data))):
        if wrong := [word for word in words if word not in known]:
            raise SystemExit(f"{name} has no '{wrong[0]}'; known: {', '.join(known)}")
    for data_set in sets or table.data:
        for seed in seeds or table.seeds:
            for row in rows or table.rows:
                if not any((one.row, one.data, one.seed) == (row, data_set, seed) for one in kept):
                    kept += _one(name, table, row, data_set, seed, data, weights, out)
                    results.write(name, kept, folder)
    return kept


def _one(
    name: str, table: Table, row: str, data_set: str, seed: int, data: Path, weights: Path, out: Path
) -> list[Result]:
    """Run one row on one data set with one seed."""
    words = settings(table, table.rows[row], data_set, seed)
    place = _place(out, name, row, data_set, seed)
    if table.rows[row].after and not place.exists():
        shutil.copytree(_place(out, name, table.rows[row].after, data_set, seed), place)
    recipe = table.rows[row].recipe
    first = _place(out, name, table.baseline, data_set, seed) if table.baseline else place
    places = {"{weights}": weights, "{baseline}": first, "{data}": data / data_set}
    filled = [_filled(word, places) for word in words]
    made = hintseg.train(data / data_set, place, recipe=recipe, settings=filled, resume=True)
    named = {"{weights}": "WEIGHTS", "{baseline}": "RUN", "{data}": data_set}
    command = shlex.join(["hintseg", "train", data_set, "--recipe", recipe, *(_filled(word, named) for word in words)])

    def result(column: str, metric: str, value: float, split: str = "", protocol: str = "") -> Result:
        return results.measured(
            name,
            row,
            column,
            value,
            data=data_set,
            seed=seed,
            split=split,
            metric=metric,
            protocol=protocol,
            command=command,
        )

    kinds = {column.kind for column in table.columns}
    own = {kind: of(RunFolder.open(place)) for kind, of in _OWN.items() if kind in kinds}
    found = []
    for column in table.columns:
        for one in made.metrics:
            of_kind = (one["kind"], one["split"], one["oracle"]) == (column.kind, column.split, column.oracle)
            if of_kind and set(column.classes) <= set(one["iou"]):
                known = [iou for name in column.classes if (iou := one["iou"][name]) is not None]
                value = statistics.mean(known) if column.classes else one[column.metric]
                found.append(result(column.title, column.metric, value, column.split, one["protocol"]))
        if column.kind in own:
            found.append(result(column.title, column.metric, own[column.kind][column.title], column.split))
    ended = {event.what: event for event in RunFolder.open(place).history if event.seconds is not None}
    found.append(result("seconds", "seconds", sum(event.seconds or 0 for event in ended.values())))
    found.append(result("peak_mib", "peak_mib", max(event.peak_memory_mb or 0 for event in ended.values())))
    return found


def seconds_a_step(run: RunFolder) -> dict[str, float]:
    """Return what a step of the segmenter's training took, seconds, its part in reading and judging included."""
    took = [event.seconds for event in run.history if event.what == "segment" and event.seconds is not None]
    return {STEP: took[-1] / (run.stages["segment"].steps or 1)}


_OWN = {SEVERAL: several_tags, PARTS: mct_parts, STEP: seconds_a_step}
"""What is read from a run beside its metrics."""


def _filled(word: str, places: Mapping[str, Path | str]) -> str:
    """Return a setting with the places that it names."""
    for name, place in places.items():
        word = word.replace(name, str(place))
    return word


def settings(table: Table, row: Row, data_set: str, seed: int) -> list[str]:
    """Return the settings of a run; `{weights}` is not yet filled in."""
    common = [*table.settings, *table.data[data_set]]
    return [*(word for word in common if not word.startswith(row.without)), *row.settings, f"seed={seed}"]


def _place(out: Path, name: str, row: str, data_set: str, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in row)
    return out / name / f"{data_set}-{plain}-{seed}"
