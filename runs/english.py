"""Makes src/crnn/languages/english.npz and english.txt from the English word list of tesseract-ocr/langdata.

    python runs/english.py eng.wordlist.txt

The list (Apache License 2.0) has word forms as they stand in running text, the most frequent first.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

from crnn.language import LanguageModel, by_rank

WORDS = 60_000
FOLDER = Path(__file__).parent.parent / "src" / "crnn" / "languages"

forms = Path(sys.argv[1]).read_text("utf-8").split()
LanguageModel.train(by_rank(forms[:120_000])).save(FOLDER / "english.npz")

counts: dict[str, float] = defaultdict(float)
for rank, form in enumerate(forms):
    word = re.sub(r"^[^A-Za-z]+|[^A-Za-z]+$", "", form)
    word = re.sub(r"'[Ss]$", "", word)
    if form.isascii() and re.fullmatch(r"[A-Za-z]{2,}('[A-Za-z]+)?|[aI]", word):
        counts[word.lower()] += 1 / (rank + 10)
words = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
(FOLDER / "english.txt").write_text("\n".join(words) + "\n", "utf-8")
