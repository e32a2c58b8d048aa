"""The notifications of a first index, as Quay's notification worker reads them."""

from __future__ import annotations

import json
import time

import pytest

from data.manifest_records import ManifestRecord
from data.models import (
    ExternalNotificationEvent,
    RepositoryNotification,
    Tag,
    TagKind,
)
from data.proxycache import create_proxy_organization, create_repository, insert_manifest
from data.secscan.notifications import (
    MOST_TAGS,
    RegistryAddress,
    build_notifications,
    find_tags,
    find_wishes,
)
from data.secscan.reports import Severity, Vulnerability, VulnerabilityReport

DIGEST = "sha256:" + "a" * 64
ADDRESS = RegistryAddress(scheme="https", hostname="quay.example:8443")
RECORD = ManifestRecord(
    manifest_id=1,
    repository_id=2,
    namespace="proxy",
    repository="library/app",
    digest=DIGEST,
    media_type="",
    manifest_bytes="",
    proxied=True,
)


def report(*severities: Severity) -> VulnerabilityReport:
    found = {
        str(number): Vulnerability(
            id=str(number),
            name=f"CVE-2026-{number}",
            description="overflows",
            links="https://a.example https://b.example",
            normalized_severity=severity,
            fixed_in_version="1.2" if severity is Severity.CRITICAL else "",
        )
        for number, severity in enumerate(severities)
    }
    return VulnerabilityReport(manifest_hash=DIGEST, vulnerabilities=found)


def test_item_is_what_quays_notification_worker_reads() -> None:
    (notification,) = build_notifications(
        RECORD,
        report(Severity.CRITICAL),
        Severity.HIGH,
        wishes=["a-uuid"],
        tags=["1.0", "latest"],
        address=ADDRESS,
    )
    assert notification.path == ("proxy", "library/app", "vulnerability_found")
    assert notification.body == {
        "notification_uuid": "a-uuid",
        "event_data": {
            "repository": "proxy/library/app",
            "namespace": "proxy",
            "name": "library/app",
            "docker_url": "quay.example:8443/proxy/library/app",
            "homepage": "https://quay.example:8443/repository/proxy/library/app",
            "tags": ["1.0", "latest"],
            "vulnerable_index_report_created": "true",
            "vulnerability": {
                "id": "CVE-2026-0",
                "description": "overflows",
                "link": "https://a.example https://b.example",
                "priority": "Critical",
                "has_fix": True,
            },
        },
        "performer_data": {},
    }


@pytest.mark.parametrize(
    ("minimum", "expected"),
    [
        (Severity.CRITICAL, ["Critical"]),
        (Severity.HIGH, ["Critical", "High"]),
        (Severity.UNKNOWN, ["Critical", "High", "Low", "Unknown"]),
    ],
)
def test_one_for_each_wish_and_vulnerability_at_or_above_the_minimum(
    minimum: Severity, expected: list[str]
) -> None:
    found = report(Severity.LOW, Severity.HIGH, Severity.UNKNOWN, Severity.CRITICAL)
    notifications = build_notifications(
        RECORD, found, minimum, wishes=["one", "two"], tags=[], address=ADDRESS
    )
    told = [
        (each.body["event_data"]["vulnerability"]["priority"], each.body["notification_uuid"])
        for each in notifications
    ]
    assert told == [(priority, wish) for priority in expected for wish in ("one", "two")]


def test_item_fits_into_mysqls_text_whatever_the_description() -> None:
    """64 KiB; the longest JSON of a character is two escapes of six bytes each."""
    found = report(Severity.HIGH)
    (long,) = found.vulnerabilities.values()
    long = long.model_copy(update={"description": "\U0001f433" * 100_000})
    (notification,) = build_notifications(
        RECORD,
        found.model_copy(update={"vulnerabilities": {"0": long}}),
        Severity.HIGH,
        wishes=["one"],
        tags=["x" * 128] * 100,
        address=ADDRESS,
    )
    assert len(json.dumps(notification.body)) < 65_536


def test_manifest_without_tags_is_named_by_its_digest() -> None:
    (notification,) = build_notifications(
        RECORD, report(Severity.HIGH), Severity.HIGH, wishes=["one"], tags=[], address=ADDRESS
    )
    assert notification.body["event_data"]["tags"] == [DIGEST]


@pytest.fixture
def manifest(database: str) -> tuple[int, int]:
    """(repository, manifest)."""
    create_proxy_organization("proxy", "upstream.example", insecure=True)
    repository = create_repository("proxy", "library/app")
    return repository, insert_manifest(repository, DIGEST, "application/x", "{}", None)


def test_wishes_are_those_of_the_event_in_the_repository(manifest: tuple[int, int]) -> None:
    repository, _ = manifest
    found = ExternalNotificationEvent.create(name="vulnerability_found")
    pushed = ExternalNotificationEvent.create(name="repo_push")
    other = create_repository("proxy", "library/other")
    wish = RepositoryNotification.create(repository_id=repository, event_id=found.id)
    RepositoryNotification.create(repository_id=repository, event_id=pushed.id)
    RepositoryNotification.create(repository_id=other, event_id=found.id)
    assert find_wishes(repository) == [wish.uuid]


def test_tags_are_those_that_live_and_show_100_at_most(manifest: tuple[int, int]) -> None:
    repository, manifest_id = manifest
    kind = TagKind.create(name="tag")
    now = int(time.time() * 1000)

    def tag(name: str, *, ends: int | None = None, hidden: bool = False) -> None:
        Tag.create(
            name=name,
            repository_id=repository,
            manifest_id=manifest_id,
            lifetime_start_ms=now,
            lifetime_end_ms=ends,
            hidden=hidden,
            tag_kind_id=kind.id,
        )

    tag("moved", ends=now - 1000)
    tag("temporary", hidden=True)
    tag("expires-later", ends=now + 1_000_000)
    for number in range(MOST_TAGS):
        tag(f"v{number}")
    tags = find_tags(manifest_id)
    assert tags[:2] == ["expires-later", "v0"]
    assert len(tags) == MOST_TAGS == 100
