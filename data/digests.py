"""The one form of digest that a registry of ours handles: `sha256:` and 64 hex digits.

Whatever else claims to be a digest is refused before it is part of a path, a URL or a query.
"""

from __future__ import annotations

import re

from data.errors import ManifestError

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: object) -> str:
    """`text` itself, when it is a digest (OCI image spec, "Digests"; lower case as written there).

    Raises `ManifestError` for anything else, such as `sha256:../../x`. Other algorithms are none
    either: Quay names what it stores by sha256 alone.
    """
    if not isinstance(text, str):
        # Not the value: one nested deeply enough makes its own repr fail.
        raise ManifestError(f"a digest is missing or is no text, but {type(text).__name__}")
    if DIGEST.fullmatch(text):
        return text
    raise ManifestError(
        f"{text[:80]!r} is no digest; one is sha256: and 64 hex digits in lower case"
    )
