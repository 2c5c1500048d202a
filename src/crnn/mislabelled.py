"""Labels that a model surely reads otherwise: most of them are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from crnn.data.check import ADVICE, Finding
from crnn.data.sources import Source, open_parts
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
    one_case = {name for name, part in parts.items() if _one_case(part)}
    found: list[Reading] = []

    def watch(reading: Reading) -> None:
        if reading.line is None or reading.line.certainty < SURE:
            return
        label, text = ("".join(each.split()) for each in (reading.label, reading.text))
        if label != text and not (reading.source in one_case and label.lower() == text.lower()):
            found.append(reading)

    evaluate(reader, parts, watch=watch, progress=progress)
    found.sort(key=lambda reading: -reading.confidence)
    examples = tuple(f"{each.path}: {each.label!r} is read {each.text!r}" for each in found[:SHOWN])
    return Finding(reason := "surely read otherwise", len(found), examples, ADVICE[reason])


def _one_case(source: Source) -> bool:
    labels = [source.label(i) for i in range(len(source))]
    return any(all(label == in_case(label) for label in labels) for in_case in (str.upper, str.lower))
