"""One training step and one validation: what Lightning's trainer repeats."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crnn import ctc, pretrained
from crnn.charset import BLANK, Charset
from crnn.config import TrainConfig
from crnn.data.loader import NO_TARGET, Batch, Batches, Mixture, Part, in_order
from crnn.data.sources import Source
from crnn.devices import Ranks
from crnn.errors import ConfigError, DataError
from crnn.image import Preprocessing
from crnn.model import CRNN
from crnn.optimiser import make_optimiser, schedule
from crnn.runtime import Engine, open_engine

HOPELESS = 4.0  # loss a character of crops that nobody could read: at chance, of 55 characters
SURELY = 0.03  # and of readings as likely as 0.97 a character: where a label says something else, mostly it is wrong
CHARSET = "charset"  # of the run, in its checkpoints
OTHERS = 1 / 4  # part of the hardest crops that are any others, so that nothing is forgotten
TAUGHT = 0.5  # part of the loss that is what the teacher says otherwise, where there is one
SHOWN = 8  # crops of every validation that are shown with what was read in them


@dataclass(frozen=True)
class Shown:
    """A crop as the network sees it, uint8 (H, W, C), its label and what was read."""

    crop: NDArray[np.uint8]
    label: str
    text: str


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
        ranks: Ranks,
    ) -> None:
        super().__init__()
        self.model: CRNN = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.charset, self.preprocessing, self.config = charset, preprocessing, config
        # Lists of sources are no concern of state_dict or of the averaged copy of this module.
        self._data = _Shared(parts, valid, config.teacher)
        self.ranks = ranks
        self.last: Batch | None = None  # the batch of the step under way
        self.waited = 0.0  # seconds, for data
        self.blank = self.norm = float("nan")  # part of the columns read as blank; length of the last gradient
        for stage in config.freeze:
            try:
                model.get_submodule(stage).requires_grad_(False)
            except AttributeError:
                stages = ", ".join(name for name, _ in model.named_modules() if name.count(".") < 2 and name)
                raise ConfigError(f"freeze = {stage!r} does not exist: this network has {stages}") from None
        if not any(weights.requires_grad for weights in model.parameters()):
            raise ConfigError("freeze names every part of the network: nothing is left to train")
        self.train()
        other = torch.arange(charset.num_classes)
        for upper, lower in ((c, c.lower()) for c in charset.characters):
            if upper != lower and lower in charset and lower.upper() == upper:  # not the sign of kelvins
                other[charset.index(upper)], other[charset.index(lower)] = charset.index(lower), charset.index(upper)
        self.other_case: Tensor  # class of each letter in the other case
        self.register_buffer("other_case", other, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> Learner:
        super().train(mode)
        if self.config.hardest < 1:  # the statistics are to be those of all crops
            for part in self.model.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.eval()
        for stage in self.config.freeze:  # its norms keep their statistics, its dropout is none
            self.model.get_submodule(stage).eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHARSET] = self.charset.characters

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        # Dropout follows from the step alone, so that a resumed run needs no state but the checkpoint's step.
        batches = self.global_step * self.config.accumulate + index % self.config.accumulate
        torch.manual_seed(self.config.seed * 1_000_003 + batches * self.ranks.world + self.ranks.rank)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        if self.config.hardest < 1:
            batch = self._hardest(batch)
        self.last = batch
        logits = self(batch.images)
        loss = self.losses(logits, batch).mean()
        if not torch.isfinite(loss):
            raise DataError(self._complaint(logits, batch))
        if (self.global_step + 1) % self.config.log_every == 0 or math.isnan(self.blank):
            inside = torch.arange(logits.shape[1], device=logits.device)[None] < batch.lengths[:, None]
            self.blank = (logits.argmax(-1)[inside] == BLANK).float().mean().item()
        return loss

    @torch.no_grad()
    def _hardest(self, batch: Batch) -> Batch:
        """The crops that are read worst, and some of the others. Reading one takes a third of learning from it."""
        self.model.eval()
        logits = self(batch.images)
        losses = self.ctc(logits, batch).cpu()
        self.train()
        pointless = (losses > HOPELESS) | read_otherwise(logits, losses, batch)
        hardest = torch.where(pointless, 0.0, losses).argsort(descending=True)
        kept = max(1, round(len(batch) * self.config.hardest))
        worst = kept - round(kept * OTHERS)
        others = hardest[worst:]
        return batch.only(torch.cat([hardest[:worst], others[torch.randperm(len(others))[: kept - worst]]]))

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """What the mean is taken of: while columns are learnt, of each known column; then of each crop."""
        if self.global_step < self.config.column_steps:
            return functional.cross_entropy(
                logits.float().flatten(0, 1), batch.columns.flatten(), ignore_index=NO_TARGET, reduction="none"
            )[batch.columns.flatten() != NO_TARGET]
        losses = self.ctc(logits, batch)
        return torch.lerp(losses, self.untaught(logits, batch), TAUGHT) if self.config.teacher else losses

    def ctc(self, logits: Tensor, batch: Batch) -> Tensor:
        """(N,) CTC loss per label character of each crop."""
        classes = functional.pad(batch.targets.long(), (1, 0), value=BLANK)  # (N, 1 + L): all that CTC asks for
        lengths, target_lengths = batch.lengths.to(logits.device), batch.target_lengths.to(logits.device)

        def picked(numbers: Tensor) -> Tensor:
            return logits.gather(-1, numbers[:, None].expand(-1, logits.shape[1], -1)).float()

        own = picked(classes)  # (N, T, 1 + L)
        if batch.fold_case.any():
            # Labels of one case only: either form of a letter is right.
            other = self.other_case[classes]
            either = batch.fold_case.to(logits.device)[:, None] & (other != classes)
            own = torch.where(either[:, None], torch.logaddexp(own, picked(other)), own)
        # The loss among these classes alone, and how small a part they are of all. With thousands of classes, what
        # log_softmax and ctc_loss do to all of them takes a third of a step. On a CPU one crop stays in the cache.
        at_once = 1 if logits.device.type == "cpu" else len(logits)
        whole = torch.cat([some.float().logsumexp(-1) for some in logits.split(at_once)])  # (N, T)
        inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
        outside = ((whole - own.logsumexp(-1)) * inside).sum(1)
        numbers = (classes[:, :, None] == classes[:, None]).int().argmax(-1)  # equal characters have one
        among = functional.ctc_loss(
            own.log_softmax(-1).transpose(0, 1), numbers[:, 1:], lengths, target_lengths, reduction="none"
        )
        return (among + outside) / target_lengths.clamp(min=1)

    def untaught(self, logits: Tensor, batch: Batch) -> Tensor:
        """(N,) divergence of every column from what the teacher says of it (Kullback and Leibler's), per label
        character of each crop."""
        told = torch.from_numpy(self._data.teacher(logits.device).run(batch.images.float().cpu().numpy()))
        said, told = (each.float().log_softmax(-1) for each in (logits, told.to(logits.device)))
        divergence = functional.kl_div(said, told, reduction="none", log_target=True).sum(-1)
        inside = torch.arange(logits.shape[1], device=logits.device) < batch.lengths.to(logits.device)[:, None]
        return (divergence * inside).sum(1) / batch.target_lengths.to(logits.device).clamp(min=1)

    def _complaint(self, logits: Tensor, batch: Batch) -> str:
        """Why the loss is no number: the weights, or which samples."""
        step = self.global_step
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            return (
                f"the weights are no longer numbers at step {step}: the learning rate is most likely too high; go on "
                "from an earlier checkpoint or start again with a lower one than "
                f"{self.config.optimiser.learning_rate:g}"
            )
        finite = torch.isfinite(self.ctc(logits, batch)) & torch.isfinite(logits).flatten(1).all(1)
        bad = [i for i in range(len(batch)) if not finite[i]] or list(range(len(batch)))
        return f"the loss is no number at step {step} because of {_named(batch, bad)}; look at them, or leave them out"

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        most = self.config.optimiser.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.requires_grad], most)
        self.norm = norm.item()
        # fp16 finds its scale by overflowing now and then, and skips those updates by itself.
        if not np.isfinite(self.norm) and self.config.precision != "16" and self.last is not None:
            raise DataError(
                f"the gradient is no number at step {self.global_step}, from a batch with "
                f"{_named(self.last, list(range(len(self.last))))}; the weights are as before it: look at the samples, "
                "or lower optimiser.learning_rate"
            )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in vars(batch).items()
        }
        return Batch(**moved)

    def on_validation_epoch_start(self) -> None:
        self.read: list[list[tuple[str, str]]] = [[] for _ in self._data.valid]  # (label, text) by source
        self.shown: list[Shown] = []

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        texts = read_texts(self(batch.images), batch, self.charset)
        self.read[dataloader_idx] += zip(batch.labels, texts, strict=True)
        # Of every source the first few, as long as there is room.
        wanted = min(len(batch), max(1, SHOWN // len(self.read)), SHOWN - len(self.shown))
        if len(self.read[dataloader_idx]) == len(batch):
            self.shown += shown(batch, texts)[:wanted]

    @torch.no_grad()
    def look(self, batch: Batch) -> list[Shown]:
        """A training batch with what is read in it now."""
        training = self.training
        self.eval()
        texts = read_texts(self(batch.images), batch, self.charset)
        self.train(training)
        return shown(batch, texts)

    def configure_optimizers(self) -> Any:
        settings = self.config.optimiser
        # A fused step of fp16 would unscale after clipping.
        optimiser = make_optimiser(self.model, settings, self.hands, fused=self.config.precision != "16")
        follow = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule(settings, self.config.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": follow, "interval": "step"}}

    @property
    def hands(self) -> int:
        """Batches whose gradients make one update."""
        return self.config.accumulate * self.ranks.world

    def train_dataloader(self) -> Iterable[Batch]:
        return _Phased(self)

    def val_dataloader(self) -> list[Iterable[Batch]]:
        return [_InOrder(source, self.charset, self.preprocessing, self.ranks) for _, source in self._data.valid]


def read_otherwise(logits: Tensor, losses: Tensor, batch: Batch) -> Tensor:
    """(N,) bool: crops that are surely read otherwise than their labels say, by the likeliest class of each column.
    Rendered ones never are: they show what their labels say."""
    wrong = torch.zeros(len(batch), dtype=torch.bool)
    for i in (batch.columns == NO_TARGET).all(1).nonzero()[:, 0].tolist():
        columns = logits[i, : int(batch.lengths[i])].float()
        doubt = (columns.logsumexp(-1) - columns.max(-1).values).sum() / max(1, int(batch.target_lengths[i]))
        wrong[i] = bool(doubt < SURELY < losses[i])
    return wrong


def read_texts(logits: Tensor, batch: Batch, charset: Charset) -> list[str]:
    """Greedily, as `crnn read` does."""
    decoded = ctc.greedy_batch(logits.detach().float().cpu().numpy(), batch.lengths.tolist())
    return [charset.decode(each.classes) for each in decoded]


def read_source(model: CRNN, charset: Charset, preprocessing: Preprocessing, source: Source) -> list[tuple[str, str]]:
    """(label, text) of every sample."""
    return [(each.label, each.text) for each in read_shown(model, charset, preprocessing, source)]


def read_shown(model: CRNN, charset: Charset, preprocessing: Preprocessing, source: Source) -> Iterator[Shown]:
    """Every sample, those of one width together, with what the model reads."""
    model.eval()
    device = next(model.parameters()).device
    for batch in in_order(source, charset, preprocessing):
        with torch.no_grad():
            logits = model(batch.images.to(device))
        yield from shown(batch, read_texts(logits, batch, charset))


def shown(batch: Batch, texts: list[str]) -> list[Shown]:
    """The crops of a batch, as they came into it."""
    pixels = ((batch.images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    widths = (batch.lengths * batch.images.shape[3] // batch.columns.shape[1]).tolist()
    return [
        Shown(crop[:, :, :width].permute(1, 2, 0).numpy(), label, text)
        for crop, width, label, text in zip(pixels, widths, batch.labels, texts, strict=True)
    ]


def _named(batch: Batch, numbers: list[int], most: int = 5) -> str:
    names = ", ".join(f"{batch.paths[i]} ({batch.labels[i]!r})" for i in numbers[:most])
    return names + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


@dataclass
class _Shared:
    parts: list[Part]
    valid: list[tuple[str, Source]]
    taught_by: str
    _teacher: Engine | None = None

    def teacher(self, device: torch.device) -> Engine:
        """Opened when it is first needed, by each process for its device."""
        if self._teacher is None:
            folder = pretrained.find_model(self.taught_by)
            cuda = device.type == "cuda"
            self._teacher = open_engine(folder, "torch", device="cuda") if cuda else open_engine(folder)
        return self._teacher

    def __deepcopy__(self, _: Any) -> _Shared:
        return self


class _Phased:
    """Rendered crops alone while columns are learnt, then the whole mixture; starts where the trainer stands."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __iter__(self) -> Iterator[Batch]:
        learner, config, hands = self.learner, self.learner.config, self.learner.hands
        step = learner.trainer.global_step
        mine = range(learner.ranks.rank, hands, learner.ranks.world)
        parts = learner._data.parts
        phases = [
            ([part for part in parts if part.endless], 0, config.column_steps),
            (parts, config.column_steps, config.steps),
        ]
        for kept, begin, end in phases:
            if step >= end:
                continue
            # Each phase counts its own batches; the second must not render the first one's crops again.
            first = begin * config.batch * hands
            mixture = Mixture(
                kept,
                learner.charset,
                learner.preprocessing,
                config.batch,
                config.seed,
                first,
                hands,
                mine,
                config.occlude,
            )
            batches = iter(Batches(mixture, step - begin, config.workers))
            while step < end:
                for _ in mine:
                    began = time.monotonic()
                    batch = next(batches)
                    learner.waited += time.monotonic() - began
                    yield batch
                step += 1


@dataclass
class _InOrder:
    source: Source
    charset: Charset
    preprocessing: Preprocessing
    ranks: Ranks

    def __iter__(self) -> Iterator[Batch]:
        return in_order(self.source, self.charset, self.preprocessing, rank=self.ranks.rank, world=self.ranks.world)
