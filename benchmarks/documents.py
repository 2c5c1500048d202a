"""Pages of documents read as pictures, against the text that they hold: characters and reading order.

    python benchmarks/documents.py FOLDER|PDF|PNG... [--pages 3] [--dpi 300] [--tesseract]

Of a PDF, pages at equal distances; of a PNG, what stands in the text file of its name (benchmarks/web_pages.py makes
them of web pages).

Debian's texlive-publishers-doc, texlive-humanities-doc and texlive-lang-chinese hold papers, theses and manuals in
English and Chinese (`dpkg -x PACKAGE.deb OUT`, then OUT/usr/share/doc/texlive-doc).

* CER: every line of the document's text that has six characters and more, all of which a bundled model knows, against
  the stretch of what was read that is most like it; without spaces and rows of dots, quotation marks and dashes of one
  form, marks by the rule of crnn.marks. Characters that stand somewhere else on the page do not count as wrong.
* order: how much of the page's text, all in one, stands in the same order in what was read (1 - edits / characters of
  both). Formulas and tables, for which there is no one order, bring it down.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
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
    known = {c for name in pretrained.names() for c in load_card(pretrained.find_model(name)).charset.characters}
    totals: dict[str, list[float]] = {}
    for given in arguments.documents:
        for path in sorted(p for p in given.rglob("*") if p.suffix in (".pdf", ".png")) if given.is_dir() else [given]:
            for number, lines in sheets(path, arguments.pages):
                read = {"crnn": [line.text for line in reader.read(path, pages=[number])[0].lines]}
                if arguments.tesseract:
                    read["tesseract"] = tesseract(path, number, arguments.dpi)
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


def sheets(path: Path, pages: int) -> Iterator[tuple[int, list[str]]]:
    """Numbers of pages, at equal distances, and the lines of their text, of which there are a hundred characters."""
    if path.suffix == ".png":
        yield 1, re.split(r"[\n\t]", path.with_suffix(".txt").read_text(encoding="utf-8"))
        return
    document = pypdfium2.PdfDocument(path)
    for number in sorted({1 + int((k + 0.5) * len(document) / pages) for k in range(pages)}):
        lines = own_lines(document[number - 1])
        if sum(len(line) for line in lines) >= 100:
            yield number, lines


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


def tesseract(path: Path, number: int, dpi: float) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        if path.suffix == ".pdf":
            picture = pypdfium2.PdfDocument(path)[number - 1].render(scale=dpi / 72).to_pil().convert("RGB")
            picture.save(file.name, dpi=(dpi, dpi))
        command = ["tesseract", file.name if path.suffix == ".pdf" else path, "-", "-l", "chi_sim+eng"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
