"""Pages of PDF documents read as pictures, against the text that the documents hold: characters and reading order.

    python benchmarks/documents.py FOLDER|PDF... [--pages 3] [--dpi 300] [--tesseract]

Debian's texlive-publishers-doc, texlive-humanities-doc and texlive-lang-chinese hold papers, theses and manuals in
English and Chinese (`dpkg -x PACKAGE.deb OUT`, then OUT/usr/share/doc/texlive-doc). Pages stand at equal distances.

* CER: every line of the document's text that has six characters and more, all of which `zh` knows, against the stretch
  of what was read that is most like it; without spaces and rows of dots, quotation marks and dashes of one form, marks
  by the rule of crnn.marks. Characters that stand somewhere else on the page do not count as wrong.
* order: how much of the page's text, all in one, stands in the same order in what was read (1 - edits / characters of
  both). Formulas and tables, for which there is no one order, bring it down.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pypdfium2
from PIL import Image
from rapidfuzz import fuzz
from rapidfuzz.distance import Indel, Levenshtein

import crnn
from crnn import pretrained
from crnn.checkpoint import load_card
from crnn.marks import typeset

LEAST = 6  # characters of a line that counts
ONE_FORM = str.maketrans("’‘“”–—", "''\"\"--")
LEADERS = re.compile(r"(?: ?[.·…]){4,} ?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--pages", type=int, default=3, help="of each document")
    parser.add_argument("--dpi", type=float, default=300)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--tesseract", action="store_true", help="beside tesseract (chi_sim and eng)")
    arguments = parser.parse_args()
    reader = crnn.PageReader(arguments.model, dpi=arguments.dpi)
    known = set(load_card(pretrained.find_model("zh")).charset.characters)
    totals: dict[str, list[float]] = {}
    paths = [
        path for given in arguments.documents for path in (sorted(given.rglob("*.pdf")) if given.is_dir() else [given])
    ]
    for path in paths:
        document = pypdfium2.PdfDocument(path)
        count = len(document)
        for number in sorted({1 + int((k + 0.5) * count / arguments.pages) for k in range(arguments.pages)}):
            lines = own_lines(document[number - 1])
            if sum(len(line) for line in lines) < 100:
                continue
            read = {"crnn": [line.text for line in reader.read(path, pages=[number])[0].lines]}
            if arguments.tesseract:
                read["tesseract"] = tesseract(document[number - 1], arguments.dpi)
            shown = []
            for name, texts in read.items():
                errors, characters = compare(lines, texts, known)
                order = Indel.normalized_similarity(flat("".join(lines)), flat("".join(texts)))
                total = totals.setdefault(name, [0, 0, 0, 0])
                totals[name] = [sum(pair) for pair in zip(total, (errors, characters, order, 1), strict=True)]
                shown.append(f"{name} CER {100 * errors / max(1, characters):6.2f} %, order {order:.3f}")
            print(f"{path.stem[:32]:32} {number:4}  {'   '.join(shown)}", flush=True)
    for name, (errors, characters, order, pages) in totals.items():
        print(f"{name}: {pages} pages, CER {100 * errors / characters:.2f} %, order {order / pages:.3f}")


def own_lines(page: pypdfium2.PdfPage) -> list[str]:
    """The lines of the document's own text; ligatures in letters, hyphens at their ends as hyphens."""
    text = page.get_textpage().get_text_bounded().replace("\ufffe", "-").replace("\x02", "-")
    lines = (unicodedata.normalize("NFKC" if re.search("[ﬀ-ﬆ]", line) else "NFC", line) for line in text.splitlines())
    return [LEADERS.sub(" ", line).strip() for line in lines]


def flat(text: str) -> str:
    return "".join(typeset(LEADERS.sub(" ", text)).translate(ONE_FORM).split())


def compare(lines: list[str], texts: list[str], known: set[str]) -> tuple[int, int]:
    """Wrong characters and all characters of the lines."""
    read = [flat(text) for text in texts]
    whole = "".join(read)
    errors = characters = 0
    for line in (flat(line) for line in lines if len(line) >= LEAST and known.issuperset(line)):
        found = fuzz.partial_ratio_alignment(line, whole)
        stretches = [whole[found.dest_start : found.dest_end] if found else ""]
        least = Levenshtein.distance(line, stretches[0])
        stretches += [text for text in read if abs(len(text) - len(line)) < least]
        errors += min(len(line), *(Levenshtein.distance(line, stretch) for stretch in stretches))
        characters += len(line)
    return errors, characters


def tesseract(page: pypdfium2.PdfPage, dpi: float) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.fromarray(np.asarray(page.render(scale=dpi / 72).to_pil().convert("RGB"))).save(file.name, dpi=(dpi, dpi))
        command = ["tesseract", file.name, "-", "-l", "chi_sim+eng"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
