"""The command line, as a person types it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hintseg.data.shapes import write_shapes


def hintseg(*words):
    return subprocess.run(
        [sys.executable, "-m", "hintseg", *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "tags.csv").write_text("a.png,bird\nb.png,dog\nc.png,bird,dog\n")
    return folder


def test_help_names_every_verb():
    text = hintseg("--help").stdout
    for verb in ("check", "train", "masks", "predict", "evaluate", "report", "export", "list", "demo"):
        assert verb in text


@pytest.mark.parametrize(
    ("kind", "name"),
    [("methods", "vwe"), ("recipes", "paper/vwe-voc12"), ("refiners", "dense_crf"), ("formats", "yolo")],
)
def test_list(kind, name):
    lines = hintseg("list", kind).stdout.splitlines()
    assert any(line.split()[0] == name and len(line.split()) > 3 for line in lines)


def test_check_prints_a_table_and_json(photos):
    text = hintseg("check", photos).stdout
    assert "3 photos, 2 classes" in text
    assert "fewer than 20 photos of bird (2), dog (2)" in text
    facts = json.loads(hintseg("check", photos, "--json").stdout)
    assert facts["photos_per_class"] == {"bird": 2, "dog": 2}
    assert facts["cooccurrence"] == [[2, 1], [1, 2]]


def test_mistakes_end_in_one_message_and_code_2(photos, tmp_path):
    (photos / "classes.txt").write_text("bird\ndog\n")
    (photos / "tags.csv").write_text("a.png,brid\nb.png,dog\nmissing.png,dog\nb.png,bird\n")
    for words in (["check", photos], ["train", photos, "--out", tmp_path / "run"]):
        done = hintseg(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: 3 problems in")
        assert "did you mean 'bird'?" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


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
def test_wrong_settings(photos, tmp_path, words, part):
    done = hintseg("train", photos, "--out", tmp_path / "run", *words)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_names_resume_and_takes_it(tmp_path):
    write_shapes(tmp_path / "demo-photos", train=4, val=2, size=32)  # small ones in place of those it would draw
    quick = ["backbone.name=resnet10t", "backbone.levels=3", "localize.fit.epochs=1", "refine=null", "segment=null"]
    words = ["demo", "--out", tmp_path / "demo", *quick, "maps.scales=[1.0]", "trainer.workers=0"]
    assert hintseg(*words).returncode == 0
    again = hintseg(*words)
    assert again.returncode == 2
    assert "--resume goes on with it" in again.stderr
    before = (tmp_path / "demo" / "localize" / "model.safetensors").stat().st_mtime_ns
    assert hintseg(*words, "--resume").returncode == 0
    assert (tmp_path / "demo" / "localize" / "model.safetensors").stat().st_mtime_ns == before


def test_unwritable_run_folder(photos, tmp_path):
    (tmp_path / "file").write_text("")
    done = hintseg("train", photos, "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_evaluate(tmp_path):
    truth, masks = tmp_path / "truth", tmp_path / "masks"
    truth.mkdir()
    masks.mkdir()
    Image.fromarray(np.array([[0, 1], [1, 255]], np.uint8)).save(truth / "a.png")
    Image.fromarray(np.array([[0, 1], [0, 1]], np.uint8)).save(masks / "a.png")
    scores = json.loads(hintseg("evaluate", masks, truth, "--json").stdout)
    assert scores["miou"] == pytest.approx(0.5)
    assert "mIoU 0.500" in hintseg("evaluate", masks, truth).stdout
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(masks / "a.png")
    done = hintseg("evaluate", masks, truth)
    assert done.returncode == 2
    assert "a: a truth of (2, 2) and a prediction of (3, 2) pixels" in done.stderr
