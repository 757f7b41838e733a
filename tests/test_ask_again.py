"""The segmenter asked again about the photos under review: what it answers, what is kept of it, what the list says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from hintseg import api
from hintseg.data.photos import read_photo
from hintseg.files.arrays import read_arrays
from hintseg.pipeline.ask_again import ask_again
from hintseg.pipeline.kept import keep
from hintseg.quality.review_list import review_list
from hintseg.quality.voices import DONE, answers_of, network_folder
from hintseg.run.folder import RunFolder
from hintseg.store.masks import read_label_png
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from made import given
from review_runs import write_run
from small_runs import TINY, typed, write_squares

SETTINGS = [
    *TINY,
    *("refine=null", "segment.fit.epochs=3", "segment.fit.batch_size=4", "segment.fit.crop=64", "test.scales=[1.0]"),
    *("localize.fit.epochs=1", "localize.fit.batch_size=4", "localize.fit.crop=64", "maps.scales=[1.0]"),
    *("trainer.pictures=0",),
]


class Counted(Watch):
    """Counts the photos of each task."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int]] = []

    def start(self, task: str, total: int) -> None:
        self.tasks.append((task, total))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked")
    write_squares(root / "photos")
    done = typed("train", root / "photos", "--out", root / "run", "--recipe", "cam", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return root / "run"


@pytest.fixture
def run(trained: Path) -> Iterator[RunFolder]:
    yield RunFolder.open(trained)
    shutil.rmtree(trained / "review", ignore_errors=True)


def test_the_answers_are_the_networks_mirrored_and_resized_among_the_tagged_classes(run: RunFolder) -> None:
    ask_again(run, Watch())
    folder = given(network_folder(run))
    method = load_weights(run.path / "segment" / "model.safetensors")[0]
    rows = [row for row in run.photos if row.split == "train"]
    read = answers_of(run)
    for row in rows:
        labels, whole = given(read(row.id)), read_label_png(folder / "labels" / f"{row.id}.png")
        assert labels.shape == (5, 14, 18)
        assert whole.shape == (56, 72)
        assert set(np.unique(labels)) | set(np.unique(whole)) <= {0, *given(row.tags)}
    row = next(row for row in rows if len(given(row.tags)) == 2)
    image = torch.from_numpy(read_photo(row.path)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        plain, mirrored = method.segment(image), method.segment(image.flip(3)).flip(3)
    for answer, logits in zip(given(read(row.id))[1:3], (plain, mirrored), strict=True):
        cells = torch.nn.functional.interpolate(logits, (14, 18), mode="bilinear", align_corners=False)
        assert (answer == cells[0].argmax(0).numpy()).mean() > 0.99, "all classes are tagged here"


def test_it_is_asked_once_and_goes_on_where_it_was_stopped(run: RunFolder) -> None:
    photos = sum(row.split == "train" for row in run.photos)
    watch = Counted()
    ask_again(run, watch)
    ask_again(run, watch)
    assert watch.tasks == [("asking the segmenter again", photos)]
    folder = given(network_folder(run))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / DONE).unlink()
    assert given(network_folder(run)) == folder
    assert review_list(run).voices == ("runner-up",), "half of the answers would bend the order"
    for path in sorted((folder / "answers").iterdir())[:3]:
        path.unlink()
    ask_again(run, watch)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    weights = run.path / "segment" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)  # as another training leaves it
    assert given(network_folder(run)) != folder
    ask_again(run, watch)
    assert [path.name for path in folder.parent.iterdir()] == [given(network_folder(run)).name]


def test_the_list_hears_the_network_and_how_far_its_answers_differ(run: RunFolder) -> None:
    without = json.loads(typed("review", run.path, "--list", "--json", "--no-network").stdout)
    assert without["voices"] == ["runner-up"]
    said = typed("review", run.path, "--list", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["voices"] == ["network", "runner-up"]
    folders = run.path / "localize" / "masks", given(network_folder(run)) / "labels"
    for row in found["photos"]:
        mask, label = (read_label_png(folder / f"{row['id']}.png") for folder in folders)
        shown = np.union1d(mask, label)
        ious = [((mask == k) & (label == k)).sum() / ((mask == k) | (label == k)).sum() for k in shown]
        assert row["voices"]["network"] == pytest.approx(1 - np.mean(ious))
        answers = read_arrays(folders[1].parent / "answers" / f"{row['id']}.npz", {"labels": "u"})[0]
        differ = [np.count_nonzero(one != answers[0]) / answers[0].size for one in answers[1:]]
        assert (len(differ), row["unsteady"]) == (4, pytest.approx(np.mean(differ)))
    again = api.review_list(run.path, network=False)
    assert again.voices == ("network", "runner-up"), "what is kept is used"


def test_kept_features_of_a_frozen_network_answer_as_the_photos_do(tmp_path: Path) -> None:
    write_squares(tmp_path / "photos")
    frozen = [*SETTINGS, "backbone.freeze=all", "segment.method=segformer_head", "trainer.precision=bf16-mixed"]
    done = typed("train", tmp_path / "photos", "--out", tmp_path / "run", "--recipe", "cam", *frozen)
    assert done.returncode == 0, done.stderr
    run = RunFolder.open(tmp_path / "run")
    folder = given(network_folder(run))
    found = []
    for given_out in (keep, lambda *_: None):
        shutil.rmtree(folder, ignore_errors=True)
        with patch("hintseg.pipeline.ask_again.keep", side_effect=given_out) as asked:
            ask_again(run, Watch())
        assert asked.call_count == 1
        read = answers_of(run)
        found.append(np.stack([given(read(row.id)) for row in run.photos if row.split == "train"]))
    assert keep(load_weights(run.path / "segment" / "model.safetensors")[0], [], run.config, Watch()) is not None
    assert (found[0] == found[1]).mean() > 0.98, "they are kept in float16"


def test_a_run_without_a_segmenter_goes_without(tmp_path: Path) -> None:
    run = RunFolder.open(write_run(tmp_path, 3))
    watch = Counted()
    ask_again(run, watch)
    assert (network_folder(run), watch.tasks) == (None, [])
    assert not (run.path / "review").exists()


def test_without_weights_or_photos_the_list_is_made_all_the_same(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder.open(shutil.copytree(run.path, tmp_path / "run"))
    weights = copy.path / "segment" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = typed("review", copy.path, "--list")
    assert said.returncode == 0, said.stderr
    assert "the segmenter is not asked again" in said.stderr
    assert "compared with runner-up" in said.stdout
    photos = run.path.parent / "photos"
    photos.rename(tmp_path / "moved")
    try:
        assert "compared with runner-up" in typed("review", run.path, "--list").stdout
        assert not (run.path / "review" / "network").exists()
    finally:
        (tmp_path / "moved").rename(photos)


def test_answers_that_are_damaged_are_named(run: RunFolder) -> None:
    ask_again(run, Watch())
    path = sorted((given(network_folder(run)) / "answers").iterdir())[0]
    np.savez(path, labels=np.full((5, 2, 2), 9, np.uint8))
    said = typed("review", run.path, "--list")
    assert said.returncode == 2
    assert f"{path}: no labels of the run's classes" in said.stderr
    assert read_arrays(path, {"labels": "u"})[0].max() == 9
