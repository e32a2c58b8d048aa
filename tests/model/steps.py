"""Actors that take one SQL statement at a time, in whatever order the test says.

Each actor is a thread with a database connection of its own, stopped before every statement, BEGIN
and COMMIT. So locks are held, and other actors act, between any two statements of a transaction, on
a real database. An actor that waits for a lock of another's is left waiting while others go on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from data.database import connection, discard_connection
from data.models import database_proxy

# How long a statement may take before its actor counts as waiting for a lock.
STATEMENT_SECONDS = 0.03
# How long one that waited gets to take its lock, once it is free.
RELEASED_SECONDS = 0.005
STUCK_SECONDS = 40.0


class Crashed(BaseException):
    """SIGKILL: nothing of the actor's is run any more, not even what would clean up."""


class State(Enum):
    STOPPED = "stopped"  # before its next step
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Actor:
    """One process of the site. `dies_at` is the step before which it is killed."""

    name: str
    act: Callable[[Actor], None]
    ours: bool = False
    dies_at: int | None = None
    suspected: bool = False  # taken for dead, though it isn't
    state: State = State.RUNNING
    granted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    taken: int = 0
    dead: bool = False
    error: BaseException | None = None


@dataclass(slots=True)
class Steps:
    """Runs actors to their end. `watch` is called after each step with the actors that moved."""

    watch: Callable[[list[Actor]], None]
    actors: list[Actor] = field(default_factory=list)
    latest: Actor | None = None
    unfinished: list[Actor] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    here: threading.local = field(default_factory=threading.local)

    def run(self, actors: list[Actor], chance: random.Random, haste: float) -> None:
        """Who took a step takes the next one too with the likelihood `haste`, else anybody."""
        self.actors = actors
        threads = [threading.Thread(target=self.live, args=(actor,)) for actor in actors]
        for thread in threads:
            thread.start()
        self.wait(lambda: self.count(State.RUNNING) == 0, STUCK_SECONDS)
        while self.count(State.ENDED) < len(actors):
            self.let_one_go_on(chance, haste)
        for thread in threads:
            thread.join()
        for actor in actors:
            if actor.error is not None:
                raise actor.error

    def let_one_go_on(self, chance: random.Random, haste: float) -> None:
        ready = [actor for actor in self.actors if actor.state is State.STOPPED]
        waiting = [actor for actor in self.actors if actor.state is State.RUNNING]
        if ready:
            hasty = self.latest in ready and chance.random() < haste
            actor = self.latest if hasty and self.latest else chance.choice(ready)
            self.latest = actor
            self.grant(actor)
            self.wait(lambda: actor.state is not State.RUNNING, STATEMENT_SECONDS)
            if waiting:
                self.wait(lambda: self.count(State.RUNNING) == 0, RELEASED_SECONDS)
            waiting.append(actor)
        else:  # all wait for a lock: of one that the database is about to give up on
            count = len(waiting)
            assert self.wait(lambda: self.count(State.RUNNING) < count, STUCK_SECONDS), "all stuck"
        moved = waiting + [actor for actor in self.unfinished if actor not in waiting]
        # What one that still runs is about to do is seen by the next look only.
        self.unfinished = [actor for actor in self.actors if actor.state is State.RUNNING]
        self.watch(moved)

    def grant(self, actor: Actor) -> None:
        actor.state = State.RUNNING
        actor.granted.release()

    def count(self, state: State) -> int:
        return sum(actor.state is state for actor in self.actors)

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def live(self, actor: Actor) -> None:
        self.here.actor = actor
        try:
            with connection():
                self.act(actor)
        except Crashed:
            actor.dead = True
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            actor.error = error
        finally:
            self.here.actor = None
            with self.changed:
                actor.state = State.ENDED
                self.changed.notify_all()

    def act(self, actor: Actor) -> None:
        try:
            self.step()
            actor.act(actor)
        except Crashed:
            discard_connection(database_proxy.obj)  # as the server does when a client is gone
            raise

    def step(self) -> None:
        """Stops the actor of this thread, if it is one, until it may take its next step."""
        actor: Actor | None = getattr(self.here, "actor", None)
        if actor is None:
            return
        if actor.dead:
            raise Crashed
        with self.changed:
            actor.state = State.STOPPED
            self.changed.notify_all()
        actor.granted.acquire()
        actor.taken += 1
        if actor.taken == actor.dies_at:
            actor.dead = True
            raise Crashed

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """The actor looks at the database in between, as nobody in the site could."""
        actor, self.here.actor = getattr(self.here, "actor", None), None
        try:
            yield
        finally:
            self.here.actor = actor


@contextmanager
def stopped_before_each_statement(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kind: Any = type(database_proxy.obj)
    with monkeypatch.context() as patch:
        for name in ("execute_sql", "begin", "commit"):
            patch.setattr(kind, name, after_a_step(steps, getattr(kind, name)))
        yield


def after_a_step(steps: Steps, method: Callable[..., Any]) -> Callable[..., Any]:
    def stopped(database: Any, *arguments: Any, **keywords: Any) -> Any:
        # SQLite locks the whole file for a transaction, so nobody else could do anything in one.
        if not (database.in_transaction() and "sqlite" in type(database).__name__.lower()):
            steps.step()
        elif getattr(steps.here, "actor", None) is not None and steps.here.actor.dead:
            raise Crashed
        return method(database, *arguments, **keywords)

    return stopped
