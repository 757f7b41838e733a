"""CFS: Eqs. 1-2 against slow plain versions, the network's hints, learning from noisy proposals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.settings import BackboneConfig, FitConfig, TrainerConfig
from hintseg.data.crops import CropDataset, crops_of, expand_box, foreground_of, smallest_side
from hintseg.data.dataset import train_loader
from hintseg.errors import ConfigError, PhotoError, ShapeError
from hintseg.geometry.boxes import Window, pixel_window
from hintseg.methods.cfs import Cfs, CfsConfig, box_maps
from hintseg.training.fit import fit
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import IGNORE, Batch, Box, Hints, Mark, Photo, Progress
from made import batch_of, given, of, rand, with_targets

TINY = BackboneConfig(name="test_resnet", weights="random", output_stride=32)


def network(classes: int = 3, **settings: object) -> Cfs:
    torch.manual_seed(0)
    settings = {"backbone": TINY, "size": 64, "widths": (16, 16, 8)} | settings
    return Cfs(CfsConfig.model_validate(settings), classes, True)


def batch(n: int = 2, classes: int = 3, size: int = 64, seed: int = 0) -> Batch:
    labels = torch.arange(n) % classes
    rows = [[k + 1, *([5, 20, 61, 57] if i % 2 else [10, 12, 50, 44])] for i, k in enumerate(labels.tolist())]
    masks = (rand(n, size, size, seed=seed) > 0.5).byte()
    boxes = tuple(torch.tensor([row], dtype=torch.float32) for row in rows)
    return batch_of(rand(n, 3, size, size, seed=seed), torch.eye(classes)[labels], masks, boxes=boxes)


def shown(seen: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Crops, classes and boxes, as `foreground` takes them."""
    return seen.images, seen.targets.tags, torch.cat(given(seen.targets.boxes))[:, 1:]


def photo_with_boxes(
    folder: Path, boxes: Sequence[Mark[Box]], size: tuple[int, int] = (60, 80), name: str = "a"
) -> tuple[Photo, npt.NDArray[np.uint8]]:
    rgb = np.random.default_rng(len(boxes)).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / f"{name}.png")
    return Photo(name, folder / f"{name}.png", Hints(marks=tuple(boxes))), rgb


# --- geometry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "window", "expanded"),
    [
        ((20, 20, 40, 30), (20, 20, 40, 30), (15, 18, 45, 32)),  # 25 % a side; 2.5 rounds to even
        ((0, 0, 80, 60), (0, 0, 80, 60), (0, 0, 80, 60)),
        ((-5, -5, 200, 100), (0, 0, 80, 60), (0, 0, 80, 60)),
        ((70.4, 50.2, 80, 60), (70, 50, 80, 60), (68, 48, 80, 60)),
        ((33, 44, 34, 45), (33, 44, 34, 45), (33, 44, 34, 45)),
        ((33.2, 44.1, 33.2, 44.1), (33, 44, 34, 45), (33, 44, 34, 45)),
        ((80, 60, 80, 60), (79, 59, 80, 60), (79, 59, 80, 60)),
        ((0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1)),
    ],
)
def test_boxes_in_whole_pixels_and_expanded(
    box: tuple[float, float, float, float],
    window: tuple[int, int, int, int],
    expanded: tuple[int, int, int, int],
) -> None:
    assert pixel_window(box, (60, 80)) == window
    assert expand_box(window, (60, 80)) == expanded


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "four finite"),
        ((1, 2, float("nan"), 4), "four finite"),
        ((5, 2, 4, 8), "x0 < x1"),
        ((81, 0, 90, 9), "outside"),
        ((-9, 0, -1, 9), "outside"),
    ],
)
def test_impossible_boxes_are_refused(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        pixel_window(box, (60, 80))


def test_smallest_side_is_the_papers_where_half_of_the_boxes_have_it() -> None:
    def of(*sides: float) -> list[Photo]:
        crowd = Mark(IGNORE, Box(0, 0, 500, 500))
        return [Photo("a", Path("a"), Hints(marks=(crowd, *(Mark(1, Box(0, 0, 90, s)) for s in sides))))]

    assert smallest_side(of(10, 20, 60, 70)) == 20
    assert smallest_side(of(10, 50, 60, 70)) == 50
    assert smallest_side(of(18, 20, 22)) == 20
    assert smallest_side([Photo("a", Path("a"))]) == 50


# --- crops ----------------------------------------------------------------------------------------------------------


def plain_maps(
    window: Window, frame: Window, found: npt.NDArray[np.bool_], size: int, flip: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Eqs. 1 and 2 pixel by pixel: the photo's pixel under each crop pixel's centre."""
    m_exp, b_exp = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            j = (2 * column + 1) * (frame[2] - frame[0]) // (2 * size) + frame[0]
            i = (2 * row + 1) * (frame[3] - frame[1]) // (2 * size) + frame[1]
            if window[0] <= j < window[2] and window[1] <= i < window[3]:
                at = row, size - 1 - column if flip else column
                b_exp[at] = 1
                m_exp[at] = found[i - window[1], j - window[0]]
    return m_exp, b_exp


@pytest.mark.parametrize("box", [(20, 10, 50, 37), (0, 0, 80, 60), (60, 3, 80, 60), (30, 30, 31, 31), (3, 5, 60, 6)])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_crops_equal_the_equations(tmp_path: Path, box: tuple[int, int, int, int], epoch: int) -> None:
    photo, _ = photo_with_boxes(tmp_path, [Mark(2, Box(*map(float, box)))])
    found = np.random.default_rng(0).random((box[3] - box[1], box[2] - box[0])) > 0.5
    data = CropDataset([photo], 3, lambda photo, index: found, size=33, scale=(1.0, 1.0))
    data.set_epoch(epoch)
    item = data[0]
    frame = expand_box(box, (60, 80))
    masks, maps = zip(*(plain_maps(box, frame, found, 33, flip) for flip in (False, True)), strict=True)
    drawn = box_maps(given(item.boxes)[:, 1:], torch.zeros(1, 3, 33, 33))[0, 0].byte().numpy()
    # An item may be flipped: mask and box map then both are.
    assert any((given(item.pixels).numpy() == m).all() and (drawn == b).all() for m, b in zip(masks, maps, strict=True))
    assert (item.tags.tolist(), item.tags_known.tolist()) == ([0, 1, 0], [False, True, False])
    assert (item.window.tolist(), given(item.boxes)[:, 0].tolist()) == ([0, 0, 33, 33], [2])
    assert (item.image.shape, item.image.dtype, item.id) == ((3, 33, 33), torch.uint8, "a#0")


def test_crop_shows_what_the_mask_says(tmp_path: Path) -> None:
    """Bright where the proposal is foreground, at any margin and flip."""
    found = np.zeros((40, 30), bool)
    found[5:30, 4:12] = True
    rgb = np.zeros((100, 90, 3), np.uint8)
    rgb[20:60, 30:60][found] = 255
    Image.fromarray(rgb).save(tmp_path / "a.png")
    photo = Photo("a", tmp_path / "a.png", Hints(marks=(Mark(1, Box(30, 20, 60, 60)),)))
    data, windows, flipped = CropDataset([photo], 1, lambda photo, index: found, size=96), set(), set()
    for epoch in range(12):
        data.set_epoch(epoch)
        item = data[0]
        bright, x0 = item.image[0] > 127, int(given(item.boxes)[0, 1])
        assert ((bright == given(item.pixels).bool()).float().mean()) > 0.98
        flipped.add(bool(bright[:, x0 : x0 + 4].any()))
        windows.add(tuple(given(item.boxes)[0].tolist()))
        assert given(item.pixels).any(), "the box is never cut away"
    assert len(windows) == 12, "margins are drawn anew"
    again = CropDataset([photo], 1, lambda photo, index: found, size=96)
    again.set_epoch(11)
    assert torch.equal(again[0].image, item.image)


def test_flips_happen(tmp_path: Path) -> None:
    photo, _ = photo_with_boxes(tmp_path, [Mark(1, Box(10, 10, 60, 50))])
    left = np.zeros((40, 50), bool)
    left[:, :10] = True
    data, sides = CropDataset([photo], 1, lambda photo, index: left, size=32), set()
    for epoch in range(10):
        data.set_epoch(epoch)
        mask = data[0].pixels
        sides.add(bool(given(mask)[:, :16].sum() > given(mask)[:, 16:].sum()))
    assert sides == {True, False}


def test_crowds_and_small_boxes_are_left_out_and_missing_proposals_ignored(tmp_path: Path) -> None:
    boxes = [
        Mark(1, Box(0, 0, 9, 9)),
        Mark(IGNORE, Box(0, 0, 70, 50)),
        Mark(2, Box(10, 10, 40, 40)),
        Mark(1, Box(0, 0, 70, 19)),
    ]
    photo, _ = photo_with_boxes(tmp_path, boxes)
    asked = []
    data = CropDataset([photo], 2, lambda photo, index: asked.append(index), size=32, smallest_side=20)
    item = data[0]
    assert (len(data), asked, len(photo.hints.objects)) == (1, [1], 3)
    x0, y0, x1, y1 = given(item.boxes)[0, 1:].int().tolist()
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[y0:y1, x0:x1] = True
    assert torch.equal(given(item.pixels), 255 * inside.byte())


def test_epochs_with_fewer_boxes_take_turns(tmp_path: Path) -> None:
    boxes = [Mark(1, Box(2.0 * i, 0, 2.0 * i + 20, 20)) for i in range(10)]
    photo, _ = photo_with_boxes(tmp_path, boxes)
    data = CropDataset([photo], 1, lambda photo, index: None, size=32, per_epoch=5)
    seen = []
    for epoch in range(4):
        data.set_epoch(epoch)
        seen.append([data[i].id for i in range(len(data))])
    assert len(data) == 5
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == [f"a#{i}" for i in range(10)]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_batches_and_survives_broken_photos(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [Mark(1, Box(5, 5, 40, 30)), Mark(2, Box(20, 20, 70, 50))]
    photos = [photo_with_boxes(tmp_path, boxes, name=name)[0] for name in "abc"]
    (tmp_path / "b.png").write_bytes(b"no picture")
    data = CropDataset(photos, 2, lambda photo, index: None, size=32, jitter=0.3)
    with caplog.at_level(logging.WARNING, "hintseg"):
        batches = list(train_loader(data, batch_size=3, workers=workers))
    assert [b.images.shape for b in batches] == [(3, 3, 32, 32)] * 2
    assert (batches[0].images.max() <= 1, batches[0].targets.pixels.dtype) == (True, torch.uint8)
    assert data.skipped == ["b"]
    assert {id.split("#")[0] for b in batches for id in b.ids} == {"a", "c"}


def test_workers_do_not_change_the_crops(tmp_path: Path) -> None:
    photo, _ = photo_with_boxes(tmp_path, [Mark(1, Box(3.0 * i, 0, 3.0 * i + 20, 30)) for i in range(6)])
    runs = [
        list(train_loader(CropDataset([photo], 1, lambda p, i: None, size=32, jitter=0.2), batch_size=2, workers=w))
        for w in (0, 2)
    ]
    for one, other in zip(*runs, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)


def test_no_box_no_photo_and_a_wrong_proposal_are_named(tmp_path: Path) -> None:
    photo, _ = photo_with_boxes(tmp_path, [Mark(1, Box(5, 5, 40, 30))])
    with pytest.raises(PhotoError, match=r"1 photos have 0 boxes whose shorter side is at least 50 px"):
        CropDataset([photo], 1, lambda photo, index: None, smallest_side=50)
    with pytest.raises(ShapeError, match=r"box 0 of photo a is 3x2 pixels but the box is 35x25"):
        CropDataset([photo], 1, lambda photo, index: np.ones((2, 3), bool))[0]
    (tmp_path / "a.png").unlink()
    with pytest.raises(PhotoError, match="none of the 1 photos"):
        CropDataset([photo], 1, lambda photo, index: None)[0]


def test_crops_for_inference_are_those_of_training(tmp_path: Path) -> None:
    boxes = [Mark(1, Box(20, 10, 50, 37)), Mark(1, Box(60, 3, 80, 60))]
    photo, rgb = photo_with_boxes(tmp_path, boxes)
    data = CropDataset([photo], 1, lambda photo, index: None, size=32, scale=(1.0, 1.0))
    (crops,) = crops_of(rgb, [b.shape.corners for b in boxes], 32)
    items: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for epoch in range(8):
        data.set_epoch(epoch)
        for item in (data[0], data[1]):
            items.setdefault(item.id, []).append((item.image.float() / 255, given(item.boxes)[0, 1:]))
    for i in range(2):
        assert any(
            torch.equal(im, crops.images[i]) and torch.equal(w, crops.boxes[i].float()) for im, w in items[f"a#{i}"]
        )


# --- the network ----------------------------------------------------------------------------------------------------


def test_box_maps_equal_the_equation() -> None:
    windows = torch.tensor([[1, 2, 5, 4], [0, 0, 8, 6], [7, 5, 8, 6]])
    maps = box_maps(windows, torch.zeros(3, 3, 6, 8))
    for b, (x0, y0, x1, y1) in enumerate(windows.tolist()):
        plain = [[float(x0 <= x < x1 and y0 <= y < y1) for x in range(8)] for y in range(6)]
        assert maps[b, 0].tolist() == plain


def test_at_the_start_the_encoder_is_the_one_of_the_image() -> None:
    method, seen = network().eval(), batch()
    plain = network().eval()
    images, tags, boxes = shown(seen)
    hints = torch.cat([box_maps(boxes, images), tags[:, :, None, None].expand(-1, -1, 64, 64)], dim=1)
    with torch.no_grad():
        for level, zeros in zip(
            method.backbone(seen.images, hints), plain.backbone(seen.images, 0 * hints), strict=True
        ):
            torch.testing.assert_close(level, zeros)
    first = next(m for m in method.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert (first.in_channels, bool(first.weight[:, 3:].any()), bool(first.weight[:, :3].any())) == (7, False, True)


@pytest.mark.parametrize("finest", [1, 2, 4, 32])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])  # finest levels of 2 and 4 pixels per cell
def test_probabilities_of_any_network_at_crop_size(backbone: str, finest: int) -> None:
    method = network(backbone=TINY.model_copy(update={"name": backbone}), finest=finest).eval()
    seen = batch()
    probability = method.foreground(*shown(seen))
    assert probability.shape == (2, 64, 64)
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_any_number_of_levels(levels: int) -> None:
    method = network(backbone=TINY.model_copy(update={"levels": levels}), finest=1)
    assert method.foreground(*shown(batch())).shape == (2, 64, 64)


def test_box_and_class_reach_every_block() -> None:
    """With the encoder blind to them and the photo blank, they still change what every block gives."""
    method = network(finest=1).eval()
    blank = torch.full((2, 3, 64, 64), 0.5)
    outputs: dict[int, list[torch.Tensor]] = {}
    blocks = [method.decoder.bottleneck, *method.decoder.blocks]
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda m, x, y, i=i: outputs.setdefault(i, []).append(y))
    _, tags, boxes = shown(batch())
    other_box, other_tags = boxes.flip(0), tags.roll(1, 1)
    with torch.no_grad():
        first = method.foreground(blank, tags, boxes)
        assert not torch.allclose(first, method.foreground(blank, tags, other_box))
        assert not torch.allclose(first, method.foreground(blank, other_tags, boxes))
        # From one block alone: the features that enter it silenced, leaving the hints.
        for block in blocks:
            given = block[0].in_channels - 4
            for start in (given, given + 1):  # the box map, the classes
                assert block[0].weight[:, start:].any()
    assert len(outputs) == 6
    for values in outputs.values():
        assert not torch.allclose(values[0], values[1]), "the box"
        assert not torch.allclose(values[0], values[2]), "the class"


def test_gradient_reaches_everything() -> None:
    method = network(backbone=TINY.model_copy(update={"freeze": "none"})).train()
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # a residual branch that starts at zero hides what is in it
            torch.nn.init.ones_(module.weight)
    method.losses(batch(4), Progress(0, 1))["cfs"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_frozen_early_layers_still_learn_to_read_the_hints() -> None:
    method = network(backbone=TINY.model_copy(update={"freeze": "early"})).train()
    method.losses(batch(4), Progress(0, 1))["cfs"].backward()
    frozen = [name for name, p in method.backbone.named_parameters() if not p.requires_grad]
    first = next(m for m in method.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert frozen
    assert given(first.weight.grad)[:, 3:].any()


def test_loss_is_the_cross_entropy_of_labelled_pixels() -> None:
    method, seen = network().eval(), batch()
    given(seen.targets.pixels)[0, :20] = 255
    with torch.no_grad():
        p = method.foreground(*shown(seen))
        loss = method.losses(seen, Progress(0, 1))["cfs"]
    known = seen.targets.pixels != 255
    plain = -torch.where(given(seen.targets.pixels) == 1, p, 1 - p).log()[known].mean()  # Eq. 3
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-5)
    given(seen.targets.pixels)[:] = 255
    assert method.losses(seen, Progress(0, 1))["cfs"] == 0


def test_a_batch_without_proposals_is_refused() -> None:
    seen = with_targets(batch(), pixels=None)
    with pytest.raises(ConfigError, match="learns from proposals"):
        network().losses(seen, Progress(0, 1))


def test_half_precision_and_one_class() -> None:
    method, seen = network(classes=1).train(), batch(classes=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(seen, Progress(0, 1))["cfs"]
        loss.backward()
        probability = method.eval().foreground(*shown(seen))
    assert loss.isfinite()
    assert (probability.dtype, bool(probability.isfinite().all())) == (torch.float32, True)


def test_parameter_groups_hold_every_parameter_once_and_weights_come_back(tmp_path: Path) -> None:
    method = network()
    method.prepare([batch()])
    backbone, decoder = method.parameter_groups()
    held = [id(p) for group in (backbone, decoder) for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in method.parameters())
    assert (backbone.head, decoder.head) == (False, True)
    assert all(scale.factor != 1 for scale in method.scales)
    save_weights(method.eval(), tmp_path / "model.safetensors", classes=("a", "b", "c"), background=True)
    loaded = load_weights(tmp_path / "model.safetensors")[0]
    seen = batch()
    with torch.no_grad():
        both = [of(Cfs, m).foreground(*shown(seen)) for m in (method, loaded)]
    torch.testing.assert_close(*both)


def test_mirrored_crops_are_averaged() -> None:
    seen, method = batch(), network().eval()
    plain = network(flip=False).eval()
    plain.load_state_dict(method.state_dict())
    with torch.no_grad():
        one = plain.foreground(*shown(seen))
        images, tags, boxes = shown(seen)
        x0, y0, x1, y1 = boxes.T
        other = plain.foreground(images.flip(3), tags, torch.stack([64 - x1, y0, 64 - x0, y1], dim=1)).flip(2)
        both = method.foreground(*shown(seen))
    torch.testing.assert_close(both, (one + other) / 2)
    assert not torch.allclose(one, both)


def test_auto_settings_are_sane_for_boxes() -> None:
    config = CfsConfig(backbone=TINY)
    few, many = (resolve_fit(config, Facts(photos=n, side=224, pretrained=True, gpu=False)) for n in (40, 1000))
    assert (few.batch_size, few.crop, few.epochs * 40) == (10, 224, 125 * 40)
    assert (many.batch_size, many.epochs) == (16, 12)
    assert many.scale != "auto"
    assert 0.4 < many.scale[0] < 1 < many.scale[1]


# --- boxes of a photo -----------------------------------------------------------------------------------------------


def test_hundreds_of_boxes_of_one_photo_in_small_batches() -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    corners = random.uniform(0, 60, (300, 2))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, random.uniform(0, 60, (300, 2)), strict=True)]
    labels = random.integers(1, 4, 300).tolist()
    sizes, order = [], []

    def predict(images: Tensor, tags: Tensor, windows: Tensor) -> Tensor:
        sizes.append(len(images))
        order.extend((tags.argmax(dim=1) + 1).tolist())
        return box_maps(windows, images)[:, 0]

    for box, found in zip(boxes, foreground_of(predict, rgb, boxes, labels, 3, size=32), strict=True):
        x0, y0, x1, y1 = found.frame
        window = pixel_window(box, (90, 120))
        assert found.frame == expand_box(window, (90, 120))
        assert found.probability.shape == (y1 - y0, x1 - x0)
        i0, j0, i1, j1 = found.inner
        assert (i0 + x0, j0 + y0, i1 + x0, j1 + y0) == window
        # The map of the box comes back to the box's place, to within the crop's cells.
        inside = np.zeros_like(found.probability)
        inside[j0:j1, i0:i1] = 1
        assert np.abs(found.probability - inside).mean() < 0.12
    assert (max(sizes), sum(sizes), order) == (32, 300, labels)


def test_network_predicts_the_same_whatever_the_batch() -> None:
    method = network().eval()
    rgb = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    boxes, labels = [(0, 0, 80, 60), (5, 5, 6, 6), (20, 10, 50, 40)], [1, 2, 3]
    runs = [list(foreground_of(method.foreground, rgb, boxes, labels, 3, size=64, batch=n)) for n in (1, 3)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-5)
    assert list(foreground_of(method.foreground, rgb, [], [], 3)) == []


def test_learns_objects_from_noisy_proposals(tmp_path: Path) -> None:
    """Proposals miss a random half of each object or add a random strip: what all agree on is the object."""
    random, photos, truths, proposals = np.random.default_rng(0), [], {}, {}
    yy, xx = np.mgrid[:48, :48]
    for n in range(24):
        rgb = np.random.default_rng(n).integers(0, 110, (48, 48, 3), dtype=np.uint8)
        cy, cx, ry, rx = random.uniform((20, 20, 8, 8), (28, 28, 15, 15))
        disc = ((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 < 1
        label = int(random.integers(1, 3))
        rgb[disc] = rgb[disc] // 2 + np.array([(140, 60, 20), (20, 60, 140)][label - 1], np.uint8)
        ys, xs = np.nonzero(disc)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        truth = disc[box[1] : box[3], box[0] : box[2]]
        noisy = truth.copy()
        middle = noisy.shape[1] // 2
        if n % 2:
            noisy[:, : middle - 2] = True
        elif n % 4:
            noisy[:, middle:] = False
        else:
            noisy[: noisy.shape[0] // 2] = False
        Image.fromarray(rgb).save(tmp_path / f"{n}.png")
        photos.append(Photo(str(n), tmp_path / f"{n}.png", Hints(marks=(Mark(label, Box(*map(float, box))),))))
        truths[str(n)], proposals[str(n)] = truth, noisy

    method = network(classes=2, size=32, widths=(32, 16, 16))
    data = CropDataset(photos, 2, lambda photo, index: proposals[photo.id], size=32)
    settings = FitConfig(
        epochs=25, batch_size=8, optimizer="adamw", lr=0.004, head_lr=1.0, weight_decay=0.01, warmup=0.1, crop=32
    )
    steps = fit(method, train_loader(data, batch_size=8), settings, TrainerConfig(accelerator="cpu"), tmp_path)
    assert steps == 75

    def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
        return float((a & b).sum() / (a | b).sum())

    learned = []
    for photo in photos:
        rgb, mark = np.array(Image.open(photo.path)), photo.hints.objects[0]
        (found,) = foreground_of(method.foreground, rgb, [mark.shape.corners], [mark.label], 2, size=32)
        x0, y0, x1, y1 = found.inner
        learned.append(iou(found.probability[y0:y1, x0:x1] > 0.5, truths[photo.id]))
    noisy = [iou(proposals[photo.id], truths[photo.id]) for photo in photos]
    assert np.mean(learned) > np.mean(noisy) + 0.1
