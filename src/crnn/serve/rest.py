"""HTTP: reading by plain requests, TensorFlow Serving's and KServe's REST, the page to try it, metrics.

The endpoints parse, ask the service and answer; what stands before them all is in `gate`.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

import crnn
from crnn.errors import CrnnError
from crnn.page.reader import AUTO
from crnn.serve import kserve, tfserving
from crnn.serve.gate import Gate
from crnn.serve.monitoring import Log
from crnn.serve.service import Reason, Refused, Served, Service, reason

WEB = Path(__file__).with_name("web")
_FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/docs": "docs.html", "/docs.js": "docs.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
_HEALTH = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
_OPEN = {*_FILES, "/openapi.json", *_HEALTH}  # without a key
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
    return Gate(app, service, log or Log(requests=False), _OPEN, _on_refusal)


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
