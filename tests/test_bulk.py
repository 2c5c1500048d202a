"""Bulk reading: every image exactly once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from PIL import Image

import bars
from commands import crnn as run
from crnn import bulk, machine
from crnn.data.prepare import prepare
from crnn.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A folder of 60 numbers in two folders, and an image that is none."""
    folder = tmp_path_factory.mktemp("numbers")
    for number in range(60):
        file = folder / f"{number % 2}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(bars.draw(str(number))).save(file)
    (folder / "0" / "bad.png").write_bytes(b"not an image")
    return folder


def rows_of(output: Path) -> list[dict]:
    if output.suffix == ".parquet":
        return parquet.read_table(output).to_pylist()
    return [json.loads(line) for part in sorted(output.glob("part-*")) for line in part.open(encoding="utf-8")]


def check(rows: list[dict], count: int = 60) -> None:
    """Every number once, with its text."""
    read = [row for row in rows if row["error"] is None]
    assert sorted(int(Path(row["path"]).stem) for row in read) == list(range(count))
    assert all(row["text"] == Path(row["path"]).stem for row in read)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_becomes_a_table(bar_model, numbers, tmp_path, suffix, jobs):
    output = tmp_path / f"read{suffix}"
    done = bulk.read_all([numbers], output, model=str(bar_model), part=16, jobs=jobs)
    assert (done.images, done.read, done.parts, len(done.failures)) == (61, 61, 4, 1)
    rows = rows_of(output)
    check(rows)
    assert [row["error"] for row in rows if row["error"]] == done.failures
    assert "bad.png is not an image" in done.failures[0]
    assert not (output / ".prepare").exists()


def test_boxes_are_those_of_the_reader(bar_model, tmp_path):
    Image.fromarray(bars.draw("17")).save(tmp_path / "17.png")
    bulk.read_all([tmp_path / "17.png"], tmp_path / "out.parquet", model=str(bar_model), boxes=True)
    [row] = rows_of(tmp_path / "out.parquet")
    assert [(each["text"], each["box"]) for each in row["characters"]] == [
        ("1", [4, 0, 24, 32]),
        ("7", [24, 0, 44, 32]),
    ]


def test_globs_archives_records_and_urls(bar_model, numbers, tmp_path):
    (tmp_path / "labels").mkdir()
    for folder in ("0", "1"):
        for file in (numbers / folder).glob("?*.png"):
            if file.stem != "bad":
                (tmp_path / "labels" / file.name).write_bytes(file.read_bytes())
    labels = "".join(f"{number}.png\t{number}\n" for number in range(60))
    (tmp_path / "labels" / "labels.tsv").write_text(labels)
    prepare([tmp_path / "labels"], tmp_path / "records", shard_size=20, workers=1)
    subprocess.run([sys.executable, "-m", "zipfile", "-c", tmp_path / "all.zip", tmp_path / "labels"], check=True)
    for number, source in enumerate([
        str(tmp_path / "labels" / "*.png"), tmp_path / "records", tmp_path / "all.zip", f"file://{tmp_path}/labels",
    ]):  # fmt: skip
        output = tmp_path / f"{number}.jsonl"
        assert bulk.read_all([source], output, model=str(bar_model)).failures == []
        check(rows_of(output))


def test_the_same_again_reads_nothing_twice(bar_model, numbers, tmp_path):
    output = tmp_path / "read.jsonl"
    bulk.read_all([numbers], output, model=str(bar_model), part=16)
    (output / "part-00002.jsonl").unlink()
    before = {part: part.stat().st_mtime_ns for part in output.glob("part-*")}
    again = bulk.read_all([numbers], output, model=str(bar_model), part=16)
    assert (again.images, again.read) == (61, 16)
    assert all(part.stat().st_mtime_ns == when for part, when in before.items())
    check(rows_of(output))


@pytest.mark.parametrize("change", [{"part": 8}, {"boxes": True}, {"allow": "01"}, {"model": "en"}])
def test_other_work_is_not_mixed_in(bar_model, numbers, tmp_path, change):
    output = tmp_path / "read.jsonl"
    options = {"model": str(bar_model), "part": 16}
    bulk.read_all([numbers / "1"], output, **options)
    with pytest.raises(DataError, match="with another model or other options"):
        bulk.read_all([numbers / "1"], output, **(options | change))


def test_a_folder_of_something_else_is_left_alone(bar_model, numbers, tmp_path):
    output = tmp_path / "mine.jsonl"
    output.mkdir()
    (output / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        bulk.read_all([numbers], output, model=str(bar_model))
    assert os.listdir(output) == ["diary.txt"]


def test_killed_and_continued_has_every_image_once(bar_model, tmp_path):
    for number in range(600):
        Image.fromarray(bars.draw(str(number))).save(tmp_path / f"{number}.png")
    output = tmp_path / "read.parquet"
    options = {"part": 10, "model": str(bar_model)}
    script = f"from crnn import bulk; bulk.read_all([{str(tmp_path)!r} + '/*.png'], {str(output)!r}, **{options})"
    process = subprocess.Popen([sys.executable, "-c", script])
    while len(list(output.glob("part-*"))) < 3:
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(output.glob("part-*")))
    assert there < 60
    again = bulk.read_all([f"{tmp_path}/*.png"], output, **options)
    assert again.read <= 600 - 30
    check(rows_of(output), 600)


def test_memory_does_not_grow_with_the_images(bar_model, tmp_path):
    image = tmp_path / "7.png"
    Image.fromarray(bars.draw("7" * 20)).save(image)
    (tmp_path / "links").mkdir()
    for number in range(3000):
        os.link(image, tmp_path / "links" / f"{number}.png")
    seen = []

    def progress(what, done, total):
        seen.append(machine.resident())

    bulk.read_all([tmp_path / "links"], tmp_path / "out.jsonl", model=str(bar_model), part=250, progress=progress)
    assert len(seen) == 12
    assert seen[-1] - seen[3] < 30e6


@pytest.mark.parametrize(
    ("sources", "output", "error", "said"),
    [
        ("numbers", "out.csv", ConfigError, r"must end in .parquet or .jsonl"),
        ("nothing", "out.jsonl", DataError, "nothing"),
        ("empty", "out.jsonl", DataError, "empty"),
    ],
)
def test_what_cannot_be_read_in_bulk_is_refused(bar_model, tmp_path, sources, output, error, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=said):
        bulk.read_all([tmp_path / sources], tmp_path / output, model=str(bar_model))
    assert not (tmp_path / output).exists()


def test_the_command_names_what_failed(bar_model, numbers, tmp_path):
    output = tmp_path / "read.parquet"
    done = run("read", "--model", str(bar_model), "--output", str(output), str(numbers / "0"))
    assert (done.returncode, done.stdout) == (
        1, f"{output}: 31 images in 1 parts, 31 read now, 1 of them unreadable\n",
    )  # fmt: skip
    assert "bad.png is not an image" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    refused = run("read", "--jobs", "2", str(numbers))
    assert refused.returncode == 2
    assert "--output" in refused.stderr


# A process of its own: Ray takes over signals and leaves threads behind.
ON_A_CLUSTER = r"""
import json, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from crnn import bulk

images, output, model, answer = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 128 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
lost = []
try:
    second = cluster.add_node(**node)

    def lose_one():  # as soon as both nodes have work
        while len(list(Path(output).glob("part-*"))) < 4:
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        lost.append(len(list(Path(output).glob("part-*"))))

    thread = threading.Thread(target=lose_one)
    thread.start()
    done = bulk.read_all([images], output, model=model, part=5, ray=cluster.address, jobs=2)
    thread.join()
finally:
    ray.shutdown()
    cluster.shutdown()
json.dump({"images": done.images, "read": done.read, "lost_at": lost[0], "parts": done.parts}, open(answer, "w"))
"""


def test_a_lost_node_of_a_cluster_costs_nothing(bar_model, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(300):
        Image.fromarray(bars.draw(str(number))).save(tmp_path / "in" / f"{number}.png")
    output, answer = tmp_path / "out.parquet", tmp_path / "answer.json"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    command = [sys.executable, "-c", ON_A_CLUSTER, str(tmp_path / "in"), str(output), str(bar_model), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(answer.read_text())
    assert (found["images"], found["read"], found["parts"]) == (300, 300, 60)
    assert found["lost_at"] < 60, "the node was lost when all was done"
    check(rows_of(output), 300)


def test_images_that_come_between_two_calls_are_read_by_the_second(tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for number in (1, 2):
        Image.fromarray(bars.draw(str(number))).save(folder / f"{number}.png")
        assert bulk.read_all([folder], tmp_path / f"{number}.jsonl").images == number


def test_images_that_come_while_others_are_read_are_told(tmp_path, numbers):
    folder = tmp_path / "some"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(bars.draw(str(number))).save(folder / f"{number}.png")

    def arrives(*_):
        Image.fromarray(bars.draw("0")).save(folder / "00.png")
        bulk._open.cache_clear()  # as another process sees it

    with pytest.raises(DataError, match="images came or went"):
        bulk.read_all([folder], tmp_path / "out.jsonl", part=2, progress=arrives)
