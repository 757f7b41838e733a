"""Visual words and VWE: Eqs. 1-4 and 9-12 against slow plain versions and published numbers."""

from __future__ import annotations

import math

import pytest
import torch

from hintseg.config.settings import BackboneConfig
from hintseg.losses.classification import multi_label_soft_margin
from hintseg.methods.vwe import Vwe, VweConfig, combine_branches
from hintseg.nn.pooling import gap, hspp
from hintseg.nn.visual_words import VisualWords
from hintseg.types import Progress
from made import batch_of, rand
from published import reference


def network(classes: int = 3, **settings: bool | str) -> Vwe:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="test_resnet", weights="random", freeze="norm")
    return Vwe(VweConfig.model_validate({"backbone": backbone, "words": 16} | settings), classes, True).eval()


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
    method, images, tags = network(pooling=pooling, frequency=frequency), rand(2, 3, 64, 64), rand(2, 3).round()
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
    assert parts_with_gradient(network(), name) == parts


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
    method, images = network(word_branch=True).requires_grad_(False), rand(1, 3, 64, 64)
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
    method, images = network(), rand(2, 3, 64, 64)
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
