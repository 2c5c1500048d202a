"""Rendered pages whose every line is known: what reading pages is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(__file__).with_name("fonts")
REGULAR, BOLD, MONO, CJK = (FONTS / name for name in ("Go-Regular.ttf", "Go-Bold.ttf", "Go-Mono.ttf", "cjk.otf"))
DEJAVU = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")

ENGLISH = (
    "The harbour lies on the north side of the island, where the hills break the wind before it reaches the water. "
    "Ships of 300 tons could anchor there in 1742, although the entrance was narrow and the pilot had to know every "
    "rock by name. Nobody drew a proper chart until the summer of 1801.",
    "When the surveyors came, they stayed in the house of a baker (his bread was known as far as Leeds) and paid him "
    'four shillings and 6 pence a week. Their instruments filled two rooms; their boots filled the hall. "Mind the '
    'glass," said the elder one, and the children did.',
    "In the evenings they compared what each had measured during the day. Most figures agreed to within a foot, and "
    "where they did not, a boy was sent out with a lantern to read the pole again. The work took 17 weeks, cost "
    "$2,940.50 and gave the town a map that is still used.",
)
CHINESE = (
    "清晨的港口很安静，只有几只海鸟在水面上慢慢地飞。渔民们已经回来了，他们把新鲜的鱼放在木桌上，等着城里的人来买。",
    "远处的山还在云里，看不清楚。老人说，今天下午会下雨，所以大家都走得很快。孩子们不怕雨，他们在石头路上跑来跑去。",
    "到了中午，太阳出来了。市场里的人越来越多，有的卖水果，有的卖衣服，有的只是来听故事的。没有人想早点回家。",
)
MIXED = (
    "软件 crnn 可以读英文和中文。安装以后运行 read-page 命令，结果写在 output 文件夹里。",
    "The word 港口 means harbour. 海鸟 are sea birds, and 市场 is a market.",
    "价格是 125.80 元，电话 555-0192。请在 2026 年 3 月以前来。",
)
TABLE = (
    ("Item", "Count", "Price", "Total"),
    ("Copper nails", "250", "0.04", "10.00"),
    ("Rope, 20 m", "3", "18.50", "55.50"),
    ("Lantern glass", "12", "2.25", "27.00"),
    ("Canvas", "7", "31.10", "217.70"),
    ("Paint (white)", "4", "9.95", "39.80"),
)


@dataclass
class Drawn:
    """A page and what stands on it: lines in reading order, with the box (left, top, right, bottom) of their ink."""

    pixels: np.ndarray
    lines: list[tuple[str, tuple[int, int, int, int]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(text for text, _ in self.lines)


def blank(width: int = 1240, height: int = 1754, paper: int = 255) -> Drawn:
    """An empty A4 page at 150 dots an inch."""
    return Drawn(np.full((height, width, 3), paper, np.uint8))


def write(
    page: Drawn, text: str, at: tuple[int, int], size: int = 26, font: Path = REGULAR,
    colour: int | tuple[int, int, int] = 20,
) -> int:  # fmt: skip
    """Draw one line; the width of it. Chinese characters come from the Chinese face."""
    picture = Image.fromarray(page.pixels)
    draw = ImageDraw.Draw(picture)
    x, boxes = float(at[0]), []
    for run, face in _runs(text, font):
        drawn = ImageFont.truetype(str(face), size)
        boxes.append(draw.textbbox((x, at[1]), run, font=drawn, anchor="ls"))
        draw.text((x, at[1]), run, font=drawn, fill=colour if isinstance(colour, tuple) else (colour,) * 3, anchor="ls")
        x += drawn.getlength(run)
    page.pixels = np.asarray(picture).copy()
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    page.lines.append((text, (round(min(lefts)), round(min(tops)), round(max(rights)), round(max(bottoms)))))
    return round(x - at[0])


def _runs(text: str, font: Path) -> list[tuple[str, Path]]:
    runs: list[tuple[str, Path]] = []
    for character in text:
        face = CJK if ord(character) > 0x2000 else font
        if runs and runs[-1][1] == face:
            runs[-1] = (runs[-1][0] + character, face)
        else:
            runs.append((character, face))
    return runs


def wrap(text: str, width: int, size: int, font: Path = REGULAR, first: int = 0) -> list[str]:
    """Lines of at most `width` pixels, the first shorter by `first`."""

    def length(line: str) -> float:
        return sum(ImageFont.truetype(str(face), size).getlength(run) for run, face in _runs(line, font))

    chinese = ord(text[0]) > 0x2000
    lines, line = [], ""
    for piece in text if chinese else text.split():
        longer = line + piece if chinese or not line else f"{line} {piece}"
        if length(longer) > width - (0 if lines else first) and piece not in "，。":
            lines.append(line)
            line = piece
        else:
            line = longer
    return [*lines, line]


def paragraphs(
    page: Drawn, texts: Sequence[str], left: int, top: int, width: int, size: int = 26, indent: int = 0, gap: int = 0,
    font: Path = REGULAR, colour: int = 20,
) -> int:  # fmt: skip
    """Draw paragraphs below each other; the row below the last."""
    pitch = round(1.4 * size)
    for text in texts:
        for number, line in enumerate(wrap(text, width, size, font, indent)):
            write(page, line, (left + (0 if number else indent), top + size), size, font, colour)
            top += pitch
        top += gap
    return top


def english() -> Drawn:
    page = blank()
    write(page, "The survey of the harbour", (120, 160), 44, BOLD)
    paragraphs(page, ENGLISH, 120, 230, 1000, gap=30)
    return page


def two_columns() -> Drawn:
    page = blank()
    write(page, "The survey of the harbour", (120, 160), 44, BOLD)
    below = paragraphs(page, [*ENGLISH, ENGLISH[0]], 120, 230, 470, size=24, indent=36)
    paragraphs(page, [*ENGLISH[1:], ENGLISH[0]], 650, 230, 470, size=24, indent=36)
    write(page, "Printed for the harbour master, 1802", (120, below + 140), 22)
    return page


def chinese() -> Drawn:
    page = blank()
    paragraphs(page, CHINESE, 120, 160, 990, size=30, indent=60, gap=26)
    return page


def mixed() -> Drawn:
    page = blank(height=800)
    paragraphs(page, MIXED, 120, 160, 900, size=28, gap=26)
    return page


def table(rules: bool = True) -> Drawn:
    page = blank(height=900)
    write(page, "What was bought for the boats", (120, 140), 36, BOLD)
    for row, cells in enumerate(TABLE):
        for column, cell in enumerate(cells):
            write(page, cell, (140 + 250 * column, 240 + 60 * row), 26, BOLD if row == 0 else REGULAR)
    if rules:
        for row in range(len(TABLE) + 1):
            cv2.line(page.pixels, (120, 200 + 60 * row), (1120, 200 + 60 * row), (60, 60, 60), 2)
        for column in range(5):
            x = 120 + 250 * column
            cv2.line(page.pixels, (x, 200), (x, 200 + 60 * len(TABLE)), (60, 60, 60), 2)
    return page


def screenshot() -> Drawn:
    """Light text on a dark window, with a bar and a button."""
    page = blank(1100, 640, paper=34)
    cv2.rectangle(page.pixels, (0, 0), (1100, 54), (0, 102, 180), -1)
    write(page, "Settings - harbour.cfg", (24, 36), 22, BOLD, 250)
    paragraphs(page, ENGLISH[:2], 40, 90, 1000, size=20, gap=24, font=MONO, colour=222)
    cv2.rectangle(page.pixels, (40, 560), (200, 604), (70, 140, 70), -1)
    write(page, "Save all", (70, 590), 22, REGULAR, 250)
    return page


def contents() -> Drawn:
    """Titles, and rows of dots to the numbers of their pages."""
    page = blank(height=1000)
    write(page, "Contents", (120, 160), 44, BOLD)
    titles = ("The harbour", "Ships and anchors", "The first chart", "Bread and boots", "Lanterns", "What it cost")
    for row in range(12):
        y, inner = 260 + 50 * row, row % 3 > 0
        left = 160 if inner else 120
        end = left + write(page, f"{row // 3 + 1}{f'.{row % 3}' if inner else ''} {titles[row % 6]}", (left, y))
        write(page, str(3 + 9 * row), (1084 - 15 * len(str(3 + 9 * row)), y))
        for x in range(-(-(end + 14) // 9) * 9, 1020, 9):
            cv2.circle(page.pixels, (x, y - 2), 2, (20, 20, 20), -1)
    return page


def manual() -> Drawn:
    """What is typed on grey panels, what comes of it in frames beside them, and text between."""
    page = blank(height=1000)
    for top in (120, 420, 720):
        cv2.rectangle(page.pixels, (110, top), (640, top + 160), (204, 204, 204), -1)
        cv2.rectangle(page.pixels, (670, top + 20), (1110, top + 140), (20, 20, 20), 1)
        for row, (typed, comes) in enumerate((("\\begin{chart}", "Chart 1.4.2"), ("the old pole", "the old pole"))):
            write(page, typed, (134, top + 54 + 64 * row), 24, MONO)
            write(page, comes, (700, top + 64 + 48 * row), 26)
        text = "A chart is set between two rules, and its number stands beside it" if top < 700 else "as on sheet 17."
        paragraphs(page, [text, "on the left."], 110, top + 186, 1000)
    return page


def site() -> Drawn:
    """A page as browsers show it: a bar, links beside a longer text, a menu in dark whose text stands at its edges."""
    page = blank(1000, 1200, paper=248)
    cv2.rectangle(page.pixels, (0, 0), (1000, 60), (24, 160, 0), -1)
    write(page, "Harbour 7.4 Help", (16, 40), 24, REGULAR, 250)
    for row, link in enumerate(("Contents", "Anchors", "Boots", "Charts", "Lanterns", "Ropes", "Shillings")):
        write(page, link, (16, 130 + 24 * row), 15, REGULAR, (20, 80, 170))
    cv2.rectangle(page.pixels, (250, 60), (1000, 1200), (253, 253, 253), -1)
    write(page, "Reading a chart", (290, 130), 28, REGULAR, (20, 120, 10))
    top = paragraphs(page, ENGLISH[:1], 290, 180, 660, 17, gap=40)
    menu = ("Show All", "Dot for Dot", "Zoom (100%)", "Flip & Rotate", "Shrink Wrap", "Show Grid", "Snap to Guides")
    cv2.rectangle(page.pixels, (290, top), (540, top + 27 * len(menu)), (46, 46, 46), -1)
    for row, each in enumerate(menu):
        write(page, each, (300, top + 19 + 27 * row), 16, REGULAR, 235)
    paragraphs(page, ENGLISH[1:], 290, top + 27 * len(menu) + 40, 660, 17, gap=40)
    return page


def cells() -> Drawn:
    """A long table of small print, every cell in a frame of its own."""
    page = blank(900, 1600)
    for row in range(64):
        item, count, _, total = TABLE[1 + row % 5]
        for column, text in enumerate((f"{row + 1}. {item}", "the baker's house", total if row % 2 else count)):
            left, right = 20 + 260 * column, 276 + 260 * column
            cv2.rectangle(page.pixels, (left, 20 + 24 * row), (right, 40 + 24 * row), (90, 90, 90), 1)
            write(page, text, (left + 4, 36 + 24 * row), 15)
    return page


def paper() -> Drawn:
    """Small print in two columns, the second shorter, a photograph in the first and frames below the second."""
    page = blank(2480, 3508)
    rng = np.random.default_rng(7)
    noise = sum(cv2.resize(rng.uniform(0, 255, (rows, rows * 3 // 2)), (1100, 700)) for rows in (6, 24, 96)) / 3
    page.pixels[200:900, 100:1200] = (3 * (noise - 100)).clip(0, 255).astype(np.uint8)[..., np.newaxis]
    write(page, "Figure 1. The harbour from the hill.", (100, 960), 28, BOLD)
    below = paragraphs(page, [" ".join(ENGLISH)] * 4, 100, 1010, 1100, size=28)
    write(page, "Sources", (100, below + 120), 36, BOLD)
    paragraphs(page, ENGLISH, 100, below + 160, 1100, size=28)
    paragraphs(page, [" ".join(ENGLISH)] * 5, 1280, 200, 1100, size=28, indent=40)
    for left in (1300, 1850):  # empty figures
        cv2.rectangle(page.pixels, (left, 2700), (left + 500, 3100), (20, 20, 20), 2)
    return page


def newspaper() -> Drawn:
    """Three columns with rules between them, the lines of the first shorter beside a picture."""
    page = blank()
    for x in (440, 804):
        cv2.line(page.pixels, (x, 100), (x, 1650), (20, 20, 20), 2)
    top = paragraphs(page, ENGLISH[:2], 90, 100, 336, 20)
    below = paragraphs(page, ENGLISH[2:], 90, top, 150, 20)
    cv2.rectangle(page.pixels, (256, top + 10), (426, below - 10), (20, 20, 20), 2)
    paragraphs(page, ENGLISH[:2], 90, below, 336, 20)
    for left in (454, 818):
        paragraphs(page, [*ENGLISH, *ENGLISH], left, 100, 336, 20)
    return page


def faded() -> Drawn:
    """Print that is hardly darker than its paper, the title alone is dark."""
    page = english()
    light = (page.pixels >= 250) | (np.arange(len(page.pixels)) < 200)[:, np.newaxis, np.newaxis]
    page.pixels = np.where(light, page.pixels, 232 + page.pixels // 11).astype(np.uint8)
    return page


def fat() -> Drawn:
    """Lines of fat letters so close that more than half of what is around them is ink."""
    page = blank()
    top = 100
    for text in ENGLISH * 6:
        for line in wrap(text, 1000, 22, BOLD):
            write(page, line, (100, top), 22, BOLD)
            top += 25
    page.pixels = cv2.erode(page.pixels, np.ones((3, 3)))
    return page


def microfilm() -> Drawn:
    """Fat letters, not sharp, on a small piece of a page that is dark in the middle, mottled and grainy."""
    rows, columns = 610, 640
    page = blank(columns, rows, paper=215)
    paragraphs(page, ENGLISH, 16, 0, 610, 26, font=BOLD)
    page.lines = [line for line in page.lines if line[1][3] < rows]
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    pixels = cv2.GaussianBlur(cv2.erode(page.pixels, np.ones((3, 3))), (0, 0), 2.0)
    paper = -70 * np.exp(-3 * (x**2 + y**2))
    for deviation, size in ((15, 12), (8, 1)):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (rows, columns)), (0, 0), size)
        paper += deviation * noise / noise.std()
    page.pixels = np.clip(pixels + paper[..., np.newaxis], 0, 255).astype(np.uint8)
    return page


def rotated(page: Drawn, degrees: float) -> Drawn:
    """Turned clockwise on a larger sheet. The boxes are left out."""
    height, width = page.pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    pixels = cv2.warpAffine(page.pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=(255,) * 3)
    turned = []
    for text, (left, top, right, bottom) in page.lines:
        points = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]]) @ matrix.T
        (x, y), (to_x, to_y) = points.min(axis=0).round(), points.max(axis=0).round()
        turned.append((text, (int(x), int(y), int(to_x), int(to_y))))
    return Drawn(pixels, turned)


def scanned(page: Drawn, seed: int = 0) -> Drawn:
    """As a bad copier gives it: blurred, shadowed to one side, noisy, with specks and a dark edge."""
    rng = np.random.default_rng(seed)
    height, width = page.pixels.shape[:2]
    pixels = cv2.GaussianBlur(page.pixels, (0, 0), 0.8).astype(np.float32)
    shade = np.linspace(1.0, 0.62, width, dtype=np.float32)[np.newaxis, :, np.newaxis]
    pixels = pixels * shade + rng.normal(0, 14, (height, width, 1)).astype(np.float32)
    for x, y in zip(rng.integers(0, width, 900), rng.integers(0, height, 900), strict=True):
        cv2.circle(pixels, (int(x), int(y)), int(rng.integers(0, 2)), (40.0,) * 3, -1)
    pixels[:, -12:] = 15
    return Drawn(np.clip(pixels, 0, 255).astype(np.uint8), page.lines)


def sag(x: Any, y: Any) -> Any:
    """Pixels by which the lines of a bent page have run down at x."""
    return 70 * (x / 1240) ** 3 * (1.2 - y / 1754)


def bent(page: Drawn) -> Drawn:
    """The left page of an open book: its lines run down into the fold, those at the bottom less."""
    height, width = page.pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)

    pixels = cv2.remap(page.pixels, x, y - sag(x, y), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    lines = []
    for text, (left, top, right, bottom) in page.lines:
        lines.append((text, (left, round(top + sag(left, top)), right, round(bottom + sag(right, bottom)))))
    return Drawn(pixels, lines)


def book() -> Drawn:
    """Two pages on one sheet, each with a skew of its own."""
    left, right = rotated(english(), 2), rotated(english(), -2)
    width = left.pixels.shape[1]
    beside = [(text, (x + width, y, to_x + width, to_y)) for text, (x, y, to_x, to_y) in right.lines]
    return Drawn(np.hstack([left.pixels, right.pixels]), left.lines + beside)


def photographed(page: Drawn, desk: int = 70, down: int = 0, seed: int = 0) -> Drawn:
    """Lying on a desk, seen from the side, in light that fades to the right; the picture ends `down` pixels early."""
    rng = np.random.default_rng(seed)
    height, width = page.pixels.shape[:2]
    size = round(1.25 * width), round(1.15 * height) - down
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    seen = flat * (0.95, 1.0) + [(0.15 * width, 80), (0.1 * width, 160), (0.2 * width, 20), (60, -40)]
    matrix = cv2.getPerspectiveTransform(flat, seen.astype(np.float32))
    pixels = np.full((size[1], size[0], 3), (desk, 0.9 * desk, 0.8 * desk), np.float32)
    pixels += cv2.resize(rng.normal(0, 12, (size[1] // 8, size[0] // 30)), size)[..., np.newaxis]  # its grain
    cv2.warpPerspective(page.pixels.astype(np.float32), matrix, size, pixels, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT)
    pixels *= np.linspace(0.95, 0.6, size[0], dtype=np.float32)[np.newaxis, :, np.newaxis]
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.7) + rng.normal(0, 3, (size[1], size[0], 1))
    lines = []
    for text, (left, top, right, bottom) in page.lines:
        corners = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]], np.float32)
        points = cv2.perspectiveTransform(corners, matrix)[0]
        (x, y), (to_x, to_y) = points.min(axis=0).round(), points.max(axis=0).round()
        lines.append((text, (int(x), int(y), int(to_x), int(to_y))))
    return Drawn(np.clip(pixels, 0, 255).astype(np.uint8), lines)


def terminal() -> Drawn:
    """Light text on black, and text that is hardly lighter than black but blue, red or purple."""
    page = blank(900, 500, 0)
    _in_colours(page, 60, MONO, (230,) * 3, (0, 0, 238), (150, 0, 0), (0, 0, 170), (160, 0, 160), (0, 205, 0))
    return page


def sign(text: str, size: int, dark: bool) -> Drawn:
    """Large letters up to the edge of a small picture, dark on light or light on dark."""
    lines = text.split("\n")
    ground, colour = ((20, 40, 90), (250, 250, 250)) if dark else ((240, 230, 140), (160, 0, 0))
    page = blank(round(0.8 * size * max(map(len, lines))), round((1.3 * len(lines) + 0.3) * size))
    page.pixels[:] = ground
    for row, line in enumerate(lines, 1):
        write(page, line, (size // 4, round((1.3 * row - 0.05) * size)), size, BOLD, colour)
    return page


def poster() -> Drawn:
    """Letters of a fifth of the page, and small ones below."""
    page = blank(1400, 900)
    page.pixels[:] = (25, 60, 50)
    write(page, "SUMMER", (30, 210), 200, BOLD, (250, 250, 240))
    write(page, "JAZZ", (30, 470), 200, BOLD, (220, 90, 40))
    write(page, "Doors open at 18:30, music from 19:00", (30, 620), 24, REGULAR, 250)
    write(page, "Old Town Hall, Market Square 4", (30, 680), 24, REGULAR, 250)
    return page


def price() -> Drawn:
    """A few very large letters among small ones, and a button with round ends."""
    page = blank(420, 400)
    page.pixels[:] = (255, 220, 0)
    write(page, "Orange juice 1 litre", (20, 40), 24)
    write(page, "2.49", (60, 170), 120, BOLD, (200, 0, 0))
    write(page, "was 3.19", (20, 270), 22)
    picture = Image.fromarray(page.pixels)
    ImageDraw.Draw(picture).rounded_rectangle((90, 320, 330, 370), 25, fill=(0, 120, 90))
    page.pixels = np.asarray(picture).copy()
    write(page, "Subscribe now", (120, 353), 22, BOLD, 250)
    return page


def leaflet() -> Drawn:
    """Dark text on white, marked by a pen or in a panel, and text hardly darker than white but yellow or pink."""
    page = blank(900, 620)
    cv2.rectangle(page.pixels, (26, 110), (420, 142), (255, 255, 0), -1)
    cv2.rectangle(page.pixels, (60, 180), (330, 212), (255, 180, 220), -1)
    cv2.rectangle(page.pixels, (20, 445), (760, 600), (255, 255, 200), -1)
    dark = (20,) * 3
    pale = (255, 255, 0), (255, 190, 205), (255, 235, 110)
    _in_colours(page, 62, REGULAR, dark, dark, dark, *pale, dark, (170, 20, 20))
    encoded = cv2.imencode(".jpg", page.pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    page.pixels = np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
    return page


def _in_colours(page: Drawn, first: int, font: Path, *colours: tuple[int, int, int]) -> None:
    """A line in each colour below the one before."""
    texts = (
        "The survey of the harbour, sheet 17", "boots, instruments and lanterns", "the chart of 1801 cannot be opened",
        "old poles, ropes and shillings", "figures agreed within a foot", "16 files, 4 folders",
        "nine soundings were struck out", "in red ink",
    )  # fmt: skip
    for row, (text, colour) in enumerate(zip(texts, colours, strict=False)):
        write(page, text, (30, first + 70 * row), 22, font, colour)


def found(page: Drawn, boxes: Sequence[Sequence[float]], least: float = 0.6) -> float:
    """Part of the lines for which one of the boxes overlaps them and no other: intersection over union."""
    hits = 0
    for _, (left, top, right, bottom) in page.lines:
        best = 0.0
        for x, y, to_x, to_y in boxes:
            across, down = min(right, to_x) - max(left, x), min(bottom, to_y) - max(top, y)
            if across > 0 and down > 0:
                both = (right - left) * (bottom - top) + (to_x - x) * (to_y - y) - across * down
                best = max(best, across * down / both)
        hits += best >= least
    return hits / len(page.lines)


ALL = {
    "english": english, "two columns": two_columns, "chinese": chinese, "mixed": mixed, "table": table,
    "table without rules": lambda: table(False), "rotated 3°": lambda: rotated(english(), 3),
    "noisy scan": lambda: scanned(english()), "screenshot": screenshot,
    "terminal": terminal, "leaflet": leaflet, "poster": poster, "price": price,
    "contents": contents, "manual": manual, "paper": paper, "site": site, "cells": cells,
    "newspaper": newspaper, "faded": faded, "fat": fat,
    "bent": lambda: bent(english()), "book": book,
    "photographed": lambda: photographed(two_columns()),
    "photographed, cut off": lambda: photographed(english(), 150, 900),
}  # fmt: skip
