"""Compile kernels, and keep them on disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function that releases the interpreter lock.

    The machine code is kept beside the source or in the user's cache folder. Where neither can be written (a read-only
    installation and no home), numba refuses to cache: then each process compiles anew, some seconds. A shared folder
    such as /tmp is no place for it: what others put there would run.
    """
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True)(function))
