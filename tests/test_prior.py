"""The fixed offset for how often a class occurs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hintseg.config.settings import BackboneConfig
from hintseg.methods.cam import Cam, CamConfig
from hintseg.nn.prior import ClassPrior
from hintseg.types import Batch
from made import batch_of


def batch(tags: Tensor) -> Batch:
    n = len(tags)
    return batch_of(torch.rand(n, 3, 64, 64), tags)


def test_scores_of_zero_become_the_share_of_photos() -> None:
    tags = torch.zeros(1000, 3)
    tags[:100, 0], tags[:500, 1] = 1, 1
    prior = ClassPrior(3)
    prior.measure((part, torch.ones_like(part, dtype=torch.bool)) for part in tags.split(16))
    shares = prior(torch.zeros(1, 3)).sigmoid()[0]
    assert shares[:2].tolist() == pytest.approx([0.1, 0.5], abs=0.001)
    assert 0 < shares[2] < 0.001


@pytest.mark.parametrize("wanted", [True, False])
def test_the_classifier_measures_it_and_its_maps_leave_it_out(wanted: bool) -> None:
    torch.manual_seed(0)
    backbone = BackboneConfig(name="resnet10t", weights="random")
    method = Cam(CamConfig(backbone=backbone, prior=wanted), 2, True)
    method.prepare([batch(torch.tensor([[1.0, 0.0]] * 8))])
    assert bool((method.prior.offset != 0).all()) is wanted
    images = torch.rand(1, 3, 64, 64)
    method.eval()
    before = method.class_maps(images)
    method.prior.offset.fill_(9.0)
    torch.testing.assert_close(method.class_maps(images), before)
