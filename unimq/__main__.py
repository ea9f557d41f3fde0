"""`python -m unimq`: the command line."""

from .cli import main

main()
