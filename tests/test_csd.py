"""CSD: Eqs. 1-6 against slow plain versions, pastes pixel by pixel, resampling, and the recipe with its stage one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

import hintseg
from csd_pairs import Plain, pairs, plain_consistency
from hintseg.cli.tables import check_tables
from hintseg.config.loader import load_config
from hintseg.config.run import RunConfig
from hintseg.config.settings import BackboneConfig, MethodConfig
from hintseg.data.dataset import PhotoDataset, collate
from hintseg.data.shapes import write_shapes
from hintseg.data.sources import SourcePool
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import ConfigError, LabelError, PhotoError, RunError, ShapeError
from hintseg.hints.check import check
from hintseg.hints.cooccurrence import cooccurrence_prior, single_tag_counts, tag_matrix
from hintseg.methods.cam import Cam, CamConfig
from hintseg.methods.irn import Irn, IrnConfig
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.methods.method import Method
from hintseg.methods.vwe import Vwe, VweConfig
from hintseg.nn.vit import VitConfig
from hintseg.pipeline.begin import make_plan
from hintseg.registry import WRAPPERS
from hintseg.reporting.pictures import Panel, write_panels
from hintseg.run.folder import RunFolder
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights
from hintseg.types import IGNORE, Batch, Hints, HintSet, Photo, Progress, Tags
from hintseg.wrappers.consistency import covered
from hintseg.wrappers.csd import Csd, CsdConfig, make_pastes, reliable
from hintseg.wrappers.decoupling import Decoupling, check_data
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


def photo(name: str, *tags: int, path: Path | None = None) -> Photo:
    return Photo(name, path or Path(name), Hints(Tags(frozenset(tags))))


def test_sources_are_drawn_by_what_comes_together() -> None:
    photos = [photo("a", 1), photo("b", 1), photo("c", 2), photo("d", 4)]
    prior = np.array([[0.4, 0.3, 0.3, 0], [0.5, 0.25, 0.15, 0.1], [0, 0, 0.5, 0.5], [0, 0, 1, 0]])
    pool = SourcePool(photos, prior)
    # Rows 1 and 2 sum to (.9, .55, .45, .1); class 3 has no source photo: / 1.55.
    expected = {"a": 0.9 / 1.55 / 2, "b": 0.9 / 1.55 / 2, "c": 0.55 / 1.55, "d": 0.1 / 1.55}
    random = np.random.default_rng(0)
    drawn = [pool.draw({1, 2}, random).id for _ in range(4000)]
    for name, share in expected.items():
        assert drawn.count(name) / 4000 == pytest.approx(share, abs=0.025)


def test_all_sources_are_alike_without_resampling_and_where_classes_tell_nothing() -> None:
    photos = [photo("a", 1), photo("b", 1), photo("c", 2)]
    lonely = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]])  # only class 3 comes along, and has no source photo
    for prior in (None, lonely):
        random = np.random.default_rng(0)
        drawn = [SourcePool(photos, prior).draw({1, 3}, random).id for _ in range(3000)]
        assert all(drawn.count(name) / 3000 == pytest.approx(1 / 3, abs=0.03) for name in "abc")
    with pytest.raises(PhotoError, match="0 source photos"):
        SourcePool([], None)


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


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Six photos of noise; 0, 2 and 4 have two tags, 1 and 3 one, 5 none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    found = []
    for i, tags in enumerate([(1, 2), (1,), (2, 3), (3,), (1, 3), ()]):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        found.append(photo(str(i), *tags, path=folder / f"{i}.png"))
    return found


def test_batches_bring_a_source_for_each_photo_with_several_tags(photos: list[Photo]) -> None:
    masks = {p.id: np.full((40, 50), i, np.uint8) for i, p in enumerate(photos)}
    transform = TrainingTransform(32, (0.9, 1.1), 0.2)
    plain, paired = (
        PhotoDataset(photos, 3, transform, lambda p: masks[p.id], sources=pool, seed=4)
        for pool in (None, SourcePool([photos[1], photos[3]], None))
    )
    items = [paired[i] for i in range(6)]
    made = collate(items)
    assert made.source is not None
    assert len(made.source.ids) == int((made.targets.tags.sum(dim=1) > 1).sum()) == 3
    assert set(made.source.ids) <= {"1", "3"}
    assert (made.source.targets.tags.sum(dim=1) == 1).all()
    assert made.source.source is None
    for name, mask in zip(made.source.ids, given(made.source.targets.pixels), strict=True):
        assert set(mask.unique().tolist()) <= {int(name), IGNORE}
    alone = collate([plain[i] for i in range(6)])
    assert alone.source is None
    assert torch.equal(alone.images, made.images)  # its own views do not change
    assert made.to("cpu").source is not None
    assert collate([paired[1], paired[5]]).source is None
    again = collate([paired[i] for i in range(6)])
    assert given(again.source).ids == made.source.ids
    assert torch.equal(given(again.source).images, made.source.images)
    paired.set_epoch(1)
    assert not torch.equal(given(collate([paired[i] for i in range(6)]).source).images, made.source.images)


def test_a_source_that_cannot_be_read_is_replaced(
    photos: list[Photo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = photo("broken", 1, path=tmp_path / "gone.png")
    every = [*photos, broken]
    masks = {p.id: np.zeros((40, 50), np.uint8) for p in every}
    pool = SourcePool([photos[1], photos[3], broken], None)
    data = PhotoDataset(every, 3, TrainingTransform(32, (0.9, 1.1)), lambda p: masks[p.id], sources=pool)
    drawn = []
    for epoch in range(8):
        data.set_epoch(epoch)
        drawn += given(collate([data[i] for i in range(6)]).source).ids
    assert len(drawn) == 24
    assert set(drawn) == {"1", "3"}
    assert data.skipped == ["broken"]
    assert sum("gone.png" in record.getMessage() for record in caplog.records) == 1
    lost = PhotoDataset(
        every, 3, TrainingTransform(32, (0.9, 1.1)), lambda p: masks[p.id], sources=SourcePool([broken], None)
    )
    with pytest.raises(PhotoError, match=r"20 photos with a single tag were drawn and none can be read.*gone\.png"):
        lost[0]


# --- settings and refusals ------------------------------------------------------------------------------------------


def csd_of(config: RunConfig) -> CsdConfig:
    return of(CsdConfig, given(config.wrapper).settings)


def test_settings() -> None:
    config = load_config("csd_irn", ["csd.shift=1"], data={"path": "photos"})
    csd = csd_of(config)
    assert (csd.foreground, csd.background, csd.shift, csd.resample) == (1.0, 0.0, 1, True)
    assert csd == CsdConfig(shift=1)  # what the recipe has and what `csd={}` adds to another are the same
    for recipe in ("paper/csd-irn-voc12", "paper/csd-mct-voc12"):
        published = csd_of(load_config(recipe, data={"path": "photos"}))
        assert (published.foreground, published.background) == (0.01, 0.1)
        assert (published.form, published.teacher) == ("paper", "online")
    assert csd_of(load_config("vwe", ["csd={}"], data={"path": "photos"})) == CsdConfig()
    assert load_config("csd_irn", ["csd=null"], data={"path": "photos"}).wrapper is None
    for recipe, word, part in (
        ("csd_irn", "csd.foregroun=1", "did you mean 'csd.foreground'?"),
        ("full", "csd={}", "'csd' wraps a localizer and there is none"),
        ("cam", "localize.method=csd", r"'csd' wraps a localizer; set csd=\{\} beside"),
    ):
        with pytest.raises(ConfigError, match=part.replace("?", r"\?")):
            load_config(recipe, [word], data={"path": "photos"})


def test_one_wrapper_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRAPPERS, "twin", WRAPPERS["csd"])
    assert load_config("cam", ["twin={shift: 2}"], data={"path": "photos"}).wrapper == ("twin", CsdConfig(shift=2))
    with pytest.raises(ConfigError, match=r"csd and twin are given, one wrapper is possible"):
        load_config("cam", ["csd={}", "twin={}"], data={"path": "photos"})


def test_too_few_photos_with_one_tag() -> None:
    config = load_config("csd_irn", data={"path": "photos"})
    many = [photo(str(i), 1, 2) for i in range(20)]
    few = [*many, *(photo(f"s{i}", 1 + i % 3) for i in range(9))]
    with pytest.raises(LabelError, match=r"9 of 29 .* single tag \(ant 3, bee 3, cow 3\).* at least 10.*csd=null"):
        check_data(config, few, ("ant", "bee", "cow"))
    check_data(config, [*few, photo("one more", 3)], ("ant", "bee", "cow"))
    with pytest.raises(LabelError, match="none of 12 training photos has two tags"):
        check_data(config, [photo(str(i), 1) for i in range(12)], ("ant", "bee", "cow"))
    with pytest.raises(LabelError, match=r"0 of 20 training photos have a single tag \(none\)"):
        check_data(config, many, ("ant", "bee", "cow"))


def test_check_shows_lonely_photos_and_the_prior(photos: list[Photo]) -> None:
    def printed(hint_set: HintSet) -> str:
        text = io.StringIO()
        console = Console(width=200, file=text)
        for part in check_tables(check(hint_set)):
            console.print(part)
        return text.getvalue()

    report = check(HintSet("set", ("ant", "bee", "cow"), tuple(photos)))
    assert report.alone_per_class == {"ant": 1, "bee": 0, "cow": 1}
    assert report.prior == ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.0, 0.5), (1 / 3, 1 / 3, 1 / 3))
    split = check(HintSet("set", ("ant", "bee", "cow"), tuple(photos), splits={"train": ("0", "1"), "val": ("2", "3")}))
    assert split.alone_per_class == {"ant": 1, "bee": 0, "cow": 0}  # CSD learns from the training photos
    assert split.prior == ((0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    text = printed(HintSet("set", ("ant", "bee", "cow"), tuple(photos)))
    assert "together, %" in text
    assert any(line.split("│")[1:4] == ["2 bee", "50", " ."] for line in text.splitlines())
    rare = [photo(str(i), 1, path=photos[0].path) for i in range(300)]
    text = printed(HintSet("set", ("ant", "bee", "cow"), (*photos, *rare)))
    assert any(line.split("│")[1:4] == ["1 ant", "99", "<1"] for line in text.splitlines())  # not the "." of never
    many = tuple(f"c{i}" for i in range(1, 31))
    text = printed(HintSet("set", many, tuple(photos)))
    (line,) = (line for line in text.splitlines() if "│ c2 " in line)
    assert "c1 50, c3 50" in line
    assert "photos with both classes" not in text
    assert tag_matrix([*photos, Photo("x", Path("x"))], 3).tolist()[:2] == [[1, 1, 0], [1, 0, 0]]


def test_pictures_of_pairs(tmp_path: Path) -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    panels = [Panel("source", red, None), Panel("map of source", red, np.ones((2, 2), np.float32))]
    write_panels(tmp_path / "pairs.png", [("a into b", panels)])
    picture = np.array(Image.open(tmp_path / "pairs.png"))
    assert (picture[90, 75] == (255, 0, 0)).all()
    assert (picture[90, 231] != (255, 0, 0)).any()


# --- the recipe -----------------------------------------------------------------------------------------------------

QUICK = [
    "backbone.name=test_resnet",
    "backbone.weights=random",
    "trainer.workers=0",
    "trainer.precision=32-true",
    "trainer.pictures=2",
    *(f"{stage}.fit.{word}" for stage in ("localize", "refine", "segment") for word in ("epochs=1", "crop=32")),
    *(f"{stage}.fit.batch_size=8" for stage in ("localize", "refine", "segment")),
    "maps.scales=[1.0]",
    "test.scales=[1.0]",
]


@pytest.fixture(scope="module")
def pairable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos, enough for some with one tag of each kind."""
    folder = tmp_path_factory.mktemp("shapes") / "photos"
    write_shapes(folder, train=40, val=4, size=40)
    return folder


class Stop(Watch):
    """Stops the run when it begins its `count`-th training."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def start(self, title: str, total: int) -> None:
        self.left -= title.startswith("training")
        if not self.left:
            raise KeyboardInterrupt
        super().start(title, total)


@pytest.fixture(scope="module")
def run(pairable: Path, tmp_path_factory: pytest.TempPathFactory) -> hintseg.Run:
    """A run that was stopped when CSD's own training began, and gone on with."""
    out = tmp_path_factory.mktemp("runs") / "csd"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        hintseg.train(pairable, out, recipe="csd_irn", settings=QUICK, watch=Stop(3))
    weights = out / "baseline" / "localize" / "model.safetensors"
    assert not (out / "localize" / "model.safetensors").exists()
    before = weights.stat().st_mtime_ns
    finished = hintseg.train(pairable, out, recipe="csd_irn", settings=QUICK, resume=True)
    assert weights.stat().st_mtime_ns == before
    return finished


def test_recipe_does_everything_in_one_command(run: hintseg.Run) -> None:
    stages = [json.loads((run.path / part / "manifest.json").read_text())["stages"] for part in (".", "baseline")]
    assert [list(s) for s in stages] == [["localize", "refine", "segment"], ["localize", "refine"]]
    assert all(stage["done"] for part in stages for stage in part.values())
    heads = [(run.path / part / "localize/log.csv").read_text().splitlines()[0] for part in (".", "baseline")]
    assert heads == ["step,epoch,lr,loss,loss_img,loss_fg,loss_bg", "step,epoch,lr,loss,loss_img"]
    method = load_weights(run.path / "localize" / "model.safetensors")[0]
    assert isinstance(method, Cam)  # the plain localizer
    assert {row["stage"] for row in run.metrics} == {"localize", "refine", "segment"}


def test_report_shows_the_pairs(run: hintseg.Run) -> None:
    page = (run.path / "report.html").read_text()
    assert base64.b64encode((run.path / "localize/wrapper.png").read_bytes()).decode() in page
    assert "Pastes of CSD" in page
    assert "(source) objects were pasted" in page  # the recipe has no weight on background
    assert "mIoU before," in page
    assert "Pastes of CSD" not in (run.path / "baseline" / "report.html").read_text()


def test_a_finished_baseline_is_used_again(run: hintseg.Run, pairable: Path, tmp_path: Path) -> None:
    settings = [w for w in QUICK if not w.startswith(("refine", "segment", "test"))]
    own = ["refine=null", "segment=null", "csd.shift=1", "csd.resample=false"]
    given = f"csd.baseline={run.path / 'baseline'}"
    other = hintseg.train(pairable, tmp_path / "run", recipe="csd_irn", settings=[*settings, *own, given])
    assert not (other.path / "baseline").exists()
    assert "mIoU before," in (other.path / "report.html").read_text()
    empty = tmp_path / "empty"
    (empty / "localize").mkdir(parents=True)
    (empty / "config.yaml").write_text("")
    (empty / "manifest.json").write_text('{"stages": {}, "data": {"classes": [], "background": true}}')
    with pytest.raises(RunError, match="has no finished masks"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={empty}"])
    none = [*settings, *own, given, "data.background=none"]
    with pytest.raises(RunError, match="was trained with a background class, unlike this run"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=none)
    others = tmp_path / "others"  # masks of photos that this run does not have
    (others / "refine" / "masks").mkdir(parents=True)
    for name in ("config.yaml", "manifest.json"):
        (others / name).write_text((run.path / "baseline" / name).read_text())
    with pytest.raises(RunError, match=r"has a mask of none of the \d+ photos with a single tag"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={others}"])
    manifest = json.loads((run.path / "baseline" / "manifest.json").read_text())
    manifest["data"]["classes"][0] = "elephant"
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "refine").symlink_to(run.path / "baseline" / "refine")
    (changed / "config.yaml").write_text("")
    (changed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="was trained on classes elephant"):
        hintseg.train(pairable, tmp_path / "2", recipe="csd_irn", settings=[*settings, *own, f"csd.baseline={changed}"])
    assert not (tmp_path / "2").exists()  # the corrected command may use the same folder


@pytest.mark.parametrize("background", [0.0, 0.1])
def test_pictures_of_pairs_show_what_was_pasted(
    run: hintseg.Run, pairable: Path, monkeypatch: pytest.MonkeyPatch, background: float
) -> None:
    folder = RunFolder.open(run.path)
    config = load_config(run.path / "config.yaml", [f"csd.background={background}"])
    photos = make_plan(hintseg.hints.read_hints(pairable), config).train
    made = {}
    monkeypatch.setattr("hintseg.wrappers.decoupling.write_panels", lambda path, rows: made.update({path: rows}))
    Decoupling(folder, config, photos).draw(load_weights(run.path / "localize" / "model.safetensors")[0])
    (rows,) = made.values()
    assert ("objects and background were pasted" in given(folder.shown).text) == bool(background)
    names = ["source", "target", "with object", *(["with background"] if background else [])]
    for _, panels in rows:
        assert [p.caption for p in panels] == [*names, *(f"map {'' if 'with' in n else 'of '}{n}" for n in names)]
        assert max(p.map.max() for p in panels[len(names) :]) in (0, 1)  # one scale for the row
        shown = {p.caption: p.rgb.astype(int) for p in panels}
        for paste in names[2:]:
            at_home, as_before = ((shown[paste] == shown[name]).all(axis=2) for name in ("source", "target"))
            assert (at_home | as_before).all()
            assert not at_home.all()
    assert any((p[2].rgb != p[1].rgb).any() for _, p in rows)  # an object was pasted


def test_without_background_objects_are_cut_to_where_the_maps_are_strong(pairable: Path, tmp_path: Path) -> None:
    settings = [w for w in QUICK if not w.startswith(("refine", "segment", "test"))]
    own = ["refine=null", "segment=null", "data.background=none", "csd={background: 0.1}", "localize.words=8"]
    own.append("localize.word_branch=none")  # sums of both branches are strong everywhere before anything is learned
    run = hintseg.train(pairable, tmp_path / "run", recipe="vwe", settings=[*settings, *own])
    folder = RunFolder.open(run.path)
    split = make_plan(hintseg.hints.read_hints(pairable, background=False), folder.config)
    found = Decoupling(folder, folder.config, split.train)
    share = np.mean([(given(found.masks(p)) != IGNORE).mean() for p in found.sources.photos])
    assert 0.2 < share < 0.8  # `maps.area` is two fifths of all
    assert all(set(np.unique(given(found.masks(p)))) <= {*given(p.hints.tags), IGNORE} for p in found.sources.photos)
    log = (run.path / "localize/log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,lr,loss,loss_img,loss_word,loss_w2i,loss_fg,loss_bg"
    assert {line.rpartition(",")[2] for line in log[1:]} == {"0.0"}  # no background to paste


def test_recipe_on_mctformer(pairable: Path, tmp_path: Path) -> None:
    vit = ("name=vit_tiny_patch16_224", "output_stride=8", "depth=2", "width=24", "heads=3")
    settings = [w for w in QUICK if not w.startswith(("segment", "test", "maps"))]
    own = [*(f"localize.backbone.{word}" for word in vit), "refine.cell=4", "segment=null"]
    run = hintseg.train(pairable, tmp_path / "run", recipe="csd_mct", settings=[*settings, *own])
    log = (run.path / "localize/log.csv").read_text().splitlines()
    assert log[0].endswith("loss_fg,loss_bg")
    assert any(float(line.split(",")[-2]) > 0 for line in log[1:])
    assert {row["stage"] for row in run.metrics} == {"localize", "refine"}
    assert hintseg.load(run.path / "baseline").metrics
