"""The processes beside the first one: started by it, watched by it, and gone when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from hintseg import signals

PARENT = "HINTSEG_PARENT"
"""Environment variable that tells a process which one started it."""

PAUSE = 0.5
"""Seconds between two looks at the others."""

SPEAKS = 2.0
"""Seconds that a process is given to say the reason itself, where one beside it has failed."""


def start(count: int) -> None:
    """Start the other `count` - 1 processes of this machine with this one's command, as torchrun would, and watch them.

    MASTER_ADDR, MASTER_PORT and NODE_RANK are the caller's to set.
    """
    import __main__

    spec = getattr(__main__, "__spec__", None)
    begin = [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name.removesuffix(".__main__")]  # noqa: PTH100
    if sys.platform == "win32" and not Path(sys.argv[0]).is_file():  # `hintseg` is hintseg.exe there
        begin = ["-m", "hintseg"]
    others = [
        subprocess.Popen(
            [sys.executable, *begin, *sys.argv[1:]],
            env=os.environ | {"LOCAL_RANK": str(rank), PARENT: str(os.getpid())},
        )
        for rank in range(1, count)
    ]
    os.environ["LOCAL_RANK"] = "0"
    threading.Thread(target=_watch, args=(others,), name="hintseg-processes", daemon=True).start()


def watch_parent() -> None:
    """End this process as soon as the one that started it is gone."""
    if PARENT in os.environ and os.getppid() != os.getpid():
        threading.Thread(target=_follow, args=(int(os.environ[PARENT]),), daemon=True).start()


def wait_for_reason() -> None:
    """After an error: end here, silently, if a process beside this one has failed and was the cause of it."""
    until = time.monotonic() + 2 * SPEAKS + 2 * PAUSE
    while time.monotonic() < until and not signals.requested():
        time.sleep(0.1)
    signals.end()


def _watch(others: list[subprocess.Popen[bytes]]) -> None:
    codes = [other.poll() for other in others]
    while None in codes and not any(codes):
        time.sleep(PAUSE)
        codes = [other.poll() for other in others]
    for rank, code in enumerate(codes, start=1):
        if code:
            _say(rank, len(others) + 1, code)
            return


def _say(rank: int, count: int, code: int) -> None:
    if code in (130, 143):  # it was asked to end, and so are all
        signals.request(code, "stopped by Ctrl-C" if code == 130 else "stopped by SIGTERM")
    elif code > 0:  # it has said why
        time.sleep(SPEAKS)  # or this process says it
        signals.request(2)
    else:
        signals.request(2, f"error: process {rank} (of 0 to {count - 1}) was killed by signal {-code}")


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PAUSE)
    signals.request(2)
