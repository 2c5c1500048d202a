"""The command line as a person or a script meets it: a process, its two streams, its exit status."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bars
import pages
from commands import crnn

EXAMPLES = Path(__file__).parent.parent / "examples"
CHARSETS = EXAMPLES / "charsets"


@pytest.fixture
def folder(tmp_path):
    """number/12.png, number/deep/345.jpg and notes.txt."""
    (tmp_path / "number" / "deep").mkdir(parents=True)
    Image.fromarray(bars.draw("12")).save(tmp_path / "number" / "12.png")
    Image.fromarray(bars.draw("345")).save(tmp_path / "number" / "deep" / "345.jpg", quality=95)
    (tmp_path / "number" / "notes.txt").write_text("not an image")
    return tmp_path / "number"


def test_one_image_is_its_text(bar_model, folder):
    done = crnn("read", folder / "12.png", "--model", bar_model)
    assert (done.stdout, done.stderr, done.returncode) == ("12\n", "", 0)


def test_chinese_that_the_english_model_hardly_reads_is_recognised_as_such():
    chinese, word = (crnn("read", EXAMPLES / name) for name in ("test_04.jpg", "test_02.jpg"))
    assert chinese.stderr == "crnn: 1 of 1 images are hardly read and look Chinese: add --model zh\n"
    assert chinese.returncode == 0
    assert word.stderr == ""


def test_letters_that_the_english_model_does_not_know_are_named(tmp_path):
    for number, text in enumerate(("Größe", "Łódź", "in the meantime")):
        page = pages.blank(30 * len(text), 60)
        pages.write(page, text, (10, 44), 36, pages.DEJAVU)
        Image.fromarray(page.pixels).save(tmp_path / f"{number}.png")
    done = crnn("read", tmp_path)
    assert done.returncode == 0
    said = re.fullmatch("crnn: en does not know (.+), which seem to be there: add --model latin\n", done.stderr)
    assert {"ß", "Ł"} <= set(said[1].split()) <= set("ößŁóź")
    assert crnn("read", tmp_path / "2.png").stderr == crnn("read", tmp_path, "--model", "latin").stderr == ""


def test_a_page_is_still_read_as_one_line_and_the_way_to_read_it_is_named(bar_model, tmp_path):
    page = EXAMPLES / "test_pdf.png"
    done = crnn("read", page, "--model", bar_model)
    assert done.stderr == f"crnn: {page} has 12 lines or more, and read takes one: crnn read-page reads them all\n"
    assert done.returncode == 0
    word = tmp_path / "word.png"
    Image.open(EXAMPLES / "test_02.jpg").resize((256, 256)).save(word)
    assert crnn("read", word).stderr == ""


def test_pages_of_a_tiff_that_are_not_read_are_named(bar_model, tmp_path):
    scans = [tmp_path / "a.tif", tmp_path / "b.tiff"]
    first, second = (Image.fromarray(pages.sign(text, 20, True).pixels) for text in ("ONE", "TWO"))
    for path in scans:
        first.save(path, save_all=True, append_images=[second, second])
    said = f"crnn: {scans[0]} has 3 pages{{}}, and read takes the first: crnn read-page reads them all\n"
    assert crnn("read", scans[0], "--model", bar_model).stderr == said.format("")
    assert crnn("read", tmp_path, "--model", bar_model).stderr == said.format(" (and 1 more such file)")
    first.save(tmp_path / "a.tif")
    (tmp_path / "b.tiff").unlink()
    assert crnn("read", tmp_path, "--model", bar_model).stderr == ""


def test_two_lines_of_a_sign_are_told_from_a_word(tmp_path):
    sign = tmp_path / "sign.png"
    Image.fromarray(pages.sign("OPEN\nDAILY", 20, True).pixels).save(sign)
    done = crnn("read", sign)
    assert done.stderr == f"crnn: {sign} has 2 lines or more, and read takes one: crnn read-page reads them all\n"
    Image.fromarray(pages.sign("OPEN DAILY", 20, True).pixels).save(sign)
    done = crnn("read", sign)
    assert (done.stdout, done.stderr) == ("OPEN DAILY\n", "")


def test_directory_is_path_and_text_a_line(bar_model, folder):
    done = crnn("read", folder, "--model", bar_model)
    assert done.stdout == f"{folder / '12.png'}\t12\n{folder / 'deep' / '345.jpg'}\t345\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_output_is_utf_8_whatever_the_locale(bar_model, tmp_path):
    path = tmp_path / "数.png"
    Image.fromarray(bars.draw("1")).save(path)
    done = crnn("read", path, "--json", "-m", bar_model, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (json.loads(done.stdout)["path"], done.returncode) == (str(path), 0)


def test_json_is_one_object_a_line(bar_model, folder):
    done = crnn("read", folder, "-m", bar_model, "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["path"], first["text"]) == (str(folder / "12.png"), "12")
    assert second["characters"][2]["text"] == "5"
    assert second["characters"][2]["box"] == [44, 0, 64, 32]
    assert 0.9 < second["confidence"] <= 1


def test_bad_images_are_named_and_the_rest_is_read(bar_model, folder, tmp_path):
    text, zero, cut = tmp_path / "text.png", tmp_path / "zero.jpg", tmp_path / "cut.jpg"
    text.write_text("hello")
    zero.write_bytes(b"")
    cut.write_bytes((folder / "deep" / "345.jpg").read_bytes()[:-300])
    bare = tmp_path / "bare"
    bare.mkdir()
    missing = tmp_path / "missing.png"
    done = crnn("read", text, zero, cut, missing, bare, folder / "12.png", "-m", bar_model)
    assert done.stdout == f"{folder / '12.png'}\t12\n"
    assert done.returncode == 1
    complaints = done.stderr.splitlines()
    assert len(complaints) == 5
    assert all(line.startswith("crnn: ") for line in complaints)
    for path in (text, zero, cut, missing, bare):
        assert sum(line.startswith(f"crnn: {path} ") for line in complaints) == 1


def test_decoders_own_complaints_do_not_show(bar_model, tmp_path):
    pixels = Image.fromarray(bars.draw("7"))
    odd = tmp_path / "odd.png"
    pixels.save(odd, icc_profile=b"bogus" * 10)
    done = crnn("read", odd, "-m", bar_model)
    assert (done.stdout, done.stderr, done.returncode) == ("7\n", "", 0)


def test_min_confidence_leaves_out_what_is_doubtful(bar_model, tmp_path):
    between = round((bars.LEVELS[1:3].mean() + 1) * 127.5)  # as likely a 0 as a 1
    Image.fromarray(np.full((32, 12, 3), between, np.uint8)).save(tmp_path / "doubtful.png")
    Image.fromarray(bars.draw("3")).save(tmp_path / "sure.png")
    assert len(crnn("read", tmp_path, "-m", bar_model).stdout.splitlines()) == 2
    done = crnn("read", tmp_path, "-m", bar_model, "--min-confidence", 0.9)
    assert done.stdout == f"{tmp_path / 'sure.png'}\t3\n"
    assert done.returncode == 0


@pytest.mark.parametrize("model", ["klingon", "folder", "file.onnx"])
def test_unreadable_model_is_one_sentence(tmp_path, folder, model):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.onnx").write_text("hello")
    done = crnn("read", folder, "-m", model, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("crnn: ")
    assert len(done.stderr.splitlines()) == 1
    assert model in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "read",
        "read x.png --speed",
        "read x.png --engine abacus",
        "read x.png --min-confidence 2",
        "charset diff a",
        "fly",
    ],
)
def test_wrong_usage_is_exit_2(arguments):
    done = crnn(*arguments.split())
    assert (done.stdout, done.returncode) == ("", 2)
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version():
    assert "read" in crnn("--help").stdout
    done = crnn("--version")
    assert (done.stdout.split()[0], done.returncode) == ("crnn", 0)


def test_interrupt_is_quiet(bar_model, tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "crnn", "read", str(pipe), "-m", str(bar_model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    with pipe.open("wb"):  # opens once the process reads, which then waits for bytes that never come
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (stdout, stderr, process.returncode) == ("", "", 130)


def test_models_lists_what_is_bundled():
    done = crnn("models", "--json")
    assert done.returncode == 0
    listed = crnn("models")
    assert re.match(r"en\t.* MB\t95 characters\tiiit5k \d\d\.\d% \(raw \d\d\.\d%\)  svt ", listed.stdout)
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == len(json.loads(done.stdout))
    assert all(
        {"name", "megabytes", "characters", "scores", "sha256"} <= set(model) for model in json.loads(done.stdout)
    )


def test_charset_build_from_texts_pairs_and_labels(tmp_path, folder):
    text = tmp_path / "text.txt"
    text.write_text("hello\nworld\n")
    assert crnn("charset", "build", text).stdout == "".join(f"{c}\n" for c in "dehlorw")
    pair = [CHARSETS / "char_dict_en.json", CHARSETS / "ord_map_en.json"]
    done = crnn("charset", "build", *pair, "--output", tmp_path / "en.txt")
    assert done.returncode == 0
    assert (tmp_path / "en.txt").read_text().startswith("6\nx\nv\n")
    (folder / "labels.tsv").write_text("12.png\t12\ndeep/345.jpg\t3 45\n")
    assert crnn("charset", "build", folder).stdout == "".join(f"{c}\n" for c in " 12345")


def test_charset_show_and_diff(tmp_path, bar_model):
    other = tmp_path / "other.txt"
    other.write_text("10ab23456789")
    assert crnn("charset", "show", bar_model).stdout == f"10 characters\n{bars.DIGITS}\n"
    difference = json.loads(crnn("charset", "diff", bar_model, other, "--json").stdout)
    assert difference == {"added": "ab", "removed": "", "moved": "0123456789"}


def test_charset_file_that_is_none_is_named(tmp_path):
    done = crnn("charset", "show", tmp_path / "missing.txt")
    assert done.returncode == 1
    assert str(tmp_path / "missing.txt") in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_installed_command_is_this_one():
    script = shutil.which("crnn", path=str(Path(sys.executable).parent))
    assert script
    assert subprocess.run([script, "--version"], capture_output=True, check=True).stdout.startswith(b"crnn ")


def test_nothing_is_written_over_what_is_read(tmp_path):
    picture, text = tmp_path / "word.png", tmp_path / "text.txt"
    shutil.copy(EXAMPLES / "test_01.jpg", picture)
    text.write_text("one\ntwo\n")
    for command in (("read", picture, "--show", picture), ("language-model", text, "-o", text)):
        before = [file.read_bytes() for file in (picture, text)]
        result = crnn(*map(str, command))
        assert result.returncode == 2 and "would be written over" in result.stderr
        assert [file.read_bytes() for file in (picture, text)] == before


def test_options_that_a_table_cannot_take_are_refused(tmp_path):
    result = crnn("read", str(EXAMPLES / "test_01.jpg"), "-o", str(tmp_path / "t.jsonl"), "--min-confidence", "0.9")
    assert result.returncode == 2 and "leave out --show and --min-confidence" in result.stderr
