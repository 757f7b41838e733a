"""Evidence about the pixels of a photo: what tags become, what is put together, what a judged mask takes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hintseg.errors import ShapeError
from hintseg.labellers.cam import place, strongest
from hintseg.labellers.filled import Filled
from hintseg.labellers.labeller import Evidence
from hintseg.pipeline.plan import combine
from hintseg.types import Box, Hints, Mark
from made import THINGS, given, two_things

# --- class maps -----------------------------------------------------------------------------------------------------


def test_tags_are_trusted_as_clearly_as_their_class_leads() -> None:
    scores = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    evidence = place(torch.tensor([2, 5, 9]), scores, 0.4)
    rows = np.sort(np.concatenate([scores.numpy(), np.full((1, 5, 7), 0.4, np.float32)]), axis=0)
    np.testing.assert_allclose(given(evidence.trust), rows[-1] - rows[-2])
    best = scores.numpy().max(axis=0)
    expected = np.where(best > 0.4, np.array([2, 5, 9])[scores.numpy().argmax(axis=0)], 0)
    np.testing.assert_array_equal(evidence.pixels, expected)
    every = strongest(torch.tensor([0, 2, 5, 9]), torch.cat([torch.full((1, 5, 7), 0.4), scores]))
    np.testing.assert_array_equal(every.pixels, evidence.pixels)
    np.testing.assert_array_equal(every.trust, evidence.trust)


def test_without_any_class_and_background_nothing_is_known() -> None:
    none = torch.zeros(0, 2, 3)
    evidence = place(torch.zeros(0, dtype=torch.int64), none, None)
    assert (evidence.pixels == 255).all()
    assert evidence.complete(background=False) is None
    assert not place(torch.zeros(0, dtype=torch.int64), none, 0.3).pixels.any()


# --- evidence -------------------------------------------------------------------------------------------------------


def evidence(pixels: list[int], trust: list[float] | None = None) -> Evidence:
    return Evidence(np.array([pixels], np.uint8), None if trust is None else np.array([trust], np.float32))


def test_evidence_checks_itself() -> None:
    with pytest.raises(ShapeError, match=r"values in 0\.\.1"):
        evidence([0, 1], [0.5, 1.5])
    with pytest.raises(ShapeError, match=r"values in 0\.\.1"):
        evidence([0, 1], [0.5, float("nan")])
    with pytest.raises(ShapeError, match=r"trust of \(1, 1\)"):
        evidence([0, 1], [0.5])
    with pytest.raises(ShapeError, match="uint8 is needed"):
        Evidence(np.zeros((2, 2), np.int64))


def test_marks_win_over_tags_and_each_keeps_its_trust() -> None:
    marks, tags = evidence([1, 0, 0, 0], [0.5, 0.9, 0.9, 0.9]), evidence([2, 2, 0, 255], [0.1, 0.2, 0.3, 0.4])
    found = given(combine({1, 2}, marks, tags))
    assert found.pixels.tolist() == [[1, 2, 0, 255]]
    np.testing.assert_allclose(given(found.trust), np.array([[0.5, 0.2, 0.9, 0.4]], np.float32))
    half = given(combine({1, 2}, evidence([1, 0, 0, 0]), tags))
    np.testing.assert_allclose(given(half.trust), np.array([[1.0, 0.2, 1.0, 0.4]], np.float32))
    assert given(combine({1, 2}, evidence([1, 0]), evidence([2, 2]))).trust is None
    assert combine({1}, marks, tags) is marks, "every tag is marked"
    spread = evidence([1, 1, 0, 0], [0.9, 0.3, 0.1, 0.8])
    sure = given(combine({1}, spread, tags))
    assert sure.pixels.tolist() == [[1, 2, 0, 0]], "where what was spread is unsure, tags say more"
    np.testing.assert_allclose(given(sure.trust), np.array([[0.9, 0.2, 0.3, 0.8]], np.float32))
    assert combine({1}, spread, None) is spread
    assert combine({1}, spread, tags, background=False) is spread, "marks of all classes hem each other in"
    assert combine({2}, None, tags) is tags
    assert combine(None, None, None) is None
    unplaced = given(combine({1, 2}, marks, None))
    assert unplaced.pixels.tolist() == [[1, 255, 255, 255]]
    assert unplaced.trust is marks.trust


def test_a_judged_mask_takes_the_nearest_label_or_background() -> None:
    rng = np.random.default_rng(1)
    pixels = np.full((20, 30), 255, np.uint8)
    places = rng.integers((20, 30), size=(5, 2))
    labels = np.arange(1, 6, dtype=np.uint8)
    pixels[tuple(places.T)] = labels
    mask = given(Evidence(pixels).complete(background=False))
    grid = np.moveaxis(np.mgrid[:20, :30], 0, -1)
    distance = np.sqrt(((grid[:, :, None] - places) ** 2).sum(axis=-1))
    taken = distance[(mask[..., None] == labels)].reshape(20, 30)
    assert (taken - distance.min(axis=-1) <= 0.05 * distance.min(axis=-1) + 1e-9).all(), "OpenCV's distances are near"
    crowd = Filled().label(two_things(), Hints(marks=(*THINGS, Mark(255, Box(0, 0, 56, 20)))))
    plain = Filled().label(two_things(), Hints(marks=THINGS))
    np.testing.assert_array_equal(given(crowd.complete(background=True)), plain.pixels)
