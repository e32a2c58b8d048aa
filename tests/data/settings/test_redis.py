"""RESCAN_REDIS and USER_EVENTS_REDIS, and what redis-py makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from redis.sentinel import Sentinel

from data.errors import SettingsError
from data.settings import RedisSettings
from tests.data.settings.conftest import Read


def connection_kwargs(options: dict[str, Any]) -> dict[str, Any]:
    """What a connection of a client with these options is made with."""
    pool = Redis(**options).connection_pool
    made = pool.make_connection()
    return {"class": type(made).__name__, **pool.connection_kwargs}


def url_kwargs(redis: RedisSettings) -> dict[str, Any]:
    assert redis.url is not None
    pool = Redis.from_url(
        redis.url.get_secret_value(), **redis.connection_options()
    ).connection_pool
    pool.make_connection()
    kwargs: dict[str, Any] = pool.connection_kwargs
    return kwargs


def test_rescan_redis_is_user_events_redis_unless_set(read: Read) -> None:
    settings = read(USER_EVENTS_REDIS={"host": "events", "port": 6380, "password": "p"})
    assert settings.redis == settings.user_events_redis
    made = connection_kwargs(settings.redis.connection_options())
    assert (made["host"], made["port"], made["password"]) == ("events", 6380, "p")
    apart = read(USER_EVENTS_REDIS={"host": "events"}, RESCAN_REDIS={"host": "own"})
    assert apart.redis.host == "own"
    assert apart.user_events_redis is not None
    assert apart.user_events_redis.host == "events"


def test_a_mapping_with_tls(read: Read) -> None:
    redis = read(
        RESCAN_REDIS={
            "host": "redis",
            "ssl": True,
            "ssl_ca_certs": "/ca.pem",
            "ssl_cert_reqs": "required",
            "username": "quay",
            "password": 123456,
            "db": "2",
            "socket_timeout": 1.5,
        }
    ).redis
    made = connection_kwargs(redis.connection_options())
    assert made["class"] == "SSLConnection"
    assert (made["ssl_ca_certs"], made["ssl_cert_reqs"]) == ("/ca.pem", "required")
    assert (made["username"], made["password"], made["db"]) == ("quay", "123456", 2)
    assert made["socket_timeout"] == 1.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("redis://redis", {"host": "redis"}),
        ("redis://:p%40w@redis:6380/3", {"port": 6380, "password": "p@w", "db": 3}),
        ("rediss://quay:p@redis/1?ssl_cert_reqs=none", {"ssl_cert_reqs": "none", "db": 1}),
        ("redis://redis?db=4", {"db": 4}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("unix:///run/redis.sock?socket_keepalive=1", {"path": "/run/redis.sock"}),
        ({"url": "redis://redis:6380", "password": "p"}, {"port": 6380, "password": "p"}),
        ({"url": "rediss://redis", "ssl_ca_certs": "/ca.pem"}, {"ssl_ca_certs": "/ca.pem"}),
    ],
)
def test_a_url(read: Read, value: object, expected: dict[str, object]) -> None:
    assert url_kwargs(read(RESCAN_REDIS=value).redis).items() >= expected.items()


def test_quay_s_tls_options_without_tls_are_left_out(read: Read) -> None:
    events = {"url": "redis://events", "ssl_cert_reqs": "none"}
    assert "ssl_cert_reqs" not in url_kwargs(read(USER_EVENTS_REDIS=events).redis)


@pytest.mark.parametrize(
    "sentinels",
    [
        ["s-1:26380", "s-2"],
        [["s-1", 26380], ["s-2", 26379]],
    ],
)
def test_sentinels(read: Read, sentinels: object) -> None:
    redis = read(
        RESCAN_REDIS={
            "sentinels": sentinels,
            "service_name": "primary",
            "password": "p",
            "sentinel_password": "s",
            "ssl": True,
            "ssl_ca_certs": "/ca.pem",
        }
    ).redis
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(redis.sentinels),
        sentinel_kwargs=redis.sentinel_options(),
        **redis.connection_options(),
    )
    asked = [client.connection_pool.connection_kwargs for client in sentinel.sentinels]
    assert [(made["host"], made["port"]) for made in asked] == [("s-1", 26380), ("s-2", 26379)]
    assert asked[0]["password"] == "s"
    assert asked[0]["ssl_ca_certs"] == "/ca.pem"
    primary = sentinel.master_for(redis.service_name)  # type: ignore[no-untyped-call]
    primary.connection_pool.make_connection()
    assert primary.connection_pool.connection_kwargs["password"] == "p"


def test_the_engine_mapping_of_newer_quays(read: Read) -> None:
    engine = {"engine": "redis", "redis_config": {"host": "events", "port": 6380}}
    redis = read(USER_EVENTS_REDIS=engine).redis
    assert (redis.host, redis.port) == ("events", 6380)


def test_a_cluster_can_t_carry_the_queue_nor_quay_s_lock(read: Read) -> None:
    cluster = {"engine": "rediscluster", "redis_config": {"startup_nodes": [{"host": "a"}]}}
    with pytest.raises(SettingsError, match="USER_EVENTS_REDIS is a Redis Cluster") as caught:
        read(USER_EVENTS_REDIS=cluster)
    assert caught.value.key == "RESCAN_REDIS"
    with pytest.raises(SettingsError, match="names a Redis Cluster"):
        read(RESCAN_REDIS=cluster)
    settings = read(USER_EVENTS_REDIS=cluster, RESCAN_REDIS="redis://own")
    assert settings.user_events_redis is None


def test_options_that_only_quay_s_redis_knows_are_left_out(read: Read) -> None:
    events = {"host": "events", "charset": "utf-8", "ssl_cert_reqs": "none"}
    redis = read(USER_EVENTS_REDIS=events).redis
    assert redis.host == "events"
    assert connection_kwargs(redis.connection_options())["class"] == "Connection"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "should be a URL or a mapping"),
        ({}, "should be a URL or a mapping"),
        ({"engine": "redis"}, "should be a URL or a mapping"),
        ("", "should begin with redis://"),
        ("http://redis", "should begin with redis://"),
        ("redis://", "should name a host"),
        ("redis://redis:0", "port from 1 to 65535"),
        ("redis://redis:port", "isn't a URL"),
        ("redis://[redis", "isn't a URL"),
        ("redis://redis/one", "number of a database"),
        ("redis://redis?db=one", "db: should be a whole number"),
        ("redis://redis?hunter2=1", "unknown option after the"),
        ("redis://redis?ssl_cert_reqs=none", "write rediss://"),
        ("unix://", "should name a socket"),
        ({"host": "redis", "ssl_ca_certs": "/ca.pem"}, "sets ssl_ca_certs .* add ssl: true"),
        ({"url": "redis://redis", "ssl": True}, "sets ssl but uses no TLS"),
        ({"host": "redis", "pasword": "hunter2"}, "pasword is not an option"),
        ({"host": "redis", "port": "hunter2"}, "port: should be a whole number"),
        ({"host": "redis", "port": True}, "port: should be a number, not true or false"),
        ({"host": "redis", "ssl": True, "ssl_cert_reqs": "maybe"}, "'none', 'optional'"),
        ({"url": "redis://redis", "host": "redis"}, "sets both url and host; keep one"),
        ({"sentinels": ["s-1"]}, "no service_name"),
        ({"sentinels": "s-1", "service_name": "p"}, "sentinels: should be a list"),
        ({"sentinels": ["s-1:x"], "service_name": "p"}, "should be a whole number"),
        ({"sentinels": [5], "service_name": "p"}, "should be a list"),
    ],
)
def test_a_wrong_server_is_refused(read: Read, value: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(RESCAN_REDIS=value)
    assert caught.value.key == "RESCAN_REDIS"
    assert "hunter2" not in str(caught.value)
