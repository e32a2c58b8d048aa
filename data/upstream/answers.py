"""What an answer, or the want of one, means: pure decisions over statuses, headers and errors."""

from __future__ import annotations

import email.utils
import http.client
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from urllib3.exceptions import (
    ConnectTimeoutError,
    InvalidHeader,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from data.errors import (
    BlobTruncated,
    DataError,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamUnavailable,
)
from data.upstream.connections import Deadline

# A Retry-After beyond this is taken for this: a registry may not put our work off for good.
LONGEST_WAIT = 24 * 3600.0  # seconds
# Client errors that pass by themselves: request time-out, too early.
PASSING_STATUSES = frozenset({408, 425})


def status_error(
    status: int, what: str, *, retry_after: str | None, anonymous: bool, now: datetime
) -> UpstreamError:
    """What a status other than 200 means for `what` ("blob sha256:.. of library/nginx at host").

    Other successes are refused too: a part (206) or nothing (204) is not what was asked for.
    """
    if status in (401, 403):
        who = "anonymous clients" if anonymous else "the organisation's upstream login"
        return UpstreamDenied(
            f"{what}: denied to {who} ({status}); check the upstream username and password in the "
            "organisation's proxy cache settings in Quay, and that the repository exists"
        )
    if status == 404:
        return UpstreamNotFound(f"{what}: the upstream registry doesn't have it (404)")
    if status == 429:
        wait = seconds_to_wait(retry_after, now)
        return UpstreamBusy(
            f"{what}: the upstream registry limits our requests (429); tried again later. "
            "A login raises the limit at many registries",
            wait,
        )
    if status >= 500 or status in PASSING_STATUSES:
        return UpstreamUnavailable(f"{what}: the upstream registry has trouble ({status})")
    return UpstreamRefused(f"{what}: status {status}, which is no answer to a GET of a registry")


def seconds_to_wait(retry_after: str | None, now: datetime) -> float | None:
    """Reads Retry-After, which is seconds or an HTTP date; None if it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT)


def worth_another_try(error: Exception) -> bool:
    """Whether the connection failed before there was an answer, so that the next may not."""
    if isinstance(error, ProtocolError):
        return any(isinstance(cause, ConnectionError) for cause in causes(error))
    return isinstance(error, (ConnectTimeoutError, ProxyError))


def translated_error(error: Exception, host: str, deadline: Deadline) -> DataError:
    """Our error for what urllib3 or a socket raised while talking to `host`."""
    if isinstance(error, HTTPTimeoutError) and not isinstance(error, NewConnectionError):
        if deadline.passed:
            return UpstreamUnavailable(
                f"{host} took longer than the {deadline.seconds:g} s that an exchange may take"
            )
        doing = "connect" if isinstance(error, ConnectTimeoutError) else "go on with its answer"
        return UpstreamUnavailable(f"{host} took too long to {doing}")
    if isinstance(error, NameResolutionError):
        return UpstreamUnavailable(f"{host} can't be found: its name doesn't resolve")
    if isinstance(error, SSLError):
        return UpstreamUnavailable(f"no trusted TLS connection to {host}: {tls_reason(error)}")
    if any(isinstance(cause, http.client.IncompleteRead) for cause in causes(error)):
        return BlobTruncated(f"{host} ended the connection before the end of its answer")
    if breaks_protocol(error):
        return UpstreamRefused(f"{host} answers with what is no HTTP: {root_cause(error)}")
    return UpstreamUnavailable(f"no connection to {host}: {root_cause(error)}")


def breaks_protocol(error: Exception) -> bool:
    """Whether the host did answer, and that answer can't be understood."""
    if isinstance(error, (LocationValueError, InvalidHeader, ValueError)):
        return True
    chain = list(causes(error))
    if any(isinstance(cause, OSError) for cause in chain):
        return False
    return any(isinstance(cause, http.client.HTTPException) for cause in chain)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, nearest first."""
    step: BaseException | None = error
    while step is not None:
        yield step
        step = step.__cause__ or step.__context__


def root_cause(error: BaseException) -> str:
    """The first thing that went wrong, in its own words, short enough for a log line."""
    first = list(causes(error))[-1]
    text = first.strerror if isinstance(first, OSError) and first.strerror else str(first)
    return (text or type(first).__name__)[:200]


def tls_reason(error: Exception) -> str:
    """Why the TLS handshake failed, with the mend for the usual reason."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{cause.verify_message}; add the certificate of its authority to the system's, "
                "or mark the upstream as insecure in Quay if it speaks plain http"
            )
    return root_cause(error)
