"""What the machine offers: device, precision, processes."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from hintseg.config.settings import TrainerConfig
from hintseg.errors import ConfigError, HintsegError, RunError
from hintseg.training import processes

if TYPE_CHECKING:
    import torch
    from lightning.fabric import Fabric
    from torch import nn

# torch is imported where it is needed: masks are written without it.

T = TypeVar("T")


def check(trainer: TrainerConfig) -> None:
    """Refuse settings that this machine cannot follow, before anything is written.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    import torch

    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator}, but torch {torch.__version__} sees no GPU here; mend the "
            "driver or install torch with CUDA, or leave it at auto"
        )


def device(trainer: TrainerConfig) -> torch.device:
    """Return the device this process computes on."""
    import torch

    if trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", rank() % torch.cuda.device_count())
    return torch.device("cpu")


def devices(trainer: TrainerConfig) -> int:
    """Return the processes to run on this machine: every GPU, or one process on a CPU."""
    if trainer.devices != "auto":
        return trainer.devices
    import torch

    return torch.cuda.device_count() if device(trainer).type == "cuda" else 1


def cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(trainer: TrainerConfig) -> int:
    """Return the number of loader processes: none but on Linux, where they are forked; others take seconds to start."""
    if trainer.workers != "auto":
        return trainer.workers
    if sys.platform != "linux":
        return 0
    return max(1, min(8, cores() - 1))


def precision(trainer: TrainerConfig) -> str:
    """Return Lightning's precision name: bfloat16 autocast where the hardware multiplies bfloat16, else float32."""
    if trainer.precision != "auto":
        return trainer.precision
    import torch

    if device(trainer).type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    quick = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16-mixed" if quick else "32-true"


def autocast(trainer: TrainerConfig, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Return the context that inference runs in, at the precision of training; one that does nothing unless enabled."""
    import torch

    name = precision(trainer)
    kind = torch.float16 if name.startswith("16") else torch.bfloat16
    return torch.autocast(device(trainer).type, dtype=kind, enabled=enabled and name.endswith("mixed"))


@contextmanager
def at_work(network: nn.Module | None, trainer: TrainerConfig) -> Iterator[torch.device]:
    """Keep a network on this process's device, in evaluation mode, while the block runs; then on the CPU."""
    if network is not None:
        network.to(device(trainer)).eval()
    try:
        yield device(trainer)
    finally:
        if network is not None:
            network.to("cpu")


def rank() -> int:
    """Return this process's number among all; 0 when there is one."""
    if (met := _met()) is not None:
        return int(met.get_rank())
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def world() -> int:
    """Return how many processes work together."""
    return 1 if (met := _met()) is None else int(met.get_world_size())


def _met() -> ModuleType | None:
    """Return `torch.distributed` where the processes have met in it; where torch is not loaded they have not."""
    distributed = sys.modules.get("torch.distributed")
    met = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return distributed if met else None


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part of the items.

    Share first, then leave out what is done: which files are there changes while the others write.
    """
    return items[rank() :: world()]


def join() -> None:
    """Meet the other processes where a launcher (torchrun) started all of them; those of `launch` meet in training."""
    processes.watch_parent()
    if "TORCHELASTIC_RUN_ID" not in os.environ or _met() is not None:
        return
    import torch
    from torch import distributed

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpu else "gloo")
    atexit.register(distributed.destroy_process_group)


def launch(fabric: Fabric, trainer: TrainerConfig) -> None:
    """Start the processes that Fabric was set up for, unless they are there, and meet them."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    here = devices(trainer)
    if environment is not None and here > 1 and not environment.creates_processes_externally:
        os.environ |= {"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)}
        os.environ |= {"NODE_RANK": str(environment.node_rank()), "WORLD_SIZE": str(here * trainer.num_nodes)}
        processes.start(here)
    fabric.launch()


def barrier() -> None:
    """Wait until every process is here."""
    if (met := _met()) is not None:
        met.barrier()


def gather(value: T) -> list[T]:
    """Return what every process gives, by rank, to each of them; all must call it."""
    if world() == 1:
        return [value]
    from torch import distributed

    values: list[T | None] = [None] * world()
    distributed.all_gather_object(values, value)
    return [found for found in values if found is not None]


def largest(*values: int) -> list[int]:
    """Return the largest of what the processes give, value by value, to each of them; all must call it."""
    if world() == 1:
        return list(values)
    import torch
    from torch import distributed

    kind = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.int64, device=kind)
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: a GPU's, or this machine's, in a worker too."""
    words = ("allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def fail_together(error: HintsegError | None) -> None:
    """End all processes where one has an error: the first one raises it, the others end silently. All must call it."""
    if world() == 1:
        if error is not None:
            raise error
        return
    found = [text for text in gather("" if error is None else str(error)) if text]
    if found:
        raise RunError(found[0]) if rank() == 0 else SystemExit(2)
