"""LGSA: Eqs. 4-10 against a plain version with whole maps, what is kept in memory, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

import hintseg
from hintseg.config.loader import load_config
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.exporting import export_onnx
from hintseg.losses.affinity import labels_on_grid
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.methods.lgsa import LgsaConfig, LgsaDeepLabV2
from hintseg.nn import attention
from hintseg.nn.attention import Affinity, Lgsa, NonLocal, attend, cascade
from hintseg.training.weights import load_weights
from hintseg.types import Progress
from made import dark_halves, given, with_targets

PROGRESS = Progress(0, 10)
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def plain_attend(query: Tensor, key: Tensor, value: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eqs. 4, 6 and 7 with whole N x N maps."""
    affinity = torch.softmax(query @ key.transpose(1, 2), dim=2)
    if labels is None:
        return affinity @ value, query.new_zeros(())
    known = labels != 255
    pairs = known[:, :, None] & known[:, None, :]
    target = ((labels[:, :, None] == labels[:, None, :]) & pairs).to(affinity.dtype)
    target = target / target.sum(dim=1, keepdim=True).clamp_min(1)
    error = (affinity - target).square()[pairs]
    return affinity @ value, error.sum() / max(1, error.numel())


def factors(batch: int, cells: int, channels: int = 3, values: int = 4, spread: float = 1.0) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(batch, cells, channels)] * 2 + [(batch, cells, values)]
    return [(torch.randn(shape, dtype=torch.double) * spread).requires_grad_() for shape in shapes]


def values_and_gradients(function: Attend, tensors: list[Tensor], labels: Tensor | None) -> list[Tensor]:
    query, key, value = tensors
    out, loss = function(query, key, value, labels)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    total = (out * direction).sum() + 1e3 * loss
    return [out, loss, *torch.autograd.grad(total, tensors)]


def random_labels(kind: str, batch: int, cells: int) -> Tensor | None:
    torch.manual_seed(1)
    values = {"several": [0, 3, 7], "ignore": [0, 3, 255], "one class": [5], "nothing known": [255], "none": None}[kind]
    if values is None:
        return None
    labels = torch.tensor(values)[torch.randint(len(values), (batch, cells))].byte()
    if kind == "ignore":
        labels[0] = 255  # one photo without any label beside one with
    return labels


# --- the map, its loss, and both gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "several", "ignore", "one class", "nothing known"])
@pytest.mark.parametrize("entries", [1, 37 * 5, 37 * 37, 2 * 37 * 37, 2**20])  # rows of one photo ... all photos
def test_blocks_equal_whole_maps_in_double_precision(monkeypatch: pytest.MonkeyPatch, kind: str, entries: int) -> None:
    monkeypatch.setattr(attention, "_BLOCK_CPU", entries)
    tensors, labels = factors(3, 37), random_labels(kind, 3, 37)
    for found, wanted in zip(
        values_and_gradients(attend, tensors, labels), values_and_gradients(plain_attend, tensors, labels), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_peaked_maps_are_as_exact() -> None:
    """Scores of some hundreds: most weights underflow."""
    tensors, labels = factors(2, 23, spread=15.0), random_labels("several", 2, 23)
    for found, wanted in zip(
        values_and_gradients(attend, tensors, labels), values_and_gradients(plain_attend, tensors, labels), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_the_loss_equals_equations_6_and_7_by_hand() -> None:
    query, key, value = (tensor.detach() for tensor in factors(1, 5))
    classes = [2, 255, 0, 2, 0]
    errors = []
    for i in range(5):
        exponentials = [math.exp(float(query[0, i] @ key[0, j])) for j in range(5)]
        for j in range(5):
            if 255 in (classes[i], classes[j]):
                continue
            target = 1 / classes.count(classes[i]) if classes[i] == classes[j] else 0
            errors.append((exponentials[j] / sum(exponentials) - target) ** 2)
    loss = attend(query, key, value, torch.tensor([classes], dtype=torch.uint8))[1]
    assert len(errors) == 16
    assert loss.item() == pytest.approx(sum(errors) / 16, abs=1e-12)


@pytest.mark.parametrize("kind", ["none", "ignore"])
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(attention, "_BLOCK_CPU", 14)
    labels = random_labels(kind, 2, 7)
    assert torch.autograd.gradcheck(
        lambda q, k, v: attend(q, k, v, labels)[slice(None) if labels is not None else slice(1)], factors(2, 7)
    )


def test_one_cell_sees_itself() -> None:
    query, key, value = factors(1, 1)
    out, loss = attend(query, key, value, torch.tensor([[4]], dtype=torch.uint8))
    assert torch.equal(out, value)
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in torch.autograd.grad(loss, [query, key]))


def test_labelled_cells_alone_make_the_loss() -> None:
    """A photo without labels beside another one changes nothing."""
    tensors = [tensor.detach() for tensor in factors(2, 9)]
    labels = random_labels("several", 2, 9)
    assert labels is not None
    labels[1] = 255
    query, key, value = tensors
    together = attend(query, key, value, labels)[1]
    alone = attend(query[:1], key[:1], value[:1], labels[:1])[1]
    assert together.item() == pytest.approx(alone.item(), rel=1e-12)


class LargestTensor(TorchDispatchMode):
    """Notes the entries of the largest tensor any operation gives."""

    entries = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return result


def largest_tensors(function: Attend, tensors: list[Tensor], labels: Tensor) -> tuple[int, int]:
    """Return the entries of the largest tensor saved for the backward pass, and of the largest made at all."""
    saved: list[int] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    largest = LargestTensor()  # type: ignore[no-untyped-call]  # torch has no types here
    with largest as seen, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        values_and_gradients(function, tensors, labels)
    return max(saved), seen.entries


def test_no_map_of_all_pairs_is_kept_or_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_BLOCK_CPU", 2000)
    cells = 200
    tensors, labels = factors(1, cells), random_labels("several", 1, cells)
    assert labels is not None
    kept, made = largest_tensors(attend, tensors, labels)
    assert kept <= cells * 4
    assert made <= 2000
    assert min(largest_tensors(plain_attend, tensors, labels)) == cells**2  # the measure sees what it should


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(dtype: torch.dtype) -> None:
    tensors, labels = factors(2, 60, channels=16, values=16, spread=0.5), random_labels("ignore", 2, 60)
    wanted = values_and_gradients(attend, tensors, labels)
    half = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        found = values_and_gradients(attend, half, labels)
    assert found[1].dtype == torch.float32
    assert [gradient.dtype for gradient in found[2:]] == [dtype] * 3
    assert found[1].item() == pytest.approx(wanted[1].item(), rel=0.01)
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).norm() <= 0.03 * other.norm()


def test_scores_beyond_the_range_of_float16_stay_finite() -> None:
    cells = torch.full((1, 4, 64), 100.0, dtype=torch.float16, requires_grad=True)  # a product of 640,000
    out, loss = attend(cells, cells, cells, torch.tensor([[0, 0, 1, 1]], dtype=torch.uint8))
    (out.sum() + loss).backward()
    assert torch.isfinite(out).all()
    assert loss.item() == pytest.approx(1 / 16)
    assert torch.isfinite(given(cells.grad)).all()


# --- modules ---------------------------------------------------------------------------------------------------------


def module(kind: type[NonLocal], channels: int = 6, inner: int | None = 4) -> NonLocal:
    torch.manual_seed(0)
    made = kind(channels, inner)
    nn.init.normal_(made.h.weight)
    return made.double()


@pytest.mark.parametrize("kind", [NonLocal, Lgsa])
def test_modules_equal_equations_4_and_5(kind: type[NonLocal]) -> None:
    made = module(kind)
    features = torch.randn(2, 6, 3, 4, dtype=torch.double)

    def linear(layer: nn.Conv2d, cells: Tensor) -> Tensor:  # (C, N) -> (C', N)
        return layer.weight.flatten(1) @ cells + layer.get_parameter("bias")[:, None]

    found = made(features)
    for z, x in zip(found, features, strict=True):
        cells = x.flatten(1)
        affinity = torch.softmax(linear(made.theta, cells).T @ linear(made.phi, cells), dim=1)
        wanted = linear(made.h, (affinity @ linear(made.g, cells).T).T) + cells
        torch.testing.assert_close(z.flatten(1), wanted)


@pytest.mark.parametrize("kind", [NonLocal, Lgsa])
def test_new_modules_change_nothing_and_learn_from_the_first_step(kind: type[NonLocal]) -> None:
    torch.manual_seed(0)
    made, features = kind(12), torch.randn(2, 12, 5, 4)
    assert torch.equal(made(features), features)
    made(features).square().sum().backward()
    assert made.h.weight.grad is not None
    assert made.h.weight.grad.abs().max() > 0


def test_scores_start_near_one_whatever_the_widths() -> None:
    torch.manual_seed(0)
    for channels in (32, 2048):
        made, features = NonLocal(channels), torch.randn(1, channels, 12, 12)
        assert made.theta.out_channels == min(channels // 2, 512)
        affinity = made.attend(features).affinity
        scores = (affinity.query @ affinity.key.transpose(1, 2)).detach()
        assert 0.7 < scores.std().item() < 1.4


def test_only_the_guided_module_has_a_loss() -> None:
    features = torch.randn(1, 6, 4, 4, dtype=torch.double)
    labels = torch.randint(3, (1, 4, 4), dtype=torch.uint8)
    guided, free = module(Lgsa), module(NonLocal)
    assert isinstance(guided, Lgsa)
    found = guided.attend(features, labels)
    query, key, value = (layer(features).flatten(2).transpose(1, 2) for layer in (guided.theta, guided.phi, guided.g))
    wanted = plain_attend(query, key, value, labels.flatten(1))[1]
    torch.testing.assert_close(found.loss, wanted)
    assert guided.attend(features).loss == 0
    assert cascade([free], features, labels).loss == 0


def test_a_cascade_sums_losses_and_hands_out_the_last_map() -> None:
    features = torch.randn(2, 6, 4, 3, dtype=torch.double)
    labels = torch.randint(3, (2, 4, 3), dtype=torch.uint8)
    first, second, third = module(Lgsa), module(NonLocal), module(Lgsa)
    assert isinstance(first, Lgsa)
    assert isinstance(third, Lgsa)
    found = cascade(nn.ModuleList([first, second, third]), features, labels)
    one = first.attend(features, labels)
    two = second.attend(one.features)
    three = third.attend(two.features, labels)
    torch.testing.assert_close(found.features, three.features)
    torch.testing.assert_close(found.loss, one.loss + three.loss)
    torch.testing.assert_close(found.affinity.query, three.affinity.query)


def test_a_cascade_of_nothing_or_of_other_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one attention module"):
        cascade([], torch.zeros(1, 6, 2, 2))
    with pytest.raises(ConfigError, match="Conv2d is no attention module"):
        cascade([nn.Conv2d(6, 6, 1)], torch.zeros(1, 6, 2, 2))


def test_the_walk_averages_with_the_rows_of_the_map() -> None:
    query, key, _ = factors(2, 12)
    affinity = Affinity(query, key, (3, 4))
    rows = affinity.rows(torch.arange(12).expand(2, 12))
    torch.testing.assert_close(rows.flatten(2), torch.softmax(query @ key.transpose(1, 2), dim=2))
    torch.testing.assert_close(rows.sum(dim=(2, 3)), torch.ones(2, 12, dtype=torch.double))
    logits = torch.randn(2, 5, 3, 4, dtype=torch.double)
    wanted = torch.einsum("bqyx,bcyx->bcq", rows, logits).unflatten(2, (3, 4))  # Eq. 8
    walked = affinity.walk(logits)
    torch.testing.assert_close(walked, wanted)
    assert (walked.amax(dim=(2, 3)) <= logits.amax(dim=(2, 3))).all()
    constant = torch.full((2, 1, 3, 4), -7.0, dtype=torch.double)
    torch.testing.assert_close(affinity.walk(constant), constant)
    with pytest.raises(ShapeError, match=r"\(4, 3\) cells cannot walk on a map of \(3, 4\)"):
        affinity.walk(logits.transpose(2, 3))


# --- the segmenter ---------------------------------------------------------------------------------------------------


def network(classes: int = 2, background: bool = True, awake: bool = True, **settings: Any) -> LgsaDeepLabV2:
    """A small network; `awake`: the modules say something, as after some training."""
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet10t", weights="random", freeze="none", levels=4, output_stride=8)
    made = LgsaDeepLabV2(LgsaConfig.model_validate({"backbone": backbone} | settings), classes, background)
    if awake:
        for one in made.attention:
            nn.init.normal_(one.get_parameter("h.weight"), std=0.1)
    return made


PAPER: dict[str, Any] = {"walk_share": 1.0, "walk_start": 0.0, "walk_steps": 1}


@pytest.mark.parametrize("walk_on", ["logits", "probabilities"])
def test_losses_equal_equations_8_to_10(walk_on: str) -> None:
    method, batch = network(walk_on=walk_on, **PAPER).eval(), dark_halves()
    assert batch.targets.pixels is not None
    features = method.scale(method.backbone(batch.images)[-1])
    labels = labels_on_grid(batch.targets.pixels, (8, 8)).flatten(1)
    guided = torch.zeros(())
    for one in method.attention:
        query, key, value = (
            layer(features).flatten(2).transpose(1, 2) for layer in map(one.get_submodule, ("theta", "phi", "g"))
        )
        mean, loss = plain_attend(query, key, value, labels)
        guided = guided + loss
        features = features + one.get_submodule("h")(mean.transpose(1, 2).unflatten(2, (8, 8)))
    affinity = torch.softmax(query @ key.transpose(1, 2), dim=2)
    cells = method.head(features).flatten(2).transpose(1, 2)
    cells = affinity @ cells if walk_on == "logits" else (affinity @ cells.softmax(dim=2)).log()
    logits = cells.transpose(1, 2).unflatten(2, (8, 8))
    torch.testing.assert_close(method.segment(batch.images), logits, rtol=1e-4, atol=1e-5)
    full = interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    found = method.losses(batch, PROGRESS)
    assert list(found) == ["segmentation", "att"]
    torch.testing.assert_close(
        found["segmentation"], pixel_cross_entropy(full, batch.targets.pixels), rtol=1e-4, atol=1e-5
    )
    pull = 10000 * (64 / 1681) ** 2  # 8 x 8 cells here, 41 x 41 in the paper
    torch.testing.assert_close(found["att"], pull * guided, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "weight", "modules", "walks"),
    [
        ({}, 10000, 2, True),
        ({"modules": 1}, 1000, 1, True),
        ({"modules": 3, "alpha": 5000.0}, 5000, 3, True),
        ({"alpha": 0.0}, 0, 2, True),
        ({"walk": False}, 10000, 2, False),
        ({"attention": "non_local"}, 0, 2, False),
        ({"attention": "non_local", "walk": True}, 0, 2, True),
        ({"attention": "none"}, 0, 0, False),
    ],
)
def test_settings_choose_weight_modules_and_walk(
    settings: dict[str, Any], weight: float, modules: int, walks: bool
) -> None:
    method = network(**settings)
    assert method.config.weight == weight
    assert len(method.attention) == modules
    assert method.walks is walks
    losses = method.losses(dark_halves(), PROGRESS)
    assert set(losses) == ({"segmentation", "att"} if weight else {"segmentation"})


def test_settings_that_contradict_each_other_are_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="walk=true needs a map to walk on"):
        load_config("full", ["segment.method=lgsa", "segment.attention=none", "segment.walk=true"], data={"path": "x"})
    with pytest.raises(ConfigError, match="weighs the loss of attention=lgsa"):
        load_config(
            "full", ["segment.method=lgsa", "segment.attention=non_local", "segment.alpha=10"], data={"path": "x"}
        )
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        load_config("full", ["segment.method=lgsa", "segment.modules=0"], data={"path": "x"})


@pytest.mark.parametrize("walk_on", ["logits", "probabilities"])
@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
def test_without_background_channel_zero_never_wins(size: tuple[int, int], walk_on: str) -> None:
    method = network(classes=3, background=False, walk_on=walk_on).eval()
    logits = method.segment(torch.rand(2, 3, *size))
    assert logits.shape == (2, 4, -(-size[0] // 8), -(-size[1] // 8))
    assert (logits[:, 0] == -1e4).all()
    assert (logits[:, 1:] > -100).all()
    assert torch.isfinite(logits.half()).all()
    assert method.losses(dark_halves(size), PROGRESS)["segmentation"].item() < 100


def test_new_attention_leaves_deeplab_as_it_is() -> None:
    bare, full = network(attention="none").eval(), network(walk=False, awake=False).eval()
    full.load_state_dict(bare.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(bare.segment(images), full.segment(images))


def test_nothing_labelled_gives_a_loss_of_zero_and_finite_gradients() -> None:
    method = network().train()
    losses = method.losses(dark_halves(values=(255, 255)), PROGRESS)
    total = losses["segmentation"] + losses["att"]
    total.backward()
    assert total.item() == 0
    assert all(torch.isfinite(value.grad).all() for value in method.parameters() if value.grad is not None)


def test_masks_are_needed() -> None:
    batch = dark_halves()
    batch = with_targets(batch, pixels=None)
    with pytest.raises(ConfigError, match="learns from masks"):
        network().losses(batch, PROGRESS)


def test_every_parameter_has_one_group() -> None:
    method = network()
    groups = method.parameter_groups()
    assert sorted(id(value) for group in groups for value in group.parameters) == sorted(map(id, method.parameters()))
    assert [(g.head, g.lr_factor, g.weight_decay) for g in groups] == [(False, 1, None), (True, 1, None), (True, 2, 0)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_the_masks_and_whom_to_listen_to(precision: str) -> None:
    method, batch = network(awake=False, alpha=1e7), dark_halves()
    method.eval()
    method.prepare([batch])
    queries = torch.tensor([[[0.2, 0.5], [0.8, 0.5]]] * 2)
    method.train()
    rows = [{"params": group.parameters, "lr": 1e-3 * group.lr_factor} for group in method.parameter_groups()]
    optimizer = torch.optim.AdamW(rows)
    history = []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses = method.losses(batch, PROGRESS)
        history.append([losses["segmentation"].item(), losses["att"].item()])
        optimizer.zero_grad()
        (losses["segmentation"] + losses["att"]).backward()
        optimizer.step()
    first, last = np.array(history[0]), np.array(history[-1])
    assert (last < first / 2).all()
    maps = method.affinity(batch.images, queries)
    assert maps.shape == (2, 2, 8, 8)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 2), rtol=1e-3, atol=1e-3)
    assert maps[:, 0, :, :4].sum(dim=(1, 2)).min() > 0.8  # a cell of the left half listens to the left half
    assert maps[:, 1, :, 4:].sum(dim=(1, 2)).min() > 0.8


def test_heat_maps_are_rows_of_the_last_map() -> None:
    method, images = network().eval(), torch.rand(1, 3, 64, 96)
    affinity = cascade(method.attention, method.scale(method.backbone(images)[-1])).affinity
    found = method.affinity(images, torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.5, 0.26]]]))
    wanted = affinity.rows(torch.tensor([[0, 8 * 12 - 1, 2 * 12 + 6]]))
    torch.testing.assert_close(found, wanted)
    assert not found.requires_grad
    with pytest.raises(ConfigError, match="attention=none has no affinity"):
        network(attention="none").affinity(images, torch.zeros(1, 1, 2))


def test_a_run_trains_predicts_and_logs_both_losses(shapes: Path, tmp_path: Path) -> None:
    settings = [
        *("backbone.name=resnet10t", "backbone.weights=random", "backbone.levels=3", "backbone.output_stride=8"),
        *("segment.method=lgsa", "segment.fit.epochs=2", "segment.fit.batch_size=4", "segment.fit.crop=64"),
        *("segment.fit.first_epoch=0.1", "test.scales=[1.0]", "trainer.workers=0", "trainer.pictures=0"),
    ]
    run = hintseg.train(shapes, tmp_path / "run", recipe="full", settings=settings)
    assert [row["kind"] for row in run.metrics] == ["segmentation"]
    header, *rows = (run.path / "segment" / "log.csv").read_text().splitlines()
    assert header == "step,epoch,lr,loss,segmentation,att"
    assert len(rows) == 4
    method = load_weights(run.path / "segment" / "model.safetensors")[0]
    assert isinstance(method, LgsaDeepLabV2)
    assert method.affinity(torch.rand(1, 3, 64, 64), torch.full((1, 1, 2), 0.5)).shape == (1, 1, 8, 8)


class Patches(nn.Module):
    """A backbone of one layer, quick to export."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 8, stride=8)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layer(images)]


@pytest.mark.parametrize("walk_on", ["logits", "probabilities"])
def test_onnx_file_gives_the_logits_of_torch(tmp_path: Path, walk_on: str) -> None:
    method = network(modules=1, walk_on=walk_on).eval()
    method.backbone = Patches(method.backbone.channels[-1])  # type: ignore[assignment]
    report = export_onnx(method, tmp_path / "model.onnx", size=(32, 48), classes=["a", "b"], background=True)
    assert report.dynamic_size
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    images = torch.rand(3, 3, 64, 40)
    found = session.run(["logits"], {"images": images.numpy()})[0]
    with torch.no_grad():
        wanted = interpolate(method.segment(images), size=(64, 40), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-3)
