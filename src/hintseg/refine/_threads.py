"""One thread setting for torch and numba."""

from __future__ import annotations

import numba
import torch


def use_torch_threads() -> None:
    """Let numba's parallel loops use as many threads as torch does (`torch.set_num_threads`)."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
