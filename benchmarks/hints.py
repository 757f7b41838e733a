"""What each kind of hint teaches, as data: `hintseg study` on each set, its cells kept and written into the docs.

All kinds teach the same frozen network and a head of the same form, each by its recipe. Hints that the data lacks are
drawn out of its masks.
"""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.results import Result
from hintseg.pipeline.study import study
from hintseg.reporting.figures import cost_curves

NAME = "hints"

KINDS = ("tags", "points", "scribbles", "boxes", "masks", "tags+boxes", "tags+masks")
MASKS = "masks, 100 %"
"""The row that the others are held against."""

DATA: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "voc12-animals": (("tags.csv", "points.csv", "Annotations", "SegmentationClass"), ("data.longest=320",)),
    "msrc": ((), ("data.background=none",)),
    "nuclei": ((), ()),
    "acdc-scribbles": (("Scribbles",), ("data.unlabelled=255",)),
}
"""Label files and settings of each set; no files: those that are found."""

PICTURED = "voc12-animals"
"""The set whose hours and mIoU the README shows."""

_NETWORK = (
    "backbone.name=deit_tiny_patch16_224",
    "backbone.weights={weights}/deit_tiny_patch16_224.safetensors",
    "backbone.output_stride=16",
    "backbone.freeze=all",
    "test.scales=[1.0]",
)
_LIGHT = {"boxes": "light_boxes.yaml", "masks": "light_masks.yaml"}
"""Recipes of the kinds whose own one trains a network, in this folder; the others have theirs."""


def run_hints(
    *,
    data: Path,
    weights: Path,
    out: Path,
    sets: Sequence[str] = (),
    kinds: Sequence[str] = (),
    shares: Sequence[float] = (1.0,),
    seeds: Sequence[int] = (0, 1, 2),
    folder: Path = results.FOLDER,
) -> list[Result]:
    """Run the cells that are missing, and keep them beside those that are there.

    Args:
        data: Folder of the data sets.
        weights: Folder of the weight files.
        out: Folder of the studies.
        sets: Of `DATA`; all where none is named.
        kinds: Of `KINDS`, likewise.
        shares: Of the training photos that have a hint, 0..1; of mixtures, that have the second kind too.
        seeds: Of the runs.
        folder: Folder of the results.

    Raises:
        SystemExit: No such set or kind.
    """
    for words, known in ((sets, list(DATA)), (kinds, list(KINDS))):
        if wrong := [word for word in words if word not in known]:
            raise SystemExit(f"{NAME} has no '{wrong[0]}'; known: {', '.join(known)}")
    kept = {(one.row, one.data, one.seed, one.column): one for one in results.read(NAME, folder)}
    for name in sets or DATA:
        labels, settings = DATA[name]
        words = [*(word.replace("{weights}", str(weights)) for word in _NETWORK), *settings]
        block = {"labels": [data / name / label for label in labels]} if labels else {}
        for kind in kinds or KINDS:
            recipes = {kind: str(Path(__file__).parent / _LIGHT[kind])} if kind in _LIGHT else {}
            cells = study(
                data / name,
                out / name,
                kinds=[kind],
                shares=shares,
                seeds=seeds,
                settings=words,
                block=block,
                recipes=recipes,
            )
            for cell in cells:
                row = f"{kind}, {100 * cell.share:g} %"
                values = {"segmentation": ("miou", cell.miou), "hours": ("hours", cell.hours)}
                for column, (metric, value) in values.items():
                    one = results.measured(
                        NAME,
                        row,
                        column,
                        value,
                        data=name,
                        seed=cell.seed,
                        split="val" if metric == "miou" else "train",
                        metric=metric,
                        command=command_of(name, kind),
                    )
                    kept.setdefault((row, name, cell.seed, column), one)
            results.write(NAME, list(kept.values()), folder)
    return list(kept.values())


def command_of(name: str, kind: str) -> str:
    """Return the command that makes the cells of a set and a kind again."""
    labels, settings = DATA[name]
    words = [f"--recipe={kind}=benchmarks/{_LIGHT[kind]}"] if kind in _LIGHT else []
    words += [f"--labels={label}" for label in labels]
    words += [word.replace("{weights}", "WEIGHTS") for word in (*_NETWORK, *settings)]
    return shlex.join(["hintseg", "study", name, "--kinds", kind, *words])


def markdown(found: Sequence[Result]) -> str:
    """Return a table for each set, and what it was measured with."""
    if not found:
        return "Not measured."
    parts = []
    for name in (name for name in DATA if any(one.data == name for one in found)):
        values: dict[tuple[str, str], dict[int, float]] = {}
        for one in found:
            if one.data == name:
                values.setdefault((one.row, one.column), {})[one.seed] = one.value
        rows = []
        for row in sorted(dict.fromkeys(row for row, _ in values), key=_place):
            scores, whole = values[row, "segmentation"], values.get((MASKS, "segmentation"), {})
            shares = [100 * scores[seed] / whole[seed] for seed in scores if whole.get(seed)]
            hours = statistics.mean(values[row, "hours"].values())
            cells = [row, str(len(scores)), f"{hours:.1f}", results.spread([100 * score for score in scores.values()])]
            rows.append([*cells, f"{results.spread(shares)} %" if shares else ""])
        heads = [name, "runs", "hours of labelling", "segmentation", "share of masks"]
        parts.append(results.grid(heads, rows))
    return "\n\n".join([*parts, results.source(found), results.commands(one.command for one in found)])


def points(found: Sequence[Result]) -> dict[str, list[tuple[float, float]]]:
    """Return hours and mIoU of each kind on the set of the README's picture, means over seeds, fewest hours first."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in sorted({one.row for one in found if one.data == PICTURED}, key=_place):
        hours, miou = (
            statistics.mean(one.value for one in found if (one.data, one.row, one.column) == (PICTURED, row, column))
            for column in ("hours", "segmentation")
        )
        curves.setdefault(row.partition(", ")[0], []).append((round(hours, 3), round(miou, 4)))
    return curves


def picture(found: Sequence[Result]) -> bytes:
    """Draw them, an SVG file; `said_in` reads what it shows."""
    caption = (
        f"{PICTURED}: shares of the training photos, or all; a frozen DeiT tiny and one light head; up to three runs. "
        "Seconds that a hint takes as in `hintseg study`."
    )
    return cost_curves(points(found), caption) + f"<!-- {json.dumps(points(found))} -->\n".encode()


def said_in(picture: bytes) -> str:
    """Return the points that a picture says it shows."""
    return picture.decode().rpartition("<!-- ")[2].partition(" -->")[0]


def _place(row: str) -> tuple[int, float]:
    kind, _, share = row.partition(", ")
    return KINDS.index(kind), float(share.removesuffix(" %"))
