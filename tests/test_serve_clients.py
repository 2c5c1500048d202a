"""Clients from their own packages get the right texts: TensorFlow Serving's, Triton's, requests, curl, ours."""

import base64
import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

import bars
import crnn
from crnn.serve.client import Client, GrpcClient, ServerError
from serving import serving

TEXTS = ["120", "7", "98765", "33"]


@pytest.fixture(scope="module")
def server(bar_model, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve"), "--model", f"bars={bar_model}") as running:
        yield running


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    files = [folder / f"{number}.png" for number in range(len(TEXTS))]
    for file, text in zip(files, TEXTS, strict=True):
        Image.fromarray(bars.draw(text)).save(file)
    return files


def ask_with(kind, server, paths):
    script = Path(__file__).with_name("real_clients.py")
    command = [sys.executable, script, kind, str(server.port), str(server.grpc_port), "bars", *paths]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tensorflow_serving_api(server, paths):
    found = ask_with("tensorflow", server, paths)
    assert found["bytes"] == TEXTS
    assert found["floats"] == ["120", "120"]
    assert found["decodes"] == [[1, 2, 0], [1, 2, 0]]
    assert found["status"] == [[1, 30, 0]]
    assert found["signatures"]["serving_default"]["input_tensor"] == [1, [-1, 32, -1, 3]]
    assert found["signatures"]["bytes"]["image_bytes"] == [7, [-1]]
    assert found["signatures"]["bytes"]["strings"] == [7, [-1]]


def test_tritonclient_over_http_and_grpc(server, paths):
    found = ask_with("triton", server, paths)
    for protocol in ("http", "grpc"):
        answer = found[protocol]
        assert answer["inputs"] == ["input_tensor", "image_bytes"]
        assert answer["bytes"] == TEXTS
        assert answer["floats"] == ["120"]
        assert answer["decodes"] == [1, 2, 0]
        assert all(0.9 < value <= 1 for value in answer["confidences"])
    assert found["json"] == ["120"]


def test_requests_by_rows_and_columns(server, paths):
    url = f"{server.url}/v1/models/bars/versions/1:predict"
    encoded = [{"b64": base64.b64encode(path.read_bytes()).decode()} for path in paths]
    rows = requests.post(url, json={"signature_name": "bytes", "instances": encoded}, timeout=60).json()
    assert [row["strings"] for row in rows["predictions"]] == TEXTS
    named = requests.post(url, json={"instances": [{"image_bytes": each} for each in encoded]}, timeout=60).json()
    assert named == rows
    pixels = (bars.draw("42")[..., ::-1] / 127.5 - 1).tolist()
    for body in ({"inputs": [pixels]}, {"inputs": {"input_tensor": [pixels]}}):  # the first as the old project's client
        outputs = requests.post(url, data=json.dumps(body), timeout=60).json()["outputs"]
        assert outputs["strings"] == ["42"]
        assert outputs["decodes_values"] == [4, 2]
        assert outputs["decodes_indices"] == [[0, 0], [0, 1]]
        assert outputs["decodes_dense_shape"] == [1, 2]
    metadata = requests.get(f"{server.url}/v1/models/bars/metadata", timeout=60).json()
    inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["input_tensor"]["dtype"] == "DT_FLOAT"
    status = requests.get(f"{server.url}/v1/models/bars", timeout=60).json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"


def test_requests_with_a_form(server, paths, bar_model):
    files = [("file", path.open("rb")) for path in paths]
    answer = requests.post(f"{server.url}/read?model=bars", files=files, timeout=60).json()
    assert [line["text"] for line in answer["lines"]] == TEXTS
    reader = crnn.load(bar_model)
    assert answer["lines"] == [reader.read(path.read_bytes()).to_dict() for path in paths]


def test_curl(server, paths):
    curl = shutil.which("curl")
    assert curl, "the tests need curl: apt-get install curl"
    done = subprocess.run(
        [curl, "-sS", "--data-binary", f"@{paths[0]}", f"{server.url}/read"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["lines"][0]["text"] == "120"


def test_our_clients(server, paths):
    http, grpc = Client(server.url, "bars"), GrpcClient(f"127.0.0.1:{server.grpc_port}", "bars")
    assert [line.text for line in http.read_batch(paths)] == TEXTS
    assert [line.text for line in grpc.read_batch(paths)] == TEXTS
    one = http.read(paths[0].read_bytes())
    assert one.characters[1].text == "2" and one.confidence > 0.9
    assert grpc.read(paths[0]).confidence == pytest.approx(one.confidence, abs=1e-3)
    for client, status in ((http, 400), (grpc, "INVALID_ARGUMENT")):
        with pytest.raises(ServerError, match="is not an image") as refused:
            client.read(b"no image")
        assert refused.value.status == status
    with pytest.raises(ServerError, match="cannot be reached"):
        Client("http://127.0.0.1:1").read(paths[0])


def test_a_connection_that_the_server_has_closed_is_opened_again():
    asked = []

    class Closing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = b'{"lines": [{"text": "12", "confidence": 1.0, "characters": []}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = True  # without a word, as after a minute

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Closing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:{server.server_port}")
        assert [client.read(b"image").text for _ in range(3)] == ["12"] * 3 and len(asked) == 3
        server.shutdown()
        server.server_close()
        with pytest.raises(ServerError, match="cannot be reached"):
            client.read(b"image")


def test_health_and_reflection(server):
    import grpc
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60).status == 1
        described = ProtoReflectionDescriptorDatabase(channel)
        assert "tensorflow.serving.PredictionService" in described.get_services()
        pool = DescriptorPool(described)
        assert pool.FindServiceByName("grpc.health.v1.Health")
        predict = pool.FindServiceByName("tensorflow.serving.PredictionService").methods_by_name["Predict"]
        assert predict.input_type.fields_by_name["inputs"].number == 2


def test_many_at_once_get_their_own_answers(server):
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(bars.DIGITS), rng.integers(1, 12))) for _ in range(200)]
    images = [encoded(bars.draw(text)) for text in texts]
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda image: server.ask("/read", image)[2]["lines"][0]["text"], images))
    assert read == texts
    batches = [line for line in server.ask("/metrics")[2].decode().splitlines() if line.startswith("crnn_batch_size")]
    count, total = (float(next(x for x in batches if f"_{part} " in x).split()[1]) for part in ("count", "sum"))
    assert total > 1.2 * count  # more than one crop a batch


def encoded(pixels):
    import cv2

    return cv2.imencode(".png", pixels)[1].tobytes()
