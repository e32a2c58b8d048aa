"""What a process keeps in memory, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

RESIDENT, PEAK = "VmRSS", "VmHWM"


def resident_mib(pid: int) -> float:
    """What it keeps now."""
    return status_mib(pid, RESIDENT)


def forget_peak(pid: int) -> None:
    """From now on the peak is what it keeps now, or more."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The most that it kept since its start, or since `forget_peak`."""
    return status_mib(pid, PEAK)


def status_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no {name}")
