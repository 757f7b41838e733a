"""CSD: Eqs. 1-6 against slow plain versions, pastes pixel by pixel, and resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given as given_
from hypothesis import settings as trials
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from csd_pairs import Plain, pairs, photo, plain_consistency
from hintseg.config.settings import BackboneConfig, MethodConfig
from hintseg.data.sources import Source, SourcePool, single_class_window
from hintseg.errors import ConfigError, PhotoError, ShapeError
from hintseg.hints.cooccurrence import cooccurrence_prior, single_tag_counts
from hintseg.methods.cam import Cam, CamConfig
from hintseg.methods.irn import Irn, IrnConfig
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.methods.method import Method
from hintseg.methods.vwe import Vwe, VweConfig
from hintseg.nn.vit import VitConfig
from hintseg.types import IGNORE, Batch, Progress
from hintseg.wrappers.consistency import covered
from hintseg.wrappers.csd import Csd, CsdConfig, make_pastes, reliable
from made import batch_of, given, of, rand, with_targets
from published import reference

TINY_VIT = VitConfig(weights="random", output_stride=8, depth=2, width=24, heads=3, drop_path=0.0)
SMALL = BackboneConfig(name="test_resnet", weights="random", freeze="norm")


# --- Eq. 1 and resampling -------------------------------------------------------------------------------------------


def plain_counts(tags: npt.NDArray[Any], diagonal: str) -> list[list[int]]:
    classes = len(tags[0])
    counts = [[0] * classes for _ in range(classes)]
    for row in tags:
        for i in range(classes):
            for j in range(classes):
                alone = sum(row) == 1 or diagonal == "all"
                counts[i][j] += bool(row[i] and row[j] and (i != j or alone))
    return counts


@pytest.mark.parametrize("diagonal", ["single", "all"])
def test_prior_equals_the_equation(diagonal: Literal["single", "all"]) -> None:
    tags = np.random.default_rng(0).integers(0, 2, (30, 4))
    tags[:, 3] = 0  # a class no photo shows
    counts = plain_counts(tags, diagonal)
    expected = [[n / max(sum(row), 1) for n in row] for row in counts]
    assert cooccurrence_prior(tags, diagonal=diagonal).tolist() == expected
    assert single_tag_counts(tags).tolist() == [sum(r[k] for r in tags if sum(r) == 1) for k in range(4)]


def test_prior_equals_the_published_numbers() -> None:
    known = {name: values.numpy() for name, values in reference("csd_psd").items()}
    tags = known["labels"].astype(int)
    assert (cooccurrence_prior(tags, diagonal="all").astype(np.float32) == known["prior_paper"]).all()
    counts = np.array(plain_counts(tags, "single"))  # the earlier code's counts have lonely photos on the diagonal
    softmax = np.exp(0.1 * counts) / np.exp(0.1 * counts).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, known["prior_code"], atol=1e-7)
    np.testing.assert_allclose(cooccurrence_prior(tags) * counts.sum(axis=1, keepdims=True), counts)


def test_sources_are_drawn_by_what_comes_together() -> None:
    photos = [Source(photo("a", 1)), Source(photo("b", 1)), Source(photo("c", 2)), Source(photo("d", 4))]
    prior = np.array([[0.4, 0.3, 0.3, 0], [0.5, 0.25, 0.15, 0.1], [0, 0, 0.5, 0.5], [0, 0, 1, 0]])
    pool = SourcePool(photos, prior)
    # Rows 1 and 2 sum to (.9, .55, .45, .1); class 3 has no source photo: / 1.55.
    expected = {"a": 0.9 / 1.55 / 2, "b": 0.9 / 1.55 / 2, "c": 0.55 / 1.55, "d": 0.1 / 1.55}
    random = np.random.default_rng(0)
    drawn = [pool.draw({1, 2}, random).photo.id for _ in range(4000)]
    for name, share in expected.items():
        assert drawn.count(name) / 4000 == pytest.approx(share, abs=0.025)


def test_all_sources_are_alike_without_resampling_and_where_classes_tell_nothing() -> None:
    photos = [Source(photo("a", 1)), Source(photo("b", 1)), Source(photo("c", 2))]
    lonely = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]])  # only class 3 comes along, and has no source photo
    for prior in (None, lonely):
        random = np.random.default_rng(0)
        drawn = [SourcePool(photos, prior).draw({1, 3}, random).photo.id for _ in range(3000)]
        assert all(drawn.count(name) / 3000 == pytest.approx(1 / 3, abs=0.03) for name in "abc")
    with pytest.raises(PhotoError, match="0 source photos"):
        SourcePool([], None)


@trials(max_examples=30, deadline=None)
@given_(
    mask=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.sampled_from([0, 1, 2, 255])),
    others=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_the_window_of_a_class_is_the_best_of_all(mask: npt.NDArray[np.uint8], others: float) -> None:
    height, width = mask.shape
    best, found = (0, 0), None
    for y0, x0 in product(range(height), range(width)):
        for y1, x1 in product(range(y0 + 1, height + 1), range(x0 + 1, width + 1)):
            part = mask[y0:y1, x0:x1]
            own, foreign = int((part == 1).sum()), int((part == 2).sum())
            if own >= max(1, 0.05 * mask.size) and foreign <= others * own:
                best = max(best, (own, part.size))
    window = single_class_window(mask, 1, others=others)
    if window is not None:
        x0, y0, x1, y1 = window
        part = mask[y0:y1, x0:x1]
        assert (part == 2).sum() <= others * (part == 1).sum()
        found = (int((part == 1).sum()), part.size)
    assert (found or (0, 0)) == best


# --- Eqs. 2-6 -------------------------------------------------------------------------------------------------------


def plain_pastes(data: Batch, offsets: Tensor) -> list[Tensor]:
    """Both pastes, pixel by pixel; also which pixels were pasted."""
    several = [i for i, row in enumerate(data.targets.tags.tolist()) if sum(row) > 1]
    made = []
    for p, (t, (dy, dx)) in enumerate(zip(several, offsets.tolist(), strict=True)):
        label = given(data.source).targets.tags[p].tolist().index(1) + 1
        one = [data.images[t].clone(), data.images[t].clone(), torch.zeros(8, 8) > 0, torch.zeros(8, 8) > 0]
        for y in range(8):
            for x in range(8):
                if not (0 <= y - dy < 8 and 0 <= x - dx < 8):
                    continue
                value = int(given(given(data.source).targets.pixels)[p, y - dy, x - dx])
                if value == label:
                    one[0][:, y, x], one[2][y, x] = given(data.source).images[p, :, y - dy, x - dx], True
                if value == 0 and given(data.targets.pixels)[t, y, x] == 0:
                    one[1][:, y, x], one[3][y, x] = given(data.source).images[p, :, y - dy, x - dx], True
        made.append(one)
    return [torch.stack(column) for column in zip(*made, strict=True)]


@pytest.mark.parametrize("offsets", [[[0, 0], [0, 0]], [[2, -4], [-2, 6]], [[9, 0], [0, -20]]])
def test_pastes_pixel_by_pixel(offsets: list[list[int]]) -> None:
    data, moves = pairs(), torch.tensor(offsets)
    pastes = make_pastes(data, moves)
    foreground, background, objects, surroundings = plain_pastes(data, moves)
    assert torch.equal(pastes.foreground, foreground)
    assert torch.equal(pastes.background, background)
    assert torch.equal(pastes.objects, objects)
    assert torch.equal(pastes.surroundings, surroundings)
    assert torch.equal(pastes.target, data.images[[0, 2]])
    assert pastes.objects.any() == (abs(offsets[0][0]) < 8)
    assert not (pastes.surroundings & (given(data.targets.pixels)[[0, 2]] != 0)).any()  # the targets' objects stay


def test_covered_cells_are_wholly_covered() -> None:
    pixels = rand(1, 6, 6) > 0.2
    expected = [[bool(pixels[0, 2 * y : 2 * y + 2, 3 * x : 3 * x + 3].all()) for x in range(2)] for y in range(3)]
    assert 0 < sum(map(sum, expected)) < 6
    assert covered(pixels, (3, 2))[0].tolist() == expected


def test_reliable_cells_are_those_the_teacher_sees() -> None:
    teacher = torch.tensor([[[[9.0, 9.0, 9.0, 9.0]], [[-2.0, 4.0, 1.0, 80.0]]]])  # class 2 is the source's
    # The first pixel is of unknown label, as weak places are where there is no background; the last is padding.
    source = batch_of(rand(1, 3, 1, 4), torch.tensor([[0.0, 1]]), torch.tensor([[[255, 2, 2, 255]]], dtype=torch.uint8))
    source = with_targets(source, windows=torch.tensor([[0, 0, 3, 1]]))
    assert reliable(teacher, source, 0.5).tolist() == [[[False, True, True, False]]]  # stretched: 0, 1, .5; padding
    assert reliable(teacher, source, 0.6).tolist() == [[[False, True, False, False]]]
    assert reliable(teacher, source, 0.0).all()


@pytest.mark.parametrize("shift", [0, 2])
def test_losses_equal_the_equations(shift: int) -> None:
    data, progress = pairs(), Progress(3, 10)
    settings = CsdConfig(form="paper", foreground=0.3, background=0.7, dummy=0.2, reliable=0.7, shift=shift)
    wrapped = Csd(Plain(), settings).train()
    losses = wrapped.losses(data, progress)
    offsets = wrapped._offsets(data, 2, progress)
    assert offsets.any() == bool(shift)
    foreground, background, objects, surroundings = plain_pastes(data, offsets * 2)
    with torch.no_grad():
        plain = Plain()
        at_home = plain.raw_maps(given(data.source).images)
        moved = torch.zeros_like(at_home)
        trusted = torch.zeros(2, 4, 4, dtype=torch.bool)
        for p, (dy, dx) in enumerate(offsets.tolist()):
            label = given(data.source).targets.tags[p].tolist().index(1)
            known = (given(given(data.source).targets.pixels)[p] != 255).reshape(4, 2, 4, 2).all(dim=3).all(dim=1)
            own = at_home[p, label]
            stretched = (own - own[known].min()) / (own[known].max() - own[known].min())
            for y in range(4):
                for x in range(4):
                    if 0 <= y - dy < 4 and 0 <= x - dx < 4:
                        moved[p, :, y, x] = at_home[p, :, y - dy, x - dx]
                        trusted[p, y, x] = known[y - dy, x - dx] and stretched[y - dy, x - dx] >= 0.7
        cells = [m.reshape(2, 4, 2, 4, 2).all(dim=4).all(dim=2) for m in (objects, surroundings)]
        assert (cells[0] & trusted).any()
        assert shift or (cells[0] & ~trusted).any()
        assert cells[1].any()
        fg, _ = plain_consistency(moved, plain.raw_maps(foreground), cells[0] & trusted)
        teacher, student = (
            torch.stack([m.sum(dim=1), torch.full((2, 4, 4), 0.2)], dim=1) for m in (moved, plain.raw_maps(background))
        )
        bg, _ = plain_consistency(teacher, student, cells[1])
    assert set(losses) == {"loss_own", "loss_fg", "loss_bg"}
    assert losses["loss_fg"].item() == pytest.approx(0.3 * fg, rel=1e-4)
    assert losses["loss_bg"].item() == pytest.approx(0.7 * bg, rel=1e-4, abs=1e-6)


def test_teacher_is_in_evaluation_mode_without_gradient_and_students_go_together() -> None:
    wrapped = Csd(Plain(), CsdConfig(background=0.1)).train()
    wrapped.losses(pairs(), Progress(0, 1))
    # photos, training mode, gradient: the localizer's own step, two sources, two objects and two backgrounds
    assert of(Plain, wrapped.localizer).asked == [(3, True, True), (2, False, False), (4, True, True)]
    assert wrapped.localizer.training


def test_what_is_pasted_in_place_scores_as_at_home_under_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Normed(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.frozen = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3).eval()
            self.drop = torch.nn.Dropout(0.5)

        def raw_maps(self, images: Tensor) -> Tensor:
            maps: Tensor = self.frozen(self.norm(super().raw_maps(images)))
            return maps

    wrapped = Csd(Normed(), CsdConfig(reliable=0, background=0.1))
    norms = of(Normed, wrapped.localizer)
    norms.norm.train()
    norms.drop.train()
    images = rand(2, 3, 8, 8)
    teacher = wrapped._teach(images)
    torch.testing.assert_close(teacher, norms.raw_maps(images).detach())  # the batch's statistics, not those so far
    assert [part.training for part in (norms.norm, norms.frozen, norms.drop)] == [True, False, True]
    monkeypatch.setattr(norms, "raw_maps", lambda images: norms.drop(images))
    assert torch.equal(wrapped._teach(images), images)  # nothing is dropped


@pytest.mark.parametrize(("settings", "asked"), [({"background": 0}, 2), ({"foreground": 0}, 2)])
def test_each_loss_alone(settings: dict[str, int], asked: int) -> None:
    both, one = (Csd(Plain(), CsdConfig.model_validate({"reliable": 0, "background": 0.1} | s)) for s in ({}, settings))
    expected, losses = (c.losses(pairs(), Progress(0, 1)) for c in (both, one))
    gone = "loss_bg" if "background" in settings else "loss_fg"
    assert of(Plain, one.localizer).asked[-1][0] == asked
    torch.testing.assert_close(losses, expected | {gone: torch.zeros(())})
    neither = Csd(Plain(), CsdConfig(foreground=0, background=0))
    assert neither.losses(pairs(), Progress(0, 1))["loss_fg"] == 0
    assert len(of(Plain, neither.localizer).asked) == 1


def test_nothing_to_paste_is_no_loss() -> None:
    for change in ("no object", "no pair", "no background", "no known pixel"):
        data = pairs()
        if change == "no object":
            given(given(data.source).targets.pixels)[:] = 0
        elif change == "no background":
            given(data.targets.pixels)[:] = 1
        elif change == "no known pixel":
            given(given(data.source).targets.pixels)[:] = IGNORE
        else:
            data = with_targets(replace(data, source=None), tags=torch.eye(3))
        wrapped = Csd(Plain(), CsdConfig(background=0.1))
        losses = wrapped.losses(data, Progress(0, 1))
        torch.stack(list(losses.values())).sum().backward()
        assert given(of(Plain, wrapped.localizer).mix.grad).isfinite().all()
        assert losses["loss_fg"] == 0 or change == "no background"
        assert losses["loss_bg"] == 0 or change == "no object"


def test_a_process_without_pairs_takes_the_passes_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm that sees the photos of all processes waits in each pass, and each backward pass, for all of them."""
    lonely = with_targets(replace(pairs(), source=None), tags=torch.eye(3))
    alone = Csd(Plain(), CsdConfig()).train()
    alone.losses(lonely, Progress(0, 1))
    assert len(of(Plain, alone.localizer).asked) == 1
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for settings, photos in (({"background": 0.1}, 2), ({"background": 0.0}, 1)):
        with_pairs, without = (Csd(Plain(), CsdConfig.model_validate(settings)).train() for _ in range(2))
        with_pairs.losses(pairs(), Progress(0, 1))
        losses = without.losses(lonely, Progress(0, 1))
        assert [a[1:] for a in of(Plain, without.localizer).asked] == [
            a[1:] for a in of(Plain, with_pairs.localizer).asked
        ]
        assert [a[0] for a in of(Plain, without.localizer).asked] == [3, 1, photos]
        assert losses["loss_fg"].item() == losses["loss_bg"].item() == 0
        idle = losses["loss_fg"] + losses["loss_bg"]
        (gradient,) = torch.autograd.grad(idle, of(Plain, without.localizer).mix)  # the last pass is in the graph
        assert not gradient.any()


def test_shifts_are_drawn_from_the_step_and_photos_and_need_whole_cells() -> None:
    wrapped = Csd(Plain(), CsdConfig(shift=3))
    other = replace(pairs(), ids=["4", "5", "6"])  # of another seed, process or part of the step
    draws = [
        wrapped._offsets(b, 50, Progress(step, 9)) for b, step in ((pairs(), 0), (pairs(), 0), (pairs(), 1), (other, 0))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
    assert set(draws[0].flatten().tolist()) == set(range(-3, 4))
    data = pairs()
    narrow = [
        replace(with_targets(b, pixels=given(b.targets.pixels)[..., :7]), images=b.images[..., :7])
        for b in (data, given(data.source))
    ]
    data = replace(narrow[0], source=narrow[1])
    with pytest.raises(ShapeError, match=r"8 x 7 pixels have 4 x 3 cells.*csd.shift=0"):
        wrapped.losses(data, Progress(0, 1))
    assert Csd(Plain(), CsdConfig(background=0.1)).losses(data, Progress(0, 1))["loss_bg"].isfinite()


# --- localizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "head"),
    [
        (Cam, CamConfig(backbone=SMALL), "classifier"),
        (Vwe, VweConfig(backbone=SMALL, words=8, word_branch="none"), "image_classifier"),
        (MctFormer, MctConfig(backbone=TINY_VIT), "head"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_localizers_learn_from_pastes(
    kind: Callable[..., Method], config: MethodConfig, head: str, mixed: bool
) -> None:
    torch.manual_seed(0)
    wrapped = Csd(kind(config, 3, True), CsdConfig(reliable=0, background=0.1)).train()
    halves = torch.tensor([[1, 0], [2, 0]], dtype=torch.uint8).repeat_interleave(16, 1)  # object left, background right
    source = batch_of(rand(2, 3, 32, 32, seed=1), torch.eye(3)[:2], halves[:, None].repeat_interleave(32, 1))
    data = batch_of(
        rand(2, 3, 32, 32),
        torch.tensor([[1.0, 1, 0], [0, 1, 1]]),
        torch.zeros(2, 32, 32, dtype=torch.uint8),
        source=source,
    )
    if kind is not MctFormer:  # which compares the maps of more layers than it reads out
        torch.testing.assert_close(wrapped.raw_maps(data.images).relu(), wrapped.class_maps(data.images))
    plain = kind(config, 3, True).train()
    plain.load_state_dict(wrapped.localizer.state_dict())  # before words follow the features
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):  # casts of weights are cached: the teacher's must not be
        losses = wrapped.losses(data, Progress(0, 1))
    assert losses["loss_fg"] > 0
    assert losses["loss_bg"] > 0
    (losses["loss_fg"] + losses["loss_bg"]).backward()
    moving = {name.split(".")[1] for name, p in wrapped.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {"backbone", head}
    own = plain.losses(data, Progress(0, 1))
    if not mixed:
        torch.testing.assert_close({name: losses[name] for name in own}, own)
    assert wrapped.parameter_groups()[0].parameters == wrapped.localizer.parameter_groups()[0].parameters


def test_the_localizer_is_prepared_as_without_csd() -> None:
    data = replace(pairs(), images=rand(3, 3, 32, 32))
    torch.manual_seed(0)
    alone, within = (Cam(CamConfig(backbone=SMALL), 3, True) for _ in range(2))
    within.load_state_dict(alone.state_dict())
    alone.prepare([data])
    Csd(within, CsdConfig()).prepare([data])
    assert alone.feature_scale.factor != 1
    torch.testing.assert_close(within.state_dict(), alone.state_dict())


def test_methods_without_raw_maps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'irn' does not tell its class maps.*csd=null"):
        Csd(Irn(IrnConfig(backbone=SMALL), 2, True), CsdConfig())


def test_masks_are_needed() -> None:
    data = with_targets(pairs(), pixels=None)
    with pytest.raises(ConfigError, match="the batch has none"):
        Csd(Plain(), CsdConfig()).losses(data, Progress(0, 1))
