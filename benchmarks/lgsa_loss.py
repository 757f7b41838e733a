"""Time and memory of LGSA's attention with its loss, forward and backward: blocks of rows against whole N x N maps.

python benchmarks/lgsa_loss.py [--cells 1681 4225] [--channels 64 512] [--precisions float32 bfloat16]

1681 cells are the paper's training crop of 321 pixels at stride 8, 4225 a photo of 513. Batch 2, one thread. Each form
runs in a process of its own: seconds are the best of --repeat steps, of the processor's time, which other work on the
machine disturbs less; memory is the resident set's peak beyond what was there before the first step (Linux). `plain`
under bfloat16 is what autocast makes of it. Prints markdown, and the largest difference of loss and gradients in
double precision.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from hintseg.nn.attention import attend
from hintseg.pipeline.memory import peak_memory_mb, reset_peak_memory

BATCH, CLASSES, ALPHA = 2, 4, 1e4


def plain(query: Tensor, key: Tensor, value: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. 4, 6 and 7 as they are written."""
    affinity = torch.softmax(query @ key.transpose(1, 2), dim=2)
    target = (labels[:, :, None] == labels[:, None, :]).to(affinity.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    return affinity @ value, mse_loss(affinity, target)


def inputs(cells: int, channels: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Return theta(X), phi(X), g(X) with scores of deviation one, and labels."""
    torch.manual_seed(0)
    tensors = [torch.randn(BATCH, cells, channels, dtype=torch.float64) * channels**-0.25 for _ in range(3)]
    labels = torch.randint(CLASSES, (BATCH, cells), dtype=torch.uint8)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors], labels


def step(form: str, tensors: list[Tensor], labels: Tensor) -> tuple[Tensor, ...]:
    """Return the loss and the gradients of the three inputs."""
    with torch.autocast("cpu", torch.bfloat16, enabled=tensors[0].dtype == torch.bfloat16):
        out, loss = (attend if form == "blocks" else plain)(*tensors, labels)
    total = out.to(loss.dtype).square().mean() + ALPHA * loss
    return loss, *torch.autograd.grad(total, tensors)


def measure(form: str, cells: int, channels: int, precision: str, repeat: int) -> dict[str, float]:
    """Return seconds per step and the peak of memory, MiB."""
    tensors, labels = inputs(cells, channels, getattr(torch, precision))
    step(form, *inputs(8, 8, getattr(torch, precision)))  # libraries load what they need
    reset_peak_memory()
    before, seconds = peak_memory_mb(), []
    for _ in range(repeat):
        began = time.process_time()
        step(form, tensors, labels)
        seconds.append(time.process_time() - began)
    return {"seconds": min(seconds), "mib": peak_memory_mb() - before}


def difference(cells: int, channels: int) -> float:
    """Return the largest difference between the forms in double precision, over each tensor's largest entry."""
    tensors, labels = inputs(cells, channels, torch.float64)
    pairs = zip(step("blocks", tensors, labels), step("plain", tensors, labels), strict=True)
    return max(((one - other).abs().max() / other.abs().max()).item() for one, other in pairs)


def main() -> None:
    """Measure both forms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1681, 4225])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--form", choices=("blocks", "plain"), help="measure one form here and print JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.form:
        print(json.dumps(measure(args.form, args.cells[0], args.channels[0], args.precisions[0], args.repeat)))
        return
    print("| N | C' | precision | plain s | blocks s | times faster | plain MiB | blocks MiB |\n|" + "---|" * 8)
    for cells in args.cells:
        for channels in args.channels:
            for precision in args.precisions:
                found = {}
                for form in ("plain", "blocks"):
                    numbers = {"cells": cells, "channels": channels, "repeat": args.repeat}
                    words = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
                    command = [sys.executable, __file__, "--form", form, "--precisions", precision, *words]
                    found[form] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                p, b = found["plain"], found["blocks"]
                cells_of_row = [
                    *(str(cells), str(channels), precision, f"{p['seconds']:.3f}", f"{b['seconds']:.3f}"),
                    *(f"{p['seconds'] / b['seconds']:.1f}", f"{p['mib']:.0f}", f"{b['mib']:.0f}"),
                ]
                print("| " + " | ".join(cells_of_row) + " |", flush=True)
    for cells in args.cells:
        print(f"N = {cells}, double precision: largest relative difference {difference(cells, 64):.1e}")


if __name__ == "__main__":
    main()
