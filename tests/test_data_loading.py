"""Transforms keep photo and mask together; loaders repeat themselves and survive broken photos."""

from __future__ import annotations

import logging
from collections.abc import Generator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hintseg.data.dataset import EpochSampler, PhotoDataset, train_loader
from hintseg.data.inference import read_batches, size_groups
from hintseg.data.transforms import PAD_RGB, TrainingTransform
from hintseg.errors import PhotoError, ShapeError
from hintseg.types import Batch, Hints, Photo, Tags
from made import given, of

SMALL = TrainingTransform(crop=24, scale=(0.5, 1.5), jitter=0.3)


def blocks(height: int, width: int, seed: int) -> np.ndarray:
    """Return labels 0..5 in blocks of 16 x 16 pixels."""
    coarse = np.random.default_rng(seed).integers(0, 6, (-(-height // 16), -(-width // 16)), np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


@pytest.mark.parametrize("seed", range(12))
def test_mask_can_be_read_off_the_transformed_photo(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = blocks(int(random.integers(20, 90)), int(random.integers(20, 90)), seed)
    rgb = np.repeat(mask[..., None] * 40, 3, axis=2)
    view = TrainingTransform(crop=64, scale=(0.5, 2.0))(rgb, mask, random)
    x0, y0, x1, y1 = view.window.tolist()
    read_off = view.image[0, y0:y1, x0:x1].float() / 40
    label = given(view.mask)[y0:y1, x0:x1]
    certain = (read_off - read_off.round()).abs() < 0.02  # off the blends at block edges
    assert certain.float().mean() > 0.4
    agree = read_off.round()[certain] == label[certain]
    assert agree.float().mean() > 0.98


@pytest.mark.parametrize("scale", [0.25, 0.4, 0.6])
def test_mask_is_not_shifted_against_the_photo(scale: float) -> None:
    # The mean row of a square in mask less photo, over many squares: rounding averages out, a shift stays. (Taking a
    # pixel's corner instead of its centre shifts by (1 - scale) / 2 rows.)
    shifts = []
    for top in range(40):
        mask = np.zeros((101, 101), np.uint8)
        mask[top : top + 37, 30:90] = 1
        rgb = np.repeat(mask[..., None] * 200, 3, axis=2)
        view = TrainingTransform(101, (scale, scale))(rgb, mask, np.random.default_rng(0))
        x0, y0, x1, y1 = view.window.tolist()
        photo, label = (given(side)[y0:y1, x0:x1].float() for side in (view.image[0] / 200, view.mask))
        rows = torch.arange(y1 - y0)
        shifts.append((label.sum(1) * rows).sum() / label.sum() - (photo.sum(1) * rows).sum() / photo.sum())
    assert abs(torch.stack(shifts).mean()) < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_all_outside_the_window_is_padding(seed: int) -> None:
    rgb = np.full((30, 80, 3), 9, np.uint8)
    view = TrainingTransform(crop=48, scale=(0.4, 1.2))(rgb, np.ones((30, 80), np.uint8), np.random.default_rng(seed))
    x0, y0, x1, y1 = view.window.tolist()
    inside = torch.zeros(48, 48, dtype=torch.bool)
    inside[y0:y1, x0:x1] = True
    assert view.image.shape == (3, 48, 48)
    assert view.image.dtype == given(view.mask).dtype == torch.uint8
    assert given(view.mask)[inside].unique().tolist() == [1]
    assert (given(view.mask)[~inside] == 255).all()
    assert (view.image[:, inside] == 9).all()
    assert (view.image[:, ~inside] == torch.tensor(PAD_RGB)[:, None]).all()


def test_window_has_the_size_of_the_scaled_photo_cut_to_the_crop() -> None:
    view = TrainingTransform(crop=50, scale=(0.5, 0.5))(
        np.zeros((60, 200, 3), np.uint8), None, np.random.default_rng(0)
    )
    x0, y0, x1, y1 = view.window.tolist()
    assert (x1 - x0, y1 - y0) == (50, 30)
    assert view.mask is None


def test_chance_reaches_both_flips_every_edge_and_the_whole_scale_range() -> None:
    rgb = np.zeros((100, 100, 3), np.uint8)
    rgb[:, :, 0] = np.arange(100)  # red = column
    rgb[:, :, 1] = np.arange(100)[:, None]  # green = row
    transform = TrainingTransform(crop=40, scale=(0.5, 2.0))
    random = np.random.default_rng(0)
    crops = [transform(rgb, None, random).image.float() for _ in range(300)]
    steps = torch.stack([crop[0, 0, 39] - crop[0, 0, 0] for crop in crops])
    assert 0.4 < (steps > 0).float().mean() < 0.6
    assert steps.abs().min() < 24  # scale near 2: 40 pixels show 20 columns
    assert steps.abs().max() > 70  # scale near 0.5: 40 pixels show 80 columns
    rows = torch.stack([crop[1, 0, 0] for crop in crops])
    assert rows.min() < 2
    assert rows.max() > 60


def test_jitter_changes_colours_and_leaves_mask_and_padding() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    mask = blocks(20, 20, 1)
    plain, jittered = (
        TrainingTransform(32, (1.0, 1.0), jitter)(rgb, mask, np.random.default_rng(3)) for jitter in (0.0, 0.5)
    )
    assert torch.equal(given(plain.mask), given(jittered.mask))
    outside = plain.mask == 255
    assert torch.equal(plain.image[:, outside], jittered.image[:, outside])
    assert not torch.equal(plain.image, jittered.image)


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    made = []
    for i in range(11):
        rgb = np.random.default_rng(i).integers(0, 256, (20 + i % 3, 30, 3), np.uint8)
        path = tmp_path / f"{i:02}.png"
        Image.fromarray(rgb).save(path)
        made.append(Photo(f"{i:02}", path, Hints(Tags(frozenset({1 + i % 3})))))
    return made


def ones(photo: Photo) -> np.ndarray | None:
    return None if photo.id == "03" else np.ones((20 + int(photo.id) % 3, 30), np.uint8)


def epochs(photos: list[Photo], workers: int, count: int = 3, seed: int = 5) -> list[list[Batch]]:
    loader = train_loader(PhotoDataset(photos, 3, SMALL, ones, seed=seed), batch_size=4, workers=workers)
    batches = []
    for epoch in range(count):
        of(EpochSampler, loader.sampler).set_epoch(epoch)
        batches.append(list(loader))
    return batches


def test_same_seed_same_batches_whatever_the_number_of_workers(photos: list[Photo]) -> None:
    alone, helped = epochs(photos, 0), epochs(photos, 2)
    for mine, theirs in zip(chain(*alone), chain(*helped), strict=True):
        assert mine.ids == theirs.ids
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(given(mine.targets.pixels), given(theirs.targets.pixels))
        assert torch.equal(mine.targets.windows, theirs.targets.windows)
    assert [b.ids for b in alone[0]] != [b.ids for b in alone[1]]
    assert [b.ids for b in epochs(photos, 0, 1, seed=6)[0]] != [b.ids for b in alone[0]]


def test_views_of_a_photo_differ_from_epoch_to_epoch(photos: list[Photo]) -> None:
    dataset = PhotoDataset(photos, 3, SMALL)
    first = dataset[2].image
    assert torch.equal(first, dataset[2].image)
    dataset.set_epoch(1)
    assert not torch.equal(first, dataset[2].image)


def test_loading_draws_nothing_from_the_global_stream(photos: list[Photo]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    epochs(photos, 2, 1)
    assert torch.equal(torch.rand(3), expected)


def test_batch_holds_what_it_says(photos: list[Photo]) -> None:
    (batches,) = epochs(photos, 0, 1)
    assert [len(batch.ids) for batch in batches] == [4, 4]  # 11 photos: the last 3 are left out
    for batch in batches:
        assert batch.images.shape == (4, 3, 24, 24)
        assert batch.images.dtype == torch.float32
        assert batch.images.min() >= 0
        assert batch.images.max() <= 1
        assert given(batch.targets.pixels).shape == (4, 24, 24)
        assert batch.targets.windows.dtype == torch.int64
        for i, id in enumerate(batch.ids):
            assert batch.targets.tags[i].nonzero().flatten().tolist() == [int(id) % 3]
            assert set(given(batch.targets.pixels)[i].unique().tolist()) <= ({255} if id == "03" else {1, 255})


def test_a_single_short_batch_is_kept_and_masks_are_optional(photos: list[Photo]) -> None:
    (batch,) = train_loader(PhotoDataset(photos[:3], 3, SMALL), batch_size=8)
    assert sorted(batch.ids) == ["00", "01", "02"]
    assert batch.targets.pixels is None


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_photos_are_replaced_listed_and_reported(
    photos: list[Photo], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for i in (4, 5):
        photos[i].path.write_bytes(photos[i].path.read_bytes()[:200])
    dataset = PhotoDataset(photos, 3, SMALL, seed=1)
    loader = train_loader(dataset, batch_size=11, workers=workers)
    with caplog.at_level(logging.WARNING, "hintseg"):
        for epoch in range(2):
            of(EpochSampler, loader.sampler).set_epoch(epoch)
            (batch,) = loader
            assert sorted(batch.ids) == ["00", "01", "02", "03", "06", "06", "06", "07", "08", "09", "10"]
    assert dataset.skipped == ["04", "05"]
    if workers == 0:  # records of other processes are not seen here
        assert len(caplog.records) == 2
        assert "04.png" in caplog.text


def test_no_readable_photo_is_an_error(photos: list[Photo]) -> None:
    for photo in photos:
        photo.path.write_bytes(b"")
    with pytest.raises(PhotoError, match="none of the 11 photos can be read"):
        PhotoDataset(photos, 3, SMALL)[0]


def test_no_photo_is_an_error() -> None:
    with pytest.raises(PhotoError, match="0 photos"):
        PhotoDataset([], 3, SMALL)


def test_mask_of_another_size_is_an_error(photos: list[Photo]) -> None:
    dataset = PhotoDataset(photos, 3, SMALL, lambda photo: np.ones((30, 20), np.uint8))
    with pytest.raises(ShapeError, match=r"photo 00 is 20x30 pixels but .*00\.png is 30x20"):
        dataset[0]


def test_processes_share_the_photos_evenly(photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = PhotoDataset(photos, 3, SMALL)
    dealt = []
    for rank in range(3):
        monkeypatch.setattr("hintseg.data.dataset._place", lambda rank=rank: (rank, 3))
        sampler = EpochSampler(dataset, 2)
        dealt.append(list(sampler))
        assert len(sampler) == len(dealt[-1]) == 4
        assert len(EpochSampler(dataset, 8)) == 4  # fewer than a batch: kept
        assert len(EpochSampler(dataset, 3)) == 3  # one full batch
    assert set(chain(*dealt)) == set(range(11))


def test_whole_photos_come_in_batches_of_equal_size(photos: list[Photo]) -> None:
    photos[7].path.write_bytes(photos[7].path.read_bytes()[:200])  # the header is whole, the pixels are not
    seen: dict[str, Tensor] = {}
    for group, pixels in read_batches(size_groups(photos, 3)):
        assert pixels.shape == (len(group), 3, *pixels.shape[2:])
        assert pixels.dtype == torch.uint8
        seen |= dict(zip((p.id for p in group), pixels, strict=True))
    assert sorted(seen) == ["00", "01", "02", "03", "04", "05", "06", "08", "09", "10"]
    np.testing.assert_array_equal(seen["04"].permute(1, 2, 0), np.array(Image.open(photos[4].path)))
    assert [[p.id for p in group] for group in size_groups(photos[:5], 1)] == [["00"], ["03"], ["01"], ["04"], ["02"]]


def test_whole_photos_can_be_left_early(photos: list[Photo]) -> None:
    batches = read_batches(size_groups(photos, 2))
    group, _ = next(batches)
    assert isinstance(batches, Generator)
    batches.close()
    assert [photo.id for photo in group] == ["00", "03"]


def test_long_photos_are_reduced_before_the_random_scale() -> None:
    transform = TrainingTransform(crop=64, scale=(0.5, 0.5), longest=80)
    view = transform(np.zeros((100, 160, 3), np.uint8), np.zeros((100, 160), np.uint8), np.random.default_rng(0))
    x0, y0, x1, y1 = view.window.tolist()
    assert (x1 - x0, y1 - y0) == (40, 25)


def test_inference_reduces_long_photos_alone(tmp_path: Path) -> None:
    photos = []
    for name, size in (("long", (200, 100)), ("short", (60, 50))):
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
        photos.append(Photo(name, tmp_path / f"{name}.png"))
    shapes = {
        group[0].id: tuple(pixels.shape[2:]) for group, pixels in read_batches(size_groups(photos, 4), longest=80)
    }
    assert shapes == {"long": (40, 80), "short": (50, 60)}


def test_workers_that_are_not_forked_see_and_tell_the_same(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows and macOS: the data set is sent, with a label reader that is a closure."""
    photos[4].path.write_bytes(b"no picture")
    values = {photo.id: number for number, photo in enumerate(photos, start=1)}

    def batches(workers: int) -> tuple[list[Batch], list[str]]:
        def labels(photo: Photo) -> np.ndarray:
            return np.full((20 + int(photo.id) % 3, 30), values[photo.id] % 4, np.uint8)

        dataset = PhotoDataset(photos, 3, SMALL, labels, seed=5)
        loader = train_loader(dataset, batch_size=11, workers=workers)
        seen = []
        for epoch in (3, 4):  # workers stay between epochs and see the new one
            of(EpochSampler, loader.sampler).set_epoch(epoch)
            seen += list(loader)
        return seen, dataset.skipped

    alone, broken = batches(0)
    monkeypatch.setattr("hintseg.data.dataset.START", "spawn")
    sent, said = batches(1)
    assert said == broken == ["04"]
    for mine, theirs in zip(alone, sent, strict=True):
        assert mine.ids == theirs.ids
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(given(mine.targets.pixels), given(theirs.targets.pixels))
