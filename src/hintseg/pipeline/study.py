"""`hintseg study`: what labels are worth. The same photos with more and fewer hints of each kind, and what each costs.

Each cell of a study is a run of its own: a kind of hint, a share of the training photos that have it, a seed. Smaller
shares are parts of larger ones. Hints that the data lacks are drawn out of its full masks. `tags+boxes` is a mixture:
all training photos have the first kind, the share of them the second kind too.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.errors import ConfigError, LabelError, did_you_mean
from hintseg.files.atomic import whole_file, write_json
from hintseg.files.owned import owned
from hintseg.hints import read_hints
from hintseg.hints.masks import read_full, read_scribbles
from hintseg.hints.simulate import Drawing, parts, simulate
from hintseg.pipeline.choose_recipe import OF_KIND, recipe_for
from hintseg.pipeline.recipe import read_data, run_recipe
from hintseg.reporting.figures import cost_curves
from hintseg.training.watch import Watch
from hintseg.types import IGNORE, Click, Hints, HintSet, Photo, Stroke, Supervision

RECIPES = {str(kind): recipe for kind, recipe in OF_KIND.items()}
"""The recipe of each kind alone; of mixtures see `recipe_for`."""

SECONDS = {"tags": 1.0, "points": 2.4, "scribbles": 10.9, "boxes": 7.0, "masks": 54.0}
"""What one hint takes a person: a tag, a click and a stroke on an object by Bearman et al., ECCV 2016 (1.0, 2.4, 10.9
seconds), a box by Papadopoulos et al., ICCV 2017 (7.0), an outline of an object by Jain and Grauman, ICCV 2013 (54)."""

COST_OF = {
    "tags": "a tag {} (Bearman et al., ECCV 2016)",
    "points": "a click {} (Bearman et al., ECCV 2016)",
    "scribbles": "a stroke {} (Bearman et al., ECCV 2016)",
    "boxes": "a box {} (Papadopoulos et al., ICCV 2017)",
    "masks": "the outline of an object {} (Jain and Grauman, ICCV 2013)",
}
"""How the caption of the picture names what a hint takes."""

SHORTEST = 0.5
"""Hours between two amounts from which a slope is read."""

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        kind: The kind of hint, or two joined by `+`.
        share: Share of the training photos that have it, 0..1.
        seed: The run's seed, which also draws the photos.
        photos: How many that are.
        hints: How many tags, clicks, strokes, boxes or objects were said, of a mixture both together.
        hours: What they take a person.
        miou: Of the segmenter on the validation photos, 0..1.
    """

    kind: str
    share: float
    seed: int
    photos: int
    hints: int
    hours: float
    miou: float


def study(
    data: Path,
    out: Path,
    *,
    kinds: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0,),
    seconds: Mapping[str, float] = SECONDS,
    recipes: Mapping[str, str] = MappingProxyType({}),
    settings: Sequence[str] = (),
    block: Mapping[str, Any] = MappingProxyType({}),
    watch: Watch | None = None,
) -> list[Cell]:
    """Run every cell that is not there yet, and write ``study.json``, ``study.csv`` and ``curves.svg``.

    Args:
        data: The data set, with a validation split that has full masks.
        out: Folder to make, or to go on with.
        kinds: Of `RECIPES`, or two of them joined by `+`; none: those that the data has, and masks.
        shares: Of the training photos, 0..1.
        seeds: Of the runs.
        seconds: What one hint of each kind takes a person.
        recipes: Those of some kinds, names or files, in place of their own.
        settings: Dotted settings of all runs.
        block: Values of the `data` block besides the path.
        watch: Told about the progress.

    Raises:
        ConfigError: No such kind, or a share out of range.
        LabelError: No validation photos with masks, or nothing to draw hints from.
    """
    watch = watch or Watch()
    for share in shares:
        if not 0 < share <= 1:
            raise ConfigError(f"share {share:g} given, shares of the training photos are above 0 and at most 1")
    of_data = [word for word in settings if word.startswith("data.")]
    base = load_config("quick", of_data, data={"path": str(data)} | dict(block))
    hint_set = read_data(base.data)
    train, val = _split(hint_set)
    kinds = kinds or _found(train)
    if unknown := sorted(recipes.keys() - {*kinds}):
        raise ConfigError(
            f"a recipe is given for '{unknown[0]}'{did_you_mean(unknown[0], list(kinds))}, and the study is of "
            f"{', '.join(kinds)}"
        )
    with owned(out, "study"):
        hints = {kind: _hints(hint_set, train, kind, out, base, watch) for kind in _parts(kinds)}
        cells = []
        for kind in kinds:
            for seed in seeds:
                order = np.random.default_rng(seed).permutation(len(train))
                for share in sorted(shares):
                    chosen = {train[i].id for i in order[: max(1, round(share * len(train)))]}
                    taught = list(_taught(train, kind, chosen, hints))
                    part = replace(hint_set, photos=(*taught, *val), splits=_splits(taught, val))
                    name = f"{kind}-{share:g}-{seed}"
                    watch.line(f"study: {name}, {len(taught)} photos")
                    recipe = recipes.get(kind) or recipe_for([Supervision(part) for part in kind.split("+")])
                    miou = _run(out / "runs" / name, recipe, part, seed, settings, dict(block), data, watch)
                    counts = {one: _count(one, taught, hint_set) for one in kind.split("+")}
                    hours = sum(seconds[one] * count for one, count in counts.items()) / 3600
                    cells.append(Cell(kind, share, seed, len(chosen), sum(counts.values()), hours, miou))
                    _write(out, cells, seconds)
        for sentence in next_hour(cells):
            watch.line(f"study: {sentence}")
    return cells


def next_hour(cells: Sequence[Cell]) -> list[str]:
    """Say what one more hour of each kind would buy, by the slope between its two largest amounts.

    Where those are less than half an hour apart, what they brought is said as it is: a slope would go too far.

    Example:
        >>> small, large = Cell("tags", 0.5, 0, 50, 100, 0.5, 0.4), Cell("tags", 1.0, 0, 100, 200, 1.0, 0.41)
        >>> next_hour([small, large])
        ['tags: 1.0 hours give mIoU 41.0; one more hour about +2.0 points']
    """
    said = []
    for kind, points in curves(cells).items():
        hours, miou = points[-1]
        text = f"{kind}: {hours:.1f} hours give mIoU {100 * miou:.1f}"
        if len(points) > 1 and (step := hours - points[-2][0]) > 0:
            gain = 100 * (miou - points[-2][1])
            far = step >= SHORTEST
            text += (
                f"; one more hour about {gain / step:+.1f} points" if far else f", {gain:+.1f} by the last {step:.2f}"
            )
        said.append(text)
    return said


def curves(cells: Sequence[Cell]) -> dict[str, list[tuple[float, float]]]:
    """Return the points (hours, mIoU) of each kind, means over seeds, fewest hours first."""
    found: dict[str, dict[float, list[Cell]]] = {}
    for cell in cells:
        found.setdefault(cell.kind, {}).setdefault(cell.share, []).append(cell)
    return {
        kind: sorted(
            (statistics.mean(one.hours for one in same), statistics.mean(one.miou for one in same))
            for same in by_share.values()
        )
        for kind, by_share in found.items()
    }


def _parts(kinds: Sequence[str]) -> list[str]:
    """Return the single kinds of `kinds`."""
    parts = list(dict.fromkeys(part for kind in kinds for part in kind.split("+")))
    for part in parts:
        if part not in RECIPES:
            known = ", ".join(RECIPES)
            raise ConfigError(f"no kind of hint is called '{part}'{did_you_mean(part, list(RECIPES))}; known: {known}")
    return parts


def _split(hint_set: HintSet) -> tuple[list[Photo], list[Photo]]:
    val = {photo.id for photo in hint_set.photos if photo.truth is not None} & set(hint_set.splits.get("val", ()))
    train = hint_set.training - val
    if not val or not train:
        raise LabelError(
            "a study judges on photos it did not learn from: the data needs a split 'val' whose photos have full "
            "masks, and other photos to learn from"
        )
    photos = hint_set.photos
    return [one for one in photos if one.id in train], [one for one in photos if one.id in val]


def _splits(train: Sequence[Photo], val: Sequence[Photo]) -> dict[str, tuple[str, ...]]:
    """Return the splits of a cell; `masks` are the training photos whose masks may teach."""
    masks = [photo for photo in train if photo.hints.mask is not None]
    lists = {"train": train, "val": val} | ({"masks": masks} if masks else {})
    return {name: tuple(photo.id for photo in photos) for name, photos in lists.items()}


def _found(train: Sequence[Photo]) -> list[str]:
    """Return the kinds that the training photos have, and masks."""
    given = {kind.value for photo in train for kind in photo.hints.kinds}
    return [kind for kind in RECIPES if kind in given or kind == "masks"]


def _hints(
    hint_set: HintSet, train: Sequence[Photo], kind: str, out: Path, base: RunConfig, watch: Watch
) -> dict[str, Hints]:
    """Return the hints of one kind of each training photo; drawn out of the masks where the data has none."""
    asked = Supervision(kind)
    own = {photo.id: _only(photo, asked) for photo in train}
    if asked is Supervision.MASKS or any(asked in hints.kinds for hints in own.values()):
        return own
    folder = out / "drawn" / kind
    if not (folder / "done").is_file():
        drawn = simulate(replace(hint_set, photos=tuple(train)), asked, folder, Drawing(seed=0))
        with whole_file(folder / "done") as file:
            file.write(drawn.labels.name.encode())
        watch.line(f"study: {drawn.said}")
    labels = folder / (folder / "done").read_text(encoding="utf-8")
    unlabelled = IGNORE if asked is Supervision.SCRIBBLES else None
    read = read_hints(base.data.path, labels, unlabelled=unlabelled, background=hint_set.background)
    return {photo.id: _only(photo, asked) for photo in read.photos if photo.id in own}


def _only(photo: Photo, kind: Supervision) -> Hints:
    """Return what is said of a photo by one kind of hint, and its tags, which any kind implies."""
    hints = photo.hints
    if kind is Supervision.MASKS:
        return Hints(hints.tags, mask=hints.mask or photo.truth)
    if kind is Supervision.SCRIBBLES:
        return Hints(hints.tags, hints.shaped(Stroke), hints.scribbles)
    if kind is Supervision.POINTS:
        return Hints(hints.tags, hints.shaped(Click))
    return Hints(hints.tags, hints.objects if kind is Supervision.BOXES else ())


def _taught(
    train: Sequence[Photo], kind: str, chosen: set[str], hints: Mapping[str, Mapping[str, Hints]]
) -> Iterator[Photo]:
    """Yield the photos that teach: those chosen, and in a mixture the others with the first kind."""
    first, *more = kind.split("+")
    for photo in train:
        said = hints[first].get(photo.id, Hints())
        if photo.id in chosen:
            for part in more:
                extra = hints[part].get(photo.id, Hints())
                said = Hints(said.tags, (*said.marks, *extra.marks), extra.scribbles or said.scribbles, extra.mask)
        elif not more:
            continue
        yield replace(photo, hints=said)


def _run(
    out: Path,
    recipe: str,
    part: HintSet,
    seed: int,
    settings: Sequence[str],
    block: dict[str, Any],
    data: Path,
    watch: Watch,
) -> float:
    """Run one cell, or go on with it, and return the segmenter's mIoU."""
    block |= {"path": str(data)}
    if "masks" in part.splits:
        block |= {"learn_masks": "masks"}
    config = load_config(recipe, [*settings, f"seed={seed}"], data=block)
    run = run_recipe(config, out, resume=out.exists(), watch=watch, hint_set=part)
    judged = [row.miou for row in run.metrics if (row.kind, row.split) == ("segmentation", "val")]
    if not judged or judged[-1] is None:
        raise ConfigError(f"recipe '{recipe}' with these settings trains no segmenter, which a study judges")
    return judged[-1]


def _count(kind: str, photos: Sequence[Photo], hint_set: HintSet) -> int:
    """Return how many tags, clicks, strokes, boxes or objects were said of photos."""
    if kind == "tags":
        return sum(len(photo.hints.tags or ()) for photo in photos)
    if kind in ("points", "boxes"):
        return sum(len(photo.hints.shaped(Click)) if kind == "points" else len(photo.hints.objects) for photo in photos)
    total = 0
    for photo in photos:
        if kind == "scribbles":
            total += len(photo.hints.shaped(Stroke))
            image = read_scribbles(photo)
        else:
            mask = photo.hints.mask
            image = None if mask is None else read_full(mask, photo, None, len(hint_set.classes), hint_set.background)
        if image is not None:
            labels = [label for label in np.unique(image) if label != IGNORE and (label or kind == "scribbles")]
            total += sum(1 for label in labels for _ in parts(image == label))
    return total


def caption(kinds: Sequence[str], seconds: Mapping[str, float]) -> str:
    """Say what the hints of some kinds take a person, and who measured it.

    Example:
        >>> caption(["tags+boxes"], {"tags": 1.0, "boxes": 5.0})
        'A hint takes: a tag 1 s (Bearman et al., ECCV 2016), a box 5 s.'
    """
    parts = dict.fromkeys(part for kind in kinds for part in kind.split("+"))
    said = [COST_OF[part].format(f"{seconds[part]:g} s") for part in parts]
    cited = [seconds[part] == SECONDS[part] for part in parts]
    shown = [text if own else text.split(" (")[0] for text, own in zip(said, cited, strict=True)]
    return f"A hint takes: {', '.join(shown)}."


def _write(out: Path, cells: Sequence[Cell], seconds: Mapping[str, float]) -> None:
    rows = [asdict(cell) for cell in cells]
    write_json(out / "study.json", rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(out / "study.csv") as file:
        file.write(text.getvalue().encode())
    with whole_file(out / "curves.svg") as file:
        found = curves(cells)
        file.write(cost_curves(found, caption(list(found), seconds)))
