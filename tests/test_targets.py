"""What is known of photos, and that nothing is learned from what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hintseg.config.settings import BackboneConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError
from hintseg.losses.classification import multi_label_soft_margin, tag_loss
from hintseg.losses.cross_entropy import CrossEntropy, pixel_cross_entropy
from hintseg.losses.soft_margin import pixel_soft_margin
from hintseg.methods.afa import Afa, AfaConfig
from hintseg.methods.bmp import Bmp, BmpConfig
from hintseg.methods.cfs import Cfs, CfsConfig
from hintseg.nn.prior import ClassPrior
from hintseg.refine.pseudo_labels import CropPar, only_said
from hintseg.types import Box, Hints, Mark, Photo, Prediction, Progress, Supervision, Tags, Targets
from made import batch_of, given, with_targets

TINY = BackboneConfig(name="mit_tiny", weights="random")


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def targets(tags: Sequence[Sequence[float]], known: list[list[bool]] | None = None, **more: Any) -> Targets:
    wanted = torch.tensor(tags)
    said = torch.ones_like(wanted, dtype=torch.bool) if known is None else torch.tensor(known)
    return Targets(wanted, said, torch.tensor([[0, 0, 64, 64]] * len(tags)), **more)


# --- from hints to targets ------------------------------------------------------------------------------------------


def test_tags_that_were_not_said_are_not_known(tmp_path: Path) -> None:
    photos = []
    for name, tags in (("said", {2}), ("none", set()), ("silent", None)):
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
        hints = Hints(None if tags is None else Tags.complete(tags, 3))
        photos.append(Photo(name, tmp_path / f"{name}.png", hints))
    data = PhotoDataset(photos, 3, TrainingTransform(32, (1.0, 1.0)))
    batch = collate([data[i] for i in range(3)])
    assert batch.targets.tags.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert batch.targets.tags_known.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    assert batch.targets.possible.tolist() == [[False, True, False], [False] * 3, [True] * 3]
    assert (batch.targets.pixels, batch.targets.boxes, batch.targets.trust) == (None, None, None)
    assert batch.targets.kinds == {Supervision.TAGS}


def test_a_class_is_not_asked_for_in_crops_that_its_labels_are_outside_of(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 96, 3), 90, np.uint8)).save(tmp_path / "wide.png")
    labels = np.full((16, 96), 255, np.uint8)
    labels[:, :10], labels[:, 70:] = 1, 2
    boxes = (Mark(3, Box(20, 2, 40, 14)),)
    photo = Photo("wide", tmp_path / "wide.png", Hints(Tags.complete({1, 2, 3, 4}, 5), marks=boxes))
    data = PhotoDataset([photo], 5, TrainingTransform(16, (1.0, 1.0)), lambda one: labels, boxes=True)
    found = set()
    for epoch in range(60):
        data.set_epoch(epoch)
        one = data[0]
        here = set(given(one.pixels).unique().tolist()) | set(given(one.boxes)[:, 0].int().tolist())
        shown = [label in here for label in (1, 2, 3)]
        assert one.tags.tolist() == [*shown, True, False]  # of the fourth the tag alone is known, the fifth is absent
        assert one.tags_known.tolist() == [*shown, True, True]
        found.add(tuple(shown))
    assert {(True, False, False), (False, True, False), (False, False, True)} <= found


def test_everything_moves_with_a_batch() -> None:
    pixels, boxes = torch.zeros(1, 8, 8, dtype=torch.uint8), (torch.zeros(2, 5),)
    batch = batch_of(rand(1, 3, 8, 8), torch.ones(1, 2), pixels, boxes=boxes)
    batch = replace(with_targets(batch, trust=torch.ones(1, 8, 8)), source=batch)
    moved = batch.to("meta")
    for one in (moved, moved.source):
        known = given(one).targets
        tensors = [
            given(one).images,
            known.tags,
            known.tags_known,
            known.windows,
            given(known.pixels),
            *given(known.boxes),
        ]
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert given(moved.targets.trust).device.type == "meta"
    assert moved.targets.kinds == set(Supervision)


# --- losses ---------------------------------------------------------------------------------------------------------


def test_where_all_tags_are_known_the_tag_loss_is_the_plain_one_bit_for_bit() -> None:
    for shape in ((3, 7), (16, 20), (5, 3)):
        wanted = (rand(*shape, seed=1) > 0.5).float()
        gradients = []
        for known in (None, torch.ones(shape, dtype=torch.bool)):
            logits = (rand(*shape) * 8 - 4).requires_grad_()
            multi_label_soft_margin(logits, wanted, known).backward()
            gradients.append(given(logits.grad))
        assert torch.equal(gradients[0], gradients[1])


def test_unknown_tags_and_photos_of_which_none_is_known_contribute_nothing() -> None:
    said = targets([[1.0, 0, 0], [0, 0, 1], [0, 0, 0]], [[True, False, True], [True] * 3, [False] * 3])
    logits = (rand(3, 3) * 4 - 2).requires_grad_()
    loss = tag_loss(logits, said)
    loss.backward()
    known = said.tags_known
    plain = -(said.tags * logits.sigmoid().log() + (1 - said.tags) * (1 - logits.sigmoid()).log())[known].mean()
    torch.testing.assert_close(loss, plain)
    assert not given(logits.grad)[~known].any()
    assert given(logits.grad)[known].all()
    nothing = tag_loss(logits, targets([[0.0] * 3] * 3, [[False] * 3] * 3))
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


def test_the_prior_is_that_of_the_photos_in_which_the_class_is_known() -> None:
    tags = torch.tensor([[1.0, 0, 0]] * 6 + [[0.0, 0, 0]] * 4)
    known = torch.tensor([[True, True, False]] * 6 + [[False, True, False]] * 4)
    prior = ClassPrior(3)
    prior.measure([(tags[:4], known[:4]), (tags[4:], known[4:])])
    expected = torch.tensor([6.5 / 0.5, 0.5 / 10.5, 1.0]).log()
    torch.testing.assert_close(prior.offset, expected)  # of the last class nothing is known: an offset of 0


def test_trust_weighs_pixels() -> None:
    logits, pixels = rand(2, 3, 4, 4) * 4, (rand(2, 4, 4, seed=1) * 3).byte()
    pixels[0, 0] = 255
    for loss in (pixel_cross_entropy, pixel_soft_margin):
        plain = loss(logits, pixels)
        torch.testing.assert_close(loss(logits, pixels, torch.ones(2, 4, 4)), plain)
        torch.testing.assert_close(loss(logits, pixels, torch.full((2, 4, 4), 0.25)), plain / 4)
        first = torch.zeros(2, 4, 4)
        first[0] = 1
        alone = loss(logits[:1], pixels[:1]) * (pixels[0] != 255).sum() / (pixels != 255).sum()
        torch.testing.assert_close(loss(logits, pixels, first), alone)


# --- labels made on the way -----------------------------------------------------------------------------------------


def test_judging_every_nth_pixel_is_judging_all_of_coarse_labels() -> None:
    """Where neighbours are alike, n of n say what one says; and pixels between those that are judged say nothing."""
    logits, coarse = rand(2, 4, 8, 8) * 5, (rand(2, 8, 8, seed=1) * 4).byte()
    coarse[0, :3] = 255
    trust = rand(2, 8, 8, seed=2)
    targets = batch_of(rand(2, 3, 8, 8), torch.ones(2, 3), coarse).targets
    plain = CrossEntropy()(Prediction(logits), replace(targets, trust=trust), rand(1), Progress(0, 1))
    pixels, trusted = (one.repeat_interleave(4, 1).repeat_interleave(4, 2) for one in (coarse, trust))
    between = torch.ones(2, 32, 32, dtype=torch.bool)
    between[:, 2::4, 2::4] = False
    fine = replace(targets, pixels=torch.where(between, 3, pixels).byte(), trust=trusted)
    every = CrossEntropy(every=4)(Prediction(logits), fine, rand(1), Progress(0, 1))
    torch.testing.assert_close(every, plain)


def test_a_class_that_was_not_said_leaves_the_pixel_open() -> None:
    said = targets([[1.0, 0, 0]], [[True, False, True]])
    labels = torch.tensor([[[0, 1, 2, 3, 255]]], dtype=torch.uint8)
    assert only_said(labels, said).tolist() == [[[0, 1, 255, 3, 255]]]
    everything = targets([[0.0] * 254], [[False] * 254])
    assert only_said(torch.arange(256, dtype=torch.uint8)[None, None], everything)[0, 0].tolist() == [0] + [255] * 255


def one_hot_maps(size: int) -> torch.Tensor:
    """Class 1 on the left, class 2 on the right, class 3 nowhere."""
    maps = torch.zeros(1, 3, size, size)
    maps[:, 0, :, : size // 2 - 4] = 1
    maps[:, 1, :, size // 2 + 4 :] = 1
    return maps


@pytest.mark.parametrize("known", [True, False])
def test_par_labels_know_absent_from_not_said(known: bool) -> None:
    """Where class 2 is known to be absent its place is background; where nothing was said, it is open."""
    method = Afa(AfaConfig(backbone=TINY, width=16), 3, True)
    said = targets([[1.0, 0, 0]], [[True, known, True]])
    photo = torch.stack([m.clamp(0.1, 0.9) for m in one_hot_maps(64)])  # colours as the objects
    spread = CropPar(photo, said.windows)
    labels = method.colour_labels(spread, one_hot_maps(64), said)
    assert labels[0, 20:40, 8:20].unique().tolist() == [1]
    assert labels[0, 20:40, 44:56].unique().tolist() == ([0] if known else [255])


@pytest.mark.parametrize("known", [True, False])
def test_feedback_of_branch_s_may_name_classes_that_were_not_said(known: bool) -> None:
    method = Bmp(BmpConfig(backbone=TINY, width=16), 3, True)
    said = targets([[1.0, 0, 0]], [[True, known, True]])
    logits = torch.cat([torch.zeros(1, 1, 64, 64), 9 * one_hot_maps(64)], dim=1)
    labels = method.feedback(logits, said)
    assert labels[0, 20:40, 8:20].unique().tolist() == [1]
    assert labels[0, 20:40, 44:56].unique().tolist() == ([255] if known else [2])


@pytest.mark.parametrize(("kind", "config"), [(Afa, AfaConfig), (Bmp, BmpConfig)])
@pytest.mark.parametrize("step", [5, 15, 50])
def test_one_stage_methods_learn_from_batches_with_photos_of_which_nothing_is_known(
    kind: type[Afa] | type[Bmp], config: type[AfaConfig] | type[BmpConfig], step: int
) -> None:
    torch.manual_seed(0)
    method = kind(config(backbone=TINY, width=16), 3, True).train()
    batch = batch_of(rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
    batch = with_targets(batch, tags_known=torch.tensor([[True, True, False], [False] * 3]))
    method.prepare([batch])
    losses = method.losses(batch, Progress(step, 100))
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize(("kind", "config"), [(Afa, AfaConfig), (Bmp, BmpConfig)])
@pytest.mark.parametrize("step", [0, 50])
def test_objectives_of_a_recipe_judge_branch_s_of_one_stage_methods_beside_their_own_losses(
    kind: type[Afa | Bmp], config: type[AfaConfig | BmpConfig], step: int
) -> None:
    own = {"backbone": TINY, "width": 16}
    listed = {"objectives": [{"name": "cross_entropy", "weight": 2.0}]}
    torch.manual_seed(0)
    method = kind(config.model_validate(own | listed), 3, True).eval()
    plain = kind(config.model_validate(own), 3, True).eval()
    plain.load_state_dict(method.state_dict())
    strokes = torch.full((2, 64, 64), 255, dtype=torch.uint8)
    strokes[0, 10, 5:30] = 2
    strokes[0, 50, 5:30] = 0
    batch = batch_of(rand(2, 3, 64, 64), torch.tensor([[0.0, 1, 0], [0, 0, 1]]), strokes)
    losses, before = (one.losses(batch, Progress(step, 100)) for one in (method, plain))
    assert losses.keys() - before.keys() == {"segmentation"}
    for name, loss in before.items():
        assert torch.equal(losses[name], loss)
    logits = torch.nn.functional.interpolate(method.segment(batch.images), size=(64, 64), mode="bilinear")
    marked = strokes != 255
    expected = -logits.log_softmax(dim=1).gather(1, strokes.long().clamp(max=3)[:, None])[:, 0][marked].mean()
    torch.testing.assert_close(losses["segmentation"], 2 * expected)
    with pytest.raises(ConfigError, match="objective 'cross_entropy' learns from masks, but the batch has none"):
        method.losses(with_targets(batch, pixels=None), Progress(step, 100))


def test_an_objective_of_the_name_of_a_papers_own_loss_is_refused() -> None:
    listed = {"objectives": [{"name": "balanced_cross_entropy"}]}
    method = Afa(AfaConfig.model_validate({"backbone": TINY, "width": 16} | listed), 3, True)
    pixels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    batch = batch_of(rand(2, 3, 64, 64), torch.tensor([[0.0, 1, 0], [0, 0, 1]]), pixels)
    with pytest.raises(ConfigError, match="gives a loss named loss_seg, and so does another"):
        method.losses(batch, Progress(50, 100))


def test_cfs_looks_at_one_box_in_each_crop() -> None:
    backbone = BackboneConfig(name="test_resnet", weights="random", output_stride=32)
    method = Cfs(CfsConfig(backbone=backbone, widths=(8,)), 3, True)
    pixels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    for boxes in (None, (torch.zeros(0, 5),), (torch.ones(2, 5),)):
        batch = batch_of(rand(1, 3, 64, 64), torch.ones(1, 3), pixels, boxes=boxes)
        with pytest.raises(ConfigError, match="one box at a time"):
            method.losses(batch, Progress(0, 1))
