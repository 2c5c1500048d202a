"""Training batches: rendered and labelled samples mixed by weight, grouped by width, the same whatever the workers.

Samples are dealt in chunks. Chunk c of a mixture holds a fixed range of positions of every source, so any chunk can be
made by any process at any time: workers, ranks and a resumed run agree without talking to each other. A chunk is dealt
to `hands`: one for every batch of an update, whichever process makes it. A hand's samples are sorted by width and cut
into `batches_per_chunk` batches, which are then shuffled, in all hands alike: batches of one update are equally wide.
"""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from crnn import ctc
from crnn.charset import BLANK, Charset
from crnn.data.augment import augment, occlude
from crnn.data.sources import Source
from crnn.errors import CrnnError, DataError
from crnn.image import Preprocessing, bucket, load, prepare, stack, timesteps

NO_TARGET = -100  # column without a known character


class Renders(Protocol):
    """An endless source, such as synth's Renderer: sample `index` has image, text and boxes."""

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Part:
    """One source of a mixture and its share of the samples (shares of all parts add up to 1)."""

    source: Source | Renders
    share: float
    fold_case: bool = False
    augment: float = 0.0

    @property
    def endless(self) -> bool:
        return not hasattr(self.source, "__len__")


@dataclass
class Batch:
    """images (N, C, H, W) float32; lengths (N,) timesteps of each crop; targets (N, L) int32 classes of each label and
    blanks behind them; target_lengths (N,); columns (N, T) class under each column, NO_TARGET where nobody knows;
    fold_case (N,) bool."""

    images: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    target_lengths: torch.Tensor
    columns: torch.Tensor
    fold_case: torch.Tensor
    labels: list[str]
    paths: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, numbers: torch.Tensor) -> Batch:
        """Some of its crops."""
        picked: dict[str, Any] = {
            name: value[numbers.to(value.device)] if isinstance(value, torch.Tensor) else [value[i] for i in numbers]
            for name, value in vars(self).items()
        }
        return Batch(**picked)


@dataclass(frozen=True)
class _Item:
    crop: NDArray[np.uint8]
    label: str
    path: str
    columns: NDArray[np.int64] | None
    fold_case: bool


def column_targets(
    classes: Sequence[int], boxes: NDArray[np.float32], scale: float, steps: int, stride: int
) -> NDArray[np.int64]:
    """(steps,) class of the character whose box lies over the centre of each column, blank between characters.

    boxes (n, 4) in pixels, times `scale` in prepared pixels. Two equal neighbours get a blank where they meet, as CTC
    wants it; a character too narrow to hold a column's centre gets the nearest column that is still blank.
    """
    targets = np.full(steps, BLANK, np.int64)
    centres = (np.arange(steps) + 0.5) * stride
    lefts, rights = boxes[:, 0] * scale, boxes[:, 2] * scale
    middles = (lefts + rights) / 2
    nearest = np.abs(centres[:, None] - middles[None, :]).argmin(1)
    inside = (centres >= lefts[nearest]) & (centres < rights[nearest])
    targets[inside] = np.asarray(classes, np.int64)[nearest[inside]]
    for i, c in enumerate(classes):
        column = min(steps - 1, max(0, int(middles[i] / stride)))
        if targets[column] == BLANK:
            targets[column] = c
        if i and classes[i - 1] == c:  # keep doubles apart
            meeting = int((middles[i - 1] + middles[i]) / 2 / stride)
            if int(middles[i - 1] / stride) < meeting < int(middles[i] / stride) and meeting < steps:
                targets[meeting] = BLANK
    return targets


class Mixture(Dataset[list[Batch]]):
    """Item c is chunk c: for each of `batches_per_chunk` updates a batch of `batch` crops for every hand of `mine`, one
    hand after the other; fewer crops where they are wide.

    `first` is the number of the first rendered sample; `hands` are dealt to in all, `mine` are those of this process;
    `occluded` is the part of the crops with a letter's width hidden.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        charset: Charset,
        preprocessing: Preprocessing,
        batch: int,
        seed: int = 0,
        first: int = 0,
        hands: int = 1,
        mine: Sequence[int] = (0,),
        occluded: float = 0.0,
    ) -> None:
        self.parts, self.charset, self.preprocessing = list(parts), charset, preprocessing
        self.seed, self.first, self.hands, self.mine = seed, first, hands, tuple(mine)
        self.occluded = occluded
        # The widest sixth of a chunk goes into smaller batches: a batch of lines costs what a batch of words does. The
        # sizes are the same in every chunk, since every new shape costs the engine time.
        self._sizes = [batch] * 10 + [max(1, batch // 2)] * 2 + [max(1, batch // 4)] * 4
        total = sum(part.share for part in parts)
        if not total > 0:
            raise DataError("every source of the mixture has weight 0: there is nothing to train on")
        self._shares = [part.share / total for part in parts]

    def __getitem__(self, chunk: int) -> list[Batch]:
        dealt = [self.deal(chunk, hand) for hand in self.mine]
        return [
            collate(items, self.charset, self.preprocessing) for update in zip(*dealt, strict=True) for items in update
        ]

    def deal(self, chunk: int, hand: int) -> list[list[_Item]]:
        """The crops of a hand's batches."""
        begins, ends = self._positions(chunk), self._positions(chunk + 1)
        places = [
            (number, position) for number in range(len(self.parts)) for position in range(begins[number], ends[number])
        ]
        items = [self._item(number, self.parts[number], position) for number, position in places[hand :: self.hands]]
        rng = random.Random(self.seed * 7919 + chunk)
        # A little disorder: batches of exactly one width would always hold the same kind of words.
        items.sort(key=lambda item: item.crop.shape[1] * rng.uniform(0.96, 1.04))
        ends = np.cumsum(self._sizes).tolist()
        batches = [items[end - n : end] for end, n in zip(ends, self._sizes, strict=True)]
        rng.shuffle(batches)
        return batches

    @property
    def batches_per_chunk(self) -> int:
        return len(self._sizes)

    def _positions(self, chunk: int) -> list[int]:
        """How many samples of each part the chunks before `chunk` hold; the first part takes what rounding leaves."""
        before = chunk * sum(self._sizes) * self.hands
        others = [math.floor(before * share) for share in self._shares[1:]]
        return [before - sum(others), *others]

    def _item(self, number: int, part: Part, position: int) -> _Item:
        item = self._rendered(part, position) if part.endless else self._labelled(number, part, position)
        rng = random.Random(f"{self.seed}/{number}/{position}/occlude")
        return replace(item, crop=occlude(item.crop, rng)) if rng.random() < self.occluded else item

    def _labelled(self, number: int, part: Part, position: int) -> _Item:
        source: Any = part.source
        epoch, place = divmod(position, len(source))
        first = int(_order(len(source), self.seed, number, epoch)[place])
        # A crop that turned out too narrow (after stretching) is seen as it is, unstretched.
        sample = source[first]
        try:
            image = load(sample.image, sample.path)
            rng = random.Random(f"{self.seed}/{number}/{position}")
            crop = prepare(augment(image, rng, part.augment) if part.augment else image, self.preprocessing)
            classes = self.charset.encode(sample.label)
            if timesteps(crop.shape[1], self.preprocessing.stride) < ctc.min_timesteps(classes):
                crop = prepare(image, self.preprocessing)
        except CrnnError as error:
            raise DataError(f"{sample.path}: {error}") from None
        return _Item(crop, sample.label, sample.path, None, part.fold_case)

    def _rendered(self, part: Part, position: int) -> _Item:
        attempt = 0
        while True:
            # Crops too narrow for their text are drawn anew; the numbers never meet those of other positions.
            sample: Any = part.source[self.first + position + attempt * (1 << 40)]
            crop = prepare(sample.image, self.preprocessing)
            classes = self.charset.encode(sample.text)
            steps = timesteps(crop.shape[1], self.preprocessing.stride)
            if steps >= ctc.min_timesteps(classes):
                break
            attempt += 1
        scale = crop.shape[1] / sample.image.shape[1]
        columns = column_targets(classes, sample.boxes, scale, steps, self.preprocessing.stride)
        return _Item(crop, sample.text, f"rendered {self.first + position}", columns, part.fold_case)


def collate(items: Sequence[_Item], charset: Charset, preprocessing: Preprocessing) -> Batch:
    stride = preprocessing.stride
    width = bucket(max(item.crop.shape[1] for item in items))
    columns = np.full((len(items), width // stride), NO_TARGET, np.int64)
    for row, item in zip(columns, items, strict=True):
        if item.columns is not None:
            row[:] = BLANK
            row[: len(item.columns)] = item.columns
    # Validation shows labels as they are; a character outside the charset can only be read wrong.
    encoded = [charset.encode("".join(c for c in item.label if c in charset)) for item in items]
    return Batch(
        images=torch.from_numpy(stack([item.crop for item in items], width)),
        lengths=torch.tensor([timesteps(item.crop.shape[1], stride) for item in items]),
        targets=pad_sequence([torch.tensor(classes, dtype=torch.int32) for classes in encoded], batch_first=True),
        target_lengths=torch.tensor([len(classes) for classes in encoded]),
        columns=torch.from_numpy(columns),
        fold_case=torch.tensor([item.fold_case for item in items]),
        labels=[item.label for item in items],
        paths=[item.path for item in items],
    )


@lru_cache(maxsize=32)
def _order(length: int, seed: int, number: int, epoch: int) -> NDArray[np.int64]:
    """Every sample once per epoch, in an order of its own."""
    return np.random.default_rng((seed, number, epoch)).permutation(length)


class Batches:
    """Iterates over the batches of a mixture for ever, from the first one of update number `start` on."""

    def __init__(self, mixture: Mixture, start: int = 0, workers: int = 1) -> None:
        self.mixture, self.start, self.workers = mixture, start, workers

    def __iter__(self) -> Iterator[Batch]:
        chunk, skip = divmod(self.start, self.mixture.batches_per_chunk)
        skip *= len(self.mixture.mine)
        if self.workers:
            cv2.setNumThreads(1)  # a fork does not take OpenCV's threads along: a worker would wait for them for ever
        loader = DataLoader(
            self.mixture,
            batch_size=None,
            sampler=_From(chunk),
            num_workers=self.workers,
            worker_init_fn=_start_worker,
            prefetch_factor=2 if self.workers else None,
            multiprocessing_context="fork" if self.workers else None,
        )
        try:
            for batches in loader:
                yield from batches[skip:]
                skip = 0
        except CrnnError as error:
            # PyTorch wraps what a worker raised in its traceback; the sentence is the last line.
            message = str(error).strip().splitlines()[-1]
            raise DataError(message.partition("DataError: ")[2] or message) from None


class _From:
    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return count(self.start)


def _start_worker(_: int) -> None:
    # Training threads wait for each other many times a step: a worker may only have the time they leave.
    if hasattr(os, "nice"):
        os.nice(10)
    # A signal to all processes of a run (Ctrl-C, timeout, systemd): the trainer finishes its step first and ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def in_order(
    source: Source, charset: Charset, preprocessing: Preprocessing, batch: int = 64, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Every sample of a source once, unchanged, for validation: batches of one bucket width each. Of a run of `world`
    processes, each reads every world-th sample."""
    waiting: dict[int, list[_Item]] = {}
    for i in range(rank, len(source), world):
        sample = source[i]
        crop = prepare(load(sample.image, sample.path), preprocessing)
        items = waiting.setdefault(bucket(crop.shape[1]), [])
        items.append(_Item(crop, sample.label, sample.path, None, False))
        if len(items) == batch:
            yield collate(items, charset, preprocessing)
            items.clear()
    for items in waiting.values():
        if items:
            yield collate(items, charset, preprocessing)
