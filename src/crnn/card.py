"""model.json, the card that says what a model is: architecture, charset, preprocessing, where it comes from, scores."""

from __future__ import annotations

import json
from typing import Any

from crnn.errors import ModelError

CARD = "model.json"  # the file in a model folder, and the key in the metadata of model.onnx
INT8 = "model-int8.onnx"  # beside model.onnx, where a model has 8-bit weights as well
FORMAT = 1


def parse_card(text: str | None, where: str) -> dict[str, Any]:
    """The model's description from JSON; ModelError, naming `where`, when it is none of this format."""
    if text is None:
        raise ModelError(f"{where} has no {CARD} in its metadata: it was not exported by crnn")
    try:
        card = json.loads(text)
        version = card["format"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{where} has a damaged {CARD}: train or export the model again") from None
    if version != FORMAT:
        raise ModelError(f"{where} has format {version!r}, this version of crnn reads {FORMAT}: update crnn")
    return dict(card)
