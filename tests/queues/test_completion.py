"""The Tab key, in the shells that the script is for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systemtools import ZSH

# One process, so that the script is made once.
pytestmark = pytest.mark.xdist_group("completion")
SHELLS = ["bash", *(["zsh"] if ZSH.path else [])]


ROOT = Path(__file__).parent.parent.parent
PRINT_SCRIPT = f"cd {shlex.quote(str(ROOT))} && {shlex.quote(sys.executable)} -m queues completion"


@pytest.fixture(scope="module")
def script() -> str:
    """What `completion` prints, once for all: it is the same in every shell."""
    return subprocess.run(
        PRINT_SCRIPT, shell=True, check=True, capture_output=True, text=True
    ).stdout


def run_shell(shell: str, directory: Path, commands: str, script: str | None = None) -> str:
    """What these commands print in a shell that has evaluated the script, in another directory.

    Without `script` the shell evaluates what it has `completion` print, as a person's does.
    """
    setup = f'eval "$({PRINT_SCRIPT})"' if script is None else script
    options = ["--norc"] if shell == "bash" else ["--no-rcs"]
    done = subprocess.run(
        [shell, *options, "-c", f"{setup}\n{commands}"],
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def complete(shell: str, directory: Path, words: list[str], script: str) -> set[str]:
    """What the Tab key offers at the end of the last word."""
    line = shlex.join(["queues", *words])
    commands = (
        f"COMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
        "_queues_completion\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(run_shell(shell, directory, commands, script).split())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["d"], {"drain", "doctor"}),
        (["list", ""], {"queued", "started", "scheduled", "failed"}),
        (["backfill", "--r"], {"--rate", "--restart"}),
    ],
)
def test_tab_offers_commands_options_and_values(
    shell: str, words: list[str], offered: set[str], tmp_path: Path, script: str
) -> None:
    assert complete(shell, tmp_path, words, script) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_short_name_runs_the_command_line_from_anywhere(shell: str, tmp_path: Path) -> None:
    printed = run_shell(shell, tmp_path, "queues status --config /nowhere; echo $?")
    assert printed == "2\n"


def test_python_itself_is_left_alone(tmp_path: Path, script: str) -> None:
    assert run_shell("bash", tmp_path, "complete -p python || echo none", script) == "none\n"
