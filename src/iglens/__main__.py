"""`python -m iglens`."""

from .cli.main import main

main()
