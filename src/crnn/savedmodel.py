"""A TensorFlow SavedModel of a model: the network, the decoding and, for encoded images, the loading in one graph.

    serving_default   input_tensor float32 [N, 32, W, 3] from -1 to 1, blue first, any N and W
    bytes             image_bytes string [N], JPEG, PNG, GIF or BMP

Both give decodes_indices, decodes_values and decodes_dense_shape (characters by their place in the charset, from 0) and
strings and confidences [N]. Each image is read at its own padded width, so neighbours change nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from torch import nn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it says of processors and drivers is of no use here
import tensorflow as tf

from crnn import checkpoint
from crnn.charset import BLANK, Charset
from crnn.decoding import Decoder
from crnn.document import Line
from crnn.errors import ConfigError, ModelError
from crnn.export import drawn_crops, rounded
from crnn.image import LIGHT, Image, Preprocessing, bucket, prepare, stack, timesteps
from crnn.model import CRNN, Residual
from crnn.runtime import Engine, open_engine

Layer: TypeAlias = Callable[[Any], Any]

_SHARP = -0.75  # of OpenCV's cubic filter
_GREY = (9798, 19235, 3735)  # of red, green and blue in 2**15, as OpenCV has them
_CONFIDENCE = 1e-3  # by which TensorFlow's may differ


def export_savedmodel(folder: str | Path, out: str | Path, precision: str = "fp32") -> Path:
    """Writes the directory `out`, which TensorFlow Serving takes as one version of a model (MODELS/NAME/1).

    assets.extra holds the charset as the JSON pair that clients of index outputs read, and model.json. fp16 halves the
    weights. ModelError when a text differs from ours at any width, batch or signature; nothing is written then.
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with rounded(folder, precision) as source, tempfile.TemporaryDirectory(dir=out.parent) as place:
        network, card = checkpoint.load(source)
        made = Path(place) / "model"
        graph = _Graph(network, card, half=precision == "fp16")
        tf.saved_model.save(graph, str(made), signatures=graph.signatures())
        extra = made / "assets.extra"
        extra.mkdir()
        shutil.copy(Path(source) / "model.json", extra)
        for name, values in zip(("char_dict", "ord_map"), card.charset.to_index_json(), strict=True):
            text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True)
            (extra / f"{name}.json").write_text(text + "\n", "utf-8")
        _check(made, _Plain(open_engine(source, "torch")), out)
        made.replace(out)
    return out


class _Plain:
    """Reads what the graph should: greedily, with no other views of a crop and no rule for marks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.charset = Charset(engine.card["charset"])
        self.preprocessing = Preprocessing.from_dict(engine.card["preprocessing"])
        self.decoder = Decoder.create(self.charset, engine.card.get("decoder") or {})

    def read(self, crop: Image) -> Line:
        prepared = prepare(crop, self.preprocessing)
        width = prepared.shape[1]
        logits = self.engine.run(stack([prepared], bucket(width)))
        decoding = self.decoder(logits, [timesteps(width, self.preprocessing.stride)])[0]
        return Line(self.charset.decode(decoding.classes), decoding.confidence)


def _check(made: Path, reader: _Plain, out: Path) -> None:
    """Both signatures, loaded anew, against the reader on drawn crops."""
    signatures = tf.saved_model.load(str(made)).signatures
    crops = drawn_crops(reader.charset, reader.preprocessing)
    _check_texts(crops, reader, lambda batch: _texts(signatures["serving_default"](input_tensor=_floats(batch))), out)
    _check_texts(crops, reader, lambda batch: _texts(signatures["bytes"](image_bytes=_encoded(batch))), out)
    line = reader.read(crops[0][0])
    confidence = float(signatures["serving_default"](input_tensor=_floats(crops[0][:1]))["confidences"][0])
    if not abs(confidence - line.confidence) < _CONFIDENCE:
        raise ModelError(f"{out} was not written: a confidence is {confidence:.4f} instead of {line.confidence:.4f}")


def _check_texts(
    batches: Sequence[Sequence[Image]], reader: _Plain, read: Callable[[Sequence[Image]], list[str]], out: object
) -> None:
    """ModelError, naming `out`, if `read` gives other texts for any batch than `reader`."""
    for batch in batches:
        for crop, text in zip(batch, read(batch), strict=True):
            expected = reader.read(crop).text
            if text != expected:
                raise ModelError(
                    f"{out} was not written: it reads {text!r} where the model reads {expected!r} "
                    f"(batch {len(batch)}, width {crop.shape[1]})"
                )


def _floats(batch: Sequence[Image]) -> Any:
    return tf.constant(np.stack(batch)[..., ::-1].astype(np.float32) / np.float32(127.5) - np.float32(1))


def _encoded(batch: Sequence[Image]) -> Any:
    return tf.constant([cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes() for image in batch])


def _texts(outputs: Any) -> list[str]:
    return [text.decode() for text in outputs["strings"].numpy()]


class _Graph(tf.Module):
    """The model as TensorFlow functions. Images are NHWC here, sequences batch first."""

    def __init__(self, network: CRNN, card: checkpoint.Card, half: bool) -> None:
        super().__init__()
        self._half = half
        self._weights: list[Any] = []  # tracked, so that they are saved
        self._backbone = self._layer(network.backbone)
        self._lstm = [self._bidirectional(network.sequence, layer) for layer in range(network.sequence.num_layers)]
        self._head = self._dense(network.head)
        self._bottleneck = self._layer(network.bottleneck)
        self._preprocessing = card.preprocessing
        self._temperature = float(card.decoder.get("temperature", 1.0))
        self._characters = self._strings(card.charset)

    def signatures(self) -> dict[str, Any]:
        height = self._preprocessing.height
        floats = tf.TensorSpec([None, height, None, 3], tf.float32, "input_tensor")
        encoded = tf.TensorSpec([None], tf.string, "image_bytes")
        # Kept, so that what they use is saved; autograph, which rewrites loops and conditions, has nothing to rewrite.
        self.read_pixels = tf.function(self._read_pixels, autograph=False)
        self.read_encoded = tf.function(self._read_encoded, autograph=False)
        return {
            "serving_default": self.read_pixels.get_concrete_function(floats),
            "bytes": self.read_encoded.get_concrete_function(encoded),
        }

    # ---- signatures --------------------------------------------------------------------------------------------------

    def _read_pixels(self, input_tensor: Any) -> dict[str, Any]:
        levels = tf.clip_by_value(tf.round((input_tensor + 1) * 127.5), 0, 255)
        crops = self._grey(tf.cast(tf.reverse(levels, [3]), tf.int32))
        best, kept, strings, confidences = self._decode(self._logits(crops), tf.shape(crops)[2])
        return self._outputs(tf.ragged.boolean_mask(best, kept), strings, confidences)

    def _read_encoded(self, image_bytes: Any) -> dict[str, Any]:
        def read(data: Any) -> Any:
            crop = self._prepare(data)[tf.newaxis]
            best, kept, strings, confidences = self._decode(self._logits(crop), tf.shape(crop)[2])
            return tf.boolean_mask(best[0], kept[0]), strings[0], confidences[0]

        kinds = (tf.RaggedTensorSpec([None], tf.int64), tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.float32))
        return self._outputs(*tf.map_fn(read, image_bytes, fn_output_signature=kinds))

    def _outputs(self, classes: Any, strings: Any, confidences: Any) -> dict[str, Any]:
        sparse = (classes - 1).to_sparse()  # the blank is class 0, characters count from 0 here
        return {
            "decodes_indices": sparse.indices,
            "decodes_values": sparse.values,
            "decodes_dense_shape": sparse.dense_shape,
            "strings": strings,
            "confidences": confidences,
        }

    # ---- images ------------------------------------------------------------------------------------------------------

    def _grey(self, pixels: Any) -> Any:
        """RGB as int32 (…, 3) → float32 (…, channels) in whole levels."""
        if self._preprocessing.channels == 3:
            return tf.cast(pixels, tf.float32)
        weighed = tf.reduce_sum(pixels * tf.constant(_GREY), axis=-1, keepdims=True)
        return tf.cast(tf.bitwise.right_shift(weighed + (1 << 14), 15), tf.float32)

    def _prepare(self, data: Any) -> Any:
        """One encoded image → levels (height, W, channels), as `crnn.image.prepare` makes them."""
        is_png = tf.equal(tf.strings.substr(data, 0, 4), b"\x89PNG")
        is_bmp = tf.equal(tf.strings.substr(data, 0, 2), b"BM")
        pixels = tf.case(
            [
                (is_png, lambda: self._opaque(tf.io.decode_png(data, 4))),
                (is_bmp, lambda: tf.cast(tf.io.decode_image(data, 3, expand_animations=False), tf.int32)),
            ],
            lambda: tf.cast(tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE"), tf.int32),
        )
        pixels = tf.ensure_shape(pixels, [None, None, 3])
        levels = self._grey(pixels)[tf.newaxis]
        height = self._preprocessing.height
        rows, columns = tf.shape(pixels)[0], tf.shape(pixels)[1]
        width = tf.cast(tf.round(tf.cast(columns * height, tf.float64) / tf.cast(rows, tf.float64)), tf.int32)
        width = tf.maximum(self._preprocessing.stride, width)
        resized = tf.cond(
            rows > height,
            lambda: tf.image.resize(levels, [height, width], "area")[0],
            lambda: enlarge(levels[0], height, width),
        )
        return tf.round(resized)

    def _opaque(self, pixels: Any) -> Any:
        """RGBA → RGB as int32, as `crnn.image.load` does it."""
        values = tf.cast(pixels, tf.int32)
        alpha = values[..., 3:]
        colours = values[..., :3] * alpha
        drawn, covered = (tf.reduce_sum(tf.cast(each, tf.int64)) for each in (colours, alpha))
        clear = covered < 128 * tf.size(alpha, tf.int64)
        ground = tf.where(tf.logical_and(drawn > 3 * LIGHT * covered, clear), 0, 255)
        return (colours + ground * (255 - alpha) + 127) // 255

    def _logits(self, levels: Any) -> Any:
        """Levels (N, height, W, channels), padded as `crnn.image.bucket` says → logits (N, T, classes)."""
        width = tf.shape(levels)[2]
        with tf.control_dependencies([tf.debugging.assert_less_equal(
            width, self._preprocessing.max_width, "the image is too wide for this model: cut it into words and lines"
        )]):  # fmt: skip
            step = tf.where(width <= 256, 16, tf.where(width <= 512, 32, 64))
        padding = (width + step - 1) // step * step - width
        images = tf.pad(levels / 127.5 - 1, [[0, 0], [0, 0], [0, padding], [0, 0]])
        columns = tf.squeeze(self._backbone(images), 1)  # (N, T, features)
        for layer in self._lstm:
            columns = layer(columns)
        return self._head(self._bottleneck(columns)) / self._temperature

    # ---- CTC ---------------------------------------------------------------------------------------------------------

    def _decode(self, logits: Any, width: Any) -> tuple[Any, Any, Any, Any]:
        """Greedily: classes (N, T) and which of them count, texts and their probabilities over all alignments (N,)."""
        steps = (width + self._preprocessing.stride - 1) // self._preprocessing.stride
        logits = logits[:, :steps]
        best = tf.argmax(logits, axis=2)
        before = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=BLANK)
        kept = tf.logical_and(best != BLANK, best != before)
        strings = tf.strings.reduce_join(tf.where(kept, tf.gather(self._characters, best), ""), axis=1)
        # The loss of an empty label is not defined there: a character stands in, and another value takes its place.
        empty = tf.logical_not(tf.reduce_any(kept, axis=1))
        first = tf.equal(tf.range(steps), 0)[tf.newaxis]
        labelled = tf.logical_or(kept, tf.logical_and(empty[:, tf.newaxis], first))
        labels = tf.ragged.boolean_mask(tf.cast(tf.maximum(best, 1), tf.int32), labelled).to_sparse()
        lengths = tf.repeat(steps, tf.shape(logits)[0])
        loss = tf.nn.ctc_loss(labels, logits, None, lengths, logits_time_major=False, blank_index=BLANK)
        silence = -tf.reduce_sum(tf.nn.log_softmax(logits)[:, :, BLANK], axis=1)
        return best, kept, strings, tf.exp(-tf.where(empty, silence, loss))

    def _strings(self, charset: Charset) -> Any:
        return tf.constant(["", *charset.characters])

    # ---- layers ------------------------------------------------------------------------------------------------------

    def _weight(self, values: torch.Tensor) -> Callable[[], Any]:
        """A variable of these values, stored in 16 bits if so wanted, and what reads it in 32."""
        array = values.detach().numpy()
        variable = tf.Variable(array.astype(np.float16) if self._half and array.size >= 64 else array, trainable=False)
        self._weights.append(variable)
        return lambda: tf.cast(variable, tf.float32)

    def _layer(self, module: nn.Module) -> Layer:
        """What a module does, in TensorFlow."""
        if isinstance(module, nn.Sequential):
            layers = [self._layer(each) for each in module]

            def chain(x: Any) -> Any:
                for layer in layers:
                    x = layer(x)
                return x

            return chain
        if isinstance(module, Residual):
            inner = self._layer(nn.Sequential(module.first, module.second))
            shortcut = self._layer(module.shortcut)
            return lambda x: tf.nn.relu(inner(x) + shortcut(x))
        if isinstance(module, nn.Conv2d):
            return self._convolution(module)
        if isinstance(module, nn.Linear):
            return self._dense(module)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            scale = module.weight / torch.sqrt(module.running_var + module.eps)
            factor, shift = self._weight(scale), self._weight(module.bias - module.running_mean * scale)
            return lambda x: x * factor() + shift()
        if isinstance(module, nn.ReLU):
            return tf.nn.relu
        if isinstance(module, nn.MaxPool2d):
            size = _pair(module.kernel_size)
            return lambda x: tf.nn.max_pool2d(x, size, size, "VALID")
        if isinstance(module, nn.ZeroPad2d):
            left, right, top, bottom = module.padding
            return lambda x: tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
        if isinstance(module, nn.Identity):
            return lambda x: x
        raise ModelError(f"a {type(module).__name__} has no counterpart in the SavedModel export")

    def _convolution(self, module: nn.Conv2d) -> Layer:
        kernel = self._weight(module.weight.permute(2, 3, 1, 0))
        bias = None if module.bias is None else self._weight(module.bias)
        down, across = _pair(module.padding)
        strides = _pair(module.stride)

        def convolve(x: Any) -> Any:
            x = tf.nn.conv2d(x, kernel(), strides, [[0, 0], [down, down], [across, across], [0, 0]])
            return x if bias is None else x + bias()

        return convolve

    def _dense(self, module: nn.Linear) -> Layer:
        weights = self._weight(module.weight.T)
        bias = None if module.bias is None else self._weight(module.bias)

        def multiply(x: Any) -> Any:
            x = tf.tensordot(x, weights(), 1)
            return x if bias is None else x + bias()

        return multiply

    def _bidirectional(self, module: nn.LSTM, layer: int) -> Layer:
        forwards, backwards = (self._direction(module, f"l{layer}{suffix}") for suffix in ("", "_reverse"))

        def both(x: Any) -> Any:
            x = tf.transpose(x, [1, 0, 2])  # the time first
            there, back = forwards(x), tf.reverse(backwards(tf.reverse(x, [0])), [0])
            return tf.transpose(tf.concat([there, back], 2), [1, 0, 2])

        return both

    def _direction(self, module: nn.LSTM, name: str) -> Layer:
        """One LSTM over (T, N, features); the gates' order (input, forget, cell, output) is that of PyTorch."""
        parts = [
            getattr(module, f"{part}_{name}").detach() for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        weights, bias = self._weight(torch.cat(parts[:2], dim=1).T.contiguous()), self._weight(parts[2] + parts[3])
        hidden = module.hidden_size

        def run(x: Any) -> Any:
            start = tf.zeros([tf.shape(x)[1], hidden])
            peephole = tf.zeros([hidden])
            return tf.raw_ops.BlockLSTMV2(
                seq_len_max=tf.cast(tf.shape(x)[0], tf.int64), x=x, cs_prev=start, h_prev=start, w=weights(),
                wci=peephole, wcf=peephole, wco=peephole, b=bias(),
            ).h  # fmt: skip

        return run


def enlarge(levels: Any, height: Any, width: Any) -> Any:
    """Levels float32 (h, w, channels) → (height, width, channels) by OpenCV's cubic filter, not TensorFlow's own."""
    rows, columns = tf.shape(levels)[0], tf.shape(levels)[1]
    taller = tf.einsum("ih,hwc->iwc", _cubic(rows, height), levels)
    return tf.clip_by_value(tf.einsum("jw,iwc->ijc", _cubic(columns, width), taller), 0.0, 255.0)


def _cubic(size: Any, wanted: Any) -> Any:
    """What each of `size` pixels adds to each of `wanted` (wanted, size)."""
    centres = (tf.range(wanted, dtype=tf.float32) + 0.5) * tf.cast(size / wanted, tf.float32) - 0.5
    taps = tf.floor(centres)[:, tf.newaxis] + tf.range(-1.0, 3.0)  # (wanted, 4)
    away = tf.abs(centres[:, tf.newaxis] - taps)
    near = ((_SHARP + 2) * away - (_SHARP + 3)) * away**2 + 1
    far = ((_SHARP * away - 5 * _SHARP) * away + 8 * _SHARP) * away - 4 * _SHARP
    inside = tf.clip_by_value(tf.cast(taps, tf.int32), 0, size - 1)
    weights = tf.where(away <= 1, near, far)
    return tf.reduce_sum(tf.one_hot(inside, size) * weights[..., tf.newaxis], axis=1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
