"""The plan of a run: which photos teach, what labels each of them for the segmenter, and who is left out and why.

Photos may differ in what is said of them. A photo whose mask may be learned from is labelled by that; else one with the
hints that the labeller of the stage `propose` needs by that stage, where the recipe has one; else one whose tags are
known by `localize` and `refine`, or by the segmenter itself where it learns from tags; else one with what the
segmenter's objectives learn from directly: the pixels under strokes and clicks, boxes or tags; else, where an objective
needs no hints (`consistency`), by what the segmenter itself is sure of. What several say of one photo is put together
by `combine`, in which what a person said of pixels wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hintseg.config.run import RunConfig
from hintseg.errors import join
from hintseg.geometry.rasterise import pixels
from hintseg.hints.implied import shown
from hintseg.hints.marks import Marked
from hintseg.labellers.labeller import Evidence, labeller_class
from hintseg.reviewing.schema import PERSON
from hintseg.types import BACKGROUND, IGNORE, Hints, Mark, MaskFile, Photo, Shape, Supervision

Kind = str
"""What teaches by a photo: `masks`, `tags`, `boxes`, the kinds of hints that the labeller of `propose` needs, those of
which pixels are learned directly, or `UNHINTED`."""

UNHINTED = "no hint"
"""What teaches by a photo that an objective learns from which needs no hints."""

PLACED = frozenset({Supervision.SCRIBBLES, Supervision.POINTS})
"""The hints that say what single pixels are."""


SURE = 0.5
"""Trust below which a label that was spread from strokes and clicks gives way to what tags say, and from which on it
stays in final masks. Training photos of VOC with human clicks (232 that taught): with the sure ones alone (0.4) beside
what tags say, mIoU of the final masks is 52.8 and not 45.5, with the sure ones in them too 57.8, 59.2, 60.3, 59.0 and
56.7 from 0.4, 0.5, 0.6, 0.7 and 0.8 on."""


@dataclass(frozen=True)
class Plan:
    """Which photos a run learns from, and which judge it.

    Attributes:
        train: Those it learns from.
        val: Those it is judged on.
        needs: The kinds of hints that the labeller of the stage `propose` needs; none without that stage.
        by: What labels each training photo for the segmenter, by its id.
        sentences: The plan in words: how many teach by what, and how many are left out and why.
    """

    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    needs: frozenset[Supervision] = frozenset()
    by: Mapping[str, Kind] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()

    @cached_property
    def proposed(self) -> tuple[Photo, ...]:
        """The training photos that the stage `propose` looks at: see `serves`."""
        return tuple(photo for photo in self.train if serves(self.needs, photo.hints))

    @cached_property
    def tagged(self) -> tuple[Photo, ...]:
        """The training photos that `localize` and `refine` look at: all whose tags are known."""
        return tuple(photo for photo in self.train if photo.hints.tags is not None)


def needs_of(config: RunConfig) -> frozenset[Supervision]:
    """Return the kinds of hints that the labeller of the stage `propose` needs; none where there is no such stage.

    Raises:
        ConfigError: The method is no labeller.
    """
    if config.propose is None:
        return frozenset()
    needs: frozenset[Supervision] = labeller_class(config.propose.method).needs
    return needs


def direct(config: RunConfig) -> frozenset[Supervision]:
    """Return the kinds of hints, masks apart, that the objectives of the segmenter learn from without a stage before.

    Example:
        >>> from hintseg.config.loader import load_config
        >>> sorted(direct(load_config("strokes", data={"path": "photos"})))
        [<Supervision.POINTS: 'points'>, <Supervision.SCRIBBLES: 'scribbles'>]
    """
    from hintseg.methods.segmenter import SegmenterConfig  # with torch, which masks are written without

    if not isinstance(config.segment, SegmenterConfig):
        return frozenset()
    wanted = config.segment.needs
    pixels = PLACED if wanted & {*PLACED, Supervision.MASKS} else frozenset()
    return pixels | (wanted & {Supervision.BOXES, Supervision.TAGS})


def learns_unhinted(config: RunConfig) -> bool:
    """Return whether an objective of the segmenter learns from photos without any hint."""
    from hintseg.methods.segmenter import SegmenterConfig  # with torch, which masks are written without

    listed = config.segment.objectives if isinstance(config.segment, SegmenterConfig) else ()
    return not all(objective.needs for objective in listed)


def serves(needs: frozenset[Supervision], hints: Hints) -> bool:
    """Return whether a labeller can label a photo: it has one of the hints needed, or is known to show nothing."""
    return bool(needs) and (bool(needs & hints.kinds) or shows_nothing(hints))


def shows_nothing(hints: Hints) -> bool:
    """Return whether it is said of a photo that none of the classes is there."""
    return hints.tags is not None and not hints.tags.present and bool(hints.tags.said)


def words(needs: frozenset[Supervision]) -> str:
    """Name kinds of hints of which one is enough.

    Example:
        >>> words(frozenset({Supervision.SCRIBBLES, Supervision.POINTS}))
        'points or scribbles'
    """
    return " or ".join(sorted(needs))


def labelled_by(photo: Photo, config: RunConfig, needs: frozenset[Supervision], *, one_stage: bool) -> Kind | None:
    """Return what labels a photo under a recipe; None where nothing can.

    Args:
        photo: The photo.
        config: The settings.
        needs: See `needs_of`.
        one_stage: Whether the segmenter itself learns from tags.
    """
    hints = photo.hints
    if hints.mask is not None and config.segment is not None and not one_stage:
        return "masks"
    if serves(needs, hints):
        return words(needs)
    if (config.localize is not None or one_stage) and hints.tags is not None:
        return "tags"
    kinds = direct(config)
    if serves(kinds & PLACED, hints):
        return words(PLACED)
    found = next((str(kind) for kind in (Supervision.BOXES, Supervision.TAGS) if kind in kinds & hints.kinds), None)
    return UNHINTED if found is None and learns_unhinted(config) else found


def kinds_by(hints: Hints, by: Kind) -> tuple[str, ...]:
    """Return the kinds of hints that label a photo: those it has of what labels it, and what wins over that.

    Example:
        >>> from hintseg.types import Click, Tags
        >>> clicked = Hints(Tags(frozenset({1})), marks=(Mark(1, Click(3, 3)),))
        >>> kinds_by(clicked, "boxes or points or scribbles"), kinds_by(clicked, "tags"), kinds_by(Hints(), UNHINTED)
        (('points',), ('tags', 'points'), ('no hint',))
    """
    if by in ("masks", UNHINTED):
        return (by,)
    given = [str(kind) for kind in Supervision if kind in hints.kinds]
    found = [kind for kind in given if kind in by.split(" or ")] or ["tags"]  # also of a photo that shows nothing
    return (*found, *(kind for kind in given if kind in PLACED and kind not in found))


def sentences(
    usable: Sequence[Photo],
    by: Mapping[str, Kind],
    needs: frozenset[Supervision],
    photos: Sequence[Photo],
    judged: Collection[str],
    config: RunConfig,
    classes: Sequence[str],
) -> tuple[str, ...]:
    """Say the plan in words.

    Args:
        usable: The photos of the training split.
        by: What labels each of them, by id; the others are left out.
        needs: See `needs_of`.
        photos: All photos.
        judged: Ids of the photos of the validation split.
        config: The settings.
        classes: Names of the classes.
    """
    stages: dict[Kind, tuple[str, ...]] = {"masks": (), "boxes": (), words(PLACED): ()}
    stages |= {words(needs): ("propose",)}
    stages["tags"] = (*stages.get("tags", ()), "localize", "refine")
    counts, said = Counter(by.values()), []
    for kind, before in stages.items():
        if counts[kind]:
            chosen = [getattr(config, name) for name in (*before, "segment")]
            methods = ", ".join(settings.method for settings in chosen if settings is not None)
            said.append(f"{counts[kind]} photos teach by {kind}" + (f" ({methods})" if methods else ""))
    if counts[UNHINTED]:
        said.append(f"{counts[UNHINTED]} photos teach by what the segmenter is sure of, as nothing else labels them")
    spread = sum(by.get(photo.id) == words(needs) and placed(photo.hints) for photo in usable) if needs & PLACED else 0
    hemmed_in = config.data.background == "none"
    if spread and not hemmed_in and config.localize is not None and config.segment is not None:
        chosen = [settings.method for settings in (config.localize, config.refine) if settings is not None]
        by_tags = f"what tags say ({', '.join(chosen)}) counts"
        said.append(f"in {spread} photos {by_tags} where the spread of {words(PLACED)} is unsure")
    reasons = Counter(_kinds(photo) for photo in usable if photo.id not in by)
    for kinds, count in sorted(reasons.items()):
        why = f"recipe '{config.recipe}' learns nothing from {kinds}" if kinds else "nothing is said of them"
        said.append(f"{count} photos left out: {why}")
    over = sum(by.get(photo.id) in ("boxes", "tags") and placed(photo.hints) for photo in usable)
    if over and config.segment is not None:
        said.append(f"in {over} photos {words(PLACED)} win over what is made of other hints")
    untaught = _untaught(usable, by, len(classes))
    if untaught:
        names = join([f"'{classes[label - 1]}'" for label in untaught])
        said.append(
            f"nothing teaches {names}: photos show it, but none of those that teach says where; mark it in some, or "
            "choose a recipe that learns from tags"
        )
    both = [photo.id for photo in usable if photo.id in by and photo.id in judged and photo.truth is not None]
    if both:
        said.append(
            f"{len(both)} photos both teach and are judged ({join(both, 3)}): scores on them will be too good; take "
            "them out of data.train or data.val"
        )
    blind = sum(photo.id in judged and photo.truth is None for photo in photos)
    if blind:
        said.append(f"{blind} validation photos left out: they have no true mask to judge by")
    return tuple(said)


def placed(hints: Hints) -> bool:
    """Return whether anything is said of single pixels of a photo, a mask apart."""
    return bool(PLACED & hints.kinds)


def _untaught(usable: Sequence[Photo], by: Mapping[str, Kind], classes: int) -> list[int]:
    """Return the class ids that photos show, and none of those that teach says where, or is asked to find."""
    there, taught = set[int](), set[int]()
    for photo in usable:
        tags = frozenset(photo.hints.tags or ())
        there |= tags
        kind, mask = by.get(photo.id), photo.hints.mask
        if kind == "masks":
            painted = mask.shows if isinstance(mask, MaskFile) else {mark.label for mark in mask or ()}
            taught |= tags if painted is None else painted
        elif kind not in (None, UNHINTED):
            taught |= tags if kind == "tags" else shown(photo.hints)
    return [label for label in range(1, classes + 1) if label in there - taught]


def _kinds(photo: Photo) -> str:
    """Name the kinds of hints of a photo."""
    given = [str(kind) for kind in Supervision if kind in photo.hints.kinds]
    silent = photo.hints.mask is None and photo.truth is not None
    return ", ".join([*given, *(["a mask (data.learn_masks lets it teach)"] if silent else [])])


def of_person(hints: Hints) -> tuple[Mark[Shape], ...]:
    """Return the marks that a person drew on the review page."""
    return tuple(mark for mark in hints.marks if mark.source == PERSON)


def overruled(evidence: Evidence | None, marks: Sequence[Mark[Shape]], size: tuple[int, int]) -> Evidence:
    """Let what a person said of pixels win over what is known of a photo; later marks win over earlier ones.

    Args:
        evidence: What is known; None: nothing.
        marks: The person's; label 255 says that nothing can be learned there.
        size: (height, width) of the photo.

    Example:
        >>> from hintseg.types import Click
        >>> known = Evidence(np.array([[1, 1, 0]], np.uint8), np.array([[0.5, 0.5, 0.5]], np.float32))
        >>> said = overruled(known, [Mark(2, Click(0.5, 0.5)), Mark(255, Click(2.5, 0.5))], (1, 3))
        >>> said.pixels.tolist(), said.trust.tolist()
        ([[2, 1, 255]], [[1.0, 0.5, 1.0]])
    """
    labels = np.full(size, IGNORE, np.uint8) if evidence is None else evidence.pixels.copy()
    trust = None if evidence is None or evidence.trust is None else evidence.trust.copy()
    for mark in marks:
        where = pixels(mark.shape, size)
        labels[where] = mark.label
        if trust is not None:
            trust[where] = 1
    return Evidence(labels, trust, None if evidence is None else evidence.objects)


def combine(
    tags: Collection[int] | None,
    by_marks: Evidence | None,
    by_tags: Evidence | None,
    marked: Marked | None = None,
    *,
    background: bool = True,
) -> Evidence | None:
    """Put together what marks and tags say of a photo; marks win, as a person drew them, and what is sure of them.

    Args:
        tags: Class ids that the photo shows; None: not said.
        by_marks: Made of its boxes, strokes or points; None: it has none.
        by_tags: Made of its tags; None: nobody placed them.
        marked: The pixels under its strokes and clicks: these win over all that is made of anything.
        background: Whether pixels may belong to no class. If not, marks of all classes hem each other in, and what was
            spread from them is better than what tags say, sure or not (MSRC: 74.9 and 69.9 of the model).

    Returns:
        The labels, 255 where nothing is known: a class that is tagged but not marked is somewhere outside of what is
        marked, and what lies there is background only where the tags were placed. Each label keeps the trust of whom it
        comes from; objects are those of the marks.

    Example:
        >>> marks, tags = (Evidence(np.array([row], np.uint8)) for row in ([1, 0, 0, 0], [2, 2, 0, 1]))
        >>> both, alone, marked = combine({1, 2}, marks, tags), combine({1, 2}, marks, None), combine({1}, marks, tags)
        >>> both.pixels.tolist(), alone.pixels.tolist(), marked.pixels.tolist()
        ([[1, 2, 0, 0]], [[1, 255, 255, 255]], [[1, 0, 0, 0]])
        >>> spread = Evidence(np.array([[1, 1, 1, 0]], np.uint8), np.array([[1, 0.6, 0.2, 0.9]], np.float32))
        >>> combine({1}, spread, Evidence(np.array([[0, 0, 0, 1]], np.uint8))).pixels.tolist()
        [[1, 1, 0, 0]]
    """
    made = _made(tags, by_marks, by_tags, background)
    if marked is None:
        return made
    if made is None:
        return Evidence(marked.pixels, marked.trust)
    known = marked.pixels != IGNORE
    pixels = np.where(known, marked.pixels, made.pixels)
    pixels[marked.ignored] = IGNORE
    if made.trust is None and marked.trust is None:
        return Evidence(pixels, None, made.objects)
    ones = np.ones(pixels.shape, np.float32)
    theirs, ours = (ones if one.trust is None else one.trust for one in (made, marked))
    return Evidence(pixels, np.where(known, ours, theirs), made.objects)


def _made(
    tags: Collection[int] | None, by_marks: Evidence | None, by_tags: Evidence | None, background: bool
) -> Evidence | None:
    if by_marks is None:
        return by_tags
    rest = frozenset(tags or ()) - by_marks.classes
    unsure = np.zeros(by_marks.pixels.shape, np.bool_)
    if background and by_marks.objects is None and by_marks.trust is not None:  # spread, not cut out
        unsure = by_marks.trust < SURE
    if not rest and (by_tags is None or not unsure.any()):
        return by_marks
    outside = by_marks.pixels == BACKGROUND
    if by_tags is None:
        return Evidence(np.where(outside, np.uint8(IGNORE), by_marks.pixels), by_marks.trust, by_marks.objects)
    taken = unsure | (outside & np.isin(by_tags.pixels, [*rest, IGNORE])) if rest else unsure
    pixels = np.where(taken, by_tags.pixels, by_marks.pixels)
    if by_marks.trust is None and by_tags.trust is None:
        return Evidence(pixels, None, by_marks.objects)
    ones = np.ones(pixels.shape, np.float32)
    theirs, ours = (ones if one.trust is None else one.trust for one in (by_tags, by_marks))
    return Evidence(pixels, np.where(taken, theirs, ours), by_marks.objects)
