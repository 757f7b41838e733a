"""The embedded data set `shapes`: synthetic photos with every kind of hint, made on the fly from a seed.

It is small and quick, and shows the three troubles of weak supervision:

1. A part is enough. Each object has a loud head that names its class and covers about a sixth of it; the body has only
   a weak cue (a faint grating and a colour shift about as large as the spread of colours).
2. Classes have company. `train` is nearly always on rails and `boat` on water; `horse` and `cart` come together.
3. Outlines are soft or cluttered: blur, noise, overlaps and distractors of no class.

About 45 % of the photos show one class (44 to 52 % over three seeds), 4 % none; objects cover 34 % of the pixels; 59 to
69 % of the photos with a horse have a cart.

What the methods reach on it: docs/notebook.md.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.errors import ConfigError, RunError, did_you_mean
from hintseg.files.lock import locked
from hintseg.files.owned import kind_of, mark
from hintseg.types import BACKGROUND, IGNORE

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Rgb = tuple[int, int, int]


class _Look(NamedTuple):
    """How a class looks, in the object's own frame, where lengths are multiples of the object's radius."""

    name: str
    aspect: float  # length / height of the body
    power: float  # exponent of the body's super-ellipse: 2 is an ellipse, large is a box
    head: tuple[Rgb, Rgb]  # two loud colours: the striking part, enough to recognise the class
    head_waves: tuple[float, float]  # pattern of the head, radians along and across
    body_waves: tuple[float, float]  # a faint grating: one weak cue of the body, radians along and across
    tint: Rgb  # shift of the body's mean colour: the other weak cue, grey levels


_LOOKS = (
    _Look("train", 1.9, 6.0, ((250, 215, 20), (20, 20, 20)), (14.0, 0.0), (9.0, 0.0), (10, 8, -18)),
    _Look("boat", 1.6, 2.5, ((235, 235, 250), (200, 20, 40)), (0.0, 13.0), (0.0, 9.0), (-12, -2, 14)),
    _Look("horse", 1.3, 2.0, ((240, 120, 20), (90, 20, 110)), (7.0, 7.0), (5.0, 5.0), (16, -4, -12)),
    _Look("cart", 1.4, 5.0, ((20, 200, 220), (240, 240, 240)), (12.0, 12.0), (9.0, 9.0), (-6, -12, 18)),
    _Look("bird", 1.2, 2.0, ((240, 40, 200), (250, 230, 60)), (0.0, 6.0), (13.0, -6.0), (-16, 12, 4)),
    _Look("mushroom", 1.0, 3.0, ((215, 25, 25), (245, 245, 245)), (9.0, 9.0), (4.0, -13.0), (14, -14, 0)),
)

CLASSES: tuple[str, ...] = tuple(look.name for look in _LOOKS)
"""Names of the classes; class id n, 1..K, is entry n - 1."""


class _Ground(NamedTuple):
    """A background texture."""

    rgb: Rgb
    waves: tuple[float, float]  # grating, cycles per photo along x and y
    contrast: float  # of the grating, grey levels
    mottle: float  # contrast of the blotches, grey levels


_GROUNDS = {
    "rails": _Ground((120, 110, 105), (11.0, 3.0), 26.0, 10.0),
    "water": _Ground((70, 115, 165), (1.5, 9.0), 16.0, 8.0),
    "grass": _Ground((95, 145, 70), (0.0, 0.0), 0.0, 22.0),
    "sand": _Ground((190, 165, 120), (3.0, 5.0), 8.0, 10.0),
    "snow": _Ground((205, 210, 215), (0.0, 0.0), 0.0, 10.0),
    "soil": _Ground((105, 80, 60), (2.0, 2.0), 6.0, 20.0),
}
_HOME = {1: "rails", 2: "water"}  # the ground a class is nearly always seen on
_COMMON = ("grass", "sand", "snow", "soil")
_PARTNER = {3: 4, 4: 3}  # classes that come together

# The dials: turn one, and the figures in the docstring of this module must be measured again.
_P_NEGATIVE = 0.05
_P_HOME = 0.8
_P_STRAY = 0.3  # a home ground without its class, so that background alone does not settle a class
_P_PARTNER = 0.65
_P_SECOND = 0.5
_P_THIRD = 0.2  # a third object, where there are two
_TINT = 1.2  # strength of the weak colour cue, multiples of `_Look.tint`
_GRATING = 11.0  # strength of the weak texture cue, grey levels
_BODY_SPREAD = 14.0  # what hides the colour cue: standard deviation of an object's colour, grey levels
_NOISE = 6.0  # per pixel, grey levels
_RADIUS = (0.23, 0.34)  # of a single object, multiples of the photo's side
_SHRINK = (1.0, 0.85, 0.75)  # factor on the radius of one, two, three objects
_HEAD_RADIUS = 0.45  # multiples of the object's radius
_SPLITS = ("train", "val")
_SMALLEST = 32  # pixels; below it the patterns are finer than the pixels


class Instance(NamedTuple):
    """One object: class id 1..K, box (x0, y0, x1, y1) in pixels (right, bottom exclusive), visible part (H, W) bool."""

    label: int
    box: tuple[int, int, int, int]
    mask: Bools


class Click(NamedTuple):
    """One click on an object: class id 1..K at the pixel in column x and row y."""

    label: int
    x: int
    y: int


@dataclass(frozen=True, eq=False)
class ShapesPhoto:
    """A synthetic photo and all that is known about it.

    Attributes:
        rgb: The photo, (H, W, 3) uint8.
        mask: The truth, (H, W) uint8: 0 background, 1..K classes.
        tags: Class ids 1..K in `mask`; empty for a negative.
        instances: The objects, back to front; only those with a visible pixel.
        scribbles: Strokes, (H, W) uint8: 0 on background, 1..K on objects, 255 elsewhere.
        points: One click per object, in the order of `instances`.
    """

    rgb: Bytes
    mask: Bytes
    tags: frozenset[int]
    instances: tuple[Instance, ...]
    scribbles: Bytes
    points: tuple[Click, ...]


def make_photo(index: int, *, split: str = "train", seed: int = 0, size: int = 96) -> ShapesPhoto:
    """Make one photo of `shapes`; it depends on nothing but the arguments.

    Args:
        index: Number of the photo in its split, >= 0.
        split: ``train`` or ``val``.
        seed: Number of the data set, >= 0.
        size: Height and width, pixels, >= 32.

    Raises:
        ConfigError: An unknown split, or a number out of range.

    Cost:
        About 2.5 ms at 96 pixels.

    Example:
        >>> photo = make_photo(0)
        >>> photo.rgb.shape, sorted(CLASSES[tag - 1] for tag in photo.tags)
        ((96, 96, 3), ['boat', 'cart', 'horse'])
    """
    if split not in _SPLITS:
        raise ConfigError(
            f"unknown split '{split}'; the splits of shapes are train and val{did_you_mean(split, _SPLITS)}"
        )
    if index < 0 or seed < 0 or size < _SMALLEST:
        raise ConfigError(
            f"index={index}, seed={seed}, size={size}: index and seed must be >= 0 and size >= {_SMALLEST}"
        )
    rng = np.random.default_rng((seed, _SPLITS.index(split), index))
    grid = np.mgrid[0:size, 0:size].astype(np.float32) + np.float32(0.5)
    y, x = grid[0], grid[1]
    labels = _choose_labels(rng)
    canvas = _paint_ground(rng, labels, x, y)
    for _ in range(int(rng.integers(0, 3))):
        _paint_distractor(rng, canvas, x, y)
    owner = np.zeros((size, size), np.uint8)  # 0, or number of the object in sight, from 1
    radii = rng.uniform(*_RADIUS, len(labels)) * size * _SHRINK[max(len(labels) - 1, 0)]
    for number, (label, radius, centre) in enumerate(
        zip(labels, radii, _place(rng, radii, size), strict=True), start=1
    ):
        owner[_paint_object(rng, canvas, x, y, _LOOKS[label - 1], float(radius), centre)] = number
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    canvas += _NOISE * rng.standard_normal(canvas.shape, dtype=np.float32)

    mask = np.array([BACKGROUND, *labels], np.uint8)[owner]
    seen = [(label, owner == number) for number, label in enumerate(labels, start=1) if (owner == number).any()]
    scribbles = np.full((size, size), IGNORE, np.uint8)
    if (owner == 0).any():
        scribbles[_stroke(rng, owner == 0, corners=5)] = BACKGROUND
    for label, part in seen:
        scribbles[_stroke(rng, part, corners=3)] = label
    return ShapesPhoto(
        rgb=np.clip(canvas, 0, 255).astype(np.uint8),
        mask=mask,
        tags=frozenset(label for label, _ in seen),
        instances=tuple(Instance(label, _tight_box(part), part) for label, part in seen),
        scribbles=scribbles,
        points=tuple(Click(label, *_inner_pixels(rng, part, 1)[0]) for label, part in seen),
    )


def _choose_labels(rng: np.random.Generator) -> list[int]:
    if rng.random() < _P_NEGATIVE:
        return []
    labels = [int(rng.integers(1, len(CLASSES) + 1))]
    if labels[0] in _PARTNER:
        if rng.random() < _P_PARTNER:
            labels.append(_PARTNER[labels[0]])
    elif rng.random() < _P_SECOND:
        labels.append(int(rng.integers(1, len(CLASSES) + 1)))
    if len(labels) == 2 and rng.random() < _P_THIRD:
        labels.append(int(rng.integers(1, len(CLASSES) + 1)))
    return labels


def _blotches(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Return smooth noise (size, size) with about unit contrast and `cells` blotches a side."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)  # type: ignore[no-any-return]


def _paint_ground(rng: np.random.Generator, labels: list[int], x: Floats, y: Floats) -> Floats:
    """Return the background, (H, W, 3) in grey levels."""
    home = next((_HOME[label] for label in labels if label in _HOME), None)
    if home is not None and rng.random() < _P_HOME:
        name = home
    elif rng.random() < _P_STRAY:
        name = rng.choice(tuple(_HOME.values()))
    else:
        name = rng.choice(_COMMON)
    ground, size = _GROUNDS[name], len(x)
    warp = _blotches(rng, size, 4)
    phase = 2 * math.pi / size * (ground.waves[0] * x + ground.waves[1] * y) + 0.8 * warp + _any_phase(rng)
    grey = ground.contrast * np.sin(phase) + ground.mottle * _blotches(rng, size, 16) + 8 * warp
    colour = np.add(ground.rgb, rng.normal(0, 10, 3)).astype(np.float32)
    return colour + grey[..., None]


def _paint_distractor(rng: np.random.Generator, canvas: Floats, x: Floats, y: Floats) -> None:
    """Paint a small thing of no class."""
    size = len(x)
    radius = rng.uniform(0.05, 0.12) * size
    u, v = _own_frame(rng, x, y, rng.uniform(0, size, 2), radius)
    outside = _outside_body(u, v, rng.uniform(1, 2), rng.uniform(2, 5)) * radius
    texture = 14 * np.sin(rng.uniform(3, 12) * u + rng.uniform(3, 12) * v)
    colour = rng.uniform(60, 190, 3).astype(np.float32)
    canvas += _cover(outside, 2.0) * (colour + texture[..., None] - canvas)


def _place(rng: np.random.Generator, radii: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return centres (n, 2): the least crowded of eight random tries, so overlaps are there but rare."""
    tries = rng.uniform(0.22, 0.78, (8, len(radii), 2)) * size
    pairs = [(i, j) for i in range(len(radii)) for j in range(i)]
    gaps = [min((math.dist(t[i], t[j]) - radii[i] - radii[j] for i, j in pairs), default=0.0) for t in tries]
    centres: npt.NDArray[np.float64] = tries[int(np.argmax(gaps))]
    return centres


def _paint_object(
    rng: np.random.Generator,
    canvas: Floats,
    x: Floats,
    y: Floats,
    look: _Look,
    radius: float,
    centre: npt.NDArray[np.float64],
) -> Bools:
    """Paint an object onto `canvas` and return where it is, (H, W)."""
    u, v = _own_frame(rng, x, y, centre, radius)
    head_u, head_v = u - 0.85 * math.sqrt(look.aspect), v + 0.25
    head_outside = np.hypot(head_u, head_v) - _HEAD_RADIUS
    outside = np.minimum(_outside_body(u, v, look.aspect, look.power), head_outside) * radius

    colour = 130 + _TINT * np.asarray(look.tint, np.float32) + rng.normal(0, _BODY_SPREAD, 3).astype(np.float32)
    shade = rng.uniform(-12, 12) * v + 5 * _blotches(rng, len(x), 8)
    grating = _GRATING * np.sin(look.body_waves[0] * u + look.body_waves[1] * v + _any_phase(rng))
    paint = (colour + (shade + grating)[..., None]).astype(np.float32)

    wave = np.sin(look.head_waves[0] * head_u + 0.7) * np.sin(look.head_waves[1] * head_v + 0.7)
    blend = np.clip(0.5 + 3 * wave, 0, 1)[..., None]
    first, second = np.asarray(look.head, np.float32) * np.float32(rng.uniform(0.8, 1.05))
    paint += _cover(head_outside * radius, 1.5) * (second + blend * (first - second) - paint)

    cover = _cover(outside, rng.uniform(1.0, 3.0))
    canvas += cover * (paint - canvas)
    return cover[..., 0] > 0.5


def _any_phase(rng: np.random.Generator) -> float:
    return rng.uniform(0, 2 * math.pi)


def _own_frame(
    rng: np.random.Generator, x: Floats, y: Floats, centre: npt.NDArray[np.float64], radius: float
) -> tuple[Floats, Floats]:
    """Return the pixels' coordinates along and across an object that is tilted a little and faces left or right."""
    angle = rng.uniform(-0.5, 0.5) + math.pi * int(rng.integers(2))
    cos, sin = math.cos(angle) / radius, math.sin(angle) / radius
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    return cos * dx + sin * dy, cos * dy - sin * dx


def _outside_body(u: Floats, v: Floats, aspect: float, power: float) -> Floats:
    """Return how far each pixel is outside a super-ellipse along the ray from its centre; negative inside."""
    stretch = math.sqrt(aspect)
    scale = (np.abs(u / stretch) ** power + np.abs(v * stretch) ** power) ** (1 / power)  # 1 on the outline
    outside: Floats = (scale - 1) * np.hypot(u, v) / np.maximum(scale, 1e-3)
    return outside


def _cover(outside: Floats, softness: float) -> Floats:
    """Return opacity (H, W, 1) of a thing whose edge is `softness` pixels wide."""
    opacity: Floats = np.clip(0.5 - outside / np.float32(softness), 0, 1)[..., None]
    return opacity


def _tight_box(part: Bools) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(part.any(0)), np.flatnonzero(part.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _inner_pixels(rng: np.random.Generator, part: Bools, count: int) -> list[tuple[int, int]]:
    """Return random pixels (x, y) of `part` that are at least half as deep inside as its deepest."""
    depth = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 3)
    rows, columns = np.nonzero(part & (depth >= 0.5 * depth.max()))
    picks = rng.integers(len(rows), size=count)
    return [(int(columns[pick]), int(rows[pick])) for pick in picks]


def _stroke(rng: np.random.Generator, part: Bools, corners: int) -> Bools:
    """Return a line through random inner pixels of `part`, kept inside it."""
    line = np.zeros(part.shape, np.uint8)
    path = np.array(_inner_pixels(rng, part, corners), np.int32)
    cv2.polylines(line, [path], isClosed=False, color=1, thickness=max(1, len(part) // 48))
    return (line > 0) & part


# Pascal VOC's colours of background, the classes and 255. The full table is in `store`, which lies above `data`.
_PALETTE = np.zeros((256, 3), np.uint8)
_PALETTE[: len(CLASSES) + 1] = [(c & 1, c >> 1 & 1, c >> 2 & 1) for c in range(len(CLASSES) + 1)]
_PALETTE *= 128
_PALETTE[IGNORE] = (224, 224, 192)


def write_shapes(folder: Path, *, train: int = 400, val: int = 100, seed: int = 0, size: int = 96) -> None:
    """Write `shapes` as a folder in Pascal VOC layout; it appears whole or not at all.

    ==================================  =================================================================
    JPEGImages/ID.png                   the photos, lossless
    SegmentationClass/ID.png            the truth, palette PNG: 0 background, 1..K
    Annotations/ID.xml                  boxes as in VOC: 1-based, right and bottom inclusive
    Scribbles/ID.png                    strokes, palette PNG: 0 background, 1..K, 255 unlabelled
    Hints/points.csv                    `filename,x,y,label`, one click per object; a file alone: a negative
    Hints/instances.json                COCO: boxes and masks (RLE)
    tags.csv                            `filename,tag,...`; a file alone: a negative
    classes.txt                         class id n is in line n, from 1
    ImageSets/Segmentation/SPLIT.txt    ids of train and val
    ==================================  =================================================================

    Hints are written for the photos of both splits. The two files in Hints stand apart, so that the folder is
    recognised as one format.

    Args:
        folder: Folder to make; it must not exist or be empty.
        train: Photos to learn from, >= 1.
        val: Photos to test on, >= 1.
        seed: Number of the data set, >= 0.
        size: Height and width, pixels, >= 32.

    Raises:
        RunError: The folder is not empty or cannot be written.
        ConfigError: A number is out of range.

    Cost:
        About 3 s and 19 MB for the default 500 photos.
    """
    if train < 1 or val < 1:
        raise ConfigError(f"train={train}, val={val}: both splits need at least one photo")
    make_photo(0, seed=seed, size=size)  # refuses what is out of range before anything is written
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; delete it or name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_BESIDE}", dir=folder.parent))
        try:
            with locked(beside):
                _write_layout(beside, {"train": train, "val": val}, seed, size)
            beside.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            beside.replace(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror or error}); free space on the disk or name a folder that is "
            "writable"
        ) from error


_BESIDE = ".hintseg-"


def _remove_leftovers(folder: Path) -> None:
    """Delete what a kill left half-written beside `folder`; what another process writes just now is locked."""
    for left in folder.parent.glob(f".{folder.name}{_BESIDE}*"):
        if kind_of(left) == "photos":
            try:
                with locked(left):
                    shutil.rmtree(left)
            except RunError:
                continue


def _write_layout(folder: Path, counts: dict[str, int], seed: int, size: int) -> None:
    mark(folder, "photos")
    for name in ("JPEGImages", "SegmentationClass", "Annotations", "Scribbles", "Hints", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    tag_rows: list[tuple[str, ...]] = []
    point_rows: list[tuple[str | int, ...]] = [("filename", "x", "y", "label")]
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for split, count in counts.items():
        ids = [f"{split}_{index:04d}" for index in range(count)]
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
        for index, photo_id in enumerate(ids):
            photo, file = make_photo(index, split=split, seed=seed, size=size), f"{photo_id}.png"
            Image.fromarray(photo.rgb).save(folder / "JPEGImages" / file, compress_level=1)
            _save_indexed(folder / "SegmentationClass" / file, photo.mask)
            _save_indexed(folder / "Scribbles" / file, photo.scribbles)
            _voc_xml(file, photo).write(folder / "Annotations" / f"{photo_id}.xml", encoding="utf-8")
            tag_rows.append((file, *(CLASSES[tag - 1] for tag in sorted(photo.tags))))
            point_rows += [(file, point.x, point.y, CLASSES[point.label - 1]) for point in photo.points] or [(file,)]
            images.append({"id": len(images) + 1, "file_name": file, "height": size, "width": size})
            for instance in photo.instances:
                annotations.append(_coco_object(instance, len(annotations) + 1, len(images)))
    _save_csv(folder / "tags.csv", tag_rows)
    _save_csv(folder / "Hints/points.csv", point_rows)
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "Hints/instances.json").write_text(json.dumps(coco), encoding="utf-8")


def _save_csv(path: Path, rows: Sequence[Sequence[str | int]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _save_indexed(path: Path, mask: Bytes) -> None:
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE.tobytes())
    image.save(path)


def _voc_xml(file: str, photo: ShapesPhoto) -> ElementTree.ElementTree[ElementTree.Element]:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file
    height, width, depth = photo.rgb.shape
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", depth)):
        ElementTree.SubElement(size, name).text = str(value)
    for instance in photo.instances:
        x0, y0, x1, y1 = instance.box
        thing = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(thing, "name").text = CLASSES[instance.label - 1]
        box = ElementTree.SubElement(thing, "bndbox")
        # 1-based and inclusive: left and top move by one, exclusive right and bottom stay as they are.
        for name, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            ElementTree.SubElement(box, name).text = str(value)
    return ElementTree.ElementTree(root)


def _coco_object(instance: Instance, number: int, image: int) -> dict[str, object]:
    x0, y0, x1, y1 = instance.box
    flat = instance.mask.ravel(order="F")  # COCO counts runs down the columns, beginning with zeros
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {
        "id": number,
        "image_id": image,
        "category_id": instance.label,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(flat.sum()),
        "segmentation": {"size": list(instance.mask.shape), "counts": runs},
        "iscrowd": 0,
    }
