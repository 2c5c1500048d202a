"""What happens around the steps of a training run: progress, the best model so far, an orderly stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from crnn import checkpoint, metrics
from crnn.data.loader import Batch
from crnn.devices import LAUNCHED, find_ranks, gathered
from crnn.journal import COMBINED, Journal
from crnn.learner import Shown


def say(text: str, end: str = "\n") -> None:
    """On stderr: results alone go to stdout. Of several processes one speaks."""
    if find_ranks().rank == 0:
        print(text, end=end, file=sys.stderr, flush=True)


@dataclass
class _Window:
    """What went by since it was opened."""

    since: float = field(default_factory=time.monotonic)
    crops: int = 0
    waited: float = 0.0  # seconds
    losses: list[float] = field(default_factory=list)

    def rates(self) -> dict[str, float]:
        seconds = max(1e-9, time.monotonic() - self.since)
        return {
            "loss": float(np.mean(self.losses)) if self.losses else float("nan"),
            "crops_per_second": self.crops / seconds,
            "waiting": self.waited / seconds,
        }


class Progress(Callback):
    """Step, loss, learning rate, crops per second, the part of the time spent waiting for data, the part of columns
    read as blank: a line every 20 seconds, on a terminal one that is written over every second; log.jsonl and
    TensorBoard get them every `log_every` steps. Says once what looks wrong."""

    def __init__(self, journal: Journal | None = None, every: int = 10) -> None:
        self.journal, self.log_every = journal, every
        self.terminal = sys.stderr.isatty()
        self.every = 1.0 if self.terminal else 20.0  # seconds
        self.started = time.monotonic()
        self.waited = 0.0  # of learner.waited, what is in the windows
        self.step = -1
        self.told: set[str] = set()

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self.step = trainer.global_step
        self.started = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self.line, self.entry = _Window(), _Window()

    def on_train_batch_end(self, trainer: Trainer, learner: Any, outputs: Any, batch: Batch, index: int) -> None:
        now = time.monotonic()
        waited, self.waited = learner.waited - self.waited, learner.waited
        for window in (self.line, self.entry):
            window.waited += waited
            window.crops += len(batch) * trainer.world_size
            # Lightning divides the loss by the batches of an update.
            window.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step == self.step:  # more batches to come before the weights change
            return
        self.step = trainer.global_step
        last = self.step == trainer.max_steps
        if self.step % self.log_every == 0 or last:
            self._record(trainer, learner)
        if now - self.line.since > self.every or last:
            rates = self.line.rates()
            say(
                f"step {self.step}/{trainer.max_steps} loss {rates['loss']:.3f} lr {_rate(trainer):.2e} "
                f"{rates['crops_per_second']:.0f} crops/s waiting {rates['waiting']:.0%} blank {learner.blank:.0%}",
                end="\x1b[K\r" if self.terminal and not last else "\n",
            )
            self._advise(learner, rates["waiting"])
            self.line = _Window()

    def _record(self, trainer: Trainer, learner: Any) -> None:
        values = self.entry.rates() | {
            "learning_rate": _rate(trainer), "blank": learner.blank, "gradient": learner.norm
        }  # fmt: skip
        if trainer.logger:
            trainer.logger.log_metrics(values, self.step)
        if self.journal:
            rounded = {name: float(f"{value:.5g}") for name, value in values.items()}
            self.journal.write(step=self.step, seconds=round(time.monotonic() - self.started, 2), **rounded)
        self.entry = _Window()

    def _advise(self, learner: Any, waiting: float) -> None:
        config = learner.config
        if waiting > 0.2 and self.step > 100:
            prepare = ", or crnn prepare the data into records" if config.train else ""
            self._tell(
                "waiting",
                f"{waiting:.0%} of the time goes into waiting for data: raise workers (now {config.workers}){prepare}",
            )
        if learner.blank > 0.99 and self.step > config.column_steps + 1000:
            self._tell(
                "blank",
                f"after {self.step} steps the network still reads nothing but blanks: see whether it can learn "
                "anything by heart (--overfit 32), render crops and set column_steps, or start from a model (--init)",
            )

    def _tell(self, what: str, text: str) -> None:
        if what not in self.told:
            self.told.add(what)
            say("  note: " + text)

    def on_validation_end(self, trainer: Trainer, learner: LightningModule) -> None:
        self._reset()


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


class Stop(Callback):
    """The last step leaves a checkpoint. Ctrl-C and SIGTERM, to any process of the run, make the step they fall into
    the last; a second one ends the process at once."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.asked = False
        self.step = -1
        self.before: dict[signal.Signals, Any] = {}
        self.parent = int(os.environ.get(LAUNCHED, 0))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        say(f"\n{signal.Signals(number).name}: stopping after this step")

    def on_train_start(self, trainer: Trainer, learner: LightningModule) -> None:
        self.step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self.before = {each: signal.signal(each, self._ask) for each in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:  # between the batches of an update nothing can be resumed
            return
        self.step = trainer.global_step
        # Nobody is left to speak to, and somebody may resume the run: without its launcher it ends.
        orphan = self.parent and os.getppid() != self.parent
        asked = trainer.strategy.reduce_boolean_decision(bool(self.asked or orphan), all=False)
        if asked or trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.checkpoint)
        if asked:
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, learner: LightningModule, stage: str) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)
        self.before = {}


class Best(Callback):
    """Scores every validation and keeps the model with the lowest CER of all validation samples in `folder`.

    Stands before the averaging of weights among the callbacks: it must see the averaged ones, which are published.
    """

    def __init__(
        self,
        folder: Path,
        card: checkpoint.Card,
        names: list[str],
        fold_case: list[bool],
        journal: Journal | None = None,
        resume: bool = False,
    ) -> None:
        self.folder, self.card, self.names, self.fold_case = folder, card, names, fold_case
        self.journal = journal
        self.step = -1  # of the last validation
        self.cer = float("inf")
        if resume and (folder / checkpoint.CARD).is_file():
            self.cer = checkpoint.load_card(folder).scores[COMBINED]["cer"]

    def on_validation_epoch_end(self, trainer: Trainer, learner: Any) -> None:
        self.step = trainer.global_step
        scores, line = {}, []
        # Where the labels' case says nothing, neither does reading it otherwise.
        read = [
            [(label.lower(), text.lower()) for label, text in pairs] if fold else pairs
            for pairs, fold in zip(map(gathered, learner.read), self.fold_case, strict=True)
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
        say("  " + _said(learner.shown[:6]))
        learner.log("cer", scores[COMBINED]["cer"], logger=False)  # for early stopping
        if trainer.is_global_zero:
            _show(trainer, learner.shown, self.step)
            if self.journal:
                samples = [{"label": each.label, "text": each.text} for each in learner.shown]
                self.journal.write(step=self.step, validation=scores, samples=samples)
        if scores[COMBINED]["cer"] < self.cer:
            self.cer = scores[COMBINED]["cer"]
            if trainer.is_global_zero:
                checkpoint.save(self.folder, learner.model, replace(self.card, scores=scores))


class Decoded(Callback):
    """Without validation: every `every` steps a few crops of the batch under way and what is read in them."""

    def __init__(self, every: int) -> None:
        self.every, self.step = every, -1

    def on_train_batch_end(self, trainer: Trainer, learner: Any, outputs: Any, batch: Batch, index: int) -> None:
        if trainer.global_step in (self.step, 0) or trainer.global_step % self.every or not trainer.is_global_zero:
            return
        self.step = trainer.global_step
        samples = learner.look(batch)[:6]
        say(f"step {self.step}: " + _said(samples))
        _show(trainer, samples, self.step)


def _said(samples: list[Shown]) -> str:
    return "   ".join(f"{each.label!r} read {each.text!r}" for each in samples)


def _show(trainer: Trainer, samples: list[Shown], step: int) -> None:
    """To TensorBoard: a picture of the crops, a table of labels and texts."""
    board: Any = getattr(trainer.logger, "experiment", None)
    if not samples or not hasattr(board, "add_image"):
        return
    width = max(each.crop.shape[1] for each in samples)
    rows = [cv2.copyMakeBorder(s.crop, 1, 1, 0, width - s.crop.shape[1], cv2.BORDER_CONSTANT) for s in samples]
    picture = np.concatenate([row.reshape(*row.shape[:2], -1) for row in rows])
    board.add_image("crops", picture, step, dataformats="HWC")
    table = "".join(f"| `{each.label}` | `{each.text}` |\n" for each in samples)
    board.add_text("read", f"| label | read |\n|---|---|\n{table}", step)
