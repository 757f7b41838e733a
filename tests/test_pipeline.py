"""The whole way from photos to report on a tiny data set, stops and resumes included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import hintseg
from hintseg.errors import LabelError, PhotoError, RunError
from hintseg.methods.vwe import Vwe
from hintseg.run.folder import RunFolder
from hintseg.training.weights import load_weights
from hintseg.types import Batch, Progress
from small_runs import QUICK, write_squares


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, and among those to learn from one that is cut short."""
    folder = write_squares(tmp_path_factory.mktemp("data"))
    whole = (folder / "JPEGImages" / "photo 0.png").read_bytes()
    (folder / "JPEGImages" / "broken.png").write_bytes(whole[: len(whole) // 2])
    with (folder / "tags.csv").open("a") as file:
        file.write("broken,red\n")
    with (folder / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("broken\n")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> hintseg.Run:
    return hintseg.train(data, tmp_path_factory.mktemp("runs") / "first", recipe="vwe", settings=QUICK)


def test_a_run_explains_itself(run: hintseg.Run, data: Path) -> None:
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["data"]["classes"] == ["red", "blue"]
    assert all(manifest["stages"][stage]["done"] for stage in ("localize", "refine", "segment"))
    assert manifest["stages"]["localize"]["steps"] == 4
    assert manifest["stages"]["localize"]["skipped"] == ["broken"]
    assert (run.path / "report.html").stat().st_size > 10_000
    for stage in ("localize", "refine", "segment"):
        assert (run.path / stage / "pictures.png").is_file()
        assert (run.path / stage / "log.csv").read_text().startswith("step,epoch,lr,loss")


def test_every_result_says_what_it_is(run: hintseg.Run) -> None:
    kinds = {(row["stage"], row["kind"], row["split"], row["oracle"]) for row in run.metrics}
    assert kinds == {
        ("localize", "seed", "train", False),
        ("localize", "seed", "train", True),
        ("refine", "pseudo mask", "train", False),
        ("refine", "pseudo mask", "train", True),
        ("segment", "segmentation", "val", False),
    }
    for stage in ("localize", "refine"):
        fair, oracle = (next(r for r in run.metrics if r["stage"] == stage and r["oracle"] is o) for o in (False, True))
        assert oracle["miou"] >= fair["miou"] - 1e-9  # the sweep's grid holds the chosen threshold


def test_masks_predict_and_export(run: hintseg.Run, data: Path, tmp_path: Path) -> None:
    folder = run.masks(tmp_path / "masks")
    assert len(list((folder / "png").glob("*.png"))) == 8
    assert len(json.loads((folder / "coco.json").read_text())["images"]) == 8
    out = run.predict(data / "JPEGImages", tmp_path / "out")
    mask = np.array(Image.open(out / "png" / "photo 1.png"))
    assert mask.shape == (56, 72)
    assert set(np.unique(mask)) <= {0, 1, 2}
    again = np.array(Image.open(run.path / "segment" / "masks" / "photo 9.png"))
    assert (np.array(Image.open(out / "png" / "photo 9.png")) == again).all()
    method, classes, background = load_weights(run.path / "segment" / "model.safetensors")
    assert classes == ("red", "blue")
    assert background
    assert not method.training


def test_masks_are_written_beside_nobody_elses_files(run: hintseg.Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("mine")
    for write in (partial(run.masks, tmp_path), partial(run.predict, data / "JPEGImages", tmp_path)):
        with pytest.raises(RunError, match="holds files that hintseg did not write there; choose another --out"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["classes.txt"]
    photos = [path for path in sorted((data / "JPEGImages").iterdir()) if path.stem != "broken"]
    run.predict(photos[0], tmp_path / "out")
    run.predict(photos[1], tmp_path / "out")  # in place of the first
    listed = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == [photos[1].name]
    assert [path.stem for path in (tmp_path / "out" / "png").glob("*.png")] == [photos[1].stem]


def test_a_photo_that_cannot_be_read_is_an_error_not_an_empty_folder(
    run: hintseg.Run, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(PhotoError, match=r"none of 1 photos can be read; the first is .*broken\.png"):
        run.predict(data / "JPEGImages" / "broken.png", tmp_path / "out")


def test_photos_of_both_splits_get_masks_and_twins_their_names(run: hintseg.Run, tmp_path: Path) -> None:
    both = tmp_path / "run"
    shutil.copytree(run.path, both)
    rows = json.loads((both / "photos.json").read_text())
    learned = [row for row in rows if row["split"] == "train"]
    (both / "photos.json").write_text(json.dumps([*rows, *({**row, "split": "val"} for row in learned)]))
    folder = hintseg.load(both).masks(tmp_path / "masks")
    assert len(json.loads((folder / "coco.json").read_text())["images"]) == len(learned) - 1  # one cannot be read
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (40, 32)).save(photos / name)
    out = run.predict(photos, tmp_path / "out")
    names = {image["file_name"] for image in json.loads((out / "coco.json").read_text())["images"]}
    assert names == {"a.jpg", "a.png"}


def test_finished_runs_are_not_overwritten_unasked(run: hintseg.Run, data: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(run.path, tmp_path / "run"))
    with pytest.raises(RunError, match="--resume goes on with it, --overwrite starts it afresh"):
        hintseg.train(data, again, recipe="vwe", settings=QUICK)
    with pytest.raises(RunError, match=r"nothing of .* would stay \(seed was 0, is \d+\)"):
        hintseg.train(data, again, recipe="vwe", settings=[*QUICK, "seed=5"], resume=True)
    before = (again / "localize" / "model.safetensors").stat().st_mtime_ns
    hintseg.train(data, again, recipe="vwe", settings=QUICK, resume=True)
    assert (again / "localize" / "model.safetensors").stat().st_mtime_ns == before


def test_a_class_that_looks_misspelt_is_asked_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "tags.csv").write_text("a.png,grass\nb.png,gras\nc.png,cow\n")
    settings = [*QUICK, "localize.fit.epochs=1", "refine=null", "segment=null", "trainer.pictures=0"]
    hintseg.train(tmp_path, tmp_path / "run", recipe="vwe", settings=settings)
    assert "are gras (1) and grass (1) one class? If one is misspelt, mend the label file" in caplog.messages


def test_a_folder_that_is_no_run_is_never_deleted(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds files that hintseg did not write there; choose another --out"):
        hintseg.train(data, tmp_path, recipe="vwe", settings=QUICK, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_resume_goes_on_from_the_last_finished_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    losses = Vwe.losses

    def counted(self: Vwe, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        steps.append(progress.step)
        if len(steps) == 6:
            raise RuntimeError("plug pulled")
        return losses(self, batch, progress)

    monkeypatch.setattr(Vwe, "losses", counted)
    settings = [*QUICK, "localize.fit.epochs=3", "refine=null", "segment=null"]
    with pytest.raises(RuntimeError, match="plug pulled"):
        hintseg.train(data, tmp_path / "run", recipe="vwe", settings=settings)
    hintseg.train(data, tmp_path / "run", recipe="vwe", settings=settings, resume=True)
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5], "8 photos are 2 steps an epoch: two epochs stay, the third begins afresh"
    log = (tmp_path / "run" / "localize" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", *map(str, range(1, 7))]


def test_data_without_background(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "data", background=False)
    run = hintseg.train(data, tmp_path / "run", recipe="vwe", settings=[*QUICK, "data.background=none"])
    assert not any(row["oracle"] for row in run.metrics)
    mask = np.array(Image.open(run.path / "segment" / "masks" / "photo 9.png"))
    assert set(np.unique(mask)) <= {1, 2}


def test_a_refiner_that_does_not_learn_and_no_segmenter(data: Path, tmp_path: Path) -> None:
    settings = [word for word in QUICK if not word.startswith(("refine", "segment"))]
    own = ["refine.method=par", "segment=null", "maps.threshold=0.3", "data.longest=64"]
    run = hintseg.train(
        data,
        tmp_path / "run",
        recipe="cam",
        settings=[*settings, *own],
    )
    assert {row["stage"] for row in run.metrics} == {"localize", "refine"}
    mask = np.array(Image.open(run.path / "refine" / "masks" / "photo 1.png"))
    assert mask.shape == (56, 72)  # photos are reduced to 64 pixels, masks come back at their own size
    assert json.loads((run.path / "localize" / "sweep.json").read_text())["how"] == "given in the settings"
    with pytest.raises(hintseg.HintsegError, match="has no segmenter"):
        run.export()


def test_full_supervision_learns_from_true_masks(data: Path, tmp_path: Path) -> None:
    settings = [word for word in QUICK if not word.startswith(("localize", "refine", "maps"))]
    own = ["data.longest=64", "test.crf={iterations: 2}"]
    run = hintseg.train(data, tmp_path / "run", recipe="full", settings=[*settings, *own])
    assert np.array(Image.open(run.path / "segment" / "masks" / "photo 9.png")).shape == (56, 72)
    (row,) = run.metrics
    assert "trained on true masks" in row["protocol"]
    assert "DenseCRF" in row["protocol"]


def test_photos_without_any_tag_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "tags.csv").write_text("a.png\n")
    (folder / "classes.txt").write_text("cat\n")
    with pytest.raises(LabelError, match="all 1 training photos are negatives"):
        hintseg.train(folder, tmp_path / "run", recipe="vwe", settings=QUICK)
    assert not (tmp_path / "run").exists()


def test_two_processes_train_one_model(data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hintseg",
        "train",
        str(data),
        "--recipe",
        "vwe",
        *QUICK,
        "--out",
        str(tmp_path / "run"),
    ]
    subprocess.run([*command, "trainer.devices=2", "trainer.accelerator=cpu"], check=True, timeout=300)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert all(stage["done"] for stage in manifest["stages"].values())
    assert len(list((tmp_path / "run" / "refine" / "masks").glob("*.png"))) == 8


def test_true_masks_teach_where_it_is_said_and_the_rest_stays(
    run: hintseg.Run, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    with caplog.at_level("INFO", logger="hintseg"):
        again = hintseg.train(
            data, tmp_path / "run", recipe="vwe", settings=[*QUICK, "data.learn_masks=train"], resume=True
        )
    assert "segment is made again: data.learn_masks was None, is train" in caplog.messages
    assert not any("localize is made again" in message for message in caplog.messages)
    (row,) = (row for row in again.metrics if row["stage"] == "segment")
    assert "trained on masks of stage 'refine' and true masks of 8 photos" in row["protocol"]


def test_a_list_of_masks_that_teach_may_come_later_and_is_held_to_after(
    run: hintseg.Run, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "masks.txt").write_text("photo 0\nphoto 1\n")
    settings = [*QUICK, f"data.learn_masks={tmp_path / 'masks.txt'}"]
    with caplog.at_level("INFO", logger="hintseg"):
        again = hintseg.train(data, tmp_path / "run", recipe="vwe", settings=settings, resume=True)
    assert f"segment is made again: data.learn_masks was None, is {tmp_path / 'masks.txt'}" in caplog.messages
    assert not any("localize is made again" in message for message in caplog.messages)
    (row,) = (row for row in again.metrics if row["stage"] == "segment")
    assert "trained on masks of stage 'refine' and true masks of 2 photos" in row["protocol"]
    assert "2 photos teach by masks (deeplabv2)" in RunFolder.open(again.path).data.plan
    (tmp_path / "masks.txt").write_text("photo 0\n")
    with pytest.raises(RunError, match=r"are not those that .* was begun with"):
        hintseg.train(data, tmp_path / "run", recipe="vwe", settings=settings, resume=True)


def test_lost_masks_are_not_replaced_by_the_truth_in_silence(run: hintseg.Run, data: Path, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    for stage in ("localize", "refine"):
        shutil.rmtree(tmp_path / "run" / stage / "masks")
    with pytest.raises(RunError, match=r"there are no masks in .* to learn from, and true masks teach only where"):
        hintseg.train(data, tmp_path / "run", recipe="vwe", settings=[*QUICK, "segment.fit.epochs=3"], resume=True)
