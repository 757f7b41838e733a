"""From boxes to masks of objects and photos, and to a model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.errors import ConfigError, LabelError, RunError
from hintseg.store.instances import Instances, read_instances, write_instances

QUICK = [
    "backbone.name=resnet10t",
    "backbone.weights=random",
    "trainer.workers=0",
    "trainer.precision=32-true",
    "propose.size=32",
    "propose.smallest_side=0",
    "propose.fit.epochs=2",
    "propose.fit.batch_size=8",
]
SEGMENT = ["segment.fit.epochs=1", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"]


def write_photos(folder: Path, count: int = 8) -> Path:
    """Bright squares (`sun`) and dark discs (`moon`) on noise: COCO JSON with outlines, one crowd, one empty photo."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names: list[str] = []
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []

    def add(photo: int, label: int, box: tuple[int, int, int, int], **more: int) -> None:
        x0, y0, x1, y1 = box
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        annotations.append(
            {"id": len(annotations) + 1, "image_id": photo, "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            | {"segmentation": outline, "area": 1, "iscrowd": 0}
            | more
        )

    for i in range(1, count + 1):
        rgb = rng.integers(90, 150, (60, 80, 3), dtype=np.uint8)
        if i < count:  # the last photo shows nothing
            rgb[10:34, 6:30] = (230, 210, 60)
            add(i, 1, (6, 10, 30, 34))
            rgb[30:50, 24:54] = (20, 20, 50)
            add(i, 2, (24, 30, 54, 50))  # overlaps the square's box
            add(i, 2, (70, 50, 71, 51))  # one pixel
        if i == 1:
            add(i, 1, (60, 5, 78, 20), iscrowd=1)
        Image.fromarray(rgb).save(folder / "images" / f"p{i}.png")
        images.append({"id": i, "file_name": f"p{i}.png", "width": 80, "height": 60})
        names.append(f"p{i}")
    categories = [{"id": 1, "name": "sun"}, {"id": 2, "name": "moon"}]
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> hintseg.Run:
    return hintseg.train(
        data,
        tmp_path_factory.mktemp("run") / "run",
        recipe="boxes",
        settings=[*QUICK, *SEGMENT, "data.val=all"],
    )


def test_boxes_become_masks_and_a_model(run: hintseg.Run) -> None:
    rows = {row["kind"]: row for row in run.metrics}
    assert list(rows) == ["filled boxes", "GrabCut", "CFS", "pseudo mask", "segmentation"]
    assert rows["GrabCut"]["miou"] > 0.95, "bright squares on noise are what GrabCut is good at"
    for name in ("grabcut", "cfs", "instances"):
        found = read_instances(run.path / "propose" / name / "p1.npz")
        assert found.labels.tolist() == [1, 2, 2], "the crowd is no object"
        assert all(mask.any() for mask in found.masks)
    log = list(csv.DictReader((run.path / "segment" / "log.csv").open()))
    assert {"segmentation", "att"} <= log[0].keys()


def test_crowds_teach_nothing_and_photos_without_boxes_are_background(run: hintseg.Run) -> None:
    mask, label = (np.asarray(Image.open(run.path / part / "p1.png")) for part in ("propose/masks", "labels"))
    assert (label[5:20, 60:78] == 255).all()
    assert not mask[5:20, 60:78].any(), "a mask that is judged has a label in every pixel"
    known = label != 255
    np.testing.assert_array_equal(mask[known], label[known])
    assert [path.stem for path in (run.path / "propose" / "evidence").iterdir()] == ["p1"], "all else is known"
    assert not np.asarray(Image.open(run.path / "propose" / "masks" / "p8.png")).any()


def test_report_shows_the_steps_and_counts_overlaps(run: hintseg.Run) -> None:
    page = (run.path / "report.html").read_text()
    for caption in ("GrabCut", "CFS", "mask from boxes", "truth", "affinity of pixel 1"):
        assert f"<figcaption>{caption}</figcaption>" in page
    assert "14 of 21 boxes overlap a box of another class" in page
    assert "From the boxes of 8 training photos" in page


def test_a_photo_that_breaks_off_costs_its_overlay_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_photos(tmp_path / "data", count=2)
    photo = next((data / "images").glob("p1.*"))
    Image.open(photo).convert("RGB").save(tmp_path / "whole.jpg")
    photo.write_bytes((tmp_path / "whole.jpg").read_bytes()[:-400])  # its size can be read, not its pixels
    out = hintseg.masks_from("boxes", data, tmp_path / "out", settings=["propose.method=filled"])
    assert {path.stem for path in (out / "png").glob("*.png")} == {"p1", "p2"}
    assert {path.stem for path in (out / "overlays").iterdir()} == {"p2"}
    assert (out / "coco.json").is_file()
    assert any("no overlay" in message for message in caplog.messages)


def test_photos_and_masks_do_not_share_a_folder(data: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(RunError, match="holds files that hintseg did not write there"):
        hintseg.masks_from("boxes", data, data, settings=["propose.method=filled"])
    assert sorted(path.name for path in data.iterdir()) == before


def test_one_command_gives_all_forms(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["masks", str(data), "propose.method=grabcut", "--from", "boxes", "--out", str(out)]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0
    with Image.open(out / "instances" / "p1.png") as image:
        ids = np.asarray(image)
    truth = np.zeros((60, 80), int)
    truth[10:34, 6:30] = 1
    truth[30:50, 24:54] = 2
    assert ids[50, 70] == 3, "the box of one pixel is its own mask"
    assert (ids == truth).mean() > 0.98
    mask = np.asarray(Image.open(out / "png" / "p1.png"))
    np.testing.assert_array_equal(mask[ids > 0], np.array([0, 1, 2, 2])[ids[ids > 0]])
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [f"p{i}.png" for i in range(1, 9)]
    assert len(coco["annotations"]) == 21
    again = json.loads((out / "coco_polygons.json").read_text())
    assert [a["area"] for a in again["annotations"]] == [a["area"] for a in coco["annotations"]]
    assert len((out / "yolo" / "labels" / "p1.txt").read_text().splitlines()) == 3
    assert (out / "yolo" / "labels" / "p8.txt").read_text() == ""
    assert (out / "overlays" / "p1.jpg").is_file()
    once_more = CliRunner().invoke(app, words)
    assert isinstance(once_more.exception, RunError)
    assert "--resume" in str(once_more.exception)
    assert CliRunner().invoke(app, [*words, "--resume"]).exit_code == 0


def test_a_stopped_stage_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def failing(path: Path, instances: Instances) -> None:
        calls.append(path)
        if len(calls) == 6:
            raise RuntimeError("plug pulled")
        write_instances(path, instances)

    settings = ["propose.method=grabcut", "segment=null"]
    monkeypatch.setattr("hintseg.pipeline.propose.write_instances", failing)
    with pytest.raises(RuntimeError, match="plug pulled"):
        hintseg.train(data, tmp_path / "run", recipe="boxes", settings=settings)
    done = len(list((tmp_path / "run" / "propose" / "instances").glob("*.npz")))
    calls.clear()
    calls.extend(10 * [tmp_path])
    hintseg.train(data, tmp_path / "run", recipe="boxes", settings=settings, resume=True)
    assert len(calls) - 10 == 8 - done, "photos that were done are not cut again"


def redo(first: hintseg.Run, out: Path, data: Path, settings: list[str], name: str, value: object) -> hintseg.Run:
    """Make the masks of a run once more with one setting changed, by the network it has trained."""
    shutil.copytree(first.path, out, ignore=shutil.ignore_patterns("instances", "masks", "cfs"))
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["propose"][name] = value
    (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["stages"]["propose"]["done"] = False
    (out / "manifest.json").write_text(json.dumps(manifest))
    words = [*settings, f"propose.{name}={json.dumps(value)}"]
    return hintseg.train(data, out, recipe="boxes", settings=words, resume=True)


def test_masks_are_made_as_the_run_says_whatever_the_network_was_saved_with(tmp_path: Path) -> None:
    data, settings = write_photos(tmp_path / "data", count=4), [*QUICK, "segment=null"]
    first = hintseg.train(data, tmp_path / "first", recipe="boxes", settings=settings)
    again = redo(first, tmp_path / "plain", data, settings, "refine", False)
    assert [row["kind"] for row in again.metrics] == ["filled boxes", "GrabCut", "pseudo mask"]
    for name in ("p1", "p2"):
        expected = read_instances(first.path / "propose" / "cfs" / f"{name}.npz").masks
        found = read_instances(again.path / "propose" / "instances" / f"{name}.npz").masks
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_objects_of_tight_boxes_grow_and_never_shrink(tmp_path: Path) -> None:
    data, settings = write_photos(tmp_path / "data", count=4), [*QUICK, "segment=null"]
    tight = hintseg.train(data, tmp_path / "tight", recipe="boxes", settings=settings)
    plain = redo(tight, tmp_path / "plain", data, settings, "tight", False)
    larger = 0
    for name in ("p1", "p2"):
        grown, masks = (read_instances(run.path / "propose" / "cfs" / f"{name}.npz").masks for run in (tight, plain))
        for one, other in zip(grown, masks, strict=True):
            if not other.all():  # where CFS sees nothing the filled box stands in
                assert (one | ~other).all()
                larger += int((one & ~other).any())
    assert larger > 0


def test_mistakes_say_what_to_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        hintseg.masks(data)
    runner = CliRunner()
    assert isinstance(runner.invoke(app, ["masks", str(data), "--from", "boxes"]).exception, ConfigError)
    found = runner.invoke(app, ["masks", str(data), "propose.method=grabcut"]).exception
    assert "--from boxes" in str(found)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "tags.csv").write_text("a.png,cow\n")
    with pytest.raises(LabelError, match="has boxes, which recipe 'boxes' learns from"):
        hintseg.masks_from("boxes", tmp_path / "photos", tmp_path / "out", labels=tmp_path / "tags.csv")
