"""The one loop over whole photos: the same files whichever photos are done, and what the hooks write through it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hintseg
from hintseg.config.loader import load_config
from hintseg.data.shapes import write_shapes
from hintseg.methods.lgsa import inner_points
from hintseg.pipeline.each_photo import each_photo
from hintseg.training.watch import Watch
from hintseg.types import Photo
from small_runs import ONE_STAGE, QUICK, TINY

BY_STAGE = {  # folders that each_photo fills, below the run; the last file of a photo says that it is done
    "vwe": ("localize/maps", "refine/labels", "refine/maps", "segment/masks"),
    "bmp": ("segment/maps", "segment/branch_c", "segment/masks"),
    "boxes": ("propose/grabcut", "propose/masks"),
}
SETTINGS = {
    "vwe": QUICK,
    "bmp": [*ONE_STAGE, "segment.fit.epochs=2", "segment.bsp_start=0"],
    "boxes": [*TINY, "propose.size=32", "propose.smallest_side=0", "propose.fit.epochs=1", "segment=null"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A finished run of each recipe."""
    folder = tmp_path_factory.mktemp("runs")
    data = folder / "data"
    write_shapes(data, train=18, val=6, seed=0, size=48)
    made = {}
    for recipe, settings in SETTINGS.items():
        form = "voc" if recipe == "boxes" else "auto"
        made[recipe] = hintseg.train(data, folder / recipe, recipe=recipe, format=form, settings=settings).path
    return data, made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.[np][pn][zg]"))}


@pytest.mark.parametrize("recipe", BY_STAGE)
def test_files_do_not_depend_on_which_photos_are_done(
    runs: tuple[Path, dict[str, Path]], recipe: str, tmp_path: Path
) -> None:
    data, made = runs
    before = {name: contents(made[recipe] / name) for name in BY_STAGE[recipe]}
    assert all(before.values()), {name: len(files) for name, files in before.items()}
    for seed in range(2):
        out = tmp_path / str(seed)
        shutil.copytree(made[recipe], out)
        manifest = out / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"done": true', '"done": false'))
        chance = random.Random(seed)
        for name, files in before.items():
            for file in chance.sample(sorted(files), len(files) // 2):
                (out / name / file).unlink()
        form = "voc" if recipe == "boxes" else "auto"
        hintseg.train(data, out, recipe=recipe, format=form, settings=SETTINGS[recipe], resume=True)
        for name, files in before.items():
            after = contents(out / name)
            assert after.keys() == files.keys()
            assert [file for file in files if after[file] != files[file]] == [], name


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Nine photos of one size and one of another, and a file that is no photo."""
    made = []
    for i in range(10):
        Image.fromarray(np.full((20 if i else 30, 40, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
        made.append(Photo(str(i), tmp_path / f"{i}.png"))
    (tmp_path / "broken.png").write_bytes(b"no photo")
    return [*made, Photo("broken", tmp_path / "broken.png")]


class Scale(torch.nn.Module):
    """Counts the batches it sees and how it is when it sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((len(images), self.training, torch.is_inference_mode_enabled()))
        return images.mean(dim=(1, 2, 3)) * self.weight


def test_batches_are_of_all_photos_and_whole(photos: list[Photo], caplog: pytest.LogCaptureFixture) -> None:
    config = load_config("cam", ["trainer.accelerator=cpu", "data.longest=64"], data={"path": "photos"})
    found: dict[str, float] = {}

    def run(done: Sequence[str]) -> tuple[Scale, dict[str, float], int]:
        network, found_now = Scale().train(), {}
        made = each_photo(
            "looking",
            photos,
            lambda group, pixels: network(pixels.float()).tolist(),
            lambda photo, value: found_now.update({photo.id: value}),
            config,
            Watch(),
            network=network,
            done=lambda photo: photo.id in done,
            batch=4,
        )
        return network, found_now, made

    network, found, made = run(())
    assert network.seen == [(1, False, True), (4, False, True), (4, False, True), (1, False, True)]
    assert made == len(found) == 10
    assert "broken.png" in caplog.text
    assert not network.training
    assert {photo: round(value) for photo, value in found.items()} == {str(i): 20 * i for i in range(10)}
    network, again, made = run(("0", "1", "2", "3", "5", "6", "7", "8"))  # of the first batch of four, 4 is left
    assert [count for count, *_ in network.seen] == [4, 1]
    assert again == {photo: found[photo] for photo in ("1", "2", "3", "4", "9")}
    assert run([str(i) for i in range(10)])[1:] == ({}, 0)


def test_an_error_of_the_writer_ends_the_loop(photos: list[Photo]) -> None:
    config = load_config("cam", ["trainer.accelerator=cpu"], data={"path": "photos"})

    def write(photo: Photo, value: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        each_photo("looking", photos, lambda group, pixels: group, write, config, Watch())


def test_shown_pixels_lie_in_the_largest_regions() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[4:14, 4:14] = 1
    mask[0, 39] = 2  # too small to be asked for
    mask[15:, :] = 255
    (x0, y0), (x1, y1) = inner_points(mask)
    assert mask[int(y0 * 20), int(x0 * 40)] == 0
    assert mask[int(y1 * 20), int(x1 * 40)] == 1
