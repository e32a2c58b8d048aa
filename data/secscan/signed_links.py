"""Addresses at a layer server of ours, signed for a minute.

Used where the storage can't presign and no instance key is configured. The signature is
HMAC-SHA256 over digest and expiry, so that a link opens one blob for a short while and tells
nothing that would open another.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from data.secscan.layers import LayerLocation

LINK_LIFETIME = 60
"""Seconds that a link is good for: Clair fetches the layers as soon as it is asked to index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLinks:
    """Makes and checks links. `secret` is shared by the worker and the layer server."""

    base_url: str
    secret: bytes = field(repr=False)
    lifetime: int = LINK_LIFETIME
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("signed links need a secret")

    def locate(self, namespace: str, repository: str, digest: str) -> LayerLocation:  # noqa: ARG002
        """A link to the blob; the repository plays no part, as in a store that presigns."""
        expires = str(int(self.clock()) + self.lifetime)
        query = urlencode({"expires": expires, "signature": self._signature(digest, expires)})
        path = quote(digest, safe=":")
        return LayerLocation(
            digest=digest, uri=f"{self.base_url.rstrip('/')}/layers/{path}?{query}"
        )

    def verify(self, digest: str, expires: str, signature: str) -> bool:
        """Was this link made with our secret, for this digest, and is it still good?"""
        expected = self._signature(digest, expires).encode()
        genuine = hmac.compare_digest(expected, signature.encode(errors="replace"))
        return genuine and int(expires) > self.clock()

    def _signature(self, digest: str, expires: str) -> str:
        message = f"{digest}\n{expires}".encode(errors="replace")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()
