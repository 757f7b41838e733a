"""Files that people hand each other, made to hang, to fill the memory, or to end in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hintseg.config.loader import load_config
from hintseg.config.settings import BackboneConfig
from hintseg.errors import MESSAGE, ConfigError, LabelError, RunError, ShapeError, WeightsError
from hintseg.evaluation.folders import evaluate_folders
from hintseg.formats.photos import find_photos
from hintseg.geometry.rasterise import fill, paint
from hintseg.geometry.runs import bounds, encode
from hintseg.hints import read_hints
from hintseg.methods.cam import Cam
from hintseg.nn.backbones import read_weights
from hintseg.registry import methods, resolve
from hintseg.store.instances import read_instances
from hintseg.store.maps import read_maps
from hintseg.store.masks import read_label_png
from hintseg.training.weights import KEY, load_weights, save_weights
from hintseg.types import Mark, Region, Rle

NINES = "9" * 400


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("a.png", "b.png"):
        Image.new("RGB", (32, 24), crc32(os.fsencode(folder / name)) & 0xFFFFFF).save(folder / name)
    return folder


def coco(folder: Path, **replaced: object) -> Path:
    """Write a COCO file; values that start with `raw ` are put in as they are."""
    mark = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]} | replaced
    images = [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}]
    text = json.dumps({"images": images, "annotations": [mark], "categories": [{"id": 1, "name": "dog"}]})
    (photos(folder) / "instances.json").write_text(text.replace('"raw ', "").replace(' raw"', ""))
    return folder


class TestCoco:
    @pytest.mark.parametrize(
        ("replaced", "part"),
        [
            ({"x": "raw " + "[" * 100_000 + "]" * 100_000 + " raw"}, "100003 levels inside each other, at most 64"),
            ({"area": "raw " + "9" * 5000 + " raw"}, "a number has more than 300 digits"),
            ({"bbox": ["raw " + "9" * 290 + " raw", 1, 2, 3]}, "bbox .* not a number of at most 1,000,000,000"),
            ({"segmentation": {"size": [100_000, 100_000], "counts": [0, 10**9]}}, "both must be at least 1"),
            ({"segmentation": {"size": [-1, -1], "counts": [1]}}, "both must be at least 1"),
            ({"id": "\ud800"}, "holds half a character"),
            ({"segmentation": [[0, 0, 1e300, 0, 5, 5]]}, "not a number of at most 1,000,000,000"),
        ],
    )
    def test_refused(self, tmp_path: Path, replaced: dict[str, object], part: str) -> None:
        with pytest.raises(LabelError, match=part):
            read_hints(coco(tmp_path, **replaced))

    def test_bounds_of_run_lengths_need_no_pixels(self) -> None:
        assert bounds(Rle(10_000, 10_000, (5, 10, 10**8 - 15))) == (0, 5, 1, 15)
        assert bounds(Rle(3, 3, (2, 2, 5))) == (0, 0, 2, 3)
        assert bounds(Rle(3, 3, (9,))) is None
        rng = np.random.default_rng(0)
        for _ in range(50):
            mask = rng.random((5, 7)) < 0.1
            rows, columns = np.nonzero(mask)
            around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else None
            assert bounds(encode(mask)) == around

    def test_a_long_zigzag_and_many_objects_fit_into_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = np.array([(i / 9, 300 * (i % 2)) for i in range(2700)], dtype=np.float64)
        monkeypatch.setattr("hintseg.geometry.rasterise._AT_ONCE", 10_000)
        whole = fill([points], (300, 300))
        monkeypatch.setattr("hintseg.geometry.rasterise._AT_ONCE", 1 << 40)
        np.testing.assert_array_equal(whole, fill([points], (300, 300)))
        boxes = [Mark(1 + n % 2, Region(((0, 0, n + 1, 0, n + 1, 9, 0, 9),))) for n in range(9)]
        kept = paint(boxes, (9, 9))
        monkeypatch.setattr("hintseg.geometry.rasterise._KEPT", 100)
        np.testing.assert_array_equal(kept, paint(boxes, (9, 9)))


class TestYaml:
    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ("!!timestamp 2020-01-01", "is a tag"),
            ("!!set {a}", "is a tag"),
            ("!!binary aGk=", "is a tag"),
            ("&a [*a]", "its aliases make more than"),
            ("[" * 5000, "more than 64 levels"),
            (NINES, "more than 300 digits"),
            ('"\\ud800"', "half a character"),
            ("\udcff", "special characters are not allowed"),
        ],
    )
    def test_settings_refused(self, value: str, part: str) -> None:
        with pytest.raises(ConfigError, match=part):
            load_config("cam", [f"seed={value}"], data={"path": "x"})

    @pytest.mark.parametrize("word", ["a." * 5000 + "b=1", "\udcff=1", "=1", "x" * 10_000 + "=1"])
    def test_names_refused(self, word: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_config("cam", [word], data={"path": "x"})
        assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
    def test_no_setting_is_endless(self, value: str) -> None:
        with pytest.raises(ConfigError, match=r"'localize\.fit\.lr'"):
            load_config("cam", [f"localize.fit.lr={value}"], data={"path": "x"})

    @pytest.mark.parametrize("path", ["a\udcff", Path("\udcff"), {"a": 10**400}, {(1,): 2}])
    def test_settings_of_python(self, path: object) -> None:
        with pytest.raises(ConfigError, match="the settings cannot be read"):
            load_config("cam", data={"path": path})

    def test_dates_are_text(self) -> None:
        assert load_config("cam", ["data.train=2020-01-01"], data={"path": "x"}).data.train == "2020-01-01"

    def test_alias_bomb(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
        recipe = tmp_path / "bomb.yaml"
        recipe.write_text("\n".join(lines))
        with pytest.raises(ConfigError, match="its aliases make more than 200,000 values"):
            load_config(recipe)
        (photos(tmp_path / "data") / "data.yaml").write_text("\n".join(lines))
        with pytest.raises(LabelError, match=r"data.yaml is no valid YAML: its aliases make more than"):
            read_hints(tmp_path / "data")

    def test_recipe_that_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.yaml")
        (tmp_path / "folder.yaml").mkdir()
        (tmp_path / "large.yaml").write_text("#" * 300_000)
        for name, part in (("pipe", "unknown recipe"), ("folder", "unknown recipe"), ("large", "at most 262,144")):
            with pytest.raises(ConfigError, match=part):
                load_config(tmp_path / f"{name}.yaml")
        with pytest.raises(ConfigError, match="unknown recipe"):
            load_config("x" * 5000)


def test_xml_that_grows(tmp_path: Path) -> None:
    root = photos(tmp_path / "JPEGImages").parent
    (root / "Annotations").mkdir()
    bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'><!ENTITY c '&b;&b;'>]><annotation><object>&c;</object></annotation>"
    (root / "Annotations" / "a.xml").write_text(bomb)
    (root / "Annotations" / "b.xml").write_text("<a>" * 100_000)
    with pytest.raises(LabelError, match=r"a\.xml is no valid XML: it declares a DOCTYPE.*\n.*more than 64 levels"):
        read_hints(root)


class TestTables:
    def test_one_short_message_however_many_problems(self, tmp_path: Path) -> None:
        rows = "\n".join(f"{'x' * 200}{n}.png,{'y' * 500}{n}" for n in range(5000))
        (photos(tmp_path) / "tags.csv").write_text(f"a.png,dog\n{rows}\n")
        (tmp_path / "classes.txt").write_text("dog\n")
        with pytest.raises(LabelError) as caught:
            read_hints(tmp_path)
        message = str(caught.value)
        assert message.startswith("1000 problems in tags.csv:\n  line 2: unknown tag 'yyy")
        assert message.endswith("reading stopped at 1,000 problems")
        assert len(message) <= MESSAGE

    def test_too_many_classes_are_found_at_once(self, tmp_path: Path) -> None:
        (photos(tmp_path) / "tags.csv").write_text("a.png," + ",".join(f"c{n}" for n in range(100_000)))
        with pytest.raises(LabelError, match="100000 classes; at most 254"):
            read_hints(tmp_path)

    def test_names_of_classes(self, tmp_path: Path) -> None:
        names = [f"  {n}: {name}" for n, name in enumerate(["ok", '"a\\nb"', "x" * 300, '"\\e[2J"'])]
        root = photos(tmp_path / "images").parent
        (root / "data.yaml").write_text("\n".join(["names:", *names]))
        (root / "labels").mkdir()
        (root / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
        with pytest.raises(LabelError, match=r"3 problems in data\.yaml:") as caught:
            read_hints(root)
        assert "\x1b" not in str(caught.value)

    def test_numbers(self, tmp_path: Path) -> None:
        rows = ["a,1,2,nan,9,dog", f"a,1,{NINES},1,2,dog", "a,0,0,inf,9,dog", f"a,{'9' * 5000},1,1,9,dog"]
        (photos(tmp_path) / "boxes.csv").write_text("file,x0,y0,x1,y1,label\n" + "\n".join(rows))
        with pytest.raises(LabelError, match=r"4 of 4 annotations do not fit their photos"):
            read_hints(tmp_path)


def test_cls_labels_larger_than_memory(tmp_path: Path) -> None:
    inner: object = (0, 1)
    for _ in range(30):
        inner = (inner, inner)
    np.save(photos(tmp_path) / "cls_labels.npy", np.array({"a": inner, ("b",): [0, 1]}, dtype=object))
    with pytest.raises(LabelError, match=r"entry 'a': is no 0/1 vector\n.*is neither a photo's name nor its number"):
        read_hints(tmp_path)


class TestArrays:
    def test_sizes_are_checked_before_anything_is_unpacked(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("keys.npy", "w") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
        with pytest.raises(RunError, match=r"'keys' has 314,572,800 bytes, at most"):
            read_maps(path)
        np.savez(path, keys=np.array([1], np.uint8), maps=np.zeros((1, 2, 2), np.float16))
        path.write_bytes(path.read_bytes().replace(b"(1, 2, 2)", b"(99999,2)"))
        with pytest.raises(RunError, match="make it again"):
            read_maps(path)

    @pytest.mark.parametrize(
        ("keys", "maps"),
        [
            ([1, 1], np.zeros((2, 3, 3))),
            ([0], np.zeros((1, 3, 3))),
            ([1], np.full((1, 3, 3), np.nan)),
            ([1], "x"),
            (1, 1.0),
        ],
    )
    def test_maps(self, tmp_path: Path, keys: object, maps: object) -> None:
        np.savez(tmp_path / "m.npz", keys=np.array(keys), maps=np.array(maps))
        with pytest.raises(RunError, match=r"m\.npz"):
            read_maps(tmp_path / "m.npz")

    def test_instances_outside_their_photo(self, tmp_path: Path) -> None:
        good: dict[str, Any] = {
            "size": [8, 8],
            "labels": np.array([1], np.uint8),
            "windows": [[0, 0, 8, 8]],
            "bits": np.zeros(8, np.uint8),
        }
        np.savez(tmp_path / "o.npz", **good)
        assert read_instances(tmp_path / "o.npz").size == (8, 8)
        for change in ({"size": [10**9, 10**9]}, {"windows": [[0, 0, 9, 8]]}, {"bits": np.zeros(7, np.uint8)}):
            np.savez(tmp_path / "o.npz", **good | change)
            with pytest.raises(RunError, match="make them again"):
                read_instances(tmp_path / "o.npz")

    def test_a_mask_of_more_pixels_than_any_photo(self, tmp_path: Path) -> None:
        path = tmp_path / "m.png"
        Image.new("L", (3, 3)).save(path)
        data = bytearray(path.read_bytes())
        data[16:24] = (60_000).to_bytes(4, "big") * 2
        path.write_bytes(data)
        with pytest.raises(LabelError, match="cannot be read as a mask"):
            read_label_png(path)


class TestFolders:
    def test_pipes_are_left_out(self, tmp_path: Path) -> None:
        (photos(tmp_path) / "tags.csv").write_text("a,dog\nb,cat\n")
        os.mkfifo(tmp_path / "pipe.png")
        os.mkfifo(tmp_path / "pipe.json")
        found = read_hints(tmp_path)
        assert [photo.id for photo in found.photos] == ["a", "b"]
        assert "pipe.png is a pipe, socket or device and is left out" in found.notes

    def test_links_end(self, tmp_path: Path) -> None:
        outside = photos(tmp_path / "outside", "o.png")
        for name in ("cat", "dog"):
            (photos(tmp_path / "data" / name) / "loop").symlink_to("..")
        (tmp_path / "data" / "root").symlink_to("/")
        (tmp_path / "data" / "self").symlink_to("self")
        (tmp_path / "data" / "dog" / "more").symlink_to(outside)
        (outside / "back").symlink_to(tmp_path / "data")
        found = read_hints(tmp_path / "data")
        assert found.classes == ("cat", "dog")
        assert [photo.id for photo in found.photos] == ["cat/a", "cat/b", "dog/a", "dog/b", "dog/more/o"]

    @pytest.mark.parametrize("kind", ["run", "masks"])
    def test_what_hintseg_wrote_is_no_data(self, tmp_path: Path, kind: str) -> None:
        for name in ("cat", "dog", "mine"):
            photos(tmp_path / name)
        (tmp_path / "mine" / ".hintseg").write_text(json.dumps({"hintseg": "1", "kind": kind}) + "\n")
        photos(tmp_path / "cat" / "predictions")
        (tmp_path / "cat" / "predictions" / ".hintseg").write_text(json.dumps({"hintseg": "1", "kind": "masks"}) + "\n")
        found = read_hints(tmp_path)
        assert found.classes == ("cat", "dog")
        assert len(found.photos) == 4
        for read in (read_hints, find_photos):
            with pytest.raises(LabelError, match=f"mine is no data set: hintseg wrote it .* '{kind}'"):
                read(tmp_path / "mine")
        (tmp_path / "mine" / ".hintseg").write_text(json.dumps({"hintseg": "1", "kind": "photos"}) + "\n")
        assert read_hints(tmp_path).classes == ("cat", "dog", "mine")

    def test_masks_written_below_the_photos_are_no_labels(self, tmp_path: Path) -> None:
        (photos(tmp_path) / "tags.csv").write_text("a,dog\nb,cat\n")
        Image.new("L", (32, 24)).save(photos(tmp_path / "masks" / "png") / "a.png")
        (tmp_path / "masks" / ".hintseg").write_text('{"hintseg": "1", "kind": "masks"}\n')
        found = read_hints(tmp_path)
        assert found.classes == ("cat", "dog")
        assert [photo.id for photo in found.photos] == ["a", "b"]

    def test_files_of_predictions_below_the_photos_are_no_labels(self, tmp_path: Path) -> None:
        (photos(tmp_path) / "tags.csv").write_text("a,dog\nb,cat\n")
        made = photos(tmp_path / "predictions")
        (made / ".hintseg").write_text('{"hintseg": "1", "kind": "masks"}\n')
        one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
        (made / "coco.json").write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
                    "categories": [{"id": 1, "name": "bird"}],
                    "annotations": [one],
                }
            )
        )
        (made / "_classes.csv").write_text("file,bird\na.png,1\n")
        (made / "_annotations.csv").write_text("file,x0,y0,x1,y1,label\na.png,0,0,9,9,bird\n")
        assert read_hints(tmp_path).classes == ("cat", "dog")
        (made / ".hintseg").unlink()
        with pytest.raises(LabelError):
            read_hints(tmp_path)

    def test_a_broken_mark_is_none(self, tmp_path: Path) -> None:
        (photos(tmp_path) / "tags.csv").write_text("a,dog\nb,cat\n")
        for mark in ("[" * 5000, "{}", '{"kind": []}', "\0"):
            (tmp_path / ".hintseg").write_text(mark)
            assert len(read_hints(tmp_path).photos) == 2
        (tmp_path / ".hintseg").unlink()
        os.mkfifo(tmp_path / ".hintseg")
        assert len(read_hints(tmp_path).photos) == 2

    @pytest.mark.parametrize(
        ("name", "part"),
        [(b"\xff.png", r"'\\xff\.png' holds"), (b"a\nb.png", "control character"), (b"x" * 245 + b".png", "240 bytes")],
    )
    def test_names_that_break_what_is_written_later(self, tmp_path: Path, name: bytes, part: str) -> None:
        (photos(tmp_path / "data") / "tags.csv").write_text("a,dog\n")
        (tmp_path / "data" / "a.png").rename(tmp_path / "data" / os.fsdecode(name))
        with pytest.raises(LabelError, match=part):
            read_hints(tmp_path / "data")

    def test_a_folder_name_that_is_no_utf8(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"no UTF-8; rename it"):
            find_photos(photos(tmp_path / os.fsdecode(b"\xff")))

    def test_a_name_no_file_system_takes(self, tmp_path: Path) -> None:
        root = photos(tmp_path / "images").parent
        (root / "data.yaml").write_text(f"names: [dog]\ntrain: {'x' * 5000}\n")
        (root / "labels").mkdir()
        (root / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
        with pytest.raises(LabelError, match="`train`: there is no 'xxx"):
            read_hints(root)


class TestWeights:
    def test_a_state_dict_inside_itself(self, tmp_path: Path) -> None:
        content: dict[str, object] = {"w": torch.zeros(1)}
        content["state_dict"] = content
        torch.save(content, tmp_path / "w.pth")
        assert set(read_weights(tmp_path / "w.pth").tensors) == {"w"}

    @pytest.mark.parametrize(
        ("tensor", "part"),
        [
            (torch.full((2,), float("nan")), "NaN or infinity"),
            (torch.zeros(1).expand(300, 300), "repeats its values"),
            (torch.eye(3).to_sparse(), "no dense tensor"),
            (torch.zeros(2, device="meta"), "no dense tensor"),
            (torch.zeros(2, dtype=torch.complex64), "complex"),
        ],
    )
    def test_tensors_that_are_no_weights(self, tmp_path: Path, tensor: Tensor, part: str) -> None:
        torch.save({"w": tensor}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=part):
            read_weights(tmp_path / "w.pth")

    @pytest.mark.parametrize("mean", ["[1, 2]", "[0, 0, 0, 0]", '"abc"', "[1e999, 0, 0]", "{", "[null, 0, 0]", "3"])
    def test_metadata(self, tmp_path: Path, mean: str) -> None:
        save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", {"mean": mean})
        with pytest.raises(WeightsError, match="three numbers, one per channel"):
            read_weights(tmp_path / "w.safetensors")

    def test_a_compressed_archive(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "w.pth")
        with (
            zipfile.ZipFile(tmp_path / "w.pth") as old,
            zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        with pytest.raises(WeightsError, match="it is compressed"):
            read_weights(tmp_path / "z.pth")

    @pytest.mark.parametrize("value", ["", "{", "[]", "null", '{"method": "cam"}', '{"method": []}', '{"method": "x"}'])
    @pytest.mark.parametrize("key", ["config", "classes", "background"])
    def test_edited_metadata_of_a_run(self, tmp_path: Path, key: str, value: str) -> None:
        path = tmp_path / "m.safetensors"
        kind = resolve("method", "cam", methods())
        config = Cam.Config(method="cam", backbone=BackboneConfig(name="resnet10t", weights="random"))
        save_weights(kind(config, 2, True), path, classes=("a", "b"), background=True)
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()[KEY])
            text = json.dumps(facts | {key: "EDITED"}).replace('"EDITED"', value)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(state, path, {KEY: text})
        with pytest.raises(WeightsError):
            load_weights(path)


class TestMessages:
    def test_long_ones_lose_their_middle(self) -> None:
        message = str(LabelError("begin " + "x" * 10**6 + " end"))
        assert len(message) <= MESSAGE
        assert message.startswith("begin")
        assert message.endswith("end")
        assert "characters left out" in message

    def test_any_stream_takes_them(self) -> None:
        assert str(ShapeError("a\udcff\ud800\x1b[2J\0\nb\tc")) == "a\\xff\\ud800\\x1b[2J\\x00\nb\tc"


def test_kernels_compile_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """As on a read-only installation without a home."""
    code = """
import numba.core.caching as caching
for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(lambda *_: None)
from hintseg.refine._compile import compiled
def add(a, b):
    return a + b
assert compiled(add)(1, 2) == 3
import hintseg.refine._lattice_numba, hintseg.refine._par_numba
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_list_of_more_classes_than_masks_hold(tmp_path: Path) -> None:
    for name in ("masks", "truth"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    with pytest.raises(LabelError, match="100000 classes are named"):
        evaluate_folders(tmp_path / "masks", tmp_path / "truth", classes=[f"c{n}" for n in range(100_000)])
