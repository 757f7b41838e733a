"""What every refiner in the registry keeps: functions of scores and a photo, networks that learn from class maps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from golden import cases
from hintseg.config.loader import load_config
from hintseg.config.run import FREE_REFINERS, AttentionRefine, FunctionRefine
from hintseg.config.settings import BackboneConfig
from hintseg.errors import HintsegError, ShapeError
from hintseg.methods.attention import AttentionWalk
from hintseg.methods.refiner import Refiner, RefinerConfig
from hintseg.registry import METHODS, REFINERS, methods_to, resolve
from hintseg.training.weights import load_weights, save_weights
from made import blob_photo, learned_vit, of, rand, with_targets

Function = Callable[[Tensor, Tensor], Tensor]

HEIGHT, WIDTH, CLASSES = 20, 28, 3


FUNCTIONS = [name for name in REFINERS if issubclass(FREE_REFINERS[name], FunctionRefine)]


@pytest.fixture(params=FUNCTIONS)
def refiner(request: pytest.FixtureRequest) -> Function:
    found: Function = resolve("refiner", request.param, REFINERS)
    return found


@pytest.fixture
def rgb() -> Tensor:
    """Two photos of four colours each, with noise on them."""
    colours = torch.kron(rand(2, 3, 2, 2, seed=1), torch.ones(HEIGHT // 2, WIDTH // 2))
    return (230 * colours + 20 * rand(2, 3, HEIGHT, WIDTH, seed=2)).byte()


@pytest.fixture
def scores() -> Tensor:
    """Probabilities of three classes: all refiners take them."""
    return (3 * rand(2, CLASSES, HEIGHT, WIDTH, seed=3)).softmax(dim=1)


# --- functions ------------------------------------------------------------------------------------------------------


def test_scores_of_the_photos_size_come_back_and_what_was_given_stays(
    refiner: Function, scores: Tensor, rgb: Tensor
) -> None:
    before = scores.clone(), rgb.clone()
    found = refiner(scores.requires_grad_(), rgb)
    assert (found.shape, found.dtype, found.requires_grad) == ((2, CLASSES, HEIGHT, WIDTH), torch.float32, False)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert torch.equal(scores, before[0])
    assert torch.equal(rgb, before[1])


def test_what_is_wrong_within_a_colour_is_voted_down(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    truth = torch.kron(torch.tensor([[0, 1], [2, 0]]), torch.ones(HEIGHT // 2, WIDTH // 2)).long().expand(2, -1, -1)
    leaning = 0.8 * scores + 0.2 * one_hot(truth, CLASSES).movedim(-1, 1)
    right = (leaning.argmax(dim=1) == truth).float().mean()
    assert 0.5 < right < 0.8
    assert (refiner(leaning, rgb).argmax(dim=1) == truth).float().mean() > right + 0.1
    assert (refiner(leaning, torch.full_like(rgb, 128)).argmax(dim=1) == truth).float().mean() < 0.97  # colours said so


def test_the_same_again_is_the_same(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    assert torch.equal(refiner(scores, rgb), refiner(scores, rgb))


def test_a_batch_is_its_photos_one_by_one(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    alone = torch.cat([refiner(scores[i : i + 1], rgb[i : i + 1]) for i in range(2)])
    assert torch.equal(refiner(scores, rgb), alone)
    assert torch.equal(refiner(scores.flip(0), rgb.flip(0)), alone.flip(0))
    assert refiner(scores[:0], rgb[:0]).shape == (0, CLASSES, HEIGHT, WIDTH)


def test_classes_may_come_in_any_order(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    order = [2, 0, 1]
    torch.testing.assert_close(refiner(scores[:, order], rgb), refiner(scores, rgb)[:, order], rtol=1e-5, atol=1e-6)


def test_classes_with_equal_scores_keep_equal_scores(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    half = scores[:, :1] / 2
    found = refiner(torch.cat([half, 1 - 2 * half, half], dim=1), rgb)
    torch.testing.assert_close(found[:, 0], found[:, 2], rtol=1e-6, atol=1e-7)
    even = refiner(torch.full_like(scores, 1 / CLASSES), rgb)
    assert (even.amax(dim=1) - even.amin(dim=1)).max() < 1e-6


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_flat_photo_moves_nothing_that_is_flat(refiner: Function, scores: Tensor, grey: int) -> None:
    flat = torch.tensor([0.7, 0.2, 0.1]).view(1, CLASSES, 1, 1).expand(1, CLASSES, HEIGHT, WIDTH)
    found = refiner(flat, torch.full((1, 3, HEIGHT, WIDTH), grey, dtype=torch.uint8))
    assert torch.equal(found.argsort(dim=1, descending=True), flat.argsort(dim=1, descending=True))
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found), rtol=0.02, atol=0.02)
    assert refiner(scores[:1], torch.full((1, 3, HEIGHT, WIDTH), grey, dtype=torch.uint8)).isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 2)])
def test_one_class_and_photos_of_any_size(refiner: Function, size: tuple[int, int]) -> None:
    rgb = (255 * rand(1, 3, *size)).byte()
    found = refiner(torch.ones(1, 1, *size), rgb)
    assert found.shape == (1, 1, *size)
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found), rtol=1e-4, atol=1e-4)
    assert (found >= 0.99).all()  # the only class there is


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_computed_in_full(refiner: Function, scores: Tensor, rgb: Tensor, dtype: torch.dtype) -> None:
    found, exact = refiner(scores.to(dtype), rgb), refiner(scores.to(dtype).float(), rgb)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact.to(dtype), rtol=0, atol=0)


def test_photos_may_be_bytes_or_floats_of_the_same_range(refiner: Function, scores: Tensor, rgb: Tensor) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16):  # bfloat16 does not hold all grey values
        assert torch.equal(refiner(scores, rgb.to(dtype)), refiner(scores, rgb))


@pytest.mark.parametrize(
    ("spoil", "needed"),
    [
        (lambda scores, rgb: (scores, rgb.float() / 255 - 0.5), "not normalised"),
        (lambda scores, rgb: (scores, rgb.float().fill_(torch.nan)), "NaN"),
        (lambda scores, rgb: (scores, rgb[:, :1]), "photos (B, 3, H, W)"),
        (lambda scores, rgb: (scores, rgb.long()), "give uint8"),
        (lambda scores, rgb: (scores[0], rgb), "(B, C, h, w)"),
        (lambda scores, rgb: (scores[:, :0], rgb), "C, h, w >= 1"),
        (lambda scores, rgb: (scores.byte(), rgb), "a float tensor"),
        (lambda scores, rgb: (scores[:1], rgb), "one score map per photo"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    refiner: Function,
    scores: Tensor,
    rgb: Tensor,
    spoil: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    needed: str,
) -> None:
    with pytest.raises(ShapeError) as error:
        refiner(*spoil(scores, rgb))
    assert needed in str(error.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_recipe_says_all_a_refiner_takes_with_the_same_defaults(name: str) -> None:
    config = load_config("full", [f"refine={{method: {name}}}"], data={"path": "photos"}).refine
    assert isinstance(config, FunctionRefine)
    taken = inspect.signature(resolve("refiner", name, REFINERS)).parameters.values()
    defaults = {p.name: p.default for p in taken if p.kind is p.KEYWORD_ONLY}
    if "dilations" in defaults:
        defaults["dilations"] = "auto"  # the function's are the published ones, a recipe's follow the photos' size
    assert config.model_dump(exclude={"method"}) == defaults


# --- networks -------------------------------------------------------------------------------------------------------

LEARNED = methods_to("refine")
IDS = torch.tensor([3, 1])


@pytest.fixture(params=LEARNED)
def learned(request: pytest.FixtureRequest) -> Refiner:
    """Every refiner that learns, untrained, on a tiny backbone."""
    method = cases.build(cases.CASES[request.param])
    assert isinstance(method, Refiner)
    return method.eval()


@pytest.fixture(params=[*LEARNED, "attention"])
def spreading(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Refiner | AttentionWalk:
    """Those, and the network that is not trained."""
    if request.param != "attention":
        return of(Refiner, cases.build(cases.CASES[request.param])).eval()
    backbone = BackboneConfig(name="vit_tiny_patch16_224", weights=learned_vit(tmp_path, monkeypatch), output_stride=8)
    return AttentionWalk(AttentionRefine(backbone=backbone)).eval()


def labels_of(method: Refiner, maps: Tensor, ids: Tensor, rgb: Tensor, *, threshold: float | None) -> Tensor:
    assert isinstance(method.config, RefinerConfig)
    return method.config.labels(maps, ids, rgb, threshold=threshold)


@pytest.fixture
def maps() -> Tensor:
    """Maps of two classes on the photo of `blob_photo`: one sure of its disc, one of half a corner."""
    rgb, _ = blob_photo()
    corner = torch.zeros(rgb.shape[1:])
    corner[:6, :6] = 0.5
    return torch.stack([0.95 * (rgb[0] > 200), corner])


@pytest.fixture
def photo() -> Tensor:
    return blob_photo()[0]


def test_labels_are_classes_background_or_unknown(learned: Refiner, maps: Tensor, photo: Tensor) -> None:
    before = maps.clone(), photo.clone()
    for threshold in (0.1, 0.3, 0.7):
        labels = labels_of(learned, maps, IDS, photo, threshold=threshold)
        assert (labels.shape, labels.dtype) == (photo.shape[1:], torch.uint8)
        assert set(labels.unique().tolist()) <= {0, 1, 3, 255}
        assert torch.equal(labels, labels_of(learned, maps, IDS, photo, threshold=threshold))
    assert labels[20, 20] == 3  # the middle of the disc, whatever the threshold
    assert labels_of(learned, maps, IDS, photo, threshold=0.3)[38, 38] == 0  # no map speaks of it
    assert torch.equal(maps, before[0])
    assert torch.equal(photo, before[1])


def test_labels_where_no_pixel_is_background(learned: Refiner, maps: Tensor, photo: Tensor) -> None:
    labels = labels_of(learned, maps, IDS, photo, threshold=None)
    assert set(labels.unique().tolist()) <= {1, 3, 255}
    assert labels[20, 20] == 3
    for threshold, everywhere in ((None, 255), (0.3, 0)):
        nothing = labels_of(learned, maps[:0], IDS[:0], photo, threshold=threshold)
        assert (nothing.shape, nothing.unique().tolist()) == (photo.shape[1:], [everywhere])


def test_labels_do_not_depend_on_the_order_of_classes(learned: Refiner, maps: Tensor, photo: Tensor) -> None:
    labels = labels_of(learned, maps, IDS, photo, threshold=0.3)
    assert torch.equal(labels, labels_of(learned, maps.flip(0), IDS.flip(0), photo, threshold=0.3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_half_precision_are_taken(learned: Refiner, maps: Tensor, photo: Tensor, dtype: torch.dtype) -> None:
    half = maps.to(dtype)
    labels = labels_of(learned, half, IDS, photo, threshold=0.3)
    assert torch.equal(labels, labels_of(learned, half.float(), IDS, photo, threshold=0.3))
    images = photo[None] / 255
    torch.testing.assert_close(learned.refine(images, half).float(), learned.refine(images, half.float()))


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (33, 47)])
def test_scores_of_any_photo_lie_between_0_and_1(spreading: Refiner | AttentionWalk, size: tuple[int, int]) -> None:
    images, maps = rand(1, 3, *size), rand(2, 9, 11, seed=1)
    before = images.clone(), maps.clone()
    found = spreading.refine(images, maps)
    assert (found.shape[0], found.requires_grad) == (2, False)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert found.max() == 1
    assert torch.equal(found, spreading.refine(images, maps))
    for given in (maps[:1], maps[:0], rand(4, *size)):
        assert spreading.refine(images, given).shape == (len(given), *found.shape[1:])
    assert torch.equal(images, before[0])
    assert torch.equal(maps, before[1])


def test_maps_walk_each_for_itself(spreading: Refiner | AttentionWalk) -> None:
    images, maps = rand(1, 3, 64, 64), rand(3, 16, 16, seed=1)
    found = spreading.refine(images, maps)
    torch.testing.assert_close(spreading.refine(images, maps[[2, 0, 1]]), found[[2, 0, 1]])
    for one, alone in zip(maps, found, strict=True):  # but for the largest score of all, which is 1
        torch.testing.assert_close(spreading.refine(images, one[None])[0], alone / alone.max())


def test_where_no_map_says_anything_no_score_does(spreading: Refiner | AttentionWalk) -> None:
    assert not spreading.refine(rand(1, 3, 64, 64), torch.zeros(2, 16, 16)).any()
    constant = spreading.refine(rand(1, 3, 64, 64), torch.ones(1, 16, 16))
    assert constant.isfinite().all()
    assert (constant > 0).all()


def test_network_and_settings_come_back(learned: Refiner, tmp_path: Path) -> None:
    config = learned.config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    images, maps = rand(1, 3, 64, 64), rand(2, 16, 16, seed=1)
    save_weights(learned, tmp_path / "model.safetensors", classes=("a", "b", "c"), background=True)
    loaded, _, _ = load_weights(tmp_path / "model.safetensors")
    assert isinstance(loaded, Refiner)
    assert torch.equal(loaded.eval().refine(images, maps), learned.refine(images, maps))
    other = cases.build(cases.CASES[config.method])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    assert isinstance(other, Refiner)
    assert not torch.equal(other.eval().refine(images, maps), learned.refine(images, maps))
    other.load_state_dict(learned.state_dict())
    assert torch.equal(other.refine(images, maps), learned.refine(images, maps))


def test_read_out_settings_change_scores_and_not_the_network(learned: Refiner) -> None:
    images, maps = rand(1, 3, 64, 64), torch.zeros(1, 16, 16)
    maps[:, 4:8, 4:8] = 1
    assert learned.config.read_out <= set(type(learned.config).model_fields)
    assert {"steps", "beta"} <= learned.config.read_out
    spread, before = {}, {name: value.clone() for name, value in learned.state_dict().items()}
    for steps in (1, 64):
        learned.config = learned.config.model_copy(update={"steps": steps})
        spread[steps] = (learned.refine(images, maps) > 0.01).sum()
    assert spread[1] < spread[64]
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())


def test_without_labels_of_pixels_they_say_what_is_missing(learned: Refiner) -> None:
    bare = with_targets(cases.make_batch(cases.CASES[learned.config.method]), pixels=None)
    with pytest.raises(HintsegError, match="run a localizer first"):
        cases.losses_of(learned, bare, 50)


def test_every_refiner_that_learns_is_here() -> None:
    assert {n for n in METHODS if issubclass(resolve("method", n, METHODS), Refiner)} == set(LEARNED)
