"""Rounds of a segmenter: what it learned labels the training photos anew, and it learns from that.

Labels made of tags, or spread from clicks and strokes, are wrong in places, and a network that learned from all of them
is often right where they are not. It may choose among the classes that a photo can show; what a person said of pixels
stays.

RUN/segment/rounds/1/model.safetensors  the weights after the first round
RUN/segment/rounds/2/labels/ID.png      what the second round learns from, where it differs from RUN/labels
RUN/segment/rounds/2/trust/ID.png       how far, grey; only with `segment.trust`

After the last round it looks once more, and that are the masks for people, ``RUN/segment/masks/ID.png``. There stays
what was spread from strokes and clicks and is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from hintseg.cam import grow
from hintseg.config.run import FunctionRefine, RunConfig
from hintseg.data.photos import photo_size
from hintseg.files.owned import enter
from hintseg.hints import implied
from hintseg.hints.marks import Marked
from hintseg.labellers.cam import lead
from hintseg.labellers.labeller import Evidence
from hintseg.methods.deeplab import multi_scale_logits
from hintseg.methods.method import Method
from hintseg.pipeline.each_photo import each_photo
from hintseg.pipeline.evidence import marks_of, teaches_trust
from hintseg.pipeline.kept import images_of, keep_to_look
from hintseg.pipeline.plan import SURE, of_person, overruled
from hintseg.pipeline.sharpen import sharpen
from hintseg.pipeline.tiles import strongest_grown
from hintseg.run.folder import RunFolder
from hintseg.run.schema import PhotoRow
from hintseg.store.masks import read_label_png, write_mask
from hintseg.store.trust import read_trust, write_trust
from hintseg.training import machine
from hintseg.training.watch import Watch
from hintseg.types import BACKGROUND, IGNORE, Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Rounds:
    """The rounds of one segmenter that are done, and the labels of the next.

    Args:
        run: The run folder.
        anew: Ids of the photos that a round may label anew.
        labels: Reads the labels of the first round.
        trust: Reads how far to trust those; None: it is not asked for.
        spread: Reads what was made of a photo's strokes and clicks, with its trust; None where nothing was.
    """

    def __init__(
        self,
        run: RunFolder,
        anew: Collection[str],
        labels: Callable[[Photo], Bytes | None],
        trust: Callable[[Photo], Floats | None] | None,
        spread: Callable[[Photo], Evidence | None],
    ) -> None:
        self.run, self.anew, self.first, self.first_trust = run, frozenset(anew), labels, trust
        self.spread = spread
        self.folder = run.stage("segment") / "rounds"

    @property
    def done(self) -> int:
        """How many rounds are done, each with the labels of the next one."""
        count = 0
        while self.weights(count + 1).is_file():
            count += 1
        return count

    def weights(self, number: int) -> Path:
        """Return where the weights after round `number`, counted from 1, lie."""
        return self.folder / str(number) / "model.safetensors"

    def labels(self, photo: Photo) -> Bytes | None:
        """Return what the next round learns of a photo, (H, W) uint8; None where nothing is said."""
        path = self._path("labels", photo)
        return read_label_png(path) if path is not None else self.first(photo)

    def trust(self, photo: Photo) -> Floats | None:
        """Return how far to trust that, (H, W) in 0..1; None: wholly."""
        path = self._path("trust", photo)
        if path is not None:
            label = self.labels(photo)
            return None if label is None else read_trust(path, label)
        return None if self.first_trust is None else self.first_trust(photo)

    def end(self, method: Method, photos: Sequence[Photo], config: RunConfig, watch: Watch) -> None:
        """Label the photos anew with what this round learned, and lay its weights aside."""
        number = self.done + 1
        following, trusted = self.folder / str(number + 1), teaches_trust(config)
        counts, adding = np.zeros(4, np.int64), Lock()

        def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, Floats]]:
            probabilities, possible, single = _asked(method, group, pixels, config, len(self.run.classes))
            size = photo_size(group[0].path)
            for photo, rows, may, one in zip(group, probabilities, possible, single, strict=True):
                scores = grow(rows[None], size)[0].cpu()
                before = self.labels(photo)
                unknown = torch.ones(size, dtype=torch.bool) if before is None else torch.from_numpy(before == IGNORE)
                label = relabel(scores, may, unknown, single=bool(one)).numpy()
                label, trust = with_marks(label, lead(scores[may]).numpy(), marks_of(photo, self.run, config))
                if person := of_person(photo.hints):  # wins over other marks too
                    found = overruled(Evidence(label, trust), person, size)
                    label, trust = found.pixels, trust if found.trust is None else found.trust
                yield label, trust

        def write(photo: Photo, made: tuple[Bytes, Floats]) -> None:
            label, trust = made
            before = self.labels(photo)
            changed = label.size if before is None else (label != before).sum()
            with adding:
                counts[:] += (label.size, (label == IGNORE).sum(), changed, 1)
            if trusted:
                write_trust(following / "trust" / f"{photo.id}.png", trust)
            write_mask(following / "labels" / f"{photo.id}.png", label)

        asked = [photo for photo in photos if photo.id in self.anew]
        kept = keep_to_look(method, asked, config.test.scales, config, watch)
        each_photo(
            f"labels of round {number + 1}",
            asked,
            make,
            write,
            config,
            watch,
            network=method,
            done=lambda photo: (following / "labels" / f"{photo.id}.png").is_file(),
            kept=None if kept is None else kept.batch,
        )
        pixels, unknown, changed, made = np.sum(machine.gather(counts), axis=0)
        if pixels and machine.rank() == 0:
            shares = f"{changed / pixels:.1%} of their pixels changed, of {unknown / pixels:.1%} nothing is known"
            some = "" if made == len(self.anew) else f" ({made} of them since the run went on)"
            watch.line(f"segment: round {number} labelled {len(self.anew)} photos anew{some}: {shares}")
        if machine.rank() == 0:
            aside, now = self.weights(number), self.run.stage("segment") / "model.safetensors"
            aside.parent.mkdir(parents=True, exist_ok=True)
            enter(aside, now)
            now.replace(aside)  # the round is done with this one step, and not before
        machine.barrier()

    def look(
        self,
        method: Method,
        photos: Sequence[Photo],
        write: Callable[[Photo, Bytes, float], object],
        config: RunConfig,
        watch: Watch,
    ) -> None:
        """Look once more at the photos that may be labelled anew, with what the last round learned, and write masks.

        Scores are sharpened along the colours where the run has a refiner that learns nothing. Nothing is left unknown,
        and what a person said of pixels stays, and what was spread from it and is trusted.

        Args:
            method: The segmenter.
            photos: The photos; of those that may not be labelled anew there is no mask.
            write: Called on a thread with each photo, its mask (H, W) uint8 0..K, and the mean probability of the
                winning class.
            config: The run's settings.
            watch: Told about the progress.
        """
        asked = [photo for photo in photos if photo.id in self.anew]
        kept = keep_to_look(method, asked, config.test.scales, config, watch)
        refiner = config.refine if isinstance(config.refine, FunctionRefine) else None

        def make(group: list[Photo], pixels: Tensor) -> Iterator[tuple[Bytes, float] | None]:
            found = None if kept is None else kept.batch(group)
            seen = pixels if found is None or len(found[0]) < len(group) else found[1].to(pixels.device)
            probabilities, possible, _ = _asked(method, group, cast(Tensor, seen), config, len(self.run.classes))
            for photo, rows, may, image in zip(group, probabilities, possible, pixels, strict=True):
                labels = may.nonzero()[:, 0].numpy().astype(np.uint8)
                if not len(labels):  # without background and tags nothing is known
                    yield None
                    continue
                scores = grow(rows[may.to(rows.device)][None], image.shape[-2:])
                if refiner is not None and len(labels) > 1:
                    scores = sharpen(refiner, scores, image[None])
                best, quality = strongest_grown(scores[0], photo_size(photo.path))
                mask = with_spread(labels[best], self.spread(photo), photo.hints.tags or ())
                yield self._under_person(photo, mask, config), quality

        def put(photo: Photo, made: tuple[Bytes, float] | None) -> None:
            if made is not None:
                write(photo, *made)

        each_photo("masks of the last round", asked, make, put, config, watch, network=method)

    def _under_person(self, photo: Photo, mask: Bytes, config: RunConfig) -> Bytes:
        """Return a mask (H, W) in which what strokes, clicks and changes of a person say of pixels wins."""
        said = Evidence(np.full(mask.shape, IGNORE, np.uint8))
        if (marks := marks_of(photo, self.run, config)) is not None:
            said = Evidence(marks.pixels)
        said = overruled(said, of_person(photo.hints), mask.shape)
        return np.where(said.pixels == IGNORE, mask, said.pixels)

    def _path(self, kind: str, photo: Photo) -> Path | None:
        if photo.id not in self.anew:
            return None
        path = self.folder / str(self.done + 1) / kind / f"{photo.id}.png"
        return path if path.is_file() else None


def relabel(scores: Tensor, possible: Tensor, unknown: Tensor, *, single: bool) -> Tensor:
    """Give each pixel the strongest of the classes that the photo may show, or 255 where that would be forced.

    In a photo of a single known tag any pixel that the segmenter sees as something else may be what nobody named; in
    one of several, it is mostly one of those. Where the labels before said nothing, nothing is forced either.

    Args:
        scores: Of all classes, (C, H, W), background first.
        possible: Which of them the photo may show, (C,) bool.
        unknown: Pixels of which the labels before said nothing, (H, W) bool.
        single: Whether the photo has a single known tag.

    Returns:
        (H, W) uint8.

    Example:
        >>> scores = torch.tensor([[[0.1, 0.2]], [[0.7, 0.2]], [[0.2, 0.6]]])
        >>> told = torch.tensor([True, True, False])
        >>> known, not_known = torch.zeros(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
        >>> [relabel(scores, told, known, single=one).tolist() for one in (False, True)]
        [[[1, 0]], [[1, 255]]]
        >>> relabel(scores, told, not_known, single=False).tolist()
        [[1, 255]]
    """
    if not possible.any():
        return torch.full(scores.shape[1:], IGNORE, dtype=torch.uint8)
    best = scores.masked_fill(~possible[:, None, None], -torch.inf).argmax(dim=0)
    foreign = ~possible[scores.argmax(dim=0)]
    forced = foreign if single else foreign & unknown
    return best.to(torch.uint8).masked_fill(forced, IGNORE)


def with_spread(label: Bytes, spread: Evidence | None, tags: Collection[int] = ()) -> Bytes:
    """Return labels (H, W) with what was spread from strokes and clicks where it is trusted.

    A class that is tagged and not marked is somewhere outside of what is marked, so of background nothing is sure then.

    Example:
        >>> spread = Evidence(np.array([[2, 2, 255]], np.uint8), np.array([[0.9, 0.1, 1]], np.float32))
        >>> with_spread(np.array([[1, 1, 1]], np.uint8), spread).tolist()
        [[2, 1, 1]]
        >>> spread = Evidence(np.array([[2, 0, 0]], np.uint8), np.ones((1, 3), np.float32))
        >>> [with_spread(np.array([[1, 1, 1]], np.uint8), spread, tags).tolist() for tags in ({2}, {1, 2})]
        [[[2, 0, 0]], [[2, 1, 1]]]
    """
    if spread is None or spread.trust is None:
        return label
    sure = (spread.trust >= SURE) & (spread.pixels != IGNORE)
    if frozenset(tags) - spread.classes:
        sure &= spread.pixels != BACKGROUND
    return np.where(sure, spread.pixels, label)


def with_marks(label: Bytes, trust: Floats, marks: Marked | None) -> tuple[Bytes, Floats]:
    """Return labels (H, W) and how far to trust them, with what strokes and clicks say of single pixels."""
    if marks is None:
        return label, trust
    said = marks.pixels != IGNORE
    own = np.float32(1) if marks.trust is None else marks.trust
    label = np.where(marks.ignored, np.uint8(IGNORE), np.where(said, marks.pixels, label))
    return label, np.where(said, own, trust)


def last_labels(run: RunFolder, config: RunConfig, watch: Watch) -> dict[Path, Path]:
    """Return, by photo, the labels that the last round of the run made that this one starts from; of none if none.

    A run of other classes has none that fit, and a photo that was replaced since none of its own.
    """
    before = None if config.start is None else RunFolder.open(config.start)
    if before is None or (before.classes, before.background) != (run.classes, run.background):
        return {}
    folders = before.stage("segment").glob("rounds/*/labels")
    last = max(folders, key=lambda folder: int(folder.parent.name), default=None)
    if last is None:
        return {}
    rows = [row for row in before.photos if row.split == "train"]
    rows = [row for row in rows if (last / f"{row.id}.png").is_file() and row.path.is_file()]
    same = {row.path: last / f"{row.id}.png" for row in rows if not _replaced(row, last / f"{row.id}.png")}
    if replaced := len(rows) - len(same):
        watch.line(f"segment: {replaced} photos were replaced since {before.path} and are labelled afresh")
    return same


def _replaced(row: PhotoRow, label: Path) -> bool:
    """Return whether a photo is another one than that which was labelled; times tell only where no size was kept."""
    now = row.path.stat()
    return now.st_mtime > label.stat().st_mtime if row.bytes is None else now.st_size != row.bytes


def as_before(path: Path | None, photo: Photo, found: Evidence, marks: Marked | None) -> Evidence:
    """Return what the last round learned of a photo, which is better than what the stages before it made.

    Args:
        path: Those labels, of `last_labels`; None: it has none.
        photo: The photo.
        found: What the stages before made, and what is returned where there are none, or of another size.
        marks: What its strokes and clicks say, which stays.

    Returns:
        The labels; 255 where they show a class that is known to be absent by now.
    """
    if path is None or (label := read_label_png(path)).shape != found.pixels.shape:
        return found
    trust = read_trust(path.parent.with_name("trust") / path.name, label)
    if photo.hints.tags is not None:
        label = np.where(np.isin(label, sorted(photo.hints.tags.absent)), np.uint8(IGNORE), label)
    return Evidence(*with_marks(label, np.ones(label.shape, np.float32) if trust is None else trust, marks))


def _asked(
    method: Method, photos: list[Photo], pixels: Tensor, config: RunConfig, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (B, C, H, W), the possible classes (B, C), and who has a single known tag, (B,)."""
    test = config.test
    logits = multi_scale_logits(method.segment, images_of(pixels), scales=test.scales, flip=test.flip, merge=test.merge)
    values, known = (torch.from_numpy(rows) for rows in implied.tag_rows([photo.hints for photo in photos], classes))
    possible = pad((values > 0) | ~known, (1, 0), value=config.data.background == "present")
    return logits.float().softmax(dim=1), possible, values.sum(dim=1) == 1
