"""A `crnn serve` of its own process, and how to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path


class Running:
    """A server that is up: its ports, its process and what it has logged."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self.process, self._log = process, log
        listening = self.wait_for("listening")
        self.port, self.grpc_port = listening["port"], listening["grpc_port"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def events(self) -> list[dict]:
        lines = self.log.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def most_memory(self) -> int:
        """Megabytes that the process had at most."""
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) // 1024

    def wait_for(self, event: str, seconds: float = 60.0, **values: object) -> dict:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for each in self.events:
                if {"event": event, **values}.items() <= each.items():
                    return each
            assert self.process.poll() is None, self.log
            time.sleep(0.02)
        raise AssertionError(f"no {event} in time: {self.log}")

    def ask(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        """Status, headers and JSON (or bytes) of an answer."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, body, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return _parsed(response)
        except urllib.error.HTTPError as error:
            with error:
                return _parsed(error)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


async def post(app, path: str, body: bytes, then: Callable[[], Awaitable[object]] | None = None) -> tuple[int, bytes]:
    """Status and body of an answer of `app`, an ASGI application, 0 for none; the client hangs up after `then`."""
    sent, status, answer = False, 0, b""

    async def receive():
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body}
        await (then() if then else asyncio.Future())
        return {"type": "http.disconnect"}

    async def send(message):
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return status, answer


def _parsed(response):
    data = response.read()
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status, response.headers, json.loads(data) if is_json else data


@contextlib.contextmanager
def serving(folder: Path, *arguments: object, **environment: str) -> Iterator[Running]:
    """`crnn serve ARGUMENTS` on free ports, logging into `folder`."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "crnn", "serve", "--port", "0", "--grpc-port", "0", *map(str, arguments)]
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=os.environ | environment)
    try:
        server = Running(process, log)
        server.wait_for("ready")
        yield server
    finally:
        process.kill()
        process.wait(60)
