"""YOLO: what people's folders look like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hintseg.formats.yolo import Yolo
from hintseg.geometry.rasterise import rasterise
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import Hints, Mark, Region, Tags
from labelled import boxes, noted, photo, put, refusal


def flat(root: Path, labels: dict[str, str | bytes], names: str = "cat\ndog\n", suffix: str = ".jpg") -> Path:
    for name in labels:
        photo(root / f"{name}{suffix}")
    return put(root, {f"{name}.txt": text for name, text in labels.items()} | {"classes.txt": names})


def split_set(root: Path, config: str, name: str = "data.yaml") -> Path:
    """images/{train,val} with two and one photos, and their labels."""
    for place in ("train/a", "train/b", "val/c"):
        photo(root / "images" / f"{place}.jpg")
        put(root, {f"labels/{place}.txt": "1 0.5 0.5 0.25 0.5\n"})
    return put(root, {name: config})


LINE = "0 0.5 0.5 0.25 0.5\n"
HERE = ("cat", 30.0, 10.0, 50.0, 30.0)


class TestWhereFilesLie:
    def test_beside_their_photos(self, tmp_path: Path) -> None:
        flat(tmp_path, {"a": LINE, "b.c": "1 0.5 0.5 1 1\n", "d": ""})
        photo(tmp_path / "e.jpg")
        assert recognise(tmp_path) == "yolo"
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert boxes(hint_set) == {"a": [HERE], "b.c": [("dog", 0, 0, 80, 40)], "d": [], "e": []}
        tags = {one.id: one.hints.tags for one in hint_set.photos}
        assert (tags["d"], tags["e"]) == (Tags.complete((), 2), None)

    @pytest.mark.parametrize(
        ("images", "labels"),
        [
            ("images", "labels"),
            ("Images/train", "Labels/train"),
            ("train/images", "train/labels"),
            ("photos", "labels"),
            ("imgs/one", "labels/one"),
            ("set/data/images/x", "set/data/labels/x"),
            ("train", "train/labels"),
            ("pics", "annotations"),
            ("obj_train_data", "obj_train_data"),
            ("data/obj", "data/obj"),
        ],
    )
    def test_beside_each_other(self, tmp_path: Path, images: str, labels: str) -> None:
        photo(tmp_path / images / "a.JPG")
        put(tmp_path, {f"{labels}/a.txt": LINE, "classes.txt": "cat\n"})
        assert recognise(tmp_path) == "yolo"
        hint_set = read_hints(tmp_path)
        assert [*boxes(hint_set).values()] == [[HERE]]
        assert set(hint_set.splits) == ({"train"} if "train" in f"{images}{labels}" else set())

    def test_equal_names_in_two_splits_are_two_photos(self, tmp_path: Path) -> None:
        for split, line in (("train", LINE), ("valid", "")):
            photo(tmp_path / split / "images" / "a.jpg")
            put(tmp_path, {f"{split}/labels/a.txt": line})
        put(
            tmp_path,
            {"data.yaml": "names: [cat]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"},
        )
        hint_set = read_hints(tmp_path)
        assert boxes(hint_set) == {"train/images/a": [HERE], "valid/images/a": []}
        assert hint_set.splits == {"train": ("train/images/a",), "val": ("valid/images/a",)}

    def test_a_folder_of_labels_elsewhere(self, tmp_path: Path) -> None:
        photo(tmp_path / "data" / "sub" / "a.jpg")
        put(tmp_path / "said", {"labels/sub/a.txt": LINE, "classes.txt": "cat\n"})
        put(tmp_path / "too", {"sub/a.txt": LINE, "data.yaml": "names: [cat]\n"})
        for labels in (tmp_path / "said", tmp_path / "too", tmp_path / "too" / "data.yaml"):
            assert boxes(read_hints(tmp_path / "data", labels)) == {"sub/a": [HERE]}

    def test_darknet(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            photo(tmp_path / "obj_train_data" / f"{name}.png")
            put(tmp_path, {f"obj_train_data/{name}.txt": LINE})
        listed = {"train.txt": "data/obj_train_data/a.png\n", "valid.txt": "data/obj_train_data/b.png\n"}
        config = (
            "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
        )
        put(tmp_path, listed | {"obj.names": "cat\n", "obj.data": config})
        hint_set = read_hints(tmp_path)
        assert [*boxes(hint_set).values()] == [[HERE], [HERE]]
        assert hint_set.splits == {"train": ("obj_train_data/a",), "val": ("obj_train_data/b",)}
        put(tmp_path, {"obj.data": config.replace("obj.names", "lost.names")})
        assert "`names` is 'data/lost.names', and there is no such file" in refusal(tmp_path)

    def test_roboflow_darknet(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            photo(tmp_path / split / f"{split}1_jpg.rf.0a1b.jpg")
            put(tmp_path, {f"{split}/{split}1_jpg.rf.0a1b.txt": LINE, f"{split}/_darknet.labels": "cat\n"})
        put(tmp_path, {"README.dataset.txt": "Cats - v1", "README.roboflow.txt": "Cats"})
        hint_set = read_hints(tmp_path)
        assert hint_set.splits == {"train": ("train/train1_jpg.rf.0a1b",), "val": ("valid/valid1_jpg.rf.0a1b",)}
        assert not hint_set.notes

    def test_texts_that_are_no_labels(self, tmp_path: Path) -> None:
        flat(tmp_path, {"a": LINE})
        put(tmp_path, {"notes.txt": "ask Ann about dogs", "LICENSE.txt": "free", "README.txt": ""})
        assert noted(
            read_hints(tmp_path), "1 .txt files hold no YOLO labels and have no photo, and are left out: notes.txt"
        )

    def test_a_photo_may_have_the_name_of_another_text(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": LINE * 9, "test-1": "cat .3 .3 .2 .2\n"})
        assert noted(read_hints(root), "1 of 10 annotations in the .txt files are left out: test-1.txt: line 1")
        photo(root / "train.jpg")
        put(root, {"train.txt": "./a.jpg\n./test-1.jpg\n"})  # a list all the same
        assert read_hints(root).splits == {"train": ("a", "test-1")}

    def test_captions_are_not_taken_for_boxes(self, tmp_path: Path) -> None:
        flat(tmp_path, {"a": "a cat on a mat\n", "b": "a dog\n"})
        assert Yolo().sniff(tmp_path, None) == 0
        assert "'a' is no class id" in refusal(tmp_path, format="yolo")

    def test_a_label_without_photo_is_asked_about_or_skipped(self, tmp_path: Path) -> None:
        flat(tmp_path, {"a": LINE})
        put(tmp_path, {"lost.txt": LINE})
        assert "lost.txt: there is no photo 'lost'" in refusal(tmp_path)
        assert noted(read_hints(tmp_path, missing="skip"), "1 photos that the labels name are not there")

    def test_two_label_files_of_one_photo(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.jpg")
        put(tmp_path, {"labels/a.txt": LINE, "images/a.txt": "", "classes.txt": "cat\n"})
        assert "both" in refusal(tmp_path)

    def test_photos_that_differ_by_suffix(self, tmp_path: Path) -> None:
        photo(tmp_path / "a.jpg")
        photo(tmp_path / "a.png")
        put(tmp_path, {"a.jpg.txt": LINE, "a.png.txt": "", "classes.txt": "cat\n"})
        assert boxes(read_hints(tmp_path)) == {"a.jpg": [HERE], "a.png": []}

    def test_no_labels_or_names(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.jpg")
        put(tmp_path, {"data.yaml": "names: [cat]\n"})
        assert "there are no YOLO labels below" in refusal(tmp_path)
        put(tmp_path, {"labels/a.txt": LINE})
        (tmp_path / "data.yaml").unlink()
        assert "write a classes.txt, one class a line" in refusal(tmp_path)


class TestNames:
    @pytest.mark.parametrize(
        ("names", "classes"),
        [
            ("names: [no, yes]", ("no", "yes")),
            ("names: [on, null, 1e3, 007, ~]", ("on", "null", "1e3", "007", "~")),
            ("names:\n  0: off\n  1: true\n", ("off", "true")),
            ("names: {'1': b, '0': a}", ("a", "b")),
            ("names:\n- a cat\n- 'dog, big'\n", ("a cat", "dog, big")),
            ("all: &n {0: no}\nnames: *n", ("no",)),
            ("base: &b\n  names: [no]\n<<: *b\n", ("no",)),
            ("names: [" + ", ".join(f"c{n}" for n in range(12)) + "]\nnc: 12\n", tuple(f"c{n}" for n in range(12))),
            ("names:\n" + "".join(f"  {n}: c{n}\n" for n in range(12)), tuple(f"c{n}" for n in range(12))),
        ],
    )
    def test_stay_as_written(self, tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
        photo(tmp_path / "images" / "a.jpg")
        put(tmp_path, {"labels/a.txt": LINE, "my.yml": names})
        assert read_hints(tmp_path).classes == classes

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            ("names: cat, dog", "write names: [cat, dog]"),
            ("names: cat", "write names: [cat]"),
            ("names:", "write names: [cat, dog]"),
            ("names: [cat, '']", "a name that is empty"),
            ("names: [[cat], dog]", "['cat'], which is no class name"),
            ("names: {1: cat, 2: dog}", "class list, which has 1 and 2: 0 (1 lines"),
            ("names: {cat: 0, dog: 1}", "has the ids cat, dog; they must be whole numbers"),
            ("names: {0: cat, 00: dog}", "they must be whole numbers, each of them once"),
            ("names: {0: cat, 0: dog}", "the key '0' occurs twice"),
            ("names: [cat]\nnc: 2", "`nc` is 2, but `names` lists 1"),
            ("names: [cat]\nkpt_shape: 17", "must be [number of points, 2 or 3]"),
            ("names: !!python/object:os.system [cat]", "is a tag"),
        ],
    )
    def test_are_refused_clearly(self, tmp_path: Path, names: str, said: str) -> None:
        photo(tmp_path / "images" / "a.jpg")
        put(tmp_path, {"labels/a.txt": LINE, "data.yaml": names})
        assert said in refusal(tmp_path)

    def test_the_one_yaml_with_names_counts(self, tmp_path: Path) -> None:
        split_set(tmp_path, "names: [cat, dog]\n", "configs/pets.yaml")
        put(tmp_path, {"hyp.yaml": "lr: 0.1\n", "args.yml": "model: yolov8n\n"})
        assert read_hints(tmp_path).classes == ("cat", "dog")
        put(tmp_path, {"configs/other.yaml": "names: [dog, cat]\n"})
        message = refusal(tmp_path)
        assert "configs/pets.yaml all have `names`; say which one counts with --labels FILE" in message
        assert read_hints(tmp_path, tmp_path / "configs" / "other.yaml").classes == ("dog", "cat")

    def test_lists_that_contradict_the_config(self, tmp_path: Path) -> None:
        split_set(tmp_path, "names: [cat, dog]\n")
        put(tmp_path, {"labels/classes.txt": "cat\ndog\nhorse\n"})
        assert read_hints(tmp_path).classes == ("cat", "dog")
        put(tmp_path, {"labels/classes.txt": "dog\ncat\n"})
        assert "class 0 is 'dog' in" in refusal(tmp_path)

    def test_background_is_no_class(self, tmp_path: Path) -> None:
        split_set(tmp_path, "names: [background, dog]\n")
        assert read_hints(tmp_path).classes == ("dog",)
        assert boxes(read_hints(tmp_path))["train/a"] == [("dog", 30, 10, 50, 30)]
        assert read_hints(tmp_path, background=False).classes == ("background", "dog")


class TestSplits:
    @pytest.mark.parametrize(
        "paths",
        [
            "train: images/train\nval: images/val",
            "path: .\ntrain: images/train\nval: images/val",
            "path: ../datasets/pets\ntrain: images/train\nval: images/val\ntest:",
            "train: ./images/train/\nval: ../images/val\ntest: null",
            "train: /content/datasets/pets/images/train\nvalid: /content/datasets/pets/images/val",
            "train: C:\\Users\\ann\\pets\\images\\train\nval: C:\\Users\\ann\\pets\\images\\val",
            "path: D:/pets\ntrain: [images/train]\nval: [images/val]\ntest: images/test",
            "train: lists/train.txt\nval: lists/val.txt",
            "names2: x",
        ],
    )
    def test_are_found_here(self, tmp_path: Path, paths: str) -> None:
        split_set(tmp_path, f"names: [cat, dog]\n{paths}\n")
        if "lists" in paths:
            put(tmp_path, {"lists/train.txt": "./images/train/a.jpg\n/home/ann/images/train/b.jpg\r\n\n"})
            put(tmp_path, {"lists/val.txt": "images\\val\\c.jpg\n"})
        hint_set = read_hints(tmp_path)
        assert hint_set.splits == {"train": ("train/a", "train/b"), "val": ("val/c",)}
        assert noted(hint_set, "is taken to be images/train") == ("content" in paths or "Users" in paths)

    def test_what_is_left_of_a_path_must_say_the_split(self, tmp_path: Path) -> None:
        photo(tmp_path / "images" / "a.jpg")
        config = "names: [cat]\ntrain: ../train/images\nval: ../valid/images\n"
        put(tmp_path, {"labels/a.txt": LINE, "data.yaml": config})
        assert "`train`: there is no '../train/images' below" in refusal(tmp_path)
        put(tmp_path, {"data.yaml": "names: [cat]\ntrain: /a/images\nval: /b/images\n"})
        assert "both could mean images" in refusal(tmp_path)
        put(tmp_path, {"data.yaml": "names: [cat]\ntrain: images\nval: images\n"})
        assert read_hints(tmp_path).splits == {"train": ("a",), "val": ("a",)}

    def test_a_missing_val_is_told(self, tmp_path: Path) -> None:
        split_set(tmp_path, "names: [cat, dog]\ntrain: images/train\nval: images/nowhere\n")
        hint_set = read_hints(tmp_path)
        assert noted(hint_set, "`val`: there is no 'images/nowhere' below")
        assert set(hint_set.splits) == {"train"}


class TestLines:
    @pytest.mark.parametrize(
        "text",
        [
            "0.0 0.5 0.5 0.25 0.5",
            "0\t0.5\t0.5\t0.25\t0.5\r\n",
            "\ufeff0 0.5 0.5 0.25 0.5\n\n\n",
            " 0  5e-1 .5 0.25 0.50 \n",
            "0 0.5 0.5 0.25 0.5\r0 0.5 0.5 0.25 0.5\r",
        ],
    )
    def test_are_read_however_they_are_set(self, tmp_path: Path, text: str) -> None:
        assert boxes(read_hints(flat(tmp_path, {"a": text}))) == {"a": [HERE]}

    def test_outlines_and_oriented_boxes(self, tmp_path: Path) -> None:
        ring = (0.25, 0.25, 0.5, 0.5, 0.375, 1.0, 0.125, 0.75)
        root = flat(tmp_path, {"a": "1 " + " ".join(map(str, ring)) + "\n", "b": "0 0.1 0.1 0.5 0.1 0.5 0.5", "c": ""})
        hint_set = read_hints(root)
        assert boxes(hint_set)["a"] == [("dog", 10, 10, 40, 40)]
        truth = hint_set.photos[0].truth
        assert truth == (Mark(2, Region((tuple(v * (80, 40)[n % 2] for n, v in enumerate(ring)),)), 1),)
        assert hint_set.photos[2].truth == (), "a photo without any object is background"

    def test_confidences_are_trust(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": "0 0.5 0.5 0.25 0.5 0.75\n1 0.1 0.1 0.5 0.1 0.5 0.5 0.25\n"})
        hint_set = read_hints(root)
        assert [(mark.label, mark.trust) for mark in hint_set.photos[0].hints.objects] == [(1, 0.75), (2, 0.25)]
        assert noted(hint_set, "2 lines end with a detector's confidence")

    def test_numbers_of_tracks_are_left_out(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": "0 0.5 0.5 0.25 0.5 17\n1 0.5 0.5 0.25 0.5 0.9 17\n"})
        hint_set = read_hints(root)
        assert [mark.trust for mark in hint_set.photos[0].hints.objects] == [1.0, 0.9]
        assert noted(hint_set, "2 lines end with a whole number, that of a track, which is left out")

    @pytest.mark.parametrize(
        ("more", "track"),
        [
            ("", True),  # the one object of a video
            ("1 0.5 0.5 0.25 0.5 0.9 17\n", True),
            ("1 0.5 0.5 0.25 0.5 0.9\n", True),
            ("1 0.5 0.5 0.25 0.5\n", False),
            ("1 0.1 0.1 0.5 0.1 0.5 0.5\n", False),  # a triangle
            ("1 0 0 0.5 0 0.5 1\n", False),
            ("1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n", False),
        ],
    )
    def test_the_first_track_is_told_from_a_triangle(self, tmp_path: Path, more: str, *, track: bool) -> None:
        root = flat(tmp_path, {"a": "0 0.5 0.5 0.25 0.5 0.9 1\n", "b": more})
        assert (boxes(read_hints(root))["a"] == [HERE]) == track

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_keypoints_are_left_out_and_boxes_kept(self, tmp_path: Path, dimensions: int) -> None:
        points = " ".join(["0.45 0.5 2"[: 8 if dimensions == 2 else None]] * 4)
        split_set(tmp_path, f"names: [cat, dog]\nkpt_shape: [4, {dimensions}]\n")
        put(tmp_path, {"labels/train/a.txt": f"0 0.5 0.5 0.25 0.5 {points}\n", "labels/train/b.txt": LINE})
        hint_set = read_hints(tmp_path)
        assert boxes(hint_set)["train/a"] == boxes(hint_set)["train/b"] == [HERE]
        assert noted(hint_set, "1 objects have keypoints")

    def test_keypoints_that_nothing_tells_of_are_no_outlines(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": "0 0.5 0.5 0.25 0.5 0.4 0.4 2 0.6 0.6 1\n"})
        assert "write kpt_shape: [2, 3]" in refusal(root)

    def test_a_bad_line_costs_itself_only(self, tmp_path: Path) -> None:
        bad: dict[str, str | bytes] = {
            "d": "0 0.5 0.5 0.1\n",
            "e": "0 x 0.5 0.1 0.1\n",
            "f": "zero 0.5 0.5 0.1 0.1\n",
            "g": b"0 0.5 0.5 0.1 \xff\n",
        }
        root = flat(
            tmp_path,
            {
                "a": LINE * 3 + "1 0.5 0.5 0.1 0.1\n" * 9,
                "b": "".join(f"1 0.5 0.5 0.{n} 0.{n}\n" for n in range(1, 9)),
                **bad,
            },
        )
        hint_set = read_hints(root)
        assert noted(hint_set, "4 of 24 annotations in the .txt files are left out: d.txt: line 1: 4 columns")
        tags = {one.id: one.hints.tags for one in hint_set.photos}
        assert tags["d"] == tags["e"] == Tags(frozenset(), frozenset({2})), "its class may be in the photo, or not"
        assert tags["f"] is tags["g"] is None, "what is in it is not known; it is no negative"

    def test_a_photo_without_an_object_has_no_full_mask(self, tmp_path: Path) -> None:
        ring = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
        hint_set = read_hints(flat(tmp_path, {"a": ring + "0 0.2 0.2 0.4 0.2 0.4 0.4\n1 0.5 0.5 0.5\n", "b": ring}))
        assert [one.truth is not None for one in hint_set.photos] == [False, True]

    def test_too_many_bad_lines_are_another_format(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": "0 30 10 50 30\n", "b": "1 10 10 20 20\n"})
        message = refusal(root)
        assert "55 is above 1; coordinates are shares" in message
        assert "2 of 2 annotations do not fit their photos" in message

    def test_classes_outside_the_list_are_told_once(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": "2 0.5 0.5 0.1 0.1\n" * 30 + "7 0.5 0.5 0.1 0.1\n"})
        message = refusal(root)
        assert "which has 0..1: 2 (30 lines, such as a.txt line 1); 7 (1 lines, such as a.txt line 31)" in message
        assert message.count("\n") == 1
        assert "0..1: -1 (1 lines" in refusal(flat(tmp_path, {"a": "-1 0.5 0.5 0.1 0.1\n"}))

    def test_a_vertex_outside_is_cut_off(self, tmp_path: Path) -> None:
        hint_set = read_hints(flat(tmp_path, {"a": LINE * 2 + "1 0.5 0.3 1.1 0.3 1.1 0.6 0.5 0.6\n", "b": LINE}))
        assert boxes(hint_set)["a"][1] == ("dog", 40, 12, 80, 24)
        assert noted(hint_set, "1 of 4 annotations in the .txt files reach outside of the photo and are cut off: a.txt")

    def test_a_turned_box_that_leaves_the_photo_is_cut_and_not_bent(self, tmp_path: Path) -> None:
        turned = "1 0.5 0.25 1.25 1 1.25 1.25 0.5 0.5\n"
        hint_set = read_hints(flat(tmp_path, {"a": turned, "b": LINE * 2, "c": LINE * 2}))
        assert boxes(hint_set)["a"] == [("dog", 40, 10, 80, 40)]
        whole = rasterise(Region(((40.0, 10.0, 100.0, 40.0, 100.0, 50.0, 40.0, 20.0),)), (40, 80))
        np.testing.assert_array_equal(read_mask(hint_set.photos[0]), 2 * whole)

    def test_broken_photos_are_listed_and_left(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": LINE, "b": LINE, "c": LINE})
        (root / "b.jpg").write_bytes(b"")
        hint_set = read_hints(root)
        assert boxes(hint_set) == {"a": [HERE], "b": [], "c": [HERE]}
        assert hint_set.photos[1].hints == Hints()
        assert noted(hint_set, "1 photos cannot be read")

    def test_photos_turned_by_exif_are_told(self, tmp_path: Path) -> None:
        root = flat(tmp_path, {"a": LINE, "b": LINE})
        photo(root / "a.jpg", orientation=6)
        hint_set = read_hints(root)
        assert noted(hint_set, "1 photos are turned by EXIF, and coordinates are taken")
        assert boxes(hint_set)["a"] == [("cat", 15, 20, 25, 60)], "shares of the photo as it is shown, 40 x 80"


def test_what_another_library_writes(tmp_path: Path) -> None:
    labelformat = pytest.importorskip("labelformat.formats")
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 80, "height": 40} for n in (1, 2, 3)]
    bbox = {1: [[3, 4, 30, 20], [0, 0, 80, 40]], 2: [[10, 5, 7, 9]], 3: []}
    categories = [{"id": 5, "name": "big dog"}, {"id": 9, "name": "no"}]
    marks = [
        {"id": 10 * n + k, "image_id": n, "category_id": (5, 9)[k % 2], "bbox": box}
        for n, found in bbox.items()
        for k, box in enumerate(found)
    ]
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": marks, "categories": categories}))
    root = tmp_path / "set"
    for image in images:
        photo(root / "images" / "train" / str(image["file_name"]))
    (root / "labels").mkdir()
    source = labelformat.COCOObjectDetectionInput(input_file=coco)
    labelformat.YOLOv8ObjectDetectionOutput(output_file=root / "data.yaml", output_split="train").save(source)
    hint_set = read_hints(root)
    assert hint_set.classes == ("big dog", "no")
    found = {id.rpartition("/")[2]: [box[1:] for box in some] for id, some in boxes(hint_set).items()}
    for n, wanted in bbox.items():
        assert found[str(n)] == [pytest.approx((x, y, x + w, y + h), abs=1e-3) for x, y, w, h in wanted]
