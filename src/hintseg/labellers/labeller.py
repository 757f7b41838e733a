"""Labellers: the hints of one photo become evidence about its pixels. The contract, and how a name becomes a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from hintseg.config.run import FreeMethod
from hintseg.config.settings import DataConfig, FitConfig, MethodConfig
from hintseg.errors import LabelError, ShapeError, join
from hintseg.registry import labellers, resolve
from hintseg.store.instances import Instances
from hintseg.types import BACKGROUND, IGNORE, Hints, Photo, Supervision

if TYPE_CHECKING:
    from hintseg.data.dataset import EpochDataset
    from hintseg.methods.method import Method

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Seen = TypeVar("Seen")
C = TypeVar("C", bound=MethodConfig)


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """What is known about the pixels of one photo.

    Attributes:
        pixels: Labels to learn from, (H, W) uint8: 0 background, 1..K, 255 nothing known.
        trust: How far to believe each of them, (H, W) float32 in 0..1; None: wholly.
        objects: The single objects, where they are told apart. All of a class is then among them.

    Raises:
        ShapeError: The arrays have other sizes or types, or trust is not in 0..1.
    """

    pixels: Bytes
    trust: Floats | None = None
    objects: Instances | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.uint8 or not self.pixels.size:
            raise ShapeError(f"labels of {self.pixels.shape}, {self.pixels.dtype} given; (H, W) uint8 is needed")
        if self.objects is not None and self.objects.size != self.pixels.shape:
            raise ShapeError(f"objects of a photo of {self.objects.size} and labels of {self.pixels.shape} given")
        if (trust := self.trust) is None:
            return
        if trust.shape != self.pixels.shape or trust.dtype != np.float32:
            raise ShapeError(f"trust of {trust.shape}, {trust.dtype} for labels of {self.pixels.shape}; float32 needed")
        if not (trust.min() >= 0 and trust.max() <= 1):
            raise ShapeError(f"trust from {trust.min():g} to {trust.max():g} given; values in 0..1 are needed")

    @property
    def classes(self) -> frozenset[int]:
        """Class ids 1..K that it knows the place of."""
        found = np.unique(self.pixels) if self.objects is None else self.objects.labels
        return frozenset(int(label) for label in found if BACKGROUND < label < IGNORE)

    def complete(self, background: bool) -> Bytes | None:
        """Return a mask to be judged: labels without any 255.

        Where there is background, what nothing is known of is background if objects are told apart (it is a crowd), as
        it would be if nobody had said a word, and if none of the background is known: else the whole photo would become
        the objects in it. Elsewhere it takes the label of the nearest pixel that has one.

        Args:
            background: Whether pixels may belong to no class.

        Returns:
            (H, W) uint8, 0..K; None where nothing is known of any pixel.

        Example:
            >>> Evidence(np.array([[255, 1, 255, 255, 255, 2]], np.uint8)).complete(background=False).tolist()
            [[1, 1, 1, 1, 2, 2]]
            >>> Evidence(np.array([[255, 1, 255, 255, 255, 2]], np.uint8)).complete(background=True).tolist()
            [[0, 1, 0, 0, 0, 2]]
        """
        unknown = self.pixels == IGNORE
        if not unknown.any():
            return self.pixels
        if background and self.objects is not None:
            return np.where(unknown, np.uint8(BACKGROUND), self.pixels)
        if unknown.all():
            return None
        if background and not (self.pixels == BACKGROUND).any():
            return np.where(unknown, np.uint8(BACKGROUND), self.pixels)
        import cv2

        _, nearest = cv2.distanceTransformWithLabels(
            unknown.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        label_of = np.zeros(int(nearest.max()) + 1, np.uint8)
        label_of[nearest[~unknown]] = self.pixels[~unknown]
        mask: Bytes = label_of[nearest]
        return mask


def without_background(evidence: Evidence) -> Evidence:
    """Return the evidence for data in which every pixel has a class: nothing is known where it says background."""
    pixels = np.where(evidence.pixels == BACKGROUND, np.uint8(IGNORE), evidence.pixels)
    return Evidence(pixels, evidence.trust, evidence.objects)


class Labeller(FreeMethod):
    """What labels photos by their hints without learning first. The object is its own settings: a recipe's `propose`.

    To add one, subclass it in one file and name the class in the entry-point group ``hintseg.labellers`` (or, in this
    package, in `hintseg.registry.LABELLERS`). It keeps no state: equal photos and hints give equal evidence.

    Attributes:
        method: The registry name.
        needs: The kinds of hints that it can label by; it is asked about photos that have one of them.
        title: What reports call what it makes; the name if empty.
        sees: Whether it looks at colours. One that does not is given an array of the photo's size, and thus also
            labels photos whose pixels cannot be read.
    """

    needs: ClassVar[frozenset[Supervision]]
    title: ClassVar[str] = ""
    sees: ClassVar[bool] = True

    @property
    def how(self) -> str:
        """How it works, in a few words, for the protocol of a result."""
        return self.title or self.method

    def told(self, data: DataConfig) -> Self:
        """Return the labeller with what it leaves open as the settings of the data have it; by default as it is."""
        return self

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Say what is known about the pixels of a photo.

        Args:
            rgb: The photo, (H, W, 3) uint8; it must not be changed.
            hints: What a person said about it.

        Raises:
            LabelError: The photo has no hint of the kinds that are needed.
        """
        raise NotImplementedError


class LearnedLabeller(Generic[C, Seen]):
    """What must learn before it labels: a `Method` to `propose`, and here what it learns from and how it is read.

    It stands in the table of labellers under the method's name, and gives evidence as a `Labeller` does. Its work on a
    photo has two parts, so that the network looks at a photo while the cores finish the one before.

    Attributes:
        needs: As of a `Labeller`.
        title: As of a `Labeller`.
    """

    needs: ClassVar[frozenset[Supervision]]
    title: ClassVar[str]

    def __init__(self, network: Method, settings: C, classes: int, *, gpu: bool) -> None:
        """Take what was learned.

        Args:
            network: The trained method, in evaluation mode.
            settings: The run's, which may differ from those it was saved with.
            classes: K.
            gpu: Whether the run has one; some `auto` depend on it.
        """
        self.network, self.settings, self.classes, self.gpu = network, settings, classes, gpu

    @classmethod
    def teacher(cls, settings: C) -> Labeller:
        """Return the labeller whose objects it learns from."""
        raise NotImplementedError

    @classmethod
    def side(cls, settings: C, *, gpu: bool) -> int:
        """Return the side of what the network is shown, pixels."""
        raise NotImplementedError

    @classmethod
    def examples(
        cls,
        settings: C,
        fit: FitConfig,
        photos: Sequence[Photo],
        classes: int,
        objects: Callable[[Photo], Instances],
        *,
        gpu: bool,
        seed: int,
    ) -> EpochDataset:
        """Return what it learns from.

        Args:
            settings: The settings.
            fit: How it is trained.
            photos: Photos that the teacher labelled.
            classes: K.
            objects: Returns the teacher's objects of a photo.
            gpu: Whether the run has one.
            seed: The run's seed.
        """
        raise NotImplementedError

    @property
    def how(self) -> str:
        """How it works, in a few words, for the protocol of a result."""
        return self.title

    def look(self, rgb: Bytes, hints: Hints) -> Seen:
        """Let the network look at a photo; see `label`."""
        raise NotImplementedError

    def conclude(self, rgb: Bytes, hints: Hints, seen: Seen) -> tuple[Evidence, Instances | None]:
        """Make evidence of what the network saw.

        Returns:
            The evidence, and the objects before the last step, where there is one that is judged apart.
        """
        raise NotImplementedError

    def label(self, rgb: Bytes, hints: Hints) -> Evidence:
        """Say what is known about the pixels of a photo; see `Labeller.label`."""
        check(self.settings.method, self.needs, hints)
        return self.conclude(rgb, hints, self.look(rgb, hints))[0]


def check(name: str, needs: frozenset[Supervision], hints: Hints) -> None:
    """Refuse a photo that has none of the kinds of hints that a labeller needs.

    Raises:
        LabelError: It has none.
    """
    if not needs & hints.kinds:
        there = join(sorted(hints.kinds)) or "nothing"
        raise LabelError(
            f"labeller '{name}' labels by {' or '.join(sorted(needs))}, and of this photo {there} is given; add such "
            "hints, or choose a labeller for those that are there (`hintseg list labellers`)"
        )


def labeller_class(name: str) -> Any:
    """Return the class of a labeller, of `Labeller` or `LearnedLabeller`, by its registry name.

    Raises:
        ConfigError: There is none by that name.
    """
    return resolve("labeller", name, labellers())
