"""Load on a running server and what came of it: requests a second, latencies, wrong answers, lost requests, memory.

python benchmarks/serve_load.py FOLDER [--clients 32] [--seconds 60 | --requests 20000] [--images 1] [--max-batch 32]

Starts `crnn serve` on free ports with --max-batch, reads every image of FOLDER by `crnn read` for comparison, and lets
--clients connections ask for --images images a request over HTTP, each waiting for its answer. --stop sends SIGTERM in
the middle and checks that every request that was taken got its answer. --bare measures reading without a server.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import crnn
from crnn import image
from serving import Running, serving


class Load:
    """What the clients have seen."""

    def __init__(self, bodies: list[bytes], expected: list[list[str]], path: str) -> None:
        self.requests = [
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies
        ]
        self.expected = expected
        self.milliseconds: list[float] = []
        self.wrong = self.refused = self.lost = self.turned_away = 0
        self.left = sys.maxsize
        self.until = float("inf")
        self.stopping = False

    async def client(self, port: int, number: int) -> None:
        chosen = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while self.left > 0 and time.perf_counter() < self.until:
            self.left -= 1
            which = chosen.randrange(len(self.requests))
            began = time.perf_counter()
            try:
                writer.write(self.requests[which])
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError) as error:
                # Nothing of an answer: the server had closed before it took the request. A part of one: lost.
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    self.lost += 1
                elif self.stopping:
                    self.turned_away += 1
                else:
                    self.lost += 1
                return
            self.milliseconds.append((time.perf_counter() - began) * 1000)
            if not head.startswith(b"HTTP/1.1 200"):
                self.refused += 1
            elif _texts(body) != self.expected[which]:
                self.wrong += 1
            if b"connection: close" in head.lower():
                writer.close()
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    return


def _texts(body: bytes) -> list[str]:
    answer = json.loads(body)
    return [line["text"] for line in answer["lines"]] if "lines" in answer else [
        row["strings"] for row in answer["predictions"]
    ]  # fmt: skip


def processor(server: Running) -> float:
    """Seconds of a core that the server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(server: Running) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


async def run(load: Load, server: Running, arguments: argparse.Namespace) -> None:
    began, used = time.perf_counter(), processor(server)
    load.until = began + arguments.seconds if not arguments.requests else float("inf")
    load.left = arguments.requests or sys.maxsize
    clients = [asyncio.create_task(load.client(server.port, number)) for number in range(arguments.clients)]
    print(f"memory: {memory(server):.0f} MB at the start", flush=True)
    if arguments.stop:
        await asyncio.sleep(arguments.seconds / 2)
        load.stopping = True
        server.process.send_signal(signal.SIGTERM)
    while not all(client.done() for client in clients):
        await asyncio.wait(clients, timeout=5)
        if server.process.poll() is None:
            spent_by_server = processor(server) - used
            print(f"memory: {memory(server):.0f} MB after {len(load.milliseconds)} requests", flush=True)
    await asyncio.gather(*clients)
    spent = time.perf_counter() - began
    times = sorted(load.milliseconds)
    done = len(times)
    cost = spent_by_server / max(1, done * arguments.images) * 1000
    print(
        f"{arguments.clients} clients, {arguments.images} image(s) a request, max batch {arguments.max_batch}: "
        f"{done} requests, {done * arguments.images / spent:.0f} images/s, "
        f"{cost:.2f} ms of a core each, "
        f"p50 {times[done // 2]:.1f} ms, p99 {times[done * 99 // 100]:.1f} ms, "
        f"{load.wrong} wrong, {load.refused} refused, {load.lost} lost, {load.turned_away} not taken"
    )


def bare(reader: crnn.Recognizer, data: list[bytes], seconds: float) -> None:
    list(reader.read_many(data))

    def all_at_once() -> int:
        return sum(1 for _ in reader.read_many(data))

    def one_by_one() -> int:
        return len([reader.read(each) for each in data[:50]])

    for name, work in (("all at once", all_at_once), ("one by one", one_by_one)):
        began, used, read = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < began + seconds:
            read += work()
        rate, cost = read / (time.perf_counter() - began), (time.process_time() - used) / read * 1000
        print(f"without a server, {name}: {rate:.0f} images/s, {cost:.2f} ms of a core each", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="en")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=int, help="So many instead of --seconds.")
    parser.add_argument("--images", type=int, default=1, help="Of a request; from 2 on, by TensorFlow Serving's REST.")
    parser.add_argument("--count", type=int, default=600, help="Images of FOLDER that are used.")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-wait-ms", type=float, default=2)
    parser.add_argument("--stop", action="store_true", help="SIGTERM in the middle.")
    parser.add_argument("--bare", action="store_true", help="Measure reading without a server, first.")
    arguments = parser.parse_args()
    files = image.find(arguments.folder)
    random.Random(0).shuffle(files)
    data = [file.read_bytes() for file in files[: arguments.count]]
    reader = crnn.load(arguments.model)
    texts = [line.text for line in reader.read_batch(data)]
    if arguments.bare:
        bare(reader, data, min(10, arguments.seconds))
    if arguments.images == 1:
        load = Load(data, [[text] for text in texts], f"/read?model={arguments.model}")
    else:
        groups = [random.Random(i).sample(range(len(data)), arguments.images) for i in range(200)]
        encoded = [base64.b64encode(each).decode() for each in data]
        bodies = [json.dumps({"instances": [{"b64": encoded[i]} for i in group]}).encode() for group in groups]
        load = Load(bodies, [[texts[i] for i in group] for group in groups], f"/v1/models/{arguments.model}:predict")
    options = ["--model", arguments.model, "--max-batch", arguments.max_batch, "--max-wait-ms", arguments.max_wait_ms]
    queue = ["--max-queue", max(1024, arguments.clients * arguments.images)]
    with tempfile.TemporaryDirectory() as place:
        with serving(Path(place), *options, *queue, "--no-log-requests") as server:
            asyncio.run(run(load, server, arguments))
            if arguments.stop:
                print("exit status", server.process.wait(60))
        if arguments.stop:
            print("its last words:", [event["event"] for event in server.events])


if __name__ == "__main__":
    main()
