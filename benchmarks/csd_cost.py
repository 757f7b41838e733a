"""What CSD costs per training step, relative to the localizer alone: seconds and peak memory.

python benchmarks/csd_cost.py [--recipe csd_irn] [--batch 16] [--crop 224] [--steps 10] [KEY=VALUE ...]

Photos are noise. In the worst case every photo of a batch has two tags and a source; `--share` says how many have. One
step is losses, backward pass and an SGD update. The two kinds of steps take turns, so that a noisy machine hits both;
medians are given. Peak memory is that of the GPU's tensors, or of this process in a run of its own for each kind
(`--only`).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from hintseg.config.loader import load_config
from hintseg.methods.method import Method
from hintseg.pipeline.memory import peak_memory_mb, reset_peak_memory
from hintseg.registry import methods, resolve
from hintseg.types import Batch, Progress, Targets
from hintseg.wrappers.csd import Csd


def make_batch(photos: int, pairs: int, crop: int, classes: int, device: torch.device) -> Batch:
    """Return noise of which the first `pairs` photos have two tags and a source each, whose left half is its object."""

    def part(count: int, tags: torch.Tensor, masks: torch.Tensor, source: Batch | None) -> Batch:
        windows = torch.tensor([[0, 0, crop, crop]]).repeat(count, 1)
        targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), windows, masks)
        return Batch([str(i) for i in range(count)], torch.rand(count, 3, crop, crop), targets, source)

    one = torch.eye(classes)[torch.arange(photos) % classes]
    halves = torch.zeros(pairs, crop, crop, dtype=torch.uint8)
    halves[:, :, : crop // 2] = (torch.arange(pairs) % classes + 1).byte()[:, None, None]
    source = part(pairs, one[:pairs], halves, None) if pairs else None
    tags = one.clone()
    tags[:pairs] += one[:pairs].roll(1, dims=1)
    return part(photos, tags, torch.zeros(photos, crop, crop, dtype=torch.uint8), source).to(device)


def step(learner: Method, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Take one optimiser step and return its seconds."""
    began = time.perf_counter()
    optimizer.zero_grad()
    torch.stack(list(learner.losses(batch, Progress(0, 1)).values())).sum().backward()
    optimizer.step()
    if batch.images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--recipe", default="csd_irn")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", choices=("baseline", "csd"))
    args = parser.parse_intermixed_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = load_config(args.recipe, args.settings, data={"path": "none"})
    localizer: Method = resolve("method", config.localize.method, methods())(config.localize, args.classes, True)
    learners = {"baseline": localizer, "csd": Csd(localizer, config.csd)}
    learners = {name: learners[name].to(device).train() for name in ([args.only] if args.only else learners)}
    optimizer = torch.optim.SGD(localizer.parameters(), lr=1e-4)
    batch = make_batch(args.batch, round(args.batch * args.share), args.crop, args.classes, device)
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    memory = dict.fromkeys(learners, 0.0)
    for turn in range(args.steps + 1):
        for name, learner in learners.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            elif turn == 1:
                reset_peak_memory()
            took = step(learner, optimizer, batch)
            if turn:  # the first step warms up
                seconds[name].append(took)
            peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_memory_mb()
            memory[name] = max(memory[name], peak)
    for name, values in seconds.items():
        shown = f", peak {memory[name]:.0f} MiB" if args.only or device.type == "cuda" else ""
        print(f"{name}: {statistics.median(values):.3f} s per step{shown}")
    if not args.only:
        ratio = statistics.median(seconds["csd"]) / statistics.median(seconds["baseline"])
        print(f"csd / baseline: {ratio:.2f} ({batch.source and len(batch.source.ids)} pairs among {args.batch} photos)")


if __name__ == "__main__":
    main()
