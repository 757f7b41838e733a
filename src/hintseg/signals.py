"""How a command ends before its time: Ctrl-C, SIGTERM, or a process beside it that is gone. One sentence, one code.

Python delivers a signal as an exception in the main thread, where a library may swallow it (in ``__del__``, in a
callback) or be busy in C. So a thread listens too: it raises the exception again until the command ends and ends it by
itself after `GRACE` seconds. Files appear whole or not at all, so nothing is lost by that.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

AGAIN, GRACE = 3.0, 15.0
"""Seconds after which the exception is raised again, and after which the process ends without waiting for it."""

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(BaseException):
    """The command has to end now. No `except Exception` catches it, nor does typer."""


class _State:
    """What is known of the end. `sentence` is empty where another process has said it."""

    listening = False
    resumable = False
    ending = False
    code: int | None = None
    sentence = ""


def listen() -> None:
    """Hear SIGINT and SIGTERM from now on, in the main thread of a command. An ignored SIGINT (nohup) stays ignored."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    for number in NAMES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _hear)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    sys.unraisablehook = _not_lost
    _State.listening = True
    threading.Thread(target=_insist, args=(ours, theirs), name="hintseg-signals", daemon=True).start()


def leave_to_parent(_: int = 0) -> None:
    """In a loader's worker: Ctrl-C is the parent's business, SIGTERM ends the worker at once."""
    if _State.listening:
        signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def offer_resume() -> None:
    """Say from now on that `--resume` goes on."""
    _State.resumable = True


def request(code: int, sentence: str = "") -> None:
    """End the process with `code`, from any thread; the first request counts. Without a sentence it ends silently."""
    if _State.code is None:
        _State.code, _State.sentence = code, sentence
        if not _State.listening:  # used as a library: the caller sees a KeyboardInterrupt
            threading.Thread(target=_insist_once, daemon=True).start()
        _raise_in_main(signal.SIGTERM)


def requested() -> bool:
    """Return whether the process has been asked to end."""
    return _State.code is not None


def end() -> None:
    """End the process if that was asked for, whatever was raised meanwhile: say why and never return."""
    _State.ending = True
    if _State.code is None:
        _State.ending = False
        return
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"  # the others end silently
    if _State.sentence and first:
        if sys.stdout.isatty():
            sys.stdout.write("\r\x1b[2K\x1b[?25h")  # no half a bar, and the cursor back
        goes_on = "; `--resume` goes on from here" if _State.resumable else ""
        sys.stdout.flush()
        sys.stderr.write(f"{_State.sentence}{goes_on}\n")
    sys.stderr.flush()
    os._exit(_State.code)  # waits for no thread, and no library has a last word


def _hear(number: int, frame: FrameType | None) -> None:
    _note(number)
    if not _State.ending:
        raise Stopped


def _note(number: int) -> None:
    if _State.code is None:
        _State.code, _State.sentence = 128 + number, f"stopped by {NAMES[signal.Signals(number)]}"


def _insist(ours: socket.socket, theirs: socket.socket) -> None:
    """Wait for a signal, even while the main thread is busy in C; `theirs` is only kept open."""
    heard: list[int] = []
    while not heard:
        heard = [number for number in ours.recv(64) if number in NAMES]
    _note(heard[0])
    began = time.monotonic()
    while time.monotonic() - began < GRACE:
        time.sleep(AGAIN)
        _raise_in_main(signal.SIGTERM)
    end()


def _insist_once() -> None:
    time.sleep(GRACE)
    end()


def _raise_in_main(number: signal.Signals) -> None:
    main = threading.main_thread().ident
    if _State.listening and main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)  # also wakes it where it waits
    else:
        _thread.interrupt_main()


def _not_lost(unraisable: Any) -> None:
    """Python ignores what ``__del__`` raises and prints it; what asks for the end is raised again soon."""
    if not (requested() and issubclass(unraisable.exc_type, Stopped)):
        sys.__unraisablehook__(unraisable)
