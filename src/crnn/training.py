"""Training: a TrainConfig in, a model folder out. The loop, precision, devices and checkpoints are Lightning's."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.nn import functional

from crnn import checkpoint, ctc, pretrained
from crnn.callbacks import Best, Progress, Stop, say
from crnn.charset import Charset, named
from crnn.config import SourceConfig, TrainConfig, to_toml
from crnn.data.check import screen
from crnn.data.loader import NO_TARGET, Batch, Batches, Mixture, Part, in_order
from crnn.data.sources import Source, Subset, open_source
from crnn.errors import DataError
from crnn.image import Preprocessing
from crnn.model import CRNN, STRIDE, Architecture

CHECKPOINT = "last.ckpt"
# TensorBoard loads all of TensorFlow where that is installed, for ten seconds, unless this marker says not to.
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))


@dataclass(frozen=True)
class Result:
    """Where the model is and what the last validation said, by source name."""

    folder: Path
    scores: dict[str, dict[str, Any]]


def train(config: TrainConfig, resume: bool = False) -> Result:
    """Trains and writes config.output: model.json, weights.safetensors, model.onnx, config.toml, last.ckpt, logs.

    With `resume`, goes on from last.ckpt in config.output. Raises DataError, ConfigError or ModelError before the first
    step when the data, the settings or the initial model do not fit.
    """
    from crnn.export import export_onnx

    folder = Path(config.output)
    last = folder / CHECKPOINT
    if resume and not last.is_file():
        raise DataError(f"{last} does not exist: there is nothing to resume; leave out --resume")
    if not resume and (last.exists() or (folder / "weights.safetensors").exists()):
        raise DataError(f"{folder} already holds a run: add --resume to go on with it, or choose another --output")

    _tune_cpu()
    seed = config.seed
    torch.manual_seed(seed)
    opened = [(each, open_source(each.path, split=each.split)) for each in config.train]
    charset = _charset(config, [source for _, source in opened])
    preprocessing = Preprocessing(channels=config.model.channels, stride=STRIDE)
    parts = _parts(config, opened, charset, preprocessing)
    valid, fold_case = _validation(config.valid)
    model = CRNN(
        Architecture(
            config.model.architecture, preprocessing.height, config.model.channels,
            config.model.hidden, config.model.layers, config.model.dropout,
        ),
        charset.num_classes,
    )  # fmt: skip
    if config.init:
        moved = checkpoint.transfer(model, charset, pretrained.find_model(config.init))
        counts = f"{len(moved.kept)} characters kept, {len(moved.new)} new, {len(moved.dropped)} dropped"
        say(f"started from {config.init}: {counts}")

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(to_toml(config), "utf-8")
    learner = Learner(model, charset, preprocessing, config, parts, valid)
    card = checkpoint.Card(
        model.architecture, charset, preprocessing,
        provenance={
            "data": [Path(each.path).name for each in config.train], "rendered": config.synth.share,
            "init": Path(config.init).name, "steps": config.steps, "batch": config.batch, "seed": config.seed,
        },
    )  # fmt: skip
    best = Best(folder / "best", card, [name for name, _ in valid], fold_case)
    saved = ModelCheckpoint(
        folder,
        CHECKPOINT.removesuffix(".ckpt"),
        save_top_k=1,
        every_n_train_steps=min(config.checkpoint_every, config.steps),
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    averaging = [EMAWeightAveraging(decay=config.optimiser.ema)] if config.optimiser.ema else []
    # Before the averaging, what must see the averaged weights; behind it, what must hold this step's average.
    callbacks: list[Callback] = [Progress(), best, *averaging, Stop(last), saved]
    with _quiet():
        trainer = Trainer(
            accelerator="auto",
            devices="auto" if torch.cuda.is_available() else 1,
            precision=_precision(config.precision),
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=min(config.validate_every, config.steps) if valid else None,
            check_val_every_n_epoch=None,
            limit_val_batches=None if valid else 0,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=TensorBoardLogger(folder, name="", version="logs"),
            plugins=[LightningEnvironment()],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=50,
        )
        try:
            trainer.fit(learner, ckpt_path=str(last) if resume else None, weights_only=False)
        except SystemExit:  # what Lightning makes of an interrupt
            say(f"stopped at step {trainer.global_step}; crnn train --resume --output {folder} goes on from there")
            raise KeyboardInterrupt from None
        if valid and best.step != config.steps:
            trainer.validate(learner, verbose=False)
    if valid:
        model, card = checkpoint.load(best.folder)
    checkpoint.save(folder, model.cpu().eval(), card)
    export_onnx(folder)
    shutil.rmtree(best.folder, ignore_errors=True)
    say(f"{folder}: model written")
    return Result(folder, card.scores)


class Learner(LightningModule):
    """One training step, one validation, the optimiser and its schedule."""

    def __init__(
        self,
        model: CRNN,
        charset: Charset,
        preprocessing: Preprocessing,
        config: TrainConfig,
        parts: list[Part],
        valid: list[tuple[str, Source]],
    ) -> None:
        super().__init__()
        self.model: CRNN = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.charset, self.preprocessing, self.config = charset, preprocessing, config
        # Lists of sources are no concern of state_dict or of the averaged copy of this module.
        self._data = _Shared(parts, valid)
        upper = [c for c in charset.characters if c.lower() != c and c.lower() in charset]
        self._cases = ([charset.index(c) for c in upper], [charset.index(c.lower()) for c in upper])

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        logits = self(batch.images).float()
        if self.global_step < self.config.column_steps:
            loss = functional.cross_entropy(logits.flatten(0, 1), batch.columns.flatten(), ignore_index=NO_TARGET)
        else:
            loss = self.ctc(logits, batch)
        if not torch.isfinite(loss):
            raise DataError(f"the loss is {loss.item()} at step {self.global_step}; samples: {', '.join(batch.paths)}")
        self.log("loss", loss, batch_size=len(batch))
        return loss

    def ctc(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean over the crops of the CTC loss per label character."""
        log_probs = logits.log_softmax(-1)
        if batch.fold_case.any() and self._cases[0]:
            # Labels of one case only: either form of a letter is right.
            upper, lower = self._cases
            either = torch.logaddexp(log_probs[..., upper], log_probs[..., lower])
            folded = log_probs.clone()
            folded[..., upper] = either
            folded[..., lower] = either
            log_probs = torch.where(batch.fold_case[:, None, None], folded, log_probs)
        losses = functional.ctc_loss(
            log_probs.transpose(0, 1),
            batch.targets.long(),
            batch.lengths,
            batch.target_lengths,
            blank=0,
            reduction="none",
        )
        return (losses / batch.target_lengths.clamp(min=1)).mean()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in vars(batch).items()
        }
        return Batch(**moved)

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        logits = self(batch.images).float().cpu().numpy()
        texts = [self.charset.decode(d.classes) for d in ctc.greedy_batch(logits, batch.lengths.tolist())]
        self.read[dataloader_idx] += zip(batch.labels, texts, strict=True)

    def on_validation_epoch_start(self) -> None:
        self.read: list[list[tuple[str, str]]] = [[] for _ in self._data.valid]  # (label, text) by source

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        if self.config.optimiser.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.optimiser.clip)

    def configure_optimizers(self) -> Any:
        settings = self.config.optimiser
        # Norms and biases are few and must stay free.
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        free = [p for p in self.model.parameters() if p.ndim <= 1]
        optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            fused=self.config.precision != "16",  # a fused step would unscale after clipping
        )
        warmup = min(settings.warmup, max(1, self.config.steps // 10))

        def scale(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = (step - warmup) / max(1, self.config.steps - warmup)
            return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, scale)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> Iterable[Batch]:
        return _Phased(self)

    def val_dataloader(self) -> list[Iterable[Batch]]:
        return [_InOrder(source, self.charset, self.preprocessing) for _, source in self._data.valid]


@dataclass
class _Shared:
    parts: list[Part]
    valid: list[tuple[str, Source]]

    def __deepcopy__(self, _: Any) -> _Shared:
        return self


class _Phased:
    """Rendered crops alone while columns are learnt, then the whole mixture; starts where the trainer stands."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __iter__(self) -> Iterator[Batch]:
        learner, config = self.learner, self.learner.config
        step = learner.trainer.global_step
        rank, world = learner.trainer.global_rank, learner.trainer.world_size
        parts = learner._data.parts
        phases = [
            ([part for part in parts if part.endless], 0, config.column_steps),
            (parts, config.column_steps, config.steps),
        ]
        for kept, begin, end in phases:
            if step >= end:
                continue
            # Each phase counts its own batches; the second must not render the first one's crops again.
            mixture = Mixture(
                kept, learner.charset, learner.preprocessing, config.batch, config.seed, begin * config.batch
            )
            batches = iter(Batches(mixture, step - begin, config.workers, rank, world))
            while step < end:
                yield next(batches)
                step += 1


@dataclass
class _InOrder:
    source: Source
    charset: Charset
    preprocessing: Preprocessing

    def __iter__(self) -> Iterator[Batch]:
        return in_order(self.source, self.charset, self.preprocessing)


def _charset(config: TrainConfig, sources: list[Source]) -> Charset:
    if config.charset == "auto":
        return Charset.from_text(source.label(i) for source in sources for i in range(len(source)))
    if config.charset == "extend":
        base = checkpoint.load_card(pretrained.find_model(config.init)).charset.characters
        labels = {c for source in sources for i in range(len(source)) for c in source.label(i)}
        return Charset(base + "".join(sorted(labels - set(base))))
    return named(config.charset)


def _parts(
    config: TrainConfig, opened: list[tuple[SourceConfig, Source]], charset: Charset, preprocessing: Preprocessing
) -> list[Part]:
    parts = []
    weights = sum(each.weight for each, _ in opened)
    share = config.synth.share if opened else 1.0
    if config.synth.share:
        from crnn.synth.generate import Renderer  # fonts and Pillow are only needed here

        parts.append(Part(Renderer.create(charset, config.synth, config.seed), share))
    for each, source in opened:
        kept, rejected = screen(source, charset, preprocessing)
        for entry in rejected[:10]:
            say(f"left out: {each.path}: {entry.path}: {entry.detail}")
        if len(rejected) > 10:
            say(f"left out: {len(rejected) - 10} more of {each.path}")
        if len(rejected) > config.max_rejected * (len(kept) + len(rejected)):
            raise DataError(
                f"{each.path}: {len(rejected)} of {len(kept) + len(rejected)} samples cannot be trained on, the first: "
                f"{rejected[0].detail}; mend them (crnn data check names all), or raise max_rejected"
            )
        if not kept:
            raise DataError(f"{each.path}: there is no labelled image in it")
        parts.append(Part(Subset(source, kept), (1 - share) * each.weight / weights, each.fold_case, each.augment))
    return parts


def _validation(configs: Iterable[SourceConfig]) -> tuple[list[tuple[str, Source]], list[bool]]:
    """(name, source) of those that have samples, and whether the case of their labels means nothing."""
    opened = [(each, open_source(each.path, split=each.split)) for each in configs]
    kept = [(each, source) for each, source in opened if len(source)]
    return [(Path(each.path).stem, source) for each, source in kept], [each.fold_case for each, _ in kept]


def _precision(wanted: str) -> Any:
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "bf16" if torch.cuda.is_bf16_supported() else "16"
        else:
            wanted = "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[wanted]


def _tune_cpu() -> None:
    """Batches of many widths: keep the kernels made for each shape instead of making them anew."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice about its own settings is no news to a user of this package."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    before = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in zip(names, before, strict=True):
                logging.getLogger(name).setLevel(level)
