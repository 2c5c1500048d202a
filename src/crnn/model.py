"""The network, whole in this file: image → convolutions → one feature column per timestep → BiLSTM → logits.

    images (N, channels, height, W) float32 in -1..1, W a multiple of the stride
    logits (N, T, classes), T = W / stride, class 0 the CTC blank

The architectures share everything but the convolutions:

* `crnn-vgg`    the network of Shi, Bai and Yao, "An End-to-End Trainable Neural Network for Image-based Sequence
                Recognition and Its Application to Scene Text Recognition" (arXiv 1507.05717), Table 1.
* `crnn-small`  residual blocks (He et al., arXiv 1512.03385), under 4 M parameters and a third of the operations.
* `crnn-fast`   the same blocks with fewer channels: again a third.
* `crnn-tiny`   half as deep, and at a quarter of the width from the second convolution on: again a fifth.
* `crnn-large`  `crnn-small` with two more blocks, for scripts of thousands of characters: 1.6 times the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crnn.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """What decides the shape of every weight, save the number of classes. Written into model.json."""

    name: str = "crnn-small"
    height: int = 32  # pixels; the backbones bring 32 rows down to one
    channels: int = 1  # of the image: 1 grey, 3 RGB
    hidden: int = 192  # LSTM units per direction
    layers: int = 2  # stacked BiLSTMs
    dropout: float = 0.1  # on the features and between the LSTMs
    bottleneck: int = 0  # features that the classes are told from; 0: those of the LSTMs as they are

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise ModelError(f"architecture {self.name!r} is unknown: choose one of {', '.join(BACKBONES)}")
        if self.height != 32:
            raise ModelError(
                f"architecture {self.name} reads crops 32 pixels high, not {self.height}: set height to 32"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise ModelError(f"the architecture has {', '.join(unknown)}, which this version does not know")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class CRNN(nn.Module):
    """Convolutional features, read as a sequence of columns."""

    def __init__(self, architecture: Architecture, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone, features = BACKBONES[architecture.name](architecture.channels)
        self.dropout = nn.Dropout(architecture.dropout)
        self.sequence = nn.LSTM(
            features,
            architecture.hidden,
            architecture.layers,
            batch_first=True,
            bidirectional=True,
            dropout=architecture.dropout if architecture.layers > 1 else 0.0,
        )
        features, narrow = 2 * architecture.hidden, architecture.bottleneck
        # With thousands of classes, the head alone would have half of all weights.
        self.bottleneck = nn.Linear(features, narrow, bias=False) if narrow else nn.Identity()
        self.head = nn.Linear(narrow or features, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.backbone(images).squeeze(2).transpose(1, 2)  # (N, features, 1, T) → (N, T, features)
        sequence, _ = self.sequence(self.dropout(columns))
        return self.head(self.bottleneck(sequence))


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1) -> nn.Conv2d:
    padding = kernel // 2 if isinstance(kernel, int) else (0, kernel[1] // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _conv_norm_relu(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1
) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3×3 convolutions around a short cut; the first may shrink the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.first = _conv_norm_relu(inputs, outputs, 3, stride)
        norm = nn.BatchNorm2d(outputs)
        nn.init.zeros_(norm.weight)  # a block starts as its short cut
        self.second = nn.Sequential(_conv(outputs, outputs), norm)
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def _vgg(channels: int) -> tuple[nn.Module, int]:
    """The paper's Table 1; the last convolution is padded on the right so that T = W / 4 exactly."""

    def conv(inputs: int, outputs: int, norm: bool = False) -> list[nn.Module]:
        return [_conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)] if norm else [
            nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU(inplace=True)
        ]  # fmt: skip

    layers = [
        *conv(channels, 64), nn.MaxPool2d(2),  # 16 × W/2
        *conv(64, 128), nn.MaxPool2d(2),  # 8 × W/4
        *conv(128, 256, norm=True), *conv(256, 256), nn.MaxPool2d((2, 1)),  # 4 × W/4
        *conv(256, 512, norm=True), *conv(512, 512), nn.MaxPool2d((2, 1)),  # 2 × W/4
        nn.ZeroPad2d((0, 1, 0, 0)), nn.Conv2d(512, 512, 2), nn.ReLU(inplace=True),  # 1 × W/4
    ]  # fmt: skip
    return nn.Sequential(*layers), 512


def _residual(channels: int, a: int, b: int, c: int, d: int, more: int = 0) -> tuple[nn.Module, int]:
    """Few channels while the picture is large, most of the operations at a quarter of the width; `more` blocks beyond
    one at each of the last two heights."""
    layers = [
        _conv_norm_relu(channels, a, 3, 2),  # 16 × W/2
        Residual(a, b),
        Residual(b, c, 2),  # 8 × W/4
        *(Residual(c, c) for _ in range(1 + more)),
        Residual(c, d, (2, 1)),  # 4 × W/4
        *(Residual(d, d) for _ in range(more)),
        _conv_norm_relu(d, d, (4, 1)),  # 1 × W/4
    ]
    return nn.Sequential(*layers), d


def _tiny(channels: int, a: int = 16, b: int = 32, c: int = 64, d: int = 128) -> tuple[nn.Module, int]:
    layers = [
        _conv_norm_relu(channels, a, 3, 2),  # 16 × W/2
        _conv_norm_relu(a, b, 3, 2),  # 8 × W/4
        Residual(b, b),
        Residual(b, c, (2, 1)),  # 4 × W/4
        Residual(c, c),
        _conv_norm_relu(c, d, (4, 1)),  # 1 × W/4
    ]
    return nn.Sequential(*layers), d


BACKBONES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "crnn-vgg": _vgg,
    "crnn-small": partial(_residual, a=32, b=64, c=128, d=256),
    "crnn-fast": partial(_residual, a=24, b=32, c=80, d=128),
    "crnn-tiny": _tiny,
    "crnn-large": partial(_residual, a=32, b=64, c=128, d=256, more=1),
}
STRIDE = 4  # pixels of width per timestep, of all backbones


def narrowed(weights: Mapping[str, Tensor], model: CRNN) -> dict[str, Tensor]:
    """Weights of residual blocks cut down to the channels that `model` has: those with the largest scales in the norms
    behind them. Training has to go on from there."""
    own = model.state_dict()
    cut = dict(weights)

    def strongest(*norms: str) -> Tensor:
        scale = torch.stack([weights[f"{norm}.weight"].abs() for norm in norms]).sum(0)
        return scale.topk(len(own[f"{norms[0]}.weight"])).indices.sort().values

    def conv(name: str, norm: str, inputs: Tensor, outputs: Tensor) -> None:
        cut[f"{name}.weight"] = weights[f"{name}.weight"][outputs][:, inputs]
        for each in ("weight", "bias", "running_mean", "running_var"):
            cut[f"{norm}.{each}"] = weights[f"{norm}.{each}"][outputs]

    kept = torch.arange(model.architecture.channels)
    for number, block in enumerate(model.backbone.children()):
        at = f"backbone.{number}"
        if not isinstance(block, Residual):
            outputs = strongest(f"{at}.1")
            conv(f"{at}.0", f"{at}.1", kept, outputs)
        else:
            inner = strongest(f"{at}.first.1")
            straight = isinstance(block.shortcut, nn.Identity)  # the channels of the block before go on
            outputs = kept if straight else strongest(f"{at}.second.1", f"{at}.shortcut.1")
            conv(f"{at}.first.0", f"{at}.first.1", kept, inner)
            conv(f"{at}.second.0", f"{at}.second.1", inner, outputs)
            if not straight:
                conv(f"{at}.shortcut.0", f"{at}.shortcut.1", kept, outputs)
        kept = outputs
    for end in ("", "_reverse"):
        name = f"sequence.weight_ih_l0{end}"
        cut[name] = weights[name][:, kept]
    return cut


def deepened(weights: Mapping[str, Tensor], model: CRNN) -> dict[str, Tensor]:
    """Weights of residual blocks for `model`, which has the same and more of them: a block between them starts as its
    short cut, so that it changes nothing until it is trained."""
    grown = {name: value for name, value in weights.items() if not name.startswith("backbone.")}
    old = 0
    for new, block in enumerate(model.backbone.children()):
        own, at = block.state_dict(), f"backbone.{old}."
        given = {name.removeprefix(at): value for name, value in weights.items() if name.startswith(at)}
        fits = {name: value.shape for name, value in own.items()} == {name: each.shape for name, each in given.items()}
        grown |= {f"backbone.{new}.{name}": value for name, value in (given if fits else own).items()}
        old += fits
    return grown
