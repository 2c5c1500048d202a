"""The server as an operator meets it: readiness, versions, keys, TLS, limits, batches, metrics, an orderly stop."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import bars
import crnn
import pages
from crnn.errors import ConfigError, ImageError, ModelError, PageError
from crnn.page.pdf import Pdf
from crnn.serve import service as serving_service
from crnn.serve.client import Client, GrpcClient, ServerError
from crnn.serve.monitoring import Log
from crnn.serve.rest import create_app
from crnn.serve.rpc import Rpc
from crnn.serve.server import Address
from crnn.serve.service import Batcher, Limits, Reason, Refused, Service, find_models
from serving import post, serving
from test_serve_clients import encoded


def started(folder, **limits):
    service = Service(find_models([f"bars={folder}"]), Limits(**limits))
    service.load()
    return service


def read_at_once(service, requests):
    """What each of many requests gets, Lines or its error."""

    async def ask():
        served = service.model("bars")
        return await asyncio.gather(*(service.read(served, images) for images in requests), return_exceptions=True)

    return asyncio.run(ask())


def test_answers_are_those_of_reading_one_by_one_whatever_the_company(bar_model):
    rng = np.random.default_rng(1)
    images = [bars.draw("".join(rng.choice(list(bars.DIGITS), n))) for n in rng.integers(1, 20, 120)]
    reader = crnn.load(bar_model)
    alone = [reader.read(image) for image in images]
    for max_batch, max_wait in ((1, 0.0), (4, 0.001), (32, 0.02)):
        service = started(bar_model, max_batch=max_batch, max_wait=max_wait)
        together = read_at_once(service, [images[i : i + 3] for i in range(0, 120, 3)])
        assert [line for lines in together for line in lines] == alone


def test_crops_of_one_width_are_read_together_and_none_waits_longer_than_said(bar_model):
    reader = crnn.load(bar_model)
    crops = [reader.crop(bars.draw(text)) for text in ("1", "2", "333333", "4")]
    batches, began = [], time.monotonic()

    def read(batch, beside):
        batches.append([crop.width for crop in batch])
        return reader.read_crops(batch)

    async def ask(expecting):
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(read, Limits(max_batch=3, max_wait=0.2), pool, 1, lambda: expecting, lambda size: None)
            return await asyncio.gather(*(batcher.read([crop]) for crop in crops))

    assert [lines[0].text for lines in asyncio.run(ask(True))] == ["1", "2", "333333", "4"]
    assert sorted(map(len, batches)) == [1, 3]
    assert 0.15 < time.monotonic() - began < 30

    async def ask_alone():
        with ThreadPoolExecutor(1) as pool:
            return await Batcher(read, Limits(max_wait=60), pool, 1, lambda: False, lambda size: None).read(crops[:1])

    assert asyncio.run(ask_alone())[0].text == "1"  # nobody to wait for


def test_a_rare_width_is_read_however_many_others_come(bar_model):
    reader = crnn.load(bar_model)
    common, rare = (reader.crop(bars.draw(text)) for text in ("1", "333333"))
    batches = []

    def read(batch, beside):
        batches.append({crop.width for crop in batch})
        return reader.read_crops(batch)

    async def ask():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(read, Limits(max_batch=2, max_wait=0), pool, 1, lambda: True, lambda size: None)

            async def others():
                while len(batches) < 300 and not seldom.done():
                    await batcher.read([common] * 2)

            async def one():
                while not batches:
                    await asyncio.sleep(0)
                return await batcher.read([rare])

            seldom = asyncio.create_task(one())
            await asyncio.gather(*(others() for _ in range(3)), seldom)

    asyncio.run(ask())
    assert len(batches) < 20 and {rare.width} in batches


def test_the_queue_is_bounded_and_a_bad_image_harms_its_own_request_only(bar_model):
    service = started(bar_model, max_queue=6, max_images=4)
    good = bars.draw("12")
    answers = read_at_once(service, [[good] * 4, [good, b"bad"], [good] * 4, [good] * 5, []])
    assert [line.text for line in answers[0]] == ["12"] * 4
    assert isinstance(answers[1], ImageError) and "image 2 of 2 is not an image" in str(answers[1])
    reasons = [answer.reason for answer in answers[2:]]
    assert reasons == [Reason.BUSY, Reason.TOO_LARGE, Reason.INVALID]
    assert read_at_once(service, [[good] * 4])[0][0].text == "12"  # there is room again


def test_what_takes_too_long_is_given_up(bar_model, monkeypatch):
    release = threading.Event()
    service = started(bar_model, timeout=0.1)
    batcher = service.model("bars").batcher
    monkeypatch.setattr(batcher, "_read", lambda crops, beside: release.wait(10))
    (answer,) = read_at_once(service, [[bars.draw("1")]])
    release.set()
    assert isinstance(answer, Refused) and answer.reason is Reason.TIMED_OUT


def test_pages_are_drawn_one_after_the_other_and_none_that_nobody_waits_for(bar_model, monkeypatch):
    release, drawing, at_once = threading.Event(), [], []

    def draw(pdf, index, dpi, *limit):
        drawing.append(index)
        at_once.append(len(drawing))
        release.wait(30)
        drawing.pop()
        return bars.draw("12"), dpi

    monkeypatch.setattr(Pdf, "draw", draw)
    service = started(bar_model, timeout=0.2)

    async def ask():
        served = [service.model()]
        for _ in range(2):  # the second is not begun, as the first hangs
            with pytest.raises(Refused, match=r"more than 0\.2 seconds"):
                await service.read_page(served, pdf_of(3))
        release.set()
        service.limits = Limits(timeout=60)
        return await service.read_page(served, pdf_of(2))

    assert len(asyncio.run(ask())) == 2
    assert at_once == [1, 1, 1]  # the first page of the first, none of the second, two of the third


def pdf_of(count, width=300, height=100):
    """A PDF of blank pages."""
    kids = b"4 0 R " * count
    return (
        b"%%PDF-1.4\n1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj\n2 0 obj <</Type/Pages/Count %d/Kids[%s]>> endobj\n"
        b"4 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]>> endobj\ntrailer<</Root 1 0 R>>\n%%%%EOF"
    ) % (count, kids, width, height)


def test_a_page_of_a_pdf_has_no_more_pixels_than_an_image_may(bar_model):
    service = started(bar_model, max_pixels=100_000)
    (page,) = asyncio.run(service.read_page([service.model()], pdf_of(1)))
    assert 50_000 < page.width * page.height <= 100_000 and 50 < page.dpi < 200
    with pytest.raises(PageError, match=r"^the PDF is damaged"):
        asyncio.run(service.read_page([service.model()], b"%PDF-1.4 nonsense"))


def hang(service, monkeypatch):
    """Let reading take until the event that is returned is set."""
    release = threading.Event()
    monkeypatch.setattr(service.model("bars").batcher, "_read", lambda crops, beside: release.wait(30))
    return release


def test_what_a_client_that_has_gone_wanted_is_given_up(bar_model, monkeypatch):
    service = started(bar_model, timeout=30)
    release, image = hang(service, monkeypatch), encoded(bars.draw("1"))

    async def taken_on():
        while b"crnn_queue_images 1.0" not in service.metrics.text():
            await asyncio.sleep(0.01)

    answered, _ = asyncio.run(post(create_app(service), "/read", image, taken_on))
    assert answered == 0 and not release.is_set()
    release.set()
    metrics = service.metrics.text().decode()
    assert 'crnn_requests_total{method="/read",protocol="http",status="499"} 1.0' in metrics
    assert "crnn_queue_images 0.0" in metrics


def test_a_call_that_is_cut_off_is_counted_as_that(bar_model, monkeypatch):
    service = started(bar_model, timeout=30)
    release = hang(service, monkeypatch)

    async def ask():
        rpc = Rpc(service, Log(requests=False), "127.0.0.1:0", None)
        await rpc.start()
        client = GrpcClient(f"127.0.0.1:{rpc.port}", "bars", timeout=0.3)
        with pytest.raises(ServerError) as late:
            await asyncio.to_thread(client.read, encoded(bars.draw("1")))
        assert late.value.status == "DEADLINE_EXCEEDED"
        while b"ModelInfer" not in service.metrics.text():
            await asyncio.sleep(0.01)
        client.close()
        release.set()
        await rpc.stop(0)

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert 'ModelInfer",protocol="grpc",status="CANCELLED"} 1.0' in service.metrics.text().decode()


def test_a_fault_of_the_server_is_told_as_json_with_its_place_in_the_log(bar_model, monkeypatch, capsys):
    service = started(bar_model)

    def fail(crops, beside):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(service.model("bars").batcher, "_read", fail)
    status, answer = asyncio.run(post(create_app(service, Log()), "/read", encoded(bars.draw("1"))))
    failure, request = map(json.loads, capsys.readouterr().err.splitlines())
    assert (status, request["status"]) == (500, 500)
    assert f"its log has the reason under request {failure['id']}" in json.loads(answer)["error"]
    assert "no such thing" in failure["trace"]


def test_a_log_that_cannot_be_written_stops_nobody(bar_model, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    closed = (tmp_path / "log").open("w")
    closed.close()
    for stderr in (os.fdopen(writer, "w"), os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), closed):
        monkeypatch.setattr(sys, "stderr", stderr)
        service = started(bar_model)
        assert asyncio.run(post(create_app(service, Log()), "/read", encoded(bars.draw("12"))))[0] == 200
        with contextlib.suppress(OSError):
            stderr.close()


def test_models_have_names_and_versions(bar_model, tmp_path):
    for version in (1, 12):
        bars.write_model(tmp_path / "plates" / str(version))
    models = find_models([f"digits={bar_model}", str(tmp_path / "plates")])
    assert [(name, sorted(versions)) for name, versions in models.items()] == [("digits", [1]), ("plates", [1, 12])]
    service = Service(models)
    with pytest.raises(Refused, match="still being loaded") as early:
        service.model("digits")
    assert early.value.reason is Reason.UNAVAILABLE and not service.ready
    service.load()
    assert service.ready
    assert service.model("plates").version == 12 and service.model("plates", "1").version == 1
    assert service.model().name == "digits"
    for name, version in (("digits", 2), ("digits", "latest"), ("plates", -1), ("x", None), ("digits", "9" * 5000)):
        with pytest.raises(Refused) as unknown:
            service.model(name, version)
        assert unknown.value.reason is Reason.NOT_FOUND and len(str(unknown.value)) < 200


def test_a_page_is_read_line_by_line_by_the_model_that_is_surest(tmp_path):
    page = pages.blank(900, 200)
    pages.write(page, "old poles, ropes and shillings", (30, 80))
    pages.write(page, "软件可以读英文和中文", (30, 150))
    with serving(tmp_path) as server:
        names = {"/read-page": "auto", "/read-page?model=auto": "auto", "/read-page?model=en": "en"}
        texts = []
        for path, name in names.items():
            status, _, answer = server.ask(path, encoded(page.pixels))
            assert (status, answer["model"]) == (200, name)
            texts.append([line["text"] for line in answer["pages"][0]["lines"]])
        assert texts[0] == texts[1] == ["old poles, ropes and shillings", "软件可以读英文和中文"]
        assert texts[2] != texts[0]
        assert server.ask("/read?model=auto", encoded(page.pixels))[0] == 404


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="max_queue 0"):
        Limits(max_queue=0)
    with pytest.raises(ConfigError, match="cannot be called auto"):
        find_models(["auto=en"])
    with pytest.raises(ModelError, match="no model 'klingon'"):
        find_models(["klingon"])
    key = tmp_path / "key"
    with pytest.raises(ConfigError, match="cannot be read as a key"):
        serving_service.find_key(key)
    key.write_text("schlüssel", "utf-8")
    with pytest.raises(ConfigError, match="not printable ASCII"):
        serving_service.find_key(key)
    for client in (Client, GrpcClient):
        with pytest.raises(ConfigError, match="not printable ASCII"):
            client(api_key="schlüssel")
    with pytest.raises(ConfigError, match=r"key and .*key are no certificate and its key"):
        Address(certificate=key, key=key)


def test_the_folder_one_is_in_is_served_by_its_name(bar_model, monkeypatch):
    monkeypatch.chdir(bar_model)
    assert list(find_models(["."])) == [bar_model.name]


def test_an_address_of_ipv6(bar_model, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(tmp_path, "--model", f"bars={bar_model}", "--host", "::1") as server:
        image = encoded(bars.draw("12"))
        assert Client(f"http://[::1]:{server.port}").read(image).text == "12"
        assert GrpcClient(f"[::1]:{server.grpc_port}").read(image).text == "12"


def test_descriptors_are_those_of_the_protos(tmp_path):
    protos = serving_service.Path(serving_service.__file__).with_name("protos")
    out = tmp_path / "services.binpb"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{protos}",
        "--include_imports",
        f"--descriptor_set_out={out}",
    ]
    subprocess.run([*command, *sorted(file.name for file in protos.glob("*.proto"))], check=True)
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    made, kept = (FileDescriptorSet.FromString(file.read_bytes()) for file in (out, protos / "services.binpb"))
    assert {file.name: file for file in made.file if "google" not in file.name} == {
        file.name: file for file in kept.file if "google" not in file.name
    }


def test_a_key_and_tls(bar_model, tmp_path):
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_text("swordfish\n")
    arguments = [
        "--model",
        f"bars={bar_model}",
        "--api-key-file",
        secret,
        "--tls-certificate",
        certificate,
        "--tls-key",
        key,
    ]
    with serving(tmp_path, *arguments) as server:
        context = ssl.create_default_context(cafile=certificate)

        def ask(path, headers):
            request = urllib.request.Request(f"https://localhost:{server.port}{path}", headers=headers)
            try:
                return urllib.request.urlopen(request, context=context, timeout=30).status
            except urllib.error.HTTPError as error:
                assert "key" in json.load(error)["error"]
                return error.code

        assert ask("/health/ready", {}) == ask("/", {}) == ask("/docs", {}) == ask("/openapi.json", {}) == 200
        assert ask("/models", {}) == ask("/metrics", {"X-API-Key": "sword"}) == 401
        assert (
            ask("/models", {"X-API-Key": "swordfish"}) == ask("/models", {"Authorization": "Bearer swordfish"}) == 200
        )
        image = encoded(bars.draw("12"))
        with pytest.raises(ServerError, match="wants a key") as refused:
            GrpcClient(f"localhost:{server.grpc_port}", "bars", certificate=certificate.read_bytes()).read(image)
        assert refused.value.status == "UNAUTHENTICATED"
        client = GrpcClient(f"localhost:{server.grpc_port}", "bars", "swordfish", certificate=certificate.read_bytes())
        assert client.read(image).text == "12"
        assert "swordfish" not in server.log


def test_sigterm_under_load_loses_nothing_that_was_taken(bar_model, tmp_path):
    image = encoded(bars.draw("1234567"))
    answered, lost, stop, began = [], [], threading.Event(), time.monotonic()
    with serving(tmp_path, "--model", f"bars={bar_model}") as server:
        grpc_client = GrpcClient(f"127.0.0.1:{server.grpc_port}", "bars")
        grpc_client.read(image)

        def ask(read):
            while not stop.is_set():
                try:
                    answered.append(read(image).text)
                except ServerError as error:
                    if isinstance(error.status, int):  # an answer, but no text; else the server took nothing
                        lost.append(str(error))
                    return

        readers = [Client(server.url, "bars").read for _ in range(6)] + [grpc_client.read] * 2
        threads = [threading.Thread(target=ask, args=(read,)) for read in readers]
        for thread in threads:
            thread.start()
        while len(answered) < 50 and time.monotonic() < began + 60:
            time.sleep(0.01)
        assert server.stop() == 0
        stop.set()
        for thread in threads:
            thread.join(30)
    assert lost == []
    assert len(answered) >= 50 and set(answered) == {"1234567"}
    logged = [event for event in server.events if event["event"] == "request"]
    assert {event["status"] for event in logged} <= {200, "OK"}
    assert len(logged) == len(answered) + 1  # what the server took has come back
    assert [event["event"] for event in server.events][-2:] == ["stopping", "stopped"] or server.events[-1][
        "event"
    ] == "stopped"


def test_a_port_in_use_and_a_missing_model_are_one_sentence(bar_model, tmp_path):
    with serving(tmp_path, "--model", f"bars={bar_model}") as server:
        for arguments in (
            ["--port", server.port, "--grpc-port", "-1"],
            ["--port", 0, "--grpc-port", server.grpc_port],
            ["--model", "klingon"],
        ):
            command = [sys.executable, "-m", "crnn", "serve", "--model", bar_model, *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=240, check=False)
            sentences = [line for line in done.stderr.splitlines() if line.startswith("crnn: ")]
            assert (done.returncode, len(sentences)) == (1, 1), done.stderr
            assert "Traceback" not in done.stderr


def test_the_page_and_its_description(bar_model, tmp_path):
    with serving(tmp_path, "--model", f"bars={bar_model}") as server:
        status, headers, page = server.ask("/")
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        for name in ("page.html", "page.css", "page.js", "docs.html", "docs.js"):
            text = (serving_service.Path(serving_service.__file__).with_name("web") / name).read_text("utf-8")
            assert not [line for line in text.splitlines() if "http" in line and "www.w3.org" not in line], name
        assert b"page.js" in page
        paths = server.ask("/openapi.json")[2]["paths"]
        assert {"/read", "/read-page", "/v1/models/{name}:predict", "/v2/models/{name}/infer"} <= set(paths)
        assert server.ask("/models")[2]["models"][0]["name"] == "bars"
        assert server.ask("/read", encoded(bars.draw("1")), {"X-Request-ID": "abc"})[1]["X-Request-ID"] == "abc"
        assert b'crnn_images_total{model="bars"} 1.0' in server.ask("/metrics")[2]
