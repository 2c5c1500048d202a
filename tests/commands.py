"""The command `crnn`, run in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

# A slow machine tells how far it has come, `Reading a.pdf 3 of 10`; a fast one is done before.
_PROGRESS = re.compile(r"^(?!crnn: ).+ \d+ of \d+\n", re.MULTILINE)


def crnn(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `crnn ARGUMENTS`: the finished process with stdout, returncode, and stderr without progress."""
    command = [sys.executable, "-m", "crnn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=240, **options)
    done.stderr = _PROGRESS.sub("", done.stderr)
    return done
