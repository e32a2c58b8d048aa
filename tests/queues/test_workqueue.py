"""Quay's own work queue: its protocol, beside workers of Quay's, on every engine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.models import QueueItem, utcnow
from queues.blobwork import BlobWork, put_blob_work, read_blob_work
from queues.errors import InvalidWork
from queues.workqueue import MAX_RETRIES, WorkItem, WorkQueue, take

DIGEST = "sha256:" + "a" * 64
WORK = BlobWork(digest=DIGEST, repository_id=7, namespace="proxy")
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))


@pytest.fixture
def queue(database: str) -> WorkQueue:
    return WorkQueue("proxycacheblob")


def put(queue: WorkQueue) -> QueueItem:
    put_blob_work(queue, WORK, available_after=0)
    return QueueItem.select().order_by(QueueItem.id.desc()).get()


def test_an_item_has_quays_name_and_body(queue: WorkQueue) -> None:
    item = put(queue)
    assert item.queue_name == f"proxycacheblob/proxy/7/{DIGEST}/"
    assert json.loads(item.body) == {
        "digest": DIGEST,
        "repo_id": 7,
        "username": None,
        "namespace": "proxy",
    }
    assert (item.retries_remaining, item.available) == (MAX_RETRIES, True)


def test_of_two_that_read_the_same_item_one_gets_it(queue: WorkQueue) -> None:
    put(queue)
    first, second = queue.available_items(), queue.available_items()
    assert len(take(first, 60)) == 1
    assert take(second, 60) == []


def test_claim_takes_a_retry_and_reserves(queue: WorkQueue) -> None:
    before = put(queue)
    item = queue.claim(reservation_seconds=60)
    assert item is not None
    after = QueueItem.get()
    assert (after.available, after.retries_remaining) == (False, MAX_RETRIES - 1)
    assert after.state_id != before.state_id
    assert after.processing_expires is not None
    assert after.processing_expires > utcnow() + timedelta(seconds=50)
    assert queue.claim() is None


def test_items_are_read_once_for_many_claims(
    queue: WorkQueue, count_statements: Callable[[], list[str]]
) -> None:
    for _ in range(10):
        put(queue)
    before = len(count_statements())
    claimed = [queue.claim() for _ in range(10)]
    statements = count_statements()[before:]
    assert [item.id for item in claimed if item] == [each.id for each in items()]
    assert len([each for each in statements if each.startswith("SELECT")]) == 1


def test_several_are_taken_in_one_statement(
    queue: WorkQueue, count_statements: Callable[[], list[str]]
) -> None:
    for _ in range(5):
        put(queue)
    ids = [each.id for each in items()]
    before = len(count_statements())
    first = queue.claim_many(3)
    assert len(count_statements()) - before == 2, "the reading and the taking"
    assert [each.id for each in first] == ids[:3]
    assert [each.id for each in queue.claim_many(3)] == ids[3:]
    assert queue.claim_many(3) == []
    rows = items()
    assert {row.state_id for row in rows[:3]} == {each.state_id for each in first}
    assert {row.retries_remaining for row in rows} == {MAX_RETRIES - 1}
    assert {each.retries_remaining for each in first} == {MAX_RETRIES - 1}


def test_of_several_those_that_another_took_are_left_to_it(queue: WorkQueue) -> None:
    for _ in range(4):
        put(queue)
    read = queue.available_items()
    (theirs,) = take(read[1:2], 60)
    ours = take(read[:3], 60)
    assert [each.id for each in ours] == [read[0].id, read[2].id]
    rows = {row.id: row.state_id for row in items()}
    assert rows[theirs.id] == theirs.state_id
    assert [rows[each.id] for each in ours] == [each.state_id for each in ours]
    assert take(read[:3], 60) == []


def test_completed_together_only_those_that_are_still_ours_are_deleted(
    queue: WorkQueue, count_statements: Callable[[], list[str]]
) -> None:
    for _ in range(3):
        put(queue)
    done = queue.claim_many(3)
    renewed = queue.extend(done[1])
    before = len(count_statements())
    queue.complete_many(done)
    assert len(count_statements()) - before == 1
    assert renewed is not None
    assert [row.state_id for row in items()] == [renewed.state_id]
    queue.complete_many([])


def test_item_that_another_took_meanwhile_is_taken_by_nobody_else(queue: WorkQueue) -> None:
    """Both read the same three; each item is one worker's, whatever the other remembers of it."""
    other = WorkQueue("proxycacheblob")
    for _ in range(3):
        put(queue)
    claims = [each.claim() for each in (queue, other, queue, other, queue)]
    taken = [item.id for item in claims if item is not None]
    assert sorted(taken) == [each.id for each in items()]


def test_item_that_was_put_after_the_reading_is_found(queue: WorkQueue) -> None:
    put(queue)
    put(queue)
    assert queue.claim() is not None
    late = put(queue)
    assert queue.claim() is not None
    found = queue.claim()
    assert found is not None
    assert found.id == late.id


def items() -> list[QueueItem]:
    return list(QueueItem.select().order_by(QueueItem.id))


def test_expired_reservation_can_be_claimed(queue: WorkQueue) -> None:
    put(queue)
    lost = queue.claim()
    QueueItem.update(processing_expires=utcnow() - timedelta(seconds=1)).execute()
    again = queue.claim()
    assert again is not None
    assert lost is not None
    queue.complete(lost)
    assert QueueItem.select().count() == 1, "it is somebody else's now"
    queue.complete(again)
    assert QueueItem.select().count() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"retries_remaining": 0},
        {"available_after": utcnow() + timedelta(hours=1)},
        {"available": False, "processing_expires": utcnow() + timedelta(hours=1)},
        {"queue_name": "proxycacheblobs/proxy/7/x/"},
    ],
)
def test_what_is_not_available_is_not_claimed(queue: WorkQueue, change: dict[str, object]) -> None:
    put(queue)
    QueueItem.update(**change).execute()
    assert queue.claim() is None


@pytest.mark.parametrize(("restore", "retries"), [(True, MAX_RETRIES), (False, MAX_RETRIES - 1)])
def test_given_back_it_is_available_again_after_a_while(
    queue: WorkQueue, restore: bool, retries: int
) -> None:
    put(queue)
    item = claimed(queue)
    queue.give_back(item, retry_after=300, restore_retry=restore)
    row = QueueItem.get()
    assert (row.available, row.retries_remaining) == (True, retries)
    assert utcnow() + timedelta(seconds=290) < row.available_after
    assert row.state_id != item.state_id


def claimed(queue: WorkQueue) -> WorkItem:
    item = queue.claim()
    assert item is not None
    return item


def test_extended_it_stays_ours_and_lost_it_says_so(queue: WorkQueue) -> None:
    put(queue)
    item = claimed(queue)
    extended = queue.extend(item, 600)
    assert extended is not None
    assert extended.state_id != item.state_id
    assert queue.extend(item, 600) is None, "the old state is nobody's any more"


def test_items_are_taken_oldest_first(queue: WorkQueue) -> None:
    ids = [put(queue).id for _ in range(3)]
    assert [claimed(queue).id for _ in ids] == ids


def test_a_claim_costs_two_statements(
    queue: WorkQueue, count_statements: Callable[[], list[str]]
) -> None:
    put(queue)
    before = len(count_statements())
    claimed(queue)
    assert len(count_statements()) - before == 2


def test_live_items_are_known_by_their_name(queue: WorkQueue) -> None:
    assert not queue.has_item(WORK.path())
    put(queue)
    assert queue.has_live_item(WORK.path())
    QueueItem.update(retries_remaining=0).execute()
    assert not queue.has_live_item(WORK.path())
    assert queue.has_item(WORK.path())


def item_with(body: str) -> WorkItem:
    return WorkItem(id=1, queue_name="x", body=body, state_id="x", retries_remaining=1)


def test_username_of_quay_is_read() -> None:
    body = WORK.body() | {"username": "someone"}
    assert read_blob_work(item_with(json.dumps(body))).username == "someone"


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**30)
    | st.text(max_size=80)
    | st.just(DIGEST)
)


@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(
    st.text()
    | st.dictionaries(st.sampled_from(["digest", "repo_id", "namespace", "username"]), VALUES).map(
        json.dumps
    )
    | st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4), max_leaves=8).map(json.dumps)
)
def test_nothing_but_invalid_work_comes_out(body: str) -> None:
    try:
        work = read_blob_work(item_with(body))
    except InvalidWork:
        return
    assert work.digest == DIGEST
    assert 0 < work.repository_id < 2**63
