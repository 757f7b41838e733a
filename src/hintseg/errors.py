"""Errors a caller can mend: every message says what was given, what is needed and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class HintsegError(Exception):
    """Anything the user can mend; the command line prints it and exits with code 2."""


class ConfigError(HintsegError):
    """A setting, recipe or name that cannot be used."""


class LabelError(HintsegError):
    """One or more problems in label files; all problems of a file are listed at once."""


class PhotoError(HintsegError):
    """A photo that cannot be read."""


class ShapeError(HintsegError, ValueError):
    """Tensors or arrays whose shapes, ranges or dtypes do not fit together."""


class WeightsError(HintsegError):
    """Network weights that are missing or belong to another network."""


class RunError(HintsegError):
    """A run folder that cannot be created, continued or read."""


class HintsegWarning(UserWarning):
    """Something that works but will hurt the result."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'NAME'?"`` for the nearest known name, or an empty string.

    Example:
        >>> did_you_mean("brid", ["bird", "dog"])
        "; did you mean 'bird'?"
        >>> did_you_mean("zebra", ["bird", "dog"])
        ''
    """
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def list_problems(where: str, problems: Sequence[str], limit: int = 20) -> str:
    """Format all problems of one file as one message.

    Args:
        where: The file or object the problems are in.
        problems: One sentence per problem, in file order; at least one.
        limit: How many are spelled out; the rest are counted.

    Example:
        >>> print(list_problems("tags.csv", ["line 2: no tag", "line 5: unknown tag 'x'"]))
        2 problems in tags.csv:
          line 2: no tag
          line 5: unknown tag 'x'
    """
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"{len(problems)} {noun} in {where}:", *(f"  {p}" for p in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
