"""What stands before every HTTP request: its id, the key, limits of its body, hang-ups, metrics and the log."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crnn.errors import CrnnError
from crnn.serve.monitoring import Log, request_id
from crnn.serve.service import Limits, Reason, Refused, Service

Refuse: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]

_DROPPED = 10  # times max_body of a refused request that are still taken from the wire


class Gate:
    """Middleware before everything else: request ids, the key, limits of bodies, metrics and the log."""

    def __init__(self, app: ASGIApp, service: Service, log: Log, keyless: Collection[str], refuse: Refuse) -> None:
        """`keyless`: paths that need no key; `refuse`: the answer to a request that is refused here."""
        self._app, self._service, self._log = app, service, log
        self._keyless, self._refuse = keyless, refuse

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
            await (await self._refuse(Request(scope), error))(scope, receive, reply)
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
        if (
            key
            and path not in self._keyless
            and not allowed(key, headers.get("x-api-key"), headers.get("authorization"))
        ):
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
