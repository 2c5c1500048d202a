"""Model folders: model.json + weights.safetensors (+ model.onnx, written by export)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from crnn.card import CARD, FORMAT, INT8, parse_card
from crnn.charset import Charset
from crnn.errors import CrnnError, ModelError
from crnn.image import Preprocessing
from crnn.model import CRNN, Architecture, deepened, narrowed


@dataclass(frozen=True)
class Card:
    """model.json: everything about a model but its weights."""

    architecture: Architecture
    charset: Charset
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    decoder: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)  # data, seeds, steps
    scores: dict[str, Any] = field(default_factory=dict)
    first: str | None = None  # the bundled model that reads what is easy before this one does

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "architecture": self.architecture.to_dict(),
                "charset": self.charset.characters,
                "preprocessing": self.preprocessing.to_dict(),
                "decoder": self.decoder,
                "provenance": self.provenance,
                "scores": self.scores,
            }
            | ({"first": self.first} if self.first else {}),
            ensure_ascii=False,
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> Card:
        """ModelError, naming `where`, when the text is no model card of this format."""
        values = parse_card(text, where)
        try:
            return cls(
                Architecture.from_dict(values["architecture"]),
                Charset(values["charset"]),
                Preprocessing.from_dict(values["preprocessing"]),
                values.get("decoder", {}),
                values.get("provenance", {}),
                values.get("scores", {}),
                values.get("first"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{where} is not a model card ({type(error).__name__}: {error}); train or export it again"
            ) from None


def save(folder: str | Path, model: CRNN, card: Card, half: bool = False) -> None:
    """Writes the folder's two files; each appears whole or not at all. half stores float16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        weights[name] = value.half() if half and value.is_floating_point() else value
    partial = folder / "weights.safetensors.part"
    partial.write_bytes(serialise(weights))
    partial.replace(folder / "weights.safetensors")
    (folder / INT8).unlink(missing_ok=True)  # made of the weights before, and what is read by default
    partial = folder / "model.json.part"
    partial.write_text(card.to_json() + "\n", "utf-8")
    partial.replace(folder / CARD)


def load_card(folder: str | Path) -> Card:
    path = Path(folder) / CARD
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{path}: {reason}; a model folder has model.json and weights.safetensors") from None
    return Card.from_json(text, str(path))


def load(folder: str | Path) -> tuple[CRNN, Card]:
    """The network in float32, in evaluation mode, and its card."""
    card = load_card(folder)
    model = CRNN(card.architecture, card.charset.num_classes)
    weights = load_weights(folder)
    try:
        model.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        )
    except RuntimeError as error:
        raise ModelError(
            f"{folder}: weights.safetensors does not fit model.json ({str(error).splitlines()[-1].strip()})"
        ) from None
    return model.eval(), card


def load_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    path = Path(folder) / "weights.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); copy or train the model again") from None


@dataclass(frozen=True)
class Transfer:
    """What became of the output rows when a model was started from another: characters kept, new and dropped."""

    kept: str
    new: str
    dropped: str


def transfer(model: CRNN, charset: Charset, folder: str | Path) -> Transfer:
    """Starts `model` from the folder's weights. Rows of the head are matched by character, whatever the order of the
    charsets; rows of new characters stay as initialised. A narrower `crnn-fast` takes the strongest channels of a
    `crnn-small`; a deeper `crnn-large` begins as one, and a bottleneck with what matters most to the head. ModelError
    when the networks differ otherwise."""
    card = load_card(folder)
    weights = {
        name: value.float() if value.is_floating_point() else value for name, value in load_weights(folder).items()
    }
    if (card.architecture.name, model.architecture.name) == ("crnn-small", "crnn-fast"):
        weights = narrowed(weights, model)
    if (card.architecture.name, model.architecture.name) == ("crnn-small", "crnn-large"):
        weights = deepened(weights, model)
    own = model.state_dict()
    head = ("head.weight", "head.bias")
    factor = model.architecture.bottleneck and not card.architecture.bottleneck
    if factor:  # the product of both parts is what the rows are moved into
        own["head.weight"] = own["head.weight"] @ own.pop("bottleneck.weight")
    for name, value in own.items():
        if name not in head and (name not in weights or weights[name].shape != value.shape):
            raise ModelError(
                f"{folder} is a {card.architecture}, the new model a {model.architecture}: make them the same"
            )
    rows = [(0, 0)] + [(charset.index(c), card.charset.index(c)) for c in charset.characters if c in card.charset]
    mine, theirs = (torch.tensor(column) for column in zip(*rows, strict=True))
    for name in head:
        moved = own[name].clone()
        moved[mine] = weights[name][theirs]
        weights[name] = moved
    if factor:
        left, strengths, right = torch.linalg.svd(weights["head.weight"], full_matrices=False)
        root = strengths[: model.architecture.bottleneck].sqrt()
        weights["head.weight"] = left[:, : len(root)] * root
        weights["bottleneck.weight"] = root[:, None] * right[: len(root)]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CrnnError(f"{folder}: {error}") from None
    difference = card.charset.diff(charset)
    return Transfer("".join(c for c in charset.characters if c in card.charset), difference.added, difference.removed)
