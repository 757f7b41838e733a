"""Matching the names that label files use for photos with those on disk: exactly first, then ever more loosely."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

from hintseg.errors import did_you_mean, shown
from hintseg.formats.words import split_of

MOST_COMPARED = 2000
"""With more photos the nearest name is not looked for: each comparison takes a fraction of a millisecond."""

_PREFIX = re.compile(r"^[0-9a-fA-F]{4,}-(?=.)")
"""What Label Studio puts in front of the name of an uploaded file."""

_DROPPED = re.compile(r"[^-\w.]")
"""What it leaves out of that name, once blanks are underscores."""

_STORED = "as Label Studio stores uploaded files"


class Names:
    """The names of the photos below a folder.

    Args:
        ids: Photo id by path below the folder, with suffix.
        root: Name of the folder itself.
    """

    def __init__(self, ids: Mapping[str, str], root: str) -> None:
        self._root = root
        self._ids = ids
        of_each_folder = {id.rpartition("/")[0]: id for id in ids.values()}.values()
        self._parts = set[str]().union(*map(_splits, of_each_folder))
        self._exact = _tiers(ids, lambda key: key)
        self._loose: tuple[dict[str, list[str]], ...] | None = None  # built when it is needed first
        self._stored: dict[str, list[str]] | None = None  # by the name that Label Studio gives uploaded files
        self._found: dict[str, dict[str, str]] = defaultdict(dict)  # in each way: name, and its photo

    def search(self, name: str, within: str = "") -> tuple[list[str], str]:
        """Return the ids of the photos that `name` may mean, and how it differs from theirs; see `PhotoFolder.find`."""
        parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        candidates = ["/".join(parts)]
        if self._root in parts[:-1]:
            candidates.append("/".join(parts[len(parts) - parts[::-1].index(self._root) :]))
        for tier in self._exact:
            for candidate in candidates:
                if found := self._preferred(tier, candidate, within):
                    return found, ""
        if self._loose is None:
            self._loose = _tiers(self._ids, _plain)
        for candidate, how, moved in _looser(parts):
            # With folders in front left out, a photo in another folder would be another one: only its whole path fits.
            for tier in self._loose[:2] if moved else self._loose:
                if found := self._preferred(tier, candidate, within):
                    if len(found) == 1:
                        self._found[how][name] = found[0]
                    return found, how
        return self._uploaded(parts[-1], name) if parts and _PREFIX.match(parts[-1]) else ([], "")

    def _preferred(self, tier: Mapping[str, list[str]], name: str, within: str) -> list[str]:
        """Return the photos of a name: where several fit, those in a folder `within`; none of another split's folder.

        A split without a folder of its own may list photos of any: then only its list parts them.
        """
        found, split = tier.get(name, []), split_of(within) or within
        if inside := [id for id in found if split in _splits(id)]:
            return inside
        if split not in self._parts or "/" in name:
            return found
        return [id for id in found if not any(map(split_of, id.split("/")[:-1]))]

    def _uploaded(self, last: str, name: str) -> tuple[list[str], str]:
        """Return the photos whose name Label Studio has changed into `last`, the last part of `name`."""
        if self._stored is None:
            self._stored = defaultdict(list)
            for path, id in self._ids.items():
                stored = _DROPPED.sub("", path.rpartition("/")[2].strip().replace(" ", "_"))
                self._stored[_plain(stored)].append(id)
        found = self._stored.get(_plain(_PREFIX.sub("", last)), [])
        if len(found) == 1:
            self._found[_STORED][name] = found[0]
        return found, _STORED

    def notes(self) -> list[str]:
        """Return how names were found that are not on disk as they stand, one sentence for each way."""
        return [
            f"{len(names)} names fit {how}: '{shown(name)}' is taken to be {shown(id)}"
            for how, names in self._found.items()
            for name, id in [next(iter(names.items()))]
        ]

    def nearest(self, name: str) -> str:
        """Return a question for the nearest name on disk, or an empty string."""
        return did_you_mean(name, list(self._ids)) if len(self._ids) <= MOST_COMPARED else ""


def _tiers(ids: Mapping[str, str], plain: Callable[[str], str]) -> tuple[dict[str, list[str]], ...]:
    """Return the ids by names a label file may use, the most exact first: path, without suffix, without folders."""
    tiers: tuple[dict[str, dict[str, None]], ...] = tuple(defaultdict(dict) for _ in range(4))
    for name, id in ids.items():
        stem = name.rpartition(".")[0]
        keys = (name, stem, name.rpartition("/")[2], stem.rpartition("/")[2])
        for tier, key in zip(tiers, keys, strict=True):
            tier[plain(key)][id] = None
    return tuple({key: list(found) for key, found in tier.items()} for tier in tiers)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _looser(parts: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield what a name may have meant, how it differs, in words, and whether folders in front were left out."""
    decoded = [unquote(part) for part in parts]
    for start in range(len(parts)):
        folders = "but for the folders in front" if start else ""
        name = "/".join(parts[start:])
        stem = name.rpartition(".")[0]
        yield _plain(name), folders or "but for letter case or the form of accents", start > 0
        if decoded != parts:
            yield _plain("/".join(decoded[start:])), folders or "when percent signs are decoded", start > 0
        if stem.rpartition("/")[2]:
            yield _plain(stem), folders or "but for the suffix", start > 0
    if parts and _PREFIX.match(decoded[-1]):
        name, how = _PREFIX.sub("", decoded[-1]), "but for what Label Studio puts in front"
        yield _plain(name), how, len(parts) > 1
        if stem := name.rpartition(".")[0]:
            yield _plain(stem), how, len(parts) > 1


def _splits(id: str) -> set[str]:
    return {split_of(folder) or folder for folder in id.split("/")[:-1]}
