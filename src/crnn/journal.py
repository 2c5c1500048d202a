"""What a run leaves to look at: log.jsonl, a line for every few steps and every validation, and training.html."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import cv2

from crnn.learner import Shown

LOG, PAGE = "log.jsonl", "training.html"
COMBINED = "combined"  # all validation samples together, among the scores
_COLOURS = ("#3b7ddd", "#d9822b", "#1d7a46", "#8e44ad", "#b3261e", "#667283", "#00838f", "#9e7b00")


class Journal:
    """Appends to log.jsonl. A resumed run leaves out what came after the step it goes on from."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / LOG
        kept = [entry for entry in read_log(folder) if entry["step"] <= step] if step else []
        partial = self.path.with_name(LOG + ".part")
        partial.write_text("".join(_line(entry) for entry in kept), "utf-8")
        partial.replace(self.path)

    def write(self, **entry: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))


def _line(entry: dict[str, Any]) -> str:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
    return json.dumps(clean, ensure_ascii=False) + "\n"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Entries in order; a last line that was cut off is left out."""
    path = folder / LOG
    entries = []
    for line in path.read_text("utf-8").split("\n") if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [entry for entry in entries if "step" in entry]


# ---- the page --------------------------------------------------------------------------------------------------------


def write_page(folder: Path, notes: Iterable[str], worst: Sequence[Shown] = ()) -> Path:
    """Curves from log.jsonl, `notes` as a list, the worst validation samples with what was read in them."""
    log = read_log(folder)
    steps = [entry for entry in log if "loss" in entry]
    checks = [entry for entry in log if "validation" in entry]
    # The published model is the one of the lowest CER. Of one source alone, all together is the same again.
    best = min(checks, key=lambda entry: entry["validation"][COMBINED]["cer"], default={})
    scores = best.get("validation", {})
    names = [name for name in scores if name != COMBINED or len(scores) > 2]

    def rates(rate: str) -> list[Curve]:
        return [
            Curve(name, [(c["step"], c["validation"][name][rate]) for c in checks if name in c["validation"]])
            for name in names[:8]
        ]

    def recorded(key: str, name: str = "") -> list[Curve]:
        return [Curve(name or key, [(entry["step"], entry.get(key)) for entry in steps])]

    charts = [
        chart("Loss", recorded("loss"), log=True),
        chart("Validation: words right", rates("word_accuracy"), percent=True),
        chart("Validation: CER", rates("cer"), percent=True),
        chart("Learning rate", recorded("learning_rate")),
        chart("Length of the gradient", recorded("gradient"), log=True),
        chart("Columns read as blank", recorded("blank"), percent=True),
        chart("Crops per second", recorded("crops_per_second")),
        chart("Time spent waiting for data", recorded("waiting"), percent=True),
    ]
    page = Template(resources.files("crnn").joinpath("journal.html").read_text("utf-8")).substitute(
        title=escape(f"Training run {folder.name}"),
        notes="".join(f"<li>{escape(note)}" for note in notes),
        charts="".join(charts),
        scores_title=f"The model: step {best['step']}, the lowest CER" if best else "Validation",
        scores=_scores({name: scores[name] for name in names}),
        worst="".join(map(_sample, worst)) or "<tr><td>–",
        worst_note=f"The {len(worst)} worst of the validation samples, as the network sees them." if worst else "None.",
    )
    path = folder / PAGE
    partial = path.with_name(PAGE + ".part")
    partial.write_text(page, "utf-8", "replace")
    partial.replace(path)
    return path


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[int, float | None]]  # (step, value)


def chart(title: str, curves: Sequence[Curve], percent: bool = False, log: bool = False) -> str:
    """Curves as SVG over one axis of steps, at most 400 points each (means); "" without any value."""
    drawn = [(curve.name, _thinned([(x, y) for x, y in curve.points if y is not None])) for curve in curves]
    drawn = [(name, points) for name, points in drawn if points]
    if not drawn:
        return ""
    values = [y for _, points in drawn for _, y in points if y > 0 or not log]
    if not values:
        return ""
    last = max(x for _, points in drawn for x, _ in points)
    low, high = (min(values), max(values)) if log else (0.0, max(values) * 1.05 or 1.0)
    if percent:
        high = min(1.0, high) if high > 0.5 else high
    if log and high < low * 1.5:
        low, high = low / 1.3, high * 1.3
    width, height, left, top = 335, 190, 52, 8

    def place(x: float, y: float) -> str:
        if log:
            up = (math.log(max(y, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            up = (y - low) / (high - low)
        return f"{left + x / max(1, last) * width:.1f},{top + (1 - min(1.0, up)) * height:.1f}"

    marks = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        value = low * (high / low) ** part if log else low + part * (high - low)
        y = top + (1 - part) * height
        text = f"{value:.1%}" if percent else f"{value:.3g}"
        marks.append(
            f'<path d="M{left} {y:.1f}h{width}" stroke="#e6e9ee"/>'
            f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
        if part in (0, 0.5, 1):
            x = left + part * width
            marks.append(f'<text x="{x:.0f}" y="{top + height + 15}" text-anchor="middle">{part * last:,.0f}</text>')
    lines = []
    for (name, points), colour in zip(drawn, _COLOURS * 9, strict=False):
        dots = "".join(
            f'<circle cx="{at[0]}" cy="{at[1]}" r="2.2" fill="{colour}"><title>{escape(name)}, step {x}: '
            f"{f'{y:.2%}' if percent else f'{y:.4g}'}</title></circle>"
            for x, y in (points if len(points) <= 60 else points[-1:])
            for at in (place(x, y).split(","),)
        )
        path = " ".join(place(x, y) for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>{dots}')
    legend = " ".join(
        f'<span style="color:{colour}">■</span> {escape(name)}'
        for (name, _), colour in zip(drawn, _COLOURS * 9, strict=False)
    )
    label = f"{title} by step, last {drawn[0][1][-1][1]:.4g}"
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg width="{width + left + 24}" height="{height + top + 22}" '
        f'role="img" aria-label="{escape(label)}">{"".join(marks)}{"".join(lines)}</svg>'
        f"{f'<p class=legend>{legend}</p>' if len(drawn) > 1 else ''}</figure>"
    )


def _thinned(points: Sequence[tuple[int, float]], most: int = 400) -> list[tuple[int, float]]:
    size = math.ceil(len(points) / most) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(name)}<td>{each.get('samples', '')}<td>{_percent(each.get('word_accuracy'))}"
        f"<td>{_percent(each.get('word_accuracy_36'))}<td>{_percent(each.get('cer'))}"
        for name, each in scores.items()
    ]
    head = "<tr><th>source<th>samples<th>words right<th>words right, protocol 36<th>CER"
    return f"<table>{head}{''.join(rows)}</table>" if rows else "<p>There was no validation.</p>"


def _percent(rate: float | None) -> str:
    return "–" if rate is None or rate != rate else f"{rate:.1%}"


def _sample(sample: Shown) -> str:
    crop = sample.crop if sample.crop.shape[2] == 1 else cv2.cvtColor(sample.crop, cv2.COLOR_RGB2BGR)
    data = base64.b64encode(cv2.imencode(".png", crop)[1].tobytes()).decode()
    return (
        f'<tr><td><img alt="" src="data:image/png;base64,{data}"><td class="text">{escape(sample.label)}'
        f'<td class="text">{escape(sample.text)}'
    )
