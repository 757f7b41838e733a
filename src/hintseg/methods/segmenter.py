"""Segmenters that learn from labels of pixels: a network that predicts, and a list of objectives that judge it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self, cast

from pydantic import model_validator
from torch import Tensor

from hintseg.config.objective import Objective, Objectives
from hintseg.config.settings import Count, MethodConfig
from hintseg.errors import ConfigError
from hintseg.losses.cross_entropy import CrossEntropy
from hintseg.losses.teacher import TaughtObjective
from hintseg.methods.method import Method
from hintseg.types import Batch, Prediction, Progress, Supervision, Targets


class SegmenterConfig(MethodConfig):
    """Base of the settings of segmenters.

    Attributes:
        objectives: The losses, as blocks of a name, a weight and the objective's own settings, such as
            `[{name: cross_entropy}, {name: soft_margin, weight: 0.5}]` (`hintseg list objectives`). They replace the
            default; losses that belong to a method (`lgsa`: `alpha`) are added by its own settings.
        trust: Whether labels weigh as far as they are trusted: those of tags by how clearly their class leads in the
            pixel, those of marks by what the marks say, those of a person wholly. Off, all weigh alike.
        rounds: How often it is trained. After each round but the last, photos whose labels are made of tags, or spread
            from clicks and strokes, are labelled anew by what was learned, restricted to the classes that they may
            show, and the next round goes on from its weights; where a photo of a single known tag looks like another
            class, nothing is known. What a person said of pixels stays. After the last round it makes the masks that
            people get of these photos.
    """

    task: ClassVar[Literal["segment"]] = "segment"
    objectives: Objectives = (CrossEntropy(),)
    trust: bool = False
    rounds: Count = 1

    @model_validator(mode="after")
    def _learns_from_hints(self) -> Self:
        if all(isinstance(objective, TaughtObjective) for objective in self.objectives):
            names = " and ".join(objective.name for objective in self.objectives)
            raise ValueError(
                f"objectives={names}: its teacher is the segmenter's own average, so nothing that a person said would "
                "be learned; list cross_entropy too"
            )
        return self

    @property
    def needs(self) -> frozenset[Supervision]:
        """The kinds of hints that any of the objectives learns from."""
        return frozenset[Supervision]().union(*(objective.needs for objective in self.objectives))


class Segmenter(Method):
    """A method that learns from labels of pixels. It predicts; what it is to learn say the objectives."""

    supervision = frozenset({Supervision.MASKS})
    config: SegmenterConfig

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What judges the predictions: the recipe's list, and what the method itself adds."""
        return self.config.objectives

    @property
    def objectives_see_labels_alone(self) -> bool:
        """Whether none of them may look at the images."""
        return not any(objective.sees_images for objective in self.objectives)

    def predict(self, images: Tensor, targets: Targets | None = None) -> Prediction:
        """Return what the network says of images, (B, 3, H, W) RGB in 0..1.

        Args:
            images: The images.
            targets: In training what is known of them, for methods that look at it or say more then; None in use.
        """
        raise NotImplementedError

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the losses of all objectives by name.

        Raises:
            ConfigError: The batch has nothing of what an objective needs, or two objectives give a loss of one name.
        """
        for objective in self.objectives:
            objective.check(batch.targets)
        return judge(self.predict(batch.images, batch.targets), self.objectives, batch, progress)

    def segment(self, images: Tensor) -> Tensor:
        """Return logits (B, C, h, w), C = K + 1 with background first."""
        return cast(Tensor, self.predict(images).logits)


def judge(
    seen: Prediction,
    objectives: Iterable[Objective],
    batch: Batch,
    progress: Progress,
    own: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Return a method's `own` losses and those of all objectives, by name.

    Raises:
        ConfigError: The batch has nothing of what an objective needs, or two losses have one name.
    """
    losses = dict(own)
    for objective in objectives:
        objective.check(batch.targets)
        found = objective(seen, batch.targets, batch.images, progress)
        twice = losses.keys() & found.keys()
        if twice:
            raise ConfigError(
                f"objective '{objective.name}' gives a loss named {', '.join(sorted(twice))}, and so does another; "
                "list one of them"
            )
        losses |= found
    return losses
