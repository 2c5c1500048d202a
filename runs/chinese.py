"""Texts for the Chinese model: words of the jieba dictionary, most frequent first, and English ones among them.

    python runs/chinese.py DATA OUT      needs the packages jieba and wordfreq

Writes OUT/words.txt, and OUT/train.txt and OUT/valid.txt: nine tenths and one tenth of DATA's lines of running text.
"""

import sys
from importlib import resources
from pathlib import Path

from wordfreq import top_n_list

ENGLISH = 30_000


def main(data: Path, out: Path) -> None:
    entries = (line.split() for line in resources.files("jieba").joinpath("dict.txt").read_text("utf-8").splitlines())
    counted = {entry[0]: int(entry[1]) for entry in entries}
    chinese = sorted(counted, key=lambda word: -counted[word])
    english = top_n_list("en", ENGLISH)
    placed = [(i / len(part), word) for part in (chinese, english) for i, word in enumerate(part)]
    lines = (data / "chi_sim.training_text.txt").read_text("utf-8").splitlines()
    lines = [line for line in lines if line.strip()]
    out.mkdir(parents=True, exist_ok=True)
    (out / "words.txt").write_text("\n".join(word for _, word in sorted(placed)) + "\n", "utf-8")
    (out / "train.txt").write_text("\n".join(line for i, line in enumerate(lines) if i % 10) + "\n", "utf-8")
    (out / "valid.txt").write_text("\n".join(line for i, line in enumerate(lines) if not i % 10) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
