"""`python -m hintseg` and `hintseg` are the command line; signals are heard before anything large is imported."""

from hintseg import signals


def main() -> None:
    """Run the command line until it ends or is ended."""
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
