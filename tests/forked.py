"""Commands in processes forked from one that has imported everything: a process each, whose start is free."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from hintseg.__main__ import main

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["forked", "lightning", "timm", "torchvision", "hintseg.cli.app", "hintseg.pipeline.recipe"]
)


def start(words: Sequence[str], said: Path) -> ForkServerProcess:
    """Start `python -m hintseg`, whose words these are; its stderr goes to the file `said`, its stdout nowhere."""
    process = _FORKS.Process(target=_become, args=(list(words[3:]), said))
    process.start()
    return process


def _become(words: list[str], said: Path) -> None:
    """Be the command."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["hintseg", *words]
    main()
