"""Training: it converges, goes on where it stopped, starts from other models, and refuses bad data by name."""

import os
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
from typer.testing import CliRunner

import crnn
from crnn import checkpoint, evaluation
from crnn.callbacks import Progress
from crnn.charset import ENGLISH, Charset
from crnn.cli import app
from crnn.config import SourceConfig, load_config, to_toml
from crnn.data.prepare import prepare
from crnn.errors import ConfigError, DataError, ModelError
from crnn.model import CRNN, Architecture
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Renderer, generate
from crnn.training import train

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


def test_overfit(tmp_path):
    data = crops(tmp_path / "data", ["oak", "elm", "Birch", "willow", "ash"], 16)
    run = train(
        load_config(
            output=str(tmp_path / "run"),
            charset="extend",
            init="en",
            train=[{"path": str(data), "augment": 0.0}],
            valid=[{"path": str(data)}],
            steps=60,
            batch=16,
            workers=0,
            validate_every=20,
            model={"dropout": 0.0},
            optimiser={"learning_rate": 5e-4, "warmup": 5, "ema": 0.9},
        )
    )
    score = evaluation.evaluate(crnn.load(run.folder), [data]).combined.metrics
    assert (score.samples, score.cer) == (16, 0.0)
    assert run.scores["data"]["cer"] == 0.0


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(folder, tmp_path, monkeypatch):
    whole = train(settings(folder, tmp_path / "whole")).folder

    def lose(self, trainer, *_):
        if trainer.global_step == 2:
            raise RuntimeError("the machine is lost")

    def interrupt(self, trainer, *_):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    config = settings(folder, tmp_path / "parts", checkpoint_every=1)
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


@pytest.mark.parametrize("name", ["crnn-small", "crnn-vgg"])
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
        (["column_steps=5", "charset=digits", "train=[{path='x'}]"], "column_steps needs rendered crops"),
        (["charset=extend", "train=[{path='x'}]"], "give --init"),
        (["steps"], "write it as name=value"),
        ([], "nothing to train on"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(overrides=bad)
    with pytest.raises(ConfigError, match="preset 'enn' does not exist: choose one of"):
        load_config("enn")


def test_every_preset_is_complete_and_survives_being_written_down(tmp_path):
    for preset in ("en", "tiny", "finetune"):
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
