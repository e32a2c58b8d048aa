"""A scanner that does nothing but answer, so that a benchmark measures us and not it.

Unlike the stand-in of `workers.demo` it reads no layer: every index call is answered 201 after
`--seconds`. Each arrival and each answer is a line on standard output, `+ <unix ns> <digest>` and
`- <unix ns> <digest>`, which `BenchScanner` reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STATE = "benchmark-1"
INDEX_PATH = b"/indexer/api/v1/index_report"


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the scanner's: an index call that came, or its answer."""

    arrived: bool
    at_ns: int  # unix time
    digest: str


@dataclass(slots=True)
class BenchScanner:
    """The scanner as a process, from the outside."""

    endpoint: str
    calls: queue.Queue[Call] = field(default_factory=queue.Queue)

    def next_call(self, seconds: float = 30) -> Call:
        """Raises `queue.Empty` when nothing was asked or answered for so long."""
        return self.calls.get(timeout=seconds)

    def wait_for_arrival(self, digest: str, seconds: float = 30) -> int:
        """When the index call for `digest` came (unix ns), passing over what came before it."""
        while True:
            call = self.next_call(seconds)
            if call.arrived and call.digest == digest:
                return call.at_ns

    def arrivals_of(self, digest: str) -> list[int]:
        """When the index calls for `digest` came (unix ns), of all that wasn't read so far."""
        calls = [self.calls.get_nowait() for _ in range(self.calls.qsize())]
        return [call.at_ns for call in calls if call.arrived and call.digest == digest]

    def forget(self) -> None:
        """Drops what came so far."""
        while not self.calls.empty():
            self.calls.get_nowait()


@contextmanager
def bench_scanner(seconds: float = 0) -> Iterator[BenchScanner]:
    """A scanner whose index calls take so many seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.scanner", "--seconds", str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    scanner = BenchScanner(f"http://127.0.0.1:{int(process.stdout.readline())}")

    def read() -> None:
        for line in process.stdout or ():
            sign, at_ns, digest = line.split()
            scanner.calls.put(Call(sign == "+", int(at_ns), digest))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield scanner
    finally:
        process.terminate()
        process.wait(30)
        reader.join(30)


class Connection(asyncio.Protocol):
    """One kept connection; requests come one after the other."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if separator and len(body) >= content_length(head):
            self.buffer = b""
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"POST " + INDEX_PATH + b" "):
            self.send(200, {"state": STATE})
            return
        digest = json.loads(body)["hash"]
        say("+", digest)
        report = {"manifest_hash": digest, "state": "IndexFinished", "success": True, "err": ""}

        def finish() -> None:
            say("-", digest)
            self.send(201, report)

        asyncio.get_running_loop().call_later(self.seconds, finish) if self.seconds else finish()

    def send(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} Benchmark\r\nContent-Type: application/json\r\n"
            f'ETag: "{STATE}"\r\nContent-Length: {len(body)}\r\n\r\n'
        )
        if self.transport is not None:
            self.transport.write(head.encode() + body)


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def say(sign: str, digest: str) -> None:
    sys.stdout.write(f"{sign} {time.time_ns()} {digest}\n")
    sys.stdout.flush()


async def serve(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(seconds), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scanner")
    parser.add_argument("--seconds", type=float, default=0.0, help="that an index call takes")
    asyncio.run(serve(parser.parse_args().seconds))
