"""`python -m crnn` is `crnn`."""

from .cli import main

main()
