"""What Quay tells people after a first index: one `vulnerability_found` a vulnerability and wish.

Quay spawns these in its security worker; since ours was faster, it never will, so we do. The items
go on Quay's notification queue in Quay's form, and Quay's notification worker sends them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peewee import ModelSelect

from data.database import fetch_rows
from data.manifest_records import ManifestRecord
from data.models import ExternalNotificationEvent, RepositoryNotification, Tag
from data.secscan.reports import Severity, Vulnerability, VulnerabilityReport
from data.statements import Statement

EVENT = "vulnerability_found"
# Quay names a manifest by its tags, up to this many.
MOST_TAGS = 100
# Characters. MySQL's TEXT takes 64 KiB, and an item is written in the transaction that completes
# the manifest, so one that is too long would keep it from ever being COMPLETED.
LONGEST_DESCRIPTION = 4_000
SEVERITIES = list(Severity)  # mildest first


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAddress:
    """PREFERRED_URL_SCHEME and SERVER_HOSTNAME."""

    scheme: str
    hostname: str


@dataclass(frozen=True, slots=True)
class Notification:
    """An item for Quay's notification queue: the path of its name, and its body."""

    path: tuple[str, ...]
    body: dict[str, Any]


def find_wishes(repository_id: int) -> list[str]:
    """The uuids of the repository's notifications of this event. One statement."""
    return [str(row[0]) for row in WISHES.rows(repository_id)]


def select_wishes(repository_id: Any) -> ModelSelect[RepositoryNotification]:
    return (
        RepositoryNotification.select(RepositoryNotification.uuid)
        .join(
            ExternalNotificationEvent,
            on=(ExternalNotificationEvent.id == RepositoryNotification.event_id),
        )
        .where(
            (RepositoryNotification.repository_id == repository_id)
            & (ExternalNotificationEvent.name == EVENT)
        )
    )


WISHES = Statement(select_wishes)


def find_tags(manifest_id: int) -> list[str]:
    """The manifest's tags that are alive and not hidden, MOST_TAGS at most. One statement."""
    now_ms = int(time.time() * 1000)
    alive = Tag.lifetime_end_ms.is_null() | (Tag.lifetime_end_ms > now_ms)
    query = (
        Tag.select(Tag.name)
        .where((Tag.manifest_id == manifest_id) & alive & ~Tag.hidden)
        .order_by(Tag.id)
        .limit(MOST_TAGS)
    )
    return [str(row[0]) for row in fetch_rows(query)]


def build_notifications(
    record: ManifestRecord,
    report: VulnerabilityReport,
    minimum: Severity,
    *,
    wishes: Sequence[str],
    tags: Sequence[str],
    address: RegistryAddress,
) -> list[Notification]:
    """One notification a wish and vulnerability of at least `minimum`, worst first."""
    severe = sorted(
        (each for each in report.vulnerabilities.values() if is_severe(each, minimum)),
        key=lambda each: (-SEVERITIES.index(each.normalized_severity), each.name, each.id),
    )
    path = (record.namespace, record.repository, EVENT)
    return [
        Notification(
            path,
            {
                "notification_uuid": wish,
                "event_data": event_data(record, each, tags, address),
                "performer_data": {},
            },
        )
        for each in severe
        for wish in wishes
    ]


def is_severe(vulnerability: Vulnerability, minimum: Severity) -> bool:
    return SEVERITIES.index(vulnerability.normalized_severity) >= SEVERITIES.index(minimum)


def event_data(
    record: ManifestRecord,
    vulnerability: Vulnerability,
    tags: Sequence[str],
    address: RegistryAddress,
) -> dict[str, Any]:
    name = record.full_repository
    return {
        "repository": name,
        "namespace": record.namespace,
        "name": record.repository,
        "docker_url": f"{address.hostname}/{name}",
        "homepage": f"{address.scheme}://{address.hostname}/repository/{name}",
        "tags": list(tags) or [record.digest],
        "vulnerable_index_report_created": "true",
        "vulnerability": {
            "id": vulnerability.name or vulnerability.id,
            "description": vulnerability.description[:LONGEST_DESCRIPTION],
            "link": vulnerability.links,
            "priority": vulnerability.normalized_severity.value,
            "has_fix": bool(vulnerability.fixed_in_version),
        },
    }
