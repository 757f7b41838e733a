"""Objectives: the losses of a segmenter, as blocks of a recipe. The contract, and how a name becomes an object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationError

from hintseg.config.settings import Settings
from hintseg.errors import ConfigError, did_you_mean
from hintseg.registry import objectives, resolve
from hintseg.types import Prediction, Progress, Supervision, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Objective(Settings):
    """A loss of what a segmenter predicts. The object is its own settings: a recipe lists it as such a block.

    To add one, subclass it in one file and name the class in the entry-point group ``hintseg.objectives`` (or, in this
    package, in `hintseg.registry.OBJECTIVES`). It learns nothing itself and keeps no state.

    Attributes:
        name: The registry name.
        weight: Factor of the loss.
        needs: What photos must have to be learned from. Targets that hold none of it are refused; single photos that
            lack it (pixels all 255, no tag known, no box) must contribute nothing, to the loss or to its gradient.
            Empty: it learns from photos without any hint.
        sees_images: Whether it looks at the images: else kept features of a frozen encoder may stand in for them.
    """

    needs: ClassVar[frozenset[Supervision]]
    sees_images: ClassVar[bool] = True
    name: str
    weight: Annotated[float, Field(ge=0)] = 1.0

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Judge a prediction.

        Args:
            seen: What the segmenter said of the images.
            targets: What is known about them.
            images: (B, 3, H, W) float RGB in 0..1.
            progress: Where the training stands.

        Returns:
            Weighted scalars >= 0 by name, the names of the columns of log.csv.
        """
        raise NotImplementedError

    def check(self, targets: Targets) -> None:
        """Refuse targets that can hold nothing of what is needed.

        Raises:
            ConfigError: They cannot.
        """
        missing = ", ".join(sorted(self.needs - targets.kinds))
        if missing:
            raise ConfigError(
                f"objective '{self.name}' learns from {missing}, but the batch has none; "
                "give masks or run a localizer first, or list other objectives"
            )

    def pixels(self, targets: Targets) -> Tensor:
        """Return the labels of pixels, (B, H, W) uint8.

        Raises:
            ConfigError: There are none.
        """
        self.check(targets)
        if targets.pixels is None:
            raise ConfigError(f"objective '{self.name}' looks at pixels; its `needs` must name masks or strokes")
        return targets.pixels

    def own(self, seen: Prediction, part: str) -> Tensor:
        """Return a part of the prediction that only some segmenters give.

        Raises:
            ConfigError: This one does not.
        """
        if part not in seen.own:
            raise ConfigError(
                f"objective '{self.name}' judges '{part}', which this segmenter does not give; "
                "take it out of segment.objectives, or choose the method it belongs to"
            )
        return seen.own[part]


def _parse(block: Any) -> Any:
    if isinstance(block, Objective):
        return block
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        raise ValueError("an objective is a block with a name, such as {name: cross_entropy}")
    try:
        kind: type[Objective] = resolve("objective", block["name"], objectives())
        return kind.model_validate_json(json.dumps(block), strict=True)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        raise ValueError("; ".join(_sentence(item, block["name"], kind) for item in error.errors())) from error


def _sentence(item: Any, name: str, kind: type[Objective]) -> str:
    key, known = ".".join(map(str, item["loc"])), list(kind.model_fields)
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(key, known) or f". Known here: {', '.join(known)}"
        return f"unknown setting '{key}' of {name}{hint}"
    return f"'{key}' of {name} = {item['input']!r}: {item['msg'][0].lower() + item['msg'][1:]}"


def _each_once(listed: tuple[Objective, ...]) -> tuple[Objective, ...]:
    names = [objective.name for objective in listed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} listed twice; list it once, with the sum of the weights")
    return listed


_Listed = tuple[Annotated[SerializeAsAny[Objective], BeforeValidator(_parse)], ...]

Objectives = Annotated[_Listed, Field(min_length=1), AfterValidator(_each_once)]
"""Objectives in a recipe: blocks with a `name` and settings, each name once, at least one."""

MoreObjectives = Annotated[_Listed, AfterValidator(_each_once)]
"""Objectives beside a method's own losses: there may be none."""
