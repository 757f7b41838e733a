"""Cheap hints drawn out of full masks, for studies: how much do clicks, or strokes of a tenth of the length, cost?

- Points: one click on each object, or on each class, as in Bearman et al.; at random on its pixels, or in its middle.
- Scribbles: one stroke on each object, well inside of it. Lin et al. let people draw them, and shortened them to a
  share of their length to see what that costs; here a smooth random walk that keeps away from the border stands for
  the hand, and the middle of it is kept, so that shorter strokes are parts of the longer ones.
- Boxes: the smallest around each object's pixels. Tags: the classes that occur.

Objects are those that the truth tells apart; of a mask image, the connected parts of a class. Very small parts are left
out where their class has a larger one.

Source:
    Bearman, Russakovsky, Ferrari and Fei-Fei, "What's the Point: Semantic Segmentation with Point Supervision", ECCV
    2016. Lin, Dai, Jia, He and Sun, "ScribbleSup: Scribble-Supervised Convolutional Networks for Semantic
    Segmentation", CVPR 2016, on lengths: section 5.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from hintseg.errors import ConfigError, HintsegError, LabelError, join
from hintseg.files.atomic import whole_file
from hintseg.formats.index_image import write_index
from hintseg.formats.index_png import write_classes
from hintseg.formats.photos import photo_size
from hintseg.geometry.rasterise import pixels as covered
from hintseg.geometry.strokes import near_line
from hintseg.hints.masks import read_full
from hintseg.types import BACKGROUND, IGNORE, FullMask, HintSet, Mark, MaskFile, Photo, Shape, Supervision

Mask = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Per = Literal["object", "class"]

KINDS = (Supervision.SCRIBBLES, Supervision.POINTS, Supervision.BOXES, Supervision.TAGS)

SMALL = 0.001
"""A part that takes less of its photo is left out where its class has a larger one."""

TRIES = 8
"""Walks of which the longest is the stroke."""

OFF = 0.15
"""Share of the way from the border to the innermost point that strokes keep away from it."""

BACKGROUND_NAME = "background"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn.

    Attributes:
        labels: The label file, or the folder of strokes, as `--labels` takes it.
        said: What was drawn, in a sentence.
    """

    labels: Path
    said: str


@dataclass(frozen=True, slots=True)
class Thing:
    """An object, or a class, in a photo.

    Attributes:
        label: 0..K.
        corner: (x, y) of the upper left pixel of the smallest window around it.
        pixels: Its pixels in that window, (h, w) bool.
    """

    label: int
    corner: tuple[int, int]
    pixels: Bools


@dataclass(frozen=True, slots=True)
class Drawing:
    """How hints are drawn.

    Attributes:
        seed: Equal seeds draw equal hints, photo by photo.
        per: Whether each object gets a click or stroke, or each class of a photo one.
        centre: Whether clicks are in the middle, the point farthest from the border; otherwise at random.
        share: Share of a stroke's length that is kept, 0..1; 0 is a spot.
        width: How wide the pen is, pixels, >= 1.

    Raises:
        ConfigError: A value out of its range.
    """

    seed: int = 0
    per: Per = "object"
    centre: bool = False
    share: float = 1.0
    width: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share {self.share:g} given, the share of a stroke's length that is kept is 0 to 1")
        if not 1 <= self.width <= 1000:
            raise ConfigError(f"width {self.width:g} given, a pen of 1 to 1000 pixels is needed")
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed} given, a whole number from 0 on is needed")


def simulate(hint_set: HintSet, kind: Supervision, out: Path, drawing: Drawing | None = None) -> Drawn:
    """Draw hints out of the full masks of a data set, and write them as labels that hintseg reads.

    Args:
        hint_set: Photos with full masks; those without are left out.
        kind: One of `KINDS`.
        out: An empty folder; gets `points.csv`, `boxes.csv`, `tags.csv`, or `scribbles/` (index images, 255 where
            nothing is drawn), and `classes.txt`.
        drawing: How.

    Raises:
        LabelError: No photo has a full mask.
    """
    drawing = drawing or Drawing()
    masks = {photo: full for photo in hint_set.photos if (full := _full(photo)) is not None}
    if not masks:
        raise LabelError(
            f"none of the {len(hint_set.photos)} photos has a full mask to draw hints from; give masks, such as index "
            "PNGs in masks/ with classes.txt, or outlines of all objects"
        )
    counts: Counter[int] = Counter()
    rows, unreadable = list[Sequence[object]](), 0
    for photo, full in masks.items():
        try:
            size = photo_size(photo.path)
            mask = read_full(full, photo, size, len(hint_set.classes), hint_set.background)
        except HintsegError:
            unreadable += 1
            continue
        rng = np.random.default_rng([drawing.seed, zlib.crc32(photo.id.encode())])
        things = [*_things(full, mask, drawing.per if kind is not Supervision.BOXES else "object")]
        if kind in (Supervision.SCRIBBLES, Supervision.POINTS) and hint_set.background:
            things += _largest_part(mask == BACKGROUND)
        if kind is Supervision.SCRIBBLES:
            strokes = np.full(size, IGNORE, np.uint8)
            for thing in things:
                (x, y), (height, width) = thing.corner, thing.pixels.shape
                strokes[y : y + height, x : x + width][stroke(thing.pixels, rng, drawing)] = thing.label
                counts[thing.label] += 1
            write_index(out / "scribbles" / f"{photo.id}.png", strokes)
            continue
        names = [BACKGROUND_NAME, *hint_set.classes]
        name = str(PurePosixPath(photo.id).with_name(photo.path.name))
        if kind is Supervision.TAGS:
            present = sorted({thing.label for thing in things})
            rows.append((name, *(names[label] for label in present)))
            counts.update(present)
            continue
        marks = click if kind is Supervision.POINTS else box
        counts.update(thing.label for thing in things)
        found = [(name, *_placed(marks(thing.pixels, rng, drawing), thing), names[thing.label]) for thing in things]
        rows += found or [(name, *[""] * (3 if kind is Supervision.POINTS else 5))]
    if unreadable == len(masks):
        raise LabelError(f"none of the {len(masks)} photos with a full mask can be read with it; see `hintseg check`")
    labels = out / ("scribbles" if kind is Supervision.SCRIBBLES else f"{kind.value}.csv")
    write_classes(labels if kind is Supervision.SCRIBBLES else out, hint_set)
    if kind is not Supervision.SCRIBBLES:
        header = {Supervision.POINTS: "filename,x,y,label", Supervision.BOXES: "filename,x0,y0,x1,y1,label"}
        _write(labels, [*([header[kind].split(",")] if kind in header else []), *rows])
    return Drawn(labels, _said(hint_set, kind, drawing, len(masks) - unreadable, counts, unreadable))


def _placed(values: Sequence[float], thing: Thing) -> Iterator[float]:
    """Yield the numbers x, y, ... of a mark in a thing's window as those of the photo."""
    return (value + thing.corner[place % 2] for place, value in enumerate(values))


def click(pixels: Bools, rng: np.random.Generator, drawing: Drawing) -> tuple[float, float]:
    """Return a point (x, y), pixels, in the middle of one of the thing's pixels."""
    inside = _depth(pixels)
    if drawing.centre:
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    else:
        rows, columns = np.nonzero(inside >= min(2.0, inside.max()))
        chosen = int(rng.integers(rows.size))
        row, column = rows[chosen], columns[chosen]
    return float(column) + 0.5, float(row) + 0.5


def box(pixels: Bools, rng: np.random.Generator, drawing: Drawing) -> tuple[int, int, int, int]:
    """Return the smallest box around a thing, (x0, y0, x1, y1), pixels, right and bottom exclusive."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def stroke(pixels: Bools, rng: np.random.Generator, drawing: Drawing) -> Bools:
    """Return the pixels of a stroke on a thing, (H, W) bool: inside of it, and where it is wide enough off its border.

    Args:
        pixels: The thing, (H, W) bool, with at least one pixel.
        rng: Draws it.
        drawing: The share of its length that is kept, and the pen's width.
    """
    x0, y0, x1, y1 = box(pixels, rng, drawing)
    part = pixels[y0:y1, x0:x1]
    line, radius = stroke_line(part, rng, drawing)
    drawn = np.zeros_like(pixels)
    drawn[y0:y1, x0:x1] = near_line(line, radius, part.shape) & part
    if not drawn.any():  # a spot between pixels
        drawn[y0 + int(line[0, 1]), x0 + int(line[0, 0])] = True
    return drawn


def stroke_line(pixels: Bools, rng: np.random.Generator, drawing: Drawing) -> tuple[Floats, float]:
    """Return the line of a stroke on a thing, (n, 2) points (x, y), pixels, and the radius of a pen that fits there.

    Args:
        pixels: The thing, (H, W) bool, with at least one pixel.
        rng: Draws it.
        drawing: The share of its length that is kept, and the pen's width.
    """
    inside = _depth(pixels)
    deepest = float(inside.max())
    margin = min(max(drawing.width / 2 + 2, OFF * deepest), deepest)
    line = shortened(max((_walk(inside, margin, rng) for _ in range(TRIES)), key=length), drawing.share)
    return line, min(drawing.width / 2, max(margin - 2, 0.5))


def length(line: Floats) -> float:
    """Return the length of a line, (n, 2) points, pixels."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def shortened(line: Floats, share: float) -> Floats:
    """Return the middle of a line, of a share of its length.

    Example:
        >>> shortened(np.array([[0.0, 0.0], [8.0, 0.0], [10.0, 0.0]]), 0.5).tolist()
        [[2.5, 0.0], [7.5, 0.0]]
    """
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    ends = along[-1] * (0.5 - share / 2), along[-1] * (0.5 + share / 2)
    places = np.array([ends[0], *along[(along > ends[0]) & (along < ends[1])], ends[1]])
    return np.stack([np.interp(places, along, line[:, axis]) for axis in (0, 1)], axis=1)


def _walk(inside: Floats, margin: float, rng: np.random.Generator) -> Floats:
    """Return a smooth walk through a thing, (n, 2) points (x, y), from a point well inside of it both ways.

    Args:
        inside: Distance of each pixel from the thing's border, (h, w), pixels; 0 outside of it.
        margin: The distance that is kept.
        rng: Draws it.
    """
    rows, columns = np.nonzero(inside >= max(margin, inside.max() / 2))
    chosen = int(rng.integers(rows.size))
    start = np.array([columns[chosen] + 0.5, rows[chosen] + 0.5])
    step = max(1.0, float(inside.max()) / 4)
    most = float(np.hypot(*inside.shape)) / 2
    heading = rng.uniform(0, 2 * np.pi)
    halves = []
    passed = [start]
    for direction in (heading, heading + np.pi):
        half = [start]
        while len(half) * step <= most:
            turn = rng.normal(0, 0.25)
            for more in (0.0, 0.4, -0.4, 0.8, -0.8, 1.2, -1.2):
                towards = direction + turn + more
                steps = half[-1] + step * np.outer((0.5, 1.0), (np.cos(towards), np.sin(towards)))
                if _free(steps, inside, margin) and all(np.hypot(*(p - steps[1])) > 0.7 * step for p in passed):
                    break
            else:
                break
            direction = towards
            half.append(steps[1])
            passed.append(steps[1])
        halves.append(half)
    return np.array([*halves[1][:0:-1], *halves[0]])


def _free(points: Floats, inside: Floats, margin: float) -> bool:
    columns, rows = np.floor(points).astype(int).T
    height, width = inside.shape
    if columns.min() < 0 or rows.min() < 0 or columns.max() >= width or rows.max() >= height:
        return False
    return bool((inside[rows, columns] >= margin).all())


def _depth(pixels: Bools) -> Floats:
    """Return how far each pixel is from the nearest one outside, (H, W), pixels; beyond the picture is outside."""
    around = np.pad(pixels, 1).astype(np.uint8)
    far = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Its last bit differs from call to call; squared distances are whole numbers.
    squared = np.rint(np.square(np.asarray(far[1:-1, 1:-1], dtype=np.float64)))
    depth: Floats = np.sqrt(squared)
    return depth


def _things(full: FullMask, mask: Mask, per: Per) -> Iterator[Thing]:
    """Yield what is drawn on, by class."""
    for label in np.unique(mask[(mask != BACKGROUND) & (mask != IGNORE)]).tolist():
        if per == "class":
            yield _thing(label, *np.nonzero(mask == label))
        elif isinstance(full, MaskFile):
            yield from (_thing(label, *np.nonzero(part)) for part in parts(mask == label))
        else:
            shown = [thing for mark in full if mark.label == label and (thing := _shown(mark, mask)) is not None]
            enough = min(SMALL * mask.size, max(_area(thing) for thing in shown))
            yield from (thing for thing in shown if _area(thing) >= enough)


def _shown(mark: Mark[Shape], mask: Mask) -> Thing | None:
    """Return the pixels of a mark that the mask has of its class; None where there are none."""
    rows, columns = covered(mark.shape, (mask.shape[0], mask.shape[1]))
    own = mask[rows, columns] == mark.label
    return _thing(mark.label, rows[own], columns[own]) if own.any() else None


def _thing(label: int, rows: Indices, columns: Indices) -> Thing:
    x, y = int(columns.min()), int(rows.min())
    pixels = np.zeros((int(rows.max()) - y + 1, int(columns.max()) - x + 1), dtype=np.bool_)
    pixels[rows - y, columns - x] = True
    return Thing(label, (x, y), pixels)


def parts(pixels: Bools) -> Iterator[Bools]:
    """Yield the connected parts that are not very small, or the largest."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    for number in np.flatnonzero(areas >= min(SMALL * pixels.size, areas.max(initial=0))).tolist():
        yield numbers == number + 1


def _largest_part(pixels: Bools) -> list[Thing]:
    found = [_thing(BACKGROUND, *np.nonzero(part)) for part in parts(pixels)]
    return [max(found, key=_area)] if found else []


def _area(thing: Thing) -> int:
    return int(np.count_nonzero(thing.pixels))


def _full(photo: Photo) -> FullMask | None:
    return photo.truth if photo.truth is not None else photo.hints.mask


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


_WHAT = {
    Supervision.SCRIBBLES: "strokes",
    Supervision.POINTS: "points",
    Supervision.BOXES: "boxes",
    Supervision.TAGS: "tags",
}


def _said(
    hint_set: HintSet, kind: Supervision, drawing: Drawing, photos: int, counts: Counter[int], unreadable: int
) -> str:
    names = [BACKGROUND_NAME, *hint_set.classes]
    each = join([f"{names[label]} {count}" for label, count in sorted(counts.items())])
    how = {
        Supervision.SCRIBBLES: f"{drawing.share:.0%} of their length, {drawing.width:g} px wide",
        Supervision.POINTS: "in the middle" if drawing.centre else "at random",
    }.get(kind, "")
    without = len(hint_set.photos) - photos - unreadable
    left = [f"{without} photos without a full mask are left out"] if without else []
    left += [f"{unreadable} that cannot be read with their mask are left out"] if unreadable else []
    way = f", one per {drawing.per}, {how}, seed {drawing.seed}" if how else ""
    return "; ".join([f"{sum(counts.values())} {_WHAT[kind]} on {photos} photos{way} ({each})", *left])
