"""Fetches a layer as Clair does: from the address it was told, with the headers it was told.

The checks are claircore's (libindex/fetcher.go): status 200, a content type that fits what came,
and bytes that hash to the digest. Redirects are followed, and a redirect to another host doesn't
get the Authorization header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Annotated

import requests
import urllib3
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from workers.demo.layerarchive import Compression, compression_of

TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two reads."""

LAYER_LIMIT = 8 * 1024**3
"""Bytes of a layer as it comes. The limit is the stand-in's own."""

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128}", re.ASCII)


class BogusManifest(Exception):
    """What was sent to be indexed is no manifest to Clair."""


class FetchFailed(Exception):
    """The layer couldn't be had. The message names no query string: it may be a signature."""


def is_digest(value: str) -> bool:
    """Is it a digest to Clair?"""
    return _DIGEST.fullmatch(value) is not None


def _digest(value: str) -> str:
    if not is_digest(value):
        raise ValueError("invalid digest")
    return value.lower()


Digest = Annotated[str, AfterValidator(_digest)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class RequestedLayer(_Request):
    """A layer and where to fetch it."""

    hash: Digest
    uri: str = ""
    headers: Annotated[
        Mapping[str, list[str]], BeforeValidator(lambda value: {} if value is None else value)
    ] = {}


class RequestedManifest(_Request):
    """The body of an index request; layers base first."""

    hash: Digest
    layers: list[RequestedLayer]


def parse_manifest(body: bytes) -> RequestedManifest:
    """Read the body of an index request. Raises BogusManifest where Clair would answer 400."""
    try:
        manifest = RequestedManifest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise BogusManifest(f"failed to deserialize manifest: {where} {first['msg']}") from error
    if not manifest.layers:
        raise BogusManifest("bogus manifest")
    return manifest


def fetch_layer(session: requests.Session, layer: RequestedLayer, directory: Path) -> Path:
    """The layer in a file of `directory`, checked. Raises FetchFailed."""
    path = directory / layer.hash.replace(":", "-")
    if not layer.uri:
        raise FetchFailed(f"empty uri for layer {layer.hash}")
    headers = {name: ", ".join(values) for name, values in layer.headers.items()}
    try:
        with session.get(layer.uri, headers=headers, timeout=TIMEOUT, stream=True) as response:
            _check_status(layer, response)
            _download(layer, response, path)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise FetchFailed(f"{_named(layer)}: request failed: {type(error).__name__}") from error
    _check_content_type(layer, response.headers.get("Content-Type"), compression_of(path))
    return path


def _check_status(layer: RequestedLayer, response: requests.Response) -> None:
    if response.status_code != 200:
        start = response.raw.read(256, decode_content=False).decode(errors="replace")
        raise FetchFailed(
            f"{_named(layer)}: unexpected status code: {response.status_code} "
            f"{response.reason} (body starts: {start!r})"
        )


def _download(layer: RequestedLayer, response: requests.Response, path: Path) -> None:
    algorithm, _, expected = layer.hash.partition(":")
    content, size = hashlib.new(algorithm), 0
    with path.open("wb") as file:
        # Not iter_content: a layer that is gzip must stay so.
        for part in response.raw.stream(64 * 1024, decode_content=False):
            size += len(part)
            if size > LAYER_LIMIT:
                raise FetchFailed(f"{_named(layer)}: more than {LAYER_LIMIT} bytes")
            content.update(part)
            file.write(part)
    if content.hexdigest() != expected:
        raise FetchFailed(
            f"{_named(layer)}: validation failed: got {content.hexdigest()}, expected {expected}"
        )


def _check_content_type(layer: RequestedLayer, header: str | None, found: Compression) -> None:
    if not header:
        raise FetchFailed(f"{_named(layer)}: no content type")
    message = Message()
    message["Content-Type"] = header
    kind = message.get_content_type()
    if kind in ("text/plain", "application/octet-stream", "binary/octet-stream"):
        return
    announced = _announced(kind)
    if announced is None:
        raise FetchFailed(f"{_named(layer)}: unknown content-type {kind!r}")
    if announced is not found:
        raise FetchFailed(
            f"{_named(layer)}: mismatched compression ({found.value}) and content-type ({kind!r})"
        )


def _announced(kind: str) -> Compression | None:
    if kind.endswith((".tar.gzip", ".tar+gzip")) or kind in (
        "application/gzip",
        "application/x-gzip",
    ):
        return Compression.GZIP
    if kind.endswith(".tar+zstd") or kind == "application/zstd":
        return Compression.ZSTD
    if kind.endswith(".tar") or kind == "application/x-tar":
        return Compression.NONE
    return None


def _named(layer: RequestedLayer) -> str:
    return f"layer {layer.hash} at {layer.uri.partition('?')[0]}"
