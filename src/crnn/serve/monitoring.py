"""What an operator sees: Prometheus metrics and one line of JSON a request."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import uuid
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_REQUEST_ID_LENGTH = 128


class Metrics:
    """In a registry of their own, so that several servers in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "crnn_requests", "Requests answered.", ["protocol", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "crnn_request_seconds", "From the request's headers to its answer.", ["protocol"], registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )  # fmt: skip
        self.images = Counter("crnn_images", "Images read.", ["model"], registry=self.registry)
        self.queue = Gauge("crnn_queue_images", "Images admitted and not yet answered.", registry=self.registry)
        self._batches = Histogram(
            "crnn_batch_size", "Crops the network saw at a time.", registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)


def request_id(given: str | None) -> str:
    """The client's own id of a request if it is one, else a new one."""
    if given and len(given) <= _REQUEST_ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex


class Log:
    """One JSON object a line on stderr, as long as it can be written: a full disk or a log's reader that has gone is no
    reason to answer nobody."""

    def __init__(self, requests: bool = True) -> None:
        self._requests = requests

    def event(self, event: str, **fields: Any) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = json.dumps({"time": stamp, "event": event, **fields}, ensure_ascii=False)
        with contextlib.suppress(OSError, ValueError):  # ValueError: of a file that is closed
            print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)

    def request(self, **fields: Any) -> None:
        if self._requests:
            self.event("request", **fields)
