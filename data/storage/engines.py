"""Quay's storage engines by name: from an engine's parameters to the store that it means.

SwiftStorage is refused at start: obstore has no Swift, and Swift's own S3 gateway can be used in
its place (RadosGWStorage).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store
from pydantic import SecretStr, ValidationError

from data.errors import SettingsError
from data.storage.blobstore import BlobStore
from data.storage.cloud import CloudStorage, cause
from data.storage.local import LocalStorage
from data.storage.parameters import (
    AzureParameters,
    GoogleParameters,
    LocalParameters,
    MultiCdnParameters,
    Parameters,
    S3CompatibleParameters,
    S3Parameters,
    StsParameters,
)

if TYPE_CHECKING:
    from obstore.store import (
        AzureConfig,
        ClientConfig,
        RetryConfig,
        S3Config,
        S3Credential,
        S3CredentialProvider,
    )

P = TypeVar("P", bound=Parameters)

KEY = "DISTRIBUTED_STORAGE_CONFIG"
DEFAULT_REGION = "us-east-1"
GOOGLE_ENDPOINT = "https://storage.googleapis.com"
ROLE_SESSION_NAME = "quay-rescan"
# A store that throttles or restarts gets some seconds; one that is down is known within a minute,
# and the work goes back to be tried later anyhow.
RETRIES: RetryConfig = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
# `timeout` is for one whole request, a part or a blob that is read; a stalled one ends earlier.
TIMEOUTS: ClientConfig = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(minutes=15),
}


def open_store(location: str, engine: str, parameters: Mapping[str, object]) -> BlobStore:
    """The store of one location. Raises SettingsError naming the location and what is wrong."""
    builder = ENGINES.get(engine)
    if builder is None:
        raise SettingsError(KEY, f"location {location}: {engine} {unsupported(engine)}")
    try:
        return builder(location, parameters)
    except ValidationError as error:
        raise SettingsError(KEY, f"location {location}: {engine}: {problems(error)}") from None
    except (BaseError, ValueError) as error:
        raise SettingsError(KEY, f"location {location}: {engine}: {cause(error)}") from None


def unsupported(engine: str) -> str:
    if engine == "SwiftStorage":
        return (
            "is not supported by this program; reach the same container through Swift's S3 API, "
            "as RadosGWStorage"
        )
    return f"is no storage engine that this program knows; it knows {', '.join(ENGINES)}"


def problems(error: ValidationError) -> str:
    """Every wrong parameter by name; never its value, which may be a key."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        if problem["loc"]
        else problem["msg"]
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )


def local(location: str, parameters: Mapping[str, object]) -> BlobStore:
    return LocalStorage(location, LocalParameters.model_validate(parameters).storage_path)


def s3(location: str, parameters: Mapping[str, object]) -> BlobStore:
    given = S3Parameters.model_validate(parameters)
    config = s3_config(given.s3_bucket, s3_endpoint(given), given.s3_region)
    config |= keys(given.s3_access_key, given.s3_secret_key)
    # Quay has AWS encrypt what it stores, and a bucket's policy may insist on it.
    config["server_side_encryption"] = "AES256"
    return s3_store(location, config, given.storage_path)


def sts_s3(location: str, parameters: Mapping[str, object]) -> BlobStore:
    given = StsParameters.model_validate(parameters)
    config = s3_config(given.s3_bucket, s3_endpoint(given), given.s3_region)
    config["server_side_encryption"] = "AES256"
    if given.sts_user_access_key and given.sts_user_secret_key and given.sts_role_arn:
        provider = assumed_role(
            given.sts_role_arn,
            given.sts_user_access_key,
            given.sts_user_secret_key,
            config["region"],
        )
        return s3_store(location, config, given.storage_path, provider)
    if given.sts_role_arn:
        config["role_arn"] = given.sts_role_arn
        config["role_session_name"] = ROLE_SESSION_NAME
    if given.sts_web_identity_token_file:
        config["web_identity_token_file"] = given.sts_web_identity_token_file
    return s3_store(location, config, given.storage_path)


def s3_compatible(location: str, parameters: Mapping[str, object]) -> BlobStore:
    given = S3CompatibleParameters.model_validate(parameters)
    endpoint = endpoint_url(given.hostname, given.port, given.is_secure)
    config = s3_config(given.bucket_name, endpoint, given.region_name)
    config |= keys(given.access_key, given.secret_key)
    return s3_store(location, config, given.storage_path)


def google(location: str, parameters: Mapping[str, object]) -> BlobStore:
    given = GoogleParameters.model_validate(parameters)
    config = s3_config(given.bucket_name, GOOGLE_ENDPOINT, "auto")
    config |= keys(given.access_key, given.secret_key)
    return s3_store(location, config, given.storage_path)


def multi_cdn(location: str, parameters: Mapping[str, object]) -> BlobStore:
    return s3(location, MultiCdnParameters.model_validate(parameters).default_parameters())


def azure(location: str, parameters: Mapping[str, object]) -> BlobStore:
    given = AzureParameters.model_validate(parameters)
    account = given.azure_account_name
    endpoint = given.endpoint_url or f"https://{account}.blob.core.windows.net"
    config: AzureConfig = {
        "container_name": given.azure_container,
        "account_name": account,
        "endpoint": endpoint,
    }
    if given.azure_account_key:
        config["account_key"] = given.azure_account_key.get_secret_value()
    elif given.sas_token:
        config["sas_key"] = given.sas_token.get_secret_value()
    store = AzureStore(config=config, client_options=client_options(endpoint), retry_config=RETRIES)
    return CloudStorage(
        location,
        store,
        place=f"container {given.azure_container} at {shown(endpoint)}",
        prefix=given.storage_path,
        # A link made with a SAS token would hand out all that the token may do.
        presigns=given.azure_account_key is not None,
    )


def s3_store(
    location: str,
    config: S3Config,
    prefix: str,
    provider: S3CredentialProvider | None = None,
) -> BlobStore:
    endpoint = config.get("endpoint")
    store = S3Store(
        config=config,
        client_options=client_options(endpoint or ""),
        retry_config=RETRIES,
        credential_provider=provider,
    )
    where = f"at {shown(endpoint)}" if endpoint else f"in region {config['region']}"
    place = f"bucket {config['bucket']} {where}"
    return CloudStorage(location, store, place=place, prefix=prefix)


def s3_config(bucket: str, endpoint: str | None, region: str | None) -> S3Config:
    """Path-style requests everywhere, as boto makes them for an endpoint that is given."""
    config: S3Config = {"bucket": bucket, "region": region or aws_region(endpoint)}
    if endpoint:
        config["endpoint"] = endpoint
    return config


def s3_endpoint(given: S3Parameters | StsParameters) -> str | None:
    """None: AWS's own endpoint for the region."""
    if given.endpoint_url:
        return given.endpoint_url
    return endpoint_url(given.host, given.port, given.is_secure) if given.host else None


def endpoint_url(host: str, port: int | None, is_secure: bool) -> str:
    """Quay takes a host with or without scheme and port; a port in the host wins."""
    url = host if "://" in host else f"{'https' if is_secure else 'http'}://{host}"
    url = url.rstrip("/")
    return f"{url}:{port}" if port and urlsplit(url).port is None else url


def shown(url: str) -> str:
    """An endpoint as people may see it: without a user, a password or a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def aws_region(endpoint: str | None) -> str:
    """The region that an AWS host name tells (`s3.eu-west-1.amazonaws.com`), else the default."""
    told = re.search(r"//s3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com", endpoint or "")
    return told[1] if told else DEFAULT_REGION


def keys(access_key: SecretStr | None, secret_key: SecretStr | None) -> S3Config:
    if not (access_key and secret_key):
        return {}
    return {
        "access_key_id": access_key.get_secret_value(),
        "secret_access_key": secret_key.get_secret_value(),
    }


def assumed_role(
    role: str, access_key: SecretStr, secret_key: SecretStr, region: str
) -> S3CredentialProvider:
    """Credentials of a role, assumed anew whenever they are about to expire."""
    # Imported here: it costs start-up time that only this engine needs.
    import boto3  # type: ignore[import-untyped]
    from obstore.auth.boto3 import StsCredentialProvider

    session = boto3.session.Session(
        aws_access_key_id=access_key.get_secret_value(),
        aws_secret_access_key=secret_key.get_secret_value(),
        region_name=region,
    )
    assume = StsCredentialProvider(session, RoleArn=role, RoleSessionName=ROLE_SESSION_NAME)

    def credentials() -> S3Credential:
        credential = assume()
        if credential["expires_at"] is not None:
            # boto3 tells the time in dateutil's UTC, which obstore 0.12 refuses.
            credential["expires_at"] = credential["expires_at"].astimezone(UTC)
        return credential

    return credentials


def client_options(endpoint: str) -> ClientConfig:
    return {**TIMEOUTS, "allow_http": endpoint.startswith("http://")}


ENGINES: Mapping[str, Callable[[str, Mapping[str, object]], BlobStore]] = MappingProxyType(
    {
        "LocalStorage": local,
        "S3Storage": s3,
        "STSS3Storage": sts_s3,
        "CloudFrontedS3Storage": s3,
        "CloudFlareStorage": s3,
        "AkamaiS3Storage": s3,
        "MultiCDNStorage": multi_cdn,
        "RadosGWStorage": s3_compatible,
        "RHOCSStorage": s3_compatible,
        "IBMCloudStorage": s3_compatible,
        "GoogleCloudStorage": google,
        "AzureStorage": azure,
    }
)
