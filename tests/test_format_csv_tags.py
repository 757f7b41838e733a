"""Tables of tags as people and tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintseg.errors import LabelError
from hintseg.formats.csv_tags import in_cells
from hintseg.formats.problems import Problems, decode
from hintseg.hints import read_hints, recognise
from table_sets import absent, data, note, refused, tags

CAT_DOG = {"a": {"cat"}, "b": {"dog"}}


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            "file,label\ra.png,cat\rb.png,dog\r",
            "file,label\r\n\r\na.png,cat\r\n\r\nb.png,dog",
            "sep=;\nfile;label\na.png;cat\nb.png;dog\n",
            '"sep=,"\r\nfile,label\r\na.png,cat\r\nb.png,dog\r\n',
            "file|label\na.png|cat\nb.png|dog\n",
            "file\tlabel\na.png\tcat\nb.png\tdog\n",
            '"file","label"\n"a.png", "cat"\n"b.png", "dog"\n',
            "\ufefffile;label\na.png;cat\nb.png;dog\n",
        ],
    )
    def test_separators_line_ends_and_blank_lines(self, tmp_path: Path, text: str) -> None:
        assert tags(read_hints(data(tmp_path, text))) == CAT_DOG

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
    def test_encodings_of_spreadsheets(self, tmp_path: Path, encoding: str) -> None:
        text = "file\tlabel\na.png\tcat\nb.png\tdog\n"
        assert tags(read_hints(data(tmp_path, text.encode(encoding)))) == CAT_DOG

    def test_a_code_page_is_read_and_said(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file;label\na.png;Kühe\nb.png;Straße\n".encode("cp1252")))
        assert tags(hint_set) == {"a": {"Kühe"}, "b": {"Straße"}}
        assert note(hint_set, "tags.csv is not UTF-8 and read as Windows-1252; line 2 then says 'a.png;Kühe'")

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (b"PK\x03\x04\x14\x00", "is a zip archive, as Excel's workbooks are; save it as CSV"),
            (b"\xff\xd8\xff\xe0\x00\x10JFIF,,", "it holds zero bytes"),
            (b"\xff\xfef\x00i\x00l", "is cut off"),
            (b"a.png,caf\x81\n", "line 1: byte 0x81 is not UTF-8"),
            (b"a.png,\xe9\x01\n", "line 1: byte 0xe9 is not UTF-8"),
        ],
    )
    def test_what_is_no_text(self, tmp_path: Path, content: bytes, part: str) -> None:
        assert part in refused(data(tmp_path, content))

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff", exclude_categories=["Cs"])))
    def test_unicode_text_is_decoded(self, text: str) -> None:
        assert decode(text.encode("utf-8-sig")) == text
        if "\x04\x03" not in text:
            assert decode(text.encode("utf-16")) == text

    def test_the_separator_is_what_stands_after_the_first_cell(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "a.png,cat|dog|fox\nb.png,cat\nc.png,dog\nd.png,fox|cat\n"))
        assert tags(hint_set)["a"] == {"cat", "dog", "fox"}


class TestColumns:
    @pytest.mark.parametrize(
        "text",
        [
            ",file,label\n0,a.png,cat\n1,b.png,dog\n",
            "Unnamed: 0,file,label\n0,a.png,cat\n1,b.png,dog\n",
            '"file" "label"\n"1" "a.png" "cat"\n"2" "b.png" "dog"\n'.replace(" ", ","),  # R
            "file,label\na.png,cat,\nb.png,dog,\n",
            "Image Index,Finding Labels\na.png,cat\nb.png,dog\n",
            "image_id,label_id,label_name\na,0,cat\nb,1,dog\n",
            "label,image\ncat,a.png\ndog,b.png\n",
            "id,path,class\n7,x/y/a.png,cat\n8,x/y/b.png,dog\n",
            "cat,a.png\ndog,b.png\n",
            "a,cat\nb,dog\n",
        ],
    )
    def test_the_columns_are_found(self, tmp_path: Path, text: str) -> None:
        assert tags(read_hints(data(tmp_path, text))) == CAT_DOG

    @pytest.mark.parametrize("suffix", [".png", ""])
    def test_headers_that_are_not_known(self, tmp_path: Path, suffix: str) -> None:
        text = f"Bild;Klasse\na{suffix};Katze\nb{suffix};Hund\nc{suffix};Hund\n"
        hint_set = read_hints(data(tmp_path, text))
        assert tags(hint_set) == {"a": {"Katze"}, "b": {"Hund"}, "c": {"Hund"}}
        assert note(hint_set, "the first line of tags.csv (Bild, Klasse) is taken to be its header")
        assert note(hint_set, "the column 'Klasse' of tags.csv is taken to be its tags")

    def test_a_first_line_that_looks_like_the_others_is_no_header(self, tmp_path: Path) -> None:
        text = "p9,fox\np1,dog\np2,cat\n"
        assert "line 1: there is no photo 'p9'" in refused(data(tmp_path, text, photos=("p1.png", "p2.png")))

    def test_columns_that_are_not_read_are_named(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,label,camera,width\na.png,cat,A,20\nb.png,dog,B,20\n"))
        assert tags(hint_set) == CAT_DOG
        assert note(hint_set, "columns of tags.csv that are not read: 'camera' and 'width'")

    def test_a_table_that_is_not_understood_is_one_problem(self, tmp_path: Path) -> None:
        rows = "".join(f"a.png,sunny,{n}\n" for n in range(50))
        message = refused(data(tmp_path, f"file,weather,camera\n{rows}b.png,x\n"))
        assert message.startswith("1 problem in tags.csv:\n  columns found: 'file', 'weather' and 'camera'")
        assert "most lines have 3 cells, not so line 52; a table needs a first line with `file` and: `tags`" in message
        assert "no header found; it starts with 'x,y'" in refused(data(tmp_path / "2", "x,y\n1,2\n3,4\n"))

    @pytest.mark.parametrize(
        ("text", "splits"),
        [
            ("filename,label,split\na.png,cat,train\nb.png,dog,Validation\n", {"train": ("a",), "val": ("b",)}),
            ("label,set,filename\ncat,TEST,a.png\ndog,training,b.png\n", {"test": ("a",), "train": ("b",)}),
            ("fname,labels,is_valid\na.png,cat,False\nb.png,dog,True\n", {"train": ("a",), "val": ("b",)}),
        ],
    )
    def test_a_column_of_splits(self, tmp_path: Path, text: str, splits: dict[str, tuple[str, ...]]) -> None:
        hint_set = read_hints(data(tmp_path, text))
        assert (tags(hint_set), hint_set.splits) == (CAT_DOG, splits)

    def test_folds_are_no_splits(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,label,fold\na.png,cat,0\nb.png,dog,1\n"))
        assert (tags(hint_set), hint_set.splits) == (CAT_DOG, {})
        assert note(hint_set, "the column 'fold' of tags.csv is not used as splits: it holds '0' and '1'")

    def test_a_table_for_each_split(self, tmp_path: Path) -> None:
        files = {"val.csv": "file,label\nb.png,dog\n", "sample_submission.csv": "id,x\n1,2\n"}
        hint_set = read_hints(data(tmp_path, "file,label\na.png,cat\n", "train.csv", files=files))
        assert (tags(hint_set), hint_set.splits) == (CAT_DOG, {"train": ("a",), "val": ("b",)})

    def test_roboflow_has_a_table_in_each_folder(self, tmp_path: Path) -> None:
        photos = ("train/a.png", "train/b.png", "valid/a.png", "valid/c.png")
        table = "filename, cat, dog, Unlabeled\na.png, 1, 0, 0\n{}.png, 0, {}, {}\n"
        files = {"valid/_classes.csv": table.format("c", 0, 1)}
        hint_set = read_hints(data(tmp_path, table.format("b", 1, 0), "train/_classes.csv", photos=photos, files=files))
        assert recognise(tmp_path) == "csv"
        assert hint_set.classes == ("cat", "dog")
        assert hint_set.splits["train"] == ("train/a", "train/b")
        assert tags(hint_set) == {"train/a": {"cat"}, "train/b": {"dog"}, "valid/a": {"cat"}}
        assert note(hint_set, "1 photos of valid/_classes.csv are marked as unlabelled and left so")

    def test_tables_of_other_things_are_left_alone(self, tmp_path: Path) -> None:
        folder = data(tmp_path, "file,camera,iso\na.png,A,100\nb.png,B,200\n", "exif.csv")
        assert "no known labels" in refused(folder)

    def test_several_tables(self, tmp_path: Path) -> None:
        boxes = "file,x0,y0,x1,y1,label\na.png,1,1,5,5,cat\n"
        hint_set = read_hints(data(tmp_path, "a.png,cat\nb.png,dog\n", files={"boxes.csv": boxes}))
        assert note(hint_set, "boxes.csv beside tags.csv are not read; name each with a --labels of its own")
        two = data(tmp_path / "2", "file,label\na.png,cat\n", "one.csv", files={"two.csv": "file,label\na.png,dog\n"})
        assert "holds 2 tables of labels: one.csv and two.csv; name one with --labels FILE" in refused(two)


class TestCells:
    @pytest.mark.parametrize(
        "text",
        [
            "file,tags\na.png,cat dog\nb.png,dog\nc.png,cat\nd.png,dog cat fox\n",
            "file,tags\na.png,cat|dog\nb.png,dog\nc.png,cat\nd.png,dog|cat|fox\n",
            "file,tags\na.png,cat;dog\nb.png,dog\nc.png,cat\nd.png,dog;cat;fox;\n",
            'file,tags\na.png,"cat, dog"\nb.png,dog\nc.png,cat\nd.png,"dog, cat, fox"\n',
            "file,tags\na.png,cat + dog\nb.png,dog\nc.png,cat\nd.png,dog+cat+fox\n",
            "file,tags\na.png,\"['cat', 'dog']\"\nb.png,['dog']\nc.png,['cat']\nd.png,\"['dog', 'cat', 'fox']\"\n",
            'file,tags\na.png,"[""cat"", ""dog""]"\nb.png,dog\nc.png,cat\nd.png,"[""dog"", ""cat"", ""fox""]"\n',
            'file,tags\na.png,"{""choices"": [""cat"", ""dog""]}"\nb.png,dog\nc.png,cat\nd.png,"(dog, cat, fox)"\n',
            "file,tag,tag,tag\na.png,cat,dog,\nb.png,dog,,\nc.png,cat,,\nd.png,dog,cat,fox\n",
            "file,tag1,tag2,tag3\na.png,cat,dog,\nb.png,dog,,\nc.png,cat,,\nd.png,dog,cat,fox\n",
            "file,tag\na.png,cat\na.png,dog\nb.png,dog\nc.png,cat\nd.png,dog\nd.png,cat\nd.png,fox\n",
            "a.png,cat,dog\nb.png,dog\nc.png,cat\nd.png,dog,cat,fox\n",
        ],
    )
    def test_all_ways_to_give_several_tags(self, tmp_path: Path, text: str) -> None:
        hint_set = read_hints(data(tmp_path, text))
        assert hint_set.classes == ("cat", "dog", "fox")
        assert tags(hint_set) == {"a": {"cat", "dog"}, "b": {"dog"}, "c": {"cat"}, "d": {"dog", "cat", "fox"}}

    def test_what_is_split_is_said(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,tags\na.png,cat dog\nb.png,dog\nc.png,cat\n"))
        assert note(
            hint_set, "1 cells of tags.csv hold several tags, separated by spaces: 'cat dog' is 'cat' and 'dog'"
        )

    @pytest.mark.parametrize(
        "cells",
        [
            ["red panda", "panda", "red fox", "fox"],  # `red` is no tag
            ["cat dog", "dog fox", "fox cat"],  # each word comes again
        ],
    )
    def test_names_of_several_words_that_may_be_several_tags_are_asked_about(
        self, tmp_path: Path, cells: list[str]
    ) -> None:
        rows = "".join(f"{photo}.png,{text}\n" for photo, text in zip("abcd", cells, strict=False))
        message = refused(data(tmp_path, f"file,tags\n{rows}"))
        assert f"are tags such as '{cells[0]}'" in message
        assert "one class or several? Separate several by '|', or list the classes in classes.txt" in message

    def test_names_of_several_words_are_said(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,tag\na.png,traffic light\nb.png,potted plant\n"))
        assert hint_set.classes == ("potted plant", "traffic light")
        assert note(
            hint_set, "names of several words are one class each in tags.csv: 'traffic light' and 'potted plant'"
        )

    def test_names_with_commas_are_asked_about(self, tmp_path: Path) -> None:
        message = refused(data(tmp_path, 'file,tag\na.png,"salmon, atlantic"\nb.png,"cod, pacific"\n'))
        assert "the tag 'cod, pacific' looks like several, separated by ','" in message

    def test_a_class_list_decides(self, tmp_path: Path) -> None:
        listed = {"classes.txt": "traffic light\ntraffic\nlight\nbig, red\n"}
        text = 'file,tag\na.png,traffic light\nb.png,light traffic\nc.png,"big, red"\nd.png,light;big red\n'
        message = refused(data(tmp_path, text, files=listed))
        assert message.startswith("1 problem in tags.csv:\n  line 5: unknown tag 'big red'; did you mean 'big, red'?")
        hint_set = read_hints(data(tmp_path, text.replace("big red", "traffic light"), files=listed))
        assert tags(hint_set) == {
            "a": {"traffic light"},
            "b": {"light", "traffic"},
            "c": {"big, red"},
            "d": {"light", "traffic light"},
        }

    @given(st.lists(st.lists(st.sampled_from(["cat", "dog", "fox", "big dog"]), min_size=1, unique=True), min_size=1))
    def test_lists_of_python_are_always_split(self, rows: list[list[str]]) -> None:
        counts = {str(row): 1 for row in rows}
        assert in_cells(counts, None, "t", Problems(), []) == {str(row): tuple(row) for row in rows}

    def test_tools_words_for_empty_cells_are_asked_about_once(self, tmp_path: Path) -> None:
        text = "file,label\na.png,nan\nb.png,None\nc.png,-\nd.png,dog\n"
        message = refused(data(tmp_path, text))
        assert message.startswith("1 problem in tags.csv:\n  3 times the tag is 'nan', 'None', '-', which tools write")
        assert "(line 2, line 3, line 4): leave the cell empty where the photo shows none of the classes" in message
        assert "3 times the tag is" in refused(data(tmp_path, text, files={"classes.txt": "dog\n"}))
        hint_set = read_hints(data(tmp_path, text, files={"classes.txt": "nan\nNone\n-\ndog\n"}))
        assert tags(hint_set)["a"] == {"nan"}

    def test_empty_cells_are_negatives_and_counted(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,label\na.png,\nb.png,dog\nc.png,[]\n"))
        assert tags(hint_set) == {"a": set(), "b": {"dog"}, "c": set()}
        assert note(hint_set, "2 photos have no tag in tags.csv: they are taken to show none of the classes")
        message = refused(data(tmp_path, "file,tag\na.png,cat\nb.png,dog\na.png,\n"))
        assert "line 4: 'a.png' has no tag, but line 2 gives it one; delete one of them" in message

    def test_spellings_of_one_class_are_joined_and_said(self, tmp_path: Path) -> None:
        folder = data(tmp_path, "file,label\na.png,Cat\nb.png,cat\nc.png,cat|dog\nd.png,dog|Guide  Dog\n")
        hint_set = read_hints(folder)
        assert hint_set.classes == ("Guide Dog", "cat", "dog")
        assert tags(hint_set) == {"a": {"cat"}, "b": {"cat"}, "c": {"cat", "dog"}, "d": {"dog", "Guide Dog"}}
        assert note(hint_set, "1 times the class 'Cat' is taken to be 'cat'")
        (folder / "classes.txt").write_text("Cat\ncat\ndog\nGuide Dog\n")  # a list tells them apart
        assert tags(read_hints(folder))["a"] == {"Cat"}


class TestNumbers:
    def test_numbers_as_classes_are_asked_about(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "id,label\na,0.0\nb,1.0\nc,10\n"))
        assert hint_set.classes == ("0", "1", "10")
        assert note(hint_set, "the classes in tags.csv are numbers (0, 1 and 10); are they ids?")

    @pytest.mark.parametrize(
        ("listed", "expected"),
        [
            ("cat\ndog\nfox\n", {"a": {"cat"}, "b": {"dog"}, "c": {"fox"}}),
            ("cat\ndog\n", {"a": set(), "b": {"cat"}, "c": {"dog"}}),  # 0 is background
            ("0\n1\n2\n", {"a": {"0"}, "b": {"1"}, "c": {"2"}}),
        ],
    )
    def test_a_class_list_says_what_they_mean(self, tmp_path: Path, listed: str, expected: dict[str, set[str]]) -> None:
        folder = data(tmp_path, "id,label\na,0\nb,1\nc,2\n", files={"classes.txt": listed})
        assert tags(read_hints(folder)) == expected

    def test_a_class_list_of_another_length_does_not(self, tmp_path: Path) -> None:
        message = refused(data(tmp_path, "id,label\na,1\nb,2\n", files={"classes.txt": "cat\ndog\nfox\n"}))
        assert "its classes are numbers (1 and 2), and classes.txt has 3 names" in message

    @pytest.mark.parametrize("row", ["a.png,1,2,9,8", "a.png,3,4,dog", "dog,1,2,9,8,a.png"])
    def test_coordinates_are_no_tags(self, tmp_path: Path, row: str) -> None:
        message = refused(data(tmp_path, f"{row}\n"))
        assert message.startswith("1 problem in tags.csv:\n  it has no header")
        assert "are they a box or a point?" in message


class TestOneHot:
    @pytest.mark.parametrize(
        "text",
        [
            "file,cat,dog\na.png,1,0\nb.png,0,1\n",
            "file,cat,dog\na.png,1.0,0.0\nb.png,0.0,1.0\n",
            "file,cat,dog\na.png,True,False\nb.png,False,True\n",
            "file,cat,dog\na.png,yes,no\nb.png,no,yes\n",
            "file,cat,dog\na.png,x,\nb.png,,x\n",
            "file,cat,dog\na.png,1,\nb.png,,1\n",
            "file,cat,dog\na.png,1,-1\nb.png,-1,1\n",
            ",file,split,cat,dog\n0,a.png,train,1,0\n1,b.png,val,0,1\n",
            "cat,dog,width,file\n1,0,20,a.png\n0,1,20,b.png\n",
        ],
    )
    def test_all_ways_to_say_yes_and_no(self, tmp_path: Path, text: str) -> None:
        hint_set = read_hints(data(tmp_path, text))
        assert hint_set.classes == ("cat", "dog")
        assert (tags(hint_set), absent(hint_set)) == (CAT_DOG, {"a": {"dog"}, "b": {"cat"}})

    def test_empty_beside_zeros_is_not_said(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,cat,dog\na.png,1,0\nb.png,,1\nc.png,0,?\n"))
        assert tags(hint_set) == {"a": {"cat"}, "b": {"dog"}, "c": set()}
        assert absent(hint_set) == {"a": {"dog"}, "b": set(), "c": {"cat"}}
        assert note(hint_set, "2 cells of tags.csv are empty or ?: nothing is said of those classes in those photos")

    def test_what_is_not_clear(self, tmp_path: Path) -> None:
        assert "its cells are -1, 0 and 1; write 1 where a class is there" in refused(
            data(tmp_path, "file,cat,dog\na.png,1,-1\nb.png,0,1\n")
        )
        message = refused(data(tmp_path, "file,cat,dog\na.png,1,0\na,0,1\n"))
        assert "line 3: of 'cat' it is said that it is in the photo, and that it is not" in message
        assert "class 'cat' has 2 columns" in refused(data(tmp_path, "file,cat,cat\na.png,1,0\n"))
        files = {"val.csv": "file,cat,fox\nb.png,1,0\n", "tags.csv": "file,x\n"}
        (tmp_path / "2").mkdir()
        data(tmp_path / "2", "file,cat,dog\na.png,1,0\n", "train.csv", files=files)
        (tmp_path / "2" / "tags.csv").unlink()
        assert "their headers name different classes" in refused(tmp_path / "2")

    def test_one_class_and_background(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "file,background,cat\na.png,0,1\nb.png,1,0\n"))
        assert (hint_set.classes, tags(hint_set)) == (("cat",), {"a": {"cat"}, "b": set()})
        assert tags(read_hints(data(tmp_path, "file,cat\na.png,1\nb.png,0\n"))) == {"a": {"cat"}, "b": set()}


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"other\.csv are missing"):
        read_hints(data(tmp_path, "a.png,cat\n"), tmp_path / "other.csv")
