"""Progress on a terminal: one bar per task, one line when something ends."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hintseg.training.watch import Watch


class Bars(Watch):
    """Draws with rich: bars only where a person looks on, lines always."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None

    def start(self, task: str, total: int) -> None:
        """Begin a bar."""
        self.stop()
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
        """Move the bar on by one."""
        if self.bar is not None:
            self.bar.update(self.task, advance=1, note=note)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def line(self, text: str) -> None:
        """Print one finished thing."""
        self.stop()
        self.console.print(text, highlight=False, markup=False)
