"""Client of Clair v4: the calls that scanning a manifest needs.

Every way in which Clair can fail to give a report is an error of `data.errors`; which one, tells
`data.secscan.refusals`. A client keeps its connections: one a process is enough, threads may share
it, and a process forked off with it opens connections of its own.

Facts: clair v4's httptransport (indexer_v1.go, matcher_v1.go) and Quay's use of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data.digests import parse_digest
from data.errors import ScannerUnavailable
from data.secscan.layers import LayerLocation
from data.secscan.refusals import Answer, readable, refusal
from data.secscan.reports import (
    UNFINISHED_STATES,
    IndexReport,
    IndexReportAnswer,
    IndexStateAnswer,
    ReportState,
    VulnerabilityReport,
)
from data.secscan.transport import ClairTransport

__all__ = ["ClairClient", "IndexReport", "ReportState", "VulnerabilityReport"]

INDEXER = "/indexer/api/v1"
MATCHER = "/matcher/api/v1"

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer, unpacked; an index report of a large image is a few megabytes."""

STATE_LIMIT = 128
"""Characters of Clair's state: what Quay's column `indexer_hash` holds."""

Parsed = TypeVar("Parsed", bound=BaseModel)


class ClairClient:
    """Clair at one address.

    `endpoint` is SECURITY_SCANNER_V4_ENDPOINT, `psk` SECURITY_SCANNER_V4_PSK (base64; None or
    empty: requests aren't signed). The time-outs are in seconds and bound the whole answer, to its
    last byte: `index_timeout` for the index call, `timeout` for all others.

    Raises SettingsError when the endpoint is no http(s) address or the key no base64.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        psk: str | None,
        index_timeout: float = 600,
        timeout: float = 30,
        answer_limit: int = ANSWER_LIMIT,
    ) -> None:
        self._transport = ClairTransport(endpoint, psk=psk, answer_limit=answer_limit)
        self._index_timeout = index_timeout
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"ClairClient({self._transport.shown!r})"

    def index_state(self, *, timeout: float | None = None) -> str:
        """The state of Clair's indexer; when it changes, manifests want indexing again.

        With a shorter `timeout` (seconds) it is the cheapest sign of life.
        """
        purpose = "tell its index state"
        answer = self._get(purpose, f"{INDEXER}/index_state", timeout)
        return _parse(IndexStateAnswer, purpose, _wanted(purpose, answer, 200)).state

    def index(self, manifest_digest: str, layers: Sequence[LayerLocation]) -> IndexReport:
        """Have Clair read the layers, base layer first; returns when that has ended.

        Cheap for a manifest that Clair has. A report whose state is ERROR is a return value: Clair
        tried, and says in `err` what it met. Raises ScannerRejectedManifest, ScannerFetchFailed,
        ScannerBusy, ScannerDenied or ScannerUnavailable.
        """
        parse_digest(manifest_digest)
        purpose = f"index {manifest_digest}"
        answer = self._transport.ask(
            purpose,
            "POST",
            f"{INDEXER}/index_report",
            body={"hash": manifest_digest, "layers": [_layer(layer) for layer in layers]},
            timeout=self._index_timeout,
        )
        report = _parse(IndexReportAnswer, purpose, _wanted(purpose, answer, 200, 201))
        if report.state in UNFINISHED_STATES:
            raise ScannerUnavailable(f"Clair stopped at {report.state} when asked to {purpose}")
        return self._judge(purpose, manifest_digest, report, answer)

    def get_index_report(self, digest: str) -> IndexReport | None:
        """The report that Clair has of this manifest; None where it has none, or is still at it."""
        parse_digest(digest)
        purpose = f"show its index of {digest}"
        answer = self._get(purpose, f"{INDEXER}/index_report/{digest}")
        if answer.status == 404:
            return None
        report = _parse(IndexReportAnswer, purpose, _wanted(purpose, answer, 200))
        if report.state in UNFINISHED_STATES:
            return None
        return self._judge(purpose, digest, report, answer)

    def vulnerability_report(self, digest: str) -> VulnerabilityReport | None:
        """What Clair knows against this manifest; None where it hasn't indexed it.

        ScannerUnavailable also while Clair's matcher is still loading vulnerabilities (202).
        """
        parse_digest(digest)
        purpose = f"match {digest}"
        answer = self._get(purpose, f"{MATCHER}/vulnerability_report/{digest}")
        if answer.status == 404:
            return None
        # Clair answers 200 where its description says 201.
        report = _parse(VulnerabilityReport, purpose, _wanted(purpose, answer, 200, 201))
        _same_manifest(purpose, digest, report.manifest_hash)
        return report

    def close(self) -> None:
        """Close the kept connections. The client may be used again."""
        self._transport.close()

    def _get(self, purpose: str, path: str, timeout: float | None = None) -> Answer:
        return self._transport.ask(purpose, "GET", path, timeout=timeout or self._timeout)

    def _judge(
        self, purpose: str, digest: str, report: IndexReportAnswer, answer: Answer
    ) -> IndexReport:
        _same_manifest(purpose, digest, report.manifest_hash)
        try:
            state = ReportState(report.state)
        except ValueError as error:
            raise ScannerUnavailable(
                f"Clair answered with a state that we don't know, {readable(report.state)!r}, "
                f"when asked to {purpose}"
            ) from error
        return IndexReport(
            manifest_hash=digest,
            state=state,
            err=readable(report.err),
            indexer_state=_state(answer) or self.index_state(),
        )


def _layer(layer: LayerLocation) -> dict[str, Any]:
    headers = {name: list(values) for name, values in layer.headers.items()}
    return {"hash": layer.digest, "uri": layer.uri, "headers": headers}


def _wanted(purpose: str, answer: Answer, *statuses: int) -> Answer:
    if answer.status not in statuses:
        raise refusal(purpose, answer)
    return answer


def _state(answer: Answer) -> str | None:
    """The etag without its quotes; None where a proxy that compresses has dropped it."""
    state = answer.headers.get("ETag", "").strip().removeprefix("W/").strip('"')
    return state if 0 < len(state) <= STATE_LIMIT else None


def _parse(model: type[Parsed], purpose: str, answer: Answer) -> Parsed:
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        problem = readable(f"{where} {first['msg']}")
        raise ScannerUnavailable(
            f"Clair's answer is no report when asked to {purpose}: {problem}"
        ) from error


def _same_manifest(purpose: str, asked: str, answered: str) -> None:
    if asked != answered:
        raise ScannerUnavailable(
            f"Clair was asked to {purpose} and answered for {readable(answered)}"
        )
