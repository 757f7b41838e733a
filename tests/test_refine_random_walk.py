"""Paths, transitions and the random walk against the published numbers and plain dense versions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from hintseg.errors import ShapeError
from hintseg.refine import edge_transition, path_offsets, random_walk
from made import rand
from published import reference


def on_path(y: int, x: int, dy: int, dx: int) -> bool:
    """Whether the cell lies less than 1 from the segment (0, 0)-(dy, dx) and inside its bounding rectangle."""
    along = min(max((y * dy + x * dx) / (dy * dy + dx * dx), 0), 1)
    near = math.hypot(y - along * dy, x - along * dx) < 1 - 1e-9
    return near and min(dy, 0) <= y <= max(dy, 0) and min(dx, 0) <= x <= max(dx, 0)


def plain_transition(edge: np.ndarray, radius: float, beta: float) -> np.ndarray:
    """Build the dense column-normalised matrix of the paper, pair by pair."""
    height, width = edge.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    matrix = np.zeros((len(cells), len(cells)))
    for i, (y, x) in enumerate(cells):
        for j, (v, u) in enumerate(cells):
            dy, dx = v - y, u - x
            if i == j:
                matrix[i, j] = 1
            elif dy * dy + dx * dx < radius * radius:
                path = [edge[q, p] for q, p in cells if on_path(q - y, p - x, dy, dx)]
                matrix[i, j] = (1 - max(path)) ** beta
    stochastic: np.ndarray = matrix / matrix.sum(axis=0)
    return stochastic


def test_paths_equal_published_ones() -> None:
    vectors = reference("irn_walk")
    for radius in (5, 10):
        paths = path_offsets(radius)
        assert [[path.dy, path.dx] for path in paths] == vectors[f"search_dst{radius}"].tolist()
    lengths = [len(path.cells) for path in path_offsets(5)]
    assert sorted(set(lengths)) == vectors["path_len"].tolist()
    assert [lengths.count(n) for n in vectors["path_len"]] == vectors["n_paths"].tolist()


@pytest.mark.parametrize(("radius", "count"), [(1.5, 4), (2, 4), (5, 34), (10, 152)])
def test_paths_follow_the_geometry(radius: float, count: int) -> None:
    paths = path_offsets(radius)
    assert len(paths) == count
    offsets = {(path.dy, path.dx) for path in paths}
    reach = range(-10, 11)
    disc = {(y, x) for y in reach for x in reach if 0 < math.hypot(y, x) < radius}
    assert offsets | {(-y, -x) for y, x in offsets} == disc
    assert not offsets & {(-y, -x) for y, x in offsets}
    for path in paths:
        expected = {(y, x) for y in reach for x in reach if on_path(y, x, path.dy, path.dx)}
        assert set(path.cells) == expected
        assert len(path.cells) == len(expected)
        assert {(0, 0), (path.dy, path.dx)} <= expected


def test_walk_equals_published_irn() -> None:
    vectors = reference("irn_walk")
    edge = vectors["edge"][0]
    transition = edge_transition(edge, radius=5, beta=10)
    seeds = vectors["x"] * (1 - edge)
    for key, steps in (("rw", 256), ("rw_exp0", 1)):
        walked = random_walk(seeds, transition, steps=steps)
        torch.testing.assert_close(walked, vectors[key][:, 0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("power", [6, 8])
def test_walk_equals_published_psa(power: int) -> None:
    vectors = reference("psa")
    dense, one, two = torch.eye(180), vectors["ind_from"].long().repeat(34), vectors["ind_to"].long()
    dense[one, two] = dense[two, one] = vectors["aff"].flatten()
    affinity = dense**8
    transition = (affinity / affinity.sum(dim=0)).t().to_sparse_csr()
    walked = random_walk(vectors["cam"].view(21, 12, 15), transition, steps=2**power)
    torch.testing.assert_close(walked.flatten(1), vectors[f"rw_b8_t{power}"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("size", "radius", "beta"), [((5, 7), 3, 10), ((6, 4), 5, 2.5), ((1, 9), 4, 1), ((3, 3), 10, 8)]
)
def test_walk_equals_dense_matrix_powers(size: tuple[int, int], radius: float, beta: float) -> None:
    edge, scores = rand(*size) ** 2, rand(3, *size, seed=1)
    plain = plain_transition(edge.double().numpy(), radius, beta)
    transition = edge_transition(edge, radius=radius, beta=beta)
    np.testing.assert_allclose(transition.to_dense().numpy(), plain.T, rtol=1e-4, atol=1e-9)
    for steps in (0, 1, 32):
        expected = scores.double().flatten(1).numpy() @ np.linalg.matrix_power(plain, steps)
        walked = random_walk(scores, transition, steps=steps)
        np.testing.assert_allclose(walked.flatten(1).numpy(), expected, rtol=1e-4)


def test_transition_is_sparse_and_row_stochastic() -> None:
    transition = edge_transition(rand(20, 30), radius=5)
    assert transition.layout == torch.sparse_csr
    assert transition.dtype == torch.float32
    # 69 cells in the open disc of radius 5, fewer at the border.
    assert 40 * 600 < transition._nnz() < 69 * 600
    torch.testing.assert_close(transition @ torch.ones(600), torch.ones(600))


def test_nothing_crosses_a_closed_edge() -> None:
    edge = torch.zeros(9, 15)
    edge[:, 7] = 1
    scores = torch.zeros(1, 9, 15)
    scores[0, 4, 2] = 1
    walked = random_walk(scores, edge_transition(edge))
    assert not walked[..., 7:].any()
    # 256 steps mix the closed side evenly up to its border cells.
    assert walked[..., :7].min() > 0.5 * walked[..., :7].max() > 0


def test_no_value_exceeds_the_largest_seed() -> None:
    scores = rand(4, 8, 11)
    walked = random_walk(scores, edge_transition(rand(8, 11, seed=2) ** 4))
    assert (walked.flatten(1).amax(dim=1) <= scores.flatten(1).amax(dim=1) * (1 + 1e-5)).all()
    constant = random_walk(torch.full((1, 8, 11), 0.3), edge_transition(rand(8, 11, seed=2)))
    torch.testing.assert_close(constant, torch.full((1, 8, 11), 0.3))


def test_result_depends_on_neither_batch_classes_nor_threads() -> None:
    edge, scores = rand(3, 21, 34) ** 3, rand(3, 4, 21, 34, seed=1)
    together = random_walk(scores, edge_transition(edge), steps=40)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for b in range(3):
            transition = edge_transition(edge[b])
            assert torch.equal(edge_transition(edge)[b].values(), transition.values())
            for k in range(4):
                alone = random_walk(scores[b, k : k + 1], transition, steps=40)
                assert torch.equal(alone[0], together[b, k])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype_of_scores_is_kept(dtype: torch.dtype) -> None:
    edge, scores = rand(6, 7), rand(2, 6, 7, seed=1)
    walked = random_walk(scores.to(dtype), edge_transition(edge.to(dtype)))
    assert walked.dtype == dtype
    expected = random_walk(scores, edge_transition(edge.to(dtype).float()))
    torch.testing.assert_close(walked.float(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 9)])
@pytest.mark.parametrize("edge", [0.0, 0.4, 1.0])
def test_constant_edges_in_a_batch_equal_dense_matrix_powers(size: tuple[int, int], edge: float) -> None:
    edges, scores = torch.full((2, *size), edge), rand(2, 1, *size)
    edges[1] *= 0.5
    walked = random_walk(scores, edge_transition(edges), steps=16)
    for b in range(2):
        matrix = plain_transition(edges[b].double().numpy(), 5, 10)
        expected = scores[b].double().flatten(1).numpy() @ np.linalg.matrix_power(matrix, 16)
        np.testing.assert_allclose(walked[b].flatten(1).numpy(), expected, rtol=1e-4, atol=1e-7)


def test_index_sets_of_a_grid_are_made_once() -> None:
    first, second = (edge_transition(rand(9, 8, seed=seed)) for seed in (1, 2))
    assert first.col_indices().data_ptr() == second.col_indices().data_ptr()


def test_one_cell_and_no_photo() -> None:
    assert random_walk(torch.tensor([[[0.4]]]), edge_transition(torch.tensor([[0.9]]))).item() == pytest.approx(0.4)
    assert random_walk(torch.rand(0, 2, 3, 4), edge_transition(torch.rand(0, 3, 4))).shape == (0, 2, 3, 4)


def test_no_warning_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        random_walk(torch.rand(1, 4, 4), edge_transition(torch.rand(4, 4)))


@pytest.mark.parametrize(
    ("edge", "settings", "message"),
    [
        (torch.zeros(2, 2, 3, 3), {}, r"shape \(2, 2, 3, 3\); a float tensor \(h, w\) or \(B, h, w\)"),
        (torch.zeros(0, 3), {}, "without an empty side"),
        (torch.zeros(3, 3, dtype=torch.uint8), {}, r"edge is torch\.uint8"),
        (torch.full((3, 3), 1.5), {}, "outside 0..1"),
        (torch.full((3, 3), math.nan), {}, "after the sigmoid"),
        (torch.zeros(3, 3), {"radius": 1}, "radius 1 reaches no neighbour"),
        (torch.zeros(3, 3), {"beta": 0}, "beta 0 is not above 0"),
    ],
)
def test_wrong_edges_are_refused(edge: torch.Tensor, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        edge_transition(edge, **settings)


def test_wrong_scores_are_refused() -> None:
    transition = edge_transition(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"need a torch.sparse_csr matrix of shape \(20, 20\)"):
        random_walk(torch.zeros(1, 4, 5), transition)
    with pytest.raises(ShapeError, match=r"need a torch.sparse_csr matrix of shape \(2, 12, 12\)"):
        random_walk(torch.zeros(2, 1, 3, 4), transition)
    with pytest.raises(ShapeError, match=r"transition is torch.strided"):
        random_walk(torch.zeros(1, 3, 4), transition.to_dense())
    with pytest.raises(ShapeError, match=r"scores are torch.float32 of shape \(3, 4\)"):
        random_walk(torch.zeros(3, 4), transition)
    with pytest.raises(ShapeError, match="steps is -1"):
        random_walk(torch.zeros(1, 3, 4), transition, steps=-1)
