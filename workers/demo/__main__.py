"""`python -m workers.demo`: the whole pipeline on this machine, on real images.

Exit status 0 only if every manifest ended as it must, 1 if not, 2 on wrong use, 130 when it was
interrupted. Everything that was started is stopped and every file is gone at the end, however it
comes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from data.errors import DataError
from workers.demo.environment import Environment, running_environment
from workers.demo.imagearchive import ImageUnreadable
from workers.demo.imagefiles import load_image
from workers.demo.images import Image
from workers.demo.interruption import Interruption
from workers.demo.processes import DemoFailed
from workers.demo.progress import LONGEST_SILENCE_SECONDS, Progress
from workers.demo.pulls import play_all
from workers.demo.quaydatabase import make_items_available
from workers.demo.report import Report, build_report
from workers.demo.timeline import Timeline


def main(argv: Sequence[str] | None = None) -> int:
    interruption = Interruption()
    interruption.listen()
    arguments = parse_arguments(argv)
    console = Console(stderr=arguments.json)
    try:
        with tempfile.TemporaryDirectory(prefix="quay-rescan-image-") as unpacked:
            image = read_image(arguments, console, Path(unpacked), interruption)
            return run(arguments, console, image, interruption)
    except ImageUnreadable as error:
        print(f"workers.demo: --image: {error}", file=sys.stderr)
        return 2
    except (DemoFailed, DataError) as error:
        print(f"workers.demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workers.demo: interrupted; everything it started is gone", file=sys.stderr)
        return 130
    finally:
        interruption.stop_listening()


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


def read_image(
    arguments: argparse.Namespace, console: Console, unpacked: Path, interruption: Interruption
) -> Image | None:
    """The user's own image, every byte of it checked; None when there is none."""
    if arguments.image is None:
        return None
    with interruption.at_once():
        if not arguments.json:
            console.print(f"Reading {arguments.image}", soft_wrap=True)
        return load_image(arguments.image, work_directory=unpacked)


def run(
    arguments: argparse.Namespace,
    console: Console,
    image: Image | None,
    interruption: Interruption,
) -> int:
    log: list[str] = []
    say = silence if arguments.json else console.print
    try:
        with running_environment(interruption, log, say) as environment:
            report = play(environment, image, console, quiet=arguments.json)
    except Exception:
        show_log(log)
        raise
    if not report.ok:
        show_log(log)
    if arguments.json:
        print(report.as_json())
    else:
        console.print()
        report.print(console)
    return 0 if report.ok else 1


def play(environment: Environment, image: Image | None, console: Console, *, quiet: bool) -> Report:
    pulled = play_all(environment, image)
    if not quiet:
        console.print(
            f"{len(pulled)} manifests as Quay leaves them, all unsupported. Now the pipeline:\n"
        )
    with Timeline(pulled, console, quiet, started=time.time()) as timeline:
        progress = Progress(environment=environment, pulled=pulled, timeline=timeline)
        make_items_available()
        done = progress.follow()
        environment.workers.stop()  # else the last of what they say may still be on its way
        progress.show_news()
    if not done:
        print(
            f"workers.demo: nothing happened for {LONGEST_SILENCE_SECONDS:.0f} s, and there is "
            "work left",
            file=sys.stderr,
        )
    return build_report(environment, pulled, progress.outcomes, done=done)


def silence(text: str) -> None:
    """Says nothing: `--json` is read by programs."""


def show_log(log: Sequence[str]) -> None:
    """What the workers said, for whoever looks for the reason."""
    if log:
        print("\n".join(["The workers' logs:", *log, ""]), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
