"""`python -m workers.demo`: the whole pipeline on this machine, on real images.

Exit status 0 only if every manifest ended as it must, 1 if not, 2 on wrong use, 130 on Ctrl-C.
Everything that was started is stopped and every file is gone at the end, however it comes.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from workers.demo.environment import DemoFailed, Environment, running_environment
from workers.demo.imagearchive import ImageUnreadable
from workers.demo.imagefiles import load_image
from workers.demo.images import Image
from workers.demo.pulls import Pulled, play_all
from workers.demo.quaydatabase import count_items, make_items_available, status_of
from workers.demo.report import Report, Row
from workers.demo.timeline import Timeline

LONGEST_SECONDS = 60.0
LOOK_SECONDS = 0.02


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, interrupt)
    console = Console(stderr=arguments.json)
    try:
        with tempfile.TemporaryDirectory(prefix="quay-rescan-image-") as unpacked:
            image = (
                load_image(arguments.image, work_directory=Path(unpacked))
                if arguments.image
                else None
            )
            return run(arguments, console, image)
    except ImageUnreadable as error:
        print(f"workers.demo: --image: {error}", file=sys.stderr)
        return 2
    except DemoFailed as error:
        print(f"workers.demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workers.demo: stopped; everything it started is gone", file=sys.stderr)
        return 130


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers.demo",
        description="Plays proxied pulls through the whole pipeline on this machine.",
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="PATH",
        help="an image of yours as well: OCI layout, OCI archive, or output of docker save",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else")
    return parser.parse_args(argv)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """A SIGTERM ends the demo as a Ctrl-C does."""
    del signum, frame
    raise KeyboardInterrupt


def run(arguments: argparse.Namespace, console: Console, image: Image | None) -> int:
    if not arguments.json:
        console.print("Starting Valkey, an upstream registry, a scanner stand-in and the workers.")
    with running_environment() as environment:
        pulled = play_all(environment, image)
        if not arguments.json:
            console.print(
                f"{len(pulled)} manifests as Quay leaves them, all unsupported. Now the pipeline:\n"
            )
        started = time.time()
        outcomes: dict[int, str] = {}
        with Timeline(pulled, console, arguments.json, started) as timeline:
            make_items_available()
            wait_until_done(environment, pulled, timeline, outcomes)
        report = build_report(environment, pulled, outcomes)
        if not report.ok:
            print("\n".join(environment.log), file=sys.stderr)
    if arguments.json:
        print(report.as_json())
    else:
        console.print()
        report.print(console)
    return 0 if report.ok else 1


def wait_until_done(
    environment: Environment,
    pulled: Sequence[Pulled],
    timeline: Timeline,
    outcomes: dict[int, str],
) -> None:
    """Shows what happens until every manifest is where it must be and nothing is on its way."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        drain_events(environment, pulled, timeline, outcomes)
        if is_done(environment, pulled):
            drain_events(environment, pulled, timeline, outcomes)
            return
        time.sleep(LOOK_SECONDS)


def drain_events(
    environment: Environment,
    pulled: Sequence[Pulled],
    timeline: Timeline,
    outcomes: dict[int, str],
) -> None:
    while True:
        try:
            event = environment.events.get_nowait()
        except queue.Empty:
            return
        note(event, pulled, outcomes)
        timeline.show(event)


def note(event: dict[str, Any], pulled: Sequence[Pulled], outcomes: dict[int, str]) -> None:
    """Keeps the moment at which a blob was placed, and how a rescan ended."""
    if event.get("event") == "blob placed":
        placed_ns = int(datetime.fromisoformat(event["timestamp"]).timestamp() * 1e9)
        for each in pulled:
            if event["digest"] in each.layers:
                each.placed_ns.setdefault(event["digest"], placed_ns)
    elif event.get("event") == "rescanned":
        # A manifest may be looked at once more when two of its blobs end at once; that changes
        # nothing, and the first outcome is the one that tells the story.
        outcomes.setdefault(int(event["manifest_id"]), str(event["outcome"]))


def is_done(environment: Environment, pulled: Sequence[Pulled]) -> bool:
    depth = environment.rescans.depth()
    return (
        depth.queued + depth.started + depth.scheduled == 0
        and count_items() == 0
        and all(status_of(each.manifest_id) == each.expected for each in pulled)
    )


def build_report(
    environment: Environment, pulled: Sequence[Pulled], outcomes: dict[int, str]
) -> Report:
    rows = [build_row(environment, each, outcomes.get(each.manifest_id)) for each in pulled]
    as_expected = [row.after == each.expected for row, each in zip(rows, pulled, strict=True)]
    depth = environment.rescans.depth()
    idle = depth.queued + depth.started + depth.scheduled + depth.failed == 0
    return Report(ok=all(as_expected) and idle, rows=rows, queue=depth)


def build_row(environment: Environment, pulled: Pulled, outcome: str | None) -> Row:
    requests = environment.scanner.requests.of(pulled.digest)
    request = requests[0] if requests else None
    last_placed = max(pulled.placed_ns.values(), default=None)
    milliseconds = (
        round((request.arrived_ns - last_placed) / 1e6, 1)
        if request is not None and last_placed is not None
        else None
    )
    return Row(
        name=pulled.name,
        digest=pulled.digest,
        before=pulled.before,
        after=status_of(pulled.manifest_id),
        outcome=outcome,
        last_blob_to_index_ms=milliseconds,
        packages=request.packages if request is not None else None,
    )


if __name__ == "__main__":
    sys.exit(main())
