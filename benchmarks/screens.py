"""Pages as a browser shows them: small smoothed type, light and dark, with every mark of running text."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from pathlib import Path

from crnn import image

ENGLISH = """\
Dear Ms. O'Neill, thank you for your order no. 48-2213 (placed on 7/19/2023); it left our warehouse this morning.
"Where have you been?" he asked. "I've waited since 4:45 p.m.!"
Usage: tool [--verbose] [-n COUNT] FILE... | sort -u > /tmp/result.txt && echo "done"
Room 3B, 2nd floor: 12 chairs, 1 projector, 100 Mbit/s network; seats up to 35 people.
Price: EUR 1,249.00 + 19% VAT = EUR 1,486.31. Pay within 14 days, or 3% will be added.
The results (n = 312) differ by 0.8%; see Table 4, p. 117, and reference [23].
if (count >= 10 && name != "root") { total += 3 * price; }
Follow us @crane_news, call 1-800-555-0142, or write to help.desk@example.net today!
Chapter 11. Why do birds migrate? Because food, light and warmth follow the seasons...
Copyright 2019-2025 Hill & Sons Ltd. All rights reserved. Terms apply.
""".splitlines()

CHINESE = """\
她轻轻合上书，笑道：“明天见！”说完便走进了雨里……
《红楼梦》共一百二十回，前八十回由曹雪芹所作——后四十回的作者，至今仍有争论。
2023年7月19日，本市最高气温达38.6℃，比去年同期高出2.4℃。
下载地址：https://www.example.com/download（约350 MB），安装前请关闭杀毒软件。
会议时间：周三14:00—16:30；地点：3号楼205室；参加者：各部门负责人。
“为什么不早说？”父亲叹了口气，“要是知道你喜欢画画，我们当初就……”
运费：满99元包邮，不足99元收取8元；偏远地区（新疆、西藏等）另计。
使用 Python 3.12 编写，支持 Windows、macOS 和 Linux；代码见 GitHub。
答案：A、C、D。解析：由题意可知，x + y = 15，所以 x = 6。
全体起立！——主席宣布大会开始，掌声经久不息。
""".splitlines()

STYLES = {  # name: pixels of type, family, ink, paper
    "13 px": (13, "sans-serif", "#222", "#fff"),
    "16 px serif": (16, "serif", "#111", "#fdf6e3"),
    "14 px dark": (14, "sans-serif", "#d0d0d0", "#1e1e2e"),
    "12 px grey": (12, "sans-serif", "#666", "#f4f4f4"),
}


def screens() -> dict[str, tuple[image.Image, str]]:
    """Name → what Chromium shows, and the text; nothing where there is no Chromium."""
    if not (chromium := shutil.which("chromium")):
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        for language, lines in (("en", ENGLISH), ("zh-CN", CHINESE)):
            for style, (size, family, ink, paper) in STYLES.items():
                paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
                look = f"font: {size}px/1.6 {family}; color: {ink}; background: {paper}; margin: 24px"
                page.write_text(
                    f'<html lang="{language}"><meta charset="utf-8"><body style="{look}">{paragraphs}', encoding="utf-8"
                )
                command = [
                    chromium, "--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={picture}",
                    f"--window-size={64 * size + 48},{60 * size}", str(page),
                ]  # fmt: skip
                subprocess.run(command, capture_output=True, check=True)
                found[f"screen, {language[:2]}, {style}"] = (image.load(picture), "\n".join(lines))
    return found
