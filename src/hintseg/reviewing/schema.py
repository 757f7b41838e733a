"""What a review keeps of a photo, and what a person may do to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hintseg.run.schema import Facts, Finite, Label
from hintseg.types import Click, Mark, Shape, Stroke

PERSON = "person"
"""The source of marks that a person drew here."""

State = Literal["open", "accepted", "rejected", "skipped"]

Points = Annotated[tuple[Finite, ...], Field(min_length=2, max_length=20_000)]
Width = Annotated[float, Field(ge=1, le=2000)]


class DrawnMark(Facts):
    """A hint that was drawn: a thin line, or one point.

    Attributes:
        label: 1..K; 0: background.
        points: Vertices as ``(x, y, x, y, ...)``, pixels; a single one is a click.
        width: How wide the line is, pixels.
    """

    label: Label
    points: Points
    width: Width = 1.0

    def mark(self) -> Mark[Shape]:
        """Return it as a mark of a person.

        Example:
            >>> DrawnMark(label=2, points=(3, 4)).mark().shape
            Click(x=3.0, y=4.0)
        """
        shape = Click(*self.points) if len(self.points) == 2 else Stroke(self.points, self.width)
        return Mark(self.label, shape, source=PERSON)


class Step(Facts):
    """How things stood after one change.

    Attributes:
        state: What was decided of the mask.
        marks: The hints drawn so far.
        mask: Number of the file of the mask; 0 is the mask of the run as it was first looked at.
    """

    state: State = "open"
    marks: tuple[DrawnMark, ...] = ()
    mask: Annotated[int, Field(ge=0)] = 0


class Document(Facts):
    """``review/photos/ID.json``: all that was done to one photo's mask.

    Attributes:
        revision: Counts the changes, undone ones too: whoever changes an older one is told to look again.
        photo: Digest of the photo's file when it was first looked at.
        size: (height, width), pixels.
        at: The step that counts; those behind it were undone.
        steps: The last changes, the oldest first.
    """

    revision: Annotated[int, Field(ge=0)] = 0
    photo: str
    size: tuple[int, int]
    at: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[tuple[Step, ...], Field(min_length=1)] = (Step(),)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.at >= len(self.steps):
            raise ValueError(f"step {self.at} of {len(self.steps)}")
        return self

    @property
    def now(self) -> Step:
        """The step that counts."""
        return self.steps[self.at]


class Action(Facts):
    """What a person does to a photo.

    Attributes:
        kind: `paint` and `erase` change the mask along a line, `fill` in a box; `stroke` and `click` are hints;
            `accept`, `reject`, `skip` and `reopen` decide; `reset` takes all of it back to the run's mask.
        label: 1..K; 0: background.
        points: Vertices as ``(x, y, x, y, ...)``, pixels; of `fill` two corners.
        width: How wide the line is, pixels.
    """

    kind: Literal[
        "paint", "erase", "fill", "stroke", "click", "accept", "reject", "skip", "reopen", "reset", "undo", "redo"
    ]
    label: Label = 0
    points: Points | None = None
    width: Width = 1.0

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        drawn = self.kind in ("paint", "erase", "fill", "stroke", "click")
        if drawn and (self.points is None or len(self.points) % 2):
            raise ValueError(f"{self.kind} needs points, x, y, x, y, ...")
        if (
            self.points is not None
            and self.kind in ("fill", "click")
            and len(self.points) != 4 - 2 * (self.kind == "click")
        ):
            raise ValueError("fill needs two corners, and click one point")
        return self


DECISIONS: dict[str, State] = {"accept": "accepted", "reject": "rejected", "skip": "skipped", "reopen": "open"}
