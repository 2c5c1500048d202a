"""The command line: parses, calls, prints. Every command imports what it needs when it runs.

Exit status: 0 all done; 1 some inputs failed, each named on stderr; 2 wrong usage. Results go to stdout, nothing else.
"""

# In the order of `crnn --help`.
from crnn.cli import read, data, train, measure, serve, charset  # noqa: F401, I001
from crnn.cli.program import app, main

__all__ = ["app", "main"]
