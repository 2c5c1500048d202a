"""Bundled models: a folder each in weights/, their ONNX files listed with their SHA-256 in weights/SHA256SUMS."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from crnn.card import CARD, parse_card
from crnn.errors import ModelError

WEIGHTS = Path(__file__).with_name("weights")
CHECKSUMS = "SHA256SUMS"  # as `sha256sum */*.onnx > SHA256SUMS` writes it


def names() -> list[str]:
    """Names of the bundled models."""
    return sorted(file.parent.name for file in WEIGHTS.glob("*/model.onnx"))


def find_model(model: str | Path) -> Path:
    """The folder of a bundled model, else `model` as the path that it is.

    A bundled name wins over a folder of the same name; write ./en for that. The bundled files are checked against their
    SHA-256, since half a download would otherwise read nonsense.
    """
    if isinstance(model, str) and model in names():
        listed = _listed()
        for file in sorted((WEIGHTS / model).glob("*.onnx")):
            if _sha256(file) != listed.get(f"{model}/{file.name}"):
                raise ModelError(f"the bundled model {model} is damaged ({file}): install crnn again")
        return WEIGHTS / model
    path = Path(model)
    if not path.exists():
        bundled = ", ".join(names()) or "none"
        raise ModelError(f"there is no model {str(model)!r}: give a bundled name ({bundled}), a folder or a model.onnx")
    return path


def different() -> list[str]:
    """The bundled models without those that read the same characters as one before: `en` stands for `en-fast`."""
    found: dict[tuple[str, ...], str] = {}
    for name in names():
        found.setdefault(_charset(name), name)
    return list(found.values())


def knowing(characters: Collection[str]) -> tuple[str, int]:
    """The bundled model whose charset has the most of these characters, and how many it has."""
    known = {name: len(set(characters) & set(_charset(name))) for name in names()}
    return max(known.items(), key=lambda each: each[1], default=("", 0))


def _charset(name: str) -> tuple[str, ...]:
    return tuple(parse_card((WEIGHTS / name / CARD).read_text("utf-8"), name)["charset"])


def describe() -> list[dict[str, Any]]:
    """Every bundled model: name, megabytes, number of characters, scores, SHA-256."""
    described = []
    for name in names():
        folder = WEIGHTS / name
        card = parse_card((folder / CARD).read_text(encoding="utf-8"), str(folder / CARD))
        described.append(
            {
                "name": name,
                "megabytes": round((folder / "model.onnx").stat().st_size / 1e6, 1),
                "characters": len(card["charset"]),
                "scores": card.get("scores", {}),
                "sha256": sha256(name),
            }
        )
    return described


def sha256(name: str) -> str:
    """SHA-256 of a bundled model's model.onnx, in hexadecimal."""
    return _sha256(WEIGHTS / name / "model.onnx")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _listed() -> dict[str, str]:
    try:
        lines = (WEIGHTS / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {file.lstrip("*"): digest for digest, file in (line.split(maxsplit=1) for line in lines if line.strip())}
