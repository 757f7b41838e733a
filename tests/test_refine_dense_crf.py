"""The dense CRF against the published numbers, the exact Gaussian, and a plain lattice in float64."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch

from hintseg.errors import ShapeError
from hintseg.refine import DenseCrf, _lattice_numba, _lattice_torch, dense_crf, label_probabilities
from hintseg.refine._lattice import coding, kernel
from hintseg.refine._parallel import Job, run, run_all
from hintseg.refine._vector import add, exp, fill, largest, load, multiply, multiply_add, store, total
from made import of
from published import reference

SETS = {  # methods.md section 8
    "afa_bmp_test": ((3, 3), (64, 5, 4)),
    "kazuto_deeplabv2": ((1, 3), (67, 3, 4)),
    "vwe_v2_seed": ((1, 3), (64, 3, 4)),
    "psa_crf": ((3, 3), (80, 13, 10)),
    "mct_seg": ((4, 3), (83, 5, 3)),
    "irn_label_Q": ((3, 3), (50, 5, 10)),
}


def photos(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Make photos with smooth shades, a coloured disc and noise."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    shade = torch.stack([x, y, (x + y) / 2]) * torch.rand(count, 3, 1, 1, generator=generator) * 120
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.08) * torch.rand(count, 3, 1, 1, generator=generator) * 100
    return (shade + disc + torch.rand(count, 3, height, width, generator=generator) * 12).byte()


def probabilities(*shape: int, seed: int = 1) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5).softmax(dim=1)


Kernels = tuple[tuple[float, float], tuple[float, float, float]]
Version = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def with_torch_version(rgb: torch.Tensor, scores: torch.Tensor, sets: Kernels = SETS["afa_bmp_test"]) -> torch.Tensor:
    """Run the version meant for accelerators here."""
    (px, weight), bilateral = sets
    crf = DenseCrf(rgb, gaussian=None, bilateral=None)
    rgb = rgb.float()
    crf._mean_field = _lattice_torch.MeanField([kernel(rgb, px), kernel(rgb, *bilateral[:2])])
    crf._weights = (weight, bilateral[2])
    return crf.infer(scores)


def plain_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Filter (N, C) on a lattice in a dictionary, written from Adams et al. 2010, section 3."""
    d = features.shape[1]
    # Columns of the rotation into the plane of zero sum: (1, .., 1, -i, 0, ..) normalised.
    rotation = np.zeros((d + 1, d))
    for i in range(1, d + 1):
        rotation[:i, i - 1] = 1
        rotation[i, i - 1] = -i
        rotation[:, i - 1] *= np.sqrt(2 / 3) * (d + 1) / np.sqrt(i * (i + 1))
    lattice: dict[tuple[int, ...], np.ndarray] = {}
    simplices = []
    for feature, value in zip(features, values, strict=True):
        point = rotation @ feature
        nearest = np.floor(point / (d + 1) + 0.5) * (d + 1)
        off = int(nearest.sum()) // (d + 1)
        order = np.argsort(-(point - nearest), kind="stable")
        if off > 0:
            nearest[order[-off:]] -= d + 1
        elif off < 0:
            nearest[order[:-off]] += d + 1
        rest = point - nearest
        order = np.argsort(-rest, kind="stable")
        falling = rest[order]
        shares = [1 - (falling[0] - falling[-1]) / (d + 1)]
        shares += [(falling[d - k] - falling[d + 1 - k]) / (d + 1) for k in range(1, d + 1)]
        vertices = []
        for k in range(d + 1):
            vertex = nearest + k
            vertex[order[d + 1 - k :]] -= d + 1
            vertices.append(tuple(int(c) for c in vertex))
        simplices.append(list(zip(vertices, shares, strict=True)))
        for vertex, share in simplices[-1]:
            lattice[vertex] = lattice.get(vertex, 0) + share * value
    for j in range(d + 1):
        step = np.full(d + 1, -1)
        step[j] += d + 1
        zero = np.zeros(values.shape[1])
        lattice = {
            vertex: value
            + lattice.get(tuple(int(c) for c in vertex + step), zero) / 2
            + lattice.get(tuple(int(c) for c in vertex - step), zero) / 2
            for vertex, value in lattice.items()
        }
    return np.stack([sum(share * lattice[vertex] for vertex, share in simplex) for simplex in simplices])


def exact_crf(scores: torch.Tensor, rgb: torch.Tensor, sets: Kernels, iterations: int) -> torch.Tensor:
    """Run mean field with every pair of pixels of one photo."""
    _, height, width = rgb.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], dim=-1).reshape(-1, 2).double()
    colour = rgb.double().flatten(1).t()
    (px, weight), (bilateral_px, bilateral_rgb, bilateral_weight) = sets
    kernels = []
    for features, factor in (
        (place / px, weight),
        (torch.cat([place / bilateral_px, colour / bilateral_rgb], dim=1), bilateral_weight),
    ):
        kernel = torch.exp(-0.5 * torch.cdist(features, features) ** 2)
        norm = kernel.sum(dim=1).rsqrt()
        kernels.append(factor * norm[:, None] * kernel * norm)
    logarithms = scores.double().clamp(min=1e-5).log().flatten(1)
    q = logarithms.softmax(dim=0)
    for _ in range(iterations):
        q = (logarithms + q @ sum(kernels)).softmax(dim=0)
    return q.view(scores.shape)


@pytest.mark.parametrize("name", SETS)
def test_marginals_equal_published_numbers(name: str) -> None:
    vectors = reference("crf")
    rgb = vectors["img"].permute(2, 0, 1)[None]
    scores = vectors["prob"][None]
    if name == "irn_label_Q":
        scores = label_probabilities(vectors["labels"][None], 5, 0.7)
    gaussian, bilateral = SETS[name]
    out = dense_crf(scores, rgb, gaussian=gaussian, bilateral=bilateral)[0]
    assert (out.argmax(dim=0) == vectors[f"{name}_best"]).float().mean() >= 0.995
    # Of every fourth pixel. Another lattice would differ by up to 5e-3; the same lattice gives far less.
    assert (out[:, ::4, ::4] - vectors[name]).abs().mean() <= 1e-5


@pytest.mark.parametrize("d", [2, 5])
def test_filter_equals_published_numbers(d: int) -> None:
    vectors = reference("permuto")
    features = vectors[f"features{d}"].flatten(0, 1)
    lattice = _lattice_numba.build(features.numpy(), coding(features.amax(dim=0).tolist()))
    values = vectors["v"].flatten(1).t().contiguous().numpy()[None]
    # The published filter scales by 1 / (1 + 2^-d); ours leaves out what normalisation cancels.
    out = _lattice_numba.filter_values(lattice, values)[0] / (1 + 2.0**-d)
    np.testing.assert_allclose(out.T.reshape(4, 40, 56)[:, ::3, ::3], vectors[f"out{d}"], rtol=1e-4)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_both_lattices_equal_a_plain_one(d: int) -> None:
    features = np.random.default_rng(d).uniform(0, [7, 9, 4, 3, 6][:d], (300, d)).astype(np.float32)
    values = np.random.default_rng(9).uniform(0, 1, (300, 4)).astype(np.float32)
    code = coding([7, 9, 4, 3, 6][:d])
    expected = plain_filter(features.astype(np.float64), values.astype(np.float64))
    out = _lattice_numba.filter_values(_lattice_numba.build(features, code), values[None])[0]
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    lattice = _lattice_torch.build(torch.from_numpy(features)[None], code)
    out = _lattice_torch.filter_values(lattice, torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_marginals_are_near_the_exact_gaussian() -> None:
    rgb, scores = photos(1, 25, 31), probabilities(1, 3, 25, 31)
    sets = ((3, 3), (10, 13, 4))
    out = dense_crf(scores, rgb, gaussian=sets[0], bilateral=sets[1], iterations=5)
    exact = exact_crf(scores[0], rgb[0], sets, 5)
    # The lattice blurs with a piecewise linear stand-in for the Gaussian.
    assert (out[0] - exact).abs().mean() < 0.015
    assert (out[0].argmax(dim=0) == exact.argmax(dim=0)).float().mean() > 0.985
    assert (scores[0].argmax(dim=0) == exact.argmax(dim=0)).float().mean() < 0.8


@pytest.mark.parametrize("name", SETS)
def test_torch_and_numba_versions_agree(name: str) -> None:
    rgb, scores = photos(2, 33, 41), probabilities(2, 6, 33, 41)
    scores[0, 2:4] = 0
    gaussian, bilateral = SETS[name]
    out = dense_crf(scores, rgb, gaussian=gaussian, bilateral=bilateral)
    torch.testing.assert_close(with_torch_version(rgb, scores, SETS[name]), out, rtol=1e-3, atol=1e-4)


def test_result_does_not_depend_on_batch_or_threads(threads: Callable[[int], None]) -> None:
    rgb, scores = photos(3, 101, 203), probabilities(3, 5, 101, 203)
    scores[1, :3] = 0
    threads(1)
    alone = torch.cat([dense_crf(scores[b : b + 1], rgb[b : b + 1]) for b in range(3)])
    threads(3)
    assert torch.equal(dense_crf(scores, rgb), alone)
    assert torch.equal(DenseCrf(rgb).infer(scores), alone)


def test_torch_version_does_not_depend_on_batch() -> None:
    rgb, scores = photos(3, 20, 23), probabilities(3, 5, 20, 23)
    scores[1, :3] = 0
    alone = torch.cat([with_torch_version(rgb[b : b + 1], scores[b : b + 1]) for b in range(3)])
    assert torch.equal(with_torch_version(rgb, scores), alone)


def test_lattice_is_reusable() -> None:
    rgb = photos(2, 19, 15)
    crf = DenseCrf(rgb, gaussian=(2, 1), bilateral=(9, 7, 2))
    for seed in (1, 2, 1):
        scores = probabilities(2, 3, 19, 15, seed=seed)
        expected = dense_crf(scores, rgb, gaussian=(2, 1), bilateral=(9, 7, 2), iterations=3)
        assert torch.equal(crf.infer(scores, 3), expected)


@pytest.mark.parametrize("version", [dense_crf, lambda scores, rgb: with_torch_version(rgb, scores)])
def test_absent_classes_stay_zero_and_change_nothing(version: Version) -> None:
    rgb, few = photos(1, 14, 18), probabilities(1, 3, 14, 18)
    many = torch.zeros(1, 21, 14, 18)
    many[:, [0, 7, 20]] = few
    out = version(many, rgb)
    assert torch.equal(out[:, [0, 7, 20]], version(few, rgb))
    assert out.count_nonzero() == few.numel()


@pytest.mark.parametrize("version", [dense_crf, lambda scores, rgb: with_torch_version(rgb, scores)])
def test_photo_without_any_class_gives_zeros(version: Version) -> None:
    scores = probabilities(2, 3, 6, 5)
    scores[1] = 0
    out = version(scores, photos(2, 6, 5))
    assert not out[1].any()
    torch.testing.assert_close(out[0].sum(dim=0), torch.ones(6, 5))


def test_weights_may_change_on_the_same_lattice() -> None:
    rgb, scores = photos(2, 19, 15), probabilities(2, 3, 19, 15)
    crf = DenseCrf(rgb, gaussian=(3, 3), bilateral=(50, 5, 10))
    for weights in ((3, 10), (1, 4), (0, 10), (3, 0)):
        expected = dense_crf(scores, rgb, gaussian=(3, weights[0]), bilateral=(50, 5, weights[1]))
        assert torch.equal(crf.infer(scores, weights=weights), expected)
    for wrong in ((3,), (3, 10, 1), (3, -1)):
        with pytest.raises(ShapeError, match="one of 0 or more for each of 2 kernels"):
            crf.infer(scores, weights=wrong)


def test_photos_of_a_size_share_the_lattice_of_positions() -> None:
    fields = [DenseCrf(photos(2, 11, 13, seed=seed), gaussian=(2, 1))._mean_field for seed in (1, 2)]
    (first, second), (third, fourth) = (of(_lattice_numba.MeanField, field)._lattices[0] for field in fields)
    assert first is second is third is fourth
    assert fields[0].vertices[0] == 2 * first.vertices
    other = of(_lattice_numba.MeanField, DenseCrf(photos(1, 11, 13), gaussian=(2.5, 1))._mean_field)._lattices[0][0]
    assert other is not first


def test_both_versions_count_the_same_vertices() -> None:
    rgb = photos(2, 21, 17)
    kernels = [kernel(rgb.float(), 3), kernel(rgb.float(), 64, 5)]
    assert DenseCrf(rgb).vertices == _lattice_torch.MeanField(kernels).vertices


def test_kernels_can_be_left_out() -> None:
    rgb, scores = photos(1, 15, 22), probabilities(1, 4, 15, 22)
    none = dense_crf(scores, rgb, gaussian=None, bilateral=None)
    torch.testing.assert_close(none, scores.clamp(min=1e-5) / scores.clamp(min=1e-5).sum(dim=1, keepdim=True))
    torch.testing.assert_close(dense_crf(scores, rgb, iterations=0), none)
    grey = torch.full_like(rgb, 128)
    position_only = dense_crf(scores, rgb, bilateral=None)
    assert torch.equal(position_only, dense_crf(scores, grey, bilateral=None))
    assert not torch.allclose(position_only, dense_crf(scores, rgb), atol=1e-2)
    both = dense_crf(scores, rgb, gaussian=(3, 0), bilateral=(64, 5, 4))
    torch.testing.assert_close(dense_crf(scores, rgb, gaussian=None), both, rtol=1e-4, atol=1e-5)


def test_mistakes_are_voted_down_within_a_colour() -> None:
    rgb = torch.zeros(1, 3, 20, 40, dtype=torch.uint8)
    rgb[..., 20:] = 200
    truth = (rgb[:, 0] > 0).long()
    wrong = torch.rand(truth.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    scores = label_probabilities(torch.where(wrong, 1 - truth, truth), 2)
    assert torch.equal(dense_crf(scores, rgb).argmax(dim=1), truth)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (37, 53)])
@pytest.mark.parametrize("classes", [1, 2, 5, 8])
def test_sizes_and_class_counts(size: tuple[int, int], classes: int) -> None:
    rgb, scores = photos(1, *size), probabilities(1, classes, *size)
    out = dense_crf(scores, rgb)
    torch.testing.assert_close(out.sum(dim=1), torch.ones(1, *size))
    torch.testing.assert_close(with_torch_version(rgb, scores), out, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(out, plain_crf(scores, rgb), rtol=1e-3, atol=1e-4)


def plain_crf(scores: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
    """Ten updates on the plain lattice, AFA's kernels."""
    _, _, height, width = rgb.shape
    y, x = np.mgrid[:height, :width]
    place = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    colour = rgb[0].flatten(1).t().numpy().astype(np.float32)
    kernels = []
    for features, weight in ((place / 3, 3), (np.concatenate([place / 64, colour / 5], axis=1), 4)):
        # Rounded in float32 as the package does: float64 may take the neighbouring simplex.
        every = plain_filter(features.astype(np.float64), np.eye(len(features)))
        norm = 1 / np.sqrt(every.sum(axis=1))
        kernels.append(weight * norm[:, None] * every * norm)
    logarithms = scores[0].double().clamp(min=1e-5).log().flatten(1)
    q = logarithms.softmax(dim=0)
    for _ in range(10):
        q = (logarithms + q @ torch.from_numpy(sum(kernels)).T).softmax(dim=0)
    return q.view(scores.shape).float()


@pytest.mark.parametrize("version", [dense_crf, lambda scores, rgb: with_torch_version(rgb, scores)])
def test_flat_photo_gives_one_answer(version: Version) -> None:
    rgb = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    scores = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    assert (version(scores, rgb).argmax(dim=1) == 1).all()


@pytest.mark.parametrize("version", [dense_crf, lambda scores, rgb: with_torch_version(rgb, scores)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(version: Version, dtype: torch.dtype) -> None:
    rgb, scores = photos(1, 9, 12), probabilities(1, 3, 9, 12)
    out = version(scores.to(dtype), rgb)
    assert out.dtype == dtype
    expected = dense_crf(scores.to(dtype).float(), rgb.to(torch.float64))
    torch.testing.assert_close(out.float(), expected, atol=1e-4 if dtype == torch.float64 else 1e-2, rtol=1e-3)


def test_no_photo_gives_no_marginals() -> None:
    assert dense_crf(torch.rand(0, 2, 3, 4), torch.rand(0, 3, 3, 4)).shape == (0, 2, 3, 4)
    assert with_torch_version(torch.rand(0, 3, 3, 4), torch.rand(0, 2, 3, 4)).shape == (0, 2, 3, 4)


def test_label_probabilities_share_the_rest() -> None:
    labels = torch.tensor([[[0, 3], [1, 1]]])
    out = label_probabilities(labels, 4, 0.7)
    assert out.shape == (1, 4, 2, 2)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[0, :, 0, 1], torch.tensor([0.1, 0.1, 0.1, 0.7]))
    torch.testing.assert_close(out.sum(dim=1), torch.ones(1, 2, 2))
    assert torch.equal(label_probabilities(labels[0].byte(), 4, 0.7), out[0])


@pytest.mark.parametrize(
    ("scores", "rgb", "settings", "message"),
    [
        ((1, 2, 4, 4), (1, 3, 5, 4), {}, r"probabilities have \(4, 4\) pixels and rgb \(5, 4\); resize"),
        ((2, 2, 4, 4), (1, 3, 4, 4), {}, "probabilities hold 2 photos and rgb holds 1"),
        ((1, 2, 4, 4), (1, 1, 4, 4), {}, r"rgb has shape \(1, 1, 4, 4\)"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"iterations": -1}, "iterations is -1"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"gaussian": (0, 3)}, r"gaussian is \(0, 3\); give \(sigma_px, weight\)"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"gaussian": (3,)}, "gaussian is"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"bilateral": (64, 4)}, r"give \(sigma_px, sigma_rgb, weight\)"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"bilateral": (64, 5, -1)}, "a weight of 0 or more"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"bilateral": (1e-4, 1e-4, 1)}, "too fine for the lattice; give larger sigmas"),
        ((1, 2, 4, 4), (1, 3, 4, 4), {"gaussian": (1e-7, 1), "bilateral": None}, "too fine for the lattice"),
    ],
)
def test_errors_say_what_is_needed(
    scores: tuple[int, int, int, int], rgb: tuple[int, int, int, int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        dense_crf(torch.zeros(scores), torch.zeros(rgb), **settings)


def test_logits_and_bad_labels_are_refused() -> None:
    with pytest.raises(ShapeError, match="give a softmax"):
        dense_crf(torch.full((1, 1, 2, 2), -0.5), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ShapeError, match="labels run from 0 to 255; 3 classes need 0"):
        label_probabilities(torch.tensor([[0, 255]]), 3)
    with pytest.raises(ShapeError, match="labels are torch"):
        label_probabilities(torch.zeros(2, 2), 3)
    with pytest.raises(ShapeError, match="n_classes is 1"):
        label_probabilities(torch.zeros(2, 2, dtype=torch.int64), 1)


@pytest.mark.parametrize("lanes", [4, 8])
def test_vectors_compute_as_numpy_does(lanes: int) -> None:
    values = np.random.default_rng(lanes).uniform(-100, 0, (50, lanes)).astype(np.float32)
    values[0, 0], values[1, 1] = 0, -np.inf
    raised, sums = np.empty_like(values), np.empty((50, lanes), np.float32)
    _vectors(values, raised, sums, (0,) * lanes)
    expected = np.where(values <= -87, 0, np.exp(values.astype(np.float64)))
    np.testing.assert_allclose(raised, expected, rtol=3e-7)
    assert raised[0, 0] == 1
    most = values.max(axis=1)
    np.testing.assert_allclose(sums, (2 * expected + most[:, None] * expected.sum(axis=1)[:, None]), rtol=1e-5)


@numba.njit  # type: ignore[untyped-decorator]
def _vectors(values: np.ndarray, raised: np.ndarray, sums: np.ndarray, lanes: tuple[int, ...]) -> None:
    for row in range(len(values)):
        v = load(values, row, lanes)
        e = exp(v)
        store(raised, row, e)
        product = fill(largest(v) * total(e), lanes)
        store(sums, row, add(multiply_add(e, fill(np.float32(3), lanes), product), multiply(e, fill(-1, lanes))))


def test_ranges_cover_all_items_once_and_errors_come_through(threads: Callable[[int], None]) -> None:
    threads(4)
    seen = np.zeros(1000, np.int64)

    def count(begin: int, end: int) -> None:
        seen[begin:end] += 1

    run(count, 1000)
    run(count, 1000, grain=400)
    assert (seen == 2).all()
    run(count, 0)
    other = np.zeros(3000, np.int64)

    def count_in(begin: int, end: int, into: np.ndarray) -> None:
        into[begin:end] += 1

    run_all([Job(count_in, 1000, (seen,)), Job(count_in, 3000, (other,), 700)])
    assert (seen == 3).all()
    assert (other == 1).all()
    with pytest.raises(IndexError):
        run(lambda begin, end: [][begin], 8)


def _in_child(queue: multiprocessing.SimpleQueue[tuple[int, float]]) -> None:
    seen = np.zeros(1000, np.int64)

    def count(begin: int, end: int) -> None:
        seen[begin:end] += 1

    run(count, 1000)
    torch.set_num_threads(1)  # as a loader's worker does: torch's own threads do not survive a fork
    queue.put((int(seen.min()), dense_crf(probabilities(1, 3, 140, 150), photos(1, 140, 150)).sum().item()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_works_from_several_threads_and_in_a_forked_process(threads: Callable[[int], None]) -> None:
    threads(2)
    rgb, scores = photos(1, 140, 150), probabilities(1, 3, 140, 150)
    expected = dense_crf(scores, rgb)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(out, expected) for out in pool.map(lambda _: dense_crf(scores, rgb), range(8)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,), daemon=True)
    child.start()
    try:
        assert queue.get(timeout=30) == (1, pytest.approx(expected.sum().item()))
    finally:
        child.kill()
        child.join()
