"""From one label format to another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hintseg.errors import ConfigError, LabelError, join
from hintseg.formats.codec import Writer, Written
from hintseg.formats.recognise import codec
from hintseg.registry import formats
from hintseg.types import Box, Click, HintSet, Photo, Region, Stroke, Supervision

_WORDS = {
    Supervision.TAGS: "tags",
    Supervision.BOXES: "boxes",
    Supervision.SCRIBBLES: "scribbles",
    Supervision.POINTS: "points",
    Supervision.MASKS: "full masks",
}


def writers() -> dict[str, Writer]:
    """Return the codecs that write their format, by name."""
    codecs = ((name, codec(name)) for name in formats())
    return {name: found for name, found in codecs if isinstance(found, Writer)}


def writer(name: str) -> Writer:
    """Return the codec that writes the format of that name.

    Raises:
        ConfigError: There is none, or it only reads.
    """
    known = writers()
    if name not in known:
        codec(name)  # says so where there is no such format at all
        raise ConfigError(f"the format '{name}' is read, but not written; --to takes {join(list(known))}")
    return known[name]


def write(hint_set: HintSet, name: str, out: Path) -> Written:
    """Write a hint set in a format.

    Args:
        hint_set: The photos and what is said of them.
        name: A name of `registry.formats()` that is also written.
        out: Folder to make; it may be there and empty.

    Returns:
        Where the labels are, and what the format cannot hold.

    Raises:
        ConfigError: The format is not written.
        LabelError: The format can hold nothing of what is said.

    Example:
        >>> from hintseg.types import Hints, Mark
        >>> boxed = Photo("a", Path("a.jpg"), Hints(marks=(Mark(1, Box(0, 0, 4, 4), 1), Mark(1, Click(2, 2)))))
        >>> lost(HintSet("x", ("bird",), (boxed,)), frozenset({Supervision.BOXES}))
        ('1 photo has points, which it cannot hold',)
    """
    chosen = writer(name)
    there = {kind for photo in hint_set.photos for kind in kinds(photo)}
    implied = {Supervision.TAGS} if there - {Supervision.TAGS} else set()
    if not (there - implied) & chosen.writes and not there & chosen.writes:
        raise LabelError(
            f"the format '{name}' holds {join([_WORDS[kind] for kind in sorted(chosen.writes)])}, but the photos have "
            f"{join([_WORDS[kind] for kind in sorted(there)]) or 'no labels'}; choose another --to"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = chosen.write(hint_set, out)
    return Written(written.labels, (*lost(hint_set, chosen.writes), *written.lost))


def lost(hint_set: HintSet, writes: frozenset[Supervision]) -> tuple[str, ...]:
    """Say which kinds of hints a format that writes these cannot hold; tags that marks imply are not lost with them."""
    counts: Counter[Supervision] = Counter()
    for photo in hint_set.photos:
        found = kinds(photo)
        counts.update(found - writes - ({Supervision.TAGS} if found & writes - {Supervision.TAGS} else set()))
    return tuple(
        f"{count} {'photo has' if count == 1 else 'photos have'} {_WORDS[kind]}, which it cannot hold"
        for kind, count in sorted(counts.items())
    )


def kinds(photo: Photo) -> set[Supervision]:
    """Return the kinds of hints a photo has, full masks that only judge too."""
    hints = photo.hints
    there = {
        Supervision.TAGS: hints.tags is not None,
        Supervision.BOXES: bool(hints.shaped(Box)),
        Supervision.SCRIBBLES: hints.scribbles is not None or bool(hints.shaped(Stroke)),
        Supervision.POINTS: bool(hints.shaped(Click)),
        Supervision.MASKS: bool(photo.truth or hints.mask or hints.shaped(Region)),
    }
    return {kind for kind, is_there in there.items() if is_there}
