import os
import subprocess
import sys
from pathlib import Path

import openvino
import pytest

import bars
import crnn
from crnn import usercache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a user who has read nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crnn"


@pytest.fixture
def no_compiling(monkeypatch):
    def refuse(*_):
        raise AssertionError("a network that was kept is compiled again")

    monkeypatch.setattr(openvino.Core, "compile_model", refuse)


def read(model):
    return crnn.load(model).read(bars.draw("271828"))


def test_a_model_that_was_read_with_before_is_not_compiled_again(bar_model, cache, request):
    first = read(bar_model)
    assert len(list(cache.glob("*.network"))) == 1
    request.getfixturevalue("no_compiling")
    assert read(bar_model) == first
    assert first.text == "271828"


def test_another_model_of_the_same_name_is_compiled(tmp_path, cache):
    assert read(bars.write_model(tmp_path / "m")).text == "271828"
    assert read(bars.write_model(tmp_path / "m", charset="abcdefghij")).text == "chbici"
    assert len(list(cache.glob("*.network"))) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-1] + b"?"]
)
def test_a_damaged_file_is_made_anew(bar_model, cache, damage):
    first = read(bar_model)
    (kept,) = cache.glob("*.network")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert usercache.read(kept.name) is None
    assert read(bar_model) == first
    assert usercache.read(kept.name) is not None


def test_what_is_whole_but_no_network_is_compiled_anew(bar_model, cache):
    first = read(bar_model)
    (kept,) = cache.glob("*.network")
    usercache.write(kept.name, b"no network", at_most=9)
    assert read(bar_model) == first
    assert usercache.read(kept.name) != b"no network"


def test_where_nothing_can_be_kept_it_is_read_all_the_same(bar_model, cache):
    cache.parent.write_text("a file, where the folder would be")
    assert read(bar_model).text == "271828"


def test_the_oldest_are_dropped(cache):
    for number in range(5):
        usercache.write(f"{number}.network", b"%d" % number, at_most=3)
        os.utime(cache / f"{number}.network", (number, number))
    usercache.write("one.faces", b"other", at_most=3)
    assert [usercache.read(f"{number}.network") for number in range(5)] == [None, None, b"2", b"3", b"4"]
    assert sorted(file.name for file in cache.iterdir()) == ["2.network", "3.network", "4.network", "one.faces"]


def test_openvino_is_whole_for_who_uses_it_beside_crnn(bar_model, tmp_path):
    code = (
        "import crnn, openvino, sys\n"
        f"assert crnn.load({str(bar_model)!r}).card\n"
        "assert callable(openvino.convert_model)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
