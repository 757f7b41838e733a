"""Large photos: tiles and bands give what the whole photo gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import hintseg
from hintseg.data.shapes import write_shapes
from hintseg.nn.resize import grow
from hintseg.pipeline.tiles import strongest_grown, tiled


class Net(nn.Module):
    """Cells of 8 pixels, each of which sees its neighbours; remembers how large a part it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.largest = 0
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        self.largest = max(self.largest, pixels.shape[2] * pixels.shape[3])
        with torch.no_grad():
            scores: Tensor = self.layers(pixels.float() / 64)
        return grow(scores, pixels.shape[2:]).softmax(dim=1)


@pytest.mark.parametrize("size", [(256, 704), (640, 256), (352, 544), (992, 96)])
def test_tiles_say_what_the_whole_photo_says(size: tuple[int, int]) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8))
    pixels = grow(pixels[None, :, ::8, ::8], size)[0].to(torch.uint8)
    whole, net = Net(), Net()
    best, truth = whole(pixels[None])[0].max(dim=0)
    mask, sure = tiled(net, pixels, size, tile=256)
    assert len(np.unique(truth)) > 2
    assert (mask == truth.numpy()).mean() > 0.998
    assert sure == pytest.approx(float(best.mean()), abs=1e-3)
    assert net.largest <= (256 + 32) ** 2


def test_no_seam_shows_where_tiles_disagree() -> None:
    """A network that says how far a pixel is from the top of what it is shown."""

    def read(pixels: Tensor) -> Tensor:
        down = torch.linspace(0, 1, pixels.shape[2])[:, None].expand(pixels.shape[2:])
        return torch.stack([1 - down, down])[None]

    seen = []

    def spy(pixels: Tensor) -> Tensor:
        seen.append(pixels.shape[2])
        return read(pixels)

    mask, _ = tiled(spy, torch.zeros(3, 544, 64, dtype=torch.uint8), (544, 64), tile=256)
    assert len(seen) == 3
    assert np.abs(np.diff(mask[:, 0].astype(int))).sum() <= 5


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 600)] * 2), st.integers(1, 4), st.integers(0, 9)
)
def test_growing_in_bands_is_growing(small: tuple[int, int], size: tuple[int, int], classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    probabilities = torch.rand(classes, *small).softmax(dim=0)
    mask, sure = strongest_grown(probabilities, size)
    grown = grow(probabilities[None], size)[0]
    chosen = grown.gather(0, torch.from_numpy(mask).long()[None])[0]
    assert mask.shape == size
    assert torch.allclose(chosen, grown.amax(dim=0), atol=1e-5)
    assert sure == pytest.approx(float(chosen.double().mean()), abs=1e-4)


def test_a_photo_larger_than_a_tile_is_segmented_in_tiles(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", train=8, val=2, seed=0, size=96)
    words = [
        *("backbone.name=resnet10t", "backbone.weights=random", "data.learn_masks=all", "segment.fit.epochs=1"),
        *("trainer.workers=0", "trainer.accelerator=cpu", "trainer.pictures=1", "seed=0", "test.scales=[1.0]"),
        *("data.longest=1000", "test.tile=128"),
    ]
    run = hintseg.train(tmp_path / "shapes", tmp_path / "run", recipe="full", settings=words)
    photos = tmp_path / "photos"
    photos.mkdir()
    small = Image.open(next(iter(sorted((tmp_path / "shapes/JPEGImages").glob("*.png")))))
    small.resize((400, 300)).save(photos / "large.png")
    small.resize((3000, 90)).save(photos / "wide.png")
    out = run.predict(photos, tmp_path / "out")
    assert Image.open(out / "png/large.png").size == (400, 300)
    assert Image.open(out / "png/wide.png").size == (3000, 90)
