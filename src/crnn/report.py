"""The report of an evaluation: an HTML page that needs nothing else, predictions.tsv, metrics.json, confusion.png."""

from __future__ import annotations

import base64
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from crnn import image, metrics
from crnn.breakdown import Breakdown, Calibration, kind_of
from crnn.errors import CrnnError, DataError
from crnn.evaluation import Evaluation, Reading, Score
from crnn.image import Preprocessing
from crnn.metrics import Metrics
from crnn.predictions import Writer
from crnn.recognizer import Recognizer

WORST = 300  # samples shown
MATRIX = 96  # characters in the confusion matrix at most

_THUMBNAIL = Preprocessing(height=40, channels=3, max_width=4000)
_SPACE, _NONE = "␣", "∅"


class Report:
    """Collects readings while they are made (`add`) and writes the folder at the end (`write`).

    A context manager: left without `write`, it leaves no half-written file behind. Memory holds counts and the images
    of the worst samples only.
    """

    def __init__(self, folder: str | Path, reader: Recognizer, protocol: str = "raw") -> None:
        self.folder, self.about = Path(folder), _about(reader)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder} cannot be made a folder for the report: {error.strerror}") from None
        self.breakdown = Breakdown(protocol, reader.preprocessing.height)
        self._predictions = Writer(self.folder / "predictions.tsv")
        self._worst: list[tuple[float, float, int, Reading]] = []  # a heap, the least bad first
        self._wrong = self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._predictions.discard()

    def add(self, reading: Reading) -> None:
        self.breakdown.add(reading)
        self._predictions.write(reading)
        self._seen += 1
        label, text = (metrics.normalise(each, self.breakdown.protocol) for each in (reading.label, reading.text))
        if not label or label == text:
            return
        self._wrong += 1
        # Unreadable images last: there is nothing to see. Of equally wrong ones the surest is the most interesting.
        badness = Levenshtein.normalized_distance(label, text) if reading.line else 0.0
        entry = (badness, reading.confidence, -self._seen, reading)
        (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, entry)

    def write(self, evaluation: Evaluation) -> Path:
        """Write the four files; returns the page's path."""
        values = {"about": self.about} | evaluation.to_dict() | self.breakdown.to_dict()
        _write(
            self.folder / "metrics.json",
            (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"),
        )
        confusion = self.breakdown.confusion
        _write(self.folder / "confusion.png", cv2.imencode(".png", draw_matrix(confusion))[1].tobytes())
        page = self.folder / "report.html"
        _write(page, self._page(evaluation).encode("utf-8", "replace"))
        self._predictions.finish()
        return page

    def _page(self, evaluation: Evaluation) -> str:
        confusion, protocol = self.breakdown.confusion, self.breakdown.protocol
        worst = sorted(self._worst, reverse=True)
        shown, seen = _matrix_characters(confusion)
        combined = evaluation.combined
        left_out = combined.metrics.left_out
        notes = [
            f"{left_out} samples are left out: under protocol {protocol} their label is empty." if left_out else "",
            f"{combined.unreadable} images that cannot be read count as wrong." if combined.unreadable else "",
            f"{combined.rejected} entries have no usable label." if combined.rejected else "",
        ]
        return Template(resources.files("crnn").joinpath("report.html").read_text("utf-8")).substitute(
            title=escape(f"{', '.join(evaluation.sources)}: {_percent(combined.metrics.word_accuracy)} read right"),
            about=escape(f"{self.about}; protocol {protocol}; {combined.seconds:.1f} s"),
            scores=_scores(evaluation),
            notes=escape(" ".join(filter(None, notes))),
            tables="".join(_breakdown_table(name, rows) for name, rows in self.breakdown.tables.items()),
            reliability=_reliability("Words or lines", self.breakdown.lines)
            + _reliability("Characters", self.breakdown.characters),
            confusions=_confusions(confusion) + _by_kind(confusion),
            heat_note=f"The {len(shown)} characters with most errors, of {seen}." if len(shown) < seen else "",
            heat=_heat(confusion, shown),
            samples_note=f"{len(worst)} of the {self._wrong} samples read wrong, the worst first.",
            samples="\n".join(self._sample(reading) for _, _, _, reading in worst),
        )

    def _sample(self, reading: Reading) -> str:
        label, text = (metrics.normalise(each, self.breakdown.protocol) for each in (reading.label, reading.text))
        said = reading.error if reading.line is None else f"{reading.label} → {reading.text}"
        find = " ".join((label, text, reading.label, reading.text, reading.path, reading.source))
        return (
            f'<tr data-find="{escape(find)}"><td data-key="{len(label)}">{_thumbnail(reading)}'
            f'<td class="left" data-key="{escape(label)}" title="{escape(said or "")}">'
            f'<span class="text">{_marked(label, text)}</span><div class="path">{escape(reading.path)}</div>'
            f"<td>{reading.confidence:.3f}<td>{Levenshtein.distance(label, text)}"
            f'<td class="left">{escape(reading.source)}'
        )


# ---- parts of the page -----------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{cell}" for cell in header)
    return f"<table><tr>{head}{''.join('<tr>' + ''.join(f'<td>{cell}' for cell in row) for row in rows)}</table>"


def _percent(rate: float | None) -> str:
    return "–" if rate is None or rate != rate else f"{rate:.1%}"


def _interval(ends: tuple[float, float]) -> str:
    return f' <span class="dim">[{_percent(ends[0])}, {_percent(ends[1])}]</span>'


def _scores(evaluation: Evaluation) -> str:
    header = ["source", "samples", "word accuracy", "char accuracy", "CER", "WER", "1-NED"]
    header += ["per-character precision", "full-sequence precision", "images/s"]

    def row(name: str, score: Score) -> list[str]:
        m = score.metrics
        rate = score.to_dict()["images_per_second"]
        return [
            name, str(m.samples), _percent(m.word_accuracy) + _interval(m.word_accuracy_interval()),
            _percent(m.char_accuracy), _percent(m.cer) + _interval(m.cer_interval()), _percent(m.wer),
            _percent(m.one_minus_ned), _percent(m.per_char_precision), _percent(m.full_sequence_precision),
            "–" if rate is None else f"{rate:.0f}",
        ]  # fmt: skip

    rows = [row(escape(name), score) for name, score in evaluation.sources.items()]
    if len(rows) > 1:
        rows.append(row("<b>combined</b>", evaluation.combined))
    return _table(header, rows)


def _breakdown_table(name: str, rows: dict[str, Metrics]) -> str:
    cells = []
    for row, m in rows.items():
        bar = f'<span class="bar"><i style="width:{m.word_accuracy:.0%}"></i></span>'
        cells.append([escape(row), str(m.samples), _percent(m.word_accuracy) + bar, _percent(m.cer)])
    return f"<div><h3>By {escape(name)}</h3>{_table(['', 'samples', 'word accuracy', 'CER'], cells)}</div>"


def _reliability(name: str, calibration: Calibration) -> str:
    """A diagram as SVG: confidence to the right, part that is right upwards; the area of a dot is its count."""
    total = max(calibration.count) or 1
    side, edge = 260, 34
    dots = "".join(
        f'<circle cx="{edge + said * side:.1f}" cy="{edge / 2 + (1 - true) * side:.1f}" '
        f'r="{2 + 12 * (count / total) ** 0.5:.1f}" fill="#3b7ddd" fill-opacity=".7">'
        f"<title>confidence {said:.2f}: {true:.1%} of {count} right</title></circle>"
        for said, true, count in calibration.points()
    )
    ticks = "".join(
        f'<text x="{edge + at * side:.0f}" y="{edge / 2 + side + 16:.0f}" text-anchor="middle">{at:.1f}</text>'
        f'<text x="{edge - 6}" y="{edge / 2 + (1 - at) * side + 4:.0f}" text-anchor="end">{at:.1f}</text>'
        for at in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    box = f'<rect x="{edge}" y="{edge / 2}" width="{side}" height="{side}" fill="none" stroke="#aab2bd"/>'
    ideal = f'<path d="M{edge} {edge / 2 + side}L{edge + side} {edge / 2}" stroke="#aab2bd" stroke-dasharray="4 4"/>'
    error = "–" if calibration.error is None else f"{calibration.error:.1%}"
    return (
        f"<div><h3>{escape(name)}</h3>"
        f'<svg width="{side + edge + 20}" height="{side + edge + 8}" font-size="11" fill="#667283" role="img" '
        f'aria-label="Part right by confidence">{box}{ideal}{ticks}{dots}</svg>'
        f'<p class="dim">Right by confidence; expected calibration error {error}.</p></div>'
    )


def _confusions(confusion: Counter[tuple[str, str]], most: int = 20) -> str:
    totals = _totals(confusion)
    wrong = [(pair, count) for pair, count in confusion.most_common() if pair[0] != pair[1]]

    def table(title: str, header: list[str], rows: list[list[str]]) -> str:
        return f"<div><h3>{title}</h3>{_table(header, rows)}</div>"

    def code(character: str) -> str:
        return f"<code>{escape(_name(character))}</code>"

    mistaken = [
        [code(label), code(read), str(count), _percent(count / totals[label])]
        for (label, read), count in wrong
        if label and read
    ]
    missed = [[code(label), str(count), _percent(count / totals[label])] for (label, read), count in wrong if not read]
    added = [[code(read), str(count)] for (label, read), count in wrong if not label]
    return (
        table("Mistaken", ["label", "read", "times", "of all"], mistaken[:most])
        + table("Missed", ["label", "times", "of all"], missed[:most])
        + table("Added", ["read", "times"], added[:most])
    )


def _by_kind(confusion: Counter[tuple[str, str]]) -> str:
    count: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    inserted: Counter[str] = Counter()
    for (label, read), times in confusion.items():
        if not label:
            inserted[kind_of(read)] += times
            continue
        count[kind_of(label)] += times
        if label != read:
            wrong[kind_of(label)] += times
    rows = [
        [kind, str(times), _percent(1 - wrong[kind] / times), str(inserted[kind])]
        for kind, times in count.most_common()
    ]
    return f"<div><h3>By kind of character</h3>{_table(['', 'in labels', 'read right', 'inserted'], rows)}</div>"


def _heat(confusion: Counter[tuple[str, str]], characters: Sequence[str]) -> str:
    totals = _totals(confusion)
    columns = [*characters, ""]
    rows = ["<tr><th>" + "".join(f"<th>{escape(_name(read))}" for read in columns)]
    for label in columns:
        cells = [f"<tr><th>{escape(_name(label))}"]
        for read in columns:
            count = confusion.get((label, read), 0)
            if not count:
                cells.append("<td>")
                continue
            title = f"{_name(label)} read as {_name(read)}: {count} ({count / totals[label]:.1%})"
            look = ' class="m"' if label == read else f' style="background:{_shade(count / totals[label])}"'
            cells.append(f'<td{look} title="{escape(title)}">')
        rows.append("".join(cells))
    return f'<table class="heat">{"".join(rows)}</table>'


def _shade(part: float) -> str:
    """White to dark red on a logarithmic scale from a thousandth."""
    depth = min(1.0, max(0.12, 1 + np.log10(max(part, 1e-3)) / 3))
    return f"hsl(8 75% {96 - 60 * depth:.0f}%)"


def _marked(label: str, text: str) -> str:
    parts = []
    for operation in Levenshtein.opcodes(label, text):
        there = escape(label[operation.src_start : operation.src_end])
        read = escape(text[operation.dest_start : operation.dest_end])
        if operation.tag == "equal":
            parts.append(there)
        else:
            parts.append((f"<del>{there}</del>" if there else "") + (f"<ins>{read}</ins>" if read else ""))
    return "".join(parts)


def _thumbnail(reading: Reading) -> str:
    try:
        pixels = image.prepare(image.load(reading.image), _THUMBNAIL)
    except CrnnError:
        return "–"
    kind, options = ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 80)
    data = cv2.imencode(kind, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


# ---- confusion -------------------------------------------------------------------------------------------------------


def _totals(confusion: Counter[tuple[str, str]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (label, _), count in confusion.items():
        totals[label] += count
    return totals


def _matrix_characters(confusion: Counter[tuple[str, str]]) -> tuple[list[str], int]:
    """The characters to show, in code point order, and how many there are: those with most errors if there are many."""
    errors: Counter[str] = Counter()
    for (label, read), count in confusion.items():
        for character in {label, read} - {""}:
            errors[character] += 0 if label == read else count
    return sorted(character for character, _ in errors.most_common(MATRIX)), len(errors)


def draw_matrix(confusion: Counter[tuple[str, str]], cell: int = 14) -> NDArray[np.uint8]:
    """The confusion matrix as a picture, BGR; without the characters' right readings, which would outshine the rest."""
    characters = [*_matrix_characters(confusion)[0], ""]
    totals = _totals(confusion)
    edge = 5 * cell
    size = edge + cell * len(characters) + cell
    picture = np.full((size, size, 3), 255, np.uint8)
    for i, label in enumerate(characters):
        for j, read in enumerate(characters):
            left, top = edge + j * cell, edge + i * cell
            part = confusion.get((label, read), 0) / (totals[label] or 1)
            depth = 0.0 if not part or label == read else min(1.0, max(0.12, 1 + np.log10(max(part, 1e-3)) / 3))
            colour = (227, 240, 231) if label == read else tuple(round(255 - depth * gap) for gap in (220, 200, 70))
            cv2.rectangle(picture, (left, top), (left + cell - 2, top + cell - 2), colour, -1)
        for where in ((edge - 4 * cell, edge + (i + 1) * cell - 4), (edge + i * cell, edge - 6)):
            name = (
                ("none" if where[0] < edge else "-")
                if not label
                else label
                if " " < label <= "~"
                else f"{ord(label):X}"
            )
            cv2.putText(picture, name, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 50, 40), 1, cv2.LINE_AA)
    return picture


def _name(character: str) -> str:
    return _NONE if not character else _SPACE if character == " " else character


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)


def _about(reader: Recognizer) -> str:
    """One line on the model for the head of the page."""
    made = reader.card.get("provenance") or {}
    runs = made.get("steps", [])  # a number, or those of several runs
    total = sum(runs) if isinstance(runs, list) else runs
    steps = f", {total:,} steps" if total else ""
    return f"model {reader.name}{steps}, {len(reader.charset)} characters, decoder {reader.decoder.decoder}"
