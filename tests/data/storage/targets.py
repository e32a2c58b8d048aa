"""The storage engines that the contract is run on, each with a way to look behind the port."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
import obstore
import requests
from obstore.store import AzureStore

from data.storage import BlobStore, Storage, open_storage
from tests.data.storage.servers import RCLONE_KEY, RCLONE_SECRET, rclone

BUCKET = "quay"
REGION = "eu-west-1"
# Azurite's account is public knowledge: it is in its documentation.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
WRONG_KEY = base64.b64encode(b"a key that no server was ever told").decode()

EngineConfig = tuple[str, Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One engine. Names are paths below the bucket, container or directory."""

    engine: str
    config: EngineConfig
    refused_config: EngineConfig  # the same with keys or a path that the store refuses
    names: Callable[[], list[str]]
    unfinished: Callable[[], list[str]]
    clear_unfinished: Callable[[], None]

    @property
    def store(self) -> BlobStore:
        return opened(self.config).preferred

    @property
    def refused(self) -> BlobStore:
        return opened(self.refused_config).preferred


def opened(config: EngineConfig) -> Storage:
    return open_storage({"here": config}, ["here"])


def local_target(folder: Path) -> Target:
    root = folder / "registry"
    obstacle = folder / "obstacle"
    obstacle.write_text("a file where a directory should be")

    def names() -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def unfinished() -> list[str]:
        return [name for name in names() if name.startswith("uploads/")]

    def clear_unfinished() -> None:
        for name in unfinished():
            (root / name).unlink()

    return Target(
        engine="local",
        config=("LocalStorage", {"storage_path": str(root)}),
        refused_config=("LocalStorage", {"storage_path": str(obstacle)}),
        names=names,
        unfinished=unfinished,
        clear_unfinished=clear_unfinished,
    )


@dataclass(frozen=True, kw_only=True)
class S3Account:
    """A user of an S3 server who may use the bucket."""

    url: str
    access_key: str
    secret_key: str
    authority: str | None = None  # file of the certificate to trust, where the URL is https

    def client(self, service: str) -> Any:
        keys = {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
        }
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, verify=self.authority, **keys
        )


@dataclass(frozen=True, kw_only=True)
class MotoAccount(S3Account):
    """One who may assume a role as well."""

    role: str

    def check_keys(self, on: bool) -> None:
        """moto looks at keys and rights only when told to (and never at those of a link)."""
        count = b"0" if on else b"1000000000"
        requests.post(f"{self.url}/moto-api/reset-auth", data=count, timeout=10).raise_for_status()


def open_moto_account(url: str, authority: str | None = None) -> MotoAccount:
    root = MotoAccount(url=url, access_key="root", secret_key="root", role="", authority=authority)
    iam = root.client("iam")
    root.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    everything = policy(Action=["s3:*", "sts:*"], Resource="*")
    iam.create_user(UserName="quay")
    iam.put_user_policy(UserName="quay", PolicyName="all", PolicyDocument=everything)
    trust = policy(Principal={"AWS": "*"}, Action="sts:AssumeRole")
    role = iam.create_role(RoleName="quay", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName="quay", PolicyName="all", PolicyDocument=everything)
    key = iam.create_access_key(UserName="quay")["AccessKey"]
    return replace(
        root, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"], role=role
    )


@contextmanager
def rclone_account(folder: Path) -> Iterator[S3Account]:
    """Of a server that looks at every signature, those of links included, as moto's does not.

    Its bucket is a directory in `folder`.
    """
    (folder / BUCKET).mkdir()
    with rclone(folder) as url:
        yield S3Account(url=url, access_key=RCLONE_KEY, secret_key=RCLONE_SECRET)


def policy(**statement: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


def s3_target(account: S3Account, engine: str = "s3") -> Target:
    prefix = f"datastorage/{uuid4()}"
    client = account.client("s3")
    parameters = {
        "storage_path": f"/{prefix}",
        "s3_bucket": BUCKET,
        "s3_region": REGION,
        "endpoint_url": account.url,
        "s3_access_key": account.access_key,
        "s3_secret_key": account.secret_key,
    }

    def names() -> list[str]:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return sorted(each["Key"].removeprefix(f"{prefix}/") for each in found)

    def uploads() -> list[Any]:
        try:
            found = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        except client.exceptions.NoSuchUpload:  # rclone, for as long as there was never one
            return []
        return [each for each in found if each["Key"].startswith(prefix)]

    def clear_unfinished() -> None:
        for each in uploads():
            client.abort_multipart_upload(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"])

    return Target(
        engine=engine,
        config=("S3Storage", parameters),
        refused_config=("S3Storage", parameters | {"s3_secret_key": WRONG_KEY}),
        names=names,
        unfinished=lambda: [each["Key"] for each in uploads()],
        clear_unfinished=clear_unfinished,
    )


def azure_target(url: str) -> Target:
    """Blocks that were never committed can't be removed; Azure drops them after a week."""
    prefix = f"datastorage/{uuid4()}"
    endpoint = f"{url}/{AZURE_ACCOUNT}"
    parameters = {
        "storage_path": f"/{prefix}",
        "azure_container": BUCKET,
        "azure_account_name": AZURE_ACCOUNT,
        "azure_account_key": AZURE_KEY,
        "endpoint_url": endpoint,
    }
    container = AzureStore(
        container_name=BUCKET,
        account_name=AZURE_ACCOUNT,
        account_key=AZURE_KEY,
        endpoint=endpoint,
        client_options={"allow_http": True},
    )

    def names() -> list[str]:
        found = obstore.list(container, prefix).collect()
        return sorted(each["path"].removeprefix(f"{prefix}/") for each in found)

    return Target(
        engine="azure",
        config=("AzureStorage", parameters),
        refused_config=("AzureStorage", parameters | {"azure_account_key": WRONG_KEY}),
        names=names,
        unfinished=list,
        clear_unfinished=lambda: None,
    )


def create_azure_container(url: str) -> None:
    """`Create Container` signed with the account's key; obstore has no call for it."""
    account = f"/{AZURE_ACCOUNT}"
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "\n".join(
        [
            "PUT",
            *[""] * 11,
            *(f"{name}:{value}" for name, value in headers.items()),
            f"{account}{account}/{BUCKET}",
            "restype:container",
        ]
    )
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{signature}"
    target = f"{url}{account}/{BUCKET}?restype=container"
    requests.put(target, headers=headers, timeout=10).raise_for_status()
