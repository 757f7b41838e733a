"""Train a method with Lightning: the only place that knows Lightning's names."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import LayerSync
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hintseg.config.settings import FitConfig, TrainerConfig
from hintseg.data.dataset import EpochSampler
from hintseg.errors import RunError
from hintseg.methods.method import Method
from hintseg.training import machine
from hintseg.training.optim import build_optimizer, learning_rate_factor
from hintseg.training.watch import Watch
from hintseg.types import Batch, Progress

PREPARE_BATCHES = 16
"""Batches a method may look at before its first and after its last step."""


class FitModule(LightningModule):
    """The one training adapter: sums a method's losses, steps its optimiser."""

    def __init__(self, method: Method, fit: FitConfig, loader: DataLoader[Any]) -> None:
        super().__init__()
        self.loader = loader
        self.method = method
        self.fit = fit
        self.steps = 0
        self.latest: dict[str, float] = {}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the sum of the method's losses."""
        losses = self.method.losses(batch, Progress(self.global_step, self.steps))
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            parts = ", ".join(f"{name} {value.item():.3g}" for name, value in losses.items())
            raise RunError(
                f"the loss is not finite at step {self.global_step} ({parts}); "
                f"lower fit.lr (now {self.fit.lr}) or set fit.clip=1.0"
            )
        self.latest = {"loss": total.item()} | {name: value.item() for name, value in losses.items()}
        if self.logger is not None:
            self.log_dict(self.latest, batch_size=len(batch.ids))
        return total

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Draw the views of the epoch that comes next: Lightning makes the first iterator before it says which."""
        cast(EpochSampler, self.loader.sampler).set_epoch(checkpoint["epoch"] + 1)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its per-step schedule."""
        self.steps = int(self.trainer.estimated_stepping_batches)
        optimizer = build_optimizer(self.method.parameter_groups(), self.fit)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.steps, self.fit)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Log(Callback):
    """Writes log.csv, one row per optimiser step, and advances the watch."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self.path, self.watch = path, watch
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step and self.path.is_file():  # a resumed run keeps the rows up to its checkpoint
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]  # type: ignore[misc]
        self.watch.start(f"training {self.path.parent.name}", int(trainer.estimated_stepping_batches))
        for _ in self.rows:
            self.watch.advance()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == len(self.rows):
            return  # an accumulated part: no optimiser step yet
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        latest: dict[str, float] = pl_module.latest  # type: ignore[assignment]
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch, "lr": rate} | latest)
        self.watch.advance(f"loss {latest['loss']:.3f}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.write()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.stop()

    def write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class _AfterEpoch(Callback):
    """Calls back after every epoch with the epoch, counted from 0, and the optimiser steps done."""

    def __init__(self, call: Callable[[int, int], None]) -> None:
        self.call = call

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.call(trainer.current_epoch, trainer.global_step)


class SharedNorms(LayerSync):
    """Let batch norm that learns see the photos of all GPUs: there are few on each.

    timm's norms hold their activation; Lightning's own plugin would leave it out.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with its batch norms shared."""
        shared: nn.Module = convert_sync_batchnorm(model)
        return shared

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: evaluated, shared norms are like others."""
        return model


def fit(
    method: Method,
    loader: DataLoader[Any],
    settings: FitConfig,
    trainer: TrainerConfig,
    folder: Path,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    after_epoch: Callable[[int, int], None] | None = None,
) -> int:
    """Train `method` and write ``model.safetensors`` and ``log.csv`` into `folder`.

    A checkpoint of the last finished epoch lies beside them until the training ends.

    Args:
        method: What to train; it is left on the CPU in evaluation mode.
        loader: Batches of `settings.batch_size` / `settings.accumulate` / processes photos.
        settings: Resolved settings, without any `auto`.
        trainer: Where and how Lightning runs.
        folder: The stage's folder; it exists.
        resume: Whether to go on from the checkpoint, if there is one.
        watch: Told about the progress.
        after_epoch: Called by the first process after every epoch with the epoch, counted from 0, and the steps done;
            it must leave the method as it was.

    Returns:
        Optimiser steps done.

    Raises:
        RunError: The loss became infinite or NaN.
    """
    last = folder / "last.ckpt"
    go_on = resume and last.is_file()
    if not go_on:
        method.eval()
        method.prepare(_few(loader))
    method.train()  # Lightning trains in whatever mode it finds
    module = FitModule(method, settings, loader)
    log = _Log(folder / "log.csv", watch or Watch())
    checkpoint = ModelCheckpoint(folder, "last", every_n_epochs=1, save_top_k=1, enable_version_counter=False)
    logger = _tensorboard(folder) if trainer.logger == "tensorboard" else False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    several = machine.devices(trainer) * trainer.num_nodes > 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        runner = Trainer(
            accelerator=trainer.accelerator,
            devices=machine.devices(trainer),
            num_nodes=trainer.num_nodes,
            strategy=_strategy(trainer),
            plugins=[SharedNorms()] if several and machine.device(trainer).type == "cuda" else None,
            precision=machine.precision(trainer),  # type: ignore[arg-type]
            max_epochs=int(settings.epochs),
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.clip,
            callbacks=[log, checkpoint, *([_AfterEpoch(after_epoch)] if after_epoch else [])],
            logger=logger,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        runner.fit(module, loader, ckpt_path=last if go_on else None, weights_only=True)
    method.to("cpu").eval()
    method.finish(_few(loader))
    if runner.is_global_zero:
        log.write()
        last.unlink(missing_ok=True)
    return int(runner.global_step)


def _few(loader: DataLoader[Any]) -> Iterator[Batch]:
    return islice(iter(loader), PREPARE_BATCHES)


def _strategy(trainer: TrainerConfig) -> str:
    if trainer.strategy == "auto" and machine.devices(trainer) * trainer.num_nodes > 1:
        return "ddp_find_unused_parameters_true"
    return trainer.strategy


def _tensorboard(folder: Path) -> TensorBoardLogger:
    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise RunError("trainer.logger=tensorboard needs: pip install 'hintseg[tensorboard]'; or set csv") from error
