"""Training from a pool of crops in the memory of the device: runs/pool.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn import checkpoint

RUNS = Path(__file__).parent.parent / "runs"
FONTS = Path(__file__).parent / "fonts"


@pytest.fixture(scope="module")
def pool():
    sys.path.insert(0, str(RUNS))
    try:
        import pool

        yield pool
    finally:
        sys.path.remove(str(RUNS))


def test_a_run_goes_on_where_it_was_stopped_and_ends_as_a_model(tmp_path):
    def call(*options: str) -> subprocess.CompletedProcess[str]:
        sets = ("charset=digits", "synth.share=1.0", "synth.mix={ number = 1.0 }", f"synth.fonts=['{FONTS}']")
        more = ("model.hidden=16", "model.layers=1", "model.bottleneck=8")
        shown = [f"--set={each}" for each in (*sets, *more)]
        command = [sys.executable, RUNS / "pool.py", tmp_path / "run", "--columns=512", "--least=50", "--seconds=2"]
        return subprocess.run([*command, *shown, *options], capture_output=True, text=True, timeout=200)

    first = call("--stop=0.5")
    assert first.returncode == 0, first.stderr
    before = checkpoint.load_card(tmp_path / "run").provenance
    assert 0 < before["seconds"] < 2
    assert call().returncode == 0
    model, card = checkpoint.load(tmp_path / "run")
    assert card.provenance["seconds"] >= 2 and card.provenance["updates"] > before["updates"]
    assert card.provenance["crops"] > before["crops"] and model.architecture.bottleneck == 8


def test_crops_are_drawn_as_they_are_or_altered_with_nothing_behind_them(pool):
    torch.manual_seed(0)
    widths, lengths = torch.full((64,), 100), torch.full((64,), 5)
    pixels = torch.zeros(64, 32, 112, dtype=torch.uint8)
    pixels[:, :, :100] = torch.randint(0, 256, (64, 32, 100))
    images, drawn = pool.altered(pixels, widths, lengths)
    assert images.shape == (64, 1, 32, 112) and images.abs().max() <= 1
    assert all((image[:, :, width:] == 0).all() for image, width in zip(images, drawn.tolist(), strict=True))
    assert (drawn <= 100).all() and (drawn >= 44).all()
    plain = pixels[:, :, :100].float() / 127.5 - 1
    same = (images[:, 0, :, :100] == plain).flatten(1).all(1)
    assert 10 < same.sum() < 60


def test_a_batch_is_of_one_bucket_and_every_crop_keeps_its_label(pool):
    kept = pool.Pool(torch.device("cpu"), columns=640)
    for width in (64, 128):
        count = 300  # more than a shelf has at first
        pixels = np.full((count, 32, width), width, np.uint8)
        classes = np.full((count, pool.LONGEST), width, np.int16)
        fold = np.arange(count) % 3 == 0
        classes[fold] += 1
        kept.add(width, pixels, np.full(count, width), classes, np.full(count, 3), fold)
    assert len(kept) == 600
    widths = set()
    for _ in range(12):
        batch = kept.draw()
        width = batch.images.shape[3]
        widths.add(width)
        assert len(batch.images) == 640 // width
        assert (batch.targets == (width + batch.fold_case.long())[:, None]).all()
    assert widths == {64, 128}
