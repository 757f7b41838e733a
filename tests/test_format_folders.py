"""Folders of photos: classes where that is plain, a question where it is not; MVTec AD; a folder per photo."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hintseg.errors import LabelError
from hintseg.formats.folder_tree import arrange
from hintseg.formats.folders import Folders
from hintseg.hints import read_hints, recognise
from hintseg.hints.masks import read_mask
from hintseg.types import HintSet
from labelled import noted, put, refusal


def lay(root: Path, *names: str) -> Path:
    """Photos, no two alike."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), crc32(name.encode()) & 0xFFFFFF).save(root / name)
    return root


def tags(hint_set: HintSet) -> dict[str, set[str] | None]:
    def names(found: object) -> set[str] | None:
        return None if found is None else {hint_set.classes[label - 1] for label in found}  # type: ignore[attr-defined]

    return {one.id: names(one.hints.tags) for one in hint_set.photos}


@pytest.mark.parametrize(
    ("names", "classes", "splits"),
    [
        (("cat/1.jpg", "dog/2.jpg"), ("cat", "dog"), set()),
        (("Training/cat/1.jpg", "Testing/dog/2.jpg"), ("cat", "dog"), {"train", "test"}),
        (("TRAIN/cat/1.jpg", "Valid/dog/2.jpg"), ("cat", "dog"), {"train", "val"}),
        (("trainset/cat/1.jpg", "dev/dog/2.jpg", "testset/dog/3.jpg"), ("cat", "dog"), {"train", "val", "test"}),
        (("train2017/cat/1.jpg", "val2017/dog/2.jpg"), ("cat", "dog"), {"train", "val"}),
        (("seg_train/seg_train/sea/1.jpg", "seg_test/seg_test/ice/2.jpg"), ("ice", "sea"), {"train", "test"}),
        (("train/train/cat/1.jpg", "train/train/dog/2.jpg"), ("cat", "dog"), {"train"}),
        (("train/images/cat/1.jpg", "test/images/dog/1.jpg"), ("cat", "dog"), {"train", "test"}),
        (("images/train/cat/1.jpg", "images/val/dog/1.jpg"), ("cat", "dog"), {"train", "val"}),
        (("images/cat/1.jpg", "images/dog/2.jpg"), ("cat", "dog"), set()),
        (("PetImages/Cat/1.jpg", "PetImages/Dog/2.jpg"), ("Cat", "Dog"), set()),
        (("data/pets/all/Cat/1.jpg", "data/pets/all/Dog/2.jpg"), ("Cat", "Dog"), set()),
        (("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg"), ("cat", "dog"), {"train", "test"}),
        (("train/n01/images/1.jpg", "train/n02/images/2.jpg"), ("n01", "n02"), {"train"}),
        (("0/a.jpg", "1/a.jpg", "10/a.jpg"), ("0", "1", "10"), set()),
        (("été d'hier/a.jpg", "x, y; z/a.jpg"), ("x, y; z", "été d'hier"), set()),
        (("bus/1.jpg", "car/2.jpg", "train/3.jpg", "boat/4.jpg", "boat/5.jpg"), ("boat", "bus", "car", "train"), set()),
        (("train/cat/1.jpg", "test/2.jpg", "train/dog/3.jpg"), ("cat", "dog"), {"train", "test"}),
    ],
)
def test_layouts(tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...], splits: set[str]) -> None:
    assert recognise(lay(tmp_path, *names)) == "folders"
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == classes
    assert set(hint_set.splits) == splits
    assert sorted(id for ids in hint_set.splits.values() for id in ids) == (sorted(tags(hint_set)) if splits else [])
    for id, found in tags(hint_set).items():
        assert found == {part for part in id.split("/") if part in classes} or (found is None and id == "test/2")


@pytest.mark.parametrize(
    "name", ["background", "BACKGROUND_Google", "_background_", "none", "Negative", "_negatives", "empty"]
)
def test_negatives(tmp_path: Path, name: str) -> None:
    lay(tmp_path, "cat/1.jpg", "dog/1.jpg", f"{name}/1.jpg", f"{name}/2.jpg")
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == ("cat", "dog")
    assert (tags(hint_set)[f"{name}/1"], tags(hint_set)[f"{name}/2"]) == (set(), set())
    assert noted(hint_set, f"2 photos in '{name}' are negatives")
    put(tmp_path, {"classes.txt": f"{name}\ncat\ndog\n"})
    assert read_hints(tmp_path).classes == (name, "cat", "dog")


def test_one_class_and_its_negatives(tmp_path: Path) -> None:
    lay(tmp_path, "Positive/1.jpg", "Positive/2.jpg", "Negative/1.jpg")
    assert tags(read_hints(tmp_path)) == {"Positive/1": {"Positive"}, "Positive/2": {"Positive"}, "Negative/1": set()}


def test_background_is_a_class_where_every_pixel_has_one(tmp_path: Path) -> None:
    lay(tmp_path, "background/1.jpg", "dog/1.jpg")
    assert read_hints(tmp_path, background=False).classes == ("background", "dog")


def test_a_class_that_may_mean_that_nothing_is_there_is_told(tmp_path: Path) -> None:
    lay(tmp_path, "glioma/1.jpg", "no_tumor/1.jpg", "glioma/2.jpg")
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == ("glioma", "no_tumor")
    assert noted(hint_set, "'no_tumor' is read as a class; if its photos show none of the others")


def test_photos_elsewhere_stay_unlabelled(tmp_path: Path) -> None:
    lay(tmp_path, "seg_train/sea/1.jpg", "seg_train/ice/2.jpg", "seg_pred/3.jpg", "seg_test/sea/4.jpg")
    assert tags(read_hints(tmp_path))["seg_pred/3"] is None
    lay(tmp_path / "more", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "unlabeled/1.jpg", "root.jpg")
    hint_set = read_hints(tmp_path / "more")
    assert (tags(hint_set)["unlabeled/1"], tags(hint_set)["root"]) == (None, None)
    assert noted(hint_set, "2 of 5 photos are not in a class folder and stay unlabelled")


class TestAsked:
    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (
                ("birds/owl/1.jpg", "birds/kiwi/1.jpg", "pets/cat/1.jpg"),
                "birds holds 'kiwi' and 'owl'; which are the cl",
            ),
            (("DCIM/1.jpg", "DCIM/2.jpg"), "all photos lie in one folder, 'DCIM'; is it a class?"),
            (("part1/1.jpg", "part2/1.jpg", "part2/2.jpg"), "whose names are those of pieces of a set"),
            (("2024-05-01/1.jpg", "2024-05-02/1.jpg", "2024-05-02/2.jpg"), "whose names are those of pieces"),
            (("fold_1/1.jpg", "fold_2/1.jpg", "fold_2/2.jpg"), "whose names are those of pieces"),
            (tuple(f"p{n}/x{n}.jpg" for n in range(4)), "each of one photo, classes?"),
            (("a/a.jpg", "b/b.jpg"), "each of one photo, classes?"),
            (("cat/1.jpg", "dog/1.jpg", "masks2/1.jpg"), "'masks2' beside 'cat' and 'dog': words of layouts"),
            (("cat/1.jpg", "dog/1.jpg", "test/1.jpg", "test/2.jpg"), "'test' beside 'cat' and 'dog'"),
        ],
    )
    def test_what_is_not_plain(self, tmp_path: Path, names: tuple[str, ...], said: str) -> None:
        message = refusal(lay(tmp_path, *names))
        assert said in message
        assert "into classes.txt, one a line" in message

    @pytest.mark.parametrize(
        "names",
        [
            ("train/1.jpg", "test/2.jpg"),
            ("images/1.jpg", "ground_truth/1.png"),
            ("train/images/1.jpg", "val/images/2.jpg"),
            ("images/1.jpg", "annotations/1.jpg"),
            ("obj_train_data/1.jpg",),
            ("1.jpg", "2.jpg"),
        ],
    )
    def test_words_of_layouts_are_no_classes(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        assert Folders().sniff(lay(tmp_path, *names), None) == 0
        assert "no class folder with photos in" in refusal(tmp_path, format="folders")

    @pytest.mark.parametrize("name", ["cat/1.txt", "cat/1.xml", "labels.json", "about.csv", "obj.names", "my.yaml"])
    def test_other_files_that_may_say_more(self, tmp_path: Path, name: str) -> None:
        put(lay(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg"), {name: "one two"})
        message = refusal(tmp_path)
        assert "no known labels" in message
        assert f"({name})" in message
        assert "say so with --format folders" in message
        assert read_hints(tmp_path, format="folders").classes == ("cat", "dog")

    def test_files_that_say_nothing_of_photos(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
        put(tmp_path, {"README.txt": "x", "LICENSE": "x", "cat/readme.txt": "x", ".x": "{}", "train.txt": "1\n2\n"})
        assert read_hints(tmp_path).splits == {"train": ("cat/1", "cat/2")}

    def test_a_list_answers(self, tmp_path: Path) -> None:
        lay(tmp_path, "birds/owl/1.jpg", "birds/kiwi/1.jpg", "pets/cat/1.jpg", "other/1.jpg", "none/1.jpg")
        put(tmp_path, {"classes.txt": "owl\nBirds\ncat\n"})
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("owl", "Birds", "cat")
        assert tags(hint_set) == {
            "birds/owl/1": {"owl", "Birds"},
            "birds/kiwi/1": {"Birds"},
            "pets/cat/1": {"cat"},
            "other/1": None,
            "none/1": set(),
        }
        put(tmp_path, {"classes.txt": "horse\n"})
        assert "no folder below" in refusal(tmp_path, format="folders")

    def test_one_folder_is_a_class_where_a_list_says_so(self, tmp_path: Path) -> None:
        put(lay(tmp_path, "cat/1.jpg", "cat/2.jpg"), {"classes.txt": "cat\n"})
        assert tags(read_hints(tmp_path)) == {"cat/1": {"cat"}, "cat/2": {"cat"}}


class TestPhotos:
    def test_deeper_than_their_class_folder(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "cat/old/2.jpg", "dog/a/b/3.jpg")
        hint_set = read_hints(tmp_path)
        assert tags(hint_set) == {"cat/1": {"cat"}, "cat/old/2": {"cat"}, "dog/a/b/3": {"dog"}}
        assert noted(hint_set, "2 photos lie deeper than their class folder and have its class: cat/old/2.jpg")

    def test_the_same_in_several_class_folders(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/2.jpg", "dog/3.jpg")
        shutil.copy(tmp_path / "cat" / "1.jpg", tmp_path / "dog" / "copy.jpg")
        hint_set = read_hints(tmp_path)
        assert tags(hint_set) == {"cat/1": {"cat", "dog"}, "cat/2": {"cat"}, "dog/2": {"dog"}, "dog/3": {"dog"}}
        assert noted(hint_set, "1 photos lie in several class folders (same bytes)")

    def test_the_same_in_several_splits(self, tmp_path: Path) -> None:
        lay(tmp_path, "train/cat/1.jpg", "train/dog/2.jpg", "test/dog/3.jpg")
        shutil.copy(tmp_path / "train" / "cat" / "1.jpg", tmp_path / "test" / "dog" / "1.jpg")
        hint_set = read_hints(tmp_path)
        assert tags(hint_set)["train/cat/1"] == tags(hint_set)["test/dog/1"] == {"cat", "dog"}
        assert noted(hint_set, "1 photos lie in several splits")

    def test_the_same_with_a_class_and_as_a_negative(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "dog/2.jpg", "none/3.jpg")
        shutil.copy(tmp_path / "cat" / "1.jpg", tmp_path / "none" / "1.jpg")
        assert "cat/1.jpg and none/1.jpg are the same photo, once of a class" in refusal(tmp_path)

    def test_class_folders_spelt_in_several_ways(self, tmp_path: Path) -> None:
        decomposed = unicodedata.normalize("NFD", "bébé")
        lay(
            tmp_path,
            "train/Cat/1.jpg",
            "train/Cat/2.jpg",
            "test/cat/3.jpg",
            "train/bébé/4.jpg",
            f"test/{decomposed}/5.jpg",
        )
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("Cat", "bébé")
        assert noted(hint_set, "the folders 'Cat' and 'cat' are read as one class, 'Cat'")

    def test_a_class_that_cannot_be_read_is_not_lost(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
        put(tmp_path, {"cat/3.CR2": b"x", "fox/4.cr2": b"x", "fox/5.CR2": b"x"})
        message = refusal(tmp_path)
        assert "the class 'fox' has only files that are not read: 2 .cr2; raw files of cameras" in message
        shutil.rmtree(tmp_path / "fox")
        assert noted(read_hints(tmp_path), "1 .cr2 files are left out")

    def test_masks_among_photos_are_left_out(self, tmp_path: Path) -> None:
        lay(tmp_path, "benign/1.png", "benign/1_mask.png", "benign/1_mask_1.png", "normal/2.png", "benign/3 mask.png")
        lay(tmp_path / "covid", "COVID/images/1.png", "COVID/masks/1.png", "Normal/images/2.png", "Normal/images/3.png")
        hint_set = read_hints(tmp_path / "covid")
        assert tags(hint_set) == {
            "COVID/images/1": {"COVID"}, "Normal/images/2": {"Normal"}, "Normal/images/3": {"Normal"},
        }  # fmt: skip
        shutil.rmtree(tmp_path / "covid")
        hint_set = read_hints(tmp_path)
        assert set(tags(hint_set)) == {"benign/1", "benign/3 mask", "normal/2"}
        assert noted(hint_set, "2 pictures that look like masks of others are left out: benign/1_mask.png")

    def test_hidden_files_and_thumbnails(self, tmp_path: Path) -> None:
        lay(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/@eaDir/1.jpg/S.jpg", ".git/x/1.jpg", "dog/.thumbs/1.jpg")
        lay(tmp_path, "__MACOSX/cat/1.jpg")
        assert tags(read_hints(tmp_path)) == {"cat/1": {"cat"}, "dog/2": {"dog"}}


OUTER = st.sampled_from(["train", "Test", "cat", "dog", "masks", "x", "none"])
INNER = st.sampled_from(["cat", "b", "images", "test"])


@given(st.lists(st.tuples(OUTER, INNER, st.integers(0, 3)), max_size=12, unique=True))
def test_no_photo_gets_a_class_that_is_no_folder_above_it(files: list[tuple[str, str, int]]) -> None:
    paths = [(*folders[: 1 + number % 2], f"{number}.jpg") for *folders, number in files]
    try:
        tree = arrange(paths, None, background=True)
    except LabelError:
        return
    for path, names in tree.tags.items():
        assert len(names) <= 1
        assert set(names) <= set(path[:-1]) - {"Test", "images", "masks", "none", "test"}
    assert set(tree.classes) == {name for names in tree.tags.values() for name in names}


# ---- MVTec AD


def mvtec(root: Path) -> Path:
    lay(root, "train/good/000.png", "train/good/001.png", "test/good/000.png")
    lay(root, "test/crack/000.png", "test/hole/000.png", "test/hole/001.png")
    for name, rows in (("crack/000", 3), ("hole/000", 5)):
        mask = np.zeros((10, 20), np.uint8)
        mask[:rows, 4:9] = 255
        (root / "ground_truth" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / "ground_truth" / f"{name}_mask.png")
    return root


def test_mvtec(tmp_path: Path) -> None:
    assert recognise(mvtec(tmp_path)) == "mvtec"
    hint_set = read_hints(tmp_path)
    assert hint_set.classes == ("crack", "hole")
    found = tags(hint_set)
    assert (found["train/good/000"], found["test/crack/000"], found["test/hole/001"]) == (set(), {"crack"}, {"hole"})
    assert {split: len(ids) for split, ids in hint_set.splits.items()} == {"train": 2, "test": 4}
    masks = {one.id: read_mask(one) for one in hint_set.photos}
    wanted = np.zeros((10, 20), np.uint8)
    wanted[:5, 4:9] = 2
    np.testing.assert_array_equal(masks["test/hole/000"], wanted)
    np.testing.assert_array_equal(masks["test/good/000"], wanted * 0)
    assert masks["test/hole/001"] is None
    assert noted(hint_set, "1 photos of defects have no mask")
    assert not any(one.hints.marks or one.hints.mask for one in hint_set.photos), "truth judges and is no hint"
    Image.new("L", (9, 9), 255).save(tmp_path / "ground_truth" / "hole" / "001_mask.png")
    assert "001_mask.png has 9 x 9 pixels, but its photo has 20 x 10" in refusal(tmp_path)
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(tmp_path / "ground_truth/hole/001_mask.png")
    assert "has 200 values; the mask of an object is 0 outside" in refusal(tmp_path)


# ---- a folder per photo


@pytest.mark.parametrize("split", ["", "stage1_train/", "train/"])
def test_a_folder_per_photo(tmp_path: Path, split: str) -> None:
    for name in ("p0", "p1"):
        lay(tmp_path, f"{split}{name}/images/{name}.png")
        for number in range(3):
            mask = np.zeros((10, 20), np.uint8)
            mask[2:4, number * 5 : number * 5 + 3] = 255
            file = tmp_path / f"{split}{name}" / "masks" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(file)
    root = tmp_path / "stage1_train" if "stage1" in split else tmp_path
    assert recognise(root) == "nuclei"
    hint_set = read_hints(root)
    assert hint_set.classes == ("object",)
    assert set(hint_set.splits) == ({"train"} if split == "train/" else set())
    assert len(hint_set.photos) == 2
    first = hint_set.photos[0]
    assert [mark.shape.corners for mark in first.hints.objects] == [(0, 2, 3, 4), (5, 2, 8, 4), (10, 2, 13, 4)]
    painted = read_mask(first)
    assert painted is not None
    assert int(painted.sum()) == 18
    assert noted(hint_set, "all objects are called 'object'")
    file.write_bytes(b"no picture")
    assert noted(read_hints(root), "1 of 6 annotations in masks are left out")
