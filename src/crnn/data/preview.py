"""A contact sheet: samples with their labels, in one HTML file that any browser opens."""

from __future__ import annotations

import base64
import html
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from crnn.charset import Charset
from crnn.data.check import Job, look, open_job
from crnn.data.sources import Joined
from crnn.errors import CrnnError, DataError
from crnn.image import Preprocessing, load

SHOWN = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}  # by browsers

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }}
body {{ margin: 2rem }}
main {{ display: flex; flex-wrap: wrap; gap: .75rem; align-items: stretch }}
figure {{ margin: 0; padding: .6rem; border: 1px solid #8885; border-radius: .4rem; max-width: 100%;
          display: flex; flex-direction: column; gap: .4rem; justify-content: space-between }}
figure.unfit {{ border: 2px solid #d33 }}
figure.odd {{ border: 2px solid #c80 }}
img {{ height: 56px; max-width: 30rem; object-fit: contain; object-position: left }}
b {{ font: 600 1.05rem ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
     background: #8882; align-self: start; padding: 0 .15rem }}
small {{ color: #777; overflow-wrap: anywhere; max-width: 30rem }}
em {{ font-style: normal; color: #d33 }}
</style>
<h1>{title}</h1><p>{text}</p>
<main>
{figures}
</main></html>
"""


def preview(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    count: int = 200,
    seed: int = 0,
    charset: Charset | None = None,
    preprocessing: Preprocessing | None = None,
    format: str = "auto",
) -> int:
    """Write ``count`` samples, taken at random by ``seed``, to the HTML file ``output``; returns how many it shows.

    What ``check`` would find is marked: red what cannot be trained on, amber what is worth a look.
    """
    job = Job(tuple(map(str, sources)), None, charset, preprocessing or Preprocessing(), format)
    source = Joined("", open_job(job).values())
    numbers = sorted(random.Random(seed).sample(range(len(source)), min(count, len(source))))
    title = ", ".join(html.escape(Path(path).name) for path in job.sources)
    text = f"{len(numbers)} of {len(source)} samples" + ", taken at random" * (len(numbers) < len(source))
    page = PAGE.format(title=title, text=text, figures="\n".join(_figures(source, job, numbers)))
    part = Path(output).with_name(f".{Path(output).name}.part")
    try:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")
        os.replace(part, output)
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror}") from None
    return len(numbers)


def _figures(source: Joined, job: Job, numbers: list[int]) -> Iterator[str]:
    for i in numbers:
        _, seen, unfit = look((job, i, i + 1))
        problems = [f"{rejected.reason}: {rejected.detail}" for _, rejected in unfit] + list(seen.warnings)
        kind = "unfit" if unfit else "odd" if problems else "good"
        try:
            label = source.label(i)
        except CrnnError:
            label = ""
        size = f", {seen.widths[0]}×{seen.heights[0]}" if seen.widths[0] else ""
        yield (
            f'<figure class="{kind}">{_picture(source, i)}<b dir="auto">{html.escape(label)}</b>'
            f"<small>{html.escape(source.path(i))}{size}"
            + "".join(f"<br><em>{html.escape(problem)}</em>" for problem in problems)
            + "</small></figure>"
        )


def _picture(source: Joined, i: int) -> str:
    try:
        data = source[i].image
        kind = next((kind for start, kind in SHOWN.items() if data.startswith(start)), None)
        if kind is None:
            kind, data = "png", cv2.imencode(".png", load(data)[:, :, ::-1])[1].tobytes()
    except CrnnError:
        return ""
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
