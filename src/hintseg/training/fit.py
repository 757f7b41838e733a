"""Train a method: the loop, on Lightning Fabric, which knows devices, precisions and processes."""

from __future__ import annotations

import csv
import io
import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hintseg.config.settings import FitConfig, TrainerConfig
from hintseg.data.dataset import EpochSampler
from hintseg.errors import RunError
from hintseg.files.atomic import whole_file
from hintseg.files.owned import adopt
from hintseg.methods.method import Method
from hintseg.training import machine
from hintseg.training.checkpoint import read_checkpoint, write_checkpoint
from hintseg.training.optim import build_optimizer, learning_rate_factor
from hintseg.training.watch import Watch
from hintseg.types import Batch, Progress

if TYPE_CHECKING:
    from lightning.fabric import Fabric

logger = logging.getLogger("hintseg")

PREPARE_BATCHES = 16
"""Batches a method may look at before its first and after its last step."""

PLACE = ("epochs", "batch_size", "crop", "accumulate", "optimizer")
"""Training settings without which the place in a checkpoint says nothing; the others may change on the way."""


class _Seen:
    """What a step sees. Being no collection, Fabric leaves it as it is, where it would make images bfloat16."""

    def __init__(self, batch: Batch, progress: Progress) -> None:
        self.batch, self.progress = batch, progress


class _Losses(nn.Module):
    """What the precision and DDP are put around: a forward pass whose output is the losses."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, seen: _Seen) -> tuple[Tensor, dict[str, Tensor]]:
        # A weight that is used several times then sums its gradients in float32, not in bfloat16.
        torch.set_autocast_cache_enabled(False)
        losses = self.method.losses(seen.batch, seen.progress)
        return torch.stack(list(losses.values())).sum(), losses


class _Training:
    """A training under way: what the loop changes and a checkpoint holds."""

    def __init__(
        self, fabric: Fabric, method: Method, loader: DataLoader[Any], settings: FitConfig, folder: Path
    ) -> None:
        self.fabric, self.method, self.settings, self.folder = fabric, method, settings, folder
        self.loader, self.sampler = loader, cast(EpochSampler, loader.sampler)
        self.per_epoch = math.ceil(len(loader) / settings.accumulate)
        self.steps = self.per_epoch * int(settings.epochs)
        self.step = 0
        self.saved: int | None = None
        self.rows: list[dict[str, float]] = []

    def build(self) -> None:
        """Put the method on its device, into training mode and under an optimiser."""
        losses = _Losses(self.method).to(self.fabric.device)
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            from timm.layers import convert_sync_batchnorm

            # There are few photos on each GPU. timm's norms hold their activation; torch's own function loses it.
            losses = convert_sync_batchnorm(losses)
        self.method.train()
        optimizer = build_optimizer(self.method.parameter_groups(), self.settings)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = self.fabric.setup(losses, optimizer, move_to_device=False)

    def run_epoch(self, epoch: int, minutes: float, watch: Watch) -> None:
        """Take the steps of an epoch that are not done yet, and write a checkpoint every `minutes`."""
        accumulate, batches = self.settings.accumulate, len(self.loader)
        done = (self.step - epoch * self.per_epoch) * accumulate
        self.sampler.set_epoch(epoch, done)
        bad, began = "", time.monotonic()
        for number, batch in enumerate(self.loader, start=done + 1):
            last_part = number % accumulate == 0 or number == batches
            with self.fabric.no_backward_sync(self.model, enabled=not last_part):
                total, parts = self.model(_Seen(self._place(batch), Progress(self.step, self.steps)))
                self.fabric.backward(total / accumulate)
            latest = {"loss": total.item()} | {name: value.item() for name, value in parts.items()}
            if not bad and not math.isfinite(latest["loss"]):
                bad = ", ".join(f"{name} {value:.3g}" for name, value in latest.items() if name != "loss")
            if not last_part:
                continue
            waited = time.monotonic() - began >= 60 * minutes
            one_bad, due = machine.largest(bool(bad), waited and machine.rank() == 0)
            if one_bad:
                machine.fail_together(self._not_finite(f"the loss is not finite at step {self.step} ({bad})", bad))
            self._take_step()
            row = {"step": self.step, "epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]} | latest
            self.rows.append(row)
            self.fabric.log_dict(latest, self.step)
            watch.advance(f"loss {latest['loss']:.3f}")
            if due and self.step % self.per_epoch:  # the end of an epoch has a checkpoint anyway
                self.save()
                began = time.monotonic()

    def _place(self, batch: Batch) -> Batch:
        """Return the batch where the network is and, but for autocast, in its precision."""
        placed, precision = batch.to(self.fabric.device), self.fabric.strategy.precision
        converted: Batch = placed if "mixed" in str(precision.precision) else precision.convert_input(placed)
        return converted

    def _take_step(self) -> None:
        factor = learning_rate_factor(self.step, self.steps, self.settings)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if self.settings.clip is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.settings.clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def check_weights(self) -> None:
        """End the training where a weight is infinite or NaN: what is saved is always good."""
        names = (name for name, value in self.method.state_dict().items() if value.is_floating_point())
        state = self.method.state_dict()
        wrong = next((name for name in names if not torch.isfinite(state[name]).all()), "")
        text = f"the weights are not finite after step {self.step - 1} ({wrong})"
        machine.fail_together(self._not_finite(text, wrong))

    def _not_finite(self, text: str, wrong: str) -> RunError | None:
        if not wrong:
            return None
        rate = float(self.settings.lr)
        lower, now = f"{self.folder.name}.fit.lr={rate / 4:.2g}", f"now {rate:.3g}"
        if self.saved is None:
            way = f"no checkpoint was written yet: begin the stage again with a lower rate: `--resume {lower}` ({now})"
        else:
            way = f"the last good checkpoint is of step {self.saved}; go on from there: `--resume {lower}` ({now})"
        return RunError(f"{text}; {way}, or with {self.folder.name}.fit.clip=1.0")

    def save(self) -> None:
        """Write the log and a checkpoint; all processes must call it."""
        self.check_weights()
        chance = machine.gather(_generators(self.fabric.device))
        skipped = machine.gather(self.sampler.dataset.skipped)
        error = None
        if machine.rank() == 0:
            state = {
                "step": self.step,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "generators": chance,
                "rows": self.rows,
                "skipped": sorted({id for ids in skipped for id in ids}),
                "fit": self.settings.model_dump(mode="json"),
            }
            try:
                self.write_log()
                write_checkpoint(self.folder, state)
            except RunError as caught:
                error = caught
            for path in (self.folder / "tensorboard").glob("events.out.tfevents.*"):
                adopt(path)
        machine.fail_together(error)
        self.saved = self.step

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the rates and factors of these settings."""
        self.method.load_state_dict(state["method"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.sampler.dataset.skip(state["skipped"])
        self.step = self.saved = min(int(state["step"]), self.steps)
        self.rows = list(state["rows"])
        if machine.rank() < len(state["generators"]):  # there may be more processes than before
            _set_generators(state["generators"][machine.rank()], self.fabric.device)

    def write_log(self) -> None:
        """Write log.csv, one row per optimiser step."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        with whole_file(self.folder / "log.csv") as file:
            file.write(text.getvalue().encode())


def fit(
    method: Method,
    loader: DataLoader[Any],
    settings: FitConfig,
    trainer: TrainerConfig,
    folder: Path,
    *,
    resume: bool = False,
    prepare: bool = True,
    watch: Watch | None = None,
    after_epoch: Callable[[int, int], None] | None = None,
) -> int:
    """Train `method` and write ``log.csv`` into `folder`.

    Checkpoints are written beside it after every epoch and, inside one, every `trainer.checkpoint_minutes`; the last
    one stays, for the caller to delete once the weights are kept (`hintseg.training.checkpoint.remove_checkpoints`).
    On a CPU a training that went on from one ends with the same bits as one that was never stopped.

    Args:
        method: What to train; it is left on the CPU in evaluation mode.
        loader: Batches of `settings.batch_size` / `settings.accumulate` / processes photos.
        settings: Resolved settings, without any `auto`.
        trainer: Where and how it runs.
        folder: The stage's folder; it exists.
        resume: Whether to go on from the checkpoint, if there is one.
        prepare: Whether the method looks at a few batches before the first step; a trained one has done so.
        watch: Told about the progress.
        after_epoch: Called by the first process after every epoch with the epoch, counted from 0, and the steps done;
            it must leave the method as it was.

    Returns:
        Optimiser steps done.

    Raises:
        RunError: The loss or a weight became infinite or NaN, memory ran out, or the checkpoint cannot be written. In
            several processes the first one raises what happened in any; the others raise SystemExit(2).
    """
    watch = watch or Watch()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        chance = _generators(torch.device("cpu"))
        fabric = _fabric(trainer, folder)
        machine.launch(fabric, trainer)
        _set_generators(chance, fabric.device)  # importing Lightning draws from them, where it is not done yet
        training = _Training(fabric, method, loader, settings, folder)
        state = _checkpoint(method, settings, folder) if resume else None
        if state is None:
            training.sampler.set_epoch(0)
            method.eval()
            if prepare:
                method.prepare(_few(loader))
        training.build()
        if state is not None:
            training.restore(state)
        watch.start(f"training {folder.name}", training.steps)
        for row in training.rows:
            watch.advance(f"loss {row['loss']:.3f}")
        for epoch in range(training.step // training.per_epoch, int(settings.epochs)):
            try:
                training.run_epoch(epoch, trainer.checkpoint_minutes, watch)
            except (MemoryError, RuntimeError) as error:
                if machine.out_of_memory(error):
                    raise _too_large(folder.name, settings) from error
                raise
            if after_epoch is not None and machine.rank() == 0:
                after_epoch(epoch, training.step)
            training.save()
    watch.stop()
    method.to("cpu").eval()
    training.sampler.set_epoch(int(settings.epochs) - 1)
    method.finish(_few(loader))
    training.check_weights()
    if machine.rank() == 0:
        training.write_log()
    return training.steps


def _too_large(stage: str, settings: FitConfig) -> RunError:
    return RunError(
        f"memory ran out while training {stage}; take fewer photos at once, {stage}.fit.batch_size (now "
        f"{settings.batch_size}), or smaller crops, {stage}.fit.crop (now {settings.crop})"
    )


def _fabric(trainer: TrainerConfig, folder: Path) -> Fabric:
    # Imported where it is needed: it takes seconds, and only training needs it.
    from lightning.fabric import Fabric
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    for name in ("lightning.fabric", "lightning.pytorch"):  # the second speaks for the first
        logging.getLogger(name).setLevel(logging.WARNING)
    several = machine.devices(trainer) * trainer.num_nodes > 1
    ddp = "ddp_find_unused_parameters_true"
    try:
        loggers = TensorBoardLogger(folder, "tensorboard", "") if trainer.logger == "tensorboard" else None
    except ModuleNotFoundError as error:
        raise RunError("trainer.logger=tensorboard needs: pip install 'hintseg[tensorboard]'; or set csv") from error
    return Fabric(
        accelerator=trainer.accelerator,
        devices=machine.devices(trainer),
        num_nodes=trainer.num_nodes,
        strategy=ddp if several and trainer.strategy == "auto" else trainer.strategy,
        precision=machine.precision(trainer),  # type: ignore[arg-type]
        loggers=loggers,
    )


def _checkpoint(method: Method, settings: FitConfig, folder: Path) -> dict[str, Any] | None:
    """Return the checkpoint to go on from; None, having said why, where it is of another training."""
    state = read_checkpoint(folder) if machine.rank() == 0 else None  # the first one deletes damaged files
    machine.barrier()
    if machine.rank() != 0:
        state = read_checkpoint(folder)
    if state is None:
        return None
    new, old = settings.model_dump(mode="json"), state["fit"]
    changed = [name for name in PLACE if old.get(name) != new[name]]
    shapes = {name: value.shape for name, value in method.state_dict().items()}
    if not changed and {name: value.shape for name, value in state["method"].items()} != shapes:
        changed = ["its network"]
    if changed and machine.rank() == 0:
        logger.warning(
            "the training in %s begins again: %s changed since its checkpoint of step %d",
            folder,
            ", ".join(changed),
            state["step"],
        )
    return None if changed else state


def _few(loader: DataLoader[Any]) -> Iterator[Batch]:
    return islice(iter(loader), PREPARE_BATCHES)


def _generators(device: torch.device) -> dict[str, Any]:
    """Return the states of this process's generators, as what `torch.load` reads without running code."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    states = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.array(keys, np.int64)), place, has_gauss, gauss],
        "python": list(random.getstate()),
    }
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_generators(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(tuple(states["python"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
