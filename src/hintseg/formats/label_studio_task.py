"""One task of Label Studio: which photo it is of, which of its annotations counts, and what that says."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from hintseg.errors import LabelError, shown
from hintseg.formats.brush import decode_brush
from hintseg.formats.json_files import number, numbers, picture_size
from hintseg.formats.photos import UNREAD, photo_suffixes
from hintseg.formats.records import Item
from hintseg.geometry.polygons import ellipse
from hintseg.types import Box, Click, Region, Shape, Stroke

OWN_MODEL = "hintseg"
"""The model that predictions written here name; what it says is read as what a file says."""

OUTLINE = "outline"
"""A note at a region that is written here: it is the outline of the object in the box that it hangs on."""

_PHOTO_KEYS = ("image", "img", "photo", "picture", "images", "url", "image_url", "ocr")
_NOTHING = Box(0, 0, 0, 0)
_ADDRESS = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://|^/data/|^/tasks/")

Json = Mapping[str, Any]


@dataclass(slots=True)
class Task:
    """What a task says of its photo.

    Attributes:
        names: Names of the photo, the likeliest first.
        line: Where in the file.
        said: Whether anybody, or a model, looked at it.
        items: Its regions, in pixels of a picture of `size`; in shares of its sides where that is not stated.
        size: (height, width), pixels.
        choices: What was chosen for the whole photo, as paths of a taxonomy, by the name of the question.
        model: The model whose predictions these are; empty: a person's annotation.
        annotations: How many annotations there are.
        turned: Whether the picture was turned in the tool.
        turned_boxes: How many boxes are turned: their corners stand as the object's outline.
        left_out: How many results of each type are about no region and no class.
    """

    names: tuple[str, ...]
    line: str
    said: bool = False
    items: list[Item] = field(default_factory=list)
    size: tuple[int, int] | None = None
    choices: dict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    model: str = ""
    annotations: int = 0
    turned: bool = False
    turned_boxes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def tasks_of(content: Sequence[Json]) -> Iterator[Task]:
    """Yield the photos of a file's tasks, each with the annotation that counts.

    Raises:
        LabelError: A task names no photo.
    """
    rows: dict[tuple[str, str], list[tuple[str, Json]]] = defaultdict(list)
    for place, task in enumerate(content, start=1):
        line = f"task {shown(task.get('id', place))}"
        if isinstance(task.get("data"), dict):
            yield from _full(task, line)
        else:  # JSON-MIN has a row for each annotation
            rows[str(task.get("id", place)), "|".join(_photos(task, (), line))].append((line, task))
    for same in rows.values():
        line, latest = max(same, key=lambda pair: _time(pair[1]))
        yield _small(latest, line, len(same))


def _full(task: Json, line: str) -> Iterator[Task]:
    every = _objects(task.get("annotations") or task.get("completions"))
    counted = [one for one in every if not (one.get("was_cancelled") or one.get("skipped"))]
    predicted = _objects(task.get("predictions"))
    best: Json = {}
    model = ""
    if counted:
        best = max(counted, key=lambda one: (bool(one.get("ground_truth")), _time(one)))
    elif predicted and not every:
        best = max(predicted, key=_time)
        model = str(best.get("model_version") or "unknown")
    results = _objects(best.get("result"))
    photos = _photos(task["data"], [str(one.get("to_name")) for one in results], line)
    for place, photo in enumerate(photos):
        own = [one for one in results if len(photos) == 1 or (one.get("item_index") or 0) == place]
        found = Task(photo_names(photo), line, annotations=len(counted))
        found.model = "" if model == OWN_MODEL else model
        found.said = bool(best) and (bool(own) or model in ("", OWN_MODEL))
        score = None if model == OWN_MODEL else best.get("score")
        _read_results(found, own, score)
        yield found


def _objects(value: object) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _small(row: Json, line: str, annotations: int) -> Task:
    """Return a row of JSON-MIN: the photo's data, then what was said, each question by its name."""
    (photo,) = _photos(row, (), line)[:1]
    found = Task(photo_names(photo), line, annotations=annotations)
    keys = [*row]
    start = keys.index("id") + 1 if "id" in keys else 0
    end = keys.index("annotator") if "annotator" in keys else len(keys)
    results = list[Json]()
    for key in keys:
        value = row[key]
        results += [{"from_name": key, "value": one, **one} for one in _objects(value)]
        if start <= keys.index(key) < end:
            chosen = value.get("choices") if isinstance(value, dict) else value
            words = [chosen] if isinstance(chosen, str) else chosen if isinstance(chosen, list) else []
            if words and all(isinstance(word, str) for word in words):
                results.append({"from_name": key, "value": {"choices": words}})
    found.said = row.get("annotation_id", True) is not None
    _read_results(found, results, None)
    return found


def _time(annotation: Json) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _photos(data: Json, to_names: Sequence[str], line: str) -> list[str]:
    """Return the addresses of a task's photos."""
    found = {key: value for key, value in data.items() if _is_photo(key, value)}
    if not found:
        raise LabelError(f"{line}: none of its data ({', '.join(map(shown, data))}) names a photo")
    key = next((key for key in (*to_names, *_PHOTO_KEYS) if key in found), next(iter(found)))
    photos = [found[key]] if isinstance(found[key], str) else [str(one) for one in found[key]]
    if any(photo.startswith("data:") for photo in photos):
        raise LabelError(
            f"{line}: its photo is embedded (data:...), not named; import photos as files, or write it out"
        )
    return photos


def _is_photo(key: str, value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and _is_photo(key, one) for one in value)
    if not isinstance(value, str) or not value:
        return False
    suffix = "." + photo_names(value)[0].rpartition(".")[2].lower()
    return suffix in photo_suffixes() or suffix in UNREAD or key in _PHOTO_KEYS


def photo_names(address: str) -> tuple[str, ...]:
    """Return what the photo at an address of Label Studio may be called, the likeliest first.

    Example:
        >>> photo_names("/data/local-files/?d=photos/a%20b.jpg"), photo_names("s3://bucket/photos/a.jpg")
        (('photos/a b.jpg', 'photos/a%20b.jpg'), ('photos/a.jpg',))
        >>> photo_names("/data/upload/1/0a1b2c3d-a.jpg"), photo_names("sub/a?.jpg")
        (('0a1b2c3d-a.jpg',), ('sub/a?.jpg',))
    """
    if not _ADDRESS.match(address) or address.startswith("data:"):
        return (address,)
    path, _, query = address.partition("?")
    asked = dict(pair.partition("=")[::2] for pair in query.split("&"))
    if "fileuri" in asked:  # the address of a file in a cloud, in base 64
        try:
            inner = base64.urlsafe_b64decode(unquote(asked["fileuri"]) + "==").decode()
        except (binascii.Error, ValueError):
            inner = ""
        return photo_names(inner) if _ADDRESS.match(inner) else (path,)
    if "d" in asked:
        path = asked["d"]
    elif "://" in path:
        path = path.partition("://")[2].partition("/")[2]
    elif "/upload/" in path:
        path = path.rpartition("/")[2]
    return tuple(dict.fromkeys((unquote(path), path)))


def _read_results(task: Task, results: Sequence[Json], score: object) -> None:
    """Add what the results of an annotation say."""
    sizes = (picture_size(one.get("original_height"), one.get("original_width")) for one in results)
    task.size = next((size for size in sizes if size is not None), None)
    task.turned = any(one.get("image_rotation") not in (None, 0) for one in results)
    regions: dict[str, list[Json]] = defaultdict(list)
    for place, one in enumerate(results):
        value = one.get("value")
        if one.get("type") == "relation" or not isinstance(value, dict):
            continue
        regions[str(one.get("id") or f"result {place + 1}")].append(one)
    found: dict[str, tuple[Json, list[Item]]] = {}
    for number_, (name, parts) in enumerate(regions.items(), start=1):
        whole = {key: value for one in reversed(parts) for key, value in one["value"].items()}
        if not _has_shape(whole):
            _choose(task, parts)
        else:
            task.turned_boxes += bool(whole.get("rotation")) and "height" in whole
            trust = _trust(parts[0].get("score", whole.get("score", score)))
            found[name] = parts[0], _items(task, whole, f"region {shown(name)}", number_, trust)
    task.items = [item for items in _joined(found.values(), found) for item in items]


def _has_shape(value: Json) -> bool:
    return any(key in value for key in ("rle", "points", "vertices", "x", "imageDataURL", "maskDataURL"))


def _trust(score: object) -> float:
    return 1.0 if score is None else min(max(number(score, "score"), 0.0), 1.0)


def _choose(task: Task, parts: Iterable[Json]) -> None:
    """Add what is said of the whole photo."""
    for one in parts:
        question, value = str(one.get("from_name") or "choice"), one["value"]
        if isinstance(value.get("choices"), list):
            task.choices[question] += [(str(word),) for word in value["choices"]]
        elif isinstance(value.get("taxonomy"), list):
            paths = (path if isinstance(path, list) else [path] for path in value["taxonomy"])
            task.choices[question] += [tuple(map(str, path)) for path in paths if path]
        else:
            task.left_out[str(one.get("type") or ", ".join(value))] += 1


def _items(task: Task, value: Json, line: str, region: int, trust: float) -> list[Item]:
    """Return a region, once for each of its labels."""
    labels = [
        str(label)
        for key, names in value.items()
        if key.endswith("labels") and isinstance(names, list)
        for label in names
    ]
    labels = labels or [str(label) for label in value.get("choices") or ()]
    source = f"model:{task.model}" if task.model else "file"
    try:
        shape, wrong = _shape(value, task.size), ""
    except LabelError as error:
        shape, wrong = _NOTHING, str(error)
    if not labels:
        return [Item("", _NOTHING, line=line, wrong=wrong or "has no label")]
    number_ = region if len(labels) > 1 else None
    return [Item(label, shape, object=number_, source=source, trust=trust, line=line, wrong=wrong) for label in labels]


def _joined(regions: Iterable[tuple[Json, list[Item]]], by_name: Mapping[str, object]) -> Iterator[list[Item]]:
    """Yield the items of regions; those that are written as the outline of a box are put to it."""
    kept, outlines = list[tuple[Json, list[Item]]](), defaultdict[str, list[Region]](list)
    for result, items in regions:
        meta = result.get("meta")
        parent = str(result.get("parentID"))
        shape = items[0].shape
        if isinstance(meta, dict) and meta.get("text") == [OUTLINE] and parent in by_name and isinstance(shape, Region):
            outlines[parent].append(shape)
        else:
            kept.append((result, items))
    for result, items in kept:
        parts = outlines.get(str(result.get("id")))
        if parts:
            rle = parts[0].rle
            outline = Region(rle=rle) if rle else Region(tuple(ring for part in parts for ring in part.polygons))
            items = [
                Item(one.label, one.shape, outline, False, one.object, one.source, one.trust, one.line, one.wrong)
                for one in items
            ]
        yield items


def _shape(value: Json, size: tuple[int, int] | None) -> Shape:
    """Return the shape of a region, in pixels of a picture of `size`, or in shares of its sides where it is None."""
    across, down = (0.01, 0.01) if size is None else (size[1] / 100, size[0] / 100)
    if "rle" in value:
        if size is None:
            raise LabelError("is a brush stroke without `original_width` and `original_height`")
        return Region(rle=decode_brush(value["rle"], size))
    if "points" in value or "vertices" in value:
        points = value.get("points") or value.get("vertices")
        if not isinstance(points, list):
            raise LabelError("has no list of points")
        pairs = [(one.get("x"), one.get("y")) if isinstance(one, dict) else one for one in points]
        flat = [numbers([*pair], "point", count=2) for pair in pairs if isinstance(pair, list | tuple)]
        ring = tuple(part for x, y in flat for part in (x * across, y * down))
        if value.get("closed") is False:
            if "points" in value:
                raise LabelError("is a polygon that was not closed")
            return Stroke(ring)
        return Region((ring,))
    if "x" not in value:
        raise LabelError("is a bitmask image, which is not read; use the brush, or export as COCO")
    x, y = number(value["x"], "x") * across, number(value.get("y"), "y") * down
    angle = math.radians(number(value.get("rotation") or 0, "rotation"))
    if angle and size is None:
        raise LabelError("is turned, but lacks `original_width` and `original_height`")
    if "radiusX" in value:
        radii = number(value["radiusX"], "radiusX") * across, number(value.get("radiusY"), "radiusY") * down
        return Region((ellipse(x, y, *radii, angle),))
    if "height" not in value:
        return Click(x, y)
    width, height = number(value.get("width"), "width") * across, number(value["height"], "height") * down
    if not angle:
        return Box(x, y, x + width, y + height)
    cos, sin = math.cos(angle), math.sin(angle)  # the corner (x, y) is where it is after turning
    ends = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return Region((tuple(part for a, b in ends for part in (x + a * cos - b * sin, y + a * sin + b * cos)),))
