"""Clients of a `crnn serve`: `Client("http://localhost:8501").read("word.png").text`, and the same over gRPC."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from crnn.document import Character, Line
from crnn.errors import ConfigError, CrnnError, ImageError

Source = str | Path | bytes
"""A path on this machine, or encoded bytes."""


class ServerError(CrnnError):
    """The server's refusal, in its words; `status` is HTTP's number or gRPC's name, None when it cannot be reached."""

    def __init__(self, sentence: str, status: int | str | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class Client:
    """Over HTTP, on one connection that stays open. Not for several threads at once."""

    def __init__(
        self, url: str = "http://127.0.0.1:8501", model: str = "", api_key: str | None = None, timeout: float = 60.0
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
        self._path = f"{parts.path.rstrip('/')}/read" + (f"?model={quote(model)}" if model else "")
        self._headers = {"X-API-Key": _checked(api_key)} if api_key else {}

    def read(self, source: Source) -> Line:
        """Read one image of a word or line."""
        return self.read_batch([source])[0]

    def read_batch(self, sources: Sequence[Source]) -> list[Line]:
        """Read several in one request, in their order."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{i}"\r\n\r\n'.encode()
            + _load(source)
            + b"\r\n"
            for i, source in enumerate(sources)
        ]
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        answer = self._post(body, f"multipart/form-data; boundary={boundary}")
        return [_to_line(values) for values in answer["lines"]]

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes, content_type: str) -> Any:
        was_open = self._connection.sock is not None
        try:
            try:
                response, data = self._ask(body, content_type)
            except ConnectionError:  # the server closes connections that are idle; to read twice does no harm
                if not was_open:
                    raise
                self._connection.close()
                response, data = self._ask(body, content_type)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            host, port = self._connection.host, self._connection.port
            raise ServerError(f"the server at {host}:{port} cannot be reached: {error}") from None
        try:
            values = json.loads(data)
            if response.status != 200:
                raise ServerError(values["error"], response.status)
        except (ValueError, KeyError, TypeError):
            raise ServerError(f"this is no answer of crnn serve (status {response.status})", response.status) from None
        return values

    def _ask(self, body: bytes, content_type: str) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request("POST", self._path, body, {"Content-Type": content_type, **self._headers})
        response = self._connection.getresponse()
        return response, response.read()


class GrpcClient:
    """Over gRPC, by KServe's protocol: texts and confidences. From any thread."""

    def __init__(
        self,
        address: str = "127.0.0.1:8500",
        model: str = "",
        api_key: str | None = None,
        timeout: float = 60.0,
        certificate: bytes | None = None,
    ) -> None:
        """`certificate` is the PEM of the server's authority; without, the connection is not encrypted."""
        import grpc

        from crnn.serve.messages import message

        self._error = grpc.RpcError
        self._channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate))
            if certificate
            else grpc.insecure_channel(address)
        )
        self._request = message("inference.ModelInferRequest")
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            self._request.SerializeToString,
            message("inference.ModelInferResponse").FromString,
        )
        self._model, self._timeout = model, timeout
        self._metadata = [("x-api-key", _checked(api_key))] if api_key else []

    def read(self, source: Source) -> Line:
        """Read one image of a word or line."""
        return self.read_batch([source])[0]

    def read_batch(self, sources: Sequence[Source]) -> list[Line]:
        """Read several in one request, in their order."""
        request = self._request(model_name=self._model)
        given = request.inputs.add(name="image_bytes", datatype="BYTES", shape=[len(sources)])
        given.contents.bytes_contents.extend(_load(source) for source in sources)
        for name in ("strings", "confidences"):
            request.outputs.add(name=name)
        try:
            response = self._infer(request, timeout=self._timeout, metadata=self._metadata)
        except self._error as error:
            raise ServerError(error.details(), error.code().name) from None
        import numpy as np

        from crnn.serve.kserve import split

        texts, confidences = response.raw_output_contents
        values = np.frombuffer(confidences, "<f4").tolist()
        return [Line(text.decode(), value) for text, value in zip(split(texts, "strings"), values, strict=True)]

    def close(self) -> None:
        self._channel.close()


def _checked(api_key: str) -> str:
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key is not printable ASCII: headers cannot hold it")
    return api_key


def _load(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{source} cannot be read: {error.strerror}") from None


def _to_line(values: Any) -> Line:
    characters = (Character(each["text"], each["confidence"], tuple(each["box"])) for each in values["characters"])
    return Line(values["text"], values["confidence"], tuple(characters))
