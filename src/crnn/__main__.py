"""`python -m crnn` is `crnn`."""

from crnn.cli import main

main()
