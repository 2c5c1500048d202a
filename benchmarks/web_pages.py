"""Web pages as a browser shows them: NAME.png, and NAME.txt with the text that the page holds.

    python benchmarks/web_pages.py OUT FOLDER|HTML... [--each 5] [--scale 1] [--dark] [--seed 1] [--chromium PATH]

Needs playwright and a Chromium. Of every folder some pages are drawn by chance, no longer than two or three screens and
of at least 300 characters, in windows of 1,000 to 1,440 pixels. Debian's git-doc, sqlite3-doc, python-django-doc,
debian-handbook, debian-faq-zh-cn, libreoffice-help-zh-cn and gimp-help-zh-cn hold some (`dpkg -x PACKAGE.deb OUT`).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from playwright.sync_api import Browser, Error, sync_playwright

SCREEN, LONGEST, LEAST = 900, 2400, 300  # pixels, pixels, characters
TRIED = 40  # pages of a folder
DARK = "html { background: #111 !important } body { filter: invert(0.88) hue-rotate(180deg) }"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=5, help="pages of each folder")
    parser.add_argument("--scale", type=float, default=1, help="pixels of the screen for one of the page")
    parser.add_argument("--dark", action="store_true", help="light on dark")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        for number, given in enumerate(arguments.pages):
            found = sorted(given.rglob("*.html")) if given.is_dir() else [given]
            rng.shuffle(found)
            taken = 0
            for path in found[:TRIED]:
                if taken == arguments.each:
                    break
                name = arguments.out / f"{number}-{given.stem}-{taken}"
                taken += shoot(browser, path, name, rng.choice((1000, 1280, 1440)), arguments.scale, arguments.dark)
        browser.close()


def shoot(browser: Browser, path: Path, name: Path, width: int, scale: float, dark: bool) -> bool:
    """One page; not one that is long, holds little or cannot be shown."""
    page = browser.new_page(viewport={"width": width, "height": SCREEN}, device_scale_factor=scale)
    try:
        page.goto(path.resolve().as_uri(), timeout=20_000)
        if dark:
            page.add_style_tag(content=DARK)
        text = page.evaluate("document.body.innerText")
        if len(text) < LEAST or page.evaluate("document.documentElement.scrollHeight") > LONGEST:
            return False
        page.screenshot(path=f"{name}.png", full_page=True)
    except Error:
        return False
    finally:
        page.close()
    Path(f"{name}.txt").write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    main()
