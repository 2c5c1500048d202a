"""Each layout is written the way its owners write it, and read back equal."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import pyarrow
import pyarrow.parquet
import pytest

from crnn.data.labels import Sample
from crnn.data.records import ShardWriter
from crnn.data.sources import Source, open_parts, open_source, own_part
from crnn.errors import ConfigError, DataError, LabelError
from crops import crop, write_crops, write_folder

LABELS = ["Stop", "one, two", "二 three"]
CROPS = [crop(number) for number in range(3)]


def contents(source: Source) -> list[tuple[str, bytes]]:
    """(label, image) of every sample, after checking that the source is consistent and can be sent to a process."""
    source = pickle.loads(pickle.dumps(source))
    samples = [source[i] for i in range(len(source))]
    assert [source.label(i) for i in range(len(source))] == [sample.label for sample in samples]
    assert len({source.path(i) for i in range(len(source))}) == len(source)
    with pytest.raises(IndexError):
        source[len(source)]
    return [(sample.label, sample.image) for sample in samples]


def tsv(folder: Path) -> None:
    write_folder(folder, LABELS)


def csv_file(folder: Path) -> None:
    crops = write_crops(folder)
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("filename", "words"), *zip(crops, LABELS, strict=True)])


def jsonl(folder: Path) -> None:
    crops = write_crops(folder)
    rows = [json.dumps({"file_name": path, "text": label}) for path, label in zip(crops, LABELS, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


def icdar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, label in enumerate(LABELS):
        (folder / f"word_{number + 1}.png").write_bytes(CROPS[number])
        lines.append(f'word_{number + 1}.png, "{label}"\r\n')
    (folder / "gt.txt").write_text("".join(lines), encoding="utf-8-sig", newline="")


def icdar_download(folder: Path) -> None:
    icdar(folder)
    (folder / "gt.txt").rename(folder / "Challenge2_Test_Task3_GT.txt")
    (folder / "readme.txt").write_text("Read me, please\n")


def paddle(folder: Path) -> None:
    crops = write_crops(folder / "rec")
    lines = [f"rec/{path}\t{label}\n" for path, label in zip(crops, LABELS, strict=True)]
    (folder / "rec" / "rec_gt_train.txt").write_text("".join(lines), encoding="utf-8")


def windows_paths(folder: Path) -> None:
    crops = write_crops(folder)
    lines = ["{}\t{}\r\n".format(path.replace("/", "\\"), label) for path, label in zip(crops, LABELS, strict=True)]
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-16", newline="")


def pairs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(LABELS):
        (folder / f"line.{number}.png").write_bytes(CROPS[number])
        (folder / f"line.{number}.gt.txt").write_text(label + "\n", encoding="utf-8")


def named(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(LABELS):
        (folder / f"{label}_{number}.png").write_bytes(CROPS[number])


def mjsynth(folder: Path) -> None:
    at = folder / "mnt" / "ramdisk" / "max" / "90kDICT32px"
    lines = []
    for number, label in enumerate(LABELS):
        name = f"./2425/1/{number}_{label.upper()}_{number + 1}.png"
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(CROPS[number])
        lines.append(f"{name} {number + 1}\n")
    (at / "annotation_train.txt").write_text("".join(lines), encoding="utf-8")
    (at / "annotation.txt").write_text("".join(lines), encoding="utf-8")
    (at / "lexicon.txt").write_text("\n".join(["zero", *LABELS]), encoding="utf-8")


def lmdb_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        for number, label in enumerate(LABELS, 1):
            transaction.put(f"image-{number:09d}".encode(), CROPS[number - 1])
            transaction.put(f"label-{number:09d}".encode(), label.encode())
        transaction.put(b"num-samples", b"3")


def parquet(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    rows = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(CROPS)]
    table = pyarrow.table({"image": rows, "text": LABELS})
    pyarrow.parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet", row_group_size=2)


def records(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, some in enumerate([slice(0, 2), slice(2, 3)]):
        with ShardWriter(folder / f"words-{number:05d}-of-00002.tfrecord") as shard:
            for label, data in zip(LABELS[some], CROPS[some], strict=True):
                shard.add(Sample(data, label, f"{label}.png"), 60, 20)


KINDS: list[Callable[[Path], None]] = [
    tsv, csv_file, jsonl, icdar, icdar_download, paddle, windows_paths, pairs, named, mjsynth, lmdb_folder, parquet,
    records,
]  # fmt: skip


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("pack", ["", "zip", "tar", "gztar"])
def test_every_layout_is_recognised_also_in_an_archive(
    write: Callable[[Path], None], pack: str, tmp_path: Path
) -> None:
    write(tmp_path / "words")
    path = tmp_path / "words"
    if pack:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), pack, tmp_path, "words"))
        shutil.rmtree(tmp_path / "words")
    source = open_source(path)
    assert sorted(contents(source)) == sorted(zip(LABELS, CROPS, strict=True))
    assert source.name == ("packed" if pack else "words")
    assert not source.rejected


def test_an_image_without_its_text_is_named(tmp_path: Path) -> None:
    pairs(tmp_path)
    (tmp_path / "line.1.gt.txt").unlink()
    source = open_source(tmp_path)
    assert [source.label(i) for i in range(len(source))] == [LABELS[0], LABELS[2]]
    assert [(bad.path, bad.reason) for bad in source.rejected] == [("line.1.png", "no label")]


def test_a_format_can_be_said_where_a_folder_could_be_two(tmp_path: Path) -> None:
    named(tmp_path)
    (tmp_path / "labels.tsv").write_text("Stop_0.png\tHalt\n")
    assert open_source(tmp_path).label(0) == "Halt"
    assert sorted(contents(open_source(tmp_path, format="names"))) == sorted(zip(LABELS, CROPS, strict=True))
    with pytest.raises(DataError, match="nothing of the format mjsynth"):
        open_source(tmp_path, format="mjsynth")
    with pytest.raises(ConfigError, match=r"no format 'msynth'.*mjsynth"):
        open_source(tmp_path, format="msynth")


def test_a_label_file_of_any_name_can_be_given_itself(tmp_path: Path) -> None:
    write_folder(tmp_path, LABELS)
    (tmp_path / "labels.tsv").rename(tmp_path / "my words.txt")
    assert contents(open_source(tmp_path / "my words.txt")) == list(zip(LABELS, CROPS, strict=True))


def test_a_source_behind_a_url_is_read_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    tsv(tmp_path / "words")
    lmdb_folder(tmp_path / "lmdb")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/bucket", recursive=True)
    try:
        assert contents(open_source("memory://bucket/words")) == list(zip(LABELS, CROPS, strict=True))
        assert contents(open_source("memory://bucket/lmdb")) == list(zip(LABELS, CROPS, strict=True))
        with pytest.raises(DataError, match=r"memory://bucket/none does not exist"):
            open_source("memory://bucket/none")
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_source_keeps_its_own_splits(tmp_path: Path) -> None:
    write_crops(tmp_path, 3)
    for number, split in enumerate(["train", "val", "test"]):
        (tmp_path / f"rec_gt_{split}.txt").write_text(f"images/{number}.png\t{split}\n")
    parts = {split: [part.label(i) for i in range(len(part))] for split, part in open_parts(tmp_path).items()}
    assert parts == {"train": ["train"], "valid": ["val"], "test": ["test"]}
    assert open_source(tmp_path, split="valid").label(0) == "val"
    assert len(open_source(tmp_path)) == 3


def test_folders_named_by_split_are_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", ["a", "b"])
    write_folder(tmp_path / "test", ["c"])
    assert {split: len(part) for split, part in open_parts(tmp_path).items()} == {"train": 2, "test": 1}


def test_a_source_without_a_valid_split_gives_a_tenth_by_path(tmp_path: Path) -> None:
    write_folder(tmp_path, ["x"] * 200)
    train, valid = (open_source(tmp_path, split=split) for split in ("train", "valid"))
    paths = [{part.path(i) for i in range(len(part))} for part in (train, valid)]
    assert len(paths[0] | paths[1]) == 200 and not paths[0] & paths[1]
    assert 8 <= len(valid) <= 32
    with pytest.raises(DataError, match="no 'test' split"):
        open_source(tmp_path, split="test")


def test_a_missing_image_costs_that_sample_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, LABELS)
    (tmp_path / "images" / "1.png").unlink()
    source = open_source(tmp_path)
    assert (len(source), source.label(1), source[2].label) == (3, LABELS[1], LABELS[2])
    with pytest.raises(DataError, match=r"images/1\.png does not exist"):
        source[1]


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    def refused(path: Path, *words: str) -> None:
        with pytest.raises(DataError) as caught:
            open_source(path)
        assert all(word in str(caught.value) for word in (str(path), *words)), str(caught.value)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "labels.tsv")
    write_crops(tmp_path / "numbered")
    refused(tmp_path / "numbered", "numbered", "labels.tsv")
    refused(tmp_path / "numbered" / "images" / "0.png", "one image")
    (tmp_path / "bad.tsv").write_text("no tab here\n")
    refused(tmp_path / "bad.tsv", "bad.tsv:1")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    refused(tmp_path / "bad.parquet", "not a readable Parquet")
    pyarrow.parquet.write_table(pyarrow.table({"number": [1]}), tmp_path / "other.parquet")
    refused(tmp_path / "other.parquet", "number", "image")
    (tmp_path / "mdb").mkdir()
    (tmp_path / "mdb" / "data.mdb").write_bytes(b"nonsense")
    refused(tmp_path / "mdb", "damaged LMDB")
    write_folder(tmp_path / "two", ["a"])
    shutil.copy(tmp_path / "two" / "labels.tsv", tmp_path / "two" / "first.tsv")
    (tmp_path / "two" / "labels.tsv").rename(tmp_path / "two" / "second.tsv")
    refused(tmp_path / "two", "first.tsv, second.tsv", "name one")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    tsv(tmp_path / "words")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for path in sorted((tmp_path / "words").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    data = bytearray((tmp_path / "w.zip").read_bytes())
    data[data.index(CROPS[1]) + 40] ^= 1
    (tmp_path / "w.zip").write_bytes(data)
    source = open_source(tmp_path / "w.zip")
    assert source[0].image == CROPS[0]
    with pytest.raises(DataError, match=r"w\.zip/words/images/1\.png cannot be unpacked"):
        source[1]
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        tar.add(tmp_path / "words", "words")
    whole = (tmp_path / "w.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.rindex(CROPS[0][-16:])])
    with pytest.raises(DataError, match=r"cut\.tar"):
        contents(open_source(tmp_path / "cut.tar"))


def test_an_lmdb_names_what_it_lacks(tmp_path: Path) -> None:
    lmdb_folder(tmp_path / "words")
    with lmdb.open(str(tmp_path / "words"), map_size=1 << 20) as env, env.begin(write=True) as transaction:
        transaction.delete(b"image-000000002")
        transaction.put(b"label-000000003", b"\xff")
    source = open_source(tmp_path / "words")
    with pytest.raises(DataError, match="image-000000002"):
        source[1]
    with pytest.raises(LabelError, match=r"label-000000003 is not UTF-8"):
        source.label(2)


def test_a_list_beside_one_for_validation_is_there_to_train_on(tmp_path):
    names = sorted(write_crops(tmp_path))
    (tmp_path / "words.txt").write_text("".join(f"{name}\ta\n" for name in names[:2]))
    (tmp_path / "val.txt").write_text(f"{names[2]}\tb\n")
    assert [len(open_source(tmp_path, split=split)) for split in ("train", "valid")] == [2, 1]
    assert own_part(tmp_path, "train") == "train"
    (tmp_path / "val.txt").unlink()
    assert own_part(tmp_path, "train") is None


def test_files_of_an_archive_are_found_whatever_their_names_start_from(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("/data/1.png", CROPS[0])
        archive.writestr("/data/labels.tsv", "1.png\tStop\n")
    assert contents(open_source(tmp_path / "a.zip")) == [("Stop", CROPS[0])]
