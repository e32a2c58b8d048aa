"""What Clair answers, as values: the part that we read of it.

Field names are Clair's (clair v4, openapi schemas IndexReport and VulnerabilityReport). Go writes
an empty map or text as `null` in places, so those read as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Value = TypeVar("Value")
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
MapOf = Annotated[
    Mapping[str, Value], BeforeValidator(lambda value: {} if value is None else value)
]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class ReportState(Enum):
    """How an index ended. Clair has names for the steps between, which are no end."""

    FINISHED = "IndexFinished"
    """Every layer was read."""
    ERROR = "IndexError"
    """Clair gave up on the manifest; `err` says why."""


UNFINISHED_STATES = frozenset(
    {"CheckManifest", "FetchLayers", "ScanLayers", "Coalesce", "IndexManifest"}
)
"""Clair's names for an index that is still going on (claircore, indexer/controller/state.go)."""


class IndexReport(_Report):
    """The end of one index.

    `indexer_state` is the etag of the answer without its quotes. After an index call it is the
    state that the report was made with; after `get_index_report` it is only Clair's state of today.
    """

    manifest_hash: str
    state: ReportState
    err: str = ""
    indexer_state: str


class IndexReportAnswer(_Report):
    """An index report as it comes over the wire, its state not yet judged."""

    manifest_hash: str
    state: str
    err: Text = ""


class IndexStateAnswer(_Report):
    """The indexer's state as it comes over the wire."""

    state: str = Field(min_length=1, max_length=128)


class Severity(StrEnum):
    """Clair's normalized severities, mildest first."""

    UNKNOWN = "Unknown"
    NEGLIGIBLE = "Negligible"
    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    CRITICAL = "Critical"

    @classmethod
    def _missing_(cls, value: Any) -> Severity | None:  # noqa: ARG003
        return cls.UNKNOWN


class VulnerablePackage(_Report):
    """The package that a vulnerability is about, in the words of its source."""

    name: Text = ""
    version: Text = ""


class Vulnerability(_Report):
    """One vulnerability. `links` are separated by spaces; no `fixed_in_version` means no fix."""

    id: str
    name: Text = ""
    description: Text = ""
    links: Text = ""
    severity: Text = ""
    normalized_severity: Severity = Severity.UNKNOWN
    fixed_in_version: Text = ""
    package: VulnerablePackage | None = None


class VulnerabilityReport(_Report):
    """What a manifest suffers from: vulnerabilities by their id, and their ids by package id."""

    manifest_hash: str
    vulnerabilities: MapOf[Vulnerability] = Field(default_factory=dict)
    package_vulnerabilities: MapOf[tuple[str, ...]] = Field(default_factory=dict)
