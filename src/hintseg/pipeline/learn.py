"""Train the network of a stage, unless its weights are there already."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from hintseg.config.auto import Facts, resolve_fit
from hintseg.config.run import RunConfig
from hintseg.config.settings import LOCALIZER, FitConfig, MethodConfig
from hintseg.data.dataset import EpochDataset, train_loader
from hintseg.errors import WeightsError
from hintseg.methods.method import Method
from hintseg.nn.encoders import Encoder
from hintseg.registry import methods, resolve
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Stage
from hintseg.training import machine
from hintseg.training.checkpoint import remove_checkpoints
from hintseg.training.fit import fit
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights, read_facts, save_weights


def learn(
    run: RunFolder,
    stage: Stage,
    settings: MethodConfig,
    config: RunConfig,
    watch: Watch,
    *,
    examples: int,
    side: int,
    dataset: Callable[[FitConfig, Method], EpochDataset],
    wrap: Callable[[Method], Method] = lambda method: method,
    after_epoch: Callable[[Method, int, int], None] | None = None,
    start: Path | None = None,
) -> Method:
    """Build a method and train it; a stage that has weights gives those, in evaluation mode.

    The weights are kept before the manifest tells of them, and the checkpoint goes last: a stop in between loses
    nothing, and what goes on is what was saved.

    Args:
        run: The run folder; weights, log and checkpoint go to the stage's folder.
        stage: Name of the stage.
        settings: The method's settings; `auto` is resolved here.
        config: The run's settings.
        watch: Told about the progress.
        examples: Examples that an epoch shows.
        side: Their typical shorter side, pixels.
        dataset: Builds the data from the resolved training settings, for the untrained method.
        wrap: Puts around the method what trains it; what is kept is the method alone.
        after_epoch: Called with the method, the epoch and the steps done; see `hintseg.training.fit.fit`.
        start: Weights of the same method that the training begins with; None: those of the run `config.start`, or it
            begins afresh.

    Raises:
        WeightsError: Those weights are of another network.
    """
    folder = run.stage(stage)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        _train(run, stage, settings, config, watch, examples, side, dataset, wrap, after_epoch, start)
    if machine.rank() == 0:
        facts = read_facts(weights)
        run.update_stage(stage, steps=facts.steps, fit=facts.config["fit"], skipped=facts.skipped)
        remove_checkpoints(folder)
    machine.barrier()
    method = load_weights(weights)[0]
    kept = {"backbone": method.config.backbone, "fit": method.config.fit}  # resolved when it was trained
    method.config = settings.model_copy(update=kept)  # what reads it out may have changed since
    return method


def _train(
    run: RunFolder,
    stage: Stage,
    settings: MethodConfig,
    config: RunConfig,
    watch: Watch,
    examples: int,
    side: int,
    dataset: Callable[[FitConfig, Method], EpochDataset],
    wrap: Callable[[Method], Method],
    after_epoch: Callable[[Method, int, int], None] | None,
    start: Path | None,
) -> None:
    folder = run.stage(stage)
    kind: type[Method] = resolve("method", settings.method, methods())
    torch.manual_seed(config.seed)
    np.random.seed(config.seed % 2**32)  # noqa: NPY002  a library may draw from it
    random.seed(config.seed)
    facts = Facts(photos=examples, side=side, pretrained=False, gpu=machine.device(config.trainer).type == "cuda")
    crop = resolve_fit(settings, facts).crop  # networks may depend on it; the rest depends on the network's weights
    settings = settings.model_copy(update={"fit": settings.fit.model_copy(update={"crop": crop})})
    method = _build(kind, settings, run)
    start = start or _of_start(config, stage, settings)
    if start is not None:
        try:
            method.load_state_dict(load_weights(start)[0].state_dict())
        except RuntimeError as error:  # torch names every tensor: too many to read
            raise WeightsError(
                f"{start} holds another network than {stage} has now; leave `start` out, or set its backbone and "
                "settings as they were"
            ) from error
    learned = bool(getattr(getattr(method, "backbone", None), "pretrained", False))
    resolved = resolve_fit(settings, replace(facts, pretrained=learned))
    method.config = settings.model_copy(update={"fit": resolved})
    together = resolved.accumulate * machine.devices(config.trainer) * config.trainer.num_nodes
    data = dataset(resolved, method)
    loader = train_loader(
        data, batch_size=max(1, int(resolved.batch_size) // together), workers=machine.workers(config.trainer)
    )
    call = None if after_epoch is None else partial(after_epoch, method)
    steps = fit(
        wrap(method),
        loader,
        resolved,
        config.trainer,
        folder,
        watch=watch,
        resume=True,
        prepare=start is None,
        after_epoch=call,
    )
    found = {id for part in machine.gather(data.skipped) for id in part}
    if machine.rank() == 0:
        save_weights(
            method,
            folder / "model.safetensors",
            classes=run.classes,
            background=run.background,
            steps=steps,
            skipped=list(dict.fromkeys(photo.id for photo in data.photos if photo.id in found)),
        )
    machine.barrier()


def _of_start(config: RunConfig, stage: Stage, settings: MethodConfig) -> Path | None:
    """Return the weights of a stage in the run that this one starts from, where that has the same method."""
    path: Path | None = None if config.start is None else config.start / stage / "model.safetensors"
    if path is None or not path.is_file() or read_facts(path).config["method"] != settings.method:
        return None
    return path


def _build(kind: type[Method], settings: MethodConfig, run: RunFolder) -> Method:
    """Build a method; `backbone.weights=localize` stands for a file of this run, wherever the run lies."""
    named = settings.backbone
    if named.weights != LOCALIZER:
        return kind(settings, len(run.classes), run.background)
    file = str(run.stage("localize") / "model.safetensors")
    filled = settings.model_copy(update={"backbone": named.model_copy(update={"weights": file})})
    method = kind(filled, len(run.classes), run.background)
    network = cast(Encoder, method.backbone)
    network.config = network.config.model_copy(update={"weights": LOCALIZER})
    return method
