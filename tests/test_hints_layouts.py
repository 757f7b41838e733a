"""Pascal VOC, COCO and YOLO; recognising formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hintseg.errors import LabelError
from hintseg.formats.recognise import codec
from hintseg.geometry.runs import encode, write_counts
from hintseg.hints import read_hints, recognise
from hintseg.registry import formats
from hintseg.types import IGNORE, Box, Hints, Mark, MaskFile, Region, Tags
from layouts import hints_of, index_png, photos, refusal, truth_of, xml


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three photos: a dog and a person, nothing, and one without XML."""
    photos(tmp_path / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(xml(("dog", 1, 1, 10, 5), ("person", 11, 2, 20, 10)))
    (tmp_path / "Annotations" / "b.xml").write_text(xml())
    return tmp_path


class TestVoc:
    def test_boxes_count_from_0_and_the_classes_are_those_that_occur(self, voc: Path) -> None:
        hint_set = read_hints(voc)
        assert hint_set.classes == ("dog", "person"), "18 more of VOC's would never occur"
        hints = hints_of(hint_set)
        assert hints["a"].marks == (Mark(1, Box(0.0, 0.0, 10.0, 5.0), 1), Mark(2, Box(10.0, 1.0, 20.0, 10.0), 2))
        assert set(hints["a"].tags or ()) == {1, 2}
        assert hints["b"] == Hints(Tags.complete((), len(hint_set.classes)))
        assert hints["c"] == Hints()

    def test_names_that_are_not_vocs_are_sorted_and_masks_then_need_a_list(self, voc: Path) -> None:
        (voc / "Annotations" / "a.xml").write_text(xml(("zebra", 1, 1, 5, 5), ("ant", 1, 1, 5, 5)))
        index_png(voc / "SegmentationClass" / "a.png", [1])
        hint_set = read_hints(voc)
        assert hint_set.classes == ("ant", "zebra")
        assert truth_of(hint_set) == {}
        assert any("masks in SegmentationClass are not used: no classes.txt" in note for note in hint_set.notes)

    def test_masks_of_the_augmented_set_come_first(self, voc: Path) -> None:
        index_png(voc / "SegmentationClass" / "a.png", [12])
        plain = index_png(voc / "SegmentationClass" / "c.png", [12])
        augmented = index_png(voc / "SegmentationClassAug" / "a.png", [12])
        hint_set = read_hints(voc, unlabelled=254)
        assert truth_of(hint_set) == {"a": MaskFile(augmented, 254), "c": MaskFile(plain, 254)}
        assert hints_of(hint_set)["c"] == Hints()

    def test_without_xml_tags_come_from_the_table_then_from_the_masks(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "a.jpg", "b.jpg", "c.jpg")
        (tmp_path / "classes.txt").write_text("ant\nbee\n")
        index_png(tmp_path / "SegmentationClass" / "a.png", [2, 255])
        index_png(tmp_path / "SegmentationClass" / "b.png", [])
        (tmp_path / "tags.csv").write_text("a.jpg,ant\n")
        assert [photo.hints.tags for photo in read_hints(tmp_path).photos] == [Tags.complete({1}, 2), None, None]
        (tmp_path / "tags.csv").unlink()
        tags = [photo.hints.tags for photo in read_hints(tmp_path).photos]
        assert tags == [
            Tags.complete({2}, 2),
            Tags.complete((), 2),
            None,
        ]

    def test_masks_with_wrong_ids_or_sizes(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "a.jpg", "b.jpg")
        (tmp_path / "classes.txt").write_text("ant\nbee\n")
        index_png(tmp_path / "SegmentationClass" / "a.png", [1, 7, 7])
        index_png(tmp_path / "SegmentationClass" / "b.png", [1], size=(10, 10))
        message = refusal(tmp_path)
        assert message.startswith("2 problems in SegmentationClass:")
        assert "a.png holds ids outside the class list: 7 (2 px); allowed are 0 (background), 1..2 and 255" in message
        assert "b.png has 10 x 10 pixels, but its photo has 20 x 10" in message

    def test_masks_alone_need_a_class_list(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "a.jpg")
        index_png(tmp_path / "SegmentationClass" / "a.png", [1])
        assert "SegmentationClass with classes.txt" in refusal(tmp_path)

    def test_all_problems_of_the_folder_at_once(self, voc: Path) -> None:
        (voc / "classes.txt").write_text("dog\nperson\n")
        annotations = voc / "Annotations"
        (annotations / "a.xml").write_text(xml(("dgo", 1, 1, 5, 5), ("dog", 9, 1, 5, 5), ("dog", "nan", 1, 5, 5)))
        (annotations / "b.xml").write_text(xml(("dog", 1, 1, 99, 5))[:-40])
        (annotations / "c.xml").write_text(xml(("dog", 1, 1, 99, 5), ("dog", 0, 0, 21, 11), ("dog", "", 1, 2, 3)))
        (annotations / "lost.xml").write_text(xml())
        message = refusal(voc)
        assert message.startswith("8 problems in Annotations:")
        assert "a.xml: object 1: unknown tag 'dgo'; did you mean 'dog'?" in message
        assert "a.xml: object 2: annotations that have their corners the other way round" in message
        assert "a.xml: object 3: box (nan, 0, 5, 5) has a corner that is not a number" in message
        assert "b.xml is no valid XML: unclosed token" in message
        assert "it may be cut off" in message
        assert "c.xml: object 1: box (0, 0, 99, 5) lies outside of its photo of 20 x 10" in message
        assert "c.xml: object 3: needs a name and a bndbox" in message
        assert "lost.xml: there is no photo 'lost'" in message
        assert "4 of 5 annotations do not fit their photos" in message

    def test_split_lists_with_paths_and_lists_of_one_class(self, voc: Path) -> None:
        lists = voc / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\nb\n")
        (lists / "dog_train.txt").write_text("a  1\nb -1\n")
        assert dict(read_hints(voc).splits) == {"train": ("a", "b")}
        better = voc / "ImageSets" / "Segmentation"
        better.mkdir()
        (better / "train_aug.txt").write_text("/JPEGImages/c.jpg /SegmentationClassAug/c.png\n")
        assert dict(read_hints(voc).splits) == {"train_aug": ("c",)}

    def test_augmented_training_list_is_made_from_the_masks_or_read(self, voc: Path) -> None:
        lists = voc / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
        (lists / "val.txt").write_text("b\n")
        assert "train_aug" not in read_hints(voc).splits
        (voc / "SegmentationClassAug").mkdir()
        for name in ("a", "b", "c"):
            index_png(voc / "SegmentationClassAug" / f"{name}.png", [12])
        assert read_hints(voc).splits["train_aug"] == ("a", "c")  # all with a mask but those of val
        (lists / "trainaug.txt").write_text("c\n")
        assert read_hints(voc).splits["train_aug"] == ("c",)
        (lists / "train_aug.txt").write_text("a\n")
        assert read_hints(voc).splits["train_aug"] == ("a",)

    def test_the_folder_the_archive_unpacks_to(self, tmp_path: Path) -> None:
        root = tmp_path / "VOCdevkit" / "VOC2012"
        photos(root / "JPEGImages", "a.jpg")
        (root / "Annotations").mkdir()
        (root / "Annotations" / "a.xml").write_text(xml(("cat", 1, 1, 5, 5)))
        assert hints_of(read_hints(tmp_path))["a"].tags == Tags.complete({8}, 20)


def coco_json(**changes: Any) -> dict[str, Any]:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 3:9] = True
    rle = encode(mask)
    content = {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": 20, "height": 10},
            {"id": 9, "file_name": "b.jpg", "width": 20, "height": 10},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 90, "bbox": [1, 2, 4, 5], "segmentation": [[1, 2, 5, 2, 5, 7]]},
            {
                "id": 2,
                "image_id": 5,
                "category_id": 3,
                "bbox": [3, 2, 6, 3],
                "segmentation": {"size": [10, 20], "counts": write_counts(rle.counts)},
            },
            {
                "id": 3,
                "image_id": 5,
                "category_id": 3,
                "iscrowd": 1,
                "segmentation": {"size": [10, 20], "counts": list(rle.counts)},
            },
            {"id": 4, "image_id": 5, "category_id": 3, "bbox": [0, 0, 0, 4]},
        ],
    }
    return content | changes


class TestCoco:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        photos(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
        return tmp_path

    def write(self, folder: Path, content: Any, name: str = "instances.json") -> Path:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    def test_boxes_polygons_runs_crowds_and_gaps_between_ids(self, folder: Path) -> None:
        hint_set = read_hints(self.write(folder, coco_json()))
        assert hint_set.classes == ("car", "toothbrush")
        assert any("3 -> 1, 90 -> 2" in note for note in hint_set.notes)
        assert any("1 annotations without any area" in note for note in hint_set.notes)
        hints = hints_of(hint_set)
        compressed = Box(3.0, 2.0, 9.0, 5.0)
        assert hints["a"].marks == (
            Mark(2, Box(1.0, 2.0, 5.0, 7.0), 1),
            Mark(1, compressed, 2),
            Mark(IGNORE, compressed),
        )
        truth = truth_of(hint_set)["a"]
        assert isinstance(truth, tuple)
        polygon, runs, crowd = truth
        assert polygon == Mark(2, Region(((1.0, 2.0, 5.0, 2.0, 5.0, 7.0),)), 1)
        assert crowd == Mark(IGNORE, runs.shape)
        assert truth_of(hint_set)["b"] == ()
        assert hints["b"] == Hints(Tags.complete((), len(hint_set.classes)))
        assert hints["c"] == Hints()

    def test_a_crowd_alone_shows_its_class_though_none_of_its_objects(self, folder: Path) -> None:
        content = coco_json()
        content["annotations"] = content["annotations"][2:3]
        hints = hints_of(read_hints(self.write(folder, content)))["a"]
        assert hints.tags == Tags.complete({1}, 2)
        assert hints.objects == ()

    def test_all_problems_at_once(self, folder: Path) -> None:
        nan = float("nan")
        bad = [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2]},
            {"id": 2, "image_id": 5, "category_id": 4, "bbox": [1, 1, 2, 2]},
            {"id": 3, "image_id": 5, "category_id": 3, "bbox": [1, nan, 2, 2]},
            {"id": 4, "image_id": 5, "category_id": 3, "bbox": [5, 5, -3, 2]},
            {"id": 5, "image_id": 5, "category_id": 3, "bbox": [5, 5, 30, 2]},
            {"id": 6, "image_id": 5, "category_id": 3, "segmentation": [[1, 2, 3, 4]]},
            {"id": 7, "image_id": 5, "category_id": 3, "segmentation": {"size": [10, 20], "counts": [7]}},
            {"id": 8, "image_id": 5, "category_id": 3, "segmentation": {"size": [9, 20], "counts": [0, 180]}},
            {"id": 9, "image_id": 5, "category_id": 3, "segmentation": {"size": [10, 20], "counts": "ab~"}},
            {"id": 10, "image_id": 5, "category_id": 3},
            {"id": 11, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3]},
        ]
        content = coco_json(annotations=bad)
        content["images"] += [{"id": 5, "file_name": "zzz.jpg"}, {"id": 10, "file_name": "a.jpg"}]
        message = refusal(self.write(folder, content))
        for expected in (
            "13 problems in instances.json:",
            "image 5: this id occurs twice",
            "annotation 1: image_id 7 is not in `images`",
            "annotation 2: category_id 4 is not in `categories` (3, 90, ...)",
            "annotation 3: bbox [1, nan, 2, 2] holds something that is not a number",
            "annotation 4: annotations that have their corners the other way round",
            "annotation 5: annotations that reach outside of the photo and are cut off",
            "annotation 6: a polygon has 4 numbers",
            "annotation 7: the run lengths sum to 7, but the mask has 10 x 20 = 200 pixels",
            "annotation 8: the run-length mask is 20 x 9, but its picture is 20 x 10",
            "annotation 9: the compressed run lengths hold characters",
            "annotation 10: has neither a bbox nor a segmentation",
            "annotation 11: bbox has 3 numbers; 4 are needed",
        ):
            assert expected in message

    def test_cut_off_and_foreign_files(self, folder: Path) -> None:
        text = json.dumps(coco_json(), indent=1)
        message = refusal(self.write(folder, text[: len(text) // 2]))
        assert "is no valid JSON" in message
        assert "it may be cut off" in message
        assert "it lacks the lists annotations, categories" in refusal(self.write(folder, {"images": []}))
        assert "must be lists of objects" in refusal(self.write(folder, coco_json(annotations=[1])))
        double = coco_json(categories=[{"id": 1, "name": "x"}, {"id": 2, "name": "x"}, {"name": "y"}])
        message = refusal(self.write(folder, double))
        assert "category 2 'x' occurs twice" in message
        assert "needs an `id`, a number or text, and a `name`" in message

    def test_photos_of_another_size_are_named(self, folder: Path) -> None:
        images = [dict(image, width=40, height=15) for image in coco_json()["images"]]
        message = refusal(self.write(folder, coco_json(images=images)))
        assert "is 20 x 10 pixels (EXIF applied), but the file says 40 x 15" in message
        assert "give the photos they were drawn on, or scale the boxes" in message

    def test_several_files_are_splits_and_agree_on_classes_by_their_names(self, folder: Path) -> None:
        content = coco_json()
        first = content | {"images": content["images"][:1]}
        second = content | {"images": content["images"][1:], "annotations": []}
        self.write(folder, first, "annotations/instances_train.json")
        self.write(folder, second, "annotations/instances_val.json")
        assert dict(read_hints(folder).splits) == {"train": ("a",), "val": ("b",)}
        (folder / "train_photos").mkdir()
        for name in ("train", "val"):
            (folder / "annotations" / f"instances_{name}.json").rename(
                folder / "train_photos" / f"instances_{name}.json"
            )
        found = read_hints(folder, folder / "train_photos", format="coco")
        assert dict(found.splits) == {"train": ("a",), "val": ("b",)}  # the file's own name comes first
        self.write(folder, first, "annotations/instances_train.json")
        renumbered = [{"id": 3, "name": "toothbrush"}, {"id": 4, "name": "boat"}]
        self.write(folder, second | {"categories": renumbered}, "annotations/instances_val.json")
        found = read_hints(folder)
        assert found.classes == ("car", "toothbrush", "boat")
        assert any("differ; classes go by their names" in note for note in found.notes)

    def test_layout_of_coco_2014_with_80_classes_and_gaps_between_ids(self, tmp_path: Path) -> None:
        ids = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
        categories = [{"id": n, "name": f"thing {n}"} for n in ids]
        (tmp_path / "annotations").mkdir()
        for split, category in (("train2014", 90), ("val2014", 13)):
            name = f"COCO_{split}_000000000009.jpg"
            photos(tmp_path, f"{split}/{name}")
            image = {"id": 9, "file_name": name, "width": 20, "height": 10}
            box = {"id": 1, "image_id": 9, "category_id": category, "bbox": [1, 1, 5, 5], "iscrowd": 0}
            content = {"images": [image], "annotations": [box], "categories": categories}
            (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
            (tmp_path / "annotations" / f"captions_{split}.json").write_text("{}")
        found = read_hints(tmp_path)
        assert len(found.classes) == 80
        assert {split: len(names) for split, names in found.splits.items()} == {"train": 1, "val": 1}
        tags = {name.split("/")[0]: set(hints.tags or ()) for name, hints in hints_of(found).items()}
        assert tags == {"train2014": {80}, "val2014": {12}}


class TestYolo:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        photos(tmp_path / "images", "train/a.jpg", "train/b.jpg", "val/c.jpg", "val/d.jpg")
        for name, text in {
            "train/a": "0 0.25 0.5 0.5 0.4\n1 0 0 0.5 0 0.5 1\n1 0 0 0.5 0 0.5 1\n",
            "train/b": "",
            "val/c": "1 1 1 0.1 0.2\n",
        }.items():
            (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "labels" / f"{name}.txt").write_text(text)
        (tmp_path / "data.yaml").write_text(
            "path: /somewhere\ntrain: images/train\nval: images/val\nnames: [ant, bee]\n"
        )
        return tmp_path

    def test_boxes_polygons_negatives_and_splits(self, folder: Path) -> None:
        hint_set = read_hints(folder)
        assert hint_set.classes == ("ant", "bee")
        hints = hints_of(hint_set)
        box, polygon = hints["train/a"].objects
        assert box.shape.corners == pytest.approx((0, 3, 10, 7))
        assert polygon == Mark(2, Box(0.0, 0.0, 10.0, 10.0), 2)
        assert hints["train/b"] == Hints(Tags.complete((), 2))
        clipped = hints["val/c"].objects[0].shape
        assert (clipped.x1, clipped.y1) == (20.0, 10.0)
        assert hints["val/d"] == Hints()
        assert dict(hint_set.splits) == {"train": ("train/a", "train/b"), "val": ("val/c", "val/d")}
        assert any("1 annotations that repeat" in note for note in hint_set.notes)

    def test_names_by_id_and_lists_of_photos(self, folder: Path) -> None:
        (folder / "list.txt").write_text("./images/train/a.jpg\n./images/val/c.jpg\n")
        (folder / "data.yaml").write_text("train: list.txt\nnc: 2\nnames:\n  1: bee\n  0: ant\n")
        hint_set = read_hints(folder, folder / "data.yaml")
        assert hint_set.classes == ("ant", "bee")
        assert dict(hint_set.splits) == {"train": ("train/a", "val/c")}

    def test_photos_and_labels_side_by_side_without_config(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1\n")
        (tmp_path / "classes.txt").write_text("ant\n")
        hints = hints_of(read_hints(tmp_path, format="yolo"))
        assert hints["a"].marks == (Mark(1, Box(0.0, 0.0, 20.0, 10.0), 1),)

    def test_all_problems_at_once(self, folder: Path) -> None:
        lines = ["2 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "0 50 50 10 10", "0 x 0.5 0.1 0.1", "0 nan 0.5 0.1 0.1"]
        (folder / "labels" / "train" / "b.txt").write_text(
            "\n".join([*lines, "0.5 0.5 0.5 0.1 0.1", "0 0.5 0.5 -0.1 0.1"])
        )
        (folder / "labels" / "val" / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        (folder / "images" / "val" / "c.jpg").write_bytes(b"no photo")
        (folder / "data.yaml").write_text("train: images/tarin\nnc: 3\nnames: [ant, bee]\n")
        message = refusal(folder)
        for expected in (
            "`nc` is 3, but `names` lists 2 classes",
            "`train`: there is no 'images/tarin' below",
            "labels/val/lost.txt: there is no photo 'images/val/lost'",
            "class ids outside the class list, which has 0..1: 2 (1 lines, such as labels/train/b.txt line 1)",
            "labels/train/b.txt: line 2: 4 columns",
            "labels/train/b.txt: line 3: 55 is above 1",
            "labels/train/b.txt: line 4: '0 x 0.5 0.1 0.1' holds something that is not a number",
            "labels/train/b.txt: line 5: box (nan, 4.5, nan, 5.5) has a corner that is not a number",
            "labels/train/b.txt: line 6: '0.5' is no class id",
            "labels/train/b.txt: line 7: annotations that have their corners the other way round",
        ):
            assert expected in message

    def test_bad_config(self, folder: Path) -> None:
        for text, expected in [
            ("names: [a\n", "is no valid YAML"),
            ("train: images/train\n", "has no `names`"),
            ("names: ant\n", "must be a list of class names"),
            ("names: {0: ant, 2: bee}\n", "class ids outside the class list, which has 0 and 2: 1 ("),
            ("names: [ant, ant]\n", "lists 'ant' more than once"),
            ("names: []\n", "names no class"),
        ]:
            (folder / "data.yaml").write_text(text)
            assert expected in refusal(folder)
        (folder / "data.yaml").unlink()
        assert "no class names for the YOLO labels" in refusal(folder)


class TestRecognise:
    def test_no_labels_says_what_was_looked_for(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg")
        message = refusal(tmp_path)
        assert all(f"  {name}: {entry.sign}" in message for name, entry in ((name, codec(name)) for name in formats()))
        assert "--format NAME" in message

    def test_two_formats_say_how_to_choose(self, tmp_path: Path) -> None:
        photos(tmp_path / "images", "a.jpg")
        (tmp_path / "instances.json").write_text(json.dumps(coco_json()))
        (tmp_path / "tags.csv").write_text("a.jpg,car\n")
        message = refusal(tmp_path)
        assert "fits 2 formats: 'csv'" in message
        assert "choose one with --format csv" in message

    def test_true_masks_beside_a_table_are_its_truth(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.jpg", "b.jpg")
        (tmp_path / "boxes.csv").write_text("filename,x0,y0,x1,y1,label\na.jpg,1,1,9,9,car\nb.jpg,2,2,8,8,dog\n")
        (tmp_path / "classes.txt").write_text("car\ndog\n")
        index_png(tmp_path / "SegmentationClass" / "a.png", [0, 1] * 100)
        found = read_hints(tmp_path)
        assert recognise(tmp_path) == "csv"
        assert [photo.truth is not None for photo in found.photos] == [True, False]
        assert all(photo.hints.objects for photo in found.photos)

    def test_a_voc_layout_wins_over_files_beside_it(self, voc: Path) -> None:
        (voc / "instances.json").write_text(json.dumps(coco_json()))
        assert recognise(voc) == "voc"

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("x.json", "{}", "coco"),
            ("x.npy", "", "cls_labels"),
            ("x.yml", "", "yolo"),
            ("x.csv", "a.png,dog", "csv"),
            ("x.tsv", "file\tx\ty\tlabel", "points"),
            ("x/1.xml", "<annotation/>", "voc"),
            ("x.xml", "<?xml version='1.0'?>\n<!-- by hand -->\n<a:Annotation xmlns:a='b'>", "voc"),
            ("x/deep/1.txt", "", "yolo"),
            ("x/1.png", "", "index_png"),
        ],
    )
    def test_given_labels_decide(self, tmp_path: Path, name: str, text: str, expected: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert recognise(tmp_path, tmp_path / name.split("/")[0]) == expected

    def test_what_cannot_be_told(self, tmp_path: Path) -> None:
        (tmp_path / "x.doc").write_text("")
        (tmp_path / "empty").mkdir()
        for labels, expected in [("x.doc", "unknown suffix"), ("empty", "does not show its format"), ("no", "missing")]:
            with pytest.raises(LabelError, match=expected):
                recognise(tmp_path, tmp_path / labels)
        with pytest.raises(LabelError, match="is not a folder"):
            recognise(tmp_path / "x.doc")
