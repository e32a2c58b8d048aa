"""Makes Redis clients from settings. Nothing else in the project calls redis.Redis()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from data.settings import RedisSettings

# Together some 60 s of trying: a worker in the middle of a job must outlive a restart of Redis.
# Measured with RQ 3.0.0: with redis-py's default, 25 s without Redis end every worker class.
RETRIES = 15
BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 30


class PatienceUntilStopped(ExponentialBackoff):
    """Waits as its base does, and no more once `hurry` says that the worker is to end."""

    def __init__(self, hurry: Callable[[], bool]) -> None:
        super().__init__(cap=BACKOFF_CAP_SECONDS, base=BACKOFF_BASE_SECONDS)
        self.hurry = hurry

    def compute(self, failures: int) -> float:
        return 0.0 if self.hurry() else super().compute(failures)


def never() -> bool:
    return False


def open_redis(
    settings: RedisSettings, *, patient: bool = True, hurry: Callable[[], bool] = never
) -> Redis:
    """A client with a pool of connections; nothing is sent yet.

    `patient` (for workers) goes on trying while Redis restarts, but waits no longer between two
    tries once `hurry` is true; a person wants to hear at once.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 5.0,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        **settings.connection_options(),
    }
    attempts = RETRIES if patient else 1
    options["retry"] = Retry(PatienceUntilStopped(hurry), attempts)
    if settings.sentinels:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(settings.sentinels), sentinel_kwargs=settings.sentinel_options(), **options
        )
        service = settings.service_name or "mymaster"
        primary: Redis = sentinel.master_for(service)  # type: ignore[no-untyped-call]
        return primary
    if settings.url is not None:
        return Redis.from_url(settings.url.get_secret_value(), **options)
    return Redis(**options)
