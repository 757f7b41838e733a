"""Writing tasks with predictions for Label Studio, and the labeling config that fits them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from hintseg.files.atomic import whole_file
from hintseg.formats.brush import encode_brush
from hintseg.formats.codec import Written
from hintseg.formats.drawn import Drawn, PhotoMarks, drawn
from hintseg.formats.fitting import Size
from hintseg.formats.gather import IGNORED
from hintseg.formats.label_studio_task import OUTLINE, OWN_MODEL
from hintseg.formats.photos import file_name
from hintseg.types import BACKGROUND, IGNORE, Click, HintSet, Region, Stroke, Tags

SERVED = "/data/local-files/?d="
"""How Label Studio names files of its local storage; the path is below its document root."""

_CONTROLS = {
    "rectanglelabels": ("RectangleLabels", "boxes"),
    "polygonlabels": ("PolygonLabels", "polygons"),
    "brushlabels": ("BrushLabels", "brush"),
    "keypointlabels": ("KeyPointLabels", "points"),
    "vectorlabels": ("VectorLabels", "lines"),
}
"""The element of the labeling config for each type of region, and its name."""

_POINT_WIDTH = 0.5

_UNREAD = "photos cannot be read, so their marks, in percent of width and height, are left out"
_MASKS = "photos have a full mask that cannot be written"
_ABSENT = "photos say of some classes that nothing is known; Label Studio says that they are not there"
_WIDTH = "strokes have a width, which is left out"
_SPLITS = "splits are left out"
_OBJECTS = "clicks and strokes belong to an object, which is left out"

Result = dict[str, object]


def write_tasks(hint_set: HintSet, out: Path) -> Written:
    """Write `tasks.json` and `label_config.xml`; see `codec.Writer.write`.

    What is known of a photo stands as a prediction, which Label Studio shows to be accepted or changed; unlabelled
    photos are tasks without one.
    """
    lost: Counter[str] = Counter()
    tasks, used = list[dict[str, object]](), set[str]()
    names = {BACKGROUND: "background", IGNORE: IGNORED, **dict(enumerate(hint_set.classes, start=1))}
    for photo in hint_set.photos:
        found = drawn(photo, len(hint_set.classes))
        lost[_MASKS] += bool(found.wrong)
        task: dict[str, object] = {"data": {"image": SERVED + quote(file_name(photo))}}
        results = [*_results(found, names, lost)]
        tags = photo.hints.tags
        shown = {one.mark.label for one in found.drawn} - {BACKGROUND, IGNORE}
        if tags is not None:
            lost[_ABSENT] += tags != Tags.complete(tags.present, len(hint_set.classes))
            if tags.present - shown:
                chosen = [names[label] for label in sorted(tags.present)]
                results.append(_result("choices", {"choices": chosen}, "tags"))
        if results or found.negative:
            trust = [one.mark.trust for one in found.drawn]
            score = sum(trust) / len(trust) if trust else 1.0
            task["predictions"] = [{"model_version": _model(found), "score": score, "result": results}]
        used |= {str(one["type"]) for one in results}
        used |= {names[one.mark.label] for one in found.drawn if one.mark.label in (BACKGROUND, IGNORE)}
        tasks.append(task)
    lost[_SPLITS] += len(hint_set.splits)
    with whole_file(out / "label_config.xml") as file:
        file.write(_config(hint_set.classes, used).encode())
    with whole_file(out / "tasks.json") as file:
        file.write(json.dumps(tasks, ensure_ascii=False).encode())
    return Written(out / "tasks.json", tuple(f"{count} {what}" for what, count in lost.items() if count))


def _model(found: PhotoMarks) -> str:
    sources = {one.mark.source for one in found.drawn}
    (source,) = sources if len(sources) == 1 else ("",)
    return source.removeprefix("model:") if source.startswith("model:") else OWN_MODEL


def _results(found: PhotoMarks, names: dict[int, str], lost: Counter[str]) -> Iterator[Result]:
    """Yield the regions of a photo."""
    if found.size is None:
        lost[_UNREAD] += bool(found.drawn)
        return
    for number, one in enumerate(found.drawn, start=1):
        name, id_ = names[one.mark.label], f"region{number}"
        head = _Head(name, found.size, one.mark.trust)
        shape = one.mark.shape
        if isinstance(shape, Click | Stroke):
            lost[_OBJECTS] += one.mark.object is not None
        if isinstance(shape, Click):
            point = head.percent((shape.x, shape.y))
            yield head.region("keypointlabels", id_, {"x": point[0], "y": point[1], "width": _POINT_WIDTH})
        elif isinstance(shape, Stroke):
            lost[_WIDTH] += shape.width != 1.0
            yield head.region("vectorlabels", id_, _vector(head.percent(shape.points)))
        else:
            yield from _object(one, id_, head)


class _Head:
    """What all regions of an object have alike."""

    def __init__(self, name: str, size: Size, trust: float) -> None:
        self.name = name
        self.size = size
        self.trust = trust

    def percent(self, flat: Sequence[float]) -> list[float]:
        height, width = self.size
        return [value * 100 / (height if place % 2 else width) for place, value in enumerate(flat)]

    def region(self, kind: str, id_: str, value: dict[str, object], **more: object) -> Result:
        height, width = self.size
        found = _result(kind, {**value, kind: [self.name]}, _CONTROLS[kind][1])
        sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
        return {**found, "id": id_, **sizes, "score": self.trust, **more}


def _result(kind: str, value: dict[str, object], question: str) -> Result:
    return {"from_name": question, "to_name": "image", "type": kind, "value": value}


def _vector(flat: list[float]) -> dict[str, object]:
    points = zip(flat[0::2], flat[1::2], strict=True)
    vertices = [
        {"id": f"p{n}", "prevPointId": f"p{n - 1}" if n else None, "x": x, "y": y, "isBezier": False}
        for n, (x, y) in enumerate(points)
    ]
    return {"vertices": vertices, "closed": False}


def _object(one: Drawn, id_: str, head: _Head) -> Iterator[Result]:
    """Yield an object: its outline, or its box, or its box and, hanging on it, its outline's parts."""
    rings = () if one.outline is None or one.outline.rle else one.outline.polygons
    alone = one.outline is not None and not one.own_box and len(rings) <= 1
    more: dict[str, object] = {}
    if not alone:
        x0, y0, x1, y1 = head.percent(one.box.corners if one.box else ())
        value: dict[str, object] = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
        yield head.region("rectanglelabels", id_, value)
        more = {"parentID": id_, "meta": {"text": [OUTLINE]}}
    for number, (kind, value) in enumerate(_outline(one.outline, head)):
        yield head.region(kind, id_ if alone else f"{id_}part{number}", value, **more)


def _outline(outline: Region | None, head: _Head) -> Iterator[tuple[str, dict[str, object]]]:
    if outline is None:
        return
    if outline.rle is not None:
        yield "brushlabels", {"format": "rle", "rle": encode_brush(outline.rle)}
    for ring in outline.polygons:
        flat = head.percent(ring)
        points = [list(pair) for pair in zip(flat[0::2], flat[1::2], strict=True)]
        yield "polygonlabels", {"points": points, "closed": True}


def _config(classes: Sequence[str], used: set[str]) -> str:
    """Return a labeling config with a control for each kind of region, and one for tags."""
    names = [*classes, *sorted(used & {"background", IGNORED})]
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    kinds = [kind for kind in _CONTROLS if kind in used] or ["rectanglelabels"]
    for kind in kinds:
        element, control = _CONTROLS[kind]
        lines.append(f'  <{element} name="{control}" toName="image">')
        lines += [f"    <Label value={quoteattr(name)}/>" for name in names]
        lines.append(f"  </{element}>")
    lines.append('  <Choices name="tags" toName="image" choice="multiple">')
    lines += [f"    <Choice value={quoteattr(name)}/>" for name in classes]
    return "\n".join([*lines, "  </Choices>", "</View>", ""])
