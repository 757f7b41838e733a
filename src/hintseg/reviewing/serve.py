"""Serving the page: on this machine alone, until somebody stops it."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from threading import Thread

from hintseg.errors import RunError
from hintseg.files.lock import locked
from hintseg.quality.review_list import ReviewList
from hintseg.reviewing.storage import Review


def check_installed() -> None:
    """Refuse to go on without what the page needs.

    Raises:
        RunError: The extra is not installed.
    """
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise RunError(f"the page needs {' and '.join(missing)}, not installed here; pip install 'hintseg[review]'")


def serve(
    review: Review, found: ReviewList, *, port: int = 0, opened: bool = True, say: Callable[[str], object] = print
) -> None:
    """Serve the page of a run until the process is told to stop.

    Args:
        review: The review of the run.
        found: Its review list.
        port: Where, 1..65535; 0 takes a free one.
        opened: Whether a browser is opened.
        say: Told the address.

    Raises:
        RunError: What the page needs is not installed, the port is taken, or the review is open in another process.
    """
    check_installed()
    import uvicorn

    from hintseg.reviewing.again import Again
    from hintseg.reviewing.guard import HOST, Guard
    from hintseg.reviewing.server import Server

    with locked(review.folder), socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise RunError(f"port {port} cannot be used ({error}); choose another --port, or leave it out") from error
        number, token = place.getsockname()[1], secrets.token_urlsafe(24)
        app = Guard(Server(review, found, Again(review.run)).app(), number, token)
        address = f"http://{HOST}:{number}/{token}/"
        Thread(target=_warm, daemon=True).start()
        say(f"review: {address}  (Ctrl-C stops it; everything is kept in {review.folder})")
        if opened:
            webbrowser.open(address)
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[place])


def _warm() -> None:
    """Import what the first filled object would wait for."""
    import cv2  # noqa: F401

    import hintseg.refine.grabcut  # noqa: F401
