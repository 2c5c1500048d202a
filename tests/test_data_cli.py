"""``crnn prepare`` and ``crnn data`` as a person or a script meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import pages
from commands import crnn
from crnn.data.sources import FORMATS
from crops import write_folder


def test_prepare_tells_what_it_wrote_and_what_it_rejected(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["one", "", "three"])
    done = crnn("prepare", tmp_path / "in", tmp_path / "out", "--max-rejected", "0.5", "--json")
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == {"samples": 2, "splits": {"all": 2}, "shards": 1, "rejected": {"empty label": 1}}
    again = crnn("prepare", tmp_path / "in", tmp_path / "out")
    assert again.returncode == 1 and again.stdout == ""
    assert again.stderr.startswith("crnn: 1 of 3 samples (33.3%) were rejected") and again.stderr.count("\n") == 1


def test_check_exits_with_1_and_says_what_to_do(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["one", "naïve"])
    (tmp_path / "en.txt").write_text("abcdefghijklmnopqrstuvwxyz")
    good = crnn("data", "check", tmp_path / "in")
    assert (good.returncode, good.stderr) == (0, "") and "2 samples, 2 good" in good.stdout
    bad = crnn("data", "check", tmp_path / "in", "--charset", tmp_path / "en.txt", "--json")
    report = json.loads(bad.stdout)
    assert bad.returncode == 1 and report["unfit"][0]["reason"] == "character not in charset"


def test_check_takes_the_rules_of_a_model(bar_model: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["123", "abc"])
    done = crnn("data", "check", tmp_path / "in", "--charset", bar_model)
    assert "1 × character not in charset" in done.stdout and done.returncode == 1


def test_stats_and_preview(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["one", "two"])
    figures = json.loads(crnn("data", "stats", tmp_path / "in", "--json").stdout)
    assert (figures["samples"], figures["characters"]["o"]) == (2, 2)
    done = crnn("data", "preview", tmp_path / "in", "--output", tmp_path / "sheet.html")
    assert done.stdout == f"{tmp_path / 'sheet.html'}: 2 samples\n" and (tmp_path / "sheet.html").exists()


def test_charset_build_reads_labelled_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["ba", "é"])
    assert crnn("charset", "build", tmp_path / "in").stdout == "a\nb\né\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["prepare", "one"], 2, "OUT"),
        (["prepare", "in", "out", "--split", "x"], 2, "90/5/5"),
        (["prepare", "none", "out"], 1, "none does not exist"),
        (["data", "check", "none"], 1, "none does not exist"),
        (["data", "check", "in", "--format", "lmdb"], 1, "nothing of the format lmdb"),
        (["data", "check", "in", "--format", "csv"], 2, "csv"),
        (["data", "preview", "in", "-o", "no/such/folder.html"], 1, "cannot be written"),
        (["data", "check", "in", "--charset", "none"], 1, "none"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "in", ["one"])
    monkeypatch.chdir(tmp_path)
    done = crnn(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr and "Traceback" not in done.stderr


def test_the_command_knows_every_format(tmp_path: Path) -> None:
    done = crnn("prepare", "--help")
    assert all(name in done.stdout for name in FORMATS)


def test_ctrl_c_leaves_nothing_half_written_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [f"word{i}" for i in range(300)])
    command = [
        sys.executable,
        "-m",
        "crnn",
        "prepare",
        tmp_path / "in",
        tmp_path / "out",
        "--shard-size",
        "4",
        "--workers",
        "2",
    ]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list((tmp_path / "out").glob("*.tfrecord"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode not in (0, None) and "Traceback" not in stderr
    assert not list((tmp_path / "out" / ".prepare").glob("*.tfrecord"))
    assert crnn(*command[3:]).returncode == 0
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 75


def test_labels_that_a_model_surely_reads_otherwise(tmp_path: Path) -> None:
    def folder(name: str, labels: dict[str, str]) -> Path:
        (tmp_path / name).mkdir()
        for shown in labels:
            cv2.imwrite(str(tmp_path / name / f"{shown}.png"), pages.sign(shown, 24, True).pixels)
        lines = [f"{shown}.png\t{label}\n" for shown, label in labels.items()]
        (tmp_path / name / "labels.tsv").write_text("".join(lines), encoding="utf-8")
        return tmp_path / name

    capitals = folder(
        "capitals", {"Market": "MARKET", "Harbour": "HARBOUR", "Garden": "GARDNE", "OPEN DAILY": "OPENDAILY"}
    )
    done = crnn("data", "check", capitals, "--model", "en")
    assert "  1 × surely read otherwise — most such labels are wrong" in done.stdout
    assert "      Garden.png: 'GARDNE' is read 'Garden'\n" in done.stdout
    assert done.returncode == 0
    as_shown = folder("as_shown", {"Market": "MARKET", "Harbour": "Harbour", "Exit": ""})
    found = json.loads(crnn("data", "check", as_shown, "--model", "en", "--json").stdout)["odd"][0]
    assert (found["reason"], found["examples"]) == ("surely read otherwise", ["Market.png: 'MARKET' is read 'Market'"])
    assert "surely" not in crnn("data", "check", as_shown).stdout
