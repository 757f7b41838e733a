"""Several processes share the work: what they make together is what one makes alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.run import FunctionRefine
from hintseg.data.shapes import write_shapes
from hintseg.hints import read_hints
from hintseg.pipeline import maps
from hintseg.pipeline.begin import make_plan
from hintseg.pipeline.each_photo import on_threads
from hintseg.pipeline.sharpen import refine_by_function
from hintseg.run.folder import RunFolder
from hintseg.run.schema import MetricRow
from hintseg.store.maps import write_maps
from hintseg.store.masks import read_label_png
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import Photo
from made import of

QUICK = [
    "backbone.name=resnet10t",
    "backbone.weights=random",
    "trainer.workers=0",
    "trainer.pictures=0",
    "segment.fit.epochs=1",
    "segment.fit.crop=64",
    "test.scales=[1.0]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on true masks, whose photos have made-up class maps."""
    folder = tmp_path_factory.mktemp("processes")
    write_shapes(folder / "data", train=7, val=2, size=48)
    made = RunFolder.open(hintseg.train(folder / "data", folder / "run", recipe="full", settings=QUICK).path)
    generator = np.random.default_rng(0)
    for photo in make_plan(read_hints(folder / "data"), made.config).train:
        keys = sorted(photo.hints.tags or ())
        maps = generator.random((len(keys), 12, 12))
        write_maps(made.path / "localize" / "maps" / f"{photo.id}.npz", keys, maps)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_no_photo_is_lost_when_one_process_begins_after_another_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Photo(name, tmp_path / name) for name in "abcdefgh"]
    taken = []
    for rank in (1, 0, 2):
        monkeypatch.setattr(machine, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(machine, "world", lambda: 3)

        def write(photo: Photo) -> None:
            (tmp_path / f"{photo.id}.npz").touch()
            taken.append(photo.id)

        on_threads("writing", photos, write, Watch(), done=lambda photo: (tmp_path / f"{photo.id}.npz").is_file())
    assert sorted(taken) == list("abcdefgh")


@pytest.mark.parametrize("refiner", ["dense_crf", "par"])
def test_refiners_leave_what_no_map_knows(run: RunFolder, refiner: str) -> None:
    config = load_config(
        "cam", [f"refine.method={refiner}", "refine.iterations=2"], data={"path": run.config.data.path}
    )
    photo = make_plan(read_hints(run.config.data.path), run.config).train[0]
    blank = RunFolder(run.path.parent / f"blank-{refiner}")
    shutil.copytree(run.path, blank.path)
    scores = np.zeros((2, 12, 12))
    scores[0, :, 6:] = 0.8
    write_maps(blank.path / "localize" / "maps" / f"{photo.id}.npz", [1, 2], scores)
    refine_by_function(blank, of(FunctionRefine, config.refine), config, [photo], None, Watch())
    mask = read_label_png(blank.path / "refine" / "masks" / f"{photo.id}.png")
    assert set(np.unique(mask)) <= {1, 2}
    assert (mask[:, 30:] == 1).all()


def test_cutting_is_dealt_out_and_sweeps_are_merged(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_plan(read_hints(run.config.data.path), run.config).train

    def cut(rank: int, world: int, found: list[Any]) -> list[MetricRow]:
        monkeypatch.setattr(machine, "rank", lambda: rank)
        monkeypatch.setattr(machine, "world", lambda: world)
        monkeypatch.setattr(machine, "gather", lambda value: [*found, value] if rank == 0 else found.append(value))
        return maps.cut_maps(run, "localize", "seed", photos, (0.3, "given"), "test", Watch())

    rows = cut(0, 1, [])
    alone, sweep = (
        files(run.path / "localize" / "masks"),
        json.loads((run.path / "localize" / "sweep.json").read_text()),
    )
    assert len(rows) == 2
    assert len(alone) == len(photos) + 1
    for name in alone:
        (run.path / "localize" / "masks" / name).unlink()
    found: list[Any] = []
    cut(1, 3, found)
    cut(2, 3, found)
    assert 0 < len(files(run.path / "localize" / "masks")) < len(photos)
    assert cut(0, 3, found) == rows
    assert files(run.path / "localize" / "masks") == alone
    assert json.loads((run.path / "localize" / "sweep.json").read_text()) == sweep


def test_torchrun_predicts_what_one_process_predicts(run: RunFolder, tmp_path: Path) -> None:
    photos = run.config.data.path / "JPEGImages"
    alone = hintseg.predict(run.path, photos, tmp_path / "alone")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = ["hintseg", "predict", str(run.path), str(photos), "--out", str(tmp_path / "both")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # there may be one GPU for both
    subprocess.run([sys.executable, "-m", *launcher, *words], check=True, timeout=120, env=environment)
    assert files(tmp_path / "both").keys() == files(alone).keys()
    coco = [json.loads((folder / "coco.json").read_text()) for folder in (alone, tmp_path / "both")]
    assert coco[0]["images"] == coco[1]["images"]
    assert len(coco[0]["images"]) == 9
    for path in (alone / "png").glob("*.png"):
        one, other = read_label_png(path), read_label_png(tmp_path / "both" / "png" / path.name)
        assert (one == other).mean() > 0.99  # batches of another size round differently


def test_gathering_alone_gives_ones_own() -> None:
    assert machine.gather({"a": 1}) == [{"a": 1}]
