"""What the scripts beside take texts from, and how they write them."""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def pages(files: Iterable[Path]) -> Iterator[str]:
    """The headings, paragraphs and items of HTML."""
    for path in files:
        for part in re.findall(r"<(p|h\d|li|td|dt)\b[^>]*>(.*?)</\1>", path.read_text("utf-8"), re.DOTALL):
            yield html.unescape(re.sub(r"<[^>]+>", "", part[1]))


def by_rank(lists: list[list[str]]) -> list[str]:
    """The words of all lists, each once, the first of every list before the second of any that is as long."""
    placed = [(i / len(part), word) for part in lists for i, word in enumerate(part)]
    return list(dict.fromkeys(word for _, word in sorted(placed)))


def write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", "utf-8")
