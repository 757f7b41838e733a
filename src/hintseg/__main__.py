"""`python -m hintseg` and `hintseg` are the command line; signals are heard before anything large is imported."""

import os

from hintseg import signals

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""How OpenMP's threads wait for each other: asleep. Else they spin on a core that another program could use, and where
there is one, all wait for the thread that it keeps from running: training took four times as long."""


def wait_passively() -> None:
    """Set `WAITING` unless the user set any of it; OpenMP reads it once, when torch is imported."""
    if not WAITING.keys() & os.environ.keys():
        os.environ |= WAITING


def main() -> None:
    """Run the command line until it ends or is ended."""
    wait_passively()
    try:
        try:
            signals.listen()
            from hintseg.cli.app import main as run

            run()
        finally:
            signals.end()
    except signals.Stopped:  # it came while that line ran
        signals.end()


if __name__ == "__main__":
    main()
