"""Tables of boxes as people and tools write them, and Open Images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hintseg.hints import read_hints, recognise
from hintseg.types import Box, Mark, Region
from table_sets import absent, data, marks, note, refused, tags

BOX = Box(1, 2, 9, 8)
OPEN = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"


class TestColumns:
    @pytest.mark.parametrize(
        "text",
        [
            "file,x0,y0,x1,y1,label\na.png,1,2,9,8,cat\n",
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,20,10,cat,1,2,9,8\n",
            "image,x_min,y_min,x_max,y_max,category\na.png,1,2,9,8,cat\n",
            "image,left,top,right,bottom,class_name\na.png,1,2,9,8,cat\n",
            "image_path,bbox_x1,bbox_y1,bbox_x2,bbox_y2,species\nimages/a.png,1,2,9,8,cat\n",
            "file;x0;y0;x1;y1;label\na.png;1,0;2,0;9;8;cat\n",
            "Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;Label;Path\n20;10;1;2;9;8;cat;Train/a.png\n",
            "image_name,bbox_x,bbox_y,bbox_w,bbox_h,label\na.png,1,2,8,6,cat\n",
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\ncat,1,2,8,6,a.png,20,10\n",
            "file,x,y,width,height,label\na.png,1,2,8,6,cat\n",
            "file,xmin,ymin,w,h,label\na.png,1,2,8,6,cat\n",
            "file,x_center,y_center,width,height,label\na.png,5,5,8,6,cat\n",
            "file,cx,cy,w,h,label\na.png,5,5,8,6,cat\n",
            "file,x_center,y_center,width,height,label\na.png,0.25,0.5,0.4,0.6,cat\n",
            "file,xmin,ymin,xmax,ymax,label\na.png,0.05,0.2,0.45,0.8,cat\n",
            'image_id,width,height,bbox,label\na,20,10,"[1.0, 2.0, 8.0, 6.0]",cat\nb,20,10,"[12, 2, 8, 6]",cat\n',
            'image_id,width,height,bbox,label\na,20,10,"(1, 2, 9, 8)",cat\nb,20,10,"[12, 2, 20, 8]",cat\n',
            "a.png,1,2,9,8,cat\n",
            "./images/a.png,1,2,9,8,cat\nb.png,,,,,\n",
            "cat,1,2,8,6,a.png,20,10\n",
            "TRAIN,gs://bucket/a.png,cat,0.05,0.2,,,0.45,0.8,,\n",
        ],
    )
    def test_all_ways_to_write_a_box(self, tmp_path: Path, text: str) -> None:
        hint_set = read_hints(data(tmp_path, text, "boxes.csv"))
        assert hint_set.classes == ("cat",)
        ((label, box), *_) = marks(hint_set)["a"]
        assert label == "cat"
        assert isinstance(box, Box)
        assert box.corners == pytest.approx(BOX.corners)

    def test_what_was_understood_is_said(self, tmp_path: Path) -> None:
        hint_set = read_hints(data(tmp_path, "a.png,1,2,9,8,cat\nb.png,,,,,\n", "train.csv"))
        assert tags(hint_set) == {"a": {"cat"}, "b": set()}
        assert note(hint_set, "train.csv has no header; its columns are taken to be file, x1, y1, x2, y2, label")
        assert note(hint_set, "1 photos have no box in train.csv: they are taken to show none of the classes")

    def test_columns_of_numbers_that_may_mean_two_things(self, tmp_path: Path) -> None:
        text = 'image,bbox,label\na,"[1, 2, 8, 6]",cat\n'
        assert "may hold x0, y0, x1, y1 or x, y, width, height (both fits all rows)" in refused(data(tmp_path, text))
        text = "file,x,y,width,height,label\na.png,0.8,0.8,0.4,0.4,cat\n"
        assert "if those are the centre, call them x_center and y_center" in refused(data(tmp_path, text))

    def test_a_size_that_is_not_the_photos(self, tmp_path: Path) -> None:
        text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,{},cat,2,4,18,16\n"
        hint_set = read_hints(data(tmp_path, text.format("40,20")))
        assert marks(hint_set) == {"a": [("cat", BOX)]}
        assert note(
            hint_set, "the annotations of 1 photos in tags.csv are drawn on 40 x 20, the photos are 20 x 10 now"
        )
        assert "is 20 x 10 pixels (EXIF applied), but the file says 40 x 40" in refused(
            data(tmp_path, text.format("40,40"))
        )

    def test_four_corners_are_an_outline(self, tmp_path: Path) -> None:
        header = "image,x1,y1,x2,y2,x3,y3,x4,y4,label\n"
        text = header + "a.png,6,2,12,4,10,8,4,6,ship\nb.png,,,,,,,,,\nc.png,2,2,9,2,9,8,2,8,ship\n"
        hint_set = read_hints(data(tmp_path, text))
        assert marks(hint_set) == {"a": [("ship", Box(4, 2, 12, 8))], "c": [("ship", Box(2, 2, 9, 8))]}
        assert hint_set.photos[0].truth == (Mark(1, Region(((6, 2, 12, 4, 10, 8, 4, 6),)), 1),)
        shares = header.replace("x1,y1", "x0,y0") + "a.png,0.3,0.2,0.6,0.4,0.5,0.8,0.2,0.6,ship\n"
        shares = shares.replace("x2,y2", "x1,y1").replace("x3,y3", "x2,y2").replace("x4,y4", "x3,y3")
        assert marks(read_hints(data(tmp_path, shares))) == {"a": [("ship", Box(4, 2, 12, 8))]}
        crossing = header + "a.png,2,2,9,2,2,8,9,8,ship\nb.png,2,2,9,2,9,8,2,,ship\n"
        message = refused(data(tmp_path, crossing))
        assert "line 2: the lines between its four corners cross; give them in their order" in message
        assert "is not eight numbers" in message


class TestRows:
    def test_one_bad_row_does_not_cost_the_table(self, tmp_path: Path) -> None:
        good = "".join(f"{photo}.png,1,2,9,8,cat\n" for photo in "aaabc").replace("a.png,1", "a.png,3", 1)
        for bad, other in {
            "d.png,1,2,x,8,cat": set(),
            "d.png,1,2,9,8,": set(),
            "d.png,1,2,9,,dog": {"cat"},
            "d.png,5,5,5,9,dog": {"cat"},
        }.items():
            hint_set = read_hints(data(tmp_path, f"file,x0,y0,x1,y1,label\n{good}{bad}\n"))
            assert note(hint_set, "1 of 6 annotations in tags.csv are left out: line 7: ")
            assert set(marks(hint_set)) == {"a", "b", "c"}
            assert (tags(hint_set).get("d", set()), absent(hint_set).get("d", set())) == (set(), other), (
                "its photo is no negative"
            )
            assert note(hint_set, "1 annotations that repeat another are left out")

    def test_rows_without_a_box(self, tmp_path: Path) -> None:
        text = "file,x0,y0,x1,y1,label\na.png,1,2,9,8,cat\na.png,,,,,dog\nb.png,nan,nan,nan,nan,nan\nc.png\n"
        hint_set = read_hints(data(tmp_path, text))
        assert tags(hint_set) == {"a": {"cat", "dog"}, "b": set(), "c": set()}
        assert marks(hint_set) == {"a": [("cat", BOX)]}

    def test_confidences(self, tmp_path: Path) -> None:
        text = "file,x0,y0,x1,y1,label,score\na.png,1,2,9,8,cat,0.5\nb.png,1,2,9,8,cat,\nc.png,1,2,9,8,cat,87\n"
        hint_set = read_hints(data(tmp_path, text))
        assert [mark.trust for photo in hint_set.photos for mark in photo.hints.marks] == [0.5, 1.0, 0.87]

    def test_tables_that_name_no_class(self, tmp_path: Path) -> None:
        text = "file,x0,y0,x1,y1\na.png,1,2,9,8\n"
        hint_set = read_hints(data(tmp_path, text))
        assert marks(hint_set) == {"a": [("object", BOX)]}
        assert note(
            hint_set, "no column of tags.csv names a class: all is 'object'; one line in classes.txt renames it"
        )
        assert marks(read_hints(data(tmp_path, text, files={"classes.txt": "cat\n"}))) == {"a": [("cat", BOX)]}
        message = refused(data(tmp_path, text, files={"classes.txt": "cat\ndog\n"}))
        assert message.endswith("no column names the class, but classes.txt lists 2; add a column `label`")

    def test_ids_of_classes(self, tmp_path: Path) -> None:
        text = "a.png,1,2,9,8,0\nb.png,1,2,9,8,1\n"
        assert note(read_hints(data(tmp_path, text)), "the classes in tags.csv are numbers (0 and 1); are they ids?")
        hint_set = read_hints(data(tmp_path, text, files={"classes.txt": "cat\ndog\n"}))
        assert marks(hint_set) == {"a": [("cat", BOX)], "b": [("dog", BOX)]}

    def test_unknown_classes(self, tmp_path: Path) -> None:
        text = "file,x0,y0,x1,y1,label\na.png,1,2,9,8,cta\n"
        message = refused(data(tmp_path, text, files={"classes.txt": "cat\ndog\n"}))
        assert "line 2: unknown tag 'cta'; did you mean 'cat'?" in message

    def test_splits_and_what_is_not_read(self, tmp_path: Path) -> None:
        text = "file,x0,y0,x1,y1,label,subset,area\na.png,1,2,9,8,cat,train,48\nb.png,1,2,9,8,cat,val,48\n"
        hint_set = read_hints(data(tmp_path, text))
        assert hint_set.splits == {"train": ("a",), "val": ("b",)}
        assert note(hint_set, "columns of tags.csv that are not read: 'area'")

    def test_tables_in_the_folders_of_splits(self, tmp_path: Path) -> None:
        table = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,20,10,{},1,2,9,8\n"
        files = {"valid/_annotations.csv": table.format("dog")}
        photos = ("train/a.png", "valid/a.png")
        folder = data(tmp_path, table.format("cat"), "train/_annotations.csv", photos=photos, files=files)
        assert recognise(folder) == "csv"
        assert marks(read_hints(folder)) == {"train/a": [("cat", BOX)], "valid/a": [("dog", BOX)]}
        assert dict(read_hints(folder).splits) == {"train": ("train/a",), "val": ("valid/a",)}


class TestOpenImages:
    def test_boxes_are_shares_and_groups_are_crowds(self, tmp_path: Path) -> None:
        text = OPEN + "a,xclick,/m/01,1,0.05,0.45,0.2,0.8,0,0,0,0\nb,xclick,/m/02,1,0.05,0.45,0.2,0.8,0,0,1,0\n"
        files = {"class-descriptions-boxable.csv": "/m/01,Cat\n/m/02,Guide dog\n/m/03,Fox\n"}
        hint_set = read_hints(data(tmp_path, text, "train-annotations-bbox.csv", files=files))
        assert hint_set.classes == ("Cat", "Guide dog")
        assert marks(hint_set) == {"a": [("Cat", BOX)], "b": [("crowd", BOX)]}
        assert (tags(hint_set), absent(hint_set)) == ({"a": {"Cat"}, "b": {"Guide dog"}}, {"a": set(), "b": set()})

    def test_labels_of_whole_photos_say_what_is_absent(self, tmp_path: Path) -> None:
        text = "ImageID,Source,LabelName,Confidence\na,verification,/m/01,1\na,verification,/m/02,0\nb,crowd,/m/02,1\n"
        hint_set = read_hints(data(tmp_path, text + "c,machine,/m/01,0.7\n", "labels.csv"))
        assert (tags(hint_set), absent(hint_set)) == (
            {"a": {"/m/01"}, "b": {"/m/02"}},
            {"a": {"/m/02"}, "b": set()},
        )
        assert note(hint_set, "1 lines of labels.csv with a confidence between 0 and 1 are left out")
        assert note(hint_set, "2 classes are ids (/m/01 and /m/02); Open Images' table class-descriptions-boxable.csv")
