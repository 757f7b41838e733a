"""Progress: on a terminal one bar per task, elsewhere a line a minute, and one line when something ends."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hintseg.training.watch import Watch

PAUSE = 60.0
"""Seconds between two lines on how far a task is, where no bar is drawn."""


class Bars(Watch):
    """Draws with rich: bars only where a person looks on, lines always."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.said = time.monotonic()

    def start(self, task: str, total: int) -> None:
        """Begin a bar."""
        self.stop()
        self.named, self.total, self.done, self.began = task, total, 0, time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.bar.start()
        self.task = self.bar.add_task(task, total=total, note="")

    def advance(self, note: str = "") -> None:
        """Move the bar on by one; where none is drawn, say how far the task is, once a minute."""
        if self.bar is None:
            return
        self.bar.update(self.task, advance=1, note=note)
        self.done += 1
        now = time.monotonic()
        if not self.console.is_terminal and now - self.said >= PAUSE:
            self.said = now
            left = (now - self.began) / self.done * (self.total - self.done)
            parts = [f"{self.named}: {self.done} of {self.total}", note, f"about {_duration(left)} left"]
            self.console.print(", ".join(filter(None, parts)), highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def line(self, text: str) -> None:
        """Print one finished thing."""
        self.stop()
        self.console.print(text, highlight=False, markup=False)


def _duration(seconds: float) -> str:
    """Say how long, in the unit that fits.

    Example:
        >>> _duration(42.3), _duration(400), _duration(9000)
        ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
