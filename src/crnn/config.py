"""What a training run is made of: frozen dataclasses, filled from a preset, a TOML file and `--set a.b=c`."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from crnn.errors import ConfigError


@dataclass(frozen=True)
class SourceConfig:
    """Labelled images: a path that `crnn data check` understands."""

    path: str
    weight: float = 1.0  # share of the labelled samples, relative to the other sources
    split: str | None = None  # "train", "valid" or "test" of the source; None takes all of it
    fold_case: bool = False  # the labels are all capitals (or all small) whatever is printed
    augment: float = 1.0  # 0 shows the images as they are


@dataclass(frozen=True)
class SynthConfig:
    """Crops rendered while training."""

    share: float = 1.0  # part of the samples that is rendered, 0..1, once the labelled ones take part
    fonts: tuple[str, ...] = ()  # folders or files; empty takes the system's
    corpus: tuple[str, ...] = ()  # text files; empty takes frequent English words
    mix: dict[str, float] = field(default_factory=dict)  # kinds of strings, see synth/corpus.py
    looks: dict[str, float] = field(default_factory=dict)  # photo, document, scan, screen: see synth/looks.py
    max_length: int = 40  # characters
    smallest: int = 10  # pixels of height of a crop, before it is scaled to the model's
    replay: bool = False  # draw only characters that the model in `init` knows, so that it does not forget them


@dataclass(frozen=True)
class ModelConfig:
    architecture: str = "crnn-small"
    channels: int = 1  # 1 grey, 3 RGB
    hidden: int = 192  # LSTM units per direction
    layers: int = 2
    dropout: float = 0.1
    bottleneck: int = 0  # features that the classes are told from; 0: those of the LSTMs as they are


@dataclass(frozen=True)
class OptimiserConfig:
    name: str = "adamw"  # or "sgd"
    learning_rate: float = 1.5e-3  # at the top of the schedule, for an update made of one batch
    batch_rule: str = "auto"  # how it grows with the batches of an update: "linear", "sqrt", "none"; see optimiser.py
    schedule: str = "cosine"  # or "onecycle", "exponential", "constant"
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.02
    warmup: int = 500  # steps; onecycle has its own
    final: float = 0.01  # part of the learning rate that is left at the end of the schedule
    clip: float = 5.0  # norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are validated and published; 0 turns it off


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    charset: "english", "digits", "alphanumeric", a charset file, "auto" (the characters of the training labels) or
    "extend" (those of the model in `init`, then what the labels have more).
    """

    output: str = "crnn-run"
    charset: str = "auto"
    init: str = ""  # bundled model or model folder whose weights to start from
    steps: int = 2000  # updates in all
    column_steps: int = 0  # of these, how many first learn each column from the rendered character under it
    occlude: float = 0.0  # part of the crops with a letter's width hidden, to be told by its neighbours
    hardest: float = 1.0  # part of each batch that is learnt from: what `init` reads worst, and some of the others
    teacher: str = ""  # bundled model or model folder, most often a larger one, that tells what it reads in each column
    batch: int = 64  # crops that a device sees at once; a quarter of them where they are wide
    accumulate: int = 1  # batches of each device whose gradients make one update
    devices: int = (
        0  # processes on this machine, each with a GPU or, without any, CPU cores; 0: all GPUs, or one process
    )
    nodes: int = 1  # machines
    workers: int = 1  # processes that render and load, for each device
    seed: int = 0
    precision: str = "auto"  # auto: bf16 where the hardware has it; "32", "bf16", "16"
    validate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps between the checkpoints that --resume goes on from
    log_every: int = 10  # steps between the lines of log.jsonl
    patience: int = 0  # validations in a row without a lower CER that end the run; 0: all steps
    # Stages of the network that keep the weights of `init`: backbone, sequence, head; backbone.0 is its first block.
    freeze: tuple[str, ...] = ()
    overfit: int = 0  # learn only so many samples by heart, to see that data and settings can be learnt at all
    old_skills: int = (
        0  # rendered crops of the characters of `init` that are read before and after, to see what was lost
    )
    max_rejected: float = 0.05  # part of the labelled samples that may be unusable before the run refuses to start
    train: tuple[SourceConfig, ...] = ()
    valid: tuple[SourceConfig, ...] = ()
    synth: SynthConfig = SynthConfig(share=0.0)
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "nodes", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} is impossible: it must be 1 or more")
        for name in ("devices", "workers", "column_steps", "patience", "overfit", "old_skills"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} is impossible: it must be 0 or more")
        self._check_ranges()
        for name, part in (("synth.share", self.synth.share), ("occlude", self.occlude)):
            if not 0.0 <= part <= 1.0:
                raise ConfigError(f"{name} = {part} is impossible: it is a part, from 0 to 1")
        if not 0.0 < self.hardest <= 1.0:
            raise ConfigError(
                f"hardest = {self.hardest} is impossible: it is a part of every batch, above 0 and up to 1"
            )
        if self.hardest < 1 and (self.column_steps or not self.init):
            raise ConfigError("hardest needs a model that can read: name it as init, with column_steps = 0")
        if self.column_steps and not self.synth.share:
            raise ConfigError(
                "column_steps needs rendered crops, whose characters have known places: set synth.share above 0"
            )
        if self.column_steps > self.steps:
            raise ConfigError(
                f"column_steps ({self.column_steps}) is more than steps ({self.steps}): it is a part of them"
            )
        if self.precision not in ("auto", "32", "bf16", "16"):
            raise ConfigError(f"precision {self.precision!r} does not exist: choose auto, 32, bf16 or 16")
        if not self.train and not self.synth.share:
            raise ConfigError("nothing to train on: give --data FOLDER, or set synth.share above 0")
        self._check_choices()
        self._check_init()
        if self.patience and not (self.valid or self.overfit):
            raise ConfigError(
                f"patience = {self.patience} waits for better validations, and there are none: add --valid"
            )
        if self.charset == "auto" and not self.train:
            raise ConfigError('charset = "auto" takes the characters of the labels, and there are none: name a charset')
        if self.charset == "extend" and not self.init:
            raise ConfigError('charset = "extend" extends that of the initial model, and there is none: give --init')

    def _check_ranges(self) -> None:
        model, optimiser, synth = self.model, self.optimiser, self.synth
        for name, value, least in (
            ("seed", self.seed, 0), ("model.hidden", model.hidden, 1), ("model.layers", model.layers, 1),
            ("model.bottleneck", model.bottleneck, 0), ("synth.max_length", synth.max_length, 1),
            ("synth.smallest", synth.smallest, 1), ("optimiser.weight_decay", optimiser.weight_decay, 0),
            ("optimiser.warmup", optimiser.warmup, 0), ("optimiser.clip", optimiser.clip, 0),
            *((f"augment of {each.path}", each.augment, 0) for each in self.train),
        ):  # fmt: skip
            if value < least:
                raise ConfigError(f"{name} = {value} is impossible: it must be {least} or more")
        for name, value in (("model.dropout", model.dropout), ("optimiser.momentum", optimiser.momentum)):
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"{name} = {value} is impossible: it is from 0 to below 1")
        for each in self.train:
            if not each.weight > 0:
                raise ConfigError(f"weight of {each.path} = {each.weight} is impossible: it must be above 0")
        for name, weights in (("synth.mix", synth.mix), ("synth.looks", synth.looks)):
            if weights and not (min(weights.values()) >= 0 and sum(weights.values()) > 0):
                raise ConfigError(f"{name}: weights are 0 or more, one of them above 0, not {weights}")

    def _check_choices(self) -> None:
        chosen = self.optimiser
        for name, value, choices in (
            ("optimiser.name", chosen.name, ("adamw", "sgd")),
            ("optimiser.schedule", chosen.schedule, ("cosine", "onecycle", "exponential", "constant")),
            ("optimiser.batch_rule", chosen.batch_rule, ("auto", "linear", "sqrt", "none")),
            *(("freeze", stage.partition(".")[0], ("backbone", "sequence", "head")) for stage in self.freeze),
        ):
            if value not in choices:
                raise ConfigError(
                    f"{name} = {value!r} does not exist: choose {', '.join(choices[:-1])} or {choices[-1]}"
                )
        if not chosen.learning_rate > 0:
            raise ConfigError(f"optimiser.learning_rate = {chosen.learning_rate} is impossible: it must be above 0")
        if not 0.0 <= chosen.ema < 1.0:
            raise ConfigError(f"optimiser.ema = {chosen.ema} is impossible: it is from 0 (off) to below 1")
        if not 0.0 <= chosen.final <= 1.0 or (chosen.schedule == "exponential" and not chosen.final):
            raise ConfigError(
                f"optimiser.final = {chosen.final} is impossible: it is a part, from 0 (above 0 where the schedule is "
                "exponential) to 1"
            )

    def _check_init(self) -> None:
        """What needs a model to start from."""
        for name, value in (
            ("freeze", self.freeze),
            ("old_skills", self.old_skills),
            ("synth.replay", self.synth.replay),
        ):
            if value and not self.init:
                raise ConfigError(
                    f"{name} is about the model that training starts from, and there is none: give --init"
                )
        if {"backbone", "sequence", "head"} <= set(self.freeze):
            raise ConfigError("freeze names every stage of the network: nothing is left to train")
        if self.synth.replay and self.column_steps:
            raise ConfigError("column_steps teach a new network, synth.replay keeps an old one: set one of them to 0")


def presets() -> list[str]:
    """Names for --preset."""
    return sorted(
        file.name.removesuffix(".toml")
        for file in resources.files("crnn.presets").iterdir()
        if file.name.endswith(".toml")
    )


def load_config(
    preset: str | None = None, file: str | Path | None = None, overrides: Iterable[str] = (), **options: Any
) -> TrainConfig:
    """A preset, then a TOML file, then `a.b=c` strings, then keyword options (None: not given); the later one wins."""
    values: dict[str, Any] = {}
    if preset is not None:
        if preset not in presets():
            raise ConfigError(f"preset {preset!r} does not exist: choose one of {', '.join(presets())}")
        _merge(values, tomllib.loads((resources.files("crnn.presets") / f"{preset}.toml").read_text("utf-8")))
    if file is not None:
        try:
            _merge(values, tomllib.loads(Path(file).read_text("utf-8")))
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read as TOML ({error})") from None
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {override}: write it as name=value, for example optimiser.learning_rate=0.001")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string
        for part in reversed(name.split(".")):
            value = {part: value}
        _merge(values, value)
    _merge(values, {name: value for name, value in options.items() if value is not None})
    return _build(TrainConfig, values, "")


def to_toml(config: TrainConfig) -> str:
    """The whole configuration as TOML that `load_config` reads back equal."""
    return _toml(asdict(config), "")


def _merge(base: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict) and key not in ("mix", "looks"):
            _merge(base[key], value)
        else:
            base[key] = value


def _build(kind: Any, values: Any, where: str) -> Any:
    """`values` as `kind`: dataclasses, tuples and plain values are checked by their annotations."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        if isinstance(values, kind):
            return values
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is a table of settings, not {values!r}")
        hints = typing.get_type_hints(kind)
        known = {f.name for f in fields(kind)}
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{where + '.' if where else ''}{key} is not a setting: choose from {', '.join(sorted(known))}"
                )
        built = {k: _build(hints[k], v, f"{where}.{k}" if where else k) for k, v in values.items()}
        try:
            return kind(**built)
        except TypeError as error:
            raise ConfigError(f"{where or 'config'}: {error}") from None
    if origin is tuple:
        if not isinstance(values, (list, tuple)):
            raise ConfigError(f"{where} is a list, not {values!r}")
        return tuple(_build(arguments[0], value, f"{where}[{i}]") for i, value in enumerate(values))
    if origin is dict:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is a table name = weight, not {values!r}")
        return {str(key): _build(arguments[1], value, f"{where}.{key}") for key, value in values.items()}
    if origin is types.UnionType:
        return None if values is None else _build(arguments[0], values, where)
    if kind is str and isinstance(values, int) and not isinstance(values, bool):
        return str(values)  # --set precision=32
    if kind is float and isinstance(values, int) and not isinstance(values, bool):
        return float(values)
    if not isinstance(values, kind) or (isinstance(values, bool) and kind is not bool):
        raise ConfigError(f"{where} = {values!r} should be {_MEANING[kind]}")
    return values


_MEANING = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _toml(values: Mapping[str, Any], prefix: str) -> str:
    lines, tables = [], []
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            tables.append(f"\n[{prefix}{key}]\n" + _toml(value, f"{prefix}{key}."))
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{prefix}{key}]]\n" + _toml(item, f"{prefix}{key}.") for item in value]
        else:
            lines.append(f"{key} = {_toml_value(value)}\n")
    return "".join(lines + tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
