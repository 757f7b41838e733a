"""CSD's losses against slow plain versions, in the paper's form and without scale; their cap; the teacher."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from csd_pairs import Plain, pairs, plain_consistency, softmax
from hintseg.types import Progress
from hintseg.wrappers.consistency import consistency, scale_free_consistency, suppression, with_dummy
from hintseg.wrappers.csd import Csd, CsdConfig
from made import of, rand


def test_consistency_equals_the_equation() -> None:
    teacher, student = rand(2, 3, 4, 5) * 6 - 3, (rand(2, 3, 4, 5, seed=1) * 6 - 3).requires_grad_()
    teacher.requires_grad_()
    cells = rand(2, 4, 5, seed=2) > 0.5
    loss = consistency(teacher, student, cells)
    loss.backward()
    value, gradient = plain_consistency(teacher.detach(), student.detach(), cells)
    assert loss.item() == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(student.grad, gradient, rtol=1e-4, atol=1e-5)
    assert teacher.grad is None


def plain_scale_free(teacher: Tensor, student: Tensor, cells: Tensor) -> tuple[float, float]:
    """Both scale-free losses, cell by cell: the divergence, and the strongest class of the student."""
    divergences, strengths = [], []
    for b in range(len(teacher)):
        largest = max(teacher[b].flatten().tolist())
        own = [(y, x) for y in range(cells.shape[1]) for x in range(cells.shape[2]) if cells[b, y, x]]
        divergence, strength = [], []
        for y, x in own:
            found = [max(v, 0.0) / largest for v in student[b, :, y, x].tolist()]
            p = softmax([max(v, 0.0) / largest / 0.2 for v in teacher[b, :, y, x].tolist()])
            q = softmax([v / 0.2 for v in found])
            divergence.append(sum(i * math.log(i / j) for i, j in zip(p, q, strict=True)))
            strength.append(max(found))
        if own:
            divergences.append(sum(divergence) / len(own))
            strengths.append(sum(strength) / len(own))
    return sum(divergences) / len(divergences), sum(strengths) / len(strengths)


def test_scale_free_losses_equal_plain_versions() -> None:
    teacher, student = rand(3, 3, 4, 5) * 6 - 3, rand(3, 3, 4, 5, seed=1) * 6 - 3
    teacher.requires_grad_()
    cells = rand(3, 4, 5, seed=2) > 0.5
    cells[1] = False  # a pair without a cell counts nowhere
    divergence, strength = plain_scale_free(teacher.detach(), student, cells)
    assert scale_free_consistency(teacher, student, cells).item() == pytest.approx(divergence, rel=1e-5)
    assert suppression(teacher, student, cells).item() == pytest.approx(strength, rel=1e-5)
    assert not scale_free_consistency(teacher, student, cells).requires_grad
    blind = teacher.detach().clone()
    blind[2] = -1.0  # a teacher that sees nothing says nothing
    for loss in (scale_free_consistency, suppression):
        torch.testing.assert_close(loss(blind, student, cells), loss(teacher[:2], student[:2], cells[:2]))
    for loss in (scale_free_consistency, suppression):
        same = loss(teacher * 50, student * 50, cells)
        torch.testing.assert_close(same, loss(teacher, student, cells))
        assert loss(teacher, student, torch.zeros_like(cells)) == 0


def test_background_map_has_two_channels() -> None:
    maps = rand(2, 3, 2, 2)
    two = with_dummy(maps, 0.1)
    assert two.shape == (2, 2, 2, 2)
    torch.testing.assert_close(two[:, 0], maps[:, 0] + maps[:, 1] + maps[:, 2])
    assert (two[:, 1] == 0.1).all()


def test_loss_does_not_depend_on_the_grid() -> None:
    teacher, student, cells = rand(2, 3, 4, 4), rand(2, 3, 4, 4, seed=1), rand(2, 4, 4, seed=2) > 0.5
    fine = [t.repeat_interleave(3, dim=-1).repeat_interleave(3, dim=-2) for t in (teacher, student, cells)]
    torch.testing.assert_close(consistency(teacher, student, cells), consistency(*fine))


def other() -> Plain:
    """A localizer that scores otherwise: one that scores alike agrees with itself about what is pasted in place."""
    method = Plain()
    with torch.no_grad():
        method.mix.copy_(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 1.0, 1.0]]))
    return method


def test_gradients_are_capped_by_that_of_the_tags() -> None:
    def pull(loss: Tensor, method: Plain) -> float:
        return float(torch.autograd.grad(loss, method.mix, retain_graph=True)[0].norm())

    for most, binding in ((1e-4, True), (1e4, False)):
        plain = Plain()
        settings = CsdConfig(foreground=2.0, background=3.0, reliable=0.0, most=most)
        found = Csd(plain, settings, other()).train().losses(pairs(), Progress(0, 1))
        free = Csd(plain, settings.model_copy(update={"most": 1e9}), other()).train().losses(pairs(), Progress(0, 1))
        for name in ("loss_fg", "loss_bg"):
            assert free[name] > 0
            if binding:
                assert pull(found[name], plain) == pytest.approx(most * pull(found["loss_own"], plain), rel=1e-4)
            else:
                torch.testing.assert_close(found[name], free[name])


def test_stage_one_teaches_and_is_not_trained() -> None:
    first = other()
    wrapped = Csd(Plain(), CsdConfig(background=1.0, reliable=0.0), first).train()
    losses = wrapped.losses(pairs(), Progress(0, 1))
    torch.stack(list(losses.values())).sum().backward()
    assert first.asked == [(2, False, False)]
    assert first.mix.grad is None
    assert of(Plain, wrapped.localizer).asked == [(3, True, True), (4, True, True)]
    assert list(wrapped.state_dict()) == ["localizer.mix"]
    online = Csd(Plain(), CsdConfig(background=1.0, reliable=0.0)).train().losses(pairs(), Progress(0, 1))
    assert not torch.equal(losses["loss_fg"], online["loss_fg"])
