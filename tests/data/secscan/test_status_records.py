"""The status row in the database: one transaction a step, whoever else writes it meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from data.database import connection
from data.errors import UnknownStatus
from data.models import (
    ExternalNotificationEvent,
    Manifest,
    ManifestSecurityStatus,
    MediaType,
    QueueItem,
    Repository,
    RepositoryKind,
    RepositoryNotification,
    User,
    Visibility,
    database_proxy,
    utcnow,
)
from data.secscan import status_records, status_rows
from data.secscan.status import (
    CLAIM_LIFETIME,
    Claim,
    ClaimDecision,
    FinishDecision,
    IndexStatus,
    Reason,
    read_metadata,
)
from data.secscan.status_records import (
    ClaimResult,
    delete_unless_claimed,
    record_failure,
    record_layer_too_large,
    record_success,
    record_unsupported,
    refresh_completed,
    release_claim,
    reset_and_claim,
    write_success,
)
from data.secscan.status_rows import load_row

OURS = Claim("rescan-1", "first")
LATER = Claim("rescan-1", "second")


@pytest.fixture
def manifest(database: str) -> Manifest:
    user = User.create(username="proxy", organization=True)
    repository = Repository.create(
        namespace_user_id=user.id,
        name="app",
        visibility_id=Visibility.create(name="private").id,
        kind_id=RepositoryKind.create(name="image").id,
    )
    return Manifest.create(
        repository_id=repository.id,
        digest="sha256:" + "a" * 64,
        media_type_id=MediaType.create(name="application/x").id,
        manifest_bytes="{}",
    )


def store(manifest: Manifest, status: IndexStatus, **columns: object) -> None:
    values: dict[str, object] = {"indexer_hash": "none", "indexer_version": 4} | columns
    ManifestSecurityStatus.create(
        manifest_id=manifest.id,
        repository_id=manifest.repository_id,
        index_status=status,
        **values,
    )


def claim(manifest: Manifest, reason: Reason = Reason.EVENT, by: Claim = OURS) -> ClaimDecision:
    return reset_and_claim(manifest.id, manifest.repository_id, reason, by).decision


def status_of(manifest: Manifest) -> IndexStatus | None:
    row = load_row(manifest.id)
    return row.status if row else None


def test_reset_and_claim_leave_one_row_that_says_whose_it_is(manifest: Manifest) -> None:
    store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
    result = reset_and_claim(manifest.id, manifest.repository_id, Reason.EVENT, OURS)
    assert (result.decision, result.reset) == (ClaimDecision.CLAIM, True)
    row = ManifestSecurityStatus.get()
    assert (row.index_status, row.indexer_hash) == (IndexStatus.IN_PROGRESS, "in_progress")
    assert json.loads(row.metadata_json) == {"rescan": {"job": "rescan-1", "attempt": "first"}}
    assert ManifestSecurityStatus.select().count() == 1


def test_no_reader_sees_the_gap_between_reset_and_claim(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection looks right after the DELETE, before the INSERT: the old row stands."""
    store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
    seen: list[IndexStatus | None] = []
    insert = status_rows.insert_row

    def look_then_insert(*arguments: object, **keywords: object) -> None:
        reader = threading.Thread(target=look)
        reader.start()
        reader.join()
        insert(*arguments, **keywords)  # type: ignore[arg-type]

    def look() -> None:
        with connection():
            seen.append(status_of(manifest))

    monkeypatch.setattr(status_records, "insert_row", look_then_insert)
    assert claim(manifest) is ClaimDecision.CLAIM
    assert seen == [IndexStatus.MANIFEST_UNSUPPORTED]


def test_of_two_claims_at_once_one_is_made(manifest: Manifest) -> None:
    """Both find no row, both insert; the unique index lets one through, the other looks again."""
    together = threading.Barrier(2, timeout=60)
    decisions: list[ClaimDecision] = []

    def work(job: str) -> None:
        with connection():
            together.wait()
            decisions.append(claim(manifest, by=Claim(job, "token")))

    threads = [threading.Thread(target=work, args=(f"job-{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(d.value for d in decisions) == ["claim", "wait"]


def test_retry_of_the_same_job_takes_its_claim_up_with_a_new_token(manifest: Manifest) -> None:
    assert claim(manifest) is ClaimDecision.CLAIM
    assert claim(manifest, by=LATER) is ClaimDecision.CLAIM
    assert finish(manifest, OURS) is FinishDecision.SUPERSEDED
    assert finish(manifest, LATER) is FinishDecision.WRITE


def finish(manifest: Manifest, by: Claim) -> FinishDecision:
    return record_success(manifest.id, manifest.repository_id, by, "state")


@pytest.mark.parametrize(
    "status",
    [
        IndexStatus.MANIFEST_UNSUPPORTED,
        IndexStatus.FAILED,
        IndexStatus.SCAN_RETRIES_EXHAUSTED,
        IndexStatus.PENDING,
    ],
)
def test_success_is_written_over_what_is_older_than_the_evidence(
    manifest: Manifest, status: IndexStatus
) -> None:
    claim(manifest)
    ManifestSecurityStatus.update(index_status=status, metadata_json="{}").execute()
    assert finish(manifest, OURS) is FinishDecision.WRITE
    row = ManifestSecurityStatus.get()
    assert (row.index_status, row.indexer_hash, row.error_json) == (2, "state", '""')


def test_success_is_not_written_over_a_completed_row(manifest: Manifest) -> None:
    store(manifest, IndexStatus.COMPLETED, indexer_hash="newer")
    assert finish(manifest, OURS) is FinishDecision.COMPLETED_ELSEWHERE
    assert ManifestSecurityStatus.get().indexer_hash == "newer"


def test_stale_word_that_lands_right_after_ours_is_written_over(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quay's worker replaces a COMPLETED row by its -2 between our commit and our second look."""
    claim(manifest)
    load = status_rows.load_row
    interfered: list[bool] = []

    def interfere_before_the_second_look(manifest_id: int, *, lock: bool = False) -> object:
        if not lock and not interfered:
            interfered.append(True)
            ManifestSecurityStatus.delete().execute()  # type: ignore[misc]
            store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
        return load(manifest_id, lock=lock)

    monkeypatch.setattr(status_records, "load_row", interfere_before_the_second_look)
    finish(manifest, OURS)
    assert interfered
    assert ManifestSecurityStatus.get().index_status == IndexStatus.COMPLETED


def test_failure_is_written_over_our_own_claim_only(manifest: Manifest) -> None:
    store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
    decision, _ = fail(manifest)
    assert decision is FinishDecision.CLAIMED_ELSEWHERE
    assert status_of(manifest) is IndexStatus.MANIFEST_UNSUPPORTED


def fail(manifest: Manifest) -> tuple[FinishDecision, int]:
    return record_failure(
        manifest.id, manifest.repository_id, OURS, error="no tar", indexer_hash="state"
    )


def test_failures_count_over_resets_in_the_form_of_quay(manifest: Manifest) -> None:
    for expected in (1, 2, 3):
        assert claim(manifest) is ClaimDecision.CLAIM
        assert fail(manifest) == (FinishDecision.WRITE, expected)
    row = ManifestSecurityStatus.get()
    assert (row.index_status, json.loads(row.error_json)) == (IndexStatus.FAILED, "no tar")
    assert json.loads(row.metadata_json) == {"retry_count": 3, "last_failed_hash": "state"}


def test_released_claim_leaves_no_row(manifest: Manifest) -> None:
    claim(manifest)
    release_claim(manifest.id, LATER)
    assert status_of(manifest) is IndexStatus.IN_PROGRESS, "the claim of another attempt stays"
    release_claim(manifest.id, OURS)
    assert status_of(manifest) is None


def test_dead_claim_is_retaken(manifest: Manifest) -> None:
    store(manifest, IndexStatus.IN_PROGRESS)
    assert claim(manifest) is ClaimDecision.WAIT
    long_ago = utcnow() - CLAIM_LIFETIME - timedelta(seconds=1)  # MySQL rounds up
    ManifestSecurityStatus.update(last_indexed=long_ago).execute()
    assert claim(manifest) is ClaimDecision.CLAIM


def test_refresh_brings_a_completed_row_up_to_date_and_touches_no_other(
    manifest: Manifest,
) -> None:
    store(manifest, IndexStatus.COMPLETED, last_indexed=utcnow() - timedelta(days=9))
    assert claim(manifest, Reason.FORCED) is ClaimDecision.REFRESH
    assert refresh_completed(manifest.id, "new") is FinishDecision.WRITE
    assert ManifestSecurityStatus.get().indexer_hash == "new"
    ManifestSecurityStatus.update(index_status=IndexStatus.IN_PROGRESS).execute()
    assert refresh_completed(manifest.id, "newer") is FinishDecision.CLAIMED_ELSEWHERE
    assert ManifestSecurityStatus.get().indexer_hash == "new"


def test_layer_too_large_is_written_over_our_claim(manifest: Manifest) -> None:
    claim(manifest)
    decision = record_layer_too_large(manifest.id, manifest.repository_id, OURS)
    assert decision is FinishDecision.WRITE
    assert status_of(manifest) is IndexStatus.MANIFEST_LAYER_TOO_LARGE


def test_unsupported_is_written_only_where_there_is_no_row(manifest: Manifest) -> None:
    record_unsupported(manifest.id, manifest.repository_id)
    assert status_of(manifest) is IndexStatus.MANIFEST_UNSUPPORTED
    ManifestSecurityStatus.update(index_status=IndexStatus.COMPLETED).execute()
    record_unsupported(manifest.id, manifest.repository_id)
    assert status_of(manifest) is IndexStatus.COMPLETED


def test_cycle_deletes_what_may_be_reset_and_no_claim(manifest: Manifest) -> None:
    store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
    assert delete_unless_claimed(manifest.id, Reason.EVENT)
    assert status_of(manifest) is None
    claim(manifest)
    assert not delete_unless_claimed(manifest.id, Reason.EVENT)
    assert status_of(manifest) is IndexStatus.IN_PROGRESS


def test_status_of_a_newer_quay_is_left_alone(manifest: Manifest) -> None:
    store(manifest, IndexStatus.PENDING)
    ManifestSecurityStatus.update(index_status=7).execute()
    with pytest.raises(UnknownStatus, match="index_status 7"):
        claim(manifest)
    assert ManifestSecurityStatus.get().index_status == 7


def test_manifest_that_is_deleted_meanwhile_is_gone(manifest: Manifest) -> None:
    Manifest.delete().execute()  # type: ignore[misc]
    assert claim(manifest) is ClaimDecision.GONE
    assert finish(manifest, OURS) is FinishDecision.GONE


def test_claim_costs_three_statements_in_one_transaction(
    manifest: Manifest, count_statements: Callable[[], list[str]]
) -> None:
    store(manifest, IndexStatus.MANIFEST_UNSUPPORTED)
    before = len(count_statements())
    claim(manifest)
    work = [s.split()[0] for s in count_statements()[before:] if not s.startswith("BEGIN")]
    assert [word for word in work if word not in {"COMMIT"}] == ["SELECT", "DELETE", "INSERT"]
    assert not database_proxy.in_transaction()


def test_claim_where_no_row_was_seen_costs_one_statement(
    manifest: Manifest, count_statements: Callable[[], list[str]]
) -> None:
    before = len(count_statements())
    result = claim_unseen(manifest)
    assert (result.decision, result.reset) == (ClaimDecision.CLAIM, False)
    assert len(count_statements()) - before == 1
    assert ManifestSecurityStatus.get().indexer_hash == "in_progress"
    assert finish(manifest, OURS) is FinishDecision.WRITE


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        (IndexStatus.MANIFEST_UNSUPPORTED, ClaimDecision.CLAIM),
        (IndexStatus.COMPLETED, ClaimDecision.DONE),
        (IndexStatus.IN_PROGRESS, ClaimDecision.WAIT),
    ],
)
def test_row_that_came_after_the_look_is_decided_as_any_other(
    manifest: Manifest, status: IndexStatus, decision: ClaimDecision
) -> None:
    store(manifest, status)
    assert claim_unseen(manifest).decision is decision
    assert ManifestSecurityStatus.select().count() == 1


def test_manifest_deleted_after_the_look_is_gone(manifest: Manifest) -> None:
    Manifest.delete().execute()  # type: ignore[misc]
    assert claim_unseen(manifest).decision is ClaimDecision.GONE


def claim_unseen(manifest: Manifest) -> ClaimResult:
    return reset_and_claim(manifest.id, manifest.repository_id, Reason.EVENT, OURS, has_row=False)


def test_success_over_our_claim_costs_one_statement(
    manifest: Manifest, count_statements: Callable[[], list[str]]
) -> None:
    claim(manifest)
    before = len(count_statements())
    decision = write_success(manifest.id, manifest.repository_id, OURS, "state" * 100)
    assert decision is FinishDecision.WRITE
    assert len(count_statements()) - before == 1
    row = ManifestSecurityStatus.get()
    assert (row.index_status, row.indexer_hash) == (IndexStatus.COMPLETED, ("state" * 100)[:128])
    assert (row.error_json, row.metadata_json) == ('""', "{}")


def test_success_over_a_claim_that_kept_a_retry_count_is_written_too(manifest: Manifest) -> None:
    claim(manifest)
    record_failure(
        manifest.id, manifest.repository_id, OURS, error="no", indexer_hash="api_failure"
    )
    claim(manifest)
    assert read_metadata(ManifestSecurityStatus.get().metadata_json)["retry_count"] == 1
    assert finish(manifest, OURS) is FinishDecision.WRITE
    assert ManifestSecurityStatus.get().metadata_json == "{}"


def wish(manifest: Manifest) -> None:
    """Somebody wishes to be notified of the manifest's repository."""
    event = ExternalNotificationEvent.create(name="vulnerability_found")
    RepositoryNotification.create(repository_id=manifest.repository_id, event_id=event.id)


def test_nothing_is_announced_where_nobody_wishes_it(manifest: Manifest) -> None:
    claim(manifest)
    asked: list[str] = []
    decision = write_success(
        manifest.id, manifest.repository_id, OURS, "state", lambda: asked.append("one")
    )
    assert (decision, asked) == (FinishDecision.WRITE, [])


def test_what_belongs_to_a_first_index_is_written_with_it_or_not_at_all(
    manifest: Manifest,
) -> None:
    claim(manifest)
    wish(manifest)

    def write_and_die() -> None:
        QueueItem.create(queue_name="notification/proxy/app/", body="{}")
        raise LookupError("the process dies")

    with pytest.raises(LookupError):
        record_success(
            manifest.id, manifest.repository_id, OURS, "state", announce=lambda: write_and_die
        )
    assert status_of(manifest) is IndexStatus.IN_PROGRESS
    assert QueueItem.select().count() == 0


def test_what_belongs_to_a_first_index_is_written_once(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again when Quay's stale -2 came in between, and not for a row that somebody completed."""
    claim(manifest)
    wish(manifest)
    written: list[str] = []
    look = status_rows.load_row
    stale: list[IndexStatus] = [IndexStatus.MANIFEST_UNSUPPORTED]

    def look_after_quay_wrote(manifest_id: int, *, lock: bool = False) -> object:
        if not lock and stale:
            ManifestSecurityStatus.update(index_status=stale.pop()).execute()
        return look(manifest_id, lock=lock)

    monkeypatch.setattr(status_records, "load_row", look_after_quay_wrote)
    for _ in range(2):
        record_success(
            manifest.id,
            manifest.repository_id,
            OURS,
            "state",
            announce=lambda: lambda: written.append("one"),
        )
    assert not stale
    assert status_of(manifest) is IndexStatus.COMPLETED
    assert written == ["one"]
