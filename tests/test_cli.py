"""The command line, as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hintseg.data.shapes import write_shapes
from small_runs import typed


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "tags.csv").write_text("a.png,bird\nb.png,dog\nc.png,bird,dog\n")
    return folder


def test_help_names_every_verb() -> None:
    command = [sys.executable, "-m", "hintseg", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for verb in ("check", "train", "masks", "predict", "evaluate", "report", "export", "list", "demo"):
        assert verb in text


@pytest.mark.parametrize(
    ("kind", "name"),
    [("methods", "vwe"), ("recipes", "paper/vwe-voc12"), ("refiners", "dense_crf"), ("formats", "yolo")],
)
def test_list(kind: str, name: str) -> None:
    lines = typed("list", kind).stdout.splitlines()
    assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines)
    assert lines[-1].startswith(f"hintseg list {kind} NAME shows")


def test_backbones_are_listed_by_family_with_what_matters_for_a_choice() -> None:
    lines = typed("list", "backbones", "--filter", "*tiny_patch16_224").stdout.splitlines()
    assert lines.index("deit:") < lines.index("vision_transformer:")
    (deit,) = (line for line in lines if line.split()[1:2] == ["deit_tiny_patch16_224"])
    assert deit.split() == ["*", "deit_tiny_patch16_224", "16", "5.5", "M", "apache-2.0"]
    large = typed("list", "backbones", "--filter", "vit_large_patch16_dinov3").stdout.splitlines()[-1]
    assert large.split() == ["vit_large_patch16_dinov3", "16", "303.1", "M", "dinov3-license"]
    assert "mit_b1" in typed("list", "backbones", "--filter", "mit_b*").stdout
    done = typed("list", "backbones", "--filter", "no_such_network")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no network is called 'no_such_network'; give a pattern" in done.stderr


def test_check_prints_a_table_and_json(photos: Path) -> None:
    text = typed("check", photos).stdout
    assert "3 photos, 2 classes" in text
    assert "fewer than 20 photos of bird (2), dog (2)" in text
    assert text.splitlines()[-1] == f"next: hintseg train {photos} --out runs/first"
    said = typed("check", photos, "--labels", photos / "tags.csv", "--no-background").stdout.splitlines()[-1]
    assert said.endswith(f"--labels {photos / 'tags.csv'} --no-background --out runs/first")
    facts = json.loads(typed("check", photos, "--json").stdout)
    assert facts["photos_per_class"] == {"bird": 2, "dog": 2}
    assert facts["cooccurrence"] == [[2, 1], [1, 2]]


def test_mistakes_end_in_one_message_and_code_2(photos: Path, tmp_path: Path) -> None:
    (photos / "classes.txt").write_text("bird\ndog\n")
    (photos / "tags.csv").write_text("a.png,brid\nb.png,dog\nmissing.png,dog\nb.png,bird\n")
    for words in (["check", photos], ["train", photos, "--out", tmp_path / "run"]):
        done = typed(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: 2 problems in")
        assert "did you mean 'bird'?" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_mistake_ends_the_process_with_code_2(photos: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hintseg",
        "train",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "data.train=trian",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the data has no split 'trian'")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--recipe", "vwee"], "did you mean 'vwe'?"),
        (["localize.fit.epoch=3"], "did you mean 'localize.fit.epochs'?"),
        (["data.train=trian"], "no split 'trian'"),
        (["backbone.weights=nothing.safetensors"], "no weight file 'nothing.safetensors'"),
        (["--format", "vok"], "did you mean 'voc'?"),
    ],
)
def test_wrong_settings(photos: Path, tmp_path: Path, words: list[str], part: str) -> None:
    done = typed("train", photos, "--out", tmp_path / "run", *words)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_names_resume_and_takes_it(tmp_path: Path) -> None:
    write_shapes(tmp_path / "demo-photos", train=4, val=2, size=32)  # small ones in place of those it would draw
    quick = ["backbone.name=resnet10t", "backbone.levels=3", "localize.fit.epochs=1", "refine=null", "segment=null"]
    words = ["demo", "--out", tmp_path / "demo", *quick, "maps.scales=[1.0]", "trainer.workers=0"]
    first = typed(*words)
    assert first.returncode == 0
    assert first.stdout.splitlines()[-1].startswith("next: open the report; `hintseg masks ")
    again = typed(*words)
    assert again.returncode == 2
    assert "--resume goes on with it" in again.stderr
    before = (tmp_path / "demo" / "localize" / "model.safetensors").stat().st_mtime_ns
    assert typed(*words, "--resume").returncode == 0
    assert (tmp_path / "demo" / "localize" / "model.safetensors").stat().st_mtime_ns == before


def test_demo_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cats-photos").mkdir()
    (tmp_path / "cats-photos" / "tom.jpg").write_text("the only one")
    done = typed("demo", "--out", tmp_path / "cats")
    assert done.returncode == 2
    assert "cats-photos is not empty" in done.stderr
    assert (tmp_path / "cats-photos" / "tom.jpg").read_text() == "the only one"
    done = typed("demo", "--out", ".")
    assert done.returncode == 2
    assert "name one, such as --out runs/demo" in done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trainer.precision=half"], "trainer.precision"),
        (["trainer.accelerator=gpuu"], "trainer.accelerator"),
        (["propose.low=0.8", "propose.high=0.2", "--recipe", "boxes"], "low=0.8 is above high=0.2"),
        (["propose.smallest=1", "--recipe", "boxes"], "propose.smallest"),
    ],
)
def test_values_that_nothing_can_follow(photos: Path, tmp_path: Path, words: list[str], part: str) -> None:
    done = typed("train", photos, "--out", tmp_path / "run", *words)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(photos: Path, tmp_path: Path) -> None:
    done = typed("train", photos, "--out", tmp_path / "run", "trainer.accelerator=gpu")
    assert done.returncode == 2
    assert "sees no GPU" in done.stderr
    assert not (tmp_path / "run").exists()


def test_own_recipes_that_are_not_in_order(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text("data: photos\nlocalize: {method: cam}\n")
    done = typed("train", photos, "--out", tmp_path / "run", "--recipe", recipe)
    assert done.returncode == 2
    assert "must be a block of settings" in done.stderr
    recipe.write_text("localize: {method: cam}\nrefine: none\n")
    done = typed("train", photos, "--out", tmp_path / "run", "--recipe", recipe, "refine.method=parr")
    assert done.returncode == 2
    assert "did you mean 'par'?" in done.stderr


def test_export_needs_a_size(tmp_path: Path) -> None:
    done = typed("export", tmp_path, "--size", "0", "0")
    assert done.returncode == 2
    assert "at least 32 x 32" in done.stderr


def test_class_names_are_no_markup(photos: Path) -> None:
    (photos / "tags.csv").write_text("a.png,tree [dead]\nb.png,fish [/b]\nc.png,fish [/b]\n")
    done = typed("check", photos)
    assert done.returncode == 0, done.stderr
    assert "tree [dead]" in done.stdout
    assert "fish [/b]" in done.stdout


def test_unwritable_run_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = typed("train", photos, "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_evaluate(tmp_path: Path) -> None:
    truth, masks = tmp_path / "truth", tmp_path / "masks"
    truth.mkdir()
    masks.mkdir()
    Image.fromarray(np.array([[0, 1], [1, 255]], np.uint8)).save(truth / "a.png")
    Image.fromarray(np.array([[0, 1], [0, 1]], np.uint8)).save(masks / "a.png")
    scores = json.loads(typed("evaluate", masks, truth, "--json").stdout)
    assert scores["miou"] == pytest.approx(0.5)
    assert "mIoU 0.500" in typed("evaluate", masks, truth).stdout
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    (tmp_path / "split.txt").write_text("my photo\n\na\n")
    for folder in (truth, masks):
        Image.open(folder / "a.png").save(folder / "my photo.png")
        Image.open(folder / "a.png").save(folder / "left out.png")
    listed = ["evaluate", masks, truth, "--classes", tmp_path / "classes.txt", "--split", tmp_path / "split.txt"]
    scores = json.loads(typed(*listed, "--json").stdout)
    assert set(scores["iou"]) == {"background", "cat"}
    assert scores["photos"] == 2
    (tmp_path / "classes.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    done = typed(*listed)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(masks / "a.png")
    done = typed("evaluate", masks, truth)
    assert done.returncode == 2
    assert "a: the mask has 2 x 3 pixels, its truth 2 x 2" in done.stderr
