"""Run one function over many tasks: in this process, on all its cores, or on a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

import cv2

from crnn.errors import CrnnError, DataError
from crnn.machine import cores

Task = TypeVar("Task")
Result = TypeVar("Result")


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None = None,
    ray: str | None = None,
    start: Callable[[], None] | None = None,
    fresh: bool = False,
) -> Iterator[Result]:
    """The results in the order of the tasks. ``workers`` processes, all cores when None; 1 is this process alone.

    ``start`` is called once in every process before its first task: it can hold what all tasks need and what would be
    slow to send along with each. ``fresh`` processes are not forked, for libraries that do not outlive that.

    ``ray`` is a Ray address ("auto" finds a running cluster) and then decides alone. Only a few results wait at a
    time, so memory does not grow with the tasks.
    """
    if ray is not None:
        yield from _on_ray(function, tasks, ray)
        return
    workers = min(workers or cores(), len(tasks))
    if workers <= 1:
        if start:
            start()
        yield from map(function, tasks)
        return
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # a fork does not take OpenCV's threads along, and the child would wait for them for ever
    context = get_context("spawn" if fresh else None)
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(start,))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError("a worker process was killed, most likely for memory: try again with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def _start_worker(start: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it lets the last tasks end
    cv2.setNumThreads(1)  # where processes are not forked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start:
        start()


def _end_with_parent() -> None:
    """A killed parent must not leave workers waiting for ever."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)


def connect(address: str) -> None:
    """Join the Ray cluster at an address, unless this process has; DataError where none answers."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise DataError("--ray needs Ray: pip install 'crnn[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise DataError(f"no Ray cluster answers at {address!r}: {error}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _on_ray(function: Callable[[Task], Result], tasks: Sequence[Task], address: str) -> Iterator[Result]:
    connect(address)
    import ray

    def one(row: dict[str, Any]) -> dict[str, bytes]:  # bytes are all that Ray Data passes on without a conversion
        cv2.setNumThreads(1)
        try:
            result: Any = function(pickle.loads(row["item"]))
        except CrnnError as error:  # Ray would wrap it in its own traceback
            result = error
        return {"result": pickle.dumps(result)}

    packed = [pickle.dumps(task) for task in tasks]
    rows = ray.data.from_items(packed, override_num_blocks=max(1, len(packed))).map(one)
    for row in rows.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, CrnnError):
            raise result
        yield result
