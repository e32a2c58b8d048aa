"""`doctor`: is everything there that the workers need? One line each, with the mend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import requests
import typer
from redis.exceptions import RedisError

from data.errors import DatabaseUnavailable, DataError, SettingsError, StorageUnavailable
from data.models import ALL_MODELS, NEWER_COLUMNS, database_proxy
from data.secscan.layers import LayerLocation
from queues.commands.context import ConfigOption, Context, open_context
from queues.commands.output import (
    EXIT_NOT_DONE,
    JsonOption,
    one_line,
    print_json,
    reported,
    say,
)
from queues.errors import QueueError
from queues.wiring import build_layer_links, build_scanner, build_storage

OLDEST_REDIS = (6, 2)
# Tables of Quay's that only some of its features have.
OPTIONAL_TABLES = frozenset({"repositorynotification", "externalnotificationevent"})
# What is written to storage: the same few bytes each time, so the same blob.
CONTENT = b"written by python -m queues doctor"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
LINK_SECONDS = 10


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
        return Finding(name, False, one_line(str(error)))
    except RedisError as error:
        return Finding(name, False, f"{one_line(str(error))}; check RESCAN_REDIS and that it runs")


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
    store = build_storage(context.settings).preferred
    with store.open_write(DIGEST) as writer:
        writer.write(CONTENT)
        writer.commit()
    if b"".join(store.read(DIGEST)) != CONTENT:
        raise SettingsError(
            "DISTRIBUTED_STORAGE_CONFIG", f"location {store.location} gives other bytes back"
        )
    return f"location {store.location} keeps what it is given"


def check_layer_links(context: Context) -> str:
    """Has a link made to what `check_storage` wrote, and follows it as Clair would.

    A link to the registry is made only: the registry knows no blob that no manifest names.
    """
    storage = build_storage(context.settings)
    location = build_layer_links(context.settings, storage).locate("doctor", "doctor", DIGEST)
    if storage.preferred.presign(DIGEST, LINK_SECONDS) is not None:
        follow(location, "DISTRIBUTED_STORAGE_CONFIG")
        return "the storage presigns, and its link can be followed from here"
    if context.settings.rescan.layer_server_url is not None:
        follow(location, "RESCAN_LAYER_SERVER_URL")
        return "the layer server's link can be followed from here"
    return f"to {context.settings.registry.server_hostname}, signed by the instance's key"


def follow(location: LayerLocation, key: str) -> None:
    """Raises `StorageUnavailable`, without the link: whoever has it may read the layer."""
    headers = {name: ", ".join(values) for name, values in location.headers.items()}
    try:
        answer = requests.get(location.uri, headers=headers, timeout=LINK_SECONDS)
    except requests.RequestException as error:
        problem = f"can't be followed from here ({type(error).__name__})"
    else:
        if answer.ok and answer.content == CONTENT:
            return
        problem = f"is answered with {answer.status_code}, not with the layer"
    raise StorageUnavailable(
        f"the link to a layer {problem}; check the address and keys in {key}, "
        "and that Clair can reach it"
    )


def check_scanner(context: Context) -> str:
    scanner = build_scanner(context.settings)
    return f"answers, its state is {scanner.index_state()}"
