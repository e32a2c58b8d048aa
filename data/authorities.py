"""Certificate authorities that only this site knows, from where Quay takes them.

At its start Quay's container adds what lies in `conf/stack/extra_ca_certs` (a directory, or one
file), and files beside config.yaml whose names begin with `extra_ca`, to the authorities of its
system. A process of ours can't: it puts all of them into one file of its own, and names it in the
variables by which OpenSSL, requests, boto3 and obstore find theirs.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import certifi

from data.errors import SettingsError

DIRECTORY = "extra_ca_certs"
PREFIXED = "extra_ca*"
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)


def trust_extra_authorities(conf: Path, environ: MutableMapping[str, str]) -> int:
    """Has this process, and those it starts, trust the site's own authorities; says how many.

    To be called before the first connection. `conf` is Quay's configuration directory. A variable
    that is set already stays: whoever set it knows better. Raises `SettingsError` for a file that
    can't be read.
    """
    extra = [certificate for file in find_files(conf) for certificate in read_certificates(file)]
    if not extra:
        return 0
    bundle = write_bundle([*system_certificates(), *extra])
    for variable in VARIABLES:
        environ.setdefault(variable, str(bundle))
    return len(extra)


def find_files(conf: Path) -> list[Path]:
    stack = conf / "stack"
    directory = stack / DIRECTORY
    inside = directory.iterdir() if directory.is_dir() else iter(())
    return sorted(file for file in {*inside, *stack.glob(PREFIXED)} if file.is_file())


def read_certificates(file: Path) -> Iterator[bytes]:
    """The certificates in PEM form; whatever else lies there is passed over, as OpenSSL does."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(
            str(file), f"can't be read ({error.strerror or error}); let the workers' user read it"
        ) from error
    yield from CERTIFICATE.findall(content)


def system_certificates() -> Iterator[bytes]:
    """The system's and certifi's: one of the two may be missing or old."""
    system = ssl.get_default_verify_paths().cafile
    for file in {system, certifi.where()} - {None}:
        yield from read_certificates(Path(str(file)))


def write_bundle(certificates: list[bytes]) -> Path:
    """One file a user, replaced at once and whole: other workers may be starting as well."""
    directory = Path(tempfile.gettempdir())
    bundle = directory / f"quay-rescan-authorities-{os.getuid()}.pem"
    try:
        with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
            file.write(b"\n".join(dict.fromkeys(certificates)) + b"\n")
        Path(file.name).replace(bundle)
    except OSError as error:
        raise SettingsError(
            DIRECTORY,
            f"can't be used: {bundle} can't be written ({error.strerror or error}); "
            "make the directory for temporary files writable",
        ) from error
    return bundle
