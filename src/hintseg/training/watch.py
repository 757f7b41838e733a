"""How long work tells people where it stands. The library logs; the command line draws bars."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger("hintseg")
T = TypeVar("T")


class Watch:
    """Receives the progress of a run: one task at a time, one line when something ends. This one only logs lines."""

    def start(self, task: str, total: int) -> None:
        """Begin `task` of `total` units of work."""

    def advance(self, note: str = "") -> None:
        """One more unit is done; `note` is a short status such as a loss."""

    def stop(self) -> None:
        """End the task."""

    def line(self, text: str) -> None:
        """Say one finished thing: what, how many, how good, how long, where."""
        logger.info(text)

    def each(self, task: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Yield `items`, advancing once per item."""
        self.start(task, total)
        try:
            for item in items:
                yield item
                self.advance()
        finally:
            self.stop()
