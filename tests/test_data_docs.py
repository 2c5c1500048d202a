"""The label files that docs/data.md shows are read as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crnn.data.labels import read_labels

TEXT = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "name", "labels"),
    [
        ("labels.csv", "labels.csv", ["Hello, world", 'say "hi"', "25 €", "a, b"]),
        ("labels.jsonl", "labels.jsonl", ["Hello, world", 'say "hi"', "25 €", "12", "a\tb"]),
        ("ICDAR's gt.txt", "gt.txt", ["Tiredness", "a, b", 'he said "kills"', "kills", ","]),
        ("PaddleOCR lists", "rec_gt_train.txt", ["简单可依赖", "用科技让复杂的世界更简单", "简单", "简单"]),
    ],
)
def test_examples(heading: str, name: str, labels: list[str]) -> None:
    [block] = re.findall(rf"^\*\*{re.escape(heading)}.*?```\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
    table = read_labels(block.encode(), name)
    assert (list(table.labels), table.rejected) == (labels, [])
