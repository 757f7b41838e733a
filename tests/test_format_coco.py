"""COCO JSON as people have it, and as it is written; pycocotools is the oracle."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from hintseg.errors import LabelError
from hintseg.geometry.runs import encode, write_counts
from hintseg.hints import read_hints, recognise
from hintseg.hints.convert import writer
from hintseg.hints.masks import read_mask
from hintseg.types import IGNORE, Box, Click, Hints, HintSet, Mark, MaskFile, Photo, Region, Tags
from label_sets import NAMES, full_set, photo_files, same_marks, same_masks, same_tags

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def content(*marks: dict[str, Any], photos: int = 3, **changes: Any) -> dict[str, Any]:
    images = [{"id": n, "file_name": f"p{n}.png", "height": 30, "width": 40} for n in range(photos)]
    given = [{"id": n, "category_id": 1, "image_id": n, **mark} for n, mark in enumerate(marks)]
    return {"images": images, "annotations": given, "categories": CATEGORIES, **changes}


def put(folder: Path, what: Any, name: str = "instances.json", photos: int = 3) -> Path:
    photo_files(folder / "images", *(f"p{n}.png" for n in range(photos)))
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(what if isinstance(what, str) else json.dumps(what))
    return folder


def boxes(hint_set: HintSet) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {
        photo.id: [(hint_set.classes[mark.label - 1], mark.shape.corners) for mark in photo.hints.objects]
        for photo in hint_set.photos
    }


BOX = {"bbox": [4, 5, 10, 12]}
CORNERS = (4.0, 5.0, 14.0, 17.0)


class TestOddities:
    def test_annotations_by_id_as_livecell_has_them(self, tmp_path: Path) -> None:
        what = content(BOX, BOX)
        what["annotations"] = {str(one.pop("id")): one for one in what["annotations"]}
        what["images"] = [dict(image, original_filename="x", url="y") for image in what["images"]]
        found = read_hints(put(tmp_path, what))
        assert boxes(found) == {"p0": [("cat", CORNERS)], "p1": [("cat", CORNERS)], "p2": []}

    @pytest.mark.parametrize(
        "ids", [(0, 0.0), ("0", 0), (0, "0"), ("a7", "a7")], ids=["float", "text-number", "number-text", "text"]
    )
    def test_ids_are_compared_as_what_they_stand_for(self, tmp_path: Path, ids: tuple[Any, Any]) -> None:
        what = content({**BOX, "image_id": ids[1]}, photos=1)
        what["images"][0]["id"] = ids[0]
        assert boxes(read_hints(put(tmp_path, what, photos=1))) == {"p0": [("cat", CORNERS)]}

    def test_category_ids_as_text_or_from_zero(self, tmp_path: Path) -> None:
        what = content({**BOX, "category_id": 0}, {**BOX, "category_id": "1"})
        what["categories"] = [{"id": "0", "name": "cat"}, {"id": 1, "name": "dog"}]
        found = read_hints(put(tmp_path, what))
        assert (found.classes, boxes(found)["p1"]) == (("cat", "dog"), [("dog", CORNERS)])
        assert any("0 -> 1, 1 -> 2" in note for note in found.notes)

    @pytest.mark.parametrize("key", ["coco_url", "flickr_url", "url"])
    def test_a_photo_known_by_its_address(self, tmp_path: Path, key: str) -> None:
        what = content(BOX)
        for image in what["images"]:
            image[key] = f"http://images.example/val/{image.pop('file_name')}?size=big"
        assert boxes(read_hints(put(tmp_path, what)))["p0"] == [("cat", CORNERS)]

    def test_numbers_as_text_floats_as_sizes_and_null_boxes(self, tmp_path: Path) -> None:
        ring = ["4", "5", "14", "5", "14", "17", "4", "17"]
        what = content({"bbox": None, "segmentation": [ring]}, {"bbox": ["4", "5", "10", "12"], "iscrowd": "0"})
        for image in what["images"]:
            image |= {"height": 30.0, "width": "40"}
        found = read_hints(put(tmp_path, what))
        assert boxes(found)["p0"] == boxes(found)["p1"] == [("cat", CORNERS)]

    def test_stated_floats_are_compared_with_the_photo(self, tmp_path: Path) -> None:
        what = content(BOX)
        what["images"][0] |= {"height": 33.0, "width": 40.0}
        with pytest.raises(LabelError, match=r"is 40 x 30 pixels .* but the file says 40 x 33"):
            read_hints(put(tmp_path, what))

    def test_results_of_a_model_among_images_carry_their_trust(self, tmp_path: Path) -> None:
        found = read_hints(put(tmp_path, content({**BOX, "score": 0.25}, BOX)))
        assert [photo.hints.marks[0].trust for photo in found.photos[:2]] == [0.25, 1.0]

    @pytest.mark.parametrize(
        ("name", "what", "part"),
        [
            ("captions_val.json", {"images": [], "annotations": [{"caption": "a cat"}]}, "sentences and no objects"),
            ("panoptic.json", {**content(), "annotations": [{"segments_info": []}]}, "PNGs whose colours number"),
            ("results.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 1}], "by numbers alone"),
            ("person_keypoints.json", content({"keypoints": [1, 1, 2]}), "holds keypoints only"),
        ],
    )
    def test_files_of_other_tasks_are_refused_by_name(self, tmp_path: Path, name: str, what: Any, part: str) -> None:
        put(tmp_path, what, name)
        assert recognise(tmp_path) == "coco"
        for labels in (None, tmp_path / name):
            with pytest.raises(LabelError, match=part):
                read_hints(tmp_path, labels)
        put(tmp_path, content(BOX), "annotations/instances_val.json")
        assert len(boxes(read_hints(tmp_path))) == 3, "beside instances they are no matter"

    def test_keypoints_with_boxes_are_boxes(self, tmp_path: Path) -> None:
        found = read_hints(put(tmp_path, content({**BOX, "keypoints": [1, 1, 2]}), "person_keypoints_val.json"))
        assert boxes(found)["p0"] == [("cat", CORNERS)]

    def test_counts_that_are_python_bytes_as_text(self, tmp_path: Path) -> None:
        mask = np.zeros((30, 40), bool)
        mask[5:17, 4:14] = True
        counts = write_counts(encode(mask).counts)
        good = {**BOX, "segmentation": {"size": [30, 40], "counts": repr(counts.encode())}}
        found = read_hints(put(tmp_path, content(good, good)))
        np.testing.assert_array_equal(read_mask(found.photos[0]), mask)
        bad = {**BOX, "segmentation": {"size": [30, 40], "counts": "b'PP1'"}}
        with pytest.raises(LabelError, match=r"Python's way to show bytes, b'...', written as text.*sum to 1024"):
            read_hints(put(tmp_path, content(bad)))

    @pytest.mark.parametrize("folders", [("train", "valid", "test"), ("training", "validation", "testing")])
    def test_equal_names_in_split_folders(self, tmp_path: Path, folders: tuple[str, ...]) -> None:
        for number, folder in enumerate(folders):
            photo_files(tmp_path / folder, "p0.png", "p1.png")
            what = content({"bbox": [number, 1, 9, 9]}, photos=2)
            (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(what))
        found = read_hints(tmp_path)
        assert {name: len(ids) for name, ids in found.splits.items()} == {"train": 2, "val": 2, "test": 2}
        assert [mark[0][1][0] for id, mark in boxes(found).items() if id.endswith("p0")] == [
            float(folders.index(id.partition("/")[0])) for id in boxes(found) if id.endswith("p0")
        ]

    def test_objects_with_equal_boxes_and_other_outlines_are_two(self, tmp_path: Path) -> None:
        below, above = [4, 5, 14, 17, 4, 17], [4, 5, 14, 5, 14, 17]
        one, other, bare = {**BOX, "segmentation": [below]}, {**BOX, "segmentation": [above]}, BOX
        what = content(*({**mark, "image_id": 0} for mark in (bare, one, other, one, bare)))
        found = read_hints(put(tmp_path, what))
        assert [mark.object for mark in found.photos[0].hints.marks] == [1, 2]
        mask = read_mask(found.photos[0])
        assert mask is not None
        assert mask[5:17, 4:14].all()
        assert any("2 annotations that repeat another" in note for note in found.notes)

    def test_a_category_that_names_itself_as_its_group_is_a_class(self, tmp_path: Path) -> None:
        what = content({**BOX, "category_id": 2})
        what["categories"] = [
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 2, "name": "dog", "supercategory": "animal"},
        ]
        assert read_hints(put(tmp_path, what)).classes == ("person", "dog")

    @pytest.mark.parametrize("bbox", [[0, 0, 0, 0], [5, 5, 10, 0]])
    def test_a_box_without_area_gives_way_to_its_outline(self, tmp_path: Path, bbox: list[int]) -> None:
        ring = [4, 5, 14, 5, 14, 17, 4, 17]
        found = read_hints(put(tmp_path, content({"bbox": bbox, "segmentation": [ring]}, BOX, BOX)))
        assert boxes(found)["p0"] == [("cat", CORNERS)]
        assert found.photos[0].truth is not None
        assert not any("without any area" in note for note in found.notes)

    @pytest.mark.parametrize(
        "mark",
        [
            {"bbox": [5, 5, 10, 0]},
            {"bbox": [5, 5, 0, 0], "segmentation": [[5, 5, 5, 5, 5, 5]]},
            {"segmentation": {"size": [30, 40], "counts": [1200]}},
        ],
        ids=["box", "polygon", "runs"],
    )
    def test_of_what_has_no_area_it_is_open_whether_it_is_there(self, tmp_path: Path, mark: dict[str, Any]) -> None:
        outlined = {**BOX, "segmentation": [[4, 5, 14, 5, 14, 17]]}
        found = read_hints(put(tmp_path, content(mark, mark, outlined)))
        assert [photo.hints.tags for photo in found.photos[:2]] == [Tags(frozenset(), frozenset({2}))] * 2
        assert [photo.truth is None for photo in found.photos] == [True, True, False]
        assert any("2 annotations without any area in instances.json" in note for note in found.notes)

    def test_a_missing_photo_is_not_its_namesake_in_another_split(self, tmp_path: Path) -> None:
        photo_files(tmp_path, "train/p0.png", "train/p1.png", "valid/p1.png")
        for folder in ("train", "valid"):
            (tmp_path / folder / "_annotations.coco.json").write_text(json.dumps(content(BOX, photos=2)))
        with pytest.raises(LabelError, match=r"no photo 'p0.png' of the split 'val' below .* mean 'train/p0.png'\?"):
            read_hints(tmp_path)
        found = read_hints(tmp_path, missing="skip")
        assert dict(found.splits) == {"train": ("train/p0", "train/p1"), "val": ("valid/p1",)}
        photo_files(tmp_path, "valid/p0.jpg")
        assert dict(read_hints(tmp_path).splits)["val"] == ("valid/p0", "valid/p1")

    def test_files_of_splits_may_part_the_photos_of_one_folder(self, tmp_path: Path) -> None:
        photo_files(tmp_path, "train/p0.png", "train/p1.png", "test/p2.png")
        for name, number in (("train", 0), ("val", 1)):
            what = content({**BOX, "image_id": number})
            (tmp_path / f"{name}.json").write_text(json.dumps(what | {"images": what["images"][number : number + 1]}))
        assert dict(read_hints(tmp_path).splits) == {"train": ("train/p0",), "val": ("train/p1",)}

    @pytest.mark.parametrize("names", [("v1", "latest"), ("train_old", "train_new"), ("train", "all")])
    def test_versions_of_one_export_are_not_mixed(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            put(tmp_path, content(BOX), f"annotations/{name}.json")
        some = " and ".join(f"annotations/{name}.json" for name in sorted(names))
        with pytest.raises(LabelError, match=f"2 COCO files that list the same photos, such as 'p0.png': {some}; name"):
            read_hints(tmp_path)
        assert len(boxes(read_hints(tmp_path, tmp_path / "annotations" / f"{names[0]}.json"))["p0"]) == 1

    def test_files_of_different_photos_are_put_together(self, tmp_path: Path) -> None:
        for number, name in enumerate(("contest_1", "boxesTrain", "minival2014")):
            what = content({**BOX, "image_id": number})
            put(tmp_path, what | {"images": what["images"][number : number + 1]}, f"annotations/{name}.json")
        assert dict(read_hints(tmp_path).splits) == {"contest_1": ("p0",), "train": ("p1",), "val": ("p2",)}

    def test_half_of_the_photos_missing(self, tmp_path: Path) -> None:
        put(tmp_path, content(BOX, photos=6))
        with pytest.raises(LabelError, match="--missing skip"):
            read_hints(tmp_path)
        found = read_hints(tmp_path, missing="skip")
        assert len(boxes(found)) == 3
        assert any("3 photos that the labels name are not there" in note for note in found.notes)

    def test_a_data_folder_with_its_labels_beside_it(self, tmp_path: Path) -> None:
        photo_files(tmp_path / "data", "p0.png", "p1.png", "p2.png")
        (tmp_path / "labels.json").write_text(json.dumps(content(BOX)))
        assert boxes(read_hints(tmp_path))["data/p0"] == [("cat", CORNERS)]


def read_back(hint_set: HintSet, root: Path, out: Path) -> tuple[HintSet, tuple[str, ...]]:
    written = writer("coco").write(hint_set, out)
    again = read_hints(root, written.labels, format="coco", background=hint_set.background)
    return again, written.lost


class TestWriting:
    @pytest.mark.parametrize("background", [True, False])
    def test_what_is_written_is_read_again(self, tmp_path: Path, background: bool) -> None:
        hint_set = full_set(tmp_path / "photos", background=background)
        again, lost = read_back(hint_set, tmp_path / "photos", tmp_path / "out")
        assert again.classes == hint_set.classes == NAMES
        same_marks(hint_set, again, kinds=Box)
        same_masks(hint_set, again)
        same_tags(hint_set, again)
        assert lost == ("1 photos have tags, but no box or mask; COCO cannot say that, and they are not listed",)

    def test_pycocotools_sees_the_same_pixels(self, tmp_path: Path) -> None:
        hint_set = full_set(tmp_path / "photos")
        written = writer("coco").write(hint_set, tmp_path / "out")
        with contextlib.redirect_stdout(io.StringIO()):
            oracle = COCO(os.fspath(written.labels))
        masks = {photo.id: read_mask(photo) for photo in hint_set.photos if photo.truth}
        images = {image["file_name"].rpartition(".")[0]: image["id"] for image in oracle.loadImgs(oracle.getImgIds())}
        assert len(masks) == 3
        for photo, mask in masks.items():
            found = oracle.loadAnns(oracle.getAnnIds(imgIds=[images[photo]]))
            for one in found:
                inside = oracle.annToMask(one).astype(bool)
                of_class = mask == one["category_id"]
                if isinstance(one["segmentation"], dict):
                    np.testing.assert_array_equal(inside, of_class)
                    assert one["area"] == inside.sum()
                else:  # pycocotools counts pixels that a polygon touches, hintseg those whose centre it holds
                    assert (inside & of_class).sum() / (inside | of_class).sum() > 0.85
                    assert one["area"] == pytest.approx(of_class.sum(), rel=0.1)

    def test_splits_become_files(self, tmp_path: Path) -> None:
        root = tmp_path / "photos"
        paths = [photo_files(root, f"{n}.png")[0] for n in "abcd"]
        boxed = Hints(None, (Mark(1, Box(1, 1, 5, 5), 1),))
        photos = tuple(Photo(p.stem, p, Hints() if p.stem == "d" else boxed) for p in paths)
        hint_set = HintSet("x", ("cat",), photos, {"train": ("a", "b"), "val": ("c", "d")})
        again, lost = read_back(hint_set, root, tmp_path / "out")
        assert dict(again.splits) == {"train": ("a", "b"), "val": ("c",)}
        assert lost == ("1 photos of the splits are not listed, as nothing that COCO holds is said of them",)
        odd = HintSet("x", ("cat",), photos, {"fold1": ("a", "b"), "fold2": ("c",)})
        again, lost = read_back(odd, root, tmp_path / "odd")
        assert not again.splits
        assert lost == ("2 splits are left out: they do not part the labelled photos into train, val and test",)

    def test_what_is_lost_is_said(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        crowd, click = Mark(IGNORE, Box(1, 1, 5, 5)), Mark(1, Click(3, 3))
        hints = Hints(Tags(frozenset({1}), frozenset({2})), (crowd, click, Mark(2, Box(2, 2, 9, 9), 1)))
        again, lost = read_back(HintSet("x", ("cat", "dog", "cow"), (Photo("a", path, hints),)), path.parent, tmp_path)
        assert lost == (
            "1 areas to be ignored are written as crowds of one of their photo's classes",
            "1 photos have tags that COCO cannot hold: it says that exactly the classes of the objects are there",
        )
        assert again.photos[0].hints.marks == (crowd, Mark(2, Box(2, 2, 9, 9), 1))

    def test_an_area_to_be_ignored_without_any_class(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        photo = Photo("a", path, Hints(None, (Mark(IGNORE, Box(1, 1, 5, 5)),)))
        again, lost = read_back(HintSet("x", ("cat",), (photo,)), path.parent, tmp_path / "out")
        assert (again.classes, again.photos[0].hints.marks, lost) == (("cat",), photo.hints.marks, ())

    def test_an_index_image_is_cut_into_the_objects_of_its_boxes(self, tmp_path: Path) -> None:
        from PIL import Image

        (path,) = photo_files(tmp_path / "photos", "a.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[2:20, 2:20], mask[25:28, 30:35], mask[5:9, 25:30] = 1, 1, 255
        mask[4:8, 4:8] = 1
        Image.fromarray(mask).save(tmp_path / "m.png")
        marks = (Mark(1, Box(2, 2, 20, 20), 1), Mark(1, Box(4, 4, 8, 8), 2))
        photo = Photo("a", path, Hints(None, marks), MaskFile(tmp_path / "m.png"))
        again, _ = read_back(HintSet("x", ("cat",), (photo,)), path.parent, tmp_path / "out")
        np.testing.assert_array_equal(read_mask(again.photos[0]), mask)
        assert [mark.shape for mark in again.photos[0].hints.objects] == [
            Box(2, 2, 20, 20),
            Box(4, 4, 8, 8),
            Box(30, 25, 35, 28),
        ]

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4),
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9),
    )
    def test_any_numbers_and_names(self, shares: list[tuple[float, ...]], name: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            (path,) = photo_files(Path(place, "photos"), "a.png")
            marks = [(Box(1.0, 1.0, 9.0, 9.0), Region(((1.0, 1.0, 9.0, 1.0, 9.0, 9.0),)))]
            for a, b, c, d in shares:
                x0, x1, y0, y1 = sorted((a * 40, b * 40)) + sorted((c * 30, d * 30))
                ring = (x0, y0, x1 + 0.5, y0, x1 + 0.5, y1 + 0.5)
                if x1 + 0.5 <= 40 and y1 + 0.5 <= 30:
                    marks.append((Box(x0, y0, x1 + 0.5, y1 + 0.5), Region((ring,))))
            hints = Hints(None, tuple(Mark(1, box, n) for n, (box, _) in enumerate(marks, start=1)))
            truth = tuple(Mark(1, region, n) for n, (_, region) in enumerate(marks, start=1))
            hint_set = HintSet("x", (name, "other"), (Photo("a", path, hints, truth),))
            if len(set(marks)) == len(marks) and name.lower().strip("_ ") not in ("background", "other"):
                again, lost = read_back(hint_set, path.parent, Path(place, "out"))
                assert (again.classes[0], lost) == (" ".join(name.split()), ())
                same_marks(hint_set, again, kinds=Box)
