"""Client of the OCI distribution API, for the two things that a proxied pull needs.

The API is that of the OCI distribution specification, chapter "Pull".
"""

from __future__ import annotations

import builtins
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from data.digests import DIGEST
from data.errors import UpstreamError, UpstreamNotFound, UpstreamRefused
from data.upstream.addresses import AddressGuard
from data.upstream.answers import status_error
from data.upstream.authentication import (
    LONGEST_LIFETIME,
    Authorizations,
    basic_authorization,
    choose_challenge,
    parse_challenges,
    parse_token_answer,
    token_url,
)
from data.upstream.connections import Connections, Deadline, Timeouts
from data.upstream.fetch import Answer, Fetcher, host_of
from data.upstream.registry import (
    Upstream,
    configured_authorities,
    is_repository_name,
    same_origin,
)
from data.upstream.verification import verified_digest

MANIFEST_MEDIA_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
MAX_TOKEN_BYTES = 256 * 1024

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamManifest:
    """A manifest as the registry sent it; `digest` is that of `bytes`, and was checked."""

    bytes: builtins.bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStream:
    """A blob on its way: announced size in bytes, and the bytes, which nobody has verified yet.

    Taking from `chunks` raises `UpstreamUnavailable`, `UpstreamRefused`, or `BlobTruncated`.
    """

    size: int | None
    chunks: Iterator[bytes]


class UpstreamClient:
    """Fetches from one organisation's upstream; may be used by many threads.

    Times are in seconds: to connect, between two pieces of an answer, and for one manifest or blob
    from the first request to the last byte. `allowed_hosts` is Quay's SSRF_ALLOWED_HOSTS.
    `proxies` is as `urllib.request.getproxies_environment` gives it; `ca_bundle` is a PEM file that
    replaces the system's authorities. Both are by default what the environment says, as they are
    for Quay: http_proxy, https_proxy, no_proxy, and REQUESTS_CA_BUNDLE.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        allowed_hosts: frozenset[str] = frozenset(),
        connect_timeout: float = 10.0,
        idle_timeout: float = 60.0,
        total_timeout: float = 3600.0,
        max_manifest_bytes: int = 4 * 1024 * 1024,
        retry_pause: float = 0.25,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self.upstream = upstream
        self._max_manifest_bytes = max_manifest_bytes
        self._total_timeout = total_timeout
        self._connections = Connections(
            AddressGuard(configured=configured_authorities(upstream), allowed_hosts=allowed_hosts),
            Timeouts(connect=connect_timeout, idle=idle_timeout),
            proxies=urllib.request.getproxies_environment() if proxies is None else proxies,
            ca_bundle=ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE"),
        )
        self._fetcher = Fetcher(connections=self._connections, pause=retry_pause)
        self._authorizations = Authorizations()

    def get_manifest(self, repository: str, reference: str) -> UpstreamManifest:
        """The manifest that the tag or digest `reference` names, its digest checked.

        Raises an `UpstreamError`.
        """
        what = f"manifest {reference[:128]} of {repository} at {self.upstream.registry}"
        if not (_TAG.fullmatch(reference) or DIGEST.fullmatch(reference)):
            raise UpstreamRefused(f"{what}: {reference[:80]!r} is neither a tag nor a digest")
        accept = {"Accept": ", ".join(MANIFEST_MEDIA_TYPES)}
        with self._open(repository, f"manifests/{reference}", what, accept) as answer:
            content = answer.body(self._max_manifest_bytes)
            media_type = answer.response.headers.get("Content-Type", "").partition(";")[0].strip()
            announced = answer.response.headers.get("Docker-Content-Digest")
        digest = verified_digest(
            content, media_type, reference=reference, announced=announced, what=what
        )
        return UpstreamManifest(bytes=content, media_type=media_type, digest=digest)

    @contextmanager
    def open_blob(self, repository: str, digest: str) -> Iterator[BlobStream]:
        """The blob, to be read inside the context; leaving it early ends the download.

        Raises an `UpstreamError`.
        """
        what = f"blob {digest[:80]} of {repository} at {self.upstream.registry}"
        if not DIGEST.fullmatch(digest):
            raise UpstreamRefused(f"{what}: that is no sha256 digest")
        with self._open(repository, f"blobs/{digest}", what, {}) as answer:
            yield BlobStream(size=answer.size, chunks=answer.pieces())

    def close(self) -> None:
        """Closes the kept connections."""
        self._connections.close()

    @contextmanager
    def _open(
        self, repository: str, path: str, what: str, headers: Mapping[str, str]
    ) -> Iterator[Answer]:
        """The answer of status 200 to a GET, authenticated if the registry asks for it."""
        if not is_repository_name(repository):
            raise UpstreamRefused(f"{what}: that is no name of a repository")
        url = f"{self.upstream.base_url}/v2/{repository}/{path}"
        scope = f"repository:{repository}:pull"
        deadline = Deadline(self._total_timeout)
        answer = self._fetcher.get(
            url, deadline, headers=headers, authorization=self._authorizations.get(scope)
        )
        if answer.status == 401 and same_origin(url, answer.url):
            offered = answer.response.headers.getlist("WWW-Authenticate")
            answer.discard()
            answer = self._fetcher.get(
                url,
                deadline,
                headers=headers,
                authorization=self._authorize(offered, scope, what, deadline),
            )
        with closing(answer):
            self._require_ok(answer, what)
            yield answer

    def _authorize(self, offered: list[str], scope: str, what: str, deadline: Deadline) -> str:
        """Answers the challenges of a 401, and keeps the header for the next request."""
        login = basic_authorization(self.upstream)
        challenge = choose_challenge(parse_challenges(offered), has_login=login is not None)
        if challenge is None:
            raise self._status_error(401, what)
        if challenge.scheme == "basic":
            assert login is not None, "Basic is only chosen where there is a login"
            header, lifetime = login, LONGEST_LIFETIME
        else:
            url = token_url(challenge, scope, insecure=self.upstream.insecure)
            header, lifetime = self._fetch_token(url, login, what, deadline)
        self._authorizations.keep(scope, header, lifetime)
        return header

    def _fetch_token(
        self, url: str, login: str | None, what: str, deadline: Deadline
    ) -> tuple[str, float]:
        asked = f"token of {host_of(url)} for {what}"
        with closing(self._fetcher.get(url, deadline, authorization=login)) as answer:
            try:
                self._require_ok(answer, asked)
            except UpstreamNotFound as error:
                raise UpstreamRefused(f"{asked}: there is no token server (404)") from error
            token = parse_token_answer(answer.body(MAX_TOKEN_BYTES), host_of(url))
        return token.authorization, token.lifetime

    def _require_ok(self, answer: Answer, what: str) -> None:
        if answer.status != 200:
            raise self._status_error(
                answer.status, what, answer.response.headers.get("Retry-After")
            )

    def _status_error(
        self, status: int, what: str, retry_after: str | None = None
    ) -> UpstreamError:
        return status_error(
            status,
            what,
            retry_after=retry_after,
            anonymous=basic_authorization(self.upstream) is None,
            now=datetime.now(UTC),
        )
