"""The contract of what wraps the training of a localizer: a block of settings beside it, found by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hintseg.config.run import RunConfig
from hintseg.config.settings import WrapperConfig
from hintseg.data.sources import SourcePool
from hintseg.methods.method import Method
from hintseg.run.folder import RunFolder
from hintseg.types import Photo


class Wrapper:
    """What surrounds a localizer while it is trained; what is kept afterwards is the localizer alone.

    Built as ``Wrapper(run, config, photos)`` when its baseline, where it wants one, is finished.

    Attributes:
        sources: Photos that a batch brings along, paired to its own (`Batch.source`); None: none.
    """

    Config: ClassVar[type[WrapperConfig]]
    sources: SourcePool | None

    @classmethod
    def check(cls, config: RunConfig, photos: Sequence[Photo], classes: Sequence[str]) -> None:
        """Refuse data it cannot learn from, before anything is written or trained.

        Raises:
            HintsegError: What is missing.
        """

    def __init__(self, run: RunFolder, config: RunConfig, photos: Sequence[Photo]) -> None:
        """Open what it needs.

        Args:
            run: The run folder.
            config: Its settings.
            photos: The training photos.
        """
        raise NotImplementedError

    def masks(self, photo: Photo) -> npt.NDArray[np.uint8] | None:
        """Return the mask that a batch brings along with a photo, (H, W); None: there is none."""
        raise NotImplementedError

    def wrap(self, method: Method) -> Method:
        """Return what is trained in place of the localizer."""
        raise NotImplementedError

    def draw(self, method: Method) -> None:
        """Write its own pictures of the trained localizer, and what the report says of them: see `Shown`."""
