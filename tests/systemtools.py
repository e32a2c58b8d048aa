"""Programs of the system's packages that some tests need: without them a run says what it left out.

CI leaves nothing out: there a missing program ends the run (`tests/conftest.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemTool:
    """A program, the package that has it, and what is left out without it."""

    program: str
    package: str
    left_out: str

    @property
    def path(self) -> str | None:
        return shutil.which(self.program)

    @property
    def message(self) -> str:
        return f"left out: {self.left_out}; install the package {self.package} to run it here too"


CHROMIUM = SystemTool("chromium", "chromium", "the tests of the page in a browser")
PROMTOOL = SystemTool("promtool", "prometheus", "the tests of alerts and dashboard by Prometheus")
PROMETHEUS = SystemTool("prometheus", "prometheus", "the queries of the dashboard")
ZSH = SystemTool("zsh", "zsh", "the completion of the command line in zsh")
TOOLS = (CHROMIUM, PROMTOOL, PROMETHEUS, ZSH)


def missing() -> list[str]:
    """One line for each program that isn't there."""
    return [tool.message for tool in TOOLS if tool.path is None]
