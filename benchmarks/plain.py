"""Straightforward versions of what `hintseg bench` measures: the published formulation, written from the equations.

Each function takes what ours takes and returns the same numbers. `tests/test_bench.py` holds them together.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hintseg.files.palette import voc_palette
from hintseg.refine import path_offsets

DILATIONS = (1, 2, 4, 8, 12, 24)


def neighbour_stack(maps: Tensor, *, centre: bool = False) -> Tensor:
    """Stack the 8 neighbours (and the pixel itself) at every dilation: (1, C, H, W) -> (1, C, 48 or 54, H, W)."""
    places = [place for place in range(9) if centre or place != 4]
    kernel = torch.zeros(len(places), 1, 3, 3, device=maps.device)
    for n, place in enumerate(places):
        kernel[n, 0, place // 3, place % 3] = 1
    planes = maps.transpose(0, 1)  # one plane per channel
    stacked = [F.conv2d(F.pad(planes, (d,) * 4, mode="replicate"), kernel, dilation=d) for d in DILATIONS]
    return torch.cat(stacked, dim=1)[None]


def par(scores: Tensor, rgb: Tensor, iterations: int) -> Tensor:
    """PAR (AFA, Eqs. 9-11) with stacks of all 48 neighbours, photo by photo."""
    refined = []
    for photo, maps in zip(rgb.float()[:, None] / 255, scores[:, None], strict=True):
        near = neighbour_stack(photo)
        distance = (near - photo[:, :, None]).abs() / (near.std(dim=2, keepdim=True) + 1e-8) / 0.3
        weight = (-(distance**2)).mean(dim=1, keepdim=True).softmax(dim=2)
        length = torch.tensor([1.0, 2**0.5])[[1, 0, 1, 0, 0, 1, 0, 1]].to(photo)
        offsets = torch.cat([d * length for d in DILATIONS])
        position = (-((offsets / offsets.std() / 0.3) ** 2)).softmax(dim=0)
        weight = weight + 0.01 * position.view(1, 1, -1, 1, 1)
        refined.append(_spread(maps, weight, photo, iterations))
    return torch.cat(refined)


def pamr(scores: Tensor, rgb: Tensor, iterations: int) -> Tensor:
    """PAMR (Araslanov and Roth, section 3.3) with stacks of all neighbours, photo by photo."""
    refined = []
    for photo, maps in zip(rgb.float()[:, None] / 255, scores[:, None], strict=True):
        deviation = neighbour_stack(photo, centre=True).std(dim=2, keepdim=True)
        distance = (neighbour_stack(photo) - photo[:, :, None]).abs() / (deviation + 1e-8) / 0.1
        weight = (-distance).mean(dim=1, keepdim=True).softmax(dim=2)
        refined.append(_spread(maps, weight, photo, iterations))
    return torch.cat(refined)


def _spread(maps: Tensor, weight: Tensor, photo: Tensor, iterations: int) -> Tensor:
    maps = F.interpolate(maps, photo.shape[2:], mode="bilinear", align_corners=True)
    for _ in range(iterations):
        maps = (neighbour_stack(maps) * weight).sum(dim=2)
    return maps


def random_walk(scores: Tensor, edge: Tensor, radius: float, steps: int) -> Tensor:
    """IRN's propagation (Eqs. 7 and 8) with a dense matrix, squared until it stands for all steps (a power of 2)."""
    height, width = edge.shape
    cells = height * width
    dense = torch.eye(cells, device=edge.device)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for path in path_offsets(radius):
        inside = (rows + path.dy < height) & (columns + path.dx >= 0) & (columns + path.dx < width)
        y, x = rows[inside], columns[inside]
        largest = torch.stack([edge[y + dy, x + dx] for dy, dx in path.cells]).amax(dim=0)
        near, far = y * width + x, (y + path.dy) * width + x + path.dx
        dense[near, far] = dense[far, near] = (1 - largest) ** 10
    matrix = dense / dense.sum(dim=0)
    for _ in range(steps.bit_length() - 1):
        matrix = matrix @ matrix
    return (scores.flatten(1) @ matrix).view(scores.shape)


def dense_crf(probabilities: Tensor, rgb: Tensor, iterations: int) -> Tensor:
    """Mean field (Krahenbuhl and Koltun, algorithm 1) on a permutohedral lattice of numpy arrays, photo by photo."""
    results = []
    for photo, start in zip(rgb.cpu().numpy(), probabilities.cpu().numpy(), strict=True):
        height, width = photo.shape[1:]
        y, x = np.mgrid[:height, :width]
        place = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
        colour = photo.reshape(3, -1).T.astype(np.float32)
        filters = [(3, lattice_filter(place / 3)), (4, lattice_filter(np.concatenate([place / 64, colour / 5], 1)))]
        flat = start.reshape(len(start), -1).T
        with np.errstate(divide="ignore"):  # a class that the photo does not hold has no probability anywhere
            unary = np.where(flat.any(axis=0), np.log(np.maximum(flat, 1e-5)), -np.inf)
        q = _softmax(unary)
        for _ in range(iterations):
            q = _softmax(unary + sum(weight * apply(q) for weight, apply in filters))
        results.append(torch.from_numpy(q.T.reshape(start.shape).astype(np.float32)))
    return torch.stack(results)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def lattice_filter(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the symmetrically normalised filter on a permutohedral lattice (Adams et al., 2010, section 3).

    Args:
        features: (N, d), in units of the standard deviation.
    """
    size, d = features.shape
    index = np.arange(1, d + 1)
    scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(index * (index + 1))).astype(np.float32)
    # Coordinate i of the rotation: the sum of the features after i, less i times feature i. Rounded in float32 in the
    # package's order: on the border of two simplices another rounding takes the other one, and with it other vertices.
    point = np.zeros((size, d + 1), np.float32)
    for i in range(d, 0, -1):
        point[:, i] = point[:, 0] - np.float32(i) * scaled[:, i - 1]
        point[:, 0] += scaled[:, i - 1]
    nearest = np.floor(point * np.float32(1 / (d + 1)) + np.float32(0.5)).astype(np.int64) * (d + 1)
    # Coordinates by falling distance; where the sum is off, the first or last of them take a step.
    rank = np.argsort(np.argsort(-(point - nearest), axis=1, kind="stable"), axis=1, kind="stable")
    rank += nearest.sum(axis=1, keepdims=True) // (d + 1)
    nearest += (d + 1) * ((rank < 0).astype(np.int64) - (rank > d))
    rank %= d + 1
    rest = np.empty((size, d + 1))
    np.put_along_axis(rest, rank, (point - nearest) / (d + 1), axis=1)
    # Share of vertex k: the gap between the coordinates that rank d - k and d + 1 - k.
    shares = np.concatenate([1 - (rest[:, :1] - rest[:, -1:]), (rest[:, :-1] - rest[:, 1:])[:, ::-1]], axis=1)
    vertices = np.stack([nearest + k - (d + 1) * (rank > d - k) for k in range(d + 1)], axis=1)
    points, index = np.unique(vertices.reshape(-1, d + 1), axis=0, return_inverse=True)
    index = index.reshape(size, d + 1)
    found = {tuple(row): n for n, row in enumerate(points.tolist())}
    missing = len(points)
    steps = (d + 1) * np.eye(d + 1, dtype=np.int64) - 1
    links = [
        [np.array([found.get(tuple(row), missing) for row in (points + sign * step).tolist()]) for sign in (1, -1)]
        for step in steps
    ]

    def apply(values: np.ndarray) -> np.ndarray:
        rows = np.zeros((missing + 1, values.shape[1]))
        np.add.at(rows, index, shares[:, :, None] * values[:, None])
        for after, before in links:
            rows[:-1] += (rows[after] + rows[before]) / 2
        return (shares[:, :, None] * rows[index]).sum(axis=1)

    scale = 1 / np.sqrt(apply(np.ones((size, 1))))
    return lambda values: scale * apply(scale * values)


def threshold_sweep(truth: Sequence[np.ndarray], maps: Sequence[np.ndarray], thresholds: Sequence[float]) -> np.ndarray:
    """Cut the seeds and count the confusion matrix anew for every threshold."""
    curve = []
    for threshold in thresholds:
        labels = len(maps[0]) + 1
        confusion = np.zeros((labels, labels), np.int64)
        for true, one in zip(truth, maps, strict=True):
            full = [cv2.resize(m, true.shape[::-1], interpolation=cv2.INTER_LINEAR) for m in one]
            winner = np.stack([np.full(true.shape, threshold, np.float32), *full]).argmax(axis=0)
            known = true != 255
            pairs = labels * true[known].astype(np.int64) + winner[known]
            confusion += np.bincount(pairs, minlength=labels**2).reshape(labels, labels)
        hits = np.diag(confusion)
        curve.append(hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits))
    return np.array(curve)


@torch.no_grad()
def multi_scale_cam(
    class_maps: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float], flip: str
) -> Tensor:
    """Merge the maps of every photo, scale and mirrored twin, one forward pass each."""
    if flip != "max":
        raise ValueError(f"flip {flip!r} has no plain version")
    height, width = images.shape[2:]
    results = []
    for image in images[:, None]:
        total = torch.zeros(())
        for scale in scales:
            shape = (round(height * scale), round(width * scale))
            scaled = F.interpolate(image, shape, mode="bilinear", align_corners=False)
            maps = torch.maximum(class_maps(scaled), class_maps(scaled.flip(3)).flip(3))
            total = total + F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
        results.append(total)
    return torch.cat(results)


def masks(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Write masks as palette PNGs and read them, one after the other."""
    found = []
    with TemporaryDirectory() as folder:
        for number, mask in enumerate(masks):
            image = Image.fromarray(mask)
            image.putpalette(voc_palette().tobytes())
            image.save(Path(folder, f"{number}.png"))
        for number in range(len(masks)):
            with Image.open(io.BytesIO(Path(folder, f"{number}.png").read_bytes())) as image:
                found.append(np.array(image))
    return found


def lgsa_loss(query: Tensor, key: Tensor, value: Tensor, labels: Tensor) -> Tensor:
    """Attention, its affinity loss and the gradients (Xie et al., Eqs. 4, 6 and 7), with whole N x N matrices."""
    affinity = torch.softmax(query @ key.transpose(1, 2), dim=2)
    target = (labels[:, :, None] == labels[:, None, :]).to(affinity.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    total = (affinity @ value).square().mean() + 1e4 * F.mse_loss(affinity, target)
    return torch.stack(torch.autograd.grad(total, (query, key, value)))


@torch.inference_mode()
def mct_maps(method: Any, images: Tensor) -> Tensor:
    """MCTformer's fused and refined maps from the attention of all layers and heads, stored and averaged at the end."""
    net = method.backbone
    tokens, grid = net._embed(images)
    kept = []
    for block in net.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] * attention.scale @ qkv[1].transpose(2, 3)).softmax(dim=3)
        kept.append(weights)
        tokens = tokens + attention.proj((weights @ qkv[2]).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    count = net.cls_token.shape[1]
    attention = torch.stack(kept).mean(dim=2)  # (layers, B, K + N, K + N)
    patch_maps = torch.relu(method.head(net._split(tokens, grid)[1]))
    to_patch = attention[-method.config.attention_layers :].sum(dim=0)[:, :count, count:]
    affinity = attention[:, :, count:, count:].sum(dim=0)
    return ((to_patch * patch_maps.flatten(2)) @ affinity.transpose(1, 2)).view_as(patch_maps)
