"""Training: it converges, goes on where it stopped, starts from other models, and refuses bad data by name."""

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import crnn
from crnn import checkpoint, evaluation
from crnn.callbacks import Progress
from crnn.charset import ENGLISH, Charset
from crnn.cli import app
from crnn.config import OptimiserConfig, SourceConfig, load_config, to_toml
from crnn.data.loader import NO_TARGET, Batch
from crnn.data.prepare import prepare
from crnn.devices import Ranks
from crnn.errors import ConfigError, CrnnError, DataError, ModelError
from crnn.image import Preprocessing
from crnn.journal import read_log
from crnn.learner import SURELY, Learner, read_otherwise
from crnn.model import CRNN, Architecture
from crnn.optimiser import growth, schedule
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Renderer, generate
from crnn.training import find_learning_rate, train

FONTS = Path(__file__).with_name("fonts")
SMALL = {"hidden": 64, "layers": 1, "dropout": 0.0}


def crops(folder: Path, words: list[str], count: int, charset: str = ENGLISH) -> Path:
    """A folder of `count` crops with labels, drawn as a screen shows them."""
    known = Charset(charset)
    renderer = Renderer(Corpus(known, words, mix={"word": 1.0}), find_faces([FONTS], known), looks={"screen": 1.0})
    list(generate(renderer, folder, count, 1))
    return folder


def settings(folder: Path, output: Path, **options):
    options = {"steps": 6, "batch": 4, "workers": 0, "precision": "32", "validate_every": 100, "model": SMALL} | options
    return load_config(output=str(output), train=[{"path": str(folder)}], **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return crops(tmp_path_factory.mktemp("words"), ["oak", "elm", "Birch", "willow", "ash"], 24)


def test_a_few_samples_are_learnt_by_heart(tmp_path, capfd):
    data = crops(tmp_path / "data", ["oak", "elm", "Birch", "willow", "ash"], 20)
    by_heart = load_config(
        output=str(tmp_path / "run"),
        charset="extend",
        init="en",
        train=[{"path": str(data)}],
        overfit=16,
        steps=80,
        batch=16,
        workers=0,
        optimiser={"learning_rate": 5e-4, "warmup": 5},
    )
    run = train(by_heart)
    assert re.search(r"learnt by heart in \d+ steps: the network can learn", capfd.readouterr().err)
    assert run.scores["by heart"]["samples"] == 16 and run.scores["by heart"]["cer"] == 0.0
    score = evaluation.evaluate(crnn.load(run.folder), [data]).combined.metrics
    assert score.right >= 16
    hopeless = replace(by_heart, output=str(tmp_path / "none"), steps=1, init="", charset="english")
    with pytest.raises(CrnnError, match=r"16 of 16 samples were not learnt by heart in 1 steps .*labels are true"):
        train(hopeless)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(folder, tmp_path, monkeypatch):
    # Dropout is random, the second batch of an update no place to stop at.
    options = {"model": SMALL | {"layers": 2, "dropout": 0.2}, "accumulate": 2, "log_every": 1}
    whole = train(settings(folder, tmp_path / "whole", **options)).folder

    plain = Progress.on_train_batch_end

    def lose(self, trainer, *more):
        if trainer.global_step == 2:
            raise RuntimeError("the machine is lost")
        plain(self, trainer, *more)

    def interrupt(self, trainer, *more):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self, trainer, *more)

    config = settings(folder, tmp_path / "parts", checkpoint_every=1, **options)
    for ending, error in ((lose, RuntimeError), (interrupt, KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "on_train_batch_end", ending)
            with pytest.raises(error):
                train(config, resume=ending is interrupt)
        assert not (tmp_path / "parts" / "weights.safetensors").exists()
    parts = train(config, resume=True).folder
    one, two = (load_file(run / "weights.safetensors") for run in (whole, parts))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    logs = [[entry["step"] for entry in read_log(run)] for run in (whole, parts)]
    assert logs == [[1, 2, 3, 4, 5, 6]] * 2
    losses = [[entry["loss"] for entry in read_log(run)] for run in (whole, parts)]
    assert losses[0] == losses[1]


def test_a_finished_run_is_left_as_it_is(folder, tmp_path, capfd):
    best = train(settings(folder, tmp_path / "run", valid=[{"path": str(folder)}], validate_every=2))
    weights = (tmp_path / "run/weights.safetensors").read_bytes()
    again = train(load_config(file=tmp_path / "run/config.toml", output=str(tmp_path / "run")), resume=True)
    assert "finished" in capfd.readouterr().err
    assert (tmp_path / "run/weights.safetensors").read_bytes() == weights
    assert again.scores["combined"]["cer"] == pytest.approx(best.scores["combined"]["cer"])


def test_what_a_killed_run_left_is_not_published_by_the_next(folder, tmp_path):
    train(settings(folder, tmp_path / "first", valid=[{"path": str(folder)}], charset="english"))
    shutil.copytree(tmp_path / "first/best", tmp_path / "run/best")
    train(settings(folder, tmp_path / "run", valid=[{"path": str(folder)}]))
    assert len(checkpoint.load_card(tmp_path / "run").charset) < len(ENGLISH)


def test_labels_that_change_while_a_run_is_stopped_are_told(tmp_path):
    data = crops(tmp_path / "data", ["oak", "elm"], 8)
    train(settings(data, tmp_path / "run"))
    labels = (data / "labels.tsv").read_text("utf-8")
    (data / "labels.tsv").write_text(labels.replace("\toak", "\tyak"), "utf-8")
    longer = load_config(file=tmp_path / "run/config.toml", output=str(tmp_path / "run"), steps=8)
    with pytest.raises(DataError, match="other characters than when the run began"):
        train(longer, resume=True)


def test_what_cannot_be_validated_on_is_left_out_by_name(tmp_path, capfd):
    data, held_out = (crops(tmp_path / name, ["oak", "elm"], 8) for name in ("data", "held_out"))
    (held_out / "images/0000003.jpg").write_bytes(b"no image")
    result = train(settings(data, tmp_path / "run", valid=[{"path": str(held_out)}]))
    assert "0000003.jpg" in capfd.readouterr().err
    assert result.scores["combined"]["samples"] == 7


def test_a_run_does_not_overwrite_another(folder, tmp_path):
    train(settings(folder, tmp_path / "run", steps=1))
    with pytest.raises(DataError, match="already holds a run"):
        train(settings(folder, tmp_path / "run", steps=1))
    with pytest.raises(DataError, match="nothing to resume"):
        train(settings(folder, tmp_path / "other"), resume=True)


def test_the_run_says_how_it_was_made(folder, tmp_path):
    config = settings(folder, tmp_path / "run", steps=1)
    run = train(config).folder
    assert load_config(file=run / "config.toml") == config
    card = checkpoint.load_card(run)
    labels = (folder / "labels.tsv").read_text("utf-8").splitlines()
    assert card.charset == Charset.from_text(line.split("\t")[1] for line in labels)
    assert card.provenance["steps"] == 1
    assert "Python" in (run / "command.txt").read_text("utf-8")


def test_a_run_shows_how_it_went(folder, tmp_path):
    config = settings(folder, tmp_path / "run", steps=40, batch=2, validate_every=2, log_every=1)
    config = replace(
        config, valid=config.train, patience=2, optimiser=replace(config.optimiser, learning_rate=1e-9, ema=0.0)
    )
    run = train(config).folder
    entries = read_log(run)
    checked = [entry["step"] for entry in entries if "validation" in entry]
    assert checked[-1] < 40  # nothing gets better at such a rate: stopped early
    assert entries[0].keys() >= {"step", "loss", "learning_rate", "crops_per_second", "waiting", "blank", "gradient"}
    assert {"label", "text"} == entries[2]["samples"][0].keys()
    page = (run / "training.html").read_text("utf-8")
    assert "validations in a row were not better" in page and "$" not in page
    for shown in ("Loss", "Validation: CER", "Learning rate", "Time spent waiting for data"):
        assert f"<figcaption>{shown}" in page
    assert page.count('<img alt="" src="data:image/png') == 24  # all are read wrong
    board = EventAccumulator(str(run / "logs"))
    board.Reload()
    tags = board.Tags()
    assert {"loss", "waiting", "words0/cer"} & set(tags["scalars"]) >= {"loss", "waiting"}
    assert tags["images"] == ["crops"] and tags["tensors"] == ["read/text_summary"]


def test_frozen_stages_keep_their_weights(tmp_path, folder):
    torch.manual_seed(1)
    old = CRNN(Architecture(**SMALL), 96)
    checkpoint.save(tmp_path / "old", old, checkpoint.Card(old.architecture, Charset(ENGLISH)))
    options = {"init": str(tmp_path / "old"), "charset": "english", "steps": 3, "optimiser": {"ema": 0.0, "warmup": 1}}
    # Unless the settings say which, the network has the initial model's shape.
    run = train(settings(folder, tmp_path / "run", freeze=["backbone", "sequence"], model={}, **options)).folder
    one, two = (load_file(each / "weights.safetensors") for each in (tmp_path / "old", run))
    assert {name for name in one if not torch.equal(one[name], two[name])} == {"head.weight", "head.bias"}


def test_only_the_hardest_crops_are_learnt_from(tmp_path, folder, monkeypatch):
    torch.manual_seed(1)
    old = CRNN(Architecture(**SMALL), 96)
    checkpoint.save(tmp_path / "old", old, checkpoint.Card(old.architecture, Charset(ENGLISH)))
    learnt = []
    ctc = Learner.ctc

    def losses(self, logits, batch):
        of_all = ctc(self, logits, batch)
        if logits.requires_grad:
            learnt.append(batch.labels)
        else:
            of_all = torch.arange(len(batch)) / len(batch)
            of_all[0] = 5.0  # nobody could read that
            learnt.append(batch.labels)
        return of_all

    monkeypatch.setattr(Learner, "ctc", losses)
    options = {
        "init": str(tmp_path / "old"),
        "charset": "english",
        "steps": 2,
        "batch": 16,
        "hardest": 0.5,
        "model": {},
    }
    run = train(settings(folder, tmp_path / "run", **options, optimiser={"ema": 0.0, "warmup": 1})).folder
    for seen, taken in zip(learnt[::2], learnt[1::2], strict=True):
        worst = round(len(seen) / 2) - round(round(len(seen) / 2) / 4)
        assert len(taken) == round(len(seen) / 2)
        assert taken[:worst] == seen[: -worst - 1 : -1]
    one, two = (load_file(each / "weights.safetensors") for each in (tmp_path / "old", run))
    same = {name for name in one if torch.equal(one[name], two[name])}
    assert same and same == {name for name in one if "running" in name or "num_batches" in name}


def test_a_small_network_learns_to_say_what_its_teacher_says(tmp_path, folder, monkeypatch):
    apart = []
    untaught = Learner.untaught

    def divergence(self, logits, batch):
        found = untaught(self, logits, batch)
        apart.append(float(found.mean()))
        return found

    monkeypatch.setattr(Learner, "untaught", divergence)
    fast = {"learning_rate": 3e-3, "warmup": 1, "ema": 0.0}
    taught = settings(folder, tmp_path / "run", charset="english", teacher="en", steps=30, batch=16, optimiser=fast)
    train(taught)
    assert len(apart) == 30 and sum(apart[-5:]) < 0.5 * sum(apart[:5])


def test_a_teacher_that_reads_other_characters_is_refused(tmp_path, folder):
    with pytest.raises(ConfigError, match="the teacher en reads other characters than those to be learnt"):
        train(settings(folder, tmp_path / "run", charset="alphanumeric", teacher="en", max_rejected=1.0))
    assert not (tmp_path / "run" / "model.json").exists()


def test_a_real_crop_that_is_surely_read_otherwise_is_taken_for_mislabelled():
    logits = torch.full((4, 6, 4), -8.0)
    logits[:, torch.arange(6), torch.tensor([0, 1, 0, 2, 0, 0])] = 8.0  # reads 1, 2 in the first five columns
    logits[1, 3, 3] = 8.0  # not sure whether 2 or 3
    columns = torch.full((4, 6), NO_TARGET)
    columns[3] = 0  # rendered
    batch = Batch(
        images=torch.zeros(4, 1, 32, 24),
        lengths=torch.full((4,), 5),
        targets=torch.tensor([[1, 3], [1, 3], [1, 2], [1, 3]], dtype=torch.int32),
        target_lengths=torch.full((4,), 2),
        columns=columns,
        fold_case=torch.zeros(4, dtype=torch.bool),
        labels=["13", "13", "12", "13"],
        paths=[""] * 4,
    )
    config = replace(load_config("tiny"), init="en", column_steps=0, hardest=0.5)
    learner = Learner(CRNN(Architecture(**SMALL), 4), Charset("123"), Preprocessing(), config, [], [], Ranks())
    losses = learner.ctc(logits, batch)
    assert losses[0] > SURELY > losses[2]
    assert read_otherwise(logits, losses, batch).tolist() == [True, False, False, False]


def test_a_block_of_a_stage_can_be_frozen_and_one_that_is_not_there_is_named(tmp_path):
    model = CRNN(Architecture(**SMALL), 96)

    def learner(*frozen):
        config = replace(load_config("tiny"), init="en", freeze=frozen)
        return Learner(model, Charset(ENGLISH), Preprocessing(), config, [], [], Ranks())

    learner("backbone.0")
    fixed = {name for name, weights in model.named_parameters() if not weights.requires_grad}
    assert fixed and all(name.startswith("backbone.0.") for name in fixed)
    with pytest.raises(ConfigError, match=r"freeze = 'backbone.9' does not exist: this network has backbone, "):
        learner("backbone.9")
    with pytest.raises(ConfigError, match="nothing is left to train"):
        learner("sequence", "head", *(f"backbone.{block}" for block in range(len(model.backbone))))


def test_replay_draws_old_characters_only_and_old_skills_are_reported(tmp_path, capfd):
    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        cv2.imwrite(str(data / f"{i}.png"), np.full((32, 60), 255, np.uint8))
    (data / "labels.tsv").write_text("".join(f"{i}.png\tжы\n" for i in range(8)), "utf-8")  # no test font has them
    run = train(
        load_config(
            "finetune",
            output=str(tmp_path / "run"),
            train=[{"path": str(data)}],
            synth={"share": 0.5, "fonts": [str(FONTS)], "mix": {"random": 1.0}},
            overrides=["steps=2", "batch=4", "workers=0", "old_skills=6"],
        )
    )
    said = capfd.readouterr().err
    assert "95 characters kept, 2 new (жы), 0 dropped" in said
    assert run.old_skills.samples == 6 and run.old_skills.after > 0.0
    assert f"{run.old_skills.before:.1%} were read right before" in said


@pytest.mark.parametrize("fold", [False, True])
def test_the_loss_is_that_of_ctc_and_either_case_is_right_where_labels_have_one(fold):
    torch.manual_seed(0)
    charset = Charset("abAB5ékK\N{KELVIN SIGN}")
    learner = Learner(
        CRNN(Architecture(), charset.num_classes), charset, Preprocessing(), load_config("tiny"), [], [], Ranks()
    )
    labels = ["abba", "5k", "aabb5é"]
    encoded = [torch.tensor(charset.encode(label), dtype=torch.int32) for label in labels]
    batch = Batch(
        images=torch.empty(3, 1, 32, 0),
        lengths=torch.tensor([12, 9, 11]),
        targets=torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True),
        target_lengths=torch.tensor([4, 2, 6]),
        columns=torch.empty(0),
        fold_case=torch.tensor([fold, fold, False]),
        labels=labels,
        paths=[],
    )
    logits = torch.randn(3, 12, charset.num_classes)

    def textbook(logits):
        whole = logits.log_softmax(-1)
        either = whole.clone()
        for letter in "abABkK":
            either[..., charset.index(letter)] = torch.logaddexp(
                whole[..., charset.index(letter)], whole[..., charset.index(letter.swapcase())]
            )
        chosen = torch.where(batch.fold_case[:, None, None], either, whole)
        losses = torch.nn.functional.ctc_loss(
            chosen.transpose(0, 1), torch.cat(encoded).long(), batch.lengths, batch.target_lengths, reduction="none"
        )
        return losses / batch.target_lengths

    own = logits.clone().requires_grad_()
    losses = learner.ctc(own, batch)
    assert torch.allclose(losses, textbook(logits), atol=1e-5)
    losses.sum().backward()
    for _ in range(5):
        way = torch.randn_like(logits) / 50
        with torch.no_grad():
            change = learner.ctc(logits + way, batch).sum() - learner.ctc(logits - way, batch).sum()
        assert (own.grad * way).sum().item() == pytest.approx(change.item() / 2, abs=2e-4)


def test_samples_that_give_no_number_are_named(folder, tmp_path, monkeypatch):
    plain = Learner.forward

    def broken(self, images):
        logits = plain(self, images)
        return logits.index_fill(0, torch.tensor([2]), float("nan"))

    monkeypatch.setattr(Learner, "forward", broken)
    with pytest.raises(DataError, match=r"no number at step 0 because of \S+\.jpg \('\w+'\); look at"):
        train(settings(folder, tmp_path / "run"))


def test_a_gradient_that_is_no_number_stops_the_run(folder, tmp_path, monkeypatch):
    def broken(self, logits, batch):
        return self.ctc(logits, batch) + logits.flatten(1).abs().sum(1).detach() * 0 + (logits * 0).sum().sqrt()

    monkeypatch.setattr(Learner, "losses", broken)
    with pytest.raises(DataError, match=r"gradient is no number at step 0, from a batch with \S+\.jpg"):
        train(settings(folder, tmp_path / "run"))


def test_too_large_a_batch_is_told_which_one_fits(folder, tmp_path, monkeypatch):
    plain = Learner.forward

    def small(self, images):
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, images)

    monkeypatch.setattr(Learner, "forward", small)
    with pytest.raises(
        CrnnError, match=r"out of memory at step 0 with 8 crops \d+ pixels wide; 4 fit.*batch=8 --set accumulate=2"
    ):
        train(settings(folder, tmp_path / "run", batch=16))


def test_a_damaged_checkpoint_is_said_to_be_one(folder, tmp_path):
    config = settings(folder, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"PK half a file")
    with pytest.raises(DataError, match=r"last\.ckpt is no checkpoint of a run or damaged"):
        train(config, resume=True)


def test_a_learning_rate_is_found(folder, tmp_path):
    rate, tried = find_learning_rate(settings(folder, tmp_path / "run"), steps=25)
    assert 1e-6 < rate < 1.0 and len(tried) > 10
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["cosine", "onecycle", "exponential", "constant"])
def test_the_learning_rate_climbs_and_falls(name):
    scale = schedule(OptimiserConfig(schedule=name, warmup=100, final=0.01), 1000)
    rates = [scale(step) for step in range(1000)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0, abs=1e-3) and all(rate > 0 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(1.0 if name == "constant" else 0.01, rel=0.05)
    assert (250 < top < 350) if name == "onecycle" else (98 <= top <= 101)


def test_more_batches_an_update_raise_the_learning_rate():
    assert growth(OptimiserConfig(name="adamw"), 4) == 2.0
    assert growth(OptimiserConfig(name="sgd"), 4) == 4.0
    assert growth(OptimiserConfig(name="sgd", batch_rule="none"), 4) == 1.0


def test_starting_from_a_model_keeps_the_rows_of_shared_characters(tmp_path):
    torch.manual_seed(1)
    old = CRNN(Architecture(**SMALL), 4)
    checkpoint.save(tmp_path, old, checkpoint.Card(old.architecture, Charset("abc")))
    new = CRNN(Architecture(**SMALL), 5)
    before = new.head.weight.clone()
    moved = checkpoint.transfer(new, Charset("xcaé"), tmp_path)
    assert (moved.kept, moved.new, moved.dropped) == ("ca", "xé", "b")
    for row, old_row in ((0, 0), (2, 3), (3, 1)):  # blank, c, a
        assert torch.equal(new.head.weight[row], old.head.weight[old_row])
        assert torch.equal(new.head.bias[row], old.head.bias[old_row])
    assert torch.equal(new.head.weight[[1, 4]], before[[1, 4]])
    assert all(torch.equal(a, b) for a, b in zip(new.backbone.parameters(), old.backbone.parameters(), strict=True))


def test_a_model_of_another_shape_cannot_be_the_start(tmp_path):
    old = CRNN(Architecture(**SMALL), 4)
    checkpoint.save(tmp_path, old, checkpoint.Card(old.architecture, Charset("abc")))
    with pytest.raises(ModelError, match="make them the same"):
        checkpoint.transfer(CRNN(Architecture(hidden=32), 4), Charset("abc"), tmp_path)


def test_a_narrower_network_starts_with_the_strongest_channels(tmp_path):
    """Where the others are dead, it computes the same."""
    torch.manual_seed(0)
    old, new = CRNN(Architecture(**SMALL), 4).eval(), CRNN(Architecture("crnn-fast", **SMALL), 4).eval()
    left = {32: 24, 64: 32, 128: 80, 256: 128}
    alive = {wide: torch.randperm(wide)[:few] for wide, few in left.items()}
    for module in old.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.zero_()
            module.weight.data[alive[len(module.weight)]] = torch.rand(left[len(module.weight)]) + 0.5
    checkpoint.save(tmp_path, old, checkpoint.Card(old.architecture, Charset("abc")))
    checkpoint.transfer(new, Charset("abc"), tmp_path)
    images = torch.randn(2, 1, 32, 64)
    with torch.no_grad():
        assert torch.allclose(new(images), old(images), atol=1e-4)


def test_a_deeper_network_with_a_bottleneck_starts_by_computing_the_same(tmp_path):
    torch.manual_seed(0)
    old = CRNN(Architecture(**SMALL), 4)
    for module in old.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
    # Three characters and the blank need no more than four features.
    new = CRNN(Architecture("crnn-large", **SMALL, bottleneck=4), 4)
    checkpoint.save(tmp_path, old, checkpoint.Card(old.architecture, Charset("abc")))
    checkpoint.transfer(new, Charset("abc"), tmp_path)
    images = torch.randn(2, 1, 32, 64)
    with torch.no_grad():
        assert torch.allclose(new.eval()(images), old.eval()(images), atol=1e-4)
    # What it was is no obstacle to going on from it.
    checkpoint.save(tmp_path, new, checkpoint.Card(new.architecture, Charset("abc")))
    again = CRNN(new.architecture, 4)
    checkpoint.transfer(again, Charset("abc"), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), new.parameters(), strict=True))


@pytest.mark.parametrize("name", ["crnn-small", "crnn-fast", "crnn-large", "crnn-vgg"])
def test_any_width_gives_a_column_every_four_pixels(name):
    model = CRNN(Architecture(name, **SMALL), 11).eval()
    for number, width in ((1, 16), (2, 100), (1, 388)):
        with torch.no_grad():
            assert model(torch.zeros(number, 1, 32, width)).shape == (number, width // 4, 11)


def test_the_compact_network_is_compact():
    assert sum(p.numel() for p in CRNN(Architecture(), 96).parameters()) < 4_000_000


def test_labels_the_charset_lacks_stop_the_run_by_name(folder, tmp_path):
    with pytest.raises(DataError, match=r"24 of 24 samples.*U\+00.* at position 0"):
        train(settings(folder, tmp_path / "run", charset="digits"))
    assert not (tmp_path / "run").exists()


def test_labels_too_long_for_their_crops_stop_the_run_by_name(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    cv2.imwrite(str(data / "a.png"), np.full((32, 40), 255, np.uint8))
    (data / "labels.tsv").write_text("a.png\tincomprehensible\n", "utf-8")
    with pytest.raises(DataError, match="needs 16 timesteps, 40x32 pixels give 10"):
        train(settings(data, tmp_path / "run"))


def test_settings_are_checked_by_name(tmp_path):
    for bad, said in (
        (["stepz=3"], "stepz is not a setting"),
        (["optimiser.lr=3"], r"optimiser\.lr is not a setting"),
        (["steps=many"], "steps = 'many' should be a whole number"),
        (["steps=0"], "steps = 0 is impossible"),
        (["synth.share=2"], "a part, from 0 to 1"),
        (["model.dropout=2"], "from 0 to below 1"),
        (["synth.max_length=0"], "must be 1 or more"),
        (["train=[{path='x', weight=0}]"], "weight of x = 0"),
        (["synth.mix={word=0}"], "one of them above 0"),
        (["hardest=0"], "a part of every batch, above 0"),
        (["hardest=0.5", "train=[{path='x'}]"], "hardest needs a model that can read"),
        (["column_steps=5", "charset=digits", "train=[{path='x'}]"], "column_steps needs rendered crops"),
        (["charset=extend", "train=[{path='x'}]"], "give --init"),
        (["steps"], "write it as name=value"),
        ([], "nothing to train on"),
        (["freeze=['neck']", "init=en", "train=[{path='x'}]"], "freeze = 'neck' does not exist: choose backbone"),
        (["freeze=['backbone', 'sequence', 'head']", "init=en", "train=[{path='x'}]"], "nothing is left to train"),
        (["freeze=['head']", "train=[{path='x'}]"], "freeze is about the model that training starts from"),
        (["patience=3", "train=[{path='x'}]"], "there are none: add --valid"),
        (["optimiser.schedule=step", "train=[{path='x'}]"], r"optimiser\.schedule = 'step' does not exist"),
        (["optimiser.schedule=exponential", "optimiser.final=0", "train=[{path='x'}]"], "above 0 where"),
        (["synth.replay=true", "synth.share=0.5", "train=[{path='x'}]"], "synth.replay is about the model"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(overrides=bad)
    assert load_config("tiny", overrides=["precision=32"]).precision == "32"
    with pytest.raises(ConfigError, match="preset 'enn' does not exist: choose one of"):
        load_config("enn")


def test_every_preset_is_complete_and_survives_being_written_down(tmp_path):
    for preset in ("en", "en-fast", "en-tiny", "tiny", "finetune", "paper"):
        config = load_config(preset, train=[{"path": 'a "b" \\ c'}])
        (tmp_path / "config.toml").write_text(to_toml(config), "utf-8")
        assert load_config(file=tmp_path / "config.toml") == config


def test_from_fonts_and_words_to_a_reader_on_the_command_line(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("oak\nelm\nash\n", "utf-8")

    def run(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    rendered = ["--fonts", FONTS, "--corpus", words, "--workers", "1"]
    assert "12 crops" in run("synth", tmp_path / "crops", "--count", "12", *rendered)
    sets = [f"--set={each}" for each in ("steps=2", "batch=4", "workers=0", "model.hidden=16")]
    assert "model written" in run("train", "--data", tmp_path / "crops", *sets, "--output", tmp_path / "run")
    assert "\t" in run("read", "--model", tmp_path / "run", tmp_path / "crops")
    assert "crops" in run("evaluate", tmp_path / "crops", "--model", tmp_path / "run")


def test_every_kind_of_source_is_trained_on_and_evaluated_as_it_lies(folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "words"), "zip", folder)
    prepare([folder], tmp_path / "records", workers=1)
    table = [line.split("\t") for line in (folder / "labels.tsv").read_text("utf-8").splitlines()]
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", str(len(table)).encode())
        for number, (path, label) in enumerate(table, 1):
            transaction.put(b"image-%09d" % number, (folder / path).read_bytes())
            transaction.put(b"label-%09d" % number, label.encode())
    sources = [str(folder), archive, str(tmp_path / "records"), str(tmp_path / "lmdb")]
    config = settings(folder, tmp_path / "run", steps=1, batch=8)
    run = train(replace(config, train=tuple(SourceConfig(path) for path in sources))).folder
    found = evaluation.evaluate(crnn.load(run), sources)
    assert [score.metrics.samples for score in found.sources.values()] == [len(table)] * 4
    assert len({score.metrics.edits for score in found.sources.values()}) == 1  # the same crops, read the same
