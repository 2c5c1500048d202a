"""The user's cache: what takes long to make and can be made again. Where there is none, everything is only slower."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from crnn.machine import unique

_DIGEST = hashlib.sha256
_SIZE = _DIGEST().digest_size


def read(name: str) -> bytes | None:
    """What was kept under this name, as it was written; None where there is none or it is damaged."""
    try:
        entry = (_folder() / name).read_bytes()
    except (OSError, RuntimeError):  # no such file; nobody knows whose home it would be in
        return None
    digest, data = entry[:_SIZE], entry[_SIZE:]
    return data if _DIGEST(data).digest() == digest else None


def write(name: str, data: bytes, at_most: int) -> None:
    """Keep it for the next process, whole or not at all, and of the files of its kind (suffix) the `at_most` newest."""
    with suppress(OSError, RuntimeError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / name
        partial = kept.with_suffix(f".{unique()}.{threading.get_ident()}.part")
        try:
            partial.write_bytes(_DIGEST(data).digest() + data)
            partial.replace(kept)
        finally:
            partial.unlink(missing_ok=True)
        alike = sorted(folder.glob(f"*{kept.suffix}"), key=lambda file: file.stat().st_mtime)
        for file in alike[:-at_most]:
            file.unlink(missing_ok=True)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crnn"
