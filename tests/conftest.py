"""One thread per process: tiny tensors gain nothing from more, and on a busy machine threads wait for each other."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # helpers that several test files share
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from hintseg.data.shapes import write_shapes
from small_runs import write_squares

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small data set in VOC layout, 8 + 2 photos of 64 pixels; to read only."""
    folder = tmp_path_factory.mktemp("shapes") / "photos"
    write_shapes(folder, train=8, val=2, size=64)
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_squares`, 8 + 4 photos; to read only."""
    return write_squares(tmp_path_factory.mktemp("squares") / "photos")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Return what sets torch's threads for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
