"""The verbs of the review: which masks to look at first, the page, other tools; `hintseg.api` has them too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hintseg.files.lock import refuse_busy
from hintseg.run.folder import RunFolder

if TYPE_CHECKING:
    from hintseg.formats.codec import Written
    from hintseg.quality.review_list import ReviewList
    from hintseg.reviewing.exchange import Taken
    from hintseg.training.watch import Watch

logger = logging.getLogger("hintseg")


def review_list(run: Path | str, *, network: bool = True, watch: Watch | None = None) -> ReviewList:
    """Say which masks of a run to look at first, without truth; see `hintseg.quality.review_list`.

    Args:
        run: Run folder with masks.
        network: Whether the run's segmenter, where it has one, is asked again about each photo, once; see
            `hintseg.pipeline.ask_again`. Without, its answers are used where they are there already.
        watch: Told about the progress.

    Returns:
        The photos, the first to mend first, with what is doubtful about each.

    Raises:
        RunError: The run has no masks, or is being written to, or a file in it is broken.
    """
    from hintseg.quality.kept import kept_list
    from hintseg.training.watch import Watch

    folder, watch = RunFolder.open(run), watch or Watch()
    refuse_busy(folder.path)
    if network:
        _ask_again(folder, watch)
    watch.start("looking through the masks", len(folder.photos))
    try:
        return kept_list(folder, watch.advance)
    finally:
        watch.stop()


def _ask_again(run: RunFolder, watch: Watch) -> None:
    from hintseg.quality.voices import DONE, network_folder

    folder = network_folder(run)
    if folder is None or (folder / DONE).is_file():  # told before torch is imported
        return
    from hintseg.errors import ConfigError, WeightsError
    from hintseg.pipeline.ask_again import ask_again
    from hintseg.training import machine

    try:
        machine.check(run.config.trainer)
        ask_again(run, watch)
    except (ConfigError, WeightsError) as error:  # masks of an older version, or of another machine, are reviewed too
        logger.warning("%s; the segmenter is not asked again", error)


def review(
    run: Path | str,
    *,
    port: int = 0,
    opened: bool = True,
    network: bool = True,
    say: Callable[[str], object] | None = None,
    watch: Watch | None = None,
) -> None:
    """Serve the page on which a person looks at the masks of a run and mends them, until the process is stopped.

    Args:
        run: Run folder with masks.
        port: Port on this machine; 0 takes a free one.
        opened: Whether a browser is opened.
        network: See `review_list`.
        say: Told the address; by default it goes to the logger ``hintseg``.
        watch: Told about the progress of the list.

    Raises:
        RunError: ``hintseg[review]`` is not installed, the run has no masks or is being written to, the port is taken,
            or the run's page is served already.
    """
    from hintseg.reviewing.serve import check_installed, serve
    from hintseg.reviewing.storage import Review

    check_installed()
    found = review_list(run, network=network, watch=watch)
    serve(Review(RunFolder.open(run)), found, port=port, opened=opened, say=say or logger.info)


def send_review(
    run: Path | str, out: Path | str, *, to: str, most: int = 50, network: bool = True, watch: Watch | None = None
) -> Written:
    """Write the masks of the first photos of the review list as labels that another tool opens.

    Args:
        run: Run folder with masks.
        out: Folder to make.
        to: A format that is written and holds masks: `cvat`, `label_studio`, `labelme`, ...
        most: How many photos.
        network: See `review_list`.
        watch: Told about the progress.

    Returns:
        `labels`: what to open; `lost`: what the format cannot hold.

    Raises:
        HintsegError: The run has no masks, the format is not written, or `out` holds something.
    """
    from hintseg.reviewing.exchange import send
    from hintseg.reviewing.storage import Review

    found = review_list(run, network=network, watch=watch)
    return send(Review(RunFolder.open(run)), found, to, Path(out), most=most)


def take_review(run: Path | str, labels: Path | str) -> Taken:
    """Read masks of a run's photos that another tool mended, and accept them, as on the review page.

    Raises:
        LabelError: They are of another size, other classes or other photos; then none is taken.
        RunError: The run has no masks, or its page is served at the moment.
    """
    from hintseg.files.lock import locked
    from hintseg.reviewing.exchange import take
    from hintseg.reviewing.storage import Review

    folder = RunFolder.open(run)
    refuse_busy(folder.path)
    review = Review(folder)
    with locked(review.folder):
        return take(review, Path(labels))
