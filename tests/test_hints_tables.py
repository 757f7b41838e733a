"""Tags, one-hot, boxes and points from CSV; folders per class; cls_labels.npy."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import ConfigError, LabelError
from hintseg.geometry.boxes import fit_box, fit_point
from hintseg.hints import read_hints
from hintseg.types import Box, Click, Hints, HintSet, Mark, Tags


def photos(folder: Path, *names: str, size: tuple[int, int] = (20, 10)) -> Path:
    """Write photos of `size` (width, height), no two alike."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, crc32(name.encode()) & 0xFFFFFF).save(folder / name)
    return folder


def hints_of(hint_set: HintSet) -> dict[str, Hints]:
    return {photo.id: photo.hints for photo in hint_set.photos}


def tags_of(hint_set: HintSet) -> dict[str, set[str] | None]:
    return {
        photo.id: None if photo.hints.tags is None else {hint_set.classes[k - 1] for k in photo.hints.tags}
        for photo in hint_set.photos
    }


def problems(folder: Path, text: str | bytes, name: str = "tags.csv", **settings: object) -> str:
    """Write a label file and return the message it is refused with."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LabelError) as caught:
        read_hints(folder, folder / name, **settings)  # type: ignore[arg-type]
    return str(caught.value)


class TestTags:
    def test_every_tag_is_a_class_in_alphabetical_order(self, tmp_path: Path) -> None:
        photos(tmp_path, "b.png", "a.jpg", "sub/c d.bmp", "extra.png")
        (tmp_path / "tags.csv").write_text("b.png,dog\na.jpg,cat,dog\nsub/c d.bmp\n")
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert tags_of(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}, "extra": None, "sub/c d": set()}
        assert any("1 of 4 photos are not in tags.csv and stay unlabelled: extra" in note for note in hint_set.notes)

    def test_header_quotes_semicolons_and_byte_order_mark(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b.png")
        (tmp_path / "tags.csv").write_text('\ufefffile;tag\n"a.png";"big, red"\nb.png;\n', encoding="utf-8")
        with pytest.raises(LabelError, match=r"the tag 'big, red' looks like several, separated by ','"):
            read_hints(tmp_path)
        (tmp_path / "classes.txt").write_text("big, red\n")
        assert tags_of(read_hints(tmp_path)) == {"a": {"big, red"}, "b": set()}

    def test_names_without_suffix_with_folder_and_equal_stems(self, tmp_path: Path) -> None:
        photos(tmp_path / "images", "x.png", "x.jpg", "deep/y.png")
        (tmp_path / "tags.csv").write_text("images/x.png,p\n./x.jpg,q\ny,r\n")
        assert tags_of(read_hints(tmp_path)) == {"x.png": {"p"}, "x.jpg": {"q"}, "deep/y": {"r"}}

    def test_a_name_with_a_folder_does_not_fit_a_photo_elsewhere(self, tmp_path: Path) -> None:
        photos(tmp_path, "dog/1.png", "2.png")
        assert "line 1: there is no photo 'cat/1.png'" in problems(tmp_path, "cat/1.png,cat\n2.png,cat\n")

    def test_all_problems_at_once_with_line_and_nearest_name(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b.png", "c.png", "x/d.png", "y/d.png")
        (tmp_path / "classes.txt").write_text("bird\ndog\n")
        message = problems(tmp_path, "a.png,bird\nb.png,brid\nmissing.png,dog\na.png,dog\nd.png,dog\n")
        assert message.startswith("3 problems in tags.csv:")
        assert "line 2: unknown tag 'brid'; did you mean 'bird'?" in message
        assert "line 3: there is no photo 'missing.png'" in message
        assert "line 5: 'd.png' fits 2 photos (x/d, y/d); write its path and suffix" in message

    def test_empty_missing_and_not_utf8_files(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        assert "is empty" in problems(tmp_path, "")
        assert "is empty but for separators" in problems(tmp_path, ",,\n")
        assert "is empty" in problems(tmp_path, b"\xef\xbb\xbf\n")
        assert "line 2: byte 0x81 is not UTF-8" in problems(tmp_path, b"a.png,x\nb.png,caf\x81\n")
        assert "line 2" in problems(tmp_path, 'a.png,x\nb.png,"open\n')
        with pytest.raises(LabelError, match=r"other\.csv is missing|other\.csv are missing"):
            read_hints(tmp_path, tmp_path / "other.csv")

    def test_a_folder_without_photos(self, tmp_path: Path) -> None:
        assert "there is no photo below" in problems(tmp_path, "a.png,cat\n")

    def test_a_list_that_names_no_photo_of_the_folder_says_nothing(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("cat\n")
        assert "says nothing about any photo" in problems(tmp_path, "file,cat\n")

    def test_class_list_problems(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("cat\n\ncat\n")
        message = problems(tmp_path, "a.png,cat\n")
        assert "line 2: is blank" in message
        assert "line 3: class 'cat' is also in line 1" in message

    def test_background_first_in_the_class_list_is_id_0(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("_background_\ncat\ndog\n")
        (tmp_path / "tags.csv").write_text("a.png,dog\n")
        assert read_hints(tmp_path).classes == ("cat", "dog")
        assert read_hints(tmp_path, background=False).classes == ("_background_", "cat", "dog")

    def test_splits(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b c.png")
        (tmp_path / "tags.csv").write_text("a.png,x\nb c.png,y\n")
        (tmp_path / "train.txt").write_text("b c\n")
        (tmp_path / "val.txt").write_text("a.png masks/a.png\n")
        assert dict(read_hints(tmp_path).splits) == {"train": ("b c",), "val": ("a",)}
        (tmp_path / "val.txt").write_text("a.png\na\nzzz\n")
        message = problems(tmp_path, "a.png,x\nb c.png,y\n")
        assert "line 2: 'a' is also in line 1" in message
        assert "line 3: there is no photo 'zzz'" in message


class TestOneHot:
    def test_the_header_gives_the_classes(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b.png")
        (tmp_path / "labels.csv").write_text("image,dog,cat\na.png,1,0\nb.png,0,0\n")
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("dog", "cat")
        assert tags_of(hint_set) == {"a": {"dog"}, "b": set()}

    def test_the_class_list_gives_the_order_and_must_be_the_same(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        (tmp_path / "tags.csv").write_text("file,dog,cat\na.png,1,0\n")
        assert hints_of(read_hints(tmp_path))["a"].tags == Tags.complete({2}, 2)
        message = problems(tmp_path, "file,dog,catt\na.png,1,0\nb.png,2,0\nb.png,0,0\n")
        assert "class 'catt' is not in classes.txt; did you mean 'cat'?" in message
        assert "class 'cat' of classes.txt has no column; did you mean 'catt'?" in message
        assert "line 3: '2' under 'dog' is neither 0 nor 1" in message

    def test_without_header_it_is_explained(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b.png")
        assert "needs a first line with `file` and the class names" in problems(tmp_path, "a.png,1,0\nb.png,0,1\n")

    def test_short_rows(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        assert "line 2: 2 cells, but the header has 3" in problems(tmp_path, "file,dog,cat\na.png,1\n")


class TestBoxes:
    @pytest.mark.parametrize(
        ("header", "row"),
        [
            ("file,x0,y0,x1,y1,label", "a.png,1,2,11,8,dog"),
            ("class,xmax,ymax,filename,xmin,ymin,width", "dog,11,8,a.png,1,2,20"),
            ("image_id,x1,y1,x2,y2,tag", "a.png,1,2,11,8,dog"),
        ],
    )
    def test_columns_in_any_order(self, tmp_path: Path, header: str, row: str) -> None:
        photos(tmp_path, "a.png", "b.png")
        negative = ",".join("b.png" if name in ("file", "filename", "image_id") else "" for name in header.split(","))
        (tmp_path / "boxes.csv").write_text(f"{header}\n{row}\n{negative}\n")
        hints = hints_of(read_hints(tmp_path))
        assert hints["a"] == Hints(Tags.complete({1}, 1), (Mark(1, Box(1.0, 2.0, 11.0, 8.0), 1),))
        assert hints["b"] == Hints(Tags.complete((), 1))

    def test_bad_corners_are_listed_and_small_overhang_is_clipped(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        rows = [
            "a.png,nan,1,5,5,dog",
            "a.png,9,1,5,5,dog",
            "a.png,1,1,90,5,dog",
            "a.png,1,1,x,5,dog",
            "a.png,3,3,3,5,dog",
        ]
        message = problems(tmp_path, "\n".join(["file,x0,y0,x1,y1,label", *rows, "a.png,-1,0,21,11.5,dog"]))
        assert message.startswith("6 problems in tags.csv:")
        assert "line 2: the box 'nan, 1, 5, 5' is not four numbers" in message
        assert "line 3: annotations that have their corners the other way round and are read so" in message
        assert "line 4: box (1, 1, 90, 5) lies outside of its photo of 20 x 10" in message
        assert "line 5: the box '1, 1, x, 5' is not four numbers" in message
        assert "line 6: box (3, 3, 3, 5) is empty" in message
        assert fit_box((-1, 0, 21, 11.5), (10, 20)) == (0.0, 0.0, 20.0, 10.0)

    def test_shares_instead_of_pixels_and_repeated_lines(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        text = "file,x0,y0,x1,y1,label\na.png,0.1,0.2,0.5,0.9,dog\na.png,0.1,0.2,0.5,0.9,dog\n"
        (tmp_path / "boxes.csv").write_text(text)
        hint_set = read_hints(tmp_path)
        assert [mark.shape for mark in hint_set.photos[0].hints.marks] == [Box(2.0, 2.0, 10.0, 9.0)]
        assert "all coordinates of boxes.csv are between 0 and 1: they are shares of width and height" in hint_set.notes
        assert "1 annotations that repeat another are left out" in hint_set.notes
        one = "file,x0,y0,x1,y1,label\na.png,0,0,1,1,dog\n"
        assert "they must be pixels" in problems(tmp_path, one + "a.png,0,0,1,1,cat\n")
        (tmp_path / "tags.csv").write_text(one)
        assert [mark.shape for mark in read_hints(tmp_path).photos[0].hints.marks] == [Box(0, 0, 1, 1)], "one pixel"


class TestPoints:
    def test_points_with_extra_columns_and_background(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png", "b.png", "c.png")
        text = "filename,x,y,label,id\na.png,3,4.5,dog,1\na.png,0,0,background,2\nb.png,,,,\n"
        (tmp_path / "points.csv").write_text(text)
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("dog",)
        assert hints_of(hint_set) == {
            "a": Hints(Tags.complete({1}, 1), (Mark(1, Click(3.0, 4.5)), Mark(0, Click(0.0, 0.0)))),
            "b": Hints(Tags.complete((), 1)),
            "c": Hints(),
        }

    def test_problems(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("dog\n")
        text = "file,x,y,label\na.png,inf,1,dog\na.png,30,1,dog\na.png,1,1,dig\na.png,one,1,dog\n"
        message = problems(tmp_path, text)
        assert "line 2: point (inf, 1) has a coordinate that is not a number" in message
        assert "line 3: point (30, 1) is 10 px outside its photo of 20 x 10" in message
        assert "line 4: unknown tag 'dig'; did you mean 'dog'?" in message
        assert "line 5: x 'one' and y '1' are not two numbers" in message

    def test_a_point_on_the_edge_stays_inside(self) -> None:
        x, y = fit_point(20.0, -0.5, (10, 20))
        assert (int(x), y) == (19, 0.0)

    def test_points_and_tags_files_taken_for_each_other(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        text = "file,x,y,label\na.png,1,1,dog\n"
        assert "read it with --format points" in problems(tmp_path, text, format="csv")
        assert "needs the header `filename,x,y,label`" in problems(tmp_path, "a.png,dog\n", format="points")


class TestFolders:
    def test_class_folders_negatives_and_photos_in_the_root(self, tmp_path: Path) -> None:
        photos(tmp_path, "dog/1.png", "cat/1.png", "cat/deep/2.jpg", "negatives/3.png", "4.png")
        (tmp_path / "empty").mkdir()
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert tags_of(hint_set) == {
            "4": None,
            "cat/1": {"cat"},
            "cat/deep/2": {"cat"},
            "dog/1": {"dog"},
            "negatives/3": set(),
        }

    def test_splits_above_the_class_folders(self, tmp_path: Path) -> None:
        photos(tmp_path, "train/dog/1.png", "train/cat/1.png", "valid/dog/2.png")
        hint_set = read_hints(tmp_path)
        assert hint_set.classes == ("cat", "dog")
        assert dict(hint_set.splits) == {"train": ("train/cat/1", "train/dog/1"), "val": ("valid/dog/2",)}

    def test_a_label_file_is_refused(self, tmp_path: Path) -> None:
        photos(tmp_path, "dog/1.png")
        assert "the format 'folders' has no label file" in problems(tmp_path, "x", format="folders")


class TestClsLabels:
    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    @pytest.mark.parametrize("numbers", [np.float32, np.int64, np.bool_])
    def test_every_pickle_protocol(self, tmp_path: Path, protocol: int, numbers: type[np.generic]) -> None:
        photos(tmp_path, "a.png", "b.png", "c.png")
        (tmp_path / "classes.txt").write_text("x\ny\nz\n")
        content = np.array({"a": np.array([1, 0, 1], dtype=numbers), "b": np.zeros(3, dtype=numbers)}, dtype=object)
        self.save(tmp_path / "cls_labels.npy", pickle.dumps(content, protocol))
        assert tags_of(read_hints(tmp_path)) == {"a": {"x", "z"}, "b": set(), "c": None}

    def test_numpy_itself_and_integer_keys_of_voc(self, tmp_path: Path) -> None:
        photos(tmp_path / "JPEGImages", "2007_000032.jpg")
        vector = np.zeros(20, dtype=np.float32)
        vector[14] = 1
        np.save(tmp_path / "cls_labels.npy", {np.int32(2007000032): vector})  # type: ignore[arg-type]
        assert tags_of(read_hints(tmp_path)) == {"2007_000032": {"person"}}

    def test_loading_never_runs_code(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("x\n")
        mark = tmp_path / "was-run"

        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(mark),)

        payload = pickle.dumps(np.array({"a": Evil()}, dtype=object))
        pickle.loads(payload)
        assert mark.is_dir(), "the test's own payload must work where nothing guards it"
        mark.rmdir()
        self.save(tmp_path / "cls_labels.npy", payload)
        with pytest.raises(LabelError, match=r"asks for 'posix.mkdir'.*must never run its code"):
            read_hints(tmp_path)
        assert not mark.exists()

    @pytest.mark.parametrize("name", ["builtins eval", "numpy load", "numpy.core.multiarray fromfile", "os system"])
    def test_other_names_are_refused(self, tmp_path: Path, name: str) -> None:
        photos(tmp_path, "a.png")
        self.save(tmp_path / "cls_labels.npy", f"c{name.replace(' ', chr(10))}\n(S'1'\ntR.".encode())
        with pytest.raises(LabelError, match=r"asks for"):
            read_hints(tmp_path)

    def test_a_broken_byte_does_not_take_all_memory(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        self.save(tmp_path / "cls_labels.npy", b"\x80\x02}r\xff\xff\xff\xff.")
        with pytest.raises(LabelError, match="states more entries than it has bytes"):
            read_hints(tmp_path)

    def test_wrong_contents(self, tmp_path: Path) -> None:
        photos(tmp_path, "a.png")
        (tmp_path / "classes.txt").write_text("x\ny\n")
        np.save(tmp_path / "numbers.npy", np.zeros(3))
        np.save(tmp_path / "bad.npy", {"a": np.array([0, 2]), "z": np.array([0, 1])})  # type: ignore[arg-type]
        np.save(tmp_path / "texts.npy", {"a": "x"})  # type: ignore[arg-type]
        (tmp_path / "cut.npy").write_bytes((tmp_path / "bad.npy").read_bytes()[:-20])
        for name, expected in [
            ("numbers", "holds an array of shape (3,)"),
            ("bad", "entry 'a': needs 2 values 0 or 1"),
            ("bad", "entry 'z': there is no photo 'z'"),
            ("texts", "entry 'a': is no 0/1 vector"),
            ("cut", "it may be cut off"),
            ("absent", "missing"),
        ]:
            with pytest.raises(LabelError) as caught:
                read_hints(tmp_path, tmp_path / f"{name}.npy")
            assert expected in str(caught.value)

    @staticmethod
    def save(path: Path, payload: bytes) -> None:
        """Write a .npy file of one object around any pickle."""
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            file.write(payload)


def test_unknown_format_and_unlabelled_that_is_a_class(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    (tmp_path / "tags.csv").write_text("a.png,dog\n")
    with pytest.raises(ConfigError, match=r"unknown format 'cvs'; did you mean 'csv'\?"):
        read_hints(tmp_path, format="cvs")
    with pytest.raises(LabelError, match=r"unlabelled=1 is the id of class 'dog'"):
        read_hints(tmp_path, unlabelled=1)


def test_many_photos_are_not_opened(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / f"{index}.jpg").write_bytes(b"not a photo")
    (tmp_path / "tags.csv").write_text("".join(f"{index}.jpg,t{index % 3}\n" for index in range(300)))
    assert len(read_hints(tmp_path).photos) == 300
