"""Labels that a model surely reads otherwise: most of them are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from crnn.data.check import ADVICE, Finding
from crnn.data.sources import open_parts
from crnn.evaluation import Found, Reading, evaluate
from crnn.recognizer import Recognizer

SURE = 0.97  # certainty a character
SHOWN = 10


def mislabelled(
    reader: Recognizer,
    sources: Sequence[str | Path],
    format: str = "auto",
    progress: Callable[[Iterator[Found]], Iterable[Found]] = iter,
) -> Finding:
    """The samples whose labels are most likely wrong, the surest first, for a `Report` of `crnn.data.check`.

    Spaces do not count, nor does case in sources whose labels are all of one. `progress` sees all samples pass by.
    """
    parts = {f"{path} {split}": part for path in sources for split, part in open_parts(path, format).items()}
    cases = {name: {str.upper, str.lower} for name in parts}  # that all labels of a source have
    found: list[tuple[Reading, str, str]] = []

    def watch(reading: Reading) -> None:
        cases[reading.source] = {case for case in cases[reading.source] if case(reading.label) == reading.label}
        label, text = ("".join(each.split()) for each in (reading.label, reading.text))
        if label and label != text and reading.line and reading.line.certainty >= SURE:
            found.append((replace(reading, image=b""), label, text))  # their images would fill the memory

    evaluate(reader, parts, watch=watch, progress=progress)
    wrong = [each for each, label, text in found if not (cases[each.source] and label.lower() == text.lower())]
    wrong.sort(key=lambda reading: -reading.confidence)
    examples = tuple(f"{each.path}: {each.label!r} is read {each.text!r}" for each in wrong[:SHOWN])
    return Finding(reason := "surely read otherwise", len(wrong), examples, ADVICE[reason])
