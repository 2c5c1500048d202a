"""Texts for the model of European languages: frequent words, running text to train on and to be judged by.

    python runs/latin.py OUT [SHARE]

Needs the package wordfreq, and below SHARE (/usr/share) what these Debian packages have there:
libreoffice-help-{ca,cs,da,de,es,et,fi,fr,hu,it,nl,pl,pt,pt-br,sk,sl,sv,tr}, manpages-{da,de,fi,fr,hu,nb,nl,pl,ro,sv},
fortunes-{br,cs,de,es,it,pl} and debian-reference-{de,es,fr,it,pt}. Writes

* OUT/words.txt: frequent words of 23 languages;
* OUT/rare.txt: of these and of the words of train.txt, as many for every letter beyond a to z;
* OUT/train.txt: help of programs, manuals;
* OUT/running.txt: sayings and jokes (fortunes) and a handbook (debian-reference), which nothing is trained on.
"""

import gzip
import random
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from texts import by_rank, pages, write
from wordfreq import top_n_list

from crnn.charset import LATIN

LANGUAGES = [
    "ca", "cs", "da", "de", "en", "es", "fi", "fr", "hu", "is", "it", "lt", "lv", "nb", "nl", "pl", "pt", "ro", "sh",
    "sk", "sl", "sv", "tr",
]  # fmt: skip
WORDS = 30_000  # of each
LINES = 12_000  # of each part of the training text
RARE = 5_000  # for each letter, words that have it; some are repeated
BEYOND_ASCII = {c for c in LATIN if c.isalpha() and not c.isascii()}
# As it is typed on a keyboard; print has other quotation marks and dashes, and the renderer draws those, too.
TYPED = str.maketrans(
    {
        c: typed
        for typed, forms in {'"': "“”‟", "'": "‘’‚‛", "-": "‐‑‒–—―", " ": "\xa0\u2009\u202f"}.items()
        for c in forms
    }
)
ROMANIAN = str.maketrans("şţŞŢ", "șțȘȚ")  # the letters it has; the others are Turkish


def typed(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("…", "...").translate(TYPED)


def manual(file: Path) -> Iterator[str]:
    """The paragraphs of a page in troff."""
    text = re.sub(r"^[.'].*$", "", gzip.decompress(file.read_bytes()).decode("utf-8", "ignore"), flags=re.M)
    text = re.sub(r"\\f\[\w*\]|\\f.|\\&|\\c|\\s[-+]?\d|\\\(..|\\\[\w*\]", "", text.replace(r"\-", "-"))
    yield from re.split(r"\n\s*\n", text)


def sayings(file: Path) -> Iterator[str]:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    yield from text.split("\n%")


def measures(rng: random.Random, count: int) -> Iterator[str]:
    """Prices, dates, measures and references as the continent writes them, which running text has little of."""

    def number() -> str:
        whole = f"{rng.randrange(10 ** rng.randint(1, 6)):,}".replace(",", rng.choice(".. '"))
        return whole + rng.choice(("", f",{rng.randrange(100):02d}", f",{rng.randrange(10)}"))

    forms = (
        lambda: f"{number()} €",
        lambda: f"€ {number()}",
        lambda: rng.choice(("EUR {}", "CHF {}", "{} kr", "{} zł", "{} Kč", "{} Ft", "£{}", "{} TL", "{} lei")).format(
            number()
        ),
        lambda: f"{rng.randint(1, 31)}.{rng.choice(('', ' '))}{rng.randint(1, 12)}.{rng.randint(1950, 2040)}",
        lambda: f"{number()} " + rng.choice(("m²", "m³", "km²", "µm", "°C", "km/h", "kg", "%", "½ l", "cm³", "µg/l")),
        lambda: f"{rng.randint(1, 90)}° {rng.randrange(60)}' N, ±{number()} °C, {number()} × {number()} mm",
        lambda: f"§ {rng.randint(1, 900)} Abs. {rng.randint(1, 9)}, §§ {rng.randint(1, 90)} ff. BGB",
        lambda: rng.choice(
            ("n.º {}", "nº {}", "{}º andar", "{}ª edición", "{}ª feira", "{}° piano", "piso {}º")
        ).format(rng.randint(1, 60)),
        lambda: rng.choice(("• {}", "· {}", "© {}", "{}®", "{}™", "¿{}?", "¡{}!", "{}½")).format(number()),
    )
    for _ in range(count):
        yield " ".join(rng.choice(forms)() for _ in range(rng.randint(1, 3)))


def running(texts: Iterable[str], romanian: bool = False) -> list[str]:
    """Those of several words, once each, on one line."""
    lines = dict.fromkeys(re.sub(r"\s+", " ", typed(text)).strip() for text in texts)
    kept = [line for line in lines if line.count(" ") >= 3 and "\\" not in line]
    return [line.translate(ROMANIAN) for line in kept] if romanian else kept


def rare(words: list[str]) -> list[str]:
    """As many words for each letter: drawn by their frequency they show `ğ` or `ů` once in five hundred crops."""
    having: dict[str, list[str]] = defaultdict(list)
    for word in words:
        for letter in BEYOND_ASCII.intersection(word):
            having[letter].append(word)
    return [word for found in having.values() for word in islice(cycle(found), RARE)]


def main(out: Path, share: Path) -> None:
    rng = random.Random(5)
    train: list[str] = []
    for folder in sorted((share / "libreoffice/help").glob("*/text")):
        lines = running(pages(sorted(folder.rglob("*.html"))))
        train += rng.sample(lines, min(LINES, len(lines)))
    for folder in sorted((share / "man").glob("??")):
        files = sorted(file for file in folder.rglob("*.gz") if file.is_file())
        lines = running((part for file in files for part in manual(file)), folder.name == "ro")
        train += rng.sample(lines, min(LINES, len(lines)))
    fortunes = [path for path in sorted((share / "games/fortunes").rglob("*")) if path.is_file() and not path.suffix]
    told = running(text for path in fortunes for text in sayings(path))
    handbook = running(pages(sorted((share / "debian-reference").glob("*.*.html"))))
    if not train or not told or not handbook:
        sys.exit(
            f"texts are missing below {share}: install the Debian packages that {Path(__file__).name} names at its top"
        )
    out.mkdir(parents=True, exist_ok=True)
    words = [
        [word.translate(ROMANIAN) if code == "ro" else word for word in map(typed, top_n_list(code, WORDS))]
        for code in LANGUAGES
    ]
    write(out / "words.txt", by_rank(words))
    turkish = words[LANGUAGES.index("tr")]  # in small letters, as the others; Python's capital of i is I
    turkish = [f"İ{word[1:]}" for word in turkish if word[0] == "i"] + [
        word.replace("i", "İ").upper() for word in turkish if "i" in word
    ]
    seen = Counter(word for line in train for word in re.findall(r"\w+", line))  # wordfreq writes ß as ss
    balanced = rare([*by_rank(words), *turkish, *(word for word, times in seen.most_common() if times > 1)])
    rng.shuffle(balanced)
    write(out / "rare.txt", balanced)
    write(out / "train.txt", train + list(measures(rng, 2 * LINES)))
    write(out / "running.txt", told + handbook)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path("/usr/share"))
