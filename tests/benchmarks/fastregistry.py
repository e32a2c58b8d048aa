"""An upstream registry that is no bottleneck: nothing but blobs, over kept connections.

Run as a process of its own, so that it takes nothing from the interpreter that is measured. A large
blob is one piece of random bytes over and over, sent by the kernel from memory (sendfile); the
small ones repeat their number. Nothing but the GET of a blob is understood, and nobody logs in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

MIB = 1024 * 1024
PIECE_BYTES = 4 * MIB
SMALL_BYTES = 10 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class FastRegistry:
    """Where it listens (host:port), and the digests of its large blobs, by MiB, and small ones."""

    address: str
    large: dict[int, str]
    small: list[str]


@contextmanager
def running_registry(
    *, large_mib: Sequence[int] = (), small: int = 0, delay: float = 0.0
) -> Iterator[FastRegistry]:
    """A registry of large blobs of whole PIECE_BYTES and of `small` blobs of SMALL_BYTES.

    It answers after `delay` seconds, as one does that is further away.
    """
    program = [sys.executable, "-m", "tests.benchmarks.fastregistry"]
    options = ["--small", str(small), "--delay", str(delay), *map(str, large_mib)]
    with subprocess.Popen([*program, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            large = dict(zip(large_mib, told["large"], strict=True))
            yield FastRegistry(told["address"], large, told["small"])
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Blobs:
    """What it has, by digest: small blobs, and of how many pieces a large one is."""

    piece: int  # a file in memory, as its descriptor
    small: dict[str, bytes]
    large: dict[str, int]

    @classmethod
    def made(cls, large_mib: Sequence[int], small: int) -> Self:
        content, piece = os.urandom(PIECE_BYTES), os.memfd_create("piece")
        os.write(piece, content)
        every = [number.to_bytes(8, "big") * (SMALL_BYTES // 8) for number in range(small)]
        pieces = [each * MIB // PIECE_BYTES for each in large_mib]
        return cls(
            piece,
            {digest_of([each]): each for each in every},
            {digest_of([content] * count): count for count in pieces},
        )

    def send(self, digest: str, to: socket.socket) -> None:
        if digest in self.small:
            content = self.small[digest]
            to.sendall(OK % len(content) + content)
        elif digest in self.large:
            to.sendall(OK % (self.large[digest] * PIECE_BYTES))
            for _ in range(self.large[digest]):
                self.send_piece(to)
        else:
            to.sendall(NOT_FOUND)

    def send_piece(self, to: socket.socket) -> None:
        sent = 0
        while sent < PIECE_BYTES:
            sent += os.sendfile(to.fileno(), self.piece, sent, PIECE_BYTES - sent)


def digest_of(pieces: Sequence[bytes]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


def answer(blobs: Blobs, connection: socket.socket, delay: float) -> None:
    """Answers the requests of one connection until the other side ends it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    # Whoever asked may have gone meanwhile.
    with connection, suppress(ConnectionError):
        while received := connection.recv(65536):
            *requests, waiting = (waiting + received).split(b"\r\n\r\n")
            for request in requests:
                time.sleep(delay)
                path = request.split(b" ", 2)[1].decode()
                blobs.send(path.rpartition("/")[2], connection)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fastregistry")
    parser.add_argument("--small", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("large_mib", type=int, nargs="*")
    options = parser.parse_args()
    blobs = Blobs.made(options.large_mib, options.small)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        told = {"address": address, "large": list(blobs.large), "small": list(blobs.small)}
        print(json.dumps(told), flush=True)
        while True:
            connection, _ = listener.accept()
            arguments = (blobs, connection, options.delay)
            threading.Thread(target=answer, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
