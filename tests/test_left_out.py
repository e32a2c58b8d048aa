"""A run says what it left out, in one line each, and how to have it; CI leaves nothing out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import conftest, systemtools

ROOT = Path(__file__).parent.parent


def run_without_system_packages(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`make test` on one quick file, where no program of the system's packages is found."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "tests/data/test_digests.py"],
        cwd=ROOT,
        env=environment | {"PATH": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
    )


def test_run_says_in_one_line_what_it_left_out_and_how_to_get_it(tmp_path: Path) -> None:
    done = run_without_system_packages(tmp_path)
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("left out:")]
    for tool in systemtools.TOOLS:
        assert [line for line in lines if f"install the package {tool.package}" in line]


def test_ci_fails_where_anything_was_left_out(tmp_path: Path) -> None:
    done = run_without_system_packages(tmp_path, CI="true")
    assert done.returncode == 1
    assert "CI leaves nothing out" in done.stdout + done.stderr


def test_missing_mariadb_is_one_such_line() -> None:
    assert conftest.left_out(["sqlite", "postgresql"])[0] == conftest.MARIADB_MISSING
    assert conftest.MARIADB_MISSING not in conftest.left_out(["sqlite", "mariadb"])
    assert "install the package mariadb-server" in conftest.MARIADB_MISSING
