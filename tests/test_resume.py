"""Runs that are killed, stopped or out of disk: nothing is lost, nothing hangs, and what they end with is the same."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import hintseg
from forked import start
from hintseg.config.settings import FitConfig, MethodConfig, TrainerConfig
from hintseg.data.dataset import Item, PhotoDataset, train_loader
from hintseg.data.shapes import write_shapes
from hintseg.data.transforms import TrainingTransform
from hintseg.errors import RunError
from hintseg.files.atomic import whole_file
from hintseg.methods.method import Method
from hintseg.training import checkpoint
from hintseg.training.checkpoint import BEFORE, LAST, read_checkpoint, write_checkpoint
from hintseg.training.fit import fit
from hintseg.training.watch import Watch
from hintseg.types import Batch, Hints, ParameterGroup, Photo, Progress, Supervision, Tags
from made import given, of

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from kills import command, differing

SETTINGS = FitConfig(
    epochs=3,
    batch_size=2,
    crop=32,
    scale=(1.0, 1.0),
    optimizer="adamw",
    lr=0.1,
    head_lr=1.0,
    weight_decay=0.0,
    warmup=0.0,
)
SIX = 6
"""Steps of an epoch: twelve photos, two at a time."""


class Guess(Method):
    """Learns the mean colour through dropout, and can be told to fail."""

    supervision = frozenset({Supervision.TAGS})

    def __init__(
        self, *, stop_at: int | None = None, nan_at: int | None = None, weight_nan_at: int | None = None
    ) -> None:
        super().__init__()
        self.config = MethodConfig(method="guess")
        self.colour = nn.Parameter(torch.zeros(3, 8))
        self.stop_at, self.nan_at, self.weight_nan_at = stop_at, nan_at, weight_nan_at

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if progress.step == self.stop_at:
            raise KeyboardInterrupt
        if progress.step == self.weight_nan_at:
            self.colour.data[0, 0] = torch.nan  # dropout may hide it from the loss
            return {"square": self.colour[1:].square().sum()}
        guess = nn.functional.dropout(self.colour, 0.5, self.training).mean(dim=1)
        noise = float(np.random.rand()) + random.random()  # noqa: NPY002
        factor = torch.nan if progress.step == self.nan_at else 1.0
        return {"square": (batch.images.mean(dim=(0, 2, 3)) - guess + 0.01 * noise).square().sum() * factor}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.colour])]


@pytest.fixture
def loader(tmp_path: Path) -> DataLoader[Item]:
    photos = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((32, 32, 3), 20 * i, np.uint8)).save(path)
        photos.append(Photo(str(i), path, Hints(Tags.complete({1}, 1))))
    (tmp_path / "5.png").write_bytes(b"no photo")
    dataset = PhotoDataset(photos, 1, TrainingTransform(32, (1.0, 1.0)))
    return train_loader(dataset, batch_size=2)


def train(
    loader: DataLoader[Item], folder: Path, method: Guess, settings: FitConfig = SETTINGS, minutes: float = 1e-6
) -> Tensor:
    folder.mkdir(exist_ok=True)
    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(0)
    trainer = TrainerConfig(accelerator="cpu", workers=0, precision="32-true", checkpoint_minutes=minutes)
    fit(method, loader, settings, trainer, folder, resume=True, watch=Watch())
    return method.colour.detach().clone()


@pytest.mark.parametrize("at", [1, 5, 6, 14, 17])
@pytest.mark.parametrize("minutes", [1e-6, 5])
def test_a_training_that_went_on_ends_with_the_same_bits(
    loader: DataLoader[Item], tmp_path: Path, at: int, minutes: float
) -> None:
    whole = train(loader, tmp_path / "whole", Guess())
    with pytest.raises(KeyboardInterrupt):
        train(loader, tmp_path / "stopped", Guess(stop_at=at), minutes=minutes)
    state = read_checkpoint(tmp_path / "stopped")
    assert (state["step"] if state else 0) == (at if minutes < 1 else at // SIX * SIX)
    of(PhotoDataset, loader.dataset)._broken.zero_()  # a process that knows of no broken photo yet
    assert torch.equal(train(loader, tmp_path / "stopped", Guess()), whole)
    logs = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    assert of(PhotoDataset, loader.dataset).skipped == ["5"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    loader: DataLoader[Item], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(loader, tmp_path / "whole", Guess())
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(loader, folder, Guess(stop_at=8))
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-7])
    assert torch.equal(train(loader, folder, Guess()), whole)
    assert "is damaged; going on from the one before, of step 7" in caplog.text


def test_where_all_checkpoints_are_damaged_the_training_begins_again(
    loader: DataLoader[Item], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(loader, tmp_path / "whole", Guess())
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(loader, folder, Guess(stop_at=8))
    for name in (LAST, BEFORE):
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)
    assert torch.equal(train(loader, folder, Guess()), whole)
    assert "damaged; the training of this stage begins again" in caplog.text


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "harm"),))

    write_checkpoint(tmp_path, {"step": 1, "method": Harm()})
    assert read_checkpoint(tmp_path) is None
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_keeps_the_checkpoint_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, {"step": 1, "weights": torch.zeros(2**18)})

    @contextmanager
    def full(path: Path) -> Iterator[BinaryIO]:
        with whole_file(path) as file:
            yield file
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "whole_file", full)
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    with pytest.raises(RunError, match=r"disk is full; about 1 MiB are needed in .*--resume"):
        write_checkpoint(tmp_path, {"step": 2, "weights": torch.zeros(2**18)})
    monkeypatch.undo()
    assert given(read_checkpoint(tmp_path))["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


@pytest.mark.parametrize("at", [8, 17])
def test_nan_stops_at_its_step_and_a_lower_rate_goes_on(loader: DataLoader[Item], tmp_path: Path, at: int) -> None:
    folder = tmp_path / "localize"
    with pytest.raises(
        RunError, match=rf"not finite at step {at} \(square nan\).*of step {at}.*--resume localize.fit.lr="
    ):
        train(loader, folder, Guess(nan_at=at))
    assert torch.isfinite(train(loader, folder, Guess(), SETTINGS.model_copy(update={"lr": 0.01}))).all()
    rates = [float(line.split(",")[2]) for line in (folder / "log.csv").read_text().splitlines()[1:]]
    assert len(rates) == 18
    assert rates[at] < rates[at - 1] / 5


@pytest.mark.parametrize("at", [8, 17])
def test_weights_that_are_not_finite_are_never_saved(loader: DataLoader[Item], tmp_path: Path, at: int) -> None:
    with pytest.raises(RunError, match=rf"weights are not finite after step {at} \(colour\); the last good"):
        train(loader, tmp_path / "localize", Guess(weight_nan_at=at))
    state = read_checkpoint(tmp_path / "localize")
    assert given(state)["step"] == at
    assert torch.isfinite(given(state)["method"]["colour"]).all()


def test_other_batches_begin_the_stage_again(
    loader: DataLoader[Item], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(KeyboardInterrupt):
        train(loader, tmp_path / "stage", Guess(stop_at=8))
    train(loader, tmp_path / "stage", Guess(), SETTINGS.model_copy(update={"epochs": 2}))
    assert "begins again: epochs changed since its checkpoint of step 8" in caplog.text
    assert len((tmp_path / "stage" / "log.csv").read_text().splitlines()) == 13


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_shapes(folder / "run-photos", train=10, val=2, size=48)  # where `demo` looks for them
    return folder / "run-photos"


STAGES = {
    "vwe": ("localize", "refine", "segment"),
    "bmp": ("segment",),
    "boxes": ("propose", "segment"),
    "demo": ("localize", "refine", "segment"),
}


@pytest.mark.parametrize("recipe", STAGES)
def test_a_run_that_is_killed_in_every_stage_ends_with_the_same_files(recipe: str, photos: Path) -> None:
    out, chance = photos.with_name("run"), random.Random(recipe)
    begin, said = command(recipe, photos, out), photos.with_name("said")
    finish(begin, said)
    whole = out.rename(out.with_name(f"{recipe}-whole"))
    again: list[str] = []
    for stage in STAGES[recipe]:
        kill_in(out / stage, [*begin, *again], said, chance.uniform(0.0, 1.0))
        again = ["--resume"]
    finish([*begin, *again], said)
    assert not differing(whole, out)
    out.rename(out.with_name(f"{recipe}-killed"))


def finish(words: list[str], said: Path) -> None:
    """Let a run come to its end."""
    process = start(words, said)
    process.join()
    assert process.exitcode == 0, said.read_text()


def kill_in(stage: Path, words: list[str], said: Path, seconds: float) -> None:
    """Start a run and kill it some seconds after it began a stage."""
    process = start(words, said)
    while not stage.is_dir():
        assert process.is_alive(), said.read_text()
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.join()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, 0.0),
        (signal.SIGTERM, 0.4),
        (signal.SIGINT, 1.5),
        (signal.SIGINT, "training"),
        (signal.SIGTERM, "training"),
    ],
)
def test_a_signal_ends_in_one_sentence(
    number: signal.Signals, moment: float | str, photos: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command("bmp", photos, tmp_path / "run", ["segment.fit.epochs=500"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not hears(process.pid) or (moment == "training" and not (tmp_path / "run" / "segment" / LAST).exists()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    time.sleep(moment if isinstance(moment, float) else 0.0)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    if moment == "training":
        warned = "".join(f"{verdict}\n" for verdict in hintseg.check(photos).verdicts)
        assert said == f"{warned}stopped by {name}; `--resume` goes on from here\n"
    else:
        assert said == f"stopped by {name}\n"


def hears(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("swallow", ["__del__", "except"])
def test_a_swallowed_signal_still_ends_the_command(swallow: str) -> None:
    words = {
        "__del__": "class A:\n def __del__(self):\n  os.kill(os.getpid(), 15)\n  time.sleep(9)\na = A(); del a\n",
        "except": "try:\n os.kill(os.getpid(), 15)\n time.sleep(9)\nexcept BaseException:\n pass\n",
    }[swallow]
    script = f"import os, time\nfrom hintseg import signals\nsignals.listen()\n{words}signals.end()\nprint('went on')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "stopped by SIGTERM\n")


def test_a_killed_process_ends_all_and_the_run_resumes(photos: Path, tmp_path: Path) -> None:
    begin = command(
        "bmp", photos, tmp_path / "run", ["trainer.devices=2", "segment.fit.epochs=12", "trainer.checkpoint_minutes=5"]
    )
    process = subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "segment" / LAST).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    children = {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}
    (other,) = (pid for pid in children if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(other, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.endswith("error: process 1 (of 0 to 1) was killed by signal 9; `--resume` goes on from here\n")
    assert "Traceback" not in said
    again = subprocess.run([*begin, "--resume"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
