"""The paper's network as TensorFlow projects write it: seven convolutions, two BiLSTMs, CTC, crops of 32 x 100."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import tensorflow as tf

HEIGHT, WIDTH = 32, 100


def build(classes: int, channels: int = 1) -> keras.Model:
    """Images (N, 32, 100, channels) → logits (N, 25, classes), the last class the blank."""
    layers = keras.layers
    images = keras.Input((HEIGHT, WIDTH, channels))
    x = images
    for filters, norm, pool in (
        (64, False, 2), (128, False, 2), (256, True, None), (256, False, (2, 1)), (512, True, None),
        (512, False, (2, 1)),
    ):  # fmt: skip
        x = layers.Conv2D(filters, 3, padding="same", activation=None if norm else "relu", use_bias=not norm)(x)
        if norm:
            x = layers.Activation("relu")(layers.BatchNormalization()(x))
        if pool:
            x = layers.MaxPooling2D(pool)(x)
    x = layers.ZeroPadding2D(((0, 0), (0, 1)))(x)
    x = layers.Conv2D(512, 2, activation="relu")(x)  # (N, 1, 25, 512)
    x = layers.Reshape((WIDTH // 4, 512))(x)
    for _ in range(2):
        x = layers.Bidirectional(layers.LSTM(256, return_sequences=True))(x)
    return keras.Model(images, layers.Dense(classes, dtype="float32")(x))


def reader(model: keras.Model):
    """Encoded JPEGs (N,) → sparse classes of the greedy path: what the old project did for one batch."""

    def prepare(data: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(data, channels=model.inputs[0].shape[-1])
        return tf.image.resize(pixels, (HEIGHT, WIDTH)) / 127.5 - 1.0

    @tf.function
    def network(images: tf.Tensor) -> tf.Tensor:
        logits = tf.transpose(model(images, training=False), (1, 0, 2))
        lengths = tf.fill((tf.shape(images)[0],), WIDTH // 4)
        [found], _ = tf.nn.ctc_greedy_decoder(logits, lengths)
        return tf.sparse.to_dense(found, -1)

    def read(encoded: list[bytes], batch: int = 64) -> int:
        data = tf.data.Dataset.from_tensor_slices(encoded).map(prepare, tf.data.AUTOTUNE).batch(batch).prefetch(2)
        return sum(len(network(images)) for images in data)

    return read
