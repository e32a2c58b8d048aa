"""`make versions`: the tests of the database on each PostgreSQL from 12 to 17, one after the other.

The suite itself runs on 18. MySQL's server is in no registry that this could take it from: where
MYSQLD names one (a `mysqld` of 8.0 or newer), the tests run on that as well.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.npm import install
from tests.servers import MYSQLD, OTHER_POSTGRESQL

# Of the npm package, whose versions are PostgreSQL's own and a build.
POSTGRESQL = (
    "12.22.0-beta.15",
    "13.23.0-beta.16",
    "14.23.0-beta.17",
    "15.18.0-beta.17",
    "16.14.0-beta.17",
    "17.10.0-beta.17",
)
MACHINES = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
OUTPUT_LINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A server, how the suite is told to use it, and which of its tests need one."""

    name: str
    tests: str
    environment: dict[str, str] = field(default_factory=dict)


def postgresql(version: str) -> Version:
    programs = install(f"@embedded-postgres/{MACHINES[platform.machine()]}", version)
    return Version(
        name=f"PostgreSQL {version.partition('.0-')[0]}",
        tests="postgresql",
        environment={OTHER_POSTGRESQL: str(programs / "native" / "bin")},
    )


def mysql(mysqld: str) -> Version:
    said = subprocess.run([mysqld, "--version"], capture_output=True, text=True, check=True).stdout
    return Version(
        name=f"MySQL {said.partition('Ver ')[2].partition(' ')[0]}",
        tests="mariadb",
        environment={MYSQLD: mysqld},
    )


def passes(version: Version) -> bool:
    """Runs the tests and says how they ended; all of what pytest said where one failed."""
    sys.stdout.write(f"{version.name} .. ")
    sys.stdout.flush()
    started = time.monotonic()
    parallel = ("-n", "6", "--dist", "loadgroup")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *parallel, "-k", version.tests],
        cwd=Path(__file__).parents[1],
        env=os.environ | version.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = done.stdout.splitlines()
    sys.stdout.write(f"{lines[-1]} ({time.monotonic() - started:.0f} s in all)\n")
    if done.returncode != 0:
        sys.stdout.write("\n".join(lines[-OUTPUT_LINES:]) + "\n")
    return done.returncode == 0


def main() -> int:
    ended = [passes(postgresql(version)) for version in POSTGRESQL]
    if mysqld := os.environ.get(MYSQLD):
        ended.append(passes(mysql(mysqld)))
    else:
        sys.stdout.write("left out: MySQL; MYSQLD=<mysqld> make versions runs it here too\n")
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
