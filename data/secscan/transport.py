"""One question to Clair and its whole answer, or ScannerUnavailable.

Kept connections, the signature, time-outs, the size limit and the one repetition that is safe are
here; what an answer means is not (`data.secscan.clair`, `data.secscan.refusals`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import DEFAULT_ACCEPT_ENCODING
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from data.errors import ScannerUnavailable, SettingsError
from data.secscan.connections import Route, causes, closed_while_kept, open_route
from data.secscan.psk import PskSignature
from data.secscan.refusals import Answer, readable

CONNECT_TIMEOUT = 10.0
"""Seconds to reach Clair."""

SETTING = "SECURITY_SCANNER_V4_ENDPOINT"

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": DEFAULT_ACCEPT_ENCODING,
    "User-Agent": "quay-rescan",
}


class ClairTransport:
    """Sends requests to the Clair at `endpoint`, signed with `psk` where there is one.

    `answer_limit` is in bytes, unpacked. Raises SettingsError when the endpoint is no http(s)
    address or the key no base64.
    """

    def __init__(self, endpoint: str, *, psk: str | None, answer_limit: int) -> None:
        self.shown = _shown(endpoint)
        self._endpoint = endpoint
        self._signature = PskSignature(psk)
        self._answer_limit = answer_limit
        self._pid, self._route = os.getpid(), cast(Route | None, None)

    def ask(
        self,
        purpose: str,
        method: str,
        path: str,
        *,
        timeout: float,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """The answer, whatever its status; `purpose` ("index sha256:..") is for the message.

        A kept connection that turns out to be closed is replaced, once. Raises ScannerUnavailable
        when there is no answer within `timeout` seconds, or one that is cut off or too large.
        """
        for may_repeat in (True, False):
            try:
                return self._send(purpose, method, path, body, timeout)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                if may_repeat and closed_while_kept(error):
                    continue
                raise ScannerUnavailable(
                    f"Clair at {self.shown} gave no answer when asked to {purpose}: "
                    f"{_reason(error)}"
                ) from error
        raise AssertionError("the second try returns or raises")

    def close(self) -> None:
        """Close the kept connections; a later request opens new ones."""
        if self._route is not None:
            self._route.pool.close()
        self._route = None

    def _send(
        self,
        purpose: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Answer:
        headers = {**HEADERS, **self._signature.headers()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = self._own_route().send(
            method,
            path,
            headers=headers,
            body=None if body is None else json.dumps(body, allow_nan=False).encode(),
            timeout=Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout),
        )
        try:
            content = self._read(purpose, response)
        except BaseException:
            response.close()  # not to be used again: the rest of the answer is still to come
            raise
        finally:
            response.release_conn()
        return Answer(status=response.status, headers=response.headers, body=content)

    def _read(self, purpose: str, response: BaseHTTPResponse) -> bytes:
        content = bytearray()
        for part in response.stream(64 * 1024, decode_content=True):
            content += part
            if len(content) > self._answer_limit:
                raise ScannerUnavailable(
                    f"Clair's answer is larger than {self._answer_limit} bytes when asked to "
                    f"{purpose}"
                )
        return bytes(content)

    def _own_route(self) -> Route:
        if self._route is None or os.getpid() != self._pid:
            # After a fork the kept connections are the parent's.
            self._pid, self._route = os.getpid(), open_route(self._endpoint)
        return self._route


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; urllib3's own repeat the address and the pool."""
    innermost = list(causes(error))[-1]
    words = innermost.strerror if isinstance(innermost, OSError) else str(innermost)
    return readable(words or str(innermost) or type(innermost).__name__)


def _shown(endpoint: str) -> str:
    """The address without what may be secret in it; checks that it is one."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(SETTING, f"is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(SETTING, "must be an address such as http://clair:6060")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
