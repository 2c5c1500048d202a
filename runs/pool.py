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
import time
from dataclasses import asdict, dataclass, field, replace
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


@dataclass
class Done:
    """How far a run is, all its calls together."""

    seconds: float = 0.0
    updates: int = 0
    seen: int = 0  # crops, again and again
    crops: int = 0  # different ones
    chunk: int = 0  # the first that nobody was dealt


class Run:
    """The data, the network and what trains it."""

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
        self.done = Done()
        if self.state.is_file():
            self.saved = torch.load(self.state, map_location="cpu", weights_only=True)
            self.done = Done(**self.saved["done"])
        self.pool = Pool(self.device, columns)

    def render(self) -> tuple[list[Any], Any]:
        """Starts the processes that render; before CUDA is, since they are forks."""
        context = multiprocessing.get_context("fork")
        cv2.setNumThreads(1)
        workers = max(1, len(os.sched_getaffinity(0)) - 1)
        out = context.Queue(8 * workers)
        first = self.done.chunk
        processes = [
            context.Process(target=dealt, args=(self.mixture, first + i, workers, out), daemon=True)
            for i in range(workers)
        ]
        for process in processes:
            process.start()
        return processes, out

    def train(self, stop: float) -> None:
        if self.done.seconds >= self.seconds:
            print(f"{self.folder} has had its {self.seconds:g} seconds")
            return
        began = time.monotonic()
        processes, out = self.render()  # before anything is on the GPU
        self.prepare()
        while len(self.pool) < self.least:
            self.receive(out.get())
        print(f"pool of {len(self.pool)} after {time.monotonic() - began:.1f} s", flush=True)
        started = spoke = saved = time.monotonic()
        before, drawn = self.done.seconds, self.done.seen
        over = False
        while not over:
            while not out.empty():
                self.receive(out.get())
            self.update()
            now = time.monotonic()
            self.done.seconds = before + now - started
            over = self.done.seconds >= self.seconds or now - began >= stop
            if now - spoke > 10 or over:
                print(f"{self} {(self.done.seen - drawn) / (now - spoke):.0f} crops/s", flush=True)
                spoke, drawn = now, self.done.seen
                self.losses.clear()
            if now - saved > 100 or over:
                self.save()
                saved = now
        for process in processes:
            process.kill()
        out.cancel_join_thread()

    def __str__(self) -> str:
        done, loss = self.done, torch.stack(self.losses).mean().item()
        return (
            f"{done.seconds:.0f} s: update {done.updates} loss {loss:.4f} lr {self.rate():.2e} "
            f"{done.seen} crops, {done.crops} different ones,"
        )

    def prepare(self) -> None:
        """Model, averaged weights and optimiser on the device, as the last call left them."""
        self.learner.to(self.device)
        model = self.learner.model
        self.optimiser = make_optimiser(model, self.config.optimiser, 1, fused=True)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if self.saved:
            model.load_state_dict(self.saved["model"])
            self.optimiser.load_state_dict(self.saved["optimiser"])
            self.average = {name: value.to(self.device) for name, value in self.saved["average"].items()}
        self.learner.train()
        self.follow = schedule(replace(self.config.optimiser, warmup=20), 1000)  # by thousandths of the time
        self.losses: list[Tensor] = []

    def receive(self, got: Any) -> None:
        if isinstance(got, str):
            raise SystemExit(f"rendering ended with {got}")
        chunk, width, pixels, *more = got
        self.pool.add(width, pixels, *more)
        self.done.crops += len(pixels)
        self.done.chunk = max(self.done.chunk, chunk + 1)

    def rate(self) -> float:
        return self.config.optimiser.learning_rate * self.follow(int(1000 * self.done.seconds / self.seconds))

    def update(self) -> None:
        model, settings, done = self.learner.model, self.config.optimiser, self.done
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        batch = self.pool.draw()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.learner(batch.images)
        loss = self.learner.ctc(logits, batch).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        self.optimiser.step()
        self.losses.append(loss.detach())
        done.updates += 1
        done.seen += len(batch.fold_case)
        decay = min(settings.ema, done.updates / (done.updates + 10))
        floats = [(self.average[name], live) for name, live in model.state_dict().items() if live.is_floating_point()]
        torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), 1 - decay)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        model, done = self.learner.model.state_dict(), asdict(self.done)
        partial = self.state.with_suffix(".part")
        optimiser = self.optimiser.state_dict()
        torch.save({"model": model, "average": self.average, "optimiser": optimiser, "done": done}, partial)
        partial.replace(self.state)
        for name, weights in (("", self.average), ("raw", model)):
            written = CRNN(self.card.architecture, self.card.charset.num_classes)
            written.load_state_dict({key: value.cpu() for key, value in weights.items()})
            card = replace(self.card, provenance=self.card.provenance | done)
            checkpoint.save(self.folder / name, written, card, half=True)


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
