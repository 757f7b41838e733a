"""Visual words and VWE: Eqs. 1-4 and 9-12 against slow plain versions and published numbers."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch

from hintseg.config.settings import BackboneConfig
from hintseg.losses.classification import multi_label_soft_margin
from hintseg.methods.vwe import Vwe, VweConfig, combine_branches
from hintseg.nn.pooling import gap, hspp
from hintseg.nn.visual_words import ROUNDS, VisualWords
from hintseg.types import Progress
from made import batch_of, rand
from published import reference


def network(classes: int = 3, **settings: Any) -> Vwe:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="test_resnet", weights="random", freeze="norm")
    given = {"backbone": backbone, "words": 16} | settings
    return Vwe(VweConfig.model_validate(given), classes, True).eval()


PAPER: dict[str, Any] = {"codebook": "learned", "temperature": 1.0, "word_scale": False}


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_word_code_equals_the_equations(temperature: float) -> None:
    torch.manual_seed(0)
    encoder, features = VisualWords(5, 4, temperature=temperature), torch.randn(2, 4, 3, 2)
    code = encoder(features)
    codebook = encoder.codebook.tolist()
    frequency, present = torch.zeros(2, 5), torch.zeros(2, 5)
    for b in range(2):
        for y in range(3):
            for x in range(2):
                f = features[b, :, y, x].tolist()
                cosines = [  # Eq. 1
                    sum(p * q for p, q in zip(f, c, strict=True)) / (math.hypot(*f) * math.hypot(*c)) for c in codebook
                ]
                exponentials = [math.exp(s / temperature) for s in cosines]
                p = [e / sum(exponentials) for e in exponentials]  # Eq. 2
                torch.testing.assert_close(code.probabilities[b, :, y, x], torch.tensor(p))
                assert code.labels[b, y, x] == p.index(max(p))  # Eq. 3
                present[b, p.index(max(p))] = 1
                frequency[b] += torch.tensor(p) / 6  # Eq. 4
    assert torch.equal(code.present, present)
    torch.testing.assert_close(code.frequency("mean"), frequency)
    torch.testing.assert_close(code.frequency("sum"), frequency * 6)


def test_empty_cell_has_no_preferred_word() -> None:
    code = VisualWords(8, 4)(torch.zeros(1, 4, 1, 1))
    torch.testing.assert_close(code.probabilities, torch.full((1, 8, 1, 1), 1 / 8))


def test_words_ignore_the_scale_of_features() -> None:
    encoder, features = VisualWords(8, 4), rand(1, 4, 3, 3)
    torch.testing.assert_close(encoder(features).probabilities, encoder(features * 1e-4).probabilities)


def test_k_means_equals_a_slow_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "randperm", lambda n, device: torch.arange(n))
    encoder, features = VisualWords(3, 4, temperature=0.05, learned=False), torch.randn(2, 4, 5, 3) + 2
    encoder.start([features[:1], features[1:]])
    cells = [features[b, :, y, x].tolist() for b in range(2) for y in range(5) for x in range(3)]
    centre = [sum(cell[c] for cell in cells) / 30 for c in range(4)]

    def unit(vector: list[float]) -> list[float]:
        return [v / math.hypot(*vector) for v in vector]

    def cosine(left: list[float], right: list[float]) -> float:
        return sum(p * q for p, q in zip(left, right, strict=True))

    directions = [unit([v - m for v, m in zip(cell, centre, strict=True)]) for cell in cells]
    book = directions[:3]
    for _ in range(ROUNDS):
        named = [max(range(3), key=lambda j: cosine(d, book[j])) for d in directions]
        members = [[d for d, n in zip(directions, named, strict=True) if n == j] for j in range(3)]
        book = [unit([sum(one) for one in zip(*group, strict=True)]) for group in members]
    torch.testing.assert_close(encoder.centre, torch.tensor(centre))
    torch.testing.assert_close(encoder.codebook, torch.tensor(book), rtol=1e-4, atol=1e-5)
    usual = [0.0, 0.0, 0.0]
    for d in directions:
        exponentials = [math.exp(cosine(d, word) / 0.05) for word in book]
        usual = [u + e / sum(exponentials) / 30 for u, e in zip(usual, exponentials, strict=True)]
    torch.testing.assert_close(encoder.usual, torch.tensor(usual), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(encoder(features).frequency("mean").mean(dim=0), encoder.usual)


def test_k_means_finds_the_groups_of_cells_and_more_words_than_cells_are_no_harm() -> None:
    torch.manual_seed(0)
    groups = torch.eye(4).repeat_interleave(25, dim=0)
    features = (groups + 0.05 * torch.randn(100, 4)).T.reshape(1, 4, 10, 10)
    encoder = VisualWords(40, 4, temperature=0.05, learned=False)
    encoder.start([features])
    named = encoder(features).labels.flatten().view(4, 25)
    assert all(set(one.tolist()).isdisjoint(other.tolist()) for i, one in enumerate(named) for other in named[:i])
    encoder.start([features[..., :2, :2]])
    assert encoder.codebook.isfinite().all()


def test_words_follow_the_features_as_running_means() -> None:
    torch.manual_seed(0)
    encoder, features = VisualWords(5, 4, temperature=0.05, learned=False), torch.randn(2, 4, 6, 6)
    encoder.start([features])
    centre, book, usual = (value.clone() for value in (encoder.centre, encoder.codebook, encoder.usual))
    moved = features[:, :, :2, :2] + 0.3
    code = encoder(moved)
    encoder.follow(moved, code)
    torch.testing.assert_close(encoder.centre, 0.99 * centre + 0.01 * moved.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(encoder.usual, 0.99 * usual + 0.01 * code.probabilities.mean(dim=(0, 2, 3)))
    assert 0 < code.present.amax(dim=0).sum() < 5, "some words are named and some are not"
    for j in range(5):
        members = [
            (moved[b, :, y, x] - centre) / (moved[b, :, y, x] - centre).norm()
            for b in range(2)
            for y in range(2)
            for x in range(2)
            if code.labels[b, y, x] == j
        ]
        total = sum(members, torch.zeros(4))
        expected = 0.99 * book[j] + 0.01 * total / total.norm() if members else book[j]
        torch.testing.assert_close(encoder.codebook[j], expected)


def test_word_code_and_its_gradient_equal_the_published_numbers() -> None:
    vwe = reference("vwe")
    encoder = VisualWords(16, 24)
    encoder.codebook.data = vwe["codebook"].flatten(1)
    code = encoder(vwe["vx"])
    torch.testing.assert_close(code.probabilities, vwe["P"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(code.frequency("sum"), vwe["hist_sum"].flatten(1), rtol=1e-4, atol=1e-6)
    assert torch.equal(code.present.bool(), vwe["y_word"])
    loss = multi_label_soft_margin(code.frequency("sum") @ vwe["w2i"].flatten(1).T, vwe["label"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), vwe["loss_w2i"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(encoder.codebook.grad, vwe["grad_codebook"].flatten(1), rtol=1e-4, atol=1e-7)


# --- losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["gap", "hspp"])
@pytest.mark.parametrize("frequency", ["sum", "mean"])
def test_losses_equal_the_equations(pooling: str, frequency: str) -> None:
    method, images, tags = (
        network(pooling=pooling, frequency=frequency, **PAPER),
        rand(2, 3, 64, 64),
        rand(2, 3).round(),
    )
    features = method.backbone(images)[-1]
    code = method.encoder(features)
    f_img = hspp(features) if pooling == "hspp" else gap(features)
    f_word = code.probabilities.mean(dim=(2, 3)) * (16 if frequency == "sum" else 1)  # 4 x 4 cells
    expected = {
        "loss_img": (f_img @ method.image_classifier.weight.flatten(1).T, tags),
        "loss_word": (features.mean(dim=(2, 3)) @ method.word_classifier.weight.flatten(1).T, code.present),
        "loss_w2i": (f_word @ method.word_to_image.weight.flatten(1).T, tags),
    }
    losses = method.losses(batch_of(images, tags), Progress(0, 1))
    torch.testing.assert_close(losses, {name: multi_label_soft_margin(*pair) for name, pair in expected.items()})


@pytest.mark.parametrize("pooling", ["gap", "hspp"])
def test_losses_of_measured_words_equal_the_equations_at_their_scales(pooling: str) -> None:
    """Pooled features, averages and centred word frequencies each have a root mean square norm of 27."""
    method, images, tags = network(pooling=pooling, prior=False), rand(4, 3, 64, 64), rand(4, 3).round()
    method.backbone.eval()
    method.train = lambda mode=True: method  # type: ignore[method-assign]
    method.prepare([batch_of(images, tags)])

    def scaled(values: torch.Tensor) -> torch.Tensor:
        return values * 27 / values.square().sum(dim=1).mean().sqrt()

    features = method.feature_scale(method.backbone(images)[-1])
    code = method.encoder(features)
    f_word = code.probabilities.mean(dim=(2, 3)) - method.encoder.usual
    expected = {
        "loss_img": (scaled(hspp(features) if pooling == "hspp" else gap(features)), method.image_classifier, tags),
        "loss_word": (scaled(features.mean(dim=(2, 3))), method.word_classifier, code.present),
        "loss_w2i": (scaled(f_word), method.word_to_image, tags),
    }
    losses = method.losses(batch_of(images, tags), Progress(0, 1))
    for name, (pooled, layer, labels) in expected.items():
        found = multi_label_soft_margin(pooled @ layer.weight.flatten(1).T, labels)
        torch.testing.assert_close(losses[name], found, rtol=1e-4, atol=1e-5)


def test_the_average_of_both_maps_is_the_score_of_the_tag() -> None:
    """So cells add up on one scale: that of the log-odds which the two tag losses are about."""
    method, images, tags = network(pooling="gap"), rand(4, 3, 64, 64), rand(4, 3).round()
    method.prepare([batch_of(images, tags)])
    method.eval()
    features = method.feature_scale(method.backbone(images)[-1])
    code = method.encoder(features)
    f_word = method.frequency_scale(code.frequency("mean") - method.encoder.usual)
    p_img = features.mean(dim=(2, 3)) @ method.image_classifier.weight.flatten(1).T
    p_w2i = f_word @ method.word_to_image.weight.flatten(1).T
    with patch("hintseg.methods.vwe.torch.relu", lambda maps: maps):
        torch.testing.assert_close(method.class_maps(images).mean(dim=(2, 3)), p_img + p_w2i, rtol=1e-4, atol=1e-4)


def test_words_move_in_training_only() -> None:
    method, images, tags = network(), rand(2, 3, 64, 64), rand(2, 3).round()
    method.prepare([batch_of(images, tags)])
    book = method.encoder.codebook.clone()
    method.losses(batch_of(images + 1, tags), Progress(0, 1))
    assert torch.equal(method.encoder.codebook, book)
    method.train()
    method.losses(batch_of(images + 1, tags), Progress(0, 1))
    assert not torch.equal(method.encoder.codebook, book)
    assert torch.equal(method.encoder.codebook, method.state_dict()["encoder.codebook"]), "it is saved"


def parts_with_gradient(method: Vwe, name: str) -> set[str]:
    images, tags = rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    method.losses(batch_of(images, tags), Progress(0, 1))[name].backward()
    return {key.split(".")[0] for key, p in method.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("loss_img", {"backbone", "image_classifier"}),
        ("loss_word", {"backbone", "word_classifier"}),
        ("loss_w2i", {"encoder", "word_to_image"}),
    ],
)
def test_each_loss_trains_its_own_parts(name: str, parts: set[str]) -> None:
    assert parts_with_gradient(network(**PAPER), name) == parts
    assert parts_with_gradient(network(), name) == parts - {"encoder"}, "measured words learn from no loss"


def test_parameter_groups_hold_every_parameter_once() -> None:
    method = network()
    backbone, heads = method.parameter_groups()
    held = [id(p) for group in (backbone, heads) for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in method.parameters())
    assert {id(p) for p in backbone.parameters} == {id(p) for p in method.backbone.parameters()}
    assert (backbone.head, heads.head) == (False, True)


def test_single_class_trains_and_maps() -> None:
    method, images = network(1), rand(2, 3, 64, 64)
    method.prepare([batch_of(images, torch.ones(2, 1))])
    assert all(loss.isfinite() for loss in method.losses(batch_of(images, torch.ones(2, 1)), Progress(0, 1)).values())
    assert method.class_maps(images).shape == (2, 1, 4, 4)


# --- class maps -----------------------------------------------------------------------------------------------------


def test_class_maps_equal_the_equations() -> None:
    method, images = network(word_branch="max", **PAPER).requires_grad_(False), rand(1, 3, 64, 64)
    features = method.backbone(images)[-1]
    features, probabilities = features[0].flatten(1), method.encoder(features).probabilities[0].flatten(1)
    w_img, w_w2i = method.image_classifier.weight.flatten(1), method.word_to_image.weight.flatten(1)
    for weight, cells in ((w_img, features), (w_w2i, probabilities)):  # let every map have both signs before the ReLU
        mean = cells.mean(dim=1)
        weight -= (weight @ mean / (mean @ mean))[:, None] * mean
    maps = method.class_maps(images)[0].flatten(1)
    for c in range(3):
        m_img = [max(float(w_img[c] @ features[:, i]), 0.0) for i in range(16)]  # Eq. 10 and ReLU
        m_word = [max(float(w_w2i[c] @ probabilities[:, i]), 0.0) for i in range(16)]  # Eq. 11 and ReLU
        assert 0 < sum(m > 0 for m in m_img) < 16
        assert 0 < sum(m > 0 for m in m_word) < 16
        low, high = min(m_word), max(m_word)
        expected = [max(a, (b - low) / (high - low) * max(m_img)) for a, b in zip(m_img, m_word, strict=True)]  # Eq. 12
        torch.testing.assert_close(maps[c], torch.tensor(expected), rtol=1e-3, atol=1e-5)


def test_without_the_word_branch_maps_are_those_of_the_image_branch() -> None:
    method, images = network(word_branch="none"), rand(2, 3, 64, 64)
    expected = torch.relu(method.image_classifier(method.backbone(images)[-1]))
    torch.testing.assert_close(method.class_maps(images), expected)


def test_branches_complete_each_other_on_one_scale() -> None:
    image_maps = torch.tensor([[[[4.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]]])
    word_maps = torch.tensor([[[[5.0, 5.1, 5.0]], [[5.0, 6.0, 5.5]]]])
    expected = torch.tensor([[[[4.0, 4.0, 1.0]], [[0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(combine_branches(image_maps, word_maps), expected)


def test_constant_word_map_adds_nothing() -> None:
    image_maps = rand(2, 3, 4, 4)
    torch.testing.assert_close(combine_branches(image_maps, torch.full((2, 3, 4, 4), 0.7)), image_maps)
