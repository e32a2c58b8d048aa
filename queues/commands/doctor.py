"""`doctor`: is everything there that the workers need? One line each, with the mend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import typer
from redis.exceptions import RedisError

from data.errors import DatabaseUnavailable, DataError, SettingsError
from data.models import ALL_MODELS, NEWER_COLUMNS, database_proxy
from queues.commands.context import ConfigOption, Context, open_context
from queues.commands.output import EXIT_NOT_DONE, JsonOption, print_json, reported, say
from queues.errors import QueueError
from queues.wiring import build_layer_links, build_scanner, build_storage

OLDEST_REDIS = (6, 2)
# Tables of Quay's that only some of its features have.
OPTIONAL_TABLES = frozenset({"repositorynotification", "externalnotificationevent"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and what was found or is to be done."""

    check: str
    ok: bool
    words: str


@reported
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check configuration, database, Redis, storage and Clair."""
    context = open_context(config, with_database=True)
    findings = [Finding("configuration", True, "readable")]
    checks: list[tuple[str, Callable[[Context], str]]] = [
        ("database", lambda _: check_database()),
        ("schema", lambda _: check_schema()),
        ("redis", check_redis),
        ("storage", check_storage),
        ("layer links", check_layer_links),
        ("scanner", check_scanner),
    ]
    findings += [run_check(name, check, context) for name, check in checks]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:14} {finding.words}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(EXIT_NOT_DONE)


def run_check(name: str, check: Callable[[Context], str], context: Context) -> Finding:
    try:
        return Finding(name, True, check(context))
    except (DataError, QueueError) as error:
        return Finding(name, False, str(error))
    except RedisError as error:
        return Finding(name, False, f"{error}; check RESCAN_REDIS and that it runs")


def check_database() -> str:
    database_proxy.execute_sql("SELECT 1")
    return "answers"


def check_schema() -> str:
    """Every table and column that we read or write beside a Quay is there."""
    missing = []
    for model in ALL_MODELS:
        table = model._meta.table_name
        columns = {column.name for column in database_proxy.get_columns(table)}
        if not columns and table in OPTIONAL_TABLES:
            continue
        wanted = {field.column_name for field in model._meta.sorted_fields}
        wanted -= NEWER_COLUMNS.get(table, frozenset())
        missing += [f"{table}.{column}" for column in sorted(wanted - columns)]
    if missing:
        raise DatabaseUnavailable(
            f"{', '.join(missing[:5])} not there; "
            "is DB_URI Quay's database, migrated to 3.9 or newer?"
        )
    return f"{len(ALL_MODELS)} tables as expected"


def check_redis(context: Context) -> str:
    version = str(context.redis.info("server")["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        raise SettingsError("RESCAN_REDIS", f"is version {version}; 6.2 or newer is needed")
    return f"version {version}, {context.queue.depth().workers} rescan workers"


def check_storage(context: Context) -> str:
    """Writes a blob of a few bytes, the same each time, and reads it back."""
    storage = build_storage(context.settings)
    content = b"written by python -m queues doctor"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    store = storage.preferred
    with store.open_write(digest) as writer:
        writer.write(content)
        writer.commit()
    if b"".join(store.read(digest)) != content:
        raise SettingsError(
            "DISTRIBUTED_STORAGE_CONFIG", f"location {store.location} gives other bytes back"
        )
    return f"location {store.location} keeps what it is given"


def check_layer_links(context: Context) -> str:
    storage = build_storage(context.settings)
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    if storage.preferred.presign(digest, 60) is not None:
        return "the storage presigns"
    build_layer_links(context.settings, storage)
    key = context.settings.registry.service_key_path
    if context.settings.rescan.layer_server_url is None and not key.exists():
        raise SettingsError(
            "INSTANCE_SERVICE_KEY_LOCATION",
            f"{key} is not there, and this storage can't presign: Clair couldn't fetch a layer",
        )
    return "signed by the instance's key"


def check_scanner(context: Context) -> str:
    scanner = build_scanner(context.settings)
    return f"answers, its state is {scanner.index_state()}"
