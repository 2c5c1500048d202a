"""Records are TFRecord files: TensorFlow reads ours, we read TensorFlow's, and damage is named."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn.data.labels import Sample
from crnn.data.records import INDEX_SUFFIX, Feature, ShardWriter, decode_example, encode_example, frame, read_frames
from crnn.data.sources import open_source
from crnn.errors import DataError
from crops import crop

LABELS = ["Stop", "", "二\t three", "x" * 300]

# What people do with TensorFlow: write an Example as the tutorials do, write one as the TensorFlow 1 project did, and
# read records with tf.data. One process for all, since importing TensorFlow takes seconds.
TENSORFLOW = r"""
import json, sys
import cv2, numpy, tensorflow as tf

def bytes_of(*values): return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
def ints(*values): return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
def write(path, *features):
    with tf.io.TFRecordWriter(path) as writer:
        for each in features:
            writer.write(tf.train.Example(features=tf.train.Features(feature=each)).SerializeToString())

here = sys.argv[1]
labels = json.load(open(here + "/labels.json"))
crops = [open(f"{here}/{n}.png", "rb").read() for n in range(len(labels))]
write(here + "/theirs.tfrecord", *(
    {"image": bytes_of(image), "label": bytes_of(label.encode()), "path": bytes_of(b"%d.png" % n),
     "width": ints(60), "height": ints(20), "quality": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5]))}
    for n, (image, label) in enumerate(zip(crops, labels))))
pixels = cv2.resize(cv2.imread(here + "/0.png"), (100, 32))
write(here + "/old/train_1.tfrecords", {
    "labels": ints(*json.load(open(here + "/classes.json"))), "images": bytes_of(pixels.tobytes()),
    "imagepaths": bytes_of(b"/data/0.png")})
numpy.save(here + "/old.npy", pixels)

schema = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "path")}
schema |= {name: tf.io.FixedLenFeature([], tf.int64) for name in ("width", "height")}
shapes = []
for record in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(here + "/ours/*.tfrecord"))):
    row = tf.io.parse_single_example(record, schema)
    shape = tf.io.decode_png(row["image"]).shape
    shapes.append([row["label"].numpy().decode(), row["path"].numpy().decode(), int(row["width"]), int(row["height"]),
                   shape[1], shape[0], crops.index(row["image"].numpy())])
json.dump(shapes, open(here + "/read.json", "w"))
"""


def write_ours(folder: Path, shards: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        with ShardWriter(folder / f"train-{number:05d}-of-{shards:05d}.tfrecord") as shard:
            for i in range(number, len(LABELS), shards):
                shard.add(Sample(crop(i), LABELS[i], f"{i}.png"), 60, 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where TensorFlow has been at work."""
    here = tmp_path_factory.mktemp("tensorflow")
    write_ours(here / "ours")
    for i in range(len(LABELS)):
        (here / f"{i}.png").write_bytes(crop(i))
    (here / "labels.json").write_text(json.dumps(LABELS))
    (here / "old").mkdir()
    characters = "bac7"
    (here / "old" / "char_dict_en.json").write_text(json.dumps({f"{ord(c)}_ord": c for c in characters}))
    index = {f"{i}_index": str(ord(c)) for i, c in enumerate(characters)}
    order = {f"{ord(c)}_ord": str(i) for i, c in enumerate(characters)}
    (here / "old" / "ord_map_en.json").write_text(json.dumps(index | order))
    (here / "classes.json").write_text(json.dumps([characters.index(c) for c in "cab77"]))
    done = subprocess.run([sys.executable, "-c", TENSORFLOW, str(here)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return here


def test_tensorflow_reads_our_records(made: Path) -> None:
    read = json.loads((made / "read.json").read_text())
    assert sorted(read) == sorted([label, f"{i}.png", 60, 20, 60, 20, i] for i, label in enumerate(LABELS))


def test_we_read_what_tensorflow_wrote(made: Path) -> None:
    source = open_source(made / "theirs.tfrecord")
    assert [(source[i].image, source[i].label, source.path(i)) for i in range(len(source))] == [
        (crop(i), label, f"{i}.png") for i, label in enumerate(LABELS)
    ]
    payloads = [payload for _, payload in read_frames(made / "theirs.tfrecord")]
    assert decode_example(payloads[0])["quality"] == [0.5]


def test_we_read_the_old_projects_records_with_its_dictionaries(made: Path) -> None:
    source = open_source(made / "old")
    sample = source[0]
    assert (len(source), sample.label, source.path(0)) == (1, "cab77", "/data/0.png")
    pixels = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(pixels, np.load(made / "old.npy"))


def test_the_old_projects_records_without_its_dictionaries_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "train_1.tfrecords").write_bytes((made / "old" / "train_1.tfrecords").read_bytes())
    with pytest.raises(DataError, match=r"char_dict.*ord_map"):
        open_source(tmp_path / "a" / "b")


def test_any_record_is_reached_by_number_without_reading_the_others(tmp_path: Path) -> None:
    write_ours(tmp_path)
    source = open_source(tmp_path)
    order = list(range(len(LABELS))) * 3
    random.Random(0).shuffle(order)
    expected = [0, 2, 1, 3]  # two shards
    for i in order:
        assert (source[i].image, source[i].label) == (crop(expected[i]), LABELS[expected[i]])
    assert source[-1].label == LABELS[3]


def test_without_an_index_the_records_are_the_same(tmp_path: Path) -> None:
    write_ours(tmp_path)
    source = open_source(tmp_path)
    before = [(source[i], source.path(i)) for i in range(len(source))]
    for index in tmp_path.glob(f"*{INDEX_SUFFIX}"):
        index.write_bytes(b"PK damaged")
    source = open_source(tmp_path)
    assert [(source[i], source.path(i)) for i in range(len(source))] == before


def test_damage_is_named_with_shard_and_record(tmp_path: Path) -> None:
    write_ours(tmp_path, shards=1)
    shard = tmp_path / "train-00000-of-00001.tfrecord"
    whole = shard.read_bytes()
    bad = bytearray(whole)
    bad[whole.index(crop(2)) + 30] ^= 1
    shard.write_bytes(bad)
    source = open_source(tmp_path)
    assert source[1].label == "" and source[3].label == LABELS[3]
    with pytest.raises(DataError, match=r"train-00000-of-00001\.tfrecord is damaged at record 2"):
        source[2]
    shard.write_bytes(whole[:-5])  # the index no longer belongs to it
    with pytest.raises(DataError, match=r"train-00000-of-00001\.tfrecord is damaged at record 3"):
        open_source(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_ours(tmp_path, shards=3)
    (tmp_path / "train-00001-of-00003.tfrecord").unlink()
    with pytest.raises(DataError, match=r"2 of 3 shards.*train-00001-of-00003\.tfrecord is missing"):
        open_source(tmp_path)


def test_records_of_something_else_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "speech.tfrecord").write_bytes(frame(encode_example({"audio": b"...", "rate": 16000})))
    with pytest.raises(DataError, match="audio, rate"):
        open_source(tmp_path / "speech.tfrecord")
    (tmp_path / "noise.tfrecord").write_bytes(frame(b"\xff\xff\xff"))
    with pytest.raises(DataError, match=r"record 0 is not a tf\.train\.Example"):
        open_source(tmp_path / "noise.tfrecord")


features = st.dictionaries(
    st.text(max_size=8),
    st.lists(st.binary(max_size=300), min_size=1)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1),
)


@given(features)
def test_examples_survive_the_wire(example: dict[str, Feature]) -> None:
    assert decode_example(encode_example(example)) == example


@given(st.binary(max_size=80))
def test_noise_is_an_example_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_example(data)


def test_numbers_written_one_by_one_are_read_too() -> None:
    numbers = b"".join(struct.pack("<BB", 0x08, number) for number in (3, 4))  # unpacked, as old protobuf did
    feature = bytes([0x1A, len(numbers)]) + numbers
    entry = b"\x0a\x01n\x12" + bytes([len(feature)]) + feature
    body = b"\x0a" + bytes([len(entry)]) + entry
    assert decode_example(b"\x0a" + bytes([len(body)]) + body) == {"n": [3, 4]}
