"""Optimisers, schedules, the training loop and weights on disk."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hintseg.config.settings import BackboneConfig, FitConfig, MethodConfig, TrainerConfig
from hintseg.data.dataset import Item, PhotoDataset, train_loader
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import RunError, WeightsError
from hintseg.methods.cam import Cam, CamConfig
from hintseg.methods.method import Method
from hintseg.nn.backbones import Backbone
from hintseg.training import machine
from hintseg.training.checkpoint import remove_checkpoints
from hintseg.training.fit import fit
from hintseg.training.optim import build_optimizer, learning_rate_factor
from hintseg.training.watch import Watch
from hintseg.training.weights import load_weights, save_weights
from hintseg.types import Batch, Hints, ParameterGroup, Photo, Progress, Supervision, Tags

SETTINGS = FitConfig(
    epochs=3,
    batch_size=2,
    crop=32,
    scale=(1.0, 1.0),
    optimizer="sgd",
    lr=0.1,
    head_lr=5.0,
    weight_decay=0.0,
    warmup=0.0,
)


class Mean(Method):
    """Learns the mean colour: a loss whose optimum is known."""

    supervision = frozenset({Supervision.TAGS})

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.config = MethodConfig(method="mean")
        self.colour = nn.Parameter(torch.zeros(3))
        self.factor = factor
        self.prepared = self.finished = 0
        self.modes: set[bool] = set()

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        self.modes.add(self.training)
        assert 0 <= progress.step < progress.steps
        return {"square": (batch.images.mean(dim=(0, 2, 3)) - self.colour).square().sum() * self.factor}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.colour])]

    def prepare(self, batches: Iterable[Batch]) -> None:
        assert not self.training
        self.prepared = sum(1 for _ in batches)

    def finish(self, batches: Iterable[Batch]) -> None:
        self.finished = sum(1 for _ in batches)


@pytest.fixture
def loader(tmp_path: Path) -> DataLoader[Item]:
    photos = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((32, 32, 3), 40 * i, np.uint8)).save(path)
        photos.append(Photo(str(i), path, Hints(Tags(frozenset({1})))))
    dataset = PhotoDataset(photos, 1, TrainingTransform(32, (1.0, 1.0)))
    return train_loader(dataset, batch_size=2)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_schedule_rises_then_falls_to_zero_without_a_jump() -> None:
    settings = FitConfig(epochs=10, warmup=0.2, schedule="cosine")
    factors = [learning_rate_factor(step, 100, settings) for step in range(101)]
    assert np.argmax(factors) in (18, 19, 20)
    assert factors[-1] == pytest.approx(0, abs=1e-9)
    assert max(abs(np.diff(factors))) < 0.06


def test_groups_get_their_factors_and_frozen_parameters_are_left_out() -> None:
    free, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    groups = [ParameterGroup([frozen]), ParameterGroup([free, frozen], lr_factor=2, weight_decay=0.5, head=True)]
    optimizer = build_optimizer(groups, SETTINGS)
    (group,) = optimizer.param_groups
    assert group["params"] == [free]
    assert (group["lr"], group["weight_decay"]) == (1.0, 0.5)


def test_training_reaches_the_optimum_and_logs_every_step(loader: DataLoader[Item], tmp_path: Path) -> None:
    method, folder = Mean(), tmp_path / "stage"
    folder.mkdir()
    notes = []

    class Notes(Watch):
        def advance(self, note: str = "") -> None:
            notes.append(note)

    steps = fit(
        method, loader, SETTINGS.model_copy(update={"epochs": 30}), TrainerConfig(workers=0), folder, watch=Notes()
    )
    assert steps == 90 == len(rows(folder)) == len(notes)
    assert (method.prepared, method.finished) == (3, 3)
    np.testing.assert_allclose(method.colour.detach(), 100 / 255, atol=0.05)
    first, last = rows(folder)[0], rows(folder)[-1]
    assert float(first["loss"]) > float(last["loss"])
    assert float(last["lr"]) < float(first["lr"])
    assert {path.name for path in folder.iterdir()} == {"log.csv", "last.ckpt", "before.ckpt"}
    remove_checkpoints(folder)
    assert {path.name for path in folder.iterdir()} == {"log.csv"}


@pytest.mark.parametrize("resume", [False, True])
def test_batch_norm_and_dropout_are_in_training_mode(resume: bool, loader: DataLoader[Item], tmp_path: Path) -> None:
    method = Mean()
    fit(method, loader, SETTINGS, TrainerConfig(accelerator="cpu"), tmp_path, resume=resume)
    assert method.modes == {True}
    assert not method.training


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet10t"])
def test_norms_shared_by_several_gpus_keep_their_activations(name: str) -> None:
    """timm's norms hold the activation that follows: without it the features of a MobileNet grow by six digits."""
    torch.manual_seed(0)
    network = Backbone(BackboneConfig(name=name, weights="random")).eval()
    images = torch.rand(1, 3, 64, 64)
    before, names = network(images), list(network.state_dict())
    shared = convert_sync_batchnorm(network)
    assert any(isinstance(part, torch.nn.SyncBatchNorm) for part in shared.modules())
    for one, other in zip(before, shared(images), strict=True):
        torch.testing.assert_close(one, other)
    assert list(shared.state_dict()) == names


def test_tensorboard_gets_every_loss(loader: DataLoader[Item], tmp_path: Path) -> None:
    fit(Mean(), loader, SETTINGS, TrainerConfig(workers=0, logger="tensorboard"), tmp_path)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"square" in events.read_bytes()


def test_accumulated_parts_are_one_step(loader: DataLoader[Item], tmp_path: Path) -> None:
    steps = fit(Mean(), loader, SETTINGS.model_copy(update={"accumulate": 3}), TrainerConfig(workers=0), tmp_path)
    assert steps == 3 == len(rows(tmp_path))


def test_a_loss_that_is_not_finite_stops_with_advice(loader: DataLoader[Item], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not finite at step 0 \(square nan\); no checkpoint.*lower rate"):
        fit(Mean(factor=float("nan")), loader, SETTINGS, TrainerConfig(workers=0), tmp_path)


class Huge(Mean):
    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if progress.step:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return super().losses(batch, progress)


def test_memory_that_runs_out_is_one_sentence_and_other_mistakes_are_not_hidden(
    loader: DataLoader[Item], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"memory ran out while training .*fit\.batch_size \(now 2\).*crop \(now 32\)"):
        fit(Huge(), loader, SETTINGS, TrainerConfig(workers=0), tmp_path)
    assert not machine.out_of_memory(RuntimeError("shapes differ"))
    assert machine.out_of_memory(MemoryError())


def cam(**settings: int) -> Cam:
    return Cam(CamConfig.model_validate({"backbone": {"name": "resnet10t", "weights": "random"} | settings}), 3, True)


def test_weights_build_the_same_network_again(tmp_path: Path) -> None:
    method = cam(levels=4).eval()
    method.feature_scale.factor.fill_(7.0)
    save_weights(method, tmp_path / "m.safetensors", classes=("a", "b", "c"), background=False)
    again, classes, background = load_weights(tmp_path / "m.safetensors")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again.class_maps(images), method.class_maps(images))
    assert (classes, background) == (("a", "b", "c"), False)


def test_broken_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        load_weights(tmp_path / "none.safetensors")
    path = tmp_path / "m.safetensors"
    save_weights(cam(), path, classes=("a", "b", "c"), background=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be read as network weights"):
        load_weights(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="was not written by hintseg"):
        load_weights(path)
    save_weights(cam(), path, classes=("a", "b", "c"), background=True)
    content = path.read_bytes().replace(b"pooling", b"poolign")
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="another version of hintseg \\(settings poolign\\)"):
        load_weights(path)
    save_weights(cam(), path, classes=("a", "b", "c"), background=True)
    path.write_bytes(path.read_bytes().replace(b"classifier.weight", b"klassifier.weight"))
    with pytest.raises(WeightsError, match="another version of hintseg \\(other tensors\\)"):
        load_weights(path)
