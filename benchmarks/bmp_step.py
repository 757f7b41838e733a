"""Time and memory of one BMP training step, part by part, in the published form and in ours.

python benchmarks/bmp_step.py [--backbone mit_b1] [--crop 512] [--batch 2] [--classes 20] [--repeat 3] [--device cpu]

The step is one after BSP has begun, with every mechanism on. `before` does what the released AFA and BMP code does: the
class logits of all classes are resized twice, every attention map of every block is made, PAR computes the colour
affinity of each photo anew for each of its three calls, labels are made whether a phase uses them or not, and the
affinity loss works on all pairs of cells. Prints markdown: median seconds, and peak memory above what lay there before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.cam import merge_twins, stretch
from hintseg.config.settings import BackboneConfig
from hintseg.losses.affinity import labels_on_grid
from hintseg.losses.classification import tag_loss
from hintseg.losses.mutual import C2s, s2c_loss
from hintseg.losses.window_affinity import window_affinity_loss
from hintseg.methods.bmp import Bmp, BmpConfig
from hintseg.methods.one_stage import grow
from hintseg.nn import mit
from hintseg.pipeline.memory import peak_memory_mb, reset_peak_memory
from hintseg.refine import par
from hintseg.refine.pseudo_labels import CropPar, background_aware, par_labels
from hintseg.types import Batch, Targets

PARTS = ("CAM", "labels", "forward", "backward")
FUSED = mit.scaled_dot_product_attention


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Make every map, as the published blocks do; they also keep a copy of the raw one."""
    raw = query @ key.transpose(-2, -1)
    kept = raw.clone()
    return (kept / query.shape[-1] ** 0.5).softmax(dim=-1) @ value


def half(maps: Tensor) -> Tensor:
    """Halve maps (B, n, H, W)."""
    size = [side // 2 for side in maps.shape[2:]]
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)


def cam_before(method: Bmp, batch: Batch) -> tuple[Tensor, Tensor]:
    """Passes with the decoder and with raw attention, whose logits are resized to the scaled crop first."""
    size = (batch.images.shape[2], batch.images.shape[3])
    maps, background = batch.images.new_zeros(()), batch.images.new_zeros(())
    for scale in method.config.scales:
        shape = [round(side * scale) for side in size]
        x = interpolate(batch.images, size=shape, mode="bilinear", align_corners=False)
        with torch.no_grad():
            seen = method.branches(torch.cat([x, x.flip(3)]), decode=True)
            if seen.attention is not None:
                seen.attention.maps()
            maps = maps + torch.relu(merge_twins(grow(seen.maps, shape), size, "max"))
            background = background + merge_twins(grow(seen.logits, shape), size, "mean")
    return stretch(maps), stretch(background)[:, :1]


def labels_before(batch: Batch, maps: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """One photo at a time, three calls of PAR with an affinity of their own."""
    colour, aware = [], []
    for image, one, prior, tags in zip(batch.images, maps, background, batch.targets.tags, strict=True):
        keys = torch.cat([tags.new_zeros(1), tags.nonzero()[:, 0] + 1]).long()
        rgb = half(image[None]) * 255
        winners = []
        for score in (torch.full_like(prior, 0.55), torch.full_like(prior, 0.35), prior):
            stack = torch.cat([score, one])[keys][None]
            stack = stack if score is prior else half(stack).softmax(dim=1)
            large = interpolate(par(stack, rgb), size=image.shape[1:], mode="bilinear", align_corners=False)[0]
            best, channel = large.max(dim=0)
            winners.append((best, keys[channel]))
        (_, high), (_, low), (best, own) = winners
        colour.append(high.masked_fill((high == 0) & (low != 0), 255))
        aware.append(own.masked_fill(best <= 0.75, 255))
    return torch.stack(colour).to(torch.uint8), torch.stack(aware).to(torch.uint8)


def affinity_loss_before(method: Bmp, attention: mit.Attention, labels: Tensor, near: Tensor) -> Tensor:
    """All pairs of cells, (B, N, N), and one map per head."""
    raw = attention.maps()
    affinity = torch.sigmoid(method.affinity_head.project(raw + raw.transpose(2, 3))[:, 0])
    flat = labels.flatten(1).long()
    pairs = (flat[:, :, None] == flat[:, None]).long()
    pairs[:, ~near] = 255
    pairs[(flat == 255)[:, :, None] | (flat == 255)[:, None]] = 255
    like, unlike = (pairs == 1).float(), (pairs == 0).float()
    positive = (like * (1 - affinity)).sum() / (like.sum() + 1)
    return 0.5 * (positive + (unlike * affinity).sum() / (unlike.sum() + 1))


def main() -> None:
    """Measure both forms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mit_b1")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device, side, count = torch.device(args.device), args.crop, args.batch
    config = BmpConfig(backbone=BackboneConfig(name=args.backbone, weights="random"), prior=False)
    method = Bmp(config, args.classes, True).to(device).train()
    tags = torch.zeros(count, args.classes)
    tags[:, 0] = tags[0, 1] = 1
    windows = torch.tensor([[0, 0, side, side]] * count)
    targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), windows)
    batch = Batch([], torch.rand(count, 3, side, side), targets).to(device)
    cells = torch.arange((side // 16) ** 2, device=device)
    y, x = cells // (side // 16), cells % (side // 16)
    near = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs()) <= 8  # (N, N), once: theirs is too

    def step(after: bool, measure: Callable[[str, Callable[[], object]], object]) -> None:
        mit.scaled_dot_product_attention = FUSED if after else plain_attention
        method.zero_grad()
        if after:
            look = measure("CAM", lambda: method.look(batch.images, decode=True))
            maps, background = look.maps, look.background

            def labels() -> tuple[Tensor, Tensor]:
                spread = CropPar(batch.images, batch.targets.windows)
                winner, sure = background_aware(spread, maps, background, batch.targets.tags)
                colour = par_labels(spread, maps, batch.targets.tags, batch.targets.windows, high=0.55, low=0.35)
                return colour, winner.masked_fill(sure <= 0.75, 255)
        else:
            maps, background = measure("CAM", lambda: cam_before(method, batch))

            def labels() -> tuple[Tensor, Tensor]:
                return labels_before(batch, maps, background)

        colour, y_c = measure("labels", labels)

        def forward() -> Tensor:
            seen = method.branches(batch.images, decode=True)
            s_s, s_c = grow(seen.logits, (side, side)), grow(seen.maps, (side, side))
            losses = [tag_loss(seen.scores, batch.targets), 0.7 * C2s().of(s_s, y_c, None)]
            losses.append(0.1 * s2c_loss(s_c, method.feedback(s_s.detach(), batch.targets)))
            if seen.attention is not None:
                grid = labels_on_grid(colour, (seen.maps.shape[2], seen.maps.shape[3]))
                if after:
                    said = method.prediction(seen, batch.images, affinity=True)
                    losses.append(0.1 * window_affinity_loss(said.own["affinity"], grid))
                else:
                    losses.append(0.1 * affinity_loss_before(method, seen.attention, grid, near))
            return torch.stack(losses).sum()

        total = measure("forward", forward)
        measure("backward", total.backward)

    print("| part | before, s | after, s | before, MiB | after, MiB |\n|---|---|---|---|---|")
    found = {}
    for after in (False, True):
        rows: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}

        def measure(part: str, run: Callable[[], object], rows: dict[str, list[tuple[float, float]]] = rows) -> object:
            start = reset(device)
            began = time.perf_counter()
            result = run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            rows[part].append((time.perf_counter() - began, peak(device) - start))
            return result

        step(after, measure)  # compiles and warms up
        for values in rows.values():
            values.clear()
        for _ in range(args.repeat):
            step(after, measure)
        found[after] = rows
    for part in PARTS:
        cells = [f"{statistics.median(t for t, _ in found[a][part]):.3f}" for a in (False, True)]
        cells += [f"{max(m for _, m in found[a][part]):.0f}" for a in (False, True)]
        print(f"| {part} | " + " | ".join(cells) + " |")
    sums = [sum(statistics.median(t for t, _ in found[a][part]) for part in PARTS) for a in (False, True)]
    print(f"| sum | {sums[0]:.3f} | {sums[1]:.3f} | | |")


def reset(device: torch.device) -> float:
    """Start counting the peak and return what is in use, MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    reset_peak_memory()
    return float(peak_memory_mb())


def peak(device: torch.device) -> float:
    """Return the peak since the last reset, MiB."""
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else float(peak_memory_mb())


if __name__ == "__main__":
    main()
