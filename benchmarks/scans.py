"""Scans and photographs of pages without transcripts: how many of the words that are read are words.

    python benchmarks/scans.py FOLDER|IMAGE... [--language en] [--tesseract]

Counted are words of three letters and more that are among the frequent ones of the languages (wordfreq). What is read
twice counts twice, and order does not count. Debian's sources of leptonlib (prog/) and tesseract (testing/) have real
pages: newspapers, old books, phone pictures, microfilm (`apt-get source leptonlib tesseract`).
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

from wordfreq import top_n_list

import crnn
from crnn import image

FREQUENT, LEAST = 60_000, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--language", action="append", help="of the words; may be repeated (default: en, fr, de)")
    parser.add_argument("--tesseract", action="store_true", help="beside tesseract (eng)")
    arguments = parser.parse_args()
    words = {word for code in arguments.language or ("en", "fr", "de") for word in top_n_list(code, FREQUENT)}
    reader = crnn.PageReader(arguments.model)
    totals: dict[str, list[int]] = {}
    for given in arguments.images:
        for path in image.find(given) if given.is_dir() else [given]:
            texts = {"crnn": "\n".join(line.text for line in reader.read(path, pages=[1])[0].lines)}
            if arguments.tesseract:
                command = ["tesseract", str(path), "-", "-l", "eng"]
                texts["tesseract"] = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
            shown = []
            for name, text in texts.items():
                read = [word.lower() for word in re.findall(r"[^\W\d_]+", text) if len(word) >= LEAST]
                known = sum(word in words for word in read)
                total = totals.setdefault(name, [0, 0])
                totals[name] = [total[0] + known, total[1] + len(read)]
                shown.append(f"{name} {known:5} of {len(read):5}")
            print(f"{path.name[:32]:32}  {'   '.join(shown)}", flush=True)
    for name, (known, read) in totals.items():
        print(f"{name}: {known} words, of {read} that were read")


if __name__ == "__main__":
    main()
