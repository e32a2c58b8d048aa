from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from data.secscan.connections import KeptConnections, closed_while_kept
from tests.answering import AnsweringServer, Canned, ScriptedServer, http_answer, reset

Script = Callable[[ScriptedServer, socket.socket], None]


def session() -> requests.Session:
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, KeptConnections())
    return made


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "clair.test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "clair.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return path


def answer_then(after: Script) -> Script:
    """Answer one request, read the next, and go on with `after`."""

    def script(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(http_answer(b"first"))
        server.read_request(connection)
        after(server, connection)

    return script


def drip(content: bytes, interval: float = 0.02) -> Script:
    def script(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)
        pause = threading.Event()
        for byte in content:
            connection.sendall(bytes([byte]))
            pause.wait(interval)

    return script


def test_connection_is_kept_between_requests() -> None:
    def second(_: ScriptedServer, connection: socket.socket) -> None:
        connection.sendall(http_answer(b"second"))

    with ScriptedServer(answer_then(second)) as server, session() as client:
        assert client.get(server.url).content == b"first"
        assert client.get(server.url).content == b"second"
        assert server.connections == 1


def test_connection_is_kept_over_tls_too(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        AnsweringServer({"/": Canned(body=b"over tls")}, tls=context) as server,
        session() as client,
    ):
        with pytest.raises(requests.exceptions.SSLError):
            client.get(server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert [client.get(server.url).content for _ in range(2)] == [b"over tls"] * 2
        first, second = server.seen
        assert first.port == second.port


def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = "http://clair.test:6060/state"
    with AnsweringServer({url: Canned(body=b"by proxy")}) as proxy, session() as client:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert [client.get(url).content for _ in range(2)] == [b"by proxy"] * 2
        first, second = proxy.seen
        assert first.port == second.port


@pytest.mark.parametrize(
    "ending",
    [lambda _, connection: connection.close(), lambda _, connection: reset(connection)],
    ids=["closed", "reset"],
)
def test_kept_connection_that_ends_without_an_answer_is_told_apart(ending: Script) -> None:
    with ScriptedServer(answer_then(ending)) as server, session() as client:
        assert client.get(server.url).content == b"first"
        with pytest.raises(requests.ConnectionError) as caught:
            client.get(server.url)
        assert closed_while_kept(caught.value)


def test_kept_connection_that_ends_within_an_answer_is_not_repeatable() -> None:
    def begin(_: ScriptedServer, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 20")

    with ScriptedServer(answer_then(begin)) as server, session() as client:
        assert client.get(server.url).content == b"first"
        with pytest.raises(requests.RequestException) as caught:
            client.get(server.url)
        assert not closed_while_kept(caught.value)


def test_kept_connection_that_is_reset_within_an_answer_is_not_repeatable() -> None:
    def begin(_: ScriptedServer, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        threading.Event().wait(0.1)  # for the client to read it
        reset(connection)

    with ScriptedServer(answer_then(begin)) as server, session() as client:
        assert client.get(server.url).content == b"first"
        with pytest.raises(requests.RequestException) as caught:
            client.get(server.url)
        assert not closed_while_kept(caught.value)


def test_new_connection_that_ends_without_an_answer_is_not_repeatable() -> None:
    def hang_up(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)

    with ScriptedServer(hang_up) as server, session() as client:
        with pytest.raises(requests.ConnectionError) as caught:
            client.get(server.url)
        assert not closed_while_kept(caught.value)


@pytest.mark.parametrize(
    "content",
    [http_answer(b"", f"X-Long: {'x' * 2000}"), http_answer(b"x" * 2000)],
    ids=["headers", "body"],
)
def test_time_out_bounds_the_whole_answer(content: bytes) -> None:
    # 2,000 bytes, one every 20 ms: 40 s, and no single read waits for the 0.3 s.
    with ScriptedServer(drip(content)) as server, session() as client:
        began = time.monotonic()
        with pytest.raises(requests.RequestException):
            _ = client.get(server.url, timeout=0.3).content
        assert time.monotonic() - began < 20


def test_silence_after_a_slow_start_is_part_of_the_time_out() -> None:
    def stall(server: ScriptedServer, connection: socket.socket) -> None:
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 20, interval=0.12)(server, connection)
        connection.recv(1)

    with ScriptedServer(stall) as server, session() as client:
        began = time.monotonic()
        with pytest.raises(requests.RequestException):
            client.get(server.url, timeout=5)
        assert time.monotonic() - began < 9


def test_rest_of_an_answer_that_is_read_too_late_is_an_error_of_requests() -> None:
    def halves(server: ScriptedServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(http_answer(b"12345678")[:-4])
        server.read_request(connection)

    with (
        ScriptedServer(halves) as server,
        session() as client,
        client.get(server.url, timeout=1.5, stream=True) as response,
    ):
        threading.Event().wait(1.6)
        with pytest.raises(requests.RequestException):
            _ = response.content


def test_time_out_starts_anew_with_each_request() -> None:
    def second(_: ScriptedServer, connection: socket.socket) -> None:
        threading.Event().wait(2)
        connection.sendall(http_answer(b"second"))

    with ScriptedServer(answer_then(second)) as server, session() as client:
        client.get(server.url, timeout=1.5)
        assert client.get(server.url, timeout=30).content == b"second"
        assert server.connections == 1
