"""What Clair's v4 description says on the calls that we make: names, types, what is required.

Facts of `clair-v4.openapi.json`, which Quay validates against; the tests hold the file itself
against the same answers where it is at hand.
"""

from __future__ import annotations

from typing import Any

INDEX_REPORT = "indexer/api/v1/index_report"
PATHS = {
    "GET": {
        f"{INDEX_REPORT}/{{manifest_hash}}",
        "indexer/api/v1/index_state",
        "matcher/api/v1/vulnerability_report/{manifest_hash}",
    },
    "POST": {INDEX_REPORT},
}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
SOURCE = _object("id name version", id=TEXT, name=TEXT, version=TEXT, kind=TEXT)
PACKAGE = _object(
    "id name version",
    **dict.fromkeys(("id", "name", "version", "kind", "arch", "module", "cpe"), TEXT),
    normalized_version=TEXT,
    source=SOURCE,
)
ENVIRONMENT = _object(
    "package_db introduced_in distribution_id",
    package_db=TEXT,
    introduced_in=TEXT,
    distribution_id=TEXT,
)
FOUND = {
    "manifest_hash": TEXT,
    "packages": _map(PACKAGE),
    "distributions": _map({"type": "object"}),
    "environments": _map({"type": "array", "items": ENVIRONMENT}),
}
VULNERABILITY = _object(
    "id updater name description links severity normalized_severity fixed_in_version",
    **dict.fromkeys(("id", "updater", "name", "description", "links", "severity"), TEXT),
    fixed_in_version=TEXT,
    normalized_severity={"enum": ["Unknown", "Negligible", "Low", "Medium", "High", "Critical"]},
    package=PACKAGE,
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "Manifest": _object(
        "hash layers",
        hash=TEXT,
        layers={
            "type": "array",
            "items": _object("hash uri headers", hash=TEXT, uri=TEXT, headers=_map(TEXTS)),
        },
    ),
    "IndexReport": _object(
        "manifest_hash state packages distributions environments success err",
        **FOUND,
        state=TEXT,
        success={"type": "boolean"},
        err=TEXT,
    ),
    "VulnerabilityReport": _object(
        "manifest_hash packages distributions environments vulnerabilities package_vulnerabilities",
        **FOUND,
        vulnerabilities=_map(VULNERABILITY),
        package_vulnerabilities=_map(TEXTS),
    ),
    "State": _object("state", state=TEXT),
    "Error": _object("", code=TEXT, message=TEXT),
}
