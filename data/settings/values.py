"""The kinds of value that config.yaml holds: sizes, secrets, addresses, whole numbers.

Each kind is a pydantic type. A validator raises ValueError with the words that follow the key in
the message; it never repeats the value, which may be secret.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, SecretStr

SIZE = re.compile(
    r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*(?:([kmgtpe])(i?))?b?\s*", re.IGNORECASE | re.ASCII
)
UNITS = "kmgtpe"
LARGEST_SIZE = 2**63 - 1  # what the size column of a blob can hold
DATABASE_SCHEMES = ("postgresql", "postgresql+psycopg2", "mysql", "mysql+pymysql")


def refuse_boolean(value: Any) -> Any:
    """YAML's true and false are no numbers, though Python takes them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def number_to_text(value: Any) -> Any:
    """YAML reads 1234 as a number, where a key or a password of digits was meant."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | SecretStr):
        raise ValueError("should be text; put it in quotes")
    return value


def parse_size(value: Any, *, decimal: bool) -> int:
    """Bytes of "8G", "20Gi", "500 MB" or a plain number.

    With `decimal`, G is 10^9 and Gi is 2^30; without, both are 2^30.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('should be a size such as "20G"')
    match = SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError('should be a size such as "20G"')
    number, unit, binary = match.groups()
    base = 1000 if decimal and not binary else 1024
    power = UNITS.index(unit.lower()) + 1 if unit else 0
    size = int(Decimal(number) * base**power)
    if not 0 < size <= LARGEST_SIZE:
        raise ValueError("should be more than nothing and less than 8 exbibytes")
    return size


def decimal_size(value: Any) -> int:
    """As bitmath reads MAXIMUM_LAYER_SIZE in Quay: 20G is 20,000,000,000."""
    return parse_size(value, decimal=True)


def binary_size(value: Any) -> int | None:
    """As Quay reads SECURITY_SCANNER_V4_INDEX_MAX_LAYER_SIZE: 8G is 8 x 2^30; "" is no limit."""
    return None if value in (None, "") else parse_size(value, decimal=False)


def split_url(url: str) -> SplitResult:
    """`urlsplit`, whose own errors quote the URL and with it a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "isn't a URL; write special characters of a password as %XX, a port as a number"
        ) from None
    if port == 0:
        raise ValueError("should have a port from 1 to 65535")
    return parts


def check_http_url(value: Any) -> Any:
    parts = split_url(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be a URL that begins with http:// or https:// and names a host")
    return value


def check_database_uri(value: Any) -> Any:
    """One of the schemes that Quay knows, and a database in it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, str) and re.fullmatch(r"sqlite:///.+", value):
        return value
    parts = split_url(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in DATABASE_SCHEMES:
        raise ValueError(
            f"should be a URL that begins with sqlite:/// or {', '.join(DATABASE_SCHEMES)} and ://"
        )
    if not parts.path.strip("/"):
        raise ValueError("should name a database, as in postgresql://user:password@host/quay")
    return value


Text = Annotated[str, BeforeValidator(number_to_text)]
Secret = Annotated[SecretStr, BeforeValidator(number_to_text)]
DatabaseUri = Annotated[SecretStr, BeforeValidator(check_database_uri)]
HttpUrl = Annotated[str, BeforeValidator(check_http_url)]
DecimalSize = Annotated[int, BeforeValidator(decimal_size)]
BinarySize = Annotated[int | None, BeforeValidator(binary_size)]
Count = Annotated[int, BeforeValidator(refuse_boolean), Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, BeforeValidator(refuse_boolean), Field(ge=0, le=1_000_000)]
Seconds = Annotated[int, BeforeValidator(refuse_boolean), Field(ge=1, le=10 * 365 * 86400)]
