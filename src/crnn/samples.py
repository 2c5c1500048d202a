"""What a run is made of: its shape and charset, the samples it trains on and those it is examined with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crnn import checkpoint, pretrained
from crnn.callbacks import say
from crnn.charset import Charset, named
from crnn.config import ModelConfig, SourceConfig, TrainConfig
from crnn.data.check import fit_labels, screen
from crnn.data.labels import Rejected
from crnn.data.loader import Part
from crnn.data.sources import Source, Subset, open_source
from crnn.errors import DataError
from crnn.image import Preprocessing
from crnn.model import CRNN, Architecture

OVERFIT_STEPS = 600  # of --overfit, at most; it ends when all is read right


def shaped_like_init(config: TrainConfig) -> TrainConfig:
    """A network of the initial model's shape, unless the settings say which."""
    if not config.init or config.model != ModelConfig(dropout=config.model.dropout):
        return config
    shape = checkpoint.load_card(pretrained.find_model(config.init)).architecture
    return replace(
        config,
        model=ModelConfig(
            shape.name, shape.channels, shape.hidden, shape.layers, config.model.dropout, shape.bottleneck
        ),
    )


def network_of(config: TrainConfig, charset: Charset, preprocessing: Preprocessing) -> CRNN:
    shape = config.model
    architecture = Architecture(
        shape.architecture, preprocessing.height, shape.channels, shape.hidden, shape.layers, shape.dropout,
        shape.bottleneck,
    )  # fmt: skip
    return CRNN(architecture, charset.num_classes)


def by_heart(config: TrainConfig) -> TrainConfig:
    """The settings for learning a few samples by heart: nothing that hinders it."""
    return replace(
        config,
        steps=min(config.steps, OVERFIT_STEPS),
        validate_every=min(config.validate_every, 20),
        column_steps=0,
        patience=0,
        old_skills=0,
        valid=(),
        synth=replace(config.synth, share=0.0 if config.train else 1.0, replay=False),
        model=replace(config.model, dropout=0.0),
        optimiser=replace(config.optimiser, ema=0.0),
    )


def few_of(parts: list[Part], count: int) -> tuple[list[Part], list[tuple[str, Source]], list[bool]]:
    """`count` samples spread over the first source, to train on and to validate on."""
    from crnn.replay import Drawn

    part: Any = parts[0]
    if part.endless:
        few: Source = Drawn("rendered", part.source, count)
    else:
        numbers = range(len(part.source))
        few = Subset(part.source, [numbers[i * len(numbers) // count] for i in range(min(count, len(numbers)))])
    return [Part(few, 1.0, part.fold_case)], [("by heart", few)], [part.fold_case]


def old_skills_of(config: TrainConfig, charset: Charset) -> Source | None:
    """Rendered crops of the initial model's characters, others than those trained on."""
    if not config.old_skills:
        return None
    from crnn.replay import Drawn, renderer_of

    old = checkpoint.load_card(pretrained.find_model(config.init)).charset
    try:
        renderer = renderer_of(old, charset, config.synth, config.seed + 104_729)
    except DataError as error:
        say(f"old skills are not examined: {error}")
        return None
    return Drawn("old skills", renderer, config.old_skills)


def charset_of(config: TrainConfig, opened: list[tuple[SourceConfig, Source]]) -> Charset:
    if config.charset not in ("auto", "extend"):
        return named(config.charset)
    # What is held out of the same sources counts, too: a rare character may be in there alone.
    paths = {each.path for each, _ in opened}
    held_out = [open_source(each.path, split=each.split) for each in config.valid if each.path in paths]
    sources = [*(source for _, source in opened), *held_out]
    labels = Charset.from_text(label for source in sources for label in fit_labels(source))
    if config.charset == "auto":
        return labels
    base = checkpoint.load_card(pretrained.find_model(config.init)).charset
    return Charset(base.characters + "".join(c for c in labels.characters if c not in base))


def _rendered(config: TrainConfig, charset: Charset) -> Any:
    """The renderer of the run; None where it would only replay and cannot."""
    from crnn.synth.generate import Renderer  # fonts and Pillow are only needed here

    if not config.synth.replay:
        return Renderer.create(charset, config.synth, config.seed)
    from crnn.replay import renderer_of

    old = checkpoint.load_card(pretrained.find_model(config.init)).charset
    try:
        return renderer_of(old, charset, config.synth, config.seed)
    except DataError as error:
        say(f"no replay, old characters may be forgotten: {error}")
        return None


def parts_of(
    config: TrainConfig, opened: list[tuple[SourceConfig, Source]], charset: Charset, preprocessing: Preprocessing
) -> list[Part]:
    parts = []
    weights = sum(each.weight for each, _ in opened)
    share = config.synth.share if opened else 1.0
    if config.synth.share and (renderer := _rendered(config, charset)):
        parts.append(Part(renderer, share))
    for each, source in opened:
        kept, rejected = screen(source, charset, preprocessing)
        _left_out(each.path, rejected)
        if len(rejected) > config.max_rejected * (len(kept) + len(rejected)):
            raise DataError(
                f"{each.path}: {len(rejected)} of {len(kept) + len(rejected)} samples cannot be trained on, the first: "
                f"{rejected[0].detail}; mend them (crnn data check names all), or raise max_rejected"
            )
        if not kept:
            raise DataError(f"{each.path}: there is no labelled image in it")
        parts.append(Part(Subset(source, kept), (1 - share) * each.weight / weights, each.fold_case, each.augment))
    return parts


def validation_of(configs: Iterable[SourceConfig]) -> tuple[list[tuple[str, Source]], list[bool]]:
    """(name, source) of those that have samples, and whether the case of their labels means nothing."""
    named: dict[str, Source] = {}
    fold_case = []
    for each in configs:
        source = open_source(each.path, split=each.split)
        kept, rejected = screen(source)
        _left_out(each.path, rejected)
        if not kept:
            say(f"nothing of {each.path} is there to validate with: give more samples, or others with --valid")
            continue
        stem = Path(each.path).stem
        named[stem if stem not in named else each.path] = Subset(source, kept) if rejected else source
        fold_case.append(each.fold_case)
    return list(named.items()), fold_case


def _left_out(path: str, rejected: Sequence[Rejected]) -> None:
    for entry in rejected[:10]:
        say(f"left out: {path}: {entry.path}: {entry.detail}")
    if len(rejected) > 10:
        say(f"left out: {len(rejected) - 10} more of {path}")
