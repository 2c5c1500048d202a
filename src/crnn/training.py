"""Training: a TrainConfig in, a model folder out. The loop, precision, devices and checkpoints are Lightning's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import shlex
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from rapidfuzz.distance import Levenshtein

from crnn import checkpoint, metrics, pretrained
from crnn.callbacks import Best, Decoded, Progress, Stop, say
from crnn.config import TrainConfig, to_toml
from crnn.data.sources import Subset, open_source
from crnn.devices import CHECKPOINT, LAUNCHED, Ranks, count_devices, find_ranks, go_on, launch, synced
from crnn.errors import ConfigError, CrnnError, DataError
from crnn.image import Preprocessing
from crnn.journal import Journal, write_page
from crnn.learner import CHARSET, Learner, Shown, read_shown, read_source
from crnn.machine import keep_memory
from crnn.memory import advice, is_full
from crnn.model import CRNN, STRIDE
from crnn.optimiser import growth
from crnn.samples import (
    by_heart,
    charset_of,
    few_of,
    network_of,
    old_skills_of,
    parts_of,
    shaped_like_init,
    validation_of,
)

BEST = "best"  # the folder of the best model so far
WORST = 40  # validation samples in training.html
ANOTHER_SCRIPT = 20  # characters that a model lacks and another bundled one has, from which on that one is named
# TensorBoard loads all of TensorFlow where that is installed, for ten seconds, unless this marker says not to.
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))


@dataclass(frozen=True)
class OldSkills:
    """Part of the rendered crops of the initial model's characters that is read right, before and after training."""

    before: float
    after: float
    samples: int

    def __str__(self) -> str:
        return (
            f"old skills: of {self.samples} rendered crops of the initial model's characters {self.before:.1%} were "
            f"read right before, {self.after:.1%} after"
        )


@dataclass(frozen=True)
class Result:
    """Where the model is and what the last validation said, by source name."""

    folder: Path
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    old_skills: OldSkills | None = None


def train(config: TrainConfig, resume: bool = False, rendezvous: str = "") -> Result:
    """Trains and writes config.output: model.json, weights.safetensors, model.onnx, training.html; config.toml,
    command.txt, last.ckpt, log.jsonl and logs/ for TensorBoard.

    With `resume`, goes on from last.ckpt in config.output. Several devices are processes of their own: started here,
    unless torchrun, Slurm or the like did; `rendezvous` is HOST:PORT of the first of several machines. Raises
    DataError, ConfigError or ModelError before the first step when the data, the settings or the initial model do not
    fit, and a CrnnError that says what to do when the run breaks later.
    """
    folder = Path(config.output)
    last = folder / CHECKPOINT
    ranks = find_ranks()
    if resume and not last.is_file():
        raise DataError(f"{last} does not exist: there is nothing to resume; leave out --resume")
    if not resume and LAUNCHED not in os.environ and (last.exists() or (folder / "weights.safetensors").exists()):
        raise DataError(f"{folder} already holds a run: add --resume to go on with it, or choose another --output")
    if resume and _begun(last)[0] >= config.steps and (folder / checkpoint.CARD).is_file():
        say(f"{folder}: the run is finished, its {config.steps} steps are done")
        return Result(folder, checkpoint.load_card(folder).scores)
    if ranks.world > 1:
        config = on_devices(config, ranks.local, ranks.nodes, resume)
    elif config.nodes > 1 or count_devices(config.devices) > 1:
        config = replace(config, devices=count_devices(config.devices))
        folder.mkdir(parents=True, exist_ok=True)
        _describe(folder, config)
        launch(config, resume, rendezvous)
        written = (folder / checkpoint.CARD).is_file()  # not on other machines with a disk of their own
        return Result(folder, checkpoint.load_card(folder).scores if written else {})
    return _Run(config, ranks, resume).train()


def on_devices(config: TrainConfig, devices: int, nodes: int, resume: bool = True) -> TrainConfig:
    """The run on other devices. A resumed one keeps the number of batches that make an update, hence its samples, by
    accumulating more or fewer of them; ConfigError when they cannot be shared out."""
    if not resume:
        return replace(config, devices=devices, nodes=nodes)
    hands = config.accumulate * max(1, config.devices) * config.nodes
    accumulate, rest = divmod(hands, devices * nodes)
    if rest:
        raise ConfigError(
            f"an update of this run is made of {hands} batches of {config.batch}, which {devices * nodes} processes "
            "cannot share: resume on a number of devices that divides it"
        )
    return replace(config, devices=devices, nodes=nodes, accumulate=accumulate)


def find_learning_rate(config: TrainConfig, steps: int = 100) -> tuple[float, list[tuple[float, float]]]:
    """Lightning's range test: the rate rises from 1e-6 to 1 over `steps` updates. Suggested is a tenth of the rate at
    which the smoothed loss is lowest (where it falls fastest is mostly noise), beside (rate, loss) of each step. Writes
    nothing. CrnnError when the loss never falls."""
    from lightning.pytorch.tuner import Tuner

    plain = replace(config.optimiser, schedule="constant", warmup=0, batch_rule="none")
    run = _Run(replace(config, steps=1_000_000, optimiser=plain, valid=(), patience=0, old_skills=0), Ranks())
    run.learner.learning_rate = plain.learning_rate  # type: ignore[assignment]  # what the tuner sets
    # Its progress bar is for people.
    screen = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory() as scratch, _quiet(), run.explained(), screen:
        trainer = run.trainer([], default_root_dir=scratch)
        tuned = Tuner(trainer).lr_find(
            run.learner, min_lr=1e-6, max_lr=1.0, num_training=steps, attr_name="learning_rate", update_attr=False
        )
    tried = list(zip(tuned.results["lr"], tuned.results["loss"], strict=False)) if tuned else []
    settled = tried[10:]  # the mean of the first few losses is none yet
    lowest = min(settled, key=lambda pair: pair[1], default=(0.0, 0.0))
    if not settled or lowest == settled[0]:
        raise CrnnError("no learning rate makes the loss fall within the test: look at the data (crnn data preview)")
    return lowest[0] / 10, tried


class _Run:
    """One process of a run: the data, the network, and Lightning's trainer around them."""

    def __init__(self, config: TrainConfig, ranks: Ranks, resume: bool = False) -> None:
        self.given, self.ranks, self.resume = config, ranks, resume
        config = shaped_like_init(config)
        self.config = config = by_heart(config) if config.overfit else config
        self.folder = Path(config.output)
        self.last = self.folder / CHECKPOINT
        self.step, began_with = _begun(self.last) if resume else (0, "")
        self.notes: list[str] = []  # for training.html
        _tune_cpu()
        torch.manual_seed(config.seed)
        opened = [(each, open_source(each.path, split=each.split)) for each in config.train]
        self.charset = charset = charset_of(config, opened)
        if began_with and began_with != charset.characters:
            more, fewer = (_listed("".join(sorted(set(a) - set(b)))) for a, b in (
                (charset.characters, began_with), (began_with, charset.characters)
            ))  # fmt: skip
            raise DataError(
                f"the labels have other characters than when the run began (new:{more or ' none'}, gone:"
                f"{fewer or ' none'}): put the old ones back, or start another run with --init {self.folder}"
            )
        self.preprocessing = preprocessing = Preprocessing(channels=config.model.channels, stride=STRIDE)
        parts = parts_of(config, opened, charset, preprocessing)
        if config.overfit:
            parts, self.valid, self.fold_case = few_of(parts, config.overfit)
        else:
            self.valid, self.fold_case = validation_of(config.valid)
        model = network_of(config, charset, preprocessing)
        if config.init:
            moved = checkpoint.transfer(model, charset, pretrained.find_model(config.init))
            counts = [
                f"{len(each)} {what}{_listed(each) if listed else ''}"
                for each, what, listed in (
                    (moved.kept, "characters kept", False), (moved.new, "new", True), (moved.dropped, "dropped", True)
                )
            ]  # fmt: skip
            self.note(f"started from {config.init}: {', '.join(counts)}")
            better, known = pretrained.knowing(moved.new)
            if known >= ANOTHER_SCRIPT and known > len(moved.new) / 2:
                self.note(f"{better} knows {known} of the new characters: --init {better} would not have to learn them")
        self.card = checkpoint.Card(
            model.architecture, charset, preprocessing,
            provenance={
                "data": [Path(each.path).name for each in config.train], "rendered": config.synth.share,
                "init": Path(config.init).name, "steps": config.steps, "batch": config.batch, "seed": config.seed,
            },
        )  # fmt: skip
        if config.teacher:
            taught = checkpoint.load_card(pretrained.find_model(config.teacher)).charset
            if taught.characters != charset.characters:
                raise ConfigError(
                    f"the teacher {config.teacher} reads other characters than those to be learnt, or has them in "
                    "another order: take its charset, or another teacher"
                )
        self.skills = old_skills_of(config, charset)
        if self.skills and ranks.rank == 0:
            old, card = checkpoint.load(pretrained.find_model(config.init))
            self.before = _right(read_source(old, card.charset, card.preprocessing, self.skills))
            say(
                f"old skills: {self.before:.1%} of {len(self.skills)} rendered crops of {config.init}'s characters are "
                "read right before training"
            )
        if ranks.world > 1:
            synced(model)
        self.learner = Learner(model, charset, preprocessing, config, parts, self.valid, ranks)
        if (hands := self.learner.hands) > 1:
            rate = config.optimiser.learning_rate * growth(config.optimiser, hands)
            self.note(f"an update is made of {hands} batches of {config.batch}; learning rate {rate:.3g} at the top")

    def note(self, text: str) -> None:
        self.notes.append(text)
        say(text)

    def train(self) -> Result:
        from crnn.export import export_onnx

        config, folder, valid = self.config, self.folder, self.valid
        folder.mkdir(parents=True, exist_ok=True)
        journal = None
        if self.ranks.rank == 0:
            _describe(folder, self.given)
            journal = Journal(folder, self.step)
        if not self.resume and self.ranks.rank == 0:  # of a run that was killed before its first checkpoint
            shutil.rmtree(folder / BEST, ignore_errors=True)
        best = Best(folder / BEST, self.card, [name for name, _ in valid], self.fold_case, journal, self.resume)
        saved = ModelCheckpoint(
            folder,
            CHECKPOINT.removesuffix(".ckpt"),
            save_top_k=1,
            every_n_train_steps=min(config.checkpoint_every, config.steps),
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        averaging = [EMAWeightAveraging(decay=config.optimiser.ema)] if config.optimiser.ema else []
        early = EarlyStopping("cer", patience=config.patience or sys.maxsize, stopping_threshold=1e-9)
        # Before the averaging, what must see the averaged weights; behind it, what must hold this step's average.
        callbacks: list[Callback] = [Progress(journal, config.log_every), best, *averaging, Stop(self.last), saved]
        if not valid:
            callbacks.append(Decoded(config.validate_every))
        elif config.patience or config.overfit:
            callbacks.append(early)
        with _quiet(), self.explained():
            trainer = self.trainer(callbacks, logger=TensorBoardLogger(folder, name="", version="logs"))
            try:
                trainer.fit(self.learner, ckpt_path=str(self.last) if self.resume else None, weights_only=False)
            except SystemExit:  # what Lightning makes of an interrupt
                if self.ranks.rank == 0:
                    write_page(folder, [f"Stopped at step {trainer.global_step} of {config.steps}.", *self.notes])
                say(f"stopped at step {trainer.global_step}; {go_on(folder)}")
                raise KeyboardInterrupt from None
            if valid and best.step != trainer.global_step:
                trainer.validate(self.learner, verbose=False)
        if self.ranks.rank:
            return Result(folder)
        if config.patience and trainer.global_step < config.steps:
            self.note(f"ended at step {trainer.global_step}: {config.patience} validations in a row were not better")
        model, card = self.learner.model, self.card
        if valid:
            model, card = checkpoint.load(best.folder)
        else:
            model = _plain(model)
        checkpoint.save(folder, model.cpu().eval(), card)
        export_onnx(folder)
        skills = None
        if self.skills:
            after = _right(read_source(model, self.charset, self.preprocessing, self.skills))
            skills = OldSkills(self.before, after, len(self.skills))
            self.note(str(skills))
        worst = self._worst(model)
        page = write_page(folder, [f"{trainer.global_step} steps", *self.notes], worst)
        say(f"{folder}: model written; {page} shows how the run went")
        if config.overfit:
            self._judge(card, worst, trainer.global_step)
        return Result(folder, card.scores, skills)

    def trainer(self, callbacks: list[Callback], **options: Any) -> Trainer:
        config, several = self.config, self.ranks.world > 1
        gpus = torch.cuda.is_available()
        return Trainer(
            accelerator="gpu" if gpus else "cpu",
            devices=self.ranks.local if several else 1,
            num_nodes=self.ranks.nodes,
            strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if several else "auto",
            precision=_precision(config.precision),
            max_steps=config.steps,
            max_epochs=-1,
            accumulate_grad_batches=config.accumulate,
            val_check_interval=min(config.validate_every, config.steps) * config.accumulate if self.valid else None,
            check_val_every_n_epoch=None,
            limit_val_batches=None if self.valid else 0,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            plugins=[self.ranks.environment(), _WholeFiles()],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=50,
            **({"logger": False, "enable_checkpointing": bool(callbacks)} | options),
        )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What breaks a run, in one sentence with a way out."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_full(error):
                raise CrnnError(advice(self.learner)) from None
            if "DataLoader worker" in str(error):
                killed = str(error).strip().splitlines()[-1]
                raise DataError(
                    f"a process that loads images ended ({killed.rstrip(' .')}), most often because memory or /dev/shm "
                    f"is full: give more of it (in a container, --shm-size) or set workers=0; {go_on(self.folder)}"
                ) from None
            if self.ranks.world > 1 and any(word in str(error) for word in ("onnection", "peer", "NCCL", "Gloo")):
                raise CrnnError(
                    f"process {self.ranks.rank} lost contact with another one of the run; {go_on(self.folder)}"
                ) from None
            raise
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            raise DataError(f"{error.filename or self.folder}: {error.strerror}; {go_on(self.folder)}") from None

    def _worst(self, model: CRNN, most: int = 2000) -> list[Shown]:
        """The validation samples that are read worst; of large sources the first `most` are looked at."""
        found: list[tuple[float, Shown]] = []
        for (_, source), fold in zip(self.valid, self.fold_case, strict=True):
            for each in read_shown(
                model, self.charset, self.preprocessing, Subset(source, range(min(most, len(source))))
            ):
                label, text = (each.label.lower(), each.text.lower()) if fold else (each.label, each.text)
                if label != text:
                    found.append((Levenshtein.normalized_distance(label, text), each))
        return [each for _, each in sorted(found, key=lambda pair: -pair[0])[:WORST]]

    def _judge(self, card: checkpoint.Card, wrong: list[Shown], steps: int) -> None:
        if not wrong:
            say(f"learnt by heart in {steps} steps: the network can learn from these data and settings")
            return
        few = ", ".join(f"{each.label!r} read {each.text!r}" for each in wrong[:5])
        raise CrnnError(
            f"{len(wrong)} of {self.config.overfit} samples were not learnt by heart in {steps} steps ({few}): look "
            "whether their labels are true (crnn data preview), try --find-learning-rate, or give --init a model"
        )


class _WholeFiles(TorchCheckpointIO):
    """A checkpoint appears whole or not at all, also when the machine is lost while it is written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        whole = io.BytesIO()  # written by PyTorch itself, a full disk would be an error about positions in a file
        torch.save(checkpoint, whole)
        try:
            with partial.open("wb") as file:
                file.write(whole.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _describe(folder: Path, config: TrainConfig) -> None:
    """config.toml, and the command of every start in command.txt."""
    if LAUNCHED in os.environ:  # whoever started this process did it
        return
    (folder / "config.toml").write_text(to_toml(config), "utf-8")
    program = Path(sys.argv[0])
    words = ["python", "-m", "crnn"] if program.name == "__main__.py" else [program.name]
    with (folder / "command.txt").open("a", encoding="utf-8") as file:
        file.write(
            f"{shlex.join([*words, *sys.argv[1:]])}\n"
            f"  # in {Path.cwd()}; Python {platform.python_version()}, PyTorch {torch.__version__}\n"
        )


def _begun(file: Path) -> tuple[int, str]:
    """The step that a checkpoint was written at, and the characters of its run; DataError when it is damaged."""
    try:
        stored = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
        return int(stored["global_step"]), stored.get(CHARSET, "")
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{file} is no checkpoint of a run or damaged ({reason}); start the run again") from None


def _right(pairs: list[tuple[str, str]]) -> float:
    return metrics.score(pairs, "raw").word_accuracy


def _listed(characters: str, most: int = 60) -> str:
    if not characters:
        return ""
    return f" ({characters[:most]}{'…' if len(characters) > most else ''})"


def _plain(model: CRNN) -> CRNN:
    """Without what only several processes need."""
    plain = CRNN(model.architecture, model.head.out_features)
    plain.load_state_dict(model.state_dict())
    return plain


def _precision(wanted: str) -> Any:
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "bf16" if torch.cuda.is_bf16_supported() else "16"
        else:
            wanted = "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[wanted]


def _tune_cpu() -> None:
    """Batches of many widths: keep the kernels made for each shape, and the memory, instead of getting them anew."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    keep_memory()


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
