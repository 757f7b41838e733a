"""The operations that `hintseg bench` measures, one row each.

A row names a function of the package, the function of the same mathematics in `benchmarks/plain.py` of the source
tree, and a maker of the arguments that both take. To add one: write the maker, the plain function, and an entry in
`OPERATIONS`.

Bytes are those that must pass between memory and the cores if every value of a pass is moved once and what is used
again within a few rows stays in the cache; operations are additions and multiplications. Both count ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot
from torch.utils.flop_counter import FlopCounterMode

from hintseg.bench import libraries
from hintseg.cam import multi_scale
from hintseg.evaluation.sweep import THRESHOLDS, SeedSweep
from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.nn.attention import attend
from hintseg.nn.vit import VitConfig
from hintseg.refine import DenseCrf, dense_crf, edge_transition, pamr, par, path_offsets, random_walk
from hintseg.store.masks import MaskStore
from hintseg.store.pool import write_pool

Bytes = npt.NDArray[np.uint8]


class Case(NamedTuple):
    """What one run of an operation is given."""

    shape: str
    """The sizes, in words."""
    photos: int
    """Photos in it."""
    arguments: dict[str, Any]
    """By name; ours and the plain version take the same."""
    bytes: int
    """Bytes ours moves."""
    operations: int
    """Additions and multiplications of ours; 0 where it is not arithmetic."""


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Attributes:
        name: What `hintseg bench NAME` calls it.
        make: Makes the arguments on a device; small ones if the flag is set.
        ours: The package's function.
        plain: Name of the plain version in `benchmarks/plain.py`.
        cuda: Whether it runs on an accelerator.
        slow: Whether the plain version takes a minute or more: it is then run on demand only.
        library: The function of another library that is put beside ours on the CPU where it is installed.
    """

    name: str
    make: Callable[[torch.device, bool], Case]
    ours: Callable[..., Any]
    plain: str
    cuda: bool = True
    slow: bool = False
    library: Callable[..., Any] | None = None


def photos(count: int, height: int, width: int) -> Tensor:
    """Make photos (B, 3, H, W) uint8: shaded regions with sharp borders, texture and faint noise.

    The colour lattice of a DenseCRF has about as many vertices as on real photos (0.1 million at 321 x 481).
    """
    generator = torch.Generator().manual_seed(0)

    def smooth(rows: int, columns: int, channels: int) -> Tensor:
        coarse = torch.rand(count, channels, rows, columns, generator=generator)
        return interpolate(coarse, (height, width), mode="bicubic", align_corners=False)

    regions = one_hot(smooth(4, 6, 6).argmax(dim=1), 6).movedim(-1, 1).float()
    colours = torch.rand(count, 3, 6, generator=generator) * 160 + 30
    shaded = torch.einsum("bkhw,bck->bchw", regions, colours) + (smooth(5, 7, 3) - 0.5) * 80
    texture = (smooth(max(1, height // 4), max(1, width // 4), 1) - 0.5) * 50
    noise = torch.randn(count, 3, height, width, generator=generator) * 2
    return (shaded + texture + noise).clamp(0, 255).byte()


def scores(count: int, channels: int, height: int, width: int) -> Tensor:
    """Make probabilities (B, C, H, W): smooth, as class maps are, and unsure in places."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, channels, max(2, height // 16), max(2, width // 16), generator=generator) * 2
    return interpolate(coarse, (height, width), mode="bilinear", align_corners=False).softmax(dim=1)


def _par(count: int, height: int, width: int) -> Callable[[torch.device, bool], Case]:
    def make(device: torch.device, tiny: bool) -> Case:
        h, w = (17, 21) if tiny else (height, width)
        channels, iterations, near = 4, 10, 48
        # Affinities: the photo in, 48 out; each step reads them once for all channels. Of their operations, 24 a
        # neighbour are the three channels' distances and about 6 the softmax.
        moved = 12 + 4 * near + iterations * (4 * near + 8 * channels)
        done = 30 * near + iterations * 2 * near * channels
        arguments = {
            "scores": scores(count, channels, h, w).to(device),
            "rgb": photos(count, h, w).to(device),
            "iterations": iterations,
        }
        shape = f"{_times(count)}{h} x {w}, {channels} channels, {iterations} steps"
        return Case(shape, count, arguments, count * h * w * moved, count * h * w * done)

    return make


def _walk(height: int, width: int) -> Callable[[torch.device, bool], Case]:
    def make(device: torch.device, tiny: bool) -> Case:
        h, w = (7, 9) if tiny else (height, width)
        classes, steps, radius = 2, 256, 5
        edge = 1 - (2 * scores(1, 2, h, w)[0, 0] - 1).abs()  # where two classes meet
        reach = 2 * len(path_offsets(radius)) + 1
        # A step reads every entry (a value of 8 bytes, its column of 4) and every score, and writes every score.
        moved = steps * h * w * (12 * reach + 16 * classes)
        done = steps * h * w * 2 * reach * classes
        arguments = {
            "scores": scores(1, classes, h, w)[0].to(device),
            "edge": edge.to(device),
            "radius": radius,
            "steps": steps,
        }
        shape = f"{h} x {w} cells, radius {radius}, {steps} steps, {classes} classes"
        return Case(shape, 1, arguments, moved, done)

    return make


def walk_along_edges(scores: Tensor, edge: Tensor, radius: float, steps: int) -> Tensor:
    """Turn edges into affinities and walk along them."""
    return random_walk(scores, edge_transition(edge, radius=radius), steps=steps)


def noise(count: int, height: int, width: int) -> Tensor:
    """Make photos (B, 3, H, W) uint8 of noise: nearly every pixel has lattice vertices of its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def _crf(
    count: int,
    height: int,
    width: int,
    classes: int,
    present: int = 3,
    make_photos: Callable[[int, int, int], Tensor] = photos,
) -> Callable[[torch.device, bool], Case]:
    def make(device: torch.device, tiny: bool) -> Case:
        h, w = (13, 19) if tiny else (height, width)
        iterations = 10
        probabilities = torch.zeros(count, classes, h, w)
        probabilities[:, [c * classes // present for c in range(present)]] = scores(count, present, h, w)
        rgb = make_photos(count, h, w).to(device)
        groups, lanes = (1, 4) if present <= 4 else (-(-present // 8), 8)
        channels = groups * lanes  # those that are left over in the last group are computed, too
        moved = done = 0
        for dimensions, vertices in zip((2, 5), DenseCrf(rgb).vertices, strict=True):
            entries = count * h * w * (dimensions + 1)
            links = vertices * (dimensions + 1)
            # Splat and slice read a weight and a place for every entry and group, blur a place for every link; values
            # are read and written once a pass. Building the lattice is not counted.
            passes = groups * (16 * entries + 4 * links)
            passes += 4 * channels * (2 * count * h * w + vertices + 2 * links)
            moved += iterations * passes
            done += iterations * present * (4 * entries + 3 * links)
        moved += iterations * 8 * channels * count * h * w  # softmax
        arguments = {"probabilities": probabilities.to(device), "rgb": rgb, "iterations": iterations}
        shape = f"{_times(count)}{h} x {w}, {classes} classes"
        shape += f" of which {present} present" if classes > present else ""
        shape += ", noise" if make_photos is noise else ""
        return Case(f"{shape}, {iterations} iterations", count, arguments, moved, done)

    return make


def _crf_row(name: str, make: Callable[[torch.device, bool], Case], slow: bool = True) -> Operation:
    return Operation(name, make, dense_crf, "dense_crf", slow=slow, library=libraries.dense_crf)


def _sweep(device: torch.device, tiny: bool) -> Case:
    count, height, width, classes = (2, 20, 24, 3) if tiny else (4, 375, 500, 3)
    maps = [one.numpy() for one in scores(count, classes, -(-height // 4), -(-width // 4))]
    truth = [one.argmax(dim=0).byte().numpy() for one in scores(count, classes + 1, height, width).flip(3)]
    # Per pixel: a float per map, the score, and five integers of 8 bytes for winner, truth, bin and cell.
    moved = count * height * width * (4 * classes + 4 + 5 * 8)
    done = count * height * width * (8 * classes + 8)
    arguments = {"truth": truth, "maps": maps, "thresholds": THRESHOLDS}
    shape = f"{len(THRESHOLDS)} thresholds, {count} photos of {height} x {width}, {classes} classes"
    return Case(shape, count, arguments, moved, done)


def sweep_once(
    truth: Sequence[Bytes], maps: Sequence[npt.NDArray[np.float32]], thresholds: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Score all thresholds in one pass; return the IoU, (T, K + 1)."""
    sweep = SeedSweep(len(maps[0]), thresholds)
    for true, one in zip(truth, maps, strict=True):
        sweep.add(true, list(range(1, len(one) + 1)), one)
    return sweep.iou()


def _multi_scale(device: torch.device, tiny: bool) -> Case:
    from hintseg.config.settings import BackboneConfig  # here: only this row needs networks, which are slow to import
    from hintseg.methods.cam import Cam, CamConfig

    count, height, width, classes = (2, 48, 64, 3) if tiny else (4, 96, 144, 20)
    torch.manual_seed(0)
    config = CamConfig(backbone=BackboneConfig(name="resnet10t", weights="random"))
    method = Cam(config, classes, True).to(device).eval()
    scales = (1.0, 0.5, 1.5, 2.0)
    arguments: dict[str, Any] = {
        "class_maps": method.class_maps,
        "images": photos(count, height, width).to(device).float() / 255,
    }
    arguments |= {"scales": scales, "flip": "max"}
    moved = 0

    def count_bytes(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal moved
        values = [*inputs, output, *module.parameters()]
        moved += sum(4 * value.numel() for value in values if isinstance(value, Tensor))

    layers = [layer for layer in method.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count_bytes) for layer in layers]
    with FlopCounterMode(display=False) as flops:
        multi_scale(**arguments)
    for hook in hooks:
        hook.remove()
    shape = f"{count} x {height} x {width}, resnet10t, scales {', '.join(f'{s:g}' for s in scales)}, flips"
    return Case(shape, count, arguments, moved, flops.get_total_flops())


def _masks(device: torch.device, tiny: bool) -> Case:
    count, height, width, classes = (4, 20, 24, 20) if tiny else (64, 375, 500, 20)
    labels = list(scores(4, classes + 1, height, width).argmax(dim=1).byte().numpy())
    shape = f"{count} masks of {height} x {width}, written and read"
    return Case(shape, count, {"masks": labels * (count // 4)}, 4 * count * height * width, 0)


def write_and_read(masks: Sequence[Bytes]) -> list[Bytes]:
    """Write masks as palette PNGs and read them again."""
    with TemporaryDirectory() as folder:
        store = MaskStore(Path(folder), [str(label) for label in range(1, 255)])
        names = [f"{number:06}" for number in range(len(masks))]
        with write_pool() as write_behind:
            for name, mask in zip(names, masks, strict=True):
                write_behind(store.write, name, mask)
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(store.read, names))


def _lgsa(cells: int) -> Callable[[torch.device, bool], Case]:
    def make(device: torch.device, tiny: bool) -> Case:
        count, classes, channels = 2, 4, 64
        size = 35 if tiny else cells
        generator = torch.Generator().manual_seed(0)
        named = {}
        for name in ("query", "key", "value"):
            values = torch.randn(count, size, channels, generator=generator) * channels**-0.25
            named[name] = values.to(device).requires_grad_()
        labels = torch.randint(classes, (count, size), generator=generator, dtype=torch.uint8).to(device)
        # Products of N x N by C': two forward, six backward, and those with the target's factors.
        done = count * size**2 * (2 * 8 * channels + 8 * classes)
        moved = 4 * 4 * 8 * count * size * channels
        shape = f"{count} x {size} cells, {channels} channels, {classes} classes, forward and backward"
        return Case(shape, count, {**named, "labels": labels}, moved, done)

    return make


def lgsa_step(query: Tensor, key: Tensor, value: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients of attention with its affinity loss, (3, B, N, C')."""
    out, loss = attend(query, key, value, labels)
    return torch.stack(torch.autograd.grad(out.square().mean() + 1e4 * loss, (query, key, value)))


def _mct(device: torch.device, tiny: bool) -> Case:
    side, classes = (32, 3) if tiny else (480, 20)
    small: dict[str, Any] = {"depth": 3, "width": 24, "heads": 3} if tiny else {}
    torch.manual_seed(0)
    method = MctFormer(MctConfig(backbone=VitConfig(weights="random", **small)), classes, True).eval().to(device)
    arguments: dict[str, Any] = {"method": method, "images": photos(1, side, side).to(device).float() / 255}
    with FlopCounterMode(display=False) as flops:
        mct_maps(**arguments)
    layers, tokens = len(method.backbone.blocks), (side // 16) ** 2 + classes
    moved = 4 * (sum(p.numel() for p in method.parameters()) + 2 * layers * tokens**2)
    return Case(f"DeiT-S, {side} x {side}, {classes} classes", 1, arguments, moved, flops.get_total_flops())


@torch.inference_mode()
def mct_maps(method: MctFormer, images: Tensor) -> Tensor:
    """Return MCTformer's fused and refined maps, (B, K, h, w)."""
    return method.fused_maps(images, layers=method.config.attention_layers)


def _times(count: int) -> str:
    return f"{count} x " if count > 1 else ""


OPERATIONS = {
    row.name: row
    for row in (
        Operation("par", _par(1, 321, 481), par, "par"),
        Operation("pamr", _par(1, 321, 481), pamr, "pamr"),
        Operation("random_walk", _walk(81, 121), walk_along_edges, "random_walk", slow=True),
        Operation("random_walk_small", _walk(41, 61), walk_along_edges, "random_walk"),
        _crf_row("dense_crf", _crf(1, 321, 481, 3), slow=False),
        _crf_row("dense_crf_21", _crf(1, 321, 481, 21)),
        _crf_row("dense_crf_21_alive", _crf(1, 321, 481, 21, present=21)),
        _crf_row("dense_crf_noise", _crf(1, 321, 481, 3, make_photos=noise)),
        _crf_row("dense_crf_noise_21_alive", _crf(1, 321, 481, 21, present=21, make_photos=noise)),
        Operation("lgsa_loss", _lgsa(4225), lgsa_step, "lgsa_loss"),
        Operation("lgsa_loss_small", _lgsa(1681), lgsa_step, "lgsa_loss"),
        Operation("mct_maps", _mct, mct_maps, "mct_maps"),
        Operation("threshold_sweep", _sweep, sweep_once, "threshold_sweep", cuda=False),
        Operation("multi_scale_cam", _multi_scale, multi_scale, "multi_scale_cam"),
        Operation("masks", _masks, write_and_read, "masks", cuda=False),
        Operation("par_512", _par(16, 512, 512), par, "par", slow=True),
        _crf_row("dense_crf_512", _crf(16, 512, 512, 3)),
    )
}
"""Rows of the table by name, in the order they are shown."""
