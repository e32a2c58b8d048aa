"""Quay's engines and their parameters: which store they mean, and what is refused at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from data.errors import SettingsError
from data.storage import open_storage
from data.storage.engines import ENGINES, endpoint_url, shown

DIGEST = "sha256:" + "ab" * 32
BLOB = "sha256/ab/" + "ab" * 32
SECRET = "a-secret-that-nobody-may-see"

S3 = {
    "storage_path": "/datastorage/registry",
    "s3_bucket": "images",
    "s3_access_key": "AKIAEXAMPLE",
    "s3_secret_key": SECRET,
}
RADOS = {
    "storage_path": "registry/",
    "hostname": "rgw.example.com",
    "is_secure": True,
    "bucket_name": "images",
    "access_key": "AKIAEXAMPLE",
    "secret_key": SECRET,
}
AZURE = {
    "storage_path": "/registry",
    "azure_container": "images",
    "azure_account_name": "quaystore",
    "azure_account_key": "c2VjcmV0LW9mLXRoZS1hY2NvdW50",
}
CDN = {"cloudfront_distribution_domain": "cdn.example.com", "cloudfront_key_id": "K1"}
MULTI_CDN = {
    "storage_config": S3 | {"s3_region": "eu-west-1"},
    "providers": {
        "one": ["CloudFlareStorage", {"cloudflare_domain": "one.example.com"}],
        "two": ["CloudFrontedS3Storage", CDN],
    },
    "default_provider": "two",
    "rules": [],
}

# Engine, parameters, and how a link to a blob begins.
LINKS = [
    ("S3Storage", S3, "https://s3.us-east-1.amazonaws.com/images/datastorage/registry/"),
    (
        "S3Storage",
        S3 | {"s3_region": "eu-west-1"},
        "https://s3.eu-west-1.amazonaws.com/images/datastorage/registry/",
    ),
    (
        "S3Storage",
        S3 | {"host": "s3.us-east-2.amazonaws.com"},
        "https://s3.us-east-2.amazonaws.com/images/datastorage/registry/",
    ),
    (
        "S3Storage",
        S3 | {"host": "s3.example.com", "port": "8443", "storage_path": ""},
        "https://s3.example.com:8443/images/",
    ),
    (
        "S3Storage",
        S3 | {"endpoint_url": "http://s3.example.com", "s3_region": "eu-west-1"},
        "http://s3.example.com/images/datastorage/registry/",
    ),
    (
        "CloudFrontedS3Storage",
        S3 | CDN | {"s3_region": "eu-west-1"},
        "https://s3.eu-west-1.amazonaws.com/images/datastorage/registry/",
    ),
    (
        "CloudFlareStorage",
        S3 | {"s3_region": "eu-west-1", "cloudflare_domain": "cdn.example.com"},
        "https://s3.eu-west-1.amazonaws.com/images/datastorage/registry/",
    ),
    (
        "AkamaiS3Storage",
        S3 | {"s3_region": "eu-west-1", "akamai_domain": "cdn.example.com"},
        "https://s3.eu-west-1.amazonaws.com/images/datastorage/registry/",
    ),
    (
        "MultiCDNStorage",
        MULTI_CDN,
        "https://s3.eu-west-1.amazonaws.com/images/datastorage/registry/",
    ),
    ("RadosGWStorage", RADOS, "https://rgw.example.com/images/registry/"),
    (
        "RHOCSStorage",
        RADOS | {"is_secure": "false", "port": 8080},
        "http://rgw.example.com:8080/images/registry/",
    ),
    (
        "IBMCloudStorage",
        RADOS | {"port": "443", "maximum_chunk_size_mb": 100},
        "https://rgw.example.com/images/registry/",
    ),
    (
        "GoogleCloudStorage",
        {name: RADOS[name] for name in RADOS if name not in {"hostname", "is_secure"}},
        "https://storage.googleapis.com/images/registry/",
    ),
    ("AzureStorage", AZURE, "https://quaystore.blob.core.windows.net/images/registry/"),
    (
        "AzureStorage",
        AZURE | {"endpoint_url": "https://quaystore.blob.core.usgovcloudapi.net"},
        "https://quaystore.blob.core.usgovcloudapi.net/images/registry/",
    ),
]


@pytest.mark.parametrize(("engine", "parameters", "beginning"), LINKS)
def test_engine_means_the_bucket_that_quay_uses(
    engine: str, parameters: Mapping[str, object], beginning: str
) -> None:
    store = open_storage({"here": (engine, parameters)}).preferred
    link = store.presign(DIGEST, 60) or ""
    assert link.split("?")[0] == beginning + BLOB
    assert store.location == "here"
    assert SECRET not in link + repr(store)


@pytest.mark.parametrize(
    ("engine", "parameters", "region"),
    [
        ("S3Storage", S3, "us-east-1"),
        ("S3Storage", S3 | {"host": "s3.us-east-2.amazonaws.com"}, "us-east-2"),
        ("S3Storage", S3 | {"host": "s3.example.com", "s3_region": "eu-west-1"}, "eu-west-1"),
        ("RadosGWStorage", RADOS, "us-east-1"),
        ("RadosGWStorage", RADOS | {"region_name": "lab"}, "lab"),
        ("GoogleCloudStorage", RADOS, "auto"),
    ],
)
def test_requests_are_signed_for_the_region_of_the_bucket(
    engine: str, parameters: Mapping[str, object], region: str
) -> None:
    store = open_storage({"here": (engine, parameters)}).preferred
    assert f"%2F{region}%2Fs3%2F" in (store.presign(DIGEST, 60) or "")


def test_every_engine_of_quays_is_known_or_refused_by_name(tmp_path: Path) -> None:
    tested = {engine for engine, _, _ in LINKS} | {"LocalStorage", "STSS3Storage"}
    assert tested == set(ENGINES)
    local = open_storage({"here": ("LocalStorage", {"storage_path": str(tmp_path)})})
    assert local.preferred.presign(DIGEST, 60) is None


def without(parameters: Mapping[str, object], name: str) -> dict[str, object]:
    return {each: parameters[each] for each in parameters if each != name}


@pytest.mark.parametrize(
    ("engine", "parameters", "problem"),
    [
        ("SwiftStorage", {"swift_container": "images"}, "SwiftStorage is not supported"),
        ("FakeStorage", {}, "FakeStorage is no storage engine.*LocalStorage"),
        ("LocalStorage", {}, "LocalStorage: storage_path: Field required"),
        ("LocalStorage", {"storage_path": ""}, "storage_path"),
        ("S3Storage", without(S3, "s3_bucket"), "s3_bucket: Field required"),
        ("S3Storage", without(S3, "s3_secret_key"), "s3_access_key and s3_secret_key"),
        ("S3Storage", S3 | {"port": "http"}, "port: .*integer"),
        ("S3Storage", S3 | {"storage_path": "/a//b"}, "storage_path: .*empty"),
        ("S3Storage", S3 | {"storage_path": "/a/../b"}, "storage_path: .*empty"),
        ("S3Storage", S3 | {"endpoint_url": "no url"}, "endpoint_url: .*no URL"),
        (
            "STSS3Storage",
            {"s3_bucket": "i", "storage_path": "r", "sts_user_access_key": "k"},
            "sts",
        ),
        (
            "STSS3Storage",
            {
                "s3_bucket": "images",
                "storage_path": "registry",
                "sts_user_access_key": "AKIAEXAMPLE",
                "sts_user_secret_key": SECRET,
            },
            "sts_role_arn is missing",
        ),
        ("RadosGWStorage", without(RADOS, "hostname"), "hostname: Field required"),
        ("GoogleCloudStorage", {"storage_path": "r"}, "bucket_name: .*access_key: .*secret_key"),
        ("AzureStorage", without(AZURE, "azure_account_key"), "azure_account_key or sas_token"),
        ("AzureStorage", AZURE | {"azure_account_key": "no base64!"}, "AzureStorage: "),
        ("MultiCDNStorage", MULTI_CDN | {"default_provider": "three"}, "default_provider three"),
        (
            "MultiCDNStorage",
            MULTI_CDN | {"storage_config": without(S3, "s3_bucket")},
            "s3_bucket: Field required",
        ),
    ],
)
def test_engine_that_cannot_be_used_is_refused_at_start(
    engine: str, parameters: Mapping[str, object], problem: str
) -> None:
    with pytest.raises(
        SettingsError, match=f"^DISTRIBUTED_STORAGE_CONFIG: location eu: .*{problem}"
    ) as raised:
        open_storage({"eu": (engine, parameters)})
    assert raised.value.key == "DISTRIBUTED_STORAGE_CONFIG"
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "port", "secure", "url"),
    [
        ("rgw.example.com", None, True, "https://rgw.example.com"),
        ("rgw.example.com/", 8080, False, "http://rgw.example.com:8080"),
        ("rgw.example.com:9000", 8080, True, "https://rgw.example.com:9000"),
        ("http://rgw.example.com", 8080, True, "http://rgw.example.com:8080"),
    ],
)
def test_host_and_port_become_one_address(
    host: str, port: int | None, secure: bool, url: str
) -> None:
    assert endpoint_url(host, port, secure) == url


def test_endpoint_is_shown_without_what_is_secret_in_it() -> None:
    assert shown("https://user:word@s3.example.com:9000/x?sig=1") == "https://s3.example.com:9000/x"
