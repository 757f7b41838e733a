"""The review list kept in the run folder: of 5,000 photos it takes minutes, and it changes only with the masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from hintseg.errors import RunError
from hintseg.files.atomic import write_json
from hintseg.quality.review_list import ReviewList, review_list
from hintseg.quality.voices import judged, voices
from hintseg.run.folder import RunFolder
from hintseg.run.schema import Facts, read_checked

RULE = 2
"""Raised where the rule changes."""


class _Kept(Facts):
    key: str
    found: ReviewList


def kept_list(run: RunFolder, advance: Callable[[], None] = lambda: None) -> ReviewList:
    """Return `review_list`, out of ``RUN/review/list.json`` where no mask has changed since.

    Raises:
        RunError: As for `review_list`.
    """
    path, key = run.path / "review" / "list.json", _key(run)
    try:
        kept = read_checked(path, _Kept) if path.is_file() else None
    except RunError:  # cut off or edited: it is only kept to save time
        kept = None
    if kept is not None and kept.key == key:
        return kept.found
    found = review_list(run, advance)
    write_json(path, {"key": key, "found": found.model_dump(mode="json")})
    return found


def _key(run: RunFolder) -> str:
    """Return a digest of the name, time and size of every file that the list is made of, photos aside."""
    made = judged(run)
    digest = hashlib.blake2b(repr((RULE, made.stage, run.classes, run.background)).encode(), digest_size=16)
    for folder in [made.folder, *(voice.folder for voice in voices(run, made)), run.path / "photos.json"]:
        for path in sorted(folder.rglob("*.png")) if folder.is_dir() else [folder]:
            digest.update(repr((_name(path, run.path), path.stat().st_mtime_ns, path.stat().st_size)).encode())
    return digest.hexdigest()


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
