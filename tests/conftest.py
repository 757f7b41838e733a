"""One thread per process: tiny tensors gain nothing from more, and on a busy machine threads wait for each other."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # helpers that several test files share
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
