"""The status protocol under every actor of the site, in every order, on real databases.

Hypothesis chooses who acts, who dies or is taken for dead where, what Clair says, and who takes the
next SQL statement. FUZZ_EXAMPLES / 10 orders are tried on each engine (200 by default).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.models import ManifestSecurityStatus, utcnow
from data.secscan.status import CLAIM_LIFETIME, IndexStatus, Reason
from data.secscan.status_rows import load_row
from data.sweep import Stuck, find_complete, load_claims, next_page
from tests.conftest import bound_database
from tests.model import actors
from tests.model.actors import Act
from tests.model.steps import Actor, Steps, stopped_before_each_statement
from tests.model.world import Answer, World, build_site, is_gone
from tests.servers import Engine

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000")) // 10

OURS: dict[str, Callable[[World], Act]] = {
    "blob worker of layer 0": lambda world: actors.blob_worker(world, 0),
    "blob worker of layer 1": lambda world: actors.blob_worker(world, 1),
    "rescan worker": actors.rescan_worker,
    "another rescan worker": actors.rescan_worker,
    "security worker of ours": actors.security_worker_of_ours,
    "person": lambda world: actors.person(world, Reason.MANUAL),
    "person with --force": lambda world: actors.person(world, Reason.FORCED),
}
QUAYS: dict[str, Callable[[World], Act]] = {
    "registry": lambda world: actors.registry(world, 1),
    "Quay's stale look": actors.security_worker_of_quay_with_a_stale_look,
    "Quay's worker": lambda world: actors.security_worker_of_quay(world, well=True),
    "Quay's worker, failing": lambda world: actors.security_worker_of_quay(world, well=False),
    "Quay's V2 indexer": actors.indexer_v2_of_quay,
    "garbage collection": actors.garbage_collection,
}
EVERYBODY = OURS | QUAYS
MOST_JOBS = 6
ORDERS_DURING_A_CALL = 3
STEPS_OF_A_LONG_CALL = 10
MOST_LOOKS_FOR_A_CALL = 60
MOST_STEPS = 20  # a rescan takes fewer
STEPS_BEFORE_A_CALL = 7  # up to these, what Clair will say makes no difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: who takes part, what happens to them, and in which order they go on."""

    names: tuple[str, ...]
    placed: bool  # the layers are there and the rescan is queued
    row: IndexStatus | None  # what Quay had stored by then
    deaths: dict[str, int]
    suspected: frozenset[str]
    answers: tuple[Answer, ...]
    gate: bool
    order: int  # seed
    haste: float  # how likely one who just took a step takes the next one too
    idle: Mapping[str, int] = field(default_factory=dict)  # steps before somebody begins
    during_a_call: frozenset[str] = frozenset()  # who begins once Clair works for one of us


names = st.sets(st.sampled_from(sorted(EVERYBODY)), min_size=1, max_size=4).map(
    lambda chosen: tuple(sorted(chosen | {"rescan worker"}))
)
plans = st.builds(
    Plan,
    names=names,
    placed=st.booleans(),
    row=st.sampled_from([None, *IndexStatus]),
    deaths=st.dictionaries(st.sampled_from(sorted(EVERYBODY)), st.integers(1, 30), max_size=2),
    suspected=st.frozensets(st.sampled_from(["rescan worker"]), max_size=1),
    answers=st.lists(st.sampled_from(Answer), max_size=4).map(tuple),
    gate=st.booleans(),
    order=st.integers(0, 2**32),
    haste=st.sampled_from([0.0, 0.3, 0.8]),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path_factory.mktemp('model')}/quay.db"
    else:
        server: Engine = request.getfixturevalue("postgresql")
        uri = server.create()
    with bound_database(uri):
        build_site()
        yield str(request.param)


@pytest.mark.timeout(max(600, 5 * EXAMPLES))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans)
def test_every_order_of_every_actor_ends_well(
    engine: str, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    ends_well(plan, monkeypatch)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(EVERYBODY.keys() - {"rescan worker"}))
def test_rescan_worker_beside_each_other_actor_ends_well(
    engine: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What chance meets seldom: the other begins at each of its steps, or while Clair works."""
    for answer, first in ((Answer.FINISHED, 0), (Answer.ERROR, STEPS_BEFORE_A_CALL)):
        for order in range(ORDERS_DURING_A_CALL):
            plan = plan_of(name, answers=(answer,), order=order, during_a_call=frozenset({name}))
            ends_well(plan, monkeypatch)
        for step in range(first, MOST_STEPS):
            plan = plan_of(name, answers=(answer,), order=step, idle={name: step})
            ends_well(plan, monkeypatch)


@pytest.mark.timeout(600)
def test_rescan_worker_that_dies_at_each_step_keeps_nobody_waiting(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, MOST_STEPS):
        ends_well(plan_of("registry", deaths={"rescan worker": step}), monkeypatch)


def plan_of(name: str, **changes: Any) -> Plan:
    """A rescan worker that has a job, and one more actor."""
    plain = Plan(
        names=tuple(sorted({name, "rescan worker"})),
        placed=True,
        row=IndexStatus.MANIFEST_UNSUPPORTED,
        deaths={},
        suspected=frozenset({"rescan worker"}) if name == "another rescan worker" else frozenset(),
        answers=(),
        gate=False,
        order=0,
        haste=0.0,
    )
    return replace(plain, **changes)


def ends_well(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    world = play(plan, monkeypatch)
    assert world.wrong == []
    assert_both_layers_were_noticed(world, plan)
    let_what_is_left_be_done(world)
    for manifest_id in world.manifests:
        assert is_gone(manifest_id) or is_settled(manifest_id), world.rows


def play(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> World:
    steps = Steps(watch=lambda moved: world.watch(moved))
    world = World(steps, plan.answers, gate=plan.gate or may_take_a_claim_away(plan))
    if plan.during_a_call:
        world.steps_of_a_call = STEPS_OF_A_LONG_CALL
    cast = [
        Actor(
            name,
            after_idling(plan, name, world),
            ours=name in OURS,
            dies_at=plan.deaths.get(name),
            suspected=name in plan.suspected,
        )
        for name in plan.names
    ]
    begin(world, plan)
    with stopped_before_each_statement(steps, monkeypatch):
        steps.run(cast, random.Random(plan.order), plan.haste)
    return world


def after_idling(plan: Plan, name: str, world: World) -> Act:
    act = EVERYBODY[name](world)

    def idle_then_act(actor: Actor) -> None:
        for _ in range(plan.idle.get(name, 0)):
            world.steps.step()
        for _ in range(MOST_LOOKS_FOR_A_CALL if name in plan.during_a_call else 0):
            if world.calls:
                break
            world.steps.step()
        act(actor)

    return idle_then_act


def begin(world: World, plan: Plan) -> None:
    """What happened before: Quay's word, and perhaps all but the rescan."""
    for manifest_id in world.manifests:
        if plan.row is not None:
            actors.insert_as_quay(world, manifest_id, plan.row, "none")
        if plan.placed:
            world.jobs.enqueue(manifest_id, Reason.EVENT)
    for layer in world.layers if plan.placed else []:
        world.place(layer)
    world.watch([])


def assert_both_layers_were_noticed(world: World, plan: Plan) -> None:
    """Of two workers that place the last two layers at once, at least one sees both."""
    placing = {"blob worker of layer 0", "blob worker of layer 1"}
    if placing <= set(plan.names) - set(plan.deaths):
        for manifest_id in world.manifests:
            assert manifest_id in world.noticed or is_gone(manifest_id)


def may_take_a_claim_away(plan: Plan) -> bool:
    """Quay's workers write over claims; then only the gate keeps two of us from one manifest."""
    return any(name in QUAYS for name in plan.names)


def let_what_is_left_be_done(world: World) -> None:
    """Everybody else is gone: the layers get placed, time passes, the sweep and a worker run."""
    for layer in world.layers:
        world.place(layer)
    worker = Actor("the last worker", actors.rescan_worker(world), ours=True)
    world.answers = iter(())
    world.jobs.queued |= {each: reason for each, (_, reason) in world.jobs.running.items()}
    world.jobs.running.clear()
    world.indexing.clear()
    sweep_and_work(world, worker)
    for manifest_id in world.manifests:
        row = load_row(manifest_id)
        ours = row is not None and row.claim is not None and "rescan" in row.claim.job
        assert not ours, "a claim of a dead worker of ours keeps nobody waiting"
    ManifestSecurityStatus.update(last_indexed=utcnow() - CLAIM_LIFETIME).where(
        ManifestSecurityStatus.manifest_id.in_(world.manifests)
    ).execute()
    sweep_and_work(world, worker)
    assert world.wrong == []


def sweep_and_work(world: World, worker: Actor) -> None:
    sweep(world)
    for _ in range(MOST_JOBS):
        job = world.jobs.take(worker)
        if job is None:
            return
        actors.rescan(world, worker, *job)


def sweep(world: World) -> None:
    """What `workers.sweepworker` does, for the manifests of this world."""
    first = min(world.manifests) - 1
    for stuck in Stuck:
        ids = [each for each in next_page(stuck, first).manifest_ids if each in world.manifests]
        if stuck is Stuck.CLAIMED:
            ids = [claim.manifest_id for claim in load_claims(ids)]
        for complete in find_complete(ids):
            world.jobs.enqueue(complete.completed.manifest_id, Reason.SWEEP)


def is_settled(manifest_id: int) -> bool:
    """Neither unsupported nor unknown nor claimed: somebody has had the last word on it."""
    row = load_row(manifest_id)
    unsettled = {IndexStatus.MANIFEST_UNSUPPORTED, IndexStatus.IN_PROGRESS}
    return row is not None and row.status not in unsettled
