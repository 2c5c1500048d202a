"""Files that appear when they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crnn.errors import PageError


class Output:
    """A file that appears, or takes the place of the one before, when it is whole. PageError says why it cannot.

    Links are followed. What is there and no file, such as a pipe, is written to directly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = None if path.exists() and not path.is_file() else path.resolve()
        self._partial = path if self._whole is None else self._whole.with_name(f"{self._whole.name}.part")
        with self.writing():
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            self.file = self._partial.open("wb")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """PageError for what the system says: that the disk is full, for instance."""
        try:
            yield
        except OSError as error:
            raise PageError(f"{self.path} cannot be written: {error.strerror or error}") from None

    def close(self) -> None:
        with self.writing():
            self.file.close()
            if self._whole is not None:
                self._partial.replace(self._whole)

    def drop(self) -> None:
        """Leave nothing half-written; after `close` there is nothing to leave."""
        with suppress(OSError):  # a full disk does not take what was still to be written
            self.file.close()
        if self._whole is not None:
            self._partial.unlink(missing_ok=True)
