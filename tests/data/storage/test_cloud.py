"""What is special about buckets and containers: links, credentials, failures, forks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from data.errors import StorageUnavailable
from data.storage import BlobStore
from data.storage.cloud import cause
from tests.data.storage.servers import make_certificate, moto, sts_with_tls
from tests.data.storage.targets import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    BUCKET,
    REGION,
    WRONG_KEY,
    MotoAccount,
    Target,
    azure_target,
    open_moto_account,
    opened,
    s3_target,
)

# One process, for one server of each kind.
pytestmark = pytest.mark.xdist_group("cloud")
DIGEST = "sha256:" + "ab" * 32
LARGE = bytes(20 * 1024 * 1024)


@pytest.fixture
def s3(moto_account: MotoAccount) -> Iterator[Target]:
    target = s3_target(moto_account)
    yield target
    assert target.unfinished() == []


@pytest.fixture
def keys_checked(moto_account: MotoAccount) -> Iterator[None]:
    moto_account.check_keys(True)
    yield
    moto_account.check_keys(False)


def changed(target: Target, engine: str | None = None, /, **parameters: object) -> BlobStore:
    """The target's store with other parameters; None takes one out."""
    merged = {**target.config[1], **parameters}
    given = {name: value for name, value in merged.items() if value is not None}
    return opened((engine or target.config[0], given)).preferred


def write(store: BlobStore, content: bytes) -> None:
    with store.open_write(DIGEST) as writer:
        writer.write(content)
        writer.commit()


def expected_signature(link: str, secret_key: str) -> str:
    """AWS signature version 4 of a link, from AWS's description of it."""
    parts = urlsplit(link)
    query = dict(parse_qsl(parts.query))
    given = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
    canonical = "&".join(
        f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in sorted(given.items())
    )
    request = f"GET\n{parts.path}\n{canonical}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    scope = query["X-Amz-Credential"].split("/", 1)[1]
    hashed = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{hashed}"
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def test_s3_link_is_signed_for_this_blob_and_time(s3: Target, moto_account: MotoAccount) -> None:
    link = s3.store.presign(DIGEST, 90) or ""
    query = dict(parse_qsl(urlsplit(link).query))
    assert query["X-Amz-Expires"] == "90"
    assert query["X-Amz-Signature"] == expected_signature(link, moto_account.secret_key)


def test_azure_link_ends_when_it_says(azurite_url: str) -> None:
    store = azure_target(azurite_url).store
    end = dict(parse_qsl(urlsplit(store.presign(DIGEST, 90) or "").query))["se"]
    remaining = datetime.fromisoformat(end) - datetime.now(UTC)
    assert 80 < remaining.total_seconds() <= 90


def container_sas(permissions: str) -> str:
    """A service SAS for the container, signed as Azure describes it for version 2020-12-06."""
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    version, resource = "2020-12-06", "c"
    fields = [
        permissions,
        "",
        end,
        f"/blob/{AZURE_ACCOUNT}/{BUCKET}",
        "",
        "",
        "",
        version,
        resource,
    ]
    text = "\n".join([*fields, *[""] * 7])
    digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(digest).decode(), safe="")
    return f"sv={version}&sr={resource}&sp={permissions}&se={quote(end, safe='')}&sig={signature}"


def test_azure_sas_token_writes_but_never_becomes_a_link(azurite_url: str) -> None:
    target = azure_target(azurite_url)
    store = changed(target, azure_account_key=None, sas_token=container_sas("rcw"))
    write(store, LARGE)
    assert store.size(DIGEST) == len(LARGE)
    assert store.presign(DIGEST, 60) is None


@pytest.mark.parametrize(
    ("said", "cause_of_it"),
    [
        (
            "Generic MicrosoftAzure error: Error performing PUT http://a.example/c/b?sv=1&sig=abc "
            "in 2ms, after 3 retries - HTTP error: error sending request\n\nDebug source: sig=abc",
            "Generic MicrosoftAzure error: HTTP error: error sending request",
        ),
        (
            "Generic S3 error: error following https://s.example/b?X-Amz-Signature=abc now",
            "Generic S3 error: error following https://s.example/b now",
        ),
        (
            "Error performing GET http://s.example/b in 2ms - Server returned non-2xx status code: "
            "403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><StringToSign>AWS4 abc",
            "it answered 403 Forbidden (SignatureDoesNotMatch)",
        ),
        ("The role can't be assumed: <Error>abc</Error>", "The role can't be assumed"),
    ],
)
def test_cause_is_told_without_bodies_and_queries(said: str, cause_of_it: str) -> None:
    assert cause(OSError(said)) == cause_of_it


@pytest.mark.parametrize("down", [False, True])
def test_azure_sas_token_is_in_no_error(azurite_url: str, down: bool) -> None:
    token = container_sas("r")
    target = azure_target(azurite_url)
    parameters: dict[str, object] = {"azure_account_key": None, "sas_token": token}
    if down:
        parameters["endpoint_url"] = f"http://127.0.0.1:1/{AZURE_ACCOUNT}"
    store = changed(target, **parameters)
    reason = "up and reachable" if down else r"403 .*AuthorizationPermission"
    with pytest.raises(StorageUnavailable, match=reason) as raised:
        write(store, LARGE)
    shown = "".join(traceback.format_exception(raised.value)) + repr(store)
    assert token[-40:] not in shown
    assert "sig=" not in shown


@pytest.mark.usefixtures("keys_checked")
def test_sts_engine_assumes_the_role(
    s3: Target, moto_account: MotoAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_account.url)
    store = changed(s3, "STSS3Storage", **sts_parameters(moto_account))
    write(store, LARGE)
    assert s3.store.size(DIGEST) == len(LARGE)
    query = dict(parse_qsl(urlsplit(store.presign(DIGEST, 60) or "").query))
    assert query["X-Amz-Security-Token"]
    assert not query["X-Amz-Credential"].startswith(moto_account.access_key)


@pytest.mark.usefixtures("keys_checked")
def test_sts_engine_with_wrong_keys_says_so(
    s3: Target, moto_account: MotoAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_account.url)
    wrong = sts_parameters(moto_account) | {"sts_user_secret_key": WRONG_KEY}
    store = changed(s3, "STSS3Storage", **wrong)
    with pytest.raises(StorageUnavailable, match=r"AssumeRole.*check the keys") as raised:
        store.exists(DIGEST)
    assert WRONG_KEY not in "".join(traceback.format_exception(raised.value))


def sts_parameters(account: MotoAccount) -> dict[str, object]:
    return {
        "s3_access_key": None,
        "s3_secret_key": None,
        "sts_role_arn": account.role,
        "sts_user_access_key": account.access_key,
        "sts_user_secret_key": account.secret_key,
    }


def test_web_identity_token_opens_a_store_whose_certificate_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    token = tmp_path / "token"
    token.write_text("a token of the cluster's")
    with moto(certificate) as url, sts_with_tls(certificate, url) as sts_url:
        account = open_moto_account(url, str(certificate.path))
        target = s3_target(account)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts_url)
        parameters = sts_parameters(account) | {
            "sts_user_access_key": None,
            "sts_user_secret_key": None,
            "sts_web_identity_token_file": str(token),
        }
        with pytest.raises(StorageUnavailable, match="reachable"):
            write(changed(target, "STSS3Storage", **parameters), b"layer")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
        write(changed(target, "STSS3Storage", **parameters), b"layer")
        assert target.names() == ["sha256/ab/" + "ab" * 32]


def test_a_bucket_that_is_not_there_is_named_with_the_mend(s3: Target) -> None:
    store = changed(s3, s3_bucket="elsewhere")
    with pytest.raises(StorageUnavailable, match=r"bucket elsewhere.*\(NoSuchBucket\).*name of"):
        write(store, LARGE)


def test_a_store_that_is_down_is_said_within_seconds(s3: Target) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        store = changed(s3, endpoint_url=endpoint)
        started = time.monotonic()
        with pytest.raises(StorageUnavailable, match=f"{endpoint}.*up and reachable"):
            store.exists(DIGEST)
        assert time.monotonic() - started < 10


def test_a_writer_that_lost_a_part_never_commits(s3: Target) -> None:
    store = changed(s3, s3_bucket="elsewhere")
    with store.open_write(DIGEST) as writer:
        with pytest.raises(StorageUnavailable):
            writer.write(LARGE)
        with pytest.raises(StorageUnavailable, match="a part was not stored"):
            writer.commit()


def test_aws_encrypts_what_is_stored(s3: Target, moto_account: MotoAccount) -> None:
    write(s3.store, b"layer")
    prefix = str(s3.config[1]["storage_path"]).strip("/")
    key = f"{prefix}/sha256/ab/{DIGEST.removeprefix('sha256:')}"
    head = moto_account.client("s3").head_object(Bucket=BUCKET, Key=key)
    assert head["ServerSideEncryption"] == "AES256"
    assert REGION in (s3.store.presign(DIGEST, 60) or "")


def test_a_process_forked_too_late_fails_and_does_not_hang(s3: Target) -> None:
    store = s3.store
    assert not store.exists(DIGEST)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            store.exists(DIGEST)
        except StorageUnavailable as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as said:
        assert "was forked after its parent" in said.read()
    os.waitpid(child, 0)
