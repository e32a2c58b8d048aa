"""Health, metrics, the rescan API and the page, on RESCAN_OPS_LISTEN.

Every answer comes from bounded reads of Redis and from what a thread last read of the database, so
it takes milliseconds at a million jobs and says so when one of the two is away. Other workers idle
while this Quay may not be written to; this one serves on and says why, but changes nothing.
"""

from __future__ import annotations

import socket
import sys
import threading

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from data.errors import SettingsError
from data.settings import ListenAddress, Settings, WorkerType
from queues.commands.context import Context
from queues.metricstore import MetricStore
from workers.ops.app import build_app
from workers.ops.authentication import Authentication
from workers.ops.context import Ops
from workers.ops.exposition import Gauges, Totals
from workers.ops.history import Sampler
from workers.ops.readings import RedisReader
from workers.ops.watcher import Watcher
from workers.process import Process, idle_reason, run_worker
from workers.wiring import build_database, build_queue, build_quick_redis, pushing_metrics

log = structlog.get_logger()

# Answers under way when a stop is asked for get so long.
GRACE_SECONDS = 5
LOOK_SECONDS = 1.0


def build_ops(settings: Settings, watcher: Watcher) -> Ops:
    build_database(settings)
    redis = build_quick_redis(settings)
    context = Context(
        settings=settings,
        redis=redis,
        queue=build_queue(settings, redis),
        backfill=build_queue(settings, redis, backfill=True),
    )
    store, reader = MetricStore(redis, settings.rescan.queue_name), RedisReader()
    token = settings.rescan.ops_token
    registry = CollectorRegistry()
    ops = Ops(
        context=context,
        store=store,
        reader=reader,
        watcher=watcher,
        authentication=Authentication(token.get_secret_value() if token else None),
        registry=registry,
        idle=idle_reason(settings, WorkerType.OPS),
    )
    registry.register(Totals(store=store, reader=reader))
    registry.register(gauges_of(ops))
    return ops


def gauges_of(ops: Ops) -> Gauges:
    return Gauges(
        queue=ops.queue,
        backfill=ops.backfill,
        store=ops.store,
        reader=ops.reader,
        watcher=ops.watcher,
    )


def listen(address: ListenAddress) -> socket.socket:
    """A listening socket. Raises `SettingsError` when the address can't be had."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except OSError as error:
        raise SettingsError(
            "RESCAN_OPS_LISTEN",
            f"can't listen on {address.host} port {address.port}: {error.strerror or error}",
        ) from error


class Serving:
    """The HTTP server, in a thread of its own: the main thread waits for signals."""

    def __init__(self, ops: Ops, listener: socket.socket) -> None:
        config = uvicorn.Config(
            build_app(ops),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=200,
        )
        self.listener = listener
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.run, name="http", daemon=True)

    def run(self) -> None:
        self.server.run(sockets=[self.listener])

    def __enter__(self) -> Serving:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.should_exit = True
        self.thread.join(GRACE_SECONDS + 2)
        self.listener.close()


def work(process: Process) -> None:
    settings = process.settings
    with listen(settings.rescan.ops_listen) as listener:
        watcher = Watcher(settings.registry.blob_queue_name)
        ops = build_ops(settings, watcher)
        gauges = CollectorRegistry()
        gauges.register(gauges_of(ops))
        if ops.idle is not None:
            log.warning("workers idle", reason=ops.idle)
        with (
            watcher,
            Sampler(ops.queue, ops.store, ops.reader) as sampler,
            pushing_metrics(settings, gauges, "opsserver"),
            Serving(ops, listener) as serving,
        ):
            host, port = listener.getsockname()[:2]
            log.info("worker ready", address=f"{host}:{port}")
            while not process.burst and not process.stop.wait(LOOK_SECONDS):
                check_alive(watcher.thread, sampler.thread, serving.thread)


def check_alive(*threads: threading.Thread) -> None:
    """Ends the process when a part of it died of a fault: better started anew than half alive."""
    for thread in threads:
        if not thread.is_alive():
            raise RuntimeError(f"the thread {thread.name} ended by itself; the log says why")


def main() -> int:
    return run_worker(WorkerType.OPS, "Serves health, metrics, the rescan API and the page.", work)


if __name__ == "__main__":
    sys.exit(main())
