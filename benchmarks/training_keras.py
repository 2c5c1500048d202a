"""Training the paper's network: crnn's own training path beside TensorFlow/Keras, one after the other in one run.

    python benchmarks/training_keras.py [--steps 20] [--json]

The same network on both sides (crops of 32 x 100, batch 64, CTC, SGD with momentum). crnn trains as `crnn train` does,
data pipeline included; Keras trains on arrays that lie in memory, in float32 as it comes and in mixed bfloat16.
Needs pip install 'crnn[train,tensorflow]'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

BATCH, CLASSES, LENGTH = 64, 37, 6


def train_keras(steps: int, policy: str) -> float:
    """Images a second, the median of the steps after the first few."""
    import keras
    import numpy as np
    import tensorflow as tf
    from keras_crnn import HEIGHT, WIDTH, build

    keras.mixed_precision.set_global_policy(policy)
    model = build(CLASSES)
    optimiser = keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=5.0)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(-1, 1, (BATCH, HEIGHT, WIDTH, 1)).astype(np.float32))
    labels = tf.constant(rng.integers(0, CLASSES - 1, (BATCH, LENGTH)).astype(np.int32))
    lengths, steps_of = tf.fill((BATCH,), LENGTH), tf.fill((BATCH,), WIDTH // 4)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(
                tf.nn.ctc_loss(labels, logits, lengths, steps_of, logits_time_major=False, blank_index=CLASSES - 1)
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimiser.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    took = []
    for _ in range(steps + 3):
        began = time.perf_counter()
        float(step())
        took.append(time.perf_counter() - began)
    return BATCH / statistics.median(took[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keras", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keras:  # a process each, so that neither library holds the other's threads and memory
        print(train_keras(given.steps, given.keras))
        return
    command = [sys.executable, "-m", "crnn", "benchmark", "--part", "training", "--seconds", "0.1", "--json"]
    ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["other"]["training"]
    found = {
        "crnn": ours["images_per_second"],
        "waiting_for_data": ours["waiting"],
        "crnn_precision": ours["precision"],
    }
    for policy in ("float32", "mixed_bfloat16"):
        command = [sys.executable, __file__, "--steps", str(given.steps), "--keras", policy]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found[f"keras_{policy}"] = round(float(done.stdout.split()[-1]), 1)
        found[f"times_{policy}"] = round(found["crnn"] / found[f"keras_{policy}"], 2)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24}{value}")


if __name__ == "__main__":
    main()
