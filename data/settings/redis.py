"""How to reach a Redis or Valkey server, in the form that Quay and redis-py share.

Only values: clients are made in `queues`, from `connection_options` and `sentinel_options`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from data.errors import SettingsError
from data.settings.reading import settings_error
from data.settings.values import Secret, Text, refuse_boolean, split_url

DEFAULT_SENTINEL_PORT = 26379
DATABASE_PATH = re.compile(r"/?|/[0-9]{1,6}")
PLACES = ("url", "sentinels", "unix_socket_path", "host")
URL_SCHEMES = ("redis", "rediss", "unix")
NO_CLUSTER = "RQ needs one server or its Sentinels, so name those"


def check_redis_url(value: SecretStr) -> SecretStr:
    parts = split_url(value.get_secret_value())
    if parts.scheme not in URL_SCHEMES:
        raise ValueError("should begin with redis://, rediss:// or unix://")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("should name a socket, as in unix:///run/redis.sock")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError("should name a host, as in redis://host:6379/0")
    if parts.scheme != "unix" and not DATABASE_PATH.fullmatch(parts.path):
        raise ValueError("should end in the number of a database, as in redis://host:6379/0")
    return value


def parse_sentinels(value: Any) -> Any:
    """`["host:26379", ...]`, or the `[[host, port], ...]` of redis-py."""
    if not isinstance(value, list | tuple):
        raise ValueError("should be a list such as [sentinel-1:26379, sentinel-2:26379]")
    return tuple(parse_sentinel(entry) for entry in value)


def parse_sentinel(entry: Any) -> Any:
    if isinstance(entry, str):
        host, colon, port = entry.rpartition(":")
        if not colon:
            return (entry, DEFAULT_SENTINEL_PORT)
        return (host.strip("[]"), port)
    return entry


Port = Annotated[int, BeforeValidator(refuse_boolean), Field(ge=1, le=65535)]
Timeout = Annotated[float, BeforeValidator(refuse_boolean), Field(gt=0, le=3600)]
RedisUrl = Annotated[Secret, AfterValidator(check_redis_url)]


class RedisSettings(BaseModel):
    """One server, by URL or by its parts, or the primary that Sentinel names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: RedisUrl | None = None
    host: Text = "localhost"
    port: Port = 6379
    db: Annotated[int, BeforeValidator(refuse_boolean), Field(ge=0, le=1_000_000)] = 0
    username: Text | None = None
    password: Secret | None = None
    unix_socket_path: Text | None = None
    ssl: bool = False
    ssl_ca_certs: Text | None = None
    ssl_ca_path: Text | None = None
    ssl_certfile: Text | None = None
    ssl_keyfile: Text | None = None
    ssl_password: Secret | None = None
    ssl_cert_reqs: Literal["none", "optional", "required"] | None = None
    ssl_check_hostname: bool | None = None
    socket_timeout: Timeout | None = None
    socket_connect_timeout: Timeout | None = None
    socket_keepalive: bool | None = None
    sentinels: Annotated[tuple[tuple[Text, Port], ...], BeforeValidator(parse_sentinels)] = ()
    service_name: Text | None = None
    sentinel_username: Text | None = None
    sentinel_password: Secret | None = None

    def connection_options(self) -> dict[str, Any]:
        """Keyword arguments for `redis.Redis`, `redis.Redis.from_url` (with a `url`) or, with
        `sentinels`, `redis.sentinel.Sentinel`: those that were set, secrets in the clear.
        """
        elsewhere = {"url", "sentinels", "service_name", "sentinel_username", "sentinel_password"}
        if self.sentinels or self.url or self.unix_socket_path:
            elsewhere |= {"host", "port"}
        if self.url:
            elsewhere |= {"ssl"}
            if self.url.get_secret_value().startswith("unix:"):
                elsewhere |= {"socket_keepalive"}
        if not self.uses_tls:
            elsewhere |= {name for name in RedisSettings.model_fields if name.startswith("ssl_")}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self
            if name not in elsewhere and value is not None
        }

    @property
    def uses_tls(self) -> bool:
        if self.url is None:
            return self.ssl
        return self.url.get_secret_value().startswith("rediss://")

    def sentinel_options(self) -> dict[str, Any]:
        """`sentinel_kwargs` of `redis.sentinel.Sentinel`: credentials and TLS of the Sentinels."""
        options = {k: v for k, v in self.connection_options().items() if k.startswith("ssl")}
        if self.sentinel_username is not None:
            options["username"] = self.sentinel_username
        if self.sentinel_password is not None:
            options["password"] = self.sentinel_password.get_secret_value()
        return options


def read_rescan_redis(config: Mapping[str, Any]) -> RedisSettings:
    """RESCAN_REDIS, else USER_EVENTS_REDIS. Raises SettingsError, also for a Redis Cluster."""
    value = config.get("RESCAN_REDIS")
    if value is not None:
        if is_cluster(value):
            raise SettingsError("RESCAN_REDIS", f"names a Redis Cluster; {NO_CLUSTER}")
        return checked_redis(value)
    redis = read_user_events_redis(config)
    if redis is None:
        raise SettingsError(
            "RESCAN_REDIS", f"is missing, and USER_EVENTS_REDIS is a Redis Cluster; {NO_CLUSTER}"
        )
    return redis


def checked_redis(value: Any) -> RedisSettings:
    """RESCAN_REDIS, without what Quay forgives in its own mapping."""
    redis = read_redis("RESCAN_REDIS", redis_options("RESCAN_REDIS", value))
    tls = {name for name in redis.model_fields_set if name.startswith("ssl_")}
    if (tls or redis.ssl) and not redis.uses_tls:
        mend = "write rediss:// in the URL" if redis.url else "add ssl: true"
        raise SettingsError(
            "RESCAN_REDIS", f"sets {min(tls, default='ssl')} but uses no TLS; {mend}"
        )
    return redis


def read_user_events_redis(config: Mapping[str, Any]) -> RedisSettings | None:
    """USER_EVENTS_REDIS; None for a cluster, where Quay's lock on a blob can't be taken.

    Options that only Quay's own redis-py knows are left out. Raises SettingsError.
    """
    value = config.get("USER_EVENTS_REDIS")
    if value is None:
        return RedisSettings()
    if is_cluster(value):
        return None
    options = redis_options("USER_EVENTS_REDIS", value)
    known = {name: v for name, v in options.items() if name in RedisSettings.model_fields}
    return read_redis("USER_EVENTS_REDIS", known)


def is_cluster(value: Any) -> bool:
    return isinstance(value, Mapping) and str(value.get("engine")).lower() == "rediscluster"


def redis_options(key: str, value: Any) -> dict[str, Any]:
    """The options out of a URL, a mapping, or the `{engine, redis_config}` of newer Quays."""
    if isinstance(value, Mapping) and "engine" in value:
        value = value.get("redis_config")
    if isinstance(value, str):
        return url_options(key, value)
    if not isinstance(value, Mapping) or not value:
        raise SettingsError(
            key, "should be a URL or a mapping such as {host: redis.example, port: 6379}"
        )
    options = {str(name): option for name, option in value.items() if option is not None}
    if isinstance(options.get("url"), str):
        options |= url_options(key, options["url"])
    return options


def url_options(key: str, url: str) -> dict[str, Any]:
    """The URL, and the options of its query under their own names, as redis-py has it."""
    try:
        parts = split_url(url)
    except ValueError as error:
        raise SettingsError(key, str(error)) from None
    options = dict(parse_qsl(parts.query))
    if not options.keys() <= RedisSettings.model_fields.keys():
        # Not named in the message: after an unescaped ? it may be the rest of a password.
        raise SettingsError(
            key, "has an unknown option after the ?; take it out, or write ? in a password as %3F"
        )
    return {"url": url.partition("?")[0], **options}


def read_redis(key: str, options: dict[str, Any]) -> RedisSettings:
    try:
        redis = RedisSettings.model_validate(options)
    except ValidationError as error:
        raise settings_error(error, key) from None
    places = [name for name in PLACES if name in redis.model_fields_set]
    if len(places) > 1:
        raise SettingsError(key, f"sets both {places[0]} and {places[1]}; keep one of them")
    if redis.sentinels and not redis.service_name:
        raise SettingsError(key, "has sentinels but no service_name; name the primary they watch")
    return redis
