"""Time and memory of MCTformer's maps, attention averaged on the fly against stored for every head and layer.

python benchmarks/mct_maps.py [--side 480] [--classes 20] [--photos 1] [--repeats 3]

DeiT-S from random weights on noise: neither changes the cost. Each variant runs in a process of its own. Memory is the
peak of the process above what it holds once the network is built and used once on a small photo. Prints markdown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from hintseg.methods.mctformer import MctConfig, MctFormer
from hintseg.nn.vit import VitConfig
from hintseg.pipeline.memory import peak_memory_mb, reset_peak_memory


def stored_maps(method: MctFormer, images: Tensor) -> Tensor:
    """Make the same maps the plain way: keep all attention, then average."""
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
    fused = to_patch * patch_maps.flatten(2)
    affinity = attention[:, :, count:, count:].sum(dim=0)
    return (fused @ affinity.transpose(1, 2)).view_as(patch_maps)


VARIANTS = {"averaged on the fly": MctFormer.raw_maps, "all stored": stored_maps}


@torch.inference_mode()
def measure(name: str, side: int, classes: int, photos: int, repeats: int) -> str:
    """Run one variant; return its median seconds, peak MiB and a checksum."""
    torch.manual_seed(0)
    method = MctFormer(MctConfig(backbone=VitConfig(weights="random")), classes, True).eval()
    images = torch.rand(photos, 3, side, side)
    maps = VARIANTS[name]
    maps(method, images[:1, :, :64, :64])
    before = _resident_mb()
    reset_peak_memory()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = maps(method, images)
        seconds.append(time.perf_counter() - began)
    return f"{statistics.median(seconds):.2f} {peak_memory_mb() - before} {result.double().sum().item():.6f}"


def _resident_mb() -> int:
    reset_peak_memory()  # the peak starts from what is resident now
    return peak_memory_mb()


def main() -> None:
    """Run both variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 480), ("classes", 20), ("photos", 1), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = (args.side, args.classes, args.photos, args.repeats)
    if args.only:
        print(measure(args.only, *sizes))
        return
    threads = torch.get_num_threads()
    print(f"{args.photos} photo(s) of {args.side} x {args.side}, {args.classes} classes, {threads} threads\n")
    print("| attention | seconds | peak memory above the network, MiB | sum of the maps |\n|---|---|---|---|")
    for name in VARIANTS:
        command = [sys.executable, __file__, "--only", name]
        for key, value in zip(("side", "classes", "photos", "repeats"), sizes, strict=True):
            command += [f"--{key}", str(value)]
        seconds, memory, total = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {name} | {seconds} | {memory} | {total} |", flush=True)


if __name__ == "__main__":
    main()
