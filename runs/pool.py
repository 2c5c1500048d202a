"""Training on one GPU that learns faster than its machine's cores render.

    python runs/pool.py RUN --seconds N [--stop N] [--preset NAME] [--config FILE] [--set a.b=c]...

All cores but one render and load crops, as for `crnn train`, into a pool in the GPU's memory. Batches are drawn from
the pool, so that a crop is seen several times (data echoing: Choi et al., arXiv 1907.05550), most times a little
different. CTC alone, for `--seconds` of training in all: the schedule of the learning rate follows the clock. `--stop`
ends this call after so many seconds; the next one goes on. RUN becomes a model folder for `crnn export`, with the
averaged weights; RUN/raw has the last ones. Without a GPU it trains on the CPU, which `crnn train` does better.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import queue
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crnn import checkpoint, pretrained
from crnn.config import TrainConfig, load_config
from crnn.data.loader import Batch, Mixture
from crnn.data.sources import open_source
from crnn.devices import Ranks
from crnn.image import Preprocessing, bucket
from crnn.learner import Learner
from crnn.model import CRNN, STRIDE
from crnn.optimiser import make_optimiser, schedule
from crnn.samples import charset_of, network_of, parts_of, shaped_like_init

LONGEST = 96  # characters of a label; longer ones are left out
ALTERED = 0.6  # part of the crops that are changed when they are drawn


def dealt(mixture: Mixture, first: int, every: int, out: Any) -> None:
    """A process of its own: chunks first, first + every, … as (chunk, width of the bucket, pixels uint8 (n, 32, width),
    widths, classes int16 (n, LONGEST), lengths, fold_case); what went wrong instead, if something does."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.nice(5)
    try:
        for chunk in itertools.count(first, every):
            shelve(chunk, mixture, out)
    except Exception as error:
        out.put(f"{type(error).__name__} in chunk {chunk}: {error}")


def shelve(chunk: int, mixture: Mixture, out: Any) -> None:
    """A chunk of the mixture, its crops of one bucket together."""
    crops: dict[int, list[Any]] = {}
    for item in (item for batch in mixture.deal(chunk, 0) for item in batch):
        classes = mixture.charset.encode(item.label)
        if len(classes) <= LONGEST:
            crops.setdefault(bucket(item.crop.shape[1]), []).append((item, classes))
    for width, items in crops.items():
        pixels = np.zeros((len(items), 32, width), np.uint8)
        targets = np.zeros((len(items), LONGEST), np.int16)
        for row, target, (item, classes) in zip(pixels, targets, items, strict=True):
            row[:, : item.crop.shape[1]] = item.crop[..., 0]
            target[: len(classes)] = classes
        widths = np.array([item.crop.shape[1] for item, _ in items], np.int32)
        lengths = np.array([len(classes) for _, classes in items], np.int32)
        out.put((chunk, width, pixels, widths, targets, lengths, np.array([item.fold_case for item, _ in items])))


@dataclass
class Shelf:
    """The crops of one bucket: pixels and classes on the device, what the loss wants to know on the CPU."""

    width: int
    device: torch.device
    count: int = 0
    pixels: Tensor = field(init=False)
    classes: Tensor = field(init=False)
    numbers: Any = field(init=False)  # (capacity, 3): width, length of the label, fold_case

    def __post_init__(self) -> None:
        self.pixels = torch.empty(256, 32, self.width, dtype=torch.uint8, device=self.device)
        self.classes = torch.empty(256, LONGEST, dtype=torch.int16, device=self.device)
        self.numbers = np.empty((256, 3), np.int64)

    def add(self, pixels: Any, widths: Any, classes: Any, lengths: Any, fold: Any) -> None:
        end = self.count + len(pixels)
        if end > len(self.pixels):
            room = max(end, 2 * len(self.pixels))
            for name in ("pixels", "classes"):
                old = getattr(self, name)
                new = torch.empty(room, *old.shape[1:], dtype=old.dtype, device=old.device)
                new[: self.count] = old[: self.count]
                setattr(self, name, new)
            self.numbers = np.concatenate([self.numbers, np.empty((room - len(self.numbers), 3), np.int64)])
        self.pixels[self.count : end] = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        self.classes[self.count : end] = torch.from_numpy(classes).to(self.device, non_blocking=True)
        self.numbers[self.count : end] = np.stack([widths, lengths, fold], 1)
        self.count = end


class Pool:
    """Everything that was rendered so far."""

    def __init__(self, device: torch.device, columns: int) -> None:
        self.device, self.columns = device, columns  # columns: pixels of width in a batch, of all its crops together
        self.shelves: dict[int, Shelf] = {}
        self.rng = np.random.default_rng(1507)

    def __len__(self) -> int:
        return sum(shelf.count for shelf in self.shelves.values())

    def add(self, width: int, *crops: Any) -> None:
        self.shelves.setdefault(width, Shelf(width, self.device)).add(*crops)

    def draw(self) -> Batch:
        """A batch of one bucket; every crop of the pool is as likely as any other."""
        shelves = [shelf for shelf in self.shelves.values() if shelf.count >= 32] or list(self.shelves.values())
        sizes = [min(shelf.count, self.columns // shelf.width) for shelf in shelves]
        chances = np.array([shelf.count / size for shelf, size in zip(shelves, sizes, strict=True)])
        number = self.rng.choice(len(shelves), p=chances / chances.sum())
        shelf = shelves[number]
        rows = self.rng.integers(0, shelf.count, sizes[number])
        rows = rows[np.argsort(shelf.numbers[rows, 2], kind="stable")]  # those of one case last
        picked = torch.from_numpy(rows).to(self.device, non_blocking=True)
        numbers = torch.from_numpy(shelf.numbers[rows])
        images, widths = altered(shelf.pixels[picked], numbers[:, 0], numbers[:, 1])
        return Batch(
            images=images,
            lengths=-(-widths // STRIDE),
            targets=shelf.classes[picked].long(),
            target_lengths=numbers[:, 1],
            columns=torch.empty(0),
            fold_case=numbers[:, 2].bool(),
            labels=[],
            paths=[],
        )


def altered(pixels: Tensor, widths: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (n, 32, W) → images (n, 1, 32, W), -1 to 1 and 0 behind each crop; widths, on the CPU. Some are narrowed,
    moved, sheared, recoloured, softened or grainy."""
    device, (n, height, most) = pixels.device, pixels.shape
    images = (pixels.float() / 127.5 - 1)[:, None]

    def some(chance: float) -> Tensor:
        return torch.rand(n) < chance

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n) * (high - low) + low

    moved = some(0.5 * ALTERED)
    squeeze = torch.where(moved, uniform(0.88, 1.0), torch.ones(n))
    # No narrower than the label needs: two columns for each character always suffice.
    squeeze = torch.maximum(squeeze, ((2 * lengths + 1) * STRIDE / widths).clamp(max=1.0))
    narrowed = (widths * squeeze).ceil().long()
    zoom = torch.where(moved, uniform(0.93, 1.06), torch.ones(n))
    lift = torch.where(moved, uniform(-1.5, 1.5), torch.zeros(n))
    shear = torch.where(moved & some(0.5), uniform(-0.12, 0.12), torch.zeros(n))
    contrast = torch.where(some(0.35 * ALTERED), uniform(0.7, 1.2), torch.ones(n))
    light = torch.where(contrast != 1, uniform(-0.25, 0.25), torch.zeros(n))
    contrast = torch.where(some(0.08 * ALTERED), -contrast, contrast)
    soft = torch.where(some(0.25 * ALTERED), uniform(0.0, 0.7), torch.zeros(n))
    grain = torch.where(some(0.3 * ALTERED), uniform(0.0, 0.08), torch.zeros(n))
    values = torch.stack([squeeze, zoom, lift, shear, contrast, light, soft, grain, widths.float(), narrowed.float()])
    values = values.to(device, non_blocking=True)[..., None, None]
    squeeze, zoom, lift, shear, contrast, light, soft, grain, was, now = values
    x = torch.arange(most, device=device, dtype=torch.float32)[None, None] + 0.5
    y = torch.arange(height, device=device, dtype=torch.float32)[None, :, None] + 0.5 - height / 2
    from_x = torch.minimum((x + shear * y) / squeeze, was - 0.5).clamp(min=0.5) * (2 / most) - 1
    from_y = (y / zoom + lift).expand(n, height, most) * (2 / height)
    grid = torch.stack([from_x, from_y], -1)
    bent = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    images = torch.where(moved.to(device)[:, None, None, None], bent, images)
    kernel = torch.tensor([1.0, 2.0, 1.0], device=device) / 4
    blurred = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    blurred = functional.conv2d(blurred, (kernel[:, None] * kernel)[None, None])
    four = (slice(None), None)
    images = torch.lerp(images, blurred, soft[four])
    images = images * contrast[four] + light[four] + torch.randn_like(images) * grain[four]
    inside = (torch.arange(most, device=device)[None, None, None] < now[four]).float()
    return images.clamp(-1, 1) * inside, narrowed


def loss_of(learner: Learner, batch: Batch, device: torch.device) -> Tensor:
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = learner(batch.images)
    # Labels of one case need copies of all the logits: of their own alone, which come last.
    folded = int(batch.fold_case.sum())
    sizes = [len(batch.fold_case) - folded, folded]
    parts = [each.split(sizes) for each in (logits.float(), batch.targets, batch.lengths, batch.target_lengths)]
    return torch.cat(
        [
            learner.ctc(own, replace(
                batch, targets=targets, lengths=lengths, target_lengths=labels.to(device),
                fold_case=torch.full((len(labels),), fold, device=device if fold else None),
            ))
            for fold, own, targets, lengths, labels in zip((False, True), *parts, strict=True) if len(labels)
        ]
    )  # fmt: skip


class Run:
    def __init__(self, folder: Path, config: TrainConfig, seconds: float, columns: int, least: int) -> None:
        torch.manual_seed(config.seed)
        self.folder, self.config, self.seconds, self.least = folder, config, seconds, least
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = shaped_like_init(config)
        opened = [(each, open_source(each.path, split=each.split)) for each in config.train]
        charset = charset_of(config, [source for _, source in opened])
        preprocessing = Preprocessing(channels=config.model.channels, stride=STRIDE)
        self.mixture = Mixture(
            parts_of(config, opened, charset, preprocessing), charset, preprocessing, 48, config.seed,
            occluded=config.occlude,
        )  # fmt: skip
        model = network_of(config, charset, preprocessing)
        if config.init:
            checkpoint.transfer(model, charset, pretrained.find_model(config.init))
        provenance = {
            "data": [Path(each.path).name for each in config.train], "rendered": config.synth.share,
            "init": Path(config.init).name, "seconds": seconds, "columns": columns, "seed": config.seed,
        }  # fmt: skip
        self.card = checkpoint.Card(model.architecture, charset, preprocessing, provenance=provenance)
        self.learner = Learner(model, charset, preprocessing, config, [], [], Ranks())
        self.state = folder / "pool.ckpt"
        self.saved: dict[str, Any] = {}
        if self.state.is_file():
            self.saved = torch.load(self.state, map_location="cpu", weights_only=True)
        self.pool = Pool(self.device, columns)

    def render(self) -> tuple[list[Any], Any]:
        """Starts the processes that render; before CUDA is, since they are forks."""
        context = multiprocessing.get_context("fork")
        cv2.setNumThreads(1)
        workers = max(1, len(os.sched_getaffinity(0)) - 1)
        out = context.Queue(8 * workers)
        first = self.saved.get("chunk", 0)
        processes = [
            context.Process(target=dealt, args=(self.mixture, first + i, workers, out), daemon=True)
            for i in range(workers)
        ]
        for process in processes:
            process.start()
        return processes, out

    def train(self, stop: float) -> None:
        if self.saved.get("seconds", 0.0) >= self.seconds:
            print(f"{self.folder} has had its {self.seconds:g} seconds")
            return
        began = time.monotonic()
        processes, out = self.render()
        device, learner, settings = self.device, self.learner.to(self.device), self.config.optimiser
        learner.model.to(memory_format=torch.channels_last)
        optimiser = make_optimiser(learner.model, settings, 1, fused=True)
        average = {name: value.detach().clone() for name, value in learner.model.state_dict().items()}
        done = training = 0.0  # seconds of training: in the calls before, and with this one
        updates, seen, crops, chunk = 0, 0, 0, 0  # seen: of the crops, again and again
        if self.saved:
            learner.model.load_state_dict(self.saved["model"])
            optimiser.load_state_dict(self.saved["optimiser"])
            average = {name: value.to(device) for name, value in self.saved["average"].items()}
            done, updates, seen, crops, chunk = (
                self.saved[name] for name in ("seconds", "updates", "seen", "crops", "chunk")
            )
        follow = schedule(replace(settings, warmup=20), 1000)  # by thousandths of the time
        floats = [name for name, value in average.items() if value.is_floating_point()]
        live = dict(learner.model.state_dict(keep_vars=True))
        learner.train()
        total = torch.zeros((), device=device)
        counted, spoke, spoke_seen, saved = 0, time.monotonic(), seen, time.monotonic()
        rate = 0.0
        while True:
            waiting = training == 0.0 and len(self.pool) < self.least
            for _ in range(1 if waiting else 40):
                try:
                    got = out.get(timeout=2.0) if waiting else out.get_nowait()
                except queue.Empty:
                    break
                if isinstance(got, str):
                    raise SystemExit(f"rendering ended with {got}")
                chunk_number, *made = got
                self.pool.add(*made)
                crops += len(made[1])
                chunk = max(chunk, chunk_number + 1)
            if waiting:
                continue
            if training == 0.0:
                started = time.monotonic()
                print(f"pool of {len(self.pool)} after {started - began:.1f} s", flush=True)
            training = done + time.monotonic() - started + 1e-6
            over = training >= self.seconds or time.monotonic() - began >= stop
            if not over:
                rate = settings.learning_rate * follow(int(1000 * training / self.seconds))
                for group in optimiser.param_groups:
                    group["lr"] = rate
                batch = self.pool.draw()
                loss = loss_of(learner, batch, device).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learner.model.parameters(), settings.clip)
                optimiser.step()
                updates += 1
                seen += len(batch.fold_case)
                decay = min(settings.ema, updates / (updates + 10))
                with torch.no_grad():
                    torch._foreach_lerp_(
                        [average[name] for name in floats], [live[name].detach() for name in floats], 1 - decay
                    )
                total += loss.detach()
                counted += 1
            now = time.monotonic()
            if now - spoke > 10 or over:
                print(
                    f"{training:.0f} s: update {updates} loss {total.item() / max(1, counted):.4f} lr {rate:.2e} "
                    f"{(seen - spoke_seen) / (now - spoke):.0f} crops/s, {seen} in all, of {crops} different ones",
                    flush=True,
                )
                total.zero_()
                counted, spoke, spoke_seen = 0, now, seen
            if now - saved > 100 or over:
                saved = now
                numbers = {"seconds": training, "updates": updates, "seen": seen, "crops": crops, "chunk": chunk}
                self.save(average, optimiser, numbers, training >= self.seconds)
            if over:
                break
        for process in processes:
            process.kill()
        out.cancel_join_thread()

    def save(self, average: dict[str, Tensor], optimiser: Any, numbers: dict[str, Any], ended: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"model": self.learner.model.state_dict(), "average": average, "optimiser": optimiser.state_dict()}
        partial = self.state.with_suffix(".part")
        torch.save(state | numbers, partial)
        partial.replace(self.state)
        for name, weights in (("", average), ("raw", state["model"])):
            model = CRNN(self.card.architecture, self.card.charset.num_classes)
            model.load_state_dict({key: value.cpu() for key, value in weights.items()})
            provenance = self.card.provenance | numbers
            checkpoint.save(self.folder / name, model, replace(self.card, provenance=provenance), half=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--stop", type=float, default=math.inf)
    parser.add_argument("--columns", type=int, default=131_072, help="pixels of width in a batch")
    parser.add_argument("--least", type=int, default=20_000, help="crops in the pool before training begins")
    parser.add_argument("--preset")
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    config = load_config(given.preset, given.config, given.overrides)
    Run(given.run, config, given.seconds, given.columns, given.least).train(given.stop)


if __name__ == "__main__":
    main()
