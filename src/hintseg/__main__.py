"""`python -m hintseg` is the command line."""

from hintseg.cli.app import main

main()
