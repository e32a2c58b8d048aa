"""The servers that stores are tested on: moto's S3, rclone's and Azurite, each on a free port."""

from __future__ import annotations

import os
import queue
import re
import ssl
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.npm import NODE, install

AZURITE_VERSION = "3.35.0"
SCRIPTS = Path(sysconfig.get_path("scripts"))
LOOPBACK = ip_address("127.0.0.1")
RCLONE_KEY, RCLONE_SECRET = "rclone", "a secret of the tests"
START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""

    path: Path
    key_path: Path


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a store of our own")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = Certificate(path=folder / "store.pem", key_path=folder / "store.key")
    certificate.path.write_bytes(signed.public_bytes(Encoding.PEM))
    certificate.key_path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return certificate


@contextmanager
def moto(certificate: Certificate | None = None) -> Iterator[str]:
    """moto's server for S3, IAM and STS, with TLS if a certificate is given; yields its URL."""
    command = [str(SCRIPTS / "moto_server"), "--host", "127.0.0.1", "--port", "0"]
    if certificate:
        command += ["--ssl-cert", str(certificate.path), "--ssl-key", str(certificate.key_path)]
    with running(command, r"Running on (https?://127\.0\.0\.1:\d+)") as url:
        yield url


@contextmanager
def sts_with_tls(certificate: Certificate, moto_url: str) -> Iterator[str]:
    """Hands STS requests on to moto, which takes those with a query for S3 requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = dict(parse_qsl(urlsplit(self.path).query))
            answer = requests.post(moto_url, data=form, verify=str(certificate.path), timeout=10)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *args: object) -> None:
            """Nothing: the test's own failures say enough."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """rclone's S3 server, where moto's is too slow; yields its URL.

    A bucket is a directory in `folder`. It checks signatures and what is sent against its sha256;
    of the files it has written it makes no further hashes, which no other server makes.
    """
    command = [
        *(str(SCRIPTS / "rclone"), "serve", "s3", str(folder), "--config", os.devnull),
        *("--addr", "127.0.0.1:0", "--auth-key", f"{RCLONE_KEY},{RCLONE_SECRET}"),
        *("--no-checksum", "--ignore-checksum", "--no-modtime"),
    ]
    with running(command, r"on \[(http://127\.0\.0\.1:\d+)/\]") as url:
        yield url


@contextmanager
def azurite() -> Iterator[str]:
    """Azurite's blob service, in memory; yields its URL without the account."""
    command = [
        str(NODE / "node"),
        str(install_azurite() / "dist/src/blob/main.js"),
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    with running(command, r"listens on (http://127\.0\.0\.1:\d+)") as url:
        yield url


def install_azurite() -> Path:
    """Raises `NpmUnavailable`."""
    return install("azurite", AZURITE_VERSION)


@contextmanager
def running(command: Sequence[str], ready: str) -> Iterator[str]:
    """Run a server until the block ends; yields what `ready` captures from its output."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: queue.Queue[str] = queue.Queue()
    # Reads on to the end, so that the server never blocks on a full pipe.
    reader = threading.Thread(target=read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield wait_for(ready, lines, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


def read_lines(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    with process.stdout or open(os.devnull) as output:
        for line in output:
            lines.put(line)


def wait_for(ready: str, lines: queue.Queue[str], process: subprocess.Popen[str]) -> str:
    seen: list[str] = []
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            seen.append(lines.get(timeout=0.2))
        except queue.Empty:
            if process.poll() is not None:
                break
            continue
        if found := re.search(ready, seen[-1]):
            return found[1]
    raise AssertionError(f"{process.args!r} didn't start: {''.join(seen)}")
