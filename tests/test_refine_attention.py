"""Class maps spread by attention: the function against plain loops, and the stage end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import hintseg
from hintseg.cli.app import app
from hintseg.config.loader import load_config
from hintseg.config.run import AttentionRefine
from hintseg.config.settings import BackboneConfig
from hintseg.errors import ConfigError, ShapeError
from hintseg.methods.attention import AttentionWalk
from hintseg.refine import attention_refine
from hintseg.run.fingerprint import broken
from hintseg.store.maps import read_maps
from made import learned_vit, rand

SIZE = (5, 7)
CELLS = 35


def attention(seed: int = 0, cells: int = CELLS, sharp: float = 3) -> Tensor:
    """Rows that sum to 1, some columns far above others: what a transformer's attention looks like."""
    popular = 2 * rand(1, cells, seed=seed + 50)
    return (sharp * rand(cells, cells, seed=seed) + popular).softmax(dim=1)


def slow(scores: np.ndarray, affinity: np.ndarray, power: int, threshold: float) -> np.ndarray:
    """Scale to the end, multiply matrices out, flood regions cell by cell."""
    matrix = affinity.astype(np.float64)
    for _ in range(2000):
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    matrix = np.linalg.matrix_power((matrix + matrix.T) / 2, power)
    count, height, width = scores.shape
    result = np.zeros_like(scores, dtype=np.float64)
    for k in range(count):
        high = {(y, x) for y in range(height) for x in range(width) if scores[k, y, x] > threshold * scores[k].max()}
        inside = np.zeros((height, width), bool)
        while high:
            region, todo = set(), [high.pop()]
            while todo:
                y, x = todo.pop()
                region.add((y, x))
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & high
                high -= near
                todo += near
            ys, xs = zip(*region, strict=True)
            inside[min(ys) : max(ys) + 1, min(xs) : max(xs) + 1] = True
        values = (scores[k] * inside).reshape(-1)
        for i in range(height * width):
            if inside.flat[i]:
                result[k].flat[i] = sum(matrix[i, j] * values[j] for j in range(height * width))
    return result


@pytest.mark.parametrize(("power", "threshold"), [(1, 0.4), (2, 0.4), (3, 0.8), (2, 0.0), (2, 0.95)])
def test_scores_are_those_of_the_plain_version(power: int, threshold: float) -> None:
    scores, affinity = rand(4, *SIZE, seed=1) ** 4, attention()
    scores[3] = 0
    found = attention_refine(scores, affinity, power=power, threshold=threshold)
    expected = slow(scores.numpy(), affinity.numpy(), power, threshold)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-5)
    assert (found == 0).any() == (threshold > 0 or bool((scores[3] == 0).any()))


def test_no_value_is_above_the_largest_and_nothing_leaves_the_boxes() -> None:
    for seed in range(5):
        scores = rand(3, *SIZE, seed=seed) ** 6
        found = attention_refine(scores, attention(seed, sharp=8), threshold=0.5)
        assert (found >= 0).all()
        assert (found.amax(dim=(1, 2)) <= scores.amax(dim=(1, 2)) * (1 + 1e-6)).all()
    alone = torch.zeros(1, *SIZE)
    alone[0, 1:3, 2:5] = torch.tensor([[1.0, 0.1, 0.6], [0.1, 0.6, 0.1]])  # its regions touch at corners
    alone[0, 4, 0] = 0.3
    found = attention_refine(alone, attention())
    assert found[0, 1:3, 2:5].min() > 0
    found[0, 1:3, 2:5] = 0
    assert not found.any()


def test_an_even_map_stays_even_and_alike_cells_share() -> None:
    torch.testing.assert_close(attention_refine(torch.full((2, *SIZE), 0.7), attention(1)), torch.full((2, *SIZE), 0.7))
    identity = attention_refine(rand(2, *SIZE), torch.eye(CELLS), power=7, threshold=0)
    torch.testing.assert_close(identity, rand(2, *SIZE))


def test_classes_walk_each_for_itself_in_any_dtype() -> None:
    scores, affinity = rand(3, *SIZE, seed=2), attention()
    found = attention_refine(scores, affinity)
    torch.testing.assert_close(attention_refine(scores[[2, 0, 1]], affinity), found[[2, 0, 1]])
    torch.testing.assert_close(attention_refine(scores[1:2], affinity)[0], found[1])
    assert attention_refine(scores[:0], affinity).shape == (0, *SIZE)
    half = attention_refine(scores.bfloat16(), affinity)
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention_refine(scores, affinity), found)


def test_a_cell_that_nobody_looks_at_makes_no_nan() -> None:
    affinity = attention()
    affinity[:, 3] = 0
    assert attention_refine(rand(1, *SIZE), affinity, threshold=0).isfinite().all()
    affinity[3] = 0
    assert attention_refine(rand(1, *SIZE), affinity, threshold=0)[0, 0, 3] == 0


@pytest.mark.parametrize(
    ("call", "needed"),
    [
        (lambda s, a: attention_refine(s[0], a), r"\(K, h, w\)"),
        (lambda s, a: attention_refine(s.byte(), a), "a float tensor"),
        (lambda s, a: attention_refine(s, a[:-1]), r"\(35, 35\)"),
        (lambda s, a: attention_refine(s, a.long()), "a float tensor"),
        (lambda s, a: attention_refine(s, a, power=0), "power >= 1"),
        (lambda s, a: attention_refine(s, a, threshold=1), "1 excluded"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Tensor, Tensor], Tensor], needed: str) -> None:
    with pytest.raises(ShapeError, match=needed):
        call(rand(1, *SIZE), attention())


# --- as a refiner ---------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return learned_vit(tmp_path, monkeypatch)


def walk(weights: str, **settings: object) -> AttentionWalk:
    backbone = BackboneConfig(name="vit_tiny_patch16_224", weights=weights, output_stride=8)
    return AttentionWalk(AttentionRefine.model_validate({"backbone": backbone, "threshold": 0.0} | settings)).eval()


def test_a_map_spreads_to_what_looks_alike(weights: str) -> None:
    images = torch.zeros(1, 3, 64, 96)
    images[:, 0, :, :48] = 1
    maps = torch.zeros(2, 16, 24)
    maps[0, 4:8, 4:8] = 1
    maps[1, 8:, 20:] = 0.5
    before = maps.clone()
    found = walk(weights).refine(images, maps)
    assert found.shape == (2, 8, 12)
    assert torch.equal(found.amax(dim=(1, 2)), torch.ones(2))
    pooled = nn.functional.adaptive_avg_pool2d(maps, (8, 12))
    spread = attention_refine(pooled, walk(weights).backbone.affinity(images, blocks=8)[1][0], threshold=0)
    inside = [spread[0, 2:4, 2:4], spread[1, 4:, 10:]]
    for one, box, where in zip(found, inside, (found[0, 2:4, 2:4], found[1, 4:, 10:]), strict=True):
        expected = (box - box.min()) / (box.max() - box.min()) if box.max() > 1.0001 * box.min() else box / box
        torch.testing.assert_close(where, expected)
        assert one.sum() == where.sum()
    wide = walk(weights).refine(images, maps + 0.01)[0]  # a box of all
    assert wide[:, :6].mean() > 1.5 * wide[:, 6:].mean()
    assert torch.equal(maps, before)
    assert walk(weights).refine(images, maps[:0]).shape == (0, 8, 12)
    assert not walk(weights).refine(images, torch.zeros(1, 9, 9)).any()


def test_what_has_no_attention_to_read_is_refused(weights: str) -> None:
    with pytest.raises(ConfigError, match=r"'resnet10t' is none; set refine\.backbone\.name to one"):
        AttentionWalk(AttentionRefine(backbone=BackboneConfig(name="resnet10t")))
    with pytest.raises(ConfigError, match=r"without learned weights.*set refine\.backbone\.weights"):
        walk("random")


RESNET = ["backbone.name=resnet10t", "backbone.weights=random", "trainer.workers=0", "trainer.precision=32-true"]


def test_recipe_end_to_end(shapes: Path, tmp_path: Path, weights: str) -> None:
    settings = [
        *RESNET,
        "refine.method=attention",
        "localize.fit.epochs=1",
        "localize.fit.crop=64",
        "localize.fit.batch_size=4",
        "segment=null",
    ]
    with pytest.raises(ConfigError, match="'resnet10t' is none"):
        hintseg.train(shapes, tmp_path / "run", recipe="cam", settings=settings)
    assert not (tmp_path / "run").exists()  # the name can be mended and the folder taken
    settings += ["refine.backbone.name=vit_tiny_patch16_224", f"refine.backbone.weights={weights}"]
    run = hintseg.train(shapes, tmp_path / "run", recipe="cam", settings=settings)
    rows = [row for row in run.metrics if row["stage"] == "refine"]
    assert {row["oracle"] for row in rows} == {True, False}
    assert "the attention of vit_tiny_patch16_224" in rows[0]["protocol"]
    assert len(list((run.path / "refine" / "masks").glob("*.png"))) == 8
    path = next((run.path / "refine" / "maps").glob("*.npz"))
    ids, maps = read_maps(path)
    assert maps.shape == (len(ids), 4, 4)
    assert maps.max() == 1
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stages"]["refine"]["method"] == "attention"
    assert not (run.path / "refine" / "model.safetensors").exists()

    seeds = (run.path / "localize" / "model.safetensors").stat().st_mtime_ns
    more = hintseg.train(
        shapes, tmp_path / "run", recipe="cam", settings=[*settings, "refine.power=5", "maps.area=0.3"], resume=True
    )
    assert (run.path / "localize" / "model.safetensors").stat().st_mtime_ns == seeds
    assert not np.array_equal(read_maps(path)[1], maps)
    assert [row for row in more.metrics if row["stage"] == "refine"] != rows


def test_other_settings_make_it_again() -> None:
    data, settings = {"path": "photos"}, ["refine.method=attention", "refine.backbone.name=deit_tiny_patch16_224"]
    before = load_config("cam", settings, data=data)
    area = [part.key for part in broken(before, load_config("cam", [*settings, "maps.area=0.2"], data=data))]
    assert area == [("localize", "masks"), ("refine", "learn"), ("segment", "learn")]
    changed = broken(before, load_config("cam", [*settings, "refine.blocks=2"], data=data))
    assert [part.key for part in changed] == [("refine", "learn"), ("segment", "learn")]


def test_it_is_listed() -> None:
    assert "attention" in CliRunner().invoke(app, ["list", "refiners"]).output
