"""One process: HTTP and gRPC on one event loop, models loaded beside, an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from crnn.errors import ConfigError, CrnnError
from crnn.serve.monitoring import Log
from crnn.serve.rest import create_app
from crnn.serve.rpc import Rpc
from crnn.serve.service import Service

_HEADERS = 65536  # bytes of a request's line and headers, about: browsers and proxies send much less
_DRAIN = 0.5  # seconds in which connections get their last answer, and its word that it is the last


@dataclass(frozen=True)
class Address:
    """Where to listen. Port 0 takes a free one; gRPC's None does without."""

    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = 8500
    certificate: Path | None = None  # PEM files for TLS, both or neither
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs a certificate and its key: give both or neither")
        for file in (self.certificate, self.key):
            if file is not None and not file.is_file():
                raise ConfigError(f"{file} does not exist: give PEM files for TLS")
        if self.certificate and self.key:
            # Better now: gRPC would not say why it cannot listen. An empty password, so that none is asked for.
            try:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                pair = f"{self.certificate} and {self.key}"
                raise ConfigError(f"{pair} are no certificate and its key, as PEM without password ({error})") from None

    def at(self, port: int) -> str:
        """HOST:PORT, with an address of IPv6 in brackets."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def serve(service: Service, address: Address, log: Log) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was taken. CrnnError when a model or a port cannot be opened."""
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(_serve(service, address, log))
    else:
        uvloop.run(_serve(service, address, log))


async def _serve(service: Service, address: Address, log: Log) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    door = _listen(address)
    http = _Http(_config(service, address, log))
    rpc = None
    if address.grpc_port is not None:
        rpc = Rpc(service, log, address.at(address.grpc_port), _credentials(address))
        await rpc.start()
    serving = asyncio.create_task(http.serve([door]))
    loading = asyncio.ensure_future(loop.run_in_executor(None, service.load))
    waiting = asyncio.create_task(stop.wait())
    try:
        port = door.getsockname()[1]
        log.event("listening", host=address.host, port=port, grpc_port=rpc.port if rpc else None)
        ends: set[asyncio.Future[Any]] = {waiting, serving}
        await asyncio.wait({loading, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            if rpc:
                await rpc.set_ready(True)
            log.event("ready", models={name: sorted(versions) for name, versions in service.paths.items()})
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        service.stopping = True
        log.event("stopping")
        with contextlib.suppress(asyncio.CancelledError):
            await _stop(service, http, serving, rpc)
        waiting.cancel()
        service.close()
        log.event("stopped")


async def _stop(service: Service, http: _Http, serving: asyncio.Task[None], rpc: Rpc | None) -> None:
    """Nobody new gets in; who is in gets an answer that says it is the last; then the doors close."""
    http.close()
    ending = asyncio.create_task(rpc.stop(service.limits.timeout)) if rpc else None
    await asyncio.sleep(_DRAIN)
    http.should_exit = True
    await serving
    if ending:
        await ending


class _Http(uvicorn.Server):
    """uvicorn, whose signals and sockets are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        for server in getattr(self, "servers", ()):
            server.close()


class _Protocol(HttpToolsProtocol):
    """Closes connections whose headers do not arrive in time, or never end; uvicorn closes only those that are idle."""

    headers_within = 30.0
    _late: asyncio.TimerHandle | None = None
    _besides = 0  # bytes since a request began or went on with its body: headers, also those behind a body

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        # Counted as they come, since the parser keeps a header to itself until it is whole.
        self._besides += len(data)
        super().data_received(data)
        if self._besides > _HEADERS:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._besides = 0
        self._expect()

    def on_body(self, body: bytes) -> None:
        self._besides = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._relax()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._relax()
        self._late = self.loop.call_later(self.headers_within, self.transport.close)

    def _relax(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=2048)
    except OSError as error:
        place = address.at(address.port)
        raise CrnnError(f"{place} cannot be listened at ({error.strerror}): choose another --host or --port") from None


def _config(service: Service, address: Address, log: Log) -> uvicorn.Config:
    protocol = type("Protocol", (_Protocol,), {"headers_within": service.limits.timeout})
    return uvicorn.Config(
        create_app(service, log),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what a request did is in our own log
        access_log=False,
        proxy_headers=False,  # nothing here depends on where a request says that it came from
        server_header=False,
        date_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=int(service.limits.timeout) + 1,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )


def _credentials(address: Address) -> grpc.ServerCredentials | None:
    if address.certificate is None or address.key is None:
        return None
    return grpc.ssl_server_credentials([(address.key.read_bytes(), address.certificate.read_bytes())])
