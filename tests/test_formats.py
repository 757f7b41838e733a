"""What holds for every codec: it knows its own data and no other's, and all read the same out of the same facts."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.data.shapes import CLASSES, write_shapes
from hintseg.errors import ConfigError, LabelError
from hintseg.files.palette import voc_palette
from hintseg.formats.codec import Fit
from hintseg.formats.names import Names
from hintseg.formats.recognise import codec
from hintseg.geometry.rasterise import paint
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask, read_scribbles
from hintseg.registry import FORMATS, formats
from hintseg.types import Click, HintSet, Photo, Supervision

UNLABELLED = {"scribbles": 255}

Boxes = Mapping[str, Sequence[tuple[str, float, float, float, float]]]


def _label_studio(folder: Path, boxes: Boxes) -> None:
    def result(label: str, *box: float) -> dict[str, Any]:
        value = {key: part / 0.48 for key, part in zip(("x", "y", "width", "height"), box, strict=True)}
        sizes = {"original_width": 48, "original_height": 48}
        return {"type": "rectanglelabels", "value": {**value, "rectanglelabels": [label]}, **sizes}

    addresses = {name: f"/data/upload/1/0a1b2c3d-{name}" for name in boxes}
    tasks = [
        {"data": {"image": addresses[name]}, "annotations": [{"result": [result(*one) for one in found]}]}
        for name, found in boxes.items()
    ]
    (folder / "project.json").write_text(json.dumps(tasks))


def _labelme(folder: Path, boxes: Boxes) -> None:
    for name, found in boxes.items():
        ends = [(label, [[x, y], [x + w, y + h]]) for label, x, y, w, h in found]
        shapes = [{"label": label, "shape_type": "rectangle", "points": points} for label, points in ends]
        content = {"shapes": shapes, "imagePath": name, "imageData": None, "imageHeight": 48, "imageWidth": 48}
        (folder / "images" / name).with_suffix(".json").write_text(json.dumps(content))


def _via(folder: Path, boxes: Boxes) -> None:
    content = {}
    for name, found in boxes.items():
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
                "region_attributes": {"type": label},
            }
            for label, x, y, w, h in found
        ]
        content[f"{name}9"] = {"filename": name, "size": 9, "regions": regions, "file_attributes": {}}
    (folder / "via_region_data.json").write_text(json.dumps(content))


def _createml(folder: Path, boxes: Boxes) -> None:
    content = []
    for name, found in boxes.items():
        marks = [
            {"label": label, "coordinates": {"x": x + w / 2, "y": y + h / 2, "width": w, "height": h}}
            for label, x, y, w, h in found
        ]
        content.append({"image": name, "annotations": marks})
    (folder / "annotations.json").write_text(json.dumps(content))


JSON_WRITERS = {"label_studio": _label_studio, "labelme": _labelme, "via": _via, "createml": _createml}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "shapes"
    write_shapes(folder, train=10, val=2, size=48)
    return folder


@pytest.fixture(scope="module")
def made(shapes: Path) -> Mapping[str, tuple[Path, Path | None]]:
    """The same photos in every format: folder and labels by the name of a variant, which begins with the format's."""
    return {variant: (shapes.with_name(variant), write(shapes, variant)) for variant in (*VARIANTS, *LAYOUTS)}


VARIANTS = (
    "csv-tags",
    "csv-one-hot",
    "csv-boxes",
    "csv-rows",
    "csv-retinanet",
    "csv-makesense",
    "csv-open_images",
    "csv-kaggle",
    "via-csv",
    "label_studio-csv",
    "voc",
    "voc-beside",
    "cvat",
    "coco",
    "label_studio",
    "labelme",
    "via",
    "createml",
    "yolo-boxes",
    "yolo-flat",
    "index_png-masks",
    "index_png-scribbles",
    "index_png-colours",
    "index_png-beside",
    "points",
    "cls_labels",
    "folders",
)
LAYOUTS = ("mvtec", "nuclei", "folders-splits")
"""Of other facts: they hold one class, or none."""

KINDS = {
    "csv-tags": {"tags"},
    "csv-one-hot": {"tags"},
    "csv-boxes": {"tags", "boxes"},
    "csv-rows": {"tags"},
    "csv-retinanet": {"tags", "boxes"},
    "csv-makesense": {"boxes"},  # it has no rows for photos without boxes
    "csv-open_images": {"boxes"},  # nor does it say what is not in a photo
    "csv-kaggle": {"tags", "boxes", "masks"},
    "via-csv": {"tags", "boxes"},
    "label_studio-csv": {"tags", "boxes"},
    "voc": {"tags", "boxes", "masks"},
    "voc-beside": {"tags", "boxes"},
    "cvat": {"tags", "boxes"},
    "coco": {"tags", "boxes", "masks"},
    "label_studio": {"tags", "boxes"},
    "labelme": {"tags", "boxes"},
    "via": {"tags", "boxes"},
    "createml": {"tags", "boxes"},
    "yolo-boxes": {"tags", "boxes"},
    "yolo-flat": {"tags", "boxes"},
    "index_png-masks": {"tags", "masks"},
    "index_png-scribbles": {"scribbles"},
    "index_png-colours": {"tags", "masks"},
    "index_png-beside": {"tags", "masks"},
    "points": {"tags", "points"},
    "cls_labels": {"tags"},
    "folders": {"tags"},
}


def write(shapes: Path, variant: str) -> Path | None:
    """Write the photos and labels of `shapes` beside it; return the label file where the folder does not show it."""
    folder = shapes.with_name(variant)
    if variant == "voc":
        shutil.copytree(shapes, folder, ignore=shutil.ignore_patterns("Hints", "Scribbles", "tags.csv"))
        return None
    content = json.loads((shapes / "Hints" / "instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    boxes: dict[str, list[tuple[str, float, float, float, float]]] = {name: [] for name in names.values()}
    for item in content["annotations"]:
        boxes[names[item["image_id"]]].append((CLASSES[item["category_id"] - 1], *item["bbox"]))
    tags = {name: sorted({box[0] for box in found}) for name, found in boxes.items()}
    shutil.copytree(shapes / "JPEGImages", folder / "images")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    if variant == "csv-tags":
        (folder / "tags.csv").write_text("".join(",".join([name, *found]) + "\n" for name, found in tags.items()))
    elif variant == "csv-one-hot":
        rows = [[name, *(str(int(one in found)) for one in CLASSES)] for name, found in tags.items()]
        (folder / "tags.csv").write_text("\n".join(",".join(row) for row in [["file", *CLASSES], *rows]))
    elif variant == "csv-boxes":
        cells: list[list[object]] = [["file", "x0", "y0", "x1", "y1", "label"]]
        cells += [[name, x, y, x + w, y + h, label] for name, found in boxes.items() for label, x, y, w, h in found]
        cells += [[name, "", "", "", "", ""] for name, found in boxes.items() if not found]
        (folder / "boxes.csv").write_text("\n".join(",".join(str(cell) for cell in row) for row in cells))
    elif variant.startswith("csv-") or variant in ("via-csv", "label_studio-csv"):
        (folder / "labels.csv").write_text(table(variant, boxes, tags, shapes))
    elif variant == "voc-beside":
        for file in (shapes / "Annotations").glob("*.xml"):
            shutil.copy(file, folder / "images")
    elif variant == "cvat":
        (folder / "classes.txt").unlink()
        listed = "".join(f"<label><name>{one}</name></label>" for one in CLASSES)
        images = "".join(
            f'<image name="{name}" width="48" height="48">'
            + "".join(f'<box label="{c}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>' for c, x, y, w, h in found)
            + "</image>"
            for name, found in boxes.items()
        )
        text = f"<annotations><meta><task><labels>{listed}</labels></task></meta>{images}</annotations>"
        (folder / "annotations.xml").write_text(text)
    elif variant == "coco":
        (folder / "classes.txt").unlink()
        shutil.copy(shapes / "Hints" / "instances.json", folder)
    elif variant in JSON_WRITERS:
        JSON_WRITERS[variant](folder, boxes)
    elif variant in ("yolo-boxes", "yolo-flat"):
        place = folder / ("labels" if variant == "yolo-boxes" else "images")
        place.mkdir(exist_ok=True)
        if variant == "yolo-boxes":
            (folder / "data.yaml").write_text(json.dumps({"names": list(CLASSES)}))
        for name, found in boxes.items():
            lines = [
                f"{CLASSES.index(label)} {(x + w / 2) / 48} {(y + h / 2) / 48} {w / 48} {h / 48}\n"
                for label, x, y, w, h in found
            ]
            (place / name).with_suffix(".txt").write_text("".join(lines))
    elif variant == "index_png-masks":
        shutil.copytree(shapes / "SegmentationClass", folder / "masks")
    elif variant == "index_png-scribbles":
        shutil.copytree(shapes / "Scribbles", folder / "scribbles")
    elif variant == "index_png-colours":
        (folder / "classes.txt").unlink()
        (folder / "masks").mkdir()
        palette = voc_palette()
        for file in (shapes / "SegmentationClass").iterdir():
            Image.fromarray(palette[np.array(Image.open(file))]).save(folder / "masks" / file.name)
        rows = [[name, *palette[label].tolist()] for label, name in enumerate(["background", *CLASSES, "void"])]
        rows[-1][1:] = palette[255].tolist()
        (folder / "colours.csv").write_text("\n".join(",".join(map(str, row)) for row in [["name", *"rgb"], *rows]))
    elif variant == "index_png-beside":
        for file in (shapes / "SegmentationClass").iterdir():
            shutil.copy(file, folder / "images" / f"{file.stem}_mask.png")
    elif variant == "points":
        shutil.copy(shapes / "Hints" / "points.csv", folder)
    elif variant == "cls_labels":
        one_hot = {name: np.array([one in found for one in CLASSES], np.float32) for name, found in tags.items()}
        np.save(folder / "cls_labels.npy", np.array(one_hot))
    elif variant in LAYOUTS:
        write_layout(folder, variant, list(tags))
    else:
        (folder / "classes.txt").unlink()
        for name, labels in tags.items():
            for label in labels[:1] or ["negatives"]:  # a photo has one folder
                (folder / label).mkdir(exist_ok=True)
                shutil.move(folder / "images" / name, folder / label / name)
        shutil.rmtree(folder / "images")
    return None


def table(
    variant: str,
    boxes: Mapping[str, list[tuple[str, float, float, float, float]]],
    tags: Mapping[str, list[str]],
    shapes: Path,
) -> str:
    """Return the labels as a table of one of the tools."""
    text = io.StringIO()
    rows: list[list[object]] = []
    if variant == "csv-rows":
        rows = [["Image Index", "Finding"]]
        rows += [[name, tag] for name, found in tags.items() for tag in found or [""]]
    elif variant == "csv-retinanet":
        rows = [[f"images/{n}", x, y, x + w, y + h, label] for n, found in boxes.items() for label, x, y, w, h in found]
        rows += [[f"images/{name}", "", "", "", "", ""] for name, found in boxes.items() if not found]
    elif variant == "csv-makesense":
        rows = [[label, x, y, w, h, n, 48, 48] for n, found in boxes.items() for label, x, y, w, h in found]
    elif variant == "csv-open_images":
        rows = [["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]]
        for name, found in boxes.items():
            for label, x, y, w, h in found:
                rows.append([Path(name).stem, "xclick", label, 1, x / 48, (x + w) / 48, y / 48, (y + h) / 48, 0])
    elif variant == "csv-kaggle":
        rows = [["ImageId", "EncodedPixels", "Class"]]
        for photo in read_hints(shapes, shapes / "Hints" / "instances.json").photos:
            assert isinstance(photo.truth, tuple)
            for mark in photo.truth:
                flat = np.flatnonzero(mark.label == paint([mark], (48, 48)).T)
                starts = [n for n in flat if n - 1 not in flat]
                lengths = [next(m for m in range(1, 48 * 48) if n + m not in flat) for n in starts]
                runs = " ".join(f"{n + 1} {length}" for n, length in zip(starts, lengths, strict=True))
                rows.append([photo.path.name, runs, CLASSES[mark.label - 1]])
            if not photo.truth:
                rows.append([photo.path.name, "", ""])
    elif variant == "via-csv":
        rows = [["#filename", "file_size", "file_attributes", "region_count", "region_id"]]
        rows[0] += ["region_shape_attributes", "region_attributes"]
        for name, found in boxes.items():
            for label, x, y, w, h in found:
                shape = {"name": "rect", "x": x, "y": y, "width": w, "height": h}
                rows.append([name, 1, "{}", len(found), 0, json.dumps(shape), json.dumps({"class": label})])
            if not found:
                rows.append([name, 1, "{}", 0, 0, "{}", "{}"])
    else:
        rows = [["image", "id", "label", "annotator", "annotation_id", "lead_time"]]
        for name, found in boxes.items():
            shapes_ = [
                {
                    **dict(zip(("x", "y", "width", "height"), (v * 100 / 48 for v in corner), strict=True)),
                    "rotation": 0,
                    "rectanglelabels": [label],
                    "original_width": 48,
                    "original_height": 48,
                }
                for label, *corner in found
            ]
            rows.append([f"/data/upload/1/0a1b2c3d-{name}", 1, json.dumps(shapes_), 1, 1, 2.5])
    csv.writer(text).writerows(rows)
    return text.getvalue()


def write_layout(folder: Path, variant: str, names: list[str]) -> None:
    """Move the photos into one of `LAYOUTS`."""
    (folder / "classes.txt").unlink()
    for number, name in enumerate(names):
        place, masks = {
            "mvtec": (("train/good", "test/good", "test/crack")[number % 3], "ground_truth/crack"),
            "nuclei": (f"p{number}/images", f"p{number}/masks"),
            "folders-splits": (("Training/cat", "Testing/dog", "Training/background")[number % 3], ""),
        }[variant]
        (folder / place).mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "images" / name, folder / place / name)
        if masks:
            (folder / masks).mkdir(parents=True, exist_ok=True)
            Image.new("L", (48, 48), 255).save((folder / masks / name).with_suffix(".png"))
    shutil.rmtree(folder / "images")


def read(variant: str, place: tuple[Path, Path | None]) -> HintSet:
    return read_hints(*place, unlabelled=UNLABELLED.get(variant.rpartition("-")[2]))


@pytest.mark.parametrize("variant", [*VARIANTS, *LAYOUTS])
def test_a_codec_knows_its_own_data_and_no_others(made: Mapping[str, tuple[Path, Path | None]], variant: str) -> None:
    name = variant.partition("-")[0]
    fits = {other: codec(other).sniff(*made[variant]) for other in FORMATS}
    assert {other for other, fit in fits.items() if fit} == {name}
    assert recognise(*made[variant]) == name


@pytest.mark.parametrize("name", FORMATS)
def test_a_codec_is_what_the_table_says(name: str) -> None:
    found = codec(name)
    assert found.name == name
    assert found.sign
    written = set().union(*(KINDS[variant] for variant in VARIANTS if variant.partition("-")[0] == name))
    carried = written - {"tags"} or written  # marks and masks imply tags
    assert {kind.value for kind in found.carries} >= carried
    assert found.carries <= set(Supervision)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_read_the_same_out_of_the_same_facts(
    made: Mapping[str, tuple[Path, Path | None]], shapes: Path, variant: str
) -> None:
    truth = {photo.id: photo for photo in read_hints(shapes).photos}
    points = {photo.id: photo for photo in read_hints(shapes, shapes / "Hints" / "points.csv").photos}
    strokes = {p.id: p for p in read_hints(shapes, shapes / "Scribbles", unlabelled=255).photos}
    hint_set = read(variant, made[variant])
    assert len(hint_set.photos) == len(truth) == 12

    def names(photo: Photo, classes: tuple[str, ...]) -> tuple[set[str], set[str]]:
        tags = photo.hints.tags
        assert tags is not None
        return {classes[label - 1] for label in tags.present}, {classes[label - 1] for label in tags.absent}

    def corners(photo: Photo, classes: tuple[str, ...]) -> list[tuple[str, float, float, float, float]]:
        found = []
        for mark in photo.hints.objects:
            x0, y0, x1, y1 = (round(value, 3) for value in mark.shape.corners)
            found.append((classes[mark.label - 1], x0, y0, x1, y1))
        return sorted(found)

    for photo in hint_set.photos:
        same = truth[photo.id.rpartition("/")[2]]
        present, absent = names(photo, hint_set.classes)
        wanted, _ = names(same, CLASSES)
        if variant == "folders":
            wanted = set(sorted(wanted)[:1])
        if "tags" in KINDS[variant]:
            assert (present, absent) == (wanted, set(hint_set.classes) - wanted)
        assert [m.object for m in photo.hints.objects] == [*range(1, len(photo.hints.objects) + 1)]
        if "boxes" in KINDS[variant]:
            assert corners(photo, hint_set.classes) == corners(same, CLASSES)
        else:
            assert photo.hints.objects == ()
        if "points" in KINDS[variant]:
            assert photo.hints.shaped(Click) == points[same.id].hints.shaped(Click)
        if "masks" in KINDS[variant]:
            np.testing.assert_array_equal(read_mask(photo), read_mask(same))
        else:
            assert photo.truth is None
        if "scribbles" in KINDS[variant]:
            np.testing.assert_array_equal(read_scribbles(photo), read_scribbles(strokes[same.id]))
            assert present <= wanted


PLUGIN = """
from pathlib import Path
from PIL import Image
from hintseg.formats.codec import Fit
from hintseg.formats.layout import assemble
from hintseg.formats.photos import find_photos
from hintseg.formats.problems import Problems, read_text
from hintseg.types import Hints, HintSet, Mark, Stroke, Supervision

class Lines:
    name = "lines"
    carries = frozenset({Supervision.SCRIBBLES})
    sign = "lines.txt"

    def sniff(self, path, labels):
        file = labels or path / "lines.txt"
        return Fit.YES if file.name == "lines.txt" and file.is_file() else Fit.NO

    def read(self, path, labels, reading):
        folder, problems, hints = find_photos(path), Problems(), {}
        for number, line in enumerate(read_text(labels or path / "lines.txt").splitlines(), start=1):
            name, label, *values = line.split()
            photo = folder.locate(name, problems, "lines.txt", f"line {number}")
            mark = Mark(("ant", "bee").index(label) + 1, Stroke(tuple(map(float, values))))
            hints[photo] = Hints(marks=(mark,))
        return assemble(path, folder, ("ant", "bee"), hints, source="lines.txt", problems=problems, notes=[],
                        splits={}, background=reading.background)
"""


def test_a_new_format_is_one_file_and_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "linesfmt-1.dist-info").mkdir(parents=True)
    (site / "linesfmt.py").write_text(PLUGIN)
    (site / "linesfmt-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: linesfmt\nVersion: 1\n")
    points = site / "linesfmt-1.dist-info" / "entry_points.txt"
    points.write_text("[hintseg.formats]\nlines = linesfmt:Lines\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "linesfmt", raising=False)
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (9, 9)).save(data / "a.png")
    (data / "lines.txt").write_text("a.png bee 1 1 5 5\n")
    assert formats()["lines"].summary == "plug-in linesfmt:Lines"
    assert recognise(data) == "lines"
    hint_set = read_hints(data)
    tags = hint_set.photos[0].hints.tags
    assert tags is not None
    assert (set(tags), set(tags.absent)) == ({2}, {1}), "what a stroke implies is worked out for every format"
    (data / "tags.csv").write_text("a.png,cow\n")
    both = read_hints(data, [data / "tags.csv", data / "lines.txt"])
    assert both.classes == ("cow", "ant", "bee")
    points.write_text("[hintseg.formats]\nlines = linesfmt:Missing\n")
    with pytest.raises(ConfigError, match=r"the format 'lines' \(linesfmt:Missing\) cannot be loaded"):
        read_hints(data)


def test_a_name_that_several_photos_have_means_each_of_them_once() -> None:
    ids = {f"{folder}/image.png": f"{folder}/image" for folder in "cab"} | {"one.png": "one", "one": "one"}
    names = Names(ids, "data")
    assert names.search("image.png") == (["c/image", "a/image", "b/image"], ""), "in their order"
    assert names.search("b/image") == (["b/image"], "")
    assert names.search("one") == (["one"], "")


def test_signs_that_are_equally_sure_are_asked_about(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("a.png,ant\n")
    (tmp_path / "points.csv").write_text("file,x,y,label\na.png,1,1,ant\n")
    with pytest.raises(LabelError, match="or name each label file with a --labels of its own"):
        read_hints(tmp_path)
    assert Fit.NO < Fit.WEAK < Fit.YES < Fit.WHOLE
