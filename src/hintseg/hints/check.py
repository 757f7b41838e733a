"""Look at photos and hints before training: what is there, and what will hurt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.config.settings import USUAL_LONGEST
from hintseg.errors import HintsegError, join
from hintseg.files.images import deep_levels, depth, open_image
from hintseg.formats.photos import photo_size
from hintseg.geometry.boxes import SLACK_PX
from hintseg.geometry.rasterise import pixels
from hintseg.hints.against import Against, compare, some, verdicts
from hintseg.hints.cooccurrence import cooccurrence_prior, single_tag_counts, tag_matrix
from hintseg.hints.masks import read_mask, read_scribbles
from hintseg.hints.sizes import object_sides
from hintseg.types import BACKGROUND, IGNORE, Box, Click, HintSet, MaskFile, Photo, Stroke, Supervision

ALIKE = 0.85
"""Names more alike than this may be one name and its misspelling: gras, grass (0.89); horse, house (0.80) are not."""

FEW_PHOTOS = 20
"""A class with fewer photos is named."""

ENOUGH_TO_TELL = 5
"""With fewer photos or boxes, that two classes always meet may be chance."""

TINY_PX = 64
"""A photo with a shorter side is named: two or three feature cells of a network with stride 16 to 32."""

FILLED = 0.6
"""A class that takes more of its photos (median) is named."""

DARK = 24
"""A photo of 8 bits without a brighter level, of 255, is named: it is black to any eye."""

CELL_PX = 16
"""Pixels that a feature cell of most networks covers."""

SAME_PLACE_IOU = 0.5
SAME_PLACE_SHARE = 0.3
"""Two classes are named when more than this share of one's boxes overlap a box of the other by that IoU."""

_AT_ONCE = 1 << 18
"""Pairs of boxes that are compared together: all pairs of a photo of thousands have more than memory holds."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a hint set holds.

    Attributes:
        name: The data set's name.
        photos: Number of photos.
        classes: Class names, in the order of their ids.
        background: Whether pixels may belong to no class.
        splits: Number of photos of each split.
        photos_per_class: Number of photos with each class.
        objects_per_class: Number of boxes (crowds left out) and points of each class.
        hints: Number of photos with each kind of hint: tags, boxes, scribbles, points, masks.
        single_tag_share: Share of the photos with any tag that have one, 0..1.
        multi_tag_share: Share of the photos with any tag that have two or more, 0..1.
        cooccurrence: (K, K) number of photos with both classes; the diagonal holds `photos_per_class`.
        alone_per_class: Number of training photos in which each class is the only one: there tags cannot confuse it.
            Training photos are those of the split `train`, or all where there is none.
        prior: (K, K) how likely the column's class comes with the row's in training photos, 0..1; on the diagonal,
            alone.
        sizes: Smallest, middle and largest photo by area as (width, height), after EXIF rotation; empty without photos.
        distinct_sizes: Number of different sizes.
        negatives: Number of photos that are said to show no class.
        unlabelled: Ids of the photos nothing is said about.
        unreadable: Sentence by id of each photo that cannot be decoded.
        problems: One sentence for each mask or box that does not fit its photo or the class list.
        notes: What the reader mapped or skipped.
        verdicts: What will hurt and what to do, one sentence each.
    """

    name: str
    photos: int
    classes: tuple[str, ...]
    background: bool
    splits: dict[str, int]
    photos_per_class: dict[str, int]
    objects_per_class: dict[str, int]
    hints: dict[str, int]
    single_tag_share: float
    multi_tag_share: float
    cooccurrence: tuple[tuple[int, ...], ...]
    alone_per_class: dict[str, int]
    prior: tuple[tuple[float, ...], ...]
    sizes: dict[str, tuple[int, int]]
    distinct_sizes: int
    negatives: int
    unlabelled: tuple[str, ...]
    unreadable: dict[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    verdicts: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Look:
    """What opening one photo and its masks showed."""

    size: tuple[int, int] | None = None  # (height, width)
    unreadable: str = ""
    problems: tuple[str, ...] = ()
    zeros: bool | None = None  # whether its mask file has value 0; None without one
    shares: tuple[tuple[int, float], ...] = ()  # class id and share of the photo it takes
    truth: Against | None = None  # what its true mask shows; None without an image of one
    bits: int = 0  # how many its levels take, where it is kept in 16; 0: it is kept in 8
    dark: bool = False  # whether its brightest level is at most `DARK`
    stroked: tuple[tuple[int, int], ...] = ()  # class id of its strokes and how many pixels they touch


def check(hint_set: HintSet, *, workers: int = 2, most: int | None = None) -> CheckReport:
    """Open the photos and masks of a hint set and say what will hurt.

    Args:
        hint_set: The photos and their hints.
        workers: Threads that decode photos, >= 1.
        most: Photos that are opened at most, spread evenly; None: all.

    Cost:
        Photos and masks are decoded: about 10 ms each.
    """
    n_classes = len(hint_set.classes)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        every = 1 if most is None else max(1, -(-len(hint_set.photos) // most))
        opened = hint_set.photos[::every]
        looks = [_Look()] * len(hint_set.photos)
        looks[::every] = pool.map(lambda photo: _look(photo, n_classes), opened)
    matrix = tag_matrix(hint_set.photos, n_classes)
    together = matrix.T @ matrix
    train = hint_set.training
    learned = tag_matrix([photo for photo in hint_set.photos if photo.id in train], n_classes)
    counts = matrix.sum(axis=1)
    with_any = max(int((counts > 0).sum()), 1)
    sizes = sorted((look.size for look in looks if look.size), key=lambda size: (size[0] * size[1], size))
    shown = {"min": sizes[0], "median": sizes[len(sizes) // 2], "max": sizes[-1]} if sizes else {}
    objects: Counter[int] = Counter()
    for photo in hint_set.photos:
        objects.update(mark.label for mark in photo.hints.objects)
        objects.update(mark.label for mark in photo.hints.shaped(Click))
    return CheckReport(
        name=hint_set.name,
        photos=len(hint_set.photos),
        classes=hint_set.classes,
        background=hint_set.background,
        splits={name: len(ids) for name, ids in hint_set.splits.items()},
        photos_per_class=dict(zip(hint_set.classes, together.diagonal().tolist(), strict=True)),
        objects_per_class={name: objects[label] for label, name in enumerate(hint_set.classes, start=1)},
        hints={kind.value: sum(kind in _kinds(photo) for photo in hint_set.photos) for kind in Supervision},
        single_tag_share=int((counts == 1).sum()) / with_any,
        multi_tag_share=int((counts > 1).sum()) / with_any,
        cooccurrence=tuple(tuple(row) for row in together.tolist()),
        alone_per_class=dict(zip(hint_set.classes, single_tag_counts(learned).tolist(), strict=True)),
        prior=tuple(tuple(row) for row in cooccurrence_prior(learned).tolist()),
        sizes={name: (width, height) for name, (height, width) in shown.items()},
        distinct_sizes=len(set(sizes)),
        negatives=int((counts == 0).sum()),
        unlabelled=tuple(photo.id for photo in hint_set.photos if not _kinds(photo) and photo.truth is None),
        unreadable={p.id: look.unreadable for p, look in zip(hint_set.photos, looks, strict=True) if look.unreadable},
        problems=tuple(problem for look in looks for problem in look.problems),
        notes=hint_set.notes,
        verdicts=(
            *_file_verdicts(hint_set, looks),
            *verdicts(hint_set, [look.truth for look in looks]),
            *_tag_verdicts(hint_set, matrix),
            *_place_verdicts(hint_set, looks),
            *_stroke_verdicts(hint_set, looks),
        ),
    )


def _kinds(photo: Photo) -> set[Supervision]:
    """Return the kinds of hints a photo has; an index image of a full mask counts too, though it only judges."""
    hints = photo.hints
    there = {
        Supervision.TAGS: hints.tags is not None,
        Supervision.BOXES: bool(hints.shaped(Box)),
        Supervision.SCRIBBLES: hints.scribbles is not None or bool(hints.shaped(Stroke)),
        Supervision.POINTS: bool(hints.shaped(Click)),
        Supervision.MASKS: isinstance(photo.truth, MaskFile) or hints.mask is not None,
    }
    return {kind for kind, is_there in there.items() if is_there}


def _look(photo: Photo, n_classes: int) -> _Look:
    """Decode one photo and its masks."""
    try:
        size = photo_size(photo.path)
        with open_image(photo.path) as image:
            levels = deep_levels(photo.path, image)
            image.load()
            brightest = 255 if levels is not None or image.mode == "F" else _brightest(image)
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        said = str(error)
        return _Look(unreadable=said if photo.path.name in said else f"{photo.path}: {said}")
    height, width = size
    problems = [
        f"{photo.id}: a box reaches ({box.x1:g}, {box.y1:g}), but its photo has {width} x {height} (EXIF applied)"
        for box in (mark.shape for mark in photo.hints.shaped(Box))
        if box.x1 > width + SLACK_PX or box.y1 > height + SLACK_PX
    ]
    mask, strokes = None, None
    for read in (read_mask, read_scribbles):
        try:
            found = read(photo, size, n_classes=n_classes)
        except HintsegError as error:
            problems.append(f"{photo.id}: {error}")
        else:
            mask, strokes = (found, strokes) if read is read_mask else (mask, found)
    zeros = bool((mask == BACKGROUND).any()) if mask is not None and isinstance(photo.truth, MaskFile) else None
    return _Look(
        size,
        problems=tuple(problems),
        zeros=zeros,
        shares=_shares(photo, mask, size),
        truth=compare(photo, mask, strokes) if mask is not None and isinstance(photo.truth, MaskFile) else None,
        bits=0 if levels is None else depth(levels),
        dark=brightest <= DARK,
        stroked=_stroked(photo, strokes, size),
    )


def _stroked(photo: Photo, strokes: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return each class that the photo has strokes of, and how many pixels they touch."""
    counts = Counter[int]()
    if strokes is not None:
        counts.update(dict(enumerate(np.bincount(strokes.ravel(), minlength=IGNORE + 1).tolist())))
    for mark in photo.hints.shaped(Stroke):
        counts[mark.label] += pixels(mark.shape, size)[0].size
    return tuple((label, count) for label, count in counts.items() if count and BACKGROUND < label < IGNORE)


def _brightest(image: Image.Image) -> float:
    """Return the largest value of any channel, transparency left out."""
    found = (image if image.mode in ("1", "L", "RGB") else image.convert("RGB")).getextrema()
    return max(high for _, high in (found if isinstance(found[0], tuple) else (found,)))


def _shares(photo: Photo, mask: npt.NDArray[np.uint8] | None, size: tuple[int, int]) -> tuple[tuple[int, float], ...]:
    """Return the share of the photo each class takes: in its mask, else its largest box."""
    area = size[0] * size[1]
    if mask is not None:
        counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
        return tuple((label, counts[label] / area) for label in range(1, IGNORE) if counts[label])
    largest: dict[int, float] = {}
    for mark in photo.hints.objects:
        x0, y0, x1, y1 = mark.shape.corners
        largest[mark.label] = max((x1 - x0) * (y1 - y0) / area, largest.get(mark.label, 0.0))
    return tuple(largest.items())


def _file_verdicts(hint_set: HintSet, looks: list[_Look]) -> list[str]:
    """Say what is wrong with files and split lists."""
    photos = hint_set.photos
    verdicts = []
    broken = [photo.id for photo, look in zip(photos, looks, strict=True) if look.unreadable]
    if broken:
        verdicts.append(f"{_photos(len(broken))} cannot be read ({some(broken)}): left out of everything; replace them")
    wrong = sum(len(look.problems) for look in looks)
    if wrong:
        verdicts.append(
            f"{wrong} masks or boxes do not fit their photo or the class list: correct them, see `problems`"
        )
    tiny = [p.id for p, look in zip(photos, looks, strict=True) if look.size and min(look.size) < TINY_PX]
    if tiny:
        verdicts.append(
            f"{_photos(len(tiny))} with a side below {TINY_PX} px ({some(tiny)}): too few feature cells to place "
            "anything; use larger originals, or a backbone.output_stride of 8"
        )
    dark = [photo.id for photo, look in zip(photos, looks, strict=True) if look.dark]
    if dark:
        verdicts.append(
            f"{_photos(len(dark))} with no level above {DARK} of 255 ({some(dark)}), nearly black: levels of more "
            "bits were cut to 8, or these are masks; write the photos anew"
        )
    verdicts += _depth_verdicts(looks)
    both = sorted(set(hint_set.splits.get("train", ())) & set(hint_set.splits.get("val", ())))
    if both:
        verdicts.append(f"{_photos(len(both))} in both train and val ({some(both)}): scores on val will be too good")
    with_masks = [look for look in looks if look.zeros is not None]
    with_zero = sum(look.zeros is True for look in with_masks)
    if with_masks and hint_set.background and not with_zero:
        verdicts.append(
            f"value 0 (background) occurs in none of the {len(with_masks)} masks: if every pixel has a class, "
            "set data.background=none"
        )
    if with_zero and not hint_set.background:
        verdicts.append(
            f"value 0 occurs in {with_zero} masks, but data.background=none: these pixels are ignored; "
            "leave that setting out if they are background"
        )
    return verdicts


def _depth_verdicts(looks: list[_Look]) -> list[str]:
    """Say how photos kept in 16 bits are read."""
    bits = Counter(look.bits for look in looks if look.bits)
    if set(bits) <= {16}:
        return []
    each = join([f"{number} by {count}" for number, count in sorted(bits.items())])
    verdict = (
        f"{_photos(sum(bits.values()))} kept in 16 bits, of which they use fewer (bits used: {each}): the largest "
        "level of that many bits is read as white"
    )
    differ = "; photos that differ in this are stretched differently: write all as 8 bits, by one rule"
    return [verdict + (differ if len(bits) > 1 else "")]


def look_alikes(photos: Mapping[str, int]) -> list[str]:
    """Ask about classes that may be one and its misspelling, from the number of photos of each.

    Example:
        >>> look_alikes({"grass": 40, "gras": 1, "cow": 3})
        ['are grass (40) and gras (1) one class? If one is misspelt, mend the label file']
    """
    return [
        f"are {name} ({photos[name]}) and {other} ({photos[other]}) one class? If one is misspelt, mend the label file"
        for name, other in combinations(photos, 2)
        if min(photos[name], photos[other]) < FEW_PHOTOS
        and SequenceMatcher(None, name.casefold(), other.casefold()).ratio() > ALIKE
    ]


def _tag_verdicts(hint_set: HintSet, matrix: npt.NDArray[np.int64]) -> list[str]:
    """Say what in the tags (photos, K) will hurt."""
    names = hint_set.classes
    if not len(matrix) or not matrix.any():
        return ["no photo has a tag: nothing can be learned; check that the label file names these photos"]
    together = matrix.T @ matrix
    count = together.diagonal()
    verdicts = []
    absent = [name for name, n in zip(names, count, strict=True) if n == 0]
    if absent:
        verdicts.append(f"no photo shows {some(absent)}: never learned; add photos, or take it out of the class list")
    few = [f"{name} ({n})" for name, n in zip(names, count, strict=True) if 0 < n < FEW_PHOTOS]
    if few:
        verdicts.append(f"fewer than {FEW_PHOTOS} photos of {some(few, 6)}: poor maps; add photos, or merge classes")
    shown = {name: int(n) for name, n in zip(names, count, strict=True) if n}
    verdicts += look_alikes(shown)
    training = set(hint_set.splits.get("train", ()))
    learned = {tag for photo in hint_set.photos if photo.id in training for tag in photo.hints.tags or ()}
    unseen = [name for label, name in enumerate(names, start=1) if count[label - 1] and label not in learned]
    if training and unseen:
        verdicts.append(f"no photo of the split train shows {some(unseen)}: never learned; move photos into it")
    everywhere = count == len(matrix)
    placed = any(p.hints.marks or p.hints.scribbles for p in hint_set.photos)
    if everywhere.any() and not placed:
        always = [name for name, every in zip(names, everywhere, strict=True) if every]
        verdicts.append(
            f"every photo has the tag {some(always)}, and none is without: tags alone then do not tell where it is; "
            "add negatives (photos listed without it), or give points, scribbles or boxes"
        )
    for index in np.flatnonzero((count >= ENOUGH_TO_TELL) & ~everywhere):
        partners = [f"'{names[j]}'" for j in range(len(names)) if j != index and together[index, j] == count[index]]
        if partners:
            verdicts.append(
                f"'{names[index]}' never appears without {some(partners)} ({_photos(int(count[index]))}): the maps of "
                "one will cover the other; add photos that show it without, or give boxes or points"
            )
    return verdicts


def _place_verdicts(hint_set: HintSet, looks: list[_Look]) -> list[str]:
    """Say which classes fill their photos, and which lie in the same place."""
    names = hint_set.classes
    verdicts = []
    shares: dict[int, list[float]] = {}
    for look in looks:
        for label, share in look.shares:
            shares.setdefault(label, []).append(share)
    full = {label: median(found) for label, found in sorted(shares.items())}
    filling = [f"{names[label - 1]} ({share:.0%})" for label, share in full.items() if share > FILLED]
    if filling and hint_set.background:
        verdicts.append(
            f"in most of their photos these classes fill the picture: {some(filling)}: there is little background to "
            "learn from; add photos that show them smaller, or check the background threshold"
        )
    verdicts += _size_verdicts(hint_set)
    boxes: Counter[int] = Counter()
    met: Counter[tuple[int, int]] = Counter()
    for photo in hint_set.photos:
        found = photo.hints.objects
        boxes.update(mark.label for mark in found)
        if len({mark.label for mark in found}) > 1:
            labels = np.array([mark.label for mark in found])
            corners = np.array([mark.shape.corners for mark in found])
            met.update(_meetings(corners, labels))
    for (one, other), count in sorted(met.items()):
        if count >= ENOUGH_TO_TELL and count / boxes[one] > SAME_PLACE_SHARE:
            verdicts.append(
                f"{count} of {boxes[one]} boxes of '{names[one - 1]}' lie on a box of '{names[other - 1]}' (IoU above "
                f"{SAME_PLACE_IOU}): boxes do not tell them apart; give points or outlines, or merge the classes"
            )
    return verdicts


def _size_verdicts(hint_set: HintSet) -> list[str]:
    """Say which marked objects become smaller than a cell where photos are reduced as those of tags are."""
    sides: dict[int, list[float]] = {}
    for label, share in object_sides(hint_set):
        sides.setdefault(label, []).append(share * USUAL_LONGEST)
    small = {label: sum(side < CELL_PX for side in found) for label, found in sorted(sides.items())}
    named = [
        f"{hint_set.classes[label - 1]} ({count} of {len(sides[label])})"
        for label, count in small.items()
        if count > len(sides[label]) / 4
    ]
    if not named:
        return []
    return [
        f"with photos reduced to {USUAL_LONGEST} pixels these objects are smaller than a cell of {CELL_PX} pixels: "
        f"{some(named)}: tags cannot find them there; learn from boxes, strokes or points, for which photos are read "
        "larger, or set data.longest"
    ]


def _stroke_verdicts(hint_set: HintSet, looks: list[_Look]) -> list[str]:
    """Say which classes have nothing but a stroke of one pixel."""
    touched = Counter[int]()
    for look in looks:
        touched.update(dict(look.stroked))
    clicked = {mark.label for photo in hint_set.photos for mark in photo.hints.shaped(Click)}
    specks = [hint_set.classes[label - 1] for label in sorted(touched) if touched[label] == 1 and label not in clicked]
    if not specks:
        return []
    return [
        f"the strokes of {some(specks)} touch a single pixel in all photos: a slip of the pen? Draw along the object, "
        "or take the class out of the class list"
    ]


def _meetings(corners: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the class of each box (n, 4), and that of boxes of another class that lie on it, each class once."""
    step = max(1, _AT_ONCE // len(labels))
    for first in range(0, len(labels), step):
        own = labels[first : first + step]
        there = (_iou(corners[first : first + step], corners) > SAME_PLACE_IOU) & (own[:, None] != labels)
        rows, columns = np.nonzero(there)
        met = set(zip(rows.tolist(), labels[columns].tolist(), strict=True))
        yield from ((own[row].item(), other) for row, other in met)


def _iou(these: npt.NDArray[np.float64], corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the (m, n) overlap of boxes (m, 4) with boxes (n, 4), intersection over union."""
    low = np.maximum(these[:, None, :2], corners[:, :2])
    high = np.minimum(these[:, None, 2:], corners[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (these, corners)]
    return inside / (areas[0][:, None] + areas[1] - inside)  # type: ignore[no-any-return]


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"
