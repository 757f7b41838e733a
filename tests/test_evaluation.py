"""Scores against the published metrics, slow plain versions and worked examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hintseg.errors import LabelError, ShapeError
from hintseg.evaluation.boundary import BoundaryIou
from hintseg.evaluation.confusion import Confusion
from hintseg.evaluation.folders import evaluate_folders
from hintseg.evaluation.labels import LabelQuality
from hintseg.evaluation.sweep import THRESHOLDS, SeedSweep
from hintseg.store.maps import write_maps
from hintseg.store.masks import MaskStore, write_mask
from made import given
from published import reference


def labels(seed: int, shape: tuple[int, ...] = (12, 15), classes: int = 3, ignore: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(seed)
    made = random.integers(0, classes + 1, shape).astype(np.uint8)
    made[random.random(shape) < ignore] = 255
    return made


def blobs(seed: int, shape: tuple[int, int] = (40, 50), classes: int = 3) -> np.ndarray:
    """Return labels in large blobs, with a few of 255."""
    random = np.random.default_rng(seed)
    made = np.zeros(shape, np.uint8)
    for label in [*range(1, classes + 1), *range(1, classes + 1), 255]:
        y, x = random.integers(0, shape[0] - 5), random.integers(0, shape[1] - 5)
        made[y : y + random.integers(4, 25), x : x + random.integers(4, 25)] = label
    return made


def test_scores_equal_the_published_metrics() -> None:
    data = {name: values.numpy() for name, values in reference("metrics").items()}
    confusion, pseudo = Confusion(20), Confusion(20)
    for truth, prediction, undecided in zip(data["gt"], data["pred"], data["pred255"], strict=True):
        confusion.add(truth, prediction)
        pseudo.add(truth, undecided)
    np.testing.assert_array_equal(confusion.iou(), data["iou"])
    assert confusion.miou() == data["miou"]
    assert confusion.pixel_accuracy() == data["pacc"]
    assert confusion.mean_accuracy() == pytest.approx(data["macc"], rel=1e-15)
    assert confusion.frequency_weighted_iou() == pytest.approx(data["fwiou"], rel=1e-15)
    np.testing.assert_array_equal(pseudo.iou(), data["pseudo_iou"])
    assert pseudo.miou() == data["pseudo_miou"]
    assert pseudo.left_out > 0


def test_sweep_equals_the_published_curve() -> None:
    data = {name: values.numpy() for name, values in reference("metrics_cam").items()}
    truth = reference("metrics")["gt"].numpy()
    sweep = SeedSweep(20, data["thr"].tolist())
    for i in range(4):
        keys = sorted(int(name.split("_")[1]) for name in data if name.startswith(f"cam{i}_"))
        # Its class j of 20 is label j + 1, its curve is in percent.
        sweep.add(truth[i], [key + 1 for key in keys], np.stack([data[f"cam{i}_{key}"] for key in keys]))
    np.testing.assert_allclose(sweep.miou() * 100, data["curve"], rtol=1e-12)


def test_worked_example() -> None:
    truth = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 1, 1, 2]], np.uint8)
    confusion = Confusion(4)
    confusion.add(truth, prediction)
    np.testing.assert_allclose(confusion.iou(), [1 / 2, 2 / 4, 0, np.nan, np.nan])
    assert confusion.miou() == pytest.approx(1 / 3)
    assert confusion.pixel_accuracy() == pytest.approx(3 / 5)
    assert confusion.mean_accuracy() == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert confusion.frequency_weighted_iou() == pytest.approx(2 / 5 / 2 + 2 / 5 / 2)


def test_parts_add_up_to_the_whole() -> None:
    whole, parts = Confusion(3), [Confusion(3), Confusion(3)]
    for seed in range(4):
        for confusion in (whole, parts[seed % 2]):
            confusion.add(labels(seed), labels(seed + 10))
    total = parts[0] + parts[1]
    np.testing.assert_array_equal(total.matrix, whole.matrix)
    assert total.left_out == whole.left_out > 0


def test_without_background_predicting_it_is_an_error() -> None:
    truth = np.array([[1, 1, 2, 2]], np.uint8)
    confusion = Confusion(2, background=False)
    confusion.add(truth, np.array([[1, 0, 2, 2]], np.uint8))
    np.testing.assert_allclose(confusion.iou(), [np.nan, 1 / 2, 1])
    assert confusion.miou() == 0.75
    assert confusion.pixel_accuracy() == 0.75


def test_undecided_pixels_are_left_out_or_background() -> None:
    truth = np.array([[0, 1, 1, 255]], np.uint8)
    prediction = np.array([[255, 255, 1, 255]], np.uint8)
    left_out, background = Confusion(1), Confusion(1, undecided="background")
    for confusion in (left_out, background):
        confusion.add(truth, prediction)
    assert left_out.left_out == 2
    np.testing.assert_allclose(left_out.iou(), [np.nan, 1])
    assert background.left_out == 0
    np.testing.assert_allclose(background.iou(), [1 / 2, 1 / 2])


def test_wrong_labels_and_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match="the prediction holds label 7, 9, 0 to 3 or 255"):
        Confusion(3).add(np.zeros((1, 3), np.uint8), np.array([[7, 9, 1]], np.uint8))
    with pytest.raises(ShapeError, match="the truth holds label 4"):
        Confusion(3).add(np.array([[4]], np.uint8), np.array([[255]], np.uint8))
    with pytest.raises(ShapeError, match="labels from -1 to -1"):
        Confusion(3).add(np.array([[-1]]), np.array([[0]]))
    with pytest.raises(ShapeError, match=r"\(1, 2\) and a prediction of \(2, 1\)"):
        Confusion(3).add(np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.uint8))


def test_nothing_scored_is_nan_not_zero() -> None:
    assert np.isnan(Confusion(2).miou())
    assert np.isnan(Confusion(2).pixel_accuracy())


def score_one_by_one(photos: list[tuple[np.ndarray, list[int], np.ndarray]], classes: int) -> np.ndarray:
    """Return the IoU (T, K + 1) by one pass of arg-max and confusion matrix per threshold."""
    rows = []
    for threshold in THRESHOLDS:
        confusion = Confusion(classes)
        for truth, keys, maps in photos:
            scores = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), maps])
            confusion.add(truth, np.array([0, *keys], np.uint8)[scores.argmax(axis=0)])
        rows.append(confusion.iou())
    return np.array(rows)


def test_sweep_equals_one_pass_per_threshold() -> None:
    photos = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        keys = sorted(random.choice(4, size=seed % 4, replace=False) + 1)
        # Hundredths, so that scores equal thresholds and each other; some of them 0.
        maps = (random.integers(0, 70, (len(keys), 30, 20)) / 100).astype(np.float32)
        photos.append((labels(seed, (30, 20), classes=4), keys, maps))
    whole, parts = SeedSweep(5), [SeedSweep(5), SeedSweep(5)]
    for i, photo in enumerate(photos):
        whole.add(*photo)
        parts[i % 2].add(*photo)
    expected = score_one_by_one(photos, 5)
    np.testing.assert_array_equal(whole.iou(), expected)
    np.testing.assert_array_equal((parts[0] + parts[1]).iou(), expected)
    curve = np.nanmean(expected, axis=1)
    threshold, miou = whole.best()
    assert threshold == THRESHOLDS[curve.argmax()]
    assert miou == pytest.approx(curve.max())
    assert np.isnan(whole.iou()[:, 5]).all()


def test_small_maps_are_enlarged_bilinearly() -> None:
    truth, maps = blobs(0, (40, 50), 2), np.random.default_rng(0).random((2, 10, 13), np.float32)
    full = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], (40, 50), mode="bilinear")[0].numpy()
    small, large = SeedSweep(2), SeedSweep(2)
    small.add(truth, [1, 2], maps)
    large.add(truth, [1, 2], full)
    np.testing.assert_allclose(small.iou(), large.iou(), atol=2e-3)


def test_sweep_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="maps of classes"):
        SeedSweep(2).add(np.zeros((4, 4), np.uint8), [3], np.zeros((1, 4, 4)))
    with pytest.raises(ShapeError, match="the truth holds label 3"):
        SeedSweep(2).add(np.full((4, 4), 3, np.uint8), [1], np.zeros((1, 4, 4)))
    with pytest.raises(ShapeError, match="different thresholds"):
        SeedSweep(2) + SeedSweep(2, (0.1, 0.2))


def slow_bands(mask: np.ndarray, width: int) -> dict[int, set[tuple[int, int]]]:
    """Return each label's pixels that see another label, or the outside, within `width`; 255 is no label."""
    height, across = mask.shape
    bands: dict[int, set[tuple[int, int]]] = {}
    for y, x in np.ndindex(mask.shape):
        if mask[y, x] == 255:
            continue
        around = [(y + dy, x + dx) for dy in range(-width, width + 1) for dx in range(-width, width + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < across]
        if len(inside) < len(around) or any(mask[p] not in (mask[y, x], 255) for p in inside):
            bands.setdefault(int(mask[y, x]), set()).add((y, x))
    return bands


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_equals_a_slow_version(seed: int) -> None:
    pairs = [(blobs(seed), blobs(seed + 20)), (blobs(seed + 40), np.roll(blobs(seed + 40), 1, axis=1))]
    parts = []
    hits, unions = np.zeros(5), np.zeros(5)
    for truth, prediction in pairs:
        part = BoundaryIou(4, dilation=0.04)
        part.add(truth, prediction)
        parts.append(part)
        unknown = (truth == 255) | (prediction == 255)
        width = round(0.04 * np.hypot(40, 50))
        true, predicted = (slow_bands(np.where(unknown, 255, side), width) for side in (truth, prediction))
        for label in range(5):
            a, b = true.get(label, set()), predicted.get(label, set())
            hits[label] += len(a & b)
            unions[label] += len(a | b)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose((parts[0] + parts[1]).iou(), hits / unions)


def test_boundary_iou_sees_outlines_where_iou_sees_areas() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[20:180, 20:180] = 1
    prediction = np.zeros((200, 200), np.uint8)
    prediction[26:174, 26:174] = 1
    perfect, shrunk, areas = BoundaryIou(1), BoundaryIou(1), Confusion(1)
    perfect.add(truth, truth)
    shrunk.add(truth, prediction)
    areas.add(truth, prediction)
    assert perfect.miou() == 1
    assert areas.iou()[1] > 0.85
    assert shrunk.iou()[1] == 0  # 6 pixels off, a band of 6 pixels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for i in range(5):
        write_mask(tmp_path / "truth" / f"s{i % 2}" / f"{i}.png", blobs(i))
        write_mask(tmp_path / "masks" / f"s{i % 2}" / f"{i}.png", blobs(i + 1))
    return tmp_path / "masks", tmp_path / "truth"


def test_folders_are_scored_as_one_split(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, classes=["a", "b", "c"])
    confusion = Confusion(3)
    boundary = BoundaryIou(3)
    for i in range(5):
        confusion.add(blobs(i), blobs(i + 1))
        boundary.add(blobs(i), blobs(i + 1))
    assert scores.photos == 5
    assert scores.miou == confusion.miou()
    assert scores.iou == dict(zip(["background", "a", "b", "c"], confusion.iou(), strict=True))
    assert scores.pixel_accuracy == confusion.pixel_accuracy()
    assert scores.mean_accuracy == confusion.mean_accuracy()
    assert scores.boundary_iou == boundary.miou()
    assert given(scores.left_out) > 0
    assert f"{scores.left_out:.1%}" in scores.protocol
    assert scores.threshold is None
    assert json.loads(json.dumps(scores.as_json(), allow_nan=False))["miou"] == scores.miou


def test_classes_come_from_the_manifest_or_the_labels(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    assert list(evaluate_folders(masks, truth).iou) == ["background", "class 1", "class 2", "class 3"]
    MaskStore(masks, ["cat", "dog", "emu"], background=False).finish()
    scores = evaluate_folders(masks, truth)
    assert list(scores.iou) == ["cat", "dog", "emu"]
    assert "no background" in scores.protocol
    assert list(evaluate_folders(masks, truth, background=True).iou) == ["background", "cat", "dog", "emu"]


def test_an_absent_class_is_none_and_not_in_the_mean(folders: tuple[Path, Path]) -> None:
    scores = evaluate_folders(*folders, classes=["a", "b", "c", "never"])
    assert scores.iou["never"] is None
    assert scores.miou == evaluate_folders(*folders, classes=["a", "b", "c"]).miou


def test_what_stands_alone_is_listed(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    (masks / "s0" / "2.png").unlink()
    (truth / "s1" / "1.png").unlink()
    scores = evaluate_folders(masks, truth, classes=["a", "b", "c"])
    assert (scores.photos, scores.missing, scores.extra) == (3, ("s0/2",), ("s1/1",))
    assert "1 photos with a truth have no mask" in scores.protocol
    assert evaluate_folders(masks, truth, split=["s0/0"]).missing == ()


def test_all_problems_are_told_at_once(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    write_mask(masks / "s0" / "0.png", np.zeros((3, 4), np.uint8))
    write_mask(masks / "s1" / "1.png", np.full((40, 50), 9, np.uint8))
    (masks / "s0" / "2.png").write_bytes(b"")
    with pytest.raises(LabelError) as error:
        evaluate_folders(masks, truth, classes=["a", "b", "c"])
    text = str(error.value)
    assert text.startswith("3 problems in")
    assert "s0/0: the mask has 4 x 3 pixels, its truth 50 x 40" in text
    assert "s1/1: the prediction holds label 9, 0 to 3 or 255 is needed" in text
    assert "2.png cannot be read (" in text


def test_missing_files_of_a_split_are_told_at_once(folders: tuple[Path, Path]) -> None:
    masks, truth = folders
    with pytest.raises(LabelError, match=r"(?s)4 problems.*x: no mask.*y: no mask.*x: no truth.*y: no truth"):
        evaluate_folders(masks, truth, split=["s0/0", "x", "y"])
    with pytest.raises(LabelError, match="no photo id is listed"):
        evaluate_folders(masks, truth, split=[])


def test_folders_without_pairs_are_explained(folders: tuple[Path, Path], tmp_path: Path) -> None:
    masks, truth = folders
    with pytest.raises(LabelError, match="no such folder"):
        evaluate_folders(tmp_path / "nowhere", truth)
    with pytest.raises(LabelError, match=r"\(5 files\).*\(2 files\).*s0/0 there, 1 here"):
        evaluate_folders(masks, truth / "s1")
    write_mask(tmp_path / "void" / "s0" / "0.png", np.full((40, 50), 255, np.uint8))
    with pytest.raises(LabelError, match=r"hold only 255, and 255 means .ignore."):
        evaluate_folders(masks, tmp_path / "void")


def test_class_maps_are_swept_in_the_same_pass(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, truth = folders
    sweep, best = SeedSweep(3), Confusion(3, background=False)
    for i in range(5):
        maps = np.random.default_rng(i).random((2, 10, 12)).astype(np.float16).astype(np.float32)
        write_maps(tmp_path / "maps" / f"s{i % 2}" / f"{i}.npz", [1, 3], maps)
        sweep.add(blobs(i), [1, 3], maps)
    scores = evaluate_folders(tmp_path / "maps", truth, classes=["a", "b", "c"])
    assert scores.curve == tuple(sweep.miou())
    assert (scores.threshold, scores.miou) == sweep.best()
    assert scores.iou["a"] == sweep.iou()[THRESHOLDS.index(scores.threshold)][1]
    assert "oracle" in scores.protocol
    json.dumps(scores.as_json(), allow_nan=False)

    plain = evaluate_folders(tmp_path / "maps", truth, classes=["a", "b", "c"], background=False)
    assert plain.threshold is None
    for i in range(5):
        maps = np.random.default_rng(i).random((2, 10, 12)).astype(np.float16).astype(np.float32)
        full = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], (40, 50), mode="bilinear")[0]
        best.add(blobs(i), np.array([1, 3], np.uint8)[full.argmax(0).numpy()])
    assert plain.miou == pytest.approx(best.miou(), abs=2e-3)


def test_quality_of_labels_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    quality, known, said, right = LabelQuality(), 0, [0] * 256, 0
    for _ in range(3):
        truth, labels = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (2, 5, 7))
        quality.add(truth, labels)
        for t, found in zip(truth.flatten().tolist(), labels.flatten().tolist(), strict=True):
            if t != 255:
                known += 1
                right += t == found
                said[found] += 1
    labelled = known - said[255]
    assert quality.covered == labelled / known
    assert quality.right == right / labelled
    assert quality.top_class == max(said[:255]) / labelled
    empty = LabelQuality()
    empty.add(truth, np.full_like(truth, 255))
    assert (empty.covered, empty.right, empty.top_class) == (0, 0, 0)
