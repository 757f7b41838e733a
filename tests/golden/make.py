"""Write losses and gradients of every method, to compare two commits on one machine bit for bit.

    python tests/golden/make.py --out before.json        # on one commit
    python tests/golden/make.py --out after.json         # on the other
    cmp before.json after.json                           # or diff: one line a loss, one a parameter

`--kept` writes tests/golden/golden.json anew, which the tests compare with a tolerance on any machine. Do so only where
losses are meant to change.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from golden import cases


def main(arguments: list[str] | None = None) -> None:
    """Write one of the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="file for exact values: checksums of every bit of each gradient")
    target.add_argument("--kept", action="store_true", help="write the values that the tests compare with")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    of_gradient = cases.summary if asked.kept else cases.digest
    found = {name: cases.plain(cases.run(case), of_gradient) for name, case in cases.CASES.items()}
    path = cases.KEPT if asked.kept else asked.out
    path.write_text(cases.to_json(found))


if __name__ == "__main__":
    main()
