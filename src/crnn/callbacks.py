"""What happens around the steps of a training run: progress, the best model so far, an orderly stop."""

from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from crnn import checkpoint, metrics
from crnn.data.loader import Batch

COMBINED = "combined"  # all validation samples together, among the scores


def say(text: str, end: str = "\n") -> None:
    """On stderr: results alone go to stdout."""
    print(text, end=end, file=sys.stderr, flush=True)


class Progress(Callback):
    """Step, loss, learning rate, crops per second and the part of the time spent waiting for data.

    A line every 20 seconds; on a terminal, one that is written over every second.
    """

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.every = 1.0 if self.terminal else 20.0  # seconds

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self._reset()

    def _reset(self) -> None:
        self.since, self.crops, self.busy = time.monotonic(), 0, 0.0
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, learner: LightningModule, batch: Batch, index: int) -> None:
        self.began = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, learner: LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        now = time.monotonic()
        self.busy += now - self.began
        self.crops += len(batch)
        self.losses.append(float(outputs["loss"]))
        if now - self.since > self.every or trainer.global_step == trainer.max_steps:
            seconds = now - self.since
            say(
                f"step {trainer.global_step}/{trainer.max_steps} loss {np.mean(self.losses):.3f} "
                f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2e} {self.crops / seconds:.0f} crops/s "
                f"waiting {1 - self.busy / seconds:.0%}",
                end="\x1b[K\r" if self.terminal and trainer.global_step < trainer.max_steps else "\n",
            )
            self._reset()

    def on_validation_end(self, trainer: Trainer, learner: LightningModule) -> None:
        self._reset()


class Stop(Callback):
    """The last step leaves a checkpoint. Ctrl-C and SIGTERM make the step they fall into the last."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {each: signal.signal(each, self._ask) for each in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        if self.asked or trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.checkpoint)
        if self.asked:
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, learner: LightningModule, stage: str) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)
        self.before = {}


class Best(Callback):
    """Scores every validation and keeps the model with the lowest CER of all validation samples in `folder`.

    Stands before the averaging of weights among the callbacks: it must see the averaged ones, which are published.
    """

    def __init__(self, folder: Path, card: checkpoint.Card, names: list[str], fold_case: list[bool]) -> None:
        self.folder, self.card, self.names, self.fold_case = folder, card, names, fold_case
        self.step = -1  # of the last validation
        self.cer = float("inf")
        if (folder / checkpoint.CARD).is_file():  # a resumed run
            self.cer = checkpoint.load_card(folder).scores[COMBINED]["cer"]

    def on_validation_epoch_end(self, trainer: Trainer, learner: Any) -> None:
        self.step = trainer.global_step
        scores, line = {}, []
        # Where the labels' case says nothing, neither does reading it otherwise.
        read = [
            [(label.lower(), text.lower()) for label, text in pairs] if fold else pairs
            for pairs, fold in zip(learner.read, self.fold_case, strict=True)
        ]
        everything = [pair for of_source in read for pair in of_source]
        for name, pairs in zip([*self.names, COMBINED], [*read, everything], strict=True):
            raw, plain = metrics.score(pairs, "raw"), metrics.score(pairs, "36")
            scores[name] = {"word_accuracy_36": plain.word_accuracy} | raw.to_dict()
            rates = {"word_accuracy_36": plain.word_accuracy, "word_accuracy": raw.word_accuracy, "cer": raw.cer}
            latin = f", under protocol 36 {plain.word_accuracy:.1%}" if plain.samples else ""
            line.append(f"{name} {raw.word_accuracy:.1%} right, CER {raw.cer:.1%}{latin}")
            if trainer.logger:
                trainer.logger.log_metrics({f"{name}/{rate}": value for rate, value in rates.items()}, self.step)
        say(f"step {self.step}: " + ", ".join(line if len(self.names) > 1 else line[:1]))
        shown = [pair for of_source in learner.read for pair in of_source[:2]][:6]
        say("  " + "   ".join(f"{label!r} read {text!r}" for label, text in shown))
        if scores[COMBINED]["cer"] < self.cer:
            self.cer = scores[COMBINED]["cer"]
            checkpoint.save(self.folder, learner.model, replace(self.card, scores=scores))
