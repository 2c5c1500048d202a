"""Documents of many pages, folders of documents, and everything that may be wrong with them."""

import io
import json
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pikepdf
import pytest
from PIL import Image

import bars
import pages
from commands import crnn as run
from crnn.errors import ConfigError, PageError
from crnn.page import batch
from crnn.page.pdf import Pdf
from crnn.page.reader import PageReader
from crnn.page.tiff import Tiff


def sheet(text):
    """A small page with one line that the bar reader reads."""
    pixels = np.full((160, 420, 3), 255, np.uint8)
    pixels[60:92, 20 : 20 + bars.draw(text).shape[1]] = bars.draw(text)
    return Image.fromarray(pixels)


def document(path, texts, kind="PDF", **options):
    first, *rest = map(sheet, texts)
    first.save(path, kind, save_all=True, append_images=rest, **options)
    return path


@pytest.fixture
def ten(tmp_path):
    """A PDF of ten pages."""
    return document(tmp_path / "ten.pdf", [str(k) * 5 for k in range(10)], resolution=72)


def reader(model, **options):
    return PageReader(model, dpi=72, **options)


def test_pages_of_a_pdf_are_read_in_order(bar_model, ten):
    found = reader(bar_model).read(ten)
    assert [page.number for page in found.pages] == list(range(1, 11))
    assert len(found.text.split("\f")) == 10


def test_some_pages_of_a_pdf(bar_model, ten):
    found = reader(bar_model).read(ten, batch.parse_pages("2-3,9,3"))
    assert [page.number for page in found.pages] == [2, 3, 9]
    with pytest.raises(PageError, match="no page 11: it has 10"):
        reader(bar_model).read(ten, [11])


@pytest.mark.parametrize("text", ["", "0", "3-1", "a", "1,,2", "1-", "1-20000000"])
def test_pages_that_make_no_sense(text):
    with pytest.raises(ConfigError, match="give numbers and ranges"):
        batch.parse_pages(text)


def test_one_corrupt_page_among_ten(bar_model, ten, tmp_path):
    broken = tmp_path / "broken.pdf"
    with pikepdf.open(ten) as pdf:
        pdf.Root.Pages.Kids[4] = pdf.make_indirect(pikepdf.Dictionary(Type=pikepdf.Name.Broken))
        pdf.save(broken)
    done = run("read-page", broken, "-m", bar_model, "-f", "json", "--dpi", 72)
    written = json.loads(done.stdout)
    assert [page["number"] for page in written["pages"]] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert f"{broken}: page 5 is damaged and cannot be drawn" in written["problems"][0]
    assert f"crnn: {broken}: page 5 is damaged and cannot be drawn" in done.stderr
    assert done.returncode == 1


def test_pages_of_a_tiff(bar_model, tmp_path):
    path = document(tmp_path / "fax.tiff", ["12", "34", "56"], "TIFF", compression="tiff_deflate")
    assert len(reader(bar_model).read(path)) == 3
    bilevel = tmp_path / "bilevel.tif"
    sheet("77").convert("1").save(bilevel, save_all=True, append_images=[sheet("8").convert("1")], compression="group4")
    assert len(reader(bar_model).read(bilevel)) == 2


def encrypted(ten, path):
    with pikepdf.open(ten) as pdf:
        pdf.save(path, encryption=pikepdf.Encryption(owner="o", user="secret"))
    return path


def test_encrypted_pdf_needs_its_password(bar_model, ten, tmp_path):
    path = encrypted(ten, tmp_path / "locked.pdf")
    with pytest.raises(PageError, match=r"locked\.pdf is encrypted: give its password"):
        reader(bar_model).read(path)
    with pytest.raises(PageError, match="password is wrong"):
        reader(bar_model, password="guess").read(path)
    assert len(reader(bar_model, password="secret").read(path, [10])) == 1


def test_damaged_and_empty_pdf_are_named(ten, tmp_path):
    empty = io.BytesIO()
    with pikepdf.new() as pdf:
        pdf.save(empty)
    with pytest.raises(PageError, match="has no pages"):
        Pdf(empty.getvalue())
    for data in (b"%PDF-1.7 nonsense", ten.read_bytes()[:900]):
        with pytest.raises(PageError, match="is damaged"):
            Pdf(data, name="half.pdf")
    with pytest.raises(PageError, match="does not exist"):
        Pdf(tmp_path / "none.pdf")


def test_very_wide_page_is_read(bar_model):
    pixels = np.full((1200, 20_000, 3), 255, np.uint8)
    drawn = bars.draw("0123456789" * 20)
    pixels[600:632, 300 : 300 + drawn.shape[1]] = drawn
    page = reader(bar_model).read(pixels)[0]
    assert (page.width, page.height) == (20_000, 1200)
    assert len(page.lines) == 1


def test_page_beyond_all_limits_is_refused(bar_model, tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(path)
    done = run("read-page", path, "-m", bar_model)
    assert done.stderr.startswith(f"crnn: {path} is too large: 20000x20000 pixels")
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    document(tmp_path / "in" / "a.pdf", ["123", "45", "6789"], resolution=72)
    sheet("12").save(tmp_path / "in" / "a.png")
    sheet("34").save(tmp_path / "in" / "deep" / "b.tif")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("not a page")
    return tmp_path / "in"


def test_folder_in_folder_out_and_on_again(bar_model, folder, tmp_path):
    out = tmp_path / "out"
    done = run("read-page", folder, "-m", bar_model, "-o", out, "--dpi", 72)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"crnn: {folder / 'bad.png'} is empty (0 bytes)"
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"a.png.txt", "a.pdf.txt", "deep/b.txt"}
    before = (out / "a.png.txt").stat().st_mtime_ns
    (out / "deep" / "b.txt").unlink()
    (folder / "bad.png").unlink()
    again = run("read-page", folder, "-m", bar_model, "-o", out, "--dpi", 72)
    assert (again.returncode, again.stdout) == (0, "")
    assert "2 of 3 documents were there already" in again.stderr
    assert (out / "deep" / "b.txt").exists()
    assert (out / "a.png.txt").stat().st_mtime_ns == before


def test_processes_write_what_one_process_writes(bar_model, folder, tmp_path):
    (folder / "bad.png").unlink()
    for workers in (1, 2):
        jobs = batch.plan([folder], tmp_path / str(workers), "json")
        done = list(batch.read_documents(jobs, "json", {"model": str(bar_model), "dpi": 72}, workers=workers))
        assert sorted(outcome.pages for outcome in done) == [1, 1, 3]
    for path in (tmp_path / "1").rglob("*.json"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


def test_nothing_is_half_written(bar_model, ten, tmp_path):
    out = tmp_path / "out.txt"

    def stop(page, pixels):
        if page.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(batch.read_documents([batch.Job(ten, out)], "text", {"model": str(bar_model), "dpi": 72}, watch=stop))
    assert [path.name for path in tmp_path.iterdir()] == ["ten.pdf"]


def test_a_document_is_never_written_over(folder, tmp_path):
    with pytest.raises(ConfigError, match="written over"):
        batch.plan([folder / "a.pdf", folder / "deep"], folder, "pdf")
    with pytest.raises(ConfigError, match="a PDF is not printed"):
        next(batch.read_documents([batch.Job(folder / "a.pdf", None)], "pdf", {"model": "en"}))


def test_pictures_of_pages(tmp_path):
    path, picture = tmp_path / "table.png", tmp_path / "show.png"
    Image.fromarray(pages.table().pixels).save(path)
    assert run("read-page", path, "-m", "en", "--show", picture).returncode == 0
    with Image.open(picture) as drawn:
        assert drawn.size == (1240, 900)
        assert len(drawn.getcolors(1 << 20)) > 50  # boxes in colour


def test_documents_of_one_name_are_written_apart(tmp_path):
    for name in ("a/x.png", "b/x.png", "deep/a/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out, files, folders = (
        tmp_path / "out",
        [tmp_path / "a/x.png", tmp_path / "b/x.png"],
        [tmp_path / "a", tmp_path / "b"],
    )
    for sources in (files, folders, [*folders, *files]):
        assert [job.output for job in batch.plan(sources, out, "text")] == [out / "a/x.png.txt", out / "b/x.png.txt"]
    with pytest.raises(ConfigError, match=r"several documents would be written to .*a/x\.png\.txt"):
        batch.plan([*files, tmp_path / "deep/a/x.png"], out, "text")


def test_output_with_a_slash_is_a_folder(bar_model, tmp_path):
    sheet("12").save(tmp_path / "a.png")
    assert run("read-page", tmp_path / "a.png", "-m", bar_model, "-o", f"{tmp_path}/new/").returncode == 0
    assert (tmp_path / "new" / "a.txt").is_file()


def test_the_precision_is_that_of_the_model(bar_model, tmp_path):
    sheet("12").save(tmp_path / "a.png")
    whole = run("read-page", tmp_path / "a.png", "-m", bar_model, "--precision", "fp32")
    assert whole.returncode == 0 and whole.stdout.strip()
    done = run("read-page", tmp_path / "a.png", "-m", bar_model, "--precision", "int8")
    assert done.returncode and "has no 8-bit weights" in done.stderr and "Traceback" not in done.stderr


def test_one_document_is_never_written_over(ten, tmp_path):
    (tmp_path / "link.pdf").symlink_to(ten)
    for output in (ten, tmp_path / "link.pdf"):
        with pytest.raises(ConfigError, match="written over"):
            batch.plan([ten], output, "pdf")


@pytest.mark.parametrize("kind", ["text", "pdf"])
def test_links_are_followed_and_pipes_written_to(bar_model, tmp_path, kind):
    sheet("12").save(tmp_path / "a.png")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        piped = pool.submit(pipe.read_bytes)
        for output in (link, pipe):
            (done,) = batch.read_documents([batch.Job(tmp_path / "a.png", output)], kind, {"model": str(bar_model)})
            assert done.problems == ()
        assert len(piped.result(10)) == (tmp_path / "elsewhere").stat().st_size
    assert link.is_symlink()
    assert pipe.is_fifo()


@pytest.mark.parametrize("kind", ["json", "pdf"])
def test_full_disk_is_one_sentence_and_leaves_nothing(bar_model, tmp_path, kind):
    sheet("12").save(tmp_path / "a.png")
    job, most = batch.Job(tmp_path / "a.png", tmp_path / "out"), resource.getrlimit(resource.RLIMIT_FSIZE)
    reader = PageReader(bar_model)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most[1]))
    try:
        done = batch.read_document(reader, job, kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert done.problems == (f"{job.output} cannot be written: File too large",)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_pdf_that_is_drawn_but_too_damaged_to_copy_becomes_pictures(bar_model, ten, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise pikepdf.PdfError("unable to find trailer dictionary")

    job = batch.Job(ten, tmp_path / "out.pdf")
    with monkeypatch.context() as patch:
        patch.setattr(pikepdf, "open", refuse)
        (done,) = batch.read_documents([job], "pdf", {"model": str(bar_model), "dpi": 72}, pages=[1, 2])
    assert (done.problems, len(Pdf(job.output))) == ((), 2)


@pytest.mark.parametrize(("dpi", "width"), [(200, 151.2), (None, 842), (3, 842)])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_picture_becomes_a_page_of_the_size_that_it_says(bar_model, tmp_path, kind, dpi, width):
    path, out = tmp_path / f"a.{kind}", tmp_path / "out.pdf"
    sheet("12").save(path, **({"dpi": (dpi, dpi)} if dpi else {}))
    assert batch.read_document(PageReader(bar_model), batch.Job(path, out), "pdf").problems == ()
    with pikepdf.open(out) as pdf:
        assert float(pdf.pages[0].mediabox[2]) == pytest.approx(width, abs=0.1)


@pytest.mark.parametrize("big", [False, True])
def test_every_page_of_a_tiff_has_a_resolution_of_its_own(tmp_path, big):
    path = tmp_path / "scans.tif"
    first, second = sheet("12"), sheet("34")
    first.encoderinfo, second.encoderinfo = {"dpi": (300, 300)}, {"dpi": (150, 150)}
    first.save(path, save_all=True, append_images=[second], big_tiff=big)
    scan = Tiff(path.read_bytes())
    assert [scan.resolution(index) for index in range(len(scan))] == [(300, 300), (150, 150)]


def test_a_tiff_that_is_cut_off_has_the_pages_that_are_there(tmp_path):
    path = document(tmp_path / "fax.tiff", ["12", "34"], "TIFF")
    data = path.read_bytes()
    for length in range(8, len(data), 997):
        assert 1 <= len(Tiff(data[:length])) <= 2
        assert len(Tiff(data[:length]).resolution(1)) == 2
