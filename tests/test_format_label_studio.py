"""Label Studio's JSON as it is exported, and tasks with predictions; its own converter is the oracle."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintseg.errors import LabelError
from hintseg.formats.brush import decode_brush, encode_brush
from hintseg.geometry import runs
from hintseg.hints import read_hints, recognise
from hintseg.hints.convert import writer
from hintseg.hints.masks import read_mask
from hintseg.types import IGNORE, Box, Click, Hints, HintSet, Mark, Photo, Region, Stroke, Tags
from label_sets import NAMES, full_set, outline_of, photo_files, same_marks, same_masks, same_tags

REFERENCE = json.loads((Path(__file__).parent / "reference" / "formats" / "label_studio.json").read_text())


def region(kind: str = "rectanglelabels", label: str = "cat", **value: Any) -> dict[str, Any]:
    given_ = value or {"x": 25.0, "y": 50.0, "width": 50.0, "height": 30.0, "rotation": 0}
    sizes = {"original_width": 40, "original_height": 30, "image_rotation": 0}
    return {"type": kind, "from_name": "label", "to_name": "image", "value": {**given_, kind: [label]}, **sizes}


def choice(*words: str, question: str = "choice") -> dict[str, Any]:
    return {"type": "choices", "from_name": question, "to_name": "image", "value": {"choices": [*words]}}


def task(*results: dict[str, Any], photo: str = "p0.png", **more: Any) -> dict[str, Any]:
    return {"data": {"image": photo}, "annotations": [{"result": [*results]}], **more}


def put(folder: Path, *tasks: dict[str, Any], photos: int = 3, **files: str) -> Path:
    photo_files(folder / "images", *(f"p{n}.png" for n in range(photos)))
    (folder / "project.json").write_text(json.dumps([{"id": n, **one} for n, one in enumerate(tasks)]))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def marks(hint_set: HintSet, photo: str = "p0") -> tuple[Mark[Any], ...]:
    return next(one.hints.marks for one in hint_set.photos if one.id == photo)


def tags(hint_set: HintSet, photo: str = "p0") -> set[str] | None:
    said = next(one.hints.tags for one in hint_set.photos if one.id == photo)
    return None if said is None else {hint_set.classes[label - 1] for label in said}


def note(hint_set: HintSet, part: str) -> bool:
    return any(part in one for one in hint_set.notes)


BOX = Box(10.0, 15.0, 30.0, 24.0)


class TestBrush:
    @pytest.mark.parametrize("given_", REFERENCE["brush"], ids=lambda one: f"{one['width']}x{one['height']}")
    def test_streams_of_label_studios_own_converter(self, given_: dict[str, Any]) -> None:
        size = given_["height"], given_["width"]
        flat = np.zeros(size[0] * size[1], bool)
        for start, end in zip(given_["edges"][0::2], given_["edges"][1::2], strict=True):
            flat[start:end] = True
        mask = flat.reshape(size)
        np.testing.assert_array_equal(runs.decode(decode_brush(given_["rle"], size)), mask)
        mine = encode_brush(runs.encode(mask))
        assert mine == given_["rle"][: len(mine)], "it pads one byte more where none is needed"

    @given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=9))
    def test_round_trip(self, rows: list[list[bool]]) -> None:
        coded = runs.encode(np.array(rows))
        assert decode_brush(encode_brush(coded), (len(rows), 4)) == coded

    def test_values_that_are_not_repeated(self) -> None:
        values = [9, 9, 9, 0, 9, 9, 9, 7]  # two pixels: alpha 0, alpha 7
        bits = f"{8:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
        bits += "0" + "00" + f"{len(values) - 1:03b}" + "".join(f"{value:08b}" for value in values)
        bits += "0" * (-len(bits) % 8)
        data = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
        assert runs.decode(decode_brush(data, (1, 2))).tolist() == [[False, True]]
        for wrong, part in [(data[:9], "cut off"), ([*data[:3], 9, *data[4:]], "hold 9 values"), (["a"], "no list of")]:
            with pytest.raises(LabelError, match=part):
                decode_brush(wrong, (1, 2))  # type: ignore[arg-type]

    def test_a_large_promise_is_refused_before_memory_is_taken(self) -> None:
        with pytest.raises(LabelError, match="at most"):
            decode_brush([255] * 20, (10**6, 10**6))


class TestRegions:
    def test_all_shapes(self, tmp_path: Path) -> None:
        mask = np.zeros((30, 40), bool)
        mask[3:9, 5:12] = True
        ring: dict[str, Any] = {"points": [[25, 50], [75, 50], [75, 80]], "closed": True}
        line: dict[str, Any] = {"vertices": [{"x": 10, "y": 10}, {"x": 50, "y": 50}], "closed": False}
        put(
            tmp_path,
            task(region(), region("keypointlabels", x=50.0, y=10.0, width=0.5), region("vectorlabels", **line)),
            task(
                region("polygonlabels", "dog", **ring),
                region("brushlabels", format="rle", rle=encode_brush(runs.encode(mask))),
                photo="p1.png",
            ),
            task(region("ellipselabels", x=50, y=50, radiusX=20, radiusY=10, rotation=0), photo="p2.png"),
        )
        found = read_hints(tmp_path)
        assert recognise(tmp_path) == "label_studio"
        assert marks(found) == (
            Mark(1, BOX, 1),
            Mark(1, Click(20.0, 3.0)),
            Mark(1, Stroke((4.0, 3.0, 20.0, 15.0))),
        )
        assert [mark.shape for mark in marks(found, "p1")] == [BOX, Box(5.0, 3.0, 12.0, 9.0)]
        truth = found.photos[1].truth
        assert isinstance(truth, tuple)
        assert truth[0].shape == Region(((10.0, 15.0, 30.0, 15.0, 30.0, 24.0),))
        assert outline_of(truth[1]).rle == runs.encode(mask)
        oval = read_mask(found.photos[2])
        assert oval is not None
        assert oval.sum() == pytest.approx(np.pi * 8 * 3, rel=0.05)
        assert np.allclose(marks(found, "p2")[0].shape.corners, (12, 12, 28, 18))

    @pytest.mark.parametrize("given_", REFERENCE["boxes"], ids=lambda one: f"{one['value']['rotation']}")
    def test_turned_boxes_lie_where_label_studio_says(self, tmp_path: Path, given_: dict[str, Any]) -> None:
        value = dict(given_["value"])
        one = region(**{key: value[key] for key in ("x", "y", "width", "height", "rotation")})
        one |= {"original_width": 200, "original_height": 100}
        photo_files(tmp_path, "p0.png", size=(100, 200))
        (tmp_path / "x.json").write_text(json.dumps([task(one)]))
        found = read_hints(tmp_path)
        xs, ys = zip(*given_["corners"], strict=True)
        expected = min(xs), min(ys), max(xs), max(ys)
        assert np.allclose(marks(found)[0].shape.corners, np.clip(expected, 0, (200, 100, 200, 100)))
        if value["rotation"]:
            assert note(found, "1 boxes are turned; their four corners are taken for the object's outline")
            truth = found.photos[0].truth
            assert isinstance(truth, tuple)
            assert np.allclose(outline_of(truth[0]).polygons[0], np.ravel(given_["corners"]))

    def test_labels_apart_from_their_shapes(self, tmp_path: Path) -> None:
        """`Labels` beside `Rectangle`: two results of one id."""
        shape = region()
        shape["value"].pop("rectanglelabels")
        name = {**shape, "type": "labels", "value": {**shape["value"], "labels": ["cat"]}}
        put(tmp_path, task({**shape, "type": "rectangle", "id": "a"}, {**name, "id": "a"}))
        assert marks(read_hints(tmp_path)) == (Mark(1, BOX, 1),)

    def test_several_labels_of_a_region_and_choices_of_one(self, tmp_path: Path) -> None:
        two = region(id="a")
        two["value"] = {**region()["value"], "rectanglelabels": ["cat", "dog"]}
        mood = {"id": "a", "type": "choices", "from_name": "mood", "value": {**region()["value"], "choices": ["angry"]}}
        found = read_hints(put(tmp_path, task({**two, "id": "a"}, mood)))
        assert (found.classes, marks(found)) == (("cat", "dog"), (Mark(1, BOX, 1), Mark(2, BOX, 1)))

    def test_without_sizes_percents_are_shares(self, tmp_path: Path) -> None:
        bare = region()
        for key in ("original_width", "original_height"):
            bare.pop(key)
        turned = {**bare, "value": {**bare["value"], "rotation": 30}}
        found = read_hints(put(tmp_path, task(bare, bare, bare, turned)))
        assert np.allclose(marks(found)[0].shape.corners, BOX.corners)
        assert note(found, "is turned, but lacks `original_width`")

    def test_the_size_of_another_picture(self, tmp_path: Path) -> None:
        half = {**region(), "original_width": 80, "original_height": 60}
        assert marks(read_hints(put(tmp_path, task(half)))) == (Mark(1, BOX, 1),)
        other = {**region(), "original_width": 80, "original_height": 30}
        with pytest.raises(LabelError, match="but the file says 80 x 30"):
            read_hints(put(tmp_path, task(other)))

    @pytest.mark.parametrize("turn", [90, 180, 270])
    def test_turning_the_view_does_not_move_regions(self, tmp_path: Path, turn: int) -> None:
        found = read_hints(put(tmp_path, task({**region(), "image_rotation": turn})))
        assert marks(found) == (Mark(1, BOX, 1),)
        assert note(found, "1 photos were turned in Label Studio")

    def test_bad_regions_do_not_cost_the_file(self, tmp_path: Path) -> None:
        good = [region(x=n, y=5, width=9, height=9) for n in range(9)]
        bad = [
            region(label="", x=1, y=1, width=5, height=5),
            region("brushlabels", rle=[1, 2, 3]),
            region("polygonlabels", points=[[1, 1], [9, 9], [1, 9]], closed=False),
            region("bitmasklabels", imageDataURL="data:image/png;base64,xx"),
        ]
        bad[0]["value"]["rectanglelabels"] = []
        found = read_hints(put(tmp_path, task(*good, *bad)))
        assert len(marks(found)) == 9
        assert note(found, "4 of 13 annotations in project.json are left out")
        with pytest.raises(LabelError, match="is a polygon that was not closed"):
            read_hints(put(tmp_path, task(*good[:2], *bad[1:])))


class TestTasks:
    def test_unlabelled_cancelled_and_empty(self, tmp_path: Path) -> None:
        cancelled = task(region(), photo="p0.png")
        cancelled["annotations"][0]["was_cancelled"] = True
        nobody: dict[str, Any] = {"data": {"image": "p1.png"}, "annotations": []}
        found = read_hints(
            put(tmp_path, cancelled, nobody, task(photo="p2.png"), task(region(), photo="p3.png"), photos=4)
        )
        assert [tags(found, f"p{n}") for n in range(4)] == [None, None, set(), {"cat"}]
        assert note(found, "2 tasks have no annotation that counts and stay unlabelled")

    @pytest.mark.parametrize(
        ("order", "expected"),
        [
            ([("dog", {}), ("cat", {"was_cancelled": True})], "dog"),
            ([("dog", {}), ("cat", {})], "cat"),
            ([("dog", {"ground_truth": True}), ("cat", {})], "dog"),
        ],
    )
    def test_of_several_annotators_one_counts(self, tmp_path: Path, order: list[Any], expected: str) -> None:
        several = [
            {"result": [region(label=label)], "created_at": f"2026-01-0{n + 1}T00:00:00Z", **more}
            for n, (label, more) in enumerate(order)
        ]
        found = read_hints(put(tmp_path, {"data": {"image": "p0.png"}, "annotations": several[::-1]}))
        assert tags(found) == {expected}
        assert note(found, "1 tasks have several annotations") is (
            len(several) > 1 and "was_cancelled" not in str(order)
        )

    def test_completions_of_old_versions(self, tmp_path: Path) -> None:
        old = {"data": {"image": "p0.png"}, "completions": [{"result": [region()], "created_at": 1590000000}]}
        assert marks(read_hints(put(tmp_path, old))) == (Mark(1, BOX, 1),)
        photo_files(tmp_path / "two" / "images", "p0.png")
        (tmp_path / "two" / "task.json").write_text(json.dumps({"id": 1, **old}))
        assert marks(read_hints(tmp_path / "two")) == (Mark(1, BOX, 1),)

    @pytest.mark.parametrize(
        ("address", "place"),
        [
            ("/data/upload/1/0a1b2c3d-p0.png", "p0.png"),
            ("/data/upload/1/0a1b2c3d-my_photo_1.png", "sub/my photo (1).png"),
            ("/data/local-files/?d=images/sub/a%20b.png", "sub/a b.png"),
            ("/data/local-files/?d=somewhere\\p0.png", "p0.png"),
            ("s3://bucket/images/sub/p0.png", "sub/p0.png"),
            ("https://host.example/x/p0.png?X-Amz-Signature=1/2", "p0.png"),
            (
                "/tasks/1/presign/?fileuri=" + base64.urlsafe_b64encode(b"gs://bucket/p0.png").decode().rstrip("="),
                "p0.png",
            ),
            ("p0.png", "p0.png"),
        ],
    )
    def test_addresses_of_photos(self, tmp_path: Path, address: str, place: str) -> None:
        photo_files(tmp_path / "images", place)
        (tmp_path / "x.json").write_text(json.dumps([task(region(), photo=address)]))
        assert len(read_hints(tmp_path).photos[0].hints.marks) == 1

    def test_other_names_of_the_data_and_several_photos(self, tmp_path: Path) -> None:
        one = task(region())
        one["data"] = {"caption": "a cat. Or two", "picture_file": "p0.png"}
        many = task({**region(), "item_index": 0}, {**region(label="dog"), "item_index": 1})
        many["data"] = {"images": ["p1.png", "p2.png"]}
        found = read_hints(put(tmp_path, one, many))
        assert [tags(found, f"p{n}") for n in range(3)] == [{"cat"}, {"cat"}, {"dog"}]

    @pytest.mark.parametrize(
        ("data", "part"),
        [({"image": "data:image/png;base64,aa"}, "is embedded"), ({"text": "hello"}, r"data \(text\) names a photo")],
    )
    def test_tasks_without_a_file(self, tmp_path: Path, data: dict[str, str], part: str) -> None:
        with pytest.raises(LabelError, match=part):
            read_hints(put(tmp_path, {**task(region()), "data": data}))

    def test_json_min(self, tmp_path: Path) -> None:
        size = {"original_width": 40, "original_height": 30}
        box = {**region()["value"], **size}
        end = {
            "annotator": 1,
            "annotation_id": 5,
            "created_at": "2026-01-01",
            "updated_at": "2026-01-01",
            "lead_time": 3,
        }
        rows = [
            {"image": "p0.png", "note": "sunny", "id": 1, "label": [box], **end},
            {"image": "p0.png", "note": "", "id": 1, "label": [], **end, "updated_at": "2025-01-01"},
            {"image": "p1.png", "note": "", "id": 2, "animal": {"choices": ["cat", "dog"]}, **end},
            {"image": "p2.png", "note": "", "id": 3, "animal": "dog", **end},
        ]
        found = read_hints(put(tmp_path, *rows))
        assert [tags(found, f"p{n}") for n in range(3)] == [{"cat"}, {"cat", "dog"}, {"dog"}]
        assert marks(found) == (Mark(1, BOX, 1),)

    def test_a_file_that_is_no_export(self, tmp_path: Path) -> None:
        put(tmp_path)
        (tmp_path / "project.json").write_text('["a"]')
        with pytest.raises(LabelError, match="must be a list of tasks"):
            read_hints(tmp_path, tmp_path / "project.json", format="label_studio")


class TestChoices:
    def test_choices_alone_are_tags(self, tmp_path: Path) -> None:
        found = read_hints(
            put(tmp_path, task(choice("cat", "dog")), task(choice("dog"), photo="p1.png"), task(photo="p2.png"))
        )
        assert [tags(found, f"p{n}") for n in range(3)] == [{"cat", "dog"}, {"dog"}, set()]

    def test_questions_about_the_photo_are_no_classes(self, tmp_path: Path) -> None:
        first = task(region(), choice("sunny", question="weather"))
        second = task(region(label="dog"), choice("rainy", question="weather"), photo="p1.png")
        found = read_hints(put(tmp_path, first, second))
        assert found.classes == ("cat", "dog")
        assert note(found, "the answers to 'weather' (rainy and sunny) are taken for properties")
        found = read_hints(put(tmp_path, first, second, classes__txt="cat\ndog\nsunny\nrainy\n"))
        assert tags(found) == {"cat", "sunny"}

    def test_choices_of_the_regions_classes_are_tags(self, tmp_path: Path) -> None:
        found = read_hints(put(tmp_path, task(region()), task(choice("cat", "cow"), photo="p1.png")))
        assert (found.classes, tags(found, "p1")) == (("cat", "cow"), {"cat", "cow"})

    def test_a_taxonomy(self, tmp_path: Path) -> None:
        def at(*paths: list[str]) -> dict[str, Any]:
            return {"type": "taxonomy", "from_name": "kind", "value": {"taxonomy": [*paths]}}

        found = read_hints(
            put(tmp_path, task(at(["animal", "cat"])), task(at(["pet", "other"], ["car", "other"]), photo="p1.png"))
        )
        assert found.classes == ("car / other", "cat", "pet / other")

    def test_texts_and_ratings_are_left_out_with_a_note(self, tmp_path: Path) -> None:
        text = {"type": "textarea", "from_name": "remark", "value": {"text": ["nice"]}}
        found = read_hints(put(tmp_path, task(region(), text)))
        assert note(found, "1 results of the type textarea are left out")


class TestPredictions:
    def test_they_count_where_nobody_annotated(self, tmp_path: Path) -> None:
        guess = {"model_version": "yolo", "score": 0.5, "result": [region(label="dog"), {**region(), "score": 0.25}]}
        empty = {"model_version": "yolo", "result": []}
        cancelled = task(photo="p3.png", predictions=[guess])
        cancelled["annotations"][0]["was_cancelled"] = True
        found = read_hints(
            put(
                tmp_path,
                task(region(), predictions=[guess]),
                {"data": {"image": "p1.png"}, "predictions": [guess]},
                {"data": {"image": "p2.png"}, "predictions": [empty]},
                cancelled,
                photos=4,
            )
        )
        assert [tags(found, f"p{n}") for n in range(4)] == [{"cat"}, {"cat", "dog"}, None, None]
        assert [(mark.source, mark.trust) for mark in marks(found, "p1")] == [("model:yolo", 0.5), ("model:yolo", 0.25)]
        assert note(found, "1 tasks have no annotation; the predictions of yolo are read instead")


def read_back(hint_set: HintSet, root: Path, out: Path) -> tuple[HintSet, tuple[str, ...]]:
    written = writer("label_studio").write(hint_set, out)
    assert recognise(root, written.labels) == "label_studio"
    return read_hints(root, written.labels, background=hint_set.background), written.lost


class TestWriting:
    @pytest.mark.parametrize("background", [True, False])
    def test_what_is_written_is_read_again(self, tmp_path: Path, background: bool) -> None:
        hint_set = full_set(tmp_path / "photos", background=background, strokes=True)
        again, lost = read_back(hint_set, tmp_path / "photos", tmp_path / "out")
        assert (again.classes, lost) == (NAMES, ())
        same_marks(hint_set, again)
        same_masks(hint_set, again)
        same_tags(hint_set, again, without=())

    def test_it_is_what_label_studio_imports(self, tmp_path: Path) -> None:
        writer("label_studio").write(full_set(tmp_path / "photos", strokes=True), tmp_path / "out")
        config = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot()
        controls = {one.get("name"): {part.get("value") for part in one} for one in config if one.tag != "Image"}
        kinds = {one.get("name"): one.tag.lower() for one in config}
        for one in json.loads((tmp_path / "out" / "tasks.json").read_text()):
            assert one["data"]["image"].startswith("/data/local-files/?d=")
            for guess in one.get("predictions", ()):
                assert 0 <= guess["score"] <= 1
                for result in guess["result"]:
                    kind = result["type"]
                    assert kinds[result["from_name"]] == kind
                    assert {*result["value"][kind]} <= controls[result["from_name"]]
                    assert result["to_name"] == "image"

    def test_trust_sources_and_areas_to_be_ignored(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        own = (
            Mark(1, Box(1, 1, 9, 9), 1, "model:cam", 0.5),
            Mark(IGNORE, Box(2, 2, 5, 5), None, "model:cam"),
            Mark(0, Click(20, 20), None, "model:cam"),
        )
        hint_set = HintSet("x", ("cat", "dog"), (Photo("a", path, Hints(None, own)),))
        again, lost = read_back(hint_set, path.parent, tmp_path / "out")
        assert (again.classes, again.photos[0].hints.marks, lost) == (("cat", "dog"), own, ())

    def test_what_is_lost_is_said(self, tmp_path: Path) -> None:
        (path,) = photo_files(tmp_path / "photos", "a.png")
        own = (Mark(1, Stroke((1.0, 1.0, 9.0, 9.0), 5.0), 3),)
        hints = Hints(Tags(frozenset({1}), frozenset()), own)
        hint_set = HintSet("x", ("cat", "dog"), (Photo("a", path, hints),), {"train": ("a",)})
        _, lost = read_back(hint_set, path.parent, tmp_path / "out")
        assert lost == (
            "1 clicks and strokes belong to an object, which is left out",
            "1 strokes have a width, which is left out",
            "1 photos say of some classes that nothing is known; Label Studio says that they are not there",
            "1 splits are left out",
        )
