"""What a command loads, how its threads wait, and how it tells of itself where nobody looks on."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import hintseg
from hintseg import __main__ as program
from hintseg.bench import startup
from hintseg.cli.watch import Bars
from hintseg.data.shapes import write_shapes
from hintseg.errors import ConfigError


def loaded(code: str) -> set[str]:
    """Return the modules that a fresh process has after running code."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(said.stdout.split())


def test_masks_and_reports_are_written_without_torch() -> None:
    modules = loaded("import hintseg.cli.app, hintseg.pipeline.output, hintseg.reporting, hintseg.evaluation.folders")
    assert "hintseg.pipeline.output" in modules
    assert not {"torch", "timm", "torchvision", "lightning"} & modules


def test_masks_and_report_of_a_run_need_no_torch(tmp_path: Path) -> None:
    """What is imported while they work counts too: settings of methods would bring their networks."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    write_shapes(photos, train=2, val=1, size=32)
    hintseg.train(photos, run, recipe="boxes", settings=["propose.method=grabcut", "segment=null"])
    modules = loaded(
        f"import hintseg; hintseg.masks({str(run)!r}, {str(tmp_path / 'masks')!r}); hintseg.report({str(run)!r})"
    )
    assert len(list((tmp_path / "masks" / "png").glob("*.png"))) == 2
    assert "hintseg.pipeline.photo_masks" in modules
    assert not {"torch", "timm", "torchvision", "lightning"} & modules


def test_networks_are_loaded_without_lightning_and_torchs_compiler() -> None:
    modules = loaded("import hintseg.pipeline.recipe, hintseg.methods.deeplab, hintseg.nn.vit, hintseg.exporting")
    assert {"torch", "timm", "torchvision"} <= modules
    assert not {"lightning", "torch._dynamo", "torch._dynamo.utils", "sympy"} & modules


def test_what_was_left_out_works_when_it_is_used() -> None:
    """RoIAlign may be compiled, and a function of timm is kept from the compiler, as without hintseg."""
    code = """
import hintseg.lean
import torch
from timm.layers import disable_compiler
from torchvision.ops import roi_align
box = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
image = torch.arange(16.0).view(1, 1, 4, 4)
assert roi_align(image, box, 1).shape == (1, 1, 1, 1)
assert disable_compiler(lambda value: value + 1)(1) == 2
assert torch.compiler.disable.__module__ == "torch.compiler"
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
from torchvision.ops.roi_align import is_compile_supported
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""
    assert "torch._dynamo" in loaded(code)


def test_other_names_of_the_compiler_are_found_while_it_is_left_out() -> None:
    code = """
from hintseg.lean import compiler_later
import sys
with compiler_later():
    from torch._dynamo.utils import counters
    assert sys.modules["torch._dynamo.utils"].counters is counters
assert sys.modules["torch._dynamo.utils"].counters is counters
"""
    assert "torch._dynamo" in loaded(code)


def test_threads_wait_asleep_unless_the_user_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in program.WAITING:
        monkeypatch.delenv(name, raising=False)
    program.wait_passively()
    assert {name: os.environ[name] for name in program.WAITING} == program.WAITING
    for name in program.WAITING:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    program.wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_a_minute_where_nobody_looks_on(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("hintseg.cli.watch.time.monotonic", lambda: clock[0])
    said = io.StringIO()
    bars = Bars(Console(file=said, force_terminal=terminal, width=40))
    bars.start("training localize", 40)
    for _ in range(20):  # ten seconds each
        clock[0] += 10
        bars.advance("loss 0.125")
    bars.stop()
    lines = [line for line in said.getvalue().splitlines() if " left" in line and " of " in line]
    if terminal:
        assert lines == []
    else:
        assert lines == [
            "training localize: 6 of 40, loss 0.125, about 6 min left",
            "training localize: 12 of 40, loss 0.125, about 5 min left",
            "training localize: 18 of 40, loss 0.125, about 4 min left",
        ]


def test_commands_are_measured_in_fresh_processes() -> None:
    found = list(startup.starts(["list", "masks"], repeats=1))
    assert [row.command for row in found] == ["list", "masks"]
    assert all(row.runs == 1 and row.cpu > 0 and row.seconds > 0 for row in found)
    with pytest.raises(ConfigError, match="no command 'predikt'; did you mean 'predict'"):
        next(startup.starts(["predikt"]))


def test_every_measured_command_exists(tmp_path: Path) -> None:
    from hintseg.cli.app import app

    assert set(startup._jobs(tmp_path)) <= {command.name for command in app.registered_commands}
