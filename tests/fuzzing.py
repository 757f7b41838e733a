"""Hostile files and settings for every reader: `python tests/fuzz.py --minutes 60`, and a few in tests/test_fuzz.py.

A target is a small valid input, ways to break it (bytes, keys, types, nesting), and the code that reads it. Whatever is
read, it ends normally or in a `HintsegError` of at most 4,000 printable characters, within 10 s and 1 GiB.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

import hintseg
from breaking import TEXTS, TOKENS, VALUES, broken, broken_bytes
from hintseg.config.loader import RECIPES, load_config
from hintseg.errors import MESSAGE, HintsegError, printable
from hintseg.formats.brush import encode_brush
from hintseg.hints import read_hints
from hintseg.hints.check import check
from hintseg.hints.masks import read_mask
from hintseg.nn.backbones import read_weights
from hintseg.store.instances import Instances, read_instances, write_instances
from hintseg.store.maps import read_maps, write_maps
from hintseg.store.masks import read_label_png
from hintseg.training.weights import load_weights
from hintseg.types import Rle

SECONDS, BYTES = 10, 1 << 30

SIZE = (24, 32)
CLASSES = ("bird", "dog", "tree")


class Target(NamedTuple):
    """What is fuzzed: ways to break an input, and what reads it."""

    examples: st.SearchStrategy[Any]
    read: Callable[[Any], None]
    cost: int = 1


# ---- small valid inputs


def write_photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(folder / f"{name}.png")


def write_data(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Write a small data set of each format; return its folder and the files that are broken."""
    found: dict[str, tuple[Path, list[str]]] = {}

    def add(key: str, files: dict[str, str | bytes], photos: str = ".") -> None:
        root = folder / key
        write_photos(root / photos)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        found[key] = (root, list(files))

    names = "\n".join(CLASSES) + "\n"
    add("csv tags", {"tags.csv": "a.png,bird,dog\nb.png\nc,tree\n", "train.txt": "a\nb\n"})
    add("csv one-hot", {"labels.csv": "file,bird,dog,tree\na,1,0,0\nb,0,1,0\nc,0,0,1\n", "classes.txt": names})
    add("csv boxes", {"boxes.csv": "file,x0,y0,x1,y1,label\na,1,2,9,8,bird\nb,0,0,32,24,dog\nc,,,,,\n"})
    add("points", {"points.csv": "file,x,y,label\na,1,2,bird\nb,3,4,dog\nb,5,6,background\n"})
    ring = [2, 2, 20, 2, 20, 20, 2, 20]
    marks = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 2, 18, 18], "segmentation": [ring], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 7, "segmentation": {"size": [24, 32], "counts": [100, 50, 618]}},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 3,
            "segmentation": {"size": [24, 32], "counts": "T3b1Zc0"},
            "iscrowd": 1,
        },
    ]
    images = [{"id": n, "file_name": f"{x}.png", "height": 24, "width": 32} for n, x in enumerate("abc", start=1)]
    categories = [{"id": 3, "name": "bird"}, {"id": 7, "name": "dog"}]
    coco = json.dumps({"images": images, "annotations": marks, "categories": categories})
    add("coco", {"instances.json": coco})
    for key, content in json_data(ring).items():
        add(key, {"labels.json": json.dumps(content)})
    lines = {"labels/a.txt": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.5\n", "labels/b.txt": ""}
    data = "path: .\ntrain: images\nval: val.txt\nnc: 3\nnames:\n  0: bird\n  1: dog\n  2: tree\n"
    flat = {"a.txt": "0 0.5 0.5 0.2 0.2 0.9\n2 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n", "train.txt": "data/a.png\nb.png\n"}
    darknet = "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\n"
    add("yolo flat", {"classes.txt": names, **flat})
    add("yolo darknet", {"obj.names": names, "obj.data": darknet, **flat})
    add("yolo", {"data.yaml": data, "val.txt": "images/a.png\n", **lines}, "images")
    box = "<object><name>dog</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    xml = f"<annotation><size><width>32</width><height>24</height></size>{box}{box}</annotation>"
    splits = {"ImageSets/Segmentation/train.txt": "a\nb\n"}
    add("voc", {"Annotations/a.xml": xml, "Annotations/b.xml": xml, "classes.txt": names, **splits}, "JPEGImages")
    shapes = (
        '<box label="dog" xtl="1" ytl="2" xbr="9" ybr="9.5" rotation="30" group_id="1"/>'
        '<polygon label="dog" points="1,1;9,1;9,9" group_id="1"/><points label="bird" points="3,4;5,6"/>'
        '<mask label="tree" rle="2, 5, 5" left="3" top="4" width="4" height="3"/><tag label="tree"/>'
        '<ellipse label="bird" cx="9" cy="9" rx="4" ry="3"/><polyline label="bird" points="1,1;9,9"/>'
        '<cuboid label="dog"/>'
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    listed = f'<image id="0" name="a.png" width="32" height="24" subset="Train">{shapes}</image><image name="b.png"/>'
    cvat = f"<annotations><meta><task><labels>{labels}</labels></task></meta>{listed}</annotations>"
    add("cvat", {"annotations.xml": cvat})
    mask = np.zeros(SIZE, np.uint8)
    mask[4:9, 4:9], mask[12:, 9:] = 1, 2
    path = folder / "mask.png"
    Image.fromarray(mask).save(path)
    add(
        "index_png",
        {"masks/a.png": path.read_bytes(), "masks/b.png": path.read_bytes(), "classes.txt": names},
        "images",
    )
    Image.fromarray(np.array([(0, 0, 0), (9, 9, 9), (7, 0, 0)], np.uint8)[mask]).save(path)
    tables = {
        "labelmap.txt": "background:0,0,0::\nbird:9,9,9::\ndog:7,0,0::\n",
        "colours.csv": "name,r,g,b\nbackground,0,0,0\nbird,9,9,9\ndog,7,0,0\n",
    }
    for name, table in tables.items():
        add(f"index_png {name}", {"masks/a_mask.png": path.read_bytes(), name: table}, "images")
    vectors = {name: np.eye(3, dtype=np.float32)[n] for n, name in enumerate("abc")}
    np.save(folder / "labels.npy", np.array(vectors, dtype=object))
    add("cls_labels", {"cls_labels.npy": (folder / "labels.npy").read_bytes(), "classes.txt": names})
    return found


def json_data(ring: list[int]) -> dict[str, object]:
    """Return what the tools that write JSON would write, by the format."""
    pairs = [[x, y] for x, y in zip(ring[0::2], ring[1::2], strict=True)]
    shapes = [
        {"label": "bird", "shape_type": "polygon", "points": pairs, "group_id": 1},
        {"label": "dog", "shape_type": "circle", "points": [[9, 9], [9, 12]], "flags": {}},
        {"label": "dog", "shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "iVBORw0KGgo="},
    ]
    rect = {"name": "rect", "x": 2, "y": 3, "width": 9, "height": 9}
    polygon = {"name": "polygon", "all_points_x": ring[0::2], "all_points_y": ring[1::2]}
    regions = [{"shape_attributes": shape, "region_attributes": {"type": "bird"}} for shape in (rect, polygon)]
    sizes = {"original_width": 32, "original_height": 24, "image_rotation": 0, "from_name": "x"}
    values: list[dict[str, object]] = [
        {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 30, "rectanglelabels": ["dog"]},
        {"points": pairs, "polygonlabels": ["bird"]},
        {"rle": encode_brush(Rle(24, 32, (100, 50, 618))), "format": "rle", "brushlabels": ["dog"]},
        {"choices": ["dog"]},
    ]
    results = [{"type": "x", "id": str(n), "value": value, **sizes} for n, value in enumerate(values)]
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/1/0a1b-a.png"}, "annotations": [{"result": results}]},
        {"id": 2, "data": {"image": "b.png"}, "predictions": [{"model_version": "m", "score": 0.5, "result": results}]},
    ]
    place = {"x": 9, "y": 9, "width": 4, "height": 4}
    return {
        "labelme": {
            "flags": {"dog": True},
            "shapes": shapes,
            "imagePath": "a.png",
            "imageHeight": 24,
            "imageWidth": 32,
        },
        "via": {"a.png9": {"filename": "a.png", "size": 9, "regions": regions, "file_attributes": {"tag": "dog"}}},
        "label_studio": tasks,
        "createml": [{"image": "a.png", "annotations": [{"label": "dog", "coordinates": place}]}],
    }


def read_all(root: Path, format: str) -> None:
    hint_set = read_hints(root, format=format)
    report = check(hint_set)
    json.dumps(report.as_dict() if hasattr(report, "as_dict") else str(report)).encode()
    for photo in hint_set.photos:
        read_mask(photo, n_classes=len(hint_set.classes))
        photo.id.encode()


def file_target(path: Path, read: Callable[[], Any], cost: int = 1) -> Target:
    """Break one file, read, and put it back."""
    base = path.read_bytes()

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read()
        finally:
            path.write_bytes(base)

    return Target(broken(path.name, base), run, cost)


def hint_targets(folder: Path) -> dict[str, Target]:
    found: dict[str, Any] = {}
    for key, (root, files) in write_data(folder).items():
        read = partial(read_all, root, key.split()[0])
        found |= {f"{key}: {name}": file_target(root / name, read) for name in files}
    classes = folder / "folders"
    for name in ("bird", "dog"):
        write_photos(classes / name)

    def folders(names: list[str]) -> None:
        made = []
        for name in names:
            letters = name.encode("utf-8", "surrogateescape").replace(b"/", b"_")
            place = classes / os.fsdecode(letters + b".png")
            try:
                shutil.copy(classes / "dog" / "a.png", place)
            except (OSError, ValueError):
                continue  # no name for this file system
            made.append(place)
        try:
            read_all(classes, "folders")
        finally:
            for place in made:
                place.unlink(missing_ok=True)

    letters = st.characters(codec=None, exclude_categories=["Cs"]) | st.sampled_from("\udcff\udc80\n\t.")
    found["folders: names"] = Target(st.lists(st.text(letters, min_size=1, max_size=80), max_size=3), folders)
    return found


def setting_targets(folder: Path) -> dict[str, Target]:
    recipes = ["cam", "vwe", "boxes", "bmp", "csd_irn", "mctformer", "full"]
    keys: set[str] = set()

    def walk(values: dict[str, Any], before: str) -> None:
        for name, value in values.items():
            keys.add(before + name)
            if isinstance(value, dict):
                walk(value, f"{before}{name}.")

    for recipe in recipes:
        walk(load_config(recipe, data={"path": "x"}).model_dump(mode="json"), "")
    key = (
        st.sampled_from(sorted(keys))
        | st.text(max_size=20)
        | st.sampled_from(["a." * 3000 + "b", "\udcff", "localize"])
    )
    text = st.sampled_from(TEXTS) | st.text(max_size=20)
    value = st.one_of(text, st.sampled_from([token.decode("utf-8", "surrogateescape") for token in TOKENS]))
    value |= st.sampled_from(VALUES).map(lambda found: json.dumps(found))
    word = st.builds(lambda left, right: f"{left}={right}", key, value)

    def overrides(given: tuple[str, list[str]]) -> None:
        load_config(given[0], given[1], data={"path": "x"})

    found = {"settings": Target(st.tuples(st.sampled_from(recipes), st.lists(word, max_size=4)), overrides)}
    for recipe in ("demo", "csd_irn"):
        path = folder / f"{recipe}.yaml"
        shutil.copy(RECIPES / f"{recipe}.yaml", path)
        found[f"recipe: {recipe}"] = file_target(path, partial(load_config, path, data={"path": "x"}))
    return found


def array_targets(folder: Path) -> dict[str, Target]:
    """Files of a run that hold arrays, one by one."""
    rng = np.random.default_rng(0)
    maps, objects = folder / "maps.npz", folder / "objects.npz"
    write_maps(maps, [1, 3], rng.random((2, 6, 8)).astype(np.float32))
    windows = np.array([[0, 0, 4, 4], [2, 3, 9, 9]])
    masks = [np.ones((4, 4), bool), rng.random((6, 7)) > 0.5]
    write_instances(objects, Instances(SIZE, np.array([1, 2], np.uint8), windows, masks))

    def use_objects() -> None:
        found = read_instances(objects)
        found.semantic()
        found.ids()

    shapes = st.lists(st.sampled_from((0, 1, 2, 6, 200)), max_size=4).filter(lambda s: np.prod(s) < 1e6)
    kinds = st.sampled_from(("u1", "i1", "i8", "f2", "f8", "?", "U3", "c8", "M8[s]"))
    array = st.builds(lambda s, k, v: np.full(s, v).astype(k), shapes, kinds, st.sampled_from((0, 1, 3, 255, -1)))

    def changed(path: Path, read: Callable[[], Any]) -> Target:
        with np.load(path) as file:
            base = dict(file)
        original = path.read_bytes()

        def run(change: dict[str, Any]) -> None:
            np.savez_compressed(path, **{k: v for k, v in (base | change).items() if v is not None})
            try:
                read()
            finally:
                path.write_bytes(original)

        return Target(st.dictionaries(st.sampled_from(sorted(base)), array | st.none(), min_size=1), run)

    png = folder / "mask.png"
    Image.fromarray(np.eye(20, dtype=np.uint8)).save(png)
    return {
        "maps: bytes": file_target(maps, partial(read_maps, maps)),
        "maps: arrays": changed(maps, partial(read_maps, maps)),
        "objects: bytes": file_target(objects, use_objects),
        "objects: arrays": changed(objects, use_objects),
        "mask: bytes": file_target(png, partial(read_label_png, png)),
    }


def weight_targets(folder: Path) -> dict[str, Target]:
    tensors = {"conv.weight": torch.rand(4, 3, 3, 3), "norm.bias": torch.zeros(4), "count": torch.tensor(3)}
    safe, pickled, old = folder / "w.safetensors", folder / "w.pth", folder / "old.pth"
    save_file(tensors, safe, {"mean": "[0.5, 0.5, 0.5]", "std": "[0.2, 0.2, 0.2]"})
    torch.save({"state_dict": tensors}, pickled)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    return {f"weights: {path.name}": file_target(path, partial(read_weights, path)) for path in (safe, pickled, old)}


QUICK = [
    "backbone.name=resnet10t", "backbone.weights=random", "trainer.workers=0", "trainer.precision=32-true",
    "localize.fit.epochs=1", "localize.fit.batch_size=2", "localize.fit.crop=64", "maps.scales=[1.0]",
    "refine.fit.epochs=1", "refine.fit.batch_size=2", "refine.fit.crop=64", "segment.fit.epochs=1",
    "segment.fit.batch_size=2", "segment.fit.crop=64", "test.scales=[1.0]", "trainer.pictures=1",
]  # fmt: skip


def run_targets(folder: Path) -> dict[str, Target]:
    """Every file of a finished run, and every command that reads one."""
    data = folder / "data"
    write_photos(data / "JPEGImages")
    (data / "tags.csv").write_text("a,bird\nb,dog\nc,bird\n")
    (data / "SegmentationClass").mkdir()
    for name in "abc":
        mask = np.zeros(SIZE, np.uint8)
        mask[4:20, 4:20] = 1 + (name == "b")
        Image.fromarray(mask).save(data / "SegmentationClass" / f"{name}.png")
    (data / "classes.txt").write_text("bird\ndog\n")
    (data / "train.txt").write_text("a\nb\nc\n")
    (data / "val.txt").write_text("a\nb\n")
    made, run, out = folder / "made", folder / "run", folder / "out"
    hintseg.train(data, run, recipe="cam", settings=[*QUICK, "refine.method=irn"])
    run.rename(made)
    files = sorted(str(file.relative_to(made)) for file in made.rglob("*") if file.is_file())
    broken_ones = [name for name in files if not name.endswith(".html")]
    commands: dict[str, Callable[[], Any]] = {
        "masks": lambda: hintseg.masks(run, out),
        "predict": lambda: hintseg.predict(run, data / "JPEGImages", out),
        "report": lambda: hintseg.report(run),
        "evaluate": lambda: hintseg.evaluate(run / "refine" / "masks", run / "truth"),
        "evaluate maps": lambda: hintseg.evaluate(run / "localize" / "maps", run / "truth", classes=["bird", "dog"]),
        "resume": lambda: hintseg.train(data, run, recipe="cam", settings=[*QUICK, "refine.method=irn"], resume=True),
        "load": lambda: load_weights(run / "segment" / "model.safetensors"),
    }

    def use(example: tuple[str, str, bytes]) -> None:
        command, name, content = example
        for place in (run, out):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, run)
        (run / name).write_bytes(content)
        commands[command]()

    def of_file(name: str) -> st.SearchStrategy[tuple[str, str, bytes]]:
        contents = broken(name, (made / name).read_bytes())
        return st.tuples(st.sampled_from(sorted(commands)), st.just(name), contents)

    weights = [name for name in broken_ones if name.endswith("segment/model.safetensors")]
    found = {"run": Target(st.sampled_from(broken_ones).flatmap(of_file), use, cost=10)}
    for name in weights:
        head = (made / name).read_bytes()[:4000]
        tail = (made / name).read_bytes()[4000:]

        def load(content: bytes, tail: bytes = tail) -> None:
            path = folder / "model.safetensors"
            path.write_bytes(content + tail)
            load_weights(path)

        found["run: metadata"] = Target(broken_bytes(head), load, cost=4)
    return found


TARGETS: tuple[Callable[[Path], dict[str, Target]], ...] = (
    hint_targets, setting_targets, array_targets, weight_targets, run_targets,
)  # fmt: skip


# ---- what must hold


class Hung(BaseException):
    """Reading took six times the time it may take."""


def survives(target: Target, example: Any) -> None:
    """Read a broken input; anything but a normal end or a short `HintsegError` raises."""

    def stop(*_: Any) -> None:
        raise Hung

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS * target.cost)
    began = time.process_time()  # of this process: other programs may be at work beside it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(example)
    except HintsegError as error:
        message = str(error)
        message.encode()
        assert len(message) <= MESSAGE
        assert printable(message) == message
    except Hung:
        raise AssertionError(f"not done after {6 * SECONDS * target.cost} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    took = time.process_time() - began
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert took <= SECONDS * target.cost, f"{took:.1f} s"
    assert grown <= BYTES, f"{grown / BYTES:.1f} GiB"


def common(examples: int, *, repeatable: bool) -> settings:
    return settings(
        max_examples=examples,
        derandomize=repeatable,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
