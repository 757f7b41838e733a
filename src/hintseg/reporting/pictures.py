"""Photos, hints, class maps and masks as small pictures."""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hintseg.data.photos import read_photo
from hintseg.errors import PhotoError, RunError
from hintseg.evaluation.confusion import Confusion
from hintseg.files.arrays import read_arrays
from hintseg.files.atomic import whole_file
from hintseg.files.palette import voc_palette
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MASK_KINDS, PhotoRow, Stage
from hintseg.store.instances import read_instances
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png

SIDE = 256
"""Longer side of a picture in the report, pixels."""

_SMALL = 150
"""Side of a picture in the rows of `write_panels`, pixels: eight of them fill the report."""

_HEADER = 22
"""Height of the captions above the rows of `write_pictures`, pixels."""


def thumbnail(path: Path) -> tuple[Image.Image, float]:
    """Read a photo with its longer side at most `SIDE` pixels.

    Returns:
        The RGB photo and the factor, <= 1, it was resized by.

    Raises:
        PhotoError: The photo is gone or broken.
    """
    photo = Image.fromarray(read_photo(path))
    size, factor = _fit(photo.width, photo.height)
    return photo.resize(size, Image.Resampling.LANCZOS), factor


def draw_hints(picture: Image.Image, photo: PhotoRow, factor: float) -> Image.Image:
    """Return a copy of a photo with its boxes and points.

    Args:
        picture: The photo, resized by `factor`.
        photo: Its entry of ``photos.json``.
        factor: Picture pixels per photo pixel.
    """
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    for label, *box in photo.boxes or ():
        x0, y0, x1, y1 = (factor * v for v in box)
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(corners, outline=(255, 255, 255), width=3)
        draw.rectangle(corners, outline=colour(label), width=2)
    for label, x, y in photo.points or ():
        x, y = factor * x, factor * y
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour(label), outline=(255, 255, 255), width=2)
    return drawn


def heat(picture: Image.Image, maps: np.ndarray[Any, Any]) -> Image.Image:
    """Lay the strongest class score of each pixel over a photo, dark violet (0) to yellow (1).

    Args:
        picture: The photo, (H, W).
        maps: Class maps (n, h, w), 0..1; n may be 0.
    """
    strongest = maps.astype(np.float32).max(axis=0, initial=0)  # (h, w)
    scores = Image.fromarray(strongest).resize(picture.size, Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps["inferno"](np.asarray(scores).clip(0, 1), bytes=True)[..., :3]  # (H, W, 3)
    return Image.blend(picture, Image.fromarray(colours), 0.65)


def _drawn(kind: str, path: Path, picture: Image.Image) -> Image.Image:
    """Draw what a stage wrote of a photo; for the kinds see `hintseg.run.schema.Show`."""
    if kind == "heat":
        return heat(picture, read_label_png(path)[None] / np.float32(255))
    labels = read_instances(path).semantic() if kind == "objects" else read_label_png(path)
    return _picture(labels, picture.size)


def _picture(labels: np.ndarray[Any, Any], size: tuple[int, int]) -> Image.Image:
    """Return labels in their class colours, at `size` (width, height), without inventing colours in between."""
    mask = Image.fromarray(labels)
    mask.putpalette(voc_palette().tobytes())
    return mask.resize(size, Image.Resampling.NEAREST)


def colour(label: int) -> tuple[int, int, int]:
    """Return a class id's colour, 0..255 RGB."""
    red, green, blue = voc_palette()[label].tolist()
    return red, green, blue


def panels(
    run: RunFolder, photo: PhotoRow, stages: Sequence[Stage], *, apart: bool = False
) -> list[tuple[str, Image.Image]]:
    """Return what exists of a photo, all of one size: hints, class map, masks, truth.

    Args:
        run: The run folder.
        photo: An entry of ``photos.json``.
        stages: Stages whose masks are shown.
        apart: Whether each class has a map of its own, after the truth, rather than all share one.

    Returns:
        (caption, picture) pairs. A photo that is gone or broken is left out; its masks are still shown.
    """
    beside = run.shows("mask", "heat", "objects")
    files = [(show.title, show.kind, run.path / of / show.file(photo.id)) for of, show in beside if of in stages]
    files += [(MASK_KINDS[stage], "mask", run.mask_path(stage, photo.id)) for stage in stages]
    files += [("truth", "mask", run.truth_path(photo.id))]
    files = [one for one in files if one[2].is_file()]
    try:
        picture, factor = thumbnail(photo.path)
    except PhotoError:
        labels = [(name, read_label_png(path)) for name, kind, path in files if kind == "mask"]
        return [(name, _picture(mask, _fit(mask.shape[1], mask.shape[0])[0])) for name, mask in labels]
    hints = ("photo and hints", draw_hints(picture, photo, factor))
    masks = [(name, _drawn(kind, path, picture)) for name, kind, path in files]
    maps_file = run.maps_path(photo.id, stages)
    if maps_file is None:
        return [hints, *masks]
    class_ids, maps = read_maps(maps_file)
    if not apart:
        return [hints, ("class map", heat(picture, maps)), *masks]
    each = [
        (f"class map of {run.classes[k - 1]}", heat(picture, m[None])) for k, m in zip(class_ids, maps, strict=True)
    ]
    return [hints, *masks, *each]


def row_panels(path: Path, photo: PhotoRow, name: str) -> list[tuple[str, Image.Image]]:
    """Return a photo with a few marked pixels, and the map of each; nothing where there is no such file.

    Args:
        path: Points and maps, see the kind `rows` of `hintseg.run.schema.Show`.
        photo: An entry of ``photos.json``.
        name: What the maps are called.

    Returns:
        (caption, picture) pairs: the photo, then one heat map per pixel.
    """
    if not path.is_file():
        return []
    try:
        picture, _ = thumbnail(photo.path)
        queries, maps = read_arrays(path, {"queries": "f", "maps": "f"})
    except (PhotoError, RunError):
        return []  # the photo is gone or the file is broken: the rest of the report stands
    marked = picture.copy()
    for number, point in enumerate(queries, start=1):
        _mark(marked, point, str(number))
    shown = [("photo and pixels", marked)]
    for number, (point, one) in enumerate(zip(queries, maps, strict=True), start=1):
        shown.append((f"{name} of pixel {number}", _mark(heat(picture, one[None]), point, "")))
    return shown


def _mark(picture: Image.Image, point: Sequence[float], text: str) -> Image.Image:
    """Draw a cross at a point given as shares of width and height, and a text beside it."""
    x, y = point[0] * picture.width, point[1] * picture.height
    draw = ImageDraw.Draw(picture)
    for width, shade in ((4, (0, 0, 0)), (2, (255, 255, 255))):
        draw.line((x - 6, y, x + 6, y), fill=shade, width=width)
        draw.line((x, y - 6, x, y + 6), fill=shade, width=width)
    draw.text(
        (x + 6, y + 2), text, fill=(255, 255, 255), font=ImageFont.load_default(13), stroke_width=1, stroke_fill=0
    )
    return picture


def write_pictures(run: Path, stage: Stage, ids: Sequence[str]) -> Path:
    """Draw a few photos as rows of photo, class map, mask and truth, and write them as ``RUN/STAGE/pictures.png``.

    Args:
        run: The run folder.
        stage: The stage whose masks are shown.
        ids: Photo ids, one row each; ids the run does not know are left out.

    Returns:
        The picture's path.

    Raises:
        RunError: `run` is no run folder.
    """
    folder = RunFolder.open(run)
    known = {photo.id: photo for photo in folder.photos}
    stages: list[Stage] = ["localize", "refine"] if stage == "refine" else [stage]
    rows = [(i, panels(folder, known[i], stages)) for i in ids if i in known]
    titled = []
    for photo_id, row in rows:
        tags = [folder.classes[t - 1] for t in known[photo_id].tags or ()]
        titled.append((f"{photo_id}: {', '.join(tags) or 'no tags'}", row))
    out = run / stage / "pictures.png"
    _write_sheet(out, titled, SIDE)
    return out


class Panel(NamedTuple):
    """One picture of a row.

    Attributes:
        caption: What it shows.
        rgb: (H, W, 3) uint8.
        map: Scores (h, w) in 0..1 laid over it, or None.
    """

    caption: str
    rgb: np.ndarray[Any, Any]
    map: np.ndarray[Any, Any] | None


def write_panels(out: Path, rows: Sequence[tuple[str, Sequence[Panel]]]) -> None:
    """Draw rows of small pictures, each with a title below, and write them as one PNG."""
    drawn = []
    for title, row in rows:
        pictures = [(p, Image.fromarray(p.rgb).resize((_SMALL, _SMALL))) for p in row]
        drawn.append((title, [(p.caption, i if p.map is None else heat(i, p.map[None])) for p, i in pictures]))
    _write_sheet(out, drawn, _SMALL)


def _write_sheet(out: Path, rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]], side: int) -> None:
    """Write rows of captioned pictures, at most `side` pixels wide, with a title below each row."""
    captions = list(dict.fromkeys(caption for _, row in rows for caption, _ in row))
    gap = 6
    heights = [max((p.height for _, p in row), default=0) + _HEADER for _, row in rows]
    sheet = Image.new(
        "RGB", (max(1, len(captions) * (side + gap) - gap), max(1, sum(heights) + _HEADER)), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, caption in enumerate(captions):
        draw.text((column * (side + gap) + 2, 3), caption, fill=(0, 0, 0), font=font)
    top = _HEADER
    for (title, row), height in zip(rows, heights, strict=True):
        draw.text((2, top + height - _HEADER + 2), title, fill=(70, 70, 70), font=font)
        for caption, picture in row:
            sheet.paste(picture.convert("RGB"), (captions.index(caption) * (side + gap), top))
        top += height
    with whole_file(out) as file:
        sheet.save(file, "PNG", optimize=True)


def photo_scores(run: RunFolder, stage: Stage, ids: Sequence[str]) -> tuple[dict[str, float], str]:
    """Score masks, to find the best and the worst.

    Args:
        run: The run folder.
        stage: The stage whose masks are scored.
        ids: Ids of photos that have such a mask.

    Returns:
        (scores 0..1 by photo id, what they are): each photo's own mIoU where truth exists, otherwise the quality its
        maker stated, 0 where it stated none.

    Cost:
        Reads two masks per photo: about 5 ms each.
    """
    judged = {i: _photo_miou(run, stage, i) for i in ids if run.truth_path(i).is_file()}
    if judged:
        return {i: score for i, score in judged.items() if not math.isnan(score)}, "mIoU"
    stated = run.qualities(stage)
    return {i: stated.get(i, 0.0) for i in ids}, "stated quality"


def unplaced(run: RunFolder, stage: Stage, photos: Sequence[PhotoRow]) -> dict[str, tuple[int, int]]:
    """Count photos whose mask leaves out a class that their tags name: a failure that shows without any truth.

    Args:
        run: The run folder.
        stage: The stage whose masks are looked at.
        photos: Entries of ``photos.json`` that have such a mask.

    Returns:
        By class name: photos in which it has no pixel, and photos tagged with it.
    """
    counts = dict.fromkeys(run.classes, (0, 0))
    for photo in photos:
        found = set(np.unique(read_label_png(run.mask_path(stage, photo.id))).tolist())
        for tag in photo.tags or ():
            missing, tagged = counts[run.classes[tag - 1]]
            counts[run.classes[tag - 1]] = (missing + (tag not in found), tagged + 1)
    return counts


def choose(scores: dict[str, float], seed: int, count: int = 3) -> list[tuple[str, list[str]]]:
    """Choose photos to show: the best, the worst, and random ones among the others.

    Example:
        >>> choose({"a": 0.1, "b": 0.5, "c": 0.9}, seed=0, count=1)
        [('best', ['c']), ('worst', ['a']), ('random', ['b'])]
    """
    ranked = sorted(scores, key=lambda i: (scores[i], i))
    best = ranked[::-1][:count]
    worst = [i for i in ranked[:count] if i not in best]
    others = [i for i in ranked if i not in best and i not in worst]
    drawn = random.Random(seed).sample(others, min(count, len(others)))
    return [(name, ids) for name, ids in (("best", best), ("worst", worst), ("random", drawn)) if ids]


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI: PNG for masks, which it keeps exact, JPEG for photos."""
    kind = "PNG" if picture.mode == "P" else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=82, optimize=True)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _photo_miou(run: RunFolder, stage: Stage, photo_id: str) -> float:
    """Return one photo's mean IoU over the classes in its truth or mask, 0..1; NaN where the truth says nothing."""
    confusion = Confusion(len(run.classes), background=run.background, undecided="background")
    confusion.add(read_label_png(run.truth_path(photo_id)), read_label_png(run.mask_path(stage, photo_id)))
    return confusion.miou()


def _fit(width: int, height: int) -> tuple[tuple[int, int], float]:
    """Return the (width, height) that fits into a square of `SIDE`, and the factor to it."""
    factor = min(1.0, SIDE / max(width, height))
    return (max(1, round(width * factor)), max(1, round(height * factor))), factor
