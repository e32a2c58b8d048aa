"""Bytes of a manifest -> the JSON object in them, whoever wrote it.

A manifest comes from an upstream registry, so nothing in it is trusted: its size, its encoding, how
deeply it is nested, a key that stands twice (of which two readers may each see another value), a
manifest that is of two kinds at once.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from data.digests import parse_digest
from data.errors import ManifestError

# Registries refuse larger manifests (distribution: 4 MiB).
LARGEST_MANIFEST = 4 * 1024 * 1024
# Far above any image (Docker's limit is 127 layers), far below what would hurt.
MOST_ENTRIES = 4096
# Of what is wrong with one manifest: a message is stored with its row, and read by a person.
MOST_TOLD = 3
# For people who know JSON rather than pydantic.
PLAIN_WORDS = {
    "missing": "missing",
    "model_type": "no object",
    "list_type": "no list",
    "string_type": "no text",
    "int_type": "no whole number",
}


def digest_or_value_error(text: str) -> str:
    try:
        return parse_digest(text)
    except ManifestError as error:
        raise ValueError(str(error)) from error


Digest = Annotated[str, AfterValidator(digest_or_value_error)]
# A signed 64 bit number, as in OCI's schema and in Quay's column.
Size = Annotated[int, Field(ge=0, lt=2**63)]
# Not the grammar of RFC 6838: Quay stores what clients send, and some send no media type at all.
# But plain text, as it goes into a column, a log and a message.
MediaType = Annotated[str, Field(max_length=255, pattern=r"^[\x20-\x7e]*$")]


class Part(BaseModel):
    """What a format's models share: types as JSON has them, and keys that we don't read ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Descriptor(Part):
    """How a manifest names a blob or another manifest (OCI image spec, "Content Descriptors")."""

    media_type: MediaType = Field(alias="mediaType")
    digest: Digest
    size: Size
    urls: list[str] | None = None


PartType = TypeVar("PartType", bound=Part)


def read_document(
    manifest_bytes: str | bytes, model: type[PartType], *, other_kinds: tuple[str, ...]
) -> PartType:
    """The manifest as `model` describes it.

    `other_kinds` are the keys that would make it a manifest of another kind as well, which another
    reader might take it for (CVE-2021-41190). Raises `ManifestError` with what is wrong, and where.
    """
    document = load_json(manifest_bytes)
    for key in other_kinds:
        if document.get(key):
            raise ManifestError(f"the manifest is of two kinds at once: it has {key!r} too")
    return validate(document, model)


def validate(document: dict[str, Any], model: type[PartType]) -> PartType:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(
            f"{place(each['loc'])}: {PLAIN_WORDS.get(each['type'], each['msg'])}"
            for each in wrong[:MOST_TOLD]
        )
        raise ManifestError(f"the manifest's {told}") from error


def place(steps: tuple[int | str, ...]) -> str:
    """Where in the manifest, as in layers[2].digest."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def load_json(text: str | bytes) -> dict[str, Any]:
    """The JSON object that `text` is. Raises `ManifestError` where it is none, or too large."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > LARGEST_MANIFEST:
        raise ManifestError(
            f"a manifest of {len(raw)} bytes is larger than any may be ({LARGEST_MANIFEST})"
        )
    try:
        # Decoded here: json would take UTF-16 and UTF-32 for text as well.
        document = json.loads(
            raw.decode(), object_pairs_hook=unique_keys, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is no JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise ManifestError("the manifest is JSON, but no object")
    return document


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return document
