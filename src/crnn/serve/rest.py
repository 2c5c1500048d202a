"""HTTP: reading by plain requests, TensorFlow Serving's and KServe's REST, the page to try it, metrics.

`Gate` stands before everything: it gives a request its id, asks for the key, limits what a body may be, and writes the
log. The endpoints behind it parse, ask the service and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import crnn
from crnn.errors import CrnnError
from crnn.page.reader import AUTO
from crnn.serve import kserve, tfserving
from crnn.serve.monitoring import Log, request_id
from crnn.serve.service import Limits, Reason, Refused, Served, Service, reason

WEB = Path(__file__).with_name("web")
_FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/docs": "docs.html", "/docs.js": "docs.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
_HEALTH = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
_OPEN = {*_FILES, "/openapi.json", *_HEALTH}  # without a key
_DROPPED = 10  # times max_body of a refused request that are still taken from the wire
_INLINE = 50_000  # bytes of JSON that are parsed in the event loop; more would hold the others up


class CharacterAnswer(BaseModel):
    text: str
    confidence: float
    box: tuple[int, int, int, int]


class LineAnswer(BaseModel):
    text: str
    confidence: float
    box: tuple[int, int, int, int] | None = None
    characters: list[CharacterAnswer]


class PageAnswer(BaseModel):
    number: int
    width: int
    height: int
    lines: list[LineAnswer]


class ReadAnswer(BaseModel):
    """What /read answers: a line for every image."""

    model: str
    version: int
    milliseconds: float
    lines: list[LineAnswer]


class ReadPageAnswer(BaseModel):
    """What /read-page answers: the pages of the file. `model` is "auto" where several were asked."""

    model: str
    version: int | None
    milliseconds: float
    pages: list[PageAnswer]


class Problem(BaseModel):
    """What every refused request gets."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 404, 408, 413, 429, 500, 503, 504)
}
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "An encoded image (JPEG, PNG, WebP, TIFF, BMP, GIF, …), or a form with one file or several.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["file"],
                }
            },
        },
    }
}
_JSON_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def create_app(service: Service, log: Log | None = None) -> ASGIApp:
    """The ASGI application around a service."""
    app = FastAPI(
        title="crnn",
        version=crnn.__version__,
        description="Reads text in images.",
        docs_url=None,
        redoc_url=None,
    )
    MultiPartParser.spool_max_size = service.limits.max_body  # forms stay in memory: the body is limited anyway
    app.add_exception_handler(CrnnError, _on_refusal)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_failure)
    _add_pages(app)
    _add_health(app, service)
    _add_reading(app, service)
    _add_tfserving(app, service)
    _add_kserve(app, service)
    return Gate(app, service, log or Log(requests=False))


def answer(values: Any, status: int = 200) -> Response:
    """JSON; half a surrogate pair, which no UTF-8 can hold, as its escape."""
    body = json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, status, media_type="application/json")


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, CrnnError)
    return answer({"error": str(error)}, reason(error).http)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    says = {
        404: "there is nothing at this path: /openapi.json lists what there is",
        405: "this path takes another method: /openapi.json says which",
    }
    response = answer({"error": says.get(error.status_code, error.detail)}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return answer({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400)


async def _on_failure(request: Request, error: Exception) -> Response:
    """A fault of ours: the client gets a sentence; the Gate, to which the error goes on, logs the place."""
    sentence = f"the server failed: its log has the reason under request {request.state.identity}"
    return answer({"error": sentence}, Reason.FAILED.http)


# ---- the page and health ---------------------------------------------------------------------------------------------


def _add_pages(app: FastAPI) -> None:
    def serve(name: str) -> Callable[[], Any]:
        body = (WEB / name).read_bytes()
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}

        async def page() -> Response:
            return Response(body, media_type=_TYPES[Path(name).suffix], headers=headers)

        return page

    for path, name in _FILES.items():
        app.add_api_route(path, serve(name), include_in_schema=False)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", tags=["health"], summary="The process answers")
    async def live() -> Response:
        return answer({"live": True})

    @app.get("/health/ready", tags=["health"], summary="Models are loaded; 503 until then", responses=_some(503))
    async def ready() -> Response:
        return _ready(service)

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models", tags=["read"], summary="Models, their versions and characters")
    async def models() -> Response:
        listed = []
        for name in service.paths:
            served = service.model(name)
            listed.append(
                {
                    "name": name,
                    "versions": service.versions(name),
                    "characters": len(served.reader.charset),
                }
            )
        return answer({"models": listed})


def _ready(service: Service) -> Response:
    if service.ready:
        return answer({"ready": True})
    return answer({"error": "the server is stopping" if service.stopping else "models are still being loaded"}, 503)


def _some(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: _PROBLEMS[code] for code in codes}


# ---- reading ---------------------------------------------------------------------------------------------------------


def _add_reading(app: FastAPI, service: Service) -> None:
    problems = _PROBLEMS

    @app.post(
        "/read",
        tags=["read"],
        summary="Words and lines: the text of every image",
        responses={200: {"model": ReadAnswer}, **problems},
        openapi_extra=_IMAGE_BODY,
    )
    async def read(request: Request, model: str | None = None, version: str | None = None) -> Response:
        served = service.model(model, version)
        images = await _images(request, service.limits.max_images)
        began = time.perf_counter()
        lines = await service.read(served, images)
        return _timed([served], began, {"lines": [line.to_dict() for line in lines]})

    @app.post(
        "/read-page",
        tags=["read"],
        summary="A page, a photograph or a PDF: its lines in reading order",
        description="Without a model, or with `auto`, every line is read by the model that is surest of it.",
        responses={200: {"model": ReadPageAnswer}, **problems},
        openapi_extra=_IMAGE_BODY,
    )
    async def read_page(request: Request, model: str | None = None, version: str | None = None) -> Response:
        served = service.models_of_pages(model, version)
        files = await _images(request, 1)
        began = time.perf_counter()
        pages = await service.read_page(served, files[0])
        return _timed(served, began, {"pages": [page.to_dict() for page in pages]})


def _timed(served: Sequence[Served], began: float, values: dict[str, Any]) -> Response:
    name, version = (served[0].name, served[0].version) if len(served) == 1 else (AUTO, None)
    spent = round((time.perf_counter() - began) * 1000, 2)
    return answer({"model": name, "version": version, "milliseconds": spent, **values})


async def _images(request: Request, most: int) -> list[bytes]:
    """The images of a request: its body, or the files of its form. Names that a client gives them are not used."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        if body := await request.body():
            return [body]
        raise Refused(Reason.INVALID, "the request is empty: send an image as its body, or a form with files")
    async with request.form(max_files=most, max_fields=most) as form:
        uploads = [value for _, value in form.multi_items()]
        files = [upload for upload in uploads if isinstance(upload, UploadFile)]
        if not files or len(files) != len(uploads):
            raise Refused(Reason.INVALID, "the form has to hold files and nothing else, one file at least")
        return [await file.read() for file in files]


async def _body(request: Request, service: Service) -> dict[str, Any]:
    """The JSON object of a request."""
    body = await request.body()
    if len(body) <= _INLINE:
        return kserve.parse_object(body)
    return dict(await service.run(functools.partial(kserve.parse_object, body)))


# ---- TensorFlow Serving ----------------------------------------------------------------------------------------------


def _add_tfserving(app: FastAPI, service: Service) -> None:
    async def predict(request: Request, name: str, version: str | None = None) -> Response:
        served = service.model(name, version)
        return answer(await tfserving.predict_json(service, served, await _body(request, service)))

    async def metadata(name: str, version: str | None = None) -> Response:
        return answer(tfserving.metadata_json(service.model(name, version)))

    async def status(name: str, version: str | None = None) -> Response:
        return answer({"model_version_status": tfserving.status(service, name, version)})

    for path in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        options: dict[str, Any] = {"tags": ["TensorFlow Serving"], "responses": _PROBLEMS}
        app.add_api_route(path + ":predict", predict, methods=["POST"], openapi_extra=_JSON_BODY, **options)
        app.add_api_route(path + "/metadata", metadata, **options)
        app.add_api_route(path, status, **options)


# ---- KServe ----------------------------------------------------------------------------------------------------------


def _add_kserve(app: FastAPI, service: Service) -> None:
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        served = service.model(name, version)
        body = await request.body()
        header = request.headers.get("inference-header-content-length")
        parse = functools.partial(kserve.parse_json, body, header)
        asked, inputs, wanted = parse() if len(body) <= _INLINE else await service.run(parse)
        outputs = await kserve.infer(service, served, inputs, wanted.names)
        content, length = kserve.to_json(served, asked, outputs, wanted)
        if length is None:
            return Response(content, media_type="application/json")
        headers = {"Inference-Header-Content-Length": str(length)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def metadata(name: str, version: str | None = None) -> Response:
        return answer(kserve.describe(service.model(name, version), service.versions(name)))

    async def model_ready(name: str, version: str | None = None) -> Response:
        service.versions(name, version)
        return _ready(service)

    async def server() -> Response:
        return answer({"name": "crnn", "version": crnn.__version__, "extensions": ["binary_tensor_data"]})

    async def live() -> Response:
        return answer({"live": True})

    async def ready() -> Response:
        return _ready(service)

    options: dict[str, Any] = {"tags": ["KServe"], "responses": _PROBLEMS}
    app.add_api_route("/v2", server, **options)
    app.add_api_route("/v2/health/live", live, **options)
    app.add_api_route("/v2/health/ready", ready, **options)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.add_api_route(path + "/infer", infer, methods=["POST"], openapi_extra=_JSON_BODY, **options)
        app.add_api_route(path + "/ready", model_ready, **options)
        app.add_api_route(path, metadata, **options)


# ---- the gate --------------------------------------------------------------------------------------------------------


class Gate:
    """Middleware before everything else: request ids, the key, limits of bodies, metrics and the log."""

    def __init__(self, app: ASGIApp, service: Service, log: Log) -> None:
        self._app, self._service, self._log = app, service, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identity = request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["identity"] = identity
        began = time.perf_counter()
        status = 0
        body = _Body(receive, self._service.limits)
        handling = asyncio.current_task()
        assert handling

        async def watch() -> None:
            nonlocal status
            await body.gone()
            if not status:  # nobody would get the answer
                status = Reason.GONE.http
                handling.cancel()

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status != Reason.TOO_SLOW.http:
                    await body.drop()
                added = MutableHeaders(scope=message)
                added["x-request-id"] = identity
                if status == Reason.BUSY.http:
                    added["retry-after"] = "1"
                if status == Reason.TOO_SLOW.http or self._service.stopping:
                    added["connection"] = "close"
            await send(message)

        watching = asyncio.create_task(watch())
        try:
            self._check(scope["path"], headers)
            await self._app(scope, body.receive, reply)
        except CrnnError as error:
            await (await _on_refusal(Request(scope), error))(scope, receive, reply)
        except asyncio.CancelledError:
            if status != Reason.GONE.http:
                raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self._log.event("failure", id=identity, path=scope["path"], trace=trace)
        finally:
            watching.cancel()
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            self._service.metrics.requests.labels("http", route, status).inc()
            self._service.metrics.seconds.labels("http").observe(seconds)
            self._log.request(
                id=identity, protocol="http", method=scope["method"], path=scope["path"][:200], status=status,
                milliseconds=round(seconds * 1000, 2),
            )  # fmt: skip

    def _check(self, path: str, headers: Headers) -> None:
        key = self._service.api_key
        if key and path not in _OPEN and not allowed(key, headers.get("x-api-key"), headers.get("authorization")):
            raise Refused(
                Reason.UNAUTHENTICATED, "this server wants a key: send it as X-API-Key or as Authorization: Bearer"
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(Reason.INVALID, "compressed requests are not taken: send the body as it is")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdecimal() and int(length[:20]) > self._service.limits.max_body:
            raise _too_large(self._service.limits)


class _Body:
    """A request's body: at most max_body bytes, within the time limit."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._deadline = asyncio.get_running_loop().time() + limits.timeout
        self._taken, self._whole = 0, asyncio.Event()

    async def receive(self) -> Message:
        message = await self._next()
        if self._taken > self._limits.max_body:
            raise _too_large(self._limits)
        return message

    async def drop(self) -> None:
        """Takes what a refused request still sends, within limits: clients read no answer before they have sent all."""
        with contextlib.suppress(Refused):
            while not self._whole.is_set() and self._taken <= _DROPPED * self._limits.max_body:
                await self._next()

    async def gone(self) -> None:
        """Comes back when the client has hung up after it had sent all."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> Message:
        if self._whole.is_set():
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._limits.timeout
            raise Refused(
                Reason.TOO_SLOW, f"the request took more than {seconds:g} seconds to arrive: send it faster"
            ) from None
        if message["type"] == "http.disconnect":
            raise Refused(Reason.GONE, "the client has hung up")
        self._taken += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._whole.set()
        return message


def _too_large(limits: Limits) -> Refused:
    most = limits.max_body / 1e6
    return Refused(Reason.TOO_LARGE, f"the request is larger than the limit of {most:g} MB: send less")


def allowed(key: str, given: str | None, authorization: str | None) -> bool:
    """Whether a client has the key, compared in constant time."""
    if given is None and authorization and authorization[:7].lower() == "bearer ":
        given = authorization[7:].strip()
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), key.encode())
