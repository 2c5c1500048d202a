"""Uses the page as a person does, in a real browser: make browser. Screenshots go into build/browser.

It needs playwright and a Chromium, which the other tests do not: --chromium names it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.sync_api import Page, expect, sync_playwright

from serving import serving

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
CHINESE = (
    (EXAMPLES / "test_pdf.txt").read_text("utf-8").splitlines()[2][:8]
)  # which the first model, `en`, does not know


def use(page: Page, url: str, out: Path, name: str) -> None:
    outside: list[str] = []
    problems: list[str] = []
    page.on(
        "request",
        lambda request: outside.append(request.url) if not request.url.startswith((url, "blob:", "data:")) else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url)
    expect(page.locator("#model option").first).to_be_attached()
    page.screenshot(path=out / f"{name}-empty.png")

    page.set_input_files("#file", EXAMPLES / "test_02.jpg")
    expect(page.locator("#text")).to_have_text("massaging", ignore_case=True)
    expect(page.locator("#boxes rect")).to_have_count(9)
    page.screenshot(path=out / f"{name}-word.png", full_page=True)

    # A part of it with the mouse: the first half.
    frame = page.locator("#frame").bounding_box()
    assert frame
    page.mouse.move(frame["x"] + 1, frame["y"] + 1)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.52, frame["y"] + frame["height"] - 1, steps=5)
    page.mouse.up()
    expect(page.locator("#whole")).to_be_visible()
    expect(page.locator("#text")).not_to_have_text("massaging", ignore_case=True)
    page.screenshot(path=out / f"{name}-part.png", full_page=True)
    page.locator("#whole").click()
    expect(page.locator("#text")).to_have_text("massaging", ignore_case=True)

    # The same with the keyboard.
    page.locator("#stage").focus()
    for key in ("Enter", "ArrowLeft", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#whole")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_have_text("massaging", ignore_case=True)

    # Paste, and drop.
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate(
            """async ([event, holder, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "x.jpg", { type: "image/jpeg" }));
                const about = { clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true };
                const made = event === "paste" ? new ClipboardEvent(event, about) : new DragEvent(event, about);
                document.body.dispatchEvent(made);
            }""",
            [event, holder, list((EXAMPLES / ("test_01.jpg" if event == "paste" else "test_02.jpg")).read_bytes())],
        )
        expect(page.locator("#text")).to_have_text(
            "creditworthiness" if event == "paste" else "massaging", ignore_case=True
        )

    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator("#status.bad")).to_contain_text("is not an image")

    if page.locator("#page-mode").is_visible():
        page.set_input_files("#file", EXAMPLES / "test_pdf.png")
        expect(page.locator("#status")).to_contain_text("choose Page")
        page.screenshot(path=out / f"{name}-lost.png", full_page=True)
        page.locator("#page-mode").click()
        expect(page.locator("#model")).to_have_value("auto")
        expect(page.locator("#text")).to_contain_text(CHINESE, timeout=120_000)
        page.screenshot(path=out / f"{name}-page.png", full_page=True)

    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, "the page is wider than the screen"
    page.goto(f"{url}/docs")
    expect(page.locator(".endpoint").first).to_be_visible()
    page.screenshot(path=out / f"{name}-docs.png")
    refusals = [each for each in problems if "400 (Bad Request)" in each]
    assert problems == refusals, problems  # of the image that was none
    assert outside == [], outside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "browser")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with serving(arguments.out, "--timeout", 120) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        expect.set_options(timeout=30_000)
        for name, options in {
            "desktop": {"viewport": {"width": 1280, "height": 800}},
            "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
            "phone": dict(playwright.devices["iPhone 13"], default_browser_type=None),
        }.items():
            context = browser.new_context(**{key: value for key, value in options.items() if value is not None})
            use(context.new_page(), server.url, arguments.out, name)
            context.close()
            print(f"{name}: all done, screenshots in {arguments.out}")
        browser.close()


if __name__ == "__main__":
    main()
