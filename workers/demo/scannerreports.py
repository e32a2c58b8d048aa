"""The scanner stand-in's work: layers in, reports out, in the form of Clair's v4 API.

It finds the packages of dpkg and apk and no others, and knows no vulnerability but those it was
given, so its reports say less than Clair's would.
"""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from workers.demo.layerarchive import LayerUnreadable, layer_contents
from workers.demo.layerfetch import FetchFailed, RequestedLayer, RequestedManifest, fetch_layer
from workers.demo.packages import LayerContents, Package, installed_packages

Report = Mapping[str, Any]

FINISHED = "IndexFinished"
ERROR = "IndexError"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVulnerability:
    """A vulnerability that the stand-in shall find in every version of the package `package`."""

    id: str
    package: str
    name: str = "CVE-0000-0000"
    description: str = "a made-up vulnerability of the scanner stand-in"
    links: str = ""
    severity: str = "High"
    fixed_in_version: str = ""


class LayersNotFetched(Exception):
    """An index that failed. `report` is what Clair keeps of it."""

    def __init__(self, report: Report) -> None:
        super().__init__(report["err"])
        self.report = report


class Reports:
    """Indexes manifests, and remembers each by digest with the state it was indexed in.

    Like Clair, a manifest that is finished in the present state isn't read again, and two requests
    for the same one wait for each other.
    """

    def __init__(self, vulnerabilities: Sequence[KnownVulnerability] = ()) -> None:
        self._vulnerabilities = tuple(vulnerabilities)
        self._reports: dict[str, tuple[str, Report]] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def index(self, manifest: RequestedManifest, state: str) -> Report:
        """Fetch and read all layers. Raises NotATar, or LayersNotFetched."""
        with self._locks[manifest.hash]:
            known = self._reports.get(manifest.hash)
            if known is not None and known[0] == state and known[1]["success"]:
                return known[1]
            try:
                report = index_report(manifest.hash, installed_packages(_read_layers(manifest)))
            except (FetchFailed, LayerUnreadable) as error:
                failed = index_report(manifest.hash, {}, f"failed to fetch layers: {error}")
                self._reports[manifest.hash] = (state, failed)
                raise LayersNotFetched(failed) from error
            self._reports[manifest.hash] = (state, report)
            return report

    def get(self, digest: str) -> Report | None:
        """The index report of this manifest, finished or failed."""
        known = self._reports.get(digest)
        return known[1] if known else None

    def vulnerability_report(self, digest: str) -> Report | None:
        """The vulnerability report of a manifest whose index is finished."""
        report = self.get(digest)
        if report is None or not report["success"]:
            return None
        return vulnerability_report(report, self._vulnerabilities)


def _read_layers(manifest: RequestedManifest) -> list[LayerContents]:
    with (
        tempfile.TemporaryDirectory(prefix="stand-in-layers-") as directory,
        requests.Session() as session,
    ):
        # Neither a proxy nor a ~/.netrc of the environment has a say in what we were told.
        session.trust_env = False
        session.headers["Accept-Encoding"] = "identity"
        return [_read_layer(session, layer, Path(directory)) for layer in manifest.layers]


def _read_layer(session: requests.Session, layer: RequestedLayer, directory: Path) -> LayerContents:
    path = fetch_layer(session, layer, directory)
    try:
        return layer_contents(layer.hash, path)
    finally:
        path.unlink()


def index_report(digest: str, packages: Mapping[Package, str], err: str = "") -> Report:
    """An index report: the packages with the layer that brought each in, or what went wrong."""
    numbered = {str(number): item for number, item in enumerate(packages.items(), start=1)}
    return {
        "manifest_hash": digest,
        "state": ERROR if err else FINISHED,
        "packages": {number: _package(number, item[0]) for number, item in numbered.items()},
        "distributions": {},
        "repository": {},
        "environments": {
            number: [
                {"package_db": package.database, "introduced_in": layer, "distribution_id": ""}
            ]
            for number, (package, layer) in numbered.items()
        },
        "success": not err,
        "err": err,
    }


def _package(number: str, package: Package) -> Mapping[str, Any]:
    described: dict[str, Any] = {
        "id": number,
        "name": package.name,
        "version": package.version,
        "kind": "binary",
        "arch": package.architecture,
        "normalized_version": "",
        "module": "",
        "cpe": "",
    }
    if package.source:
        described["source"] = {
            "id": f"{number}-source",
            "name": package.source,
            "version": package.version,
            "kind": "source",
        }
    return described


def vulnerability_report(report: Report, vulnerabilities: Sequence[KnownVulnerability]) -> Report:
    """The report of a finished index, matched by package name alone."""
    matches = {
        number: [known.id for known in vulnerabilities if known.package == package["name"]]
        for number, package in report["packages"].items()
    }
    found = {identifier for identifiers in matches.values() for identifier in identifiers}
    return {
        "manifest_hash": report["manifest_hash"],
        "packages": report["packages"],
        "distributions": report["distributions"],
        "repository": report["repository"],
        "environments": report["environments"],
        "vulnerabilities": {
            known.id: _vulnerability(known) for known in vulnerabilities if known.id in found
        },
        "package_vulnerabilities": {number: ids for number, ids in matches.items() if ids},
        "enrichments": {},
    }


def _vulnerability(known: KnownVulnerability) -> Mapping[str, Any]:
    return {
        "id": known.id,
        "updater": "scanner stand-in",
        "name": known.name,
        "description": known.description,
        "links": known.links,
        "severity": known.severity,
        "normalized_severity": known.severity,
        "package": {"id": "0", "name": known.package, "version": ""},
        "fixed_in_version": known.fixed_in_version,
    }
