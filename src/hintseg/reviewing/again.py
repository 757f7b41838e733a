"""Training again from what a person said, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hintseg.errors import RunError
from hintseg.files.atomic import write_json
from hintseg.files.lock import is_busy, is_lent, lend
from hintseg.reviewing.compare import differences
from hintseg.reviewing.storage import REVIEW
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Facts, read_checked

SAID = 6
"""Last lines of the log that are shown."""


def next_run(run: Path) -> Path:
    """Return the folder of the run after this one: its name with the next free number.

    Example:
        >>> next_run(getfixture("tmp_path") / "first").name
        'first-2'
    """
    name, _, number = run.name.rpartition("-")
    base, count = (name, int(number)) if name and number.isdecimal() else (run.name, 1)
    while (found := run.with_name(f"{base}-{(count := count + 1)}")).exists():
        pass
    return found


class _Begun(Facts):
    """``RUN/review/again.json``: the run that was begun last."""

    out: Path


class Again:
    """Trains again at a click: ``hintseg train --from-review RUN``; it goes on when the page is closed.

    ``RUN/review/again.json`` says which run was begun, and ``RUN/review/again.log`` what it said. Another server that
    began it may be gone: then the log, which the training holds, or the lock of its folder say that it still runs.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.folder = run.path / REVIEW
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> dict[str, Any]:
        """Begin, and return the status.

        Raises:
            RunError: It is being trained already.
        """
        if self._running(self.out()):
            raise RunError("it is being trained already; wait for it")
        out = next_run(self.run.path.resolve())
        write_json(self.folder / "again.json", {"out": str(out)})
        command = [sys.executable, "-m", "hintseg", "train", "--from-review", str(self.run.path), "--out", str(out)]
        with (self.folder / "again.log").open("wb") as log:
            lend(log)
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return what is being trained, how far it is, and the results before and after."""
        out = self.out()
        if out is None:
            return {"state": "none"}
        log = self.folder / "again.log"
        lines = log.read_text("utf-8", "replace").splitlines()[-SAID:] if log.is_file() else []
        running = self._running(out)
        done = (out / "report.html").is_file() and not running
        state = "done" if done else "running" if running else "stopped"
        go_on = f"hintseg train --from-review {self.run.path} --out {out} --resume"
        return {
            "state": state,
            "out": str(out),
            "said": lines,
            "before": _results(self.run),
            "after": _results(RunFolder(out)) if done else [],
            "changed": list(differences(self.run, RunFolder(out))) if done else [],
            "command": f"hintseg review {out}" if done else go_on,
        }

    def _running(self, out: Path | None) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        return out is not None and (is_lent(self.folder / "again.log") or is_busy(out))

    def out(self) -> Path | None:
        """Return the run that was begun last; None where there is none."""
        path = self.folder / "again.json"
        return read_checked(path, _Begun).out if path.is_file() else None

    def masks(self) -> Path | None:
        """Return the masks of the new run; None where it has none yet."""
        out = self.out()
        if out is None or not (out / "manifest.json").is_file():
            return None
        made = RunFolder(out).masks_of_photos()
        return None if made is None else made.folder


def _results(run: RunFolder) -> list[dict[str, Any]]:
    rows = run.metrics if (run.path / "metrics.json").is_file() else []
    return [{"kind": r.kind, "split": r.split, "photos": r.photos, "miou": r.miou} for r in rows if not r.oracle]
