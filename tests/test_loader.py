"""Training batches: the same whatever the workers and wherever one starts; every target where it was drawn."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from crnn.charset import ENGLISH, Charset
from crnn.data.check import screen
from crnn.data.labels import Sample
from crnn.data.loader import Batches, Mixture, Part, column_targets, in_order
from crnn.data.sources import open_source
from crnn.errors import DataError
from crnn.image import Preprocessing
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Rendered, Renderer, generate

FONTS = Path(__file__).with_name("fonts")
CHARSET = Charset(ENGLISH)
PREPROCESSING = Preprocessing()


@pytest.fixture(scope="module")
def rendered() -> Renderer:
    return Renderer(Corpus(CHARSET, ["oak", "elm", "Birch"], mix={"word": 1.0}), find_faces([FONTS], CHARSET))


@pytest.fixture(scope="module")
def folder(rendered, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("crops")
    list(generate(rendered, out, 60, 1))
    return out


def mixture(rendered: Renderer, folder: Path) -> Mixture:
    parts = [Part(rendered, 0.5), Part(open_source(folder), 0.5, augment=1.0)]
    return Mixture(parts, CHARSET, PREPROCESSING, 8, seed=3)


def take(batches: Batches, count: int) -> list:
    iterator = iter(batches)
    return [next(iterator) for _ in range(count)]


def test_workers_change_nothing(rendered, folder):
    alone = take(Batches(mixture(rendered, folder), workers=0), 20)
    two = take(Batches(mixture(rendered, folder), workers=2), 20)
    for a, b in zip(alone, two, strict=True):
        assert a.paths == b.paths and torch.equal(a.images, b.images) and torch.equal(a.columns, b.columns)


def test_a_run_that_goes_on_sees_the_very_next_batch(rendered, folder):
    whole = take(Batches(mixture(rendered, folder), workers=0), 21)
    rest = take(Batches(mixture(rendered, folder), start=18, workers=0), 3)
    assert [b.paths for b in rest] == [b.paths for b in whole[18:]]


def test_hands_share_the_samples_without_repeats(rendered, folder):
    def dealt(hands: int, mine: tuple[int, ...]) -> list:
        parts = [Part(open_source(folder), 0.5, augment=1.0), Part(rendered, 0.5)]
        mixed = Mixture(parts, CHARSET, PREPROCESSING, 2, hands=hands, mine=mine)
        return take(Batches(mixed, workers=0), mixed.batches_per_chunk * len(mine))

    ranks = [dealt(2, (0,)), dealt(2, (1,))]
    seen = [path for rank in ranks for batch in rank for path in batch.paths]
    assert len(seen) == len(set(seen)) == 2 * (10 * 2 + 2 + 4)
    # Batches of one update are of one size, and one process that accumulates two gradients sees the same ones.
    assert [len(batch) for batch in ranks[0]] == [len(batch) for batch in ranks[1]]
    both = dealt(2, (0, 1))
    assert [b.paths for b in both] == [b.paths for update in zip(*ranks, strict=True) for b in update]


class Numbered:
    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> Sample:
        image = np.full((32, 40 + 37 * i % 211, 3), 255, np.uint8)
        return Sample(cv2.imencode(".png", image)[1].tobytes(), "a", str(i))


class Endless:
    def __getitem__(self, i: int) -> Rendered:
        image = np.full((32, 40 + 53 * i % 307, 3), 255, np.uint8)
        return Rendered(image, "b", np.array([[0, 0, 20, 32]], np.float32))


def test_the_order_of_samples_is_that_of_earlier_versions():
    """Runs under way go on after an update of this package with the very next sample."""
    mixed = Mixture([Part(Endless(), 0.4), Part(Numbered(), 0.6)], CHARSET, PREPROCESSING, 8, seed=3, first=100)
    shown = take(Batches(mixed, start=9, workers=0), 30)
    digest = hashlib.sha256(" ".join(path for batch in shown for path in batch.paths).encode()).hexdigest()
    assert digest[:16] == "468321cfa0f2e6b5"


def test_an_epoch_shows_every_sample_once(folder):
    mixed = Mixture([Part(open_source(folder), 1.0)], CHARSET, PREPROCESSING, 2)
    first = [mixed._item(0, mixed.parts[0], position).path for position in range(60)]
    second = [mixed._item(0, mixed.parts[0], position).path for position in range(60, 120)]
    assert sorted(first) == sorted(second) and first != second and len(set(first)) == 60


def test_columns_carry_the_character_drawn_over_them():
    boxes = np.array([[0, 0, 20, 9], [22, 0, 30, 9]], np.float32)
    assert column_targets([5, 7], boxes, 1.0, 9, 4).tolist() == [5, 5, 5, 5, 5, 7, 7, 0, 0]


def test_equal_neighbours_are_kept_apart_by_a_blank():
    boxes = np.array([[0, 0, 16, 9], [16, 0, 32, 9]], np.float32)
    targets = column_targets([5, 5], boxes, 1.0, 8, 4).tolist()
    assert targets == [5, 5, 5, 5, 0, 5, 5, 5]


def test_a_hairline_still_gets_a_column():
    boxes = np.array([[0, 0, 7, 9], [8.2, 0, 9.4, 9], [12.5, 0, 20, 9]], np.float32)
    assert 9 in column_targets([3, 9, 4], boxes, 1.0, 5, 4).tolist()


def test_validation_shows_every_sample_once(folder):
    source = open_source(folder)
    shown = sorted(label for batch in in_order(source, CHARSET, PREPROCESSING, 4) for label in batch.labels)
    assert shown == sorted(source.label(i) for i in range(len(source)))


def test_what_cannot_be_trained_on_is_named(tmp_path):
    crop = np.full((32, 40, 3), 255, np.uint8)
    for name in ("good", "long", "foreign"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), crop)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    lines = ["good.png\tok", "long.png\t" + "l" * 9, "foreign.png\tpreis 5€", "broken.png\tx", "missing.png\ty"]
    (tmp_path / "labels.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    kept, rejected = screen(open_source(tmp_path), CHARSET, PREPROCESSING)
    assert kept == [0]
    details = {entry.path: entry.detail for entry in rejected}
    assert "17 timesteps" in details["long.png"] and "give 10" in details["long.png"]
    assert "U+20AC" in details["foreign.png"] and "position 7" in details["foreign.png"]
    assert set(details) == {"long.png", "foreign.png", "broken.png", "missing.png"}


def test_a_mixture_of_nothing_is_refused(folder):
    with pytest.raises(DataError, match="weight 0"):
        Mixture([Part(open_source(folder), 0.0)], CHARSET, PREPROCESSING, 8)


def test_letters_are_hidden_only_inside_crops_and_labels_stay(folder):
    parts = [Part(open_source(folder), 1.0)]
    plain = take(Batches(Mixture(parts, CHARSET, PREPROCESSING, 8, seed=3), workers=0), 16)
    hidden = take(Batches(Mixture(parts, CHARSET, PREPROCESSING, 8, seed=3, occluded=1.0), workers=0), 16)
    changed = 0
    for a, b in zip(plain, hidden, strict=True):
        assert a.paths == b.paths and a.labels == b.labels
        columns = (a.images != b.images).any(dim=1).any(dim=1)  # (N, W)
        changed += int(columns.any(dim=1).sum())
        assert not columns[:, : PREPROCESSING.height // 2].any()
    assert changed > 20
