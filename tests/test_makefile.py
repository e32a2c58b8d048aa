"""The Makefile on a fresh machine, with a Python that only notes what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Answers as far as make goes by it: its version, an environment of its own, the program.
PYTHON = """#!/bin/sh
echo "$@" >> "$NOTES"
case "$*" in
  -c*) exit 0 ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) cat > /dev/null ;;
  "-m workers.demo"*) echo '{"ok": true}' ;;
esac
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout on which nothing was made yet."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3.13"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(name, tmp_path)
    return tmp_path


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=directory,
        env=kept
        | {
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "NOTES": str(directory / "notes"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_the_first_demo_prints_its_json_and_nothing_else_on_standard_output(fresh: Path) -> None:
    first = make(fresh, "demo", "ARGUMENTS=--json")
    assert first.stdout == '{"ok": true}\n'
    assert "Installing what running needs" in first.stderr
    assert "-m workers.demo --json" in (fresh / "notes").read_text()


def test_what_is_made_is_not_made_again(fresh: Path) -> None:
    make(fresh, "demo")
    (fresh / "notes").unlink()
    again = make(fresh, "demo")
    assert again.stderr == ""
    asked = (fresh / "notes").read_text()
    assert "-m pip" not in asked
    assert "-m venv" not in asked
