"""LGSA beyond the paper: the walk mixed in by a share, from a start on, and the mass loss, against plain versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.losses.affinity import labels_on_grid
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.methods.lgsa import LgsaDeepLabV2
from hintseg.nn.attention import mass_loss
from hintseg.types import Progress
from made import dark_halves
from test_lgsa import PAPER, PROGRESS, factors, network


@pytest.mark.parametrize("walk_on", ["logits", "probabilities"])
def test_the_walk_is_mixed_in_by_its_share_after_its_start(walk_on: str) -> None:
    """Lambda W^2 S + (1 - lambda) S of the logits or probabilities S; before the start, and without a share, S."""
    settings: dict[str, Any] = {"walk_on": walk_on, "walk_share": 0.25, "walk_start": 0.4, "walk_steps": 2}
    method, batch = network(**settings).eval(), dark_halves()
    bare = network(**(settings | {"walk_share": 0.0})).eval()
    own = bare.segment(batch.images)
    affinity = given_map(method, batch.images)
    cells = own.flatten(2).transpose(1, 2)
    cells = cells if walk_on == "logits" else cells.softmax(dim=2)
    if walk_on == "probabilities":
        torch.testing.assert_close(own, network(**PAPER | {"walk": False}).eval().segment(batch.images))
    mixed = 0.25 * (affinity @ (affinity @ cells)) + 0.75 * cells
    wanted = (mixed if walk_on == "logits" else mixed.log()).transpose(1, 2).unflatten(2, (8, 8))
    torch.testing.assert_close(method.segment(batch.images), wanted, rtol=1e-4, atol=1e-5)
    early, late = (method.losses(batch, Progress(step, 100))["segmentation"] for step in (39, 40))
    assert early == bare.losses(batch, Progress(39, 100))["segmentation"]
    full = interpolate(wanted, size=(64, 64), mode="bilinear", align_corners=False)
    assert batch.targets.pixels is not None
    torch.testing.assert_close(late, pixel_cross_entropy(full, batch.targets.pixels), rtol=1e-4, atol=1e-5)
    assert early != late


def given_map(method: LgsaDeepLabV2, images: Tensor) -> Tensor:
    """Return W of the last module, (B, 64, 64)."""
    cells = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="xy"), dim=-1)
    return method.affinity(images, (cells.reshape(1, 64, 2).expand(len(images), -1, -1) + 0.5) / 8).flatten(2)


def test_mass_loss_equals_a_plain_one() -> None:
    query, key, _ = factors(2, 12)
    labels = torch.tensor([[0, 0, 1, 1, 255, 2] * 2, [3, 3, 3, 255, 255, 0] * 2], dtype=torch.uint8)
    query, key = query.requires_grad_(), key.requires_grad_()
    found = mass_loss(query, key, labels)
    terms = []
    for b in range(2):
        weights = torch.softmax(query[b] @ key[b].T, dim=1)
        for i in range(12):
            if labels[b, i] != 255:
                own = sum((weights[i, j] for j in range(12) if labels[b, j] == labels[b, i]), torch.zeros(()))
                known = sum((weights[i, j] for j in range(12) if labels[b, j] != 255), torch.zeros(()))
                terms.append(-(own / known).log())
    plain = torch.stack(terms).mean()
    torch.testing.assert_close(found, plain)
    gradients = (torch.autograd.grad(loss, (query, key)) for loss in (found, plain))
    torch.testing.assert_close(*gradients)
    assert mass_loss(query, key, torch.full_like(labels, 255)) == 0


def test_the_mass_loss_replaces_equation_7_at_its_own_weight() -> None:
    method, batch = network(attention_loss="mass", walk=False, modules=1, alpha=0.5).eval(), dark_halves()
    assert batch.targets.pixels is not None
    found = method.losses(batch, PROGRESS)["att"]
    attended = method._attend(batch.images, None)[1]
    assert attended is not None
    labels = labels_on_grid(batch.targets.pixels, (8, 8)).flatten(1)
    expected = 0.5 * mass_loss(attended.affinity.query, attended.affinity.key, labels)
    torch.testing.assert_close(found, expected)
    assert network(attention_loss="mass").config.weight == 1
