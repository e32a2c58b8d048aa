"""The parameters of each storage engine, with the names and defaults that Quay gives them.

They are the arguments of the engines' constructors in Quay 3.9 to 3.18 (storage/cloud.py,
storage/azurestorage.py, storage/local.py). Parameters that only say how Quay itself uploads or
serves (chunk sizes, a CDN's domain and keys) are let pass unread.
"""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator


def object_prefix(path: str) -> str:
    """A storage_path as the beginning of object names: Quay takes one leading slash off."""
    prefix = path.strip("/")
    if prefix and any(part in {"", ".", ".."} for part in prefix.split("/")):
        raise ValueError("has an empty, '.' or '..' part, which object names can't have")
    return prefix


def http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("is no URL such as https://s3.example.com:8443")
    return url


Name = Annotated[str, Field(min_length=1)]
Prefix = Annotated[str, AfterValidator(object_prefix)]
Url = Annotated[str, AfterValidator(http_url)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True)


class LocalParameters(Parameters):
    storage_path: Name


class S3Parameters(Parameters):
    """S3Storage and the CDN engines, which all have such a bucket behind them.

    Without keys the credentials come from the environment: variables, a web identity token, or the
    metadata service of the machine or container.
    """

    storage_path: Prefix
    s3_bucket: Name
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    s3_region: str | None = None
    host: str | None = None
    port: Port | None = None
    is_secure: bool = True
    endpoint_url: Url | None = None

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        if bool(self.s3_access_key) != bool(self.s3_secret_key):
            raise ValueError("s3_access_key and s3_secret_key are given together or not at all")
        return self


class StsParameters(Parameters):
    """STSS3Storage: a role assumed with a user's keys, or with a web identity token."""

    storage_path: Prefix
    s3_bucket: Name
    sts_role_arn: Name | None = None
    sts_user_access_key: SecretStr | None = None
    sts_user_secret_key: SecretStr | None = None
    sts_web_identity_token_file: Name | None = None
    s3_region: str | None = None
    host: str | None = None
    port: Port | None = None
    is_secure: bool = True
    endpoint_url: Url | None = None

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        if bool(self.sts_user_access_key) != bool(self.sts_user_secret_key):
            raise ValueError("sts_user_access_key and sts_user_secret_key are given together")
        if self.sts_user_access_key and not self.sts_role_arn:
            raise ValueError("sts_role_arn is missing: the role that these keys may assume")
        return self


class S3CompatibleParameters(Parameters):
    """RadosGWStorage, RHOCSStorage and IBMCloudStorage."""

    storage_path: Prefix
    hostname: Name
    is_secure: bool
    bucket_name: Name
    access_key: SecretStr
    secret_key: SecretStr
    port: Port | None = None
    region_name: str | None = None


class GoogleParameters(Parameters):
    """GoogleCloudStorage, with HMAC keys on Google's S3-compatible endpoint."""

    storage_path: Prefix
    bucket_name: Name
    access_key: SecretStr
    secret_key: SecretStr


class AzureParameters(Parameters):
    storage_path: Prefix
    azure_container: Name
    azure_account_name: Name
    azure_account_key: SecretStr | None = None
    sas_token: SecretStr | None = None
    endpoint_url: Url | None = None

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        if not (self.azure_account_key or self.sas_token):
            raise ValueError("azure_account_key or sas_token is needed")
        return self


class MultiCdnParameters(Parameters):
    """MultiCDNStorage: `storage_config` is the bucket behind all of its CDN providers."""

    storage_config: dict[str, object]
    providers: dict[str, tuple[str, dict[str, object]]]
    default_provider: str

    @model_validator(mode="after")
    def check_provider(self) -> Self:
        if self.default_provider not in self.providers:
            raise ValueError(f"default_provider {self.default_provider} is none of the providers")
        return self

    def default_parameters(self) -> dict[str, object]:
        """The parameters of the provider that writes, as Quay combines them."""
        return self.storage_config | self.providers[self.default_provider][1]
