"""What goes in comes out, once, in the same bytes however often it was interrupted; what does not is listed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.charset import ENGLISH, Charset
from crnn.data.check import check
from crnn.data.labels import split_of
from crnn.data.prepare import prepare
from crnn.data.sources import Source, open_source
from crnn.errors import ConfigError, DataError
from crops import crop, write_folder

WORDS = ["alpha", "Beta 2", "二三", "x"]


def contents(folder: Path, split: str | None = None) -> dict[str, tuple[str, bytes]]:
    source: Source = open_source(folder, split=split)
    return {source.path(i): (source[i].label, source[i].image) for i in range(len(source))}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_records_hold_the_same_images_and_labels(tmp_path: Path) -> None:
    crops = write_folder(tmp_path / "in", WORDS)
    summary = prepare([tmp_path / "in"], tmp_path / "out")
    assert contents(tmp_path / "out") == {path: (label, crops[path]) for path, label in zip(crops, WORDS, strict=True)}
    assert (summary.samples, summary.splits, summary.rejected) == (4, {"all": 4}, {})
    assert sorted(files(tmp_path / "out")) == [
        "all-00000-of-00001.tfrecord", "all-00000-of-00001.tfrecord.index.npz", "dataset.json", "rejected.tsv",
    ]  # fmt: skip


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [f"word{i}" for i in range(60)])
    for workers in (1, 3):
        prepare([tmp_path / "in"], tmp_path / f"out{workers}", split="80/10/10", shard_size=7, workers=workers)
    assert files(tmp_path / "out1") == files(tmp_path / "out3")


def test_splits_by_hash_or_as_the_source_has_them(tmp_path: Path) -> None:
    crops = write_folder(tmp_path / "in", [f"word{i}" for i in range(100)])
    summary = prepare([tmp_path / "in"], tmp_path / "hashed", split="60/20/20")
    for split in ("train", "valid", "test"):
        paths = contents(tmp_path / "hashed", split)
        assert set(paths) == {path for path in crops if split_of(path, 60, 20, 20) == split}
        assert summary.splits[split] == len(paths) > 5
    prepare([tmp_path / "hashed"], tmp_path / "again")
    assert contents(tmp_path / "again", "valid") == contents(tmp_path / "hashed", "valid")


def test_several_sources_are_told_apart_by_their_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", ["a"])
    write_folder(tmp_path / "two" / "test", ["b"])
    (tmp_path / "two" / "test" / "images" / "0.png").write_bytes(crop(9))
    prepare([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert contents(tmp_path / "out") == {
        "one/images/0.png": ("a", crop(0)), "two/test/images/0.png": ("b", crop(9)),
    }  # fmt: skip
    assert list(contents(tmp_path / "out", "test")) == ["two/test/images/0.png"]


def test_height_scales_down_what_is_higher_and_leaves_the_rest(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["high", "low", "jpeg"])
    (tmp_path / "in" / "images" / "0.png").write_bytes(crop(0, 200, 64))
    (tmp_path / "in" / "images" / "2.png").write_bytes(crop(2, 200, 64, ".jpg"))
    prepare([tmp_path / "in"], tmp_path / "out", height=32)
    found = contents(tmp_path / "out")
    sizes = [cv2.imdecode(np.frombuffer(found[f"images/{i}.png"][1], np.uint8), 1).shape[:2] for i in range(3)]
    assert sizes == [(32, 100), (20, 60), (32, 100)]
    assert found["images/1.png"][1] == crop(1) and found["images/2.png"][1][:2] == b"\xff\xd8"
    assert open_source(tmp_path / "out").size(0) == (100, 32)  # type: ignore[attr-defined]


def seeded(folder: Path) -> dict[str, str]:
    """1,000 crops, 40 of them with a fault: path (or line) → reason."""
    labels = [f"Word {i}" for i in range(1000)]
    faults: dict[str, str] = {}
    places = iter(random.Random(1).sample(range(10, 1000), 40))

    def mark(reason: str, *numbers: int) -> None:
        faults.update({f"images/{number}.png": reason for number in numbers})

    def some(count: int) -> list[int]:
        return [next(places) for _ in range(count)]

    for reason, count, label in (
        ("empty label", 4, ""),
        ("character not in charset", 4, "na\u00efve"),
        ("label too long", 4, "x" * 60),
        ("invisible character in label", 3, "\ufeffbom"),
        ("line break in label", 3, "crlf\r"),
    ):
        for number in some(count):
            labels[number] = label
            mark(reason, number)
    duplicates = some(4)
    for number in duplicates:
        labels[number] = labels[number % 10]
    crops = write_folder(folder, labels)
    for number in duplicates:
        (folder / "images" / f"{number}.png").write_bytes(crops[f"images/{number % 10}.png"])
    mark("duplicate", *duplicates)
    for reason, count, image in (
        ("damaged image", 3, crop(5)[:100]),
        ("damaged image", 3, crop(5, kind=".jpg")[:-300]),
        ("empty image", 4, b""),
        ("not an image", 4, b"GIF? no, plain text"),
        ("missing image", 2, None),
    ):
        numbers = some(count)
        mark(reason, *numbers)
        for number in numbers:
            path = folder / "images" / f"{number}.png"
            path.write_bytes(image) if image is not None else path.unlink()
    lines = (folder / "labels.tsv").read_bytes().split(b"\n")[:-1]
    for number, fault, reason in zip(some(2), (lambda line: line.replace(b"\t", b" "), lambda line: line + b"\xe9"),
                                     ("no label", "not UTF-8"), strict=True):  # fmt: skip
        lines[number] = fault(lines[number])
        faults[f"labels.tsv:{number + 1}"] = reason
    # What is no fault: a byte order mark at the start, Windows line ends.
    (folder / "labels.tsv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    assert len(faults) == 40 and next(places, None) is None
    return faults


def test_forty_faults_in_a_thousand_crops_are_all_found_and_nothing_else(tmp_path: Path) -> None:
    faults = seeded(tmp_path / "in")
    charset = Charset(ENGLISH)
    with pytest.raises(DataError, match=r"40 of 1000 samples \(4\.0%\).*rejected\.tsv, the rest \(960\) is prepared"):
        prepare([tmp_path / "in"], tmp_path / "out", charset=charset)
    rows = [line.split("\t") for line in (tmp_path / "out" / "rejected.tsv").read_text(encoding="utf-8").splitlines()]
    assert {path: reason for path, reason, _ in rows[1:]} == faults and len(rows) == 41
    kept = contents(tmp_path / "out")
    assert len(kept) == 960 and not set(kept) & set(faults)
    assert kept["images/0.png"] == ("Word 0", crop(0))
    summary = prepare([tmp_path / "in"], tmp_path / "out", charset=charset, max_rejected=0.05)  # the same work: done
    assert (summary.samples, summary.rejected) == (960, Counter(faults.values()))
    report = check([tmp_path / "in"], charset=charset)
    assert {finding.reason: finding.count for finding in report.unfit} == Counter(faults.values())


def test_killed_and_run_again_it_gives_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [f"word{i}" for i in range(240)])
    script = "from crnn.data.prepare import prepare; prepare([{!r}], {!r}, shard_size=4, workers=2)"
    command = [sys.executable, "-c", script.format(str(tmp_path / "in"), str(tmp_path / "killed"))]
    process = subprocess.Popen(command, start_new_session=True)
    for _ in range(4000):
        time.sleep(0.005)
        if len(list((tmp_path / "killed").glob("*.tfrecord"))) > 10:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(400):  # its workers notice and end
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("workers outlived the killed prepare")
    assert 10 < len(list((tmp_path / "killed").glob("*.tfrecord"))) < 60
    subprocess.run(command, check=True)
    prepare([tmp_path / "in"], tmp_path / "whole", shard_size=4, workers=1)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", WORDS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        prepare([tmp_path / "in"], tmp_path / "out")
    assert files(tmp_path / "out") == {"thesis.txt": b"mine"}
    prepare([tmp_path / "in"], tmp_path / "other")
    with pytest.raises(DataError, match="other options"):
        prepare([tmp_path / "in"], tmp_path / "other", height=16)


def test_images_that_change_meanwhile_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "in", WORDS)
    monkeypatch.setattr("crnn.data.prepare._shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # interrupted between the passes
        prepare([tmp_path / "in"], tmp_path / "out")
    monkeypatch.undo()
    (tmp_path / "in" / "images" / "2.png").write_bytes(crop(77))
    with pytest.raises(DataError, match=r"images/2\.png changed"):
        prepare([tmp_path / "in"], tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").glob("*.tfrecord"))


def test_a_deleted_shard_is_written_again(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", WORDS)
    prepare([tmp_path / "in"], tmp_path / "out", shard_size=1)
    before = files(tmp_path / "out")
    (tmp_path / "out" / "all-00002-of-00004.tfrecord").unlink()
    prepare([tmp_path / "in"], tmp_path / "out", shard_size=1)
    assert files(tmp_path / "out") == before


def test_equal_images_are_kept_when_asked(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["a", "a"])
    (tmp_path / "in" / "images" / "1.png").write_bytes(crop(0))
    with pytest.raises(DataError, match="1 duplicate"):
        prepare([tmp_path / "in"], tmp_path / "out")
    assert prepare([tmp_path / "in"], tmp_path / "both", duplicates=True).samples == 2


def test_a_place_behind_a_url_takes_the_records(tmp_path: Path) -> None:
    import fsspec

    crops = write_folder(tmp_path / "in", WORDS)
    prepare([tmp_path / "in"], tmp_path / "local")
    memory = fsspec.filesystem("memory")
    try:
        prepare([tmp_path / "in"], "memory://bucket/out", workers=1)
        assert {path.rsplit("/", 1)[1]: memory.cat(path) for path in memory.ls("/bucket/out", detail=False)} == files(
            tmp_path / "local"
        )
        source = open_source("memory://bucket/out")
        assert {source.path(i): source[i].image for i in range(len(source))} == crops
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    "options", [{"split": "90"}, {"split": "a/b"}, {"split": "0/0"}, {"height": 0}, {"max_rejected": 2}]
)
def test_impossible_options_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    write_folder(tmp_path / "in", WORDS)
    with pytest.raises(ConfigError):
        prepare([tmp_path / "in"], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "in", WORDS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crnn.data.records.Index.save", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device; the same command goes on"):
        prepare([tmp_path / "in"], tmp_path / "out", workers=1)
    monkeypatch.undo()
    prepare([tmp_path / "in"], tmp_path / "out", workers=1)
    prepare([tmp_path / "in"], tmp_path / "whole", workers=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
