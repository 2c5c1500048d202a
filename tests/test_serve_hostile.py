"""Whatever a client sends, it gets a sentence and a status that says it was the client; the server goes on."""

import base64
import contextlib
import json
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bars
from crnn.serve.messages import message
from serving import serving
from test_serve_clients import encoded

GOOD = encoded(bars.draw("42"))
LIMITS = ["--max-body-mb", 1, "--max-megapixels", 0.5, "--max-images", 4, "--max-queue", 8, "--timeout", 3]


@pytest.fixture(scope="module")
def server(bar_model, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve"), "--model", f"bars={bar_model}", *LIMITS) as running:
        yield running
        assert running.ask("/read", GOOD)[2]["lines"][0]["text"] == "42"
        assert [event for event in running.events if event["event"] == "failure"] == []


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as opened:
        yield opened


def refused(server, path, body, status=(400,), headers=None):
    """Asserts a refusal; its sentence."""
    got, _, answer = server.ask(path, body, headers)
    assert got in status, (got, answer)
    assert set(answer) == {"error"} and 10 < len(answer["error"]) < 300 and "\n" not in answer["error"]
    return answer["error"]


def call(channel, method, request):
    """Status and details of a unary call with any bytes."""
    if not isinstance(request, bytes):
        request = request.SerializeToString()
    try:
        return "OK", channel.unary_unary(f"/{method}")(request, timeout=30)
    except grpc.RpcError as error:
        return error.code().name, error.details()


def bomb(width, height):
    """A small PNG of many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes((width + 1) * height))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("path", ["/read", "/v1/models/bars:predict", "/v2/models/bars/infer"])
@given(body=st.binary(min_size=1, max_size=300))
def test_random_bytes(server, path, body):
    refused(server, path, body)


@given(cut=st.integers(1, len(GOOD) - 1))
def test_truncated_images(server, cut):
    refused(server, "/read", GOOD[:cut])


def test_a_decompression_bomb_is_not_decoded(server):
    before = server.most_memory()
    assert "too large: 20000x10000 pixels, the limit is 0.5 megapixels" in refused(server, "/read", bomb(20000, 10000))
    assert server.most_memory() < before + 100


def test_a_crop_that_is_too_wide_is_named(server):
    assert "above the limit of 2048" in refused(server, "/read", encoded(np.full((4, 4000), 255, np.uint8)))


def test_large_bodies(server):
    assert "limit of 1 MB" in refused(server, "/read", bytes(1_000_001), (413,))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # 100 MB that it does not announce
        connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
        connection.settimeout(20)
        assert b" 413 " in connection.recv(100)


def test_many_images(server):
    assert "the limit is 4" in refused(server, "/v1/models/bars:predict", instances(GOOD, 5), (413,))
    boundary = b"--x\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n" + GOOD + b"\r\n"
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(server, "/read", boundary * 5 + b"--x--\r\n", (400, 413), form)


def endless_pdf():
    """A PDF whose page takes hours to draw: a form that draws another one ten times, which draws another one, …"""
    forms = [
        (b"/Type/XObject/Subtype/Form/BBox[0 0 500 500]/Resources<</XObject<</X %d 0 R>>>>" % number, b"/X Do " * 10)
        for number in range(6, 14)
    ]
    last = (b"/Type/XObject/Subtype/Form/BBox[0 0 500 500]", b"0 0 500 500 re f")
    streams = [(b"", b"/X Do"), *forms, last]
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 500 500]/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>",
        *(b"<<%s/Length %d>>stream\n%s\nendstream" % (head, len(text), text) for head, text in streams),
    ]
    numbered = b"".join(b"%d 0 obj %s endobj\n" % each for each in enumerate(objects, 1))
    return b"%PDF-1.4\n" + numbered + b"trailer<</Root 1 0 R>>\n%%EOF"


def test_a_pdf_that_takes_hours_holds_up_pages_alone(bar_model, tmp_path):
    with serving(tmp_path, "--model", f"bars={bar_model}", "--timeout", 0.5, "--grpc-port", -1) as running:
        for _ in range(3):
            assert "more than 0.5 seconds" in refused(running, "/read-page", endless_pdf(), (504,))
        assert running.ask("/read", GOOD)[2]["lines"][0]["text"] == "42"
        assert running.stop() == 0


def instances(image, count=1):
    return {"instances": [{"b64": base64.b64encode(image).decode()}] * count}


def test_slow_clients_are_hung_up_on(server):
    head = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    for start, said in ((head + GOOD[:10], b"408"), (head[:20], b"")):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(start)
            connection.settimeout(60)
            assert said in connection.recv(200)
            while connection.recv(1000):
                pass


def test_a_client_that_hangs_up_while_it_sends_is_no_fault_of_the_server(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nX-Request-ID: left\r\nContent-Length: 99\r\n\r\nabc")
    assert server.wait_for("request", id="left")["status"] == 499


@pytest.mark.parametrize(
    ("start", "more", "end"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"x: a\r\n" * 400_000, b"\r\n"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nx: ", b"a" * 2_000_000, b"\r\n\r\n"),
        (b"GET /health/live?", b"a" * 2_000_000, b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (
            b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
            b"x: a\r\n" * 400_000,
            b"\r\n",
        ),
    ],
    ids=["headers", "a header", "an address", "trailers"],
)
def test_headers_without_end_are_not_listened_to(server, start, more, end):
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection, contextlib.suppress(OSError):
        connection.sendall(start + more + end)
        answer = connection.recv(100)
    assert answer == b""


def test_large_headers_that_end_are_taken(server):
    assert server.ask("/read", GOOD, {"X-Long": "a" * 30_000})[0] == 200


def test_more_requests_than_the_queue_holds_are_told_to_come_back(server):
    with ThreadPoolExecutor(64) as pool:
        body = instances(GOOD, 4)
        answers = list(pool.map(lambda _: server.ask("/v1/models/bars:predict", body), range(300)))
    assert {status for status, _, _ in answers} <= {200, 429}
    assert {row["strings"] for status, _, answer in answers if status == 200 for row in answer["predictions"]} == {"42"}
    late = next(answer for answer in answers if answer[0] == 429)
    assert late[1]["Retry-After"] == "1" and "the queue is full" in late[2]["error"]


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "file:%2f%2f%2fetc%2fpasswd", "a%00b", "%F0%9F%98%80"]
)
def test_names_that_look_like_paths(server, name):
    for path in (
        f"/read?model={name}",
        f"/v1/models/{name}:predict",
        f"/v2/models/{name}/infer",
        f"/v2/models/{name}/ready",
    ):
        body = None if path.endswith("ready") else GOOD
        assert "root:" not in refused(server, path, body, (404,))
    refused(server, f"/v1/models/bars/versions/{name}:predict", GOOD, (404,))


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x.png", "data:image/png;base64,AA"]
)
def test_texts_that_look_like_places_are_not_opened(server, text):
    refused(server, "/read", text.encode())
    refused(server, "/v1/models/bars:predict", instances(text.encode()))
    refused(server, "/v1/models/bars:predict", {"instances": [{"b64": text}]})
    refused(server, "/v1/models/bars:predict", {"instances": [text]})
    refused(server, "/v1/models/bars:predict", {"inputs": {"image_bytes": [text]}})
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    field = f"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n{text}\r\n--x--\r\n"
    refused(server, "/read", field.encode(), headers=form)
    named = (
        f'--x\r\nContent-Disposition: form-data; name=file; filename="{text}"\r\n\r\n'.encode()
        + GOOD
        + b"\r\n--x--\r\n"
    )
    assert server.ask("/read", named, form)[2]["lines"][0]["text"] == "42"


LEAF = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just({"b64": "AAAA"})
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(body=st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "x"]), JSON, max_size=3))
def test_wrong_json_for_tensorflow(server, body):
    refused(server, "/v1/models/bars:predict", body)


@given(
    tensor=st.fixed_dictionaries(
        {
            "name": st.sampled_from(["input_tensor", "image_bytes", "x"]) | JSON,
            "shape": st.lists(st.integers(-3, 2**70), max_size=5) | JSON,
            "datatype": st.sampled_from(["FP32", "BYTES", "INT8", "x"]) | JSON,
        },
        optional={"data": JSON, "parameters": st.dictionaries(st.just("binary_data_size"), JSON)},
    ),
    header=st.none() | st.sampled_from(["5", "-1", "99999999999999999999", "x"]),
)
def test_wrong_json_for_kserve(server, tensor, header):
    headers = {"Inference-Header-Content-Length": header} if header else {}
    refused(server, "/v2/models/bars/infer", {"inputs": [tensor]}, headers=headers)


@pytest.mark.parametrize(
    "value",
    [
        [[[1, 2, 3]]],  # three axes
        np.zeros((1, 31, 8, 3)).tolist(),  # not 32 high
        np.zeros((1, 32, 8, 1)).tolist(),  # one channel
        np.zeros((1, 32, 0, 3)).tolist(),
        np.full((1, 32, 8, 3), 255.0).tolist(),  # not scaled
        [np.zeros((32, 8, 3)).tolist(), np.zeros((32, 9, 3)).tolist()],  # two sizes
        [[[["a"]]]],
        [],
    ],
)
def test_wrong_arrays(server, value):
    refused(server, "/v1/models/bars:predict", {"inputs": value})


@pytest.mark.parametrize(
    "body",
    [
        b"{" * 100_000,
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"instances": [1e999]}',
        b'{"inputs": [NaN]}',
        b'"\\ud800"',
        b"null",
        b'{"instances": [{"b64": "AAAA"}], "signature_name": "\\ud800"}',
    ],
)
def test_odd_json(server, body):
    refused(server, "/v1/models/bars:predict", body)
    refused(server, "/v2/models/bars/infer", body)


def test_unknown_places_and_methods(server):
    assert "openapi.json" in refused(server, "/nothing", None, (404,))
    assert "another method" in refused(server, "/read", None, (405,))
    refused(server, "/read", GOOD, headers={"Content-Encoding": "gzip"})
    refused(server, "/read", b"x", headers={"Content-Type": "multipart/form-data"})


@given(
    data=st.binary(max_size=200),
    method=st.sampled_from(
        ["tensorflow.serving.PredictionService/Predict", "inference.GRPCInferenceService/ModelInfer"]
    ),
)
def test_malformed_messages(channel, data, method):
    status, details = call(channel, method, data)
    assert status in ("INVALID_ARGUMENT", "NOT_FOUND"), details
    assert details and "\n" not in details


def tensor(**fields):
    return message("tensorflow.TensorProto")(**fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_bytes", {"dtype": 7, "string_val": [b"no image"]}),
        ("image_bytes", {"dtype": 7, "string_val": [GOOD[:50]]}),
        ("image_bytes", {"dtype": 7, "string_val": [GOOD, GOOD]}),  # two without a shape
        ("image_bytes", {"dtype": 1, "float_val": [1.0]}),
        ("input_tensor", {"dtype": 9, "int64_val": [1]}),
        ("input_tensor", {"dtype": 99}),
        ("input_tensor", {"dtype": 1, "tensor_content": b"abc"}),
        ("input_tensor", {"dtype": 1, "tensor_shape": {"dim": [{"size": -1}]}}),
        ("input_tensor", {"dtype": 1, "tensor_shape": {"dim": [{"size": 2**62}] * 4}, "float_val": [0.0]}),
        ("input_tensor", {"dtype": 1, "tensor_shape": {"dim": [{"size": 4}]}, "tensor_content": bytes(12)}),
        (
            "input_tensor",
            {"dtype": 1, "tensor_shape": {"dim": [{"size": n} for n in (1, 32, 8, 3)]}, "float_val": [9.0]},
        ),
        (  # to be filled up to more than a request of 1 MB can hold
            "input_tensor",
            {"dtype": 1, "tensor_shape": {"dim": [{"size": n} for n in (4, 32, 2000, 3)]}, "float_val": [0.0]},
        ),
        ("other", {"dtype": 1}),
    ],
)
def test_wrong_tensors(channel, name, value):
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "bars"
    request.inputs[name].CopyFrom(tensor(**value))
    status, details = call(channel, "tensorflow.serving.PredictionService/Predict", request)
    assert status == "INVALID_ARGUMENT" and 10 < len(details) < 300


@pytest.mark.parametrize(
    ("given", "raw"),
    [
        ({"name": "image_bytes", "datatype": "BYTES", "shape": [1]}, [b"\xff\xff\xff\xff1"]),
        ({"name": "image_bytes", "datatype": "BYTES", "shape": [2]}, [struct.pack("<I", len(GOOD)) + GOOD]),
        ({"name": "image_bytes", "datatype": "BYTES", "shape": [1]}, [b"", b""]),
        ({"name": "image_bytes", "datatype": "FP32", "shape": [1]}, [b"1234"]),
        ({"name": "input_tensor", "datatype": "FP32", "shape": [1, 32, 8, 3]}, [b"1234"]),
        ({"name": "input_tensor", "datatype": "FP32", "shape": [-1, 32]}, []),
        ({"name": "input_tensor", "datatype": "INT64", "shape": [1]}, [bytes(8)]),
    ],
)
def test_wrong_inputs(channel, given, raw):
    request = message("inference.ModelInferRequest")(model_name="bars", inputs=[given], raw_input_contents=raw)
    status, details = call(channel, "inference.GRPCInferenceService/ModelInfer", request)
    assert status == "INVALID_ARGUMENT" and 10 < len(details) < 300


def test_large_messages_and_unknown_models(channel):
    assert call(channel, "inference.GRPCInferenceService/ModelInfer", bytes(5_000_000))[0] == "RESOURCE_EXHAUSTED"
    request = message("inference.ModelInferRequest")(model_name="../../etc/passwd")
    assert call(channel, "inference.GRPCInferenceService/ModelInfer", request)[0] == "NOT_FOUND"
    assert call(channel, "inference.GRPCInferenceService/ModelReady", request)[0] in ("NOT_FOUND", "INVALID_ARGUMENT")


def test_a_log_line_stays_one_line(server):
    server.ask("/read?model=a%0Ab", GOOD, {"X-Request-ID": "mine-1"})
    server.ask("/read?model=a%0Ab", GOOD, {"X-Request-ID": "mine-2"})
    server.wait_for("request", id="mine-2")
    logged = [event for event in server.events if event.get("id") == "mine-1"]
    assert len(logged) == 1 and logged[0]["status"] == 404
    assert json.dumps(logged[0])
