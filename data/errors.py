"""Every error that `data` raises.

    DataError
    ├── SettingsError                config.yaml is missing, unreadable or has a wrong value
    ├── SecretError                  an encrypted column or a key can't be read
    ├── DatabaseUnavailable          the database can't be reached or gave up for now
    ├── NotFoundError                a name of a person's points at nothing
    ├── UnknownStatus                a status row holds a value of a newer Quay
    ├── ManifestError                the bytes of a manifest can't be understood
    ├── StorageError
    │   ├── StorageUnavailable       the store can't be reached, is full, or refuses us
    │   └── BlobNotStored            no location holds the bytes of the blob
    ├── UpstreamError
    │   ├── UpstreamUnavailable      no connection, a time-out, 5xx
    │   ├── UpstreamBusy             429
    │   ├── UpstreamDenied           401 or 403, also after authenticating
    │   ├── UpstreamNotFound         404
    │   └── UpstreamRefused          an answer or a redirect that we won't follow
    ├── BlobError
    │   ├── BlobDigestMismatch       the bytes are not those that the digest names
    │   ├── BlobTooLarge             more bytes than announced or allowed
    │   └── BlobTruncated            fewer bytes than announced
    └── ScannerError
        ├── ScannerUnavailable       no connection, a time-out, 5xx, or an answer that is no report
        │   └── ScannerFetchFailed   Clair is well, but can't fetch or read this one manifest
        ├── ScannerBusy              429
        ├── ScannerDenied            401 or 403: our key is not Clair's
        └── ScannerRejectedManifest  400: Clair's word on the manifest itself

What an error means for the work in hand (retry, later, never) is decided in one place, in
`workers/failures.py`.
"""

from __future__ import annotations


class DataError(Exception):
    """Root of what `data` raises."""


class SettingsError(DataError):
    """A setting is wrong. `key` names it as config.yaml does.

    The message is one line of printable characters, whatever it quotes.
    """

    def __init__(self, key: str, problem: str) -> None:
        self.key = printable(key)
        super().__init__(f"{self.key}: {printable(problem)}")


def printable(text: str) -> str:
    """The text with an escape in place of each control character and lone surrogate."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class SecretError(DataError):
    """An encrypted column or a key can't be read. The message never holds the secret."""


class DatabaseUnavailable(DataError):
    """The database can't be reached, or gave up for now (deadlock, serialization, restart)."""


class NotFoundError(DataError):
    """A reference of a person's (repository, tag, digest, manifest id) points at nothing."""


class UnknownStatus(DataError):
    """A status row holds a value that this version doesn't know: a newer Quay wrote it."""


class ManifestError(DataError):
    """The bytes of a manifest can't be understood."""


class StorageError(DataError):
    """The blob store can't do what was asked."""


class StorageUnavailable(StorageError):
    """The store can't be reached, is full, or refuses us."""


class BlobNotStored(StorageError):
    """No location holds the bytes of the blob."""


class UpstreamError(DataError):
    """The upstream registry didn't give what was asked for."""


class UpstreamUnavailable(UpstreamError):
    """No connection, a time-out or 5xx: worth another try."""


class UpstreamBusy(UpstreamError):
    """429. `retry_after` is in seconds, None where the registry named no time."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamDenied(UpstreamError):
    """401 or 403, also after authenticating with the organisation's credentials."""


class UpstreamNotFound(UpstreamError):
    """404: the registry has no such manifest or blob."""


class UpstreamRefused(UpstreamError):
    """The answer breaks the protocol, or a redirect leads where we won't go."""


class BlobError(DataError):
    """The bytes that came are not the blob."""


class BlobDigestMismatch(BlobError):
    """The sha256 of the bytes is not the digest."""


class BlobTooLarge(BlobError):
    """More bytes than announced or than MAXIMUM_LAYER_SIZE."""


class BlobTruncated(BlobError):
    """Fewer bytes than announced: the connection ended early."""


class ScannerError(DataError):
    """Clair didn't give a report."""


class ScannerUnavailable(ScannerError):
    """No connection, a time-out, 5xx, or an answer that is no report."""


class ScannerFetchFailed(ScannerUnavailable):
    """Clair is well, but couldn't fetch a layer of this manifest from where we said it is (500), or
    gives no answer for this manifest while it answers for others.
    """


class ScannerBusy(ScannerError):
    """429. `retry_after` is in seconds, None where Clair named no time, as it does by default."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ScannerDenied(ScannerError):
    """401 or 403: SECURITY_SCANNER_V4_PSK is not the key that Clair expects."""


class ScannerRejectedManifest(ScannerError):
    """400: Clair's word on the manifest itself, so trying again changes nothing."""
